package remediation

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/claim"
)

const rackLabel = "topology.example.com/rack"

// randomFleet is six to nine nodes in three racks. Most are of the pool gpu, which a budget of nodes or a percentage and one a
// rack guard; the others are guarded by the implicit budget alone. On them run Jobs, gangs over several nodes, replicas of
// services, and pods under a PodDisruptionBudget.
func randomFleet(t *testing.T, seed uint64) *fleetWorld {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 3))
	fleet := intstr.FromInt32(1 + r.Int32N(2))
	if r.IntN(2) == 0 {
		fleet = intstr.FromString([]string{"25%", "34%", "50%"}[r.IntN(3)])
	}
	rack := aBudget("per-rack", "gpu")
	rack.Spec.TopologyKey = rackLabel
	all := aBudget("fleet", "gpu")
	all.Spec.MaxUnavailable = &fleet
	p := aPolicy()
	p.Spec.Verify = &v1alpha1.Verify{Settle: &metav1.Duration{Duration: time.Second}}
	p.Spec.Probation = &metav1.Duration{Duration: time.Minute}
	p.Spec.Loop = &v1alpha1.Loop{MaxRepairs: ptr.To(int32(50)), MaxBoots: ptr.To(int32(16)), Window: &metav1.Duration{Duration: 10 * time.Minute}}
	objects := []client.Object{all, rack, p}
	for i := range 6 + r.IntN(4) {
		name := fmt.Sprint("n", i)
		node := aNode()
		node.Name, node.UID = name, types.UID("node-"+name)
		node.Labels = map[string]string{rackLabel: fmt.Sprint("r", i%3), "pool": "gpu"}
		if i >= 6 {
			node.Labels["pool"] = "other"
		}
		h := aHealth()
		h.Name, h.UID, h.Spec.NodeUID = name, types.UID("health-"+name), string(node.UID)
		h.Status.Summary = v1alpha1.SummaryHealthy
		for j := range h.Status.Devices {
			h.Status.Devices[j].Health = v1alpha1.DeviceHealthy
		}
		objects = append(objects, node, h)
	}
	w := newFleetWorld(t, seed, objects...)
	for range 20 {
		w.pod()
	}
	return w
}

// pod puts another pod onto some node.
func (w *fleetWorld) pod() {
	w.acts++
	name := fmt.Sprint("pod-", w.acts)
	started := metav1.NewTime(w.clock.Now().Add(-time.Duration(w.random.IntN(600)) * time.Minute))
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ml", Name: name, UID: types.UID(name), Labels: map[string]string{}},
		Spec: corev1.PodSpec{NodeName: w.someNode()}, Status: corev1.PodStatus{Phase: corev1.PodRunning, StartTime: &started}}
	owner := "ReplicaSet"
	switch w.random.IntN(4) {
	case 0:
		owner = "Job"
	case 1:
		owner = "Job"
		pod.Labels["jobset.sigs.k8s.io/jobset-name"] = fmt.Sprint("gang-", w.random.IntN(3))
	case 2:
		pod.Labels["guarded"] = "yes"
	}
	pod.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: owner, Name: "o", UID: "o", Controller: ptr.To(true)}}
	w.must(w.server.Create(w.t.Context(), pod))
}

func (w *fleetWorld) nodes(ctx context.Context) []corev1.Node {
	var list corev1.NodeList
	w.must(w.server.List(ctx, &list))
	return list.Items
}

func (w *fleetWorld) someNode() string {
	nodes := w.nodes(w.t.Context())
	return nodes[w.random.IntN(len(nodes))].Name
}

// choose is a node that an actor works on: one about which there is something to do, most of the time.
func (w *fleetWorld) choose(random *rand.Rand) string {
	if waiting := slices.Sorted(maps.Keys(w.waits)); len(waiting) > 0 && random.IntN(8) > 0 {
		return waiting[random.IntN(len(waiting))]
	}
	nodes := w.nodes(w.t.Context())
	return nodes[random.IntN(len(nodes))].Name
}

// happens lets something happen that no controller does.
func (w *fleetWorld) happens() {
	ctx := w.t.Context()
	w.clock.SetTime(w.clock.Now().Add(time.Duration(1+w.random.IntN(20)) * time.Second))
	if w.random.IntN(6) == 0 {
		w.allowed = min(w.most, w.allowed+1)
	}
	var list v1alpha1.NodeHealthList
	w.must(w.server.List(ctx, &list))
	for i := range list.Items {
		w.agent(ctx, &list.Items[i])
	}
	w.human(ctx, list.Items)
	w.settle(ctx, list.Items)
	if w.peace {
		return
	}
	switch w.random.IntN(12) {
	case 0, 1, 2:
		w.breaks(ctx, &list.Items[w.random.IntN(len(list.Items))])
	case 3:
		w.recreate(ctx)
	case 4:
		w.mishap(ctx)
	case 5:
		w.pod()
	}
}

