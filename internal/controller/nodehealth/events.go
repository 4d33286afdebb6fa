package nodehealth

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/controller/debounce"
)

type queue = workqueue.TypedRateLimitingInterface[reconcile.Request]

// build makes the controller of the loop: what wakes it, for which node.
func build(ctx context.Context, mgr ctrl.Manager, l *loop, reseeded <-chan event.GenericEvent) error {
	b := ctrl.NewControllerManagedBy(mgr).
		Named("nodehealth").
		WithOptions(controller.Options{MaxConcurrentReconciles: workers, RateLimiter: debounce.Backoff()}).
		Watches(&corev1.Node{}, &handler.EnqueueRequestForObject{}, builder.WithPredicates(nodeChanged())).
		Watches(&v1alpha1.NodeHealth{}, l.healthHandler()).
		WatchesRawSource(source.Channel(reseeded, &handler.EnqueueRequestForObject{}))
	if !l.AgentsElsewhere {
		if err := mgr.GetFieldIndexer().IndexField(ctx, &corev1.Pod{}, nodeNameIndex, nodeNameOf); err != nil {
			return fmt.Errorf("indexing agent pods: %w", err)
		}
		b = b.Watches(&corev1.Pod{}, handler.EnqueueRequestsFromMapFunc(nodeOfPod), builder.WithPredicates(podChanged()))
	}
	return b.Complete(l)
}

// nodeNameOf is the index of Pods by node.
func nodeNameOf(object client.Object) []string {
	if pod, ok := object.(*corev1.Pod); ok && pod.Spec.NodeName != "" {
		return []string{pod.Spec.NodeName}
	}
	return nil
}

func nodeOfPod(_ context.Context, object client.Object) []reconcile.Request {
	var requests []reconcile.Request
	for _, name := range nodeNameOf(object) {
		requests = append(requests, requestFor(name))
	}
	return requests
}

func requestFor(name string) reconcile.Request {
	return reconcile.Request{NamespacedName: types.NamespacedName{Name: name}}
}

// nodeChanged lets through what matters here of the many updates of Nodes: each kubelet writes one every few minutes.
func nodeChanged() predicate.Predicate {
	return predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		before, okBefore := e.ObjectOld.(*corev1.Node)
		after, okAfter := e.ObjectNew.(*corev1.Node)
		return !okBefore || !okAfter || before.UID != after.UID || reportingOf(before) != reportingOf(after) ||
			predicate.LabelChangedPredicate{}.Update(e)
	}}
}

// reportingOf is the condition's status and reason, empty without one.
func reportingOf(node *corev1.Node) string {
	if condition := conditionOf(node); condition != nil {
		return string(condition.Status) + condition.Reason
	}
	return ""
}

func podChanged() predicate.Predicate {
	return predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		before, okBefore := e.ObjectOld.(*corev1.Pod)
		after, okAfter := e.ObjectNew.(*corev1.Pod)
		return !okBefore || !okAfter || podReady(before) != podReady(after) || before.Spec.NodeName != after.Spec.NodeName ||
			(before.DeletionTimestamp == nil) != (after.DeletionTimestamp == nil)
	}}
}

// healthHandler wakes the loop where a NodeHealth is reported for the first time, or may be gone.
func (l *loop) healthHandler() handler.EventHandler {
	return handler.Funcs{
		CreateFunc: func(_ context.Context, e event.CreateEvent, q queue) {
			l.shown(e.Object.GetName())
			q.Add(requestFor(e.Object.GetName()))
		},
		UpdateFunc: func(_ context.Context, e event.UpdateEvent, q queue) {
			before, okBefore := e.ObjectOld.(*v1alpha1.NodeHealth)
			after, okAfter := e.ObjectNew.(*v1alpha1.NodeHealth)
			if !okBefore || !okAfter || before.UID != after.UID || (before.Status.BootID == "") != (after.Status.BootID == "") {
				q.Add(requestFor(e.ObjectNew.GetName()))
			}
		},
		DeleteFunc: func(_ context.Context, e event.DeleteEvent, q queue) {
			// It is Healthy now, or it was deleted. Where it has been reported before, which of the two is asked: that is
			// rare. The first reports of a new fleet come by the thousand, and are taken for what they are.
			if health, ok := e.Object.(*v1alpha1.NodeHealth); !ok || health.Status.BootID != "" {
				l.doubt(e.Object.GetName())
			}
			q.Add(requestFor(e.Object.GetName()))
		},
	}
}

// count keeps the gauge of nodes that do not report.
func (l *loop) count(name, reason string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	before := l.reasons[name]
	if before == reason {
		return
	}
	if before != "" {
		l.Metrics.NodesNotReporting.WithLabelValues(before).Dec()
	}
	if reason == "" {
		delete(l.reasons, name)
		return
	}
	l.reasons[name] = reason
	l.Metrics.NodesNotReporting.WithLabelValues(reason).Inc()
}

// seeder lists all NodeHealths again from time to time, while this process leads.
type seeder struct {
	loop    *loop
	changed chan<- event.GenericEvent
}

// Start runs until ctx ends.
func (s *seeder) Start(ctx context.Context) error {
	ticker := time.NewTicker(reseed)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		if err := s.turn(ctx); err != nil {
			log.FromContext(ctx).Error(err, "NodeHealths were not compared with the nodes; trying again later")
		}
	}
}

// turn wakes the loop for each node whose NodeHealth is missing.
func (s *seeder) turn(ctx context.Context) error {
	if err := s.loop.seedAgain(ctx, s.loop.live); err != nil {
		return err
	}
	nodes := &corev1.NodeList{}
	if err := s.loop.client.List(ctx, nodes, client.UnsafeDisableDeepCopy); err != nil {
		return fmt.Errorf("listing nodes: %w", err)
	}
	for i := range nodes.Items {
		node := &nodes.Items[i]
		if s.loop.owner(node.Name) == node.UID {
			continue
		}
		select {
		case s.changed <- event.GenericEvent{Object: node}:
		case <-ctx.Done():
			return nil
		}
	}
	return nil
}
