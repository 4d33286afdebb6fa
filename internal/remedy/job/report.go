package job

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/roundhouse-dev/roundhouse/internal/remedy"
	"github.com/roundhouse-dev/roundhouse/internal/remedy/pod"
)

const (
	// MaxLog is how much of a log is kept, from its end.
	MaxLog = 2 << 10
	// tailLines and readBytes bound what is asked for, and logTimeout how long that may take: the kubelet of a node that has
	// just been repaired answers.
	tailLines  = 40
	readBytes  = 64 << 10
	logTimeout = 10 * time.Second
	// maxPods bounds the pods of one Job; it has one.
	maxPods = 20
	// quotedLog is how much of the log a message quotes.
	quotedLog = 200
)

// Logs reads what the container of a pod has written last.
type Logs interface {
	Tail(ctx context.Context, namespace, pod, container string) (string, error)
}

// PodLogs are logs as the API server gets them from the kubelet. It needs the right to get pods/log.
type PodLogs struct {
	Pods corev1client.PodsGetter
}

// Tail reads the last lines.
func (l PodLogs) Tail(ctx context.Context, namespace, pod, container string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, logTimeout)
	defer cancel()
	options := &corev1.PodLogOptions{Container: container, TailLines: ptr.To(int64(tailLines)), LimitBytes: ptr.To(int64(readBytes))}
	stream, err := l.Pods.Pods(namespace).GetLogs(pod, options).Stream(ctx)
	if err != nil {
		return "", fmt.Errorf("reading the log of pod %s/%s: %w", namespace, pod, err)
	}
	defer stream.Close()
	data, err := io.ReadAll(io.LimitReader(stream, readBytes))
	if err != nil {
		return "", fmt.Errorf("reading the log of pod %s/%s: %w", namespace, pod, err)
	}
	return string(data), nil
}

// over is the condition by which a Job is over; nil while it is not. The conditions before it, FailureTarget and
// SuccessCriteriaMet, come while pods still end.
func over(job *batchv1.Job) *batchv1.JobCondition {
	return condition(job, batchv1.JobComplete, batchv1.JobFailed)
}

// condition finds the first condition of these types that is true.
func condition(job *batchv1.Job, types ...batchv1.JobConditionType) *batchv1.JobCondition {
	for i := range job.Status.Conditions {
		c := &job.Status.Conditions[i]
		if c.Status == corev1.ConditionTrue && slices.Contains(types, c.Type) {
			return c
		}
	}
	return nil
}

// judge says how far a Job has come.
func (r *Runner) judge(ctx context.Context, job *batchv1.Job) (Outcome, error) {
	last, err := r.pod(ctx, job)
	if err != nil {
		return Outcome{}, err
	}
	o := Outcome{Ran: ran(last)}
	name, end := job.Namespace+"/"+job.Name, over(job)
	if end == nil {
		o.Progress = remedy.Running(remedy.Cut(underWay(name, last)))
		if failing := condition(job, batchv1.JobFailureTarget); failing != nil {
			o.Progress = remedy.Running(remedy.Cut(fmt.Sprintf("Job %s has failed (%s) and is ending", name, failing.Reason)))
		}
		return o, nil
	}
	var read bool
	o.Log, read = r.log(ctx, last)
	if end.Type == batchv1.JobComplete {
		o.Progress = remedy.Succeeded(fmt.Sprintf("Job %s is complete", name))
		return o, nil
	}
	message := fmt.Sprintf("Job %s failed: %s: %s", name, end.Reason, end.Message)
	if why := movedAway(last); why != "" {
		o.Lost = true
		message += "; its pod was stopped by others (" + why + ")"
	}
	if status := failed(last); status != nil {
		message += fmt.Sprintf("; container %s %s", status.Name, pod.Ended(status.State.Terminated))
	}
	if read && o.Log != "" {
		message += "; its log ends: " + tail(o.Log, quotedLog)
	}
	o.Progress = remedy.Failed(remedy.Cut(clean(message)))
	return o, nil
}

