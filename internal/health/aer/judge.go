package aer

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/health"
	"github.com/roundhouse-dev/roundhouse/internal/health/track"
	"github.com/roundhouse-dev/roundhouse/internal/machine"
)

// Codes of the faults; docs/checks/aer.md describes them.
const (
	// CodeFatal is an error after which a link can no longer be relied upon.
	CodeFatal = "PCIFatalError"
	// CodeNonfatal is a transaction that was lost on a link that works.
	CodeNonfatal = "PCINonfatalError"
	// CodeRefused is a request that a device does not know, which is its driver's doing or its guest's.
	CodeRefused = "PCIRequestRefused"
	// CodeCorrectable is a link that has to repeat itself more than it should.
	CodeCorrectable = "PCICorrectableErrors"
	// CodeElsewhere is an error that a root port was told of by none of the devices that are watched.
	CodeElsewhere = "PCIErrorElsewhere"
)

// station is a device or a bridge that counts errors, and what it counted in this boot.
type station struct {
	Address string `json:"address"`
	// Owner is the one accelerator at or below it; empty where there are several, and the link is the node's.
	Owner string `json:"owner,omitempty"`
	// Root is the address of the root port above; its own for a root port.
	Root string `json:"root,omitempty"`

	// The counts at the last look, and what a root port was told of.
	Correctable machine.AERCount `json:"correctable"`
	Nonfatal    machine.AERCount `json:"nonfatal"`
	Fatal       machine.AERCount `json:"fatal"`
	Told        uint64           `json:"told,omitempty"`

	Link    track.Window `json:"link,omitzero"`    // correctable, and the link's doing
	Lost    track.Window `json:"lost,omitzero"`    // nonfatal
	Refused track.Window `json:"refused,omitzero"` // nonfatal, and the requester's doing
	Broken  track.Window `json:"broken,omitzero"`  // fatal
	Heard   track.Window `json:"heard,omitzero"`   // messages to a root port that told of nonfatal and fatal errors
	// Sent counts the messages of nonfatal and fatal errors, as the root port hears them.
	Sent track.Window `json:"sent,omitzero"`
	// Noisy says that there were too many correctable errors, until there are fewer than half of that.
	Noisy bool `json:"noisy,omitempty"`
	// Rebase has the counts at the next look taken as the start.
	Rebase bool `json:"rebase,omitempty"`
}

// asked are kinds of nonfatal error that a device reports when it is asked for what it does not have: a driver's or a
// guest's doing, and no sign of a bad link. The words are those of kernels since 5.3 and before.
var asked = []string{"UnsupReq", "Unsupported Request", "ACSViol", "ACS Violation"}

// advisory are kinds of correctable error that are not the link's: a nonfatal one that its sender will deal with, and a
// log that was full.
var advisory = []string{"NonFatalErr", "Advisory Non-Fatal", "HeaderOF", "Header Log Overflow"}

// grown is what was counted between two looks, by kind, those of except left out. A count that fell was set to zero in
// between, as when the device was taken off the bus and found again.
func grown(before, after machine.AERCount, except []string) (kinds []machine.AERKind, n uint64) {
	for _, k := range after.Kinds {
		i := slices.IndexFunc(before.Kinds, func(b machine.AERKind) bool { return b.Name == k.Name })
		if i >= 0 && before.Kinds[i].N <= k.N {
			k.N -= before.Kinds[i].N
		}
		if k.N > 0 && !slices.Contains(except, k.Name) {
			kinds = append(kinds, k)
			n += k.N
		}
	}
	return kinds, n
}

// risen is by how much a count rose.
func risen(before, after uint64) uint64 {
	if after < before {
		return after
	}
	return after - before
}

func words(kinds []machine.AERKind) string {
	var s []string
	for _, k := range kinds {
		s = append(s, fmt.Sprintf("%s %d", k.Name, k.N))
	}
	return strings.Join(s, ", ")
}

// problem is one fault of one station.
type problem struct {
	code        string
	owner       string
	severity    v1alpha1.Severity
	recommended v1alpha1.Recommendation
	window      track.Window
	evidence    string
}

// circumstances are what the bus says of the accelerators beside their counters.
type circumstances struct {
	// dead do not answer, and guests' are bound to a virtual machine.
	dead, guests map[string]bool
}

// judge says what is wrong with the stations. It is pure.
func judge(stations []station, c circumstances) []problem {
	var out []problem
	for i := range stations {
		s := &stations[i]
		out = append(out, s.uncorrected(c)...)
		if s.Noisy {
			out = append(out, problem{
				CodeCorrectable, s.Owner, v1alpha1.SeverityWarning, v1alpha1.RecommendNone, s.Link,
				fmt.Sprintf("%s: %d correctable link errors in the last hour, last %s", s.Address, s.Link.Sum(), s.Link.Evidence),
			})
		}
		if n := unexplained(stations, s); n > 0 {
			out = append(out, problem{
				CodeElsewhere, "", v1alpha1.SeverityInfo, v1alpha1.RecommendNone, s.Heard,
				fmt.Sprintf("root port %s was told of %d uncorrectable errors in the last hour by devices that are not watched", s.Address, n),
			})
		}
	}
	return out
}

