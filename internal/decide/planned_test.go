package decide

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/maintenance"
)

// ask asks for planned work; without a rung for an empty node.
func (w *world) ask(rung string, change ...func(*maintenance.Request)) {
	w.asks = &maintenance.Request{Reason: "new kernel", By: "y.sato", At: metav1.NewTime(w.now), Rung: rung}
	for _, c := range change {
		c(w.asks)
	}
}

func notBefore(d time.Duration) func(*maintenance.Request) {
	return func(r *maintenance.Request) { r.NotBefore = &metav1.Time{Time: r.At.Add(d)} }
}

func until(d time.Duration) func(*maintenance.Request) {
	return func(r *maintenance.Request) { r.Until = &metav1.Time{Time: r.At.Add(d)} }
}

func at(when v1alpha1.When) func(*maintenance.Request) {
	return func(r *maintenance.Request) { r.When = when }
}

func (w *world) rests() rest { return rest{w.rem.Status.Phase, w.rem.Status.Reason} }

func (w *world) wantRest(phase v1alpha1.Phase, reason string) {
	w.t.Helper()
	w.run()
	if diff := cmp.Diff(rest{phase, reason}, w.rests()); diff != "" {
		w.t.Fatalf("(-want +got):\n%s%s\n%s", diff, w.rem.Status.Message, strings.Join(w.reasons, "\n"))
	}
}

func TestAPlannedRebootWaitsForIdleAndEndsWithItsProof(t *testing.T) {
	w := newWorld(t)
	w.job("train-0", "GPU-0")
	w.ask("reboot")
	w.wantRest(v1alpha1.PhasePending, ReasonWaitingForIdle)
	if len(w.node.Spec.Taints) > 0 || w.rem.Spec.Cause != v1alpha1.CauseMaintenance {
		t.Errorf("nothing is broken: taints %v, cause %s", w.node.Spec.Taints, w.rem.Spec.Cause)
	}
	w.pods = nil
	w.wantRest(v1alpha1.PhaseRepairing, ReasonActionAsked)
	if len(w.node.Spec.Taints) != 1 {
		t.Error("while it is worked on no new pod comes")
	}
	w.pass(5 * time.Minute)
	w.reboot("boot-2", true)
	w.run()
	w.pass(time.Minute)
	w.wantRest(v1alpha1.PhaseSucceeded, ReasonMaintenanceDone)
	if err := w.clean(); err != nil || w.asks != nil {
		t.Errorf("%v; still asked for: %v", err, w.asks)
	}
}

func TestWherePlannedWorkRests(t *testing.T) {
	for name, tc := range map[string]struct {
		set  func(*world)
		want rest
	}{
		"until its time comes":                     {func(w *world) { w.ask("reboot", notBefore(time.Hour)) }, rest{v1alpha1.PhasePending, ReasonScheduled}},
		"for a window of the policy":               {func(w *world) { w.ask("reboot", at(v1alpha1.WhenWindow)) }, rest{v1alpha1.PhasePending, ReasonWaitingForWindow}},
		"for idle, unless told":                    {func(w *world) { w.job("train-0", "GPU-0"); w.ask("reboot") }, rest{v1alpha1.PhasePending, ReasonWaitingForIdle}},
		"for nothing where told so":                {func(w *world) { w.job("train-0", "GPU-0"); w.ask("reboot", at(v1alpha1.WhenNow)) }, rest{v1alpha1.PhaseRepairing, ReasonActionAsked}},
		"behind a hold":                            {func(w *world) { w.hold(v1alpha1.HoldDisruption); w.ask("reboot") }, rest{v1alpha1.PhasePending, ReasonHeld}},
		"behind another's claim":                   {func(w *world) { w.foreign = []Claim{{By: "kured"}}; w.ask("reboot") }, rest{v1alpha1.PhasePending, ReasonForeignClaim}},
		"behind a budget":                          {func(w *world) { w.full = true; w.ask("reboot") }, rest{v1alpha1.PhasePending, ReasonBudgetExhausted}},
		"in mode Quarantine":                       {func(w *world) { w.policy.Spec.Mode = v1alpha1.ModeQuarantine; w.ask("reboot") }, rest{v1alpha1.PhasePending, ReasonQuarantineOnly}},
		"in mode Observe":                          {func(w *world) { w.policy.Spec.Mode = v1alpha1.ModeObserve; w.ask("reboot") }, rest{v1alpha1.PhasePending, ReasonModeObserve}},
		"with a human, without a rung of its name": {func(w *world) { w.ask("firmware") }, rest{v1alpha1.PhaseEscalated, ReasonAttemptsSpent}},
		"with a human, once empty":                 {func(w *world) { w.ask("") }, rest{v1alpha1.PhaseEscalated, ReasonHandedOver}},
		"whatever was repaired before":             {func(w *world) { w.past = 9; w.ask("reboot") }, rest{v1alpha1.PhaseRepairing, ReasonActionAsked}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			tc.set(w)
			w.run()
			w.wantRest(tc.want.Phase, tc.want.Reason)
			if w.rem.Status.Phase == v1alpha1.PhasePending && len(w.node.Spec.Taints)+len(w.node.Annotations) > 0 {
				t.Error("a node that waits for planned work serves")
			}
		})
	}
}

