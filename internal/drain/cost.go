package drain

import (
	"errors"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

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
	defaultMachine      = "default: virtual machine with a device"
)

// annotationSafeToEvict is Cluster Autoscaler's, and draino honoured it too.
const annotationSafeToEvict = "cluster-autoscaler.kubernetes.io/safe-to-evict"

// labelKubeVirt is on the pod in which KubeVirt runs a virtual machine, with the value virtLauncher. The devices that KubeVirt gives
// every such pod are of the domain kubeVirtDevices; any other extended resource is one that is passed through.
const (
	labelKubeVirt   = "kubevirt.io"
	virtLauncher    = "virt-launcher"
	kubeVirtDevices = "devices.kubevirt.io"
)

// gangLabels are put on the pods of a gang by the systems that start gangs.
var gangLabels = []string{
	"jobset.sigs.k8s.io/jobset-name",
	"leaderworkerset.sigs.k8s.io/name",
	"kueue.x-k8s.io/pod-group-name",
	"scheduling.x-k8s.io/pod-group",
	"volcano.sh/job-name",
}

// Gang says whether a pod runs only together with others.
func Gang(pod *corev1.Pod) bool {
	_, named := GangOf(pod)
	return named || pod.Spec.SchedulingGroup != nil
}

// Says evaluates the expression of the class at this index on a pod; package policy compiles it. The labels are those of the
// pod's namespace, nil where they have not been read.
type Says func(class int, pod *corev1.Pod, namespace map[string]string) (bool, error)

// errNotAsked is for expressions that nobody can evaluate here.
var errNotAsked = errors.New("nothing here evaluates expressions")

// class is a class of the policy whose selector has been read.
type class struct {
	*v1alpha1.WorkloadClass
	// selects is nil where the class asks for no labels, and selects nothing where what it asks for cannot be read; the
	// policy's status says so.
	selects labels.Selector
	// says evaluates its expression; it is nil where the class has none.
	says func(*corev1.Pod) (bool, error)
}

func compile(in *Input) []class {
	out := make([]class, 0, len(in.Classes))
	for i := range in.Classes {
		c := class{WorkloadClass: &in.Classes[i]}
		if selector := c.Match.PodSelector; selector != nil {
			c.selects = labels.Nothing()
			if sel, err := metav1.LabelSelectorAsSelector(selector); err == nil {
				c.selects = sel
			}
		}
		if c.Match.Expression != "" {
			c.says = func(pod *corev1.Pod) (bool, error) {
				if in.Says == nil {
					return false, errNotAsked
				}
				return in.Says(i, pod, in.Namespaces[pod.Namespace])
			}
		}
		out = append(out, c)
	}
	return out
}

// costOf says what stopping a pod costs, and which class says so. The policy's classes come first; a pod that nothing
// would create again is never stopped unless a class allows it.
//
// A class whose expression fails on the pod ends the search, and nothing stops the pod: it may be the class that says Never, and
// to take it for another, or for the next one that matches, would stop what its administrator wanted kept. That holds up a drain
// at worst, which names the pod, the class and the error; untold is that error.
func costOf(pod *corev1.Pod, classes []class) (cost v1alpha1.InterruptionCost, name string, untold error) {
	for i := range classes {
		switch matched, err := classes[i].matches(pod); {
		case err != nil:
			return v1alpha1.CostNever, classes[i].Name, err
		case matched:
			return classes[i].Cost, classes[i].Name, nil
		}
	}
	cost, name = byDefault(pod)
	return cost, name, nil
}

// byDefault is what stopping a pod costs that no class is for.
func byDefault(pod *corev1.Pod) (v1alpha1.InterruptionCost, string) {
	owner := metav1.GetControllerOfNoCopy(pod)
	switch {
	case pod.Spec.Priority != nil && *pod.Spec.Priority < 0:
		return v1alpha1.CostFree, defaultPreemptible
	case Gang(pod):
		return v1alpha1.CostDear, defaultGang
	case owner != nil && owner.Kind == "Job":
		return v1alpha1.CostDear, defaultJob
	case pod.Labels[labelKubeVirt] == virtLauncher && passesThrough(pod):
		return v1alpha1.CostNever, defaultMachine
	case owner == nil:
		return v1alpha1.CostNever, defaultUnreplicated
	case pod.Annotations[annotationSafeToEvict] == "false":
		return v1alpha1.CostDear, defaultNotSafe
	}
	return v1alpha1.CostCheap, defaultReplicated
}

// matches says whether every field that is set matches. The expression comes last: it costs most, and may count on the fields
// before it.
func (c *class) matches(pod *corev1.Pod) (bool, error) {
	m := &c.Match
	if c.selects != nil && !c.selects.Matches(labels.Set(pod.Labels)) {
		return false, nil
	}
	if len(m.Namespaces) > 0 && !slices.Contains(m.Namespaces, pod.Namespace) {
		return false, nil
	}
	if len(m.OwnerKinds) > 0 {
		owner := metav1.GetControllerOfNoCopy(pod)
		if owner == nil || !slices.Contains(m.OwnerKinds, owner.Kind) {
			return false, nil
		}
	}
	if m.Gang != nil && *m.Gang != Gang(pod) {
		return false, nil
	}
	if c.says == nil {
		return true, nil
	}
	return c.says(pod)
}

// passesThrough says whether a virtual machine has a device of the node's: then it cannot be migrated, and ends where its pod does.
func passesThrough(pod *corev1.Pod) bool {
	if len(pod.Spec.ResourceClaims) > 0 {
		return true
	}
	for i := range pod.Spec.Containers {
		for name := range pod.Spec.Containers[i].Resources.Requests {
			domain, _, extended := strings.Cut(string(name), "/")
			if extended && domain != kubeVirtDevices && domain != "kubernetes.io" && !strings.HasSuffix(domain, ".kubernetes.io") {
				return true
			}
		}
	}
	return false
}

// deletionCost is what a pod's owner says that deleting it costs beside its siblings (controller.kubernetes.io/pod-deletion-cost);
// nothing where it cannot be read, as to Kubernetes.
func deletionCost(pod *corev1.Pod) int64 {
	cost, err := strconv.ParseInt(pod.Annotations[corev1.PodDeletionCost], 10, 32)
	if err != nil {
		return 0
	}
	return cost
}

// priority is a pod's, 0 where it has none.
func priority(pod *corev1.Pod) int32 {
	if pod.Spec.Priority == nil {
		return 0
	}
	return *pod.Spec.Priority
}

// devices counts the accelerators a pod holds: those it is known to hold, or those it asks for by extended resource where
// they are more. Of a device plugin's it may be known only that the bad one is among them.
func devices(holding map[types.UID][]string, pod *corev1.Pod) int64 {
	var n int64
	for i := range pod.Spec.Containers {
		for name, q := range pod.Spec.Containers[i].Resources.Requests {
			if strings.HasSuffix(string(name), "/gpu") {
				n += q.Value()
			}
		}
	}
	return max(n, int64(len(holding[pod.UID])))
}
