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
	if p := s.plan(); s.status().Phase == v1alpha1.PhaseDraining && s.scope() == drain.ScopeDevice && p != nil && p.Empty() {
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
	if d := s.status().Drain; d != nil && d.Scope == string(drain.ScopeDevice) {
		return drain.ScopeDevice
	}
	return drain.ScopeNode
}

func (s *Snapshot) plan() *drain.Plan {
	if s.scope() == drain.ScopeDevice {
		return s.DevicePlan
	}
	return s.NodePlan
}

// Emptied says whether nothing is left of what the drain under way empties.
func Emptied(s *Snapshot) bool {
	p := s.plan()
	return s.status().Phase == v1alpha1.PhaseDraining && p != nil && p.Empty()
}

// drainTooLong asks a human when a drain does not end.
func drainTooLong(s *Snapshot) *Decision {
	st := s.status()
	if p := s.plan(); p == nil || p.Empty() || st.Deadline == nil || s.Now.Before(st.Deadline.Time) {
		return nil
	}
	d := escalate(ReasonDrainDeadline, fmt.Sprintf("the drain did not end within %s: %s", span(s.drainDeadline()), s.blockersText()), wayOut)
	d.Do = Unclaim
	return d
}

// evict moves what must go, and waits for what is going.
func evict(s *Snapshot) *Decision {
	p := s.plan()
	switch {
	case p == nil:
		return wait(v1alpha1.PhaseDraining, time.Second, s.status().Reason, "the node's pods could not be listed", "the API server answers")
	case p.Empty():
		return nil
	}
	d := wait(v1alpha1.PhaseDraining, s.drainPoll(), ReasonEvicting, s.drainText(s.scope(), *p), "the pods end")
	d.Drain = s.drainStatus(s.scope(), *p)
	switch {
	case len(p.Move) > 0:
		d.Do, d.Evict = Evict, p.Move
	case len(p.Terminating) > 0:
		d.Reason, d.Progress = ReasonWaitingForPods, true
	default:
		d.Reason, d.Message = ReasonEvictionBlocked, s.blockersText()
		d.WouldChange = "a human stops the pods, or the policy's drain.classes allow it"
	}
	return d
}

// drainPoll looks often at first and less often as a drain lasts: pods are listed, not watched.
func (s *Snapshot) drainPoll() time.Duration {
	var lasted time.Duration
	if st := s.status(); st.Since != nil {
		lasted = s.Now.Sub(st.Since.Time)
	}
	return min(max(lasted/4, 300*time.Millisecond), 5*time.Second)
}

// drained goes on when nothing is left: from the devices' pods to the node's, or back to waiting for its moment, or on
// to the repair.
func drained(s *Snapshot) *Decision {
	if s.scope() == drain.ScopeDevice {
		return s.deviceDrained()
	}
	if d := askHuman(s); d != nil {
		d.Do = Unclaim
		return d
	}
	r, _ := s.nextRung()
	until := metav1.NewTime(s.Now.Add(r.timeout()))
	d := move(v1alpha1.PhaseRepairing, ReasonDrained, "nothing is left that the repair would kill; evidence saved")
	if r.skipped != "" {
		d.Message += " (" + r.skipped + ")"
	}
	d.Drain = s.drainStatus(drain.ScopeNode, drain.Plan{})
	d.Evidence = true
	d.Deadline = &until.Time
	d.Step = &v1alpha1.Step{Rung: r.Name, Index: r.index, Attempt: r.attempt, Deadline: &until,
		ActionID: fmt.Sprintf("%s-%d", s.Remediation.Name, len(s.status().Attempts)+1), BootID: s.Health.Status.BootID}
	return d
}

// unproved says whether the last attempt that did something left the node in a state that nothing has proved since.
func (s *Snapshot) unproved() bool {
	for _, a := range slices.Backward(s.status().Attempts) {
		if a.Result.Done() {
			return a.Result != v1alpha1.AttemptRepaired
		}
	}
	return false
}

func (s *Snapshot) deviceDrained() *Decision {
	text := s.deviceDrainedText()
	if s.NodePlan == nil || s.closed() != nil {
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
	d.Drain = s.drainStatus(drain.ScopeNode, *s.NodePlan)
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

func (s *Snapshot) started() bool {
	a := s.answer()
	return a != nil && a.State == v1alpha1.ActionStarted
}

// rebooted goes on to the proof when the node has started anew, by our action or not.
func rebooted(s *Snapshot) *Decision {
	st := s.status()
	if st.Step == nil || s.Health == nil || s.Health.Status.BootID == "" || s.Health.Status.BootID == st.Step.BootID {
		return nil
	}
	d := move(v1alpha1.PhaseVerifying, ReasonActionDone, "the node started anew: boot "+s.Health.Status.BootID)
	if !s.asked() {
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
	d := move(v1alpha1.PhaseDraining, ReasonActionFailed, text)
	if a.Result == v1alpha1.ResultRefused {
		d = move(v1alpha1.PhasePending, ReasonActionRefused, text)
		d.Do = Unclaim
	}
	d.Attempt = s.attempt(v1alpha1.AttemptResult(a.Result), text)
	return s.untilDrained(d)
}

func (s *Snapshot) untilDrained(d *Decision) *Decision {
	if d.Phase == v1alpha1.PhaseDraining {
		at := s.Now.Add(s.drainDeadline())
		d.Deadline = &at
		d.Drain = s.drainStatus(drain.ScopeNode, drain.Plan{})
	}
	return d
}

func (s *Snapshot) attempt(result v1alpha1.AttemptResult, message string) *v1alpha1.Attempt {
	st := s.status().Step
	if st == nil {
		return nil
	}
	return &v1alpha1.Attempt{Rung: st.Rung, Index: st.Index, ActionID: st.ActionID, At: metav1.NewTime(s.Now), Result: result, Message: message}
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
	text := "the action did not end in time"
	d := s.untilDrained(move(v1alpha1.PhaseDraining, ReasonActionFailed, text))
	d.Attempt = s.attempt(v1alpha1.AttemptNotRepaired, text)
	return d
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
	case s.started():
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

// ask asks the agent, once the step is written down.
func ask(s *Snapshot) *Decision {
	st := s.status().Step
	if s.asked() || st == nil || s.Health == nil {
		return nil
	}
	def, ok := findRung(s.Policy.Policy, st.Rung)
	if !ok {
		return s.withdraw("the policy no longer has rung " + st.Rung)
	}
	notAfter := s.Now.Add(min(askFor, s.status().Deadline.Sub(s.Now)))
	d := move(v1alpha1.PhaseRepairing, ReasonActionAsked, fmt.Sprintf("%s asked for (attempt %d)", def.Action, st.Attempt))
	d.Do, d.WouldChange = Ask, agentEnds
	d.Action = &v1alpha1.Action{ID: st.ActionID, Type: v1alpha1.ActionType(def.Action), BootID: st.BootID, NotAfter: metav1.NewTime(notAfter)}
	if def.Action == v1alpha1.RungResetDevice {
		d.Action.Devices = s.badDevices()
	}
	return d
}

// agentEnds is what an action waits for.
const agentEnds = "the agent ends it, or its deadline passes"

// running waits for the agent. What it has answered is in the NodeHealth; repeating it here would cost a write a word.
func running(s *Snapshot) *Decision {
	st := s.status()
	d := wait(v1alpha1.PhaseRepairing, poll, st.Reason, st.Message, agentEnds)
	if st.Deadline != nil {
		d.Requeue = min(poll, max(time.Millisecond, st.Deadline.Sub(s.Now)))
	}
	return d
}
