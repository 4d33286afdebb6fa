package budget

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/claim"
)

// traced is an API that writes down what was written to it, and lets a test fail a write.
type traced struct {
	client.WithWatch
	writes []string
	fail   func(verb, name string) error
}

func newTraced(t *testing.T, objects ...client.Object) *traced {
	t.Helper()
	tr := &traced{fail: func(string, string) error { return nil }}
	tr.WithWatch = interceptor.NewClient(newAPI(t, objects...), interceptor.Funcs{
		Create: func(ctx context.Context, c client.WithWatch, obj client.Object, opts ...client.CreateOption) error {
			tr.writes = append(tr.writes, "create "+obj.GetName())
			return c.Create(ctx, obj, opts...)
		},
		SubResourceUpdate: func(ctx context.Context, c client.Client, sub string, obj client.Object, opts ...client.SubResourceUpdateOption) error {
			tr.writes = append(tr.writes, "update "+sub+" "+obj.GetName())
			if err := tr.fail("update", obj.GetName()); err != nil {
				return err
			}
			return c.SubResource(sub).Update(ctx, obj, opts...)
		},
	})
	return tr
}

func (tr *traced) keeper() *Keeper {
	return NewKeeper(Options{Client: tr, Live: tr, Now: func() time.Time { return start }})
}

func (tr *traced) holders(t *testing.T) map[string][]string {
	t.Helper()
	var list v1alpha1.NodeDisruptionBudgetList
	if err := tr.List(t.Context(), &list); err != nil {
		t.Fatal(err)
	}
	holders := map[string][]string{}
	for _, b := range list.Items {
		holders[b.Name] = []string{}
		for _, r := range b.Status.Reservations {
			holders[b.Name] = append(holders[b.Name], r.Remediation)
		}
	}
	return holders
}

func selectingPool(b *v1alpha1.NodeDisruptionBudget) { b.Spec.NodeSelector.MatchLabels = pool }

func rebuilt(b *v1alpha1.NodeDisruptionBudget) { b.Status.RebuiltFor = string(b.UID) }

func badSelector(b *v1alpha1.NodeDisruptionBudget) {
	b.Spec.NodeSelector.MatchExpressions = []metav1.LabelSelectorRequirement{{Key: "a", Operator: "Near"}}
}

func TestReserveTakesEveryBudgetInTheOrderOfNamesAndIsIdempotent(t *testing.T) {
	node := newNode("a", pool)
	rem := newRemediation(node)
	tr := newTraced(t, node, rem, newBudget("b-second", intstr.FromInt32(1), selectingPool, rebuilt),
		newBudget("a-first", intstr.FromInt32(1), selectingPool, rebuilt), newBudget("c-other", intstr.FromInt32(1), rebuilt, func(b *v1alpha1.NodeDisruptionBudget) {
			b.Spec.NodeSelector.MatchLabels = map[string]string{"pool": "other"}
		}))
	for range 2 {
		verdict, err := tr.keeper().Reserve(t.Context(), node, rem, 8)
		if err != nil || !verdict.Granted {
			t.Fatalf("got %+v, %v; want a grant", verdict, err)
		}
	}
	if diff := cmp.Diff([]string{"update status a-first", "update status b-second"}, tr.writes); diff != "" {
		t.Errorf("writes (-want +got):\n%s", diff)
	}
	held, err := tr.keeper().Held(t.Context(), node, rem)
	if err != nil || !held {
		t.Errorf("held is %v, %v; want true", held, err)
	}
}

