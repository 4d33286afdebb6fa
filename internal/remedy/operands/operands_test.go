package operands

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

const (
	plugin   = prefix + "device-plugin"
	exporter = prefix + "dcgm-exporter"
	draPlug  = prefix + "dra-driver"
	toolkit  = prefix + "container-toolkit"
	me       = "r/u"
)

var mine = &v1alpha1.Remediation{ObjectMeta: metav1.ObjectMeta{Name: "r", UID: "u"}}

func newNode(labels map[string]string) *corev1.Node {
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", UID: "node-uid", Labels: labels}}
}

// pod is an operand's: it selects nodes by the label.
func newPod(name, label, value, node string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "gpu-operator", Name: name},
		Spec:       corev1.PodSpec{NodeName: node, NodeSelector: map[string]string{label: value}},
	}
}

// cluster is a server with these objects. Its pages are of one size, so that a list of more is asked for again.
func cluster(t *testing.T, funcs interceptor.Funcs, objects ...client.Object) (Operands, client.Client) {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := clientgoscheme.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	c := fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).WithInterceptorFuncs(funcs).
		WithIndex(&corev1.Pod{}, "spec.nodeName", func(o client.Object) []string { return []string{o.(*corev1.Pod).Spec.NodeName} }).Build()
	return Operands{Client: c, Live: c}, c
}

func getNode(t *testing.T, c client.Client) *corev1.Node {
	t.Helper()
	node := &corev1.Node{}
	if err := c.Get(t.Context(), types.NamespacedName{Name: "n"}, node); err != nil {
		t.Fatal(err)
	}
	return node
}

func TestPauseAndResume(t *testing.T) {
	cases := map[string]struct {
		before, paused map[string]string
		then           map[string]string // what others set meanwhile
		after          map[string]string
	}{
		"a node without the operator": {
			before: map[string]string{"a": "b"}, paused: map[string]string{"a": "b"}, after: map[string]string{"a": "b"},
		},
		"parts that are on are paused and come back": {
			before: map[string]string{plugin: "true", exporter: "true", "a": "b"},
			paused: map[string]string{plugin: paused, exporter: paused, "a": "b"},
			after:  map[string]string{plugin: "true", exporter: "true", "a": "b"},
		},
		"a part with a value of its own keeps it in front": {
			before: map[string]string{plugin: "mig"}, paused: map[string]string{plugin: "mig_" + paused}, after: map[string]string{plugin: "mig"},
		},
		"a part that a person keeps off stays off": {
			before: map[string]string{plugin: "false", exporter: "true"},
			paused: map[string]string{plugin: "false", exporter: paused},
			after:  map[string]string{plugin: "false", exporter: "true"},
		},
		"an empty label stays empty": {
			before: map[string]string{plugin: ""}, paused: map[string]string{plugin: ""}, after: map[string]string{plugin: ""},
		},
		"what the driver manager has paused is its own to put back": {
			before: map[string]string{plugin: paused, exporter: "true"},
			paused: map[string]string{plugin: paused, exporter: paused},
			after:  map[string]string{plugin: paused, exporter: "true"},
		},
		"the container toolkit holds no device": {
			before: map[string]string{toolkit: "true"}, paused: map[string]string{toolkit: "true"}, after: map[string]string{toolkit: "true"},
		},
		"the driver itself is never paused": {
			before: map[string]string{prefix + "driver": "true"}, paused: map[string]string{prefix + "driver": "true"},
			after: map[string]string{prefix + "driver": "true"},
		},
		"what another has set back meanwhile stays": {
			before: map[string]string{plugin: "true", exporter: "true"}, paused: map[string]string{plugin: paused, exporter: paused},
			then:  map[string]string{plugin: "false"},
			after: map[string]string{plugin: "false", exporter: "true"},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			o, server := cluster(t, interceptor.Funcs{}, newNode(c.before))
			node := getNode(t, server)
			for range 2 { // The second time must change nothing.
				if waiting, err := o.Pause(t.Context(), node, me); err != nil || len(waiting) > 0 {
					t.Fatalf("waiting for %v, %v", waiting, err)
				}
				if diff := cmp.Diff(c.paused, getNode(t, server).Labels); diff != "" {
					t.Errorf("paused (-want +got):\n%s", diff)
				}
			}
			changed := !cmp.Equal(c.before, c.paused)
			by, recorded := PausedBy(getNode(t, server))
			if recorded != changed || (recorded && by != me) {
				t.Errorf("recorded %v by %q, want %v", recorded, by, changed)
			}
			if c.then != nil {
				others := getNode(t, server)
				for key, value := range c.then {
					others.Labels[key] = value
				}
				if err := server.Update(t.Context(), others); err != nil {
					t.Fatal(err)
				}
			}
			for range 2 {
				if err := o.Resume(t.Context(), node, me); err != nil {
					t.Fatal(err)
				}
				after := getNode(t, server)
				if diff := cmp.Diff(c.after, after.Labels); diff != "" {
					t.Errorf("resumed (-want +got):\n%s", diff)
				}
				if len(after.Annotations) > 0 {
					t.Errorf("left behind: %v", after.Annotations)
				}
			}
		})
	}
}

