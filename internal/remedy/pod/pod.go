// Package pod says in words how a pod is that a remedy waits for.
package pod

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
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
