package decide

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

// route leads an incident through a phase that not every one meets.
type route struct {
	name  string
	begin func(*journey)
	// through are the phases of the first fault's incident in which the second arrives; all where there are none.
	through []v1alpha1.Phase
}

var routes = []route{
	{name: "at once"},
	{"waiting for idle", func(j *journey) { j.policy.Spec.Rules[1].When = v1alpha1.WhenIdle }, []v1alpha1.Phase{v1alpha1.PhasePending}},
	{"held", func(j *journey) { j.hold(v1alpha1.HoldDisruption) }, []v1alpha1.Phase{v1alpha1.PhasePending}},
	{"mode Quarantine", func(j *journey) { j.policy.Spec.Mode = v1alpha1.ModeQuarantine }, []v1alpha1.Phase{v1alpha1.PhaseQuarantined}},
	{"rule quarantines", func(j *journey) { j.byRule = true }, []v1alpha1.Phase{v1alpha1.PhaseQuarantined}},
	{"repaired too often", func(j *journey) { j.past = 3 },
		[]v1alpha1.Phase{v1alpha1.PhaseEscalated, v1alpha1.PhaseVerifying, v1alpha1.PhaseProbation}},
}

// journey carries an incident to its end, and gives it a second fault on its way.
type journey struct {
	*world
	pair
	byRule bool
	// arrived says that the second fault has; effect that a repair of ours has had its own, and gone that the faults have
	// gone without one: by themselves, or since a human has replaced the part.
	arrived, effect, gone bool
	acts                  []string
	rests                 int
	// ended is how it ended by itself.
	ended v1alpha1.Phase
	// met are the phases and what of them was met before the second fault.
	met []string
}

func newJourney(t *testing.T, p pair, r route) *journey {
	t.Helper()
	j := &journey{world: newWorld(t), pair: p}
	j.ladderOf(wholeLadder...)
	j.policy.Spec.Rungs[1].Attempts = nil // one reboot, as one of each.
	j.policy.Spec.Rules[1].When = v1alpha1.WhenNow
	j.policy.Spec.Rules = append(j.policy.Spec.Rules, v1alpha1.Rule{Name: "keep-out", Response: v1alpha1.ResponseQuarantine,
		Match: v1alpha1.RuleMatch{Classes: []v1alpha1.FaultClass{v1alpha1.ClassFabric}}})
	j.jobs()
	if r.begin != nil {
		r.begin(j)
	}
	j.add("First", p.on, p.first)
	if j.byRule && p.first != v1alpha1.RecommendRestartApplication {
		f := &j.health.Status.Faults[0]
		f.Class, f.Severity = v1alpha1.ClassFabric, v1alpha1.SeverityWarning
	}
	return j
}

func (j *journey) jobs() {
	for _, id := range []string{"GPU-0", bad, second} {
		j.job(fmt.Sprintf("job-%s-%d", id, len(j.evicted)), id)
	}
}

// add makes a fault as its catalogue has it: what asks for a restart of the application is the application's.
func (j *journey) add(code, device string, class v1alpha1.Recommendation) {
	j.fault(code, device)
	f := &j.health.Status.Faults[len(j.health.Status.Faults)-1]
	f.Recommended = class
	if class == v1alpha1.RecommendRestartApplication {
		f.Class, f.Severity = v1alpha1.ClassApplication, v1alpha1.SeverityInfo
		j.wellUnlessFaulty(device)
	}
}

// wellUnlessFaulty says of a device what its faults do.
func (j *journey) wellUnlessFaulty(device string) {
	if !slices.ContainsFunc(j.health.Status.Faults, func(f v1alpha1.Fault) bool {
		return f.Device == device && f.Recommended != v1alpha1.RecommendRestartApplication
	}) {
		j.setHealth(device, v1alpha1.DeviceHealthy)
	}
}

// arrive brings the second fault.
func (j *journey) arrive() {
	j.add("Second", j.then, j.second)
	j.arrived, j.gone, j.rests = true, false, 0
}

