package decide

import (
	"fmt"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/drain"
)

// Waits says whether a drain only waits for pods that are going, which it does not hurry: nothing is done then that another's claim
// could keep it from.
func Waits(s *Snapshot) bool {
	st := s.status()
	if st.Phase != v1alpha1.PhaseDraining || st.Deadline == nil || !s.Now.Before(st.Deadline.Time) {
		return false
	}
	p := s.plan()
	if p == nil || len(p.Terminating) == 0 || len(p.Move)+len(p.Blockers) > 0 {
		return false
	}
	means, _ := s.means()
	return len(p.Hurry(means, s.Now)) == 0
}

// drainTooLong asks a human when a drain does not end.
func drainTooLong(s *Snapshot) *Decision {
	st := s.status()
	p := s.plan()
	if p == nil || p.Empty() || st.Deadline == nil || s.Now.Before(st.Deadline.Time) || s.gateDeadline(p) != nil {
		return nil
	}
	d := escalate(ReasonDrainDeadline, fmt.Sprintf("the drain did not end within %s: %s", span(max(s.drainDeadline(), p.Gate)), s.blockersText()), wayOut)
	d.Do = Unclaim
	return d
}

// drainUntil is when a drain gives up: later where a gate that is closed may take longer.
func (s *Snapshot) drainUntil(p *drain.Plan) time.Time {
	return s.drainFrom().Add(max(s.drainDeadline(), p.Gate))
}

// gateDeadline moves the drain's deadline to that of a gate that is closed; nil where that has been done, or need not be.
func (s *Snapshot) gateDeadline(p *drain.Plan) *time.Time {
	until, st := s.drainUntil(p), s.status()
	if p.Gate <= s.drainDeadline() || st.Deadline == nil || !st.Deadline.Time.Before(until.Truncate(time.Second)) {
		return nil
	}
	return &until
}

// PodsEnd is what a drain waits for; what it does otherwise follows it.
const PodsEnd = "the pods end"