func TestPauseWaitsForThePodsOfEachStage(t *testing.T) {
	first, done := newPod("plugin-a", plugin, "true", "n"), newPod("plugin-done", plugin, "true", "n")
	done.Status.Phase = corev1.PodSucceeded
	o, server := cluster(t, interceptor.Funcs{}, newNode(map[string]string{plugin: "true", draPlug: "true"}), first, done,
		newPod("plugin-b", plugin, "true", "other"), newPod("toolkit", toolkit, "true", "n"), newPod("dra", draPlug, "true", "n"))
	pause := func(want ...string) {
		t.Helper()
		waiting, err := o.Pause(t.Context(), newNode(nil), me)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, waiting); diff != "" {
			t.Errorf("waits for (-want +got):\n%s", diff)
		}
	}
	pause("gpu-operator/plugin-a")
	if got := getNode(t, server).Labels[draPlug]; got != "true" {
		t.Errorf("the DRA driver's label is %q while a pod that may have a claim is still there", got)
	}
	if err := server.Delete(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	pause("gpu-operator/dra")
	if err := server.Delete(t.Context(), newPod("dra", draPlug, "true", "n")); err != nil {
		t.Fatal(err)
	}
	pause()
	want := record{By: me, Labels: map[string]string{plugin: "true", draPlug: "true"}}
	if got, _ := read(getNode(t, server)); !cmp.Equal(want, got) {
		t.Errorf("recorded %v, want %v", got, want)
	}
}

func TestWhatSomebodyHasSetBackIsNotPausedAgain(t *testing.T) {
	o, server := cluster(t, interceptor.Funcs{}, newNode(map[string]string{plugin: "true"}), newPod("plugin", plugin, "true", "n"))
	if _, err := o.Pause(t.Context(), newNode(nil), me); err != nil {
		t.Fatal(err)
	}
	node := getNode(t, server)
	node.Labels[plugin] = "true"
	if err := server.Update(t.Context(), node); err != nil {
		t.Fatal(err)
	}
	waiting, err := o.Pause(t.Context(), newNode(nil), me)
	if err != nil || len(waiting) != 1 {
		t.Errorf("waits for %v, %v: want the pod that is back", waiting, err)
	}
	if got := getNode(t, server).Labels[plugin]; got != "true" {
		t.Errorf("the label is %q again", got)
	}
}

func TestAnotherRemediationsPauseIsLeftAlone(t *testing.T) {
	o, server := cluster(t, interceptor.Funcs{}, newNode(map[string]string{plugin: "true", exporter: "true"}))
	if _, err := o.Pause(t.Context(), newNode(nil), "other/1"); err != nil {
		t.Fatal(err)
	}
	before := getNode(t, server)
	if _, err := o.Pause(t.Context(), newNode(nil), me); !errors.Is(err, ErrPaused) {
		t.Errorf("Pause: %v", err)
	}
	if refusal, err := o.Check(t.Context(), newNode(nil), mine); err != nil || refusal != ErrPaused.Error()+": other/1" {
		t.Errorf("Check: %q, %v", refusal, err)
	}
	if err := o.Resume(t.Context(), newNode(nil), me); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, getNode(t, server)); diff != "" {
		t.Errorf("the node changed:\n%s", diff)
	}
}