func TestPlannedWorkThatDoesNotBeginInTimeIsAHumans(t *testing.T) {
	for name, tc := range map[string]struct {
		change []func(*maintenance.Request)
		last   time.Duration
	}{
		"by the time it names":               {[]func(*maintenance.Request){until(4 * time.Hour)}, 4 * time.Hour},
		"a week after it was asked for":      {nil, 7 * 24 * time.Hour},
		"a week after it might have begun":   {[]func(*maintenance.Request){notBefore(48 * time.Hour)}, 9 * 24 * time.Hour},
		"by its time, though it may be late": {[]func(*maintenance.Request){notBefore(2 * time.Hour), until(3 * time.Hour)}, 3 * time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.job("train-0", "GPU-0")
			w.ask("reboot", tc.change...)
			w.run()
			w.pass(tc.last - time.Second)
			w.wantRest(v1alpha1.PhasePending, ReasonWaitingForIdle)
			w.pass(2 * time.Second)
			w.wantRest(v1alpha1.PhaseEscalated, ReasonWaitDeadline)
			if len(w.node.Spec.Taints) > 0 {
				t.Error("the node serves")
			}
		})
	}
}

func TestAnEmptyNodeIsAHumansUntilThatHumanSaysSo(t *testing.T) {
	w := newWorld(t)
	w.job("train-0", "GPU-0")
	w.ask("", at(v1alpha1.WhenNow))
	w.run()
	w.wantRest(v1alpha1.PhaseEscalated, ReasonHandedOver)
	if diff := cmp.Diff([]string{"train-0"}, w.evicted); diff != "" {
		t.Error(diff)
	}
	w.pass(48 * time.Hour)
	w.wantRest(v1alpha1.PhaseEscalated, ReasonHandedOver)
	if len(w.node.Spec.Taints) != 1 || !w.slot || len(w.node.Annotations) > 0 {
		t.Errorf("it stays out, and counts: taints %v, slot %v, annotations %v", w.node.Spec.Taints, w.slot, w.node.Annotations)
	}
	w.asks = nil
	w.wantRest(v1alpha1.PhaseVerifying, ReasonVerifying)
	w.pass(time.Minute)
	w.run()
	if w.rem.Status.Phase != v1alpha1.PhaseSucceeded && w.rem.Status.Phase != v1alpha1.PhaseProbation {
		t.Errorf("given back: %v", w.rests())
	}
	if len(w.node.Spec.Taints) > 0 {
		t.Error("the taint is left")
	}
}

