package decide

import (
	"fmt"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/drain"
)

// gates are asked again before every disruptive act, not only before the first.
var gates = []rule{lowerThanRemediate, held, braked, foreign, notReporting}

func lowerThanRemediate(s *Snapshot) *Decision {
	r := s.rule()
	if s.mode() == v1alpha1.ModeRemediate && r != nil && r.Response == v1alpha1.ResponseRepair {
		return nil
	}
	return s.waitPending(ReasonPolicyLowered, "the policy no longer allows the repair", "mode Remediate and a rule with response Repair")
}

// closedGate is the first gate that is closed.
func (s *Snapshot) closedGate() *Decision {
	for _, g := range gates {
		if d := g(s); d != nil {
			return d
		}
	}
	return nil
}

// stopped leaves a drain as soon as a gate closes: what has not happened yet does not.
func stopped(s *Snapshot) *Decision {
	d := s.closedGate()
	if d == nil {
		return nil
	}
	back := move(v1alpha1.PhasePending, d.Reason, d.Message)
	back.WouldChange = d.WouldChange
	back.Do = Unclaim
	return back
}

// unheld goes back to Pending where claim or slot is gone, a human's hand for instance: nothing disruptive without
// both.
func unheld(s *Snapshot) *Decision {
	if s.ClaimHeld && s.SlotHeld {
		return nil
	}
	if p := s.plan(); s.status().Phase == v1alpha1.PhaseDraining && s.scope() == drain.ScopeDevice && p != nil && p.Empty() &&
		s.NextDrain() == drain.ScopeNode {
		return nil // what it was held for is done; drained says so, and gives the rest back.
	}
	d := move(v1alpha1.PhasePending, ReasonReleased, s.missing())
	d.Do = Unclaim
	return d
}

// missing says which of claim and slot is gone.
func (s *Snapshot) missing() string {
	if s.ClaimHeld {
		return "the budget slot is no longer held"
	}
	return "the claim is no longer on the node"
}

// unheldMidRepair does so by taking back what the agent was asked; what has begun is let end.
func unheldMidRepair(s *Snapshot) *Decision {
	if s.started() || s.ClaimHeld && s.SlotHeld {
		return nil
	}
	return s.withdraw(s.missing())
}

// scope is what the drain under way empties.
func (s *Snapshot) scope() drain.Scope {
	if d := s.status().Drain; d != nil && d.Scope != "" {
		return drain.Scope(d.Scope)
	}
	return drain.ScopeNode
}

// plan is what is left of the drain under way. What it has removed by force it does not wait for.
func (s *Snapshot) plan() *drain.Plan {
	p := s.planOf(s.scope())
	if means, _ := s.means(); p != nil && means.By == v1alpha1.DrainByForceDelete && s.phase() == v1alpha1.PhaseDraining {
		left := p.WithoutForced(s.Now)
		return &left
	}
	return p
}

// planOf is what a drain of this scope would do; nil where nobody has looked.
func (s *Snapshot) planOf(scope drain.Scope) *drain.Plan {
	switch scope {
	case drain.ScopeNothing:
		return &drain.Plan{}
	case drain.ScopeDevice:
		if s.NextDrain() == scope && s.closed() == nil {
			return s.RepairPlan
		}
		return s.DevicePlan
	case drain.ScopeNode:
	}
	return s.NodePlan
}

// Emptied says whether nothing is left of what the drain under way empties.
func Emptied(s *Snapshot) bool {
	p := s.plan()
	return s.status().Phase == v1alpha1.PhaseDraining && p != nil && p.Empty()
}

// drained goes on when nothing is left: on to the repair, or where that needs more to be empty than was, to the drain of
// the rest, or back to waiting for its moment.
func drained(s *Snapshot) *Decision {
	if s.handsOver() {
		return s.handOver()
	}
	if d := askHuman(s); d != nil {
		d.Do = Unclaim
		return d
	}
	r, _ := s.nextRung()
	needs := s.drainBefore(r)
	if needs.Wider(s.scope()) || needs == drain.ScopeDevice && s.closed() != nil {
		return s.widen(needs)
	}
	if needs == drain.ScopeDevice && !s.nodeTainted() {
		// From just before the reset until it is known again which name means which device.
		d := move(v1alpha1.PhaseDraining, ReasonDeviceDrained, s.deviceDrainedText()+"; no new pod until they are reset")
		d.Do, d.TaintNode = ClaimNode, true
		return d
	}
	return s.repair(r)
}

