package remediation

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/lru"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/claim"
	"github.com/roundhouse-dev/roundhouse/internal/controller/debounce"
	"github.com/roundhouse-dev/roundhouse/internal/evict"
)

// Setup adds the loop to a manager.
func Setup(ctx context.Context, mgr ctrl.Manager, o Options) error {
	if o.Retention == 0 {
		o.Retention = DefaultRetention
	}
	err := mgr.GetFieldIndexer().IndexField(ctx, &v1alpha1.Remediation{}, IndexNode, func(obj client.Object) []string {
		rem, ok := obj.(*v1alpha1.Remediation)
		if !ok {
			return nil
		}
		return []string{rem.Spec.Node}
	})
	if err != nil {
		return fmt.Errorf("indexing remediations by node: %w", err)
	}
	r := &Reconciler{Options: o, evictor: evict.Evictor{Client: o.Client}, requests: evict.Requests{Client: o.Client},
		foreign: claim.Finder{Reader: o.Live}, claims: lru.New(maxGiven), refusals: lru.New(maxGiven), namespaces: lru.New(maxGiven)}
	if err := mgr.Add(&adopter{Options: o}); err != nil {
		return fmt.Errorf("adding the search for what nobody owns: %w", err)
	}
	loop := ctrl.NewControllerManagedBy(mgr)
	if o.Slices != nil {
		r.drivers = newDriverTaints(o.Slices, func(ctx context.Context) (bool, error) {
			set, err := o.Policies(ctx)
			return err == nil && set.AsksForTaints(), err
		})
		if err := mgr.Add(r.drivers); err != nil {
			return fmt.Errorf("adding the watch for drivers' taints: %w", err)
		}
		loop = loop.WatchesRawSource(source.Channel(r.drivers.events, enqueue(byName, always)))
	}
	return loop.
		Named("remediation").
		WithOptions(controller.Options{
			MaxConcurrentReconciles: max(1, o.Workers), SkipNameValidation: ptr.To(true), RateLimiter: debounce.Backoff(), NewQueue: r.newQueue,
		}).
		Watches(&v1alpha1.NodeHealth{}, enqueue(byName, news), builder.WithPredicates(r.healthMatters())).
		Watches(&v1alpha1.Remediation{}, enqueue(byRemediation, nil), builder.WithPredicates(asked())).
		Watches(&corev1.Node{}, enqueue(byName, nil), builder.WithPredicates(nodeMatters())).
		Watches(&v1alpha1.RemediationPolicy{}, enqueue(r.taintedNodes, nil), builder.WithPredicates(policyMatters())).
		Watches(&v1alpha1.RemediationHold{}, enqueue(r.openNodes, nil)).
		Watches(&v1alpha1.NodeDisruptionBudget{}, enqueue(r.waitingNodes, nil), builder.WithPredicates(slotFreed())).
		Complete(r)
}

// always says that what a driver tells presses: a bad device may have to be kept out.
func always(client.Object, client.Object) bool { return true }

func byName(_ context.Context, obj client.Object) []reconcile.Request {
	return []reconcile.Request{{NamespacedName: types.NamespacedName{Name: obj.GetName()}}}
}

func byRemediation(_ context.Context, obj client.Object) []reconcile.Request {
	rem, ok := obj.(*v1alpha1.Remediation)
	if !ok {
		return nil
	}
	return []reconcile.Request{{NamespacedName: types.NamespacedName{Name: rem.Spec.Node}}}
}

// openNodes are the nodes with an open incident, and those that are faulty: a policy or a hold may change what happens.
func (r *Reconciler) openNodes(ctx context.Context, _ client.Object) []reconcile.Request {
	nodes := r.waiting(ctx, func(p v1alpha1.Phase) bool { return !p.Over() })
	var faulty v1alpha1.NodeHealthList
	if err := r.Client.List(ctx, &faulty); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "Listing faulty nodes; the next poll sees them")
	}
	for i := range faulty.Items {
		nodes[faulty.Items[i].Name] = true
	}
	return requests(nodes)
}

// waitingNodes are the nodes whose incident waits in Pending: a budget slot may have come free.
func (r *Reconciler) waitingNodes(ctx context.Context, _ client.Object) []reconcile.Request {
	return requests(r.waiting(ctx, func(p v1alpha1.Phase) bool { return p == v1alpha1.PhasePending }))
}

func (r *Reconciler) waiting(ctx context.Context, in func(v1alpha1.Phase) bool) map[string]bool {
	nodes := map[string]bool{}
	var list v1alpha1.RemediationList
	if err := r.Client.List(ctx, &list); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "Listing remediations; the next poll sees them")
	}
	for i := range list.Items {
		if in(list.Items[i].Status.Phase) {
			nodes[list.Items[i].Spec.Node] = true
		}
	}
	return nodes
}

func requests(nodes map[string]bool) []reconcile.Request {
	out := make([]reconcile.Request, 0, len(nodes))
	for name := range nodes {
		out = append(out, reconcile.Request{NamespacedName: types.NamespacedName{Name: name}})
	}
	return out
}

// asked passes what humans change about a Remediation; what we wrote ourselves is acted on where it is written.
func asked() predicate.Predicate {
	return predicate.Funcs{
		UpdateFunc: func(e event.UpdateEvent) bool {
			return e.ObjectOld.GetGeneration() != e.ObjectNew.GetGeneration() ||
				e.ObjectOld.GetDeletionTimestamp() == nil && e.ObjectNew.GetDeletionTimestamp() != nil
		},
		DeleteFunc: func(event.DeleteEvent) bool { return true },
	}
}
