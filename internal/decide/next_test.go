package decide

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

func TestOneOfEightGoesRound(t *testing.T) {
	w := newWorld(t)
	w.job("infer-3", bad)
	w.job("train-0", "GPU-0")
	w.fault("Xid79", bad)
	if d := w.run(); d.Reason != ReasonWaitingForPods && d.Reason != ReasonEvicting {
		t.Fatalf("first rest: %+v", d)
	}
	if d := w.run(); d.Reason != ReasonWaitingForIdle {
		t.Fatalf("the other seven are waited for, got %+v", d)
	}
	if diff := cmp.Diff([]string{"infer-3"}, w.evicted); diff != "" {
		t.Errorf("only the bad device's pod moves: %s", diff)
	}
	if w.slot || len(w.node.Annotations) > 0 {
		t.Error("slot and claim are given back while waiting")
	}
	if !strings.Contains(w.rem.Status.Message, "2.0 device-hours") && !strings.Contains(w.rem.Status.Message, "device-hours") {
		t.Errorf("the wait says what a reboot would cost: %q", w.rem.Status.Message)
	}
	w.pods = nil
	w.run()
	if w.rem.Status.Phase != v1alpha1.PhaseRepairing || len(w.asked) != 1 {
		t.Fatalf("idle: asked %v in %s", w.asked, w.rem.Status.Phase)
	}
	w.pass(10 * time.Minute)
	w.reboot("boot-2", true)
	w.run()
	w.pass(time.Minute)
	w.run()
	if w.rem.Status.Phase != v1alpha1.PhaseProbation {
		t.Fatalf("after proof: %s %s", w.rem.Status.Phase, w.rem.Status.Message)
	}
	if len(w.node.Spec.Taints) > 0 || w.slot || len(w.rem.Status.Quarantined) > 0 {
		t.Error("in probation nothing of ours is on the node")
	}
	w.pass(time.Hour)
	w.run()
	if w.rem.Status.Phase != v1alpha1.PhaseSucceeded {
		t.Fatalf("after probation: %s", w.rem.Status.Phase)
	}
	if err := w.clean(); err != nil {
		t.Error(err)
	}
	if len(w.asked) != 1 {
		t.Errorf("one reboot, got %v", w.asked)
	}
}

// rest says in which phase and for which reason an incident comes to rest.
type rest struct {
	Phase  v1alpha1.Phase
	Reason string
}

func TestWherePendingRests(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*world)
		want   rest
		on     bool
	}{
		"observe only explains": {
			func(w *world) { w.policy.Spec.Mode = v1alpha1.ModeObserve },
			rest{v1alpha1.PhasePending, ReasonModeObserve}, false},
		"quarantine mode keeps new work off and stays": {
			func(w *world) { w.policy.Spec.Mode = v1alpha1.ModeQuarantine },
			rest{v1alpha1.PhaseQuarantined, ReasonQuarantineOnly}, true},
		"a hold stops disruption, not quarantine": {
			func(w *world) { w.hold(v1alpha1.HoldDisruption) },
			rest{v1alpha1.PhasePending, ReasonHeld}, true},
		"a hold of everything stops quarantine too": {
			func(w *world) { w.hold(v1alpha1.HoldEverything) },
			rest{v1alpha1.PhasePending, ReasonHeld}, false},
		"a full budget is waited for": {
			func(w *world) { w.full = true },
			rest{v1alpha1.PhasePending, ReasonBudgetExhausted}, true},
		"somebody else's claim is honoured": {
			func(w *world) { w.foreign = []Claim{{By: "kured", What: "rebooting"}} },
			rest{v1alpha1.PhasePending, ReasonForeignClaim}, true},
		"blindness disrupts nothing": {
			func(w *world) { w.reports = false },
			rest{v1alpha1.PhasePending, ReasonNotReporting}, true},
		"a running job is waited for": {
			func(w *world) { w.job("train-0", "GPU-0") },
			rest{v1alpha1.PhasePending, ReasonWaitingForIdle}, true},
		"the third repair of the same hardware is the last": {
			func(w *world) { w.past = 3 },
			rest{v1alpha1.PhaseEscalated, ReasonRepairLimit}, true},
		"an agent that cannot do any rung leaves it to a human": {
			func(w *world) { w.health.Status.SupportedActions = nil },
			rest{v1alpha1.PhaseEscalated, ReasonHumanAsked}, true},
		"an idle node is repaired": {
			func(*world) {},
			rest{v1alpha1.PhaseRepairing, ReasonActionAsked}, true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			tc.change(w)
			w.fault("Xid79", bad)
			w.run()
			w.run()
			got := rest{w.rem.Status.Phase, w.rem.Status.Reason}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("%s\n%v\n%s", diff, w.reasons, w.rem.Status.Message)
			}
			if on := len(w.rem.Status.Quarantined) > 0; on != tc.on {
				t.Errorf("quarantined %v, want %v", on, tc.on)
			}
			if w.rem.Status.WouldChange == "" {
				t.Error("a wait says what would change it")
			}
		})
	}
}

