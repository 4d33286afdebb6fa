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

// kernelLog is the check whose findings have the time of the line, not of the look.
const kernelLog = "kernel-log"

// Group names the cause among what different checks found on one device. A check groups what it found itself; but a GPU
// that falls off the bus is seen by the kernel log, by the bus and by the library, and is one incident with one root.
//
// The root is the Critical fault that was seen first. What was seen later on the device, or within a burst before, is its
// consequence for as long as the root stands. Severities and recommendations stay as they are: whoever decides weighs them
// all.
func Group(findings []Finding) []Finding {
	out := slices.Clone(findings)
	roots := map[string]*v1alpha1.Fault{}
	for i := range out {
		f := &out[i].Fault
		if f.Device == "" || !f.Root || f.Severity != v1alpha1.SeverityCritical || f.Class == v1alpha1.ClassApplication {
			continue
		}
		if r := roots[f.Device]; r == nil || compareRoots(f, r) < 0 {
			roots[f.Device] = f
		}
	}
	for i := range out {
		f := &out[i].Fault
		r := roots[f.Device]
		if r == nil || f == r || f.FirstSeen.Time.Before(r.FirstSeen.Add(-burst)) {
			continue
		}
		f.Root, f.CausedBy = false, r.Code
	}
	return out
}

// compareRoots puts what was seen first first. Of two in the same second a kernel line goes before a look, which only sees
// what has come of it.
func compareRoots(a, b *v1alpha1.Fault) int {
	return cmp.Or(
		a.FirstSeen.Compare(b.FirstSeen.Time),
		cmp.Compare(btoi(a.Check != kernelLog), btoi(b.Check != kernelLog)),
		cmp.Compare(a.Code, b.Code),
	)
}
