package order

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// maxNamed bounds how many nodes or gangs a text names.
const maxNamed = 3

// Explain says why the place at the index is where it is.
func Explain(places []Place, at int) string {
	p := places[at]
	text := fmt.Sprintf("place %d of %d: ", at+1, len(places))
	switch p.Reason {
	case Overdue:
		text += "it has waited for longer than its patience"
	case GangIsDown:
		text += "the gangs that ran on it are down, and nothing else is lost by it"
	case Idle:
		text += "no work would be lost"
	case LeastWorkLost:
		text += "of those with work, it gives back most for what is lost"
	case Planned:
		text += "nothing on it has failed, and what has failed goes first"
	}
	if p.AtRisk > 0 {
		text += "; " + lost(p)
	}
	if len(p.Batch) > 1 {
		others := slices.DeleteFunc(slices.Clone(p.Batch[:min(len(p.Batch), maxNamed+1)]), func(n string) bool { return n == p.Node })
		text += "; goes in one turn with " + bounded(others, len(p.Batch)-1)
	}
	return text
}

// lost says what stopping it would cost, and which gangs.
func lost(p Place) string {
	cost := fmt.Sprintf("%.1f device-hours would be lost", p.AtRisk)
	if math.IsInf(p.AtRisk, 1) {
		cost = "what would be lost is not known"
	}
	if len(p.Gangs) == 0 {
		return cost
	}
	return cost + ", by stopping " + bounded(p.Gangs, len(p.Gangs))
}

func bounded(names []string, of int) string {
	names = names[:min(len(names), maxNamed)]
	text := strings.Join(names, ", ")
	if more := of - len(names); more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}
