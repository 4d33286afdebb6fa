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

// GangLoss is what stopping a gang would lose: the work of all its pods, wherever they run.
type GangLoss struct {
	// Down says that one of its pods does not run: then nothing more is lost, and the rest is not counted.
	Down bool
	// Pods and Devices count what runs of it, on so many Nodes. Of Checkpointed pods a checkpoint is known.
	Pods, Nodes, Checkpointed int
	Devices                   int64
	// Shortest and Longest are how many hours its pods have worked since their last checkpoint, else since their start.
	Shortest, Longest float64
	// DeviceHours sums each pod's devices times its hours.
	DeviceHours float64
}

// WeighGang says what stopping a gang would lose, at so many devices a pod where that is not known of a pod itself.
func WeighGang(now time.Time, pods []*corev1.Pod, each int64) GangLoss {
	var loss GangLoss
	nodes := map[string]bool{}
	for _, pod := range pods {
		if pod.Status.Phase == corev1.PodSucceeded {
			continue
		}
		if pod.DeletionTimestamp != nil || pod.Status.Phase != corev1.PodRunning {
			return GangLoss{Down: true}
		}
		n := devices(nil, pod)
		if n == 0 {
			n = each
		}
		since, checkpointed := lastKept(now, pod)
		hours := hoursSince(now, since)
		if loss.Pods == 0 {
			loss.Shortest = hours
		}
		loss.Pods++
		loss.Devices += n
		loss.Shortest, loss.Longest = min(loss.Shortest, hours), max(loss.Longest, hours)
		loss.DeviceHours += float64(n) * hours
		if checkpointed {
			loss.Checkpointed++
		}
		nodes[pod.Spec.NodeName] = true
	}
	loss.Nodes = len(nodes)
	return loss
}
