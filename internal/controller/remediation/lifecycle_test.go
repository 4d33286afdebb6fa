package remediation

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/decide"
	"github.com/roundhouse-dev/roundhouse/internal/maintenance"
)

// asks writes a request for planned work onto the node.
func (c *cluster) asks(text string) {
	c.t.Helper()
	n := c.node()
	metav1.SetMetaDataAnnotation(&n.ObjectMeta, v1alpha1.AnnotationMaintenance, text)
	c.must(c.server.Update(c.t.Context(), n))
}

// lifecycleOf are the lifecycle conditions of the node that are ours.
func (c *cluster) lifecycleOf() map[corev1.NodeConditionType]corev1.ConditionStatus {
	out := map[corev1.NodeConditionType]corev1.ConditionStatus{}
	for _, cond := range c.node().Status.Conditions {
		if cond.Reason == v1alpha1.ReasonLifecycle {
			out[cond.Type] = cond.Status
		}
	}
	return out
}

// startAnew is the agent of a node that starts anew, well, with whatever it was asked for done.
func (c *cluster) startAnew(boot string) {
	c.t.Helper()
	h := c.health()
	h.Status.Faults, h.Status.BootID = nil, boot
	h.Status.Boots = append(h.Status.Boots, v1alpha1.Boot{ID: boot, At: metav1.NewTime(c.clock.Now()), Cause: v1alpha1.BootByRoundhouse})
	h.Status.CompletedRound = &v1alpha1.Round{BootID: boot, At: metav1.NewTime(c.clock.Now())}
	for i := range h.Status.Devices {
		h.Status.Devices[i].Health = v1alpha1.DeviceHealthy
	}
	if a := h.Spec.Action; a != nil {
		h.Status.CompletedRound.AfterAction = a.ID
		h.Status.Action = &v1alpha1.ActionStatus{ID: a.ID, State: v1alpha1.ActionDone, Result: v1alpha1.ResultSucceeded}
	}
	c.must(c.server.Status().Update(c.t.Context(), h))
}

func TestPlannedWorkIsDoneOnceAndTheRequestIsTakenOff(t *testing.T) {
	c := newCluster(t, faulty()...)
	request := maintenance.Request{Reason: "new kernel", By: "y.sato", At: metav1.NewTime(c.clock.Now()), Rung: "reboot"}
	c.asks(request.String())
	c.clock.SetTime(began.Add(time.Minute))
	c.turns(1, time.Minute)
	if rem := c.incident(); rem.Spec.Cause != v1alpha1.CauseMaintenance || rem.Status.Reason != decide.ReasonActionAsked {
		t.Fatalf("%s: %s %s", rem.Spec.Cause, rem.Status.Reason, rem.Status.Message)
	}
	const yes, no = corev1.ConditionTrue, corev1.ConditionFalse
	type conditions = map[corev1.NodeConditionType]corev1.ConditionStatus
	if diff := cmp.Diff(conditions{corev1.NodeMaintenanceInProgress: yes, corev1.NodeDrained: yes}, c.lifecycleOf()); diff != "" {
		t.Errorf("while it is worked on:\n%s", diff)
	}
	c.startAnew("b2")
	c.turns(6, time.Minute)
	if rem := c.incident(); rem.Status.Reason != decide.ReasonMaintenanceDone || len(rem.Finalizers) > 0 {
		t.Errorf("%s %s, %v", rem.Status.Phase, rem.Status.Reason, rem.Finalizers)
	}
	if diff := cmp.Diff(conditions{corev1.NodeMaintenanceInProgress: no, corev1.NodeDrained: no}, c.lifecycleOf()); diff != "" {
		t.Errorf("at the end:\n%s", diff)
	}
	if n := c.node(); len(n.Annotations) > 0 || len(n.Spec.Taints) > 0 || c.slots() > 0 {
		t.Errorf("left: %v %v, %d slots", n.Annotations, n.Spec.Taints, c.slots())
	}
}

func TestARequestOutlivesTheIncidentThatDidNotServeIt(t *testing.T) {
	request := maintenance.Request{Reason: "new kernel", By: "y.sato", At: metav1.NewTime(began), Rung: "reboot", When: v1alpha1.WhenWindow}
	cancel := func(c *cluster) { c.cancel() }
	for name, tc := range map[string]struct {
		faults []v1alpha1.Fault
		do     func(*cluster)
		kept   bool
	}{
		"cancelled, it is wanted no more":                  {nil, cancel, false},
		"another incident that a human cancels is not its": {[]v1alpha1.Fault{aFault("Xid79", bad)}, cancel, true},
		"asked for anew while the last is being cancelled": {nil, func(c *cluster) {
			again := request
			again.At = metav1.NewTime(began.Add(time.Hour))
			c.asks(again.String())
			c.cancel()
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, faulty(tc.faults...)...)
			if len(tc.faults) > 0 {
				c.turns(1, time.Second)
			}
			c.asks(request.String())
			c.turns(1, time.Second)
			tc.do(c)
			c.turns(3, time.Second)
			if _, kept := c.node().Annotations[v1alpha1.AnnotationMaintenance]; kept != tc.kept {
				t.Errorf("the request is kept: %v, want %v", kept, tc.kept)
			}
		})
	}
}

// said are the Events that were made.
type said []string

func (s *said) Eventf(regarding, _ runtime.Object, kind, reason, _, note string, args ...any) {
	node, _ := regarding.(client.Object)
	*s = append(*s, fmt.Sprintf("%s %s on %s: %s", kind, reason, node.GetName(), fmt.Sprintf(note, args...)))
}

func TestARequestThatCannotBeReadIsToldOnTheNodeAndDoesNothing(t *testing.T) {
	c := newCluster(t, faulty()...)
	var told said
	c.Events = &told
	c.asks("reboot please")
	c.turns(1, time.Second)
	if len(c.incidents()) > 0 {
		t.Error("an incident")
	}
	if len(told) != 1 || !strings.HasPrefix(told[0], "Warning MaintenanceUnreadable on n: annotation roundhouse.dev/maintenance of node n: write it with kubectl roundhouse maintain") {
		t.Errorf("told %q", told)
	}
}

func TestAConditionThatCannotBeWrittenIsWrittenLater(t *testing.T) {
	c := newCluster(t, faulty(aFault("Xid79", ""))...)
	refused := 0
	patch := func(_ context.Context, o client.Object) error {
		if _, ok := o.(*corev1.Node); ok && refused == 0 {
			refused++
			return fmt.Errorf("the server is busy")
		}
		return nil
	}
	c.refuseStatusPatch = patch
	if _, err := c.turn(); err == nil || !strings.Contains(err.Error(), "lifecycle conditions of node n") {
		t.Errorf("error %v", err)
	}
	c.turns(1, time.Second)
	if got := c.lifecycleOf()[corev1.NodeMaintenanceInProgress]; got != corev1.ConditionTrue {
		t.Errorf("MaintenanceInProgress is %q", got)
	}
}
