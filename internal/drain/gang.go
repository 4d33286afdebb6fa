package drain

import (
	"time"

	corev1 "k8s.io/api/core/v1"
)

// GangRef names a gang: by the PodGroup that its pods are scheduled with, or by the label that all of them carry.
type GangRef struct {
	Namespace string
	// Label is the label's key; empty where Name is a PodGroup's.
	Label, Name string
}

func (g GangRef) String() string { return g.Namespace + "/" + g.Name }

// Has says whether a pod is of the gang.
func (g GangRef) Has(pod *corev1.Pod) bool {
	ref, ok := GangOf(pod)
	return ok && ref == g
}

// GangOf names a pod's gang; false where it has none, or none that has a name.
func GangOf(pod *corev1.Pod) (GangRef, bool) {
	if g := pod.Spec.SchedulingGroup; g != nil {
		if g.PodGroupName == nil {
			return GangRef{}, false
		}
		return GangRef{Namespace: pod.Namespace, Name: *g.PodGroupName}, true
	}
	for _, key := range gangLabels {
		if name := pod.Labels[key]; name != "" {
			return GangRef{Namespace: pod.Namespace, Label: key, Name: name}, true
		}
	}
	return GangRef{}, false
}

// GangAtRisk is what stopping a gang would lose, in device-hours: that of all its pods, wherever they run, at so many devices
// a pod where that is not known of a pod itself. It is down where one of its pods does not run: then nothing more is lost.
func GangAtRisk(now time.Time, pods []*corev1.Pod, each int64) (deviceHours float64, down bool) {
	for _, pod := range pods {
		if pod.Status.Phase == corev1.PodSucceeded {
			continue
		}
		if pod.DeletionTimestamp != nil || pod.Status.Phase != corev1.PodRunning {
			return 0, true
		}
		n := devices(nil, pod)
		if n == 0 {
			n = each
		}
		deviceHours += float64(n) * hoursLost(now, pod)
	}
	return deviceHours, false
}