func TestReserveGivesBackInReverseWhatItTookWhenALaterBudgetRefuses(t *testing.T) {
	node := newNode("a", pool)
	rem := newRemediation(node)
	tr := newTraced(t, node, rem, newBudget("a", intstr.FromInt32(1), selectingPool), newBudget("b", intstr.FromInt32(1), selectingPool),
		newBudget("c", intstr.FromInt32(0), selectingPool))
	verdict, err := tr.keeper().Reserve(t.Context(), node, rem, 8)
	if err != nil {
		t.Fatal(err)
	}
	want := Verdict{Reason: ReasonExhausted, Budget: "c", Message: "c: it allows no node to be out", WouldChange: "c allows 1"}
	if diff := cmp.Diff(want, verdict); diff != "" {
		t.Errorf("verdict (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"update status a", "update status b", "update status b", "update status a"}, tr.writes); diff != "" {
		t.Errorf("writes (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string][]string{"a": {}, "b": {}, "c": {}}, tr.holders(t)); diff != "" {
		t.Errorf("holders (-want +got):\n%s", diff)
	}
}

func TestReserveGivesBackWhatItTookWhenAWriteFails(t *testing.T) {
	node := newNode("a", pool)
	rem := newRemediation(node)
	tr := newTraced(t, node, rem, newBudget("a", intstr.FromInt32(1), selectingPool), newBudget("b", intstr.FromInt32(1), selectingPool))
	broken := errors.New("the API server is away")
	tr.fail = func(_, name string) error {
		if name == "b" {
			return broken
		}
		return nil
	}
	if verdict, err := tr.keeper().Reserve(t.Context(), node, rem, 8); !errors.Is(err, broken) || verdict.Granted {
		t.Errorf("got %+v, %v; want the error", verdict, err)
	}
	if diff := cmp.Diff(map[string][]string{"a": {}, "b": {}}, tr.holders(t)); diff != "" {
		t.Errorf("holders (-want +got):\n%s", diff)
	}
}

func TestABudgetThatAppearsDuringTheActDoesNotTakeTheOthersAway(t *testing.T) {
	node := newNode("a", pool)
	rem := newRemediation(node)
	rem.Status.Phase = v1alpha1.PhaseDraining
	tr := newTraced(t, node, rem, newBudget("a", intstr.FromInt32(1), selectingPool, rebuilt, reservedFor(rem, "", 8)),
		newBudget("b-new", intstr.FromInt32(0), selectingPool, rebuilt))
	verdict, err := tr.keeper().Reserve(t.Context(), node, rem, 8)
	if err != nil || verdict.Granted || verdict.Budget != "b-new" {
		t.Fatalf("got %+v, %v; want b-new to refuse", verdict, err)
	}
	if diff := cmp.Diff(map[string][]string{"a": {"a-r"}, "b-new": {}}, tr.holders(t)); diff != "" {
		t.Errorf("holders (-want +got):\n%s", diff)
	}
}

func TestANodeThatNoBudgetSelectsFallsUnderTheImplicitOne(t *testing.T) {
	guarded, a, b := newNode("guarded", pool, cordoned), newNode("a", nil), newNode("b", nil)
	tr := newTraced(t, guarded, a, b, newRemediation(a), newRemediation(b), newBudget("pool", intstr.FromInt32(1), selectingPool))
	keeper := tr.keeper()
	if verdict, err := keeper.Reserve(t.Context(), a, newRemediation(a), 8); err != nil || !verdict.Granted {
		t.Fatalf("got %+v, %v; want a grant: guarded is another budget's", verdict, err)
	}
	verdict, err := keeper.Reserve(t.Context(), b, newRemediation(b), 8)
	if err != nil {
		t.Fatal(err)
	}
	want := Verdict{
		Reason: ReasonExhausted, Budget: "implicit",
		Message:     "implicit: 1 of 1 nodes is out (a, remediation a-r, since 2026-11-23T10:00:00Z)",
		WouldChange: "a returns, or implicit allows 2",
	}
	if diff := cmp.Diff(want, verdict); diff != "" {
		t.Errorf("verdict (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"create implicit", "update status implicit"}, tr.writes); diff != "" {
		t.Errorf("writes (-want +got):\n%s", diff)
	}
}

func TestNodesOfTheControlPlaneGoOneAtATime(t *testing.T) {
	role := map[string]string{"pool": "gpu", v1alpha1.LabelControlPlane: ""}
	a, b, worker := newNode("a", role), newNode("b", role), newNode("c", pool)
	tr := newTraced(t, a, b, worker, newRemediation(a), newRemediation(b), newRemediation(worker), newBudget("pool", intstr.FromInt32(3), selectingPool))
	keeper := tr.keeper()
	if verdict, err := keeper.Reserve(t.Context(), a, newRemediation(a), 8); err != nil || !verdict.Granted {
		t.Fatalf("got %+v, %v; want a grant", verdict, err)
	}
	verdict, err := keeper.Reserve(t.Context(), b, newRemediation(b), 8)
	if err != nil || verdict.Granted || verdict.Budget != v1alpha1.ControlPlaneBudget {
		t.Errorf("got %+v, %v; want a refusal of the control plane's budget", verdict, err)
	}
	if verdict, err := keeper.Reserve(t.Context(), worker, newRemediation(worker), 8); err != nil || !verdict.Granted {
		t.Errorf("got %+v, %v; the worker is none of the control plane's", verdict, err)
	}
	want := []string{"create control-plane", "update status control-plane", "update status pool", "update status pool"}
	if diff := cmp.Diff(want, tr.writes); diff != "" {
		t.Errorf("writes (-want +got):\n%s", diff)
	}
}

// An administrator who has changed it meant it.
func TestTheControlPlanesBudgetIsAnAdministrators(t *testing.T) {
	role := map[string]string{v1alpha1.LabelControlPlane: ""}
	a, b := newNode("a", role), newNode("b", role)
	tr := newTraced(t, a, b, newRemediation(a), newRemediation(b), newBudget(v1alpha1.ControlPlaneBudget, intstr.FromInt32(2)))
	for _, node := range []*corev1.Node{a, b} {
		if verdict, err := tr.keeper().Reserve(t.Context(), node, newRemediation(node), 8); err != nil || !verdict.Granted {
			t.Errorf("%s: got %+v, %v; want a grant", node.Name, verdict, err)
		}
	}
}

func TestASelectorThatCannotBeReadGuardsEveryNode(t *testing.T) {
	node := newNode("a", nil)
	tr := newTraced(t, node, newBudget("odd", intstr.FromInt32(100), badSelector))
	verdict, err := tr.keeper().Reserve(t.Context(), node, newRemediation(node), 8)
	if err != nil || verdict.Granted || verdict.Reason != ReasonInvalid || len(tr.writes) > 0 {
		t.Errorf("got %+v, %v after %v; want a refusal and no write", verdict, err, tr.writes)
	}
}

func TestReserveRefusesAnotherNodeOfTheSameName(t *testing.T) {
	node := newNode("a", nil)
	rem := newRemediation(node)
	node.UID = "another"
	verdict, err := newTraced(t).keeper().Reserve(t.Context(), node, rem, 8)
	if err != nil || verdict.Granted || verdict.Reason != ReasonNodeChanged {
		t.Errorf("got %+v, %v; want %s", verdict, err, ReasonNodeChanged)
	}
}

func TestARecreatedBudgetCountsTheClaimsOnNodesBeforeItGrants(t *testing.T) {
	busy := newNode("busy", pool, annotated(v1alpha1.AnnotationClaim, "busy-r/busy-r-uid"))
	node := newNode("a", pool)
	health := &v1alpha1.NodeHealth{
		ObjectMeta: metav1.ObjectMeta{Name: "busy"},
		Status:     v1alpha1.NodeHealthStatus{Devices: make([]v1alpha1.Device, 4)},
	}
	tr := newTraced(t, busy, node, health, newBudget("pool", intstr.FromInt32(1), selectingPool))
	verdict, err := tr.keeper().Reserve(t.Context(), node, newRemediation(node), 8)
	if err != nil || verdict.Granted {
		t.Fatalf("got %+v, %v; want a refusal", verdict, err)
	}
	budget := &v1alpha1.NodeDisruptionBudget{}
	if err := tr.Get(t.Context(), client.ObjectKey{Name: "pool"}, budget); err != nil {
		t.Fatal(err)
	}
	if err := tr.keeper().Rebuild(t.Context(), budget); err != nil {
		t.Fatal(err)
	}
	if err := tr.Get(t.Context(), client.ObjectKey{Name: "pool"}, budget); err != nil {
		t.Fatal(err)
	}
	want := []v1alpha1.Reservation{{
		Node: "busy", NodeUID: "node-busy", Remediation: "busy-r", RemediationUID: "busy-r-uid", Devices: 4, Since: metav1.NewTime(start),
	}}
	if diff := cmp.Diff(want, budget.Status.Reservations, cmpopts.IgnoreFields(v1alpha1.Reservation{}, "Token")); diff != "" {
		t.Errorf("reservations (-want +got):\n%s", diff)
	}
	if budget.Status.Reservations[0].Token == "" {
		t.Error("the rebuilt slot has no token")
	}
	if budget.Status.RebuiltFor != string(budget.UID) {
		t.Errorf("rebuiltFor is %q, want the object's UID", budget.Status.RebuiltFor)
	}
}

func TestReleaseFreesOnlyWhatNobodyActsOn(t *testing.T) {
	acting := func(r *v1alpha1.Remediation) { r.Status.Phase = v1alpha1.PhaseRepairing }
	claimed := func(n *corev1.Node) { n.Annotations = map[string]string{v1alpha1.AnnotationClaim: "a-r/a-r-uid"} }
	cases := map[string]struct {
		rem   func(*v1alpha1.Remediation)
		node  func(*corev1.Node)
		gone  bool
		freed bool
	}{
		"over and unclaimed: freed":                       {freed: true},
		"the remediation still acts: kept":                {rem: acting},
		"the node still carries the claim: kept":          {node: claimed},
		"the remediation is gone: freed":                  {gone: true, freed: true},
		"the remediation is gone, its claim is not: kept": {gone: true, node: claimed},
		"another remediation of its name acts: freed": {freed: true, rem: func(r *v1alpha1.Remediation) {
			acting(r)
			r.UID = "another"
		}},
		"the node carries another's claim: freed": {freed: true, node: annotated(v1alpha1.AnnotationClaim, "z/z")},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			node := newNode("a", pool)
			rem := newRemediation(node)
			stored := rem.DeepCopy()
			if c.rem != nil {
				c.rem(stored)
			}
			if c.node != nil {
				c.node(node)
			}
			objects := []client.Object{
				node, newBudget("x", intstr.FromInt32(1), rebuilt, reservedFor(rem, "", 8)),
				newBudget("y", intstr.FromInt32(1), rebuilt, reservedFor(rem, "", 8)),
			}
			if !c.gone {
				objects = append(objects, stored)
			}
			tr := newTraced(t, objects...)
			err := tr.keeper().Release(t.Context(), rem, Fresh{})
			if c.freed != (err == nil) || (!c.freed && !errors.Is(err, ErrActing)) {
				t.Errorf("error is %v", err)
			}
			var want []string
			if c.freed {
				want = []string{"update status y", "update status x"}
			}
			if diff := cmp.Diff(want, tr.writes); diff != "" {
				t.Errorf("writes (-want +got):\n%s", diff)
			}
		})
	}
}

func TestARefusalFromTheCacheCostsNoRequest(t *testing.T) {
	node, other := newNode("a", pool), newNode("b", pool)
	tr := newTraced(t, node, other, newBudget("pool", intstr.FromInt32(1), selectingPool, rebuilt, reservedFor(newRemediation(other), "", 8)))
	asked := interceptor.NewClient(tr.WithWatch, interceptor.Funcs{
		List: func(context.Context, client.WithWatch, client.ObjectList, ...client.ListOption) error {
			t.Error("the API server was asked")
			return nil
		},
	})
	keeper := NewKeeper(Options{Client: tr, Live: asked})
	if verdict, err := keeper.Reserve(t.Context(), node, newRemediation(node), 8); err != nil || verdict.Reason != ReasonExhausted {
		t.Errorf("got %+v, %v; want %s", verdict, err, ReasonExhausted)
	}
}

// A claim comes after its slots. Where the cache of Nodes is ahead of that of budgets, the slots are there all the same: refused,
// the incident would give back the claim under which another process of ours has begun to act.
func TestAClaimedNodeIsNotRefusedFromTheCache(t *testing.T) {
	node, other := newNode("a", pool), newNode("b", pool)
	rem := newRemediation(node)
	behind := newTraced(t, node, other, newBudget("pool", intstr.FromInt32(1), selectingPool, rebuilt, reservedFor(newRemediation(other), "", 8)))
	now := newTraced(t, node, other, newBudget("pool", intstr.FromInt32(1), selectingPool, rebuilt, reservedFor(rem, "", 8)))
	claimed, err := claim.Put(node, rem.Name, rem.UID, nil)
	if err != nil {
		t.Fatal(err)
	}
	keeper := NewKeeper(Options{Client: behind, Live: now})
	if verdict, err := keeper.Reserve(t.Context(), claimed, rem, 8); err != nil || !verdict.Granted {
		t.Errorf("got %+v, %v; want a grant", verdict, err)
	}
}

func TestHeldIsFalseForABudgetThatWasRecreated(t *testing.T) {
	node := newNode("a", pool)
	rem := newRemediation(node)
	if _, err := claim.Put(node, rem.Name, rem.UID, nil); err != nil {
		t.Fatal(err)
	}
	tr := newTraced(t, node, rem, newBudget("pool", intstr.FromInt32(1), selectingPool, reservedFor(rem, "", 8)))
	if held, err := tr.keeper().Held(t.Context(), node, rem); err != nil || held {
		t.Errorf("held is %v, %v; want false", held, err)
	}
}

func TestABudgetThatIsRecreatedForOtherNodesMeanwhileIsNotTakenFrom(t *testing.T) {
	node := newNode("a", pool)
	rem := newRemediation(node)
	tr := newTraced(t, node, rem, newBudget("moved", intstr.FromInt32(1), selectingPool), newBudget("stays", intstr.FromInt32(1), selectingPool))
	swapped := false
	tr.fail = func(_, name string) error {
		if name != "moved" || swapped {
			return nil
		}
		swapped = true
		other := newBudget("moved", intstr.FromInt32(1), func(b *v1alpha1.NodeDisruptionBudget) {
			b.Spec.NodeSelector.MatchLabels = map[string]string{"pool": "other"}
		})
		if err := errors.Join(tr.Delete(t.Context(), newBudget("moved", intstr.FromInt32(1))), tr.Create(t.Context(), other)); err != nil {
			t.Fatal(err)
		}
		return apierrors.NewConflict(schema.GroupResource{Resource: "nodedisruptionbudgets"}, name, errors.New("it changed"))
	}
	if verdict, err := tr.keeper().Reserve(t.Context(), node, rem, 8); err != nil || !verdict.Granted {
		t.Fatalf("got %+v, %v; want a grant", verdict, err)
	}
	if diff := cmp.Diff(map[string][]string{"moved": {}, "stays": {"a-r"}}, tr.holders(t)); diff != "" {
		t.Errorf("holders (-want +got):\n%s", diff)
	}
}
