package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"sigs.k8s.io/yaml"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

// TestSamples applies config/samples, one of each kind, and reads them back into the Go types without loss.
func TestSamples(t *testing.T) {
	t.Parallel()
	s := startAPIServer(t, "crd")
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	samples := readSamples(t)
	for _, crd := range readCRDs(t) {
		t.Run(crd.Spec.Names.Kind, func(t *testing.T) {
			sample := samples[crd.Spec.Names.Kind]
			if sample == nil {
				t.Fatal("config/samples has none")
			}
			s.createWhole(t, crd, sample)
			stored := call{http.MethodGet, collection(crd) + sample.GetName(), ""}.must(t, s.core)
			typed, err := scheme.New(v1alpha1.GroupVersion.WithKind(crd.Spec.Names.Kind))
			if err != nil {
				t.Fatal(err)
			}
			if err := yaml.UnmarshalStrict(stored, typed); err != nil {
				t.Errorf("reading it into the Go type: %v", err)
			}
			var got unstructured.Unstructured
			if err := json.Unmarshal(stored, &got.Object); err != nil {
				t.Fatal(err)
			}
			for _, part := range []string{"spec", "status"} {
				if diff := cmp.Diff(asJSON(t, sample.Object[part]), asJSON(t, got.Object[part])); diff != "" {
					t.Errorf("%s as sent (-) and as stored (+); a sample says everything, defaults too:\n%s", part, diff)
				}
			}
		})
	}
}

