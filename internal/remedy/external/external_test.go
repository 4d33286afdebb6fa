package external_test

import (
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	clocktesting "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/remedy"
	"github.com/roundhouse-dev/roundhouse/internal/remedy/external"
	"github.com/roundhouse-dev/roundhouse/internal/remedy/fakeserver"
)

const (
	node    = "gpu-0417"
	attempt = "gpu-0417-k3q7x2m9aa-2"
	space   = "self-node-remediation"
)

var (
	fence         = schema.GroupVersionKind{Group: "fence.example.com", Version: "v1alpha1", Kind: "Fence"}
	fenceTemplate = fence.GroupVersion().WithKind("FenceTemplate")
	now           = time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)
)

// world is what the API server holds, and what was asked of it.
type world struct {
	*fakeserver.Server
	t        *testing.T
	template *unstructured.Unstructured
	others   []*unstructured.Unstructured
	scopes   map[schema.GroupVersionKind]meta.RESTScope
	attempt  remedy.Attempt
}

type change func(*world)

func newWorld(t *testing.T, changes ...change) *world {
	t.Helper()
	w := &world{
		Server: fakeserver.New(), t: t,
		scopes: map[schema.GroupVersionKind]meta.RESTScope{fence: meta.RESTScopeNamespace, fenceTemplate: meta.RESTScopeNamespace},
		template: &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{"template": map[string]any{
			"spec": map[string]any{"strategy": "Automatic", "retries": int64(3), "agent": map[string]any{"ip": "10.0.0.7"}}}}}},
		attempt: remedy.Attempt{
			ID: attempt,
			Remediation: &v1alpha1.Remediation{
				ObjectMeta: metav1.ObjectMeta{Name: "gpu-0417-k3q7x2m9aa", UID: "9d2e"},
				Spec:       v1alpha1.RemediationSpec{Node: node, NodeUID: "77aa"},
				Status:     v1alpha1.RemediationStatus{Step: &v1alpha1.Step{Remedy: &v1alpha1.RemedyStatus{State: v1alpha1.RemedyBegun}}},
			},
			Node: &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: node, UID: "77aa"}},
			Rung: v1alpha1.Rung{Name: "fence", External: &v1alpha1.External{
				APIVersion: "fence.example.com/v1alpha1", Kind: "FenceTemplate", Namespace: space, Name: "automatic"}},
		},
	}
	w.template.SetGroupVersionKind(fenceTemplate)
	w.template.SetNamespace(space)
	w.template.SetName("automatic")
	for _, c := range changes {
		c(w)
	}
	objects := w.others
	if w.template != nil {
		objects = append(slices.Clone(objects), w.template)
	}
	w.Serve(w.scopes, objects...)
	return w
}

func (w *world) remedy() *external.Remedy {
	return external.New(w.Client, clocktesting.NewFakePassiveClock(now))
}

// made lists what there is of the kind.
func (w *world) made() []unstructured.Unstructured {
	w.t.Helper()
	list := &unstructured.UnstructuredList{}
	list.SetGroupVersionKind(fence.GroupVersion().WithKind("FenceList"))
	fail := w.Fail
	w.Fail = nil
	defer func() { w.Fail = fail }()
	if err := w.Client.List(w.t.Context(), list); err != nil {
		w.t.Fatal(err)
	}
	return list.Items
}

func running(w *world) { w.attempt.Remediation.Status.Step.Remedy.State = v1alpha1.RemedyRunning }

func gone(w *world) { w.attempt.Node = nil }

func multiple(w *world) {
	w.template.SetAnnotations(map[string]string{external.AnnotationMultiple: "true"})
}

func fails(call string, err error) change { return func(w *world) { w.Fail[call] = err } }

func ref(set func(*v1alpha1.External)) change { return func(w *world) { set(w.attempt.Rung.External) } }

// there puts an object of the kind in the world, changed.
func there(name string, changes ...func(*unstructured.Unstructured)) change {
	return func(w *world) {
		o := &unstructured.Unstructured{Object: map[string]any{}}
		o.SetGroupVersionKind(fence)
		o.SetNamespace(space)
		o.SetName(name)
		o.SetUID(types.UID("uid-of-" + name))
		for _, c := range changes {
			c(o)
		}
		w.others = append(w.others, o)
	}
}