// repair writes down the attempt that comes next.
func (s *Snapshot) repair(r rung) *Decision {
	until := metav1.NewTime(s.Now.Add(r.timeout()))
	d := move(v1alpha1.PhaseRepairing, ReasonDrained, "nothing is left that the repair would kill; evidence saved")
	if r.skipped != "" {
		d.Message += " (" + r.skipped + ")"
	}
	d.Drain = s.drainStatus(s.scope(), drain.Plan{})
	d.Drain.WorkUntil = nil
	d.Evidence = true
	d.Deadline = &until.Time
	d.Step = &v1alpha1.Step{Rung: r.Name, Index: r.index, Attempt: r.attempt, Deadline: &until,
		ActionID: fmt.Sprintf("%s-%d", s.Remediation.Name, len(s.status().Attempts)+1), BootID: s.Health.Status.BootID,
		Devices: s.patients(r)}
	return d
}

// patients are the devices that an attempt is for; none where it is for the node. A reset is never for the node.
func (s *Snapshot) patients(r rung) []string {
	if s.ofNode() && r.Action != v1alpha1.RungResetDevice {
		return nil
	}
	return s.stillBad()
}

// unproved says whether the last attempt that did something left the node in a state that nothing has proved since.
func (s *Snapshot) unproved() bool {
	last := s.lastDone()
	return last != nil && last.Result != v1alpha1.AttemptRepaired
}

// lastDone is the last attempt that did something; nil where none has.
func (s *Snapshot) lastDone() *v1alpha1.Attempt {
	for i := range slices.Backward(s.status().Attempts) {
		if a := &s.status().Attempts[i]; a.Result.Done() {
			return a
		}
	}
	return nil
}

// beside counts the pods that keep a bad device from a repair that touches nothing else: those that hold it and would lose
// their work on good ones, and those of which nobody can tell whether they hold it.
func (s *Snapshot) beside() int {
	if s.DevicePlan == nil {
		return 0
	}
	return s.DevicePlan.LeftFor(drain.ReasonGoodDevices) + s.DevicePlan.Untold
}

// widen goes on from a drain to a wider one: at once where its moment has come, else by waiting for it.
func (s *Snapshot) widen(to drain.Scope) *Decision {
	text := s.deviceDrainedText()
	if s.scope() == drain.ScopeNothing {
		text = "the next rung needs more to be empty"
	}
	if to != drain.ScopeNode || s.NodePlan == nil || s.closed() != nil {
		d := move(v1alpha1.PhasePending, ReasonDeviceDrained, text)
		d.Do = Unclaim
		return d
	}
	if !s.nodeTainted() {
		d := move(v1alpha1.PhaseDraining, ReasonDeviceDrained, text)
		d.Do, d.TaintNode = ClaimNode, true
		return d
	}
	d := move(v1alpha1.PhaseDraining, ReasonDrainStarted, s.drainText(drain.ScopeNode, *s.NodePlan))
	d.Drain = s.drainBegins(drain.ScopeNode, *s.NodePlan)
	until := s.drainEnds(d.Drain)
	d.Deadline = &until
	return d
}

// asked says whether the agent has been asked for this step's action; answer is what it said.
func (s *Snapshot) asked() bool {
	return s.Health != nil && s.status().Step != nil && s.Health.Spec.Action != nil &&
		s.Health.Spec.Action.ID == s.status().Step.ActionID
}

func (s *Snapshot) answer() *v1alpha1.ActionStatus {
	if s.Health == nil || s.status().Step == nil || s.Health.Status.Action == nil ||
		s.Health.Status.Action.ID != s.status().Step.ActionID {
		return nil
	}
	return s.Health.Status.Action
}