// asJSON is a value as generic JSON, so that numbers of different Go types compare.
func asJSON(t *testing.T, value any) any {
	t.Helper()
	data, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	var out any
	if err := json.Unmarshal(data, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// collection is the path of a kind's objects.
func collection(crd *apiextensionsv1.CustomResourceDefinition) string {
	return "/apis/" + crd.Spec.Group + "/v1alpha1/" + crd.Spec.Names.Plural + "/"
}

// TestInvalid sends each file of testdata/invalid to the API server. The comments at its head say what the refusal must
// hold: the field, and what to do about it. A status is sent as the agent or the controller would, by a patch.
func TestInvalid(t *testing.T) {
	t.Parallel()
	s := startAPIServer(t, "crd")
	files, err := filepath.Glob("testdata/invalid/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	plural := map[string]*apiextensionsv1.CustomResourceDefinition{}
	for _, crd := range readCRDs(t) {
		plural[crd.Spec.Names.Kind] = crd
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			object := readObject(t, file)
			err := s.sendInvalid(t, collection(plural[object.GetKind()]), object)
			for _, want := range wanted(t, file) {
				if err := wantRefusal(err, want); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// sendInvalid sends the spec, or where the object has a status, stores the spec and sends the status.
func (s *apiServer) sendInvalid(t *testing.T, path string, object *unstructured.Unstructured) error {
	t.Helper()
	body, err := json.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	create := call{http.MethodPost, path, string(body)}
	status, ok := object.Object["status"]
	if !ok {
		_, err := create.do(t.Context(), s.core)
		return err
	}
	create.must(t, s.core)
	patch, err := json.Marshal(map[string]any{"status": status})
	if err != nil {
		t.Fatal(err)
	}
	_, err = call{http.MethodPatch, path + object.GetName() + "/status", string(patch)}.do(t.Context(), s.core)
	call{http.MethodDelete, path + object.GetName(), ""}.must(t, s.core)
	return err
}

// wanted reads the "# want:" lines of an example.
func wanted(t *testing.T, file string) []string {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var out []string
	for scanner := bufio.NewScanner(f); scanner.Scan(); {
		if want, ok := strings.CutPrefix(scanner.Text(), "# want: "); ok {
			out = append(out, want)
		}
	}
	if len(out) == 0 {
		t.Fatal("the example does not say what it wants")
	}
	return out
}

// TestTransitions changes stored objects in ways that only the server can judge, knowing the old one.
func TestTransitions(t *testing.T) {
	t.Parallel()
	s := startAPIServer(t, "crd")
	samples := readSamples(t)
	for _, crd := range readCRDs(t) {
		s.createWhole(t, crd, samples[crd.Spec.Names.Kind])
	}
	const health, remediation = nodeHealths + "gpu-0417", remediations + "gpu-0417-k3q7x2m9aa"
	steps := []struct{ name, path, patch, want string }{
		{"the node's UID stays", health, `{"spec":{"nodeUID":"another","fence":43}}`, "spec.nodeUID cannot change: a re-created node gets a new NodeHealth"},
		{"the fence does not fall", health, `{"spec":{"fence":41}}`, "spec.fence only rises: this write was decided on an older state"},
		{"an action does not change under the same fence", health, `{"spec":{"action":{"type":"ResetDevice"}}}`, "spec.action cannot change without raising spec.fence"},
		{"an action does not go under the same fence", health, `{"spec":{"action":null}}`, "spec.action cannot change without raising spec.fence"},
		{"an action goes with a higher fence", health, `{"spec":{"action":null,"fence":43}}`, ""},
		{"an action does not come under the same fence", health,
			`{"spec":{"action":{"id":"b","type":"Reboot","bootID":"b","notAfter":"2026-11-23T10:00:00Z"}}}`, "spec.action cannot change without raising spec.fence"},
		{"an action comes with a higher fence", health,
			`{"spec":{"fence":44,"action":{"id":"b","type":"Reboot","bootID":"b","notAfter":"2026-11-23T10:00:00Z"}}}`, ""},
		{"a fence rises alone, to refuse who is frozen", health, `{"spec":{"fence":45}}`, ""},
		{"a Remediation's node stays", remediation, `{"spec":{"node":"gpu-0418"}}`, "spec.node and spec.nodeUID cannot change"},
		{"a Remediation's node UID stays", remediation, `{"spec":{"nodeUID":"another"}}`, "spec.node and spec.nodeUID cannot change"},
		{"a person cancels", remediation, `{"spec":{"cancel":true}}`, ""},
		{"and does not take it back", remediation, `{"spec":{"cancel":false}}`, "spec.cancel cannot be taken back; a new fault opens a new Remediation"},
		{"nor by leaving it out", remediation, `{"spec":{"cancel":null}}`, "spec.cancel cannot be taken back; a new fault opens a new Remediation"},
	}
	for _, step := range steps {
		t.Run(step.name, func(t *testing.T) {
			_, err := call{http.MethodPatch, step.path, step.patch}.do(t.Context(), s.core)
			switch {
			case step.want != "":
				if err := wantRefusal(err, step.want); err != nil {
					t.Error(err)
				}
			case err != nil:
				t.Error(err)
			}
		})
	}
}

// TestSelectableFields lists and watches by what the controller and the plugin select by.
func TestSelectableFields(t *testing.T) {
	t.Parallel()
	s := startAPIServer(t, "crd")
	for name, summary := range map[string]string{"gpu-1": "Healthy", "gpu-2": "Faulty", "gpu-3": "Unknown", "gpu-4": ""} {
		call{http.MethodPost, nodeHealths, fmt.Sprintf(`{"apiVersion":"roundhouse.dev/v1alpha1","kind":"NodeHealth",
			"metadata":{"name":%q},"spec":{"nodeUID":"u","fence":1}}`, name)}.must(t, s.core)
		if summary != "" {
			s.summarise(t, name, summary)
		}
	}
	call{http.MethodPost, remediations, `{"apiVersion":"roundhouse.dev/v1alpha1","kind":"Remediation","metadata":{"name":"r-1"},
		"spec":{"node":"gpu-2","nodeUID":"u","policy":"training","root":{"code":"Xid79","firstSeen":"2026-11-23T10:00:00Z"}}}`}.must(t, s.core)
	call{http.MethodPatch, remediations + "r-1/status", `{"status":{"phase":"Pending"}}`}.must(t, s.core)
	for path, want := range map[string][]string{
		nodeHealths + "?fieldSelector=status.summary!=Healthy":                    {"gpu-2", "gpu-3", "gpu-4"},
		nodeHealths + "?fieldSelector=status.summary=Faulty":                      {"gpu-2"},
		nodeHealths + "?fieldSelector=metadata.name=gpu-3":                        {"gpu-3"},
		remediations + "?fieldSelector=spec.node=gpu-2":                           {"r-1"},
		remediations + "?fieldSelector=status.phase!=Pending":                     nil,
		remediations + "?fieldSelector=spec.policy=training,status.phase=Pending": {"r-1"},
	} {
		t.Run("list "+path, func(t *testing.T) {
			var list metav1.PartialObjectMetadataList
			if err := json.Unmarshal(call{http.MethodGet, path, ""}.must(t, s.core), &list); err != nil {
				t.Fatal(err)
			}
			var got []string
			for i := range list.Items {
				got = append(got, list.Items[i].Name)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
	t.Run("a watch of what is not healthy sees a node come and go", s.checkWatch)
}

// summarise writes a NodeHealth's summary.
func (s *apiServer) summarise(t *testing.T, name, summary string) {
	t.Helper()
	call{http.MethodPatch, nodeHealths + name + "/status", fmt.Sprintf(`{"status":{"summary":%q}}`, summary)}.must(t, s.core)
}

// checkWatch watches as the controller does: a node that turns faulty is added, one that recovers is deleted.
func (s *apiServer) checkWatch(t *testing.T) {
	client, err := dynamic.NewForConfig(s.AdminConfig())
	if err != nil {
		t.Fatal(err)
	}
	resource := client.Resource(v1alpha1.GroupVersion.WithResource("nodehealths"))
	list, err := resource.List(t.Context(), metav1.ListOptions{Limit: 1})
	if err != nil {
		t.Fatal(err)
	}
	seconds := int64(20)
	stream, err := resource.Watch(t.Context(), metav1.ListOptions{
		FieldSelector: "status.summary!=Healthy", ResourceVersion: list.GetResourceVersion(), TimeoutSeconds: &seconds,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Stop()
	s.summarise(t, "gpu-1", "Faulty")
	s.summarise(t, "gpu-1", "Acting")
	s.summarise(t, "gpu-1", "Healthy")
	for _, want := range []watch.EventType{watch.Added, watch.Modified, watch.Deleted} {
		event, ok := <-stream.ResultChan()
		if !ok {
			t.Fatalf("the watch ended before %s", want)
		}
		if object, _ := event.Object.(*unstructured.Unstructured); event.Type != want || object.GetName() != "gpu-1" {
			t.Fatalf("got %s of %v, want %s of gpu-1", event.Type, event.Object, want)
		}
	}
}
