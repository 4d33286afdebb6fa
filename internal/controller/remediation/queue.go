package remediation

import (
	"context"
	"time"

	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/priorityqueue"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// Nodes wait for their turn in two classes: where an agent has just said something new, a bad device may have to be kept
// out, and that goes before everything that a known incident still needs.
const (
	pressing = 0
	later    = -1
)

type queue = workqueue.TypedRateLimitingInterface[reconcile.Request]

// newQueue makes the loop's queue, and keeps hold of it, so that a step can see that others wait.
func (r *Reconciler) newQueue(name string, limiter workqueue.TypedRateLimiter[reconcile.Request]) queue {
	r.queue = priorityqueue.New(name, func(o *priorityqueue.Opts[reconcile.Request]) { o.RateLimiter = limiter })
	return r.queue
}

// again asks for another turn after a while, behind what presses.
func again(after time.Duration) ctrl.Result {
	return ctrl.Result{RequeueAfter: after, Priority: ptr.To(later)}
}

// enqueue asks for a turn for each node that an event is about.
func enqueue(priority int, nodes handler.MapFunc) handler.EventHandler {
	add := func(ctx context.Context, q queue, objects ...client.Object) {
		for _, object := range objects {
			requests := nodes(ctx, object)
			if pq, ok := q.(priorityqueue.PriorityQueue[reconcile.Request]); ok {
				pq.AddWithOpts(priorityqueue.AddOpts{Priority: &priority}, requests...)
				continue
			}
			for _, request := range requests {
				q.Add(request)
			}
		}
	}
	return handler.Funcs{
		CreateFunc: func(ctx context.Context, e event.TypedCreateEvent[client.Object], q queue) { add(ctx, q, e.Object) },
		UpdateFunc: func(ctx context.Context, e event.TypedUpdateEvent[client.Object], q queue) { add(ctx, q, e.ObjectNew) },
		DeleteFunc: func(ctx context.Context, e event.TypedDeleteEvent[client.Object], q queue) { add(ctx, q, e.Object) },
	}
}
