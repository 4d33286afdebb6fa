package decide

import (
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/drain"
)

// missingProof says what the proof of a repair still lacks, or nothing where it is complete.
func (s *Snapshot) missingProof() string {
	st := s.status()
	switch {
	case s.Health == nil:
		return "the node has no NodeHealth"
	case !s.Reporting:
		return "the agent does not report: " + s.NotReportingWhy
	}
	h := s.Health.Status
	round := h.CompletedRound
	switch {
	case st.Step != nil && st.Step.ActionID != "" && startsAnew(s.rungAction()) && h.BootID == st.Step.BootID:
		return "the node has not started anew"
	case round == nil || round.BootID != h.BootID:
		return "no round of checks is complete in this boot"
	case s.roundBefore():
		return "no round of checks is complete after the action"
	}
	if ours := s.ours(); len(ours) > 0 {
		if ours[0].Fault.Check == v1alpha1.CheckDeviceTaint {
			return ours[0].Fault.Evidence + " is still on " + s.what(ours[0].Fault.Device)
		}
		return fmt.Sprintf("%s is still reported on %s", ours[0].Fault.Code, s.what(ours[0].Fault.Device))
	}
	return s.unhealthyDevice()
}

// startsAnew says whether an action's proof is another boot.
func startsAnew(a v1alpha1.RungAction) bool {
	return a == v1alpha1.RungReboot || a == v1alpha1.RungPowerCycle
}

// roundBefore says whether the last round of checks was before the end of what the agent was asked.
func (s *Snapshot) roundBefore() bool {
	r := s.Health.Status.CompletedRound
	return s.answer() != nil && (r == nil || r.AfterAction != s.status().Step.ActionID)
}

func (s *Snapshot) rungAction() v1alpha1.RungAction {
	if r := s.remedy(); r != nil {
		return r.Rung.Action
	}
	if s.status().Step == nil || s.Policy.Policy == nil {
		return ""
	}
	def, _ := findRung(s.Policy.Policy, s.status().Step.Rung)
	return def.Action
}

// unhealthyDevice names the first device of the incident that is not back. Where nobody knows why the node was kept out, it
// may have been any of them.
func (s *Snapshot) unhealthyDevice() string {
	if s.Health == nil {
		return ""
	}
	anyOf := s.Remediation.Spec.Root.Check == CheckAdoption && len(s.badDevices()) == 0
	for _, d := range s.Health.Status.Devices {
		if d.Health == v1alpha1.DeviceMissing || (d.Health != v1alpha1.DeviceHealthy && (anyOf || s.isBad(d.ID))) {
			return fmt.Sprintf("%s is %s", s.what(d.ID), d.Health)
		}
	}
	return ""
}

// settled says whether the node has been looked at for as long as the policy asks, since it was first looked at whole.
func (s *Snapshot) settled() (bool, time.Duration) {
	from := s.status().Since.Time
	if r := s.Health.Status.CompletedRound; r != nil && r.At.After(from) {
		from = r.At.Time
	}
	left := from.Add(s.settle()).Sub(s.Now)
	return left <= 0, left
}

// proved returns the node to service.
func proved(s *Snapshot) *Decision {
	if s.missingProof() != "" {
		return nil
	}
	if ok, left := s.settled(); !ok {
		d := wait(v1alpha1.PhaseVerifying, max(time.Millisecond, left), ReasonVerifying,
			fmt.Sprintf("the fault is gone; watched for %s", span(s.settle())), "the fault comes back")
		d.Progress = true
		return d
	}
	if s.onlyPlanned() {
		return maintenanceDone(s)
	}
	if d := underLoad(s); d != nil {
		return d
	}
	until := s.Now.Add(s.probation())
	d := move(v1alpha1.PhaseProbation, ReasonVerified, s.notBackYet(s.provedText()))
	d.WouldChange = "a relapse before " + stamp(until)
	d.Do, d.Deadline = Unquarantine, &until
	d.Attempt = s.attempt(v1alpha1.AttemptRepaired, s.provedText())
	return d
}

// disproved climbs when the node was looked at whole and the fault is there.
func disproved(s *Snapshot) *Decision {
	if s.Health == nil || !s.Reporting || len(slices.DeleteFunc(s.ours(), s.outdated)) == 0 || s.Health.Status.CompletedRound == nil ||
		s.Health.Status.CompletedRound.BootID != s.Health.Status.BootID || s.roundBefore() {
		return nil
	}
	if ok, _ := s.settled(); !ok {
		return nil
	}
	return s.notRepaired(s.missingProof())
}

// verifyTooLong climbs when the proof does not come. Where the agent is silent nobody can act through it: a human is
// asked, and the node stays out.
func verifyTooLong(s *Snapshot) *Decision {
	st := s.status()
	if st.Deadline == nil || s.Now.Before(st.Deadline.Time) {
		return nil
	}
	d := s.notRepaired("no proof in time: " + s.missingProof())
	if !s.Reporting {
		attempt := d.Attempt
		d = escalate(ReasonNotRepaired, d.Message, wayOut)
		d.Do, d.KeepTaint, d.Attempt = Unclaim, true, attempt
	}
	return d
}

func (s *Snapshot) notRepaired(why string) *Decision {
	return s.climb(ReasonNotRepaired, v1alpha1.AttemptNotRepaired, why)
}

func verifying(s *Snapshot) *Decision {
	st := s.status()
	d := wait(v1alpha1.PhaseVerifying, poll, ReasonVerifying, "to be proved: "+s.missingProof(), "the proof is complete, or its deadline passes")
	d.Progress = true
	if st.Deadline != nil {
		d.Requeue = min(poll, max(time.Millisecond, st.Deadline.Sub(s.Now)))
	}
	return d
}

