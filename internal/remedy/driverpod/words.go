package driverpod

import (
	"context"
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/remedy"
	"github.com/roundhouse-dev/roundhouse/internal/remedy/pod"
)

// intolerant says what the DaemonSet must tolerate so that its new pod comes back to the node, or "" where it does.
func intolerant(ctx context.Context, set *appsv1.DaemonSet, a remedy.Attempt) string {
	add := pod.Lacking(ctx, set.Spec.Template.Spec.Tolerations, a.Node, a.Remediation.Name)
	if add == "" {
		return ""
	}
	return remedy.Cut(fmt.Sprintf("DaemonSet %s/%s does not tolerate the node's taints, so its new pod would not come back; add to %s:%s",
		set.Namespace, set.Name, tolerationsOf(set), add))
}

// tolerationsOf says where the DaemonSet's tolerations come from: what the GPU operator makes, it makes again.
func tolerationsOf(set *appsv1.DaemonSet) string {
	if ref := metav1.GetControllerOf(set); ref != nil && strings.HasPrefix(ref.APIVersion, "nvidia.com/") {
		switch ref.Kind {
		case "ClusterPolicy":
			return fmt.Sprintf("spec.daemonsets.tolerations of ClusterPolicy %s", ref.Name)
		case "NVIDIADriver":
			return fmt.Sprintf("spec.tolerations of NVIDIADriver %s", ref.Name)
		}
	}
	return "its spec.template.spec.tolerations"
}

// successor finds the newest pod that is there to stay, and names the one that went where it is still ending.
func successor(pods []corev1.Pod, gone types.UID) (next *corev1.Pod, ending string) {
	for i := range pods {
		p := &pods[i]
		if p.UID == gone {
			return nil, p.Namespace + "/" + p.Name
		}
		if p.DeletionTimestamp == nil && (next == nil || next.CreationTimestamp.Before(&p.CreationTimestamp)) {
			next = p
		}
	}
	return next, ""
}

// isFor says whether the DaemonSet controller made the pod for this node: its affinity names it
// (pkg/controller/daemon/util, ReplaceDaemonSetPodNodeNameNodeAffinity).
func isFor(p *corev1.Pod, node string) bool {
	if p.Spec.Affinity == nil || p.Spec.Affinity.NodeAffinity == nil || p.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return false
	}
	terms := p.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
	return slices.ContainsFunc(terms, func(term corev1.NodeSelectorTerm) bool {
		return slices.ContainsFunc(term.MatchFields, func(f corev1.NodeSelectorRequirement) bool {
			return f.Key == metav1.ObjectNameField && slices.Equal(f.Values, []string{node})
		})
	})
}

// progress is how far the new pod has come.
func progress(next *corev1.Pod) remedy.Progress {
	name := next.Namespace + "/" + next.Name
	if pod.Ready(next) {
		return remedy.Succeeded(fmt.Sprintf("pod %s is Ready", name))
	}
	why, failed := pod.Trouble(next)
	if failed {
		return remedy.Failed(remedy.Cut(fmt.Sprintf("pod %s: %s", name, why)))
	}
	if why != "" {
		return remedy.Running(remedy.Cut(fmt.Sprintf("pod %s is not Ready: %s", name, why)))
	}
	return remedy.Running(fmt.Sprintf("pod %s is not Ready yet", name))
}

// said writes the labels as a selector.
func said(p *v1alpha1.DriverPod) string { return labels.Set(p.PodLabels).String() }

// some names a few.
func some(names []string) string {
	if len(names) <= maxNamed {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:maxNamed], ", "), len(names)-maxNamed)
}
