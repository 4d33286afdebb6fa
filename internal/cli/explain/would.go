package explain

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/cli/text"
	"github.com/roundhouse-dev/roundhouse/internal/decide"
	"github.com/roundhouse-dev/roundhouse/internal/drain"
	"github.com/roundhouse-dev/roundhouse/internal/history"
	"github.com/roundhouse-dev/roundhouse/internal/policy"
)

// would says what an incident that is only observed would have done, step by step and by the controller's own rules:
// what it would put on, what it would wait for now, and what it would repair with. What runs on the node is not looked at.
func (s *Snapshot) would(r *v1alpha1.Remediation, w *Why) []string {
	p := s.policyOf(r)
	switch {
	case s.Node == nil:
		return []string{"nothing: the Node is gone"}
	case p == nil:
		return []string{"nobody can say: policy " + text.Clean(r.Spec.Policy) + ", under which it began, is gone, and no other selects the node"}
	}
	m := s.imagine(r, p)
	switch {
	case m.rule == nil && !w.Policy.Accepted:
		return []string{"nobody can say: the rules of policy " + p.Name + " cannot be followed as they stand"}
	case m.rule == nil:
		return []string{"nothing: no rule of policy " + p.Name + " matches the fault"}
	}
	return append([]string{w.supposing(m.rule)}, s.steps(m, w)...)
}

// supposing says under which condition the lines after it hold.
func (w *Why) supposing(rule *v1alpha1.Rule) string {
	g := w.Policy
	switch {
	case !g.Governs:
		return fmt.Sprintf("if policy %s selected the node still, in mode Remediate, by rule %s:", g.Name, rule.Name)
	case !g.Accepted:
		return fmt.Sprintf("if policy %s were accepted, in mode Remediate, by rule %s:", g.Name, rule.Name)
	}
	return fmt.Sprintf("in mode Remediate, by rule %s:", rule.Name)
}

// steps are what would be done in the order in which the controller would do it.
func (s *Snapshot) steps(m imagined, w *Why) []string {
	gates, keep := s.gates(m.policy), s.wouldKeepOff(m.incident)
	everything := slices.ContainsFunc(s.holds(), func(h v1alpha1.RemediationHold) bool { return h.Spec.Holds == v1alpha1.HoldEverything })
	switch {
	case m.rule.Response == v1alpha1.ResponseIgnore:
		return []string{"nothing: the rule ignores the fault"}
	case m.rule.Response == v1alpha1.ResponseQuarantine && everything:
		return append(append(gates, keep...), "repair nothing: the rule only quarantines")
	case m.rule.Response == v1alpha1.ResponseQuarantine:
		return append(keep, "repair nothing: the rule only quarantines")
	}
	repair, human := s.climb(m)
	switch {
	case human && everything:
		return append(append(gates, keep...), repair)
	case human:
		return append(keep, repair)
	case everything:
		gates, keep = append(gates, keep...), nil
	}
	out := append(keep, gates...)
	for _, b := range s.budgets() {
		out = append(out, "take a slot of "+b.Text)
	}
	if len(m.incident.Spec.Devices) > 0 && !intends(m.incident, v1alpha1.QuarantineNodeTaint) {
		out = append(out, moved(w.Message))
	}
	if m.draft.NextDrain() != drain.ScopeNode {
		return append(out, "beside what runs on the rest of the node, "+repair)
	}
	if wait := s.moment(m); wait != "" {
		return append(out, wait, "move what else runs on the node, then "+repair)
	}
	return append(out, "move what else runs on the node at once, then "+repair)
}

// wouldKeepOff says what would be put on, by the intents that the controller wrote down when it last saw how the devices
// are offered: a device without one is not offered to pods any more.
func (s *Snapshot) wouldKeepOff(r *v1alpha1.Remediation) []string {
	var out []string
	node := intends(r, v1alpha1.QuarantineNodeTaint)
	if node {
		out = append(out, "keep new work off the whole node, by taint "+v1alpha1.TaintQuarantined)
	}
	for i, id := range r.Spec.Devices {
		if i == maxDevices {
			out = append(out, "and so on for "+text.Count(len(r.Spec.Devices)-i, "more device", "more devices"))
			break
		}
		rule := slices.IndexFunc(r.Spec.Quarantine, func(q v1alpha1.QuarantineIntent) bool {
			return q.Kind == v1alpha1.QuarantineDeviceTaintRule && q.DeviceID == id
		})
		switch {
		case rule >= 0:
			out = append(out, "keep new work off "+s.where(r, id)+", by DeviceTaintRule "+r.Spec.Quarantine[rule].Name)
		case !node:
			out = append(out, "put nothing on "+s.where(r, id)+": it is not offered to pods any more, which keeps new work off it")
		}
	}
	return out
}

func intends(r *v1alpha1.Remediation, kind v1alpha1.QuarantineKind) bool {
	return slices.ContainsFunc(r.Spec.Quarantine, func(q v1alpha1.QuarantineIntent) bool { return q.Kind == kind })
}

