package order

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
)

var now = time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)

type change func(*Node)

func node(name string, changes ...change) Node {
	n := Node{Name: name, Since: now.Add(-time.Minute), Devices: 1}
	for _, c := range changes {
		c(&n)
	}
	return n
}

func devices(n int) change           { return func(x *Node) { x.Devices = n } }
func atRisk(hours float64) change    { return func(x *Node) { x.AtRisk = hours } }
func runs(gangs ...string) change    { return func(x *Node) { x.Gangs = gangs } }
func waited(d time.Duration) change  { return func(x *Node) { x.Since = now.Add(-d) } }
func planned(x *Node)                { x.Planned = true }
func up(id string, h float64) Gang   { return Gang{ID: id, AtRisk: h} }
func down(id string, h float64) Gang { return Gang{ID: id, AtRisk: h, Down: true} }

// through has all nodes go through one pool.
func through(free, slots int, in Input) Input {
	in.Pools = map[string]Pool{"all": {Free: free, Slots: slots}}
	in.Nodes = slices.Clone(in.Nodes)
	for i := range in.Nodes {
		in.Nodes[i].Pools = []string{"all"}
	}
	return in
}

// told is an order in short: a node each, with a star where it may go now.
func told(places []Place) string {
	var out []string
	for _, p := range places {
		name := p.Node
		if p.Now {
			name += "*"
		}
		out = append(out, name)
	}
	return strings.Join(out, " ")
}

