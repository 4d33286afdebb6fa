package evict

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	lifecyclev1alpha1 "k8s.io/api/lifecycle/v1alpha1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

// Requester is who asks, in EvictionRequests.
const Requester = v1alpha1.OwnDomain + "/controller"

// Asked is the kind of outcome where the pod's responders have been asked to end it gracefully, and have time.
const Asked Kind = "Asked"

const (
	// beats is how long after its last word a responder is taken to be at work: the API's own deadline (KEP-4563).
	beats = 20 * time.Minute
	// askAgain is how often it is looked how far a responder has come.
	askAgain = 5 * time.Second
	// unservedFor is how long it is believed that a server does not serve EvictionRequests.
	unservedFor = 10 * time.Minute
	// maxEvictions bounds a list of Evictions of one namespace.
	maxEvictions = 1000
)

// Asking says how long responders are asked before a pod is evicted all the same.
type Asking struct {
	// Now is the time, and Incident what it is for.
	Now      time.Time
	Incident string
	// Answer is how long a responder may take to begin, Deadline how long it may take in all.
	Answer, Deadline time.Duration
}

// Requests asks the responders that pods name to end them gracefully (EvictionRequest, KEP-4563). Kubernetes 1.37 serves the
// API where its alpha feature is on, and ships no controller for it: a request that nobody is seen to act on is given up.
type Requests struct {
	Client client.Client

	mu       sync.Mutex
	unserved time.Time
}

// Responds says whether a pod names responders that may be asked: the API does not support those of a PodGroup.
func Responds(pod *corev1.Pod) bool {
	return len(pod.Spec.EvictionResponders) > 0 && pod.Spec.SchedulingGroup == nil
}

// Ask asks a pod's responders, or looks how far they have come. It gives Asked while they have time, and nothing where the pod is
// to be evicted now.
func (r *Requests) Ask(ctx context.Context, pod *corev1.Pod, how Asking) (Outcome, error) {
	if !Responds(pod) || pod.UID == "" || pod.DeletionTimestamp != nil || how.Deadline <= 0 || !r.served(how.Now) {
		return Outcome{}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	request, err := r.request(ctx, pod, how)
	if err != nil || request == nil {
		return Outcome{}, err
	}
	selector := client.MatchingLabels{Requester: string(lifecyclev1alpha1.EvictionParticipantRoleRequester)}
	var evictions lifecyclev1alpha1.EvictionList
	if err := r.Client.List(ctx, &evictions, client.InNamespace(pod.Namespace), selector, client.Limit(maxEvictions)); err != nil {
		return Outcome{}, fmt.Errorf("listing the evictions of namespace %s: %w", pod.Namespace, err)
	}
	i := slices.IndexFunc(evictions.Items, func(e lifecyclev1alpha1.Eviction) bool {
		return e.Spec.Target.Pod != nil && e.Spec.Target.Pod.UID == pod.UID
	})
	var eviction *lifecyclev1alpha1.Eviction
	if i >= 0 {
		eviction = &evictions.Items[i]
	}
	said, wait := progress(request, eviction, how)
	if !wait {
		return Outcome{Message: said}, nil
	}
	again := askAgain
	if left := request.CreationTimestamp.Add(how.Answer).Sub(how.Now); left > 0 {
		again = min(again, left)
	}
	return Outcome{Kind: Asked, Message: said, RetryAfter: again}, nil
}

// request finds our request for a pod, or makes it; nil where the server has no such API. It is the pod's, and goes with it.
func (r *Requests) request(ctx context.Context, pod *corev1.Pod, how Asking) (*lifecyclev1alpha1.EvictionRequest, error) {
	found := &lifecyclev1alpha1.EvictionRequest{}
	err := r.Client.Get(ctx, client.ObjectKey{Namespace: pod.Namespace, Name: requestName(pod)}, found)
	if r.isUnserved(err, how.Now) {
		return nil, nil
	}
	if err == nil || !apierrors.IsNotFound(err) {
		return found, wrap(err, pod)
	}
	made := &lifecyclev1alpha1.EvictionRequest{
		ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: requestName(pod), Labels: map[string]string{v1alpha1.LabelRemediation: how.Incident},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID}}},
		Spec: lifecyclev1alpha1.EvictionRequestSpec{
			Requester: Requester, Intent: lifecyclev1alpha1.EvictionRequestIntentEviction,
			Target: lifecyclev1alpha1.EvictionRequestTarget{Pod: &lifecyclev1alpha1.EvictionRequestPodReference{Name: pod.Name, UID: pod.UID}},
		},
	}
	err = r.Client.Create(ctx, made)
	if r.isUnserved(err, how.Now) {
		return nil, nil
	}
	return made, wrap(err, pod)
}

