package replace

import (
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/roundhouse-dev/roundhouse/internal/remedy"
	"github.com/roundhouse-dev/roundhouse/internal/remedy/untyped"
)

// AnnotationRemediate asks Cluster API to remediate a Machine. It looks at the key alone, so the value is the attempt's
// ID: that is how we know our mark from others' (cluster-api v1.14, util/annotations, HasRemediateMachine).
const AnnotationRemediate = "cluster.x-k8s.io/remediate-machine"

// Machine conditions of Cluster API, and the reasons with which an owner refuses: the second is v1beta1's.
const (
	conditionHealthCheck     = "HealthCheckSucceeded"
	conditionOwnerRemediated = "OwnerRemediated"
	conditionDeleting        = "Deleting"

	reasonCannot = "CannotBeRemediated"
	reasonFailed = "RemediationFailed"
)

// clusterAPI marks the node's Machine. Its MachineHealthCheck then hands the Machine to its owner, a MachineSet or a
// KubeadmControlPlane, which deletes it and makes another.
type clusterAPI struct {
	client client.Client
}

// Check says why the Machine cannot be replaced.
func (c *clusterAPI) Check(ctx context.Context, a remedy.Attempt) (string, error) {
	_, why, err := c.ready(ctx, a)
	return why, err
}

// ready finds the node's Machine, and says why it cannot be replaced; one that is being deleted already can.
func (c *clusterAPI) ready(ctx context.Context, a remedy.Attempt) (*unstructured.Unstructured, string, error) {
	if nodeGone(a) {
		return nil, "the Node is gone", nil
	}
	m, why, err := findMachine(ctx, c.client, a.Node)
	if err == nil && why == "" && m.GetDeletionTimestamp() == nil {
		why, err = (&guard{client: c.client, machine: m, attempt: a.ID}).refusal(ctx)
	}
	if why := untyped.Forbidden(err, "Cluster API's objects", "remedies.clusterAPI"); why != "" {
		return nil, why, nil
	}
	return m, why, err
}

// Begin marks the Machine. The patch carries the resourceVersion of what was judged: a Machine that changed since, say to
// be skipped, is judged again.
func (c *clusterAPI) Begin(ctx context.Context, a remedy.Attempt) (remedy.Progress, error) {
	m, why, err := c.ready(ctx, a)
	switch {
	case err != nil:
		return remedy.Progress{}, err
	case why != "":
		return remedy.Refused(why), nil
	case m.GetDeletionTimestamp() != nil:
		return deleting(m), nil
	case m.GetAnnotations()[AnnotationRemediate] == a.ID:
		return judge(m), nil
	}
	marked := m.DeepCopy()
	annotations := marked.GetAnnotations()
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[AnnotationRemediate] = a.ID
	marked.SetAnnotations(annotations)
	if err := c.client.Patch(ctx, marked, client.MergeFromWithOptions(m, client.MergeFromWithOptimisticLock{})); err != nil {
		return remedy.Progress{}, fmt.Errorf("marking %s for remediation: %w", untyped.Name(m), err)
	}
	return remedy.Running(untyped.Name(m) + " is marked for remediation; its MachineHealthCheck has not seen the mark yet"), nil
}

// Look says how far the replacement has come.
func (c *clusterAPI) Look(ctx context.Context, a remedy.Attempt) (remedy.Progress, error) {
	if nodeGone(a) {
		return c.lookWithoutNode(ctx, a)
	}
	if onlyBegun(a) {
		return c.Begin(ctx, a)
	}
	m, why, err := findMachine(ctx, c.client, a.Node)
	switch {
	case err != nil:
		return remedy.Progress{}, err
	case why != "":
		return remedy.Running("the Machine is gone, and its Node is still there"), nil
	case m.GetDeletionTimestamp() != nil:
		return deleting(m), nil
	case m.GetAnnotations()[AnnotationRemediate] != a.ID:
		return remedy.Failed("somebody took the mark for remediation off " + untyped.Name(m)), nil
	}
	return judge(m), nil
}

