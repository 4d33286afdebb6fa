package nodehealth

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	testclock "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/metrics"
)

var now = time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)

func TestJudge(t *testing.T) {
	cases := map[string]struct {
		seen   observation
		status corev1.ConditionStatus
		reason string
	}{
		"an agent that is Ready and has published":          {seen: observation{pod: true, ready: true, reported: true}, status: "True", reason: ReasonReporting},
		"an agent that is Ready and has not":                {seen: observation{pod: true, ready: true}, status: "Unknown", reason: ReasonNeverReported},
		"an agent that has been away for a moment":          {seen: observation{pod: true, reported: true, had: true, settling: true}},
		"an agent that is not Ready":                        {seen: observation{pod: true, reported: true, had: true}, status: "False", reason: ReasonNotReady},
		"an agent that never was Ready":                     {seen: observation{pod: true}, status: "Unknown", reason: ReasonNeverReported},
		"an agent that is gone":                             {seen: observation{reported: true, had: true}, status: "False", reason: ReasonNoAgent},
		"a node that never had one":                         {seen: observation{reported: true}},
		"an agent elsewhere that has published":             {seen: observation{pod: true, ready: true, elsewhere: true, reported: true}, status: "True", reason: ReasonReporting},
		"an agent elsewhere that has never published":       {seen: observation{pod: true, ready: true, elsewhere: true}},
		"an agent elsewhere whose NodeHealth was made anew": {seen: observation{pod: true, ready: true, elsewhere: true, had: true}, status: "Unknown", reason: ReasonNeverReported},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			got := judge(c.seen)
			if got.status != c.status || got.reason != c.reason || (got.status != "" && got.message == "") {
				t.Errorf("got %+v; want %s, %s", got, c.status, c.reason)
			}
		})
	}
}

// bench is a loop on an API of its own, and what was written to it.
type bench struct {
	*loop
	t      *testing.T
	api    client.WithWatch
	clock  *testclock.FakePassiveClock
	writes []string
	lists  int
}

func newBench(t *testing.T, objects ...client.Object) *bench {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	b := &bench{t: t, clock: testclock.NewFakePassiveClock(now)}
	b.api = interceptor.NewClient(fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).
		WithIndex(&corev1.Pod{}, nodeNameIndex, nodeNameOf).WithStatusSubresource(&v1alpha1.NodeHealth{}, &corev1.Node{}).Build(),
		interceptor.Funcs{
			List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, opts ...client.ListOption) error {
				if _, ok := list.(*metav1.PartialObjectMetadataList); ok {
					b.lists++
				}
				return c.List(ctx, list, opts...)
			},
			Create: func(ctx context.Context, c client.WithWatch, obj client.Object, opts ...client.CreateOption) error {
				b.writes = append(b.writes, "create "+obj.GetName())
				obj.SetUID(types.UID("health-" + obj.(*v1alpha1.NodeHealth).Spec.NodeUID))
				return c.Create(ctx, obj, opts...)
			},
			Delete: func(ctx context.Context, c client.WithWatch, obj client.Object, opts ...client.DeleteOption) error {
				options := (&client.DeleteOptions{}).ApplyOptions(opts)
				b.writes = append(b.writes, "delete "+string(*options.Preconditions.UID))
				return c.Delete(ctx, obj)
			},
			SubResourcePatch: func(ctx context.Context, c client.Client, sub string, obj client.Object, patch client.Patch, opts ...client.SubResourcePatchOption) error {
				b.writes = append(b.writes, "patch "+sub+" "+obj.GetName())
				return c.SubResource(sub).Patch(ctx, obj, patch, opts...)
			},
		})
	counts, err := metrics.NewController(prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	options := Options{NodeSelector: labels.Everything(), Grace: 30 * time.Second, Clock: b.clock, Metrics: counts}
	b.loop = newLoop(options, b.api, b.api, b.api)
	return b
}

// turn reconciles a node until it has nothing more to do at once, and gives the writes.
func (b *bench) turn(name string) []string {
	b.t.Helper()
	b.writes = nil
	for range 8 {
		result, err := b.Reconcile(b.t.Context(), requestFor(name))
		if err != nil {
			b.t.Fatal(err)
		}
		if result.RequeueAfter == 0 || result.RequeueAfter >= time.Second {
			return b.writes
		}
	}
	b.t.Fatal("it never comes to rest")
	return nil
}