// What keeps new work off a device may be that nothing offers it any more; it is repaired like any other.
func TestWhatIsNotOfferedIsRepaired(t *testing.T) {
	for name, tc := range map[string]struct {
		plugin bool
		mode   v1alpha1.Mode
		want   rest
	}{
		"its plugin has dropped it":          {true, v1alpha1.ModeRemediate, rest{v1alpha1.PhaseRepairing, ReasonActionAsked}},
		"its ResourceSlice does not list it": {false, v1alpha1.ModeRemediate, rest{v1alpha1.PhaseRepairing, ReasonActionAsked}},
		"unless the policy only quarantines": {false, v1alpha1.ModeQuarantine, rest{v1alpha1.PhaseQuarantined, ReasonQuarantineOnly}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.policy.Spec.Mode, w.plugin, w.notOffered = tc.mode, tc.plugin, map[string]bool{bad: true}
			w.fault("Xid79", bad)
			w.run()
			if diff := cmp.Diff(tc.want, rest{w.rem.Status.Phase, w.rem.Status.Reason}); diff != "" || len(w.rem.Status.Quarantined) > 0 {
				t.Errorf("%s\n%v, quarantined %v", diff, w.reasons, w.rem.Status.Quarantined)
			}
		})
	}
}

func TestADeviceThatLeftItsPoolIsRepairedAndOneThatComesBackIsKeptOut(t *testing.T) {
	w := newWorld(t)
	w.job("train-0", "GPU-0")
	w.hold(v1alpha1.HoldEverything)
	w.fault("Xid79", bad)
	w.run()
	w.notOffered, w.holds = map[string]bool{bad: true}, nil
	if d := w.run(); d.Reason != ReasonWaitingForIdle || len(w.rem.Spec.Quarantine) != 1 || len(w.rem.Status.Quarantined) > 0 {
		t.Errorf("%s: intended %v, on %v", d.Reason, w.rem.Spec.Quarantine, w.rem.Status.Quarantined)
	}
	w.notOffered = nil
	if w.run(); len(w.rem.Status.Quarantined) != 1 {
		t.Errorf("offered again, and not kept out: %v", w.reasons)
	}
}

func TestWithoutRulesTheNodeIsKeptOut(t *testing.T) {
	w := newWorld(t)
	w.noRules = true
	w.policy.Spec.Mode = v1alpha1.ModeQuarantine
	w.fault("Xid79", bad)
	w.run()
	if !w.snapshot().nodeTainted() || len(w.rules) > 0 || w.rem.Status.Phase != v1alpha1.PhaseQuarantined {
		t.Errorf("%s, taints %v, rules %v", w.rem.Status.Phase, w.node.Spec.Taints, w.rules)
	}
	w.tried = false
	w.fault("Xid79", "GPU-5")
	if w.run(); w.tried || Look(w.bare()).Handles {
		t.Errorf("a rule is tried again though the node is kept out: %v", w.reasons)
	}
	w.clear()
	w.run()
	w.run()
	if err := w.clean(); err != nil {
		t.Error(err)
	}
}

// The budget loop leaves the slots of incidents that are not over alone: what one that does not act holds, it gives back.
func TestWhatDoesNotActGivesItsSlotBack(t *testing.T) {
	for name, change := range map[string]func(*world){
		"it waits":                  func(w *world) { w.hold(v1alpha1.HoldDisruption) },
		"it only observes":          func(w *world) { w.policy.Spec.Mode = v1alpha1.ModeObserve },
		"it only quarantines":       func(w *world) { w.policy.Spec.Mode = v1alpha1.ModeQuarantine },
		"it waits to be put on":     func(w *world) { w.hold(v1alpha1.HoldEverything) },
		"it waits for a human":      func(w *world) { w.past = 3 },
		"its policy says otherwise": func(w *world) { w.policy.Spec.Rules[1].Response = v1alpha1.ResponseQuarantine },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			change(w)
			w.fault("Xid79", bad)
			w.slot = true
			if w.run(); w.slot || !Look(w.bare()).Slot {
				t.Errorf("%s, %s: the slot is held", w.rem.Status.Phase, w.rem.Status.Reason)
			}
		})
	}
}

func TestASlotIsAskedForUnlessItHasJustBeenGiven(t *testing.T) {
	for name, tc := range map[string]struct {
		held, sure bool
		want       Do
	}{
		"no budget lists one":             {false, false, Reserve},
		"only the cache lists one":        {true, false, Reserve},
		"every budget has just given one": {true, true, ClaimNode},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.hold(v1alpha1.HoldDisruption)
			w.fault("Xid79", bad)
			w.run()
			w.holds = nil
			s := w.snapshot()
			s.SlotHeld, s.SlotSure = tc.held, tc.sure
			if d := Next(s); d.Do != tc.want {
				t.Errorf("%s, want %s", d.Do, tc.want)
			}
		})
	}
}

