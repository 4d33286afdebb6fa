package decide

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

// keptOut are the devices that a rule is on.
func (w *world) keptOut() []string {
	var ids []string
	for _, q := range w.rem.Status.Quarantined {
		if q.Kind == v1alpha1.QuarantineDeviceTaintRule {
			ids = append(ids, q.DeviceID)
		}
	}
	slices.Sort(ids)
	return ids
}

// mend ends the faults of one device.
func (w *world) mend(device string) {
	w.health.Status.Faults = slices.DeleteFunc(w.health.Status.Faults, func(f v1alpha1.Fault) bool { return f.Device == device })
	w.setHealth(device, v1alpha1.DeviceHealthy)
}

// repaired reboots the node with success, and gets as far as probation.
func (w *world) repaired() {
	w.run()
	w.run()
	w.reboot("boot-2", true)
	w.run()
	w.pass(time.Minute)
	w.run()
}

const second = "GPU-5"

func TestADeviceIsKeptOutAsLongAsItsOwnFaultLasts(t *testing.T) {
	for name, tc := range map[string]struct {
		then func(*world)
		want []string
	}{
		"the first fault ends, the second stays": {func(w *world) { w.mend(bad) }, []string{second}},
		"the second ends, the first stays":       {func(w *world) { w.mend(second) }, []string{bad}},
		"it comes back": {func(w *world) {
			w.mend(bad)
			w.run()
			w.fault("Xid79", bad)
		}, []string{bad, second}},
		"what a blind agent said last is no proof": {func(w *world) { w.mend(bad); w.reports = false }, []string{bad, second}},
		"nor what it says before it has looked":    {func(w *world) { w.mend(bad); w.health.Status.CompletedRound = nil }, []string{bad, second}},
		"a device that is not well is kept out without a fault": {func(w *world) {
			w.mend(bad)
			w.setHealth(bad, v1alpha1.DeviceUnhealthy)
		}, []string{bad, second}},
		"or of which nothing is known": {func(w *world) {
			w.mend(bad)
			w.setHealth(bad, v1alpha1.DeviceUnknown)
		}, []string{bad, second}},
		"what a reboot has left behind unproved stays": {func(w *world) {
			w.rem.Status.Attempts = []v1alpha1.Attempt{{ActionID: "x-1", Rung: "reboot", Index: 1, Result: v1alpha1.AttemptNotRepaired}}
			w.mend(bad)
		}, []string{bad, second}},
		"a human is asked about the other": {func(w *world) {
			w.past = 3
			w.run()
			w.mend(bad)
		}, []string{second}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.job("train-0", "GPU-0")
			w.fault("Xid79", bad)
			w.run()
			w.fault("Xid79", second)
			w.run()
			if diff := cmp.Diff([]string{bad, second}, w.keptOut()); diff != "" {
				t.Fatalf("to begin with: %s", diff)
			}
			tc.then(w)
			w.run()
			w.run()
			if diff := cmp.Diff(tc.want, w.keptOut()); diff != "" {
				t.Errorf("%s: %v", diff, w.reasons)
			}
			if !slices.Contains(w.rem.Spec.Devices, bad) || !slices.Contains(w.rem.Spec.Devices, second) {
				t.Errorf("the incident is about both all the same: %v", w.rem.Spec.Devices)
			}
			// Whatever is on, it comes off in the end.
			w.reports, w.past = true, 0
			w.rem.Spec.Cancel = true
			w.run()
			w.run()
			w.run()
			if err := w.clean(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestAnotherFaultInProbationLeavesWhatWasRepairedAlone(t *testing.T) {
	w := newWorld(t)
	w.policy.Spec.Rules[1].Ladder = []string{"reboot", "reboot-again", "send-back"}
	w.policy.Spec.Rungs = append(w.policy.Spec.Rungs, v1alpha1.Rung{Name: "reboot-again", Action: v1alpha1.RungReboot})
	w.job("train-0", "GPU-0")
	w.fault("Xid79", bad)
	w.run()
	w.pods = nil
	w.repaired()
	w.job("train-1", "GPU-0")
	if w.rem.Status.Phase != v1alpha1.PhaseProbation {
		t.Fatalf("%v", w.reasons)
	}
	w.job("on-repaired", bad)
	w.job("on-second", second)
	w.fault("Xid79", second)
	w.run()
	w.run()
	if diff := cmp.Diff([]string{second}, w.keptOut()); diff != "" {
		t.Errorf("%s: %v", diff, w.reasons)
	}
	if diff := cmp.Diff([]string{"on-second"}, w.evicted); diff != "" {
		t.Error(diff)
	}
	// A check that looks twice at the second knows of none meanwhile.
	for _, d := range w.health.Status.Devices {
		w.setHealth(d.ID, v1alpha1.DeviceUnknown)
	}
	w.run()
	if diff := cmp.Diff([]string{second}, w.keptOut()); diff != "" {
		t.Errorf("%s: %v", diff, w.reasons)
	}
	// The repaired one fails too: then it is kept out, whatever was proved of it.
	w.fault("Xid79", bad)
	w.run()
	w.run()
	if diff := cmp.Diff([]string{bad, second}, w.keptOut()); diff != "" {
		t.Errorf("%s: %v", diff, w.reasons)
	}
	// It goes quiet again: a relapse is proved away, not waited away.
	w.mend(bad)
	w.run()
	w.run()
	if diff := cmp.Diff([]string{bad, second}, w.keptOut()); diff != "" {
		t.Errorf("%s: %v", diff, w.reasons)
	}
}

func TestADeviceThatHasRecoveredDoesNotCount(t *testing.T) {
	w := newWorld(t)
	w.policy.Spec.Devices = &v1alpha1.DeviceRatio{RepairNow: &v1alpha1.RepairNow{From: percent("25%")}}
	w.job("train-0", "GPU-0")
	w.fault("Xid79", bad)
	w.run()
	// One breaks as the other recovers: never two at once.
	w.mend(bad)
	w.fault("Xid79", second)
	w.run()
	w.run()
	if len(w.evicted) > 0 || w.rem.Status.Reason != ReasonWaitingForIdle {
		t.Errorf("one of eight is bad: %v, moved %v", w.reasons, w.evicted)
	}
}
