package neighbours

import (
	"context"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/remedy"
	"github.com/roundhouse-dev/roundhouse/internal/remedy/external"
	"github.com/roundhouse-dev/roundhouse/sandbox/controlplane"
)

const snrGroup = "self-node-remediation.medik8s.io"

var (
	snr  = schema.GroupVersionKind{Group: snrGroup, Version: "v1alpha1", Kind: "SelfNodeRemediation"}
	noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
)

// remediatorFiles names a directory with the CRDs that Self Node Remediation publishes (config/crd/bases of its repository), to
// run these tests on them and not on remediatorCRDs.
const remediatorFiles = "ROUNDHOUSE_MEDIK8S_CRDS"

// installRemediator installs the kinds of Self Node Remediation.
func installRemediator(ctx context.Context, cp *controlplane.ControlPlane) error {
	dir := os.Getenv(remediatorFiles)
	if dir == "" {
		return cp.ApplyObjects(ctx, remediatorCRDs()...)
	}
	return cp.Apply(ctx, os.DirFS(dir), snrGroup+"_selfnoderemediations.yaml", snrGroup+"_selfnoderemediationtemplates.yaml")
}

// remediatorCRDs are the two kinds of medik8s's Self Node Remediation with the fields, the enumeration and the scope of
// its published CRDs (v0.13, api/v1alpha1). They are written down here because its Go module cannot be had from every
// module proxy; the words of the contract are held to medik8s's own module in TestTheContractsWords.
func remediatorCRDs() []*unstructured.Unstructured {
	spec := map[string]any{"type": "object", "properties": map[string]any{"remediationStrategy": map[string]any{
		"type": "string", "default": "Automatic", "enum": []any{"Automatic", "ResourceDeletion", "OutOfServiceTaint"}}}}
	text, when := map[string]any{"type": "string"}, map[string]any{"type": "string", "format": "date-time"}
	condition := map[string]any{
		"type": "object", "required": []any{"lastTransitionTime", "message", "reason", "status", "type"},
		"properties": map[string]any{
			"type": text, "reason": map[string]any{"type": "string", "minLength": int64(1)}, "message": text, "lastTransitionTime": when,
			"status": map[string]any{"type": "string", "enum": []any{"True", "False", "Unknown"}}, "observedGeneration": map[string]any{"type": "integer"},
		}}
	status := map[string]any{"type": "object", "properties": map[string]any{
		"phase": text, "lastError": text, "timeAssumedRebooted": when,
		"conditions": map[string]any{"type": "array", "items": condition, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": []any{"type"}}}}
	template := map[string]any{"type": "object", "required": []any{"template"}, "properties": map[string]any{
		"template": map[string]any{"type": "object", "required": []any{"spec"}, "properties": map[string]any{"spec": spec}}}}
	return []*unstructured.Unstructured{
		crd("SelfNodeRemediation", map[string]any{"spec": spec, "status": status}),
		crd("SelfNodeRemediationTemplate", map[string]any{"spec": template, "status": map[string]any{"type": "object"}}),
	}
}

func crd(kind string, properties map[string]any) *unstructured.Unstructured {
	plural := strings.ToLower(kind) + "s"
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": map[string]any{"name": plural + "." + snrGroup},
		"spec": map[string]any{
			"group": snrGroup, "scope": "Namespaced",
			"names": map[string]any{"kind": kind, "listKind": kind + "List", "plural": plural, "singular": strings.ToLower(kind)},
			"versions": []any{map[string]any{"name": "v1alpha1", "served": true, "storage": true, "subresources": map[string]any{"status": map[string]any{}},
				"schema": map[string]any{"openAPIV3Schema": map[string]any{"type": "object", "properties": properties}}}},
		},
	}}
}

// extRemediation is the ClusterRole that Self Node Remediation brings for those who drive it.
func extRemediation() *rbacv1.ClusterRole {
	return &rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{Name: "ext-remediation", Labels: map[string]string{"rbac.ext-remediation/aggregate-to-ext-remediation": "true"}},
		Rules: []rbacv1.PolicyRule{
			{APIGroups: []string{snrGroup}, Resources: []string{"selfnoderemediationtemplates"}, Verbs: []string{"get", "list", "watch"}},
			{APIGroups: []string{snrGroup}, Resources: []string{"selfnoderemediations"}, Verbs: []string{"get", "list", "watch", "create", "update", "patch", "delete"}},
		},
	}
}

// toSelfNodeRemediation is the rung; each test has a template of its own.
func toSelfNodeRemediation(template string) v1alpha1.Rung {
	return v1alpha1.Rung{Name: "snr", Action: v1alpha1.RungExternal, External: &v1alpha1.External{
		APIVersion: snrGroup + "/v1alpha1", Kind: "SelfNodeRemediationTemplate", Namespace: "default", Name: template}}
}

