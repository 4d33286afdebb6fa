package remediation

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/decide"
	"github.com/roundhouse-dev/roundhouse/internal/drain"
	"github.com/roundhouse-dev/roundhouse/internal/drain/order"
)

const (
	// lineMaxAge is how long one planning serves, and lineMinAge how long that of a long line serves at least, whoever comes or goes; lineForgets is how long a node that does not ask again is in the line: it asks
	// as often as a wait is looked at.
	lineMaxAge = 2 * time.Second
	lineMinAge = 250 * time.Millisecond
	// lineGathers is how long one that comes waits for others to come too, where other incidents are pending: of those that begin
	// together the first to ask is not the first to go.
	lineGathers = time.Second
	// lineShort is how many nodes are so few that planning for each that comes costs nothing.
	lineShort   = 64
	lineForgets = 90 * time.Second
	// linePatience is how long a node waits before it goes ahead of cheaper ones.
	linePatience = time.Hour
	// lineOffers is how long a node may leave the slot that is its turn to take; after that, and after it was refused one, it
	// does not keep others from theirs for lineSkips.
	lineOffers = 20 * time.Second
	lineSkips  = time.Minute
	// lineTimeout bounds one planning, which others in the line wait for.
	lineTimeout = 5 * time.Second
	// gangMaxAge is how long it is believed what a gang would lose, maxGangPods how many pods of one are looked at, and maxGangs
	// how many gangs in one planning; the others are taken to be the dearest.
	gangMaxAge  = 30 * time.Second
	maxGangPods = 2000
	maxGangs    = 64
)

// line are the nodes that only a budget's slot keeps from their drains, as this process has seen them ask. It only ever
// withholds: who may go still has to take the slot, and where the line cannot be planned everybody may try.
type line struct {
	// in are the nodes that have a row, to be asked without the lock: who is not in the line waits for nobody's planning.
	in    sync.Map
	mu    sync.Mutex
	rows  map[string]*waiting
	gangs map[drain.GangRef]knownGang
	// places are the last planning's, with who has a place there.
	places  []order.Place
	at      map[string]int
	free    map[string]bool
	planned time.Time
	// stale says that somebody has left since.
	stale bool
}

// waiting is one node in the line.
type waiting struct {
	node  order.Node
	gangs map[drain.GangRef]int64 // devices of each of its pods
	// came is when it first asked, and asked when it last did.
	came, asked time.Time
	// offered is when its turn came; skipped until then it keeps nobody.
	offered, skipped time.Time
}

type knownGang struct {
	gang order.Gang
	at   time.Time
}

// itsTurn puts a node into the line, and says whether others go first, or how long it has to wait until that can be said.
func (r *Reconciler) itsTurn(ctx context.Context, w *work, s *decide.Snapshot, empties *drain.Plan) (*decide.Refusal, time.Duration) {
	l := &r.line
	l.mu.Lock()
	defer l.mu.Unlock()
	now := r.Clock.Now()
	row := l.put(w, s, empties, now)
	if left := row.came.Add(lineGathers).Sub(now); left > 0 && r.pendingBeside(ctx, w.name) {
		return nil, left
	}
	if now.Before(row.skipped) {
		return nil, 0
	}
	return r.place(ctx, w.name, now), 0
}

// pendingBeside says whether incidents of other nodes wait for something.
func (r *Reconciler) pendingBeside(ctx context.Context, node string) bool {
	var list v1alpha1.RemediationList
	if err := r.Client.List(ctx, &list, client.UnsafeDisableDeepCopy); err != nil {
		return false
	}
	return slices.ContainsFunc(list.Items, func(rem v1alpha1.Remediation) bool {
		return rem.Spec.Node != node && (rem.Status.Phase == "" || rem.Status.Phase == v1alpha1.PhasePending)
	})
}

