package remediation

import (
	"context"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/priorityqueue"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

// Nodes wait for their turn in two classes: where an agent has just told of another fault, a bad device may have to be kept
// out, and that goes before everything that a known incident still needs, but for one that acts: it holds a slot that others
// wait for, and budgets bound how many do. Nobody who is later gets a turn while somebody presses, so that nothing else may.
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

// again asks for another turn after a while: behind what presses, unless the node's incident acts.
func again(w *work, after time.Duration) ctrl.Result {
	priority := later
	if w.rem != nil && w.rem.Status.Phase.Acting() {
		priority = pressing
	}
	return ctrl.Result{RequeueAfter: after, Priority: ptr.To(priority)}
}

// enqueue asks for a turn for each node that an event is about. presses says of an object, and what it was before, whether
// it does; without it nothing does.
func enqueue(nodes handler.MapFunc, presses func(before, after client.Object) bool) handler.EventHandler {
	add := func(ctx context.Context, q queue, before, after client.Object) {
		requests := nodes(ctx, after)
		pq, ok := q.(priorityqueue.PriorityQueue[reconcile.Request])
		if !ok {
			for _, request := range requests {
				q.Add(request)
			}
			return
		}
		priority := later
		if presses != nil && presses(before, after) {
			priority = pressing
		}
		pq.AddWithOpts(priorityqueue.AddOpts{Priority: &priority}, requests...)
	}
	return handler.Funcs{
		CreateFunc: func(ctx context.Context, e event.TypedCreateEvent[client.Object], q queue) {
			add(ctx, q, nil, e.Object)
		},
		UpdateFunc: func(ctx context.Context, e event.TypedUpdateEvent[client.Object], q queue) {
			add(ctx, q, e.ObjectOld, e.ObjectNew)
		},
		DeleteFunc: func(ctx context.Context, e event.TypedDeleteEvent[client.Object], q queue) {
			add(ctx, q, e.Object, e.Object)
		},
		GenericFunc: func(ctx context.Context, e event.TypedGenericEvent[client.Object], q queue) {
			add(ctx, q, nil, e.Object)
		},
	}
}

// news says whether an agent has told of something that presses: another fault, or how an action stands. How often a fault
// was seen, and when last, does not.
func news(before, after client.Object) bool {
	now, ok := after.(*v1alpha1.NodeHealth)
	if !ok {
		return false
	}
	was, ok := before.(*v1alpha1.NodeHealth)
	return !ok || !equality.Semantic.DeepEqual(was.Status.Action, now.Status.Action) ||
		!slices.EqualFunc(was.Status.Faults, now.Status.Faults, sameFault)
}

func sameFault(a, b v1alpha1.Fault) bool {
	return a.Code == b.Code && a.Device == b.Device && a.Class == b.Class && a.Severity == b.Severity &&
		a.Recommended == b.Recommended && a.Root == b.Root && a.FirstSeen.Equal(&b.FirstSeen)
}
