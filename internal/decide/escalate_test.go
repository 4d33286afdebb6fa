package decide

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

func minutes(n int) metav1.Duration { return metav1.Duration{Duration: time.Duration(n) * time.Minute} }

// escalating is a world whose drains delete after half an hour and use force after three quarters, until an hour has passed.
func escalating(t *testing.T) *world {
	w := newWorld(t)
	rule := &w.policy.Spec.Rules[1]
	rule.When, rule.Ladder = v1alpha1.WhenNow, []string{"reboot", "send-back"}
	w.policy.Spec.Drain = &v1alpha1.Drain{Escalate: []v1alpha1.DrainEscalation{
		{After: minutes(45), By: v1alpha1.DrainByForceDelete},
		{After: minutes(30), By: v1alpha1.DrainByDelete},
	}}
	w.job("train-0", "GPU-0")
	return w
}

func TestADrainEscalatesInItsOwnTime(t *testing.T) {
	w := escalating(t)
	w.stubborn = map[string]v1alpha1.DrainBy{"train-0": v1alpha1.DrainByForceDelete}
	w.fault("Xid79", bad)
	type at struct {
		By   v1alpha1.DrainBy
		Says string
	}
	for _, tc := range []struct {
		pass time.Duration
		want at
	}{
		{0, at{v1alpha1.DrainByEvict, PodsEnd + "; from 2026-11-23T10:30:00Z on those left are deleted, whatever their disruption budgets say"}},
		{30*time.Minute - time.Second, at{v1alpha1.DrainByEvict, PodsEnd + "; from 2026-11-23T10:30:00Z on those left are deleted, whatever their disruption budgets say"}},
		{time.Second, at{v1alpha1.DrainByDelete, PodsEnd + "; from 2026-11-23T10:45:00Z on those left that outlast their grace period are removed by force"}},
	} {
		w.pass(tc.pass)
		d := w.run()
		if diff := cmp.Diff(tc.want, at{d.Means.By, d.WouldChange}); diff != "" || w.rem.Status.Drain.By != tc.want.By {
			t.Errorf("after %s it is at %s (-want +got):\n%s", tc.pass, w.rem.Status.Drain.By, diff)
		}
	}
	if len(w.evicted) > 0 {
		t.Fatalf("gone: %v", w.evicted)
	}
	w.pass(15 * time.Minute)
	w.run()
	if d := w.run(); d.Phase != v1alpha1.PhaseRepairing || len(w.evicted) != 1 {
		t.Errorf("%s, gone: %v", d.Phase, w.evicted)
	}
}

// A drain that was stopped and goes on begins kindly again, and so does that of the rest of the node after that of a device.
func TestADrainThatBeginsAnewBeginsKindly(t *testing.T) {
	for name, change := range map[string]func(*world){
		"a hold came between": func(w *world) {
			w.hold(v1alpha1.HoldDisruption)
			w.run()
			w.holds = nil
		},
		"it became wider": func(w *world) {
			w.rem.Status.Drain.Scope = "Device"
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := escalating(t)
			w.stubborn = map[string]v1alpha1.DrainBy{"train-0": "none"}
			w.fault("Xid79", bad)
			w.run()
			w.pass(31 * time.Minute)
			if d := w.run(); d.Means.By != v1alpha1.DrainByDelete {
				t.Fatalf("by %s", d.Means.By)
			}
			change(w)
			if d := w.run(); d.Phase != v1alpha1.PhaseDraining || d.Means.By != v1alpha1.DrainByEvict || w.rem.Status.Drain.Scope != "Node" {
				t.Errorf("%s %s by %s: %v", d.Phase, w.rem.Status.Drain.Scope, d.Means.By, w.reasons)
			}
			w.pass(31 * time.Minute)
			if d := w.run(); d.Means.By != v1alpha1.DrainByDelete {
				t.Errorf("half an hour later by %s", d.Means.By)
			}
		})
	}
}

// No means reach a pod that only a human stops, and the drain asks that human at its deadline.
func TestNoMeansStopAPodThatOnlyAHumanStops(t *testing.T) {
	w := escalating(t)
	w.policy.Spec.Drain.Classes = []v1alpha1.WorkloadClass{{Name: "all", Match: v1alpha1.WorkloadMatch{OwnerKinds: []string{"Job"}}, Cost: v1alpha1.CostNever}}
	w.fault("Xid79", bad)
	w.run()
	for range 59 {
		w.pass(time.Minute)
		if d := w.run(); d.Phase != v1alpha1.PhaseDraining || len(d.Evict) > 0 {
			t.Fatalf("%s, evict %v: %v", d.Phase, d.Evict, w.reasons)
		}
	}
	w.pass(time.Minute)
	if d := w.run(); d.Phase != v1alpha1.PhaseEscalated || !strings.Contains(w.rem.Status.Message, "ml/train-0") {
		t.Errorf("%s: %s", d.Phase, w.rem.Status.Message)
	}
}

