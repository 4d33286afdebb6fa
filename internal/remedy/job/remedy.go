package job

import (
	"context"
	"fmt"
	"time"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/remedy"
)

// defaultTimeout is how long a Job may take where the rung does not say: as long as any attempt.
const defaultTimeout = 20 * time.Minute

// Remedy carries out the action RunJob.
type Remedy struct {
	Runner *Runner
}

var _ remedy.Remedy = Remedy{}

// Check says why the Job cannot be run.
func (r Remedy) Check(ctx context.Context, a remedy.Attempt) (string, error) {
	if a.Rung.Job == nil {
		return fmt.Sprintf("rung %s does not say what to run: set job", a.Rung.Name), nil
	}
	return r.Runner.Check(ctx, run(a))
}

// Begin makes the Job.
func (r Remedy) Begin(ctx context.Context, a remedy.Attempt) (remedy.Progress, error) {
	outcome, err := r.Runner.Start(ctx, run(a))
	return outcome.Progress, err
}

// Look says how far the Job has come.
func (r Remedy) Look(ctx context.Context, a remedy.Attempt) (remedy.Progress, error) {
	step := a.Remediation.Status.Step
	started := step != nil && step.Remedy != nil && step.Remedy.State == v1alpha1.RemedyRunning
	outcome, err := r.Runner.Look(ctx, run(a), started)
	return outcome.Progress, err
}

// End deletes a Job that is not over.
func (r Remedy) End(ctx context.Context, a remedy.Attempt) error { return r.Runner.End(ctx, run(a)) }

func run(a remedy.Attempt) Run {
	r := Run{ID: a.ID, Remediation: a.Remediation, Node: a.Node, Timeout: defaultTimeout}
	if job := a.Rung.Job; job != nil {
		r.Template, r.OnNode = job.PodTemplateRef.Name, job.OnNode
	}
	if a.Rung.Timeout != nil {
		r.Timeout = a.Rung.Timeout.Duration
	}
	return r
}
