package remediation

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/decide"
	"github.com/roundhouse-dev/roundhouse/internal/remedy"
)

// actWithin is how soon after the word Begun the act must follow. No fence of ours guards what is not in the API: a leader
// that was frozen in between finds that its time has gone, and leaves it.
const actWithin = 10 * time.Second

// endPatience is how long after an attempt's deadline it is tried to take away what it has put anywhere.
const endPatience = 10 * time.Minute

// attemptOf is the attempt under way as a remedy needs it, and the remedy, or why there is none.
func (r *Reconciler) attemptOf(w *work, s *decide.Snapshot) (remedy.Attempt, remedy.Remedy, string) {
	step := w.rem.Status.Step
	a := remedy.Attempt{Remediation: w.rem, Node: w.node}
	if a.Node == nil {
		a.Node = &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: w.rem.Spec.Node}}
	}
	if step == nil {
		return a, nil, "no attempt is under way"
	}
	a.ID = remedy.Label(step.ActionID)
	switch {
	case step.Remedy != nil:
		a.Rung = step.Remedy.Rung
	case s.Policy.Policy != nil:
		i := slices.IndexFunc(s.Policy.Policy.Spec.Rungs, func(r v1alpha1.Rung) bool { return r.Name == step.Rung })
		if i >= 0 {
			a.Rung = s.Policy.Policy.Spec.Rungs[i]
		}
	}
	how, ok := r.Remedies[a.Rung.Action]
	if !ok {
		return a, nil, fmt.Sprintf("this controller cannot do rung %q (action %q)", step.Rung, a.Rung.Action)
	}
	return a, how, ""
}

// beginRemedy makes an attempt. What it needs is looked at first; then the word Begun is written over exactly the incident
// that was decided on, and only then is anything done.
func (r *Reconciler) beginRemedy(ctx context.Context, w *work, s *decide.Snapshot, d *decide.Decision, st *v1alpha1.RemediationStatus) error {
	if err := r.guard(ctx, w, s); err != nil {
		return err
	}
	if err := r.stillHeld(ctx, w); err != nil {
		return err
	}
	if err := r.unchangedNode(ctx, w); err != nil {
		return err
	}
	a, how, refusal := r.attemptOf(w, s)
	if refusal == "" {
		var err error
		if refusal, err = how.Check(ctx, a); err != nil {
			return fmt.Errorf("looking whether %s can be done: %w", a.Rung.Name, err)
		}
	}
	if refusal != "" {
		r.advance(st, a.Rung, remedy.Refused(refusal))
		d.Requeue = 0
		return nil
	}
	r.advance(st, a.Rung, remedy.Progress{State: v1alpha1.RemedyBegun})
	r.describe(st, s, *d)
	if err := r.writeStatus(ctx, w, st); err != nil {
		return err
	}
	if r.Clock.Since(s.Now) > actWithin {
		return errDecideAgain
	}
	r.Metrics.ActionsAsked.WithLabelValues(string(a.Rung.Action)).Inc()
	progress, err := how.Begin(ctx, a)
	if err != nil {
		return fmt.Errorf("beginning %s: %w", a.Rung.Name, err)
	}
	r.advance(st, a.Rung, progress)
	return nil
}

// lookRemedy looks how far an attempt has come.
func (r *Reconciler) lookRemedy(ctx context.Context, w *work, s *decide.Snapshot, d *decide.Decision, st *v1alpha1.RemediationStatus) error {
	progress := remedy.Progress{}
	a, how, gone := r.attemptOf(w, s)
	if gone != "" {
		progress = remedy.Failed(gone)
	} else {
		var err error
		if progress, err = how.Look(ctx, a); err != nil {
			return fmt.Errorf("looking how far %s has come: %w", a.Rung.Name, err)
		}
	}
	r.advance(st, a.Rung, progress)
	if progress.State.Over() {
		d.Requeue = 0
	}
	return nil
}

// advance writes an attempt's progress into a status. The step is copied: the one before is what the server has.
func (r *Reconciler) advance(st *v1alpha1.RemediationStatus, rung v1alpha1.Rung, p remedy.Progress) {
	now := metav1.NewTime(r.Clock.Now())
	step := st.Step.DeepCopy()
	if step.Remedy == nil {
		step.Remedy = &v1alpha1.RemedyStatus{Rung: rung, Begun: now}
	}
	step.Remedy.State, step.Remedy.Message = p.State, cut(p.Message, maxEntry)
	if p.State.Over() {
		step.Remedy.Finished = &now
	}
	st.Step = step
}

// endRemedy takes away what an attempt has put anywhere, before the incident goes on. Where that fails for long it goes on
// all the same: nobody is to wait for ever.
func (r *Reconciler) endRemedy(ctx context.Context, w *work, s *decide.Snapshot, d decide.Decision) error {
	st := &w.rem.Status
	if st.Phase != v1alpha1.PhaseRepairing || d.Phase == v1alpha1.PhaseRepairing || st.Step == nil || st.Step.Remedy == nil {
		return nil
	}
	a, how, gone := r.attemptOf(w, s)
	if gone != "" {
		return nil
	}
	err := how.End(ctx, a)
	if err == nil {
		return nil
	}
	if st.Deadline != nil && s.Now.After(st.Deadline.Add(endPatience)) {
		ctrl.LoggerFrom(ctx).Error(err, "Something of an attempt is left", "attempt", a.ID, "rung", a.Rung.Name)
		return nil
	}
	return fmt.Errorf("ending %s: %w", a.Rung.Name, err)
}
