package evict

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// selecting names the budgets that select the pod, sorted. In policy/v1 an absent selector selects no pod and an empty
// one every pod of the namespace; one that cannot be read selects none, as for the API server.
func selecting(budgets []policyv1.PodDisruptionBudget, pod *corev1.Pod) []string {
	var names []string
	for i := range budgets {
		selector, err := metav1.LabelSelectorAsSelector(budgets[i].Spec.Selector)
		if err == nil && selector.Matches(labels.Set(pod.Labels)) {
			names = append(names, budgets[i].Name)
		}
	}
	slices.Sort(names)
	return names
}
