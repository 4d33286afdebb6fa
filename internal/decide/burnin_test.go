package decide

import (
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

// burnIn has the policy ask for one.
func (w *world) burnIn() {
	w.policy.Spec.Verify.BurnIn = &v1alpha1.BurnIn{PodTemplateRef: v1alpha1.LocalReference{Name: "diag"}, Timeout: &metav1.Duration{Duration: 10 * time.Minute}}
}

// burning is a world in which one device of eight was reset beside a job, and burns in.
func burning(t *testing.T) *world {
	t.Helper()
	w := resettable(t)
	w.burnIn()
	w.finishPods(bad)
	w.run()
	w.reset(true)
	w.run()
	w.expect(v1alpha1.PhaseVerifying, ReasonVerifying)
	if len(w.burnt) > 0 {
		t.Fatal("burns in before the fault has stayed away for as long as the policy says")
	}
	w.pass(time.Minute)
	w.run()
	return w
}

// finishPods ends the pods that hold a device.
func (w *world) finishPods(device string) {
	w.pods = slices.DeleteFunc(w.pods, func(p corev1.Pod) bool { return strings.Contains(p.Annotations["devices"], device) })
}

func (w *world) expect(phase v1alpha1.Phase, reason string) {
	w.t.Helper()
	if st := w.rem.Status; st.Phase != phase || st.Reason != reason {
		w.t.Fatalf("%s/%s, want %s/%s: %s\n%s", st.Phase, st.Reason, phase, reason, st.Message, strings.Join(w.reasons, "\n"))
	}
}

// ends says how the burn-in under way ends, and looks.
func (w *world) ends(state v1alpha1.RemedyState, ran bool, message string) {
	w.burn = v1alpha1.BurnInRun{State: state, Ran: ran, Message: message}
	w.run()
}

func TestARepairComesThroughItsBurnIn(t *testing.T) {
	w := burning(t)
	w.expect(v1alpha1.PhaseVerifying, ReasonBurningIn)
	run := w.rem.Status.Step.BurnIn
	if !slices.Equal(run.Devices, []string{bad}) || run.Driver != "gpu.example.com" || run.BurnIn.DeviceClassName != "gpu.example.com" {
		t.Errorf("%+v", run)
	}
	if at := w.rem.Status.Deadline; at == nil || !at.After(w.now.Add(10*time.Minute)) {
		t.Errorf("the deadline is %v, before the Job's", at)
	}
	if n := len(w.rem.Status.Quarantined); n != 1 {
		t.Errorf("%d things are on while the device burns in", n)
	}
	w.ends(v1alpha1.RemedySucceeded, true, "Job is complete")
	w.expect(v1alpha1.PhaseProbation, ReasonVerified)
	last := w.rem.Status.Attempts[len(w.rem.Status.Attempts)-1]
	if last.Result != v1alpha1.AttemptRepaired || last.BurnIn == nil || last.BurnIn.State != v1alpha1.RemedySucceeded || len(w.burnt) != 1 {
		t.Errorf("%+v; burnt %v", last, w.burnt)
	}
}

// TestAFailedBurnInClimbs: no check sees what it saw, and the ladder is climbed all the same, not proved anew.
func TestAFailedBurnInClimbs(t *testing.T) {
	w := burning(t)
	w.pods = nil
	w.ends(v1alpha1.RemedyFailed, true, "exit code 3")
	if st := w.rem.Status; st.Phase != v1alpha1.PhaseRepairing || st.Step.Rung != "reboot" {
		t.Fatalf("%s at %+v\n%s", st.Phase, st.Step, strings.Join(w.reasons, "\n"))
	}
	w.reboot("boot-2", true)
	w.run()
	w.pass(time.Minute)
	w.run()
	w.expect(v1alpha1.PhaseVerifying, ReasonBurningIn)
	w.ends(v1alpha1.RemedyFailed, true, "exit code 3")
	w.reboot("boot-3", true)
	w.run()
	w.pass(time.Minute)
	w.run()
	w.ends(v1alpha1.RemedyFailed, true, "exit code 3")
	w.run()
	w.expect(v1alpha1.PhaseEscalated, ReasonAttemptsSpent)
	if len(w.burnt) != 3 {
		t.Errorf("burnt %v", w.burnt)
	}
	for range 3 { // nothing that anybody can see is wrong, and it stays out.
		w.pass(time.Hour)
		w.run()
		w.expect(v1alpha1.PhaseEscalated, ReasonAttemptsSpent)
	}
	if out := w.keptOut(); len(out) == 0 {
		t.Error("nothing keeps the device out")
	}
	// Another device in its place is one that did not fail.
	i := slices.IndexFunc(w.health.Status.Devices, func(d v1alpha1.Device) bool { return d.ID == bad })
	w.health.Status.Devices[i].ID = "GPU-new"
	w.run()
	w.expect(v1alpha1.PhaseVerifying, ReasonVerifying)
}

func TestABurnInThatNeverRanIsAHumans(t *testing.T) {
	for name, tc := range map[string]func(*world){
		"it could not be made": func(w *world) {
			w.rem.Status.Step.BurnIn.State = v1alpha1.RemedyRefused
			w.burnRefusal = "there is no PodTemplate diag"
			w.run()
			w.expect(v1alpha1.PhaseVerifying, ReasonBurningIn)
			w.pass(time.Hour)
			w.run()
		},
		"its image cannot be had":  func(w *world) { w.ends(v1alpha1.RemedyFailed, false, "DeadlineExceeded") },
		"its end is never seen":    func(w *world) { w.pass(time.Hour); w.run() },
		"somebody deleted the Job": func(w *world) { w.ends(v1alpha1.RemedyFailed, false, "is gone") },
		"the device has no place yet": func(w *world) {
			w.rem.Status.Step.BurnIn = nil
			w.notOffered = map[string]bool{bad: true}
			w.run()
			if run := w.rem.Status.Step.BurnIn; run.State != v1alpha1.RemedyRefused || !strings.Contains(run.Message, "no ResourceSlice") {
				w.t.Errorf("%+v", run)
			}
			w.pass(time.Hour)
			w.run()
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := burning(t)
			asked := len(w.asked)
			tc(w)
			w.expect(v1alpha1.PhaseEscalated, ReasonBurnInNotRun)
			if !w.tainted() {
				t.Error("the node is not kept out")
			}
			for range 3 {
				w.pass(time.Hour)
				w.run()
				w.expect(v1alpha1.PhaseEscalated, ReasonBurnInNotRun)
			}
			// When a human has mended it, it burns in; nothing is repaired again.
			w.burnRefusal, w.notOffered = "", nil
			w.rem.Spec.Approvals = []v1alpha1.Approval{{What: v1alpha1.ApproveRetry, By: "y.sato", Until: metav1.NewTime(w.now.Add(time.Hour))}}
			w.run()
			w.pass(time.Minute)
			w.run()
			w.expect(v1alpha1.PhaseVerifying, ReasonBurningIn)
			w.ends(v1alpha1.RemedySucceeded, true, "Job is complete")
			w.expect(v1alpha1.PhaseProbation, ReasonVerified)
			if len(w.asked) != asked {
				t.Errorf("asked for %v", w.asked)
			}
		})
	}
}

