package external

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/ptr"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/remedy"
	"github.com/roundhouse-dev/roundhouse/internal/remedy/untyped"
)

const (
	// suffix ends the kind of every template; without it, it is the kind of what is made of it.
	suffix = "Template"
	// kindMetal3 is a template by another contract: its object must be owned by a Machine of its namespace, and is named
	// after that.
	kindMetal3 = "Metal3RemediationTemplate"
	// aggregateLabel is on the ClusterRoles by which remediators give others a right to their kinds.
	aggregateLabel = "rbac.ext-remediation/aggregate-to-ext-remediation"
)

// errCluster means that a kind has no namespaces; the template's namespace would mean nothing.
var errCluster = errors.New("it is not of a namespace, and external.namespace names one")

// kinds are the template's kind and that of what is made of it.
type kinds struct {
	template, object schema.GroupVersionKind
}

// kinds finds out whether the server serves both.
func (r *Remedy) kinds(a remedy.Attempt) (kinds, error) {
	if a.Rung.External == nil {
		return kinds{}, fmt.Errorf("rung %q: %w", a.Rung.Name, ErrNoExternal)
	}
	template := schema.FromAPIVersionAndKind(a.Rung.External.APIVersion, a.Rung.External.Kind)
	name, ok := strings.CutSuffix(template.Kind, suffix)
	if !ok || name == "" {
		return kinds{}, fmt.Errorf("rung %q: %w: external.kind %q must end in %s", a.Rung.Name, ErrNoExternal, template.Kind, suffix)
	}
	k := kinds{template: template, object: template.GroupVersion().WithKind(name)}
	for _, kind := range []schema.GroupVersionKind{k.template, k.object} {
		mapping, err := untyped.Resolve(r.client.RESTMapper(), kind.GroupKind(), kind.Version)
		if err != nil {
			return kinds{}, err
		}
		if mapping.Scope.Name() != meta.RESTScopeNameNamespace {
			return kinds{}, fmt.Errorf("%s: %w", kind.GroupKind(), errCluster)
		}
	}
	return k, nil
}

// unserved turns an error of kinds that a person can mend into a refusal.
func unserved(err error) (string, error) {
	switch {
	case errors.Is(err, untyped.ErrNotServed):
		return untyped.Message("the remediator is not installed: " + err.Error()), nil
	case errors.Is(err, errCluster):
		return untyped.Message(err.Error()), nil
	}
	return "", err
}

// wanted is the object to make, or why the template does not say.
func (r *Remedy) wanted(ctx context.Context, k kinds, a remedy.Attempt) (*unstructured.Unstructured, string, error) {
	ref := a.Rung.External
	if k.template.Kind == kindMetal3 {
		return nil, kindMetal3 + " is for Machines, by another contract: use action Replace, or a MachineHealthCheck that names it", nil
	}
	if a.Node == nil || string(a.Node.UID) != a.Remediation.Spec.NodeUID {
		return nil, "the Node is gone", nil
	}
	template, err := untyped.Get(ctx, r.client, k.template, ref.Namespace, ref.Name)
	if apierrors.IsNotFound(err) {
		return nil, fmt.Sprintf("%s %s/%s is not there", ref.Kind, ref.Namespace, ref.Name), nil
	}
	if err != nil {
		return nil, "", err
	}
	if template.GetDeletionTimestamp() != nil {
		return nil, untyped.Name(template) + " is being deleted", nil
	}
	// What is there and is no object is the template's mistake, as what is not there: the map is nil either way.
	spec, _, _ := unstructured.NestedMap(template.Object, "spec", "template", "spec")
	if spec == nil {
		return nil, untyped.Name(template) + " has no spec.template.spec", nil
	}
	return object(k.object, template, spec, a), "", nil
}

// object is what is made of a template. NodeHealthCheck lets the server make up the name where the remediator does not
// need it; the attempt's ID is as good, and a second try finds the first.
func object(kind schema.GroupVersionKind, template *unstructured.Unstructured, spec map[string]any, a remedy.Attempt) *unstructured.Unstructured {
	o := &unstructured.Unstructured{Object: map[string]any{"spec": spec}}
	o.SetGroupVersionKind(kind)
	o.SetNamespace(template.GetNamespace())
	o.SetName(a.Node.Name)
	if _, multiple := template.GetAnnotations()[AnnotationMultiple]; multiple {
		o.SetName(a.ID)
	}
	o.SetLabels(map[string]string{v1alpha1.LabelRemediation: a.Remediation.Name})
	o.SetAnnotations(map[string]string{
		AnnotationNode:     a.Node.Name,
		AnnotationTemplate: template.GetName(),
		AnnotationAttempt:  a.ID,
	})
	o.SetOwnerReferences([]metav1.OwnerReference{{
		APIVersion: v1alpha1.GroupVersion.String(), Kind: "Remediation", Name: a.Remediation.Name, UID: a.Remediation.UID,
		Controller: ptr.To(false),
	}})
	return o
}

// present looks at every object of the kind. One of somebody else's for the node, or with the name that ours would have, is
// never taken over: why names its owner. Else it is ours, of this attempt where there is one, or of an earlier one.
func (r *Remedy) present(ctx context.Context, k kinds, wanted *unstructured.Unstructured, a remedy.Attempt) (found *unstructured.Unstructured, why string, err error) {
	about, err := untyped.List(ctx, r.client, k.object, func(o *unstructured.Unstructured) bool {
		same := o.GetNamespace() == wanted.GetNamespace() && o.GetName() == wanted.GetName()
		return same || nodeOf(o) == a.Node.Name
	})
	if err != nil {
		return nil, "", err
	}
	for _, o := range about {
		switch {
		case !ours(o, a):
			return nil, fmt.Sprintf("%s is there already, owned by %s", untyped.Name(o), untyped.Owners(o)), nil
		case found == nil || ofAttempt(o, a):
			found = o
		}
	}
	return found, "", nil
}

// nodeOf is the node that an object is about (node-healthcheck-operator, utils.GetNodeNameFromCR).
func nodeOf(o *unstructured.Unstructured) string {
	if name, ok := o.GetAnnotations()[AnnotationNode]; ok {
		return name
	}
	return o.GetName()
}

// find finds the object of this attempt, which has one of two names, or nil. It does not ask for the template, which may
// be gone or another since.
func (r *Remedy) find(ctx context.Context, k kinds, a remedy.Attempt) (*unstructured.Unstructured, error) {
	for _, name := range []string{a.Remediation.Spec.Node, a.ID} {
		o, err := untyped.Get(ctx, r.client, k.object, a.Rung.External.Namespace, name)
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if ofAttempt(o, a) {
			return o, nil
		}
	}
	return nil, nil
}

// ours says whether the Remediation made the object, in this attempt or in an earlier one.
func ours(o *unstructured.Unstructured, a remedy.Attempt) bool {
	return slices.ContainsFunc(o.GetOwnerReferences(), func(owner metav1.OwnerReference) bool { return owner.UID == a.Remediation.UID })
}

// ofAttempt says whether this attempt made the object.
func ofAttempt(o *unstructured.Unstructured, a remedy.Attempt) bool {
	return ours(o, a) && o.GetAnnotations()[AnnotationAttempt] == a.ID
}
