package decide

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

// keeps has a job say that it has kept its work.
func (w *world) keeps(name string) {
	w.t.Helper()
	for i := range w.pods {
		if w.pods[i].Name == name {
			metav1.SetMetaDataAnnotation(&w.pods[i].ObjectMeta, v1alpha1.AnnotationCheckpoint, w.now.Format(time.RFC3339))
			return
		}
	}
	w.t.Fatalf("no pod %s", name)
}

// patient is a world whose drains wait half an hour for checkpoints; of its two jobs one keeps its work.
func patient(t *testing.T) *world {
	w := newWorld(t)
	rule := &w.policy.Spec.Rules[1]
	rule.When, rule.Ladder = v1alpha1.WhenNow, []string{"reboot", "send-back"}
	w.policy.Spec.Drain = &v1alpha1.Drain{Checkpoint: &metav1.Duration{Duration: 30 * time.Minute}}
	w.job("keeps", "GPU-0")
	w.job("never", "GPU-1")
	w.keeps("keeps")
	return w
}

func TestADrainWaitsForACheckpoint(t *testing.T) {
	w := patient(t)
	w.pass(10 * time.Minute)
	w.fault("Xid79", bad)
	w.run()
	if d := w.run(); d.Reason != ReasonWaitingForWork || strings.Join(w.evicted, " ") != "never" ||
		!strings.Contains(d.Message, "ml/keeps is left until 2026-11-23T10:40:00Z to keep its work once more, as last at 2026-11-23T10:00:00Z") ||
		!strings.HasPrefix(d.WouldChange, "the work ends, or its pods say that they have kept it") {
		t.Fatalf("%s: %s; %s; gone: %v", d.Reason, d.Message, d.WouldChange, w.evicted)
	}
	w.pass(12 * time.Minute)
	w.keeps("keeps")
	w.pass(time.Minute)
	w.run()
	if d := w.run(); d.Phase != v1alpha1.PhaseRepairing || len(w.evicted) != 2 {
		t.Errorf("%s, gone: %v", d.Phase, w.evicted)
	}
}

func TestACheckpointIsNotWaitedForForEver(t *testing.T) {
	w := patient(t)
	w.fault("Xid79", bad)
	w.run()
	w.pass(30*time.Minute - time.Second)
	if d := w.run(); d.Phase != v1alpha1.PhaseDraining || len(w.evicted) != 1 {
		t.Fatalf("%s, gone: %v", d.Phase, w.evicted)
	}
	w.pass(time.Second)
	w.run()
	if d := w.run(); d.Phase != v1alpha1.PhaseRepairing || len(w.evicted) != 2 {
		t.Errorf("%s, gone: %v", d.Phase, w.evicted)
	}
}

func TestWorkOnABadDeviceIsNotWaitedFor(t *testing.T) {
	w := patient(t)
	w.job("broken", bad)
	w.keeps("broken")
	w.pass(time.Minute)
	w.fault("Xid79", bad)
	w.run()
	w.run()
	if d := w.run(); d.Reason != ReasonWaitingForWork || strings.Join(w.evicted, " ") != "broken never" && strings.Join(w.evicted, " ") != "never broken" {
		t.Errorf("%s: %s; gone: %v", d.Reason, d.Message, w.evicted)
	}
}

// refilling is a world that waits twelve hours for idle, and takes no new work in the last two.
func refilling(t *testing.T) *world {
	w := newWorld(t)
	rule := &w.policy.Spec.Rules[1]
	rule.AtDeadline, rule.RefillStop = v1alpha1.DeadlineForce, &metav1.Duration{Duration: 2 * time.Hour}
	rule.Ladder = []string{"reboot", "send-back"}
	w.job("train", "GPU-0")
	w.fault("Xid79", bad)
	return w
}