// stage is how far it has come, and in which phase, as people tell them apart.
func (j *journey) stage() (stage, string) {
	if j.rem == nil {
		return stageBefore, "nothing is open"
	}
	started := j.rem.Status.Phase == v1alpha1.PhaseRepairing && j.snapshot().started()
	switch p := j.rem.Status.Phase; {
	case p == v1alpha1.PhaseEscalated && j.gone:
		return stageReplaced, string(p) + ", part replaced"
	case p == v1alpha1.PhaseEscalated:
		return stageHuman, string(p)
	case j.gone:
		return stageGone, string(p) + ", gone"
	case p == v1alpha1.PhaseQuarantined && j.byRule:
		return stageRule, string(p) + " by rule"
	case p == v1alpha1.PhaseProbation:
		return stageProbation, string(p)
	case j.effect:
		return stageVerifying, string(p)
	case started:
		return stageRunning, string(p) + " begun"
	case p == v1alpha1.PhaseRepairing:
		return stageAsked, string(p) + " asked"
	case p == v1alpha1.PhasePending && j.rem.Status.Reason == ReasonHeld, p == v1alpha1.PhasePending && j.rem.Status.Reason == ReasonWaitingForIdle:
		return stageBefore, string(p) + " " + j.rem.Status.Reason
	default:
		return stageBefore, string(p)
	}
}

// step takes one decision, and where that waits lets the world go on. It is false where all is over.
func (j *journey) step() bool {
	j.t.Helper()
	if j.rem == nil {
		rem, ok := Open(j.snapshot())
		if ok {
			rem.UID, rem.CreationTimestamp = "rem-uid", metav1.NewTime(j.now)
			j.rem = rem
		}
		return ok
	}
	d := Next(j.snapshot())
	if d.Do == BeginRemedy {
		j.act(j.rem.Status.Step.Rung)
	}
	d = j.applySlowly(d)
	if d.Do == Record {
		return false
	}
	if d.Requeue > 0 {
		j.checkRest()
		j.checkKeptOut()
		j.goOn()
	}
	return true
}

// applySlowly lets evicted pods take their time.
func (j *journey) applySlowly(d Decision) Decision {
	before := j.pods
	pods := slices.Clone(before)
	d = j.apply(d)
	if d.Do != Evict {
		return d
	}
	for _, p := range pods {
		if slices.Contains(j.evicted, p.Name) && p.DeletionTimestamp == nil {
			p.DeletionTimestamp = &metav1.Time{Time: j.now}
			j.pods = append(j.pods, p)
		}
	}
	return d
}

// goOn is what happens while an incident waits.
func (j *journey) goOn() {
	j.pass(10 * time.Second)
	j.pods = slices.DeleteFunc(j.pods, func(p corev1.Pod) bool { return p.DeletionTimestamp != nil })
	switch j.rem.Status.Phase {
	case v1alpha1.PhasePending:
		if j.rem.Status.Reason == ReasonWaitingForIdle {
			j.pods = nil
		}
		j.holds = nil
	case v1alpha1.PhaseQuarantined:
		j.policy.Spec.Mode = v1alpha1.ModeRemediate
		if j.byRule && j.rested() {
			j.health.Status.Faults = slices.DeleteFunc(j.health.Status.Faults, func(f v1alpha1.Fault) bool { return f.Code == "First" })
			j.wellUnlessFaulty(j.on)
			j.gone = true
		}
	case v1alpha1.PhaseRepairing:
		j.work()
	case v1alpha1.PhaseVerifying:
		j.pass(time.Minute)
	case v1alpha1.PhaseProbation:
		if len(j.pods) == 0 {
			j.jobs()
		}
		j.pass(20 * time.Minute)
	case v1alpha1.PhaseEscalated:
		if j.arrived && j.ended == "" {
			j.ended = v1alpha1.PhaseEscalated
		}
		if j.rested() {
			j.clear()
			j.newBoot()
			j.past, j.gone = 0, true
		}
	default:
		// Draining waits for the pods; what is over waits for nothing.
	}
}

