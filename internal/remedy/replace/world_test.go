package replace_test

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/remedy"
	"github.com/roundhouse-dev/roundhouse/internal/remedy/fakeserver"
	"github.com/roundhouse-dev/roundhouse/internal/remedy/replace"
)

const (
	node    = "gpu-0417"
	nodeUID = "77aa"
	attempt = "gpu-0417-k3q7x2m9aa-1"
)

// world is what the API server holds, and what was asked of it.
type world struct {
	*fakeserver.Server
	t       *testing.T
	objects map[string]*unstructured.Unstructured
	kinds   []schema.GroupVersionKind
	attempt remedy.Attempt
}

// change changes the world before it begins.
type change func(*world)

// newWorld is a world in which everything is as it should be, but for the changes.
func newWorld(t *testing.T, by v1alpha1.ReplaceBy, objects map[string]*unstructured.Unstructured, kinds []schema.GroupVersionKind, changes ...change) *world {
	t.Helper()
	w := &world{Server: fakeserver.New(), t: t, objects: objects, kinds: kinds, attempt: remedy.Attempt{
		ID: attempt,
		Remediation: &v1alpha1.Remediation{
			ObjectMeta: metav1.ObjectMeta{Name: "gpu-0417-k3q7x2m9aa", UID: "9d2e"},
			Spec:       v1alpha1.RemediationSpec{Node: node, NodeUID: nodeUID},
			Status:     v1alpha1.RemediationStatus{Step: &v1alpha1.Step{Remedy: &v1alpha1.RemedyStatus{State: v1alpha1.RemedyBegun}}},
		},
		Node: &corev1.Node{
			ObjectMeta: metav1.ObjectMeta{Name: node, UID: nodeUID},
			Spec:       corev1.NodeSpec{ProviderID: "aws:///a/i-1"},
		},
		Rung: v1alpha1.Rung{Name: "replace", Replace: &v1alpha1.Replace{By: by}},
	}}
	for _, c := range changes {
		c(w)
	}
	w.serve()
	return w
}

// serve begins. Every patch must be held to what was read.
func (w *world) serve() {
	scopes := map[schema.GroupVersionKind]meta.RESTScope{}
	for _, kind := range w.kinds {
		scopes[kind] = meta.RESTScopeNamespace
		if strings.HasPrefix(kind.Kind, "Node") {
			scopes[kind] = meta.RESTScopeRoot
		}
	}
	w.OnPatch = func(data []byte) error {
		if !strings.Contains(string(data), "resourceVersion") {
			w.t.Errorf("the patch %s is not held to what was read", data)
		}
		return nil
	}
	w.Serve(scopes, slices.Collect(maps.Values(w.objects))...)
}

func (w *world) remedy() *replace.Remedy { return replace.New(w.Client) }

// live is the object as it is now, or nil.
func (w *world) live(key string) *unstructured.Unstructured {
	w.t.Helper()
	o := &unstructured.Unstructured{}
	o.SetGroupVersionKind(w.objects[key].GroupVersionKind())
	err := w.Client.Get(context.WithoutCancel(w.t.Context()), client.ObjectKeyFromObject(w.objects[key]), o)
	switch {
	case apierrors.IsNotFound(err):
		return nil
	case err != nil:
		w.t.Fatal(err)
	}
	return o
}

// running makes it an attempt that has been seen to be under way.
func running(w *world) { w.attempt.Remediation.Status.Step.Remedy.State = v1alpha1.RemedyRunning }

// without takes an object away.
func without(key string) change { return func(w *world) { delete(w.objects, key) } }

// set sets a field of an object.
func set(key string, value any, path ...string) change {
	return func(w *world) {
		if err := unstructured.SetNestedField(w.objects[key].Object, value, path...); err != nil {
			w.t.Fatal(err)
		}
	}
}

// unset takes a field of an object away.
func unset(key string, path ...string) change {
	return func(w *world) { unstructured.RemoveNestedField(w.objects[key].Object, path...) }
}

// annotate sets an annotation of an object.
func annotate(key, annotation, value string) change {
	return func(w *world) {
		all := map[string]string{annotation: value}
		maps.Copy(all, w.objects[key].GetAnnotations())
		w.objects[key].SetAnnotations(all)
	}
}

// deleting marks an object as being deleted.
func deleting(key string) change {
	return func(w *world) {
		now := metav1.NewTime(time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC))
		w.objects[key].SetDeletionTimestamp(&now)
		w.objects[key].SetFinalizers([]string{"example.com/hold"})
	}
}

// condition puts a condition on an object.
func condition(key, kind, status, reason, message string) change {
	return func(w *world) {
		list, _, err := unstructured.NestedSlice(w.objects[key].Object, "status", "conditions")
		if err != nil {
			w.t.Fatal(err)
		}
		list = append(list, map[string]any{"type": kind, "status": status, "reason": reason, "message": message})
		set(key, list, "status", "conditions")(w)
	}
}

// fails makes a verb on a kind fail.
func fails(call string, err error) change { return func(w *world) { w.Fail[call] = err } }

// unserved takes a kind out of what the server serves.
func unserved(kind string) change {
	return func(w *world) {
		var left []schema.GroupVersionKind
		for _, k := range w.kinds {
			if k.Kind != kind {
				left = append(left, k)
			}
		}
		w.kinds = left
	}
}

// gone takes the Node away, or puts another of the same name in its place.
func gone(w *world) { w.attempt.Node = nil }

func another(w *world) { w.attempt.Node.UID = "another" }

func named(name string) change { return func(w *world) { w.attempt.Node.Name = name } }

// forbidden is the API server's answer to who has no right.
func forbidden() error {
	return apierrors.NewForbidden(schema.GroupResource{Group: "x", Resource: "y"}, "z", errors.New("no"))
}

// object makes an object of a kind.
func object(kind schema.GroupVersionKind, namespace, name string, content map[string]any) *unstructured.Unstructured {
	o := &unstructured.Unstructured{Object: runtime.DeepCopyJSON(content)}
	o.SetGroupVersionKind(kind)
	o.SetNamespace(namespace)
	o.SetName(name)
	o.SetUID(types.UID("uid-of-" + name))
	return o
}

// want is a progress: its state, and words that its message has.
type want struct {
	state v1alpha1.RemedyState
	text  string
}

func (w want) hold(t *testing.T, got remedy.Progress, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	if got.State != w.state || !strings.Contains(got.Message, w.text) || len(got.Message) > 512 || got.Message == "" {
		t.Errorf("got %s: %s\nwant %s: %s", got.State, got.Message, w.state, w.text)
	}
}

// notFound is the API server's answer where something has gone since.
func notFound() error {
	return apierrors.NewNotFound(schema.GroupResource{Group: "x", Resource: "y"}, "z")
}
