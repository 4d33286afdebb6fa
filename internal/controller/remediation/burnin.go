package remediation

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/decide"
	"github.com/roundhouse-dev/roundhouse/internal/occupancy"
	"github.com/roundhouse-dev/roundhouse/internal/remedy"
	"github.com/roundhouse-dev/roundhouse/internal/remedy/job"
)

// BurnIns runs the Jobs that prove repairs: package job.
type BurnIns interface {
	Check(ctx context.Context, run job.Run) (string, error)
	Start(ctx context.Context, run job.Run) (job.Outcome, error)
	Look(ctx context.Context, run job.Run, started bool) (job.Outcome, error)
	End(ctx context.Context, run job.Run) error
}

// beginBurnIn makes the Job of a burn-in, in the order of beginRemedy: it is looked whether it can be made, written down, and
// only then made.
func (r *Reconciler) beginBurnIn(ctx context.Context, w *work, s *decide.Snapshot, d *decide.Decision, st *v1alpha1.RemediationStatus) error {
	if err := r.guard(ctx, w, s); err != nil {
		return err
	}
	run := d.BurnIn.DeepCopy()
	run.ID = remedy.Label(run.ID)
	refusal := run.Message // what can be told without asking
	switch {
	case refusal != "":
	case r.BurnIns == nil:
		refusal = "this controller runs no Jobs"
	default:
		var err error
		if refusal, err = r.BurnIns.Check(ctx, burnInJob(w, *run)); err != nil {
			return fmt.Errorf("looking whether burn-in %s can be run: %w", run.ID, err)
		}
	}
	if refusal != "" {
		if before := st.Step.BurnIn; before != nil { // refused before: its time goes on.
			run.Begun, d.Deadline = before.Begun, nil
		}
		r.burns(st, *run, job.Outcome{Progress: remedy.Refused(refusal)})
		return nil
	}
	r.burns(st, *run, job.Outcome{Progress: remedy.Progress{State: v1alpha1.RemedyBegun}})
	r.describe(st, s, *d)
	if err := r.writeStatus(ctx, w, st); err != nil {
		return err
	}
	if r.Clock.Since(s.Now) > actWithin {
		return errDecideAgain
	}
	outcome, err := r.BurnIns.Start(ctx, burnInJob(w, *run))
	if err != nil {
		return fmt.Errorf("beginning burn-in %s: %w", run.ID, err)
	}
	r.burns(st, *run, outcome)
	return nil
}

// lookBurnIn looks how far a burn-in has come.
func (r *Reconciler) lookBurnIn(ctx context.Context, w *work, d *decide.Decision, st *v1alpha1.RemediationStatus) error {
	run := st.Step.BurnIn
	outcome := job.Outcome{Progress: remedy.Failed("this controller runs no Jobs")}
	if r.BurnIns != nil {
		var err error
		if outcome, err = r.BurnIns.Look(ctx, burnInJob(w, *run), run.State == v1alpha1.RemedyRunning); err != nil {
			return fmt.Errorf("looking how far burn-in %s has come: %w", run.ID, err)
		}
	}
	r.burns(st, *run, outcome)
	if outcome.State.Over() {
		d.Requeue = 0
	}
	return nil
}

// burns writes a burn-in's progress into a status. That it ran is remembered: a Job that runs out of time loses its pod.
func (r *Reconciler) burns(st *v1alpha1.RemediationStatus, run v1alpha1.BurnInRun, o job.Outcome) {
	run.State, run.Message, run.Log = o.State, cut(o.Message, maxEntry), o.Log
	run.Ran = (run.Ran || o.Ran) && !o.Lost
	if o.State.Over() && o.State != v1alpha1.RemedyRefused {
		now := metav1.NewTime(r.Clock.Now())
		run.Finished = &now
	}
	step := st.Step.DeepCopy()
	step.BurnIn = &run
	st.Step = step
}

// endBurnIn deletes the Job of a burn-in that is not over, and gives its devices back.
func (r *Reconciler) endBurnIn(ctx context.Context, w *work) error {
	run := w.rem.Status.Step.BurnIn
	if run == nil || r.BurnIns == nil {
		return nil
	}
	err := r.BurnIns.End(ctx, burnInJob(w, *run))
	if err != nil && run.State == v1alpha1.RemedyRefused {
		// Where it may not be made it may not be looked for either. What is there all the same ends by its own deadline.
		ctrl.LoggerFrom(ctx).Error(err, "Looking whether something is left of a burn-in that was refused", "burnIn", run.ID)
		return nil
	}
	if err != nil {
		return fmt.Errorf("ending burn-in %s: %w", run.ID, err)
	}
	return nil
}

// burnInJob is the Job of a burn-in.
func burnInJob(w *work, run v1alpha1.BurnInRun) job.Run {
	j := job.Run{ID: run.ID, Remediation: w.rem, Node: w.node, OnNode: true, Template: run.BurnIn.PodTemplateRef.Name,
		Timeout: decide.BurnInTimeout(run.BurnIn)}
	if j.Node == nil {
		j.Node = &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: w.rem.Spec.Node}}
	}
	switch {
	case len(run.Devices) == 0:
	case run.Driver == "":
		j.Devices = &job.Devices{Visible: run.Devices}
	default:
		j.Devices = &job.Devices{}
		for _, id := range run.Devices {
			j.Devices.Claimed = append(j.Devices.Claimed, job.Claimed{Class: run.BurnIn.DeviceClassName, Driver: run.Driver,
				Attribute: occupancy.AttributeUUID, Value: id})
		}
	}
	return j
}
