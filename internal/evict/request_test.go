package evict

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	lifecyclev1alpha1 "k8s.io/api/lifecycle/v1alpha1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

var asked = time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)

const snapshooter = "example.com/snapshot"

// responding is a pod that names a responder.
func responding(change ...func(*corev1.Pod)) *corev1.Pod {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ml", Name: "train", UID: "u1"},
		Spec: corev1.PodSpec{EvictionResponders: []corev1.EvictionResponder{{Name: snapshooter, Priority: ptr.To[int32](10000)}}}}
	for _, c := range change {
		c(pod)
	}
	return pod
}

// lifecycleServer is an API server that gives a request the time at which it was made, and may answer with an error.
type lifecycleServer struct {
	client.WithWatch
	err   error
	calls int
}

func newLifecycleServer(t *testing.T, objects ...client.Object) *lifecycleServer {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := clientgoscheme.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	s := &lifecycleServer{}
	s.WithWatch = interceptor.NewClient(fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).Build(), interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
			s.calls++
			if s.err != nil {
				return s.err
			}
			return c.Get(ctx, key, o, opts...)
		},
		Create: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.CreateOption) error {
			o.SetCreationTimestamp(metav1.NewTime(asked))
			return c.Create(ctx, o, opts...)
		},
	})
	return s
}

func after(d time.Duration) Asking {
	return Asking{Now: asked.Add(d), Incident: "gpu-1-x", Answer: 30 * time.Second, Deadline: 10 * time.Minute}
}

// evictionOf is an Eviction of the pod as a controller of that API keeps it.
func evictionOf(active string, said ...lifecyclev1alpha1.ResponderStatus) *lifecyclev1alpha1.Eviction {
	return &lifecyclev1alpha1.Eviction{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ml", Name: "e", Labels: map[string]string{Requester: "requester"}},
		Spec:       lifecyclev1alpha1.EvictionSpec{Target: lifecyclev1alpha1.EvictionTarget{Pod: &lifecyclev1alpha1.EvictionPodReference{Name: "train", UID: "u1"}}},
		Status: lifecyclev1alpha1.EvictionStatus{Responders: said, TargetResponders: []lifecyclev1alpha1.TargetResponder{
			{Name: "example.com/later", State: lifecyclev1alpha1.ResponderStateInactive}, {Name: active, State: lifecyclev1alpha1.ResponderStateActive}}},
	}
}

// beat is a responder's word.
func beat(at time.Duration, change ...func(*lifecyclev1alpha1.ResponderStatus)) lifecyclev1alpha1.ResponderStatus {
	s := lifecyclev1alpha1.ResponderStatus{Name: snapshooter, HeartbeatTime: &metav1.Time{Time: asked.Add(at)}}
	for _, c := range change {
		c(&s)
	}
	return s
}

