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
	w.Devices.Holders = s.holders(r)
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

// stillFaulty says whether the node shows the fault that the incident began with; one that went and came back is another.
func (s *Snapshot) stillFaulty(r *v1alpha1.Remediation) bool {
	for _, f := range s.faults(nil) {
		if f.Code == r.Spec.Root.Code && f.Device == r.Spec.Root.Device && f.FirstSeen.Equal(&r.Spec.Root.FirstSeen) {
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
		if s.faulty() { // by a condition that somebody else writes, or a driver's taint
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
	Cancelled:   "and nothing more is done about this incident",
	NodeGone:    "the Node was deleted, or is another one of the same name; the incident ended with it",
}

// waits say what a Pending incident waits for. A reason that is not here is spelled out.
var waits = map[string]string{
	decide.ReasonBudgetExhausted:  "for a budget slot; no drain or repair until then",
	decide.ReasonNotNext:          "for its turn: other nodes go first; no drain or repair until then",
	decide.ReasonWaitingForIdle:   "until no work would be lost; no repair until then",
	decide.ReasonWaitingForWindow: "for a window of the policy; no drain or repair until then",
	decide.ReasonForeignClaim:     "for somebody else who works on this node",
	decide.ReasonNotReporting:     "until the agent reports again; nothing is done blind",
	decide.ReasonRelapsed:         "for its turn: the fault came back within probation, and the next rung is tried",
	decide.ReasonRetryApproved:    "for its turn: a human let it try once more",
	decide.ReasonActionRefused:    "for its turn: the agent refused the last action, and nothing was done",
	decide.ReasonActionWithdrawn:  "for its turn: what was asked of the agent has been taken back",
	decide.ReasonDeviceDrained:    "for the moment of the repair: no pod holds a bad device any more",
	decide.ReasonPolicyLowered:    "for the policy to allow the repair again",
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
		return s.whyCancelled(r, w)
	case Succeeded:
		return s.howItEnded(r)
	case Escalated:
		if asked := asksHuman(r, w); asked != "" {
			return "waits for a human: " + asked
		}
	case Healthy:
		if n := len(s.holds()); n > 0 {
			return meanings[Healthy] + "; held all the same"
		}
	case Probation:
		if back := s.notBack(r, w); back != "" {
			return back + "; watched, and a relapse climbs a rung"
		}
	default:
	}
	return meanings[w.State]
}

// whyCancelled says who ended an incident before its time: a human, or the policy.
func (s *Snapshot) whyCancelled(r *v1alpha1.Remediation, w *Why) string {
	who := "by a human"
	if w.Reason == decide.ReasonPolicyMovedOn {
		who = "by the policy, which no longer asked for anything about this fault"
	}
	switch {
	case !s.stillFaulty(r):
		return who + "; nothing more is done about this incident"
	case w.Reason == decide.ReasonPolicyMovedOn && s.asked() != nil:
		return who + "; the fault is still there, and rule " + s.asked().Name + " asks for something now"
	}
	return who + "; the fault is still there, and nothing is done about it"
}

// howItEnded says how an incident ended well.
func (s *Snapshot) howItEnded(r *v1alpha1.Remediation) string {
	how, left := "repaired, proved and in service", "nothing of ours is left on the node"
	if slices.ContainsFunc(r.Spec.Devices, s.keptByDriver) {
		how = "repaired and proved, but not in service before its DRA driver takes its own taint off"
	}
	if len(r.Status.Attempts) == 0 {
		how = "the fault went away without a repair"
	}
	if len(r.Status.Quarantined) > 0 || s.tainted() {
		left = "what was put on is being taken off"
	}
	return how + "; " + left
}

// asked is the first rule that asks for something about a fault of the node, by the same code with which the controller
// matches them; nil where none does.
func (s *Snapshot) asked() *v1alpha1.Rule {
	for _, f := range s.faults(nil) {
		rule, err := s.rules.Match(f, s.Node, s.Now)
		if err == nil && rule != nil && rule.Response != v1alpha1.ResponseIgnore {
			return rule
		}
	}
	return nil
}

// whyNoIncident says why nothing is done about a fault.
func (s *Snapshot) whyNoIncident(w *Why) string {
	switch {
	case w.Policy == nil:
		return "no policy governs this node, so nothing is done about it"
	case !w.Policy.Accepted:
		return "policy " + w.Policy.Name + " is not accepted, so nothing is done about it"
	}
	if rule := s.asked(); rule != nil {
		return s.whyNotOpened(rule)
	}
	var ignored []string
	for _, f := range s.faults(nil) {
		rule, err := s.rules.Match(f, s.Node, s.Now)
		switch {
		case err != nil:
			return "a rule cannot be evaluated: " + text.Clean(err.Error())
		case rule != nil && !slices.Contains(ignored, rule.Name):
			ignored = append(ignored, rule.Name)
		}
	}
	if len(ignored) > 0 {
		return "and nothing is done about it: rule " + oneOf(ignored) + " ignores it"
	}
	return "and nothing is done about it: no rule of policy " + w.Policy.Name + " matches"
}

// openSoon is how long a controller that runs may take to open an incident.
const openSoon = time.Minute

// whyNotOpened says why no incident is open about a fault that a rule asks something for.
func (s *Snapshot) whyNotOpened(rule *v1alpha1.Rule) string {
	past := s.past(nil)
	for _, f := range s.faults(nil) {
		for i := range past {
			p := &past[i]
			if f.Code == p.Spec.Root.Code && f.Device == p.Spec.Root.Device && p.Status.Phase.Over() {
				return "the fault is back after incident " + p.Name + " ended (" + Spell(string(p.Status.Phase)) + "); rule " + rule.Name + " asks for another"
			}
		}
		if s.Now.Sub(f.FirstSeen.Time) < openSoon {
			return "rule " + rule.Name + " asks for something; an incident is opened with the controller's next decision"
		}
	}
	return "rule " + rule.Name + " asks for something, and no incident is open yet: is the controller running?"
}

// humanReasons are why a human is asked. An escalated incident that waits for a budget slot, to prove what a human has
// repaired, has another reason for a while.
var humanReasons = []string{
	decide.ReasonAttemptsSpent, decide.ReasonHumanAsked, decide.ReasonRepairLimit, decide.ReasonBootLimit, decide.ReasonWaitDeadline,
	decide.ReasonDrainDeadline, decide.ReasonNotRepaired, decide.ReasonNotReporting, decide.ReasonAdopted,
}

// asksHuman is what a human is asked for.
func asksHuman(r *v1alpha1.Remediation, w *Why) string {
	if slices.Contains(humanReasons, w.Reason) {
		return w.Message
	}
	for _, e := range slices.Backward(r.Status.Timeline) {
		if e.Phase == v1alpha1.PhaseEscalated && slices.Contains(humanReasons, e.Reason) {
			return text.Clean(e.Message)
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
	g := &Governing{Name: p.Name, Generation: p.Generation, Mode: p.Spec.Mode, Governs: s.rules.Policy != nil || s.Node == nil}
	if g.Mode == "" {
		g.Mode = v1alpha1.ModeObserve
	}
	if r != nil {
		if r.Status.PolicyGeneration != 0 {
			g.Generation = r.Status.PolicyGeneration
		}
		g.Rule, g.RuleSays = s.ruleOf(r, p)
	} else {
		g.Rule, g.RuleSays = s.ruleWithout(p)
	}
	g.Accepted, g.Why = Accepted(p)
	if g.Accepted && s.rules.Policy != nil && !s.rules.Accepted {
		g.Accepted, g.Why = false, s.rules.Message
	}
	return g
}

// ruleOf is the rule that an incident follows. The controller names none before its first decision, and where no policy
// governs the node.
func (s *Snapshot) ruleOf(r *v1alpha1.Remediation, p *v1alpha1.RemediationPolicy) (name, says string) {
	rule := findRule(p, r.Status.Rule)
	if r.Status.Rule == "" && !r.Status.Phase.Over() {
		rule = s.imagine(r, p).rule
	}
	if rule == nil {
		return r.Status.Rule, ""
	}
	return rule.Name, Recite(rule)
}

// ruleWithout is the rule that a node without an incident falls under: the one that asks for something, else the first
// that its faults match.
func (s *Snapshot) ruleWithout(p *v1alpha1.RemediationPolicy) (name, says string) {
	faults := s.faults(nil)
	if len(faults) == 0 {
		return "", fmt.Sprintf("none of its %s is asked: no fault is reported", text.Count(len(p.Spec.Rules), "rule", "rules"))
	}
	rule := s.asked()
	for i := 0; i < len(faults) && rule == nil; i++ {
		if matched, err := s.rules.Match(faults[i], s.Node, s.Now); err == nil {
			rule = matched
		}
	}
	if rule == nil {
		return "", ""
	}
	return rule.Name, Recite(rule)
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
