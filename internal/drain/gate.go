package drain

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

// gateOf is the gate of the class by which a pod is never stopped; nil where it has none.
func gateOf(classes []v1alpha1.WorkloadClass, class string, cost v1alpha1.InterruptionCost) *v1alpha1.WorkloadGate {
	for i := range classes {
		if classes[i].Name == class && cost == v1alpha1.CostNever {
			return classes[i].Gate
		}
	}
	return nil
}

// isOpen says whether the other system has said that its work on the node has ended.
func isOpen(gate *v1alpha1.WorkloadGate, conditions []corev1.NodeCondition) bool {
	for _, c := range conditions {
		if string(c.Type) == gate.NodeCondition {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// closed is a pod that waits for the other system's word.
func closed(pod *corev1.Pod, class string, gate *v1alpha1.WorkloadGate) v1alpha1.Blocker {
	return v1alpha1.Blocker{Pod: pod.Namespace + "/" + pod.Name, Reason: ReasonGateClosed,
		Message: fmt.Sprintf("class %s waits until condition %s of the Node is True", class, gate.NodeCondition)}
}
