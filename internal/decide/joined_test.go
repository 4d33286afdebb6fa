package decide

import (
	"testing"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

func TestWhatIsOnlyKeptOutDoesNotKeepAnothersRepairAway(t *testing.T) {
	w := newWorld(t)
	w.policy.Spec.Rules = append(w.policy.Spec.Rules, v1alpha1.Rule{Name: "keep-out", Response: v1alpha1.ResponseQuarantine,
		Match: v1alpha1.RuleMatch{Severities: []v1alpha1.Severity{v1alpha1.SeverityWarning}}})
	w.fault("Xid63", bad)
	w.health.Status.Faults[0].Severity = v1alpha1.SeverityWarning
	w.run()
	if w.rem.Status.Phase != v1alpha1.PhaseQuarantined || w.rem.Status.Rule != "keep-out" {
		t.Fatalf("to begin with: %v", w.reasons)
	}
	w.fault("Xid79", second)
	w.run()
	if w.rem.Status.Phase != v1alpha1.PhaseRepairing || w.rem.Status.Rule != "critical" {
		t.Errorf("%s by rule %s: %v", w.rem.Status.Phase, w.rem.Status.Rule, w.reasons)
	}
}