// A pool's names may come to mean other devices; what rules are on is looked at again, and a good device is let go of.
func TestRulesFollowTheirDevices(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*world)
		after  time.Duration
		// looked says whether it is time to look; on is the name that the rule is on then.
		looked bool
		on     string
	}{
		"nothing has changed":                                     {func(*world) {}, time.Hour, true, "gpu-3"},
		"it was looked at a moment ago":                           {func(w *world) { w.shifted = 1 }, time.Minute, false, "gpu-3"},
		"the driver has started anew":                             {func(w *world) { w.shifted = 1 }, lookAgain + lookSpread, true, "gpu-4"},
		"the node has started anew":                               {func(w *world) { w.shifted = 1; w.reboot("boot-2", false) }, 0, true, "gpu-4"},
		"its driver publishes a little later":                     {func(w *world) { w.reboot("boot-2", false); w.run(); w.shifted = 1 }, poll, true, "gpu-4"},
		"its place is another's, and it has none":                 {func(w *world) { w.shifted, w.notOffered = 1, map[string]bool{bad: true} }, time.Hour, true, ""},
		"nobody is in its place":                                  {func(w *world) { w.notOffered = map[string]bool{bad: true} }, time.Hour, true, "gpu-3"},
		"somebody has deleted the rule":                           {func(w *world) { clear(w.rules) }, time.Hour, true, "gpu-3"},
		"the rule was put on anew, and that was not written down": {func(w *world) { w.shifted = 1; w.rules[w.rem.Name+"-0"] = "gpu-4" }, time.Hour, true, "gpu-4"},
		"the node as a whole was kept out, and is no more":        {func(w *world) { w.shifted = 1; w.taint(true) }, time.Hour, false, "gpu-4"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.policy.Spec.Mode = v1alpha1.ModeQuarantine
			w.fault("Xid79", bad)
			w.run()
			before := rest{w.rem.Status.Phase, w.rem.Status.Reason}
			tc.change(w)
			w.pass(tc.after)
			if got := Look(w.bare()).Rules; got != tc.looked {
				t.Errorf("looked %v, want %v", got, tc.looked)
			}
			w.run()
			var on string
			for _, device := range w.rules {
				on = device
			}
			if on != tc.on || len(w.rules) != len(w.rem.Status.Quarantined) || on != "" && w.rem.Status.Quarantined[0].Device != on {
				t.Errorf("on %v, want %q; listed %v", w.rules, tc.on, w.rem.Status.Quarantined)
			}
			if diff := cmp.Diff(before, rest{w.rem.Status.Phase, w.rem.Status.Reason}); diff != "" {
				t.Errorf("it rests as before: %s", diff)
			}
		})
	}
}

func (w *world) hold(kind v1alpha1.HoldKind) {
	w.holds = append(w.holds, v1alpha1.RemediationHold{ObjectMeta: metav1.ObjectMeta{Name: "night"},
		Spec: v1alpha1.RemediationHoldSpec{Holds: kind, Reason: "demo", RequestedBy: "y.sato"}})
}

func TestWhatIsNotNeededIsNotLookedAt(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*world)
		want   Needs
	}{
		"every gate is open":       {func(*world) {}, Needs{Pods: true, Foreign: true, Slot: true, History: true}},
		"a hold waits":             {func(w *world) { w.hold(v1alpha1.HoldDisruption) }, Needs{Slot: true, History: true}},
		"somebody else's claim":    {func(w *world) { w.foreign = []Claim{{By: "kured"}} }, Needs{Slot: true, History: true}},
		"blindness waits":          {func(w *world) { w.reports = false }, Needs{Slot: true, History: true}},
		"observing plans its pods": {func(w *world) { w.policy.Spec.Mode = v1alpha1.ModeObserve }, Needs{Handles: true, Pods: true, Slot: true}},
		"a device that is not offered may be again": {func(w *world) { w.notOffered = map[string]bool{bad: true} },
			Needs{Handles: true, Pods: true, Foreign: true, Slot: true, History: true}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.job("train-0", "GPU-0")
			tc.change(w)
			w.fault("Xid79", bad)
			w.run()
			if diff := cmp.Diff(tc.want, Look(w.snapshot())); diff != "" || w.rem.Status.Phase != v1alpha1.PhasePending {
				t.Errorf("in %s (-want +got):\n%s", w.rem.Status.Phase, diff)
			}
		})
	}
}

