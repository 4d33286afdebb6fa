// Package job runs a Job for an incident: the action RunJob, and the burn-in that proves a repair.
//
// The Job is made from a PodTemplate in the controller's namespace, where it also runs, under one service account. It is
// named after the attempt, so that whoever asks once more finds it. A Job that is over stays until its time to live ends,
// for its logs; its claim on a device does not.
package job

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/remedy"
)

// keepFor is how long a Job that is over stays: long enough to look into its logs the next morning.
const keepFor = 24 * time.Hour

// notLeading is what config/admission/jobs.yaml answers a controller that does not lead.
const notLeading = "this controller does not lead"

// Runner runs Jobs in one namespace. Live reads the server itself, not a cache.
type Runner struct {
	Client client.Client
	Live   client.Reader
	// Logs reads what a pod has written; nil reads nothing.
	Logs Logs
	// Namespace is the controller's.
	Namespace string
	// ServiceAccount is what all Jobs run as.
	ServiceAccount string
}

// Outcome is how far a Job has come.
type Outcome struct {
	remedy.Progress
	// Ran says that a container of it has run, as far as its pod still tells; Lost that others deleted or evicted it. One that never
	// ran, or is lost, says nothing about the node.
	Ran, Lost bool
	// Log is the end of what the Job has written, at most MaxLog bytes, once it is over: the evidence. Where it could not
	// be read, it says why.
	Log string
}

// Check says why the Job cannot be run, or "" where it can. The server is asked to make it without keeping it, so that what a
// quota or an admission policy has against it is known too.
func (r *Runner) Check(ctx context.Context, run Run) (string, error) {
	template, refusal, err := r.template(ctx, run)
	if err != nil || refusal != "" {
		return refusal, err
	}
	err = r.Client.Create(ctx, build(template, r.ServiceAccount, run), client.DryRunAll)
	if apierrors.IsAlreadyExists(err) {
		return "", nil
	}
	return r.refused("Job", err)
}

// Start makes the Job, and its claim. Asked once more for the same run it finds them, and makes what is missing.
func (r *Runner) Start(ctx context.Context, run Run) (Outcome, error) {
	template, refusal, err := r.template(ctx, run)
	if err != nil || refusal != "" {
		return Outcome{Progress: remedy.Refused(refusal)}, err
	}
	made := build(template, r.ServiceAccount, run)
	err = r.Client.Create(ctx, made)
	if apierrors.IsAlreadyExists(err) {
		if made, err = r.get(ctx, run); err == nil && made == nil {
			err = errors.New("it was there a moment ago")
		}
		if err == nil && !metav1.IsControlledBy(made, run.Remediation) {
			return Outcome{Progress: remedy.Failed(fmt.Sprintf("a Job %s/%s is there that is not this incident's", r.Namespace, run.ID))}, nil
		}
	}
	if refusal, err := r.refused("Job", err); err != nil || refusal != "" {
		return Outcome{Progress: remedy.Refused(refusal)}, err
	}
	// The pod waits for the claim. A claim for a Job that is over would only hold a device.
	if asked := claim(made, run); asked != nil && over(made) == nil {
		err := r.Client.Create(ctx, asked)
		if apierrors.IsAlreadyExists(err) {
			err = nil
		}
		if refusal, err := r.refused("ResourceClaim", err); err != nil || refusal != "" {
			return Outcome{Progress: remedy.Refused(refusal)}, err
		}
	}
	return r.judge(ctx, made)
}

// Look says how far the Job has come. started says that Start is known to have returned: a Job that is not there then was
// deleted by somebody. Otherwise a controller may have ended before it made the Job, and it is made.
func (r *Runner) Look(ctx context.Context, run Run, started bool) (Outcome, error) {
	if !started {
		return r.Start(ctx, run)
	}
	found, err := r.get(ctx, run)
	if err != nil {
		return Outcome{}, err
	}
	if found == nil || !metav1.IsControlledBy(found, run.Remediation) {
		return Outcome{Progress: remedy.Failed(fmt.Sprintf("Job %s/%s is gone: somebody deleted it", r.Namespace, run.ID)), Lost: true}, nil
	}
	return r.judge(ctx, found)
}

