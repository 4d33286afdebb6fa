package decide

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/drain"
	"github.com/roundhouse-dev/roundhouse/internal/maintenance"
)

// RuleMaintenance is the name of the rule that planned work follows which a human asked for. No policy can have one of this name.
const RuleMaintenance = "(maintenance)"

// Plan adds the planned work that a human asks for on the node to the faults, as long as it has not been done: it goes through
// the same door, and what ends a fault ends it.
func Plan(s *Snapshot) {
	r := s.Maintenance
	if r == nil || Maintained(s) {
		return
	}
	s.Faults = append(s.Faults, Matched{Rule: maintenanceRule(r), Fault: v1alpha1.Fault{
		Code: v1alpha1.CodeMaintenance, Check: v1alpha1.CheckMaintenance, Class: v1alpha1.ClassHost, Severity: v1alpha1.SeverityInfo,
		Recommended: v1alpha1.RecommendNone, FirstSeen: r.At, LastSeen: r.At, Count: 1, Root: true, Evidence: r.Says(),
	}})
}

func maintenanceRule(r *maintenance.Request) *v1alpha1.Rule {
	rule := &v1alpha1.Rule{Name: RuleMaintenance, Response: v1alpha1.ResponseRepair, When: r.When, Planned: true}
	if rule.When == "" {
		rule.When = v1alpha1.WhenIdle
	}
	if r.Rung != "" {
		rule.Ladder = []string{r.Rung}
	}
	return rule
}

// Maintained says whether the work has been done since it was asked for: its rung was climbed and proved, or is being proved;
// or the node has started anew, whoever had it do so, where that is all that was asked for.
func Maintained(s *Snapshot) bool {
	r := s.Maintenance
	if r.Rung == "" {
		return false // a human says so, by taking the request back.
	}
	if rem := s.Remediation; rem != nil {
		st := rem.Status
		if st.Phase == v1alpha1.PhaseVerifying && st.Step != nil && st.Step.Rung == r.Rung {
			return true
		}
		if slices.ContainsFunc(st.Attempts, func(a v1alpha1.Attempt) bool {
			return a.Rung == r.Rung && a.Result == v1alpha1.AttemptRepaired && a.At.After(r.At.Time)
		}) {
			return true
		}
	}
	if s.Policy.Policy == nil || s.Health == nil {
		return false
	}
	def, ok := findRung(s.Policy.Policy, r.Rung)
	return ok && startsAnew(def.Action) && slices.ContainsFunc(s.Health.Status.Boots, func(b v1alpha1.Boot) bool { return b.At.After(r.At.Time) })
}

// planned says whether nothing is broken by it.
func (m Matched) planned() bool { return m.Rule != nil && m.Rule.Planned }

// failedFirst leaves planned work out while something is to be repaired, and while a repair is made or watched: what it did could
// not be told from what the planned work did.
func (s *Snapshot) failedFirst(ours []Matched) []Matched {
	watched := s.Remediation != nil && s.repairsFault()
	broken := func(m Matched) bool { return !m.planned() && m.Rule.Response == v1alpha1.ResponseRepair }
	if !watched && !slices.ContainsFunc(ours, broken) {
		return ours
	}
	return slices.DeleteFunc(ours, Matched.planned)
}

// repairsFault says whether a repair of something that failed is made, proved or watched.
func (s *Snapshot) repairsFault() bool {
	switch s.phase() {
	case v1alpha1.PhaseProbation:
		return true
	case v1alpha1.PhaseRepairing, v1alpha1.PhaseVerifying:
		return !s.followedPlan()
	default:
		return false
	}
}

// followedPlan says whether the last decision followed planned work.
func (s *Snapshot) followedPlan() bool {
	name := s.status().Rule
	if name == RuleMaintenance || s.Policy.Policy == nil {
		return name == RuleMaintenance
	}
	rules := s.Policy.Policy.Spec.Rules
	i := slices.IndexFunc(rules, func(r v1alpha1.Rule) bool { return r.Name == name })
	return i >= 0 && rules[i].Planned
}

// Planned says whether the incident follows planned work.
func Planned(s *Snapshot) bool {
	if m, ok := s.lead(); ok {
		return m.planned()
	}
	return s.followedPlan()
}

// onlyPlanned says whether nothing has been broken since the incident began.
func (s *Snapshot) onlyPlanned() bool {
	return s.Remediation.Spec.Cause == v1alpha1.CauseMaintenance && len(s.badDevices()) == 0 && Planned(s)
}

// request is the request that the incident follows; nil where it follows something else.
func (s *Snapshot) request() *maintenance.Request {
	if r := s.rule(); s.Maintenance != nil && r != nil && r.Name == RuleMaintenance {
		return s.Maintenance
	}
	return nil
}

