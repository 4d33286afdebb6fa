package evict

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Stuck says why a budget that refuses a pod will refuse it for as long as nobody changes something, and what would help;
// it is empty where the budget may allow it by itself, when other pods have become ready.
//
// A budget's status is the disruption controller's (pkg/controller/disruption/disruption.go of Kubernetes v1.37): it asks for
// desiredHealthy of expectedPods pods, and allows currentHealthy less desiredHealthy evictions.
func Stuck(budget *policyv1.PodDisruptionBudget, pod *corev1.Pod) string {
	name, st := "PodDisruptionBudget "+budget.Name, budget.Status
	switch {
	case isZero(budget.Spec.MaxUnavailable):
		return fmt.Sprintf("%s never allows an eviction: its maxUnavailable is %s", name, budget.Spec.MaxUnavailable)
	case uncounted(budget):
		return fmt.Sprintf("%s allows no eviction, since its pods cannot be counted: %s", name, uncountedWhy(budget))
	case st.ObservedGeneration != budget.Generation:
		return "" // its status is of another spec.
	case st.ExpectedPods > 0 && st.DesiredHealthy >= st.ExpectedPods:
		return fmt.Sprintf("%s never allows an eviction: it asks for %d healthy pods, and there are to be %d", name, st.DesiredHealthy, st.ExpectedPods)
	case !ready(pod) && st.CurrentHealthy < st.DesiredHealthy && !allowsUnhealthy(budget):
		return fmt.Sprintf("%s keeps this pod, which is not ready, for as long as fewer than %d of its pods are (%d now): "+
			"unhealthyPodEvictionPolicy AlwaysAllow would let it go", name, st.DesiredHealthy, st.CurrentHealthy)
	}
	return ""
}

// isZero says whether a bound allows none, whatever it is of.
func isZero(bound *intstr.IntOrString) bool {
	return bound != nil && (bound.String() == "0" || bound.String() == "0%")
}

// uncounted says whether the disruption controller cannot tell how many pods there are to be, as where they have no
// controller with a scale; it then allows no disruption.
func uncounted(budget *policyv1.PodDisruptionBudget) bool {
	c := meta.FindStatusCondition(budget.Status.Conditions, policyv1.DisruptionAllowedCondition)
	return c != nil && c.Status == metav1.ConditionFalse && c.Reason == policyv1.SyncFailedReason
}

func uncountedWhy(budget *policyv1.PodDisruptionBudget) string {
	return meta.FindStatusCondition(budget.Status.Conditions, policyv1.DisruptionAllowedCondition).Message
}

func allowsUnhealthy(budget *policyv1.PodDisruptionBudget) bool {
	p := budget.Spec.UnhealthyPodEvictionPolicy
	return p != nil && *p == policyv1.AlwaysAllow
}

func ready(pod *corev1.Pod) bool {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}
