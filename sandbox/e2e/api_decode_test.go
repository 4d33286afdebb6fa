package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/config"
)

// Values at and over the edges of what Go's types read, by the kind of field that could let them through.
var (
	anyEdges      = []any{nil, true, int64(1), "", "a", []any{}, []any{"a"}, map[string]any{}, map[string]any{"a": "b"}}
	integerEdges  = []any{int64(0), int64(-1), int64(2147483648), int64(-2147483649), 9.3e18, 1e30, 1.5, "1", "5%", "500%"}
	durationEdges = []any{"1m", "90s", "1h30m", "1.5h", "1d", "1 day", "-1m", "+1m", "99999999999h", "99999h99999h", "1h1h1h1h1h1h1h1h", "10:00", "1"}
	timeEdges     = []any{
		"2026-11-23T10:00:00Z", "2026-11-23t10:00:00z", "2026-02-30T10:00:00Z", "2026-11-23T24:00:00Z", "2026-11-23T10:00:00",
		"2026-11-23 10:00:00", "2026-11-23T10:00:00+25:00", "2026-11-23T23:59:60Z", "2026-11-23T10:00:00,5Z", "20261-11-23T10:00:00Z",
	}
)

// edges are the values to try on a field.
func edges(schema apiextensionsv1.JSONSchemaProps) []any {
	switch {
	case schema.XIntOrString || schema.Type == "integer" || schema.Type == "number":
		return slices.Concat(anyEdges, integerEdges)
	case schema.Format == "date-time":
		return slices.Concat(anyEdges, timeEdges)
	case len(schema.XValidations) > 0 || schema.Format != "" || schema.Pattern != "":
		return slices.Concat(anyEdges, timeEdges, durationEdges)
	default:
		return anyEdges
	}
}

// notInSamples are fields that the samples cannot have beside others that they do have.
var notInSamples = []string{"spec.nodes[0]"}

// triedElsewhere is a policy's rung in the status of an incident: the same type, tried in the policy, whose sample has one of
// each action.
const triedElsewhere = "status.step.remedy.rung."

// TestAcceptedIsReadable looks for a value that the API server stores and the Go types cannot read. One such object
// would be enough to blind the controller: a LIST that holds it fails as a whole. A stolen agent's credential could
// plant it in the status of its NodeHealth, and a typing mistake in a policy.
func TestAcceptedIsReadable(t *testing.T) {
	t.Parallel()
	s := startAPIServer(t, "crd")
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	samples := readSamples(t)
	for _, crd := range readCRDs(t) {
		sample := samples[crd.Spec.Names.Kind]
		t.Run(crd.Spec.Names.Kind, func(t *testing.T) {
			s.createWhole(t, crd, sample)
			schema := crd.Spec.Versions[0].Schema.OpenAPIV3Schema
			for _, part := range []string{"spec", "status"} {
				root, ok := schema.Properties[part]
				if !ok {
					continue
				}
				for _, leaf := range leaves(root, []any{part}, sample.Object[part]) {
					if strings.HasPrefix(pathString(leaf), triedElsewhere) {
						continue
					}
					s.tryEdges(t, scheme, crd, sample, leaf)
				}
			}
		})
	}
}

// tryEdges puts each edge value into one field of the sample and sends it, without storing it.
func (s *apiServer) tryEdges(t *testing.T, scheme *runtime.Scheme, crd *apiextensionsv1.CustomResourceDefinition, sample *unstructured.Unstructured, leaf []any) {
	t.Helper()
	var mu sync.Mutex
	var wait sync.WaitGroup
	accepted := 0
	schema := schemaAt(crd, leaf)
	own := append(enumOf(schema), getPath(sample.Object, leaf))
	for _, value := range slices.Concat(edges(schema), own) {
		wait.Go(func() {
			object := &unstructured.Unstructured{Object: runtime.DeepCopyJSON(sample.Object)}
			object.Object = setPath(object.Object, leaf, value).(map[string]any)
			answer, err := s.send(t, crd, object, leaf[0] == "status")
			if err != nil {
				return // refused: nothing is stored
			}
			mu.Lock()
			defer mu.Unlock()
			accepted++
			typed, err := scheme.New(v1alpha1.GroupVersion.WithKind(crd.Spec.Names.Kind))
			if err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(answer, typed); err != nil {
				t.Errorf("%s = %#v is accepted, and cannot be read: %v", pathString(leaf), value, err)
			}
		})
	}
	wait.Wait()
	if accepted == 0 && !slices.Contains(notInSamples, pathString(leaf)) {
		t.Errorf("%s: no value was accepted, so nothing is known of it", pathString(leaf))
	}
}

// send sends an object as whoever writes that part would: the spec by a create, the status by an update.
func (s *apiServer) send(t *testing.T, crd *apiextensionsv1.CustomResourceDefinition, object *unstructured.Unstructured, status bool) ([]byte, error) {
	t.Helper()
	path := strings.TrimSuffix(collection(crd), "/")
	method := http.MethodPost
	if status {
		method, path = http.MethodPut, path+"/"+object.GetName()+"/status"
	} else {
		object.SetName("another")
	}
	body, err := json.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	return call{method, path, string(body)}.dryRun().do(t.Context(), s.core)
}

