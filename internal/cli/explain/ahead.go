package explain

import (
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/claim"
	"github.com/roundhouse-dev/roundhouse/internal/cli/text"
	"github.com/roundhouse-dev/roundhouse/internal/decide"
)

// lookAhead fills in what is before us: what comes next, what it waits for, until when, and what would change it.
func (s *Snapshot) lookAhead(r *v1alpha1.Remediation, w *Why) {
	w.Deadline, w.NoDeadline = s.until(r, w)
	words, changes := w.Message, w.WouldChange
	switch {
	case r == nil:
		s.lookAheadWithout(w)
		return
	case w.Phase.Over():
		w.Waiting = append([]Fact{{Text: "nothing: it is over"}}, s.holding(nil)...)
		return
	case w.State == Observing:
		w.WouldDo = s.would(r, w)
		w.Next = s.nextInObserve(w)
		w.Waiting = []Fact{{Text: observed(w), Since: w.Since}}
	default:
		w.Next = s.next(r, w)
		w.AtRisk = atRisk(r)
		if waiting, change := s.proof(r, w); waiting != "" {
			words, changes = waiting, change
		}
		w.Waiting = s.waiting(r, w, words)
	}
	// The controller writes one sentence for every node.
	w.Changes = said(strings.ReplaceAll(changes, "NODE", s.Name))
}

// observed says what a node waits for that is only observed.
func observed(w *Why) string {
	switch {
	case w.Reason == decide.ReasonNoPolicy || w.Policy == nil || !w.Policy.Governs:
		return "for a RemediationPolicy that selects the node"
	case !w.Policy.Accepted:
		return "for policy " + w.Policy.Name + " to be accepted: " + w.Policy.Why
	}
	return "for another mode than Observe in policy " + w.Policy.Name
}

// lookAheadWithout does so for a node without an incident.
func (s *Snapshot) lookAheadWithout(w *Why) {
	switch w.State {
	case Healthy:
		w.Waiting = []Fact{{Text: "nothing"}}
		w.Changes = []string{"a check that fails, or a Node condition that a rule names"}
		if slices.ContainsFunc(s.driverTaints(), decide.DriverTaint.KeepsOut) {
			w.Changes = append(w.Changes, "a rule that names the driver's taint (match.deviceTaints), which makes a fault of it")
		}
	case Unknown:
		w.Waiting, w.Changes = s.blindness()
	case NoAgent:
		w.Waiting = []Fact{{Text: "for an agent to report"}}
		w.Changes = []string{"an agent that runs on the node and publishes what it sees"}
	case Faulty:
		s.lookAheadFaulty(w)
	default:
	}
	w.Waiting = append(w.Waiting, s.holding(nil)...)
}

// blindness says what keeps a node's health from being known, and what would change that.
func (s *Snapshot) blindness() (waiting []Fact, changes []string) {
	fresh, condition := s.reporting()
	switch {
	case condition == nil:
		return []Fact{{Text: "for the controller to say whether the agent reports"}},
			[]string{"a controller that runs: kubectl get pods -A -l app.kubernetes.io/name=roundhouse-controller"}
	case !fresh:
		return []Fact{{Text: "for the agent to report again", Since: &condition.LastTransitionTime}},
			[]string{"the agent's pod Ready, and publishing: kubectl get pods -A --field-selector spec.nodeName=" + s.Name}
	}
	for _, c := range s.Health.Status.Checks {
		if c.Result == checkUnknown && len(waiting) < maxFaults {
			waiting = append(waiting, Fact{Text: "for check " + text.Clean(c.Name) + " to be able to look", Since: &c.Since})
			changes = append(changes, "a round in which check "+text.Clean(c.Name)+" can look")
		}
	}
	switch {
	case s.Health.Status.Summary == v1alpha1.SummaryActing:
		return append(waiting, Fact{Text: "for the agent to end the action it carries out"}), append(changes, "the end of that action, and a complete round of checks")
	case len(waiting) == 0:
		return []Fact{{Text: "for a complete round of checks"}}, []string{"a round that every check completes"}
	}
	return waiting, changes
}

// lookAheadFaulty says, for a fault that no incident is about, what its policy would ask for, and what would change that.
func (s *Snapshot) lookAheadFaulty(w *Why) {
	w.Waiting = []Fact{{Text: "nothing: no incident is open"}}
	switch {
	case w.Policy == nil:
		w.Waiting = []Fact{{Text: "for a RemediationPolicy that selects the node"}}
		w.Changes = []string{"a RemediationPolicy that selects the node"}
	case !w.Policy.Accepted:
		w.Waiting = []Fact{{Text: "for policy " + w.Policy.Name + " to be accepted: " + w.Policy.Why}}
		w.WouldDo = s.wouldOpen(w)
		w.Changes = []string{"a valid policy, without a tie of priorities"}
	case s.asked() != nil:
		w.Waiting = []Fact{{Text: "for an incident to be opened"}}
		w.Changes = []string{"the controller's next decision"}
	default:
		w.Changes = []string{"a rule of policy " + w.Policy.Name + " that matches and does not ignore it"}
	}
}

