package remediation

import (
	"context"
	"fmt"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/decide"
	"github.com/roundhouse-dev/roundhouse/internal/history"
)

// apply carries out one decision: the act first, then the bookkeeping, so that a crash between them is seen and
// mended. The exceptions are the intents: spec.quarantine, status.step and the phase are written before the act that
// they announce.
func (r *Reconciler) apply(ctx context.Context, w *work, s *decide.Snapshot, d decide.Decision) (time.Duration, error) {
	w.doing = d.Do
	if err := r.mayEnd(ctx, w, s, d); err != nil {
		return 0, err
	}
	if err := r.endAttempt(ctx, w, s, d); err != nil {
		return 0, err
	}
	if err := r.withdrawRequests(ctx, w, d); err != nil {
		return 0, err
	}
	switch d.Do { // what is written where it is done
	case decide.Amend:
		return 0, r.amend(ctx, w, d)
	case decide.ClaimNode:
		return 0, r.claim(ctx, w, d)
	case decide.Free:
		return 0, r.free(ctx, w)
	case decide.Record:
		return r.record(ctx, w, s)
	default:
	}
	back, err := r.mayBegin(ctx, w, d)
	if err != nil {
		return 0, err
	}
	if back != nil {
		d = *back
	}
	st := w.rem.Status.DeepCopy()
	if err := r.act(ctx, w, s, &d, st); err != nil {
		return 0, err
	}
	if left := r.hasTime(w, d); left > 0 {
		return min(d.Requeue, left), nil
	}
	r.describe(st, s, d)
	if err := r.writeStatus(ctx, w, st); err != nil {
		return 0, err
	}
	if d.Do == decide.Quarantine || d.Do == decide.Unquarantine {
		r.sure.Store(w.rem.UID, true)
	}
	if d.Placed {
		r.seen(s)
	}
	return d.Requeue, nil
}

// act does what the status is written after.
func (r *Reconciler) act(ctx context.Context, w *work, s *decide.Snapshot, d *decide.Decision, st *v1alpha1.RemediationStatus) error {
	switch d.Do {
	case decide.Wait:
		return nil
	case decide.Move:
		return r.move(ctx, w, *d, st)
	case decide.Quarantine:
		return r.quarantine(ctx, w, s, *d, st)
	case decide.Unquarantine:
		return r.unquarantine(ctx, w, s, st)
	case decide.Unclaim:
		return r.unclaim(ctx, w, s, *d, st)
	case decide.Evict:
		return r.evict(ctx, w, s, d, st)
	case decide.Ask:
		return r.ask(ctx, w, s, *d, st)
	case decide.BeginRemedy:
		return r.beginRemedy(ctx, w, s, d, st)
	case decide.LookRemedy:
		return r.lookRemedy(ctx, w, s, d, st)
	case decide.BeginBurnIn:
		return r.beginBurnIn(ctx, w, s, d, st)
	case decide.LookBurnIn:
		return r.lookBurnIn(ctx, w, d, st)
	case decide.Withdraw:
		return r.withdraw(ctx, w, s, d, st)
	default:
		return fmt.Errorf("decision asks for unknown %q", d.Do)
	}
}

// mayBegin gives another decision where an incident would begin to act whose slot is gone. A budget that somebody has re-created since
// the slot was taken gives slots anew by the claims that it finds: the slot is only sure when it is looked for after the claim was put
// on. The claim goes before a slot is asked for again, so that no budget that is re-created once more takes it for one that acts.
//
// Nor may a relapse be believed that only a cache shows: it may be what was repaired, as it was before.
func (r *Reconciler) mayBegin(ctx context.Context, w *work, d decide.Decision) (*decide.Decision, error) {
	if w.rem.Status.Phase == v1alpha1.PhaseProbation && d.Phase == v1alpha1.PhasePending && !w.healthLive {
		if err := r.seeLive(ctx, w); err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("%w: a relapse is looked at live", errDecideAgain)
	}
	if w.rem.Status.Phase.Acting() || !d.Phase.Acting() {
		return nil, nil
	}
	held, err := r.Budgets.Begin(ctx, w.node, w.rem)
	if err != nil {
		return nil, fmt.Errorf("making sure of the budget slot: %w", err)
	}
	if held {
		return nil, nil
	}
	w.slotHeld = ptr.To(false) // to be taken anew.
	st := &w.rem.Status
	back := &decide.Decision{Do: decide.Unclaim, Phase: st.Phase, Rule: st.Rule, Reason: st.Reason, Message: st.Message, WouldChange: st.WouldChange}
	if st.Phase == "" || st.Phase == v1alpha1.PhasePending {
		back.Phase, back.Rule, back.Reason = v1alpha1.PhasePending, d.Rule, decide.ReasonReleased
		back.Message, back.WouldChange = "the budget slot is gone, and is asked for again", ""
	}
	return back, nil
}

