package decide

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

// ladders are what a random walk climbs.
var ladders = [][]string{
	{"reset-device", "reboot", "send-back"},
	{"restart-driver", "reset-device", "reboot", "power-cycle", "send-back"},
	{"job", "reboot", "replace"},
	{"reset-all", "power-cycle", "external", "send-back"},
}

// wholeLadder has every rung.
var wholeLadder = []string{"restart-driver", "reset-device", "reboot", "power-cycle", "replace", "send-back"}

// ladderOf gives the rule for critical faults this ladder, and the agent what it needs for it.
func (w *world) ladderOf(names ...string) {
	w.policy.Spec.Rules[1].Ladder = names
	w.policy.Spec.Rungs = append(w.policy.Spec.Rungs,
		v1alpha1.Rung{Name: "restart-driver", Action: v1alpha1.RungRestartDriver, Drain: v1alpha1.DrainNothing},
		v1alpha1.Rung{Name: "reset-all", Action: v1alpha1.RungResetDevice, Drain: v1alpha1.DrainNode},
		v1alpha1.Rung{Name: "power-cycle", Action: v1alpha1.RungPowerCycle},
		v1alpha1.Rung{Name: "replace", Action: v1alpha1.RungReplace},
		v1alpha1.Rung{Name: "job", Action: v1alpha1.RungRunJob},
		v1alpha1.Rung{Name: "external", Action: v1alpha1.RungExternal},
	)
	w.health.Status.SupportedActions = []v1alpha1.ActionType{v1alpha1.ActionReboot, v1alpha1.ActionResetDevice}
}

// recommend makes a repair the least that the faults' catalogue names.
func (w *world) recommend(r v1alpha1.Recommendation) {
	for i := range w.health.Status.Faults {
		w.health.Status.Faults[i].Recommended = r
	}
}

// heal makes one device well.
func (w *world) heal(id string) {
	w.health.Status.Faults = slices.DeleteFunc(w.health.Status.Faults, func(f v1alpha1.Fault) bool { return f.Device == id })
	w.setHealth(id, v1alpha1.DeviceHealthy)
}

// reset answers as an agent that was asked to reset devices, and has looked at them since.
func (w *world) reset(repaired bool) {
	a := w.health.Spec.Action
	if a == nil || a.Type != v1alpha1.ActionResetDevice {
		return
	}
	for _, id := range a.Devices {
		if repaired {
			w.heal(id)
		}
	}
	w.health.Status.Action = &v1alpha1.ActionStatus{ID: a.ID, State: v1alpha1.ActionDone, Result: v1alpha1.ResultSucceeded}
	w.health.Status.CompletedRound = &v1alpha1.Round{BootID: w.health.Status.BootID, AfterAction: a.ID, At: metav1.NewTime(w.now)}
}

// resettable is a world in which one device of eight needs a reset, beside a job that runs on another.
func resettable(t *testing.T) *world {
	w := newWorld(t)
	w.ladderOf("reset-device", "reboot", "send-back")
	w.job("infer-3", bad)
	w.job("train-0", "GPU-0")
	w.fault("Xid48", bad)
	w.recommend(v1alpha1.RecommendResetDevice)
	w.run()
	w.run()
	return w
}

func TestADeviceIsResetBesideWorkThatRuns(t *testing.T) {
	w := resettable(t)
	if w.rem.Status.Phase != v1alpha1.PhaseRepairing || w.health.Spec.Action == nil || w.health.Spec.Action.Type != v1alpha1.ActionResetDevice {
		t.Fatalf("%s, %s: %s", w.rem.Status.Phase, w.rem.Status.Reason, w.rem.Status.Message)
	}
	if diff := cmp.Diff([]string{bad}, w.health.Spec.Action.Devices); diff != "" {
		t.Errorf("devices: %s", diff)
	}
	if diff := cmp.Diff([]string{"infer-3"}, w.evicted); diff != "" {
		t.Errorf("only the bad device's pod moves: %s", diff)
	}
	if len(w.node.Spec.Taints) != 1 {
		t.Error("from just before the reset no new pod comes to the node")
	}
	w.reset(true)
	w.run()
	w.pass(time.Minute)
	w.run()
	if w.rem.Status.Phase != v1alpha1.PhaseProbation || len(w.node.Spec.Taints)+len(w.rules) > 0 {
		t.Errorf("%s: %s; taints %v, rules %v", w.rem.Status.Phase, w.rem.Status.Message, w.node.Spec.Taints, w.rules)
	}
	w.pass(time.Hour)
	w.run()
	if err := w.clean(); err != nil || len(w.pods) != 1 {
		t.Errorf("%v; pods %d", err, len(w.pods))
	}
}