func TestWhichNodeIsNext(t *testing.T) {
	tests := map[string]struct {
		nodes []Node
		gangs []Gang
		free  int
		slots int
		want  string
	}{
		"the idle one before the one with work":                  {[]Node{node("a", atRisk(1)), node("b")}, nil, 1, 1, "b* a"},
		"however much the other gives back":                      {[]Node{node("a", atRisk(0.1), devices(8)), node("b")}, nil, 1, 1, "b* a"},
		"of two idle ones the one that gives back more":          {[]Node{node("a"), node("b", devices(3))}, nil, 1, 1, "b* a"},
		"of two alike the one that has waited longer":            {[]Node{node("a"), node("b", waited(time.Hour))}, nil, 1, 1, "b* a"},
		"of two alike in all the lower name":                     {[]Node{node("b"), node("a")}, nil, 1, 1, "a* b"},
		"the one that loses less for each device":                {[]Node{node("a", atRisk(6), devices(2)), node("b", atRisk(4)), node("c", atRisk(9), devices(4))}, nil, 1, 1, "c* a b"},
		"failed before planned, though planned is idle":          {[]Node{node("a", planned), node("b", atRisk(50))}, nil, 1, 1, "b* a"},
		"the one whose gang is down already":                     {[]Node{node("a"), node("b", runs("g"))}, []Gang{down("g", 99)}, 1, 1, "b* a"},
		"but not where other work runs on it":                    {[]Node{node("a"), node("b", runs("g"), atRisk(1))}, []Gang{down("g", 99)}, 1, 1, "a* b"},
		"nor where another of its gangs runs":                    {[]Node{node("a"), node("b", runs("g", "h"))}, []Gang{down("g", 99), up("h", 1)}, 1, 1, "a* b"},
		"all nodes of a hit gang in one go":                      {[]Node{node("a", runs("g")), node("b", atRisk(4)), node("c", runs("g"))}, []Gang{up("g", 5)}, 2, 2, "a* c* b"},
		"one gang rather than several":                           {[]Node{node("a", runs("g")), node("b", runs("h")), node("c", runs("g")), node("d", runs("h"))}, []Gang{up("g", 6), up("h", 5)}, 2, 2, "b* d* a c"},
		"all or nothing: the slots left go to the next that fit": {[]Node{node("a", runs("g")), node("b", runs("g")), node("c", atRisk(40))}, []Gang{up("g", 2)}, 1, 2, "a b c*"},
		"more than there are slots goes as many at a time":       {[]Node{node("a", runs("g")), node("b", runs("g")), node("c", runs("g"))}, []Gang{up("g", 9)}, 2, 2, "a* b* c"},
		"and goes on while the gang is down":                     {[]Node{node("c", runs("g")), node("d", devices(8))}, []Gang{down("g", 9)}, 1, 2, "c* d"},
		"a planned node goes with a failed one of its gang":      {[]Node{node("a", runs("g")), node("b", runs("g"), planned), node("c", atRisk(90))}, []Gang{up("g", 9)}, 2, 2, "a* b* c"},
		"a gang that nobody knows is the dearest":                {[]Node{node("a", runs("?")), node("b", atRisk(1e6))}, nil, 1, 1, "b* a"},
		"a cost that is no number is the dearest":                {[]Node{node("a", atRisk(math.NaN())), node("b", atRisk(-1)), node("c", atRisk(1e6))}, nil, 1, 1, "c* a b"},
		"with no slot nobody goes":                               {[]Node{node("a")}, nil, 0, 1, "a"},
		"fewer slots than none are none":                         {[]Node{node("a")}, nil, -3, -1, "a"},
		"a node that is named twice goes once":                   {[]Node{node("a"), node("a", waited(time.Hour))}, nil, 2, 2, "a*"},
		"nobody waits":                                           {nil, nil, 1, 1, ""},
		"the overdue one before the idle one":                    {[]Node{node("a"), node("b", atRisk(900), waited(7*time.Hour))}, nil, 1, 1, "b* a"},
		"of the overdue the longest wait":                        {[]Node{node("a", waited(7*time.Hour)), node("b", atRisk(900), waited(8*time.Hour))}, nil, 1, 1, "b* a"},
		"an overdue one before one whose gang is down":           {[]Node{node("a", runs("g")), node("b", atRisk(900), waited(7*time.Hour))}, []Gang{down("g", 1)}, 1, 1, "b* a"},
		"an overdue one does not wait for the rest of its gang":  {[]Node{node("a", runs("g"), waited(7*time.Hour)), node("b", runs("g")), node("c")}, []Gang{up("g", 9)}, 1, 2, "a* b c"},
		"which goes next, since the gang is down by then":        {[]Node{node("a", runs("g"), waited(7*time.Hour)), node("b", runs("g")), node("c")}, []Gang{up("g", 9)}, 2, 2, "a* b* c"},
		"planned ones become overdue too":                        {[]Node{node("a", planned, waited(7*time.Hour)), node("b")}, nil, 1, 1, "a* b"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			in := through(tt.free, tt.slots, Input{Now: now, Nodes: tt.nodes, Gangs: tt.gangs, Patience: 6 * time.Hour})
			if got := told(Make(in)); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestEachPlaceIsExplained(t *testing.T) {
	in := through(2, 2, Input{Now: now, Patience: 6 * time.Hour, Gangs: []Gang{up("ml/train", 128), down("ml/old", 5)}, Nodes: []Node{
		node("late", waited(9*time.Hour), atRisk(3)), node("halted", runs("ml/old")), node("idle"), node("a", runs("ml/train")),
		node("b", runs("ml/train"), atRisk(2)), node("odd", runs("ml/unknown")), node("plan", planned),
		node("c", runs("ml/train")), node("d", runs("ml/train")), node("e", runs("ml/train")),
	}})
	places := Make(in)
	var got []string
	for i, p := range places {
		got = append(got, p.Node+": "+Explain(places, i))
	}
	want := []string{
		"late: it is the next: it has waited for longer than its patience; about 3 device-hours would be lost",
		"halted: among the next 2: the gangs that ran on it are down, and nothing else is lost by it",
		"idle: among the next 4: no work would be lost",
		"a: among the next 4: of those with work, it gives back most for what is lost; about 100 device-hours would be lost, by stopping ml/train; goes in one turn with b, c, d and 1 more",
	}
	if diff := gocmp.Diff(want, got[:4]); diff != "" {
		t.Errorf("texts (-want +got):\n%s", diff)
	}
	if last := got[len(got)-1]; last != "plan: among the next 16: nothing on it has failed, and what has failed goes first" {
		t.Errorf("last is %q", last)
	}
	if odd := got[len(got)-2]; odd != "odd: among the next 16: of those with work, it gives back most for what is lost; what would be lost is not known, by stopping ml/unknown" {
		t.Errorf("before it %q", odd)
	}
}

// fleet is a random input.
func fleet(r *rand.Rand) Input {
	in := Input{Now: now, Patience: 6 * time.Hour, Pools: map[string]Pool{}}
	for i := range 1 + r.IntN(3) {
		slots := 1 + r.IntN(5)
		in.Pools[fmt.Sprint("p", i)] = Pool{Free: r.IntN(slots + 1), Slots: slots}
	}
	for g := range r.IntN(5) {
		in.Gangs = append(in.Gangs, Gang{ID: fmt.Sprint("g", g), AtRisk: float64(r.IntN(200)), Down: r.IntN(4) == 0})
	}
	for i := range 1 + r.IntN(20) {
		n := node(fmt.Sprintf("n%02d", i), devices(r.IntN(9)), waited(time.Duration(r.IntN(500))*time.Minute))
		n.Planned = r.IntN(6) == 0
		if r.IntN(2) == 0 {
			n.AtRisk = float64(r.IntN(40))
		}
		for range r.IntN(3) {
			n.Gangs = append(n.Gangs, fmt.Sprint("g", r.IntN(6)))
		}
		for name := range in.Pools {
			// Of some seeds all nodes go through all pools.
			if len(in.Pools) == 1 || r.IntN(2) == 0 {
				n.Pools = append(n.Pools, name)
			}
		}
		slices.Sort(n.Pools)
		in.Nodes = append(in.Nodes, n)
	}
	return in
}

func TestPropertiesOfTheOrder(t *testing.T) {
	for seed := range uint64(3000) {
		r := rand.New(rand.NewPCG(seed, 1))
		in := fleet(r)
		places := Make(in)
		checkOrder(t, in, places)
		shuffled := in
		shuffled.Nodes, shuffled.Gangs = slices.Clone(in.Nodes), slices.Clone(in.Gangs)
		r.Shuffle(len(shuffled.Nodes), func(i, j int) { shuffled.Nodes[i], shuffled.Nodes[j] = shuffled.Nodes[j], shuffled.Nodes[i] })
		r.Shuffle(len(shuffled.Gangs), func(i, j int) { shuffled.Gangs[i], shuffled.Gangs[j] = shuffled.Gangs[j], shuffled.Gangs[i] })
		if diff := gocmp.Diff(places, Make(shuffled)); diff != "" {
			t.Errorf("the order of the input matters (-one +other):\n%s", diff)
		}
		if t.Failed() {
			t.Fatalf("seed %d: %+v", seed, in)
		}
	}
}

func checkOrder(t *testing.T, in Input, places []Place) {
	t.Helper()
	nodes, at, taken := map[string]Node{}, map[string]int{}, map[string]int{}
	for _, n := range in.Nodes {
		nodes[n.Name] = n
	}
	for i, p := range places {
		if _, twice := at[p.Node]; twice {
			t.Errorf("%s has two places", p.Node)
		}
		at[p.Node] = i
		for _, pool := range nodes[p.Node].Pools {
			if p.Now {
				taken[pool]++
			}
		}
		if Explain(places, i) == "" {
			t.Errorf("%s has no reason", p.Node)
		}
	}
	if len(places) != len(in.Nodes) {
		t.Errorf("%d places for %d nodes", len(places), len(in.Nodes))
	}
	for name, pool := range in.Pools {
		if taken[name] > pool.Free {
			t.Errorf("%d go through %s, which has %d slots free", taken[name], name, pool.Free)
		}
	}
	checkOverdue(t, in, places, at)
	checkBatches(t, in, places, nodes)
	// Where nothing joins nodes, no slot is left empty that one could use.
	for _, p := range places {
		if !p.Now && len(p.Batch) == 0 && !slices.ContainsFunc(nodes[p.Node].Pools, func(name string) bool { return taken[name] >= in.Pools[name].Free }) {
			t.Errorf("%s does not go, and every pool of its has slots", p.Node)
		}
	}
}

// checkBatches says whether what gangs join goes as one, where that can be.
func checkBatches(t *testing.T, in Input, places []Place, nodes map[string]Node) {
	t.Helper()
	for i := 0; i < len(places); i += max(1, len(places[i].Batch)) {
		batch, asked, can := places[i].Batch, map[string]int{}, true
		for _, name := range batch {
			for _, pool := range nodes[name].Pools {
				asked[pool]++
				can = can && asked[pool] <= in.Pools[pool].Slots
			}
		}
		for j := range batch {
			if !gocmp.Equal(places[i+j].Batch, batch) || can && places[i+j].Now != places[i].Now {
				t.Errorf("batch %v does not go as one", batch)
			}
		}
	}
}

// An overdue node waits for nobody but those that have waited longer: it goes wherever those leave it a slot. So in k slots
// the one with r of them before it goes within r/k turns, and nobody waits for longer than the patience and those turns.
func checkOverdue(t *testing.T, in Input, places []Place, at map[string]int) {
	t.Helper()
	var overdue []Node
	for _, n := range in.Nodes {
		if in.Now.Sub(n.Since) >= in.Patience {
			overdue = append(overdue, n)
		}
	}
	slices.SortFunc(overdue, func(a, b Node) int { return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.Name, b.Name)) })
	taken := map[string]int{}
	for i, n := range overdue {
		may := !slices.ContainsFunc(n.Pools, func(pool string) bool { return taken[pool] >= in.Pools[pool].Free })
		if at[n.Name] != i || places[i].Reason != Overdue || places[i].Now != may {
			t.Errorf("%s is overdue, %d have waited longer, and its place is %d (now %t)", n.Name, i, at[n.Name], places[i].Now)
		}
		for _, pool := range n.Pools {
			if may {
				taken[pool]++
			}
		}
	}
}

func FuzzMake(f *testing.F) {
	f.Add(uint64(1), 1, 1, 0.0, int64(0))
	f.Add(uint64(2), -1, math.MaxInt, math.Inf(-1), int64(math.MinInt64))
	f.Fuzz(func(t *testing.T, seed uint64, free, slots int, cost float64, patience int64) {
		in := through(free, slots, fleet(rand.New(rand.NewPCG(seed, 2))))
		in.Patience = time.Duration(patience)
		in.Nodes[0].AtRisk, in.Nodes[0].Devices = cost, free
		if len(in.Gangs) > 0 {
			in.Gangs[0].AtRisk = cost
		}
		places := Make(in)
		if len(places) != len(in.Nodes) {
			t.Errorf("%d places for %d nodes", len(places), len(in.Nodes))
		}
		granted := 0
		for i, p := range places {
			if p.Now {
				granted++
			}
			if math.IsNaN(p.AtRisk) || Explain(places, i) == "" {
				t.Errorf("%+v", p)
			}
		}
		if granted > max(0, free) {
			t.Errorf("%d go through %d slots", granted, free)
		}
	})
}
