// Package track follows what is wrong from look to look: it opens a fault when it has lasted, ends it when it has been gone
// for long enough, and takes what flaps in between for one fault, counted. It is what every check that sees a level shares.
//
// It is pure: the clock is the caller's.
package track

import (
	"cmp"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/health"
)

// Tracked is something wrong over time. It is kept across a restart of the agent.
type Tracked struct {
	// ID is the device's identity; empty for the whole node.
	ID       string    `json:"id"`
	Code     string    `json:"code"`
	Open     bool      `json:"open"`
	Since    time.Time `json:"since"`
	LastBad  time.Time `json:"lastBad"`
	GoodFrom time.Time `json:"goodFrom,omitzero"`
	Count    int64     `json:"count"`
	// Looks is in how many looks in a row it was seen, and Clear how long it must be gone.
	Looks int           `json:"looks,omitempty"`
	Clear time.Duration `json:"clear,omitempty"`

	Class       v1alpha1.FaultClass     `json:"class,omitempty"`
	Severity    v1alpha1.Severity       `json:"severity"`
	Recommended v1alpha1.Recommendation `json:"recommended"`
	ClearedBy   health.ClearedBy        `json:"clearedBy,omitempty"`
	Evidence    string                  `json:"evidence"`
	PCI         string                  `json:"pci"`
}

// Observation is something wrong at one look.
type Observation struct {
	// ID and Code say what it is; two of the same are one.
	ID, Code    string
	PCI         string
	Class       v1alpha1.FaultClass
	Severity    v1alpha1.Severity
	Recommended v1alpha1.Recommendation
	ClearedBy   health.ClearedBy
	Evidence    string
	// Settle is how long it must last before it is a fault, and Looks in how many looks in a row it must be seen. Zero asks
	// for nothing.
	Settle time.Duration
	Looks  int
	// Clear is how long it must be gone before the fault ends.
	Clear time.Duration
	// Times is how often it happened since the last look, for what is counted; zero for what has a level, which is counted
	// by how often it came.
	Times int64
}

// Unseen says that what it names could not be looked at.
type Unseen func(id, code string) bool

// Fold takes one look into what is tracked. What could not be looked at stays as it was. A look at the time of the last
// one is the last one, seen again, and changes nothing. changed says that one opened or ended; next is when the soonest
// pending one would, and zero where none waits for time alone.
func Fold(old []Tracked, seen []Observation, unseen Unseen, now time.Time) (out []Tracked, changed bool, next time.Duration) {
	soonest := func(d time.Duration) {
		if next == 0 || d < next {
			next = max(d, time.Millisecond)
		}
	}
	for _, k := range old {
		if unseen(k.ID, k.Code) {
			out = append(out, k)
			continue
		}
		if slices.ContainsFunc(seen, func(o Observation) bool { return o.ID == k.ID && o.Code == k.Code }) {
			continue
		}
		if k.GoodFrom.IsZero() {
			k.GoodFrom = now
		}
		left := k.Clear - now.Sub(k.GoodFrom)
		switch {
		case !k.Open: // never lasted
		case left <= 0:
			changed = true
		default:
			soonest(left)
			out = append(out, k)
		}
	}
	for i, o := range seen {
		twice := slices.ContainsFunc(seen[:i], func(p Observation) bool { return p.ID == o.ID && p.Code == o.Code })
		if twice || unseen(o.ID, o.Code) {
			continue
		}
		k, opened := o.fold(old, now)
		changed = changed || opened
		if left := o.Settle - now.Sub(k.Since); !k.Open && left > 0 {
			soonest(left)
		}
		out = append(out, k)
	}
	slices.SortFunc(out, func(a, b Tracked) int { return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.Code, b.Code)) })
	return out, changed, next
}

// fold is the observation as tracked after this look, and whether the look opened it.
func (o Observation) fold(old []Tracked, now time.Time) (k Tracked, opened bool) {
	i := slices.IndexFunc(old, func(k Tracked) bool { return k.ID == o.ID && k.Code == o.Code })
	switch {
	case i < 0:
		k = Tracked{ID: o.ID, Code: o.Code, Since: now, Count: max(1, o.Times), Looks: 1}
	case !now.After(old[i].LastBad):
		k = old[i]
	default:
		k = old[i]
		k.Looks++
		switch {
		case o.Times > 0:
			k.Count += o.Times
		case !k.GoodFrom.IsZero():
			k.Count++
		}
	}
	k.GoodFrom = time.Time{}
	k.LastBad, k.PCI, k.Clear = now, o.PCI, o.Clear
	k.Class, k.Severity, k.Recommended, k.ClearedBy, k.Evidence = o.Class, o.Severity, o.Recommended, o.ClearedBy, o.Evidence
	if !k.Open && now.Sub(k.Since) >= o.Settle && k.Looks >= o.Looks {
		k.Open, opened = true, true
	}
	return k, opened
}

// Findings are the open ones, as the check of the name publishes them. Each is a root: a level does not tell which of two
// came first.
func Findings(check string, tracked []Tracked) []health.Finding {
	var out []health.Finding
	for _, k := range tracked {
		if !k.Open {
			continue
		}
		out = append(out, health.Finding{
			PCI: k.PCI, ClearedBy: k.ClearedBy,
			Fault: v1alpha1.Fault{
				Code: k.Code, Check: check, Device: k.ID, Class: k.Class, Severity: k.Severity,
				Recommended: k.Recommended, Evidence: health.Bound(k.Evidence, health.MaxEvidence), Root: true, Count: k.Count,
				FirstSeen: metav1.NewTime(k.Since.Truncate(time.Second)), LastSeen: metav1.NewTime(k.LastBad.Truncate(time.Second)),
			},
		})
	}
	return out
}
