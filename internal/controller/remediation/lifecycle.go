package remediation

import (
	"context"
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/decide"
)

// lifecycle tells others what is done to the node, by the conditions of KEP-5683, as it is after the steps of this Reconcile.
// What a crash has left unsaid is said at the next.
func (r *Reconciler) lifecycle(ctx context.Context, w *work) error {
	if w.seen == nil || w.node == nil {
		return nil
	}
	s := *w.seen
	s.Remediation, s.Node = w.rem, w.node
	if w.rem != nil && string(w.node.UID) != w.rem.Spec.NodeUID {
		s.Remediation = nil // another node's of this name.
	}
	conditions := decide.Lifecycle(&s)
	if len(conditions) == 0 {
		return nil
	}
	var patch struct {
		Metadata struct {
			UID types.UID `json:"uid"`
		} `json:"metadata"`
		Status struct {
			Conditions []corev1.NodeCondition `json:"conditions"`
		} `json:"status"`
	}
	patch.Metadata.UID, patch.Status.Conditions = w.node.UID, conditions
	data, err := json.Marshal(patch)
	if err != nil {
		return fmt.Errorf("encoding the conditions of node %s: %w", w.name, err)
	}
	target := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: w.name}}
	if err := r.Client.Status().Patch(ctx, target, client.RawPatch(types.StrategicMergePatchType, data)); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("writing the lifecycle conditions of node %s: %w", w.name, err)
	}
	return nil
}

// unreadable tells whoever asked for planned work that nobody can read what was asked.
func (r *Reconciler) unreadable(ctx context.Context, node *corev1.Node, err error) {
	ctrl.LoggerFrom(ctx).Error(err, "A request for planned work cannot be read; nothing is done about it")
	if r.Events != nil {
		r.Events.Eventf(node, nil, corev1.EventTypeWarning, "MaintenanceUnreadable", "Remediate", "%s", cut(err.Error(), maxEntry))
	}
}

// served takes the request for planned work off the node with the incident that has done it, or that a human has cancelled: it
// must not be asked for again. One that was asked for since is another.
func (r *Reconciler) served(ctx context.Context, w *work, s *decide.Snapshot) error {
	if s.Node == nil || s.Maintenance == nil {
		return nil
	}
	at := s.Maintenance.At
	cancelled := w.rem.Status.Phase == v1alpha1.PhaseCancelled && w.rem.Spec.Root.Check == v1alpha1.CheckMaintenance && w.rem.Spec.Root.FirstSeen.Equal(&at)
	if !cancelled && !decide.Maintained(s) {
		return nil
	}
	if err := r.unchangedNode(ctx, w); err != nil {
		return err
	}
	next := w.node.DeepCopy()
	delete(next.Annotations, v1alpha1.AnnotationMaintenance)
	w.nodeFresh = false
	if err := r.Client.Patch(ctx, next, client.MergeFromWithOptions(w.node, client.MergeFromWithOptimisticLock{})); err != nil {
		return fmt.Errorf("taking the request for planned work off node %s: %w", w.name, err)
	}
	w.node, w.nodeFresh = next, true
	return nil
}