// place says whether others go before a node that is in the line.
func (r *Reconciler) place(ctx context.Context, node string, now time.Time) *decide.Refusal {
	l := &r.line
	i, known := l.at[node]
	age := now.Sub(l.planned)
	fresh := known && !l.stale && age <= lineMaxAge && (l.places[i].Now || l.free[node] || !r.hasRoom(ctx, node))
	switch {
	case fresh:
	case age > lineMinAge || len(l.rows) <= lineShort:
		ctx, cancel := context.WithTimeout(ctx, lineTimeout)
		defer cancel()
		if err := r.plan(ctx, now); err != nil {
			return nil // the budgets decide, whoever comes first.
		}
	case !known:
		if r.queue != nil {
			r.queue.AddAfter(reconcile.Request{NamespacedName: types.NamespacedName{Name: node}}, lineMinAge)
		}
		return &decide.Refusal{Reason: decide.ReasonNotNext, Message: "others wait for a slot too; its place among them is being found",
			WouldChange: "its turn comes"}
	}
	i, known = l.at[node]
	// Where its budgets have no slot left, they say so themselves, and who is out.
	if !known || l.places[i].Now || !l.free[node] {
		return nil
	}
	return &decide.Refusal{Reason: decide.ReasonNotNext, Message: "a slot is left, and others go first: " + order.Explain(l.places, i),
		WouldChange: "its turn comes, after an hour of waiting at the latest before whatever is cheaper"}
}

// hasRoom says whether every budget of a node has a slot left by now, where the last planning found none: who asks first after one
// was freed is not therefore the next.
func (r *Reconciler) hasRoom(ctx context.Context, node string) bool {
	of, rooms, err := r.Budgets.Rooms(ctx, []string{node})
	return err == nil && !slices.ContainsFunc(of[node], func(room string) bool { return rooms[room].Free == 0 })
}

// put notes that a node asks.
func (l *line) put(w *work, s *decide.Snapshot, empties *drain.Plan, now time.Time) *waiting {
	row := l.rows[w.name]
	if row == nil {
		row = &waiting{came: now}
		if l.rows == nil {
			l.rows = map[string]*waiting{}
		}
		l.rows[w.name] = row
		l.in.Store(w.name, true)
	}
	row.asked = now
	row.node = order.Node{Name: w.name, Since: w.rem.CreationTimestamp.Time, Devices: len(w.rem.Spec.Devices)}
	if since := w.rem.Status.Since; since != nil {
		row.node.Since = since.Time
	}
	if row.node.Planned = decide.Planned(s); row.node.Planned {
		row.node.Devices = 0 // they serve.
	} else if row.node.Devices == 0 && s.Health != nil {
		row.node.Devices = len(s.Health.Status.Devices)
	}
	row.node.AtRisk, row.gangs = order.Work(empties)
	row.node.Gangs = order.IDs(row.gangs)
	return row
}