// rested says whether it has rested here for a while.
func (j *journey) rested() bool {
	j.rests++
	return j.rests%3 == 0
}

// work is what is done of a repair at a time: it begins, or it is done.
func (j *journey) work() {
	st := j.rem.Status.Step
	if a := j.health.Spec.Action; st.Remedy == nil && (j.health.Status.Action == nil || j.health.Status.Action.ID != a.ID) {
		j.act(st.Rung)
		j.answer(v1alpha1.ActionStarted, "")
		return
	}
	j.effect = true
	switch j.remedy = v1alpha1.RemedySucceeded; st.Rung {
	case "restart-driver":
		j.healUpTo(v1alpha1.RecommendRestartDriver, nil)
	case "reset-device":
		j.healUpTo(v1alpha1.RecommendResetDevice, j.health.Spec.Action.Devices)
		j.reset(false)
	case "reboot":
		j.healUpTo(v1alpha1.RecommendReboot, nil)
		j.newBoot()
	case "power-cycle":
		j.healUpTo(v1alpha1.RecommendPowerCycle, nil)
		j.newBoot()
	case "replace":
		j.node = nil
	}
}

func (j *journey) newBoot() { j.reboot(fmt.Sprintf("boot-%d", len(j.health.Status.Boots)+2), false) }

// healUpTo ends the faults that a repair of this kind repairs, on these devices only where there are any.
func (j *journey) healUpTo(most v1alpha1.Recommendation, devices []string) {
	j.health.Status.Faults = slices.DeleteFunc(j.health.Status.Faults, func(f v1alpha1.Fault) bool {
		return slices.Index(actionClasses, f.Recommended) <= slices.Index(actionClasses, most) &&
			(devices == nil || slices.Contains(devices, f.Device))
	})
	for _, d := range j.health.Status.Devices {
		j.wellUnlessFaulty(d.ID)
	}
}

// act notes what is begun, and fails where an open fault needs more.
func (j *journey) act(rung string) {
	j.t.Helper()
	j.acts = append(j.acts, rung)
	for _, f := range j.health.Status.Faults {
		if need := repairOf(f.Recommended, f.Device); need > slices.Index(wholeLadder, rung) && need != 2 {
			j.t.Errorf("%s is begun while %s is open on %q, which asks for %s", rung, f.Code, f.Device, f.Recommended)
		}
	}
}

// checkKeptOut fails where new work may come to what is bad.
func (j *journey) checkKeptOut() {
	j.t.Helper()
	if j.node == nil || len(j.node.Spec.Taints) > 0 {
		return
	}
	for _, f := range j.health.Status.Faults {
		if f.Recommended != v1alpha1.RecommendRestartApplication && !slices.Contains(j.keptOut(), f.Device) {
			j.t.Errorf("%s, %s: %s on %q is not kept out", j.rem.Status.Phase, j.rem.Status.Reason, f.Code, f.Device)
		}
	}
}

// never is no step of any journey.
const never = -1

// travel carries a pair to its end, the second fault arriving before the step of this number; none where it never does. It
// gives the stage that it arrived at, and the steps that were taken until it would have been too late.
func (j *journey) travel(at int) (stage, int) {
	j.t.Helper()
	var arrivedAt stage
	for n := range 500 {
		over := j.rem != nil && j.rem.Status.Phase.Over()
		if !j.arrived {
			st, told := j.stage()
			switch {
			case over: // another fault would be another incident's.
			case n == at:
				arrivedAt = st
				j.arrive()
			default:
				j.met = append(j.met, told)
			}
		}
		if !j.step() && (j.rem != nil || j.arrived || n >= 2) {
			j.arrivedEnd()
			return arrivedAt, len(j.met)
		}
	}
	j.t.Errorf("it never ends: %v", j.reasons)
	return arrivedAt, len(j.met)
}