func TestWhatABurnInRunsOn(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*world)
		driver string
		want   []string
	}{
		"the device that was reset":         {func(*world) {}, "gpu.example.com", []string{bad}},
		"what has taken its place":          {func(w *world) { w.replaceDevice(bad, "GPU-new") }, "gpu.example.com", []string{"GPU-new"}},
		"what the runtime shows, by plugin": {func(w *world) { w.plugin = true }, "", []string{bad}},
		"every device of a node that is empty": {func(w *world) {
			w.rem.Spec.Devices, w.rem.Status.Step.Devices = nil, nil
			w.rem.Status.Drain.Scope, w.pods = "Node", nil
		}, "gpu.example.com", []string{"GPU-0", "GPU-1", "GPU-2", bad, "GPU-4", "GPU-5", "GPU-6", "GPU-7"}},
		"none of a node that is not": {func(w *world) {
			w.rem.Spec.Devices, w.rem.Status.Step.Devices = nil, nil
			w.rem.Status.Drain.Scope = "Nothing"
		}, "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			w := burning(t)
			w.rem.Status.Step.BurnIn = nil
			tc.change(w)
			s := w.snapshot()
			d := s.beginBurnIn(*w.policy.Spec.Verify.BurnIn)
			if !slices.Equal(d.BurnIn.Devices, tc.want) || d.BurnIn.Driver != tc.driver || d.BurnIn.State != v1alpha1.RemedyBegun {
				t.Errorf("%+v", d.BurnIn)
			}
		})
	}
}

// replaceDevice puts another device into the place of one whose evidence was saved.
func (w *world) replaceDevice(id, by string) {
	i := slices.IndexFunc(w.health.Status.Devices, func(d v1alpha1.Device) bool { return d.ID == id })
	w.rem.Status.Evidence = &v1alpha1.Evidence{Devices: []v1alpha1.Device{w.health.Status.Devices[i]}}
	w.health.Status.Devices[i].ID = by
}

func (w *world) tainted() bool { return len(w.node.Spec.Taints) > 0 }

