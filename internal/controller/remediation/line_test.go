package remediation

import (
	"errors"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/decide"
	"github.com/roundhouse-dev/roundhouse/internal/drain"
)

// queueing is a cluster whose nodes a to f wait for a budget of so many slots; x is out, and holds one where it is said so.
type queueing struct {
	*cluster
	plans map[string]*drain.Plan
	since map[string]time.Time
}

func newQueueing(t *testing.T, slots int32, out ...string) *queueing {
	t.Helper()
	budget := &v1alpha1.NodeDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Name: "all", UID: "all"},
		Spec: v1alpha1.NodeDisruptionBudgetSpec{MaxUnavailable: ptr.To(intstr.FromInt32(slots))}, Status: v1alpha1.NodeDisruptionBudgetStatus{RebuiltFor: "all"}}
	for _, name := range out {
		budget.Status.Reservations = append(budget.Status.Reservations, v1alpha1.Reservation{Node: name, NodeUID: name, Remediation: name, RemediationUID: name, Devices: 8})
	}
	objects := []client.Object{budget}
	for _, name := range []string{"a", "b", "c", "d", "e", "f", "x"} {
		objects = append(objects, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name)},
			Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}}})
	}
	q := &queueing{cluster: newCluster(t, objects...), plans: map[string]*drain.Plan{}, since: map[string]time.Time{}}
	return q
}

// asks is a node that asks for its turn; it answers "now", or the reason and the message.
func (q *queueing) asks(name string) string {
	q.t.Helper()
	since := metav1.NewTime(q.clock.Now())
	if at, ok := q.since[name]; ok {
		since = metav1.NewTime(at)
	}
	rem := &v1alpha1.Remediation{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name)},
		Spec: v1alpha1.RemediationSpec{Node: name, NodeUID: name, Devices: []string{"GPU-1"}}, Status: v1alpha1.RemediationStatus{Since: &since}}
	plan := q.plans[name]
	if plan == nil {
		plan = &drain.Plan{}
	}
	refused, after := q.itsTurn(q.t.Context(), &work{name: name, rem: rem}, &decide.Snapshot{Now: q.clock.Now(), Remediation: rem}, plan)
	switch {
	case after > 0:
		return "in " + after.String()
	case refused == nil:
		return "now"
	}
	return refused.Reason + ": " + refused.Message
}

// all has each ask, the second time so that each knows of the others.
func (q *queueing) all(names ...string) (now []string) {
	for range 2 {
		now = nil
		for _, name := range names {
			if q.asks(name) == "now" {
				now = append(now, name)
			}
		}
		q.clock.SetTime(q.clock.Now().Add(time.Second))
	}
	return now
}

func dear(hours float64) *drain.Plan {
	return &drain.Plan{Move: []drain.Move{{Cost: v1alpha1.CostDear, AtRisk: hours, Devices: 1}}}
}

// ofGang is a plan that stops a pod of a gang.
func ofGang(name string) *drain.Plan {
	return &drain.Plan{Move: []drain.Move{{Pod: gangPod(name, "here"), Cost: v1alpha1.CostDear, AtRisk: 1, Devices: 8}}}
}

func gangPod(gang, name string, changes ...func(*corev1.Pod)) corev1.Pod {
	p := corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ml", Name: gang + "-" + name, Labels: map[string]string{"jobset.sigs.k8s.io/jobset-name": gang}},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, StartTime: &metav1.Time{Time: began.Add(-time.Hour)}}}
	for _, c := range changes {
		c(&p)
	}
	return p
}

func (q *queueing) want(got []string, want string) {
	q.t.Helper()
	if strings.Join(got, " ") != want {
		q.t.Errorf("may go: %v, want %q", got, want)
	}
}

func TestTheCheapestNodeGoesFirst(t *testing.T) {
	q := newQueueing(t, 1)
	q.plans["a"], q.plans["b"] = dear(40), dear(2)
	q.want(q.all("a", "b", "c"), "c")
	if said := q.asks("a"); !strings.HasPrefix(said, "NotNext: a slot is left, and others go first: among the next 4: of those with work") || !strings.Contains(said, "about 40 device-hours") {
		t.Errorf("the last is told %q", said)
	}
	q.line.leave("c")
	q.want(q.all("a", "b"), "b")
	q.line.leave("b")
	q.want(q.all("a"), "a")
}

func TestWhereThereIsRoomForAllNobodyWaits(t *testing.T) {
	q := newQueueing(t, 3)
	q.plans["a"] = dear(40)
	for _, name := range []string{"a", "b", "c"} {
		if said := q.asks(name); said != "now" {
			t.Errorf("%s: %s", name, said)
		}
	}
}

// The budget says itself who is out, better than a place in a line does.
func TestWhereTheBudgetIsSpentItSaysSo(t *testing.T) {
	q := newQueueing(t, 1, "x")
	q.plans["a"] = dear(40)
	q.want(q.all("a", "b"), "a b")
}

