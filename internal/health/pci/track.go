package pci

import (
	"cmp"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/health"
)

// Times are how long a condition must last.
type Times struct {
	// Settle is how long a device must be missing or dead. A reset makes one look so for a second.
	Settle time.Duration
	// LinkSettle is the same for its link, and for a device that a guest of a virtual machine may reset as it likes.
	LinkSettle time.Duration
	// Clear is how long it must be well again before the fault ends; what flaps within it is one fault, counted.
	Clear time.Duration
}

// DefaultTimes are what docs/checks/pci.md says.
func DefaultTimes() Times {
	return Times{Settle: 2 * time.Second, LinkSettle: 10 * time.Second, Clear: 10 * time.Second}
}

// Tracked is a condition over time. It opens when it has lasted, and closes when it has been gone for long enough.
type Tracked struct {
	ID       string    `json:"id"`
	Code     string    `json:"code"`
	Open     bool      `json:"open"`
	Since    time.Time `json:"since"`
	LastBad  time.Time `json:"lastBad"`
	GoodFrom time.Time `json:"goodFrom,omitzero"`
	Count    int64     `json:"count"`

	Severity    v1alpha1.Severity       `json:"severity"`
	Recommended v1alpha1.Recommendation `json:"recommended"`
	Evidence    string                  `json:"evidence"`
	PCI         string                  `json:"pci"`
}

// observation is one condition at one look, by device.
type observation struct {
	Condition
	id, pci string
	settle  time.Duration
}

// track folds one look into what is tracked. unseen says of a device that it could not be looked at, and leaves its
// conditions as they were. changed says that one opened or closed; next is when the soonest pending one would.
func track(old []Tracked, seen []observation, unseen func(id string) bool, now time.Time, t Times) (out []Tracked, changed bool, next time.Duration) {
	soonest := func(d time.Duration) {
		if next == 0 || d < next {
			next = max(d, time.Millisecond)
		}
	}
	for _, k := range old {
		if slices.ContainsFunc(seen, func(o observation) bool { return o.id == k.ID && o.Code == k.Code }) || unseen(k.ID) {
			continue
		}
		if k.GoodFrom.IsZero() {
			k.GoodFrom = now
		}
		left := t.Clear - now.Sub(k.GoodFrom)
		switch {
		case !k.Open: // never lasted
		case left <= 0:
			changed = true
		default:
			soonest(left)
			out = append(out, k)
		}
	}
	for _, k := range old {
		if unseen(k.ID) {
			out = append(out, k)
		}
	}
	for _, o := range seen {
		if unseen(o.id) {
			continue
		}
		k, opened := o.fold(old, now)
		changed = changed || opened
		if !k.Open {
			soonest(o.settle - now.Sub(k.Since))
		}
		out = append(out, k)
	}
	slices.SortFunc(out, func(a, b Tracked) int { return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.Code, b.Code)) })
	return out, changed, next
}

// fold is the condition as tracked after this look, and whether the look opened it.
func (o observation) fold(old []Tracked, now time.Time) (k Tracked, opened bool) {
	i := slices.IndexFunc(old, func(k Tracked) bool { return k.ID == o.id && k.Code == o.Code })
	if i >= 0 {
		k = old[i]
	} else {
		k = Tracked{ID: o.id, Code: o.Code, Since: now, Count: 1}
	}
	if !k.GoodFrom.IsZero() {
		k.GoodFrom = time.Time{}
		k.Count++
	}
	k.LastBad, k.PCI = now, o.pci
	k.Severity, k.Recommended, k.Evidence = o.Severity, o.Recommended, o.Evidence
	if !k.Open && now.Sub(k.Since) >= o.settle {
		k.Open, opened = true, true
	}
	return k, opened
}

// findings are the open conditions. Each is a root: the bus does not tell which of two came first.
func findings(tracked []Tracked) []health.Finding {
	var out []health.Finding
	for _, k := range tracked {
		if !k.Open {
			continue
		}
		out = append(out, health.Finding{
			PCI: k.PCI, ClearedBy: health.ClearedByLook,
			Fault: v1alpha1.Fault{
				Code: k.Code, Check: Name, Device: k.ID, Class: v1alpha1.ClassHardware, Severity: k.Severity,
				Recommended: k.Recommended, Evidence: health.Bound(k.Evidence, health.MaxEvidence), Root: true, Count: k.Count,
				FirstSeen: metav1.NewTime(k.Since.Truncate(time.Second)), LastSeen: metav1.NewTime(k.LastBad.Truncate(time.Second)),
			},
		})
	}
	return out
}
