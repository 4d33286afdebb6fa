package scenario

import (
	"encoding/json"
	"fmt"
	"regexp"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// variable is a word that stands for a node, or for the device that was broken last.
var variable = regexp.MustCompile(`\$\{([^}]*)\}`)

// varDevice is the DRA name of the device that the last fault with deviceOf or device broke.
const varDevice = "device"

// words are what ${...} stands for.
type words map[string]string

// text puts the words in. A word that has no meaning yet stays as it is, so that it matches nothing by accident.
func (w words) text(s string) string {
	return variable.ReplaceAllStringFunc(s, func(m string) string {
		if v, ok := w[m[2:len(m)-1]]; ok {
			return v
		}
		return m
	})
}

func (w words) where(where map[string]string) map[string]string {
	out := make(map[string]string, len(where))
	for k, v := range where {
		out[k] = w.text(v)
	}
	return out
}

func (w words) expect(e Expect) Expect {
	e.Name = w.text(e.Name)
	if e.See != nil {
		e.See = &Pattern{Kind: e.See.Kind, Where: w.where(e.See.Where)}
	}
	if e.State != nil {
		e.State = &State{Kind: e.State.Kind, Where: w.where(e.State.Where)}
	}
	return e
}

// step puts the words into what a narrator tells of a step.
func (w words) step(s Step) Step {
	s.Say = w.text(s.Say)
	if s.Fault != nil {
		f := *s.Fault
		f.Node = w.text(f.Node)
		s.Fault = &f
	}
	return s
}

// objects puts the words into objects.
func (w words) objects(in []Object) ([]*unstructured.Unstructured, error) {
	var out []*unstructured.Unstructured
	for _, o := range in {
		u, err := toUnstructured(o)
		if err != nil {
			return nil, err
		}
		u.Object = w.value(u.Object).(map[string]any)
		out = append(out, u)
	}
	return out, nil
}

// value copies a JSON value with the words put into its texts, keys included.
func (w words) value(v any) any {
	switch v := v.(type) {
	case string:
		return w.text(v)
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = w.value(v[i])
		}
		return out
	case map[string]any:
		out := make(map[string]any, len(v))
		for k, e := range v {
			out[w.text(k)] = w.value(e)
		}
		return out
	}
	return v
}

// toUnstructured makes of a YAML map what the API machinery takes: only JSON's types, numbers as int64 or float64.
func toUnstructured(o Object) (*unstructured.Unstructured, error) {
	data, err := json.Marshal(map[string]any(o))
	if err != nil {
		return nil, fmt.Errorf("encoding an object: %w", err)
	}
	u := &unstructured.Unstructured{}
	if err := u.UnmarshalJSON(data); err != nil {
		return nil, fmt.Errorf("reading an object: %w", err)
	}
	return u, nil
}

// walk calls f for every text in a YAML value.
func walk(path string, v any, f func(path, text string)) {
	switch v := v.(type) {
	case string:
		f(path, v)
	case []any:
		for i := range v {
			walk(fmt.Sprintf("%s[%d]", path, i), v[i], f)
		}
	case Object:
		walk(path, map[string]any(v), f)
	case map[string]any:
		for k := range v {
			walk(path+"."+k, v[k], f)
		}
	}
}
