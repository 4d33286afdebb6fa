package cli

import (
	"cmp"
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/claim"
	"github.com/roundhouse-dev/roundhouse/internal/remedy/operands"
)

// note lists what a repair has written down on a Node for as long as it lasts: which parts of the GPU operator it has
// paused, and which driver pod it restarts.
func (l *leftovers) note(n *corev1.Node) {
	before := len(l.notes)
	if by, paused := operands.PausedBy(n); paused {
		l.notes = append(l.notes, leftover{
			fmt.Sprintf("GPU operator's parts paused by %s on node %s", cmp.Or(by, "an unreadable record"), n.Name),
			"give the labels nvidia.com/gpu.deploy.* the values that " + v1alpha1.AnnotationPaused + " records, then kubectl annotate node " +
				n.Name + " " + v1alpha1.AnnotationPaused + "-",
		})
	}
	if pod, ok := n.Annotations[v1alpha1.AnnotationDriverPod]; ok {
		l.notes = append(l.notes, leftover{
			"note of driver pod " + pod + " on node " + n.Name, "kubectl annotate node " + n.Name + " " + v1alpha1.AnnotationDriverPod + "-",
		})
	}
	if len(l.notes) > before {
		l.noted = append(l.noted, n.Name)
	}
}

// rule lists a DeviceTaintRule of ours: a quarantine, or a question that plan --server has left when it was killed.
func (l *leftovers) rule(r *resourcev1.DeviceTaintRule) {
	switch r.Spec.Taint.Key {
	case taintPlan:
		l.asked = append(l.asked, *r)
	case v1alpha1.DeviceTaintQuarantined:
	default:
		return
	}
	l.rules = append(l.rules, leftover{"DeviceTaintRule " + r.Name, "kubectl delete devicetaintrule " + r.Name})
}

// takeOffUnowned takes off what no controller will, since the incident that it was put on for is over or gone: notes of a
// repair whose end could not be carried out, and rules by which a plan asked the server. Whose incident is open, or whose
// claim is there, is the controller's. Where the human may not, it stays in the list of what is left.
func (c *cluster) takeOffUnowned(ctx context.Context, l *leftovers, now time.Time) error {
	for _, name := range l.noted {
		if l.busy[name] {
			continue
		}
		if err := c.takeNotesOff(ctx, name); err != nil && !passing(err) {
			return fmt.Errorf("taking notes of a repair off node %s: %w", name, err)
		}
	}
	for i := range l.asked {
		rule := &l.asked[i]
		if now.Sub(rule.CreationTimestamp.Time) < serverStale {
			continue // its plan may be waiting for the answer, and deletes it itself.
		}
		if err := c.Delete(ctx, rule); err != nil && !passing(err) {
			return fmt.Errorf("deleting DeviceTaintRule %s: %w", rule.Name, err)
		}
	}
	return nil
}

// passing says whether an error needs no end: it is gone, it is looked at again in the next turn, or it stays listed.
func passing(err error) bool {
	return apierrors.IsNotFound(err) || apierrors.IsConflict(err) || apierrors.IsForbidden(err)
}

// takeNotesOff puts the GPU operator's parts of a node back, and takes the notes off, guarded by the resourceVersion.
func (c *cluster) takeNotesOff(ctx context.Context, name string) error {
	node := &corev1.Node{}
	if err := c.Get(ctx, client.ObjectKey{Name: name}, node); err != nil {
		return fmt.Errorf("reading it: %w", err)
	}
	if _, _, claimed := claim.Ours(node); claimed {
		return nil
	}
	if by, paused := operands.PausedBy(node); paused {
		if err := (operands.Operands{Client: c, Live: c}).Resume(ctx, node, by); err != nil {
			return err
		}
		if err := c.Get(ctx, client.ObjectKey{Name: name}, node); err != nil {
			return fmt.Errorf("reading it again: %w", err)
		}
	}
	after := node.DeepCopy()
	delete(after.Annotations, v1alpha1.AnnotationDriverPod)
	_, err := claim.Patch(ctx, c, node, after)
	return err
}
