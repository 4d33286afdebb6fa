package order

import (
	"fmt"
	"math"
	"math/bits"
	"slices"
	"strings"
)

// maxNamed bounds how many nodes or gangs a text names.
const maxNamed = 3

// Explain says why the place at the index is where it is. Its figures are rough, so that the text stays the same while
// others come and go and time passes.
func Explain(places []Place, at int) string {
	p := places[at]
	text := "it is the next: "
	if at > 0 {
		// The power of two that is not less.
		text = fmt.Sprintf("among the next %d: ", 1<<bits.Len(uint(at)))
	}
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
	cost := about(p.AtRisk) + " device-hours would be lost"
	if math.IsInf(p.AtRisk, 1) {
		cost = "what would be lost is not known"
	}
	if len(p.Gangs) == 0 {
		return cost
	}
	return cost + ", by stopping " + bounded(p.Gangs, len(p.Gangs))
}

// about is a number to one digit that counts.
func about(hours float64) string {
	if hours < 1 {
		return "less than 1"
	}
	unit := math.Pow10(int(math.Log10(hours)))
	return fmt.Sprintf("about %.0f", math.Round(hours/unit)*unit)
}

func bounded(names []string, of int) string {
	names = names[:min(len(names), maxNamed)]
	text := strings.Join(names, ", ")
	if more := of - len(names); more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}
