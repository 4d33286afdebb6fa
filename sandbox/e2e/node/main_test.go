// Package node tests the whole loop on a real machine: the agent as a static binary in a virtual machine with a real
// kernel, a real PCI Express device that stands for a GPU, and real reboots; the controller and a real API server on the
// host. The control plane has no kubelet, so the tests play one, which probes the agent inside the machine as a real one
// would.
package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/config"
	"github.com/roundhouse-dev/roundhouse/internal/controller"
	"github.com/roundhouse-dev/roundhouse/sandbox/controlplane"
	"github.com/roundhouse-dev/roundhouse/sandbox/vm"
)

const (
	// agentPackage is what runs in the machine, built as it is shipped.
	agentPackage = "github.com/roundhouse-dev/roundhouse/cmd/roundhouse-agent"
	// probation and grace are compressed: what they wait for is not what these tests are about.
	probation = 3 * time.Second
	grace     = time.Second
)

// suite is what the package's tests share: one control plane, one controller, and the agent's binary.
type suite struct {
	cp    *controlplane.ControlPlane
	admin client.WithWatch
	agent string

	stop  context.CancelFunc
	ended chan struct{} // closed when the controller has ended, with err
	err   error
}

var shared suite

func TestMain(m *testing.M) {
	ctx, cancel := context.WithCancel(context.Background())
	code := controlplane.RunTests(m, controlplane.Options{WithoutNodeLifecycle: true}, func(cp *controlplane.ControlPlane) error {
		return shared.start(ctx, cp)
	})
	if err := shared.end(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	cancel()
	os.Exit(code)
}

// start installs Roundhouse as a user would, and starts its controller under its own credential. The agent is built
// meanwhile.
func (s *suite) start(ctx context.Context, cp *controlplane.ControlPlane) error {
	s.cp = cp
	ctrl.SetLogger(logger())
	dir, err := os.MkdirTemp("", "roundhouse-node-")
	if err != nil {
		return fmt.Errorf("making a directory for the agent: %w", err)
	}
	s.agent = filepath.Join(dir, "roundhouse-agent")
	var building sync.WaitGroup
	var buildErr error
	building.Go(func() { buildErr = vm.BuildStatic(ctx, s.agent, agentPackage) })
	defer building.Wait()
	if err := cp.Apply(ctx, config.Files, "crd", "rbac", "admission"); err != nil {
		return err
	}
	scheme, err := controller.Scheme()
	if err != nil {
		return err
	}
	if s.admin, err = client.NewWithWatch(cp.AdminConfig(), client.Options{Scheme: scheme}); err != nil {
		return fmt.Errorf("making a client: %w", err)
	}
	for _, obj := range []client.Object{policy(), budget()} {
		if err := s.admin.Create(ctx, obj); err != nil {
			return fmt.Errorf("creating %s: %w", obj.GetName(), err)
		}
	}
	if err := s.startController(ctx); err != nil {
		return err
	}
	building.Wait()
	return buildErr
}

// startController runs the real controller until end.
func (s *suite) startController(ctx context.Context) error {
	cfg, err := s.cp.ServiceAccountConfig(ctx, config.Namespace, config.ControllerServiceAccount, controlplane.Binding{})
	if err != nil {
		return err
	}
	ctx, s.stop = context.WithCancel(ctx)
	s.ended = make(chan struct{})
	go func() {
		defer close(s.ended)
		s.err = controller.Run(ctx, cfg, controller.Config{Namespace: config.Namespace, ReportingGrace: grace, Logger: logger()})
	}()
	return nil
}

// end stops the controller and removes what was built.
func (s *suite) end() error {
	errs := []error{}
	if s.stop != nil {
		s.stop()
		<-s.ended // a controller whose context has ended ends within its graceful shutdown
		errs = append(errs, s.err)
	}
	if s.agent != "" {
		errs = append(errs, os.RemoveAll(filepath.Dir(s.agent)))
	}
	return errors.Join(errs...)
}

// logger is quiet unless ROUNDHOUSE_TEST_LOG is set.
func logger() logr.Logger {
	if os.Getenv("ROUNDHOUSE_TEST_LOG") == "" {
		return logr.Discard()
	}
	return funcr.New(func(prefix, args string) { fmt.Fprintln(os.Stderr, prefix, args) }, funcr.Options{LogTimestamp: true}).WithName("controller")
}

// policy repairs critical faults of hardware by a reboot.
func policy() *v1alpha1.RemediationPolicy {
	return &v1alpha1.RemediationPolicy{ObjectMeta: metav1.ObjectMeta{Name: "training"}, Spec: v1alpha1.RemediationPolicySpec{
		Mode: v1alpha1.ModeRemediate,
		Rules: []v1alpha1.Rule{
			{Name: "application", Match: v1alpha1.RuleMatch{Classes: []v1alpha1.FaultClass{v1alpha1.ClassApplication}}, Response: v1alpha1.ResponseIgnore},
			{Name: "critical", Match: v1alpha1.RuleMatch{Severities: []v1alpha1.Severity{v1alpha1.SeverityCritical}},
				Response: v1alpha1.ResponseRepair, Ladder: []string{"reboot", "human"}},
		},
		Rungs: []v1alpha1.Rung{
			{Name: "reboot", Action: v1alpha1.RungReboot, Timeout: &metav1.Duration{Duration: 2 * time.Minute}},
			{Name: "human", Action: v1alpha1.RungEscalate, Message: "look at it"},
		},
		Verify:    &v1alpha1.Verify{Settle: &metav1.Duration{Duration: time.Second}},
		Probation: &metav1.Duration{Duration: probation},
	}}
}

// budget lets the tests' nodes out at the same time: none is to wait for another's.
func budget() *v1alpha1.NodeDisruptionBudget {
	return &v1alpha1.NodeDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Name: "all"},
		Spec: v1alpha1.NodeDisruptionBudgetSpec{MaxUnavailable: ptr.To(intstr.FromInt32(4))}}
}
