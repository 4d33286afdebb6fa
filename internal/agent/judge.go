package agent

import (
	"cmp"
	"math/bits"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/health"
)

// opinion is what is believed of one check.
type opinion struct {
	name   string
	result health.Result
	since  time.Time
}

// view is all that a status is judged from.
type view struct {
	version   string
	bootID    string
	boots     []v1alpha1.Boot
	supported []v1alpha1.ActionType
	completed *v1alpha1.Round
	action    *v1alpha1.ActionStatus
	opinions  []opinion
	// domains are the names of what can only be reset together, by PCI address.
	domains map[string]string
	// kubelet is what it said of who holds what; nil where there is no device plugin.
	kubelet *word
}

// Reasons of the Node condition, beside the codes of faults.
const (
	conditionPassing = "AllChecksPass"
	conditionBlind   = "CannotLook"
)

// judge makes the status of a view. The same view always gives the same status.
func judge(v view) v1alpha1.NodeHealthStatus {
	var findings []health.Finding
	var devices []v1alpha1.Device
	var blind bool
	status := v1alpha1.NodeHealthStatus{
		BootID: v.bootID, Boots: v.boots, AgentVersion: health.Bound(v.version, 64), SupportedActions: v.supported,
		CompletedRound: v.completed, Action: v.action,
	}
	for _, o := range v.opinions {
		findings = append(findings, o.result.Findings...)
		if devices == nil && o.result.Devices != nil {
			devices, blind = o.result.Devices, o.result.Outcome == health.Unknown
		}
		if o.result.Outcome == health.Passing {
			continue
		}
		status.Checks = append(status.Checks, v1alpha1.CheckStatus{
			Name: o.name, Result: string(o.result.Outcome), Reason: o.result.Reason,
			Message: health.Bound(o.result.Message, health.MaxMessage), Since: seconds(o.since),
		})
	}
	slices.SortFunc(status.Checks, func(a, b v1alpha1.CheckStatus) int { return cmp.Compare(a.Name, b.Name) })
	findings = health.Group(health.Identify(findings, devices))
	if len(devices) > health.MaxFindings {
		devices = devices[:health.MaxFindings]
	}
	status.Devices = health.WithHealth(devices, findings, blind)
	for i := range status.Devices {
		if d := &status.Devices[i]; d.ResetDomain == "" {
			d.ResetDomain = v.domains[d.PCI]
		}
	}
	status.Faults, status.FaultsDropped = health.Faults(findings)
	for i := range status.Faults {
		f := &status.Faults[i]
		f.FirstSeen, f.LastSeen = seconds(f.FirstSeen.Time), seconds(f.LastSeen.Time)
		f.Evidence = health.Bound(f.Evidence, health.MaxEvidence)
	}
	status.Summary = summary(status)
	return withHolders(status, v.kubelet)
}

// summary is Acting while an act runs, and the health otherwise.
func summary(s v1alpha1.NodeHealthStatus) v1alpha1.Summary {
	if s.Action != nil && s.Action.State != v1alpha1.ActionDone {
		return v1alpha1.SummaryActing
	}
	return healthOf(s)
}

// healthOf is the node's health in one word, whatever is being done about it.
func healthOf(s v1alpha1.NodeHealthStatus) v1alpha1.Summary {
	blind := slices.ContainsFunc(s.Checks, func(c v1alpha1.CheckStatus) bool { return c.Result == string(health.Unknown) })
	return health.Summary(s.Faults, blind)
}

// seconds is a time as the API keeps it: whole seconds, UTC.
func seconds(t time.Time) metav1.Time { return metav1.NewTime(t.UTC().Truncate(time.Second)) }

// sameFault says whether two entries speak of one fault.
func sameFault(a, b v1alpha1.Fault) bool {
	return a.Check == b.Check && a.Code == b.Code && a.Device == b.Device
}

