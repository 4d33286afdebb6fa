package decide

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/drain"
	"github.com/roundhouse-dev/roundhouse/internal/history"
	"github.com/roundhouse-dev/roundhouse/internal/maintenance"
)

// world carries decisions out on paper, so that whole sequences can be read and broken.
type world struct {
	t      *testing.T
	now    time.Time
	policy *v1alpha1.RemediationPolicy
	node   *corev1.Node
	health *v1alpha1.NodeHealth
	rem    *v1alpha1.Remediation
	pods   []corev1.Pod
	holds  []v1alpha1.RemediationHold
	// reports is whether the agent's word is fresh; full whether every budget is.
	reports, full bool
	slot          bool
	foreign       []Claim
	past          int
	// notOffered are devices that nothing offers to pods, of the node's DRA driver or, with plugin, its device plugin.
	notOffered map[string]bool
	plugin     bool
	// noRules says that the server has no DeviceTaintRules; tried that it has said so.
	noRules, tried bool
	// shifted is by how many places the names in the driver's pool have moved since the beginning.
	shifted int
	// changed is when the pool last changed without a start of the node.
	changed time.Time
	// rules are the names that rules are on, by rule; lookedAt and lookedBoot are of the last look that found all well.
	rules      map[string]string
	lookedAt   time.Time
	lookedBoot string
	// evicted, asked and withdrawn are what was done; reasons what was said.
	evicted, asked []string
	withdrawn      int
	// stubborn are pods that go only by those means.
	stubborn map[string]v1alpha1.DrainBy
	// remedied are the attempts that the controller began itself; remedy is how far the last of them has come.
	remedied []string
	remedy   v1alpha1.RemedyState
	reasons  []string
	// burnt are the burn-ins that were begun, burn is how far the last has come; burnRefusal keeps them from being made.
	burnt       []string
	burn        v1alpha1.BurnInRun
	burnRefusal string
	// asks is the planned work that a human asks for.
	asks *maintenance.Request
	// mayHold is a pod of which nobody can tell what it holds.
	mayHold string
}

var start = time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)

const bad = "GPU-3"

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, now: start, reports: true, policy: trainingPolicy(), rules: map[string]string{}}
	w.node = &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "gpu-17", UID: "node-uid"}}
	w.health = &v1alpha1.NodeHealth{
		Spec: v1alpha1.NodeHealthSpec{NodeUID: "node-uid"},
		Status: v1alpha1.NodeHealthStatus{BootID: "boot-1", SupportedActions: []v1alpha1.ActionType{v1alpha1.ActionReboot},
			CompletedRound: &v1alpha1.Round{BootID: "boot-1", At: metav1.NewTime(start)}},
	}
	for i := range 8 {
		w.health.Status.Devices = append(w.health.Status.Devices,
			v1alpha1.Device{ID: fmt.Sprintf("GPU-%d", i), Slot: fmt.Sprint(i), Health: v1alpha1.DeviceHealthy})
	}
	return w
}

// trainingPolicy waits for idle, reboots up to twice, then asks a human.
func trainingPolicy() *v1alpha1.RemediationPolicy {
	return &v1alpha1.RemediationPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: "training", Generation: 1},
		Spec: v1alpha1.RemediationPolicySpec{
			Mode: v1alpha1.ModeRemediate,
			Rules: []v1alpha1.Rule{
				{Name: "application", Match: v1alpha1.RuleMatch{Classes: []v1alpha1.FaultClass{v1alpha1.ClassApplication}}, Response: v1alpha1.ResponseIgnore},
				{Name: "critical", Match: v1alpha1.RuleMatch{Severities: []v1alpha1.Severity{v1alpha1.SeverityCritical}},
					Response: v1alpha1.ResponseRepair, When: v1alpha1.WhenIdle, Deadline: &metav1.Duration{Duration: 12 * time.Hour},
					Ladder: []string{"reset-device", "reboot", "send-back"}},
			},
			Rungs: []v1alpha1.Rung{
				{Name: "reset-device", Action: v1alpha1.RungResetDevice},
				{Name: "reboot", Action: v1alpha1.RungReboot, Timeout: &metav1.Duration{Duration: 20 * time.Minute}, Attempts: ptr.To(int32(2))},
				{Name: "send-back", Action: v1alpha1.RungEscalate, Message: "send it back"},
			},
			Verify:    &v1alpha1.Verify{Settle: &metav1.Duration{Duration: time.Minute}},
			Probation: &metav1.Duration{Duration: time.Hour},
		},
	}
}

