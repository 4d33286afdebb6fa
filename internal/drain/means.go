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
	// Late is how long ago those had to end that were going when that bound began to count; less than zero while they have
	// time.
	Late time.Duration
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
			now.Late = lasted - step.After.Duration - now.Grace
		}
	}
	return now, next
}

// forceMargin is how much longer than its grace a pod may take: a kubelet begins to count later than the server, and kills and
// reports after that.
const forceMargin = 30 * time.Second

// Force says whether a pod that is going is to be removed without the kubelet's word: only one that has outlasted its grace,
// and that nothing has forced yet.
func (m Means) Force(pod *corev1.Pod, now time.Time) bool {
	return m.By == v1alpha1.DrainByForceDelete && overdue(pod, now) && granted(pod) > 0
}

func overdue(pod *corev1.Pod, now time.Time) bool {
	return pod.DeletionTimestamp != nil && now.After(pod.DeletionTimestamp.Add(forceMargin))
}

// Forced says whether a pod has been removed by force, and only a finalizer keeps its object: nobody waits for its kubelet any
// more. A Job's controller takes its own off when the kubelet has reported, which may be after the repair.
func Forced(pod *corev1.Pod, now time.Time) bool {
	return pod.DeletionTimestamp != nil && granted(pod) == 0 && len(pod.Finalizers) > 0 && !now.Before(pod.DeletionTimestamp.Time)
}

// WithoutForced is the plan that does not wait for pods that have been removed by force.
func (p Plan) WithoutForced(now time.Time) Plan {
	p.Terminating = slices.DeleteFunc(slices.Clone(p.Terminating), func(pod corev1.Pod) bool { return Forced(&pod, now) })
	return p
}

// granted is how long a pod that is going was given to end.
func granted(pod *corev1.Pod) time.Duration {
	if pod.DeletionGracePeriodSeconds == nil {
		return 0
	}
	return time.Duration(*pod.DeletionGracePeriodSeconds) * time.Second
}

// Shorter is the grace period to ask for, in whole seconds, and zero where the pod's own is no longer than what the means allow.
// A pod that is going already has its new grace counted from when it was first asked (BeforeDelete in
// k8s.io/apiserver/pkg/registry/rest): it is not asked to go sooner before it has had the whole bound since that began to count.
func (m Means) Shorter(pod *corev1.Pod) time.Duration {
	own := corev1.DefaultTerminationGracePeriodSeconds * time.Second
	if pod.Spec.TerminationGracePeriodSeconds != nil {
		own = time.Duration(*pod.Spec.TerminationGracePeriodSeconds) * time.Second
	}
	if pod.DeletionTimestamp != nil {
		if m.Late < 0 {
			return 0
		}
		own = granted(pod)
	}
	if bound := m.Grace.Truncate(time.Second); bound > 0 && bound < own {
		return bound
	}
	return 0
}

// Hurry lists the pods that are going already and are to go sooner, by a shorter grace period or by force: of those that the
// drain would move if they were not. One that only a human stops keeps the time that the human gave it, and is removed by force
// like others once that is over.
func (p Plan) Hurry(m Means, now time.Time) []Move {
	var hurry []Move
	for _, g := range p.going {
		if m.Force(&g.Pod, now) || (g.Cost != v1alpha1.CostNever && m.Shorter(&g.Pod) > 0) {
			hurry = append(hurry, g)
		}
	}
	slices.SortFunc(hurry, func(a, b Move) int {
		return cmp.Or(cmp.Compare(a.Pod.Namespace, b.Pod.Namespace), cmp.Compare(a.Pod.Name, b.Pod.Name))
	})
	return hurry
}