// remedy is how far the attempt has come that the controller makes; nil before it began, or where it is the agent's.
func (s *Snapshot) remedy() *v1alpha1.RemedyStatus {
	if s.status().Step == nil {
		return nil
	}
	return s.status().Step.Remedy
}

// started says whether the attempt has begun, or may have: what has is let end.
func (s *Snapshot) started() bool {
	a := s.answer()
	return s.remedy() != nil || a != nil && a.State == v1alpha1.ActionStarted
}

// revocable says whether an attempt that has begun can be taken back all the same: others make it, and can be told to stop.
func (s *Snapshot) revocable() bool {
	switch s.rungAction() {
	case v1alpha1.RungRunJob, v1alpha1.RungExternal, v1alpha1.RungReplace:
		return s.remedy() != nil
	default:
		return false
	}
}

// rebooted goes on to the proof when the node has started anew, by our action or not.
func rebooted(s *Snapshot) *Decision {
	st := s.status()
	if st.Step == nil || s.Health == nil || s.Health.Status.BootID == "" || s.Health.Status.BootID == st.Step.BootID {
		return nil
	}
	d := move(v1alpha1.PhaseVerifying, ReasonActionDone, "the node started anew: boot "+s.Health.Status.BootID)
	if !s.asked() && s.remedy() == nil {
		d.Reason = ReasonRebootedAnyway
	}
	return s.untilVerified(d)
}

func (s *Snapshot) untilVerified(d *Decision) *Decision {
	at := s.Now.Add(s.verifyTimeout())
	d.Deadline = &at
	return d
}

// actionEnded reads the agent's answer.
func actionEnded(s *Snapshot) *Decision {
	a := s.answer()
	if a == nil || a.State != v1alpha1.ActionDone {
		return nil
	}
	if a.Result == v1alpha1.ResultSucceeded {
		return s.untilVerified(move(v1alpha1.PhaseVerifying, ReasonActionDone, "the agent reports success; to be proved"))
	}
	text := fmt.Sprintf("%s: %s", a.Reason, a.Message)
	if a.Result == v1alpha1.ResultRefused {
		return s.refused(text)
	}
	return s.climb(ReasonActionFailed, v1alpha1.AttemptResult(a.Result), text)
}

// remedyEnded reads how far the controller's own attempt has come.
func remedyEnded(s *Snapshot) *Decision {
	r := s.remedy()
	if r == nil || !r.State.Over() {
		return nil
	}
	switch r.State {
	case v1alpha1.RemedySucceeded:
		return s.untilVerified(move(v1alpha1.PhaseVerifying, ReasonActionDone, r.Message+"; to be proved"))
	case v1alpha1.RemedyRefused:
		return s.refused(r.Message)
	default:
		return s.climb(ReasonActionFailed, v1alpha1.AttemptFailed, r.Message)
	}
}

// refused ends an attempt that was not made.
func (s *Snapshot) refused(text string) *Decision {
	d := move(v1alpha1.PhasePending, ReasonActionRefused, text)
	d.Do, d.Attempt = Unclaim, s.attempt(v1alpha1.AttemptRefused, text)
	return d
}

// climb ends an attempt that did not repair, and goes on with what is empty already.
func (s *Snapshot) climb(reason string, result v1alpha1.AttemptResult, text string) *Decision {
	d := move(v1alpha1.PhaseDraining, reason, text)
	d.Drain = s.drainBegins(s.scope(), drain.Plan{})
	at := s.drainEnds(d.Drain)
	d.Deadline = &at
	d.Attempt = s.attempt(result, text)
	return d
}

func (s *Snapshot) attempt(result v1alpha1.AttemptResult, message string) *v1alpha1.Attempt {
	st := s.status().Step
	if st == nil {
		return nil
	}
	return &v1alpha1.Attempt{Rung: st.Rung, Index: st.Index, ActionID: st.ActionID, Devices: st.Devices,
		At: metav1.NewTime(s.Now), Result: result, Message: message, BurnIn: st.BurnIn}
}