// lookWithoutNode looks for the Machine by our mark: a new Machine may have the old one's node name.
func (c *clusterAPI) lookWithoutNode(ctx context.Context, a remedy.Attempt) (remedy.Progress, error) {
	marked, err := c.marked(ctx, a.ID)
	if err != nil {
		return remedy.Progress{}, err
	}
	for _, m := range marked {
		if m.GetDeletionTimestamp() == nil {
			return remedy.Running(fmt.Sprintf("the Node is gone, and %s is still there: %s", untyped.Name(m), judge(m).Message)), nil
		}
	}
	return remedy.Succeeded("the Node is gone, and its Machine gone or being deleted"), nil
}

// marked lists the Machines that have the attempt's mark.
func (c *clusterAPI) marked(ctx context.Context, id string) ([]*unstructured.Unstructured, error) {
	mapping, err := untyped.Resolve(c.client.RESTMapper(), kindMachine, versions...)
	if err != nil {
		return nil, fmt.Errorf("looking for marked Machines: %w", err)
	}
	return untyped.List(ctx, c.client, mapping.GroupVersionKind, func(m *unstructured.Unstructured) bool {
		return m.GetAnnotations()[AnnotationRemediate] == id
	})
}

// deleting is the progress of a Machine that its owner has deleted.
func deleting(m *unstructured.Unstructured) remedy.Progress {
	text := untyped.Name(m) + " is being deleted; its Node is still there"
	if condition, found := untyped.FindCondition(m, conditionDeleting); found && condition.Status == string(metav1.ConditionTrue) {
		text += " (" + condition.Why() + ")"
	}
	return remedy.Running(text)
}

// judge reads a marked Machine's conditions. Only an owner that says it cannot has refused; one that defers, or fails for
// a reason inside, tries again by itself, and the rung's timeout ends the wait.
func judge(m *unstructured.Unstructured) remedy.Progress {
	owner, found := untyped.FindCondition(m, conditionOwnerRemediated)
	switch {
	case found && owner.Status == string(metav1.ConditionFalse) && refuses(owner):
		return remedy.Failed(fmt.Sprintf("the owner of %s does not replace it: %s", untyped.Name(m), owner.Why()))
	case found && owner.Status == string(metav1.ConditionFalse):
		return remedy.Running(fmt.Sprintf("%s waits for its owner: %s", untyped.Name(m), owner.Why()))
	case untyped.Is(m, conditionHealthCheck, metav1.ConditionFalse):
		return remedy.Running(untyped.Name(m) + " has failed its MachineHealthCheck, which has not handed it to its owner:" +
			" too many of its Machines may be unhealthy")
	}
	return remedy.Running(untyped.Name(m) + " is marked for remediation; its MachineHealthCheck has not seen the mark yet")
}

func refuses(owner untyped.Condition) bool {
	return owner.Reason == reasonCannot || owner.Reason == reasonFailed
}

// End takes our mark off a Machine that is not being deleted; one that is will be gone with it.
func (c *clusterAPI) End(ctx context.Context, a remedy.Attempt) error {
	machines, err := c.toUnmark(ctx, a)
	if err != nil {
		return err
	}
	for _, m := range machines {
		if m.GetDeletionTimestamp() != nil || m.GetAnnotations()[AnnotationRemediate] != a.ID {
			continue
		}
		bare := m.DeepCopy()
		annotations := bare.GetAnnotations()
		delete(annotations, AnnotationRemediate)
		bare.SetAnnotations(annotations)
		err := c.client.Patch(ctx, bare, client.MergeFromWithOptions(m, client.MergeFromWithOptimisticLock{}))
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("taking the mark for remediation off %s: %w", untyped.Name(m), err)
		}
	}
	return nil
}

// toUnmark finds the Machines that may have our mark: the node's own, else every one that has it. Where Cluster API is
// not there, there is nothing of ours on it.
func (c *clusterAPI) toUnmark(ctx context.Context, a remedy.Attempt) ([]*unstructured.Unstructured, error) {
	if !nodeGone(a) {
		m, why, err := findMachine(ctx, c.client, a.Node)
		if err != nil {
			return nil, err
		}
		if why == "" {
			return []*unstructured.Unstructured{m}, nil
		}
	}
	marked, err := c.marked(ctx, a.ID)
	if errors.Is(err, untyped.ErrNotServed) {
		return nil, nil
	}
	return marked, err
}