// arrivedEnd checks that nothing is lost and nothing left.
func (j *journey) arrivedEnd() {
	j.t.Helper()
	if j.rem == nil {
		if j.ended = v1alpha1.PhaseSucceeded; slices.ContainsFunc(j.health.Status.Faults, func(f v1alpha1.Fault) bool {
			return f.Recommended != v1alpha1.RecommendRestartApplication
		}) {
			j.t.Error("a fault, and no incident")
		}
		return
	}
	last := j.rem.Status.Phase
	if j.ended == "" {
		j.ended = last
	}
	if want := map[bool]v1alpha1.Phase{true: v1alpha1.PhaseNodeGone, false: v1alpha1.PhaseSucceeded}[j.node == nil]; last != want {
		j.t.Errorf("it is over as %s, want %s", last, want)
	}
	for _, f := range j.health.Status.Faults {
		if f.Recommended != v1alpha1.RecommendRestartApplication && j.node != nil {
			j.t.Errorf("it is over, and %s on %q is lost", f.Code, f.Device)
		}
	}
	if err := j.clean(); err != nil {
		j.t.Error(err)
	}
}

func TestEveryPairOfFaultsEndsAsSpecified(t *testing.T) {
	seen := map[pair]*moments{}
	t.Run("pairs", func(t *testing.T) {
		for _, pl := range places {
			for _, first := range actionClasses {
				for _, then := range actionClasses {
					p, m := pair{first, then, pl.first, pl.second}, &moments{map[stage]outcome{}, map[string]bool{}}
					seen[p] = m
					t.Run(fmt.Sprintf("%s/%s, then %s", pl.name, first, then), func(t *testing.T) {
						t.Parallel()
						everyMoment(t, p, m)
					})
				}
			}
		}
	})
	for p, m := range seen {
		for _, phase := range phasesToMeet(p) {
			if !m.phases[phase] {
				t.Errorf("%v: the second fault never arrives in %s", p, phase)
			}
		}
	}
	if !t.Failed() {
		onThePage(t, seen)
	}
}

// moments are the outcomes of a pair by stage, and the phases that the second fault arrived in.
type moments struct {
	outcomes map[stage]outcome
	phases   map[string]bool
}

// everyMoment carries a pair to its end once for every step of the first fault's way, on every route; the first that goes
// wrong is told.
func everyMoment(t *testing.T, p pair, m *moments) {
	for _, r := range routes {
		alone := newJourney(t, p, r)
		_, steps := alone.travel(never)
		for at := range steps {
			if len(r.through) > 0 && !slices.ContainsFunc(r.through, func(ph v1alpha1.Phase) bool { return strings.HasPrefix(alone.met[at], string(ph)) }) {
				continue
			}
			j := newJourney(t, p, r)
			st, _ := j.travel(at)
			got := outcome{strings.Join(j.acts, ", "), j.ended}
			if want := specified(p, st); got != want {
				t.Errorf("%v, want %v", got, want)
			}
			if t.Failed() {
				t.Fatalf("%s, before step %d, in %s:\n%s", r.name, at, alone.met[at], strings.Join(j.reasons, "\n"))
			}
			m.outcomes[st], m.phases[alone.met[at]] = got, true
		}
	}
}

// phasesToMeet are the phases that the second fault must have arrived in, or the test has tested nothing.
func phasesToMeet(p pair) []string {
	first := repairOf(p.first, p.on)
	if first < 0 {
		return []string{"nothing is open"}
	}
	meet := []string{"Pending", "Quarantined", "Quarantined by rule", "Quarantined, gone", "Escalated", "Escalated, part replaced",
		"Verifying, gone", "Probation, gone"}
	if first < specHuman {
		meet = append(meet, "Pending Held", "Draining", "Repairing asked", "Repairing begun")
	}
	if first < specReplace {
		meet = append(meet, "Verifying", "Probation")
	}
	if first > specReset && first < specHuman {
		meet = append(meet, "Pending WaitingForIdle")
	}
	return meet
}