// The next rung takes the whole node, and waits for its moment like any other; the good devices serve meanwhile.
func TestAResetThatDoesNotRepairGivesTheNodeBackUntilTheReboot(t *testing.T) {
	w := resettable(t)
	w.pass(5 * time.Second)
	w.reset(false)
	w.run()
	w.pass(time.Minute)
	w.run()
	w.pass(10 * time.Second)
	w.run()
	got := rest{w.rem.Status.Phase, w.rem.Status.Reason}
	if diff := cmp.Diff(rest{v1alpha1.PhasePending, ReasonWaitingForIdle}, got); diff != "" {
		t.Fatalf("%s: %s\n%v", diff, w.rem.Status.Message, w.reasons)
	}
	if len(w.node.Spec.Taints) > 0 || len(w.rules) != 1 || w.slot {
		t.Errorf("taints %v, rules %v, slot %t", w.node.Spec.Taints, w.rules, w.slot)
	}
	if w.now.Sub(w.lookedAt) > time.Minute {
		t.Errorf("the rule was last seen on its device %s ago", w.now.Sub(w.lookedAt))
	}
	w.pods = nil
	w.run()
	if w.health.Spec.Action == nil || w.health.Spec.Action.Type != v1alpha1.ActionReboot {
		t.Errorf("asked for %+v", w.health.Spec.Action)
	}
	if a := w.rem.Status.Attempts; len(a) != 1 || a[0].Rung != "reset-device" || a[0].Result != v1alpha1.AttemptNotRepaired {
		t.Errorf("attempts %+v", a)
	}
}

func TestAProofIsNotReadFromBeforeTheReset(t *testing.T) {
	w := resettable(t)
	a := w.health.Spec.Action
	w.health.Status.Action = &v1alpha1.ActionStatus{ID: a.ID, State: v1alpha1.ActionDone, Result: v1alpha1.ResultSucceeded}
	w.run()
	w.pass(2 * time.Minute)
	w.run()
	if w.rem.Status.Phase != v1alpha1.PhaseVerifying || !strings.Contains(w.rem.Status.Message, "after the action") {
		t.Errorf("%s: %s", w.rem.Status.Phase, w.rem.Status.Message)
	}
}

func TestWhatIsResetTogetherIsDrainedTogetherAndNothingElse(t *testing.T) {
	w := newWorld(t)
	w.ladderOf("reset-device", "send-back")
	for _, i := range []int{2, 3} {
		w.health.Status.Devices[i].ResetDomain = "nvlink-1"
	}
	w.job("train-2", "GPU-2")
	w.job("train-0", "GPU-0")
	w.fault("Xid48", bad)
	w.recommend(v1alpha1.RecommendResetDevice)
	w.run()
	w.run()
	if diff := cmp.Diff([]string{"train-2"}, w.evicted); diff != "" {
		t.Errorf("moved: %s", diff)
	}
	if a := w.health.Spec.Action; a == nil || !slices.Equal(a.Devices, []string{bad, "GPU-2"}) {
		t.Errorf("asked %+v", a)
	}
}

func TestWhereTheNodeIsBadAResetEmptiesIt(t *testing.T) {
	w := newWorld(t)
	w.ladderOf("reset-device", "send-back")
	w.policy.Spec.Rules[1].When = v1alpha1.WhenNow
	w.policy.Spec.Devices = &v1alpha1.DeviceRatio{KeepServing: &v1alpha1.KeepServing{UpTo: percent("0%")}}
	w.job("train-0", "GPU-0")
	w.fault("Xid48", bad)
	w.recommend(v1alpha1.RecommendResetDevice)
	w.run()
	w.run()
	if !slices.Equal(w.evicted, []string{"train-0"}) || w.health.Spec.Action == nil {
		t.Errorf("moved %v, asked %v", w.evicted, w.health.Spec.Action)
	}
}

func TestTheLadderBeginsAtWhatTheFaultRecommends(t *testing.T) {
	for recommended, want := range map[v1alpha1.Recommendation]string{
		v1alpha1.RecommendNone: "restart-driver", v1alpha1.RecommendRestartApplication: "restart-driver",
		v1alpha1.RecommendRestartDriver: "restart-driver", v1alpha1.RecommendResetDevice: "reset-device",
		v1alpha1.RecommendReboot: "reboot", v1alpha1.RecommendPowerCycle: "power-cycle",
		v1alpha1.RecommendReplace: "replace", v1alpha1.RecommendHuman: "send-back",
	} {
		t.Run(string(recommended), func(t *testing.T) {
			w := newWorld(t)
			w.ladderOf(wholeLadder...)
			w.fault("Xid79", bad)
			w.recommend(recommended)
			w.run()
			if r, ok := w.snapshot().nextRung(); !ok || r.Name != want {
				t.Errorf("%s, want %s", r.Name, want)
			}
		})
	}
}