// gates are what would be waited for before any drain or repair, as it is now.
func (s *Snapshot) gates(p *v1alpha1.RemediationPolicy) []string {
	var out []string
	for _, f := range slices.Concat(s.holdFacts(), brake(p), s.foreign()) {
		out = append(out, "wait: "+f.Text)
	}
	if fresh, _ := s.reporting(); !fresh {
		out = append(out, "wait: the agent does not report, and nothing is done blind")
	}
	return out
}

// moved takes from the controller's words how many pods hold a bad device: it has looked.
func moved(message string) string {
	for _, part := range strings.Split(message, ", ") {
		if strings.HasPrefix(part, "move ") {
			return part + " off the bad devices"
		}
	}
	return "move the pods that hold a bad device, if there are any"
}

// moment says what the rest of the node would wait for before it is emptied; nothing where the rule says at once.
func (s *Snapshot) moment(m imagined) string {
	d := m.draft
	d.Remediation.Status.Phase, d.Remediation.Status.Since = v1alpha1.PhasePending, &metav1.Time{Time: s.Now}
	d.NodePlan = &drain.Plan{Jobs: 1} // as if work would be lost: does the rule mind?
	d.Policy.WindowOpen, d.Policy.NextWindow = policy.WindowOpen(m.policy, s.Now)
	switch decide.Next(d).Reason {
	case decide.ReasonWaitingForIdle:
		return "wait until no work would be lost" + atMost(m.rule)
	case decide.ReasonWaitingForWindow:
		return "wait for a window, the next opens " + d.Policy.NextWindow.UTC().Format(time.RFC3339) + atMost(m.rule)
	}
	return ""
}

func atMost(rule *v1alpha1.Rule) string {
	if rule.Deadline == nil {
		return ""
	}
	return ", at most " + text.Duration(rule.Deadline.Duration) + ", then " + atDeadline(rule)
}

// imagined is an incident as it would be if nothing kept it from its repair.
type imagined struct {
	incident *v1alpha1.Remediation
	policy   *v1alpha1.RemediationPolicy
	// rule is nil where none matches.
	rule *v1alpha1.Rule
	// draft is what internal/decide would see: claim, slot and quarantine are on, no gate is closed, the node is empty.
	draft *decide.Snapshot
}

// imagine drafts what the controller's rules would see with the repair at hand.
func (s *Snapshot) imagine(r *v1alpha1.Remediation, p *v1alpha1.RemediationPolicy) imagined {
	m := imagined{incident: r, policy: p}
	faults := s.matched(r, p)
	rem := r.DeepCopy()
	rem.Spec.Cancel = false
	rem.Spec.Quarantine = []v1alpha1.QuarantineIntent{{Kind: v1alpha1.QuarantineNodeTaint, Name: v1alpha1.TaintQuarantined}}
	rem.Status.Quarantined = []v1alpha1.Quarantined{{Kind: v1alpha1.QuarantineNodeTaint, Name: v1alpha1.TaintQuarantined}}
	rem.Status.Phase, rem.Status.Drain, rem.Status.Deadline = v1alpha1.PhaseDraining, nil, nil
	for _, f := range faults {
		if f.Rule == nil || f.Rule.Response == v1alpha1.ResponseIgnore {
			continue
		}
		if f.Fault.Device != "" && !slices.Contains(rem.Spec.Devices, f.Fault.Device) {
			rem.Spec.Devices = append(rem.Spec.Devices, f.Fault.Device)
		}
		if m.rule == nil || isRoot(r)(f.Fault) {
			m.rule = f.Rule
		}
	}
	remediate := p.DeepCopy()
	remediate.Spec.Mode = v1alpha1.ModeRemediate
	m.draft = &decide.Snapshot{
		Now: s.Now, Remediation: rem, Health: s.Health, Reporting: true, Faults: faults, Otherwise: decide.NotOffered,
		Policy:   decide.Governing{Policy: remediate, Accepted: true, WindowOpen: true},
		SlotHeld: true, ClaimHeld: true, DevicePlan: &drain.Plan{}, NodePlan: &drain.Plan{},
	}
	m.draft.PastRepairs = s.PastRepairs(rem, s.Now.Add(-m.draft.LoopWindow()))
	if s.Node != nil {
		m.draft.Node = s.Node.DeepCopy()
		m.draft.Node.Spec.Taints = append(m.draft.Node.Spec.Taints, corev1.Taint{
			Key: v1alpha1.TaintQuarantined, Value: rem.Name, Effect: corev1.TaintEffectNoSchedule,
		})
	}
	return m
}

// matched puts the node's faults under the rules of one policy, as if it alone governed the node. Where the fault an
// incident began with is not there at the moment, it falls under the rule the incident last followed.
func (s *Snapshot) matched(r *v1alpha1.Remediation, p *v1alpha1.RemediationPolicy) []decide.Matched {
	out, root := s.matchedNow(r, p)
	if root {
		return out
	}
	return append([]decide.Matched{{Fault: s.rootFault(r), Rule: findRule(p, r.Status.Rule)}}, out...)
}