func wrap(err error, pod *corev1.Pod) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("asking the responders of pod %s/%s: %w", pod.Namespace, pod.Name, err)
}

// requestName is the same for every controller and after every crash.
func requestName(pod *corev1.Pod) string { return "roundhouse-" + string(pod.UID) }

// Withdraw takes the request for a pod back: by deleting it, which the API takes for a withdrawal.
func (r *Requests) Withdraw(ctx context.Context, pod *corev1.Pod, now time.Time) error {
	if !Responds(pod) || pod.UID == "" || !r.served(now) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	request := &lifecyclev1alpha1.EvictionRequest{ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: requestName(pod)}}
	err := r.Client.Delete(ctx, request)
	if r.isUnserved(err, now) || apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("withdrawing the eviction request for pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	return nil
}

// served says whether the API may be there.
func (r *Requests) served(now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.unserved.IsZero() || now.Sub(r.unserved) >= unservedFor
}

// isUnserved says whether an error means that the server has no such API, or none that we may use, and remembers it.
func (r *Requests) isUnserved(err error, now time.Time) bool {
	noAPI := meta.IsNoMatchError(err) || apierrors.IsNotFound(err) && !namesObject(err)
	if !noAPI && !apierrors.IsForbidden(err) {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.unserved = now
	return true
}

// namesObject says whether a 404 is about an object: one about an API names none.
func namesObject(err error) bool {
	var status apierrors.APIStatus
	return errors.As(err, &status) && status.Status().Details != nil && status.Status().Details.Name != ""
}

// progress says how far a request has come, and whether its responders still have time.
func progress(request *lifecyclev1alpha1.EvictionRequest, eviction *lifecyclev1alpha1.Eviction, how Asking) (said string, wait bool) {
	asked := request.CreationTimestamp.Time
	late := func(after time.Duration) bool { return how.Now.Sub(asked) >= after }
	switch {
	case isTrue(request.Status.Conditions, lifecyclev1alpha1.EvictionConditionFailed):
		return "its responders could not end it: " + meta.FindStatusCondition(request.Status.Conditions, string(lifecyclev1alpha1.EvictionConditionFailed)).Message, false
	case late(how.Deadline):
		return fmt.Sprintf("its responders have not ended it within %s", how.Deadline), false
	}
	name, status := active(eviction)
	switch {
	case name == lifecyclev1alpha1.EvictionResponderImperativeEviction:
		return "nobody but the Eviction API is left to end it", false
	case status != nil && status.HeartbeatTime != nil && how.Now.Sub(status.HeartbeatTime.Time) < beats:
		return acts(name, status, asked.Add(how.Deadline)), true
	case late(how.Answer):
		return fmt.Sprintf("none of its responders has begun within %s", how.Answer), false
	}
	return fmt.Sprintf("its responders are asked to end it; evicted where none begins by %s", stamp(asked.Add(how.Answer))), true
}

// active is the responder whose turn it is, with its word where there is one.
func active(eviction *lifecyclev1alpha1.Eviction) (string, *lifecyclev1alpha1.ResponderStatus) {
	if eviction == nil {
		return "", nil
	}
	i := slices.IndexFunc(eviction.Status.TargetResponders, func(t lifecyclev1alpha1.TargetResponder) bool {
		return t.State == lifecyclev1alpha1.ResponderStateActive
	})
	if i < 0 {
		return "", nil
	}
	name := eviction.Status.TargetResponders[i].Name
	for j := range eviction.Status.Responders {
		if eviction.Status.Responders[j].Name == name {
			return name, &eviction.Status.Responders[j]
		}
	}
	return name, nil
}

// acts says what a responder does.
func acts(name string, status *lifecyclev1alpha1.ResponderStatus, deadline time.Time) string {
	said := "responder " + name + " is ending it"
	if status.Message != nil && *status.Message != "" {
		said += ": " + *status.Message
	}
	if at := status.ExpectedCompletionTime; at != nil {
		said += "; it expects to be done at " + stamp(at.Time)
	}
	return said + "; evicted at " + stamp(deadline)
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func isTrue(conditions []metav1.Condition, kind lifecyclev1alpha1.EvictionConditionType) bool {
	return meta.IsStatusConditionTrue(conditions, string(kind))
}
