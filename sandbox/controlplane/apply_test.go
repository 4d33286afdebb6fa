package controlplane

import (
	"strings"
	"testing"
	"testing/fstest"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
)

// Its object stands before its kind and its namespace, as a careless file would have it.
const widgetManifest = `
apiVersion: sandbox.test/v1
kind: Widget
metadata: {name: first, namespace: widgets}
spec: {size: 3}
---
apiVersion: v1
kind: Namespace
metadata: {name: widgets}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.sandbox.test}
spec:
  group: sandbox.test
  names: {kind: Widget, listKind: WidgetList, plural: widgets, singular: widget}
  scope: Namespaced
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}}
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            properties: {size: {type: integer, maximum: 5}}
          status: {type: object}
`

func TestApplyPutsDefinitionsBeforeWhatNeedsThem(t *testing.T) {
	fsys := fstest.MapFS{"config/all.yaml": {Data: []byte(widgetManifest)}}
	for _, when := range []string{"the first time", "again, unchanged"} {
		if err := shared.Apply(t.Context(), fsys, "config"); err != nil {
			t.Fatalf("%s: %v", when, err)
		}
	}
	client, err := dynamic.NewForConfig(shared.AdminConfig())
	if err != nil {
		t.Fatal(err)
	}
	widgets := client.Resource(schema.GroupVersionResource{Group: "sandbox.test", Version: "v1", Resource: "widgets"})
	if _, err := widgets.Namespace("widgets").Get(t.Context(), "first", metav1.GetOptions{}); err != nil {
		t.Errorf("the widget is not there: %v", err)
	}
}

func TestApplySaysWhatTheServerRefused(t *testing.T) {
	if err := shared.Apply(t.Context(), fstest.MapFS{"a.yaml": {Data: []byte(widgetManifest)}}, "a.yaml"); err != nil {
		t.Fatal(err)
	}
	const tooBig = "apiVersion: sandbox.test/v1\nkind: Widget\nmetadata: {name: big}\nspec: {size: 6}\n"
	err := shared.Apply(t.Context(), fstest.MapFS{"a.yaml": {Data: []byte(tooBig)}}, "a.yaml")
	if err == nil || !strings.Contains(err.Error(), "applying Widget big") || !strings.Contains(err.Error(), "less than or equal to 5") {
		t.Errorf("error = %v, want the server's message about spec.size", err)
	}
}