// TestAPolicyWithoutABurnInLetsGoOfOne: what it no longer asks for is not waited for.
func TestAPolicyWithoutABurnInLetsGoOfOne(t *testing.T) {
	w := burning(t)
	w.policy.Spec.Verify.BurnIn = nil
	w.run()
	w.expect(v1alpha1.PhaseProbation, ReasonVerified)
}

// TestAFaultUnderLoadIsAFault: what a check sees while it burns in is not waited with.
func TestAFaultUnderLoadIsAFault(t *testing.T) {
	w := burning(t)
	w.fault("Xid48", bad)
	w.run()
	if st := w.rem.Status; st.Phase == v1alpha1.PhaseVerifying || st.Attempts[0].Result != v1alpha1.AttemptNotRepaired {
		t.Errorf("%s: %s; %+v", st.Phase, st.Message, st.Attempts)
	}
}

func TestWhatABurnInIsNotRunOn(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*world)
		want   string
	}{
		"a device that a pod holds":                               {func(w *world) { w.job("late", bad) }, "pod ml/late holds slot 3 (GPU-3)"},
		"a device that is gone, by its evidence":                  {func(w *world) { w.health.Status.Devices[3].ID = "GPU-new" }, "what has taken their place is not known"},
		"a device that a pod may hold, where nothing was emptied": {func(w *world) { w.rem.Status.Step.ActionID, w.mayHold = "", "ml/some" }, "pod ml/some may hold a device"},
	} {
		t.Run(name, func(t *testing.T) {
			w := burning(t)
			w.rem.Status.Step.BurnIn = nil
			tc.change(w)
			d := w.snapshot().beginBurnIn(*w.policy.Spec.Verify.BurnIn)
			if d.BurnIn.State != v1alpha1.RemedyRefused || !strings.Contains(d.BurnIn.Message, tc.want) {
				t.Errorf("%s: %s", d.BurnIn.State, d.BurnIn.Message)
			}
		})
	}
}

// A node of which nobody emptied anything has none of its devices burnt in, whatever an earlier look at its drain has left.
func TestOnlyAnEmptyNodeIsBurntInWhole(t *testing.T) {
	for name, change := range map[string]func(*v1alpha1.RemediationStatus){
		"nothing was done by us":    func(st *v1alpha1.RemediationStatus) { st.Step.ActionID = "" },
		"its drain left pods":       func(st *v1alpha1.RemediationStatus) { st.Drain.PodsLeft = 1 },
		"nobody looked at its pods": func(st *v1alpha1.RemediationStatus) { st.Drain = nil },
	} {
		t.Run(name, func(t *testing.T) {
			w := burning(t)
			w.rem.Status.Step.BurnIn, w.rem.Spec.Devices, w.rem.Status.Step.Devices, w.rem.Status.Drain.Scope = nil, nil, nil, "Node"
			change(&w.rem.Status)
			if got := w.snapshot().toBurnIn(); len(got) > 0 {
				t.Errorf("on %v", got)
			}
		})
	}
}

func TestABurnInDoesNotBeginWhileAGateIsClosed(t *testing.T) {
	for name, tc := range map[string]struct {
		shut, open func(*world)
		reason     string
	}{
		"a hold":                 {func(w *world) { w.hold(v1alpha1.HoldDisruption) }, func(w *world) { w.holds = nil }, ReasonHeld},
		"a policy that observes": {func(w *world) { w.policy.Spec.Mode = v1alpha1.ModeObserve }, func(w *world) { w.policy.Spec.Mode = v1alpha1.ModeRemediate }, ReasonPolicyLowered},
	} {
		t.Run(name, func(t *testing.T) {
			w := resettable(t)
			w.burnIn()
			w.finishPods(bad)
			w.run()
			w.reset(true)
			w.run()
			tc.shut(w)
			for range 10 {
				w.pass(time.Minute)
				w.run()
			}
			w.expect(v1alpha1.PhaseVerifying, tc.reason)
			if len(w.burnt) > 0 {
				t.Fatalf("burns in: %v", w.burnt)
			}
			tc.open(w)
			w.run()
			w.expect(v1alpha1.PhaseVerifying, ReasonBurningIn)
		})
	}
}

// One that could not be run at first has its whole time once it can.
func TestABurnInThatComesLateHasItsTime(t *testing.T) {
	w := burning(t)
	w.rem.Status.Step.BurnIn, w.burnRefusal = nil, "there is no PodTemplate diag"
	w.run()
	w.pass(11 * time.Minute)
	w.run()
	w.burnRefusal = ""
	w.run()
	w.pass(9 * time.Minute)
	w.run()
	w.expect(v1alpha1.PhaseVerifying, ReasonBurningIn)
	w.pass(4 * time.Minute)
	w.run()
	if w.rem.Status.Phase == v1alpha1.PhaseVerifying {
		t.Error("it has no end")
	}
}
