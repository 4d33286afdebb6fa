package replace

import (
	"context"
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/roundhouse-dev/roundhouse/internal/remedy"
	"github.com/roundhouse-dev/roundhouse/internal/remedy/untyped"
)

// Karpenter's kinds; v1 is served since 1.0.
const (
	groupKarpenter   = "karpenter.sh"
	versionKarpenter = "v1"
	labelNodePool    = "karpenter.sh/nodepool"
	conditionReady   = "Ready"
)

var (
	kindNodeClaim = schema.GroupKind{Group: groupKarpenter, Kind: "NodeClaim"}
	kindNodePool  = schema.GroupKind{Group: groupKarpenter, Kind: "NodePool"}
)

// karpenter deletes the node's NodeClaim. Its finalizer then deletes the Node, which drains it, and ends the machine; the
// NodePool makes another for the pods that wait.
//
// The claim that we have on the node (annotation karpenter.sh/do-not-disrupt, see internal/claim) does not stop that:
// Karpenter asks for it where it chooses nodes to disrupt by itself, and nowhere on the way of a deletion
// (karpenter v1.13, state.ValidateNodeDisruptable is the only reader; node/termination does not call it). On a pod the same
// annotation does: its eviction waits until spec.terminationGracePeriod of the NodeClaim, or for ever.
type karpenter struct {
	client client.Client
}

// Check says why the NodeClaim cannot be replaced.
func (k *karpenter) Check(ctx context.Context, a remedy.Attempt) (string, error) {
	_, why, err := k.ready(ctx, a)
	return why, err
}

// ready finds the node's NodeClaim, and says why it cannot be replaced; one that is being deleted already can.
func (k *karpenter) ready(ctx context.Context, a remedy.Attempt) (*unstructured.Unstructured, string, error) {
	if nodeGone(a) {
		return nil, "the Node is gone", nil
	}
	claim, why, err := k.find(ctx, a.Node)
	if err == nil && why == "" && claim.GetDeletionTimestamp() == nil {
		why, err = k.pool(ctx, claim)
	}
	if why := untyped.Forbidden(err, "Karpenter's objects", "remedies.karpenter"); why != "" {
		return nil, why, nil
	}
	return claim, why, err
}

// find finds the NodeClaim of the node by the machine's ID, as Karpenter does, or says why there is none. The owner
// that the Node names is looked at first.
func (k *karpenter) find(ctx context.Context, node *corev1.Node) (claim *unstructured.Unstructured, why string, err error) {
	mapping, err := untyped.Resolve(k.client.RESTMapper(), kindNodeClaim, versionKarpenter)
	if errors.Is(err, untyped.ErrNotServed) {
		return nil, "Karpenter's NodeClaims are not served by the API server", nil
	}
	if err != nil {
		return nil, "", err
	}
	if node.Spec.ProviderID == "" {
		return nil, "the Node has no spec.providerID, by which Karpenter knows its nodes", nil
	}
	kind := mapping.GroupVersionKind
	for _, owner := range node.OwnerReferences {
		if owner.Kind != kind.Kind || !strings.HasPrefix(owner.APIVersion, groupKarpenter+"/") {
			continue
		}
		claim, err := untyped.Get(ctx, k.client, kind, "", owner.Name)
		if err != nil && !apierrors.IsNotFound(err) {
			return nil, "", err
		}
		if err == nil && isClaimOf(claim, node) {
			return claim, "", nil
		}
	}
	found, err := untyped.List(ctx, k.client, kind, func(c *unstructured.Unstructured) bool { return isClaimOf(c, node) })
	switch {
	case err != nil:
		return nil, "", err
	case len(found) == 0:
		return nil, "no NodeClaim of Karpenter has the Node's providerID and name in its status", nil
	case len(found) > 1:
		return nil, fmt.Sprintf("%s and %s both have the Node's providerID", untyped.Name(found[0]), untyped.Name(found[1])), nil
	}
	return found[0], "", nil
}