func TestANodeIsNotRefilledBeforeTheDeadline(t *testing.T) {
	w := refilling(t)
	w.run()
	w.pass(10*time.Hour - time.Second)
	if d := w.run(); d.Phase != v1alpha1.PhasePending || d.Reason != ReasonWaitingForIdle || w.slot {
		t.Fatalf("%s, %s, slot %v", d.Phase, d.Reason, w.slot)
	}
	w.pass(time.Second)
	w.run()
	d := w.run()
	tainted := func() bool {
		for _, taint := range w.node.Spec.Taints {
			if taint.Effect == corev1.TaintEffectNoSchedule {
				return true
			}
		}
		return false
	}
	if d.Phase != v1alpha1.PhaseDraining || d.Reason != ReasonWaitingForWork || !w.slot || !tainted() || len(w.evicted) > 0 ||
		!strings.Contains(d.Message, "ml/train is left until 2026-11-23T22:00:00Z to end by itself") {
		t.Fatalf("%s, %s: %s; slot %v, taints %v, gone: %v", d.Phase, d.Reason, d.Message, w.slot, w.node.Spec.Taints, w.evicted)
	}
	// The drain's own hour begins where the work's time ends.
	if st := w.rem.Status; st.Drain.WorkUntil == nil || !st.Drain.WorkUntil.Time.Equal(start.Add(12*time.Hour)) || !st.Deadline.Time.Equal(start.Add(13*time.Hour)) {
		t.Errorf("until %v, deadline %v", st.Drain.WorkUntil, st.Deadline)
	}
	w.pass(2*time.Hour - time.Second)
	if d := w.run(); d.Reason != ReasonWaitingForWork || len(w.evicted) > 0 {
		t.Fatalf("%s: %s; gone: %v", d.Reason, d.Message, w.evicted)
	}
	w.pass(time.Second)
	w.run()
	if d := w.run(); d.Phase != v1alpha1.PhaseRepairing || len(w.evicted) != 1 {
		t.Errorf("%s, gone: %v", d.Phase, w.evicted)
	}
}

func TestANodeThatEmptiesByItselfIsRepairedAtOnce(t *testing.T) {
	w := refilling(t)
	w.run()
	w.pass(10 * time.Hour)
	w.run()
	w.run()
	w.pods = nil
	if d := w.run(); d.Phase != v1alpha1.PhaseRepairing || len(w.evicted) > 0 {
		t.Errorf("%s, gone: %v", d.Phase, w.evicted)
	}
}

func TestAHumanMayEndThePatience(t *testing.T) {
	w := refilling(t)
	w.run()
	w.pass(10 * time.Hour)
	w.run()
	w.run()
	w.skipIdle(time.Hour)
	w.run()
	w.run()
	if d := w.run(); d.Phase != v1alpha1.PhaseRepairing || len(w.evicted) != 1 {
		t.Errorf("%s, gone: %v", d.Phase, w.evicted)
	}
}

// Escalation counts from when work begins to be stopped.
func TestADrainDoesNotEscalateWhileWorkMayEnd(t *testing.T) {
	w := refilling(t)
	w.policy.Spec.Drain = &v1alpha1.Drain{Escalate: []v1alpha1.DrainEscalation{{After: minutes(30), By: v1alpha1.DrainByDelete}}}
	w.stubborn = map[string]v1alpha1.DrainBy{"train": v1alpha1.DrainByDelete}
	w.run()
	w.pass(10 * time.Hour)
	w.run()
	w.run()
	w.pass(2*time.Hour + 29*time.Minute)
	if d := w.run(); d.Means.By != v1alpha1.DrainByEvict || len(w.evicted) > 0 {
		t.Fatalf("by %s, gone: %v", d.Means.By, w.evicted)
	}
	w.pass(time.Minute)
	if d := w.run(); d.Means.By != v1alpha1.DrainByDelete && len(w.evicted) == 0 {
		t.Errorf("by %s, gone: %v", d.Means.By, w.evicted)
	}
}

// hourLeft is a refilling world in the last hour of its patience, with a drain that escalates.
func hourLeft(t *testing.T) *world {
	w := refilling(t)
	w.policy.Spec.Drain = &v1alpha1.Drain{Escalate: []v1alpha1.DrainEscalation{
		{After: minutes(20), By: v1alpha1.DrainByEvict, GracePeriod: &metav1.Duration{Duration: time.Minute}},
		{After: minutes(30), By: v1alpha1.DrainByDelete}, {After: minutes(45), By: v1alpha1.DrainByForceDelete}}}
	w.run()
	w.pass(10 * time.Hour)
	w.run()
	w.run()
	w.pass(time.Hour)
	return w
}

// skipIdle is a human who does not wait.
func (w *world) skipIdle(d time.Duration) {
	w.rem.Spec.Approvals = append(w.rem.Spec.Approvals, v1alpha1.Approval{What: v1alpha1.ApproveSkipIdle, Until: metav1.NewTime(w.now.Add(d))})
}

