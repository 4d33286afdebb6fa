package explain

import (
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/claim"
	"github.com/roundhouse-dev/roundhouse/internal/cli/text"
	"github.com/roundhouse-dev/roundhouse/internal/decide"
)

// lookAhead fills in what is before us: what comes next, what it waits for, until when, and what would change it.
func (s *Snapshot) lookAhead(r *v1alpha1.Remediation, w *Why) {
	if r == nil || w.Phase.Over() {
		w.Waiting = s.holding(nil)
		return
	}
	if w.State == Observing {
		if w.Reason == decide.ReasonModeObserve {
			w.WouldDo = said(strings.TrimPrefix(w.Message, "observing only; "))
		}
		w.Next = s.nextInObserve(w)
	} else {
		w.Next = s.next(r, w)
		w.AtRisk = atRisk(r)
		w.Waiting = s.waiting(r, w)
		w.Deadline = s.deadline(r, w)
	}
	w.Changes = said(w.WouldChange)
}

func said(lines ...string) []string {
	return slices.DeleteFunc(lines, func(l string) bool { return l == "" })
}

func (s *Snapshot) nextInObserve(w *Why) []string {
	switch {
	case w.Policy == nil:
		return []string{"nothing, until a RemediationPolicy selects this node"}
	case !w.Policy.Accepted:
		return []string{"nothing, until policy " + w.Policy.Name + " is accepted: " + w.Policy.Why}
	}
	return []string{"nothing, until policy " + w.Policy.Name + " has mode Quarantine or Remediate; it closes when the fault does"}
}

// next says what happens when the wait is over.
func (s *Snapshot) next(r *v1alpha1.Remediation, w *Why) []string {
	policy := s.policyOf(r)
	rule := findRule(policy, r.Status.Rule)
	step := s.step(r, policy, rule)
	switch w.Phase {
	case v1alpha1.PhaseQuarantined:
		return []string{"nothing; it ends when the fault does, or when it is cancelled"}
	case v1alpha1.PhaseDraining:
		moved := "move " + left(r)
		if step == "" {
			return []string{moved}
		}
		return []string{moved, "then " + step}
	case v1alpha1.PhaseRepairing:
		return said(step, s.action())
	case v1alpha1.PhaseVerifying:
		return []string{"probation, once a full round of checks has passed and the fault has stayed away" + settle(policy)}
	case v1alpha1.PhaseProbation:
		return said("over, if there is no relapse", afterRelapse(step))
	case v1alpha1.PhaseEscalated:
		return []string{
			"when the fault is gone, as after the part was replaced, it is verified and returned without a word",
			"to let it try once more: kubectl roundhouse approve " + s.Name + " --retry",
		}
	default:
		return said(step)
	}
}

func afterRelapse(step string) string {
	if step == "" {
		return ""
	}
	return "after a relapse the ladder is climbed from: " + step
}

func settle(policy *v1alpha1.RemediationPolicy) string {
	if policy == nil || policy.Spec.Verify == nil || policy.Spec.Verify.Settle == nil {
		return ""
	}
	return " for " + text.Duration(policy.Spec.Verify.Settle.Duration)
}

// step says which rung it is on, with its attempt, and which come after.
func (s *Snapshot) step(r *v1alpha1.Remediation, policy *v1alpha1.RemediationPolicy, rule *v1alpha1.Rule) string {
	if rule == nil || len(rule.Ladder) == 0 {
		if r.Status.Step != nil {
			return r.Status.Step.Rung
		}
		return ""
	}
	at := r.Status.Step
	if at == nil || at.Rung == "" {
		return strings.Join(rule.Ladder, ", then ") + "; begun at the rung the fault recommends" + s.recommended(r)
	}
	out := at.Rung
	if rung := findRung(policy, at.Rung); rung != nil && rung.Action != v1alpha1.RungEscalate {
		attempts := int32(1)
		if rung.Attempts != nil {
			attempts = *rung.Attempts
		}
		out += fmt.Sprintf(", attempt %d of %d", max(at.Attempt, 1), max(attempts, at.Attempt))
	}
	if rest := rule.Ladder[min(int(at.Index)+1, len(rule.Ladder)):]; len(rest) > 0 {
		out += "; if that does not last: " + strings.Join(rest, ", then ")
	}
	return out
}

