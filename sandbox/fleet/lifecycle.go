package fleet

import (
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

// run is what the kubelet remembers of a pod that it has started.
type run struct {
	boot     int // the boot of the node in which its containers were started
	started  time.Time
	restarts int32
}

// situation is all that decides what becomes of a pod next.
type situation struct {
	now time.Time
	pod *corev1.Pod
	run *run // nil before the pod was started
	// boot is the node's present boot.
	boot int
	// ready says whether the pod's program answers its readiness probe.
	ready bool
}

// move is what the kubelet does to a pod.
type move int

const (
	// moveNone leaves it, and looks again after the step's wait, if that is above zero.
	moveNone move = iota
	// moveStart starts its containers.
	moveStart
	// moveRestart starts them anew, because the node has booted since.
	moveRestart
	// moveReport reports that its readiness has changed.
	moveReport
	// moveKeep says for its program that it has kept its work.
	moveKeep
	// moveSucceed ends it as done.
	moveSucceed
	// moveFail ends it as failed.
	moveFail
	// moveRemove takes a pod that has ended off the API server.
	moveRemove
)

// step is a move, or how long to wait for the next one.
type step struct {
	move   move
	reason string // of moveFail
	code   int32  // of moveFail, where the pod's program ended by itself
	wait   time.Duration
}

// next decides what a kubelet does to one of its pods. It asks what ends a pod before what begins it.
func next(s situation) step {
	switch phase := s.pod.Status.Phase; {
	case phase == corev1.PodSucceeded || phase == corev1.PodFailed:
		if s.pod.DeletionTimestamp != nil {
			return step{move: moveRemove}
		}
		return step{}
	case s.pod.DeletionTimestamp != nil:
		return end(s)
	case s.run == nil:
		return step{move: moveStart}
	case s.run.boot != s.boot:
		return afterBoot(s)
	}
	if for_, ok := duration(s.pod, AnnotationRunFor); ok {
		if left := s.run.started.Add(for_).Sub(s.now); left > 0 {
			return reportOr(s, left)
		}
		if code := exitCode(s.pod); code != 0 {
			return step{move: moveFail, code: code}
		}
		return step{move: moveSucceed}
	}
	return reportOr(s, 0)
}

// end ends a pod that is being deleted: after the time it takes, at the latest when its grace is over, unless it hangs.
func end(s situation) step {
	running := s.run != nil && s.run.boot == s.boot
	if running && s.pod.Annotations[AnnotationHangs] == "true" {
		return step{}
	}
	grace := time.Duration(0)
	if s.pod.DeletionGracePeriodSeconds != nil {
		grace = time.Duration(*s.pod.DeletionGracePeriodSeconds) * time.Second
	}
	takes, _ := duration(s.pod, AnnotationStopsIn)
	// The timestamp is when the grace is over (apimachinery, ObjectMeta.DeletionTimestamp), in whole seconds.
	asked := s.pod.DeletionTimestamp.Add(-grace)
	if left := asked.Add(min(takes, grace)).Sub(s.now); left > 0 && running {
		return step{wait: left}
	}
	return step{move: moveFail}
}

// afterBoot is what a kubelet finds after a reboot: no container of before is left. It starts them anew, or fails the pod
// whose containers must not be (kubelet, pod lifecycle, restartPolicy).
func afterBoot(s situation) step {
	if s.pod.Spec.RestartPolicy == corev1.RestartPolicyNever {
		return step{move: moveFail, reason: "NodeRebooted"}
	}
	return step{move: moveRestart}
}

func reportOr(s situation, wait time.Duration) step {
	if isReady(s.pod) != s.ready {
		return step{move: moveReport}
	}
	every, keeps := duration(s.pod, AnnotationKeepsEvery)
	if !keeps || every == 0 {
		return step{wait: wait}
	}
	last := s.run.started
	if at, err := time.Parse(time.RFC3339, s.pod.Annotations[v1alpha1.AnnotationCheckpoint]); err == nil && at.After(last) {
		last = at
	}
	left := last.Add(every).Sub(s.now)
	if left <= 0 {
		return step{move: moveKeep}
	}
	if wait > 0 {
		left = min(left, wait)
	}
	return step{wait: left}
}

// duration reads an annotation; false where there is none, or none that can be read.
func duration(pod *corev1.Pod, annotation string) (time.Duration, bool) {
	d, err := time.ParseDuration(pod.Annotations[annotation])
	return d, err == nil && d >= 0
}

// exitCode is what the pod's program ends with.
func exitCode(pod *corev1.Pod) int32 {
	code, err := strconv.ParseInt(pod.Annotations[AnnotationExitCode], 10, 8)
	if err != nil {
		return 0
	}
	return int32(code)
}

func isReady(pod *corev1.Pod) bool {
	for i := range pod.Status.Conditions {
		if c := &pod.Status.Conditions[i]; c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// running is the status of a pod whose containers run. Conditions are merged by type, so those of others stay.
func running(pod *corev1.Pod, r run, ready bool) corev1.PodStatus {
	at := metav1.NewTime(r.started)
	status := corev1.PodStatus{Phase: corev1.PodRunning, StartTime: pod.Status.StartTime}
	if status.StartTime == nil {
		status.StartTime = &at
	}
	for i := range pod.Spec.Containers {
		c := &pod.Spec.Containers[i]
		status.ContainerStatuses = append(status.ContainerStatuses, corev1.ContainerStatus{
			Name: c.Name, Image: c.Image, ImageID: c.Image, ContainerID: "sandbox://" + string(pod.UID),
			Ready: ready, Started: &ready, RestartCount: r.restarts,
			State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: at}},
		})
	}
	status.Conditions = podConditions(ready, "", metav1.Now())
	return status
}

// ended is the status of a pod whose containers have ended.
func ended(pod *corev1.Pod, r *run, by step, now metav1.Time) corev1.PodStatus {
	phase, code, why := corev1.PodSucceeded, int32(0), "Completed"
	if by.move == moveFail {
		phase, code, why = corev1.PodFailed, 137, "Error" // 128 + SIGKILL
		if by.code != 0 {
			code = by.code
		}
	}
	status := corev1.PodStatus{Phase: phase, Reason: by.reason}
	for i := range pod.Spec.Containers {
		c := &pod.Spec.Containers[i]
		terminated := &corev1.ContainerStateTerminated{ExitCode: code, Reason: why, FinishedAt: now}
		s := corev1.ContainerStatus{Name: c.Name, Image: c.Image, ImageID: c.Image, State: corev1.ContainerState{Terminated: terminated}}
		if r != nil {
			terminated.StartedAt, s.RestartCount = metav1.NewTime(r.started), r.restarts
		}
		status.ContainerStatuses = append(status.ContainerStatuses, s)
	}
	status.Conditions = podConditions(false, "PodCompleted", now)
	return status
}

func podConditions(ready bool, reason string, now metav1.Time) []corev1.PodCondition {
	word := corev1.ConditionFalse
	if ready {
		word = corev1.ConditionTrue
	} else if reason == "" {
		reason = "ContainersNotReady"
	}
	initialized := corev1.PodCondition{Type: corev1.PodInitialized, Status: corev1.ConditionTrue, LastTransitionTime: now}
	return []corev1.PodCondition{
		initialized,
		{Type: corev1.ContainersReady, Status: word, Reason: reason, LastTransitionTime: now},
		{Type: corev1.PodReady, Status: word, Reason: reason, LastTransitionTime: now},
	}
}