// matchedNow does so with the faults that are there, and says whether the one the incident began with is among them.
// Where the policy's rules cannot be read, that one falls under the rule the incident last followed.
func (s *Snapshot) matchedNow(r *v1alpha1.Remediation, p *v1alpha1.RemediationPolicy) (out []decide.Matched, root bool) {
	alone := p.DeepCopy()
	alone.Spec.NodeSelector = metav1.LabelSelector{}
	node := s.Node
	if node == nil {
		node = &corev1.Node{}
	}
	governing := policy.Compile([]v1alpha1.RemediationPolicy{*alone}).For(node)
	var faults []v1alpha1.Fault
	if s.Health != nil {
		faults = append(faults, s.Health.Status.Faults...)
	}
	conditions, _ := governing.ConditionFaults(node, s.Now)
	taints, _ := governing.TaintFaults(s.driverTaints(), &r.Spec.Root, s.Now)
	for _, f := range slices.Concat(faults, conditions, taints) {
		rule, err := governing.Match(f, node, s.Now)
		began := isRoot(r)(f)
		if began && (err != nil || !governing.Accepted) {
			rule = findRule(p, r.Status.Rule)
		}
		root = root || began
		out = append(out, decide.Matched{Fault: f, Rule: rule})
	}
	return out, root
}

// rootFault is the fault an incident began with, as it was saved, else what its name says.
func (s *Snapshot) rootFault(r *v1alpha1.Remediation) v1alpha1.Fault {
	root := r.Spec.Root
	if e := r.Status.Evidence; e != nil {
		if i := slices.IndexFunc(e.Faults, isRoot(r)); i >= 0 {
			return e.Faults[i]
		}
	}
	return v1alpha1.Fault{Code: root.Code, Check: root.Check, Device: root.Device, Severity: v1alpha1.SeverityCritical, FirstSeen: root.FirstSeen, Root: true}
}

// PastRepairs counts the repairs of the incident's hardware by earlier incidents, as the controller does.
func (s *Snapshot) PastRepairs(r *v1alpha1.Remediation, since time.Time) int {
	most := 0
	for i := range s.Records {
		rec := &s.Records[i]
		if slices.ContainsFunc(r.Spec.Devices, func(id string) bool { return history.RecordName(r.Spec.Node, id) == rec.Name }) {
			most = max(most, history.Repairs(rec.Status, since, r.Name))
		}
	}
	if len(r.Spec.Devices) > 0 {
		return most
	}
	for i := range s.Remediations {
		other := &s.Remediations[i]
		if other.Name != r.Name && other.Spec.NodeUID == r.Spec.NodeUID && len(other.Spec.Devices) == 0 && !other.Spec.Root.FirstSeen.Time.Before(since) {
			most += int(history.Digest(other, since).Repairs)
		}
	}
	return most
}

// climb says which rung comes next, by the controller's own rules: with the attempts, the limits and what the agent
// supports counted. human is true where it would be a human's turn.
func (s *Snapshot) climb(m imagined) (said string, human bool) {
	if s.Health == nil || m.draft.Node == nil || m.rule == nil {
		return "", false
	}
	d := decide.Next(m.draft)
	switch {
	case d.Phase == v1alpha1.PhaseEscalated:
		return strings.TrimSuffix("ask a human: "+text.Clean(d.Message), ": "), true
	case d.Step == nil:
		return "", false
	}
	return rungs(m.policy, m.rule, d.Step), false
}

// proof says what the proof of a repair still waits for, by the controller's own rules. The incident's words may be some
// seconds behind: how far a proof has come is written down now and then only.
func (s *Snapshot) proof(r *v1alpha1.Remediation, w *Why) (waiting, changes string) {
	p := s.policyOf(r)
	if w.Phase != v1alpha1.PhaseVerifying || p == nil || s.Node == nil || r.Status.Since == nil {
		return "", ""
	}
	fresh, condition := s.reporting()
	d := &decide.Snapshot{Now: s.Now, Remediation: r, Node: s.Node, Health: s.Health, Reporting: fresh, SlotHeld: true, ClaimHeld: true,
		Policy: decide.Governing{Policy: p, Accepted: true}}
	if condition != nil {
		d.NotReportingWhy = text.Clean(condition.Message)
	}
	d.Faults, _ = s.matchedNow(r, p)
	d.DriverTaints = s.driverTaints()
	next := decide.Next(d)
	if next.Phase != v1alpha1.PhaseVerifying {
		return "the controller's next decision: " + text.Clean(next.Message), ""
	}
	return text.Clean(next.Message), next.WouldChange
}

// wouldOpen says what a policy that is not accepted would ask for about a fault that no incident is about.
func (s *Snapshot) wouldOpen(w *Why) []string {
	p := s.policyOf(nil)
	if p == nil || s.Node == nil {
		return nil
	}
	for _, m := range s.matched(&v1alpha1.Remediation{}, p) {
		if m.Rule != nil && m.Rule.Response != v1alpha1.ResponseIgnore {
			return []string{w.supposing(m.Rule), Recite(m.Rule)}
		}
	}
	return nil
}
