// Package debounce says when a loop runs: once for many events where it looks at everything at once, and again soon
// after a failure.
package debounce

import (
	"context"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"
)

// Everything is the one request of such a loop.
var Everything = reconcile.Request{NamespacedName: types.NamespacedName{Name: "everything"}}

type queue = workqueue.TypedRateLimitingInterface[reconcile.Request]

// Handler asks for one turn, after the events of this while have come in. The queue keeps one request at most. Each of
// marks is called for each event, to remember what must be looked at again.
func Handler(after time.Duration, marks ...func()) handler.EventHandler {
	ask := func(q queue) {
		for _, mark := range marks {
			mark()
		}
		q.AddAfter(Everything, after)
	}
	return handler.Funcs{
		CreateFunc:  func(_ context.Context, _ event.TypedCreateEvent[client.Object], q queue) { ask(q) },
		UpdateFunc:  func(_ context.Context, _ event.TypedUpdateEvent[client.Object], q queue) { ask(q) },
		DeleteFunc:  func(_ context.Context, _ event.TypedDeleteEvent[client.Object], q queue) { ask(q) },
		GenericFunc: func(_ context.Context, _ event.TypedGenericEvent[client.Object], q queue) { ask(q) },
	}
}

// Start asks for the first turn, where no object is there to ask for it.
func Start() source.Source {
	return source.Func(func(_ context.Context, q queue) error {
		q.Add(Everything)
		return nil
	})
}

// The pauses after failures: the first, and the longest.
const (
	firstPause   = 20 * time.Millisecond
	longestPause = 15 * time.Second
)

// Backoff is how long a loop waits after a failure. The default of controller-runtime grows to a quarter of an hour, and
// would leave nodes alone for as long after an API server has come back.
func Backoff() workqueue.TypedRateLimiter[reconcile.Request] {
	return workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](firstPause, longestPause)
}
