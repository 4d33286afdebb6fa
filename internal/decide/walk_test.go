package decide

import (
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

// events are what may happen to a world between two decisions.
var events = []func(*world, *rand.Rand){
	func(w *world, r *rand.Rand) { w.pass(time.Duration(r.IntN(3600)) * time.Second) },
	func(w *world, r *rand.Rand) { w.fault("Xid79", fmt.Sprintf("GPU-%d", r.IntN(8))) },
	func(w *world, _ *rand.Rand) { w.fault("NodeFault", "") },
	func(w *world, r *rand.Rand) { w.ask([]string{"", "reboot", "reset-device"}[r.IntN(3)]) },
	func(w *world, _ *rand.Rand) { w.asks = nil },
	func(w *world, _ *rand.Rand) { w.clear() },
	func(w *world, r *rand.Rand) {
		w.job(fmt.Sprintf("job-%d", r.IntN(1000)), fmt.Sprintf("GPU-%d", r.IntN(8)))
	},
	func(w *world, _ *rand.Rand) { w.pods = nil },
	func(w *world, _ *rand.Rand) { w.hold(v1alpha1.HoldDisruption) },
	func(w *world, _ *rand.Rand) { w.holds = nil },
	func(w *world, r *rand.Rand) {
		w.policy.Spec.Mode = []v1alpha1.Mode{v1alpha1.ModeObserve, v1alpha1.ModeQuarantine, v1alpha1.ModeRemediate}[r.IntN(3)]
	},
	func(w *world, _ *rand.Rand) { w.policy.Spec.Mode = v1alpha1.ModeRemediate },
	func(w *world, _ *rand.Rand) { w.foreign = []Claim{{By: "kured"}} },
	func(w *world, _ *rand.Rand) { w.foreign = nil },
	func(w *world, r *rand.Rand) { w.reports = r.IntN(3) > 0 },
	func(w *world, r *rand.Rand) { w.full = r.IntN(2) == 0 },
	func(w *world, r *rand.Rand) { w.reboot(fmt.Sprintf("boot-%d", r.IntN(1<<30)), r.IntN(2) == 0) },
	func(w *world, r *rand.Rand) {
		w.notOffered, w.changed = map[string]bool{fmt.Sprintf("GPU-%d", r.IntN(8)): true}, w.now
	},
	func(w *world, _ *rand.Rand) { w.notOffered, w.changed = nil, w.now },
	func(w *world, r *rand.Rand) {
		w.reboot(fmt.Sprintf("boot-%d", r.IntN(1<<30)), r.IntN(2) == 0)
		w.shifted = r.IntN(8)
	},
	func(w *world, _ *rand.Rand) { w.answer(v1alpha1.ActionStarted, "") },
	func(w *world, _ *rand.Rand) { w.answer(v1alpha1.ActionDone, v1alpha1.ResultRefused) },
	func(w *world, _ *rand.Rand) { w.answer(v1alpha1.ActionDone, v1alpha1.ResultInterrupted) },
	func(w *world, r *rand.Rand) {
		w.remedy = []v1alpha1.RemedyState{v1alpha1.RemedySucceeded, v1alpha1.RemedyFailed, v1alpha1.RemedyRefused}[r.IntN(3)]
	},
	func(w *world, r *rand.Rand) {
		w.burn = v1alpha1.BurnInRun{State: []v1alpha1.RemedyState{v1alpha1.RemedySucceeded, v1alpha1.RemedyFailed}[r.IntN(2)], Ran: r.IntN(3) > 0}
	},
	func(w *world, r *rand.Rand) { w.burnRefusal = []string{"", "there is no such PodTemplate"}[r.IntN(2)] },
	func(w *world, r *rand.Rand) { w.heal(fmt.Sprintf("GPU-%d", r.IntN(8))) },
	func(w *world, r *rand.Rand) { w.reset(r.IntN(2) == 0) },
	func(w *world, _ *rand.Rand) {
		if w.rem != nil {
			w.rem.Spec.Approvals = []v1alpha1.Approval{{What: v1alpha1.ApproveRetry, By: "y.sato", Until: metav1.NewTime(w.now.Add(time.Hour))}}
		}
	},
	func(w *world, r *rand.Rand) {
		rule := &w.policy.Spec.Rules[1]
		rule.AtDeadline, rule.RefillStop = v1alpha1.DeadlineEscalate, nil
		if r.IntN(3) > 0 {
			rule.AtDeadline, rule.RefillStop = v1alpha1.DeadlineForce, &metav1.Duration{Duration: time.Duration(r.IntN(12)) * time.Hour}
		}
	},
	func(w *world, r *rand.Rand) {
		if w.policy.Spec.Drain = nil; r.IntN(3) > 0 {
			w.policy.Spec.Drain = &v1alpha1.Drain{Checkpoint: &metav1.Duration{Duration: time.Duration(r.IntN(60)) * time.Minute}}
		}
	},
	func(w *world, r *rand.Rand) {
		if len(w.pods) > 0 {
			w.keeps(w.pods[r.IntN(len(w.pods))].Name)
		}
	},
	func(w *world, _ *rand.Rand) {
		if w.rem != nil {
			w.skipIdle(time.Hour)
		}
	},
}

// answer is what the agent says of what it was asked.
func (w *world) answer(state v1alpha1.ActionState, result v1alpha1.ActionResult) {
	if a := w.health.Spec.Action; a != nil && (w.health.Status.Action == nil || w.health.Status.Action.ID != a.ID) {
		w.health.Status.Action = &v1alpha1.ActionStatus{ID: a.ID, State: state, Result: result, Reason: "Test"}
	}
}

// TestInvariantsHoldWhateverHappens walks at random. world.disruptive checks each act; this checks what must hold at
// each rest, and that every incident can be ended with nothing left on.
func TestInvariantsHoldWhateverHappens(t *testing.T) {
	allowed := transitions(t)
	for seed := range uint64(400) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 0))
			w := newWorld(t)
			w.ladderOf(ladders[r.IntN(len(ladders))]...)
			if r.IntN(2) == 0 {
				w.burnIn()
			}
			if r.IntN(3) == 0 {
				w.ask([]string{"", "reboot"}[r.IntN(2)])
			} else {
				w.fault("Xid79", bad)
			}
			for range 60 {
				before := v1alpha1.Phase("")
				if w.rem != nil {
					before = w.rem.Status.Phase
				}
				n := len(w.reasons)
				w.run()
				w.checkPath(allowed, before, w.reasons[n:])
				w.checkRest()
				if w.rem != nil && w.rem.Status.Phase.Over() {
					break
				}
				events[r.IntN(len(events))](w, r)
			}
			w.endWell()
			if t.Failed() {
				t.Log(strings.Join(w.reasons, "\n"))
			}
		})
	}
}

