// Package external hands a node to a remediator that was made for medik8s: a template says what to ask for, and an object
// made of it is the asking. The remediator reports in the object's conditions and never deletes it.
//
// The contract is medik8s's (https://www.medik8s.io, and node-healthcheck-operator, internal/controller/resources), and the
// words are those of github.com/medik8s/common v1.17.
package external

import (
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/remedy"
	"github.com/roundhouse-dev/roundhouse/internal/remedy/untyped"
)

// Annotations of the contract.
const (
	// AnnotationTimedOut tells a remediator that it is no longer waited for, and since when.
	AnnotationTimedOut = "remediation.medik8s.io/nhc-timed-out"
	// AnnotationMultiple is on a template whose remediator finds the node by AnnotationNode, not by the object's name.
	AnnotationMultiple = "remediation.medik8s.io/multiple-templates-support"
	// AnnotationNode is the node's name.
	AnnotationNode = "remediation.medik8s.io/node-name"
	// AnnotationTemplate is the template's name; NodeHealthCheck puts it on what it makes.
	AnnotationTemplate = "remediation.medik8s.io/template-name"
)

// Conditions of the contract.
const (
	ConditionProcessing   = "Processing"
	ConditionSucceeded    = "Succeeded"
	ConditionNodeDeletion = "PermanentNodeDeletionExpected"
)

// AnnotationAttempt is which attempt made the object.
const AnnotationAttempt = "roundhouse.dev/attempt"

// ErrNoExternal means that the rung does not name a template; the API's validation keeps such a rung out.
var ErrNoExternal = errors.New("external must name a template")

// Remedy makes the object and reads what the remediator says in it.
type Remedy struct {
	client client.Client
	clock  clock.PassiveClock
}

var _ remedy.Remedy = (*Remedy)(nil)

// New returns the remedy. What the client reads of templates and of what is made of them must come from the API server,
// not from a cache, as controller-runtime's clients do with objects that have no Go type.
func New(c client.Client, now clock.PassiveClock) *Remedy { return &Remedy{client: c, clock: now} }

// Check says why the node cannot be handed over.
func (r *Remedy) Check(ctx context.Context, a remedy.Attempt) (string, error) {
	_, why, err := r.ready(ctx, a)
	return untyped.Message(why), err
}

// plan is what Begin does: it makes wanted, unless present, of the same attempt or of an earlier one, is there.
type plan struct {
	wanted, present *unstructured.Unstructured
}

// ready says what is to be done, or why it cannot be.
func (r *Remedy) ready(ctx context.Context, a remedy.Attempt) (plan, string, error) {
	k, err := r.kinds(a)
	if err != nil {
		why, err := unserved(err)
		return plan{}, why, err
	}
	var p plan
	var why string
	if p.wanted, why, err = r.wanted(ctx, k, a); err == nil && why == "" {
		p.present, why, err = r.present(ctx, k, p.wanted, a)
	}
	if refusal := untyped.Forbidden(err, k.object.Kind+"s and their templates", "remedies.external"); refusal != "" {
		return plan{}, refusal + ", and see that the remediator has a ClusterRole labelled " + aggregateLabel, nil
	}
	return p, why, err
}

// Begin makes the object. It may be called again: the object's name is the node's or the attempt's, so there is one.
func (r *Remedy) Begin(ctx context.Context, a remedy.Attempt) (remedy.Progress, error) {
	p, why, err := r.ready(ctx, a)
	switch {
	case err != nil:
		return remedy.Progress{}, err
	case why != "":
		return remedy.Refused(untyped.Message(why)), nil
	case p.present == nil:
		return r.create(ctx, p.wanted)
	case ofAttempt(p.present, a):
		return judge(p.present), nil
	}
	return r.clear(ctx, p.present)
}

func (r *Remedy) create(ctx context.Context, wanted *unstructured.Unstructured) (remedy.Progress, error) {
	if err := r.client.Create(ctx, wanted); err != nil {
		return remedy.Progress{}, fmt.Errorf("making %s: %w", untyped.Name(wanted), err)
	}
	return remedy.Running(untyped.Name(wanted) + " is made; its remediator has not begun yet"), nil
}

