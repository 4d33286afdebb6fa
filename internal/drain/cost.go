package drain

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

// Names of the classes that count where the policy has none that matches.
const (
	defaultPreemptible  = "default: negative priority"
	defaultGang         = "default: gang"
	defaultJob          = "default: Job"
	defaultNotSafe      = "default: safe-to-evict=false"
	defaultReplicated   = "default: replicated"
	defaultUnreplicated = "default: unreplicated"
)

// annotationSafeToEvict is Cluster Autoscaler's, and draino honoured it too.
const annotationSafeToEvict = "cluster-autoscaler.kubernetes.io/safe-to-evict"

// gangLabels are put on the pods of a gang by the systems that start gangs.
var gangLabels = []string{
	"jobset.sigs.k8s.io/jobset-name",
	"leaderworkerset.sigs.k8s.io/name",
	"kueue.x-k8s.io/pod-group-name",
	"scheduling.x-k8s.io/pod-group",
	"volcano.sh/job-name",
}

// Gang says whether a pod runs only together with others.
func Gang(pod corev1.Pod) bool {
	_, named := GangOf(&pod)
	return named || pod.Spec.SchedulingGroup != nil
}

// Cost says what stopping a pod costs, and which class says so. The policy's classes come first; a pod that nothing
// would create again is never stopped unless a class allows it.
func Cost(pod corev1.Pod, classes []v1alpha1.WorkloadClass) (v1alpha1.InterruptionCost, string) {
	for _, c := range classes {
		if matches(c.Match, pod) {
			return c.Cost, c.Name
		}
	}
	owner := metav1.GetControllerOf(&pod)
	switch {
	case pod.Spec.Priority != nil && *pod.Spec.Priority < 0:
		return v1alpha1.CostFree, defaultPreemptible
	case Gang(pod):
		return v1alpha1.CostDear, defaultGang
	case owner != nil && owner.Kind == "Job":
		return v1alpha1.CostDear, defaultJob
	case owner == nil:
		return v1alpha1.CostNever, defaultUnreplicated
	case pod.Annotations[annotationSafeToEvict] == "false":
		return v1alpha1.CostDear, defaultNotSafe
	}
	return v1alpha1.CostCheap, defaultReplicated
}

// matches says whether every field that is set matches. A selector that cannot be read matches nothing; the policy's
// status says so.
func matches(m v1alpha1.WorkloadMatch, pod corev1.Pod) bool {
	if m.PodSelector != nil {
		sel, err := metav1.LabelSelectorAsSelector(m.PodSelector)
		if err != nil || !sel.Matches(labels.Set(pod.Labels)) {
			return false
		}
	}
	if len(m.Namespaces) > 0 && !slices.Contains(m.Namespaces, pod.Namespace) {
		return false
	}
	if len(m.OwnerKinds) > 0 {
		owner := metav1.GetControllerOf(&pod)
		if owner == nil || !slices.Contains(m.OwnerKinds, owner.Kind) {
			return false
		}
	}
	return m.Gang == nil || *m.Gang == Gang(pod)
}

// devices counts the accelerators a pod holds: those it is known to hold, or those it asks for by extended resource where
// they are more. Of a device plugin's it may be known only that the bad one is among them.
func devices(in Input, pod corev1.Pod) int64 {
	var n int64
	for i := range pod.Spec.Containers {
		for name, q := range pod.Spec.Containers[i].Resources.Requests {
			if strings.HasSuffix(string(name), "/gpu") {
				n += q.Value()
			}
		}
	}
	return max(n, int64(len(in.Holding[pod.UID])))
}