func TestTakingTheRequestBackStopsWhatHasNotHappenedYet(t *testing.T) {
	for name, cancel := range map[string]func(*world){
		"by taking it back": func(w *world) { w.asks = nil },
		"by cancel":         func(w *world) { w.rem.Spec.Cancel = true },
	} {
		for phase, set := range map[string]func(*world){
			"while it waits": func(w *world) { w.job("train-0", "GPU-0"); w.ask("reboot") },
			"while it drains": func(w *world) {
				w.job("train-0", "GPU-0")
				w.stubborn = map[string]v1alpha1.DrainBy{"train-0": v1alpha1.DrainByForceDelete}
				w.ask("reboot", at(v1alpha1.WhenNow))
			},
			"before the agent begins": func(w *world) { w.ask("reboot") },
			"once it is handed over":  func(w *world) { w.ask("") },
		} {
			t.Run(name+" "+phase, func(t *testing.T) {
				w := newWorld(t)
				set(w)
				w.run()
				cancel(w)
				for range 4 {
					w.run()
					w.pass(time.Minute)
				}
				if !w.rem.Status.Phase.Over() {
					t.Errorf("%v %s", w.rests(), strings.Join(w.reasons, "\n"))
				}
				if err := w.clean(); err != nil {
					t.Error(err)
				}
				if w.health.Spec.Action != nil {
					t.Error("the agent is still asked")
				}
			})
		}
	}
}

func TestWhatFailsGoesBeforeWhatIsPlanned(t *testing.T) {
	t.Run("a planned node that breaks is repaired at once, and one reboot serves both", func(t *testing.T) {
		w := newWorld(t)
		w.ask("reboot", notBefore(24*time.Hour))
		w.wantRest(v1alpha1.PhasePending, ReasonScheduled)
		w.pass(time.Minute)
		w.fault("Xid79", bad)
		w.wantRest(v1alpha1.PhaseRepairing, ReasonActionAsked)
		w.pass(time.Minute)
		w.reboot("boot-2", true)
		w.run()
		w.pass(time.Minute)
		w.wantRest(v1alpha1.PhaseProbation, ReasonVerified)
		w.pass(time.Hour)
		w.wantRest(v1alpha1.PhaseSucceeded, ReasonProbationClean)
		if w.asks != nil {
			t.Error("it is still asked for, and would reboot the node again")
		}
	})
	t.Run("where the repair was no reboot, the planned one comes after probation", func(t *testing.T) {
		w := newWorld(t)
		w.health.Status.SupportedActions = append(w.health.Status.SupportedActions, v1alpha1.ActionResetDevice)
		w.ladderOf("reset-device", "reboot")
		w.fault("Xid95", bad)
		w.health.Status.Faults[0].Recommended = v1alpha1.RecommendResetDevice
		w.ask("reboot")
		w.wantRest(v1alpha1.PhaseRepairing, ReasonActionAsked)
		w.reset(true)
		w.run()
		w.pass(time.Minute)
		w.wantRest(v1alpha1.PhaseProbation, ReasonVerified)
		w.wantRest(v1alpha1.PhaseProbation, ReasonVerified)
		w.pass(time.Hour)
		w.wantRest(v1alpha1.PhaseSucceeded, ReasonProbationClean)
		if w.asks == nil {
			t.Fatal("nobody has done it, and it is asked for no more")
		}
		w.rem = nil
		w.wantRest(v1alpha1.PhaseRepairing, ReasonActionAsked)
	})
	t.Run("a device that is only kept out does not keep planned work waiting", func(t *testing.T) {
		w := newWorld(t)
		w.policy.Spec.Rules[1].Response = v1alpha1.ResponseQuarantine
		w.fault("Xid79", bad)
		w.ask("reboot")
		w.wantRest(v1alpha1.PhaseRepairing, ReasonActionAsked)
	})
}