// agent does what it is asked, a while later, and says so.
func (w *fleetWorld) agent(ctx context.Context, h *v1alpha1.NodeHealth) {
	a, said := h.Spec.Action, h.Status.Action
	switch {
	case a == nil || w.random.IntN(3) == 0:
		return
	case said == nil || said.ID != a.ID:
		h.Status.Action = &v1alpha1.ActionStatus{ID: a.ID, State: v1alpha1.ActionStarted}
	case said.State == v1alpha1.ActionStarted:
		boot := fmt.Sprint("boot-", a.ID)
		h.Status.BootID = boot
		healthy(h)
		h.Status.Boots = append(h.Status.Boots, v1alpha1.Boot{ID: boot, At: metav1.NewTime(w.clock.Now()), Cause: v1alpha1.BootByRoundhouse})
		h.Status.Boots = h.Status.Boots[max(0, len(h.Status.Boots)-16):]
		h.Status.CompletedRound = &v1alpha1.Round{BootID: boot, AfterAction: a.ID, At: metav1.NewTime(w.clock.Now())}
		h.Status.Action = &v1alpha1.ActionStatus{ID: a.ID, State: v1alpha1.ActionDone, Result: v1alpha1.ResultSucceeded}
		w.healed++
	default:
		return
	}
	w.must(w.server.Status().Update(ctx, h))
}

// human repairs what an incident has asked a human for.
func (w *fleetWorld) human(ctx context.Context, all []v1alpha1.NodeHealth) {
	var rems v1alpha1.RemediationList
	w.must(w.server.List(ctx, &rems))
	for i := range all {
		h := &all[i]
		if len(h.Status.Faults) == 0 || w.random.IntN(6) > 0 || !slices.ContainsFunc(rems.Items, func(r v1alpha1.Remediation) bool {
			return r.Spec.Node == h.Name && r.Status.Phase == v1alpha1.PhaseEscalated
		}) {
			continue
		}
		w.humans++
		healthy(h)
		w.must(w.server.Status().Update(ctx, h))
	}
}

// healthy is a node of which nothing is wrong any more.
func healthy(h *v1alpha1.NodeHealth) {
	h.Status.Faults, h.Status.Summary = nil, v1alpha1.SummaryHealthy
	for i := range h.Status.Devices {
		h.Status.Devices[i].Health = v1alpha1.DeviceHealthy
	}
}

// settle notes which nodes wait, and for how long they have.
func (w *fleetWorld) settle(ctx context.Context, all []v1alpha1.NodeHealth) {
	var rems v1alpha1.RemediationList
	w.must(w.server.List(ctx, &rems))
	now := w.clock.Now()
	for i := range all {
		name := all[i].Name
		open := slices.ContainsFunc(rems.Items, func(r v1alpha1.Remediation) bool {
			p := r.Status.Phase
			return r.Spec.Node == name && !p.Over() && p != v1alpha1.PhaseProbation
		})
		since, waited := w.waits[name]
		switch faulty := len(all[i].Status.Faults) > 0 || open; {
		case faulty && !waited:
			w.waits[name] = now
		case !faulty && waited:
			w.longest = max(w.longest, now.Sub(since))
			delete(w.waits, name)
		case faulty && now.Sub(since) > w.bound(len(all)):
			w.problem = fmt.Sprintf("%s has waited for %s, and nobody is to wait for longer than %s", name, now.Sub(since), w.bound(len(all)))
		}
	}
}

// bound is how long a node waits at most: an hour, after which it goes before whatever is cheaper; then for those that have
// waited longer still, one after the other, each for as long as a repair takes here at most; and for its own repair.
func (w *fleetWorld) bound(nodes int) time.Duration {
	const repair = 45 * time.Minute
	return linePatience + time.Duration(nodes+1)*repair
}

// breaks is a fault, of a device or of the node.
func (w *fleetWorld) breaks(ctx context.Context, h *v1alpha1.NodeHealth) {
	if len(h.Status.Faults) > 0 {
		return
	}
	f := aFault("Xid79", []string{"", bad}[w.random.IntN(2)])
	f.FirstSeen, f.LastSeen = metav1.NewTime(w.clock.Now().Truncate(time.Second)), metav1.NewTime(w.clock.Now().Truncate(time.Second))
	h.Status.Faults, h.Status.Summary = []v1alpha1.Fault{f}, v1alpha1.SummaryFaulty
	if f.Device != "" {
		h.Status.Devices[0].Health = v1alpha1.DeviceUnhealthy
	}
	w.must(w.server.Status().Update(ctx, h))
}

