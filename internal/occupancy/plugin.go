package occupancy

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/decide"
	"github.com/roundhouse-dev/roundhouse/internal/deviceid"
)

// byPlugin adds to held what device plugins gave, and says of which pods it cannot be told whether they hold a bad device,
// and why. A pod's own status goes first (KEP-4680), since it is of exactly that pod; then comes the agent's word.
func byPlugin(pods []corev1.Pod, s *decide.Snapshot, held map[types.UID][]string) (untold map[types.UID]bool, why string) {
	var names deviceid.Names
	if s.Health != nil {
		names = deviceid.NewNames(s.Health.Status.Devices, nil)
	}
	blind := cannotTell(s)
	untold = map[types.UID]bool{}
	for i := range pods {
		pod := &pods[i]
		if !wantsPlugin(pod) || pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
			continue
		}
		ids, whole := ownWord(pod, names)
		because := blind
		if !whole {
			listed, reason := agentsWord(pod, s)
			ids = append(ids, listed...)
			if because == "" {
				because = reason
			}
			if because != "" {
				untold[pod.UID] = true
				why = because
			}
		}
		for _, id := range ids {
			if !slices.Contains(held[pod.UID], id) {
				held[pod.UID] = append(held[pod.UID], id)
			}
		}
	}
	return untold, why
}

// wanted are the resources of device plugins that a container asks for, and how many.
func wanted(c *corev1.Container) map[corev1.ResourceName]int64 {
	out := map[corev1.ResourceName]int64{}
	for name, quantity := range c.Resources.Requests {
		if deviceid.MayBeAccelerator(string(name)) && quantity.Sign() > 0 {
			out[name] = quantity.Value()
		}
	}
	return out
}

func wantsPlugin(pod *corev1.Pod) bool {
	return slices.ContainsFunc(containers(pod), func(c corev1.Container) bool { return len(wanted(&c)) > 0 })
}

func containers(pod *corev1.Pod) []corev1.Container {
	return append(slices.Clone(pod.Spec.InitContainers), pod.Spec.Containers...)
}

// ownWord is what the pod's status says of what its containers were given, and whether that is all of it and understood.
func ownWord(pod *corev1.Pod, names deviceid.Names) (ids []string, whole bool) {
	statuses := append(slices.Clone(pod.Status.InitContainerStatuses), pod.Status.ContainerStatuses...)
	whole = true
	for _, c := range containers(pod) {
		want := wanted(&c)
		at := slices.IndexFunc(statuses, func(st corev1.ContainerStatus) bool { return st.Name == c.Name })
		if at < 0 {
			whole = whole && len(want) == 0
			continue
		}
		for _, r := range statuses[at].AllocatedResourcesStatus {
			if _, ok := want[r.Name]; !ok {
				continue // another resource, or a claim, which is read itself.
			}
			for i := range r.Resources {
				id, answer := names.Find(string(r.Name), string(r.Resources[i].ResourceID))
				if answer == deviceid.Found {
					ids = append(ids, id)
				}
				whole = whole && answer != deviceid.Untold
			}
			want[r.Name] -= int64(len(r.Resources))
		}
		for _, missing := range want {
			whole = whole && missing <= 0
		}
	}
	return ids, whole
}

// cannotTell says why the agent's word is none, or not of every bad device.
func cannotTell(s *decide.Snapshot) string {
	switch {
	case s.Health == nil || !s.Reporting:
		return "the agent's word is not fresh"
	case otherBoot(s):
		return "the agent's word is of another boot"
	case s.Health.Status.HoldersUnknown != "":
		return s.Health.Status.HoldersUnknown
	case s.Health.Status.HoldersAt == nil:
		return "the node's agent does not say who holds its devices"
	}
	for _, id := range s.RepairDevices() {
		if !slices.ContainsFunc(s.Health.Status.Faults, func(f v1alpha1.Fault) bool { return f.Device == id && matters(f) }) {
			return fmt.Sprintf("%s has no fault now for which the agent asks the kubelet", id)
		}
	}
	return ""
}

// matters says whether the agent asks who holds the device of a fault: package health, Matters.
func matters(f v1alpha1.Fault) bool {
	return f.Severity != v1alpha1.SeverityInfo && f.Class != v1alpha1.ClassApplication
}

// otherBoot says whether the kubelet has been started in another boot than the agent speaks of.
func otherBoot(s *decide.Snapshot) bool {
	kubelets := s.Node.Status.NodeInfo.BootID
	return kubelets != "" && !strings.EqualFold(kubelets, s.Health.Status.BootID)
}

// agentsWord is which bad devices the agent lists the pod for, or why it cannot be the one that is listed. The kubelet names
// pods without their UID, so one that was created again under its name is told by when it started, by the same clock.
func agentsWord(pod *corev1.Pod, s *decide.Snapshot) (ids []string, reason string) {
	if s.Health == nil || s.Health.Status.HoldersAt == nil || !s.Reporting || otherBoot(s) {
		return nil, ""
	}
	st := &s.Health.Status
	if pod.Status.StartTime == nil || pod.Status.StartTime.After(st.HoldersAt.Time) {
		return nil, "the kubelet has not been asked since they started"
	}
	for _, h := range st.Holders {
		if h.Namespace == pod.Namespace && h.Pod == pod.Name && !slices.Contains(ids, h.Device) {
			ids = append(ids, h.Device)
		}
	}
	return ids, ""
}
