package remediation

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/decide"
)

// tell makes an Event on the Node of what a person watching it should see; the rest is in the timeline.
func (r *Reconciler) tell(w *work, before v1alpha1.RemediationStatus) {
	st := w.rem.Status
	if st.Phase != before.Phase {
		r.metrics.phases.WithLabelValues(string(st.Phase)).Inc()
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

// metrics are what the loop counts. Durations are read from the objects' timelines.
type metrics struct {
	opened, phases, ended, evictions, actions *prometheus.CounterVec
	quarantined, conflicts                    prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	vec := func(name, help string, label string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "roundhouse", Name: name, Help: help}, []string{label})
		reg.MustRegister(c)
		return c
	}
	one := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Namespace: "roundhouse", Name: name, Help: help})
		reg.MustRegister(c)
		return c
	}
	return &metrics{
		opened:      vec("remediations_opened_total", "Incidents that began, by the code of their root fault.", "code"),
		phases:      vec("remediation_phase_changes_total", "Changes of phase, by the phase entered.", "phase"),
		ended:       vec("remediations_ended_total", "Incidents that ended, by their last phase.", "phase"),
		evictions:   vec("evictions_total", "Evictions asked for, by what came of them.", "outcome"),
		actions:     vec("actions_asked_total", "Actions asked of agents, by type.", "type"),
		quarantined: one("quarantines_total", "Times that something was put on a node or a device."),
		conflicts:   one("decisions_overtaken_total", "Steps given up because what they were decided on had changed."),
	}
}