func (s *Snapshot) recommended(r *v1alpha1.Remediation) string {
	for _, f := range s.faults(r) {
		if f.Code == r.Spec.Root.Code && f.Device == r.Spec.Root.Device && f.Recommended != "" && f.Recommended != v1alpha1.RecommendNone {
			return " (" + string(f.Recommended) + ")"
		}
	}
	return ""
}

// action says how far the agent is with what it was asked.
func (s *Snapshot) action() string {
	if s.Health == nil || s.Health.Spec.Action == nil {
		return ""
	}
	asked, answer := s.Health.Spec.Action, s.Health.Status.Action
	out := fmt.Sprintf("the agent, asked for %s (%s): ", Spell(string(asked.Type)), asked.ID)
	if answer == nil || answer.ID != asked.ID {
		return out + "not answered yet"
	}
	out += Spell(string(answer.State))
	if answer.Result != "" {
		out += ", " + Spell(string(answer.Result))
	}
	if answer.Message != "" {
		out += ": " + text.Clean(answer.Message)
	}
	return out
}

func left(r *v1alpha1.Remediation) string {
	if r.Status.Drain == nil {
		return "what runs there"
	}
	out := text.Count(r.Status.Drain.PodsLeft, "pod", "pods")
	if r.Status.Drain.PodsMoved > 0 {
		out += fmt.Sprintf(" (%d moved so far)", r.Status.Drain.PodsMoved)
	}
	switch r.Status.Drain.Scope {
	case "Device":
		out += " that hold a bad device; the others are left alone"
	case "Node":
		out += " of the whole node"
	}
	return out
}

func atRisk(r *v1alpha1.Remediation) []string {
	d := r.Status.Drain
	if d == nil || d.PodsLeft == 0 {
		return nil
	}
	out := text.Count(d.PodsLeft, "pod", "pods")
	if d.WorkAtRisk != "" {
		out += ": " + text.Clean(d.WorkAtRisk) + " since each job's last checkpoint, else since its start"
	}
	return []string{out}
}

// waiting says what keeps the next step from happening, live: an incident's own words are as old as its last decision.
func (s *Snapshot) waiting(r *v1alpha1.Remediation, w *Why) []Fact {
	var out []Fact
	if r.Spec.Cancel {
		out = append(out, Fact{Text: "it has been cancelled, and the controller has not ended it yet"})
	}
	if w.Message != "" {
		out = append(out, Fact{Text: w.Message, Since: w.Since})
	}
	if d := r.Status.Drain; d != nil {
		for _, b := range d.Blockers {
			said := fmt.Sprintf("pod %s: %s", text.Clean(b.Pod), Spell(text.Clean(b.Reason)))
			if b.Message != "" {
				said += ": " + text.Clean(b.Message)
			}
			out = append(out, Fact{Text: said})
		}
	}
	if w.Phase == v1alpha1.PhasePending {
		out = append(out, s.budgets()...)
		out = append(out, s.holding(r)...)
	} else if holds := s.holdFacts(); len(holds) > 0 {
		out = append(out, holds...)
	}
	return out
}

// budgets say which budgets the node falls under, and who holds their slots.
func (s *Snapshot) budgets() []Fact {
	var out []Fact
	for i := range s.Budgets {
		b := &s.Budgets[i]
		if s.Node == nil || b.Name == v1alpha1.ImplicitBudget || !Selects(&b.Spec.NodeSelector, s.labels()) {
			continue
		}
		out = append(out, Fact{Text: "budget " + b.Name + ": " + s.budget(b)})
	}
	if len(out) == 0 && s.Node != nil {
		said := "budget: no NodeDisruptionBudget selects this node, so the implicit one holds: 1 node at a time"
		for i := range s.Budgets {
			if b := &s.Budgets[i]; b.Name == v1alpha1.ImplicitBudget {
				said += "; " + s.budget(b)
			}
		}
		out = append(out, Fact{Text: said})
	}
	return out
}