// The order of the gates is part of the policy: a human comes before the brake, and both before the budget.
func TestTheFirstGateThatIsClosedSpeaks(t *testing.T) {
	w := newWorld(t)
	w.fault("Xid79", bad)
	w.full, w.reports = true, false
	w.foreign = []Claim{{By: "kured"}}
	w.hold(v1alpha1.HoldDisruption)
	w.past = 3
	var got []string
	for _, open := range []func(){
		func() { w.rem, w.past = nil, 0 }, func() { w.holds = nil }, func() { w.foreign = nil }, func() { w.reports = true }, func() { w.full = false },
	} {
		w.run()
		got = append(got, w.rem.Status.Reason)
		open()
		w.slot = false
	}
	w.run()
	got = append(got, w.rem.Status.Reason)
	want := []string{ReasonRepairLimit, ReasonHeld, ReasonForeignClaim, ReasonNotReporting, ReasonBudgetExhausted, ReasonActionAsked}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestNothingIsWrong(t *testing.T) {
	w := newWorld(t)
	w.health.Status.Faults = []v1alpha1.Fault{{Code: "Xid45", Class: v1alpha1.ClassApplication, Severity: v1alpha1.SeverityInfo, Count: 1 << 16}}
	if w.run(); w.rem != nil {
		t.Errorf("an application's own fault opens nothing, got %v", w.rem.Name)
	}
}

func TestARelapseClimbs(t *testing.T) {
	w := newWorld(t)
	w.fault("Xid79", bad)
	w.run()
	w.run()
	w.reboot("boot-2", true)
	w.run()
	w.pass(time.Minute)
	w.run()
	w.fault("Xid79", bad)
	w.run()
	w.run()
	if got := (rest{w.rem.Status.Phase, w.rem.Status.Reason}); got != (rest{v1alpha1.PhaseEscalated, ReasonAttemptsSpent}) {
		t.Errorf("a relapse climbs past the rung that did not last: %v %v", got, w.reasons)
	}
	if len(w.asked) != 1 || w.rem.Status.Attempts[0].Result != v1alpha1.AttemptRelapsed {
		t.Errorf("asked %v, attempts %v", w.asked, w.rem.Status.Attempts)
	}
	if len(w.rem.Status.Quarantined) == 0 {
		t.Error("a device that waits for a human stays out")
	}
}

func TestARebootThatDoesNotRepairIsTriedAgainThenLeftToAHuman(t *testing.T) {
	w := newWorld(t)
	w.fault("Xid79", bad)
	for _, boot := range []string{"boot-2", "boot-3"} {
		w.run()
		w.run()
		w.pass(time.Minute)
		w.reboot(boot, false)
		w.run()
		w.pass(2 * time.Minute)
	}
	w.run()
	w.run()
	if got := w.rem.Status.Phase; got != v1alpha1.PhaseEscalated || len(w.asked) != 2 {
		t.Errorf("after two reboots: %s, asked %v, %v", got, w.asked, w.reasons)
	}
	if !w.snapshot().nodeTainted() {
		t.Error("a node that nothing has proved fit stays out")
	}
	w.clear()
	w.run()
	w.pass(2 * time.Minute)
	w.run()
	if w.rem.Status.Phase != v1alpha1.PhaseProbation {
		t.Errorf("a part replaced is proved and returned: %s %s", w.rem.Status.Phase, w.rem.Status.Message)
	}
}

func TestCancelStopsWhatHasNotHappened(t *testing.T) {
	for name, stage := range map[string]func(*world){
		"while waiting": func(w *world) { w.full = true; w.run() },
		"while draining": func(w *world) {
			w.job("infer-3", bad)
			w.run()
		},
		"after asking": func(w *world) { w.run() },
		"while verifying": func(w *world) {
			w.run()
			w.run()
			w.reboot("boot-2", false)
			w.run()
		},
		"in probation": func(w *world) {
			w.run()
			w.run()
			w.reboot("boot-2", true)
			w.run()
			w.pass(time.Minute)
			w.run()
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.fault("Xid79", bad)
			stage(w)
			asked, evicted := len(w.asked), len(w.evicted)
			w.rem.Spec.Cancel = true
			w.run()
			w.run()
			if w.rem.Status.Phase != v1alpha1.PhaseCancelled {
				t.Fatalf("%s, %v", w.rem.Status.Phase, w.reasons)
			}
			if len(w.asked) != asked || len(w.evicted) != evicted {
				t.Errorf("something happened after the cancel: %v %v", w.asked, w.evicted)
			}
			if w.health.Spec.Action != nil && w.health.Status.Action == nil {
				t.Error("what the agent was asked and has not begun must be taken back")
			}
			if err := w.clean(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestAHoldAfterAskingTakesTheActionBack(t *testing.T) {
	w := newWorld(t)
	w.fault("Xid79", bad)
	w.run()
	w.hold(v1alpha1.HoldDisruption)
	w.run()
	if w.withdrawn != 1 || w.rem.Status.Reason != ReasonHeld {
		t.Errorf("withdrawn %d times, then %s", w.withdrawn, w.rem.Status.Reason)
	}
	w.holds = nil
	w.run()
	if len(w.asked) != 2 || w.asked[0] == w.asked[1] {
		t.Errorf("asked anew under another id: %v", w.asked)
	}
}

// A NodeHealth from a cache that is behind does not show what was asked: what leaves Repairing takes it back all the same.
func TestWhatMayHaveBeenAskedIsTakenBack(t *testing.T) {
	for name, change := range map[string]func(*world, *Snapshot){
		"a human cancels":          func(w *world, _ *Snapshot) { w.rem.Spec.Cancel = true },
		"a human holds the node":   func(w *world, s *Snapshot) { w.hold(v1alpha1.HoldDisruption); s.Holds = w.holds },
		"the policy only observes": func(w *world, _ *Snapshot) { w.policy.Spec.Mode = v1alpha1.ModeObserve },
		"the brake holds": func(_ *world, s *Snapshot) {
			s.Policy.Brake = &v1alpha1.BrakeStatus{State: v1alpha1.BrakeHolding}
		},
		"the claim is gone":            func(_ *world, s *Snapshot) { s.ClaimHeld = false },
		"the slot is gone":             func(_ *world, s *Snapshot) { s.SlotHeld = false },
		"its time is up":               func(w *world, s *Snapshot) { s.Now = w.now.Add(time.Hour) },
		"the policy has lost its rung": func(w *world, _ *Snapshot) { w.policy.Spec.Rungs[1].Name = "restart" },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.fault("Xid79", bad)
			w.run()
			s := w.snapshot()
			s.Health = w.health.DeepCopy()
			s.Health.Spec.Action = nil
			change(w, s)
			if d := Next(s); d.Do != Withdraw || d.Phase != v1alpha1.PhasePending || d.Attempt.Result != v1alpha1.AttemptWithdrawn {
				t.Errorf("asked %v, yet %s to %s", w.asked, d.Do, d.Phase)
			}
		})
	}
}

func TestWhatHasBegunIsLetEnd(t *testing.T) {
	w := newWorld(t)
	w.fault("Xid79", bad)
	w.run()
	w.answer(v1alpha1.ActionStarted, "")
	w.hold(v1alpha1.HoldDisruption)
	w.rem.Spec.Cancel = true
	w.unclaim(false)
	w.run()
	if w.withdrawn != 0 || w.rem.Status.Phase != v1alpha1.PhaseRepairing {
		t.Errorf("nobody can stop a reboot: %s, withdrawn %d", w.rem.Status.Phase, w.withdrawn)
	}
}

func TestAFaultOfTheNodeIsDisprovedThoughEveryDeviceIsHealthy(t *testing.T) {
	w := newWorld(t)
	w.fault("KernelHung", "")
	w.run()
	w.run()
	w.reboot("boot-2", true)
	w.fault("KernelHung", "")
	w.run()
	w.pass(time.Minute)
	w.run()
	if w.rem.Status.Phase == v1alpha1.PhaseProbation || w.rem.Status.Attempts[0].Result != v1alpha1.AttemptNotRepaired {
		t.Errorf("%s, %v", w.rem.Status.Phase, w.rem.Status.Attempts)
	}
}

func TestACancelStandsUntilTheFaultHasGone(t *testing.T) {
	w := newWorld(t)
	w.fault("PCIDeviceDead", bad)
	w.full = true
	w.run()
	w.rem.Spec.Cancel = true
	w.run()
	s := w.snapshot()
	s.Remediation, s.Over = nil, []*v1alpha1.Remediation{w.rem}
	if rem, ok := Open(s); ok {
		t.Errorf("opened %s again", rem.Spec.Root.Code)
	}
	w.fault("Xid79", bad)
	again := w.snapshot()
	again.Remediation, again.Over = nil, s.Over
	if rem, ok := Open(again); ok {
		t.Errorf("%s is the same breakage", rem.Spec.Root.Code)
	}
	w.fault("Xid79", "GPU-5")
	other := w.snapshot()
	other.Remediation, other.Over = nil, s.Over
	if rem, ok := Open(other); !ok || rem.Spec.Devices[0] != "GPU-5" || len(rem.Spec.Devices) != 1 {
		t.Error("another device is another incident")
	}
	w.clear()
	w.pass(time.Hour)
	w.fault("PCIDeviceDead", bad)
	later := w.snapshot()
	later.Remediation, later.Over = nil, s.Over
	if _, ok := Open(later); !ok {
		t.Error("a fault that came back is a new one")
	}
}

func TestAFaultThatIsThereAgainIsAnotherIncident(t *testing.T) {
	w := newWorld(t)
	w.fault("Xid79", bad)
	w.run()
	first := w.rem.DeepCopy()
	for name, tc := range map[string]struct {
		over func(*v1alpha1.Remediation)
		want bool
	}{
		"the policy had moved on": {func(r *v1alpha1.Remediation) { r.Status.Phase = v1alpha1.PhaseCancelled }, true},
		"the fault had gone":      {func(r *v1alpha1.Remediation) { r.Status.Phase = v1alpha1.PhaseSucceeded }, true},
		"a human's cancel stands": {func(r *v1alpha1.Remediation) { r.Status.Phase, r.Spec.Cancel = v1alpha1.PhaseCancelled, true }, false},
	} {
		t.Run(name, func(t *testing.T) {
			over := first.DeepCopy()
			tc.over(over)
			s := w.snapshot()
			s.Remediation, s.Over = nil, []*v1alpha1.Remediation{over}
			rem, ok := Open(s)
			if ok != tc.want || ok && (rem.Name == over.Name || !Again(s, rem)) {
				t.Errorf("opened %v, want %v: %v", ok, tc.want, rem)
			}
		})
	}
}

func TestWhatWasPutOnAndNotWrittenDownComesOff(t *testing.T) {
	w := newWorld(t)
	w.policy.Spec.Mode = v1alpha1.ModeObserve
	w.fault("Xid79", bad)
	w.run()
	s := w.snapshot()
	if d := Next(s); d.Do != Wait {
		t.Errorf("nothing is on, yet %s", d.Do)
	}
	s.Unsure = true
	if d := Next(s); d.Do != Unquarantine || d.Reason != ReasonModeObserve {
		t.Errorf("something may be on, yet %s: %s", d.Do, d.Reason)
	}
	w.rem.Spec.Cancel = true
	s = w.snapshot()
	s.Unsure = true
	if d := Next(s); d.Do != Unquarantine || d.Phase != v1alpha1.PhaseCancelled {
		t.Errorf("a cancel takes off what may be on: %s %s", d.Do, d.Phase)
	}
}

func TestASecondFaultJoins(t *testing.T) {
	w := newWorld(t)
	w.job("train-0", "GPU-0")
	w.fault("Xid79", bad)
	w.run()
	w.fault("Xid79", "GPU-5")
	w.run()
	if diff := cmp.Diff([]string{bad, "GPU-5"}, w.rem.Spec.Devices); diff != "" {
		t.Error(diff)
	}
	if len(w.rem.Status.Quarantined) != 2 {
		t.Errorf("both are kept out: %v", w.rem.Status.Quarantined)
	}
}

func TestWhatWaitsForAHumanIsKeptOut(t *testing.T) {
	for name, tc := range map[string]struct {
		change, then func(*world)
		want         []string
	}{
		"a second device fails": {
			func(w *world) { w.past = 3 },
			func(w *world) { w.fault("Xid79", "GPU-5") },
			[]string{bad, "GPU-5"}},
		"a hold of everything ends": {
			func(w *world) { w.health.Status.SupportedActions = nil; w.hold(v1alpha1.HoldEverything) },
			func(w *world) { w.holds = nil },
			[]string{bad}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			tc.change(w)
			w.fault("Xid79", bad)
			w.run()
			before := rest{w.rem.Status.Phase, w.rem.Status.Reason}
			if before.Phase != v1alpha1.PhaseEscalated {
				t.Fatalf("to begin with, a human is asked: %v", w.reasons)
			}
			tc.then(w)
			w.run()
			var out []string
			for _, q := range w.rem.Status.Quarantined {
				out = append(out, q.DeviceID)
			}
			if diff := cmp.Diff(tc.want, out); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(before, rest{w.rem.Status.Phase, w.rem.Status.Reason}); diff != "" {
				t.Errorf("the human is asked for the same: %s", diff)
			}
		})
	}
}

func TestTheRatioBringsTheMomentForward(t *testing.T) {
	for name, tc := range map[string]struct {
		ratio v1alpha1.DeviceRatio
		// at is from how many bad devices of eight the rest is not waited for, out from how many the node is kept out.
		at, out int
	}{
		"a percentage is reached from the first number that is as much": {v1alpha1.DeviceRatio{RepairNow: &v1alpha1.RepairNow{From: percent("37%")}}, 3, 9},
		"a percentage that is a number exactly":                         {v1alpha1.DeviceRatio{RepairNow: &v1alpha1.RepairNow{From: percent("25%")}}, 2, 9},
		"a number":                                                      {v1alpha1.DeviceRatio{RepairNow: &v1alpha1.RepairNow{From: intstr.FromInt32(2)}}, 2, 9},
		"a percentage is kept up to the last number that is no more":    {v1alpha1.DeviceRatio{KeepServing: &v1alpha1.KeepServing{UpTo: percent("37%")}}, 9, 3},
		"nothing useful fits on seven":                                  {v1alpha1.DeviceRatio{SmallestUsefulRequest: ptr.To(int32(8))}, 1, 1},
		"nothing useful fits on five":                                   {v1alpha1.DeviceRatio{SmallestUsefulRequest: ptr.To(int32(6))}, 3, 3},
		"anything is useful":                                            {v1alpha1.DeviceRatio{SmallestUsefulRequest: ptr.To(int32(1))}, 9, 9},
		"no word of it":                                                 {v1alpha1.DeviceRatio{}, 9, 9},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.policy.Spec.Devices = &tc.ratio
			w.job("train-0", "GPU-0")
			for i := 1; i <= 3; i++ {
				w.fault("Xid79", fmt.Sprintf("GPU-%d", i))
				w.run()
				w.run()
				if at := slices.Contains(w.evicted, "train-0"); at != (i >= tc.at) {
					t.Fatalf("%d bad, the rest is moved: %v; %v", i, at, w.reasons)
				}
				if out := w.nodeIntended(); out != (i >= tc.out) {
					t.Fatalf("%d bad, the node is kept out: %v; %v", i, out, w.reasons)
				}
			}
		})
	}
}

