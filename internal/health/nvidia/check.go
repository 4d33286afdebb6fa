package nvidia

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/health"
	"github.com/roundhouse-dev/roundhouse/internal/health/track"
	"github.com/roundhouse-dev/roundhouse/internal/machine"
)

// judge is one check's opinion of one look. It is pure but for what it remembers of counters.
type judge interface {
	name() string
	judge(l *look) verdict
}

// verdict is what a judge says.
type verdict struct {
	seen []track.Observation
	// unseen is what could not be judged: what stood of it stands on.
	unseen map[spot]bool
	// over is what has ended, however recently it was seen.
	over []spot
	// blind says what of this makes the look Unknown; notes says what else is worth knowing.
	blind, notes []string
	// gap replaces the look's own, for a judge that sees more, or less, than the others.
	gap *gap
}

// spot is a kind of fault in a place.
type spot struct{ place, code string }

// see adds something wrong with a GPU.
func (v *verdict) see(g *machine.NVMLGPU, o track.Observation) {
	o.ID, o.PCI = place(g), g.Address
	if o.ClearedBy == "" {
		o.ClearedBy = health.ClearedByLook
	}
	where := o.PCI
	if where == "" {
		where = fmt.Sprintf("GPU %d", g.Index)
	}
	o.Evidence = where + ": " + o.Evidence
	v.seen = append(v.seen, o)
}

// seeNode adds something wrong with the whole node.
func (v *verdict) seeNode(o track.Observation) {
	o.ClearedBy = health.ClearedByLook
	v.seen = append(v.seen, o)
}

// miss says that a GPU's value is not there, so that the codes could not be judged. A GPU or driver that has no such thing
// passes; a lost GPU is the gpu-lost check's to tell, whose fault keeps it from being taken for a healthy one; what a
// broken-off report did not come to is the report's gap. All else is blindness.
func (v *verdict) miss(l *look, g *machine.NVMLGPU, codes []string, words ...string) {
	v.keep(g, codes...)
	call, err, told := unread(g, words...)
	switch {
	case g.Lost != "":
		v.notes = append(v.notes, fmt.Sprintf("%s: %s", place(g), g.Lost))
	case told && slices.Contains(normal, err):
	case told:
		v.blind = append(v.blind, fmt.Sprintf("%s: %s: %s", place(g), call, err))
	case l.whole():
		v.blind = append(v.blind, fmt.Sprintf("%s: NVML's answer has no %s and does not say why", place(g), words[0]))
	}
}

// keep leaves what stands of the codes on a GPU as it is.
func (v *verdict) keep(g *machine.NVMLGPU, codes ...string) { v.keepAt(place(g), codes...) }

func (v *verdict) keepAt(place string, codes ...string) {
	if v.unseen == nil {
		v.unseen = make(map[spot]bool)
	}
	for _, code := range codes {
		v.unseen[spot{place, code}] = true
	}
}

// check makes a health.Check of a judge.
type check struct {
	judge  judge
	source *Source

	mu    sync.Mutex
	state state
	save  saving
	// known says that somebody else was at work on the driver at the last look.
	known bool
	// uuids are the UUIDs last seen by place.
	uuids map[string]string
}

var (
	_ health.Check    = (*check)(nil)
	_ health.Resetter = resettable{}
)

// Name is the judge's.
func (c *check) Name() string { return c.judge.name() }

// Look judges the newest answer.
func (c *check) Look(ctx context.Context) health.Result {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.begin(ctx); err != nil {
		return c.unknown(gap{health.ReasonOf(err), err.Error()})
	}
	age := labelsAge
	if len(c.state.Tracked) > 0 || c.known || c.source.failed() {
		age = labelsSoon
	}
	g := c.source.o.known(age)
	if c.known = g.reason != ""; c.known {
		return c.unknown(g)
	}
	l, err := c.source.look(ctx)
	if err != nil {
		return c.unknown(gap{health.ReasonOf(err), err.Error()})
	}
	v := c.judge.judge(l)
	if v.gap == nil {
		g := l.gap()
		v.gap = &g
	}
	replaced := c.dropReplaced(l)
	if c.fold(l, v) || replaced || c.counted() {
		c.keepState(ctx)
	}
	return c.result(l, v)
}