func (b *bench) expect(name string, writes ...string) {
	b.t.Helper()
	if diff := cmp.Diff(writes, b.turn(name), cmpopts.EquateEmpty()); diff != "" {
		b.t.Errorf("writes (-want +got):\n%s", diff)
	}
}

func newNode(name, uid string) *corev1.Node {
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(uid)}}
}

func newPod(node string, ready corev1.ConditionStatus) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "roundhouse-system", Name: "agent-" + node},
		Spec:       corev1.PodSpec{NodeName: node},
		Status:     corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: ready}}},
	}
}

func (b *bench) condition(name string) string {
	b.t.Helper()
	node := &corev1.Node{}
	if err := b.api.Get(b.t.Context(), client.ObjectKey{Name: name}, node); err != nil {
		b.t.Fatal(err)
	}
	if condition := conditionOf(node); condition != nil {
		return string(condition.Status) + " " + condition.Reason
	}
	return ""
}

func TestANewNodeGetsItsNodeHealthAndNothingElse(t *testing.T) {
	b := newBench(t, newNode("n", "u1"))
	b.expect("n", "create n")
	b.expect("n")
	health := &v1alpha1.NodeHealth{}
	if err := b.api.Get(t.Context(), client.ObjectKey{Name: "n"}, health); err != nil {
		t.Fatal(err)
	}
	want := []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: "n", UID: "u1"}}
	if diff := cmp.Diff(want, health.OwnerReferences); diff != "" || health.Spec.NodeUID != "u1" {
		t.Errorf("owner (-want +got):\n%s\nnodeUID %s", diff, health.Spec.NodeUID)
	}
	if b.lists != 1 {
		t.Errorf("all NodeHealths were listed %d times, want once", b.lists)
	}
	if got := b.condition("n"); got != "" {
		t.Errorf("a node without an agent has condition %q", got)
	}
}

func TestANodeHealthThatExistsIsKnownWithoutAskingForIt(t *testing.T) {
	node := newNode("n", "u1")
	b := newBench(t, node, newHealth(node))
	b.expect("n")
}

func TestARecreatedNodeInheritsNothing(t *testing.T) {
	earlier := newHealth(newNode("n", "u1"))
	earlier.UID = "health-u1"
	b := newBench(t, newNode("n", "u2"), earlier)
	b.expect("n", "create n", "delete health-u1", "create n")
	b.expect("n")
}

func TestAStaleCacheDoesNotDeleteTheNewNodesNodeHealth(t *testing.T) {
	b := newBench(t, newNode("n", "u2"), newHealth(newNode("n", "u2")))
	// The cache still shows the node that was there before.
	b.loop.client = interceptor.NewClient(b.api, interceptor.Funcs{
		Get: func(_ context.Context, _ client.WithWatch, _ client.ObjectKey, obj client.Object, _ ...client.GetOption) error {
			newNode("n", "u1").DeepCopyInto(obj.(*corev1.Node))
			return nil
		},
	})
	_, err := b.Reconcile(t.Context(), requestFor("n"))
	if err == nil || !strings.Contains(err.Error(), errStale.Error()) {
		t.Errorf("error is %v, want that the cache is stale", err)
	}
	for _, write := range b.writes {
		if strings.HasPrefix(write, "delete") {
			t.Errorf("it wrote %q", write)
		}
	}
}

func TestANodeHealthThatWasDeletedComesBack(t *testing.T) {
	node := newNode("n", "u1")
	b := newBench(t, node, newHealth(node))
	b.expect("n")
	if err := b.api.Delete(t.Context(), newHealth(node), client.Preconditions{UID: new(types.UID)}); err != nil {
		t.Fatal(err)
	}
	b.expect("n") // Nobody has told the loop.
	b.doubt("n")
	b.expect("n", "create n")
}