// Whatever ends the patience before its time, pods that nobody has asked yet are asked kindly, and have as long as any.
func TestPatienceThatEndsEarlyEndsKindly(t *testing.T) {
	for name, ends := range map[string]func(*world){
		"idle is skipped": func(w *world) { w.skipIdle(10 * time.Minute) },
		"too few devices are good": func(w *world) {
			w.policy.Spec.Devices = &v1alpha1.DeviceRatio{RepairNow: &v1alpha1.RepairNow{From: intstr.FromInt32(2)}}
			w.fault("Xid79", "GPU-5")
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := hourLeft(t)
			w.stubborn = map[string]v1alpha1.DrainBy{"train": v1alpha1.DrainByDelete}
			ends(w)
			w.run()
			if d := w.run(); d.Do != Evict || d.Means.By != v1alpha1.DrainByEvict || d.Means.Grace > 0 || !w.rem.Status.Deadline.Time.Equal(w.now.Add(time.Hour)) {
				t.Errorf("%s by %s, grace %s; until %v", d.Do, d.Means.By, d.Means.Grace, w.rem.Status.Deadline)
			}
			w.pass(20 * time.Minute) // the approval has lapsed by then.
			if d := w.run(); d.Do != Evict || d.Means.By != v1alpha1.DrainByEvict || d.Means.Grace != time.Minute {
				t.Errorf("%s by %s, grace %s", d.Do, d.Means.By, d.Means.Grace)
			}
			w.pass(10 * time.Minute)
			w.run()
			if d := w.run(); d.Phase != v1alpha1.PhaseRepairing || w.rem.Status.Drain.WorkUntil != nil {
				t.Errorf("%s, until %v", d.Phase, w.rem.Status.Drain.WorkUntil)
			}
		})
	}
}

// Something else may keep a node from its drain for a moment: its deadline stays.
func TestAnInterruptedPatienceKeepsItsDeadline(t *testing.T) {
	for name, blip := range map[string]func(*world, bool){
		"reports": func(w *world, on bool) { w.reports = !on },
		"foreign": func(w *world, on bool) {
			if w.foreign = nil; on {
				w.foreign = []Claim{{By: "kured", What: "lease"}}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := hourLeft(t)
			blip(w, true)
			w.run()
			blip(w, false)
			w.run()
			w.pass(time.Hour) // the rule's deadline.
			w.run()
			if w.run(); w.rem.Status.Phase == v1alpha1.PhasePending {
				t.Errorf("waits anew, until %v; taints %v, slot %v", w.rem.Status.Deadline, w.node.Spec.Taints, w.slot)
			}
		})
	}
}

// A device is reset beside good ones that its job holds too.
func TestARepairOfADeviceIsForcedToo(t *testing.T) {
	for name, refill := range map[string]bool{"force": false, "refillStop": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.ladderOf("reset-device", "reboot", "send-back")
			rule := &w.policy.Spec.Rules[1]
			if rule.AtDeadline = v1alpha1.DeadlineForce; refill {
				rule.RefillStop = &metav1.Duration{Duration: 2 * time.Hour}
			}
			w.job("train", bad, "GPU-4")
			w.fault("Xid48", bad)
			w.recommend(v1alpha1.RecommendResetDevice)
			w.run()
			for range 60 {
				w.pass(time.Hour)
				w.run()
				w.run()
			}
			if len(w.evicted) == 0 {
				t.Errorf("never forced in 60 hours: %v", w.reasons)
			}
		})
	}
}

// A rule counts as it is now.
func TestWorkIsNotStoppedWhereTheRuleNoLongerForces(t *testing.T) {
	w := hourLeft(t)
	r := &w.policy.Spec.Rules[1]
	r.AtDeadline, r.RefillStop = v1alpha1.DeadlineEscalate, nil
	w.run()
	w.pass(time.Hour)
	w.run()
	if w.run(); len(w.evicted) > 0 || w.rem.Status.Drain.WorkUntil != nil || w.slot {
		t.Errorf("%v stopped although the rule says Escalate; until %v, slot %v", w.evicted, w.rem.Status.Drain.WorkUntil, w.slot)
	}
}

// A pod that comes to the bad device when the time has come is moved first, and the wait does not begin anew.
func TestAPodOnTheBadDeviceDoesNotPutTheDeadlineOff(t *testing.T) {
	for _, at := range []time.Duration{10 * time.Hour, 12 * time.Hour} {
		w := refilling(t)
		if at == 12*time.Hour {
			w.policy.Spec.Rules[1].RefillStop = nil
		}
		w.run()
		w.pass(at)
		w.job("tolerates", bad)
		w.run()
		if w.run(); w.rem.Status.Phase == v1alpha1.PhasePending {
			t.Errorf("at %s: waits anew, until %v", at, w.rem.Status.Deadline)
		}
	}
}