// match stands for internal/policy: class Application falls under the first rule, Critical under the second.
func (w *world) match(f v1alpha1.Fault) Matched {
	m := Matched{Fault: f}
	for i := range w.policy.Spec.Rules {
		r := &w.policy.Spec.Rules[i]
		if slices.Contains(r.Match.Classes, f.Class) || slices.Contains(r.Match.Severities, f.Severity) {
			m.Rule = r
			break
		}
	}
	return m
}

func (w *world) fault(code, device string) {
	w.health.Status.Faults = append(w.health.Status.Faults, v1alpha1.Fault{Code: code, Check: "kernel-log", Device: device, Class: v1alpha1.ClassHardware,
		Severity: v1alpha1.SeverityCritical, Recommended: v1alpha1.RecommendReboot, FirstSeen: metav1.NewTime(w.now), LastSeen: metav1.NewTime(w.now), Count: 1, Root: true})
	w.setHealth(device, v1alpha1.DeviceUnhealthy)
}

func (w *world) setHealth(id string, h v1alpha1.DeviceHealth) {
	for i := range w.health.Status.Devices {
		if w.health.Status.Devices[i].ID == id {
			w.health.Status.Devices[i].Health = h
		}
	}
}

func (w *world) clear() {
	w.health.Status.Faults = nil
	for i := range w.health.Status.Devices {
		w.health.Status.Devices[i].Health = v1alpha1.DeviceHealthy
	}
}

func (w *world) job(name string, devices ...string) {
	w.pods = append(w.pods, corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ml", Name: name, UID: types.UID(name), Annotations: map[string]string{"devices": fmt.Sprint(devices)},
			OwnerReferences: []metav1.OwnerReference{{Kind: "Job", Name: name, Controller: ptr.To(true)}}},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, StartTime: &metav1.Time{Time: start.Add(-2 * time.Hour)}},
	})
}

func (w *world) snapshot() *Snapshot {
	s := w.bare()
	w.look(s)
	return s
}

// bare is what is known without looking.
func (w *world) bare() *Snapshot {
	s := &Snapshot{Now: w.now, Remediation: w.rem, Node: w.node, Health: w.health, Reporting: w.reports, NotReportingWhy: "silent",
		Policy: Governing{Policy: w.policy, Accepted: true}, Holds: w.holds, Foreign: w.foreign, SlotSure: w.slot,
		NoRules: w.tried, LookedAt: w.lookedAt, LookedBoot: w.lookedBoot}
	if w.policy == nil {
		s.Policy = Governing{}
	}
	if w.node != nil {
		_, s.ClaimHeld = w.node.Annotations[v1alpha1.AnnotationClaim]
	}
	for _, f := range w.health.Status.Faults {
		m := Matched{Fault: f}
		if w.policy != nil {
			m = w.match(f)
		}
		s.Faults = append(s.Faults, m)
	}
	s.Maintenance = w.asks
	Plan(s)
	return s
}

// look fills in what Look asks for: what was not looked at is not known.
func (w *world) look(s *Snapshot) {
	if w.rem == nil {
		if Look(s).Handles {
			w.offer(s)
		}
		return
	}
	needs := Look(s)
	if needs.Handles || needs.Rules {
		w.offer(s)
	}
	if needs.Rules {
		s.Rules = map[string]Handle{}
		for rule, device := range w.rules {
			s.Rules[rule] = handleOf(device)
		}
		if len(Misplaced(s)) == 0 {
			w.seen()
			s.LookedAt, s.LookedBoot = w.lookedAt, w.lookedBoot
		}
	}
	needs = Look(s)
	s.SlotHeld = w.slot && (needs.Slot || s.phase().Acting())
	if needs.History {
		s.PastRepairs = w.past
	}
	if needs.Pods {
		w.plan(s)
	}
}

// offer says how the devices are offered.
func (w *world) offer(s *Snapshot) {
	s.Otherwise, s.Handles = NotOffered, map[string]Handle{}
	if w.plugin {
		s.Otherwise, s.Dropped = OfferedByPlugin, len(w.notOffered)
		return
	}
	for _, d := range w.health.Status.Devices {
		if !w.notOffered[d.ID] {
			s.Handles[d.ID] = handleOf(w.nameOf(d.ID))
		}
	}
}

