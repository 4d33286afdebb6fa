// Package operands pauses those parts of NVIDIA's GPU operator on a node that hold its devices, and puts them back.
//
// The operator runs each part as a DaemonSet that selects nodes by a label of its own. A label of another value takes the
// part's pod off that node and no other; that is how the operator's own k8s-driver-manager makes room for a new driver
// (cmd/driver-manager/main.go, evictAllGPUOperatorComponents and maybeSetPaused), and the operator leaves such a value alone
// (controllers/state_manager.go, addGPUStateLabels). What is set here is what the driver manager would set, so that either
// understands the other: a driver manager that has finished puts our values back too, and we then leave its labels as they are.
package operands

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/remedy"
	"github.com/roundhouse-dev/roundhouse/internal/remedy/pod"
)

const (
	// prefix begins the operator's labels.
	prefix = "nvidia.com/gpu.deploy."
	// paused is the value that keeps a part off a node; behind an underscore where the part had a value of its own.
	paused = "paused-for-driver-upgrade"
	// off is the value by which a person keeps a part off a node.
	off = "false"
	// mayNot is what config/admission/controller.yaml answers where the right to pause is missing.
	mayNot = "may not change labels"
)

// stages are the parts that hold a device, in the order in which they go. The DRA driver's plugin is last, because the kubelet
// needs it to take leave of pods with claims, the others' among them. Of the driver manager's list the container toolkit
// and the validators are left out: they hold none, and the toolkit has the container runtime restarted when it goes.
var stages = [][]string{
	{
		prefix + "device-plugin", prefix + "gpu-feature-discovery", prefix + "dcgm-exporter", prefix + "dcgm",
		prefix + "mig-manager", prefix + "nvsm", prefix + "sandbox-device-plugin", prefix + "vgpu-device-manager", prefix + "client",
		prefix + "dra-validator", prefix + "dcgm-dra", prefix + "dcgm-exporter-dra",
	},
	{prefix + "dra-driver"},
}

// Pages bound what is read of a node's pods.
const (
	pageSize = 250
	maxPages = 20
)

// ErrPaused says that another remediation has paused the node's operands.
var ErrPaused = errors.New("the operands of the node are paused by another remediation")

// Operands pauses and resumes. Live reads the server itself, not a cache.
type Operands struct {
	Client client.Client
	Live   client.Reader
}

// record is what AnnotationPaused holds.
type record struct {
	By string `json:"by"`
	// Labels are the values that were there before.
	Labels map[string]string `json:"labels"`
}

// By is how a remediation signs a record.
func By(rem *v1alpha1.Remediation) string { return rem.Name + "/" + string(rem.UID) }

// PausedBy says who has paused the node's operands, as By signs it; false where nobody of ours has.
func PausedBy(node *corev1.Node) (string, bool) {
	r, ok := read(node)
	return r.By, ok
}

// Check says why the operands should not be paused, for a person to mend, or "". A pod that would not come back under the
// node's taints is a reason; so is a missing right, for which the server judges the writes of Pause without keeping them.
func (o Operands) Check(ctx context.Context, node *corev1.Node, rem *v1alpha1.Remediation) (string, error) {
	live, err := o.get(ctx, node)
	if err != nil || live == nil {
		return "", err
	}
	for _, stage := range stages {
		after, err := pause(live, By(rem), stage)
		if errors.Is(err, ErrPaused) {
			return err.Error(), nil
		}
		if err != nil {
			return "", err
		}
		err = o.patch(ctx, live, after, client.DryRunAll)
		if apierrors.IsForbidden(err) && strings.Contains(err.Error(), mayNot) {
			return "the GPU operator's pods hold the devices, and Roundhouse may not pause them: install the chart with remedies.pauseOperands=true", nil
		}
		if err != nil {
			return "", err
		}
		leaving, err := o.holders(ctx, after, stage)
		if err != nil {
			return "", err
		}
		for i := range leaving {
			if add := pod.Lacking(ctx, leaving[i].Spec.Tolerations, live, rem.Name); add != "" {
				return remedy.Cut(fmt.Sprintf("pod %s/%s holds the devices, and once paused would not come back under the node's taints; "+
					"add to its tolerations (spec.daemonsets.tolerations of the ClusterPolicy):%s", leaving[i].Namespace, leaving[i].Name, add)), nil
			}
		}
	}
	return "", nil
}