func TestAFaultOfTheNodeIsNoBadDevice(t *testing.T) {
	w := newWorld(t)
	w.policy.Spec.Devices = &v1alpha1.DeviceRatio{SmallestUsefulRequest: ptr.To(int32(16))}
	w.job("train-0", "GPU-0")
	w.fault("KernelDeadlock", "")
	w.run()
	w.run()
	if len(w.evicted) > 0 || w.rem.Status.Reason != ReasonWaitingForIdle {
		t.Errorf("a node too small for the ratio waits as its rule says: %v", w.reasons)
	}
}

func TestAJobOfTheWholeNodeLosesItWhenThePolicySaysSo(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*world)
		moved  bool
	}{
		"it waits with the reboot":        {func(*world) {}, false},
		"jobs ask for whole nodes here":   {func(w *world) { w.policy.Spec.Devices = &v1alpha1.DeviceRatio{SmallestUsefulRequest: ptr.To(int32(8))} }, true},
		"the rule waits for nothing":      {func(w *world) { w.policy.Spec.Rules[1].When = v1alpha1.WhenNow }, true},
		"the rule's wait ends by force":   {func(w *world) { w.policy.Spec.Rules[1].AtDeadline = v1alpha1.DeadlineForce; w.pass(13 * time.Hour) }, true},
		"its own bad device is moved off": {func(w *world) { w.pods = nil; w.job("whole", bad); w.job("train-0", "GPU-0") }, true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.job("whole", "GPU-0", "GPU-1", "GPU-2", bad, "GPU-4", "GPU-5", "GPU-6", "GPU-7")
			w.fault("Xid79", bad)
			w.run()
			if len(w.evicted) > 0 || w.rem.Status.Reason != ReasonWaitingForIdle || len(w.rem.Status.Quarantined) != 1 {
				t.Fatalf("kept out, and waits: %v, moved %v", w.reasons, w.evicted)
			}
			tc.change(w)
			w.run()
			w.run()
			if moved := slices.Contains(w.evicted, "whole"); moved != tc.moved {
				t.Errorf("moved: %v; %v", moved, w.reasons)
			}
		})
	}
}