func owned(kind, name, uid string) func(*unstructured.Unstructured) {
	return func(o *unstructured.Unstructured) {
		o.SetOwnerReferences([]metav1.OwnerReference{{APIVersion: "x/v1", Kind: kind, Name: name, UID: types.UID(uid)}})
	}
}

func annotated(key, value string) func(*unstructured.Unstructured) {
	return func(o *unstructured.Unstructured) {
		all := map[string]string{key: value}
		maps.Copy(all, o.GetAnnotations())
		o.SetAnnotations(all)
	}
}

// ours is an object that an attempt of the Remediation made.
func ours(id string) func(*unstructured.Unstructured) {
	return func(o *unstructured.Unstructured) {
		owned("Remediation", "gpu-0417-k3q7x2m9aa", "9d2e")(o)
		annotated(external.AnnotationAttempt, id)(o)
		annotated(external.AnnotationNode, node)(o)
	}
}

func deleting(o *unstructured.Unstructured) {
	at := metav1.NewTime(now)
	o.SetDeletionTimestamp(&at)
	o.SetFinalizers([]string{"example.com/hold"})
}

func condition(kind, status, reason, message string) func(*unstructured.Unstructured) {
	return func(o *unstructured.Unstructured) {
		list, _, err := unstructured.NestedSlice(o.Object, "status", "conditions")
		if err != nil {
			panic(err)
		}
		list = append(list, map[string]any{"type": kind, "status": status, "reason": reason, "message": message})
		if err := unstructured.SetNestedSlice(o.Object, list, "status", "conditions"); err != nil {
			panic(err)
		}
	}
}

func forbidden() error {
	return apierrors.NewForbidden(schema.GroupResource{Group: "x", Resource: "y"}, "z", errors.New("no"))
}

func hold(t *testing.T, got remedy.Progress, err error, state v1alpha1.RemedyState, text string) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	if got.State != state || !strings.Contains(got.Message, text) || len(got.Message) > 512 || got.Message == "" {
		t.Errorf("got %s: %s\nwant %s: %s", got.State, got.Message, state, text)
	}
}

func TestRefusesInWords(t *testing.T) {
	spec := func(value any, path ...string) change {
		return func(w *world) {
			if err := unstructured.SetNestedField(w.template.Object, value, path...); err != nil {
				t.Fatal(err)
			}
		}
	}
	tests := map[string]struct {
		changes []change
		want    string
	}{
		"the template's kind is not served":    {[]change{func(w *world) { delete(w.scopes, fenceTemplate) }}, "the remediator is not installed: FenceTemplate.fence.example.com in v1alpha1"},
		"the object's kind is not served":      {[]change{func(w *world) { delete(w.scopes, fence) }}, "the remediator is not installed: Fence.fence.example.com in v1alpha1"},
		"the template's kind is the cluster's": {[]change{func(w *world) { w.scopes[fenceTemplate] = meta.RESTScopeRoot }}, "FenceTemplate.fence.example.com: it is not of a namespace"},
		"the object's kind is the cluster's":   {[]change{func(w *world) { w.scopes[fence] = meta.RESTScopeRoot }}, "Fence.fence.example.com: it is not of a namespace"},
		"no template":                          {[]change{ref(func(e *v1alpha1.External) { e.Name = "other" })}, "FenceTemplate self-node-remediation/other is not there"},
		"a template in another namespace":      {[]change{ref(func(e *v1alpha1.External) { e.Namespace = "other" })}, "FenceTemplate other/automatic is not there"},
		"a template that is being deleted":     {[]change{func(w *world) { deleting(w.template) }}, "FenceTemplate self-node-remediation/automatic is being deleted"},
		"a template without a spec":            {[]change{func(w *world) { unstructured.RemoveNestedField(w.template.Object, "spec", "template", "spec") }}, "has no spec.template.spec"},
		"a template whose spec is no object":   {[]change{spec("yes", "spec", "template", "spec")}, "has no spec.template.spec"},
		"the Node is gone":                     {[]change{gone}, "the Node is gone"},
		"the Node is another":                  {[]change{func(w *world) { w.attempt.Node.UID = "another" }}, "the Node is gone"},
		"NodeHealthCheck's own object":         {[]change{there(node, owned("NodeHealthCheck", "nhc-workers", "1"))}, "Fence self-node-remediation/gpu-0417 is there already, owned by NodeHealthCheck nhc-workers"},
		"somebody's object without an owner":   {[]change{there(node)}, "is there already, owned by nobody"},
		"another Remediation's object":         {[]change{there(node, owned("Remediation", "other", "other"))}, "owned by Remediation other"},
		"another's of a made-up name":          {[]change{multiple, there("gpu-0417-xyz", owned("NodeHealthCheck", "nhc", "1"), annotated(external.AnnotationNode, node))}, "Fence self-node-remediation/gpu-0417-xyz is there already"},
		"another's in another namespace": {[]change{there(node, owned("NodeHealthCheck", "nhc", "1"), func(o *unstructured.Unstructured) { o.SetNamespace("other") })},
			"Fence other/gpu-0417 is there already"},
		"another's of our name for another node": {[]change{there(node, annotated(external.AnnotationNode, "gpu-0418"))}, "Fence self-node-remediation/gpu-0417 is there already"},
		"no right to templates":                  {[]change{fails("get FenceTemplate", forbidden())}, "the controller may not use Fences and their templates here: install the chart with remedies.external=true"},
		"no right to objects":                    {[]change{fails("list Fence", forbidden())}, "ClusterRole labelled rbac.ext-remediation/aggregate-to-ext-remediation"},
		"metal3's template": {[]change{func(w *world) {
			kind := fence.GroupVersion().WithKind("Metal3RemediationTemplate")
			w.scopes[kind], w.scopes[fence.GroupVersion().WithKind("Metal3Remediation")] = meta.RESTScopeNamespace, meta.RESTScopeNamespace
			w.attempt.Rung.External.Kind = kind.Kind
		}}, "Metal3RemediationTemplate is for Machines"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, tt.changes...)
			got, err := w.remedy().Check(t.Context(), w.attempt)
			if err != nil || !strings.Contains(got, tt.want) {
				t.Errorf("got %q, %v\nwant %q", got, err, tt.want)
			}
			progress, err := w.remedy().Begin(t.Context(), w.attempt)
			hold(t, progress, err, v1alpha1.RemedyRefused, tt.want)
			for _, call := range w.Calls {
				if !strings.HasPrefix(call, "get") && !strings.HasPrefix(call, "list") {
					t.Errorf("%s was done all the same", call)
				}
			}
		})
	}
}

