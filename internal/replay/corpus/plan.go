package corpus

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"
)

// plan is what happens on one node.
type plan struct {
	// episodes are by time.
	episodes []episode
	// windows and devices are what faults have taken.
	windows map[int]bool
	devices map[string]bool
}

// episode is one thing that happens.
type episode struct {
	at time.Time
	// seed is of all that is random in it.
	seed  uint64
	build func(b *builder)
}

// planner makes the plans.
type planner struct {
	*Corpus
	r    *rand.Rand
	next uint64
}

func (c *Corpus) plan() error {
	c.plans = make([]plan, c.o.Nodes)
	for i := range c.plans {
		c.plans[i] = plan{windows: map[int]bool{}, devices: map[string]bool{}}
	}
	p := &planner{Corpus: c, r: rand.New(rand.NewPCG(c.o.Seed, 0x726f756e64686f75))}
	if err := p.faultsOfEachKind(); err != nil {
		return err
	}
	p.exclusive(c.o.Mix.RebootsPerNodeDay, plannedReboot)
	p.exclusive(c.o.Mix.UpgradesPerNodeDay, driverUpgrade)
	p.applications()
	p.crash()
	p.scattered(c.o.Mix.ForgedPerNodeDay, forgedName)
	p.scattered(c.o.Mix.InjectedPerNodeDay, injectedLine)
	p.scattered(c.o.Mix.OddPerNodeDay, oddCode)
	p.scattered(c.o.Mix.HostPerNodeDay, hostRemark)
	p.scattered(c.o.Mix.OverrunsPerNodeDay, overrun)
	p.scattered(c.o.Mix.AgentRestartsPerNodeDay, agentRestart)
	for i := range c.plans {
		slices.SortStableFunc(c.plans[i].episodes, func(a, b episode) int { return a.at.Compare(b.at) })
	}
	return nil
}

func (p *planner) add(node int, at time.Time, build func(b *builder)) {
	p.next++
	p.plans[node].episodes = append(p.plans[node].episodes, episode{at: at.Truncate(time.Microsecond), seed: p.next, build: build})
}

// total is how many of something there are over all node-days.
func (p *planner) total(perNodeDay float64) int {
	return int(math.Round(perNodeDay * float64(p.NodeDays())))
}

// anyTime is somewhere in the corpus, and not at its very end.
func (p *planner) anyTime() time.Time {
	return p.o.Start.Add(time.Duration(p.r.Int64N(int64(p.end().Sub(p.o.Start) - 5*time.Minute))))
}

// faultsOfEachKind plants as many of each kind as the mix says, or as fit, and more by the published shares.
func (p *planner) faultsOfEachKind() error {
	room := p.o.Nodes * min(p.o.Days*int(24*time.Hour/window), p.o.Mix.GPUs)
	each := max(1, min(p.o.Mix.FaultsPerKind, room/(2*len(kinds))))
	for i := range kinds {
		for range each {
			if err := p.fault(&kinds[i]); err != nil {
				return err
			}
		}
	}
	for range min(p.total(p.o.Mix.FaultsPer1000NodeDays/1000), room/4) {
		if err := p.fault(p.byCause()); err != nil {
			return err
		}
	}
	return nil
}

// byCause draws a kind by the published shares.
func (p *planner) byCause() *kind {
	sum := 0
	for _, c := range causes {
		sum += c.weight
	}
	at := p.r.IntN(sum)
	for _, c := range causes {
		if at -= c.weight; at < 0 {
			var of []*kind
			for i := range kinds {
				if kinds[i].cause == c.name {
					of = append(of, &kinds[i])
				}
			}
			return of[p.r.IntN(len(of))]
		}
	}
	return &kinds[0]
}

// fault plants one on a node that has time and a device for it. A device fails once in a corpus, so that every finding has
// one explanation.
func (p *planner) fault(k *kind) error {
	lemons := max(1, int(float64(p.o.Nodes)*p.o.Mix.LemonPercent/100))
	for range 1000 {
		node := p.r.IntN(p.o.Nodes)
		if p.r.Float64()*100 < p.o.Mix.LemonSharePercent {
			node = p.r.IntN(lemons)
		}
		at, ok := p.window(node)
		if !ok {
			continue
		}
		device, ok := p.device(node, k.place)
		if !ok {
			continue
		}
		p.faults++
		p.add(node, at, func(b *builder) { b.fault(k, device) })
		return nil
	}
	return fmt.Errorf("%d nodes over %d days have no room for every kind of fault: want %d nodes or more",
		p.o.Nodes, p.o.Days, 1+len(kinds)/2)
}

// window takes a window of a node and returns a time in its first half.
func (p *planner) window(node int) (time.Time, bool) {
	n := p.o.Days * int(24*time.Hour/window)
	w := p.r.IntN(n)
	if p.plans[node].windows[w] {
		return time.Time{}, false
	}
	p.plans[node].windows[w] = true
	into := 5*time.Minute + time.Duration(p.r.Int64N(int64(time.Hour)))
	return p.o.Start.Add(time.Duration(w)*window + into), true
}

func (p *planner) device(node int, where place) (string, bool) {
	taken := p.plans[node].devices
	if where == onNode {
		free := !taken["node"]
		taken["node"] = true
		return "", free
	}
	address, n := func(i int) string { return gpuAddresses[i] }, p.o.Mix.GPUs
	if where == onSwitch {
		address, n = switchAddress, p.o.Mix.Switches
	}
	if n == 0 {
		return "", false
	}
	at := p.r.IntN(n)
	for i := range n {
		if a := address((at + i) % n); !taken[a] {
			taken[a] = true
			return a, true
		}
	}
	return "", false
}

// exclusive plants what needs a window of its own.
func (p *planner) exclusive(perNodeDay float64, build func(b *builder)) {
	for range p.total(perNodeDay) {
		node := p.r.IntN(p.o.Nodes)
		if at, ok := p.window(node); ok {
			p.add(node, at, build)
		}
	}
}

// scattered plants what may happen at any time.
func (p *planner) scattered(perNodeDay float64, build func(b *builder)) {
	for range p.total(perNodeDay) {
		p.add(p.r.IntN(p.o.Nodes), p.anyTime(), build)
	}
}

// applications plants the storms. Their sizes are far apart: most are a few lines, a few are thousands.
func (p *planner) applications() {
	for left := p.total(p.o.Mix.Xid45PerNodeDay); left > 0; {
		size := min(left, int(8*math.Pow(1-p.r.Float64(), -0.9)), 5000)
		left -= size
		p.add(p.r.IntN(p.o.Nodes), p.anyTime(), func(b *builder) { b.storm(size) })
	}
	for left := p.total(p.o.Mix.OtherApplicationPerNodeDay); left > 0; {
		size := min(left, 1+p.r.IntN(12))
		left -= size
		p.add(p.r.IntN(p.o.Nodes), p.anyTime(), func(b *builder) { b.applicationErrors(size) })
	}
}

// crash is one job's, on many nodes within two seconds.
func (p *planner) crash() {
	at := p.anyTime()
	nodes := p.r.Perm(p.o.Nodes)
	for _, node := range nodes[:min(p.o.Mix.CrashNodes, len(nodes))] {
		p.add(node, at.Add(time.Duration(p.r.Int64N(int64(2*time.Second)))), (*builder).jobCrash)
	}
}

func compareItems(a, b item) int {
	return cmp.Or(a.event.At.Compare(b.event.At), cmp.Compare(a.op, b.op))
}
