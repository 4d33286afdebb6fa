package kernellog

import (
	"cmp"
	"slices"
	"strings"
	"time"

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
	// Driver is the first number of the version of the NVIDIA driver, 580 say, as the log told it or the options did; 0
	// where it is not known.
	Driver int `json:"driver,omitempty"`
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
	// Run is when the lines that come without a pause of Times.Burst began; First where that is not kept.
	Run time.Time `json:"run,omitzero"`
	// CausedBy is the Xid the driver said came first.
	CausedBy int `json:"causedBy,omitempty"`
	// Links counts by link, for lines that name one.
	Links map[Link]int64 `json:"links,omitempty"`
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
	switch {
	case l.Kind == UUIDOf:
		return s.learnUUID(l)
	case l.Kind == DriverLoaded:
		return max(s.learnDriver(l.Driver), s.loadedAnew())
	case l.Kind == AMDResetDone, l.Kind == Xid && l.Code == 154 && l.Recovery == RecoveryNone:
		return s.recovered(l.Address)
	}
	l.Driver = s.Driver
	code, entry, ok := Describe(l)
	if !ok {
		return Unchanged
	}
	for i := range s.Faults {
		if o := &s.Faults[i]; o.Address == l.Address && o.Code == code {
			if !o.over(at, t) {
				return o.again(entry, l, text, at, t)
			}
			// It had ended before this line, whether or not a look came in between.
			s.Faults = slices.Delete(s.Faults, i, i+1)
			break
		}
	}
	o := Open{
		Entry: entry, Code: code, Address: l.Address, OnNode: byKind[l.Kind].onNode,
		First: at, Last: at, Run: at, Count: 1, Mark: at, CausedBy: l.CausedBy, Evidence: health.Bound(string(text), health.MaxEvidence),
	}
	o.countLink(l.Link)
	return s.open(o)
}

// learnDriver keeps the driver's version. It is saved at once, since what the registers of a later line mean depends on it.
func (s *State) learnDriver(major int) Change {
	if s.Driver == major {
		return Unchanged
	}
	s.Driver = major
	return Changed
}

// again counts a fault that is open. The worse of two descriptions stands, except that Xid 154 says what holds now.
func (o *Open) again(e Entry, l Line, text []byte, at time.Time, t Times) Change {
	change := Counted
	o.Count++
	o.countLink(l.Link)
	if at.Sub(o.Last) > t.Burst {
		o.Run = at
	}
	if at.After(o.Last) {
		o.Last = at
	}
	if at.Sub(o.Mark) >= t.RepeatAfter {
		o.Mark = at
		if o.Repeats++; o.Repeat && o.Repeats == 1 {
			change = Changed
		}
	}
	if e != o.Entry && (l.Kind == Xid && l.Code == 154 || e.worse(o.Entry)) {
		o.Entry, o.Evidence, change = e, health.Bound(string(text), health.MaxEvidence), Changed
	}
	return change
}

func (o *Open) countLink(l Link) {
	if l == 0 {
		return
	}
	if o.Links == nil {
		o.Links = make(map[Link]int64)
	}
	o.Links[l]++
}

// worse says that a description is more severe than another of the same fault, or as severe and recommends more.
func (e Entry) worse(than Entry) bool {
	return cmp.Or(
		cmp.Compare(severityRank(e.Severity), severityRank(than.Severity)),
		cmp.Compare(recommendationRank(e), recommendationRank(than)),
	) > 0
}

// recommendationRank orders what NVLink errors recommend, the only ones whose lines differ in that alone.
func recommendationRank(e Entry) int {
	switch e.Recommended {
	case v1alpha1.RecommendRestartApplication:
		return 1
	case v1alpha1.RecommendHuman:
		return 3 - min(int(e.OnLink), 1)
	case v1alpha1.RecommendReboot:
		return 4
	default:
		return 0
	}
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
	if o.Repeat && o.Repeats == 0 || o.OnLink > 0 && o.mostOnALink() <= o.OnLink {
		return v1alpha1.RecommendNone
	}
	return o.Recommended
}

func (o Open) mostOnALink() (most int64) {
	for _, n := range o.Links {
		most = max(most, n)
	}
	return most
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

// recovered is Xid 154 back to None, or amdgpu's own reset: the driver says that the GPU needs nothing, so what a reset
// would have cleared is over. What only a boot clears stands: a GPU off the bus does not come back by itself.
func (s *State) recovered(a Address) Change {
	return s.drop(func(o Open) bool {
		return !o.OnNode && o.Address == a && (o.ClearedBy == health.ClearedByReset || o.Code == "Xid154")
	})
}

// loadedAnew is a start of NVIDIA's driver: it sets up every GPU anew, so what a reset would have cleared is over, and what it
// could not do before it says again where it still cannot. What only a boot clears stands.
func (s *State) loadedAnew() Change {
	return s.drop(func(o Open) bool {
		switch o.Code {
		case CodeInitFailed, CodeProbeFailed, CodeNoGPU:
			return true
		}
		return o.ClearedBy == health.ClearedByReset && (strings.HasPrefix(o.Code, "Xid") || o.Code == CodeGSPRateLimited)
	})
}

// Reset drops what a reset of the device at the address clears.
func (s *State) Reset(address string) Change {
	return s.drop(func(o Open) bool {
		return !o.OnNode && o.ClearedBy != health.ClearedByBoot && o.Address.String() == address
	})
}

// on lists the codes of what stands on the device at the address.
func (s *State) on(address string) []string {
	var codes []string
	for i := range s.Faults {
		if o := &s.Faults[i]; !o.OnNode && o.Address.String() == address {
			codes = append(codes, o.Code)
		}
	}
	return codes
}

// forget drops what stands on the device at the address, but for those codes.
func (s *State) forget(address string, but []string) Change {
	return s.drop(func(o Open) bool {
		return !o.OnNode && o.Address.String() == address && !slices.Contains(but, o.Code)
	})
}

// Expire drops what has been quiet for long enough.
func (s *State) Expire(now time.Time, t Times) Change {
	return s.drop(func(o Open) bool { return o.over(now, t) })
}

// over says that it has been quiet for long enough.
func (o Open) over(now time.Time, t Times) bool {
	return o.clearedBy() == health.ClearedByQuiet && now.Sub(o.Last) >= o.quiet(t)
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
