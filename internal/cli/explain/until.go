package explain

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/decide"
)

// until says when a wait ends and what happens then; where it has no end, why not.
func (s *Snapshot) until(r *v1alpha1.Remediation, w *Why) (*Deadline, string) {
	switch w.State {
	case Unknown, NoAgent:
		return nil, "none is set: however long it lasts, nothing disruptive follows from it"
	case Observing:
		return nil, "none is set in Observe; the incident ends when the fault does"
	case Held:
		return s.untilReleased(r)
	case Quarantined:
		return nil, "none is set: it lasts until the fault ends, the policy repairs, or a human cancels it"
	case Escalated:
		return nil, "none is set: it waits for the human"
	default:
	}
	if r == nil || w.Phase.Over() {
		return nil, ""
	}
	if r.Spec.Cancel && w.Phase != v1alpha1.PhaseRepairing {
		return nil, "none is needed: it has been cancelled, and ends with the controller's next decision"
	}
	at, then := s.deadline(r, w)
	if at == nil {
		return nil, "none is set yet: the controller sets one with its next decision"
	}
	return &Deadline{At: *at, Then: then}, ""
}

// untilReleased is when the last of the holds lapses.
func (s *Snapshot) untilReleased(r *v1alpha1.Remediation) (*Deadline, string) {
	var last time.Time
	holds := s.holds()
	for i := range holds {
		if holds[i].Spec.Until == nil {
			return nil, "none is set: hold " + holds[i].Name + " stays until it is released (kubectl roundhouse release " + holds[i].Name + ")"
		}
		if holds[i].Spec.Until.After(last) {
			last = holds[i].Spec.Until.Time
		}
	}
	if len(holds) == 0 {
		return nil, "none is needed: the hold is gone, and the next decision goes on"
	}
	then := "it goes on"
	if own := r.Status.Deadline; own != nil {
		then += "; the rule's own wait, which counts on, ends " + own.UTC().Format(time.RFC3339) + ", then a human is asked"
	}
	return &Deadline{At: metav1.NewTime(last), Then: then}, ""
}

// deadline is the controller's, and what it does then.
func (s *Snapshot) deadline(r *v1alpha1.Remediation, w *Why) (at *metav1.Time, then string) {
	st := &r.Status
	fresh, _ := s.reporting()
	switch w.Phase {
	case v1alpha1.PhasePending:
		if w.Reason == decide.ReasonWaitingForIdle || w.Reason == decide.ReasonWaitingForWindow {
			return st.Deadline, atDeadline(findRule(s.policyOf(r), st.Rule))
		}
		return st.Deadline, "ask a human"
	case v1alpha1.PhaseDraining:
		then := "ask a human"
		if p := s.policyOf(r); p == nil || p.Spec.Drain == nil || len(p.Spec.Drain.Escalate) == 0 {
			then += "; pods are never forced"
		}
		if st.Deadline == nil && st.Drain != nil {
			return st.Drain.Deadline, then
		}
		return st.Deadline, then
	case v1alpha1.PhaseRepairing:
		if st.Step != nil && st.Step.Deadline != nil {
			at = st.Step.Deadline
		} else {
			at = st.Deadline
		}
		return at, "what the agent has not begun is taken back; what it has begun counts as failed"
	case v1alpha1.PhaseVerifying:
		if !fresh {
			return st.Deadline, "a human is asked, if the agent is still silent"
		}
		return st.Deadline, "the repair has failed: the next attempt or rung"
	case v1alpha1.PhaseProbation:
		if !fresh {
			return st.Deadline, "the end is due, and while the agent is silent nobody can say that it is a good one"
		}
		return st.Deadline, "the incident is over"
	default:
		return st.Deadline, "ask a human"
	}
}
