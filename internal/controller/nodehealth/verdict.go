package nodehealth

import (
	"encoding/json"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

// Reasons of the condition RoundhouseReporting.
const (
	// ReasonReporting: the agent is Ready and has published.
	ReasonReporting = "AgentReporting"
	// ReasonNoAgent: there was an agent on the node, and there is none now.
	ReasonNoAgent = "NoAgent"
	// ReasonNotReady: the agent's Pod is there, and says that it is not Ready: its watch is silent, or it cannot publish.
	ReasonNotReady = "AgentNotReady"
	// ReasonNeverReported: the agent is there, and has not published yet.
	ReasonNeverReported = "NeverReported"
)

// observation is what can be seen of a node's agent.
type observation struct {
	// pod and ready say whether the agent has a Pod on the node, and whether it is Ready.
	pod, ready bool
	// reported says that the NodeHealth has a boot ID: an agent once published it.
	reported bool
	// had says that the node has the condition already.
	had bool
	// elsewhere says that agents are not Pods.
	elsewhere bool
	// settling says that the agent has not been away, or its NodeHealth not been there, for long enough to say so.
	settling bool
}

// verdict is the condition that the node deserves; an empty status means that nothing is written.
type verdict struct {
	status  corev1.ConditionStatus
	reason  string
	message string
}

// notReporting is the reason for which the node does not report; empty where it does, or where it was never meant to.
func (v verdict) notReporting() string {
	if v.status == corev1.ConditionTrue {
		return ""
	}
	return v.reason
}

// judge says what condition a node deserves. A node without accelerators never gets an agent, and is never written to.
func judge(seen observation) verdict {
	switch {
	case seen.elsewhere && !seen.reported && !seen.had:
		return verdict{}
	case seen.ready && seen.reported:
		return verdict{corev1.ConditionTrue, ReasonReporting, "the agent is Ready and has published what it saw"}
	case seen.ready && seen.settling:
		return verdict{}
	case seen.ready:
		return verdict{corev1.ConditionUnknown, ReasonNeverReported, "the agent is Ready but has not published anything yet"}
	case seen.settling, !seen.pod && !seen.had:
		return verdict{}
	case !seen.pod:
		return verdict{corev1.ConditionFalse, ReasonNoAgent,
			"there is no agent Pod on the node; its last word about the node is old"}
	case !seen.reported:
		return verdict{corev1.ConditionUnknown, ReasonNeverReported, "the agent's Pod is not Ready and has not published anything yet"}
	}
	return verdict{corev1.ConditionFalse, ReasonNotReady, "the agent's Pod is not Ready; its last word about the node may be old"}
}

// anyReady says whether one of the Pods is Ready: during an update of the DaemonSet there may be two.
func anyReady(pods []corev1.Pod) bool {
	for i := range pods {
		if pods[i].DeletionTimestamp == nil && podReady(&pods[i]) {
			return true
		}
	}
	return false
}

func podReady(pod *corev1.Pod) bool {
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodReady {
			return condition.Status == corev1.ConditionTrue
		}
	}
	return false
}

// conditionOf gives the node's condition RoundhouseReporting, if it has one.
func conditionOf(node *corev1.Node) *corev1.NodeCondition {
	for i := range node.Status.Conditions {
		if node.Status.Conditions[i].Type == v1alpha1.ConditionReporting {
			return &node.Status.Conditions[i]
		}
	}
	return nil
}

// statusPatch is a strategic merge patch of nodes/status; conditions merge by their type.
type statusPatch struct {
	Metadata struct {
		// UID makes the server refuse the patch where the node was re-created.
		UID types.UID `json:"uid"`
	} `json:"metadata"`
	Status struct {
		Conditions []corev1.NodeCondition `json:"conditions"`
	} `json:"status"`
}

func conditionPatch(node *corev1.Node, v verdict, now time.Time) ([]byte, error) {
	changed := metav1.NewTime(now)
	if before := conditionOf(node); before != nil && before.Status == v.status {
		changed = before.LastTransitionTime
	}
	var patch statusPatch
	patch.Metadata.UID = node.UID
	patch.Status.Conditions = []corev1.NodeCondition{{
		Type: v1alpha1.ConditionReporting, Status: v.status, Reason: v.reason, Message: v.message,
		LastHeartbeatTime: metav1.NewTime(now), LastTransitionTime: changed,
	}}
	data, err := json.Marshal(patch)
	if err != nil {
		return nil, fmt.Errorf("encoding condition %s of node %s: %w", v1alpha1.ConditionReporting, node.Name, err)
	}
	return data, nil
}
