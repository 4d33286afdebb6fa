// Package order says which node goes next where a budget lets fewer go than wait. It is pure: the order is a function of
// what waits, and each place in it has its reason.
//
// What it makes small is device-hours lost: the work that is killed, and the time that broken devices stand idle while they
// wait. A gang is killed once, by the first of its nodes that goes; the others of its nodes are free from then on, and so they
// go with it. Work that waits may end by itself, so that dear work goes late. docs/drain-order.md has the rules and how far
// they are from the best order there is.
package order

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"time"
)

// Node is a node that waits for its turn.
type Node struct {
	Name string
	// Since is when it began to wait.
	Since time.Time
	// Planned says that nothing on it has failed.
	Planned bool
	// Devices counts what its repair gives back.
	Devices int
	// AtRisk is what its own work would lose now, in device-hours; that of gangs is the gangs'.
	AtRisk float64
	// Gangs are the gangs that run on it, by ID.
	Gangs []string
	// Pools are the pools of slots of each of which it needs one.
	Pools []string
}

// Pool is a number of slots: those of a budget in one of its domains.
type Pool struct {
	// Free is how many nodes may go now, and Slots how many may be out at once, those that are out already included.
	Free, Slots int
}

// Gang is work that runs only as a whole, on several nodes.
type Gang struct {
	ID string
	// AtRisk is what stopping it would lose now, in device-hours: its devices times the time since its last checkpoint.
	AtRisk float64
	// Down says that it does not run now: nothing more is lost by it.
	Down bool
}

// Input is all that an order depends on.
type Input struct {
	Now   time.Time
	Nodes []Node
	Gangs []Gang
	// Pools are by name; one that is not there has no slots.
	Pools map[string]Pool
	// Patience is how long a node waits, at most, before it goes ahead of whatever is cheaper; 0 is forever.
	Patience time.Duration
}

// Reason says why a node has its place. The constants are in the order of their rules.
type Reason string

// The reasons.
const (
	// Overdue: it has waited for longer than its patience. The longest wait goes first.
	Overdue Reason = "Overdue"
	// GangIsDown: gangs ran on it that are down now, and nothing else is lost by it.
	GangIsDown Reason = "GangIsDown"
	// Idle: no work would be lost.
	Idle Reason = "Idle"
	// LeastWorkLost: it gives back the most devices for the least work lost, of those on which work runs.
	LeastWorkLost Reason = "LeastWorkLost"
	// Planned: nothing on it has failed, and what has failed goes first.
	Planned Reason = "Planned"
)

// Place is a node's place in the order.
type Place struct {
	Node   string
	Reason Reason
	// Now says that it may go now.
	Now bool
	// AtRisk is what is lost when it and With go, in device-hours; +Inf where that is not known.
	AtRisk float64
	// Batch are the nodes that go together, itself included, where gangs join it to others; Gangs are those that are stopped.
	Batch, Gangs []string
}

// batch is what goes together: one node, or all the waiting nodes that gangs join.
type batch struct {
	nodes  []*Node
	gangs  []string
	atRisk float64
	// devices are what it gives back.
	devices int
	rank    int
	since   time.Time
}

// Make orders the nodes. Of two of the same name the one that has waited longer counts.
func Make(in Input) []Place {
	nodes := once(in.Nodes)
	gangs := known(in.Gangs)
	var overdue, rest []*Node
	for _, n := range nodes {
		if in.Patience > 0 && in.Now.Sub(n.Since) >= in.Patience {
			overdue = append(overdue, n)
			continue
		}
		rest = append(rest, n)
	}
	slices.SortFunc(overdue, longestWait)
	p := &planner{gangs: gangs, free: room{}, slots: room{}, hit: map[string]bool{}}
	for name, pool := range in.Pools {
		p.free[name], p.slots[name] = max(0, pool.Free), max(0, pool.Free, pool.Slots)
	}
	for _, n := range overdue {
		p.place(batch{nodes: []*Node{n}, gangs: p.up(n), atRisk: p.costOf(n), devices: n.Devices}, Overdue)
	}
	for _, b := range p.batches(rest) {
		p.place(b, reasonOf(b.rank))
	}
	return p.places
}