func TestAPodThatHangsIsRemovedByForceOnlyWhenItHasOutlastedItsGrace(t *testing.T) {
	w := escalating(t)
	w.stubborn = map[string]v1alpha1.DrainBy{"train-0": v1alpha1.DrainByForceDelete}
	w.pods[0].DeletionTimestamp = &metav1.Time{Time: start.Add(50 * time.Minute)}
	w.pods[0].DeletionGracePeriodSeconds = ptr.To[int64](3000)
	w.fault("Xid79", bad)
	w.run()
	for _, tc := range []struct {
		pass time.Duration
		want []string
	}{{46 * time.Minute, nil}, {4 * time.Minute, nil}, {31 * time.Second, []string{"train-0"}}} {
		w.pass(tc.pass)
		w.run()
		if diff := cmp.Diff(tc.want, w.evicted); diff != "" {
			t.Errorf("after %s (-want +got):\n%s", tc.pass, diff)
		}
	}
}

// A policy counts as it is now, not as it was when the drain began.
func TestStepsThatThePolicyHasLostAreNotTaken(t *testing.T) {
	w := escalating(t)
	w.stubborn = map[string]v1alpha1.DrainBy{"train-0": "none"}
	w.fault("Xid79", bad)
	w.run()
	w.pass(31 * time.Minute)
	w.run()
	w.policy.Spec.Drain = nil
	if d := w.run(); d.Means.By != v1alpha1.DrainByEvict || w.rem.Status.Drain.By != v1alpha1.DrainByEvict || d.WouldChange != PodsEnd {
		t.Errorf("by %s, shown %s: %s", d.Means.By, w.rem.Status.Drain.By, d.WouldChange)
	}
}

// A gate lets a drain wait for longer than its own deadline, and not for ever.
func TestADrainWaitsForAGateAsLongAsThatMayTake(t *testing.T) {
	w := escalating(t)
	w.policy.Spec.Drain = &v1alpha1.Drain{Classes: []v1alpha1.WorkloadClass{{Name: "slurm", Match: v1alpha1.WorkloadMatch{OwnerKinds: []string{"Job"}},
		Cost: v1alpha1.CostNever, Gate: &v1alpha1.WorkloadGate{NodeCondition: "SlurmDrained", Deadline: minutes(180)}}}}
	w.fault("Xid79", bad)
	if d := w.run(); d.Reason != ReasonGateClosed || !strings.Contains(d.Message, "condition SlurmDrained of the Node is True") ||
		d.WouldChange != "the other system says so, until 2026-11-23T13:00:00Z" {
		t.Fatalf("%s: %s; %s", d.Reason, d.Message, d.WouldChange)
	}
	w.pass(179 * time.Minute)
	if d := w.run(); d.Phase != v1alpha1.PhaseDraining || len(w.evicted) > 0 {
		t.Fatalf("%s, gone: %v", d.Phase, w.evicted)
	}
	w.node.Status.Conditions = append(w.node.Status.Conditions, corev1.NodeCondition{Type: "SlurmDrained", Status: corev1.ConditionTrue})
	w.run()
	if d := w.run(); d.Phase != v1alpha1.PhaseRepairing || len(w.evicted) != 1 {
		t.Errorf("%s, gone: %v", d.Phase, w.evicted)
	}
}

func TestAGateThatStaysClosedAsksAHuman(t *testing.T) {
	w := escalating(t)
	w.policy.Spec.Drain = &v1alpha1.Drain{Classes: []v1alpha1.WorkloadClass{{Name: "slurm", Match: v1alpha1.WorkloadMatch{OwnerKinds: []string{"Job"}},
		Cost: v1alpha1.CostNever, Gate: &v1alpha1.WorkloadGate{NodeCondition: "SlurmDrained", Deadline: minutes(180)}}}}
	w.fault("Xid79", bad)
	w.run()
	w.pass(180 * time.Minute)
	if d := w.run(); d.Phase != v1alpha1.PhaseEscalated || !strings.Contains(w.rem.Status.Message, "the drain did not end within 3h: ml/train-0: class slurm waits") {
		t.Errorf("%s: %s", d.Phase, w.rem.Status.Message)
	}
}