// relapsed begins anew when a fault comes back within probation, one rung higher; for another device, at the rung that its
// fault recommends.
func relapsed(s *Snapshot) *Decision {
	m, ok := s.lead()
	if !ok {
		return nil
	}
	d := move(v1alpha1.PhasePending, ReasonRelapsed, fmt.Sprintf("%s on %s within probation", m.Fault.Code, s.what(m.Fault.Device)))
	last := s.lastAttempt()
	if last != nil && !s.failedAgain(*last) {
		d.Reason = ReasonFaultJoined
		return d
	}
	if last != nil && last.Result == v1alpha1.AttemptRepaired {
		again := *last
		again.Result, again.Message = v1alpha1.AttemptRelapsed, d.Message
		d.Attempt = &again
	}
	return d
}

// failedAgain says whether what an attempt repaired is bad again: for one that was for the node, also a device that was bad
// with it.
func (s *Snapshot) failedAgain(a v1alpha1.Attempt) bool {
	return s.concerns(a) || len(a.Devices) == 0 && slices.ContainsFunc(faultyDevices(s.ours()), s.isBad)
}

// relapsedWaiting notes that what was repaired last has failed again while another fault is waited with.
func relapsedWaiting(s *Snapshot) *Decision {
	last := s.lastAttempt()
	if last == nil || last.Result != v1alpha1.AttemptRepaired || len(s.ours()) == 0 || !s.concerns(*last) {
		return nil
	}
	again := *last
	again.Result, again.Message = v1alpha1.AttemptRelapsed, "failed again before its probation was over"
	d := move(s.phase(), ReasonRelapsed, again.Message)
	d.Attempt = &again
	return d
}

func (s *Snapshot) lastAttempt() *v1alpha1.Attempt {
	a := s.status().Attempts
	if len(a) == 0 {
		return nil
	}
	return &a[len(a)-1]
}

// probationOver ends an incident well, where it can be seen that the fault has stayed away. One that nobody can see for as
// long as a wait lasts is a human's.
func probationOver(s *Snapshot) *Decision {
	st := s.status()
	if st.Deadline != nil && s.Now.Before(st.Deadline.Time) {
		return nil
	}
	if !s.Reporting {
		text := "probation is over, and the agent's word is not fresh: " + s.NotReportingWhy
		if st.Deadline != nil && !s.Now.Before(st.Deadline.Add(defaultWaitDeadline)) {
			return escalate(ReasonNotReporting, text, wayOut)
		}
		return wait(v1alpha1.PhaseProbation, poll, ReasonNotReporting, text, "the agent reports again")
	}
	return s.end(v1alpha1.PhaseSucceeded, ReasonProbationClean, s.notBackYet("no relapse within "+span(s.probation())))
}

// retryApproved begins the ladder anew on a human's word, once a word.
func retryApproved(s *Snapshot) *Decision {
	for _, a := range s.Remediation.Spec.Approvals {
		used := s.status().Restart != nil && !a.Until.After(s.status().Restart.ApprovedUntil.Time)
		if a.What == v1alpha1.ApproveRetry && s.Now.Before(a.Until.Time) && !used {
			d := move(v1alpha1.PhasePending, ReasonRetryApproved, "retry approved by "+a.By)
			d.Restart, d.Drain = &v1alpha1.Restart{At: metav1.NewTime(s.Now), ApprovedUntil: a.Until}, s.unhurried()
			return d
		}
	}
	return nil
}

// replaced goes on to the proof when the faults of an escalated incident are gone: the part was replaced, or somebody
// repaired it.
func replaced(s *Snapshot) *Decision {
	if len(s.ours()) > 0 || !s.canSeeClear() || s.burnInStands() {
		return nil
	}
	return s.prove()
}

// proofWaits goes between why an incident rests and what keeps it from being proved that it need not any more.
const proofWaits = "; the fault is gone, and the proof waits: "

// said is why an incident rests, without what its proof has waited for.
func said(message string) string {
	before, _, _ := strings.Cut(message, proofWaits)
	return before
}

// prove goes on to the proof when no fault is left and every device is back. It needs claim and slot like any other; while
// they are waited for, what is on is looked after.
func (s *Snapshot) prove() *Decision {
	if s.unhealthyDevice() != "" {
		return nil
	}
	if d := requarantine(s); d != nil {
		return d
	}
	st := s.status()
	d := &Decision{Phase: s.phase(), Reason: st.Reason, Message: st.Message, WouldChange: st.WouldChange}
	switch {
	case s.Refused != nil && s.phase() == v1alpha1.PhasePending:
		return s.waitPending(s.Refused.Reason, s.Refused.Message, s.Refused.WouldChange)
	case s.Refused != nil:
		// It rests for the same reason as before, a human's most of all.
		return wait(s.phase(), poll, st.Reason, said(st.Message)+proofWaits+s.Refused.Message, st.WouldChange)
	case !s.SlotHeld || !s.SlotSure:
		d.Do, d.Empties = Reserve, &drain.Plan{} // nothing is moved by a proof.
		return d
	case !s.ClaimHeld:
		d.Do, d.TaintNode = ClaimNode, s.nodeTainted()
		return d
	}
	v := s.untilVerified(move(v1alpha1.PhaseVerifying, ReasonFaultCleared, "the fault is gone; to be proved"))
	v.Step = &v1alpha1.Step{}
	return v
}