// fold tracks what the verdict says, and says whether what is worth keeping changed.
func (c *check) fold(l *look, v verdict) (changed bool) {
	c.state.Tracked = slices.DeleteFunc(c.state.Tracked, func(k track.Tracked) bool {
		over := slices.Contains(v.over, spot{k.ID, k.Code})
		changed = changed || over
		return over
	})
	seen := make(map[spot]bool, len(v.seen))
	for _, o := range v.seen {
		seen[spot{o.ID, o.Code}] = true
	}
	inReport := make(map[string]bool, len(l.GPUs))
	for i := range l.GPUs {
		inReport[place(&l.GPUs[i])] = true
	}
	unseen := func(id, code string) bool {
		s := spot{id, code}
		return !seen[s] && (v.unseen[s] || v.gap.reason != "" && !inReport[id])
	}
	tracked, opened, _ := track.Fold(c.state.Tracked, v.seen, unseen, l.at)
	c.state.Tracked = tracked
	return changed || opened
}

// dropReplaced forgets what was found on a GPU in whose place there is another one now.
func (c *check) dropReplaced(l *look) (dropped bool) {
	if c.uuids == nil {
		c.uuids = make(map[string]string, len(l.GPUs))
	}
	for i := range l.GPUs {
		g := &l.GPUs[i]
		if g.UUID == "" {
			continue
		}
		if was := c.uuids[place(g)]; was != "" && was != g.UUID {
			n := len(c.state.Tracked)
			c.state.Tracked = slices.DeleteFunc(c.state.Tracked, func(k track.Tracked) bool { return k.ID == place(g) })
			dropped = dropped || len(c.state.Tracked) < n
		}
		c.uuids[place(g)] = g.UUID
	}
	return dropped
}

// findings leave the identity of the device to the inventory, which knows it even when NVML does not.
func (c *check) findings() []health.Finding {
	out := track.Findings(c.Name(), c.state.Tracked)
	for i := range out {
		out[i].Fault.Device = ""
	}
	return out
}

func (c *check) result(l *look, v verdict) health.Result {
	r := health.Result{Findings: c.findings()}
	if !l.nothing {
		r.Looked = health.Count(len(l.GPUs), "GPU")
	}
	r.Outcome = health.OutcomeOf(r.Findings)
	notes := slices.Concat(v.blind, c.pending(false), v.notes)
	settling := c.settling()
	switch {
	case v.gap.reason != "":
		r.Reason = v.gap.reason
		notes = append([]string{v.gap.why}, notes...)
	case len(v.blind) > 0:
		r.Reason = health.ReasonCannotRead
	case settling != "":
		r.Reason = ReasonSettling
		notes = append([]string{settling}, notes...)
		if c.young() {
			r.Again = settleEvery
			c.source.hurry()
		}
	case l.nothing && len(r.Findings) == 0:
		notes = append(notes, "there is no GPU here that NVIDIA's driver could hold")
	}
	if r.Reason != "" {
		r.Outcome = health.Unknown
	}
	r.Message = health.Bound(strings.Join(append(notes, c.save.note()...), "; "), health.MaxMessage)
	return r
}

// young says that something that would be Critical was seen in few looks so far. What has to last for minutes is not
// hurried for as long.
func (c *check) young() bool {
	return slices.ContainsFunc(c.state.Tracked, func(k track.Tracked) bool {
		return !k.Open && k.Severity == v1alpha1.SeverityCritical && k.Looks <= lostLooks
	})
}

// settling is what would be Critical and has not lasted yet. It must not pass, or a GPU that has not come back from a
// repair would be taken for repaired; what would be a Warning passes meanwhile.
func (c *check) settling() string { return strings.Join(c.pending(true), "; ") }

// pending is what has not lasted yet, of what would be Critical or of the rest.
func (c *check) pending(critical bool) []string {
	var notes []string
	for _, k := range c.state.Tracked {
		if !k.Open && (k.Severity == v1alpha1.SeverityCritical) == critical {
			notes = append(notes, k.Evidence)
		}
	}
	return notes
}

// unknown is the result of a look at nothing: what stood stands.
func (c *check) unknown(g gap) health.Result {
	return health.Result{
		Outcome: health.Unknown, Reason: g.reason, Message: health.Bound(g.why, health.MaxMessage), Findings: c.findings(),
	}
}

// resettable is a check whose faults no look could see the end of.
type resettable struct{ *check }

// DeviceReset ends what was found on the GPU at the address. What NVML answered before is no longer believed by any check.
func (c resettable) DeviceReset(ctx context.Context, pci string) error {
	c.source.forget()
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.begin(ctx); err != nil {
		return fmt.Errorf("%s: a reset of %s: %w", c.Name(), pci, err)
	}
	n := len(c.state.Tracked)
	c.state.Tracked = slices.DeleteFunc(c.state.Tracked, func(k track.Tracked) bool {
		return k.PCI == pci && k.ClearedBy == health.ClearedByReset
	})
	if len(c.state.Tracked) < n {
		c.keepState(ctx)
	}
	return c.save.err
}