// mayEnd fails where an incident would end on a Node that is not as it is now: what a Reconcile that was cut off has put
// on it may not be in the cache, and nobody would look for it any more. In probation nothing has been on for long.
func (r *Reconciler) mayEnd(ctx context.Context, w *work, s *decide.Snapshot, d decide.Decision) error {
	phase := w.rem.Status.Phase
	if !d.Phase.Over() || phase.Over() || phase == v1alpha1.PhaseProbation || s.Node == nil || w.nodeFresh {
		return nil
	}
	return r.unchangedNode(ctx, w)
}

// progressEvery is how often, at most, it is written how far something under way has come.
const progressEvery = 5 * time.Second

// hasTime says how long a decision may wait to be written down that only says how far something has come.
func (r *Reconciler) hasTime(w *work, d decide.Decision) time.Duration {
	told, ok := r.told.Load(w.rem.UID)
	if at, isTime := told.(time.Time); ok && isTime && d.Progress && d.Phase == w.rem.Status.Phase {
		return progressEvery - r.Clock.Since(at)
	}
	return 0
}

// describe writes a decision into a status.
func (r *Reconciler) describe(st *v1alpha1.RemediationStatus, s *decide.Snapshot, d decide.Decision) {
	now := metav1.NewTime(s.Now)
	if d.Attempt != nil {
		history.Tried(st, *d.Attempt)
	}
	changed := st.Phase != d.Phase
	if changed || st.Reason != d.Reason {
		history.Happened(st, v1alpha1.TimelineEntry{At: now, Phase: d.Phase, Reason: d.Reason, Message: cut(d.Message, maxEntry)})
	}
	if changed || (observed(st.Reason) && !observed(d.Reason)) {
		st.Since = &now
		st.Deadline = nil
	}
	if d.Deadline != nil {
		at := metav1.NewTime(*d.Deadline)
		st.Deadline = &at
	}
	if d.Phase.Acting() && st.ActingSince == nil {
		st.ActingSince = &now
	}
	if d.Step != nil {
		st.Step = d.Step
	}
	if d.Drain != nil {
		st.Drain = d.Drain
	}
	if d.Restart != nil {
		st.Restart, st.Step = d.Restart, nil
	}
	if d.Evidence {
		st.Evidence = evidence(s)
	}
	st.Phase, st.Reason, st.Rule = d.Phase, d.Reason, d.Rule
	st.Message, st.WouldChange = cut(d.Message, maxMessage), cut(d.WouldChange, maxEntry)
	if s.Policy.Policy != nil {
		st.PolicyGeneration = s.Policy.Policy.Generation
	}
}

// observed are the reasons of an incident that is only observed: its waiting has not begun.
func observed(reason string) bool {
	return reason == "" || reason == decide.ReasonModeObserve || reason == decide.ReasonNoPolicy || reason == decide.ReasonPolicyNotAccepted
}

// Bounds of the texts, as the schema has them.
const (
	maxMessage = 1024
	maxEntry   = 512
)

// cut shortens a text to at most n bytes, between two characters.
func cut(text string, n int) string {
	if len(text) <= n {
		return text
	}
	const dots = "..."
	end := 0
	for i := range text {
		if i > n-len(dots) {
			break
		}
		end = i
	}
	return text[:end] + dots
}

// writeStatus writes a status where it differs, guarded by the resourceVersion of what was decided on.
func (r *Reconciler) writeStatus(ctx context.Context, w *work, st *v1alpha1.RemediationStatus) error {
	if equality.Semantic.DeepEqual(&w.rem.Status, st) {
		return nil
	}
	before := w.rem.Status
	next := w.rem.DeepCopy()
	next.Status = *st
	w.fresh = false
	if err := r.Client.Status().Update(ctx, next); err != nil {
		return fmt.Errorf("writing remediation status: %w", err)
	}
	w.rem, w.fresh = next, true
	r.told.Store(w.rem.UID, r.Clock.Now())
	r.tell(w, before)
	return nil
}

// amend adds to the spec what joined, before anything is put on, and takes from it what has left, before that is taken off.
func (r *Reconciler) amend(ctx context.Context, w *work, d decide.Decision) error {
	next := w.rem.DeepCopy()
	next.Spec.Devices = append(next.Spec.Devices, d.Devices...)
	next.Spec.Quarantine = slices.DeleteFunc(next.Spec.Quarantine, func(q v1alpha1.QuarantineIntent) bool {
		return slices.Contains(d.Drop, q.Name)
	})
	next.Spec.Quarantine = append(next.Spec.Quarantine, d.Intents...)
	st := next.Status.DeepCopy()
	w.fresh = false
	if err := r.Client.Update(ctx, next); err != nil {
		return fmt.Errorf("adding to remediation: %w", err)
	}
	w.rem, w.fresh = next, true
	history.Happened(st, v1alpha1.TimelineEntry{At: metav1.NewTime(r.Clock.Now()), Phase: d.Phase, Reason: d.Reason, Message: cut(d.Message, maxEntry)})
	return r.writeStatus(ctx, w, st)
}