// settled is next with the counts that are published already, until they reach the next power of two: a storm of lines is
// a few writes. Evidence and the last sighting go with the count.
func settled(published, next v1alpha1.NodeHealthStatus) v1alpha1.NodeHealthStatus {
	next.Faults = slices.Clone(next.Faults)
	for i := range next.Faults {
		f := &next.Faults[i]
		at := slices.IndexFunc(published.Faults, func(p v1alpha1.Fault) bool { return sameFault(p, *f) })
		if at < 0 {
			continue
		}
		p := published.Faults[at]
		if p.FirstSeen.Equal(&f.FirstSeen) && sameMagnitude(p.Count, f.Count) {
			f.Count, f.LastSeen, f.Evidence = p.Count, p.LastSeen, p.Evidence
		}
	}
	if sameMagnitude(int64(published.FaultsDropped), int64(next.FaultsDropped)) {
		next.FaultsDropped = published.FaultsDropped
	}
	return settledHolders(published, next)
}

// sameMagnitude says that no power of two lies between two counts.
func sameMagnitude(a, b int64) bool { return bits.Len64(uint64(a)) == bits.Len64(uint64(b)) }

// significant says whether two statuses differ in more than what is republished only with another change: when a round
// ended, what a message says, and the speed of a link, which an idle device lowers to save power.
func significant(published, next v1alpha1.NodeHealthStatus) bool {
	return !equality.Semantic.DeepEqual(masked(published), masked(next))
}

func masked(s v1alpha1.NodeHealthStatus) v1alpha1.NodeHealthStatus {
	if s.CompletedRound != nil {
		round := *s.CompletedRound
		round.At = metav1.Time{}
		s.CompletedRound = &round
	}
	s.Checks = slices.Clone(s.Checks)
	for i := range s.Checks {
		s.Checks[i].Message = ""
	}
	s.Devices = slices.Clone(s.Devices)
	for i := range s.Devices {
		if link := s.Devices[i].Link; link != nil {
			l := *link
			l.GTs = ""
			s.Devices[i].Link = &l
		}
	}
	return s
}

// urgent says whether a change is worth a write before the gap is over: an answer to the controller, a fault that is
// critical and new, or the kubelet's first word of who holds the device that it is on.
func urgent(published, next v1alpha1.NodeHealthStatus) bool {
	return !equality.Semantic.DeepEqual(published.Action, next.Action) || newCritical(published, next) ||
		published.HoldersUnknown == holdersNotAsked && next.HoldersUnknown != holdersNotAsked
}

// newCritical says whether next has a critical fault that is not published.
func newCritical(published, next v1alpha1.NodeHealthStatus) bool {
	return slices.ContainsFunc(next.Faults, func(f v1alpha1.Fault) bool {
		return f.Severity == v1alpha1.SeverityCritical && health.Matters(f) &&
			!slices.ContainsFunc(published.Faults, func(p v1alpha1.Fault) bool { return sameFault(p, f) })
	})
}

// condition is the Node condition that says what the status says, and whether it has to be written: only when its status
// or reason changed. Its transition time moves only with its status.
func condition(s v1alpha1.NodeHealthStatus, old *corev1.NodeCondition, now time.Time) (corev1.NodeCondition, bool) {
	c := corev1.NodeCondition{
		Type: v1alpha1.ConditionHealthy, Status: corev1.ConditionTrue, Reason: conditionPassing,
		Message:           "Every check passes.",
		LastHeartbeatTime: seconds(now), LastTransitionTime: seconds(now),
	}
	switch healthOf(s) {
	case v1alpha1.SummaryFaulty:
		worst := s.Faults[slices.IndexFunc(s.Faults, health.Matters)]
		c.Status, c.Reason = corev1.ConditionFalse, worst.Code
		c.Message = health.Bound(strings.TrimSpace(worst.Device+" "+worst.Evidence), health.MaxMessage)
	case v1alpha1.SummaryUnknown:
		c.Status, c.Reason = corev1.ConditionUnknown, conditionBlind
		c.Message = health.Bound("Could not look: "+blindChecks(s.Checks), health.MaxMessage)
	default:
	}
	if old == nil {
		return c, true
	}
	if old.Status == c.Status {
		c.LastTransitionTime = old.LastTransitionTime
	}
	return c, old.Status != c.Status || old.Reason != c.Reason
}

// blindChecks names the checks that could not look, and why.
func blindChecks(checks []v1alpha1.CheckStatus) string {
	var names []string
	for _, c := range checks {
		if c.Result == string(health.Unknown) {
			names = append(names, c.Name+" ("+c.Reason+")")
		}
	}
	return strings.Join(names, ", ")
}