func TestEveryWaitHasADeadline(t *testing.T) {
	for name, change := range map[string]func(*world){
		"for idle":       func(w *world) { w.job("train-0", "GPU-0") },
		"for a budget":   func(w *world) { w.full = true },
		"for somebody":   func(w *world) { w.foreign = []Claim{{By: "kured"}} },
		"for the agent":  func(w *world) { w.reports = false },
		"for the reboot": func(*world) {},
		"for the proof":  func(w *world) { w.run(); w.run(); w.health.Status.BootID = "boot-2" },
		"for pods to end": func(w *world) {
			w.job("infer-3", bad)
			w.run()
			w.pods[0].DeletionTimestamp = &metav1.Time{Time: w.now}
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.fault("Xid79", bad)
			if name == "for pods to end" {
				w.job("infer-3", bad)
				w.pods[0].DeletionTimestamp = &metav1.Time{Time: w.now}
			} else {
				change(w)
			}
			for range 200 {
				w.run()
				if w.rem.Status.Phase == v1alpha1.PhaseEscalated {
					return
				}
				w.pass(30 * time.Minute)
			}
			t.Errorf("after 100 hours: %s %s", w.rem.Status.Phase, w.rem.Status.Message)
		})
	}
}

func TestNodeGoneInheritsNothing(t *testing.T) {
	w := newWorld(t)
	w.fault("Xid79", bad)
	w.run()
	w.node = nil
	w.run()
	w.run()
	if w.rem.Status.Phase != v1alpha1.PhaseNodeGone {
		t.Fatalf("%s", w.rem.Status.Phase)
	}
	if err := w.clean(); err != nil {
		t.Error(err)
	}
}