func (s *Snapshot) budget(b *v1alpha1.NodeDisruptionBudget) string {
	var in string
	domain, ok := s.labels()[b.Spec.TopologyKey]
	if b.Spec.TopologyKey != "" {
		in = " of " + b.Spec.TopologyKey + " " + domain
		if !ok {
			// The controller counts a node without the label as a domain of its own.
			in = " (no label " + b.Spec.TopologyKey + ": a domain of its own)"
		}
	}
	var nodes []string
	devices := int32(0)
	for _, held := range b.Status.Reservations {
		if b.Spec.TopologyKey != "" && (held.Domain != domain || !ok && held.Node != s.Name) {
			continue
		}
		nodes = append(nodes, held.Node)
		devices += held.Devices
	}
	var parts []string
	if b.Spec.MaxUnavailable != nil {
		parts = append(parts, fmt.Sprintf("%d of %s nodes%s", len(nodes), b.Spec.MaxUnavailable.String(), in))
	}
	if b.Spec.MaxUnavailableDevices != nil {
		parts = append(parts, fmt.Sprintf("%d of %d devices%s", devices, *b.Spec.MaxUnavailableDevices, in))
	}
	out := strings.Join(parts, ", ") + " out for repair"
	if len(nodes) > 0 {
		out += " (" + text.Bounded(nodes, maxDevices) + ")"
	}
	// Counting these would mean to list every node; the controller has, and its message names them.
	return out + "; others' outages count too"
}

// holding says whether brake and holds are in the way; also that they are not.
func (s *Snapshot) holding(r *v1alpha1.Remediation) []Fact {
	out := append(s.holdFacts(), s.foreign()...)
	policy := s.policyOf(r)
	if policy != nil && policy.Status.Brake != nil && policy.Status.Brake.State == v1alpha1.BrakeHolding {
		b := policy.Status.Brake
		said := fmt.Sprintf("brake of policy %s: %s on %s", policy.Name, text.Clean(b.Signature), text.Count(b.Nodes, "node", "nodes"))
		if b.ReleaseWhen != "" {
			said += "; lets go when " + text.Clean(b.ReleaseWhen)
		}
		return append(out, Fact{Text: said, Since: b.Since})
	}
	if r == nil {
		return out
	}
	if len(s.holds()) == 0 {
		return append(out, Fact{Text: "brake: released; holds: none"})
	}
	return append(out, Fact{Text: "brake: released"})
}

// foreign says who else works on the node, or keeps others' hands off it.
func (s *Snapshot) foreign() []Fact {
	if s.Node == nil {
		return nil
	}
	var out []Fact
	for _, c := range claim.Foreign(s.Node) {
		fact := Fact{Text: "left to " + text.Clean(c.By) + ": " + text.Clean(c.What)}
		if !c.Since.IsZero() {
			fact.Since = &metav1.Time{Time: c.Since}
		}
		out = append(out, fact)
	}
	return out
}

func (s *Snapshot) holdFacts() []Fact {
	var out []Fact
	for _, h := range s.holds() {
		what := "no drain or repair"
		if h.Spec.Holds == v1alpha1.HoldEverything {
			what = "no drain, repair or quarantine"
		}
		out = append(out, Fact{
			Text:  fmt.Sprintf("hold %s by %s: %s: %q", h.Name, text.Clean(h.Spec.RequestedBy), what, text.Clean(h.Spec.Reason)),
			Since: &h.CreationTimestamp,
		})
	}
	return out
}

// deadline is when the wait ends, and what happens then.
func (s *Snapshot) deadline(r *v1alpha1.Remediation, w *Why) *Deadline {
	rule := findRule(s.policyOf(r), r.Status.Rule)
	st := &r.Status
	var at *metav1.Time
	then := "ask a human"
	switch w.Phase {
	case v1alpha1.PhasePending:
		at, then = st.Deadline, atDeadline(rule)
	case v1alpha1.PhaseDraining:
		at, then = st.Deadline, "ask a human; pods are never forced"
		if at == nil && st.Drain != nil {
			at = st.Drain.Deadline
		}
	case v1alpha1.PhaseRepairing:
		at, then = st.Deadline, "the attempt has failed"
		if st.Step != nil && st.Step.Deadline != nil {
			at = st.Step.Deadline
		}
	case v1alpha1.PhaseVerifying:
		at, then = st.Deadline, "the repair has failed: the next attempt or rung"
	case v1alpha1.PhaseProbation:
		at, then = st.Deadline, "the incident is over"
	default:
		at = st.Deadline
	}
	if at == nil {
		return nil
	}
	return &Deadline{At: *at, Then: then}
}