// movedAway says by whom a pod was stopped that did not end by itself: by an eviction or a preemption, which say nothing about
// the device it ran on. What a kubelet or the node's end stops may well be the device's doing.
func movedAway(last *corev1.Pod) string {
	if last == nil {
		return ""
	}
	for _, c := range last.Status.Conditions {
		if c.Type == corev1.DisruptionTarget && c.Status == corev1.ConditionTrue &&
			(c.Reason == evictedByAPI || c.Reason == corev1.PodReasonPreemptionByScheduler) {
			return c.Reason
		}
	}
	return ""
}

// evictedByAPI is the reason that the Eviction API gives (pkg/registry/core/pod/storage/eviction.go of Kubernetes v1.37).
const evictedByAPI = "EvictionByEvictionAPI"

// ran says whether what the pod is for has run, or what comes before that has failed.
func ran(last *corev1.Pod) bool {
	return failed(last) != nil || last != nil && slices.ContainsFunc(last.Status.ContainerStatuses, func(c corev1.ContainerStatus) bool {
		return c.State.Running != nil || c.State.Terminated != nil
	})
}

// underWay says what a Job that is not over is doing.
func underWay(name string, last *corev1.Pod) string {
	if last == nil {
		return fmt.Sprintf("Job %s has no pod yet", name)
	}
	if why, _ := pod.Trouble(last); why != "" {
		return fmt.Sprintf("Job %s: pod %s does not run: %s", name, last.Name, why)
	}
	return fmt.Sprintf("Job %s: pod %s is %s", name, last.Name, last.Status.Phase)
}

// pod is the Job's last pod; nil where it has none.
func (r *Runner) pod(ctx context.Context, job *batchv1.Job) (*corev1.Pod, error) {
	var pods corev1.PodList
	err := r.Live.List(ctx, &pods, client.InNamespace(job.Namespace),
		client.MatchingLabels{batchv1.ControllerUidLabel: string(job.UID)}, client.Limit(maxPods))
	if err != nil {
		return nil, fmt.Errorf("listing the pods of job %s: %w", job.Name, err)
	}
	var last *corev1.Pod
	for i := range pods.Items {
		if last == nil || last.CreationTimestamp.Before(&pods.Items[i].CreationTimestamp) {
			last = &pods.Items[i]
		}
	}
	return last, nil
}

// failed is the container that ended badly; nil where none did, as far as the pod says.
func failed(last *corev1.Pod) *corev1.ContainerStatus {
	if last == nil {
		return nil
	}
	for _, status := range slices.Concat(last.Status.InitContainerStatuses, last.Status.ContainerStatuses) {
		if ended := status.State.Terminated; ended != nil && ended.ExitCode != 0 {
			return &status
		}
	}
	return nil
}

// log is the end of what the Job's pod has written: of the container that failed, or of the first. Where it cannot be read it
// says why: the verdict is the Job's, the log only says more.
func (r *Runner) log(ctx context.Context, last *corev1.Pod) (text string, read bool) {
	if r.Logs == nil || last == nil || len(last.Spec.Containers) == 0 {
		return "", false
	}
	container := last.Spec.Containers[0].Name
	if status := failed(last); status != nil {
		container = status.Name
	}
	text, err := r.Logs.Tail(ctx, last.Namespace, last.Name, container)
	if err != nil {
		return tail(clean(fmt.Sprintf("the log could not be read: %v", err)), MaxLog), false
	}
	return tail(strings.TrimSpace(clean(text)), MaxLog), true
}

// clean drops what no terminal and no YAML should be given: what is not UTF-8, and control characters.
func clean(text string) string {
	return strings.Map(func(c rune) rune {
		if c != '\n' && c != '\t' && !unicode.IsPrint(c) {
			return -1
		}
		return c
	}, strings.ToValidUTF8(text, ""))
}

// tail keeps the end of a text, by whole characters.
func tail(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	return strings.ToValidUTF8(text[len(text)-limit:], "")
}