// A slot that was freed since the line was planned is not for whoever asks first.
func TestASlotThatIsFreedIsForTheNext(t *testing.T) {
	q := newQueueing(t, 1, "x")
	q.plans["a"] = dear(40)
	q.want(q.all("a", "b"), "a b")
	q.asks("b") // plans.
	var budget v1alpha1.NodeDisruptionBudget
	if err := q.server.Get(t.Context(), client.ObjectKey{Name: "all"}, &budget); err != nil {
		t.Fatal(err)
	}
	budget.Status.Reservations = nil
	if err := q.server.Status().Update(t.Context(), &budget); err != nil {
		t.Fatal(err)
	}
	if said := q.asks("a"); !strings.HasPrefix(said, "NotNext: a slot is left, and others go first") {
		t.Errorf("the dear one is told %q", said)
	}
	if said := q.asks("b"); said != "now" {
		t.Errorf("the cheap one is told %q", said)
	}
}

func TestANodeThatHasWaitedLongEnoughGoesFirst(t *testing.T) {
	q := newQueueing(t, 1)
	q.plans["a"] = dear(4000)
	q.since["a"] = began.Add(-2 * time.Hour)
	q.want(q.all("b", "a"), "a")
}

func TestAGangIsWeighedByAllOfIt(t *testing.T) {
	small, large := gangPod("small", "1"), gangPod("large", "1")
	q := newQueueing(t, 1)
	for i := range 9 {
		other := gangPod("large", string(rune('2'+i)))
		q.must(q.server.Create(t.Context(), &other))
	}
	q.must(errors.Join(q.server.Create(t.Context(), &small), q.server.Create(t.Context(), &large)))
	q.plans["a"], q.plans["b"] = ofGang("large"), ofGang("small")
	q.want(q.all("a", "b"), "b")
	if said := q.asks("a"); !strings.Contains(said, "about 80 device-hours would be lost, by stopping ml/large") {
		t.Errorf("told %q", said)
	}
	if n := q.count("list PodList"); n != 2 {
		t.Errorf("%d lists of pods, want one a gang", n)
	}
}

func TestAllHitNodesOfAGangGoInOneTurn(t *testing.T) {
	pod := gangPod("g", "1")
	q := newQueueing(t, 2)
	q.must(q.server.Create(t.Context(), &pod))
	q.plans["a"], q.plans["b"], q.plans["c"] = dear(9), ofGang("g"), ofGang("g")
	q.want(q.all("a", "b", "c"), "b c")
}

func TestAGangThatIsDownCostsNothing(t *testing.T) {
	pod, going := gangPod("g", "1"), gangPod("g", "2", func(p *corev1.Pod) { p.Status.Phase = corev1.PodPending })
	q := newQueueing(t, 1)
	q.must(errors.Join(q.server.Create(t.Context(), &pod), q.server.Create(t.Context(), &going)))
	q.plans["a"], q.plans["b"] = dear(0.1), ofGang("g")
	q.want(q.all("a", "b"), "b")
}

// A node may be the next and not come: its gates may have closed since. The others have their turn all the same.
func TestWhoDoesNotTakeItsTurnKeepsNobody(t *testing.T) {
	for name, miss := range map[string]func(*queueing){
		"it does not come":  func(q *queueing) { q.clock.SetTime(q.clock.Now().Add(lineOffers)) },
		"it is refused":     func(q *queueing) { q.line.refused("b", q.clock.Now()) },
		"it has left":       func(q *queueing) { q.line.leave("b") },
		"it asks no longer": func(q *queueing) { q.asks("a"); q.clock.SetTime(q.clock.Now().Add(lineForgets + time.Second)) },
	} {
		t.Run(name, func(t *testing.T) {
			q := newQueueing(t, 1)
			q.plans["a"] = dear(40)
			q.want(q.all("a", "b"), "b")
			miss(q)
			q.want(q.all("a"), "a")
		})
	}
}

// One that was refused what was its turn to take asks the budgets themselves for a while: they know better.
func TestOneThatWasRefusedMayTry(t *testing.T) {
	q := newQueueing(t, 1)
	q.plans["b"] = dear(40)
	q.want(q.all("a", "b"), "a")
	q.line.refused("a", q.clock.Now())
	q.want(q.all("a", "b"), "a b")
}

// Of those that begin together the first to ask is not the first to go; one that is alone does not wait.
func TestOneThatComesWaitsForOthersToCome(t *testing.T) {
	q := newQueueing(t, 1)
	if said := q.asks("a"); said != "now" {
		t.Errorf("alone: %s", said)
	}
	q.line.leave("a")
	for _, name := range []string{"a", "b"} {
		q.must(q.server.Create(t.Context(), &v1alpha1.Remediation{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.RemediationSpec{Node: name}}))
	}
	q.plans["a"] = dear(40)
	if said := q.asks("a"); said != "in 1s" {
		t.Errorf("with another that may come: %s", said)
	}
	q.clock.SetTime(q.clock.Now().Add(400 * time.Millisecond))
	if a, b := q.asks("a"), q.asks("b"); a != "in 600ms" || b != "in 1s" {
		t.Errorf("a %s, b %s", a, b)
	}
	q.clock.SetTime(q.clock.Now().Add(time.Second))
	if a, b := q.asks("a"), q.asks("b"); !strings.HasPrefix(a, "NotNext") || b != "now" {
		t.Errorf("a %s, b %s", a, b)
	}
}

func TestWhoAsksNoLongerIsForgotten(t *testing.T) {
	q := newQueueing(t, 1)
	q.all("a", "b", "c")
	q.clock.SetTime(q.clock.Now().Add(lineForgets + time.Second))
	q.asks("a")
	if n := len(q.line.rows); n != 1 {
		t.Errorf("%d in the line, want the one that asks", n)
	}
}