func TestARecordThatCannotBeReadIsTakenOff(t *testing.T) {
	node := newNode(map[string]string{plugin: paused})
	node.Annotations = map[string]string{v1alpha1.AnnotationPaused: "{"}
	o, server := cluster(t, interceptor.Funcs{}, node)
	if err := o.Resume(t.Context(), newNode(nil), me); err != nil {
		t.Fatal(err)
	}
	after := getNode(t, server)
	if len(after.Annotations) > 0 || after.Labels[plugin] != paused {
		t.Errorf("labels %v, annotations %v", after.Labels, after.Annotations)
	}
}

func TestTheNodeIsGone(t *testing.T) {
	again := newNode(map[string]string{plugin: "true"})
	again.UID = "another"
	for name, objects := range map[string][]client.Object{"it is not there": nil, "another has its name": {again}} {
		t.Run(name, func(t *testing.T) {
			o, server := cluster(t, interceptor.Funcs{}, objects...)
			if _, err := o.Pause(t.Context(), newNode(nil), me); err == nil {
				t.Error("Pause: no error")
			}
			if refusal, err := o.Check(t.Context(), newNode(nil), mine); err != nil || refusal != "" {
				t.Errorf("Check: %q, %v", refusal, err)
			}
			if err := o.Resume(t.Context(), newNode(nil), me); err != nil {
				t.Errorf("Resume: %v", err)
			}
			if len(objects) > 0 && getNode(t, server).Labels[plugin] != "true" {
				t.Error("another node was changed")
			}
		})
	}
}

func TestWritesAreGuarded(t *testing.T) {
	var sent []metaPatch
	o, server := cluster(t, interceptor.Funcs{
		Patch: func(ctx context.Context, c client.WithWatch, o client.Object, p client.Patch, options ...client.PatchOption) error {
			data, err := p.Data(o)
			if err != nil {
				return err
			}
			var patch nodePatch
			if err := json.Unmarshal(data, &patch); err != nil {
				return err
			}
			sent = append(sent, patch.Metadata)
			return c.Patch(ctx, o, p, options...)
		},
	}, newNode(map[string]string{plugin: "true", "a": "b"}))
	before := getNode(t, server)
	if _, err := o.Pause(t.Context(), before, me); err != nil {
		t.Fatal(err)
	}
	if len(sent) != 1 || sent[0].ResourceVersion != before.ResourceVersion || sent[0].UID != before.UID || !cmp.Equal(sent[0].Labels, map[string]string{plugin: paused}) {
		t.Errorf("sent %+v", sent)
	}
	stale := before.DeepCopy()
	stale.Labels[plugin] = paused
	if err := o.patch(t.Context(), before, stale); !apierrors.IsConflict(err) {
		t.Errorf("a write from what was read before: %v", err)
	}
}

func TestCheck(t *testing.T) {
	nodes := schema.GroupResource{Resource: "nodes"}
	cases := map[string]struct {
		labels  map[string]string
		answer  error
		refusal bool
		err     bool
	}{
		"allowed":                           {labels: map[string]string{plugin: "true"}},
		"nothing to pause":                  {labels: map[string]string{"a": "b"}, answer: errors.New("asked")},
		"the right to pause is missing":     {labels: map[string]string{plugin: "true"}, answer: apierrors.NewForbidden(nodes, "n", errors.New("the controller may not change labels of a Node, but")), refusal: true},
		"forbidden for another reason":      {labels: map[string]string{plugin: "true"}, answer: apierrors.NewForbidden(nodes, "n", errors.New("this controller does not lead")), err: true},
		"the server does not know just now": {labels: map[string]string{plugin: "true"}, answer: apierrors.NewInternalError(errors.New("x")), err: true},
	}
	tolerates := newPod("plugin", plugin, "true", "n")
	tolerates.Spec.Tolerations = []corev1.Toleration{{Key: v1alpha1.TaintQuarantined, Operator: corev1.TolerationOpExists}}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			o, server := cluster(t, interceptor.Funcs{
				Patch: func(ctx context.Context, cl client.WithWatch, o client.Object, p client.Patch, options ...client.PatchOption) error {
					if c.answer != nil {
						return c.answer
					}
					return cl.Patch(ctx, o, p, options...)
				},
			}, newNode(c.labels), tolerates)
			refusal, err := o.Check(t.Context(), newNode(nil), mine)
			if (refusal != "") != c.refusal || (err != nil) != c.err {
				t.Errorf("got %q, %v", refusal, err)
			}
			if diff := cmp.Diff(c.labels, getNode(t, server).Labels); diff != "" {
				t.Errorf("a check changed the labels:\n%s", diff)
			}
		})
	}
}

