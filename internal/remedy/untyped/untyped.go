// Package untyped reads objects of other projects without their Go types: Roundhouse needs a few fields of each, and their
// modules would bring half of their projects along. What others wrote may have any shape, so nothing here trusts it.
package untyped

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Bounds of texts, in bytes: of what is quoted of others, and of an attempt's message, as the schema has it.
const (
	maxText    = 200
	maxMessage = 512
)

// Bounds of one list: pages of a size that the API server answers quickly, and as many as a large fleet has, twice over.
const (
	pageSize = 500
	maxPages = 200
)

// ErrNotServed means that the API server does not serve the kind in any of the versions that were asked for.
var ErrNotServed = errors.New("the API server does not serve it")

// ErrTooMany means that a list was longer than is read.
var ErrTooMany = fmt.Errorf("there are more than %d", pageSize*maxPages)

// Resolve finds the first of the versions in which the server serves the kind. It fails with ErrNotServed where it serves
// none of them.
func Resolve(mapper meta.RESTMapper, kind schema.GroupKind, versions ...string) (*meta.RESTMapping, error) {
	for _, version := range versions {
		mapping, err := mapper.RESTMapping(kind, version)
		switch {
		case meta.IsNoMatchError(err):
			continue
		case err != nil:
			return nil, fmt.Errorf("finding out whether %s/%s is served: %w", kind, version, err)
		}
		return mapping, nil
	}
	return nil, fmt.Errorf("%s in %s: %w", kind, strings.Join(versions, " or "), ErrNotServed)
}

// Get reads one object; namespace is empty for what has none.
func Get(ctx context.Context, c client.Reader, kind schema.GroupVersionKind, namespace, name string) (*unstructured.Unstructured, error) {
	object := &unstructured.Unstructured{}
	object.SetGroupVersionKind(kind)
	if err := c.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, object); err != nil {
		return nil, fmt.Errorf("reading %s: %w", named(kind.Kind, namespace, name), err)
	}
	return object, nil
}

// List reads every object that the options select and keep wants, page by page. It fails with ErrTooMany where there are
// more than it reads: half a list would be taken for the whole.
func List(ctx context.Context, c client.Reader, kind schema.GroupVersionKind, keep func(*unstructured.Unstructured) bool, options ...client.ListOption) ([]*unstructured.Unstructured, error) {
	var kept []*unstructured.Unstructured
	next := ""
	for range maxPages {
		list := &unstructured.UnstructuredList{}
		list.SetGroupVersionKind(kind.GroupVersion().WithKind(kind.Kind + "List"))
		page := append(slices.Clone(options), client.Limit(pageSize), client.Continue(next))
		if err := c.List(ctx, list, page...); err != nil {
			return nil, fmt.Errorf("listing every %s: %w", kind.Kind, err)
		}
		for i := range list.Items {
			if keep(&list.Items[i]) {
				kept = append(kept, &list.Items[i])
			}
		}
		if next = list.GetContinue(); next == "" {
			return kept, nil
		}
	}
	return nil, fmt.Errorf("listing every %s: %w", kind.Kind, ErrTooMany)
}

// String is the string at the path; empty where there is none.
func String(object *unstructured.Unstructured, path ...string) string {
	text, _, err := unstructured.NestedString(object.Object, path...)
	if err != nil {
		return ""
	}
	return text
}

// Bool is the bool at the path; false where there is none.
func Bool(object *unstructured.Unstructured, path ...string) bool {
	value, _, err := unstructured.NestedBool(object.Object, path...)
	return err == nil && value
}

// Int is the whole number at the path.
func Int(object *unstructured.Unstructured, path ...string) (int64, bool) {
	value, found, err := unstructured.NestedInt64(object.Object, path...)
	return value, found && err == nil
}

// Condition is a condition of an object, Cluster API's before v1beta2 included.
type Condition struct {
	// Type and Status are set; Reason and Message may be empty.
	Type, Status, Reason, Message string
}

// FindCondition finds a condition in status.conditions.
func FindCondition(object *unstructured.Unstructured, kind string) (Condition, bool) {
	field, _, err := unstructured.NestedFieldNoCopy(object.Object, "status", "conditions")
	if err != nil {
		return Condition{}, false
	}
	list, _ := field.([]any)
	for _, item := range list {
		entry, _ := item.(map[string]any)
		text := func(key string) string { s, _ := entry[key].(string); return s }
		if text("type") == kind && text("status") != "" {
			return Condition{Type: kind, Status: text("status"), Reason: text("reason"), Message: text("message")}, true
		}
	}
	return Condition{}, false
}

// Is says whether the condition has the status.
func Is(object *unstructured.Unstructured, kind string, status metav1.ConditionStatus) bool {
	condition, found := FindCondition(object, kind)
	return found && condition.Status == string(status)
}

// Why is the condition's reason and message on one line.
func (c Condition) Why() string {
	switch {
	case c.Reason == "" && c.Message == "":
		return "it does not say why"
	case c.Message == "":
		return Line(c.Reason)
	case c.Reason == "":
		return Line(c.Message)
	}
	return Line(c.Reason + ": " + c.Message)
}

// Line makes one short line of what others wrote: it is shown on terminals.
func Line(text string) string {
	words := strings.FieldsFunc(strings.ToValidUTF8(text, "?"), func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) })
	return cut(strings.Join(words, " "), maxText)
}

// Message shortens a text to what the message of an attempt holds.
func Message(text string) string { return cut(text, maxMessage) }

// cut shortens a text to at most n bytes, between two characters, and shows that it did.
func cut(text string, n int) string {
	if len(text) <= n {
		return text
	}
	const mark = "..."
	end := n - len(mark)
	for end > 0 && text[end]&0xC0 == 0x80 {
		end--
	}
	return text[:end] + mark
}

// Name says which object it is: kind, namespace and name.
func Name(object *unstructured.Unstructured) string {
	return named(object.GetKind(), object.GetNamespace(), object.GetName())
}

func named(kind, namespace, name string) string {
	if namespace != "" {
		name = namespace + "/" + name
	}
	return Line(kind + " " + name)
}

// Owners says who owns the object.
func Owners(object *unstructured.Unstructured) string {
	var owners []string
	for _, owner := range object.GetOwnerReferences() {
		owners = append(owners, owner.Kind+" "+owner.Name)
	}
	if len(owners) == 0 {
		return "nobody"
	}
	return Line(strings.Join(owners, ", "))
}

// Forbidden says in words, for a person to mend, that we have no right to the kind, and which value of the chart grants
// it; "" for any other error.
func Forbidden(err error, what, value string) string {
	if !apierrors.IsForbidden(err) {
		return ""
	}
	return fmt.Sprintf("the controller may not use %s here: install the chart with %s=true", what, value)
}
