package explain

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/cli/text"
	"github.com/roundhouse-dev/roundhouse/internal/decide"
	"github.com/roundhouse-dev/roundhouse/internal/policy"
)

// recent is how long an incident that is over still explains a node's state, where nothing else is wrong.
const recent = 24 * time.Hour

// Explain answers for one node.
func Explain(s Snapshot) Why {
	w := Why{APIVersion: Version, Kind: "Why", Node: s.Name, At: metav1.NewTime(s.Now)}
	if s.Node != nil {
		s.rules = policy.Compile(s.Policies).For(s.Node)
	}
	r := s.current()
	if r != nil && r.Status.Phase.Over() && !s.explains(r) {
		r = nil
	}
	if r != nil {
		w.Remediation, w.Phase, w.Since = r.Name, r.Status.Phase, entered(r)
		if w.Phase == "" {
			w.Phase = v1alpha1.PhasePending // written by the controller with the first decision
		}
		w.Reason, w.Message, w.WouldChange = r.Status.Reason, text.Clean(r.Status.Message), text.Clean(r.Status.WouldChange)
	}
	w.State = s.state(r)
	w.Policy = s.governing(r)
	w.Devices = s.devices(r)
	w.Meaning = s.meaning(r, &w)
	s.see(r, &w)
	s.lookAhead(r, &w)
	w.History = s.history(r)
	w.StopIt = s.stopIt(r)
	return w
}

// explains says whether an incident that is over is still what there is to say: its node is gone, its fault is still
// there, or it has only just ended.
func (s *Snapshot) explains(r *v1alpha1.Remediation) bool {
	if s.Node == nil || r.Spec.NodeUID != string(s.Node.UID) {
		return s.Node == nil
	}
	if r.Status.Phase == v1alpha1.PhaseCancelled && s.stillFaulty(r) {
		return true
	}
	since := entered(r)
	return !s.faulty() && since != nil && s.Now.Sub(since.Time) <= recent
}

func (s *Snapshot) faulty() bool {
	return s.Health != nil && s.Health.Status.Summary == v1alpha1.SummaryFaulty || len(s.faults(nil)) > 0
}

// stillFaulty says whether the node shows the fault that the incident began with.
func (s *Snapshot) stillFaulty(r *v1alpha1.Remediation) bool {
	for _, f := range s.faults(nil) {
		if f.Code == r.Spec.Root.Code && f.Device == r.Spec.Root.Device {
			return true
		}
	}
	return false
}

func (s *Snapshot) state(r *v1alpha1.Remediation) State {
	if r == nil {
		return s.stateWithoutIncident()
	}
	if r.Status.Phase != v1alpha1.PhasePending && r.Status.Phase != "" {
		return State(r.Status.Phase)
	}
	switch r.Status.Reason {
	case decide.ReasonModeObserve, decide.ReasonNoPolicy, decide.ReasonPolicyNotAccepted:
		return Observing
	case decide.ReasonHeld:
		return Held
	case decide.ReasonBrakeHolding:
		return Braked
	}
	return Waiting
}

func (s *Snapshot) stateWithoutIncident() State {
	if s.Node == nil {
		return NoSuchNode
	}
	if s.Health == nil || s.Health.Status.Summary == "" {
		return NoAgent
	}
	if fresh, _ := s.reporting(); !fresh {
		return Unknown
	}
	switch s.Health.Status.Summary {
	case v1alpha1.SummaryHealthy:
		if s.faulty() { // by a condition that somebody else writes
			return Faulty
		}
		return Healthy
	case v1alpha1.SummaryFaulty:
		return Faulty
	case v1alpha1.SummaryUnknown, v1alpha1.SummaryActing:
	}
	return Unknown
}

// meanings say what a state means where nothing more can be said than that.
var meanings = map[State]string{
	Healthy:     "in service; every check passes and no incident is open",
	Unknown:     "in service, but nobody can see its health; nothing disruptive follows from that",
	NoAgent:     "no agent reports from this node, so nothing is seen and nothing is done",
	NoSuchNode:  "the cluster has no node of this name, and no incident of one is remembered",
	Observing:   "only; nothing is touched",
	Held:        "by a human; no drain or repair begins until the hold ends",
	Braked:      "too many nodes show this fault at once for it to be the hardware; no drain or repair until the brake lets go",
	Quarantined: "new work is kept off; running work is left alone and no repair is asked for",
	Draining:    "work is being moved away, then the repair begins",
	Repairing:   "the agent has been asked to act",
	Verifying:   "the repair is done and is being proved",
	Probation:   "back in service and watched; a relapse climbs a rung",
	Escalated:   "waits for a human",
	Succeeded:   "repaired, proved and in service; nothing of ours is left on the node",
	Cancelled:   "by a human; nothing more is done about this incident",
	NodeGone:    "the Node was deleted, or is another one of the same name; the incident ended with it",
}

// waits say what a Pending incident waits for. A reason that is not here is spelled out.
var waits = map[string]string{
	decide.ReasonBudgetExhausted:  "for a budget slot; no drain or repair until then",
	decide.ReasonWaitingForIdle:   "until no work would be lost; no repair until then",
	decide.ReasonWaitingForWindow: "for a window of the policy; no drain or repair until then",
	decide.ReasonForeignClaim:     "for somebody else who works on this node",
	decide.ReasonNotReporting:     "until the agent reports again; nothing is done blind",
	decide.ReasonFaultsReported:   "for the first decision",
	"":                            "for the first decision",
}

