package remediation

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/util/workqueue"
	clocktesting "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/decide"
	"github.com/roundhouse-dev/roundhouse/internal/occupancy"
)

const (
	bad    = "GPU-bad"
	driver = "gpu.example.com"
)

// pool is a node's ResourceSlice: the UUIDs of gpu-0, gpu-1 and so on.
func pool(generation int64, uuids ...string) resourcev1.ResourceSlice {
	slice := resourcev1.ResourceSlice{
		ObjectMeta: metav1.ObjectMeta{Name: "n-slice"},
		Spec: resourcev1.ResourceSliceSpec{
			Driver: driver, NodeName: ptr.To("n"), Pool: resourcev1.ResourcePool{Name: "n", Generation: generation, ResourceSliceCount: 1},
		},
	}
	for i, uuid := range uuids {
		slice.Spec.Devices = append(slice.Spec.Devices, resourcev1.Device{
			Name:       "gpu-" + string(rune('0'+i)),
			Attributes: map[resourcev1.QualifiedName]resourcev1.DeviceAttribute{occupancy.AttributeUUID: {StringValue: ptr.To(uuid)}},
		})
	}
	return slice
}

// ruleOn is a rule of the incident on a device of the pool.
func ruleOn(device string) *resourcev1.DeviceTaintRule {
	return &resourcev1.DeviceTaintRule{
		ObjectMeta: metav1.ObjectMeta{Name: "inc-0", UID: "r", Labels: map[string]string{v1alpha1.LabelRemediation: "inc"}},
		Spec: resourcev1.DeviceTaintRuleSpec{
			DeviceSelector: &resourcev1.DeviceTaintSelector{Driver: ptr.To(driver), Pool: ptr.To("n"), Device: ptr.To(device)},
		},
	}
}

// rig is a Reconciler on an API server whose cache is behind, and what it was asked for.
type rig struct {
	*Reconciler
	client.WithWatch
	asked []string
}

func newRig(t *testing.T, cached, current []resourcev1.ResourceSlice, objects ...client.Object) *rig {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, resourcev1.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	b := &rig{}
	b.WithWatch = interceptor.NewClient(fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).Build(), interceptor.Funcs{
		List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, opts ...client.ListOption) error {
			slices, ok := list.(*resourcev1.ResourceSliceList)
			if !ok {
				return c.List(ctx, list, opts...)
			}
			o := client.ListOptions{}
			o.ApplyOptions(opts)
			if o.Raw != nil && o.Raw.ResourceVersion == "0" {
				b.asked, slices.Items = append(b.asked, "list cached"), cached
				return nil
			}
			b.asked, slices.Items = append(b.asked, "list current"), current
			return nil
		},
		Create: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.CreateOption) error {
			b.asked = append(b.asked, "create "+o.GetName())
			return c.Create(ctx, o, opts...)
		},
		Delete: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.DeleteOption) error {
			b.asked = append(b.asked, "delete "+o.GetName())
			return c.Delete(ctx, o, opts...)
		},
	})
	b.Reconciler = &Reconciler{Options: Options{Client: b, Live: b, Clock: clocktesting.NewFakePassiveClock(time.Unix(0, 0))}}
	return b
}

// work is the incident of one bad device on its node.
func (b *rig) work() (*work, *decide.Snapshot) {
	rem := &v1alpha1.Remediation{
		ObjectMeta: metav1.ObjectMeta{Name: "inc", UID: "i"},
		Spec: v1alpha1.RemediationSpec{Node: "n", Devices: []string{bad}, Quarantine: []v1alpha1.QuarantineIntent{
			{Kind: v1alpha1.QuarantineDeviceTaintRule, Name: "inc-0", DeviceID: bad},
		}},
	}
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}}
	return &work{name: "n", rem: rem, node: node}, &decide.Snapshot{Now: b.Clock.Now(), Remediation: rem, Node: node}
}

// turn looks where the devices are and quarantines, as a step does.
func (b *rig) turn(t *testing.T) (*v1alpha1.RemediationStatus, error) {
	t.Helper()
	w, s := b.work()
	if err := b.handles(t.Context(), w, s, false); err != nil {
		t.Fatal(err)
	}
	st := &v1alpha1.RemediationStatus{}
	return st, b.quarantine(t.Context(), w, s, decide.Decision{Phase: v1alpha1.PhasePending, Intents: w.rem.Spec.Quarantine}, st)
}

// othersWait puts another node into the queue.
func (b *rig) othersWait(t *testing.T) {
	t.Helper()
	b.queue = workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[reconcile.Request]())
	t.Cleanup(b.queue.ShutDown)
	b.queue.Add(reconcile.Request{})
}

