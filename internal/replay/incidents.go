package replay

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/health"
)

// Fault is one thing that was found, from when it was first said until it was no longer.
type Fault struct {
	// Check found it.
	Check string `json:"check"`
	// Code names it, such as Xid79; docs/checks lists the codes.
	Code string `json:"code"`
	// Device is the device's ID, as a NodeHealth would list it; empty for a fault of the whole node.
	Device string `json:"device,omitempty"`
	// PCI is the device's address.
	PCI string `json:"pci,omitempty"`
	// Class, Severity and Recommended are what was said when it mattered most.
	Class       v1alpha1.FaultClass     `json:"class"`
	Severity    v1alpha1.Severity       `json:"severity"`
	Recommended v1alpha1.Recommendation `json:"recommended,omitempty"`
	// First and Last are when it was first and last seen.
	First time.Time `json:"first"`
	Last  time.Time `json:"last"`
	// Found is when the look that first said so ended.
	Found time.Time `json:"found"`
	// Cleared is when it was no longer said; zero where it stands at the end of the recording.
	Cleared time.Time `json:"cleared,omitzero"`
	// Count is how often it was seen.
	Count int64 `json:"count"`
	// Disruptive says that it asks for something that would disturb other work than its own: it is Critical, no
	// application's, and recommends a reset, a reboot, a power cycle or a replacement.
	Disruptive bool `json:"disruptive"`
	// DisruptiveFrom is when it first did.
	DisruptiveFrom time.Time `json:"disruptiveFrom,omitzero"`
	// Evidence is the line or the reading that shows it, in printable ASCII.
	Evidence string `json:"evidence,omitempty"`
}

// Incident is a root fault with what it caused.
type Incident struct {
	Root Fault `json:"root"`
	// Consequences are the faults that had it as their root at any time, the oldest first.
	Consequences []Fault `json:"consequences,omitempty"`
	// Disruptive says that the root or a consequence is.
	Disruptive bool `json:"disruptive"`
}

// Disruptive says whether a fault asks for something that would disturb other work than its own.
func Disruptive(f *v1alpha1.Fault) bool {
	if f.Severity != v1alpha1.SeverityCritical || f.Class == v1alpha1.ClassApplication {
		return false
	}
	switch f.Recommended {
	case v1alpha1.RecommendResetDevice, v1alpha1.RecommendReboot, v1alpha1.RecommendPowerCycle, v1alpha1.RecommendReplace:
		return true
	case v1alpha1.RecommendNone, v1alpha1.RecommendRestartApplication, v1alpha1.RecommendRestartDriver, v1alpha1.RecommendHuman:
	}
	return false
}

// faultKey says which findings are the same one while it stands.
type faultKey struct{ check, code, place string }

// entry is a fault in the book.
type entry struct {
	Fault
	// cause is the fault that it was last said to be a consequence of.
	cause *entry
	// seen is the number of the last update that had it.
	seen uint64
	// kept says that it fitted the book.
	kept bool
}

// book keeps what was found. A consequence stays one, also when its root is gone before it.
type book struct {
	limit   int
	dropped int
	updates uint64
	open    map[faultKey]*entry
	all     []*entry
}

func newBook(limit int) *book { return &book{limit: limit, open: make(map[faultKey]*entry)} }

func keyOf(f *health.Finding, code string) faultKey {
	return faultKey{check: f.Fault.Check, code: code, place: cmp.Or(f.PCI, f.Fault.Device)}
}

// update takes all that stands of one check.
func (b *book) update(now time.Time, check string, findings []health.Finding) {
	b.updates++
	for i := range findings {
		f := &findings[i]
		key := keyOf(f, f.Fault.Code)
		e := b.open[key]
		if e == nil {
			e = b.add(key, f, now)
		}
		e.seen = b.updates
		e.see(f, now)
	}
	for i := range findings {
		if f := &findings[i]; f.Fault.CausedBy != "" {
			e, cause := b.open[keyOf(f, f.Fault.Code)], b.open[keyOf(f, f.Fault.CausedBy)]
			if cause != nil && cause != e {
				e.cause = cause
			}
		}
	}
	b.clear(now, check)
}

func (b *book) add(key faultKey, f *health.Finding, now time.Time) *entry {
	e := &entry{Fault: Fault{
		Check: f.Fault.Check, Code: f.Fault.Code, Device: f.Fault.Device, PCI: f.PCI, First: f.Fault.FirstSeen.UTC(), Found: now,
	}}
	b.open[key] = e
	if len(b.all) >= b.limit {
		b.dropped++
	} else {
		e.kept = true
		b.all = append(b.all, e)
	}
	return e
}

// see takes what a look says of a fault. The description at its worst is kept.
func (e *entry) see(f *health.Finding, now time.Time) {
	e.Count, e.Last = f.Fault.Count, f.Fault.LastSeen.UTC()
	if f.Fault.Device != "" {
		e.Device = f.Fault.Device
	}
	disrupts := Disruptive(&f.Fault)
	worse := cmp.Or(cmp.Compare(number(disrupts), number(e.Disruptive)), cmp.Compare(rank(f.Fault.Severity), rank(e.Severity)))
	if worse < 0 {
		return
	}
	if disrupts && !e.Disruptive {
		e.DisruptiveFrom = now
	}
	e.Disruptive = disrupts
	if worse > 0 || e.Recommended != f.Fault.Recommended {
		e.Evidence = printable(f.Fault.Evidence)
	}
	e.Class, e.Severity, e.Recommended = f.Fault.Class, f.Fault.Severity, f.Fault.Recommended
}

// clear ends what the last update of the check did not have; an empty check ends everything.
func (b *book) clear(now time.Time, check string) {
	for key, e := range b.open {
		if check == "" || key.check == check && e.seen != b.updates {
			e.Cleared = now
			delete(b.open, key)
		}
	}
}

// incidents are the roots with their consequences.
func (b *book) incidents() []Incident {
	slices.SortStableFunc(b.all, func(x, y *entry) int {
		return cmp.Or(x.First.Compare(y.First), strings.Compare(x.PCI, y.PCI), strings.Compare(x.Code, y.Code))
	})
	out := []Incident{}
	at := make(map[*entry]int)
	for _, e := range b.all {
		if e.root() == e {
			at[e] = len(out)
			out = append(out, Incident{Root: e.Fault, Disruptive: e.Disruptive})
		}
	}
	for _, e := range b.all {
		root := e.root()
		if i, ok := at[root]; ok && root != e {
			out[i].Consequences = append(out[i].Consequences, e.Fault)
			out[i].Disruptive = out[i].Disruptive || e.Disruptive
		}
	}
	return out
}

// root follows the causes. What was found to be its own cause in the end, since causes were corrected, is a root; so is what
// had a root that did not fit.
func (e *entry) root() *entry {
	at := e
	for range maxChain {
		if at.cause == nil || !at.cause.kept {
			return at
		}
		if at = at.cause; at == e {
			break
		}
	}
	return e
}

// maxChain bounds the following of causes.
const maxChain = 16

func rank(s v1alpha1.Severity) int {
	switch s {
	case v1alpha1.SeverityCritical:
		return 3
	case v1alpha1.SeverityWarning:
		return 2
	case v1alpha1.SeverityInfo:
		return 1
	}
	return 0
}

func number(b bool) int {
	if b {
		return 1
	}
	return 0
}

// printable keeps what a terminal shows and does not obey.
func printable(s string) string {
	for i := range len(s) {
		if s[i] < ' ' || s[i] >= 0x7f {
			return string(escape(nil, []byte(s), false))
		}
	}
	return s
}