// What the controller does itself goes up the ladder as what the agent does.
func TestTheControllersOwnRungs(t *testing.T) {
	for name, tc := range map[string]struct {
		ladder []string
		state  v1alpha1.RemedyState
		then   func(*world)
		want   rest
		result v1alpha1.AttemptResult
	}{
		"a power cycle starts the node anew": {[]string{"power-cycle", "send-back"}, v1alpha1.RemedyRunning,
			func(w *world) { w.reboot("boot-2", true) }, rest{v1alpha1.PhaseProbation, ReasonVerified}, v1alpha1.AttemptRepaired},
		"a BMC that says it did, and a node that did not start anew": {[]string{"power-cycle", "send-back"}, v1alpha1.RemedySucceeded,
			func(w *world) { w.clear() }, rest{v1alpha1.PhaseVerifying, ReasonVerifying}, ""},
		"a job that repairs": {[]string{"job", "send-back"}, v1alpha1.RemedySucceeded,
			func(w *world) { w.clear() }, rest{v1alpha1.PhaseProbation, ReasonVerified}, v1alpha1.AttemptRepaired},
		"a job that fails": {[]string{"job", "send-back"}, v1alpha1.RemedyFailed,
			func(*world) {}, rest{v1alpha1.PhaseEscalated, ReasonAttemptsSpent}, v1alpha1.AttemptFailed},
		"a rung that is refused": {[]string{"replace", "send-back"}, v1alpha1.RemedyRefused,
			func(*world) {}, rest{v1alpha1.PhaseEscalated, ReasonAttemptsSpent}, v1alpha1.AttemptRefused},
		"a remediator that says nothing": {[]string{"external", "send-back"}, v1alpha1.RemedyRunning,
			func(w *world) { w.pass(30 * time.Minute) }, rest{v1alpha1.PhaseEscalated, ReasonAttemptsSpent}, v1alpha1.AttemptNotRepaired},
		"a human who cancels a job": {[]string{"job", "send-back"}, v1alpha1.RemedyRunning,
			func(w *world) { w.rem.Spec.Cancel = true }, rest{v1alpha1.PhaseCancelled, ReasonCancelled}, v1alpha1.AttemptWithdrawn},
		"a human who cancels a power cycle": {[]string{"power-cycle", "send-back"}, v1alpha1.RemedyRunning,
			func(w *world) { w.rem.Spec.Cancel = true }, rest{v1alpha1.PhaseRepairing, ReasonActionBegun}, ""},
		"a hold while a job runs": {[]string{"job", "send-back"}, v1alpha1.RemedyRunning,
			func(w *world) { w.hold(v1alpha1.HoldDisruption) }, rest{v1alpha1.PhaseRepairing, ReasonActionBegun}, ""},
		"a node that was replaced": {[]string{"replace", "send-back"}, v1alpha1.RemedyRunning,
			func(w *world) { w.node = nil }, rest{v1alpha1.PhaseNodeGone, ReasonNodeGone}, v1alpha1.AttemptRepaired},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.ladderOf(tc.ladder...)
			w.fault("Xid79", bad)
			w.run()
			if len(w.remedied) != 1 || len(w.asked) > 0 {
				t.Fatalf("to begin with, one attempt of the controller's: %v; %v", w.remedied, w.reasons)
			}
			w.remedy = tc.state
			tc.then(w)
			w.run()
			w.pass(2 * time.Minute)
			w.run()
			if diff := cmp.Diff(tc.want, rest{w.rem.Status.Phase, w.rem.Status.Reason}); diff != "" {
				t.Errorf("%s: %s\n%v", diff, w.rem.Status.Message, w.reasons)
			}
			var result v1alpha1.AttemptResult
			if n := len(w.rem.Status.Attempts); n > 0 {
				result = w.rem.Status.Attempts[n-1].Result
			}
			if result != tc.result {
				t.Errorf("the attempt is %q, want %q", result, tc.result)
			}
			if len(w.remedied) != 1 {
				t.Errorf("attempts %v", w.remedied)
			}
		})
	}
}

