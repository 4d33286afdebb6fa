package decide

import (
	"slices"
	"time"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

// A rule looks at a snapshot and either decides or passes.
type rule func(*Snapshot) *Decision

// Next says what happens next to an incident. It always decides; a snapshot that no rule speaks to waits.
func Next(s *Snapshot) Decision {
	phase := s.status().Phase
	for _, r := range rulesOf(phase) {
		if d := r(s); d != nil {
			return s.finish(*d)
		}
	}
	return s.finish(*wait(phase, poll, s.status().Reason, s.status().Message, s.status().WouldChange))
}

// poll is how often an incident is looked at when nothing is known to change; watches make it sooner.
const poll = 30 * time.Second

// rulesOf lists a phase's rules in the order in which they are asked. Read them as: unless the node is gone, unless a
// human cancelled, unless the fault is gone, ...
func rulesOf(phase v1alpha1.Phase) []rule {
	switch phase {
	case "", v1alpha1.PhasePending:
		return []rule{
			nodeGone, cancelled, lowered, adopted, cleared, policyMovedOn, relapsedWaiting, join, widerThanNeeded, quarantine, untaint, observe, quarantineOnly,
			scheduled, askHuman, held, braked, foreign, notReporting, moveDevicePods, moment, beginRepair,
		}
	case v1alpha1.PhaseQuarantined:
		return []rule{nodeGone, cancelled, cleared, policyMovedOn, lowered, join, widerThanNeeded, quarantine, untaint, letGo, raised, watchOn}
	case v1alpha1.PhaseDraining:
		return []rule{
			nodeGone, cancelled, cleared, policyMovedOn, stopped, unheld, join, widerThanNeeded, quarantine, unwaited, drainTooLong, evict, drained,
		}
	case v1alpha1.PhaseRepairing:
		return []rule{nodeGone, rebooted, remedyEnded, actionEnded, actionTooLong, cancelledMidRepair, stoppedMidRepair, unheldMidRepair, outgrown, keepOutMeanwhile, ask, running}
	case v1alpha1.PhaseVerifying:
		return []rule{nodeGone, cancelled, requarantine, keepOutMeanwhile, proved, disproved, verifyTooLong, verifying}
	case v1alpha1.PhaseProbation:
		return []rule{nodeGone, cancelled, letGo, relapsed, probationOver, watchOn}
	case v1alpha1.PhaseEscalated:
		return []rule{nodeGone, cancelled, lowered, replaced, join, widerThanNeeded, keepOut, untaint, letGoUnlessOut, retryApproved, watchOn}
	default:
		return []rule{tidy, record}
	}
}

// finish fills in what every decision says.
func (s *Snapshot) finish(d Decision) Decision {
	if d.Phase == "" {
		d.Phase = v1alpha1.PhasePending
	}
	if d.Rule == "" {
		d.Rule = s.status().Rule
		if r := s.rule(); r != nil {
			d.Rule = r.Name
		}
	}
	// Whatever takes the claim off, a node that nothing has proved fit stays out.
	if (d.Do == Unclaim || d.Do == Withdraw) && s.unproved() && s.nodeTainted() && !s.resolved() {
		d.KeepTaint = true
	}
	return d
}

// nodeGone ends an incident whose Node was deleted, or is another one of the same name: it inherits nothing.
func nodeGone(s *Snapshot) *Decision {
	if s.Node != nil {
		return nil
	}
	d := move(v1alpha1.PhaseNodeGone, ReasonNodeGone, "the Node "+s.Remediation.Spec.Node+" was deleted, or is another one of the same name")
	if s.remedy() != nil && s.rungAction() == v1alpha1.RungReplace {
		d.Message = "the Node " + s.Remediation.Spec.Node + " is gone, as it was to be replaced"
		d.Attempt = s.attempt(v1alpha1.AttemptRepaired, d.Message)
	}
	return d
}

// cancelled ends an incident on a human's word: what has not happened yet does not, and what was put on comes off.
func cancelled(s *Snapshot) *Decision {
	if !s.Remediation.Spec.Cancel {
		return nil
	}
	return s.end(v1alpha1.PhaseCancelled, ReasonCancelled, "cancelled by a human; what was put on is taken off")
}

// end takes off what is on and changes the phase with it.
func (s *Snapshot) end(phase v1alpha1.Phase, reason, message string) *Decision {
	d := move(phase, reason, message)
	if s.anythingOn() {
		d.Do = Unquarantine
	}
	return d
}

// anythingOn says whether something of this incident's is, or may be, on the node or its devices.
func (s *Snapshot) anythingOn() bool {
	return len(s.status().Quarantined) > 0 || s.ClaimHeld || s.nodeTainted() || (s.Unsure && len(s.unlisted()) > 0)
}

// nodeTainted says whether the node carries this incident's taint.
func (s *Snapshot) nodeTainted() bool {
	if s.Node == nil {
		return false
	}
	for _, t := range s.Node.Spec.Taints {
		if t.Key == v1alpha1.TaintQuarantined && t.Value == s.Remediation.Name {
			return true
		}
	}
	return false
}

// cleared ends an incident whose faults went away by themselves. Blindness is not health: the agent's word must be
// fresh, except for a condition that somebody else writes on the Node. What an attempt has left behind is proved first.
func cleared(s *Snapshot) *Decision {
	if len(s.ours()) > 0 || s.rootStillThere() || !s.canSeeClear() {
		return nil
	}
	switch {
	case s.mode() == v1alpha1.ModeObserve:
	case s.burnInStands():
		return nil
	case s.unproved():
		return s.prove()
	}
	return s.end(v1alpha1.PhaseSucceeded, ReasonFaultCleared, s.notBackYet("the fault is gone without a repair"))
}

// rootStillThere says whether the fault the incident began with is reported, under whatever rule.
func (s *Snapshot) rootStillThere() bool {
	root := s.Remediation.Spec.Root
	return slices.ContainsFunc(s.Faults, func(m Matched) bool {
		return m.Fault.Code == root.Code && m.Fault.Device == root.Device
	})
}

// canSeeClear says whether the absence of faults can be believed.
func (s *Snapshot) canSeeClear() bool {
	if s.Remediation.Spec.Root.Check == v1alpha1.CheckNodeCondition && len(s.badDevices()) == 0 {
		return true
	}
	return s.Reporting && s.Health != nil && s.Health.Status.CompletedRound != nil &&
		s.Health.Status.CompletedRound.BootID == s.Health.Status.BootID
}

// policyMovedOn ends an incident about faults that no rule asks anything for any more. A policy that is missing or not
// accepted says nothing: the incident stays, observed.
func policyMovedOn(s *Snapshot) *Decision {
	if s.Policy.Policy == nil || !s.Policy.Accepted || !s.rootStillThere() || len(s.ours()) > 0 {
		return nil
	}
	return s.end(v1alpha1.PhaseCancelled, ReasonPolicyMovedOn,
		"policy "+s.Policy.Policy.Name+" no longer asks for anything about this fault")
}

// lowered takes everything off where the policy no longer allows even quarantine. Where nothing is known to be on, it is
// only made sure of.
func lowered(s *Snapshot) *Decision {
	if s.mode() != v1alpha1.ModeObserve || !s.anythingOn() {
		return nil
	}
	if len(s.status().Quarantined) == 0 && !s.ClaimHeld && !s.nodeTainted() {
		d := observe(s)
		d.Do, d.Requeue = Unquarantine, 0
		return d
	}
	d := s.end(v1alpha1.PhasePending, ReasonPolicyLowered, "the node is only observed now; what was put on is taken off")
	return d
}

// keepReason are the phases that rest for a reason of their own, whatever is put on meanwhile.
var keepReason = []v1alpha1.Phase{v1alpha1.PhaseQuarantined, v1alpha1.PhaseRepairing, v1alpha1.PhaseVerifying, v1alpha1.PhaseEscalated}

// quarantine puts on what is intended and not on yet, or not where it belongs any more, and takes off what a device no
// longer needs. A phase that rests keeps the reason that it rests for.
func quarantine(s *Snapshot) *Decision {
	misplaced, ended := Misplaced(s), s.ended()
	if s.mode() == v1alpha1.ModeObserve || s.heldFrom(v1alpha1.HoldEverything) != nil || len(s.missingQuarantine())+len(misplaced)+len(ended) == 0 {
		return nil
	}
	st := s.status()
	d := move(s.phase(), ReasonDeviceQuarantined, s.alsoByDriver(s.quarantineText()))
	switch {
	case slices.Contains(keepReason, st.Phase):
		d.Reason, d.Message, d.WouldChange = st.Reason, st.Message, st.WouldChange
	case !s.deviceScoped():
		d.Reason = ReasonNodeQuarantined
	}
	d.Do, d.Intents, d.TakeOff, d.Release, d.Placed = Quarantine, s.needed(), misplaced, ended, s.Rules != nil || !s.rulesOn()
	return d
}

// requarantine puts on anew what is not where it belongs any more.
func requarantine(s *Snapshot) *Decision {
	if len(Misplaced(s)) == 0 {
		return nil
	}
	return quarantine(s)
}

// keepOutMeanwhile keeps out what fails while something else is repaired, where the node is not kept out for that.
func keepOutMeanwhile(s *Snapshot) *Decision {
	if s.nodeTainted() || s.mode() == v1alpha1.ModeObserve {
		return nil
	}
	if d := join(s); d != nil {
		return d
	}
	return quarantine(s)
}

// keepOut puts on what an incident that waits for a human lacks: a device that joined, or all of it where a hold kept it
// from being put on. Where no fault is known any more only what was on stays.
func keepOut(s *Snapshot) *Decision {
	if len(s.ours()) == 0 {
		return requarantine(s)
	}
	return quarantine(s)
}

func (s *Snapshot) phase() v1alpha1.Phase {
	if p := s.status().Phase; p != "" {
		return p
	}
	return v1alpha1.PhasePending
}

// observe explains and does nothing.
func observe(s *Snapshot) *Decision {
	if s.mode() != v1alpha1.ModeObserve {
		return nil
	}
	reason, change := ReasonModeObserve, "mode Quarantine or Remediate in the node's policy"
	message := "observing only; " + s.wouldDo()
	switch {
	case s.Policy.Policy == nil:
		reason, message = ReasonNoPolicy, "no policy governs this node, so it is observed"
		change = "a RemediationPolicy that selects the node"
	case !s.Policy.Accepted:
		reason, message = ReasonPolicyNotAccepted, "the node is observed: "+s.Policy.Why
		change = "a valid policy, without a tie of priorities"
	}
	return s.waitPending(reason, message, change)
}

// quarantineOnly leaves it at quarantine where mode or rule say so.
func quarantineOnly(s *Snapshot) *Decision {
	r := s.rule()
	if r == nil || (s.mode() == v1alpha1.ModeRemediate && r.Response == v1alpha1.ResponseRepair) {
		return nil
	}
	why := "policy " + s.Policy.Policy.Name + " is in mode Quarantine"
	if r.Planned && r.Response == v1alpha1.ResponseRepair {
		return s.waitPending(ReasonQuarantineOnly, "planned work waits: "+why, "mode Remediate in the node's policy")
	}
	if r.Response == v1alpha1.ResponseQuarantine {
		why = "rule " + r.Name + " quarantines and does not repair"
	}
	d := move(v1alpha1.PhaseQuarantined, ReasonQuarantineOnly, why)
	d.WouldChange = "mode Remediate and a rule with response Repair, or the fault's end"
	return d
}

// raised goes on to repair when the policy allows it now.
func raised(s *Snapshot) *Decision {
	r := s.rule()
	if r == nil || s.mode() != v1alpha1.ModeRemediate || r.Response != v1alpha1.ResponseRepair {
		return nil
	}
	return move(v1alpha1.PhasePending, ReasonFaultsReported, "policy "+s.Policy.Policy.Name+" allows the repair now")
}

// watchOn keeps the reason that the phase was entered with.
func watchOn(s *Snapshot) *Decision {
	st := s.status()
	d := wait(st.Phase, poll, st.Reason, said(st.Message), st.WouldChange)
	if st.Deadline != nil {
		d.Requeue = min(poll, max(time.Millisecond, st.Deadline.Sub(s.Now)))
	}
	return d
}

// letGo gives back what a phase that does not act has no right to.
func letGo(s *Snapshot) *Decision {
	st := s.status()
	switch {
	case st.Phase == v1alpha1.PhaseProbation && s.Unsure && len(s.unlisted()) > 0:
		// What a step that was overtaken has put on after the proof would stay on for good.
		return &Decision{Do: Unquarantine, Phase: st.Phase, Reason: st.Reason, Message: st.Message, WouldChange: st.WouldChange}
	case s.ClaimHeld || (st.Phase == v1alpha1.PhaseProbation && s.nodeTainted()):
		return &Decision{Do: Unclaim, Phase: st.Phase, Reason: st.Reason, Message: st.Message, WouldChange: st.WouldChange}
	case s.SlotHeld:
		return &Decision{Do: Free, Phase: st.Phase, Reason: st.Reason, Message: st.Message, WouldChange: st.WouldChange}
	}
	return nil
}

// letGoUnlessOut does so too, but a node that is kept out as a whole goes on counting against its budgets.
func letGoUnlessOut(s *Snapshot) *Decision {
	if s.nodeTainted() && !s.ClaimHeld {
		return nil
	}
	return letGo(s)
}

// tidy takes off whatever an incident that is over has left on.
func tidy(s *Snapshot) *Decision {
	st := s.status()
	d := &Decision{Phase: st.Phase, Reason: st.Reason, Message: st.Message}
	switch {
	case s.anythingOn():
		d.Do = Unquarantine
	case s.SlotHeld:
		d.Do = Free
	default:
		return nil
	}
	return d
}

// record remembers what an incident that is over was, and lets go of the object.
func record(s *Snapshot) *Decision {
	st := s.status()
	return &Decision{Do: Record, Phase: st.Phase, Reason: st.Reason, Message: st.Message, Requeue: poll}
}
