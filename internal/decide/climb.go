package decide

import (
	"fmt"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/drain"
)

// Climb is a ladder as an incident meets it, for people to read: what Next would do, rung by rung.
type Climb struct {
	// Lead is the fault that the incident follows, and Rule its rule; Rule is nil where none is in force.
	Lead v1alpha1.Fault
	Rule *v1alpha1.Rule
	// Rungs are those of the rule's ladder, in order.
	Rungs []Ahead
	// Limit says why a human is asked although a rung is left: the same hardware was repaired, or the node started, too often.
	Limit string
}

// Ahead is one rung of a Climb.
type Ahead struct {
	v1alpha1.Rung
	// Scope is what must be empty before it; nothing, where it asks a human.
	Scope drain.Scope
	// Tried counts its attempts so far, Attempts is how many it has.
	Tried, Attempts int32
	// Next says that it is the one to try now, Why what speaks against trying it at all; both are empty for one that would
	// come later.
	Next bool
	Why  string
}

// Ladder says how an incident would climb from where it is.
func Ladder(s *Snapshot) Climb {
	var c Climb
	if m, ok := s.lead(); ok {
		c.Lead = m.Fault
	}
	c.Rule = s.rule()
	if c.Rule == nil || s.Policy.Policy == nil {
		return c
	}
	next, ok := s.nextRung()
	for i, name := range c.Rule.Ladder {
		a := Ahead{Rung: v1alpha1.Rung{Name: name}, Scope: drain.ScopeNothing}
		def, found := findRung(s.Policy.Policy, name)
		if found {
			a.Rung, a.Tried, a.Attempts = def, s.triedAt(int32(i)), attemptsOf(def)
		}
		r := rung{Rung: def, index: int32(i)}
		if found && !r.human() {
			a.Scope = s.drainBefore(r)
		}
		a.Next = ok && next.index == r.index
		if !a.Next {
			a.Why = s.against(c.Rule, r, found)
		}
		c.Rungs = append(c.Rungs, a)
	}
	if ok && !next.human() {
		_, c.Limit = s.limit(next)
	}
	return c
}

// against says what speaks against a rung, in the order in which nextRung would pass it over.
func (s *Snapshot) against(rule *v1alpha1.Rule, r rung, found bool) string {
	tried := s.triedAt(r.index)
	switch {
	case !found:
		return "the policy has no rung of this name"
	case r.index < s.climbedIndex():
		return "the ladder has been climbed past it"
	case r.index < s.recommendedIndex(rule):
		return "it is gentler than what the fault recommends"
	case r.human():
		return ""
	}
	if why := s.impossible(r.Action); why != "" {
		return why
	}
	if tried >= attemptsOf(r.Rung) {
		return fmt.Sprintf("tried %d of %d times", tried, attemptsOf(r.Rung))
	}
	if len(s.status().Attempts) >= maxAttempts {
		return fmt.Sprintf("the incident has had all its %d attempts", maxAttempts)
	}
	return ""
}

// limit says why the same hardware is not repaired again, or the node not started again; nothing where it may be.
func (s *Snapshot) limit(r rung) (reason, message string) {
	l := s.limits()
	switch {
	case s.repairs() >= l.repairs:
		return ReasonRepairLimit, fmt.Sprintf("%s in %s: no more; it follows the hardware", count(s.repairs(), "repair"), span(l.window))
	case r.Action == v1alpha1.RungReboot && s.boots() >= l.boots:
		return ReasonBootLimit, fmt.Sprintf("the node started %d times in %s, from any cause: it is not rebooted again", s.boots(), span(l.window))
	}
	return "", ""
}
