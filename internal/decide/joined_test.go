package decide

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

// repairing is a world of the whole ladder whose first repair has been asked for or begun.
func repairing(t *testing.T, device string, class v1alpha1.Recommendation) *world {
	t.Helper()
	w := newWorld(t)
	w.ladderOf(wholeLadder...)
	w.fault("Xid79", device)
	w.recommend(class)
	w.run()
	w.run()
	if w.rem.Status.Phase != v1alpha1.PhaseRepairing {
		t.Fatalf("to begin with: %v", w.reasons)
	}
	return w
}

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

// What is asked for and not begun is taken back where it could not help; what asks for no more waits for its end.
func TestWhatHasNotBegunGivesWayToAGreaterRepair(t *testing.T) {
	for class, want := range map[v1alpha1.Recommendation]struct {
		withdrawn int
		rest      rest
	}{
		v1alpha1.RecommendRestartDriver: {0, rest{v1alpha1.PhaseRepairing, ReasonActionAsked}},
		v1alpha1.RecommendResetDevice:   {0, rest{v1alpha1.PhaseRepairing, ReasonActionAsked}},
		v1alpha1.RecommendReboot:        {1, rest{v1alpha1.PhaseRepairing, ReasonActionAsked}},
		v1alpha1.RecommendHuman:         {1, rest{v1alpha1.PhaseEscalated, ReasonHumanAsked}},
	} {
		t.Run(string(class), func(t *testing.T) {
			w := repairing(t, bad, v1alpha1.RecommendResetDevice)
			w.joined(second, class)
			w.run()
			if diff := cmp.Diff(want.rest, rest{w.rem.Status.Phase, w.rem.Status.Reason}); diff != "" || w.withdrawn != want.withdrawn {
				t.Errorf("%s; withdrawn %d: %v", diff, w.withdrawn, w.reasons)
			}
		})
	}
	t.Run("what has begun is let end", func(t *testing.T) {
		w := repairing(t, bad, v1alpha1.RecommendResetDevice)
		w.answer(v1alpha1.ActionStarted, "")
		w.joined(second, v1alpha1.RecommendHuman)
		if w.run(); w.withdrawn != 0 || w.rem.Status.Phase != v1alpha1.PhaseRepairing {
			t.Errorf("withdrawn %d: %v", w.withdrawn, w.reasons)
		}
	})
}

// While a driver starts anew the node serves on, and so may what fails meanwhile.
func TestWhatFailsDuringARepairIsKeptOutAtOnce(t *testing.T) {
	for phase, on := range map[v1alpha1.Phase]func(*world){
		v1alpha1.PhaseRepairing: func(*world) {},
		v1alpha1.PhaseVerifying: func(w *world) { w.heal(bad); w.remedy = v1alpha1.RemedySucceeded; w.run() },
	} {
		t.Run(string(phase), func(t *testing.T) {
			w := repairing(t, bad, v1alpha1.RecommendRestartDriver)
			on(w)
			was := w.rem.Status.Reason
			w.joined(second, v1alpha1.RecommendRestartDriver)
			w.run()
			if w.rem.Status.Phase != phase || w.rem.Status.Reason != was {
				t.Errorf("%s, %s, not %s", w.rem.Status.Phase, w.rem.Status.Reason, was)
			}
			if diff := cmp.Diff([]string{bad, second}, w.keptOut()); diff != "" || len(w.node.Spec.Taints) > 0 {
				t.Errorf("%s; taints %v", diff, w.node.Spec.Taints)
			}
		})
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

// What a repair of the node was for climbs when it fails again; what fails for the first time begins at its own rung.
func TestAfterARepairOfTheNode(t *testing.T) {
	for device, want := range map[string]string{"": "power-cycle", bad: "power-cycle", second: "reset-device"} {
		t.Run(device, func(t *testing.T) {
			w := newWorld(t)
			w.ladderOf(wholeLadder...)
			w.policy.Spec.Rungs[1].Attempts = nil
			w.fault("Xid79", "")
			w.fault("Xid79", bad)
			w.repaired()
			if w.rem.Status.Phase != v1alpha1.PhaseProbation || !slices.Contains(w.rem.Spec.Devices, bad) {
				t.Fatalf("to begin with: %v", w.reasons)
			}
			w.pass(time.Minute)
			w.joined(device, v1alpha1.RecommendResetDevice)
			w.run()
			w.run()
			if st := w.rem.Status.Step; w.rem.Status.Phase != v1alpha1.PhaseRepairing || st.Rung != want {
				t.Errorf("%s, %s, want %s: %v", w.rem.Status.Phase, st.Rung, want, w.reasons)
			}
		})
	}
}

// A device that was reset for its own fault, and is well, is not reset for one of the node.
func TestNoDeviceIsResetForAFaultOfTheNode(t *testing.T) {
	w := repairing(t, bad, v1alpha1.RecommendResetDevice)
	w.joined("", v1alpha1.RecommendNone)
	w.reset(true)
	w.run()
	w.pass(2 * time.Minute)
	w.run()
	if len(w.remedied) != 1 {
		t.Fatalf("to begin with, the driver is restarted for the node: %v", w.reasons)
	}
	w.remedy = v1alpha1.RemedyFailed
	w.run()
	w.run()
	if st := w.rem.Status.Step; w.rem.Status.Phase != v1alpha1.PhaseRepairing || st.Rung != "reboot" {
		t.Errorf("%s, %s: %v", w.rem.Status.Phase, st.Rung, w.reasons)
	}
}

// During a reset the node as a whole is kept out, and a name may come to mean another device: no rule is put on then.
func TestNoRuleIsPutOnWhileTheNodeIsKeptOut(t *testing.T) {
	w := repairing(t, bad, v1alpha1.RecommendResetDevice)
	w.answer(v1alpha1.ActionStarted, "")
	w.joined(second, v1alpha1.RecommendResetDevice)
	s := w.snapshot()
	w.offer(s) // even where it is known how the devices are offered.
	if d := Next(s); d.Do != Wait || len(w.node.Spec.Taints) != 1 {
		t.Errorf("%s, %v; taints %v", d.Do, d.Intents, w.node.Spec.Taints)
	}
}