func TestARuleStaysOnlyOnTheDeviceThatIsBad(t *testing.T) {
	eight := []resourcev1.ResourceSlice{pool(1, "GPU-0", "GPU-1", bad)}
	tests := map[string]struct {
		cached, current []resourcev1.ResourceSlice
		there           *resourcev1.DeviceTaintRule
		asked           []string
		again           bool
		device          string // the rule's, at the end; empty where there is none
		generation      int64
	}{
		"the names mean what they meant": {
			cached: eight, current: []resourcev1.ResourceSlice{pool(2, "GPU-0", "GPU-1", bad)},
			asked: []string{"list cached", "create inc-0", "list current"}, device: "gpu-2", generation: 2,
		},
		"the names have shifted since": {
			cached: eight, current: []resourcev1.ResourceSlice{pool(2, "GPU-1", bad)},
			asked: []string{"list cached", "create inc-0", "list current", "delete inc-0"}, again: true,
		},
		"the device has left the pool": {
			cached: eight, current: []resourcev1.ResourceSlice{pool(2, "GPU-0", "GPU-1")},
			asked: []string{"list cached", "create inc-0", "list current", "delete inc-0"}, again: true,
		},
		"the cache has not heard of the device": {
			cached: []resourcev1.ResourceSlice{pool(1, "GPU-0")}, current: eight,
			asked: []string{"list cached", "list current", "create inc-0"}, device: "gpu-2", generation: 1,
		},
		"put on before a crash": {
			cached: eight, current: eight, there: ruleOn("gpu-2"),
			asked: []string{"list cached", "create inc-0", "list current"}, device: "gpu-2", generation: 1,
		},
		"put on before a crash, on what is another device now": {
			cached: eight, current: eight, there: ruleOn("gpu-1"),
			asked: []string{"list cached", "create inc-0", "delete inc-0"}, again: true,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var objects []client.Object
			if tt.there != nil {
				objects = append(objects, tt.there)
			}
			b := newRig(t, tt.cached, tt.current, objects...)
			st, err := b.turn(t)
			if errors.Is(err, errDecideAgain) != tt.again || (err != nil) != tt.again {
				t.Fatalf("error is %v; want to decide again: %t", err, tt.again)
			}
			if diff := cmp.Diff(tt.asked, b.asked); diff != "" {
				t.Errorf("requests (-want +got):\n%s", diff)
			}
			var rules resourcev1.DeviceTaintRuleList
			if err := b.List(t.Context(), &rules); err != nil {
				t.Fatal(err)
			}
			var on, listed []string
			for _, rule := range rules.Items {
				on = append(on, *rule.Spec.DeviceSelector.Device)
			}
			for _, q := range st.Quarantined {
				listed = append(listed, q.Device)
				if q.PoolGeneration != tt.generation {
					t.Errorf("generation %d, want %d", q.PoolGeneration, tt.generation)
				}
			}
			want := slices.DeleteFunc([]string{tt.device}, func(d string) bool { return d == "" })
			if !slices.Equal(on, want) || !slices.Equal(listed, want) {
				t.Errorf("rules on %v, listed %v; want %v", on, listed, want)
			}
		})
	}
}

func TestWhatIsWrittenDownWaitsWhileOtherNodesWait(t *testing.T) {
	slice := []resourcev1.ResourceSlice{pool(1, bad)}
	b := newRig(t, slice, slice)
	b.othersWait(t)
	if _, err := b.turn(t); !errors.Is(err, errLater) {
		t.Fatalf("error is %v, want %v", err, errLater)
	}
	st, err := b.turn(t)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"list cached", "create inc-0", "list current"}, b.asked); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
	if len(st.Quarantined) != 1 {
		t.Errorf("listed: %v", st.Quarantined)
	}
}

func TestWhatWasPutOnBeforeOthersIsConfirmedWhenItsTurnComes(t *testing.T) {
	b := newRig(t, []resourcev1.ResourceSlice{pool(1, "GPU-0", bad)}, []resourcev1.ResourceSlice{pool(2, bad)})
	b.othersWait(t)
	if _, err := b.turn(t); !errors.Is(err, errLater) {
		t.Fatalf("error is %v, want %v", err, errLater)
	}
	if _, err := b.turn(t); !errors.Is(err, errDecideAgain) {
		t.Fatalf("error is %v, want %v", err, errDecideAgain)
	}
	want := []string{"list cached", "create inc-0", "list current", "delete inc-0"}
	if diff := cmp.Diff(want, b.asked); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}

func TestWhatWasTakenOffMeanwhileIsPutOnAnew(t *testing.T) {
	slice := []resourcev1.ResourceSlice{pool(1, bad)}
	b := newRig(t, slice, slice)
	b.othersWait(t)
	if _, err := b.turn(t); !errors.Is(err, errLater) {
		t.Fatalf("error is %v, want %v", err, errLater)
	}
	w, s := b.work()
	s.Node = nil // a rule is all that was put on.
	if err := b.unquarantine(t.Context(), w, s, &v1alpha1.RemediationStatus{}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := b.turn(t); err != nil && !errors.Is(err, errLater) {
			t.Fatal(err)
		}
	}
	want := []string{"list cached", "create inc-0", "delete inc-0", "list cached", "create inc-0", "list current"}
	if diff := cmp.Diff(want, b.asked); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}

func TestALookThatWasCurrentIsNotForLong(t *testing.T) {
	current := []resourcev1.ResourceSlice{pool(1, "GPU-0", bad)}
	b := newRig(t, []resourcev1.ResourceSlice{pool(1, "GPU-0")}, current)
	clock := clocktesting.NewFakePassiveClock(time.Unix(0, 0))
	b.Clock = clock
	b.othersWait(t)
	if _, err := b.turn(t); !errors.Is(err, errLater) {
		t.Fatalf("error is %v, want %v", err, errLater)
	}
	clock.SetTime(clock.Now().Add(2 * offersMaxAge))
	current[0] = pool(2, bad)
	if _, err := b.turn(t); !errors.Is(err, errDecideAgain) {
		t.Fatalf("error is %v, want %v", err, errDecideAgain)
	}
	want := []string{"list cached", "list current", "create inc-0", "list current", "delete inc-0"}
	if diff := cmp.Diff(want, b.asked); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}