func TestMakesTheObjectAsTheContractSays(t *testing.T) {
	tests := map[string]struct {
		changes []change
		name    string
	}{
		"named after the node":                {nil, node},
		"several templates of a kind":         {[]change{multiple}, attempt},
		"beside another node's":               {[]change{there("gpu-0418", owned("NodeHealthCheck", "nhc", "1"))}, node},
		"beside one whose annotation says so": {[]change{there("other", annotated(external.AnnotationNode, "gpu-0418"))}, node},
		"a template without anything to copy": {[]change{func(w *world) {
			w.template.Object["spec"] = map[string]any{"template": map[string]any{"spec": map[string]any{}}}
		}}, node},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, tt.changes...)
			before := len(w.made())
			if why, err := w.remedy().Check(t.Context(), w.attempt); err != nil || why != "" {
				t.Fatalf("refused: %q, %v", why, err)
			}
			if len(w.made()) != before {
				t.Error("Check has made it")
			}
			for range 2 {
				got, err := w.remedy().Begin(t.Context(), w.attempt)
				hold(t, got, err, v1alpha1.RemedyRunning, "Fence self-node-remediation/"+tt.name)
			}
			made := w.made()
			if len(made) != before+1 {
				t.Fatalf("there are %d, want one more than %d", len(made), before)
			}
			o := made[slices.IndexFunc(made, func(o unstructured.Unstructured) bool { return o.GetName() == tt.name })]
			o.SetResourceVersion("")
			spec, _, err := unstructured.NestedMap(w.template.Object, "spec", "template", "spec")
			if err != nil {
				t.Fatal(err)
			}
			want := map[string]any{
				"apiVersion": "fence.example.com/v1alpha1", "kind": "Fence", "spec": spec,
				"metadata": map[string]any{
					"namespace": space, "name": tt.name, "uid": "made",
					"labels": map[string]any{"roundhouse.dev/remediation": "gpu-0417-k3q7x2m9aa"},
					"annotations": map[string]any{
						"remediation.medik8s.io/node-name": node, "remediation.medik8s.io/template-name": "automatic", "roundhouse.dev/attempt": attempt},
					"ownerReferences": []any{map[string]any{
						"apiVersion": "roundhouse.dev/v1alpha1", "kind": "Remediation", "name": "gpu-0417-k3q7x2m9aa", "uid": "9d2e", "controller": false}},
				},
			}
			if diff := cmp.Diff(want, o.Object); diff != "" {
				t.Errorf("wanted (-) and made (+):\n%s", diff)
			}
		})
	}
}