// recreate deletes a budget and creates it again, as a human with a tool does: its status is gone.
func (w *fleetWorld) recreate(ctx context.Context) {
	b := &v1alpha1.NodeDisruptionBudget{}
	w.must(w.server.Get(ctx, client.ObjectKey{Name: []string{"fleet", "per-rack"}[w.random.IntN(2)]}, b))
	w.must(w.server.Delete(ctx, b))
	w.acts++
	again := &v1alpha1.NodeDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Name: b.Name, UID: types.UID(fmt.Sprint("budget-", w.acts))}, Spec: b.Spec}
	w.must(w.server.Create(ctx, again))
}

// mishap takes a node out, or gives one back, by another hand.
func (w *fleetWorld) mishap(ctx context.Context) {
	nodes := w.nodes(ctx)
	n := &nodes[w.random.IntN(len(nodes))]
	n.Spec.Unschedulable = !n.Spec.Unschedulable
	w.must(w.server.Update(ctx, n))
}

// calm ends all mishaps.
func (w *fleetWorld) calm() {
	w.peace = true
	for _, n := range w.nodes(w.t.Context()) {
		n.Spec.Unschedulable = false
		w.must(w.server.Update(w.t.Context(), &n))
	}
}

// check holds the API against what must always be true.
func (w *fleetWorld) check(ctx context.Context) {
	var budgets v1alpha1.NodeDisruptionBudgetList
	var rems v1alpha1.RemediationList
	w.must(w.server.List(ctx, &budgets))
	w.must(w.server.List(ctx, &rems))
	byName := map[string]*corev1.Node{}
	nodes := w.nodes(ctx)
	for i := range nodes {
		byName[nodes[i].Name] = &nodes[i]
	}
	unguarded := 0
	open := map[string]string{}
	for i := range rems.Items {
		rem := &rems.Items[i]
		node := byName[rem.Spec.Node]
		if !rem.Status.Phase.Over() {
			if other := open[rem.Spec.Node]; other != "" {
				w.problem = fmt.Sprintf("two incidents are open on %s: %s and %s", rem.Spec.Node, other, rem.Name)
			}
			open[rem.Spec.Node] = rem.Name
		}
		if !rem.Status.Phase.Acting() {
			continue
		}
		if name, _, _ := claim.Ours(node); name == rem.Name && node.Labels["pool"] != "gpu" {
			unguarded++
		}
	}
	if unguarded > 1 {
		w.problem = fmt.Sprintf("%d nodes are worked on that no budget selects", unguarded)
	}
	for i := range budgets.Items {
		w.checkBudget(&budgets.Items[i], nodes, rems.Items)
	}
}

// checkAsk holds an action that is asked for against what it needs: the incident's claim on the node, as whoever asks has just seen
// it. Between that and its request another may take the claim off; in a cluster the leader's fence refuses what comes after.
func (a *fleetActor) checkAsk(h *v1alpha1.NodeHealth) {
	if h.Spec.Action == nil {
		return
	}
	a.world.asked++
	if name := a.claims[h.Name]; name == "" || !strings.HasPrefix(h.Spec.Action.ID, name+"-") {
		a.world.problem = fmt.Sprintf("%s is asked of %s, which was last seen with the claim of %q", h.Spec.Action.ID, h.Name, name)
	}
}

// checkBudget counts a budget's slots, and those who act under it.
func (w *fleetWorld) checkBudget(b *v1alpha1.NodeDisruptionBudget, nodes []corev1.Node, rems []v1alpha1.Remediation) {
	selector, err := metav1.LabelSelectorAsSelector(&b.Spec.NodeSelector)
	w.must(err)
	if b.Name == v1alpha1.ImplicitBudget || b.Spec.MaxUnavailable == nil {
		return // who acts under it has been counted.
	}
	size, acting, slots := map[string]int{}, map[string]int{}, map[string]int{}
	for i := range nodes {
		n := &nodes[i]
		if !selector.Matches(labels.Set(n.Labels)) {
			continue
		}
		domain := n.Labels[b.Spec.TopologyKey]
		size[domain]++
		for j := range rems {
			// One that has let go of its claim does nothing any more, and is about to say so.
			if name, _, _ := claim.Ours(n); name == rems[j].Name && rems[j].Status.Phase.Acting() {
				acting[domain]++
				has := slices.ContainsFunc(b.Status.Reservations, func(r v1alpha1.Reservation) bool { return r.RemediationUID == string(rems[j].UID) })
				if b.Status.RebuiltFor == string(b.UID) && !has {
					w.problem = fmt.Sprintf("%s acts without a slot of budget %s", rems[j].Name, b.Name)
				}
			}
		}
	}
	for _, r := range b.Status.Reservations {
		slots[r.Domain]++
	}
	for domain, n := range size {
		allowed, err := intstr.GetScaledValueFromIntOrPercent(b.Spec.MaxUnavailable, n, false)
		w.must(err)
		if acting[domain] > allowed || slots[domain] > allowed {
			w.problem = fmt.Sprintf("budget %s, domain %q: %d act and %d slots are taken, of %d", b.Name, domain, acting[domain], slots[domain], allowed)
		}
	}
}

