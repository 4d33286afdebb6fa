package budget

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	testclock "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/budget"
)

var now = time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)

func newLoop(t *testing.T, objects ...client.Object) (*loop, client.Client) {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	api := fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).
		WithStatusSubresource(&v1alpha1.NodeDisruptionBudget{}, &v1alpha1.Remediation{}).Build()
	clock := testclock.NewFakePassiveClock(now)
	keeper := budget.NewKeeper(budget.Options{Client: api, Live: api, Now: clock.Now})
	return &loop{Options: Options{Keeper: keeper, Clock: clock}, client: api}, api
}

// settle reconciles until nothing more is asked for soon, and gives the budget.
func settle(t *testing.T, l *loop, api client.Client) *v1alpha1.NodeDisruptionBudget {
	t.Helper()
	for range 4 {
		if _, err := l.Reconcile(t.Context(), reconcile.Request{NamespacedName: types.NamespacedName{Name: "b"}}); err != nil {
			t.Fatal(err)
		}
	}
	b := &v1alpha1.NodeDisruptionBudget{}
	if err := api.Get(t.Context(), client.ObjectKey{Name: "b"}, b); err != nil {
		t.Fatal(err)
	}
	return b
}

func newBudget(reservations ...v1alpha1.Reservation) *v1alpha1.NodeDisruptionBudget {
	one := intstr.FromInt32(1)
	return &v1alpha1.NodeDisruptionBudget{
		ObjectMeta: metav1.ObjectMeta{Name: "b", UID: "b-uid"},
		Spec:       v1alpha1.NodeDisruptionBudgetSpec{MaxUnavailable: &one},
		Status:     v1alpha1.NodeDisruptionBudgetStatus{RebuiltFor: "b-uid", Reservations: reservations},
	}
}

func TestReservationsAreKeptAsLongAsTheyAreNeeded(t *testing.T) {
	cases := map[string]struct {
		phase v1alpha1.Phase
		age   time.Duration
		gone  bool
		claim string
		kept  bool
	}{
		"it acts":                    {phase: v1alpha1.PhaseDraining, age: time.Hour, kept: true},
		"it has just taken the slot": {phase: v1alpha1.PhasePending, age: time.Minute, kept: true},
		"it took the slot long ago and begins to act": {phase: v1alpha1.PhasePending, age: time.Hour, kept: true},
		"it never acted, but the node is claimed":     {phase: v1alpha1.PhasePending, age: time.Hour, claim: "r/r-uid", kept: true},
		"it waits for a human: its node may be out":   {phase: v1alpha1.PhaseEscalated, age: time.Hour, kept: true},
		"it is over":                          {phase: v1alpha1.PhaseSucceeded},
		"it is over, but the node is claimed": {phase: v1alpha1.PhaseCancelled, claim: "r/r-uid", kept: true},
		"it is gone":                          {gone: true},
		"it is gone, but the node is claimed": {gone: true, claim: "r/r-uid", kept: true},
		"it is over, and the node is claimed by one of its name": {phase: v1alpha1.PhaseSucceeded, claim: "r/another"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			reservation := v1alpha1.Reservation{
				Node: "n", NodeUID: "n-uid", Remediation: "r", RemediationUID: "r-uid", Since: metav1.NewTime(now.Add(-c.age)),
			}
			node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", UID: "n-uid"}}
			if c.claim != "" {
				node.Annotations = map[string]string{v1alpha1.AnnotationClaim: c.claim}
			}
			objects := []client.Object{node, newBudget(reservation)}
			if !c.gone {
				objects = append(objects, &v1alpha1.Remediation{
					ObjectMeta: metav1.ObjectMeta{Name: "r", UID: "r-uid"},
					Spec:       v1alpha1.RemediationSpec{Node: "n", NodeUID: "n-uid"},
					Status:     v1alpha1.RemediationStatus{Phase: c.phase},
				})
			}
			l, api := newLoop(t, objects...)
			if got := len(settle(t, l, api).Status.Reservations) == 1; got != c.kept {
				t.Errorf("kept is %v, want %v", got, c.kept)
			}
		})
	}
}

func TestANewBudgetIsFilledFromTheClaims(t *testing.T) {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", UID: "n-uid", Annotations: map[string]string{v1alpha1.AnnotationClaim: "r/r-uid"}}}
	fresh := newBudget()
	fresh.Status = v1alpha1.NodeDisruptionBudgetStatus{}
	l, api := newLoop(t, node, fresh)
	got := settle(t, l, api)
	if got.Status.RebuiltFor != "b-uid" || len(got.Status.Reservations) != 1 || got.Status.Reservations[0].Remediation != "r" {
		t.Errorf("status is %+v", got.Status)
	}
}

func TestABudgetThatCannotBeReadSaysSo(t *testing.T) {
	odd := newBudget()
	odd.Spec.NodeSelector.MatchExpressions = []metav1.LabelSelectorRequirement{{Key: "a", Operator: "Near"}}
	l, api := newLoop(t, odd)
	got := settle(t, l, api).Status.Conditions
	if len(got) == 1 {
		got[0].LastTransitionTime = metav1.NewTime(got[0].LastTransitionTime.UTC())
	}
	want := []metav1.Condition{{
		Type: ConditionValid, Status: metav1.ConditionFalse, Reason: ReasonUnreadable, LastTransitionTime: metav1.NewTime(now),
		Message: `spec.nodeSelector: "Near" is not a valid label selector operator; until it is corrected no node is disrupted`,
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("conditions (-want +got):\n%s", diff)
	}
}