func (r *rig) template(name, annotations string) {
	r.t.Helper()
	r.make(fmt.Sprintf(`apiVersion: %s/v1alpha1
kind: SelfNodeRemediationTemplate
metadata: {name: %s, namespace: default, annotations: {%s}}
spec: {template: {spec: {remediationStrategy: OutOfServiceTaint}}}
`, snrGroup, name, annotations))
}

func (r *rig) external() *external.Remedy {
	return external.New(r.controller, clocktesting.NewFakePassiveClock(noon))
}

// made is the object of that name, which is taken away after the test.
func (r *rig) made(name string) *unstructured.Unstructured {
	r.t.Helper()
	o := &unstructured.Unstructured{}
	o.SetGroupVersionKind(snr)
	if err := r.admin.Get(r.t.Context(), client.ObjectKey{Namespace: "default", Name: name}, o); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { r.erase(o) })
	return o
}

// driven waits until the controller has the rights that the remediator grants.
func (r *rig) driven(a remedy.Attempt) {
	r.t.Helper()
	r.role(extRemediation())
	r.await("the remediator's rules are gathered", within, func() error {
		why, err := r.external().Check(r.t.Context(), a)
		if err != nil || strings.HasPrefix(why, "the controller may not use") {
			return fmt.Errorf("%s %w", why, err)
		}
		return nil
	})
}

// TestExternalRightsAreGathered is the refusal before the remediator's ClusterRole is there, and that nothing else is
// needed than its label.
func TestExternalRightsAreGathered(t *testing.T) {
	r := newRig(t, shared)
	a := r.attempt("snr-0", "", toSelfNodeRemediation("snr-0"))
	r.template("snr-0", "")
	r.await("the right is not there", within, func() error {
		why, err := r.external().Check(t.Context(), a)
		if err != nil || !strings.HasPrefix(why, "the controller may not use SelfNodeRemediations and their templates here") {
			return fmt.Errorf("got %q, %w", why, err)
		}
		return nil
	})
	r.driven(a)
	r.refuses(r.external(), a, "")
}

// TestExternalRemediation walks through a remediation with the remediator's part played: its finalizer, its conditions.
func TestExternalRemediation(t *testing.T) {
	r := newRig(t, shared)
	a := r.attempt("snr-1", "", toSelfNodeRemediation("snr-1"))
	r.driven(a)
	by := r.external()
	r.refuses(by, a, "SelfNodeRemediationTemplate default/snr-1 is not there")
	r.template("snr-1", "")
	r.refuses(by, a, "")
	r.step(a, by.Begin, v1alpha1.RemedyRunning, "SelfNodeRemediation default/snr-1 is made; its remediator has not begun yet")
	o := r.made("snr-1")
	if diff := cmp.Diff(map[string]any{"remediationStrategy": "OutOfServiceTaint"}, o.Object["spec"]); diff != "" {
		t.Errorf("the template's spec (-) and what was made of it (+):\n%s", diff)
	}
	if owners := o.GetOwnerReferences(); len(owners) != 1 || owners[0].UID != a.Remediation.UID || owners[0].Kind != "Remediation" {
		t.Errorf("its owners are %+v", owners)
	}
	r.patch(o, `{"metadata":{"finalizers":["self-node-remediation.medik8s.io/snr-finalizer"]}}`)
	r.say(o, "Processing", "True", "RemediationStarted", "")
	r.step(a, by.Look, v1alpha1.RemedyRunning, "is being processed: RemediationStarted")
	r.say(o, "Succeeded", "False", "RemediationFailed", "the watchdog did not start")
	r.step(a, by.Look, v1alpha1.RemedyFailed, "has failed: RemediationFailed: the watchdog did not start")
	for range 2 {
		if err := by.End(t.Context(), a); err != nil {
			t.Fatal(err)
		}
	}
	ended := r.live(o)
	if ended.GetDeletionTimestamp() == nil || ended.GetAnnotations()["remediation.medik8s.io/nhc-timed-out"] != "2026-11-23T12:00:00Z" {
		t.Errorf("it is not told to stop, or not being deleted: %v", ended.Object["metadata"])
	}

	second := a
	second.ID, second.Remediation = a.Remediation.Name+"-2", a.Remediation.DeepCopy()
	second.Remediation.Status.Step.Remedy.State = v1alpha1.RemedyBegun
	r.refuses(by, second, "")
	r.step(second, by.Begin, v1alpha1.RemedyBegun, "of the attempt before is being deleted, and its remediator has not let go of it yet")
	r.step(second, by.Look, v1alpha1.RemedyBegun, "of the attempt before")
	r.patch(o, `{"metadata":{"finalizers":null}}`)
	r.step(second, by.Look, v1alpha1.RemedyRunning, "is made")
	again := r.made("snr-1")
	r.say(again, "Succeeded", "True", "RemediationFinishedSuccessfully", "")
	r.step(second, by.Look, v1alpha1.RemedySucceeded, "has succeeded: RemediationFinishedSuccessfully")
	if err := by.End(t.Context(), second); err != nil {
		t.Fatal(err)
	}
	if r.live(again) != nil {
		t.Error("it is still there")
	}
}