// evict moves what must go, and waits for what is going.
func evict(s *Snapshot) *Decision {
	p := s.plan()
	switch {
	case p == nil:
		return wait(v1alpha1.PhaseDraining, time.Second, s.status().Reason, "the node's pods could not be listed", "the API server answers")
	case p.Empty():
		return nil
	}
	means, next := s.means()
	d := wait(v1alpha1.PhaseDraining, s.drainPoll(), ReasonEvicting, s.drainText(s.scope(), *p), PodsEnd+s.nextMeans(next))
	d.Drain, d.Means = s.drainStatus(s.scope(), *p), means
	d.Drain.By = means.By
	d.Deadline = s.gateDeadline(p)
	hurry := p.Hurry(means, s.Now)
	move, spared := p.Spare(s.patience(), s.Now)
	d.Message += sparedText(spared)
	switch {
	case len(move)+len(hurry) > 0:
		d.Do, d.Evict = Evict, slices.Concat(hurry, move)
	case len(p.Terminating) > 0:
		d.Reason, d.Progress = ReasonWaitingForPods, means.By == s.drainBy()
	case len(spared) > 0:
		d.Reason, d.Progress = ReasonWaitingForWork, s.status().Reason == ReasonWaitingForWork
		d.WouldChange = "the work ends, or its pods say that they have kept it (annotation " + v1alpha1.AnnotationCheckpoint + ")"
	default:
		d.Reason, d.Message = ReasonEvictionBlocked, s.blockersText()
		d.WouldChange = "a human stops the pods, which no escalation does, or the policy's drain.classes allow it"
		if p.Gate > 0 {
			d.Reason, d.WouldChange = ReasonGateClosed, "the other system says so, until "+stamp(s.drainUntil(p))
		}
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

// drainFrom is when the drain under way began to stop work: its deadline and escalation count from then.
func (s *Snapshot) drainFrom() time.Time {
	from := s.drainSince()
	if until := s.leftUntil(); until.After(from) {
		return until
	}
	return from
}

// leftUntil is until when the drain under way leaves work to end; no time where it does not.
func (s *Snapshot) leftUntil() time.Time {
	if d := s.status().Drain; d != nil && d.WorkUntil != nil {
		return d.WorkUntil.Time
	}
	return time.Time{}
}

// unwaited ends a drain's patience before its time, and writes that down: pods are asked kindly from then on, and for as long as any.
// Where the rule no longer stops work when that time is over, the drain has no business on the node before it.
func unwaited(s *Snapshot) *Decision {
	if !s.Now.Before(s.leftUntil()) {
		return nil
	}
	switch {
	case s.approved(v1alpha1.ApproveSkipIdle), s.repairNow():
		d := wait(v1alpha1.PhaseDraining, time.Millisecond, ReasonDrainStarted, "work is waited for no longer: idle is skipped, or too few devices are good", PodsEnd)
		now := metav1.NewTime(s.Now)
		d.Drain = s.status().Drain.DeepCopy()
		d.Drain.WorkUntil = &now
		until := s.drainEnds(d.Drain)
		d.Deadline = &until
		return d
	case s.workUntil() == nil:
		d := move(v1alpha1.PhasePending, ReasonWaitingForIdle, "the rule no longer begins by force when its wait is over")
		d.Do, d.Drain = Unclaim, s.unhurried()
		return d
	}
	return nil
}

// unhurried is the status of the drain without the time until which it leaves work: what comes next has another.
func (s *Snapshot) unhurried() *v1alpha1.DrainStatus {
	d := s.status().Drain.DeepCopy()
	if d != nil {
		d.WorkUntil = nil
	}
	return d
}

// drainEnds is the deadline of a drain that begins now.
func (s *Snapshot) drainEnds(st *v1alpha1.DrainStatus) time.Time {
	from := s.Now
	if st.WorkUntil != nil && st.WorkUntil.After(from) {
		from = st.WorkUntil.Time
	}
	return from.Add(s.drainDeadline())
}

// patience is how long the drain under way leaves pods that would lose work. What runs on a bad device is not left there.
func (s *Snapshot) patience() drain.Patience {
	p := drain.Patience{Until: s.leftUntil(), From: s.drainFrom()}
	if policy := s.Policy.Policy; policy != nil && policy.Spec.Drain != nil && policy.Spec.Drain.Checkpoint != nil {
		p.Checkpoint = policy.Spec.Drain.Checkpoint.Duration
	}
	if s.movesDevices() && s.DevicePlan != nil {
		p.Except = map[types.UID]bool{}
		for i := range s.DevicePlan.Move {
			p.Except[s.DevicePlan.Move[i].Pod.UID] = true
		}
	}
	return p
}

// drainSince is when the drain under way began.
func (s *Snapshot) drainSince() time.Time {
	st := s.status()
	switch {
	case st.Drain != nil && st.Drain.Since != nil:
		return st.Drain.Since.Time
	case st.Since != nil:
		return st.Since.Time
	}
	return s.Now
}

// forcedAt is when a wait ends by force: when it would have before something else kept the node from its drain for a while.
func (s *Snapshot) forcedAt() time.Time {
	if at := s.leftUntil(); !at.IsZero() {
		return at
	}
	return s.waitDeadline()
}

// workUntil is when a wait ends by force, from which on work is stopped: known from the rule's refillStop before it on, and as long
// as the drain lasts that began since.
func (s *Snapshot) workUntil() *metav1.Time {
	r := s.rule()
	if r == nil || r.When == "" || r.When == v1alpha1.WhenNow || r.AtDeadline != v1alpha1.DeadlineForce {
		return nil
	}
	switch s.phase() {
	case v1alpha1.PhasePending:
		at, from := s.forcedAt(), time.Duration(0)
		if r.RefillStop != nil {
			from = r.RefillStop.Duration
		}
		if s.Now.Before(at.Add(-from)) {
			return nil
		}
		until := metav1.NewTime(at)
		return &until
	case v1alpha1.PhaseDraining:
		if d := s.status().Drain; d != nil {
			return d.WorkUntil
		}
	default:
	}
	return nil
}