// room is how many nodes fit through each pool.
type room map[string]int

// fits says whether nodes fit through all at once.
func (r room) fits(nodes ...*Node) bool {
	asked := map[string]int{}
	for _, n := range nodes {
		for _, pool := range n.Pools {
			if asked[pool]++; asked[pool] > r[pool] {
				return false
			}
		}
	}
	return true
}

// take makes less room, by one node.
func (r room) take(n *Node) {
	for _, pool := range n.Pools {
		r[pool]--
	}
}

type planner struct {
	gangs       map[string]Gang
	free, slots room
	// hit are the gangs that those who may go now stop.
	hit    map[string]bool
	places []Place
}

// The ranks of batches that are not overdue.
const (
	rankDown = iota
	rankIdle
	rankFailed
	rankPlanned
)

func reasonOf(rank int) Reason {
	return []Reason{GangIsDown, Idle, LeastWorkLost, Planned}[rank]
}

// up are the gangs of a node that run.
func (p *planner) up(n *Node) []string {
	var up []string
	for _, id := range n.Gangs {
		if g, ok := p.gangs[id]; (!ok || !g.Down) && !p.hit[id] && !slices.Contains(up, id) {
			up = append(up, id)
		}
	}
	return up
}

// costOf is what is lost where a node goes alone.
func (p *planner) costOf(n *Node) float64 {
	cost := sane(n.AtRisk)
	for _, id := range p.up(n) {
		cost += p.gangCost(id)
	}
	return cost
}

// gangCost is what stopping a gang loses. One that nobody knows is the dearest.
func (p *planner) gangCost(id string) float64 {
	g, ok := p.gangs[id]
	if !ok {
		return math.Inf(1)
	}
	return sane(g.AtRisk)
}

// sane is a cost that can be compared: what cannot be is the dearest.
func sane(cost float64) float64 {
	if math.IsNaN(cost) || cost < 0 {
		return math.Inf(1)
	}
	return cost
}

// batches joins the nodes that gangs join, and orders what comes of it. Gangs that the overdue stop now are down by then.
func (p *planner) batches(nodes []*Node) []batch {
	parent := make([]int, len(nodes))
	for i := range parent {
		parent[i] = i
	}
	find := func(i int) int {
		for parent[i] != i {
			parent[i] = parent[parent[i]]
			i = parent[i]
		}
		return i
	}
	first := map[string]int{}
	for i, n := range nodes {
		for _, id := range p.up(n) {
			j, seen := first[id]
			if !seen {
				first[id] = i
				continue
			}
			a, b := find(i), find(j)
			parent[max(a, b)] = min(a, b)
		}
	}
	of := map[int]*batch{}
	var all []*batch
	for i, n := range nodes {
		b := of[find(i)]
		if b == nil {
			b = &batch{}
			of[find(i)] = b
			all = append(all, b)
		}
		b.nodes = append(b.nodes, n)
	}
	out := make([]batch, 0, len(all))
	for _, b := range all {
		stopped := map[string]bool{}
		for _, part := range p.split(b) {
			p.weigh(part, stopped)
			out = append(out, *part)
		}
	}
	slices.SortFunc(out, cheapestFirst)
	return out
}

// split parts what can never go at once: each node goes with those whose dearest gang is the same, the cheapest gang first. So
// no node waits for a dear gang that does not run on it.
func (p *planner) split(b *batch) []*batch {
	if len(b.nodes) == 1 || p.slots.fits(b.nodes...) {
		return []*batch{b}
	}
	dearest := map[string]*batch{}
	var parts []*batch
	ids := map[*batch]string{}
	for _, n := range b.nodes {
		up := p.up(n)
		id := slices.MaxFunc(up, p.cheaper)
		part := dearest[id]
		if part == nil {
			part = &batch{}
			dearest[id], ids[part] = part, id
			parts = append(parts, part)
		}
		part.nodes = append(part.nodes, n)
	}
	slices.SortFunc(parts, func(x, y *batch) int { return p.cheaper(ids[x], ids[y]) })
	return parts
}

func (p *planner) cheaper(a, b string) int {
	return cmp.Or(cmp.Compare(p.gangCost(a), p.gangCost(b)), cmp.Compare(a, b))
}