// nameOf is a device's name in its pool, which another may have when the names have shifted.
func (w *world) nameOf(id string) string {
	i := slices.IndexFunc(w.health.Status.Devices, func(d v1alpha1.Device) bool { return d.ID == id })
	return fmt.Sprintf("gpu-%d", (i+w.shifted)%len(w.health.Status.Devices))
}

func handleOf(device string) Handle {
	return Handle{Offer: OfferedByDRA, Driver: "gpu.example.com", Pool: "gpu-17", Device: device}
}

// seen remembers that the rules are where they belong.
func (w *world) seen() { w.lookedAt, w.lookedBoot = w.now, w.health.Status.BootID }

// takeOff takes rules off.
func (w *world) takeOff(rules []string) {
	for _, name := range rules {
		delete(w.rules, name)
		w.rem.Status.Quarantined = slices.DeleteFunc(w.rem.Status.Quarantined, func(q v1alpha1.Quarantined) bool { return q.Name == name })
	}
}

// plan plans both drains.
func (w *world) plan(s *Snapshot) {
	holding := map[types.UID][]string{}
	for _, p := range w.pods {
		if held := strings.Fields(strings.Trim(p.Annotations["devices"], "[]")); len(held) > 0 {
			holding[p.UID] = held
		}
	}
	s.Holders, s.MayHold = map[string]string{}, w.mayHold
	for _, p := range w.pods {
		for _, id := range holding[p.UID] {
			s.Holders[id] = p.Namespace + "/" + p.Name
		}
	}
	in := drain.Input{Now: w.now, Pods: w.pods, Holding: holding, Scope: drain.ScopeNode, BadDevices: s.RepairDevices()}
	if w.node != nil {
		in.Conditions = w.node.Status.Conditions
	}
	if w.policy != nil && w.policy.Spec.Drain != nil {
		in.Classes = w.policy.Spec.Drain.Classes
	}
	node := drain.Make(in)
	in.Scope = drain.ScopeDevice
	device := drain.Make(in)
	in.Whole = true
	repair := drain.Make(in)
	s.NodePlan, s.DevicePlan, s.RepairPlan = &node, &device, &repair
}

// run steps until a decision waits, and gives it.
func (w *world) run() Decision {
	w.t.Helper()
	for range 40 {
		s := w.snapshot()
		if w.rem == nil {
			rem, ok := Open(s)
			if !ok {
				return Decision{}
			}
			rem.UID, rem.CreationTimestamp = "rem-uid", metav1.NewTime(w.now)
			w.rem = rem
			continue
		}
		d := Next(s)
		if d.Do == Reserve && w.full {
			s.Refused = &Refusal{Reason: ReasonBudgetExhausted, Message: "1 of 1 is out", WouldChange: "a node returns"}
			d = Next(s)
		}
		d = w.apply(d)
		if d.Requeue > 0 || d.Do == Record {
			return d
		}
	}
	w.t.Fatalf("no rest after 40 steps: %v", w.reasons)
	return Decision{}
}

