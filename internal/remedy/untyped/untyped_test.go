package untyped_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/roundhouse-dev/roundhouse/internal/remedy/untyped"
)

var kind = schema.GroupVersionKind{Group: "example.com", Version: "v1", Kind: "Thing"}

// pages answers a LIST page by page; without an end it goes on for ever.
type pages struct {
	client.Reader
	of, end, asked int
	err            error
}

func (p *pages) List(_ context.Context, list client.ObjectList, options ...client.ListOption) error {
	if p.err != nil {
		return p.err
	}
	given := client.ListOptions{}
	given.ApplyOptions(options)
	if p.asked > 0 && given.Continue != fmt.Sprint(p.asked) {
		return fmt.Errorf("asked for page %q, want %d", given.Continue, p.asked)
	}
	if given.Limit == 0 {
		return errors.New("asked for all at once")
	}
	found := list.(*unstructured.UnstructuredList)
	for i := range p.of {
		item := unstructured.Unstructured{Object: map[string]any{}}
		item.SetName(fmt.Sprintf("thing-%d", p.asked*p.of+i))
		found.Items = append(found.Items, item)
	}
	p.asked++
	if p.asked != p.end {
		found.SetContinue(fmt.Sprint(p.asked))
	}
	return nil
}

func TestListReadsEveryPageAndNoMoreThanItMay(t *testing.T) {
	every := func(*unstructured.Unstructured) bool { return true }
	reader := &pages{of: 2, end: 3}
	got, err := untyped.List(t.Context(), reader, kind, every)
	if err != nil || len(got) != 6 || got[5].GetName() != "thing-5" {
		t.Fatalf("got %d, %v; want the 6 of 3 pages", len(got), err)
	}
	got, err = untyped.List(t.Context(), &pages{of: 2, end: 3}, kind, func(o *unstructured.Unstructured) bool { return o.GetName() == "thing-4" })
	if err != nil || len(got) != 1 {
		t.Errorf("got %d, %v; want the one that is kept", len(got), err)
	}
	endless := &pages{of: 1}
	if _, err := untyped.List(t.Context(), endless, kind, every); !errors.Is(err, untyped.ErrTooMany) || endless.asked > 1000 {
		t.Errorf("after %d pages: %v, want ErrTooMany", endless.asked, err)
	}
	broken := errors.New("broken")
	if _, err := untyped.List(t.Context(), &pages{err: broken}, kind, every); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}

// mapper serves v1 of example.com, and fails for the group broken.
type mapper struct{ meta.RESTMapper }

func (mapper) RESTMapping(kind schema.GroupKind, versions ...string) (*meta.RESTMapping, error) {
	if kind.Group == "broken" {
		return nil, errors.New("broken")
	}
	if kind.Group == "example.com" && versions[0] == "v1" {
		return &meta.RESTMapping{GroupVersionKind: kind.WithVersion("v1")}, nil
	}
	return nil, fmt.Errorf("looking: %w", &meta.NoKindMatchError{GroupKind: kind, SearchedVersions: versions})
}

func TestResolveTakesTheFirstVersionThatIsServed(t *testing.T) {
	got, err := untyped.Resolve(mapper{}, kind.GroupKind(), "v2", "v1")
	if err != nil || got.GroupVersionKind != kind {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := untyped.Resolve(mapper{}, kind.GroupKind(), "v2"); !errors.Is(err, untyped.ErrNotServed) ||
		!strings.Contains(err.Error(), "Thing.example.com in v2") {
		t.Errorf("got %v", err)
	}
	if _, err := untyped.Resolve(mapper{}, schema.GroupKind{Group: "broken"}, "v1"); err == nil || errors.Is(err, untyped.ErrNotServed) {
		t.Errorf("got %v: what could not be found out is not absent", err)
	}
}

func TestConditionsOfAnyShapeAreRead(t *testing.T) {
	tests := map[string]struct {
		status string
		why    string
		is     bool
	}{
		"one that is True":              {`{"conditions":[{"type":"A","status":"False"},{"type":"Ready","status":"True","reason":"R","message":"m"}]}`, "R: m", true},
		"one without a message":         {`{"conditions":[{"type":"Ready","status":"True","reason":"R"}]}`, "R", true},
		"one without a reason":          {`{"conditions":[{"type":"Ready","status":"True","message":"m\nn"}]}`, "m n", true},
		"one without either":            {`{"conditions":[{"type":"Ready","status":"True"}]}`, "it does not say why", true},
		"one that is False":             {`{"conditions":[{"type":"Ready","status":"False","reason":"R"}]}`, "R", false},
		"one without a status":          {`{"conditions":[{"type":"Ready"}]}`, "", false},
		"none":                          {`{"conditions":[]}`, "", false},
		"no list":                       {`{"conditions":"yes"}`, "", false},
		"entries that are no objects":   {`{"conditions":[1,"a",null,[]]}`, "", false},
		"fields of another type":        {`{"conditions":[{"type":"Ready","status":1,"reason":{}}]}`, "", false},
		"a status that is no object":    {`"good"`, "", false},
		"conditions that are not there": {`{}`, "", false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			o := parse(t, `{"status":`+tt.status+`}`)
			got, found := untyped.FindCondition(o, "Ready")
			if found != (tt.why != "") || (found && got.Why() != tt.why) || untyped.Is(o, "Ready", metav1.ConditionTrue) != tt.is {
				t.Errorf("got %+v, found %t, why %q", got, found, got.Why())
			}
		})
	}
}