func TestAConditionMayAskForPlannedWork(t *testing.T) {
	w := newWorld(t)
	w.policy.Spec.Rules[1].Planned = true
	w.job("train-0", "GPU-0")
	w.fault("RebootRequired", "")
	w.wantRest(v1alpha1.PhasePending, ReasonWaitingForIdle)
	if len(w.node.Spec.Taints) > 0 || w.rem.Spec.Cause != v1alpha1.CauseMaintenance {
		t.Errorf("nothing is broken: taints %v, cause %s", w.node.Spec.Taints, w.rem.Spec.Cause)
	}
	w.pods = nil
	w.wantRest(v1alpha1.PhaseRepairing, ReasonActionAsked)
	w.reboot("boot-2", true)
	w.run()
	w.pass(time.Minute)
	w.wantRest(v1alpha1.PhaseSucceeded, ReasonMaintenanceDone)
}

// told are the lifecycle conditions that would be written.
func told(s *Snapshot) map[corev1.NodeConditionType]corev1.ConditionStatus {
	out := map[corev1.NodeConditionType]corev1.ConditionStatus{}
	for _, c := range Lifecycle(s) {
		out[c.Type] = c.Status
	}
	return out
}

func TestOthersAreToldWhatIsDoneToANode(t *testing.T) {
	type conditions = map[corev1.NodeConditionType]corev1.ConditionStatus
	const yes, no = corev1.ConditionTrue, corev1.ConditionFalse
	by := func(reason string, status corev1.ConditionStatus, kinds ...corev1.NodeConditionType) func(*world) {
		return func(w *world) {
			for _, k := range kinds {
				w.node.Status.Conditions = append(w.node.Status.Conditions, corev1.NodeCondition{Type: k, Status: status, Reason: reason})
			}
		}
	}
	ours := v1alpha1.ReasonLifecycle
	for name, tc := range map[string]struct {
		set  []func(*world)
		want conditions
	}{
		"of a node to which nothing is done, nothing": {nil, conditions{}},
		"planned work that waits": {[]func(*world){func(w *world) { w.ask("reboot", notBefore(time.Hour)) }},
			conditions{corev1.NodeMaintenancePlanned: yes}},
		"not of a fault that waits": {[]func(*world){func(w *world) { w.full = true; w.fault("Xid79", bad) }}, conditions{}},
		"nor in mode Observe":       {[]func(*world){func(w *world) { w.policy.Spec.Mode = v1alpha1.ModeObserve; w.ask("reboot") }}, conditions{}},
		"a drain": {[]func(*world){func(w *world) {
			w.job("train-0", "GPU-0")
			w.stubborn = map[string]v1alpha1.DrainBy{"train-0": v1alpha1.DrainByForceDelete}
			w.ask("reboot", at(v1alpha1.WhenNow))
		}, by(ours, yes, corev1.NodeMaintenancePlanned)},
			conditions{corev1.NodeMaintenancePlanned: no, corev1.NodeDrainInProgress: yes}},
		"a repair, with what is so already left alone": {[]func(*world){func(w *world) { w.ask("reboot") }, by(ours, yes, corev1.NodeDrained)},
			conditions{corev1.NodeMaintenanceInProgress: yes}},
		"an empty node that a human has": {[]func(*world){func(w *world) { w.ask("") }},
			conditions{corev1.NodeMaintenanceInProgress: yes, corev1.NodeDrained: yes}},
		"the end": {[]func(*world){by(ours, yes, corev1.NodeMaintenanceInProgress, corev1.NodeDrained)},
			conditions{corev1.NodeMaintenanceInProgress: no, corev1.NodeDrained: no}},
		"nothing where another has said so": {[]func(*world){func(w *world) { w.ask("") }, by("Firmware", yes, corev1.NodeDrained, corev1.NodeMaintenancePlanned)},
			conditions{corev1.NodeMaintenanceInProgress: yes}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			for _, set := range tc.set {
				set(w)
			}
			w.run()
			if diff := cmp.Diff(tc.want, told(w.bare())); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
