package drain

import (
	"cmp"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

// Means is how pods are stopped; the zero value evicts them.
type Means struct {
	By v1alpha1.DrainBy
	// Grace bounds the time that pods have to end; zero leaves them their own.
	Grace time.Duration
}

// Deletes says whether pods whose eviction is refused are deleted.
func (m Means) Deletes() bool { return meansRank(m.By) >= meansRank(v1alpha1.DrainByDelete) }

// meansRank orders the means from the kindest; what is unknown is the kindest.
func meansRank(by v1alpha1.DrainBy) int {
	return slices.Index([]v1alpha1.DrainBy{v1alpha1.DrainByEvict, v1alpha1.DrainByDelete, v1alpha1.DrainByForceDelete}, by)
}

// MeansAfter says what a drain that has lasted so long does, and which step comes next, if any does. Steps add up: the
// strongest means and the shortest grace count.
func MeansAfter(lasted time.Duration, steps []v1alpha1.DrainEscalation) (Means, *v1alpha1.DrainEscalation) {
	now := Means{By: v1alpha1.DrainByEvict}
	var next *v1alpha1.DrainEscalation
	for i := range steps {
		step := &steps[i]
		if step.After.Duration > lasted {
			if next == nil || step.After.Duration < next.After.Duration {
				next = step
			}
			continue
		}
		if meansRank(step.By) > meansRank(now.By) {
			now.By = step.By
		}
		if step.GracePeriod != nil && (now.Grace == 0 || step.GracePeriod.Duration < now.Grace) {
			now.Grace = step.GracePeriod.Duration
		}
	}
	return now, next
}

// Force says whether a pod that is going is to be removed without the kubelet's word: only one that has outlasted its grace,
// and that nothing has forced yet.
func (m Means) Force(pod *corev1.Pod, now time.Time) bool {
	return m.By == v1alpha1.DrainByForceDelete && pod.DeletionTimestamp != nil && now.After(pod.DeletionTimestamp.Time) && granted(pod) > 0
}

// granted is how long a pod that is going was given to end.
func granted(pod *corev1.Pod) time.Duration {
	if pod.DeletionGracePeriodSeconds == nil {
		return 0
	}
	return time.Duration(*pod.DeletionGracePeriodSeconds) * time.Second
}

// Shorter is the grace period to ask for, in whole seconds, and zero where the pod's own is no longer than what the means allow.
func (m Means) Shorter(pod *corev1.Pod) time.Duration {
	own := corev1.DefaultTerminationGracePeriodSeconds * time.Second
	if pod.Spec.TerminationGracePeriodSeconds != nil {
		own = time.Duration(*pod.Spec.TerminationGracePeriodSeconds) * time.Second
	}
	if pod.DeletionTimestamp != nil {
		own = granted(pod)
	}
	if bound := m.Grace.Truncate(time.Second); bound > 0 && bound < own {
		return bound
	}
	return 0
}

// Hurry lists the pods that are going already and are to go sooner: by a shorter grace period, or by force. A pod that only a
// human stops keeps the time that the human gave it.
func (p Plan) Hurry(m Means, now time.Time, classes []v1alpha1.WorkloadClass) []Move {
	var hurry []Move
	for i := range p.Terminating {
		pod := &p.Terminating[i]
		cost, class := Cost(*pod, classes)
		if !m.Force(pod, now) && (cost == v1alpha1.CostNever || m.Shorter(pod) == 0) {
			continue
		}
		hurry = append(hurry, Move{Pod: *pod, Cost: cost, Class: class})
	}
	slices.SortFunc(hurry, func(a, b Move) int {
		return cmp.Or(cmp.Compare(a.Pod.Namespace, b.Pod.Namespace), cmp.Compare(a.Pod.Name, b.Pod.Name))
	})
	return hurry
}
