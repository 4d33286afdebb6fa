// Package claim marks a Node as being worked on, and reads the marks that others leave.
//
// A claim of ours is the annotation roundhouse.dev/claim. It is put on in one resourceVersion-guarded patch together
// with the taint and with the annotations that ask autoscalers to leave the node alone, and it is taken off with the
// values that were there before. Everything here but Patch and Finder is a pure function of a Node.
package claim

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

// What asks others not to touch a node while it is claimed.
const (
	// KarpenterDoNotDisrupt keeps Karpenter's consolidation, drift and expiry off a node
	// (https://karpenter.sh/docs/concepts/disruption/, "Node-Level Controls").
	KarpenterDoNotDisrupt = "karpenter.sh/do-not-disrupt"
	// KarpenterDoNotRepair keeps Karpenter's forceful node repair off it.
	KarpenterDoNotRepair = "karpenter.sh/do-not-repair"
	// AutoscalerScaleDownDisabled keeps the Cluster Autoscaler from removing it
	// (cluster-autoscaler FAQ, "How can I prevent Cluster Autoscaler from scaling down a particular node?").
	AutoscalerScaleDownDisabled = "cluster-autoscaler.kubernetes.io/scale-down-disabled"

	// asked is the value that each of them wants to see.
	asked = "true"
)

// doNotDisrupt lists them.
var doNotDisrupt = [...]string{KarpenterDoNotDisrupt, KarpenterDoNotRepair, AutoscalerScaleDownDisabled}

// ErrClaimed says that another claim of ours is on the node.
var ErrClaimed = errors.New("the node is claimed by another remediation")

// ErrTaint says that a taint of ours that another remediation put on is there.
var ErrTaint = errors.New("the node has this taint from another remediation")

// Ours reads our claim on a node: the name and the UID of the Remediation that works on it. Malformed claims count as
// claims, with what could be read: a claim nobody understands is a reason to keep off, not to go on.
func Ours(node *corev1.Node) (remediation string, uid types.UID, ok bool) {
	value, ok := node.Annotations[v1alpha1.AnnotationClaim]
	if !ok {
		return "", "", false
	}
	remediation, rest, _ := strings.Cut(value, "/")
	return remediation, types.UID(rest), true
}

// Put gives a copy of node with the claim of a Remediation, what asks others to keep off, and the taint if it is not nil.
// It is idempotent for the same Remediation, and fails with ErrClaimed or ErrTaint where another one is there.
func Put(node *corev1.Node, remediation string, uid types.UID, taint *corev1.Taint) (*corev1.Node, error) {
	if name, holder, claimed := Ours(node); claimed && (name != remediation || holder != uid) {
		return nil, fmt.Errorf("%w: %s/%s", ErrClaimed, name, holder)
	}
	claimed := node.DeepCopy()
	if taint != nil {
		var err error
		if claimed, err = AddTaint(claimed, *taint); err != nil {
			return nil, err
		}
	}
	if claimed.Annotations == nil {
		claimed.Annotations = map[string]string{}
	}
	claimed.Annotations[v1alpha1.AnnotationClaim] = remediation + "/" + string(uid)
	if err := askOthers(claimed.Annotations); err != nil {
		return nil, err
	}
	return claimed, nil
}

// askOthers sets the annotations that keep others off, and records once what they were before.
func askOthers(annotations map[string]string) error {
	if _, recorded := annotations[v1alpha1.AnnotationPrior]; !recorded {
		prior := map[string]*string{}
		for _, key := range doNotDisrupt {
			if value, ok := annotations[key]; ok {
				prior[key] = &value
			} else {
				prior[key] = nil
			}
		}
		// encoding/json sorts the keys of a map, so that the same values give the same bytes.
		text, err := json.Marshal(prior)
		if err != nil {
			return fmt.Errorf("recording prior annotations: %w", err)
		}
		annotations[v1alpha1.AnnotationPrior] = string(text)
	}
	for _, key := range doNotDisrupt {
		annotations[key] = asked
	}
	return nil
}

// TakeOff gives a copy of node without the claim of a Remediation, with the annotations of others as they were before.
// Where the claim is not this Remediation's, nothing is changed. Taints stay: RemoveTaint takes them off.
func TakeOff(node *corev1.Node, remediation string, uid types.UID) *corev1.Node {
	freed := node.DeepCopy()
	name, holder, claimed := Ours(node)
	if !claimed || name != remediation || holder != uid {
		return freed
	}
	restore(freed.Annotations)
	delete(freed.Annotations, v1alpha1.AnnotationClaim)
	delete(freed.Annotations, v1alpha1.AnnotationPrior)
	return freed
}

// restore puts back what askOthers replaced. A value that is no longer ours was set by somebody since, and stays. A
// record that cannot be read counts as "nothing was there": we take off what we put on.
func restore(annotations map[string]string) {
	prior := map[string]*string{}
	if err := json.Unmarshal([]byte(annotations[v1alpha1.AnnotationPrior]), &prior); err != nil {
		prior = map[string]*string{}
	}
	for _, key := range doNotDisrupt {
		if annotations[key] != asked {
			continue
		}
		if before := prior[key]; before != nil {
			annotations[key] = *before
		} else {
			delete(annotations, key)
		}
	}
}

// AddTaint gives a copy of node with the taint. It is idempotent, and fails with ErrTaint where a taint of the same key
// and effect has another value: that one is another remediation's.
func AddTaint(node *corev1.Node, taint corev1.Taint) (*corev1.Node, error) {
	for _, present := range node.Spec.Taints {
		if present.Key != taint.Key || present.Effect != taint.Effect {
			continue
		}
		if present.Value != taint.Value {
			return nil, fmt.Errorf("%w: %s", ErrTaint, present.ToString())
		}
		return node.DeepCopy(), nil
	}
	tainted := node.DeepCopy()
	tainted.Spec.Taints = append(tainted.Spec.Taints, taint)
	return tainted, nil
}

// RemoveTaint gives a copy of node without the taints of this key and value, whatever their effect. Taints of the same
// key with another value are another remediation's, and stay.
func RemoveTaint(node *corev1.Node, key, value string) *corev1.Node {
	freed := node.DeepCopy()
	freed.Spec.Taints = slices.DeleteFunc(freed.Spec.Taints, func(taint corev1.Taint) bool {
		return taint.Key == key && taint.Value == value
	})
	return freed
}

// changed gives what a merge patch must say to turn one set of annotations into another: null takes a key away.
func changed(before, after map[string]string) map[string]*string {
	patch := map[string]*string{}
	for key := range before {
		if _, kept := after[key]; !kept {
			patch[key] = nil
		}
	}
	for key, value := range maps.All(after) {
		if old, ok := before[key]; !ok || old != value {
			patch[key] = &value
		}
	}
	return patch
}