// Pause takes the operands off a node, and names the pods that are still there; when it names none, they have gone. It is
// asked again until then. Where the node has no labels of the operator's, it does nothing. A write that conflicts with
// another's comes back as such (apierrors.IsConflict).
func (o Operands) Pause(ctx context.Context, node *corev1.Node, by string) (waiting []string, err error) {
	for _, stage := range stages {
		live, err := o.get(ctx, node)
		if err != nil {
			return nil, err
		}
		if live == nil {
			return nil, fmt.Errorf("pausing operands: node %s is not there any more", node.Name)
		}
		after, err := pause(live, by, stage)
		if err != nil {
			return nil, err
		}
		if err := o.patch(ctx, live, after); err != nil {
			return nil, err
		}
		leaving, err := o.holders(ctx, after, stage)
		if err != nil {
			return nil, err
		}
		for i := range leaving {
			waiting = append(waiting, leaving[i].Namespace+"/"+leaving[i].Name)
		}
		if len(waiting) > 0 {
			return waiting, nil
		}
	}
	return nil, nil
}

// Resume puts back what Pause has set for the same remediation, and takes its record off the node. A label that says
// something else by now was set by somebody else, and stays. It may be called when nothing is paused.
func (o Operands) Resume(ctx context.Context, node *corev1.Node, by string) error {
	live, err := o.get(ctx, node)
	if err != nil || live == nil {
		return err
	}
	return o.patch(ctx, live, resume(live, by))
}

// get reads the node live; nil where it is gone, or another one has its name.
func (o Operands) get(ctx context.Context, node *corev1.Node) (*corev1.Node, error) {
	live := &corev1.Node{}
	err := o.Live.Get(ctx, types.NamespacedName{Name: node.Name}, live)
	if apierrors.IsNotFound(err) || (err == nil && live.UID != node.UID) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading node: %w", err)
	}
	return live, nil
}

// pause gives a copy of the node with these parts paused, and with a record of what their labels said. It touches no part
// twice: one that is in the record and not paused was set back by somebody, who knows why.
func pause(node *corev1.Node, by string, keys []string) (*corev1.Node, error) {
	after := node.DeepCopy()
	r, recorded := read(node)
	if recorded && r.By != by && r.By != "" { // By nobody is a record that cannot be read, and so cannot be kept.
		return nil, fmt.Errorf("%w: %s", ErrPaused, r.By)
	}
	if r.Labels == nil {
		r.Labels = map[string]string{}
	}
	for _, key := range keys {
		value := node.Labels[key]
		_, ours := r.Labels[key]
		if ours || value == "" || value == off || strings.Contains(value, paused) {
			continue
		}
		r.Labels[key], after.Labels[key] = value, pausedFrom(value)
	}
	if len(r.Labels) == 0 {
		return after, nil
	}
	r.By = by
	text, err := json.Marshal(r) // The keys of a map are sorted: the same values give the same bytes.
	if err != nil {
		return nil, fmt.Errorf("recording paused operands: %w", err)
	}
	if after.Annotations == nil {
		after.Annotations = map[string]string{}
	}
	after.Annotations[v1alpha1.AnnotationPaused] = string(text)
	return after, nil
}

// resume gives a copy of the node with the labels as they were. Of a record that cannot be read nothing is known, and only
// the record goes: what the driver manager pauses looks the same.
func resume(node *corev1.Node, by string) *corev1.Node {
	after := node.DeepCopy()
	r, recorded := read(node)
	if !recorded || (r.By != by && r.By != "") {
		return after
	}
	for key, before := range r.Labels {
		if isOperand(key) && before != "" && node.Labels[key] == pausedFrom(before) {
			after.Labels[key] = before
		}
	}
	delete(after.Annotations, v1alpha1.AnnotationPaused)
	return after
}

