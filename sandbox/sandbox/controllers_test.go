package sandbox

import (
	"context"
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/sandbox/fleet"
)

func TestASecondControllerLeadsOnceTheFirstIsFrozenOrDead(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	first, err := shared.WaitLeader(ctx)
	if err != nil {
		t.Fatal(err)
	}
	second, err := shared.StartController(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Freeze(); err != nil {
		t.Fatal(err)
	}
	leader, err := shared.WaitLeader(ctx, first)
	if err != nil || leader != second {
		t.Fatalf("leader %v, error %v", leader, err)
	}
	if err := first.Thaw(); err != nil {
		t.Fatal(err)
	}
	// A leader that has lost its Lease ends by itself, or is killed here; either way a third one is not needed.
	if err := first.Kill(ctx); err != nil {
		t.Fatal(err)
	}
	if first.Alive() || !second.Alive() {
		t.Errorf("alive: first %t, second %t", first.Alive(), second.Alive())
	}
	if got := shared.Controllers(); len(got) != 1 || got[0] != second {
		t.Errorf("%d controllers are alive, want the second alone", len(got))
	}
}

func TestAnotherProgramFindsTheSandboxAndInjects(t *testing.T) {
	running, err := Find(t.Context(), shared.o.StateDir)
	if err != nil {
		t.Fatal(err)
	}
	if running.PID != os.Getpid() || running.Kubeconfig != shared.Kubeconfig() || running.Nodes != 8 {
		t.Errorf("found %+v", running)
	}
	if err := running.Inject(t.Context(), fleet.Injection{Fault: "node-condition", Node: "gpu-06"}); err != nil {
		t.Fatal(err)
	}
	node, err := getNode(t.Context(), shared, "gpu-06")
	if err != nil || conditionOf(node, fleet.ForeignCondition) != corev1.ConditionTrue {
		t.Errorf("condition %s, error %v", conditionOf(node, fleet.ForeignCondition), err)
	}
	err = running.Inject(t.Context(), fleet.Injection{Fault: "nothing", Node: "gpu-06"})
	if err == nil || !strings.Contains(err.Error(), "xid79") {
		t.Errorf("an unknown fault: %v, want an error that lists the known ones", err)
	}
	if err := running.Inject(t.Context(), fleet.Injection{Fault: "heal", Node: "gpu-06"}); err != nil {
		t.Fatal(err)
	}
	if _, err := Find(t.Context(), t.TempDir()); !errors.Is(err, ErrNone) {
		t.Errorf("in an empty directory: %v, want ErrNone", err)
	}
}

// What is done above a thousand nodes is done here to a few: no agent pods, tokens bound to Nodes, agents that are
// stepped, slices on demand.
func TestTheWaysOfALargeFleet(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), startWithin)
	defer cancel()
	s, err := Start(ctx, Options{Fleet: fleet.Options{Nodes: 6, ManyNodes: 2, OwnWatches: 2, RebootTakes: time.Second}})
	if err != nil {
		t.Fatal(err)
	}
	pids := s.ControlPlane().PIDs()
	controller := s.Controllers()[0]
	stopped := false
	stop := func() {
		if stopped {
			return
		}
		stopped = true
		end, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
		defer cancel()
		if err := s.Stop(end); err != nil {
			t.Error(err)
		}
	}
	defer stop()
	pods := &corev1.PodList{}
	if err := s.Client().List(ctx, pods); err != nil || len(pods.Items) != 0 {
		t.Errorf("%d pods, error %v, want none", len(pods.Items), err)
	}
	if h, err := health(ctx, s, "gpu-04"); err != nil || writtenByAnAgent(h) {
		t.Errorf("a first word of a fleet that has run before is the administrator's; error %v, %+v", err, h.ManagedFields)
	}
	inject(t, s, fleet.Injection{Fault: "xid79", Node: "gpu-04", Device: 7})
	took := eventually(t, 10*time.Second, "the fault is in the API, in the agent's own name", func(ctx context.Context) (bool, error) {
		h, err := health(ctx, s, "gpu-04")
		return err == nil && h.Status.Summary == v1alpha1.SummaryFaulty && writtenByAnAgent(h), err
	})
	t.Logf("kernel line to fault in the API: %s", took.Round(time.Millisecond))
	askReboot(t, s, "gpu-04", "test-large")
	eventually(t, 20*time.Second, "the reboot is done", rebooted(s, "gpu-04", "test-large"))
	eventually(t, 20*time.Second, "the node is Healthy", func(ctx context.Context) (bool, error) {
		h, err := health(ctx, s, "gpu-04")
		return err == nil && h.Status.Summary == v1alpha1.SummaryHealthy, err
	})
	if err := s.Fleet().EnsureSlices(ctx, "gpu-04"); err != nil {
		t.Error(err)
	}
	stop()
	pids["controller"] = controller.PID()
	for name, pid := range pids {
		if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
			t.Errorf("%s, process %d, is left: %v", name, pid, err)
		}
	}
	if _, err := os.Stat(s.Dir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("directory %s is left: %v", s.Dir(), err)
	}
}
