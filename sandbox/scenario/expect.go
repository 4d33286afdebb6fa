package scenario

import (
	"cmp"
	"context"
	"fmt"
	"time"
)

// Outcome says of one expectation whether it was seen.
type Outcome struct {
	// Name says it in words.
	Name string `json:"name"`
	// Part is "step 4", "never" or "finally".
	Part string `json:"part"`
	// Seen says that it came as expected: that it was there, or for "never" that it was not.
	Seen bool `json:"seen"`
	// At is when that was known, Waited how long the step waited, both in seconds.
	At     float64 `json:"at"`
	Waited float64 `json:"waited"`
	// Count is how many there were.
	Count int `json:"count"`
	// Evidence is what showed it: a fact, or the state; Source is the object and its resourceVersion.
	Evidence string `json:"evidence,omitempty"`
	Source   string `json:"source,omitempty"`
	// Why says why it was not seen.
	Why string `json:"why,omitempty"`
	// Fact is the fact that showed it, for the narrator.
	Fact *Fact `json:"-"`
}

// cursors remember how far the expectations of a timeline have read, by kind of fact and node: expectations are met in
// their order. Facts of different kinds come by different watches, between which the API server promises no order.
type cursors map[string]int

func cursorKey(p *Pattern) string { return string(p.Kind) + " " + p.Where["node"] }

// bounds are the fewest and the most that an expectation allows; most is -1 where there is no limit.
func (e *Expect) bounds(fewest, most int) (int, int) {
	if e.Exactly != nil {
		return *e.Exactly, *e.Exactly
	}
	if e.AtLeast != nil {
		fewest, most = *e.AtLeast, -1
	}
	if e.AtMost != nil {
		most = *e.AtMost
		if e.AtLeast == nil {
			fewest = 0
		}
	}
	return fewest, most
}

func within(n, fewest, most int) bool { return n >= fewest && (most < 0 || n <= most) }

// await waits for an expectation of a step.
func await(ctx context.Context, t *Tape, e *Expect, after int, c cursors) (Outcome, error) {
	began := t.Since()
	ctx, cancel := context.WithTimeout(ctx, e.Within.Of())
	defer cancel()
	o := Outcome{Name: e.Name}
	var look func([]Fact, *World) bool
	if e.See != nil {
		look = func(facts []Fact, _ *World) bool { return awaitFact(&o, facts, e, max(after, c[cursorKey(e.See)])) }
	} else {
		look = func(_ []Fact, w *World) bool { return awaitState(&o, w, e) }
	}
	seen, err := t.Until(ctx, look)
	o.Seen, o.At, o.Waited = seen, seconds(t.Since()), seconds(t.Since()-began)
	if !seen {
		o.Why = cmp.Or(o.Why, "not seen") + " within " + e.Within.Of().String()
	}
	if o.Fact != nil && seen {
		o.At = seconds(o.Fact.At)
		c[cursorKey(e.See)] = o.Fact.Seq
	}
	return o, err
}

func awaitFact(o *Outcome, facts []Fact, e *Expect, after int) bool {
	fewest, most := e.bounds(1, -1)
	n := 0
	var last *Fact
	for i := after; i < len(facts); i++ {
		if e.See.Matches(facts[i]) {
			n++
			last = &facts[i]
			if n == fewest && most < 0 {
				break
			}
		}
	}
	o.Count = n
	if last != nil {
		f := *last
		o.Fact, o.Evidence, o.Source = &f, f.String(), f.Source
	}
	if !within(n, fewest, most) {
		o.Why = fmt.Sprintf("%d seen, %s wanted; %s", n, wanted(fewest, most), nearest(facts, e.See))
		return false
	}
	return true
}

func awaitState(o *Outcome, w *World, e *Expect) bool {
	fewest, most := e.bounds(1, -1)
	if e.State.Kind == StateLeftovers {
		fewest, most = e.bounds(0, 0)
	}
	o.Count, o.Evidence = w.Count(*e.State)
	if !within(o.Count, fewest, most) {
		o.Why = fmt.Sprintf("%d %s, %s wanted", o.Count, e.State.Kind, wanted(fewest, most))
		if o.Evidence != "" {
			o.Why += ": " + o.Evidence
		}
		return false
	}
	if o.Evidence == "" {
		o.Evidence = "none"
	}
	return true
}

func wanted(fewest, most int) string {
	switch {
	case most < 0:
		return fmt.Sprintf("at least %d", fewest)
	case fewest == most:
		return fmt.Sprintf("exactly %d", fewest)
	case fewest == 0:
		return fmt.Sprintf("at most %d", most)
	}
	return fmt.Sprintf("%d to %d", fewest, most)
}

// nearest is the last fact of the same kind and node: most often it says what happened instead.
func nearest(facts []Fact, p *Pattern) string {
	for i := len(facts) - 1; i >= 0; i-- {
		f := facts[i]
		if f.Kind == p.Kind && (p.Where["node"] == "" || valueMatches(p.Where["node"], f.Fields["node"])) {
			return fmt.Sprintf("the last of its kind, at %.2fs: %s", f.Seconds, f)
		}
	}
	return "none of its kind"
}

// guard watches for what must never be seen.
type guard struct {
	Expect
	armed bool
	count int
	first *Fact
}

// take counts a fact where it is one that must not be, and keeps the first that is one too many.
func (g *guard) take(f Fact) {
	if !g.armed || !g.See.Matches(f) {
		return
	}
	g.count++
	_, most := g.bounds(0, 0)
	if g.count == most+1 {
		g.first = &f
	}
}

func (g *guard) outcome(at time.Duration) Outcome {
	_, most := g.bounds(0, 0)
	o := Outcome{Name: g.Name, Part: "never", Seen: g.first == nil, At: seconds(at), Count: g.count}
	if g.first != nil {
		o.At, o.Evidence, o.Source, o.Fact = g.first.Seconds, g.first.String(), g.first.Source, g.first
		o.Why = fmt.Sprintf("%d seen, %d allowed: %s", g.count, most, o.Evidence)
		return o
	}
	o.Evidence = "not once"
	if most > 0 {
		o.Evidence = fmt.Sprintf("%d seen, %d allowed", g.count, most)
	}
	return o
}
