package config_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/yaml"

	"github.com/roundhouse-dev/roundhouse/config"
	"github.com/roundhouse-dev/roundhouse/internal/docpage"
)

// TestFieldTables holds the tables of docs/api.md to the CRDs, of which they are made. With ROUNDHOUSE_UPDATE_DOCS set, as
// make generate sets it, it rewrites them.
func TestFieldTables(t *testing.T) {
	entries, err := config.Files.ReadDir("crd")
	if err != nil {
		t.Fatal(err)
	}
	parts := make([]docpage.Part, 0, len(entries))
	for _, entry := range entries {
		crd := readCRD(t, "crd/"+entry.Name())
		parts = append(parts, docpage.Part{Mark: "fields of " + crd.Spec.Names.Kind, Text: fieldTable(crd)})
	}
	docpage.Hold(t, "../docs/api.md", "make generate", parts...)
}

func readCRD(t *testing.T, name string) *apiextensionsv1.CustomResourceDefinition {
	t.Helper()
	data, err := config.Files.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	crd := &apiextensionsv1.CustomResourceDefinition{}
	if err := yaml.UnmarshalStrict(data, crd); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return crd
}

// fieldTable is a Markdown table of the fields of spec and status.
func fieldTable(crd *apiextensionsv1.CustomResourceDefinition) string {
	var b strings.Builder
	b.WriteString("\n| field | type | |\n|---|---|---|\n")
	schema := crd.Spec.Versions[0].Schema.OpenAPIV3Schema
	for _, part := range []string{"spec", "status"} {
		if root, ok := schema.Properties[part]; ok {
			writeFields(&b, root, part)
		}
	}
	b.WriteString("\n")
	return b.String()
}

// writeFields writes the fields below path, each before those that it holds.
func writeFields(b *strings.Builder, schema apiextensionsv1.JSONSchemaProps, path string) {
	for _, name := range slices.Sorted(maps.Keys(schema.Properties)) {
		field := schema.Properties[name]
		below, at := field, path+"."+name
		if field.Type == "array" {
			below, at = *field.Items.Schema, at+"[]"
		}
		text := strings.Join(strings.Fields(strings.ReplaceAll(field.Description, "|", `\|`)), " ")
		if below.Default != nil {
			text += fmt.Sprintf(" Default: `%s`.", strings.Trim(string(below.Default.Raw), `"`))
		}
		if slices.Contains(schema.Required, name) {
			text += " *Required.*"
		}
		fmt.Fprintf(b, "| `%s` | %s | %s |\n", at, typeOf(below, field), text)
		// Selectors and conditions are Kubernetes' own; kubectl explain has them.
		if _, selector := below.Properties["matchExpressions"]; !selector && !strings.HasSuffix(at, "conditions[]") {
			writeFields(b, below, at)
		}
	}
}

// typeOf is a field's type in a few words, with its bounds.
func typeOf(schema, field apiextensionsv1.JSONSchemaProps) string {
	kind := schema.Type
	switch {
	case len(schema.Enum) > 0:
		values := make([]string, len(schema.Enum))
		for i, raw := range schema.Enum {
			values[i] = strings.Trim(string(raw.Raw), `"`)
		}
		kind = strings.Join(values, ", ")
	case schema.XIntOrString:
		kind = "number or percentage"
	case schema.Format == "date-time":
		kind = "time"
	case len(schema.XValidations) > 0 && strings.Contains(schema.XValidations[0].Message, "duration"):
		kind = "duration"
	case schema.Minimum != nil && schema.Maximum != nil:
		kind = fmt.Sprintf("%s, %.0f to %.0f", kind, *schema.Minimum, *schema.Maximum)
	case schema.MaxLength != nil && schema.Type == "string":
		kind = fmt.Sprintf("%s, up to %d", kind, *schema.MaxLength)
	}
	if field.MaxItems != nil {
		kind = fmt.Sprintf("up to %d of: %s", *field.MaxItems, kind)
	}
	return kind
}
