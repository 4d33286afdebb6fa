// Package pod says in words how a pod is that a remedy waits for.
package pod

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

// patientRestarts is how often a container may fail before its pod is given up. A driver's fails until the last program has
// let go of the devices, and then works; the next rung is harsher than a minute more.
const patientRestarts = 3

// Ready says whether the pod is Ready.
func Ready(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// Trouble says what keeps a pod from running, in the words of its status, and whether waiting is in vain; "" where nothing
// does that the status knows.
func Trouble(pod *corev1.Pod) (why string, hopeless bool) {
	for _, status := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		waiting := status.State.Waiting
		if waiting == nil {
			continue
		}
		words := fmt.Sprintf("container %s: %s", status.Name, waiting.Reason)
		if waiting.Message != "" {
			words += ": " + waiting.Message
		}
		switch waiting.Reason {
		case "CrashLoopBackOff":
			if last := status.LastTerminationState.Terminated; last != nil {
				words += "; it " + Ended(last)
			}
			return words, status.RestartCount >= patientRestarts
		case "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull":
			return words, true
		case "ErrImagePull", "CreateContainerConfigError", "CreateContainerError", "RunContainerError":
			return words, false
		}
	}
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
			return c.Reason + ": " + c.Message, false
		}
	}
	return "", false
}

// Ended says how a container ended.
func Ended(last *corev1.ContainerStateTerminated) string {
	words := fmt.Sprintf("ended with exit code %d", last.ExitCode)
	if last.Reason != "" {
		words += " (" + last.Reason + ")"
	}
	if last.Message != "" {
		words += ": " + last.Message
	}
	return words
}

// Lacking writes the tolerations that a DaemonSet's pods need to come back to a node under an incident's taint, and under
// those that others have put on it; "" where they have them. Taints of node.kubernetes.io are not asked about: the DaemonSet
// controller adds tolerations for what a node has of those (pkg/controller/daemon/util, AddOrUpdateDaemonPodTolerations).
func Lacking(ctx context.Context, tolerations []corev1.Toleration, node *corev1.Node, remediation string) string {
	taints := []corev1.Taint{{Key: v1alpha1.TaintQuarantined, Value: remediation, Effect: corev1.TaintEffectNoSchedule}}
	for _, taint := range node.Spec.Taints {
		if taint.Key != v1alpha1.TaintQuarantined && !strings.HasPrefix(taint.Key, "node.kubernetes.io/") && taint.Effect != corev1.TaintEffectPreferNoSchedule {
			taints = append(taints, taint)
		}
	}
	var add strings.Builder
	for _, taint := range taints {
		tolerated := slices.ContainsFunc(tolerations, func(t corev1.Toleration) bool {
			// Comparison operators are off by default in 1.37; without them a toleration that has one tolerates nothing.
			return t.ToleratesTaint(logr.FromContextOrDiscard(ctx), &taint, false)
		})
		if !tolerated {
			fmt.Fprintf(&add, "\n- key: %s\n  operator: Exists\n  effect: %s", taint.Key, taint.Effect)
		}
	}
	return add.String()
}
