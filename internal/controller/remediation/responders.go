package remediation

import (
	"context"

	corev1 "k8s.io/api/core/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/decide"
	"github.com/roundhouse-dev/roundhouse/internal/drain"
	"github.com/roundhouse-dev/roundhouse/internal/evict"
)

// askFirst asks the responders that a pod names, as long as the drain has not come to anything harder.
func (r *Reconciler) askFirst(ctx context.Context, pod *corev1.Pod, means drain.Means, s *decide.Snapshot) (evict.Outcome, error) {
	if means.By != v1alpha1.DrainByEvict || means.Grace > 0 {
		return evict.Outcome{}, nil
	}
	answer, deadline := decide.Responders(s)
	return r.requests.Ask(ctx, pod, evict.Asking{Now: s.Now, Incident: s.Remediation.Name, Answer: answer, Deadline: deadline})
}

// withdrawRequests takes back what responders were asked for where a drain ends with pods left: their node is wanted no more, or
// not now.
func (r *Reconciler) withdrawRequests(ctx context.Context, w *work, d decide.Decision) error {
	if w.rem.Status.Phase != v1alpha1.PhaseDraining || d.Phase == v1alpha1.PhaseDraining || w.occupants == nil {
		return nil
	}
	for i := range w.occupants.pods {
		if err := r.requests.Withdraw(ctx, &w.occupants.pods[i], r.Clock.Now()); err != nil {
			return err
		}
	}
	return nil
}
