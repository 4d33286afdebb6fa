package scenario

import (
	"context"
	"fmt"
	"sync"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	toolswatch "k8s.io/client-go/tools/watch"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

// watched are the resources that a recorder follows, and the types that their objects become.
var watched = map[schema.GroupVersionResource]func() metav1.Object{
	corev1.SchemeGroupVersion.WithResource("nodes"):                func() metav1.Object { return &corev1.Node{} },
	corev1.SchemeGroupVersion.WithResource("pods"):                 func() metav1.Object { return &corev1.Pod{} },
	eventsv1.SchemeGroupVersion.WithResource("events"):             func() metav1.Object { return &eventsv1.Event{} },
	coordinationv1.SchemeGroupVersion.WithResource("leases"):       func() metav1.Object { return &coordinationv1.Lease{} },
	resourcev1.SchemeGroupVersion.WithResource("devicetaintrules"): func() metav1.Object { return &resourcev1.DeviceTaintRule{} },
	v1alpha1.GroupVersion.WithResource("remediations"):             func() metav1.Object { return &v1alpha1.Remediation{} },
	v1alpha1.GroupVersion.WithResource("nodehealths"):              func() metav1.Object { return &v1alpha1.NodeHealth{} },
	v1alpha1.GroupVersion.WithResource("nodedisruptionbudgets"):    func() metav1.Object { return &v1alpha1.NodeDisruptionBudget{} },
	v1alpha1.GroupVersion.WithResource("remediationpolicies"):      func() metav1.Object { return &v1alpha1.RemediationPolicy{} },
	v1alpha1.GroupVersion.WithResource("remediationholds"):         func() metav1.Object { return &v1alpha1.RemediationHold{} },
}

// Recorder follows the API server's watches onto a tape.
type Recorder struct {
	tape *Tape
	stop context.CancelFunc
	done sync.WaitGroup
}

// Record lists and then watches everything that scenarios speak of. It returns once all lists are in: what happens from
// then on is recorded, change by change. A watch that loses its place fails the tape, because a list in its stead could
// hide what was done and undone.
func Record(ctx context.Context, config *rest.Config, tape *Tape) (*Recorder, error) {
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("making the recorder's client: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	r := &Recorder{tape: tape, stop: cancel}
	for resource, newObject := range watched {
		events, err := r.begin(ctx, client.Resource(resource), newObject)
		if err != nil {
			r.Stop()
			return nil, fmt.Errorf("recording %s: %w", resource.Resource, err)
		}
		r.done.Go(func() { r.follow(ctx, resource, events, newObject) })
	}
	return r, nil
}

// Stop ends the recording.
func (r *Recorder) Stop() {
	r.stop()
	r.done.Wait()
}

// begin lists what there is and starts the watch where the list ended.
func (r *Recorder) begin(ctx context.Context, client dynamic.ResourceInterface, newObject func() metav1.Object) (watch.Interface, error) {
	list, err := client.List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("listing: %w", err)
	}
	for i := range list.Items {
		o, err := typed(&list.Items[i], newObject())
		if err != nil {
			return nil, err
		}
		r.tape.Record(Change{Type: watch.Added, Object: o, Initial: true})
	}
	events, err := toolswatch.NewRetryWatcherWithContext(ctx, list.GetResourceVersion(), watcher{client})
	if err != nil {
		return nil, fmt.Errorf("watching: %w", err)
	}
	return events, nil
}

// watcher adapts the dynamic client to what the retrying watcher wants.
type watcher struct{ client dynamic.ResourceInterface }

func (w watcher) WatchWithContext(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
	return w.client.Watch(ctx, options)
}

func (r *Recorder) follow(ctx context.Context, resource schema.GroupVersionResource, events watch.Interface, newObject func() metav1.Object) {
	defer events.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case event, open := <-events.ResultChan():
			if !open {
				if ctx.Err() == nil {
					r.tape.Fail(fmt.Errorf("the watch of %s ended: what happened since is not known", resource.Resource))
				}
				return
			}
			if err := r.take(event, newObject()); err != nil {
				r.tape.Fail(fmt.Errorf("watching %s: %w", resource.Resource, err))
				return
			}
		}
	}
}

func (r *Recorder) take(event watch.Event, into metav1.Object) error {
	switch event.Type {
	case watch.Error:
		return apierrors.FromObject(event.Object)
	case watch.Bookmark:
		return nil
	case watch.Added, watch.Modified, watch.Deleted:
	}
	u, ok := event.Object.(*unstructured.Unstructured)
	if !ok {
		return fmt.Errorf("an event of type %s holds a %T", event.Type, event.Object)
	}
	o, err := typed(u, into)
	if err != nil {
		return err
	}
	r.tape.Record(Change{Type: event.Type, Object: o})
	return nil
}

func typed(u *unstructured.Unstructured, into metav1.Object) (metav1.Object, error) {
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, into); err != nil {
		return nil, fmt.Errorf("reading %s %s: %w", u.GetKind(), u.GetName(), err)
	}
	return into, nil
}
