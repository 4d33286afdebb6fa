package decide

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

// joined adds a fault of another class.
func (w *world) joined(device string, class v1alpha1.Recommendation) {
	w.fault("Xid48", device)
	w.health.Status.Faults[len(w.health.Status.Faults)-1].Recommended = class
}

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

// A fault of the node keeps the node out, whatever the incident began with; with it that ends.
func TestAFaultOfTheNodeKeepsTheNodeOut(t *testing.T) {
	for name, order := range map[string][]string{"the node first": {"", bad}, "the device first": {bad, ""}} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.job("train-0", "GPU-0")
			w.fault("Xid79", order[0])
			w.run()
			w.joined(order[1], v1alpha1.RecommendReboot)
			w.run()
			if len(w.node.Spec.Taints) != 1 {
				t.Fatalf("the node is not kept out: %v", w.reasons)
			}
			if order[0] == "" { // nobody remembers why the node is kept out where it joined later.
				w.heal("")
				w.run()
				if diff := cmp.Diff([]string{bad}, w.keptOut()); diff != "" || len(w.node.Spec.Taints) > 0 {
					t.Errorf("%s; taints %v: %v", diff, w.node.Spec.Taints, w.reasons)
				}
			}
			w.clear()
			w.run()
			w.run()
			if err := w.clean(); err != nil {
				t.Error(err)
			}
		})
	}
}
