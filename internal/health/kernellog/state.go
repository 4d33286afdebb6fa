package kernellog

import (
	"cmp"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/health"
)

// Times are judgement's. They are parameters so that a sandbox can compress them.
type Times struct {
	// Lookback bounds how old a line may be to count at the first look of a boot that has no cursor yet, unless what it
	// tells of lasts until a reboot: what was repaired before the agent came would otherwise look broken.
	Lookback time.Duration
	// InfoQuiet and WarningQuiet are how long a fault that needs no repair stands after it was last seen.
	InfoQuiet, WarningQuiet time.Duration
	// RepeatAfter is how much later a line must come again to count as a repeat.
	RepeatAfter time.Duration
	// Burst is how far before a cause a consequence may have been logged, and how long after it for a cause that is not
	// Critical.
	Burst time.Duration
}

// DefaultTimes are what docs/checks/kernel-log.md says.
func DefaultTimes() Times {
	return Times{
		Lookback: time.Hour, InfoQuiet: 10 * time.Minute, WarningQuiet: 24 * time.Hour,
		RepeatAfter: time.Minute, Burst: 10 * time.Second,
	}
}

// maxUUIDs bounds the map of addresses to UUIDs.
const maxUUIDs = 64

// State is what is remembered of one boot's kernel log. Folding the same records into the same state gives the same
// result, so that a restart which reads some again changes nothing.
type State struct {
	// BootID is the boot this is of.
	BootID string `json:"bootID"`
	// Next is the sequence number after the last record folded in; 0 before the first.
	Next uint64 `json:"next"`
	// Faults are open, in the order they were first seen.
	Faults []Open `json:"faults,omitempty"`
	// UUIDs maps PCI addresses to the UUIDs the driver logged.
	UUIDs map[string]string `json:"uuids,omitempty"`
	// Dropped counts the faults that did not fit.
	Dropped int64 `json:"dropped,omitempty"`
}

// Open is a fault that stands.
type Open struct {
	Entry
	Code     string    `json:"code"`
	Address  Address   `json:"address"`
	OnNode   bool      `json:"onNode,omitempty"`
	First    time.Time `json:"first"`
	Last     time.Time `json:"last"`
	Count    int64     `json:"count"`
	Evidence string    `json:"evidence"`
	// Repeats counts the times it came again, each at least Times.RepeatAfter after the one before, from Mark on.
	Repeats int64     `json:"repeats,omitempty"`
	Mark    time.Time `json:"mark"`
	// CausedBy is the Xid the driver said came first.
	CausedBy int `json:"causedBy,omitempty"`
}

// Change says what a line did to the state.
type Change uint8

// The changes. Moved (the cursor alone) and Counted are worth no haste in saving: they would be found again.
const (
	Unchanged Change = iota
	Moved
	Counted
	Changed
)

// Apply folds in one line of that time. text is the record's, for evidence.
func (s *State) Apply(l Line, text []byte, at time.Time, t Times) Change {
	if l.Kind == UUIDOf {
		return s.learnUUID(l)
	}
	if l.Kind == Xid && l.Code == 154 && l.Recovery == RecoveryNone {
		return s.recovered(l.Address)
	}
	code, entry, ok := Describe(l)
	if !ok {
		return Unchanged
	}
	i := slices.IndexFunc(s.Faults, func(o Open) bool { return o.Address == l.Address && o.Code == code })
	if i < 0 {
		return s.open(Open{
			Entry: entry, Code: code, Address: l.Address, OnNode: l.Kind == ProbeFailed || l.Kind == NoGPU,
			First: at, Last: at, Count: 1, Mark: at, CausedBy: l.CausedBy, Evidence: health.Bound(string(text), health.MaxEvidence),
		})
	}
	return s.Faults[i].again(entry, l, text, at, t)
}

// again counts a fault that is open. The worse of two descriptions stands, except that Xid 154 says what holds now.
func (o *Open) again(e Entry, l Line, text []byte, at time.Time, t Times) Change {
	change := Counted
	o.Count++
	if at.After(o.Last) {
		o.Last = at
	}
	if at.Sub(o.Mark) >= t.RepeatAfter {
		o.Mark = at
		if o.Repeats++; o.Repeat && o.Repeats == 1 {
			change = Changed
		}
	}
	if e != o.Entry && (l.Kind == Xid && l.Code == 154 || severityRank(e.Severity) > severityRank(o.Severity)) {
		o.Entry, o.Evidence, change = e, health.Bound(string(text), health.MaxEvidence), Changed
	}
	return change
}

// open adds a fault. A full list gives up its least important one; what is less important than all is only counted.
func (s *State) open(o Open) Change {
	if len(s.Faults) >= health.MaxFindings {
		s.Dropped++
		least := 0
		for i := range s.Faults {
			if s.Faults[i].compare(s.Faults[least]) < 0 {
				least = i
			}
		}
		if o.compare(s.Faults[least]) <= 0 {
			return Counted
		}
		s.Faults = slices.Delete(s.Faults, least, least+1)
	}
	s.Faults = append(s.Faults, o)
	return Changed
}

// compare says which of two matters more: by severity, by rank, then the older.
func (o Open) compare(p Open) int {
	return cmp.Or(
		cmp.Compare(severityRank(o.severity()), severityRank(p.severity())),
		cmp.Compare(o.Rank, p.Rank),
		p.First.Compare(o.First),
		cmp.Compare(p.Code, o.Code),
	)
}

