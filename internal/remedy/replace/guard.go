package replace

import (
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/roundhouse-dev/roundhouse/internal/remedy/untyped"
)

// What keeps a Machine from being replaced, or says what it is.
const (
	annotationSkip      = "cluster.x-k8s.io/skip-remediation"
	annotationPaused    = "cluster.x-k8s.io/paused"
	labelClusterName    = "cluster.x-k8s.io/cluster-name"
	labelControlPlane   = "cluster.x-k8s.io/control-plane"
	conditionAllowed    = "RemediationAllowed"
	minControlPlaneSize = 2 // KubeadmControlPlane replaces no machine of fewer.
)

// guard finds out why a Machine that is marked would not be replaced: Cluster API itself would say nothing, and wait.
type guard struct {
	client  client.Client
	machine *unstructured.Unstructured
	attempt string
}

// refusal is the first reason, or "". The order is that of reading: what is on the Machine itself costs nothing.
func (g *guard) refusal(ctx context.Context) (string, error) {
	for _, reason := range []func(context.Context) (string, error){g.marked, g.skipped, g.paused, g.owner, g.controlPlane, g.healthCheck} {
		if why, err := reason(ctx); err != nil || why != "" {
			return why, err
		}
	}
	return "", nil
}

func (g *guard) marked(context.Context) (string, error) {
	value, ok := g.machine.GetAnnotations()[AnnotationRemediate]
	if !ok || value == g.attempt {
		return "", nil
	}
	return fmt.Sprintf("%s has the annotation %s from somebody else already", untyped.Name(g.machine), AnnotationRemediate), nil
}

func (g *guard) skipped(context.Context) (string, error) {
	for _, key := range []string{annotationSkip, annotationPaused} {
		if _, ok := g.machine.GetAnnotations()[key]; ok {
			return fmt.Sprintf("%s has the annotation %s", untyped.Name(g.machine), key), nil
		}
	}
	return "", nil
}

// paused asks for the Cluster: nothing happens to the Machines of one that is paused.
func (g *guard) paused(ctx context.Context) (string, error) {
	name := untyped.String(g.machine, "spec", "clusterName")
	cluster, why, err := g.read(ctx, kindCluster, name)
	if err != nil || why != "" {
		return why, err
	}
	if untyped.Bool(cluster, "spec", "paused") {
		return untyped.Name(cluster) + " is paused (spec.paused)", nil
	}
	return "", nil
}

// owner asks for the one that would make another machine. A MachineHealthCheck acts on no others' Machines than these
// two (The Cluster API Book, "Limitations and Caveats of a MachineHealthCheck").
func (g *guard) owner(ctx context.Context) (string, error) {
	ref := metav1.GetControllerOf(g.machine)
	if ref == nil {
		return untyped.Name(g.machine) + " has no owner that would make another", nil
	}
	kind := schema.FromAPIVersionAndKind(ref.APIVersion, ref.Kind).GroupKind()
	if kind != kindMachineSet && kind != kindKubeadm {
		return fmt.Sprintf("%s is of %s: Cluster API replaces those of a MachineSet or a KubeadmControlPlane only",
			untyped.Name(g.machine), untyped.Line(ref.Kind+" "+ref.Name)), nil
	}
	owner, why, err := g.read(ctx, kind, ref.Name)
	if err != nil || why != "" {
		return why, err
	}
	_, paused := owner.GetAnnotations()[annotationPaused]
	switch {
	case owner.GetUID() != ref.UID:
		return untyped.Name(owner) + " is not the one that made the Machine: it was created anew", nil
	case owner.GetDeletionTimestamp() != nil:
		return untyped.Name(owner) + " is being deleted, and would make no other machine", nil
	case paused:
		return fmt.Sprintf("%s has the annotation %s", untyped.Name(owner), annotationPaused), nil
	}
	if condition, found := untyped.FindCondition(g.machine, conditionOwnerRemediated); found &&
		condition.Status == string(metav1.ConditionFalse) && refuses(condition) {
		return fmt.Sprintf("%s does not replace %s: %s", untyped.Name(owner), untyped.Name(g.machine), condition.Why()), nil
	}
	return "", nil
}

// controlPlane keeps off control planes that cannot lose a machine. Whether etcd keeps its quorum is for the
// KubeadmControlPlane to say, which knows the members, and says so in a condition.
func (g *guard) controlPlane(ctx context.Context) (string, error) {
	if _, ok := g.machine.GetLabels()[labelControlPlane]; !ok {
		return "", nil
	}
	if ref := metav1.GetControllerOf(g.machine); ref == nil || ref.Kind != kindKubeadm.Kind {
		return untyped.Name(g.machine) + " is a control plane's, and no KubeadmControlPlane's", nil
	}
	peers, err := untyped.List(ctx, g.client, g.machine.GroupVersionKind(), func(m *unstructured.Unstructured) bool {
		return m.GetDeletionTimestamp() == nil
	}, client.InNamespace(g.machine.GetNamespace()), client.HasLabels{labelControlPlane},
		client.MatchingLabels{labelClusterName: untyped.String(g.machine, "spec", "clusterName")})
	if err != nil {
		return "", err
	}
	if len(peers) < minControlPlaneSize {
		return untyped.Name(g.machine) + " is the only machine of its control plane", nil
	}
	return "", nil
}

