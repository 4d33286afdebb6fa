package decide

import (
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/drain"
)

// waitPending waits in Pending. A claim or a slot that was taken before a gate closed is given back first: nobody is
// blocked by one who waits.
func (s *Snapshot) waitPending(reason, message, wouldChange string) *Decision {
	d := wait(v1alpha1.PhasePending, poll, reason, message, wouldChange)
	switch {
	case s.ClaimHeld:
		d.Do, d.Requeue = Unclaim, 0
	case s.SlotHeld:
		d.Do, d.Requeue = Free, 0
	case s.mode() == v1alpha1.ModeRemediate && reason != ReasonHeld:
		return s.untilDeadline(d)
	}
	return d
}

// untilDeadline gives a wait its end: every wait has a deadline, and names the human it then waits for.
func (s *Snapshot) untilDeadline(d *Decision) *Decision {
	at := s.waitDeadline()
	if s.Now.Before(at) {
		d.Deadline = &at
		d.Requeue = min(d.Requeue, max(time.Millisecond, at.Sub(s.Now)))
		return d
	}
	return escalate(ReasonWaitDeadline, "waited as long as the rule allows: "+d.Message, d.WouldChange)
}

func escalate(reason, message, wouldChange string) *Decision {
	d := move(v1alpha1.PhaseEscalated, reason, message)
	d.WouldChange = wouldChange
	return d
}

// wayOut is what changes an escalated incident.
const wayOut = "the part replaced; kubectl roundhouse approve NODE --retry; or kubectl roundhouse release NODE"

// askHuman escalates where no rung is left, or where the same hardware was repaired or the node started too often.
func askHuman(s *Snapshot) *Decision {
	r, ok := s.nextRung()
	switch {
	case s.handsOver():
		return nil // that is what its drain ends with.
	case !ok:
		return escalate(ReasonAttemptsSpent, "no rung of the ladder is left"+because(r.skipped), wayOut)
	case r.human() && s.tried():
		return escalate(ReasonAttemptsSpent, r.Message, wayOut)
	case r.human():
		return escalate(ReasonHumanAsked, r.Message+because(r.skipped), wayOut)
	}
	if reason, message := s.limit(r); reason != "" && !Planned(s) {
		return escalate(reason, message, wayOut)
	}
	return nil
}

func because(why string) string {
	if why == "" {
		return ""
	}
	return " (" + why + ")"
}

// held waits while a human holds the node.
func held(s *Snapshot) *Decision {
	h := s.heldFrom(v1alpha1.HoldDisruption)
	if h == nil {
		return nil
	}
	until := "until it is deleted"
	if h.Spec.Until != nil {
		until = "until " + h.Spec.Until.UTC().Format(time.RFC3339)
	}
	return s.waitPending(ReasonHeld, fmt.Sprintf("held by %s %s: %s", h.Spec.RequestedBy, until, h.Spec.Reason),
		"RemediationHold "+h.Name+" deleted or lapsed")
}

// Held says whether a hold in force keeps disruption from the node.
func Held(s *Snapshot) bool { return s.heldFrom(v1alpha1.HoldDisruption) != nil }

// heldFrom is the first hold in force that keeps something of this kind from happening. Everything includes Disruption.
func (s *Snapshot) heldFrom(kind v1alpha1.HoldKind) *v1alpha1.RemediationHold {
	for i := range s.Holds {
		h := &s.Holds[i]
		lapsed := h.Spec.Until != nil && !s.Now.Before(h.Spec.Until.Time)
		if !lapsed && (kind == v1alpha1.HoldDisruption || h.Spec.Holds == kind) {
			return h
		}
	}
	return nil
}

// braked waits while too many nodes show the same fault: then it is rarely the hardware.
func braked(s *Snapshot) *Decision {
	b := s.Policy.Brake
	if b == nil || b.State != v1alpha1.BrakeHolding {
		return nil
	}
	return s.waitPending(ReasonBrakeHolding,
		fmt.Sprintf("the brake holds: %d nodes show %s at once", b.Nodes, b.Signature), b.ReleaseWhen)
}

// foreign waits while somebody else works on the node.
func foreign(s *Snapshot) *Decision {
	if len(s.Foreign) == 0 {
		return nil
	}
	c := s.Foreign[0]
	return s.waitPending(ReasonForeignClaim, fmt.Sprintf("%s is working on the node: %s", c.By, c.What), c.By+" lets go of the node")
}

// notReporting waits while the agent's word is not fresh: nothing disruptive follows from blindness.
func notReporting(s *Snapshot) *Decision {
	if s.Reporting {
		return nil
	}
	return s.waitPending(ReasonNotReporting, "the agent's word is not fresh: "+s.NotReportingWhy, "the agent reports again")
}

// moveDevicePods moves the pods that hold a bad device, without waiting for the rest of the node: they run on broken
// hardware already.
func moveDevicePods(s *Snapshot) *Decision {
	if !s.movesDevices() || s.DevicePlan == nil || len(s.DevicePlan.Move)+len(s.DevicePlan.Terminating) == 0 {
		return nil
	}
	return s.begin(drain.ScopeDevice, *s.DevicePlan)
}