func TestNamesFitATaintAndAreTheSameForTheSame(t *testing.T) {
	f := v1alpha1.Fault{Code: "Xid79", Device: bad, FirstSeen: metav1.NewTime(start)}
	long := strings.Repeat("a", 48) + ".example.com"
	if n := name(long, "uid", f, 0); len(n) > 63 || strings.Contains(n, ".-") || strings.Contains(n, "--") {
		t.Errorf("%q (%d)", n, len(n))
	}
	again := f
	if name("a", "uid", f, 0) != name("a", "uid", again, 0) || name("a", "uid", f, 0) == name("a", "other", f, 0) {
		t.Error("a name is made of the node's UID and the fault")
	}
	if name("a", "uid", f, 0) == name("a", "uid", f, 1) {
		t.Error("the next incident of the same fault has another name")
	}
}

// What an attempt has left behind is kept out until something proves it, whatever takes the claim off meanwhile.
func TestANodeThatNothingHasProvedStaysOut(t *testing.T) {
	for name, then := range map[string]func(*world){
		"the next drain lasts too long": func(w *world) {
			w.job("late", "GPU-0")
			w.pods[0].OwnerReferences = nil
			w.run()
			w.pass(2 * time.Hour)
		},
		"a human holds the node":              func(w *world) { w.hold(v1alpha1.HoldDisruption) },
		"the policy only quarantines":         func(w *world) { w.policy.Spec.Mode = v1alpha1.ModeQuarantine },
		"a human takes the claim off by hand": func(w *world) { w.unclaim(true) },
		"the next attempt is taken back": func(w *world) {
			w.run()
			w.hold(v1alpha1.HoldDisruption)
		},
		"the controller dies before it writes down that a human is asked": func(w *world) {
			w.policy.Spec.Rungs[1].Attempts = nil
			for range 10 {
				d := Next(w.snapshot())
				if d.Do == Unclaim {
					w.unclaim(d.KeepTaint)
					return
				}
				w.apply(d)
			}
			w.t.Fatalf("no human is asked: %v", w.reasons)
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.fault("Xid79", bad)
			w.run()
			w.answer(v1alpha1.ActionDone, v1alpha1.ResultFailed)
			then(w)
			w.run()
			if !w.snapshot().nodeTainted() {
				t.Errorf("in service: %s, %v", w.rem.Status.Phase, w.reasons)
			}
			if listed := w.snapshot().listed(v1alpha1.QuarantineIntent{Kind: v1alpha1.QuarantineNodeTaint, Name: v1alpha1.TaintQuarantined}); !w.rem.Status.Phase.Acting() && !listed {
				t.Errorf("%s lists %v", w.rem.Status.Phase, w.rem.Status.Quarantined)
			}
		})
	}
}