// createWhole stores a sample with its status, and gives it the resourceVersion of what was stored.
func (s *apiServer) createWhole(t *testing.T, crd *apiextensionsv1.CustomResourceDefinition, sample *unstructured.Unstructured) {
	t.Helper()
	path := strings.TrimSuffix(collection(crd), "/")
	body, err := json.Marshal(sample)
	if err != nil {
		t.Fatal(err)
	}
	answer := call{http.MethodPost, path, string(body)}.must(t, s.core)
	if status, ok := sample.Object["status"]; ok {
		patch, err := json.Marshal(map[string]any{"status": status})
		if err != nil {
			t.Fatal(err)
		}
		answer = call{http.MethodPatch, path + "/" + sample.GetName() + "/status", string(patch)}.must(t, s.core)
	}
	var stored unstructured.Unstructured
	if err := json.Unmarshal(answer, &stored.Object); err != nil {
		t.Fatal(err)
	}
	sample.SetResourceVersion(stored.GetResourceVersion())
}

// leaves lists the fields of a schema that hold a value. Of a list it takes the first element of the sample that has
// the field. A LabelSelector's are left to Kubernetes.
func leaves(schema apiextensionsv1.JSONSchemaProps, path []any, sample any) [][]any {
	switch {
	case schema.Type == "object" && len(schema.Properties) > 0:
		if _, ok := schema.Properties["matchExpressions"]; ok {
			return nil
		}
		object, _ := sample.(map[string]any)
		var out [][]any
		for _, name := range slices.Sorted(maps.Keys(schema.Properties)) {
			out = append(out, leaves(schema.Properties[name], append(slices.Clone(path), name), object[name])...)
		}
		return out
	case schema.Type == "array":
		list, _ := sample.([]any)
		found := map[string][]any{}
		for i := range max(1, len(list)) {
			var element any
			if i < len(list) {
				element = list[i]
			}
			for _, leaf := range leaves(*schema.Items.Schema, append(slices.Clone(path), i), element) {
				key := pathString(leaf[len(path)+1:])
				if _, ok := found[key]; !ok || (element != nil && !has(sample, found[key][len(path):]) && has(sample, leaf[len(path):])) {
					found[key] = leaf
				}
			}
		}
		return slices.Collect(maps.Values(found))
	default:
		return [][]any{path}
	}
}

// has tells whether there is a value at the path.
func has(at any, path []any) bool { return getPath(at, path) != nil }

// getPath returns the value at a path, or nil.
func getPath(at any, path []any) any {
	for _, step := range path {
		switch step := step.(type) {
		case string:
			object, _ := at.(map[string]any)
			at = object[step]
		case int:
			list, _ := at.([]any)
			if step >= len(list) {
				return nil
			}
			at = list[step]
		}
	}
	return at
}

// schemaAt is the schema of the field at a path.
func schemaAt(crd *apiextensionsv1.CustomResourceDefinition, path []any) apiextensionsv1.JSONSchemaProps {
	schema := *crd.Spec.Versions[0].Schema.OpenAPIV3Schema
	for _, step := range path {
		if name, ok := step.(string); ok {
			schema = schema.Properties[name]
		} else {
			schema = *schema.Items.Schema
		}
	}
	return schema
}

// enumOf lists the values that a field's schema enumerates.
func enumOf(schema apiextensionsv1.JSONSchemaProps) []any {
	var out []any
	for _, raw := range schema.Enum {
		var value any
		if err := json.Unmarshal(raw.Raw, &value); err == nil {
			out = append(out, value)
		}
	}
	return out
}

// setPath returns the object with a value at the path; what is missing on the way is made.
func setPath(at any, path []any, value any) any {
	if len(path) == 0 {
		return value
	}
	if name, ok := path[0].(string); ok {
		object, _ := at.(map[string]any)
		if object == nil {
			object = map[string]any{}
		}
		object[name] = setPath(object[name], path[1:], value)
		return object
	}
	list, _ := at.([]any)
	i := path[0].(int)
	if i >= len(list) {
		list = append(list, nil) // leaves never points further than one past the end
	}
	list[i] = setPath(list[i], path[1:], value)
	return list
}

// pathString writes a path as error messages do.
func pathString(path []any) string {
	var b strings.Builder
	for _, step := range path {
		if name, ok := step.(string); ok {
			fmt.Fprintf(&b, ".%s", name)
		} else {
			fmt.Fprintf(&b, "[%d]", step)
		}
	}
	return strings.TrimPrefix(b.String(), ".")
}

// readSamples reads config/samples, one object a kind.
func readSamples(t *testing.T) map[string]*unstructured.Unstructured {
	t.Helper()
	files, err := filepath.Glob("../../config/samples/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	samples := map[string]*unstructured.Unstructured{}
	for _, file := range files {
		object := readObject(t, file)
		samples[object.GetKind()] = object
	}
	return samples
}

// readObject reads one YAML file with one object.
func readObject(t *testing.T, file string) *unstructured.Unstructured {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	object := &unstructured.Unstructured{}
	asJSON, err := yaml.YAMLToJSONStrict(data)
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	if err := object.UnmarshalJSON(asJSON); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return object
}

// readCRDs reads the CRDs that config embeds.
func readCRDs(t *testing.T) []*apiextensionsv1.CustomResourceDefinition {
	t.Helper()
	entries, err := config.Files.ReadDir("crd")
	if err != nil {
		t.Fatal(err)
	}
	var crds []*apiextensionsv1.CustomResourceDefinition
	for _, entry := range entries {
		data, err := config.Files.ReadFile("crd/" + entry.Name())
		if err != nil {
			t.Fatal(err)
		}
		crd := &apiextensionsv1.CustomResourceDefinition{}
		if err := yaml.UnmarshalStrict(data, crd); err != nil {
			t.Fatalf("%s: %v", entry.Name(), err)
		}
		crds = append(crds, crd)
	}
	return crds
}
