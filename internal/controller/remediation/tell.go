package remediation

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/decide"
)

// tell makes an Event on the Node of what a person watching it should see; the rest is in the timeline.
func (r *Reconciler) tell(w *work, before v1alpha1.RemediationStatus) {
	st := w.rem.Status
	if st.Phase != before.Phase {
		r.Metrics.Transitions.WithLabelValues(string(before.Phase), string(st.Phase), st.Reason).Inc()
	}
	if r.Events == nil || w.node == nil || st.Reason == before.Reason {
		return
	}
	kind := corev1.EventTypeNormal
	switch {
	case before.Phase == "" || st.Reason == decide.ReasonActionAsked || st.Reason == decide.ReasonVerified:
	case st.Phase == v1alpha1.PhaseEscalated && before.Phase != v1alpha1.PhaseEscalated:
		kind = corev1.EventTypeWarning
	default:
		return
	}
	r.Events.Eventf(w.node, w.rem, kind, st.Reason, "Remediate", "%s: %s", w.rem.Name, cut(st.Message, maxEntry))
}