// moment waits for idle or a window where the rule asks for it.
func moment(s *Snapshot) *Decision {
	if s.NodePlan == nil || s.planOf(s.NextDrain()) == nil {
		return s.waitPending(ReasonWaitingForIdle, "the node's pods could not be listed", "the API server answers")
	}
	if why := s.closed(); why != nil {
		d := s.waitPending(why.Reason, why.Message, why.WouldChange)
		if d.Do == Wait && d.Phase == v1alpha1.PhasePending {
			d.Drain = s.drainStatus(drain.ScopeNode, *s.NodePlan)
			d.Requeue = min(d.Requeue, idlePoll)
		}
		return d
	}
	return nil
}

// idlePoll is how often a node is looked at for idleness; pods are not watched.
const idlePoll = 10 * time.Second

// closed says why the moment has not come, or nil where it has.
func (s *Snapshot) closed() *Refusal {
	r := s.rule()
	switch {
	case r == nil || r.When == "" || r.When == v1alpha1.WhenNow || s.repairNow():
		return nil
	case s.untouching(), s.workUntil() != nil: // the rest of a wait that ends by force is the drain's.
		return nil
	case r.When == v1alpha1.WhenWindow && !s.Policy.WindowOpen && !s.approved(v1alpha1.ApproveSkipWindow):
		return &Refusal{Reason: ReasonWaitingForWindow, Message: "waiting for a window; the next opens " + stamp(s.Policy.NextWindow),
			WouldChange: "kubectl roundhouse approve " + s.Remediation.Spec.Node + " --skip-window"}
	case r.When == v1alpha1.WhenIdle && s.toEmpty() != nil && !s.toEmpty().Idle() && !s.approved(v1alpha1.ApproveSkipIdle):
		return &Refusal{Reason: ReasonWaitingForIdle, Message: s.idleText(*s.toEmpty()),
			WouldChange: "the jobs end, or kubectl roundhouse approve " + s.Remediation.Spec.Node + " --skip-idle"}
	}
	return nil
}

// untouching says whether the next rung touches nothing that still works: it has no moment to wait for.
func (s *Snapshot) untouching() bool {
	to := s.NextDrain()
	return to == drain.ScopeNothing || to == drain.ScopeDevice && s.beside() == 0
}

// toEmpty is what has to be emptied for the next rung.
func (s *Snapshot) toEmpty() *drain.Plan {
	if s.NextDrain() == drain.ScopeDevice {
		return s.RepairPlan
	}
	return s.NodePlan
}

func (s *Snapshot) approved(what v1alpha1.ApprovalKind) bool {
	for _, a := range s.Remediation.Spec.Approvals {
		if a.What == what && s.Now.Before(a.Until.Time) {
			return true
		}
	}
	return false
}

// beginRepair begins to empty what the next rung needs to be empty.
func beginRepair(s *Snapshot) *Decision {
	scope := s.NextDrain()
	return s.begin(scope, *s.planOf(scope))
}

// begin takes slot, then claim, then starts: each its own step, so that each is seen before the next.
func (s *Snapshot) begin(scope drain.Scope, plan drain.Plan) *Decision {
	switch {
	case s.Refused != nil:
		return s.waitPending(s.Refused.Reason, s.Refused.Message, s.Refused.WouldChange)
	case !s.SlotHeld || !s.SlotSure:
		d := move(v1alpha1.PhasePending, ReasonBudgetTaken, "every budget that selects the node gave a slot")
		d.Do, d.Empties = Reserve, &plan
		return d
	case !s.ClaimHeld || (s.refills(scope) && !s.nodeTainted()):
		d := move(v1alpha1.PhasePending, ReasonClaimed, "the claim is on the node")
		d.Do, d.TaintNode = ClaimNode, s.refills(scope)
		return d
	}
	d := move(v1alpha1.PhaseDraining, ReasonDrainStarted, s.drainText(scope, plan))
	d.Drain = s.drainBegins(scope, plan)
	until := s.drainEnds(d.Drain)
	d.Deadline = &until
	return d
}

// refills says whether new pods could come to what a drain empties, unless the node is tainted: to the whole node, or to
// good devices that can only be reset with a bad one.
func (s *Snapshot) refills(scope drain.Scope) bool {
	return scope == drain.ScopeNode || scope == drain.ScopeDevice && len(s.RepairDevices()) > len(s.stillBad())
}

// drainBegins is the status of a drain that begins now: pods are asked kindly first.
func (s *Snapshot) drainBegins(scope drain.Scope, plan drain.Plan) *v1alpha1.DrainStatus {
	st, now := s.drainStatus(scope, plan), metav1.NewTime(s.Now)
	st.Since, st.By, st.WorkUntil = &now, "", nil
	if !s.repairNow() && !s.approved(v1alpha1.ApproveSkipIdle) {
		st.WorkUntil = s.workUntil()
	}
	return st
}

func (s *Snapshot) drainStatus(scope drain.Scope, plan drain.Plan) *v1alpha1.DrainStatus {
	st := &v1alpha1.DrainStatus{Scope: string(scope), PodsLeft: int32(plan.PodsLeft()), WorkAtRisk: drain.Risk(plan.AtRisk),
		Blockers: plan.Blockers}
	old := s.status().Drain
	if old == nil {
		return st
	}
	st.PodsMoved = old.PodsMoved
	if old.Scope == st.Scope {
		st.Since, st.By, st.WorkUntil = old.Since, old.By, old.WorkUntil
	}
	return st
}