func TestTheConditionFollowsTheAgentAndIsWrittenOnlyOnChange(t *testing.T) {
	node := newNode("n", "u1")
	others := corev1.NodeCondition{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "KubeletReady"}
	node.Status.Conditions = []corev1.NodeCondition{others}
	health := newHealth(node)
	b := newBench(t, node, health)

	pod := newPod("n", corev1.ConditionFalse)
	b.createPod(pod)
	b.expect("n") // It is starting.
	b.clock.SetTime(now.Add(31 * time.Second))
	b.expect("n", "patch status n")
	if got := b.condition("n"); got != "Unknown NeverReported" {
		t.Errorf("condition is %q", got)
	}
	pod.Status.Conditions[0].Status = corev1.ConditionTrue
	b.updatePod(pod)
	health.Status.BootID = "b"
	if err := b.api.Status().Update(t.Context(), health); err != nil {
		t.Fatal(err)
	}
	b.expect("n", "patch status n")
	b.expect("n")
	if got := b.condition("n"); got != "True AgentReporting" {
		t.Errorf("condition is %q", got)
	}
	b.deletePod(pod)
	b.expect("n") // For a moment: the DaemonSet is being updated.
	b.clock.SetTime(now.Add(62 * time.Second))
	b.expect("n", "patch status n")
	if got := b.condition("n"); got != "False NoAgent" {
		t.Errorf("condition is %q", got)
	}
	current := &corev1.Node{}
	if err := b.api.Get(t.Context(), client.ObjectKey{Name: "n"}, current); err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(current.Status.Conditions, others) || len(current.Status.Conditions) != 2 {
		t.Errorf("another's condition changed: %+v", current.Status.Conditions)
	}
}

func (b *bench) createPod(pod *corev1.Pod) {
	b.t.Helper()
	plain := b.api.(interface{ Unwrap() client.WithWatch }).Unwrap()
	if err := plain.Create(b.t.Context(), pod); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) updatePod(pod *corev1.Pod) {
	b.t.Helper()
	plain := b.api.(interface{ Unwrap() client.WithWatch }).Unwrap()
	if err := plain.Status().Update(b.t.Context(), pod); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) deletePod(pod *corev1.Pod) {
	b.t.Helper()
	plain := b.api.(interface{ Unwrap() client.WithWatch }).Unwrap()
	if err := plain.Delete(b.t.Context(), pod); err != nil {
		b.t.Fatal(err)
	}
}

func TestAHealthyNodeIsReportedThoughTheCacheDoesNotShowIt(t *testing.T) {
	node := newNode("n", "u1")
	b := newBench(t, node, newHealth(node))
	b.loop.client = interceptor.NewClient(b.api, interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, obj client.Object, opts ...client.GetOption) error {
			if _, ok := obj.(*v1alpha1.NodeHealth); ok {
				return c.Get(ctx, client.ObjectKey{Name: "not-there"}, obj, opts...)
			}
			return c.Get(ctx, key, obj, opts...)
		},
	})
	b.createPod(newPod("n", corev1.ConditionTrue))
	b.expect("n", "patch status n")
	if got := b.condition("n"); got != "True AgentReporting" {
		t.Errorf("condition is %q", got)
	}
}

func TestANodeThatIsNotSelectedIsLeftAlone(t *testing.T) {
	b := newBench(t, newNode("n", "u1"))
	b.NodeSelector = labels.SelectorFromSet(labels.Set{"gpu": "yes"})
	b.expect("n")
}

func TestANewNodeHealthIsNotTakenForHealthyBeforeTheCacheHasShownIt(t *testing.T) {
	b := newBench(t, newNode("n", "u1"))
	b.loop.client = interceptor.NewClient(b.api, interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, obj client.Object, opts ...client.GetOption) error {
			if _, ok := obj.(*v1alpha1.NodeHealth); ok {
				return c.Get(ctx, client.ObjectKey{Name: "not-there"}, obj, opts...)
			}
			return c.Get(ctx, key, obj, opts...)
		},
	})
	b.createPod(newPod("n", corev1.ConditionTrue))
	b.expect("n", "create n")
	b.expect("n") // Nobody can tell yet.
	b.shown("n")
	b.expect("n", "patch status n")
	if got := b.condition("n"); got != "True AgentReporting" {
		t.Errorf("after the cache has shown it and shows it no longer, the condition is %q", got)
	}
}
