package fleet

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	lifecyclev1alpha1 "k8s.io/api/lifecycle/v1alpha1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"
)

const (
	// Responder is the name by which pods have the fleet's responder end them; it saves their work first, which takes savesIn.
	// Other names are of responders that never answer.
	Responder = "sandbox.roundhouse.dev/saver"
	savesIn   = 3 * time.Second
	// respondEvery is how often requests are looked at, maxRequests how many.
	respondEvery = 300 * time.Millisecond
	maxRequests  = 500
)

// responders plays what Kubernetes 1.37 has types for and no program: the controller that makes Evictions of EvictionRequests and
// says whose turn it is (KEP-4563), and one responder.
type responders struct {
	client kubernetes.Interface
	log    logr.Logger
}

// run plays until ctx ends.
func (r *responders) run(ctx context.Context) {
	tick := time.NewTicker(respondEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := r.look(ctx); err != nil && ctx.Err() == nil {
			r.log.Error(err, "Playing the responders; looking again")
		}
	}
}

// look looks at every request once.
func (r *responders) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	requests, err := r.client.LifecycleV1alpha1().EvictionRequests("").List(ctx, metav1.ListOptions{Limit: maxRequests})
	if err != nil {
		return fmt.Errorf("listing EvictionRequests: %w", err)
	}
	asked := map[string]bool{}
	var errs []error
	for i := range requests.Items {
		request := &requests.Items[i]
		if request.Spec.Intent != lifecyclev1alpha1.EvictionRequestIntentEviction || request.Spec.Target.Pod == nil {
			continue
		}
		asked[string(request.Spec.Target.Pod.UID)] = true
		errs = append(errs, r.respond(ctx, request))
	}
	return errors.Join(append(errs, r.tidy(ctx, asked))...)
}

// tidy removes the Evictions that nobody asks for any more.
func (r *responders) tidy(ctx context.Context, asked map[string]bool) error {
	evictions, err := r.client.LifecycleV1alpha1().Evictions("").List(ctx, metav1.ListOptions{Limit: maxRequests})
	if err != nil {
		return fmt.Errorf("listing Evictions: %w", err)
	}
	for i := range evictions.Items {
		e := &evictions.Items[i]
		if e.Spec.Target.Pod == nil || asked[string(e.Spec.Target.Pod.UID)] {
			continue
		}
		err := r.client.LifecycleV1alpha1().Evictions(e.Namespace).Delete(ctx, e.Name, metav1.DeleteOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("deleting an Eviction: %w", err)
		}
	}
	return nil
}

// respond brings one request a step further.
func (r *responders) respond(ctx context.Context, request *lifecyclev1alpha1.EvictionRequest) error {
	target := request.Spec.Target.Pod
	pod, err := r.client.CoreV1().Pods(request.Namespace).Get(ctx, target.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) || err == nil && (pod.UID != target.UID || pod.DeletionTimestamp != nil) {
		return nil // it is gone, or going.
	}
	if err != nil {
		return fmt.Errorf("reading a pod: %w", err)
	}
	evictions := r.client.LifecycleV1alpha1().Evictions(request.Namespace)
	name := "evict-" + string(target.UID)
	e, err := evictions.Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		e, err = evictions.Create(ctx, evictionFor(name, request), metav1.CreateOptions{})
	}
	if err != nil {
		return fmt.Errorf("making an Eviction: %w", err)
	}
	if !further(e, pod, metav1.Now()) {
		return nil
	}
	if saved(e) {
		zero := metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &pod.UID}}
		if err := r.client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, zero); err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("ending a pod: %w", err)
		}
	}
	if _, err := evictions.UpdateStatus(ctx, e, metav1.UpdateOptions{}); err != nil {
		return fmt.Errorf("writing an Eviction's status: %w", err)
	}
	return nil
}

func evictionFor(name string, request *lifecyclev1alpha1.EvictionRequest) *lifecyclev1alpha1.Eviction {
	target := request.Spec.Target.Pod
	return &lifecyclev1alpha1.Eviction{
		ObjectMeta: metav1.ObjectMeta{Namespace: request.Namespace, Name: name,
			Labels: map[string]string{request.Spec.Requester: string(lifecyclev1alpha1.EvictionParticipantRoleRequester)}},
		Spec: lifecyclev1alpha1.EvictionSpec{Target: lifecyclev1alpha1.EvictionTarget{
			Pod: &lifecyclev1alpha1.EvictionPodReference{Name: target.Name, UID: target.UID}}},
	}
}

// further changes the status by one step: it lists the responders, and it is the first one's turn; that one is ours, and is at
// work; it has done it. It says whether anything changed.
func further(e *lifecyclev1alpha1.Eviction, pod *corev1.Pod, now metav1.Time) bool {
	st := &e.Status
	if len(st.TargetResponders) == 0 {
		named := append(pod.Spec.EvictionResponders[:len(pod.Spec.EvictionResponders):len(pod.Spec.EvictionResponders)],
			corev1.EvictionResponder{Name: lifecyclev1alpha1.EvictionResponderImperativeEviction, Priority: ptr.To[int32](100)})
		for _, n := range named {
			st.TargetResponders = append(st.TargetResponders, lifecyclev1alpha1.TargetResponder{
				Name: n.Name, Priority: n.Priority, State: lifecyclev1alpha1.ResponderStateInactive})
			st.Responders = append(st.Responders, lifecyclev1alpha1.ResponderStatus{Name: n.Name})
		}
		st.TargetResponders[0].State, st.Responders[0].StartTime = lifecyclev1alpha1.ResponderStateActive, &now
		return true
	}
	first, said := &st.TargetResponders[0], &st.Responders[0]
	switch {
	case first.Name != Responder || said.CompletionTime != nil:
		return false
	case said.HeartbeatTime == nil:
		said.HeartbeatTime, said.Message = &now, ptr.To("saving its work")
		said.ExpectedCompletionTime = &metav1.Time{Time: now.Add(savesIn)}
	case now.Sub(said.HeartbeatTime.Time) >= savesIn:
		said.CompletionTime = &now
	default:
		return false
	}
	return true
}

// saved says whether the work is saved, so that the pod may end.
func saved(e *lifecyclev1alpha1.Eviction) bool {
	return len(e.Status.Responders) > 0 && e.Status.Responders[0].CompletionTime != nil
}
