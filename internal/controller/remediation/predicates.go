package remediation

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

// healthMatters passes a NodeHealth that the loop may have to act on. One that is not Healthy any more, or again, comes
// and goes in the filtered cache, and always passes; a Node's own condition is seen on the Node.
func (r *Reconciler) healthMatters() predicate.Predicate {
	return predicate.Funcs{
		CreateFunc: func(e event.CreateEvent) bool {
			h, ok := e.Object.(*v1alpha1.NodeHealth)
			return ok && h.Status.Summary != ""
		},
		UpdateFunc: func(e event.UpdateEvent) bool {
			before, ok1 := e.ObjectOld.(*v1alpha1.NodeHealth)
			after, ok2 := e.ObjectNew.(*v1alpha1.NodeHealth)
			return ok1 && ok2 && !equality.Semantic.DeepEqual(before.Status, after.Status)
		},
	}
}

// nodeMatters passes changes of a Node that a decision reads: its taints, annotations and labels, its conditions'
// status, its allocatable, and its coming and going. Heartbeats change none of them.
func nodeMatters() predicate.Predicate {
	return predicate.Funcs{
		UpdateFunc: func(e event.UpdateEvent) bool {
			before, ok1 := e.ObjectOld.(*corev1.Node)
			after, ok2 := e.ObjectNew.(*corev1.Node)
			return ok1 && ok2 && (before.UID != after.UID ||
				!equality.Semantic.DeepEqual(before.Spec.Taints, after.Spec.Taints) ||
				!equality.Semantic.DeepEqual(before.Annotations, after.Annotations) ||
				!equality.Semantic.DeepEqual(before.Labels, after.Labels) ||
				!equality.Semantic.DeepEqual(before.Status.Allocatable, after.Status.Allocatable) ||
				!slices.Equal(statuses(before), statuses(after)))
		},
	}
}

type conditionStatus struct {
	kind   corev1.NodeConditionType
	status corev1.ConditionStatus
}

func statuses(n *corev1.Node) []conditionStatus {
	var out []conditionStatus
	for _, c := range n.Status.Conditions {
		out = append(out, conditionStatus{c.Type, c.Status})
	}
	return out
}

// policyMatters passes a policy whose text, acceptance or brake has changed.
func policyMatters() predicate.Predicate {
	return predicate.Funcs{
		UpdateFunc: func(e event.UpdateEvent) bool {
			before, ok1 := e.ObjectOld.(*v1alpha1.RemediationPolicy)
			after, ok2 := e.ObjectNew.(*v1alpha1.RemediationPolicy)
			return ok1 && ok2 && (before.Generation != after.Generation ||
				!equality.Semantic.DeepEqual(before.Status.Conditions, after.Status.Conditions) ||
				brakeState(before) != brakeState(after))
		},
	}
}

func brakeState(p *v1alpha1.RemediationPolicy) string {
	if p.Status.Brake == nil {
		return v1alpha1.BrakeReleased
	}
	return p.Status.Brake.State
}

// slotFreed passes a budget that may grant where it refused: its text has changed, or a reservation has gone.
func slotFreed() predicate.Predicate {
	return predicate.Funcs{
		UpdateFunc: func(e event.UpdateEvent) bool {
			before, ok1 := e.ObjectOld.(*v1alpha1.NodeDisruptionBudget)
			after, ok2 := e.ObjectNew.(*v1alpha1.NodeDisruptionBudget)
			return ok1 && ok2 && (before.Generation != after.Generation || gone(before, after))
		},
	}
}

func gone(before, after *v1alpha1.NodeDisruptionBudget) bool {
	held := map[types.UID]bool{}
	for _, r := range after.Status.Reservations {
		held[types.UID(r.RemediationUID)] = true
	}
	return slices.ContainsFunc(before.Status.Reservations, func(r v1alpha1.Reservation) bool { return !held[types.UID(r.RemediationUID)] })
}