// actionTooLong ends an attempt whose time is up: taken back where it has not begun, failed where it has.
func actionTooLong(s *Snapshot) *Decision {
	st := s.status()
	if st.Deadline == nil || s.Now.Before(st.Deadline.Time) {
		return nil
	}
	if !s.started() {
		return s.withdraw("the agent did not begin in time")
	}
	return s.climb(ReasonActionFailed, v1alpha1.AttemptNotRepaired, "the action did not end in time")
}

// withdraw takes the action back, raising the fence: an agent that has not begun will not. It is the only way out of
// Repairing before the agent has begun, asked or not: a cache that is behind does not show what was asked.
func (s *Snapshot) withdraw(why string) *Decision {
	d := move(v1alpha1.PhasePending, ReasonActionWithdrawn, why)
	d.Do = Withdraw
	d.Attempt = s.attempt(v1alpha1.AttemptWithdrawn, why)
	return d
}

// cancelledMidRepair takes back what has not begun; what has is let end, since nobody can stop a reboot.
func cancelledMidRepair(s *Snapshot) *Decision {
	switch {
	case !s.Remediation.Spec.Cancel:
		return nil
	case s.started() && !s.revocable():
		return running(s)
	}
	return s.withdraw("cancelled by a human")
}

// stoppedMidRepair does so for a gate that has closed.
func stoppedMidRepair(s *Snapshot) *Decision {
	d := s.closedGate()
	if d == nil || s.started() {
		return nil
	}
	return s.withdraw(d.Message)
}

// outgrown takes back what has not begun where another fault has come that asks for more: it would be made for nothing.
func outgrown(s *Snapshot) *Decision {
	st, r := s.status(), s.rule()
	if s.started() || st.Step == nil || r == nil || s.Policy.Policy == nil || s.recommendedIndex(r) <= st.Step.Index {
		return nil
	}
	return s.withdraw("another fault asks for more than " + st.Step.Rung)
}

// ask asks the agent, once the step is written down.
func ask(s *Snapshot) *Decision {
	st := s.status().Step
	if s.asked() || st == nil || s.Health == nil || s.remedy() != nil {
		return nil
	}
	def, ok := findRung(s.Policy.Policy, st.Rung)
	if !ok {
		return s.withdraw("the policy no longer has rung " + st.Rung)
	}
	if def.Action.ByAgent() && s.Health.Spec.Fence > s.status().Fence {
		return s.withdraw("it was taken back by another controller before it was asked for")
	}
	if !def.Action.ByAgent() {
		d := move(v1alpha1.PhaseRepairing, ReasonActionBegun, fmt.Sprintf("%s begun (attempt %d)", def.Action, st.Attempt))
		d.Do, d.WouldChange = BeginRemedy, remedyEnds
		return d
	}
	notAfter := s.Now.Add(min(askFor, s.status().Deadline.Sub(s.Now)))
	d := move(v1alpha1.PhaseRepairing, ReasonActionAsked, fmt.Sprintf("%s asked for (attempt %d)", def.Action, st.Attempt))
	d.Do, d.WouldChange = Ask, agentEnds
	d.Action = &v1alpha1.Action{ID: st.ActionID, Type: v1alpha1.ActionType(def.Action), BootID: st.BootID, NotAfter: metav1.NewTime(notAfter)}
	if def.Action == v1alpha1.RungResetDevice {
		d.Action.Devices = s.RepairDevices()
	}
	return d
}

// agentEnds and remedyEnds are what an action waits for.
const (
	agentEnds  = "the agent ends it, or its deadline passes"
	remedyEnds = "it ends, or its deadline passes"
)

// remedyPoll is how often it is looked how far the controller's own attempt has come.
const remedyPoll = 5 * time.Second

// running waits for the agent. What it has answered is in the NodeHealth; repeating it here would cost a write a word.
func running(s *Snapshot) *Decision {
	st := s.status()
	d := wait(v1alpha1.PhaseRepairing, poll, st.Reason, st.Message, agentEnds)
	if s.remedy() != nil {
		d.Do, d.Requeue, d.WouldChange = LookRemedy, remedyPoll, remedyEnds
	}
	if st.Deadline != nil {
		d.Requeue = min(d.Requeue, max(time.Millisecond, st.Deadline.Sub(s.Now)))
	}
	return d
}