// isClaimOf says whether the NodeClaim says that the node is its own. A kubelet cannot change its providerID.
func isClaimOf(claim *unstructured.Unstructured, node *corev1.Node) bool {
	return untyped.String(claim, "status", "providerID") == node.Spec.ProviderID &&
		untyped.String(claim, "status", "nodeName") == node.Name
}

// pool asks for the NodePool that would make another node.
func (k *karpenter) pool(ctx context.Context, claim *unstructured.Unstructured) (string, error) {
	name := claim.GetLabels()[labelNodePool]
	if name == "" {
		return untyped.Name(claim) + " is of no NodePool, and nobody would make another node", nil
	}
	mapping, err := untyped.Resolve(k.client.RESTMapper(), kindNodePool, versionKarpenter)
	if errors.Is(err, untyped.ErrNotServed) {
		return "Karpenter's NodePools are not served by the API server", nil
	}
	if err != nil {
		return "", err
	}
	pool, err := untyped.Get(ctx, k.client, mapping.GroupVersionKind, "", name)
	if apierrors.IsNotFound(err) {
		return fmt.Sprintf("NodePool %s of %s is not there, and nobody would make another node", name, untyped.Name(claim)), nil
	}
	if err != nil {
		return "", err
	}
	ready, said := untyped.FindCondition(pool, conditionReady)
	switch {
	case pool.GetDeletionTimestamp() != nil:
		return untyped.Name(pool) + " is being deleted, and would make no other node", nil
	case said && ready.Status == string(metav1.ConditionFalse):
		return fmt.Sprintf("%s is not ready, and would make no other node: %s", untyped.Name(pool), ready.Why()), nil
	}
	return "", nil
}

// Begin deletes the NodeClaim, by UID: another of the same name stays.
func (k *karpenter) Begin(ctx context.Context, a remedy.Attempt) (remedy.Progress, error) {
	claim, why, err := k.ready(ctx, a)
	switch {
	case err != nil:
		return remedy.Progress{}, err
	case why != "":
		return remedy.Refused(why), nil
	case claim.GetDeletionTimestamp() != nil:
		return terminating(claim), nil
	}
	err = k.client.Delete(ctx, claim, client.Preconditions{UID: ptr.To(claim.GetUID())})
	if err != nil && !apierrors.IsNotFound(err) {
		return remedy.Progress{}, fmt.Errorf("deleting %s: %w", untyped.Name(claim), err)
	}
	return remedy.Running(untyped.Name(claim) + " is deleted; Karpenter drains the Node and ends its machine"), nil
}

// Look says how far Karpenter has come. The Node goes last: its finalizer waits for the end of its machine.
func (k *karpenter) Look(ctx context.Context, a remedy.Attempt) (remedy.Progress, error) {
	if nodeGone(a) {
		return remedy.Succeeded("the Node is gone"), nil
	}
	if onlyBegun(a) {
		return k.Begin(ctx, a)
	}
	claim, why, err := k.find(ctx, a.Node)
	switch {
	case err != nil:
		return remedy.Progress{}, err
	case why != "":
		return remedy.Running("the NodeClaim is gone, and its Node is still there"), nil
	case claim.GetDeletionTimestamp() == nil:
		return remedy.Failed(untyped.Name(claim) + " is not being deleted, though it was asked for: another has taken its place"), nil
	}
	return terminating(claim), nil
}

// terminating is the progress of a NodeClaim that is being deleted: the first of Karpenter's steps that is not done.
func terminating(claim *unstructured.Unstructured) remedy.Progress {
	for _, step := range []struct{ condition, text string }{
		{"Drained", "its Node is being drained"},
		{"VolumesDetached", "its volumes are being detached"},
		{"InstanceTerminating", "its machine is being ended"},
	} {
		condition, said := untyped.FindCondition(claim, step.condition)
		if !said || condition.Status == string(metav1.ConditionUnknown) {
			return remedy.Running(untyped.Name(claim) + " is being deleted: " + step.text)
		}
	}
	return remedy.Running(untyped.Name(claim) + " is being deleted: its machine is being ended")
}

// End has nothing to take away: a deletion cannot be taken back.
func (k *karpenter) End(context.Context, remedy.Attempt) error { return nil }