// leave takes a node out of the line: it has its slot, or something else keeps it.
func (l *line) leave(node string) {
	if _, in := l.in.LoadAndDelete(node); !in {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.rows[node]; ok {
		delete(l.rows, node)
		l.stale = true
	}
}

// refused notes that a node was refused the slot that was its turn to take: the budgets know better.
func (l *line) refused(node string, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if row := l.rows[node]; row != nil && !row.offered.IsZero() {
		row.offered, row.skipped = time.Time{}, now.Add(lineSkips)
		l.stale = true
	}
}

// plan orders who asks, and gives those whose turn it is theirs at once.
func (r *Reconciler) plan(ctx context.Context, now time.Time) error {
	l := &r.line
	for name, row := range l.rows {
		if now.Sub(row.asked) > lineForgets {
			delete(l.rows, name)
			l.in.Delete(name)
		}
		if !row.offered.IsZero() && now.Sub(row.offered) > lineOffers {
			row.offered, row.skipped = time.Time{}, now.Add(lineSkips)
		}
	}
	in := order.Input{Now: now, Patience: linePatience, Pools: map[string]order.Pool{}}
	names := slices.Sorted(maps.Keys(l.rows))
	of, rooms, err := r.Budgets.Rooms(ctx, names)
	if err != nil {
		return err
	}
	for name, room := range rooms {
		in.Pools[name] = order.Pool{Free: room.Free, Slots: room.Slots}
	}
	gangs := map[drain.GangRef]int64{}
	for _, name := range names {
		row := l.rows[name]
		if now.Before(row.skipped) {
			continue
		}
		row.node.Pools = of[name]
		in.Nodes = append(in.Nodes, row.node)
		for ref, each := range row.gangs {
			gangs[ref] = max(gangs[ref], each)
		}
	}
	if contended(in) {
		in.Gangs = r.weigh(ctx, gangs, now)
	}
	l.places, l.at, l.free, l.planned = order.Make(in), map[string]int{}, map[string]bool{}, now
	l.stale = false
	for i := range in.Nodes {
		n := &in.Nodes[i]
		l.free[n.Name] = !slices.ContainsFunc(n.Pools, func(pool string) bool { return in.Pools[pool].Free == 0 })
	}
	for i, p := range l.places {
		l.at[p.Node] = i
		row := l.rows[p.Node]
		if !p.Now {
			row.offered = time.Time{}
			continue
		}
		if row.offered.IsZero() {
			row.offered = now
			if r.queue != nil {
				r.queue.Add(reconcile.Request{NamespacedName: types.NamespacedName{Name: p.Node}})
			}
		}
	}
	return nil
}

// contended says whether more ask for slots of a pool than it has: else all may go, whatever they cost.
func contended(in order.Input) bool {
	asked := map[string]int{}
	for i := range in.Nodes {
		for _, pool := range in.Nodes[i].Pools {
			if asked[pool]++; asked[pool] > in.Pools[pool].Free {
				return true
			}
		}
	}
	return false
}

// weigh says what stopping each gang would lose. What cannot be read is left out, and is then taken to be the dearest.
func (r *Reconciler) weigh(ctx context.Context, gangs map[drain.GangRef]int64, now time.Time) []order.Gang {
	l := &r.line
	maps.DeleteFunc(l.gangs, func(_ drain.GangRef, known knownGang) bool { return now.Sub(known.at) > gangMaxAge })
	if l.gangs == nil {
		l.gangs = map[drain.GangRef]knownGang{}
	}
	var out []order.Gang
	for _, ref := range slices.SortedFunc(maps.Keys(gangs), order.ByName) {
		known, ok := l.gangs[ref]
		if !ok && len(l.gangs) < maxGangs {
			gang, err := r.gang(ctx, ref, gangs[ref], now)
			if err != nil {
				continue
			}
			known, ok = knownGang{gang: gang, at: now}, true
			l.gangs[ref] = known
		}
		if ok {
			out = append(out, known.gang)
		}
	}
	return out
}

// gang looks at the pods of a gang, wherever they run.
func (r *Reconciler) gang(ctx context.Context, ref drain.GangRef, each int64, now time.Time) (order.Gang, error) {
	options := []client.ListOption{client.InNamespace(ref.Namespace), client.Limit(maxGangPods)}
	if ref.Label != "" {
		options = append(options, client.MatchingLabels{ref.Label: ref.Name})
	}
	var list corev1.PodList
	if err := r.Live.List(ctx, &list, options...); err != nil {
		return order.Gang{}, fmt.Errorf("listing the pods of gang %s: %w", ref, err)
	}
	var pods []*corev1.Pod
	for i := range list.Items {
		if pod := &list.Items[i]; ref.Has(pod) {
			pods = append(pods, pod)
		}
	}
	loss := drain.WeighGang(now, pods, each)
	return order.Gang{ID: ref.String(), AtRisk: loss.DeviceHours, Down: loss.Down}, nil
}