// TestExternalWithSeveralTemplates is a remediator that finds the node by the annotation.
func TestExternalWithSeveralTemplates(t *testing.T) {
	r := newRig(t, shared)
	a := r.attempt("snr-2", "", toSelfNodeRemediation("snr-2"))
	r.driven(a)
	r.template("snr-2", `remediation.medik8s.io/multiple-templates-support: "true"`)
	by := r.external()
	r.step(a, by.Begin, v1alpha1.RemedyRunning, "SelfNodeRemediation default/"+a.ID+" is made")
	if got := r.made(a.ID).GetAnnotations()["remediation.medik8s.io/node-name"]; got != "snr-2" {
		t.Errorf("it is about node %q", got)
	}
	r.step(a, by.Begin, v1alpha1.RemedyRunning, a.ID)
}

// TestExternalKeepsOffAnothers is a node at which NodeHealthCheck is already.
func TestExternalKeepsOffAnothers(t *testing.T) {
	r := newRig(t, shared)
	a := r.attempt("snr-3", "", toSelfNodeRemediation("snr-3"))
	r.driven(a)
	r.template("snr-3", "")
	theirs := r.make(fmt.Sprintf(`apiVersion: %s/v1alpha1
kind: SelfNodeRemediation
metadata:
  name: snr-3
  namespace: default
  ownerReferences: [{apiVersion: remediation.medik8s.io/v1alpha1, kind: NodeHealthCheck, name: nhc-workers, uid: 1f0c}]
spec: {remediationStrategy: Automatic}
`, snrGroup))
	by := r.external()
	const refusal = "SelfNodeRemediation default/snr-3 is there already, owned by NodeHealthCheck nhc-workers"
	r.refuses(by, a, refusal)
	r.step(a, by.Begin, v1alpha1.RemedyRefused, refusal)
	if err := by.End(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(theirs.GetAnnotations(), r.live(theirs).GetAnnotations()); diff != "" || r.live(theirs).GetDeletionTimestamp() != nil {
		t.Errorf("it was touched:\n%s", diff)
	}
}

// TestWhatIsMadeGoesWithItsRemediation proves that an owner without a namespace is one to the garbage collector. It asks
// the server for its kinds every 30 s only.
func TestWhatIsMadeGoesWithItsRemediation(t *testing.T) {
	r := newRig(t, shared)
	a := r.attempt("snr-4", "", toSelfNodeRemediation("snr-4"))
	r.driven(a)
	r.template("snr-4", "")
	r.step(a, r.external().Begin, v1alpha1.RemedyRunning, "is made")
	o := r.made("snr-4")
	if err := r.admin.Delete(t.Context(), a.Remediation.DeepCopy()); err != nil {
		t.Fatal(err)
	}
	r.await("the garbage collector takes it away", 90*time.Second, func() error {
		if live := r.live(o); live != nil {
			return fmt.Errorf("%s is still there", live.GetName())
		}
		return nil
	})
}

// TestTheContractsWords holds our words to those of medik8s's own module.
func TestTheContractsWords(t *testing.T) {
	files, err := medik8sModule.files(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, name := range []string{"pkg/annotations/annotations.go", "pkg/conditions/conditions.go"} {
		for constant, value := range constants(t, files, name) {
			got[constant] = value
		}
	}
	want := map[string]string{
		"NhcTimedOut":                          external.AnnotationTimedOut,
		"MultipleTemplatesSupportedAnnotation": external.AnnotationMultiple,
		"NodeNameAnnotation":                   external.AnnotationNode,
		"ProcessingType":                       external.ConditionProcessing,
		"SucceededType":                        external.ConditionSucceeded,
		"PermanentNodeDeletionExpectedType":    external.ConditionNodeDeletion,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("our words (-) and medik8s's (+):\n%s", diff)
	}
}

// constants reads the string constants of a Go file.
func constants(t *testing.T, files fs.FS, name string) map[string]string {
	t.Helper()
	data, err := fs.ReadFile(files, name)
	if err != nil {
		t.Fatal(err)
	}
	file, err := parser.ParseFile(token.NewFileSet(), name, data, 0)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || len(spec.Values) != 1 {
			return true
		}
		if literal, ok := spec.Values[0].(*ast.BasicLit); ok && literal.Kind == token.STRING {
			if found[spec.Names[0].Name], err = strconv.Unquote(literal.Value); err != nil {
				t.Fatal(err)
			}
		}
		return true
	})
	return found
}