// play lets the controllers take turns for a while, then in peace until all is well, and gives what is wrong.
func (w *fleetWorld) play(turns int) string {
	done := make(chan struct{})
	for i, a := range w.actors {
		go a.work(done, rand.New(rand.NewPCG(w.random.Uint64(), uint64(i))))
	}
	waiting := slices.Clone(w.actors)
	for _, a := range waiting {
		<-a.arrived
	}
	ended, starved := false, ""
	for turn := 0; len(waiting) > 0; turn++ {
		if w.random.IntN(12) == 0 {
			w.happens()
		}
		if turn == turns {
			w.calm()
		}
		// What is wrong ends it, and peace in which nobody waits any more.
		if !ended && (w.problem != "" || turn > turns && len(w.waits) == 0 || turn > 20*turns) {
			ended, starved = true, w.whoWaits()
			close(done)
		}
		i := w.random.IntN(len(waiting))
		waiting[i].resume <- struct{}{}
		if !<-waiting[i].arrived {
			waiting = append(waiting[:i:i], waiting[i+1:]...)
		}
	}
	if w.problem == "" && starved != "" {
		return fmt.Sprintf("in peace, after %d turns, still waiting: %s", 20*turns, starved)
	}
	return w.problem
}

// whoWaits says which nodes wait, and for what.
func (w *fleetWorld) whoWaits() string {
	var rems v1alpha1.RemediationList
	w.must(w.server.List(w.t.Context(), &rems))
	var out []string
	for _, r := range rems.Items {
		if since, waits := w.waits[r.Spec.Node]; waits && !r.Status.Phase.Over() {
			out = append(out, fmt.Sprintf("%s since %s: %s %s: %s", r.Spec.Node, since.Format(time.TimeOnly), r.Status.Phase, r.Status.Reason, r.Status.Message))
		}
	}
	return strings.Join(out, "\n")
}

// fleetSeeds is how many fleets are tried; ROUNDHOUSE_SEEDS asks for more.
func fleetSeeds(t *testing.T) uint64 {
	t.Helper()
	text, ok := os.LookupEnv("ROUNDHOUSE_SEEDS")
	if !ok {
		return 2
	}
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		t.Fatalf("ROUNDHOUSE_SEEDS: %v", err)
	}
	return n
}

func TestNoBudgetIsOverspentAndNoNodeStarves(t *testing.T) {
	var sum fleetWorld
	for seed := range fleetSeeds(t) {
		w := randomFleet(t, seed)
		if problem := w.play(1500); problem != "" {
			t.Fatalf("seed %d: %s\nafter\n%s", seed, problem, strings.Join(w.told, "\n"))
		}
		sum.evictions, sum.refusals, sum.kills, sum.healed = sum.evictions+w.evictions, sum.refusals+w.refusals, sum.kills+w.kills, sum.healed+w.healed
		sum.asked += w.asked
		sum.longest = max(sum.longest, w.longest)
	}
	t.Logf("%d repairs, %d evictions, %d refused, %d kills; the longest wait was %s", sum.healed, sum.evictions, sum.refusals, sum.kills, sum.longest)
	if sum.healed == 0 || sum.asked < sum.healed || sum.evictions == 0 || sum.refusals == 0 || sum.kills == 0 {
		t.Error("nothing happened: the property test proves nothing")
	}
}

func TestABrokenReservationIsCaught(t *testing.T) {
	for seed := range uint64(40) {
		w := randomFleet(t, seed)
		w.broken = true
		if problem := w.play(1500); problem != "" {
			t.Logf("seed %d: %s", seed, problem)
			return
		}
	}
	t.Fatal("no seed overspends without the comparison: the property test proves nothing")
}

func TestANodeThatIsNeverGivenASlotIsCaught(t *testing.T) {
	for seed := range uint64(10) {
		w := randomFleet(t, seed)
		w.unfair = "n1"
		if problem := w.play(150); problem != "" {
			t.Logf("seed %d: %s", seed, problem)
			return
		}
	}
	t.Fatal("no seed sees that n1 starves: the property test proves nothing")
}
