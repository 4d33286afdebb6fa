package custom

import (
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/health"
)

// standing remembers since when a check's findings stand, and how often they were seen.
type standing struct {
	check    string
	findings []health.Finding
}

// found is one thing that a run found.
type found struct {
	Code        string
	Device, PCI string
	Severity    v1alpha1.Severity
	Recommended v1alpha1.Recommendation
	Message     string
}

// settle takes what a run found, which is all that stands now.
func (s *standing) settle(class v1alpha1.FaultClass, all []found, now time.Time) []health.Finding {
	next := make([]health.Finding, 0, len(all))
	for _, f := range all {
		same := func(o health.Finding) bool {
			return o.Fault.Code == f.Code && o.Fault.Device == f.Device && o.PCI == f.PCI
		}
		if slices.ContainsFunc(next, same) {
			continue
		}
		at := metav1.NewTime(now)
		finding := health.Finding{PCI: f.PCI, ClearedBy: health.ClearedByLook, Fault: v1alpha1.Fault{
			Code: f.Code, Check: s.check, Device: f.Device, Class: class, Severity: f.Severity, Recommended: f.Recommended, Root: true,
			FirstSeen: at, LastSeen: at, Count: 1, Evidence: health.Bound(f.Message, health.MaxEvidence),
		}}
		if i := slices.IndexFunc(s.findings, same); i >= 0 {
			finding.Fault.FirstSeen, finding.Fault.Count = s.findings[i].Fault.FirstSeen, s.findings[i].Fault.Count+1
		}
		next = append(next, finding)
	}
	s.findings = next
	return next
}

// unknown is the result of a run that could not tell; what stood before stands on.
func (s *standing) unknown(reason, message string) health.Result {
	return health.Result{
		Outcome: health.Unknown, Reason: reason, Message: health.Bound(message, health.MaxMessage), Findings: s.findings,
	}
}

// printable replaces what a terminal would obey.
func printable(s string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' && c != '\n' && c != '\t' || c == 0x7f {
			return '\ufffd'
		}
		return c
	}, strings.ToValidUTF8(s, "\ufffd"))
}
