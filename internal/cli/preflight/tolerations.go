package preflight

import (
	"fmt"
	"regexp"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/cli/fleet"
	"github.com/roundhouse-dev/roundhouse/internal/cli/text"
)

// driver matches what brings accelerators up: without it a node that was rebooted under our taint stays broken.
var driver = regexp.MustCompile(`(?i)nvidia|gpu|dcgm|amdgpu|rocm|gaudi|habana|neuron|device-plugin|dra-driver|mofed|network-operator|mncore|roundhouse-agent`)

// tolerations finds DaemonSets whose pods our node taint would keep out. DaemonSet pods that run already stay; those
// that start anew, as after a reboot that lost them, do not come back.
func tolerations(s *Snapshot) []Finding {
	nodes := s.accelerated()
	var out []Finding
	var others []string
	for i := range s.DaemonSets {
		d := &s.DaemonSets[i]
		if Tolerates(d.Spec.Template.Spec.Tolerations) || !runsOn(&d.Spec.Template.Spec, nodes) {
			continue
		}
		name := d.Namespace + "/" + d.Name
		if !drives(d) {
			others = append(others, name)
			continue
		}
		out = append(out, Finding{Severity: Must, What: fmt.Sprintf("DaemonSet %s does not tolerate %s: after a reboot in quarantine its pods may not return, and the repair fails", name, v1alpha1.TaintQuarantined),
			Fix: fix(d)})
	}
	if len(others) > 0 {
		slices.Sort(others)
		out = append(out, Finding{Severity: Should, What: fmt.Sprintf("on nodes with accelerators %s not tolerate %s: %s",
			text.Count(len(others), "DaemonSet does", "DaemonSets do"), v1alpha1.TaintQuarantined, text.Bounded(others, namesShown)),
			Fix: []string{"add to spec.template.spec.tolerations: " + tolerationText}})
	}
	return out
}

const tolerationText = `{key: ` + v1alpha1.TaintQuarantined + `, operator: Exists, effect: NoSchedule}`

// fix is the text to add, as a command too.
func fix(d *appsv1.DaemonSet) []string {
	value := fmt.Sprintf(`{"key":%q,"operator":"Exists","effect":"NoSchedule"}`, v1alpha1.TaintQuarantined)
	path := "/spec/template/spec/tolerations/-"
	if len(d.Spec.Template.Spec.Tolerations) == 0 {
		path, value = "/spec/template/spec/tolerations", "["+value+"]"
	}
	out := []string{
		"add to spec.template.spec.tolerations: " + tolerationText,
		fmt.Sprintf(`kubectl -n %s patch daemonset %s --type=json -p '[{"op":"add","path":%q,"value":%s}]'`, d.Namespace, d.Name, path, value),
	}
	for _, owner := range d.OwnerReferences {
		if owner.Kind == "ClusterPolicy" {
			out[1] = "it belongs to the GPU operator: add it to spec.daemonsets.tolerations of ClusterPolicy " + owner.Name
		}
	}
	if manager := d.Labels["app.kubernetes.io/managed-by"]; manager != "" && len(d.OwnerReferences) == 0 {
		out = append(out, "it is managed by "+text.Clean(manager)+": change it there too, or it comes back")
	}
	return out
}

// Tolerates says whether tolerations let a pod onto a node that we keep work off. The taint's value is the incident's
// name, so that only operator Exists can match.
func Tolerates(tolerations []corev1.Toleration) bool {
	return slices.ContainsFunc(tolerations, func(t corev1.Toleration) bool {
		return t.Operator == corev1.TolerationOpExists && (t.Key == "" || t.Key == v1alpha1.TaintQuarantined) &&
			(t.Effect == "" || t.Effect == corev1.TaintEffectNoSchedule)
	})
}

// drives says whether a DaemonSet brings accelerators up, by its name, namespace and images.
func drives(d *appsv1.DaemonSet) bool {
	if driver.MatchString(d.Name) || driver.MatchString(d.Namespace) {
		return true
	}
	return slices.ContainsFunc(d.Spec.Template.Spec.Containers, func(c corev1.Container) bool { return driver.MatchString(c.Image) })
}

// runsOn says whether a pod's node selector and required affinity let it onto any of the nodes.
func runsOn(pod *corev1.PodSpec, nodes []fleet.Node) bool {
	return slices.ContainsFunc(nodes, func(n fleet.Node) bool {
		return labels.SelectorFromSet(pod.NodeSelector).Matches(labels.Set(n.Labels)) && affine(pod.Affinity, n)
	})
}

// affine evaluates required node affinity: its terms are ORed, their expressions ANDed (core/v1 NodeSelector).
func affine(affinity *corev1.Affinity, n fleet.Node) bool {
	if affinity == nil || affinity.NodeAffinity == nil || affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return true
	}
	terms := affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
	return slices.ContainsFunc(terms, func(term corev1.NodeSelectorTerm) bool {
		if len(term.MatchExpressions)+len(term.MatchFields) == 0 {
			return false
		}
		return matchesAll(term.MatchExpressions, labels.Set(n.Labels)) &&
			matchesAll(term.MatchFields, labels.Set{"metadata.name": n.Name})
	})
}

var operators = map[corev1.NodeSelectorOperator]selection.Operator{
	corev1.NodeSelectorOpIn: selection.In, corev1.NodeSelectorOpNotIn: selection.NotIn,
	corev1.NodeSelectorOpExists: selection.Exists, corev1.NodeSelectorOpDoesNotExist: selection.DoesNotExist,
	corev1.NodeSelectorOpGt: selection.GreaterThan, corev1.NodeSelectorOpLt: selection.LessThan,
}

// matchesAll takes what cannot be read for a match: a DaemonSet named too many is better than one too few.
func matchesAll(requirements []corev1.NodeSelectorRequirement, set labels.Set) bool {
	for _, r := range requirements {
		requirement, err := labels.NewRequirement(r.Key, operators[r.Operator], r.Values)
		if err == nil && !requirement.Matches(set) {
			return false
		}
	}
	return true
}