func TestWaitsForTheObjectOfTheAttemptBefore(t *testing.T) {
	earlier := ours("gpu-0417-k3q7x2m9aa-1")
	for name, changes := range map[string][]change{
		"by the same name": {there(node, earlier, func(o *unstructured.Unstructured) { o.SetFinalizers([]string{"example.com/hold"}) })},
		"by another name":  {multiple, there("gpu-0417-k3q7x2m9aa-1", earlier, func(o *unstructured.Unstructured) { o.SetFinalizers([]string{"example.com/hold"}) })},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, changes...)
			for range 2 {
				got, err := w.remedy().Begin(t.Context(), w.attempt)
				hold(t, got, err, v1alpha1.RemedyBegun, "of the attempt before is being deleted")
			}
			if diff := cmp.Diff([]metav1.Preconditions{{UID: ptr.To(w.others[0].GetUID())}}, w.Deleted); diff != "" {
				t.Errorf("deleted by:\n%s", diff)
			}
			old := w.made()[0]
			old.SetFinalizers(nil)
			if err := w.Client.Update(t.Context(), &old); err != nil {
				t.Fatal(err)
			}
			got, err := w.remedy().Look(t.Context(), w.attempt)
			hold(t, got, err, v1alpha1.RemedyRunning, "is made; its remediator has not begun yet")
		})
	}
}

func TestSaysWhatTheRemediatorSays(t *testing.T) {
	mine := ours(attempt)
	tests := map[string]struct {
		changes []change
		state   v1alpha1.RemedyState
		want    string
	}{
		"not begun":                   {[]change{running, there(node, mine)}, v1alpha1.RemedyRunning, "Fence self-node-remediation/gpu-0417: its remediator has not begun yet"},
		"under the attempt's name":    {[]change{running, there(attempt, mine)}, v1alpha1.RemedyRunning, "has not begun yet"},
		"processing":                  {[]change{running, there(node, mine, condition("Processing", "True", "RemediationStarted", "rebooting"))}, v1alpha1.RemedyRunning, "is being processed: RemediationStarted: rebooting"},
		"no longer, without a word":   {[]change{running, there(node, mine, condition("Processing", "False", "Stopped", ""), condition("Succeeded", "Unknown", "", ""))}, v1alpha1.RemedyRunning, "is not being processed, and has not said how it ended: Stopped"},
		"the node will be deleted":    {[]change{running, there(node, mine, condition("Processing", "True", "R", ""), condition("PermanentNodeDeletionExpected", "True", "", ""))}, v1alpha1.RemedyRunning, "; the node will be deleted for good"},
		"the node will not":           {[]change{running, there(node, mine, condition("Processing", "True", "R", "m"), condition("PermanentNodeDeletionExpected", "False", "", ""))}, v1alpha1.RemedyRunning, "is being processed: R: m"},
		"succeeded":                   {[]change{running, there(node, mine, condition("Processing", "False", "", ""), condition("Succeeded", "True", "Done", "fenced"))}, v1alpha1.RemedySucceeded, "has succeeded: Done: fenced"},
		"failed, while processing":    {[]change{running, there(node, mine, condition("Processing", "True", "", ""), condition("Succeeded", "False", "AgentFailed", "no route"))}, v1alpha1.RemedyFailed, "has failed: AgentFailed: no route"},
		"succeeded, and deleted":      {[]change{running, there(node, mine, deleting, condition("Succeeded", "True", "Done", ""))}, v1alpha1.RemedySucceeded, "has succeeded"},
		"deleted by somebody":         {[]change{running, there(node, mine, deleting)}, v1alpha1.RemedyFailed, "was deleted by somebody before it had ended"},
		"gone":                        {[]change{running}, v1alpha1.RemedyFailed, "somebody deleted the Fence that was made for the node"},
		"another's in its place":      {[]change{running, there(node, owned("NodeHealthCheck", "nhc", "1"))}, v1alpha1.RemedyFailed, "somebody deleted the Fence"},
		"the node is gone":            {[]change{running, gone, there(node, mine, condition("Succeeded", "True", "Done", ""))}, v1alpha1.RemedySucceeded, "has succeeded"},
		"the template is gone":        {[]change{running, func(w *world) { w.template = nil }, there(node, mine)}, v1alpha1.RemedyRunning, "has not begun yet"},
		"died before it was made":     {nil, v1alpha1.RemedyRunning, "is made"},
		"died after it was made":      {[]change{there(node, mine)}, v1alpha1.RemedyRunning, "has not begun yet"},
		"died before, and refused":    {[]change{there(node)}, v1alpha1.RemedyRefused, "is there already, owned by nobody"},
		"nothing is written of it":    {[]change{func(w *world) { w.attempt.Remediation.Status.Step = nil }}, v1alpha1.RemedyRunning, "is made"},
		"a long word about a failure": {[]change{running, there(node, mine, condition("Succeeded", "False", "R", strings.Repeat("no route ", 500)))}, v1alpha1.RemedyFailed, "no route"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, tt.changes...)
			got, err := w.remedy().Look(t.Context(), w.attempt)
			hold(t, got, err, tt.state, tt.want)
		})
	}
}

