package remediation

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/decide"
	"github.com/roundhouse-dev/roundhouse/internal/remedy"
	"github.com/roundhouse-dev/roundhouse/internal/remedy/operands"
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
	if err := r.mayAct(ctx, w, s); err != nil {
		return err
	}
	if err := r.stillHeld(ctx, w); err != nil {
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
	a, how, gone := r.attemptOf(w, s)
	progress := remedy.Failed(gone)
	if gone == "" {
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

// endAttempt takes away what an attempt has put anywhere, before the incident goes on. Where that fails for long it goes on
// all the same: nobody is to wait for ever.
func (r *Reconciler) endAttempt(ctx context.Context, w *work, s *decide.Snapshot, d decide.Decision) error {
	st := &w.rem.Status
	if st.Phase == d.Phase || st.Step == nil {
		return nil
	}
	var err error
	switch st.Phase {
	case v1alpha1.PhaseRepairing:
		err = errors.Join(r.endRemedy(ctx, w, s), r.putBack(ctx, w))
	case v1alpha1.PhaseVerifying:
		err = r.endBurnIn(ctx, w)
	default:
	}
	if err != nil && st.Deadline != nil && s.Now.After(st.Deadline.Add(endPatience)) {
		ctrl.LoggerFrom(ctx).Error(err, "Something of an attempt is left", "attempt", st.Step.ActionID, "rung", st.Step.Rung)
		return nil
	}
	return err
}

func (r *Reconciler) endRemedy(ctx context.Context, w *work, s *decide.Snapshot) error {
	if w.rem.Status.Step.Remedy == nil {
		return nil
	}
	a, how, gone := r.attemptOf(w, s)
	if gone != "" {
		return nil
	}
	if err := how.End(ctx, a); err != nil {
		return fmt.Errorf("ending %s: %w", a.Rung.Name, err)
	}
	return nil
}

// Operands are the GPU operator's parts on a node: package operands.
type Operands interface {
	Check(ctx context.Context, node *corev1.Node, rem *v1alpha1.Remediation) (string, error)
	Pause(ctx context.Context, node *corev1.Node, by string) (waiting []string, err error)
	Resume(ctx context.Context, node *corev1.Node, by string) error
}

// pause takes the GPU operator's parts off the node, and fails until they have gone. Where that is not allowed, or they
// would not come back, the agent is asked all the same: it refuses while something holds the device, and names it.
func (r *Reconciler) pause(ctx context.Context, w *work) error {
	if r.Operands == nil {
		return nil
	}
	why, err := r.Operands.Check(ctx, w.node, w.rem)
	if err != nil {
		return fmt.Errorf("looking at the GPU operator's parts: %w", err)
	}
	if why != "" {
		ctrl.LoggerFrom(ctx).Info("The GPU operator's parts are left on the node", "node", w.name, "because", why)
		return nil
	}
	w.nodeFresh = false
	waiting, err := r.Operands.Pause(ctx, w.node, operands.By(w.rem))
	if err != nil {
		return fmt.Errorf("pausing the GPU operator's parts: %w", err)
	}
	if len(waiting) > 0 {
		return fmt.Errorf("%w: %s", errWaiting, strings.Join(waiting, ", "))
	}
	return nil
}

// errWaiting says that something has to go before an act, which is looked at again.
var errWaiting = errors.New("waiting for pods to go")

// waitingPoll is how often.
const waitingPoll = 2 * time.Second

// putBack puts the GPU operator's parts back that were paused for this incident. The cache may not show that they were.
func (r *Reconciler) putBack(ctx context.Context, w *work) error {
	if r.Operands == nil || w.node == nil {
		return nil
	}
	by, paused := operands.PausedBy(w.node)
	asked := w.health != nil && w.health.Spec.Action != nil && w.health.Spec.Action.Type == v1alpha1.ActionResetDevice
	if !asked && (!paused || by != operands.By(w.rem)) {
		return nil
	}
	w.nodeFresh = false
	if err := r.Operands.Resume(ctx, w.node, operands.By(w.rem)); err != nil {
		return fmt.Errorf("putting the GPU operator's parts back: %w", err)
	}
	return nil
}