// read reads the record. One that cannot be read is a record of nothing by nobody.
func read(node *corev1.Node) (record, bool) {
	text, ok := node.Annotations[v1alpha1.AnnotationPaused]
	if !ok {
		return record{}, false
	}
	var r record
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		return record{}, true
	}
	return r, true
}

// pausedFrom is the value that pauses a part whose label says value.
func pausedFrom(value string) string {
	if value == "true" {
		return paused
	}
	return value + "_" + paused
}

// isOperand says whether it is a label that Pause may set.
func isOperand(key string) bool {
	return slices.ContainsFunc(stages, func(stage []string) bool { return slices.Contains(stage, key) })
}

// nodePatch is the part of a Node that is written here.
type nodePatch struct {
	Metadata metaPatch `json:"metadata"`
}

type metaPatch struct {
	ResourceVersion string             `json:"resourceVersion"`
	UID             types.UID          `json:"uid"`
	Labels          map[string]string  `json:"labels,omitempty"`
	Annotations     map[string]*string `json:"annotations,omitempty"`
}

// patch writes what differs, guarded by the resourceVersion that was read; nothing where nothing does.
func (o Operands) patch(ctx context.Context, before, after *corev1.Node, options ...client.PatchOption) error {
	meta := metaPatch{ResourceVersion: before.ResourceVersion, UID: before.UID, Labels: map[string]string{}}
	for key, value := range after.Labels {
		if before.Labels[key] != value {
			meta.Labels[key] = value
		}
	}
	was, had := before.Annotations[v1alpha1.AnnotationPaused]
	is, has := after.Annotations[v1alpha1.AnnotationPaused]
	switch {
	case has && was != is:
		meta.Annotations = map[string]*string{v1alpha1.AnnotationPaused: &is}
	case had && !has:
		meta.Annotations = map[string]*string{v1alpha1.AnnotationPaused: nil}
	case len(meta.Labels) == 0:
		return nil
	}
	data, err := json.Marshal(nodePatch{Metadata: meta})
	if err != nil {
		return fmt.Errorf("encoding the patch of node %s: %w", before.Name, err)
	}
	stored := &corev1.Node{}
	stored.Name = before.Name
	if err := o.Client.Patch(ctx, stored, client.RawPatch(types.MergePatchType, data), options...); err != nil {
		return fmt.Errorf("patching the operands' labels of node %s: %w", before.Name, err)
	}
	return nil
}

// holders are the pods of the node that select it by the labels of this stage that are paused by us. The DaemonSet
// controller deletes them; until they are gone their programs may hold a device.
func (o Operands) holders(ctx context.Context, node *corev1.Node, stage []string) ([]corev1.Pod, error) {
	r, _ := read(node)
	if !slices.ContainsFunc(stage, func(key string) bool { return r.Labels[key] != "" }) {
		return nil, nil
	}
	var found []corev1.Pod
	token := ""
	for range maxPages {
		var pods corev1.PodList
		if err := o.Live.List(ctx, &pods, client.MatchingFields{"spec.nodeName": node.Name}, client.Limit(pageSize), client.Continue(token)); err != nil {
			return nil, fmt.Errorf("listing the pods of node %s: %w", node.Name, err)
		}
		for i := range pods.Items {
			p := &pods.Items[i]
			if selects(p, r, stage) && p.Status.Phase != corev1.PodSucceeded && p.Status.Phase != corev1.PodFailed {
				found = append(found, *p)
			}
		}
		if token = pods.Continue; token == "" {
			return found, nil
		}
	}
	return nil, fmt.Errorf("node %s has more than %d pods", node.Name, pageSize*maxPages)
}

func selects(p *corev1.Pod, r record, stage []string) bool {
	return slices.ContainsFunc(stage, func(key string) bool {
		before := r.Labels[key]
		return before != "" && p.Spec.NodeSelector[key] == before
	})
}