func TestEndTellsTheRemediatorAndTakesAwayItsOwn(t *testing.T) {
	const kept, told = "kept", "told"
	mine := ours(attempt)
	held := func(o *unstructured.Unstructured) { o.SetFinalizers([]string{"example.com/hold"}) }
	tests := map[string]struct {
		changes []change
		want    string // kept: as it was; told: to stop, and deleted; "": deleted
	}{
		"one that was given up":           {[]change{there(node, mine, held)}, told},
		"one under the attempt's name":    {[]change{there(attempt, mine, held)}, told},
		"one that has failed":             {[]change{there(node, mine, held, condition("Succeeded", "False", "", ""))}, told},
		"one that has succeeded":          {[]change{there(node, mine, held, condition("Succeeded", "True", "", ""))}, ""},
		"one whose node is gone":          {[]change{gone, there(node, mine, held)}, told},
		"one whose template is gone":      {[]change{func(w *world) { w.template = nil }, there(node, mine, held)}, told},
		"one of another":                  {[]change{there(node, held, owned("NodeHealthCheck", "nhc", "1"))}, kept},
		"one of an earlier attempt":       {[]change{there(node, held, ours("gpu-0417-k3q7x2m9aa-1"))}, kept},
		"one with another's name of ours": {[]change{there("gpu-0418", held, mine)}, kept},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, tt.changes...)
			for range 2 {
				if err := w.remedy().End(t.Context(), w.attempt); err != nil {
					t.Fatal(err)
				}
			}
			o := w.made()[0]
			wantStop := ""
			if tt.want == told {
				wantStop = "2026-11-23T10:00:00Z"
			}
			if got := o.GetAnnotations()[external.AnnotationTimedOut]; got != wantStop {
				t.Errorf("told to stop %q, want %q", got, wantStop)
			}
			var want []metav1.Preconditions
			if tt.want != kept {
				want = []metav1.Preconditions{{UID: ptr.To(w.others[0].GetUID())}}
			}
			if diff := cmp.Diff(want, w.Deleted); diff != "" {
				t.Errorf("deleted by:\n%s", diff)
			}
		})
	}
	for name, c := range map[string]change{
		"nothing was made":        func(*world) {},
		"the kind is gone":        func(w *world) { delete(w.scopes, fence) },
		"the kind was never ours": func(w *world) { w.scopes[fence] = meta.RESTScopeRoot },
		"it is gone meanwhile": func(w *world) {
			there(node, mine)(w)
			fails("delete Fence", notFound())(w)
			fails("patch Fence", notFound())(w)
		},
		"it was told already": func(w *world) {
			there(node, mine, annotated(external.AnnotationTimedOut, "x"))(w)
			fails("patch Fence", errors.New("twice"))(w)
		},
	} {
		w := newWorld(t, c)
		if err := w.remedy().End(t.Context(), w.attempt); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func notFound() error {
	return apierrors.NewNotFound(schema.GroupResource{Group: "x", Resource: "y"}, "z")
}

func TestPassesErrorsOn(t *testing.T) {
	broken := errors.New("broken")
	for _, call := range []string{"get FenceTemplate", "list Fence", "create Fence"} {
		w := newWorld(t, fails(call, broken))
		if _, err := w.remedy().Begin(t.Context(), w.attempt); !errors.Is(err, broken) {
			t.Errorf("begin, %s: %v", call, err)
		}
	}
	w := newWorld(t, fails("delete Fence", broken), there(node, ours("gpu-0417-k3q7x2m9aa-1")))
	if _, err := w.remedy().Begin(t.Context(), w.attempt); !errors.Is(err, broken) {
		t.Errorf("begin, deleting an earlier one: %v", err)
	}
	w = newWorld(t, running, fails("get Fence", broken))
	if _, err := w.remedy().Look(t.Context(), w.attempt); !errors.Is(err, broken) {
		t.Errorf("look: %v", err)
	}
	for _, call := range []string{"get Fence", "patch Fence", "delete Fence"} {
		w := newWorld(t, there(node, ours(attempt)), fails(call, broken))
		if err := w.remedy().End(t.Context(), w.attempt); !errors.Is(err, broken) {
			t.Errorf("end, %s: %v", call, err)
		}
	}
	w = newWorld(t, running, func(w *world) { delete(w.scopes, fence) })
	if _, err := w.remedy().Look(t.Context(), w.attempt); err == nil {
		t.Error("an object that cannot be looked for is not gone")
	}
}

func TestARungWithoutATemplateIsAnError(t *testing.T) {
	for name, given := range map[string]*v1alpha1.External{
		"none":                  nil,
		"a kind without suffix": {APIVersion: "a.b/v1", Kind: "Fence"},
		"nothing but a suffix":  {APIVersion: "a.b/v1", Kind: "Template"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.attempt.Rung.External = given
			r := w.remedy()
			_, check := r.Check(t.Context(), w.attempt)
			_, begin := r.Begin(t.Context(), w.attempt)
			_, look := r.Look(t.Context(), w.attempt)
			for _, err := range []error{check, begin, look, r.End(t.Context(), w.attempt)} {
				if !errors.Is(err, external.ErrNoExternal) || !strings.Contains(err.Error(), `rung "fence"`) {
					t.Errorf("got %v", err)
				}
			}
		})
	}
}