func parse(t *testing.T, text string) *unstructured.Unstructured {
	t.Helper()
	o := &unstructured.Unstructured{}
	if err := json.Unmarshal([]byte(text), &o.Object); err != nil {
		t.Fatal(err)
	}
	return o
}

func TestFieldsOfAnotherTypeAreNotThere(t *testing.T) {
	o := parse(t, `{"spec":{"text":"a","yes":true,"count":1.5,"list":[]}}`)
	o.Object["spec"].(map[string]any)["whole"] = int64(3)
	for path, want := range map[string]string{"text": "a", "yes": "", "list": "", "none": ""} {
		if got := untyped.String(o, "spec", path); got != want {
			t.Errorf("String(%s) is %q", path, got)
		}
		if got := untyped.Bool(o, "spec", path); got != (path == "yes") {
			t.Errorf("Bool(%s) is %t", path, got)
		}
	}
	if _, found := untyped.Int(o, "spec", "count"); found {
		t.Error("1.5 is a whole number")
	}
	if got, found := untyped.Int(o, "spec", "whole"); !found || got != 3 {
		t.Errorf("got %d, %t", got, found)
	}
	if got := untyped.String(o, "spec", "text", "below"); got != "" {
		t.Errorf("below a string is %q", got)
	}
}

func TestNamesAndOwners(t *testing.T) {
	o := parse(t, `{"kind":"Thing","metadata":{"name":"a","namespace":"b","ownerReferences":[{"kind":"X","name":"x"},{"kind":"Y","name":"y"}]}}`)
	if got := untyped.Name(o); got != "Thing b/a" {
		t.Error(got)
	}
	if got := untyped.Owners(o); got != "X x, Y y" {
		t.Error(got)
	}
	if got := untyped.Owners(parse(t, `{"metadata":{}}`)); got != "nobody" {
		t.Error(got)
	}
}

func TestForbiddenNamesTheValueOfTheChart(t *testing.T) {
	forbidden := fmt.Errorf("reading: %w", apierrors.NewForbidden(schema.GroupResource{Resource: "things"}, "a", errors.New("no")))
	if got := untyped.Forbidden(forbidden, "things", "remedies.things"); got != "the controller may not use things here: install the chart with remedies.things=true" {
		t.Error(got)
	}
	if got := untyped.Forbidden(errors.New("other"), "things", "remedies.things"); got != "" {
		t.Error(got)
	}
	if got := untyped.Forbidden(nil, "things", "remedies.things"); got != "" {
		t.Error(got)
	}
}

// FuzzLine holds what others wrote to one short line that terminals and the API server take.
func FuzzLine(f *testing.F) {
	for _, seed := range []string{"", "a\nb\x1b[2J", strings.Repeat("ä", 300), "\xff\xfe", "  a  "} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		line := untyped.Line(text)
		if len(line) > 200 || !utf8.ValidString(line) || strings.ContainsAny(line, "\n\r\t\x1b\x00") {
			t.Errorf("%q gave %q", text, line)
		}
		if message := untyped.Message(line + line + line); len(message) > 512 || !utf8.ValidString(message) {
			t.Errorf("%q gave %q", text, message)
		}
	})
}

// FuzzObject reads objects that anybody may have written.
func FuzzObject(f *testing.F) {
	f.Add(`{"status":{"conditions":[{"type":"Ready","status":"True"}]},"metadata":{"ownerReferences":[{"kind":1}]}}`)
	f.Add(`{"metadata":[],"status":[{}]}`)
	f.Add(`{"metadata":{"annotations":{"a":1},"ownerReferences":[3]}}`)
	f.Fuzz(func(t *testing.T, text string) {
		o := &unstructured.Unstructured{}
		if json.Unmarshal([]byte(text), &o.Object) != nil || o.Object == nil {
			t.Skip("no object")
		}
		untyped.FindCondition(o, "Ready")
		untyped.Name(o)
		untyped.Owners(o)
		untyped.String(o, "spec", "a")
		untyped.Bool(o, "spec", "a")
		untyped.Int(o, "spec", "a")
	})
}