// End deletes a Job that is not over, with its pods, and the claim in any case. A Job that is over keeps its logs until its
// time to live ends. It may be called when there is nothing to delete.
func (r *Runner) End(ctx context.Context, run Run) error {
	found, err := r.get(ctx, run)
	if err != nil {
		return err
	}
	if found != nil && metav1.IsControlledBy(found, run.Remediation) && over(found) == nil {
		err := r.Client.Delete(ctx, found, client.Preconditions{UID: &found.UID}, client.PropagationPolicy(metav1.DeletePropagationBackground))
		if err != nil && !gone(err) {
			return fmt.Errorf("deleting job: %w", err)
		}
	}
	if run.Devices == nil || len(run.Devices.Claimed) == 0 {
		return nil
	}
	held := &resourcev1.ResourceClaim{}
	err = r.Live.Get(ctx, r.key(run.ID), held)
	if apierrors.IsNotFound(err) || (err == nil && held.Labels[v1alpha1.LabelRemediation] != run.Remediation.Name) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading the job's resource claim: %w", err)
	}
	if err := r.Client.Delete(ctx, held, client.Preconditions{UID: &held.UID}); err != nil && !gone(err) {
		return fmt.Errorf("deleting the job's resource claim: %w", err)
	}
	return nil
}

// gone says whether what was to be deleted is not there any more, or another one has its name.
func gone(err error) bool { return apierrors.IsNotFound(err) || apierrors.IsConflict(err) }

func (r *Runner) key(name string) types.NamespacedName {
	return types.NamespacedName{Namespace: r.Namespace, Name: name}
}

// get reads the run's Job; nil where there is none.
func (r *Runner) get(ctx context.Context, run Run) (*batchv1.Job, error) {
	found := &batchv1.Job{}
	if err := r.Live.Get(ctx, r.key(run.ID), found); err != nil {
		if apierrors.IsNotFound(err) {
			return nil, nil
		}
		return nil, fmt.Errorf("reading job: %w", err)
	}
	return found, nil
}

// template reads the run's template, and says what is wrong with it.
func (r *Runner) template(ctx context.Context, run Run) (*corev1.PodTemplate, string, error) {
	template := &corev1.PodTemplate{}
	err := r.Live.Get(ctx, r.key(run.Template), template)
	switch {
	case apierrors.IsNotFound(err):
		return nil, fmt.Sprintf("there is no PodTemplate %s in namespace %s", run.Template, r.Namespace), nil
	case apierrors.IsForbidden(err):
		return nil, notAllowed(err), nil
	case err != nil:
		return nil, "", fmt.Errorf("reading pod template: %w", err)
	}
	return template, remedy.Cut(refuse(template, r.ServiceAccount, run)), nil
}

// refused says what the server has against an object, for a person to mend; any other error is none of the object's.
func (r *Runner) refused(kind string, err error) (string, error) {
	switch {
	case err == nil:
		return "", nil
	case strings.Contains(err.Error(), notLeading):
		// Forbidden too, but to this process and not to its successor.
	case apierrors.IsForbidden(err):
		return notAllowed(err), nil
	case apierrors.IsInvalid(err), apierrors.IsBadRequest(err):
		return remedy.Cut(fmt.Sprintf("the server refuses the %s: %v", kind, err)), nil
	}
	return "", fmt.Errorf("creating the %s: %w", kind, err)
}

// notAllowed says what is forbidden, and, where it is for want of a right, what gives it.
func notAllowed(err error) string {
	if strings.Contains(err.Error(), " cannot ") { // apiserver, endpoints/handlers/responsewriters, forbiddenMessage
		return remedy.Cut(fmt.Sprintf("not allowed; the chart's value remedies.jobs=true allows it: %v", err))
	}
	return remedy.Cut(fmt.Sprintf("not allowed: %v", err))
}