// healthCheck looks for the MachineHealthCheck that would act on the mark.
func (g *guard) healthCheck(ctx context.Context) (string, error) {
	mapping, why, err := g.served(kindHealthCheck)
	if err != nil || why != "" {
		return why, err
	}
	checks, err := untyped.List(ctx, g.client, mapping, g.selects, client.InNamespace(g.machine.GetNamespace()))
	if err != nil {
		return "", err
	}
	if len(checks) == 0 {
		return fmt.Sprintf("no MachineHealthCheck in namespace %s selects %s: without one the mark does nothing",
			g.machine.GetNamespace(), untyped.Name(g.machine)), nil
	}
	// Several must not overlap, says Cluster API; where they do, one that would act is enough, and one that would have
	// the machine repaired by something else is one too many.
	refusals := make([]string, 0, len(checks))
	for _, check := range checks {
		if kind := external(check); kind != "" {
			return fmt.Sprintf("%s hands Machines to an external remediator (%s), which may repair instead of replacing", untyped.Name(check), kind), nil
		}
		if why := g.held(check); why != "" {
			refusals = append(refusals, why)
		}
	}
	if len(refusals) < len(checks) {
		return "", nil
	}
	return refusals[0], nil
}

// selects says whether a MachineHealthCheck is for the Machine. An empty selector selects nothing (cluster-api, HasMatchingLabels).
func (g *guard) selects(check *unstructured.Unstructured) bool {
	if untyped.String(check, "spec", "clusterName") != untyped.String(g.machine, "spec", "clusterName") {
		return false
	}
	field, _, err := unstructured.NestedMap(check.Object, "spec", "selector")
	if err != nil {
		return false
	}
	var given metav1.LabelSelector
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(field, &given); err != nil {
		return false
	}
	selector, err := metav1.LabelSelectorAsSelector(&given)
	return err == nil && !selector.Empty() && selector.Matches(labels.Set(g.machine.GetLabels()))
}

// external is the kind of the remediator's template, in v1beta2 and in v1beta1; empty where there is none.
func external(check *unstructured.Unstructured) string {
	if kind := untyped.String(check, "spec", "remediation", "templateRef", "kind"); kind != "" {
		return untyped.Line(kind)
	}
	return untyped.Line(untyped.String(check, "spec", "remediationTemplate", "kind"))
}

// held says why a MachineHealthCheck would not act. What it says of itself is of the last time it looked; one that never
// did is given the chance. Where it acts within a range of unhealthy machines only, our mark may bring it there.
func (g *guard) held(check *unstructured.Unstructured) string {
	if _, paused := check.GetAnnotations()[annotationPaused]; paused {
		return fmt.Sprintf("%s has the annotation %s", untyped.Name(check), annotationPaused)
	}
	ranged := untyped.String(check, "spec", "remediation", "triggerIf", "unhealthyInRange") != "" ||
		untyped.String(check, "spec", "unhealthyRange") != ""
	allowed, said := untyped.FindCondition(check, conditionAllowed)
	left, counted := untyped.Int(check, "status", "remediationsAllowed")
	switch {
	case !said:
		return ""
	case allowed.Status == string(metav1.ConditionFalse) && !ranged:
		return fmt.Sprintf("%s allows no remediation now: %s", untyped.Name(check), allowed.Why())
	case allowed.Status == string(metav1.ConditionTrue) && counted && left == 0 && !untyped.Is(g.machine, conditionHealthCheck, metav1.ConditionFalse):
		return untyped.Name(check) + " allows no more unhealthy Machines than it has (status.remediationsAllowed is 0)"
	}
	return ""
}

// read reads an object of the Machine's namespace, or says that it is not there.
func (g *guard) read(ctx context.Context, kind schema.GroupKind, name string) (*unstructured.Unstructured, string, error) {
	mapping, why, err := g.served(kind)
	if err != nil || why != "" {
		return nil, why, err
	}
	object, err := untyped.Get(ctx, g.client, mapping, g.machine.GetNamespace(), name)
	if apierrors.IsNotFound(err) {
		return nil, fmt.Sprintf("%s of %s is not there", untyped.Line(kind.Kind+" "+name), untyped.Name(g.machine)), nil
	}
	return object, "", err
}

func (g *guard) served(kind schema.GroupKind) (schema.GroupVersionKind, string, error) {
	mapping, err := untyped.Resolve(g.client.RESTMapper(), kind, versions...)
	if errors.Is(err, untyped.ErrNotServed) {
		return schema.GroupVersionKind{}, fmt.Sprintf("%s is not served by the API server", kind), nil
	}
	if err != nil {
		return schema.GroupVersionKind{}, "", err
	}
	return mapping.GroupVersionKind, "", nil
}