func TestAFaultThatGoesAfterAnAttemptIsProvedToHaveGone(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*world)
		want   rest
	}{
		"in the drain for the next attempt": {func(*world) {}, rest{v1alpha1.PhaseVerifying, ReasonVerifying}},
		"while it waits": {func(w *world) { w.hold(v1alpha1.HoldDisruption); w.run() },
			rest{v1alpha1.PhaseVerifying, ReasonVerifying}},
		"while it waits, and no slot is free": {func(w *world) { w.hold(v1alpha1.HoldDisruption); w.run(); w.full = true },
			rest{v1alpha1.PhasePending, ReasonBudgetExhausted}},
		"in quarantine": {func(w *world) { w.policy.Spec.Mode = v1alpha1.ModeQuarantine; w.run() },
			rest{v1alpha1.PhaseVerifying, ReasonVerifying}},
		"in a mode that only observes": {func(w *world) { w.policy.Spec.Mode = v1alpha1.ModeObserve; w.run() },
			rest{v1alpha1.PhaseSucceeded, ReasonFaultCleared}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.fault("Xid79", bad)
			w.run()
			w.answer(v1alpha1.ActionDone, v1alpha1.ResultInterrupted)
			w.apply(Next(w.snapshot()))
			tc.change(w)
			w.clear()
			w.run()
			if diff := cmp.Diff(tc.want, rest{w.rem.Status.Phase, w.rem.Status.Reason}); diff != "" {
				t.Errorf("%s\n%v", diff, w.reasons)
			}
			if tc.want.Phase != v1alpha1.PhaseVerifying {
				return
			}
			w.pass(time.Minute)
			if w.run(); w.rem.Status.Phase != v1alpha1.PhaseProbation || w.snapshot().nodeTainted() {
				t.Errorf("proved, and then %s", w.rem.Status.Phase)
			}
		})
	}
}

func TestProbationDoesNotEndUnseen(t *testing.T) {
	w := newWorld(t)
	w.fault("Xid79", bad)
	w.run()
	w.reboot("boot-2", true)
	w.run()
	w.pass(time.Minute)
	w.run()
	for _, step := range []struct {
		reports bool
		after   time.Duration
		want    rest
	}{
		{false, 30 * time.Minute, rest{v1alpha1.PhaseProbation, ReasonVerified}},
		{false, time.Hour, rest{v1alpha1.PhaseProbation, ReasonNotReporting}},
		{false, 24 * time.Hour, rest{v1alpha1.PhaseEscalated, ReasonNotReporting}},
		{true, time.Hour, rest{v1alpha1.PhaseVerifying, ReasonVerifying}},
		{true, time.Minute, rest{v1alpha1.PhaseProbation, ReasonVerified}},
		{true, time.Hour, rest{v1alpha1.PhaseSucceeded, ReasonProbationClean}},
	} {
		w.reports = step.reports
		w.pass(step.after)
		w.run()
		if diff := cmp.Diff(step.want, rest{w.rem.Status.Phase, w.rem.Status.Reason}); diff != "" {
			t.Fatal(diff)
		}
		if len(w.rem.Status.Quarantined)+len(w.node.Spec.Taints) > 0 {
			t.Errorf("blindness keeps nothing out: %v %v", w.rem.Status.Quarantined, w.node.Spec.Taints)
		}
	}
}

func TestAHumanIsAskedForTheSameWhileTheProofWaits(t *testing.T) {
	w := newWorld(t)
	w.past = 3
	w.fault("Xid79", bad)
	w.run()
	why, way := w.rem.Status.Message, w.rem.Status.WouldChange
	w.clear()
	w.full = true
	for range 2 {
		w.pass(time.Minute)
		w.run()
		st := w.rem.Status
		if st.Reason != ReasonRepairLimit || st.Message != why+"; the fault is gone, and the proof waits: 1 of 1 is out" || st.WouldChange != way {
			t.Errorf("%s: %s; %s", st.Reason, st.Message, st.WouldChange)
		}
	}
	w.fault("Xid79", bad)
	w.run()
	if st := w.rem.Status; st.Reason != ReasonRepairLimit || st.Message != why {
		t.Errorf("the fault is back: %s: %s", st.Reason, st.Message)
	}
}