func TestANodeWithMorePodsThanAnyHas(t *testing.T) {
	o, _ := cluster(t, interceptor.Funcs{
		List: func(_ context.Context, _ client.WithWatch, list client.ObjectList, _ ...client.ListOption) error {
			list.SetContinue("more")
			return nil
		},
	}, newNode(map[string]string{plugin: "true"}))
	if _, err := o.Pause(t.Context(), newNode(nil), me); err == nil {
		t.Error("no error")
	}
}

// TestWhatIsPausedComesBack lets others write between any two steps, and expects what they wrote to be left.
func TestWhatIsPausedComesBack(t *testing.T) {
	values := []string{"true", "false", "", "mig", paused, "x_" + paused}
	keys := append(append([]string{toolkit, prefix + "driver", "a"}, stages[0]...), stages[1]...)
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 1))
		node := newNode(map[string]string{})
		for _, key := range keys {
			if random.IntN(3) > 0 {
				node.Labels[key] = values[random.IntN(len(values))]
			}
		}
		want := node.DeepCopy()
		for range 8 {
			switch random.IntN(3) {
			case 0:
				next, err := pause(node, me, stages[random.IntN(len(stages))])
				if err != nil {
					t.Fatal(err)
				}
				node = next
			case 1:
				key, value := keys[random.IntN(len(keys))], fmt.Sprintf("theirs-%d", random.IntN(3))
				node.Labels[key], want.Labels[key] = value, value
			default:
				if random.IntN(3) == 0 {
					node = resume(node, me)
				}
			}
		}
		got := resume(node, me)
		// A part that somebody gave another value after a pause, and that was then paused anew, has that value.
		if diff := cmp.Diff(want.Labels, got.Labels); diff != "" {
			t.Fatalf("seed %d (-want +got):\n%s", seed, diff)
		}
		if len(got.Annotations) > 0 {
			t.Fatalf("seed %d: left behind: %v", seed, got.Annotations)
		}
	}
}

func FuzzRecord(f *testing.F) {
	f.Add(`{"by":"r/u","labels":{"nvidia.com/gpu.deploy.device-plugin":"true"}}`, paused)
	f.Add(`{"by":"r/u","labels":{"a":"b"}}`, "b_"+paused)
	f.Add(`{"by":"s/u","labels":null}`, "true")
	f.Add(`[`, "x")
	f.Fuzz(func(t *testing.T, text, value string) {
		node := newNode(map[string]string{plugin: value, "a": value})
		node.Annotations = map[string]string{v1alpha1.AnnotationPaused: text, "other": "stays"}
		got := resume(node, me)
		if got.Labels["a"] != value || got.Annotations["other"] != "stays" {
			t.Error("something of others changed")
		}
		if _, err := pause(node, me, stages[0]); err != nil && !errors.Is(err, ErrPaused) {
			t.Error(err)
		}
	})
}

func TestCheckFindsAPodThatWouldNotComeBack(t *testing.T) {
	const want = "pod gpu-operator/dra holds the devices, and once paused would not come back under the node's taints; " +
		"add to its tolerations (spec.daemonsets.tolerations of the ClusterPolicy):\n- key: roundhouse.dev/quarantined\n  operator: Exists\n  effect: NoSchedule"
	o, _ := cluster(t, interceptor.Funcs{}, newNode(map[string]string{draPlug: "true"}), newPod("dra", draPlug, "true", "n"))
	if refusal, err := o.Check(t.Context(), newNode(nil), mine); err != nil || refusal != want {
		t.Errorf("%q, %v", refusal, err)
	}
}