// checkPath checks each change of phase against the table in docs/states.md.
func (w *world) checkPath(allowed map[string]bool, from v1alpha1.Phase, reasons []string) {
	w.t.Helper()
	for _, reason := range reasons {
		to, _, _ := strings.Cut(reason, "/")
		if from != "" && string(from) != to && !allowed[string(from)+" "+to] {
			w.t.Errorf("docs/states.md does not have %s to %s (%s)", from, to, reason)
		}
		from = v1alpha1.Phase(to)
	}
}

// checkRest checks the table of what each phase holds.
func (w *world) checkRest() {
	w.t.Helper()
	if w.rem == nil || w.node == nil {
		return
	}
	_, claimed := w.node.Annotations[v1alpha1.AnnotationClaim]
	switch p := w.rem.Status.Phase; {
	case p.Acting() && (!claimed || !w.slot):
		w.t.Errorf("%s rests without claim or slot", p)
	case !p.Acting() && claimed:
		w.t.Errorf("%s rests with the claim", p)
	case (p == v1alpha1.PhasePending || p == v1alpha1.PhaseProbation) && w.slot:
		w.t.Errorf("%s rests with a slot", p)
	case p == v1alpha1.PhaseProbation && (len(w.rem.Status.Quarantined) > 0 || len(w.node.Spec.Taints) > 0):
		w.t.Errorf("probation rests with something on")
	}
	w.checkRules()
	ids := slices.Clone(w.asked)
	slices.Sort(ids)
	if len(slices.Compact(ids)) != len(w.asked) {
		w.t.Errorf("an action was asked for twice: %v", w.asked)
	}
}

// checkRules checks that no rule keeps work from a good device. That may be while the node as a whole is kept out, for as
// long as a look serves, or where nothing may be put on any more and a proof ends before all is taken off.
func (w *world) checkRules() {
	w.t.Helper()
	if len(w.node.Spec.Taints) > 0 || w.now.Sub(w.changed) < lookAgain+lookSpread || w.policy.Spec.Mode == v1alpha1.ModeObserve {
		return
	}
	for rule, name := range w.rules {
		for _, d := range w.health.Status.Devices {
			if w.nameOf(d.ID) == name && !w.notOffered[d.ID] && !slices.Contains(w.rem.Spec.Devices, d.ID) {
				w.t.Errorf("%s: rule %s keeps work from %s", w.rem.Status.Phase, rule, d.ID)
			}
		}
	}
}

// endWell cancels, and expects nothing to be left.
func (w *world) endWell() {
	w.t.Helper()
	if w.rem == nil {
		return
	}
	w.rem.Spec.Cancel = true
	for range 12 {
		w.run()
		w.pass(time.Hour)
	}
	if !w.rem.Status.Phase.Over() {
		w.t.Errorf("cannot be ended: %s %s", w.rem.Status.Phase, w.rem.Status.Message)
	}
	if err := w.clean(); err != nil {
		w.t.Error(err)
	}
}

// transitions reads the table that people read, so that the two cannot drift apart.
func transitions(t *testing.T) map[string]bool {
	t.Helper()
	data, err := os.ReadFile("../../docs/states.md")
	if err != nil {
		t.Fatal(err)
	}
	allowed := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^\| (\w+) \| (\w+) \|`).FindAllStringSubmatch(string(data), -1) {
		allowed[m[1]+" "+m[2]] = true
	}
	if len(allowed) < 20 {
		t.Fatalf("docs/states.md has only %d changes", len(allowed))
	}
	return allowed
}