// apply does on paper what internal/controller/remediation does on the API.
func (w *world) apply(d Decision) Decision {
	w.t.Helper()
	w.disruptive(d)
	st := &w.rem.Status
	switch d.Do {
	case Amend:
		w.rem.Spec.Devices = append(w.rem.Spec.Devices, d.Devices...)
		w.rem.Spec.Quarantine = slices.DeleteFunc(w.rem.Spec.Quarantine, func(q v1alpha1.QuarantineIntent) bool { return slices.Contains(d.Drop, q.Name) })
		w.rem.Spec.Quarantine = append(w.rem.Spec.Quarantine, d.Intents...)
		return d
	case Quarantine:
		if w.noRules && !w.nodeIntended() {
			w.tried = true
			return d
		}
		w.takeOff(slices.Concat(d.TakeOff, d.Release))
		for _, q := range d.Intents {
			switch {
			case q.Kind == v1alpha1.QuarantineNodeTaint:
				w.taint(true)
			case w.noRules:
				w.t.Error("a rule is tried again on a server that has none")
			case w.notOffered[q.DeviceID]:
				continue
			}
			if !slices.ContainsFunc(st.Quarantined, func(on v1alpha1.Quarantined) bool { return on.Name == q.Name }) {
				on := v1alpha1.Quarantined{Kind: q.Kind, Name: q.Name, DeviceID: q.DeviceID}
				if q.DeviceID != "" {
					h := handleOf(w.nameOf(q.DeviceID))
					on.Driver, on.Pool, on.Device, w.rules[q.Name] = h.Driver, h.Pool, h.Device, h.Device
				}
				st.Quarantined = append(st.Quarantined, on)
			}
		}
		if d.Placed {
			w.seen()
		}
	case Unquarantine:
		st.Quarantined = nil
		clear(w.rules)
		w.unclaim(false)
	case Reserve:
		w.slot = true
		return d
	case ClaimNode:
		metav1.SetMetaDataAnnotation(&w.node.ObjectMeta, v1alpha1.AnnotationClaim, "x")
		if d.TaintNode {
			w.taint(true)
		}
		return d
	case Unclaim:
		w.release(d)
	case Free:
		w.slot = false
		return d
	case Evict:
		for _, m := range d.Evict {
			if by := w.stubborn[m.Pod.Name]; by != "" && by != d.Means.By {
				continue
			}
			w.evicted = append(w.evicted, m.Pod.Name)
			w.pods = slices.DeleteFunc(w.pods, func(p corev1.Pod) bool { return p.UID == m.Pod.UID })
		}
	case Ask:
		w.health.Spec.Action = d.Action
		w.asked = append(w.asked, d.Action.ID)
	case BeginRemedy:
		w.remedied = append(w.remedied, st.Step.ActionID)
		w.remedy = v1alpha1.RemedyRunning
		rung, _ := findRung(w.policy, st.Step.Rung)
		st.Step.Remedy = &v1alpha1.RemedyStatus{Rung: rung, State: w.remedy, Begun: metav1.NewTime(w.now)}
	case LookRemedy:
		if st.Step.Remedy.State = w.remedy; w.remedy.Over() {
			d.Requeue = 0
		}
	case BeginBurnIn:
		run := *d.BurnIn
		if run.State == v1alpha1.RemedyBegun {
			w.burnt = append(w.burnt, run.ID)
			run.State, w.burn = v1alpha1.RemedyRunning, v1alpha1.BurnInRun{State: v1alpha1.RemedyRunning}
			if w.burnRefusal != "" {
				run.State, run.Message = v1alpha1.RemedyRefused, w.burnRefusal
				if before := st.Step.BurnIn; before != nil {
					run.Begun, d.Deadline = before.Begun, nil
				}
			}
		}
		st.Step = st.Step.DeepCopy()
		st.Step.BurnIn = &run
	case LookBurnIn:
		st.Step = st.Step.DeepCopy()
		run := st.Step.BurnIn
		run.State, run.Message, run.Ran = w.burn.State, w.burn.Message, w.burn.Ran
		if run.State.Over() {
			d.Requeue = 0
		}
	case Withdraw:
		w.health.Spec.Action = nil
		w.withdrawn++
		w.release(d)
	case Record:
		w.rem.Finalizers = nil
		if s := w.bare(); s.Maintenance != nil && (Maintained(s) || w.rem.Spec.Cancel) {
			w.asks = nil
		}
	default:
		// Wait and Move only describe.
	}
	w.describe(d)
	return d
}

func (w *world) describe(d Decision) {
	st := &w.rem.Status
	now := metav1.NewTime(w.now)
	if d.Attempt != nil {
		history.Tried(st, *d.Attempt)
	}
	if st.Phase != d.Phase || st.Reason != d.Reason {
		w.reasons = append(w.reasons, string(d.Phase)+"/"+d.Reason)
	}
	if st.Phase != d.Phase {
		st.Since, st.Deadline = &now, nil
	}
	if d.Deadline != nil {
		at := metav1.NewTime(*d.Deadline)
		st.Deadline = &at
	}
	if d.Step != nil {
		st.Step = d.Step
	}
	if d.Drain != nil {
		st.Drain = d.Drain
	}
	if d.Restart != nil {
		st.Restart, st.Step = d.Restart, nil
	}
	st.Phase, st.Reason, st.Message, st.WouldChange, st.Rule = d.Phase, d.Reason, d.Message, d.WouldChange, d.Rule
}