// FuzzTemplate makes objects of templates, and reads objects, that anybody may have written: nothing panics, and what is
// made has the template's spec or is not made.
func FuzzTemplate(f *testing.F) {
	f.Add(`{"spec":{"template":{"spec":{"a":1}}}}`, `{"conditions":[{"type":"Succeeded","status":"False"}]}`)
	f.Add(`{"spec":{"template":{"spec":[]}},"metadata":{"annotations":{"remediation.medik8s.io/multiple-templates-support":""}}}`, `[]`)
	f.Add(`{"spec":7}`, `{"conditions":{}}`)
	f.Fuzz(func(t *testing.T, template, status string) {
		given, reported := map[string]any{}, any(nil)
		if json.Unmarshal([]byte(template), &given) != nil || json.Unmarshal([]byte(status), &reported) != nil {
			t.Skip("no JSON")
		}
		w := newWorld(t, there(node, ours(attempt), func(o *unstructured.Unstructured) { o.Object["status"] = reported }),
			func(w *world) { w.template.Object["spec"] = given["spec"] })
		progress, err := w.remedy().Look(t.Context(), w.attempt)
		if err == nil && (progress.State == "" || len(progress.Message) > 512) {
			t.Errorf("got %+v", progress)
		}
		w = newWorld(t, func(w *world) { w.template.Object["spec"] = given["spec"] })
		progress, err = w.remedy().Begin(t.Context(), w.attempt)
		if err != nil {
			t.Skip("the fake server does not take it")
		}
		spec, found, err := unstructured.NestedMap(w.template.Object, "spec", "template", "spec")
		made := w.made()
		if (found && err == nil) != (len(made) == 1) || (progress.State == v1alpha1.RemedyRunning) != (len(made) == 1) {
			t.Fatalf("%s made %d: %+v", template, len(made), progress)
		}
		if len(made) == 1 && asJSON(t, spec) != asJSON(t, made[0].Object["spec"]) {
			t.Errorf("of %v was made %v", spec, made[0].Object["spec"])
		}
	})
}

// asJSON compares numbers whatever their Go type.
func asJSON(t *testing.T, value any) string {
	t.Helper()
	data, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
