// Package schema judges manifests of Roundhouse's kinds without a cluster, by the same CRDs and the same code as the API
// server: unknown fields, types, bounds, list keys and CEL rules.
package schema

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/listtype"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	apivalidation "k8s.io/apimachinery/pkg/util/validation"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"sigs.k8s.io/yaml"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

// maxDocuments bounds what one file may hold.
const maxDocuments = 1000

// Document is one object of a manifest.
type Document struct {
	// Object is as written, without defaults.
	Object *unstructured.Unstructured
	// Problems say what is wrong with it before any schema was asked, such as a key that is there twice.
	Problems []string
}

// Parse splits a manifest into its objects. Empty documents are left out; one that cannot be read becomes a Document
// with that problem, so that the others are judged all the same.
func Parse(data []byte) ([]Document, error) {
	reader := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(data)))
	var out []Document
	for {
		doc, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("splitting the manifest: %w", err)
		}
		if len(out) == maxDocuments {
			return nil, fmt.Errorf("the manifest holds more than %d objects", maxDocuments)
		}
		parsed, ok := parse(doc)
		if ok {
			out = append(out, parsed)
		}
	}
}

func parse(doc []byte) (Document, bool) {
	var content map[string]any
	// Strict: a key that is there twice is a mistake whose half is silently lost otherwise.
	if err := yaml.UnmarshalStrict(doc, &content); err != nil {
		return Document{Object: &unstructured.Unstructured{}, Problems: []string{clean(err)}}, true
	}
	if len(content) == 0 {
		return Document{}, false
	}
	if content["kind"] == nil || content["apiVersion"] == nil {
		return Document{Object: &unstructured.Unstructured{Object: content}, Problems: []string{"apiVersion and kind must be set"}}, true
	}
	// Numbers must be int64 or float64, as the API server's decoder makes them.
	object := &unstructured.Unstructured{}
	data, err := yaml.YAMLToJSON(doc)
	if err == nil {
		err = object.UnmarshalJSON(data)
	}
	if err != nil {
		return Document{Object: &unstructured.Unstructured{Object: content}, Problems: []string{clean(err)}}, true
	}
	return Document{Object: object}, true
}

func clean(err error) string {
	return strings.TrimPrefix(strings.ReplaceAll(err.Error(), "\n", " "), "error converting YAML to JSON: ")
}

// Set is the schemas of Roundhouse's kinds.
type Set struct {
	kinds map[string]*kind
}

type kind struct {
	structural *schema.Structural
	validator  validation.SchemaValidator
	rules      *cel.Validator
}

// Load reads the CRDs of a directory.
func Load(files fs.FS, dir string) (*Set, error) {
	entries, err := fs.ReadDir(files, dir)
	if err != nil {
		return nil, fmt.Errorf("reading the CRDs: %w", err)
	}
	set := &Set{kinds: map[string]*kind{}}
	for _, e := range entries {
		data, err := fs.ReadFile(files, path.Join(dir, e.Name()))
		if err != nil {
			return nil, fmt.Errorf("reading the CRDs: %w", err)
		}
		crd := &apiextensionsv1.CustomResourceDefinition{}
		if err := yaml.Unmarshal(data, crd); err != nil {
			return nil, fmt.Errorf("reading %s: %w", e.Name(), err)
		}
		if err := set.add(crd); err != nil {
			return nil, fmt.Errorf("reading %s: %w", e.Name(), err)
		}
	}
	return set, nil
}

func (s *Set) add(crd *apiextensionsv1.CustomResourceDefinition) error {
	for _, version := range crd.Spec.Versions {
		if version.Name != v1alpha1.GroupVersion.Version || version.Schema == nil {
			continue
		}
		var props apiextensions.JSONSchemaProps
		err := apiextensionsv1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(version.Schema.OpenAPIV3Schema, &props, nil)
		if err != nil {
			return fmt.Errorf("converting the schema: %w", err)
		}
		structural, err := schema.NewStructural(&props)
		if err != nil {
			return fmt.Errorf("the schema is not structural: %w", err)
		}
		validator, _, err := validation.NewSchemaValidator(&props)
		if err != nil {
			return fmt.Errorf("making a validator: %w", err)
		}
		s.kinds[crd.Spec.Names.Kind] = &kind{
			structural: structural, validator: validator, rules: cel.NewValidator(structural, true, celconfig.PerCallLimit),
		}
	}
	return nil
}

// Judge says what is wrong with an object, in the API server's words, and fills in its defaults. An empty answer means
// that the API server would take it, as far as can be told without one.
func (s *Set) Judge(ctx context.Context, object *unstructured.Unstructured) []string {
	gvk := object.GroupVersionKind()
	switch {
	case gvk.Kind == "" || gvk.Version == "":
		return []string{"apiVersion and kind must be set"}
	case gvk.Group != v1alpha1.GroupVersion.Group:
		return []string{fmt.Sprintf("%s %s is not one of Roundhouse's kinds", object.GetAPIVersion(), gvk.Kind)}
	case gvk.GroupVersion() != v1alpha1.GroupVersion || s.kinds[gvk.Kind] == nil:
		return []string{fmt.Sprintf("there is no kind %s in %s; apiVersion is %s", gvk.Kind, object.GetAPIVersion(), v1alpha1.GroupVersion)}
	}
	k := s.kinds[gvk.Kind]
	problems := named(object)
	unknown := pruning.PruneWithOptions(object.Object, k.structural, true, schema.UnknownFieldPathOptions{TrackUnknownFieldPaths: true})
	for _, field := range unknown {
		problems = append(problems, "unknown field "+field)
	}
	defaulting.PruneNonNullableNullsWithoutDefaults(object.Object, k.structural)
	defaulting.Default(object.Object, k.structural)
	for _, err := range validation.ValidateCustomResource(nil, object.Object, k.validator) {
		problems = append(problems, err.Error())
	}
	for _, err := range listtype.ValidateListSetsAndMaps(nil, k.structural, object.Object) {
		problems = append(problems, err.Error())
	}
	if len(problems) == 0 && k.rules != nil {
		// The server, too, asks the CEL rules only about what has the right types.
		errs, _ := k.rules.Validate(ctx, nil, k.structural, object.Object, nil, celconfig.RuntimeCELCostBudget)
		for _, err := range errs {
			problems = append(problems, err.Error())
		}
	}
	return problems
}

func named(object *unstructured.Unstructured) []string {
	name := object.GetName()
	switch {
	case name == "" && object.GetGenerateName() == "":
		return []string{"metadata.name: Required value"}
	case name == "":
		return nil
	}
	var out []string
	for _, message := range apivalidation.IsDNS1123Subdomain(name) {
		out = append(out, fmt.Sprintf("metadata.name: Invalid value: %q: %s", name, message))
	}
	return out
}