// disruptive fails the test where something disruptive is decided on without what it needs.
func (w *world) disruptive(d Decision) {
	w.t.Helper()
	if d.Do != Evict && d.Do != Ask && d.Do != BeginRemedy {
		return
	}
	_, claimed := w.node.Annotations[v1alpha1.AnnotationClaim]
	switch {
	case !claimed:
		w.t.Errorf("%s without the claim", d.Do)
	case !w.slot:
		w.t.Errorf("%s without a budget slot", d.Do)
	case w.policy == nil || w.policy.Spec.Mode != v1alpha1.ModeRemediate:
		w.t.Errorf("%s in a mode that does not allow it", d.Do)
	case len(w.holds) > 0:
		w.t.Errorf("%s while held", d.Do)
	case !w.reports:
		w.t.Errorf("%s while blind", d.Do)
	case len(w.foreign) > 0:
		w.t.Errorf("%s while somebody else works on the node", d.Do)
	}
}

// nodeIntended says whether the incident keeps out the node as a whole.
func (w *world) nodeIntended() bool {
	return slices.ContainsFunc(w.rem.Spec.Quarantine, func(q v1alpha1.QuarantineIntent) bool { return q.Kind == v1alpha1.QuarantineNodeTaint })
}

func (w *world) taint(on bool) {
	w.node.Spec.Taints = slices.DeleteFunc(w.node.Spec.Taints, func(t corev1.Taint) bool { return t.Key == v1alpha1.TaintQuarantined })
	if on {
		w.node.Spec.Taints = append(w.node.Spec.Taints, corev1.Taint{Key: v1alpha1.TaintQuarantined, Value: w.rem.Name, Effect: corev1.TaintEffectNoSchedule})
	}
}

func (w *world) unclaim(keepTaint bool) {
	if w.node == nil {
		return
	}
	delete(w.node.Annotations, v1alpha1.AnnotationClaim)
	if !keepTaint {
		w.taint(false)
	}
}

// release takes the claim off, and lists the taint that is left on.
func (w *world) release(d Decision) {
	on := v1alpha1.Quarantined{Kind: v1alpha1.QuarantineNodeTaint, Name: v1alpha1.TaintQuarantined}
	if d.KeepTaint && !slices.Contains(w.rem.Status.Quarantined, on) {
		w.rem.Status.Quarantined = append(w.rem.Status.Quarantined, on)
	}
	keep := d.KeepTaint || w.nodeIntended() && d.Phase != v1alpha1.PhaseProbation
	if !keep {
		w.rem.Status.Quarantined = slices.DeleteFunc(w.rem.Status.Quarantined, func(q v1alpha1.Quarantined) bool { return q == on })
	}
	w.unclaim(keep)
}

// reboot starts the node anew with or without its fault, as an agent that was asked would.
func (w *world) reboot(boot string, repaired bool) {
	if repaired {
		w.clear()
	}
	w.health.Status.BootID = boot
	w.health.Status.Boots = append(w.health.Status.Boots, v1alpha1.Boot{ID: boot, At: metav1.NewTime(w.now)})
	w.health.Status.CompletedRound = &v1alpha1.Round{BootID: boot, At: metav1.NewTime(w.now)}
	if a := w.health.Spec.Action; a != nil {
		w.health.Status.CompletedRound.AfterAction = a.ID
		w.health.Status.Action = &v1alpha1.ActionStatus{ID: a.ID, State: v1alpha1.ActionDone, Result: v1alpha1.ResultSucceeded}
	}
}

func (w *world) pass(d time.Duration) { w.now = w.now.Add(d) }

// clean says whether nothing of ours is left on.
func (w *world) clean() error {
	switch {
	case len(w.rem.Status.Quarantined) > 0:
		return fmt.Errorf("quarantine left: %v", w.rem.Status.Quarantined)
	case len(w.rules) > 0:
		return fmt.Errorf("rules left: %v", w.rules)
	case w.slot:
		return fmt.Errorf("budget slot left")
	case w.node != nil && len(w.node.Annotations) > 0:
		return fmt.Errorf("claim left: %v", w.node.Annotations)
	case w.node != nil && len(w.node.Spec.Taints) > 0:
		return fmt.Errorf("taint left: %v", w.node.Spec.Taints)
	case len(w.rem.Finalizers) > 0:
		return fmt.Errorf("finalizer left")
	}
	return nil
}

var percent = intstr.FromString
