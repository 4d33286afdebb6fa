package debounce

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

func TestManyEventsAreOneTurn(t *testing.T) {
	q := workqueue.NewTypedRateLimitingQueue(Backoff())
	defer q.ShutDown()
	marked := 0
	h := Handler(10*time.Millisecond, func() { marked++ })
	for range 100 {
		h.Create(t.Context(), event.CreateEvent{Object: &corev1.Node{}}, q)
		h.Update(t.Context(), event.UpdateEvent{ObjectOld: &corev1.Node{}, ObjectNew: &corev1.Node{}}, q)
		h.Delete(t.Context(), event.DeleteEvent{Object: &corev1.Node{}}, q)
	}
	if request, _ := q.Get(); request != Everything {
		t.Errorf("the turn is for %v", request)
	}
	q.Done(Everything)
	if q.Len() > 0 || marked != 300 {
		t.Errorf("%d turns are left and %d events were marked; want none and 300", q.Len(), marked)
	}
}

func TestThePauseAfterFailuresStaysShort(t *testing.T) {
	backoff := Backoff()
	for range 60 {
		if pause := backoff.When(reconcile.Request{}); pause < firstPause || pause > longestPause {
			t.Fatalf("the pause is %v", pause)
		}
	}
}
