package remedies

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/remedy"
	"github.com/roundhouse-dev/roundhouse/internal/remedy/driverpod"
	"github.com/roundhouse-dev/roundhouse/sandbox/fleet"
)

const (
	appLabel    = "app.kubernetes.io/name"
	pluginLabel = "nvidia.com/gpu.deploy.device-plugin"
	draLabel    = "nvidia.com/gpu.deploy.dra-driver"
)

func restart(app string) v1alpha1.Rung {
	return v1alpha1.Rung{Name: "restart-driver", Action: v1alpha1.RungRestartDriver, DriverPod: &v1alpha1.DriverPod{
		Namespace: fleet.SystemNamespace, PodLabels: map[string]string{appLabel: app},
	}}
}

// theOne waits for the one pod of a DaemonSet on the node that is Ready.
func theOne(t *testing.T, app, node string) *corev1.Pod {
	t.Helper()
	var found *corev1.Pod
	eventually(t, app+" is Ready on "+node, func(ctx context.Context) error {
		pods, err := podsOn(ctx, fleet.SystemNamespace, node, map[string]string{appLabel: app})
		if err != nil {
			return err
		}
		if len(pods) != 1 || pods[0].DeletionTimestamp != nil {
			return fmt.Errorf("there are %d", len(pods))
		}
		for _, c := range pods[0].Status.Conditions {
			if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
				found = &pods[0]
				return nil
			}
		}
		return errors.New("it is not Ready")
	})
	return found
}

// operand is a DaemonSet as the GPU operator makes them: it selects nodes by a label of its own.
func operand(t *testing.T, app, label string, tolerations ...corev1.Toleration) {
	t.Helper()
	labels := map[string]string{appLabel: app}
	create(t, &appsv1.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: fleet.SystemNamespace, Name: app},
		Spec: appsv1.DaemonSetSpec{Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: corev1.PodTemplateSpec{
			ObjectMeta: metav1.ObjectMeta{Labels: labels},
			Spec: corev1.PodSpec{
				NodeSelector: map[string]string{label: "true"}, Tolerations: tolerations,
				Containers: []corev1.Container{{Name: "main", Image: "example.test/" + app}},
			},
		}},
	})
}

// operated labels nodes as the GPU operator does, until the test ends.
func operated(t *testing.T, labels []string, nodes ...string) {
	t.Helper()
	for _, node := range nodes {
		eventually(t, "the operator's labels are on", func(ctx context.Context) error {
			return change(ctx, node, func(n *corev1.Node) {
				for _, label := range labels {
					n.Labels[label] = "true"
				}
			})
		})
		t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), within)
			defer cancel()
			for ctx.Err() == nil && change(ctx, node, func(n *corev1.Node) {
				for _, label := range labels {
					delete(n.Labels, label)
				}
			}) != nil {
				continue // another writer was faster
			}
		})
	}
}

func TestTheDriversDaemonSetMakesItsPodAnew(t *testing.T) {
	node, other := shared.Fleet().NodeNames()[0], shared.Fleet().NodeNames()[1]
	tolerant := corev1.Toleration{Key: v1alpha1.TaintQuarantined, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule}
	operand(t, "device-plugin", pluginLabel, tolerant)
	operand(t, "dra-driver", draLabel, tolerant)
	operated(t, []string{pluginLabel, draLabel}, node, other)
	old := theOne(t, fleet.DriverTolerant, node)
	elsewhere := map[string]*corev1.Pod{}
	for _, app := range []string{fleet.DriverTolerant, "device-plugin", "dra-driver"} {
		elsewhere[app] = theOne(t, app, other)
	}
	plugin := theOne(t, "device-plugin", node)
	theOne(t, "dra-driver", node)
	rem := incident(t, "restarts-driver", node)
	labels := getNode(t, node).Labels

	a := attempt(t, rem, restart(fleet.DriverTolerant))
	r := driverpod.New(controller, controller)
	going := false
	last := carryOut(t, r, a, func(p remedy.Progress) {
		if going || !strings.Contains(p.Message, "is going") {
			return
		}
		going = true
		for _, app := range []string{"device-plugin", "dra-driver"} {
			if pods, err := podsOn(t.Context(), fleet.SystemNamespace, node, map[string]string{appLabel: app}); err != nil || len(pods) > 0 {
				t.Errorf("the driver goes while %s is still there: %d pods, %v", app, len(pods), err)
			}
		}
	})
	if last.State != v1alpha1.RemedySucceeded || !going {
		t.Fatalf("%+v, evicted: %t", last, going)
	}
	if now := theOne(t, fleet.DriverTolerant, node); now.UID == old.UID {
		t.Error("it is the same pod")
	}
	for range 2 {
		if err := r.End(t.Context(), a); err != nil {
			t.Fatal(err)
		}
	}
	after := getNode(t, node)
	if diff := cmp.Diff(labels, after.Labels); diff != "" {
		t.Errorf("labels (-before +after):\n%s", diff)
	}
	for _, key := range []string{v1alpha1.AnnotationPaused, v1alpha1.AnnotationDriverPod} {
		if value, left := after.Annotations[key]; left {
			t.Errorf("left behind: %s=%s", key, value)
		}
	}
	if now := theOne(t, "device-plugin", node); now.UID == plugin.UID {
		t.Error("the device plugin was not paused")
	}
	for app, was := range elsewhere {
		if now := theOne(t, app, other); now.UID != was.UID {
			t.Errorf("%s was restarted on %s too", app, other)
		}
	}
}