// One of two bad devices gets well by itself: it serves again, and the other stays out.
func TestADeviceThatIsWellAgainIsLetGoOf(t *testing.T) {
	w := newWorld(t)
	w.job("train-0", "GPU-0")
	w.fault("Xid79", bad)
	w.fault("Xid79", "GPU-5")
	w.run()
	if len(w.rules) != 2 {
		t.Fatalf("to begin with: %v", w.rules)
	}
	w.heal(bad)
	w.run()
	if len(w.rules) != 1 || !slices.Contains([]string{w.rules[w.rem.Name+"-1"]}, "gpu-5") || len(w.rem.Spec.Quarantine) != 2 {
		t.Errorf("on %v, intended %v", w.rules, w.rem.Spec.Quarantine)
	}
	w.fault("Xid79", bad)
	w.run()
	if len(w.rules) != 2 || len(w.rem.Spec.Devices) != 2 {
		t.Errorf("it failed again: on %v, devices %v", w.rules, w.rem.Spec.Devices)
	}
}

// Three of eight keep the whole node out; two of eight do not.
func TestANodeServesAgainWhenFewEnoughOfItsDevicesAreBad(t *testing.T) {
	w := newWorld(t)
	w.policy.Spec.Devices = &v1alpha1.DeviceRatio{KeepServing: &v1alpha1.KeepServing{UpTo: percent("25%")}}
	w.job("train-0", "GPU-0")
	for _, id := range []string{bad, "GPU-5", "GPU-6"} {
		w.fault("Xid79", id)
	}
	w.run()
	if len(w.node.Spec.Taints) != 1 {
		t.Fatalf("to begin with: taints %v, rules %v", w.node.Spec.Taints, w.rules)
	}
	w.heal("GPU-6")
	w.run()
	if len(w.node.Spec.Taints) > 0 || len(w.rules) != 2 || len(w.rem.Status.Quarantined) != 2 {
		t.Errorf("taints %v, rules %v, listed %v\n%v", w.node.Spec.Taints, w.rules, w.rem.Status.Quarantined, w.reasons)
	}
	w.clear()
	w.run()
	w.run()
	if err := w.clean(); err != nil {
		t.Error(err)
	}
}

// What was tried for one device does not use up the ladder of another.
func TestADeviceThatFailsInAnothersProbationBeginsTheLadder(t *testing.T) {
	w := newWorld(t)
	w.ladderOf("reboot", "send-back")
	w.policy.Spec.Rungs[1].Attempts = nil // once.
	w.fault("Xid79", bad)
	w.run()
	w.pass(time.Minute)
	w.reboot("boot-2", true)
	w.run()
	w.pass(time.Minute)
	w.run()
	w.fault("Xid79", "GPU-5")
	w.run()
	if w.rem.Status.Phase != v1alpha1.PhaseRepairing || len(w.asked) != 2 {
		t.Errorf("%s, %s: %s", w.rem.Status.Phase, w.rem.Status.Reason, w.rem.Status.Message)
	}
	if a := w.rem.Status.Attempts; len(a) != 1 || a[0].Result != v1alpha1.AttemptRepaired {
		t.Errorf("the first device's repair stands: %+v", a)
	}
}

// A reset stops a job that works on good devices beside the bad one; that waits for its moment, and nothing else is moved
// then either.
func TestAResetWaitsForAJobThatWorksOnGoodDevicesToo(t *testing.T) {
	w := newWorld(t)
	w.ladderOf("reset-device", "reboot", "send-back")
	w.job("pair", "GPU-2", bad)
	w.job("train-0", "GPU-0")
	w.fault("Xid48", bad)
	w.recommend(v1alpha1.RecommendResetDevice)
	w.run()
	w.run()
	if diff := cmp.Diff(rest{v1alpha1.PhasePending, ReasonWaitingForIdle}, rest{w.rem.Status.Phase, w.rem.Status.Reason}); diff != "" || len(w.evicted) > 0 {
		t.Fatalf("%s: %s; moved %v", diff, w.rem.Status.Message, w.evicted)
	}
	w.rem.Spec.Approvals = []v1alpha1.Approval{{What: v1alpha1.ApproveSkipIdle, By: "y.sato", Until: metav1.NewTime(w.now.Add(time.Hour))}}
	w.run()
	w.run()
	if diff := cmp.Diff([]string{"pair"}, w.evicted); diff != "" || w.health.Spec.Action == nil || w.health.Spec.Action.Type != v1alpha1.ActionResetDevice {
		t.Errorf("moved %s; asked %v; %v", diff, w.health.Spec.Action, w.reasons)
	}
}