func (s *Snapshot) meaning(r *v1alpha1.Remediation, w *Why) string {
	switch w.State {
	case Waiting:
		if said, ok := waits[w.Reason]; ok {
			return said
		}
		return "for: " + Spell(w.Reason)
	case Observing:
		switch w.Reason {
		case decide.ReasonNoPolicy:
			return "only: no policy governs this node; nothing is touched"
		case decide.ReasonPolicyNotAccepted:
			return "only: the policy is not accepted; nothing is touched"
		}
		return "only: the policy's mode is Observe; nothing is touched"
	case Faulty:
		return s.whyNoIncident(w)
	case Cancelled:
		if s.stillFaulty(r) {
			return "by a human; the fault is still there, and nothing is done about it"
		}
	case Succeeded:
		if len(r.Status.Attempts) == 0 {
			return "the fault went away without a repair; nothing of ours is left on the node"
		}
	case Escalated:
		if rung := s.human(r, w); rung != "" {
			return "waits for a human: " + rung
		}
	case Healthy:
		if n := len(s.holds()); n > 0 {
			return meanings[Healthy] + "; held all the same"
		}
	default:
	}
	return meanings[w.State]
}

// whyNoIncident says why nothing is done about a fault: by the same code with which the controller matches rules.
func (s *Snapshot) whyNoIncident(w *Why) string {
	switch {
	case w.Policy == nil:
		return "no policy governs this node, so nothing is done about it"
	case !w.Policy.Accepted:
		return "policy " + w.Policy.Name + " is not accepted, so nothing is done about it"
	}
	var ignored []string
	for _, f := range s.faults(nil) {
		rule, err := s.rules.Match(f, s.Node, s.Now)
		switch {
		case err != nil:
			return "a rule cannot be evaluated: " + text.Clean(err.Error())
		case rule == nil:
			continue
		case rule.Response != v1alpha1.ResponseIgnore:
			return "rule " + rule.Name + " asks for something, and no incident is open yet: is the controller running?"
		case !slices.Contains(ignored, rule.Name):
			ignored = append(ignored, rule.Name)
		}
	}
	if len(ignored) > 0 {
		return "and nothing is done about it: rule " + oneOf(ignored) + " ignores it"
	}
	return "and nothing is done about it: no rule of policy " + w.Policy.Name + " matches"
}

// human is what the rung that ends the ladder asks of a human.
func (s *Snapshot) human(r *v1alpha1.Remediation, w *Why) string {
	if r.Status.Step != nil {
		if rung := findRung(s.policyOf(r), r.Status.Step.Rung); rung != nil && rung.Message != "" {
			return text.Clean(rung.Message)
		}
	}
	return w.Message
}

// policyOf is the policy that an incident follows, else the one that governs the node.
func (s *Snapshot) policyOf(r *v1alpha1.Remediation) *v1alpha1.RemediationPolicy {
	if r == nil || s.rules.Policy != nil {
		return s.rules.Policy
	}
	for i := range s.Policies {
		if s.Policies[i].Name == r.Spec.Policy {
			return &s.Policies[i]
		}
	}
	return nil
}

func (s *Snapshot) governing(r *v1alpha1.Remediation) *Governing {
	p := s.policyOf(r)
	if p == nil {
		return nil
	}
	g := &Governing{Name: p.Name, Generation: p.Generation, Mode: p.Spec.Mode, Accepted: true}
	if g.Mode == "" {
		g.Mode = v1alpha1.ModeObserve
	}
	if r != nil {
		g.Rule = r.Status.Rule
		if r.Status.PolicyGeneration != 0 {
			g.Generation = r.Status.PolicyGeneration
		}
		if rule := findRule(p, r.Status.Rule); rule != nil {
			g.RuleSays = Recite(rule)
		}
	}
	g.Accepted, g.Why = Accepted(p)
	if g.Accepted && s.rules.Policy != nil && !s.rules.Accepted {
		g.Accepted, g.Why = false, s.rules.Message
	}
	return g
}

// Accepted says whether a policy is followed, and if not, why not. One that the controller has not judged yet is not.
func Accepted(p *v1alpha1.RemediationPolicy) (bool, string) {
	for _, c := range p.Status.Conditions {
		if c.Type != v1alpha1.ConditionAccepted {
			continue
		}
		if c.Status == metav1.ConditionTrue {
			return true, ""
		}
		return false, strings.TrimSuffix(fmt.Sprintf("%s: %s", c.Reason, text.Clean(c.Message)), ": ")
	}
	return false, "the controller has not judged it yet"
}

// Spell turns a reason in CamelCase into words, "BudgetExhausted" into "budget exhausted".
func Spell(reason string) string {
	var out strings.Builder
	for i, c := range reason {
		if unicode.IsUpper(c) && i > 0 {
			out.WriteByte(' ')
		}
		out.WriteRune(unicode.ToLower(c))
	}
	return out.String()
}
