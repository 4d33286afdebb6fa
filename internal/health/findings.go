package health

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

// Bounds of the API's fields, in bytes.
const (
	MaxEvidence = 512
	MaxMessage  = 256
	MaxFindings = 64
)

// Count is a number of things in words: "1 GPU", "8 GPUs".
func Count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strconv.Itoa(n) + " " + what + "s"
}

// Bound cuts s to at most n bytes without splitting a character, replaces what is not valid UTF-8, and marks the cut.
func Bound(s string, n int) string {
	s = strings.ToValidUTF8(s, "\ufffd")
	if len(s) <= n {
		return s
	}
	const mark = "..."
	cut := max(n-len(mark), 0)
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + mark[:min(len(mark), n)]
}

// Identify fills in the device of each finding that has a PCI address, from the inventory. A finding whose address is not
// in the inventory gets "pci-" and the address, so that it is never taken for a fault of the whole node.
func Identify(findings []Finding, devices []v1alpha1.Device) []Finding {
	out := slices.Clone(findings)
	for i := range out {
		f := &out[i]
		if f.PCI == "" || f.Fault.Device != "" {
			continue
		}
		f.Fault.Device = "pci-" + f.PCI
		for d := range devices {
			if devices[d].PCI == f.PCI {
				f.Fault.Device = devices[d].ID
				break
			}
		}
	}
	return out
}

// WithHealth is the inventory with each device's health filled in: Unhealthy when a Critical finding stands on it,
// Unknown when blind is set, and Healthy otherwise. Missing and Unknown, as the check itself has set them, stay.
func WithHealth(devices []v1alpha1.Device, findings []Finding, blind bool) []v1alpha1.Device {
	out := slices.Clone(devices)
	for i := range out {
		d := &out[i]
		switch {
		case d.Health == v1alpha1.DeviceMissing:
		case slices.ContainsFunc(findings, func(f Finding) bool {
			return f.Fault.Device == d.ID && f.Fault.Severity == v1alpha1.SeverityCritical
		}):
			d.Health = v1alpha1.DeviceUnhealthy
		case d.Health == v1alpha1.DeviceUnknown || blind:
			d.Health = v1alpha1.DeviceUnknown
		default:
			d.Health = v1alpha1.DeviceHealthy
		}
	}
	return out
}

// Faults is what is published of the findings: by severity, roots first within each, then the oldest, at most MaxFindings;
// dropped counts the rest. The order is total, so that the same findings always give the same list.
func Faults(findings []Finding) (faults []v1alpha1.Fault, dropped int32) {
	faults = make([]v1alpha1.Fault, len(findings))
	for i := range findings {
		faults[i] = findings[i].Fault
	}
	slices.SortStableFunc(faults, compareFaults)
	if len(faults) > MaxFindings {
		dropped = int32(len(faults) - MaxFindings)
		faults = faults[:MaxFindings]
	}
	return faults, dropped
}

// Summary is a node's health in one word. Faulty goes before Unknown: a fault that is seen is not unseen because a check is
// blind.
func Summary(faults []v1alpha1.Fault, blind bool) v1alpha1.Summary {
	switch {
	case slices.ContainsFunc(faults, Matters):
		return v1alpha1.SummaryFaulty
	case blind:
		return v1alpha1.SummaryUnknown
	}
	return v1alpha1.SummaryHealthy
}

// Matters says whether a fault makes its node Faulty. An application's own errors and remarks are shown and do not: the
// controller watches what is not Healthy, and one bad job must not bring a fleet into that watch.
func Matters(f v1alpha1.Fault) bool {
	return f.Severity != v1alpha1.SeverityInfo && f.Class != v1alpha1.ClassApplication
}

// compareFaults puts severity before root, so that an application's root never pushes out a broken device's consequence.
func compareFaults(a, b v1alpha1.Fault) int {
	return cmp.Or(
		cmp.Compare(severityRank(a.Severity), severityRank(b.Severity)),
		-cmp.Compare(btoi(a.Root), btoi(b.Root)),
		a.FirstSeen.Compare(b.FirstSeen.Time),
		cmp.Compare(a.Device, b.Device),
		cmp.Compare(a.Code, b.Code),
		cmp.Compare(a.Check, b.Check),
	)
}

func severityRank(s v1alpha1.Severity) int {
	switch s {
	case v1alpha1.SeverityCritical:
		return 0
	case v1alpha1.SeverityWarning:
		return 1
	case v1alpha1.SeverityInfo:
	}
	return 2
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}