func said(lines ...string) []string {
	return slices.DeleteFunc(lines, func(l string) bool { return l == "" })
}

func (s *Snapshot) nextInObserve(w *Why) []string {
	switch {
	case w.Policy == nil || !w.Policy.Governs:
		return []string{"nothing, until a RemediationPolicy selects this node"}
	case !w.Policy.Accepted:
		return []string{"nothing, until policy " + w.Policy.Name + " is accepted: " + w.Policy.Why}
	}
	return []string{"nothing, until policy " + w.Policy.Name + " has mode Quarantine or Remediate; it closes when the fault does"}
}

// next says what happens when the wait is over.
func (s *Snapshot) next(r *v1alpha1.Remediation, w *Why) []string {
	policy := s.policyOf(r)
	switch w.Phase {
	case v1alpha1.PhaseQuarantined:
		return []string{"nothing; it ends when the fault does, or when it is cancelled"}
	case v1alpha1.PhaseDraining:
		moved := "move " + left(r)
		if step := s.nextRung(r, policy); step != "" {
			return []string{moved, "then " + step}
		}
		return []string{moved}
	case v1alpha1.PhaseRepairing:
		return said(rungs(policy, findRule(policy, r.Status.Rule), r.Status.Step), s.action(r))
	case v1alpha1.PhaseVerifying:
		return said(burnIn(r, policy), "probation, once a full round of checks has passed and the fault has stayed away"+settle(policy))
	case v1alpha1.PhaseProbation:
		over := "over, if there is no relapse"
		if fresh, _ := s.reporting(); !fresh {
			over = "over, once the agent reports again and no relapse is seen"
		}
		return said(over, s.afterRelapse(r, policy))
	case v1alpha1.PhaseEscalated:
		proof := "when the fault is gone, as after the part was replaced, it is verified and returned without a word"
		if fresh, _ := s.reporting(); fresh && len(s.faults(nil)) == 0 {
			proof = "the fault is gone: it is verified and returned without a word, as soon as a budget gives a slot for that"
		}
		return said(
			proof,
			"to let it try once more: kubectl roundhouse approve "+s.Name+" --retry",
			s.humanRung(policy, r, w),
		)
	default:
		return said(s.nextRung(r, policy))
	}
}

// nextRung says which rung comes next, with its attempt, and which would follow.
func (s *Snapshot) nextRung(r *v1alpha1.Remediation, policy *v1alpha1.RemediationPolicy) string {
	if policy == nil {
		return ""
	}
	m := s.imagine(r, policy)
	if m.rule != nil && m.rule.Response != v1alpha1.ResponseRepair {
		return ""
	}
	said, _ := s.climb(m)
	return said
}

// afterRelapse says what a relapse would lead to: the rung that did not last is passed over.
func (s *Snapshot) afterRelapse(r *v1alpha1.Remediation, policy *v1alpha1.RemediationPolicy) string {
	again := r.DeepCopy()
	if n := len(again.Status.Attempts); n > 0 && again.Status.Attempts[n-1].Result == v1alpha1.AttemptRepaired {
		again.Status.Attempts[n-1].Result = v1alpha1.AttemptRelapsed
	}
	if step := s.nextRung(again, policy); step != "" {
		return "after a relapse: " + step
	}
	return ""
}

// humanRung says what the policy asks of the human at the end of the ladder, where the first line does not say so.
func (s *Snapshot) humanRung(policy *v1alpha1.RemediationPolicy, r *v1alpha1.Remediation, w *Why) string {
	rule := findRule(policy, r.Status.Rule)
	if rule == nil {
		return ""
	}
	for _, name := range rule.Ladder {
		rung := findRung(policy, name)
		if rung == nil || rung.Action != v1alpha1.RungEscalate || rung.Message == "" {
			continue
		}
		if message := text.Clean(rung.Message); !strings.Contains(w.Meaning, message) {
			return "what the policy asks of a human (" + name + "): " + message
		}
		return ""
	}
	return ""
}

// burnIn says how far the burn-in has come, or that one comes next.
func burnIn(r *v1alpha1.Remediation, policy *v1alpha1.RemediationPolicy) string {
	if step := r.Status.Step; step != nil && step.BurnIn != nil {
		out := fmt.Sprintf("burn-in %s: %s", step.BurnIn.ID, Spell(string(step.BurnIn.State)))
		if step.BurnIn.Message != "" {
			out += ": " + text.Clean(step.BurnIn.Message)
		}
		return out
	}
	if policy == nil || policy.Spec.Verify == nil || policy.Spec.Verify.BurnIn == nil {
		return ""
	}
	return "then PodTemplate " + policy.Spec.Verify.BurnIn.PodTemplateRef.Name + " burns in what was repaired"
}

func settle(policy *v1alpha1.RemediationPolicy) string {
	if policy == nil || policy.Spec.Verify == nil || policy.Spec.Verify.Settle == nil {
		return ""
	}
	return " for " + text.Duration(policy.Spec.Verify.Settle.Duration)
}