// scheduled waits until planned work may begin.
func scheduled(s *Snapshot) *Decision {
	r := s.request()
	if r == nil || !s.Now.Before(r.Begins()) {
		return nil
	}
	d := s.waitPending(ReasonScheduled, "not before "+stamp(r.Begins())+"; "+r.Says(), "the time comes")
	if d.Do == Wait {
		d.Requeue = min(d.Requeue, max(time.Millisecond, r.Begins().Sub(s.Now)))
	}
	return d
}

// handsOver says whether the node is to be emptied for a human's hands.
func (s *Snapshot) handsOver() bool {
	r := s.request()
	return r != nil && r.Rung == ""
}

// handOver gives the empty node to the human who asked for it. New work is kept off it until that human says that it is done, so
// the taint becomes an intent.
func (s *Snapshot) handOver() *Decision {
	if intents := s.nodeIntent(s.Remediation.Spec.Quarantine); len(intents) > 0 {
		d := move(v1alpha1.PhaseDraining, ReasonDrained, "nothing is left on the node; it is kept empty")
		d.Do, d.Intents = Amend, intents
		return d
	}
	node := s.Remediation.Spec.Node
	d := escalate(ReasonHandedOver, "the node is empty, and kept so; "+s.request().Says(),
		"kubectl roundhouse maintain "+node+" --done, or kubectl roundhouse release "+node)
	d.Do = Unclaim
	return d
}

// maintenanceDone ends planned work that has been done and proved. Nothing was broken, so nothing is watched.
func maintenanceDone(s *Snapshot) *Decision {
	text := "the planned work is done, and the node is whole"
	d := s.end(v1alpha1.PhaseSucceeded, ReasonMaintenanceDone, s.notBackYet(text))
	d.Attempt = s.attempt(v1alpha1.AttemptRepaired, text)
	return d
}

// Lifecycle are the conditions (KEP-5683) of the node's lifecycle that an incident asks for, by what is true. Those that are not true are
// False where somebody has been told otherwise, and absent on a node that nothing was ever done to.
func Lifecycle(s *Snapshot) []corev1.NodeCondition {
	if s.Node == nil {
		return nil
	}
	is := map[corev1.NodeConditionType]bool{}
	message := "no incident"
	if rem := s.Remediation; rem != nil {
		message = "Remediation " + rem.Name
		whole := s.scope() == drain.ScopeNode
		switch rem.Status.Phase {
		case v1alpha1.PhasePending:
			is[corev1.NodeMaintenancePlanned] = s.mode() == v1alpha1.ModeRemediate && Planned(s)
		case v1alpha1.PhaseDraining:
			is[corev1.NodeDrainInProgress] = whole
		case v1alpha1.PhaseRepairing, v1alpha1.PhaseVerifying:
			is[corev1.NodeMaintenanceInProgress], is[corev1.NodeDrained] = whole, whole
		case v1alpha1.PhaseEscalated:
			out := s.handsOver() && s.nodeTainted()
			is[corev1.NodeMaintenanceInProgress], is[corev1.NodeDrained] = out, out
		default:
		}
	}
	var out []corev1.NodeCondition
	for _, kind := range []corev1.NodeConditionType{corev1.NodeMaintenancePlanned, corev1.NodeMaintenanceInProgress, corev1.NodeDrainInProgress, corev1.NodeDrained} {
		if c, write := lifecycleCondition(s, kind, is[kind], message); write {
			out = append(out, c)
		}
	}
	return out
}

// lifecycleCondition is what is to be written for one condition, and whether it is.
func lifecycleCondition(s *Snapshot, kind corev1.NodeConditionType, want bool, message string) (corev1.NodeCondition, bool) {
	status := corev1.ConditionFalse
	if want {
		status = corev1.ConditionTrue
	}
	i := slices.IndexFunc(s.Node.Status.Conditions, func(c corev1.NodeCondition) bool { return c.Type == kind })
	switch {
	case i < 0 && !want:
		return corev1.NodeCondition{}, false
	case i >= 0:
		is := s.Node.Status.Conditions[i]
		ours := is.Reason == v1alpha1.ReasonLifecycle
		if !ours && (is.Status == corev1.ConditionTrue || !want) || ours && is.Status == status {
			return corev1.NodeCondition{}, false // another's word, or ours as it should be.
		}
	}
	now := metav1.NewTime(s.Now)
	return corev1.NodeCondition{Type: kind, Status: status, Reason: v1alpha1.ReasonLifecycle, Message: message,
		LastTransitionTime: now, LastHeartbeatTime: now}, true
}