// weigh fills in what a batch costs and gives. Where not all of it can go at once, only those count that go first.
func (p *planner) weigh(b *batch, stopped map[string]bool) {
	slices.SortFunc(b.nodes, func(x, y *Node) int {
		return cmp.Or(compareBools(x.Planned, y.Planned), cmp.Compare(len(x.Gangs), len(y.Gangs)), cmp.Compare(y.Devices, x.Devices), longestWait(x, y))
	})
	down, failed := false, false
	left, first := maps.Clone(p.slots), 0
	for _, n := range b.nodes {
		failed = failed || !n.Planned
		if b.since.IsZero() || n.Since.Before(b.since) {
			b.since = n.Since
		}
		if first > 0 && !left.fits(n) {
			continue
		}
		first++
		left.take(n)
		up := p.up(n)
		down = down || len(n.Gangs) > 0 && len(up) == 0
		b.devices += max(0, n.Devices)
		b.atRisk += sane(n.AtRisk)
		for _, id := range up {
			if !stopped[id] {
				stopped[id] = true
				b.gangs = append(b.gangs, id)
				b.atRisk += p.gangCost(id)
			}
		}
	}
	slices.Sort(b.gangs)
	switch {
	case !failed:
		b.rank = rankPlanned
	case b.atRisk == 0 && down:
		b.rank = rankDown
	case b.atRisk == 0:
		b.rank = rankIdle
	default:
		b.rank = rankFailed
	}
}

// place gives a batch the next places. All of it goes or none, unless it can never go at once or is overdue.
func (p *planner) place(b batch, reason Reason) {
	together := p.slots.fits(b.nodes...)
	all := p.free.fits(b.nodes...)
	var names []string
	for i := range b.nodes {
		if len(b.nodes) > 1 {
			names = append(names, b.nodes[i].Name)
		}
	}
	for _, n := range b.nodes {
		now := all || !together && p.free.fits(n)
		if now {
			p.free.take(n)
			for _, id := range n.Gangs {
				p.hit[id] = true
			}
		}
		p.places = append(p.places, Place{Node: n.Name, Reason: reason, Now: now, AtRisk: b.atRisk, Batch: names, Gangs: b.gangs})
	}
}

// cheapestFirst orders batches: by rank, then by what is won by not waiting, then by age.
func cheapestFirst(a, b batch) int {
	return cmp.Or(
		cmp.Compare(a.rank, b.rank),
		cmp.Compare(b.gain(), a.gain()),
		cmp.Compare(b.devices, a.devices),
		a.since.Compare(b.since),
		cmp.Compare(a.nodes[0].Name, b.nodes[0].Name),
	)
}

// saved is how much of the work at risk on a node is expected to end by itself, or to be saved by a checkpoint, while the node
// waits for one more turn. It is a guess, and the order is not sensitive to it: docs/drain-order.md.
const saved = 0.2

// gain is what is won, for each slot, by going now rather than a turn later: the devices are back for that long, and the work
// that would have ended by itself is lost.
func (b batch) gain() float64 {
	return (float64(b.devices) - saved*b.atRisk) / float64(len(b.nodes))
}

func longestWait(a, b *Node) int {
	return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.Name, b.Name))
}

func compareBools(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// once are the nodes by name, each once.
func once(nodes []Node) []*Node {
	sorted := make([]*Node, len(nodes))
	for i := range nodes {
		sorted[i] = &nodes[i]
	}
	slices.SortStableFunc(sorted, func(a, b *Node) int { return cmp.Or(cmp.Compare(a.Name, b.Name), a.Since.Compare(b.Since)) })
	return slices.CompactFunc(sorted, func(a, b *Node) bool { return a.Name == b.Name })
}

// known are the gangs by ID; of two of the same the dearer counts, and one that is up before one that is down.
func known(gangs []Gang) map[string]Gang {
	out := make(map[string]Gang, len(gangs))
	for _, g := range gangs {
		before, ok := out[g.ID]
		if ok {
			g.Down = g.Down && before.Down
			g.AtRisk = max(sane(g.AtRisk), sane(before.AtRisk))
		}
		out[g.ID] = g
	}
	return out
}
