package claim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// nodePatch is the part of a Node that we ever write. spec.taints is an atomic list in the API
// (k8s.io/api/core/v1, Node.Spec.Taints: +listType=atomic), so it goes as a whole, guarded by the resourceVersion.
type nodePatch struct {
	Metadata metaPatch  `json:"metadata"`
	Spec     *specPatch `json:"spec,omitempty"`
}

type metaPatch struct {
	ResourceVersion string             `json:"resourceVersion"`
	UID             types.UID          `json:"uid,omitempty"`
	Annotations     map[string]*string `json:"annotations,omitempty"`
}

type specPatch struct {
	// Taints without omitempty: null takes the list away.
	Taints []corev1.Taint `json:"taints"`
}

// Patch writes what differs between before and after, of the annotations and taints only, and gives the Node as the
// server stored it. It carries the resourceVersion of before; a conflict comes back as such (apierrors.IsConflict)
// and is never retried here: what was decided on an old Node must be decided again. Without a difference it sends
// nothing and gives before.
func Patch(ctx context.Context, c client.Client, before, after *corev1.Node) (*corev1.Node, error) {
	data, err := patchData(before, after)
	if err != nil {
		return nil, err
	}
	if data == nil {
		return before, nil
	}
	stored := &corev1.Node{}
	stored.Name = before.Name
	if err := c.Patch(ctx, stored, client.RawPatch(types.MergePatchType, data)); err != nil {
		return nil, fmt.Errorf("patching node %s: %w", before.Name, err)
	}
	return stored, nil
}

// patchData gives the merge patch, or nil where nothing differs.
func patchData(before, after *corev1.Node) ([]byte, error) {
	if before.ResourceVersion == "" {
		// Without it the server would take the patch whatever had happened since.
		return nil, errors.New("patching a node without a resourceVersion")
	}
	if before.Name != after.Name || before.UID != after.UID {
		return nil, fmt.Errorf("patching node %s from another node's state (%s)", before.Name, after.Name)
	}
	patch := nodePatch{Metadata: metaPatch{
		ResourceVersion: before.ResourceVersion,
		UID:             before.UID,
		Annotations:     changed(before.Annotations, after.Annotations),
	}}
	if !equality.Semantic.DeepEqual(before.Spec.Taints, after.Spec.Taints) {
		patch.Spec = &specPatch{Taints: after.Spec.Taints}
	}
	if patch.Spec == nil && len(patch.Metadata.Annotations) == 0 {
		return nil, nil
	}
	data, err := json.Marshal(patch)
	if err != nil {
		return nil, fmt.Errorf("encoding the patch of node %s: %w", before.Name, err)
	}
	return data, nil
}