func TestRespondersAreAskedFirst(t *testing.T) {
	failed := metav1.Condition{Type: "Failed", Status: metav1.ConditionTrue, Message: "no further responder"}
	other := evictionOf(snapshooter, beat(time.Minute))
	other.Spec.Target.Pod.UID = "u2"
	for name, tc := range map[string]struct {
		pod      *corev1.Pod
		how      Asking
		eviction *lifecyclev1alpha1.Eviction
		failed   []metav1.Condition
		want     Kind
		says     string
	}{
		"one is asked, and has time to begin":     {responding(), after(time.Second), nil, nil, Asked, "evicted where none begins by 2026-11-23T10:00:30Z"},
		"that nobody answers in time is given up": {responding(), after(30 * time.Second), nil, nil, "", "none of its responders has begun within 30s"},
		"one that is to act and says nothing too": {responding(), after(time.Minute), evictionOf(snapshooter), nil, "", "none of its responders has begun"},
		"one that acts has longer": {responding(), after(5 * time.Minute), evictionOf(snapshooter, beat(20*time.Second, func(s *lifecyclev1alpha1.ResponderStatus) {
			s.Message, s.ExpectedCompletionTime = ptr.To("saving 12 of 80 GiB"), &metav1.Time{Time: asked.Add(8 * time.Minute)}
		})), nil, Asked, "responder example.com/snapshot is ending it: saving 12 of 80 GiB; it expects to be done at 2026-11-23T10:08:00Z; evicted at 2026-11-23T10:10:00Z"},
		"but not for ever":                         {responding(), after(10 * time.Minute), evictionOf(snapshooter, beat(9*time.Minute)), nil, "", "have not ended it within 10m"},
		"nor where it fell silent":                 {responding(), func() Asking { a := after(21 * time.Minute); a.Deadline = time.Hour; return a }(), evictionOf(snapshooter, beat(time.Minute)), nil, "", "none of its responders has begun"},
		"one that acts for another pod is not its": {responding(), after(time.Minute), other, nil, "", "none of its responders"},
		"that all failed ends it":                  {responding(), after(time.Second), nil, []metav1.Condition{failed}, "", "could not end it: no further responder"},
		"the Eviction API we can ask ourselves":    {responding(), after(time.Second), evictionOf(lifecyclev1alpha1.EvictionResponderImperativeEviction, beat(0)), nil, "", "nobody but the Eviction API"},
		"a pod that names none is not asked about": {responding(func(p *corev1.Pod) { p.Spec.EvictionResponders = nil }), after(0), nil, nil, "", ""},
		"nor one of a PodGroup":                    {responding(func(p *corev1.Pod) { p.Spec.SchedulingGroup = &corev1.PodSchedulingGroup{} }), after(0), nil, nil, "", ""},
		"nor one that is going":                    {responding(func(p *corev1.Pod) { p.DeletionTimestamp = &metav1.Time{Time: asked} }), after(0), nil, nil, "", ""},
		"nor where a policy asks none":             {responding(), Asking{Now: asked}, nil, nil, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			server := newLifecycleServer(t)
			if tc.eviction != nil {
				if err := server.Create(t.Context(), tc.eviction); err != nil {
					t.Fatal(err)
				}
			}
			r := &Requests{Client: server}
			first := tc.how
			first.Now = asked
			if _, err := r.Ask(t.Context(), tc.pod, first); err != nil {
				t.Fatal(err)
			}
			request := &lifecyclev1alpha1.EvictionRequest{}
			err := server.Get(t.Context(), client.ObjectKey{Namespace: "ml", Name: "roundhouse-u1"}, request)
			if tc.says == "" {
				if !apierrors.IsNotFound(err) {
					t.Errorf("it was asked about: %v", err)
				}
			} else if err != nil || request.Spec.Requester != "roundhouse.dev/controller" || request.OwnerReferences[0].UID != "u1" ||
				request.Labels[v1alpha1.LabelRemediation] != "gpu-1-x" {
				t.Fatalf("the request is %+v, %v", request, err)
			}
			if len(tc.failed) > 0 {
				request.Status.Conditions = tc.failed
				if err := server.Update(t.Context(), request); err != nil {
					t.Fatal(err)
				}
			}
			got, err := r.Ask(t.Context(), tc.pod, tc.how)
			if err != nil || got.Kind != tc.want || !strings.Contains(got.Message, tc.says) {
				t.Errorf("got %q %q, %v; want %q %q", got.Kind, got.Message, err, tc.want, tc.says)
			}
			if got.Kind == Asked && got.RetryAfter == 0 {
				t.Error("it is asked again at once")
			}
		})
	}
}

func TestAServerWithoutTheAPIIsAskedOnceInAWhile(t *testing.T) {
	noPath := apierrors.NewGenericServerResponse(http.StatusNotFound, "get", schema.GroupResource{}, "", "the server could not find the requested resource", 0, true)
	for name, err := range map[string]error{
		"it does not know the kind":  &meta.NoKindMatchError{GroupKind: schema.GroupKind{Group: "lifecycle.k8s.io", Kind: "EvictionRequest"}},
		"it does not serve the path": noPath,
		"it does not let us ask":     apierrors.NewForbidden(schema.GroupResource{Group: "lifecycle.k8s.io", Resource: "evictionrequests"}, "roundhouse-u1", errors.New("no")),
	} {
		t.Run(name, func(t *testing.T) {
			server := newLifecycleServer(t)
			server.err = err
			r := &Requests{Client: server}
			for _, at := range []time.Duration{0, time.Second, 9 * time.Minute} {
				if got, err := r.Ask(t.Context(), responding(), after(at)); err != nil || got.Kind != "" {
					t.Errorf("%v: got %+v, %v; want it evicted", at, got, err)
				}
			}
			if err := r.Withdraw(t.Context(), responding(), asked); err != nil {
				t.Error(err)
			}
			if server.calls != 1 {
				t.Errorf("%d requests, want 1", server.calls)
			}
			server.err = nil
			if got, err := r.Ask(t.Context(), responding(), after(10*time.Minute)); err != nil || server.calls < 2 {
				t.Errorf("ten minutes later: %+v, %v, %d requests", got, err, server.calls)
			}
		})
	}
	server := newLifecycleServer(t)
	server.err = errors.New("the server is busy")
	if _, err := (&Requests{Client: server}).Ask(t.Context(), responding(), after(0)); err == nil {
		t.Error("an error that says nothing about the API is one")
	}
}

func TestARequestIsWithdrawn(t *testing.T) {
	server := newLifecycleServer(t)
	r := &Requests{Client: server}
	if err := r.Withdraw(t.Context(), responding(), asked); err != nil {
		t.Errorf("there is nothing to withdraw: %v", err)
	}
	if _, err := r.Ask(t.Context(), responding(), after(0)); err != nil {
		t.Fatal(err)
	}
	if err := r.Withdraw(t.Context(), responding(), asked); err != nil {
		t.Fatal(err)
	}
	var left lifecyclev1alpha1.EvictionRequestList
	if err := server.List(t.Context(), &left); err != nil || len(left.Items) > 0 {
		t.Errorf("left: %v, %v", left.Items, err)
	}
}
