package health

import (
	"cmp"
	"slices"
	"time"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

// burst is how far before its cause a consequence may have been seen: checks look at different times, and the one that
// looks at the bus may come before the one that reads the line.
const burst = 30 * time.Second

// aftermath is how long after its cause a consequence may be seen: a check that has to be sure takes minutes.
const aftermath = 10 * time.Minute

// kernelLog is the check whose findings have the time of the line, not of the look.
const kernelLog = "kernel-log"

// Group names the cause among what different checks found on one device. A check groups what it found itself; but a GPU
// that falls off the bus is seen by the kernel log, by the bus and by the library, and is one incident with one root.
//
// The root is the Critical fault that was seen first, of those that ask for a repair where there is one. What was seen on the
// device within a burst before it, or not much later, is its consequence for as long as the root stands; what comes days
// later is a matter of its own. Severities and recommendations stay as they are: whoever decides weighs them all.
func Group(findings []Finding) []Finding {
	out := slices.Clone(findings)
	var roots []*v1alpha1.Fault
	for i := range out {
		f := &out[i].Fault
		if f.Device != "" && f.Root && f.Severity == v1alpha1.SeverityCritical && f.Class != v1alpha1.ClassApplication {
			roots = append(roots, f)
		}
	}
	slices.SortFunc(roots, compareRoots)
	caused := map[*v1alpha1.Fault]bool{}
	for _, r := range roots {
		if caused[r] {
			continue
		}
		for i := range out {
			f := &out[i].Fault
			if f == r || f.Device != r.Device || caused[f] || !follows(f, r) {
				continue
			}
			f.Root, f.CausedBy, caused[f] = false, r.Code, true
		}
		caused[r] = true
	}
	return out
}

// follows says whether a fault can be the consequence of a root by its time.
func follows(f, root *v1alpha1.Fault) bool {
	after := f.FirstSeen.Sub(root.FirstSeen.Time)
	return after >= -burst && after <= aftermath
}

// asksForRepair says that a fault recommends something that a machine or a human can do to the device.
func asksForRepair(f *v1alpha1.Fault) bool {
	switch f.Recommended {
	case "", v1alpha1.RecommendNone, v1alpha1.RecommendRestartApplication, v1alpha1.RecommendHuman:
		return false
	default:
		return true
	}
}

// compareRoots puts what asks for a repair first, and then what was seen first. Of two in the same second a kernel line goes
// before a look, which only sees what has come of it.
func compareRoots(a, b *v1alpha1.Fault) int {
	return cmp.Or(
		cmp.Compare(btoi(!asksForRepair(a)), btoi(!asksForRepair(b))),
		a.FirstSeen.Compare(b.FirstSeen.Time),
		cmp.Compare(btoi(a.Check != kernelLog), btoi(b.Check != kernelLog)),
		cmp.Compare(a.Code, b.Code),
	)
}