func TestADriverThatDoesNotTolerateOurTaintIsLeftAlone(t *testing.T) {
	node := shared.Fleet().NodeNames()[0]
	before := theOne(t, fleet.DriverIntolerant, node)
	rem := incident(t, "cannot-restart", node)
	a := attempt(t, rem, restart(fleet.DriverIntolerant))
	r := driverpod.New(controller, controller)
	want := remedy.Refused("DaemonSet gpu-system/gpu-exporter does not tolerate the node's taints, so its new pod would not come back; " +
		"add to its spec.template.spec.tolerations:\n- key: roundhouse.dev/quarantined\n  operator: Exists\n  effect: NoSchedule")
	got, err := r.Begin(t.Context(), a)
	if err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	if now := theOne(t, fleet.DriverIntolerant, node); now.UID != before.UID || now.DeletionTimestamp != nil {
		t.Error("its pod was restarted")
	}
	if err := r.End(t.Context(), a); err != nil {
		t.Error(err)
	}
	t.Run("with the text added it is restarted", func(t *testing.T) {
		set := &appsv1.DaemonSet{}
		set.Namespace, set.Name = fleet.SystemNamespace, fleet.DriverIntolerant
		admin(t, "reading the DaemonSet", shared.Client().Get(t.Context(), clientKey(set), set))
		whole := set.DeepCopy()
		set.Spec.Template.Spec.Tolerations = []corev1.Toleration{{Key: "roundhouse.dev/quarantined", Operator: "Exists", Effect: "NoSchedule"}}
		// OnDelete, so that it is the remedy that restarts the pod and not the rollout.
		set.Spec.UpdateStrategy = appsv1.DaemonSetUpdateStrategy{Type: appsv1.OnDeleteDaemonSetStrategyType}
		admin(t, "adding the toleration", shared.Client().Update(t.Context(), set))
		last := carryOut(t, r, attempt(t, rem, restart(fleet.DriverIntolerant)), func(remedy.Progress) {})
		if last.State != v1alpha1.RemedySucceeded {
			t.Errorf("%+v", last)
		}
		if now := theOne(t, fleet.DriverIntolerant, node); now.UID == before.UID {
			t.Error("it is the same pod")
		}
		admin(t, "reading the DaemonSet", shared.Client().Get(t.Context(), clientKey(set), set))
		set.Spec = whole.Spec
		admin(t, "taking the toleration away", shared.Client().Update(t.Context(), set))
	})
}

func TestAnOperandThatWouldNotComeBackIsNotPaused(t *testing.T) {
	node := shared.Fleet().NodeNames()[0]
	operand(t, "dcgm-exporter", "nvidia.com/gpu.deploy.dcgm-exporter")
	operated(t, []string{"nvidia.com/gpu.deploy.dcgm-exporter"}, node)
	theOne(t, "dcgm-exporter", node)
	rem := incident(t, "would-lose-operand", node)
	refusal, err := driverpod.New(controller, controller).Check(t.Context(), attempt(t, rem, restart(fleet.DriverTolerant)))
	if err != nil || !strings.Contains(refusal, "once paused would not come back") || !strings.Contains(refusal, "- key: roundhouse.dev/quarantined") {
		t.Errorf("%q, %v", refusal, err)
	}
	if got := getNode(t, node).Labels["nvidia.com/gpu.deploy.dcgm-exporter"]; got != "true" {
		t.Errorf("a check has set the label to %q", got)
	}
}