// severity is the entry's, or Warning while a disputed code waits for its repeat.
func (o Open) severity() v1alpha1.Severity {
	if o.Repeat && o.Repeats == 0 && o.Severity == v1alpha1.SeverityCritical {
		return v1alpha1.SeverityWarning
	}
	return o.Severity
}

func (o Open) recommended() v1alpha1.Recommendation {
	if o.Repeat && o.Repeats == 0 {
		return v1alpha1.RecommendNone
	}
	return o.Recommended
}

// clearedBy lets a disputed code that never came again end by itself.
func (o Open) clearedBy() health.ClearedBy {
	if o.Repeat && o.Repeats == 0 {
		return health.ClearedByQuiet
	}
	return o.ClearedBy
}

func severityRank(s v1alpha1.Severity) int {
	switch s {
	case v1alpha1.SeverityCritical:
		return 2
	case v1alpha1.SeverityWarning:
		return 1
	case v1alpha1.SeverityInfo:
	}
	return 0
}

func (s *State) learnUUID(l Line) Change {
	address := l.Address.String()
	if s.UUIDs[address] == l.UUID || len(s.UUIDs) >= maxUUIDs && s.UUIDs[address] == "" {
		return Unchanged
	}
	if s.UUIDs == nil {
		s.UUIDs = make(map[string]string)
	}
	s.UUIDs[address] = l.UUID
	return Changed
}

// recovered is Xid 154 back to None: the driver says that the GPU needs nothing, so what a reset would have cleared is
// over. What only a boot clears stands: a GPU off the bus does not come back by itself.
func (s *State) recovered(a Address) Change {
	return s.drop(func(o Open) bool {
		return !o.OnNode && o.Address == a && (o.ClearedBy == health.ClearedByReset || o.Code == "Xid154")
	})
}

// Reset drops what a reset of the device at the address clears.
func (s *State) Reset(address string) Change {
	return s.drop(func(o Open) bool {
		return !o.OnNode && o.ClearedBy != health.ClearedByBoot && o.Address.String() == address
	})
}

// Expire drops what has been quiet for long enough.
func (s *State) Expire(now time.Time, t Times) Change {
	return s.drop(func(o Open) bool {
		return o.clearedBy() == health.ClearedByQuiet && now.Sub(o.Last) >= o.quiet(t)
	})
}

func (o Open) quiet(t Times) time.Duration {
	if o.Severity == v1alpha1.SeverityInfo {
		return t.InfoQuiet
	}
	return t.WarningQuiet
}

func (s *State) drop(gone func(Open) bool) Change {
	n := len(s.Faults)
	s.Faults = slices.DeleteFunc(s.Faults, gone)
	if len(s.Faults) == n {
		return Unchanged
	}
	return Changed
}

// Findings is what stands, with the cause of each device's faults named. It recommends what the driver's own Xid 154
// says where there is one, and the catalogue's action where there is none.
func (s *State) Findings(check string, t Times) []health.Finding {
	if len(s.Faults) == 0 {
		return nil
	}
	out := make([]health.Finding, len(s.Faults))
	for i, o := range s.Faults {
		cause := s.causeOf(o, t)
		f := v1alpha1.Fault{
			Code: o.Code, Check: check, Class: o.Class, Severity: o.severity(), Recommended: o.recommended(),
			FirstSeen: metav1.NewTime(o.First.Truncate(time.Second)), LastSeen: metav1.NewTime(o.Last.Truncate(time.Second)),
			Count: o.Count, Root: cause == nil, Evidence: o.Evidence,
		}
		if cause != nil {
			f.CausedBy = cause.Code
		} else if r := s.recoveryFor(o); r != nil {
			f.Recommended = r.Recommended
		}
		out[i] = health.Finding{Fault: f, ClearedBy: o.clearedBy()}
		if !o.OnNode {
			out[i].PCI = o.Address.String()
		}
	}
	return out
}

// causeOf is the root that o is a consequence of; nil when o is a root itself. The root is what matters most of what can
// explain o, or, where the driver says what that was caused by, the start of that chain.
func (s *State) causeOf(o Open, t Times) *Open {
	if o.OnNode {
		return nil
	}
	top := &o
	for i := range s.Faults {
		p := &s.Faults[i]
		if p.Address == o.Address && !p.OnNode && p.explains(o, t) && p.compare(*top) > 0 {
			top = p
		}
	}
	// At most as many steps as there are faults: the lines could name each other in a circle.
	for range s.Faults {
		before := s.xid(o.Address, top.CausedBy)
		if before == nil || before.Code == top.Code {
			break
		}
		top = before
	}
	if top.Code == o.Code {
		return nil
	}
	return top
}

// xid is the open fault of that Xid on the device.
func (s *State) xid(a Address, code int) *Open {
	if code == 0 {
		return nil
	}
	for i := range s.Faults {
		if p := &s.Faults[i]; p.Address == a && !p.OnNode && p.Code == xidCode(code) {
			return p
		}
	}
	return nil
}

// explains says whether other can be o's doing by its time: it was last seen in o's burst or after that began. Only a
// Critical fault goes on explaining for as long as it stands: a device that is off the bus makes errors until it is back.
func (o Open) explains(other Open, t Times) bool {
	if other.Last.Before(o.First.Add(-t.Burst)) {
		return false
	}
	return o.severity() == v1alpha1.SeverityCritical || !other.Last.After(o.Last.Add(t.Burst))
}

// recoveryFor is the open Xid 154 of the device, when it recommends something.
func (s *State) recoveryFor(o Open) *Open {
	if o.OnNode {
		return nil
	}
	if p := s.xid(o.Address, 154); p != nil && p.Recommended != v1alpha1.RecommendNone {
		return p
	}
	return nil
}