// clear waits for the object of an earlier attempt to go, and deletes it where nobody has. Begun is said until it is gone:
// ours is not made yet, and Look is to make it.
func (r *Remedy) clear(ctx context.Context, old *unstructured.Unstructured) (remedy.Progress, error) {
	if old.GetDeletionTimestamp() == nil {
		if err := r.remove(ctx, old); err != nil {
			return remedy.Progress{}, err
		}
	}
	return remedy.Progress{State: v1alpha1.RemedyBegun, Message: untyped.Message(
		untyped.Name(old) + " of the attempt before is being deleted, and its remediator has not let go of it yet")}, nil
}

// Look says what the remediator says.
func (r *Remedy) Look(ctx context.Context, a remedy.Attempt) (remedy.Progress, error) {
	k, err := r.kinds(a)
	if err != nil {
		return remedy.Progress{}, err
	}
	object, err := r.find(ctx, k, a)
	switch {
	case err != nil:
		return remedy.Progress{}, err
	case object != nil:
		return judge(object), nil
	case onlyBegun(a):
		return r.Begin(ctx, a)
	}
	return remedy.Failed("somebody deleted the " + k.object.Kind + " that was made for the node"), nil
}

// onlyBegun says whether nothing is known of the attempt but that it was about to be made: the controller may have died
// before the act.
func onlyBegun(a remedy.Attempt) bool {
	step := a.Remediation.Status.Step
	return step == nil || step.Remedy == nil || step.Remedy.State == v1alpha1.RemedyBegun
}

// judge reads the object's conditions.
func judge(object *unstructured.Unstructured) remedy.Progress {
	name := untyped.Name(object)
	succeeded, said := untyped.FindCondition(object, ConditionSucceeded)
	switch {
	case said && succeeded.Status == string(metav1.ConditionTrue):
		return remedy.Succeeded(untyped.Message(name + " has succeeded: " + succeeded.Why()))
	case said && succeeded.Status == string(metav1.ConditionFalse):
		return remedy.Failed(untyped.Message(name + " has failed: " + succeeded.Why()))
	case object.GetDeletionTimestamp() != nil:
		return remedy.Failed(untyped.Message(name + " was deleted by somebody before it had ended"))
	}
	text := name + ": its remediator has not begun yet"
	if processing, said := untyped.FindCondition(object, ConditionProcessing); said {
		text = name + " is being processed: " + processing.Why()
		if processing.Status != string(metav1.ConditionTrue) {
			text = name + " is not being processed, and has not said how it ended: " + processing.Why()
		}
	}
	if untyped.Is(object, ConditionNodeDeletion, metav1.ConditionTrue) {
		text += "; the node will be deleted for good"
	}
	return remedy.Running(untyped.Message(text))
}

// End deletes the object. One that has not succeeded is told first that it is no longer waited for. Where the kind is not
// served any more, there is nothing left.
func (r *Remedy) End(ctx context.Context, a remedy.Attempt) error {
	k, err := r.kinds(a)
	if err != nil {
		_, err = unserved(err)
		return err
	}
	object, err := r.find(ctx, k, a)
	if err != nil || object == nil || object.GetDeletionTimestamp() != nil {
		return err
	}
	if !untyped.Is(object, ConditionSucceeded, metav1.ConditionTrue) {
		if err := r.giveUp(ctx, object); err != nil {
			return err
		}
	}
	return r.remove(ctx, object)
}

// giveUp tells the remediator to stop, as NodeHealthCheck does.
func (r *Remedy) giveUp(ctx context.Context, object *unstructured.Unstructured) error {
	annotations := object.GetAnnotations()
	if annotations[AnnotationTimedOut] != "" {
		return nil
	}
	told := object.DeepCopy()
	annotations[AnnotationTimedOut] = r.clock.Now().UTC().Format(time.RFC3339)
	told.SetAnnotations(annotations)
	err := r.client.Patch(ctx, told, client.MergeFromWithOptions(object, client.MergeFromWithOptimisticLock{}))
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("telling %s to stop: %w", untyped.Name(object), err)
	}
	return nil
}

// remove deletes an object of ours, by UID: another of the same name stays.
func (r *Remedy) remove(ctx context.Context, object *unstructured.Unstructured) error {
	err := r.client.Delete(ctx, object, client.Preconditions{UID: ptr.To(object.GetUID())})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("deleting %s: %w", untyped.Name(object), err)
	}
	return nil
}
