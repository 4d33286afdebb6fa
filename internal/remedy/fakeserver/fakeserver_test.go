package fakeserver_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/roundhouse-dev/roundhouse/internal/remedy/fakeserver"
)

// Tests that something is not asked for are worth as much as the notes of what is.
func TestItNotesWhatItIsAskedFor(t *testing.T) {
	kind := schema.GroupVersionKind{Group: "x.example.com", Version: "v1", Kind: "Machine"}
	machine := func(name string) *unstructured.Unstructured {
		o := &unstructured.Unstructured{}
		o.SetGroupVersionKind(kind)
		o.SetNamespace("ns")
		o.SetName(name)
		return o
	}
	s, no := fakeserver.New(), errors.New("no")
	s.Serve(map[schema.GroupVersionKind]meta.RESTScope{kind: meta.RESTScopeNamespace}, machine("a"))
	var patched string
	s.OnPatch = func(data []byte) error { patched = string(data); return nil }
	list := &unstructured.UnstructuredList{}
	list.SetGroupVersionKind(kind.GroupVersion().WithKind("MachineList"))
	made := machine("b")
	patch := client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"labels":{"k":"v"}}}`))
	err := errors.Join(s.Get(t.Context(), client.ObjectKeyFromObject(machine("a")), machine("a")), s.List(t.Context(), list),
		s.Create(t.Context(), made), s.Patch(t.Context(), machine("b"), patch),
		s.Delete(t.Context(), machine("b"), client.Preconditions{UID: new(types.UID)}))
	if err != nil || made.GetUID() != fakeserver.MadeUID || !strings.Contains(patched, `"k":"v"`) {
		t.Errorf("%v; UID %q, patch %q", err, made.GetUID(), patched)
	}
	for _, verb := range []string{"get", "list", "create", "patch", "delete"} {
		s.Fail[verb+" Machine"] = no
	}
	for verb, err := range map[string]error{
		"get": s.Get(t.Context(), client.ObjectKeyFromObject(machine("a")), machine("a")), "list": s.List(t.Context(), list),
		"create": s.Create(t.Context(), machine("c")), "patch": s.Patch(t.Context(), machine("a"), patch), "delete": s.Delete(t.Context(), machine("a")),
	} {
		if !errors.Is(err, no) {
			t.Errorf("%s: %v, though it is told to fail", verb, err)
		}
	}
	if diff := cmp.Diff([]string{"get Machine", "list Machine", "create Machine", "patch Machine", "delete Machine"}, s.Calls[:5]); diff != "" || len(s.Calls) != 10 {
		t.Errorf("%d calls: %s", len(s.Calls), diff)
	}
	if diff := cmp.Diff([]metav1.Preconditions{{UID: new(types.UID)}}, s.Deleted); diff != "" {
		t.Error(diff)
	}
	delete(s.Fail, "patch Machine")
	s.OnPatch = func([]byte) error { return no }
	if err := s.Patch(t.Context(), machine("a"), patch); !errors.Is(err, no) {
		t.Errorf("a patch that is judged bad: %v", err)
	}
}
