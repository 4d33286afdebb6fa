// Package remedies tests the repairs that the controller carries out itself, on a real API server with its real scheduler
// and controllers, as the controller: under its service account, its role and the admission policies that hold it.
package remedies

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/config"
	"github.com/roundhouse-dev/roundhouse/internal/remedy"
	"github.com/roundhouse-dev/roundhouse/sandbox/controlplane"
	"github.com/roundhouse-dev/roundhouse/sandbox/fleet"
	"github.com/roundhouse-dev/roundhouse/sandbox/sandbox"
)

const (
	// startWithin and within bound the start and one wait; both are seconds where nothing else runs.
	startWithin = 4 * time.Minute
	within      = 90 * time.Second
	// identity is that of the controller which the tests play.
	identity = "the-tests"
)

var (
	// shared is three nodes of four GPUs, of which the last has a device plugin; no controller of ours runs.
	shared *sandbox.Sandbox
	// controller and kube are the controller's own clients.
	controller client.Client
	kube       kubernetes.Interface
)

func TestMain(m *testing.M) { os.Exit(runTests(m)) }

func runTests(m *testing.M) (code int) {
	ctx, cancel := context.WithTimeout(context.Background(), startWithin)
	defer cancel()
	var err error
	shared, err = sandbox.Start(ctx, sandbox.Options{Controllers: -1, Fleet: fleet.Options{Nodes: 3, GPUs: 4, DevicePlugin: 1}})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code = 1
	if err = lead(ctx); err == nil {
		code = m.Run()
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	if err = errors.Join(err, shared.Stop(stop)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// lead makes the clients of the controller, and holds the Lease, without which its writes are refused.
func lead(ctx context.Context) error {
	cfg, err := shared.ControlPlane().ServiceAccountConfig(ctx, config.Namespace, config.ControllerServiceAccount, controlplane.Binding{})
	if err != nil {
		return err
	}
	if kube, err = kubernetes.NewForConfig(cfg); err != nil {
		return fmt.Errorf("making the controller's client: %w", err)
	}
	controller, err = client.New(cfg, client.Options{Scheme: shared.Client().Scheme(), FieldOwner: config.FieldManagerPrefix + identity})
	if err != nil {
		return fmt.Errorf("making the controller's client: %w", err)
	}
	body := fmt.Appendf(nil, `{"spec":{"holderIdentity":%q}}`, identity)
	_, err = shared.Kube().CoordinationV1().Leases(config.Namespace).Patch(ctx, config.LeaderLease, types.MergePatchType, body, metav1.PatchOptions{})
	if err != nil {
		return fmt.Errorf("taking the Lease: %w", err)
	}
	return nil
}

// eventually asks until there is no error.
func eventually(t *testing.T, what string, check func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	for {
		err := check(ctx)
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("after %s, still not so: %s: %v", within, what, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// admin changes what the controller may not.
func admin(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// create makes an object that goes with the test.
func create(t *testing.T, object client.Object) {
	t.Helper()
	admin(t, "creating "+object.GetName(), shared.Client().Create(t.Context(), object))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), within)
		defer cancel()
		err := shared.Client().Delete(ctx, object, client.PropagationPolicy(metav1.DeletePropagationBackground))
		if client.IgnoreNotFound(err) != nil {
			t.Errorf("deleting %s: %v", object.GetName(), err)
		}
	})
}

func getNode(t *testing.T, name string) *corev1.Node {
	t.Helper()
	node := &corev1.Node{}
	admin(t, "reading node", shared.Client().Get(t.Context(), types.NamespacedName{Name: name}, node))
	return node
}

// change changes a node, whoever else does.
func change(ctx context.Context, name string, to func(*corev1.Node)) error {
	node := &corev1.Node{}
	if err := shared.Client().Get(ctx, types.NamespacedName{Name: name}, node); err != nil {
		return err
	}
	before := node.DeepCopy()
	to(node)
	return shared.Client().Patch(ctx, node, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}))
}

// incident is a Remediation of a node that carries its taint until the test ends.
func incident(t *testing.T, name, node string, devices ...string) *v1alpha1.Remediation {
	t.Helper()
	rem := &v1alpha1.Remediation{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.RemediationSpec{
		Node: node, NodeUID: string(getNode(t, node).UID), Devices: devices,
		Root: v1alpha1.RootFault{Code: "Xid79", FirstSeen: metav1.Now()},
	}}
	create(t, rem)
	taint(t, node, corev1.Taint{Key: v1alpha1.TaintQuarantined, Value: name, Effect: corev1.TaintEffectNoSchedule})
	return rem
}

// taint taints a node until the test ends.
func taint(t *testing.T, node string, taint corev1.Taint) {
	t.Helper()
	eventually(t, "the taint is on", func(ctx context.Context) error {
		return change(ctx, node, func(n *corev1.Node) { n.Spec.Taints = append(n.Spec.Taints, taint) })
	})
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), within)
		defer cancel()
		for {
			err := change(ctx, node, func(n *corev1.Node) {
				var kept []corev1.Taint
				for _, other := range n.Spec.Taints {
					if !other.MatchTaint(&taint) {
						kept = append(kept, other)
					}
				}
				n.Spec.Taints = kept
			})
			if err == nil || ctx.Err() != nil {
				return
			}
		}
	})
}

// attempt is what the controller hands to a remedy: the word Begun is written.
func attempt(t *testing.T, rem *v1alpha1.Remediation, rung v1alpha1.Rung) remedy.Attempt {
	t.Helper()
	with := rem.DeepCopy()
	with.Status.Step = &v1alpha1.Step{Rung: rung.Name, Attempt: 1, Remedy: &v1alpha1.RemedyStatus{State: v1alpha1.RemedyBegun, Begun: metav1.Now()}}
	return remedy.Attempt{ID: rem.Name + "-1", Remediation: with, Node: getNode(t, rem.Spec.Node), Rung: rung}
}

// carryOut looks until the attempt is over, as the controller does: what conflicts is asked again, and a running attempt is
// written down as such. seen is told each answer.
func carryOut(t *testing.T, r remedy.Remedy, a remedy.Attempt, seen func(remedy.Progress)) remedy.Progress {
	t.Helper()
	if refusal, err := r.Check(t.Context(), a); err != nil || refusal != "" {
		t.Fatalf("Check: %q, %v", refusal, err)
	}
	last := remedy.Progress{}
	ask := r.Begin
	eventually(t, "the attempt is over", func(ctx context.Context) error {
		node := &corev1.Node{}
		if err := shared.Client().Get(ctx, types.NamespacedName{Name: a.Node.Name}, node); err != nil {
			return err
		}
		a.Node = node
		progress, err := ask(ctx, a)
		if err != nil {
			return err
		}
		if progress != last {
			t.Logf("%s: %s", progress.State, progress.Message)
		}
		ask, last = r.Look, progress
		a.Remediation.Status.Step.Remedy.State = progress.State
		seen(progress)
		if !progress.State.Over() {
			return errors.New(progress.Message)
		}
		return nil
	})
	return last
}

// podsOn are the pods on a node that have these labels, or anywhere without a node.
func podsOn(ctx context.Context, namespace, node string, labels map[string]string) ([]corev1.Pod, error) {
	list := &corev1.PodList{}
	options := []client.ListOption{client.InNamespace(namespace), client.MatchingLabels(labels)}
	if node != "" {
		options = append(options, client.MatchingFields{"spec.nodeName": node})
	}
	if err := shared.Client().List(ctx, list, options...); err != nil {
		return nil, err
	}
	return list.Items, nil
}