// rungs says a step of a ladder, with its attempt, and which would come after it.
func rungs(policy *v1alpha1.RemediationPolicy, rule *v1alpha1.Rule, at *v1alpha1.Step) string {
	if at == nil || at.Rung == "" {
		return ""
	}
	out := at.Rung
	if rung := findRung(policy, at.Rung); rung != nil && rung.Action != v1alpha1.RungEscalate {
		attempts := int32(1)
		if rung.Attempts != nil {
			attempts = *rung.Attempts
		}
		out += fmt.Sprintf(", attempt %d of %d", max(at.Attempt, 1), max(attempts, at.Attempt))
	}
	if rule == nil {
		return out
	}
	if rest := rule.Ladder[min(int(at.Index)+1, len(rule.Ladder)):]; len(rest) > 0 {
		out += "; if that does not last: " + strings.Join(rest, ", then ")
	}
	return out
}

// action says how far the attempt has come: the controller's own, or the agent with what it was asked.
func (s *Snapshot) action(r *v1alpha1.Remediation) string {
	if step := r.Status.Step; step != nil && step.Remedy != nil {
		out := fmt.Sprintf("the controller, %s (%s): %s", Spell(string(step.Remedy.Rung.Action)), step.ActionID, Spell(string(step.Remedy.State)))
		if step.Remedy.Message != "" {
			out += ": " + text.Clean(step.Remedy.Message)
		}
		return out
	}
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

// waiting says what keeps the next step from happening, live: the controller's words are as old as its last decision.
func (s *Snapshot) waiting(r *v1alpha1.Remediation, w *Why, words string) []Fact {
	var out []Fact
	if r.Spec.Cancel {
		out = append(out, Fact{Text: "it has been cancelled, and the controller has not ended it yet"})
	}
	if words != "" {
		out = append(out, Fact{Text: words, Since: w.Since})
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
		return append(out, s.holding(r)...)
	}
	out = append(out, s.blind(w)...)
	if holds := s.holdFacts(); len(holds) > 0 {
		out = append(out, holds...)
	}
	return out
}

// blind says, in a phase that waits for what only the agent can see, that it sees nothing.
func (s *Snapshot) blind(w *Why) []Fact {
	fresh, condition := s.reporting()
	if fresh || condition == nil {
		return nil
	}
	var what string
	switch w.Phase {
	case v1alpha1.PhaseQuarantined, v1alpha1.PhaseEscalated:
		what = "the fault's end"
	case v1alpha1.PhaseVerifying:
		what = "the proof"
	case v1alpha1.PhaseProbation:
		what = "a relapse"
	default:
		return nil
	}
	return []Fact{{Text: "the agent does not report, so " + what + " cannot be seen", Since: &condition.LastTransitionTime}}
}

// budgets say which budgets the node falls under, and who holds their slots.
func (s *Snapshot) budgets() []Fact {
	var out []Fact
	for i := range s.Budgets {
		b := &s.Budgets[i]
		if s.Node == nil || b.Name == v1alpha1.ImplicitBudget || !Selects(&b.Spec.NodeSelector, s.labels()) {
			continue
		}
		if len(out) == maxBudgets {
			return append(out, Fact{Text: "and other budgets: kubectl get ndb"})
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
	if holding := brake(s.policyOf(r)); len(holding) > 0 {
		return append(out, holding...)
	}
	if r == nil {
		return out
	}
	if len(s.holds()) == 0 {
		return append(out, Fact{Text: "brake: released; holds: none"})
	}
	return append(out, Fact{Text: "brake: released"})
}

// brake says what a policy's brake holds for, where it holds.
func brake(policy *v1alpha1.RemediationPolicy) []Fact {
	if policy == nil || policy.Status.Brake == nil || policy.Status.Brake.State != v1alpha1.BrakeHolding {
		return nil
	}
	b := policy.Status.Brake
	said := fmt.Sprintf("brake of policy %s: %s on %s", policy.Name, text.Clean(b.Signature), text.Count(b.Nodes, "node", "nodes"))
	if b.ReleaseWhen != "" {
		said += "; lets go when " + text.Clean(b.ReleaseWhen)
	}
	return []Fact{{Text: said, Since: b.Since}}
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
	for i, h := range s.holds() {
		if i == maxHolds {
			return append(out, Fact{Text: "and " + text.Count(len(s.holds())-i, "more hold", "more holds") + ": kubectl get remediationholds"})
		}
		what := "no drain or repair"
		if h.Spec.Holds == v1alpha1.HoldEverything {
			what = "no drain, repair or quarantine"
		}
		until := "until it is released"
		if h.Spec.Until != nil {
			until = "until " + h.Spec.Until.UTC().Format(time.RFC3339)
		}
		out = append(out, Fact{
			Text:  fmt.Sprintf("hold %s by %s: %s %s: %q", h.Name, text.Clean(h.Spec.RequestedBy), what, until, text.Clean(h.Spec.Reason)),
			Since: &h.CreationTimestamp,
		})
	}
	return out
}