// uncorrected judges the uncorrectable errors. After a fatal one the link and what hangs on it are unreliable until they
// are reset; after a nonfatal one a single transaction is lost and the link works on (PCI Express Base Specification,
// 6.2.2.2). The kernel has reset the link by itself. So one fatal error asks for a reset of the device, and only one that
// comes again after that, or a device that no longer answers, is critical.
func (s *station) uncorrected(c circumstances) []problem {
	var out []problem
	if n := s.Broken.Sum(); n > 0 {
		p := problem{
			CodeFatal, s.Owner, v1alpha1.SeverityWarning, v1alpha1.RecommendResetDevice, s.Broken,
			fmt.Sprintf("%s: %d fatal PCI errors in the last hour, last %s", s.Address, n, s.Broken.Evidence),
		}
		if len(s.Broken.Ticks) > 1 || c.dead[s.Owner] {
			p.severity, p.recommended = v1alpha1.SeverityCritical, v1alpha1.RecommendReboot
		}
		if s.Owner == "" {
			// Of a link that several share it is not known which to reset.
			p.recommended = v1alpha1.RecommendReboot
		}
		out = append(out, p)
	}
	if n := s.Lost.Sum(); n > 0 {
		p := problem{
			CodeNonfatal, s.Owner, v1alpha1.SeverityWarning, v1alpha1.RecommendNone, s.Lost,
			fmt.Sprintf("%s: %d nonfatal PCI errors in the last hour, last %s", s.Address, n, s.Lost.Evidence),
		}
		if c.guests[s.Owner] {
			p.severity = v1alpha1.SeverityInfo
		}
		out = append(out, p)
	}
	if n := s.Refused.Sum(); n > 0 {
		out = append(out, problem{
			CodeRefused, s.Owner, v1alpha1.SeverityInfo, v1alpha1.RecommendNone, s.Refused,
			fmt.Sprintf("%s: %d requests refused in the last hour, last %s", s.Address, n, s.Refused.Evidence),
		})
	}
	return out
}

// unexplained is how many messages a root port was told of that no station below it sent.
func unexplained(stations []station, root *station) uint64 {
	heard := root.Heard.Sum()
	if heard == 0 {
		return 0
	}
	var sent uint64
	for i := range stations {
		if stations[i].Root == root.Address {
			sent += stations[i].Sent.Sum()
		}
	}
	if sent >= heard {
		return 0
	}
	return heard - sent
}

// findings are the problems, one for each code and owner: the two ends of a link see one fault.
func findings(problems []problem) []health.Finding {
	slices.SortStableFunc(problems, func(a, b problem) int {
		return cmp.Or(cmp.Compare(a.owner, b.owner), cmp.Compare(a.code, b.code), -cmp.Compare(a.window.Sum(), b.window.Sum()))
	})
	var out []health.Finding
	for _, p := range problems {
		f := health.Finding{
			PCI: p.owner, ClearedBy: health.ClearedByLook,
			Fault: v1alpha1.Fault{
				Code: p.code, Check: Name, Class: v1alpha1.ClassHardware, Severity: p.severity, Recommended: p.recommended,
				FirstSeen: metav1.NewTime(p.window.Since), LastSeen: metav1.NewTime(p.window.Last),
				Count: int64(min(p.window.Count, 1<<62)), Root: true, Evidence: health.Bound(p.evidence, health.MaxEvidence),
			},
		}
		if last := len(out) - 1; last >= 0 && out[last].PCI == p.owner && out[last].Fault.Code == p.code {
			out[last].Fault = merged(out[last].Fault, f.Fault)
			continue
		}
		out = append(out, f)
	}
	return out
}

// merged is two views of one fault: the worse of them, and both as evidence.
func merged(a, b v1alpha1.Fault) v1alpha1.Fault {
	if b.Severity == v1alpha1.SeverityCritical && a.Severity != v1alpha1.SeverityCritical {
		a.Severity, a.Recommended = b.Severity, b.Recommended
	}
	if b.FirstSeen.Before(&a.FirstSeen) {
		a.FirstSeen = b.FirstSeen
	}
	if a.LastSeen.Before(&b.LastSeen) {
		a.LastSeen = b.LastSeen
	}
	a.Count += b.Count
	a.Evidence = health.Bound(a.Evidence+"; "+b.Evidence, health.MaxEvidence)
	return a
}
