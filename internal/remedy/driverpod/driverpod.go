// Package driverpod carries out the action RestartDriver: it has the driver's pod on a node made anew by its DaemonSet.
//
// The pod goes by the Eviction API, as every pod that Roundhouse moves: the controller has no right to delete one. Which pod
// it is, is written on the Node before it is asked for, so that no crash and no clock makes it another one afterwards.
package driverpod

import (
	"context"
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/claim"
	"github.com/roundhouse-dev/roundhouse/internal/evict"
	"github.com/roundhouse-dev/roundhouse/internal/remedy"
	"github.com/roundhouse-dev/roundhouse/internal/remedy/operands"
)

const (
	// maxPods bounds the pods of one node that may have the policy's labels; a driver has one, or two while one ends.
	maxPods = 50
	// maxNamed bounds what a message names.
	maxNamed = 4
)

// Remedy restarts driver pods. Live reads the server itself, not a cache.
type Remedy struct {
	client   client.Client
	live     client.Reader
	operands operands.Operands
}

var _ remedy.Remedy = (*Remedy)(nil)

// New makes the remedy.
func New(c client.Client, live client.Reader) *Remedy {
	return &Remedy{client: c, live: live, operands: operands.Operands{Client: c, Live: live}}
}

// Check says why the pod cannot be restarted.
func (r *Remedy) Check(ctx context.Context, a remedy.Attempt) (string, error) {
	if a.Rung.DriverPod == nil {
		return fmt.Sprintf("rung %s does not say which pod to restart: set driverPod", a.Rung.Name), nil
	}
	pods, err := r.pods(ctx, a)
	if err != nil {
		return "", err
	}
	if len(pods) == 0 {
		return fmt.Sprintf("no pod with labels %s in namespace %s is on node %s", said(a.Rung.DriverPod), a.Rung.DriverPod.Namespace, a.Node.Name), nil
	}
	name, refusal := owner(pods)
	if refusal != "" {
		return refusal, nil
	}
	set := &appsv1.DaemonSet{}
	if err := r.live.Get(ctx, types.NamespacedName{Namespace: a.Rung.DriverPod.Namespace, Name: name}, set); err != nil {
		if apierrors.IsNotFound(err) {
			return fmt.Sprintf("DaemonSet %s/%s is gone: nobody would make a new pod", a.Rung.DriverPod.Namespace, name), nil
		}
		return "", fmt.Errorf("reading the driver's DaemonSet: %w", err)
	}
	if refusal := intolerant(ctx, set, a); refusal != "" {
		return refusal, nil
	}
	return r.operands.Check(ctx, a.Node, a.Remediation)
}

// Begin pauses the operands that keep the driver loaded, and evicts the pod once they have gone.
func (r *Remedy) Begin(ctx context.Context, a remedy.Attempt) (remedy.Progress, error) {
	if _, again := recorded(a.Node, a); again {
		return r.Look(ctx, a)
	}
	refusal, err := r.Check(ctx, a)
	if err != nil {
		return remedy.Progress{}, err
	}
	if refusal != "" {
		return remedy.Refused(refusal), nil
	}
	return r.Look(ctx, a)
}

// Look goes on from whatever has been done: the pod that is written on the Node is the one that goes, and any other one
// that is Ready is its successor.
func (r *Remedy) Look(ctx context.Context, a remedy.Attempt) (remedy.Progress, error) {
	node := &corev1.Node{}
	if err := r.live.Get(ctx, types.NamespacedName{Name: a.Node.Name}, node); err != nil {
		if apierrors.IsNotFound(err) {
			return remedy.Failed("the node is gone"), nil
		}
		return remedy.Progress{}, fmt.Errorf("reading node: %w", err)
	}
	if node.UID != a.Node.UID {
		return remedy.Failed("another node has its name now"), nil
	}
	pods, err := r.pods(ctx, a)
	if err != nil {
		return remedy.Progress{}, err
	}
	if _, refusal := owner(pods); refusal != "" {
		return remedy.Failed(refusal), nil
	}
	target, chosen := recorded(node, a)
	if !chosen {
		old := outdated(pods, a)
		if old == nil {
			return r.follow(ctx, pods, "", a)
		}
		waiting, err := r.operands.Pause(ctx, node, operands.By(a.Remediation))
		if err != nil {
			return remedy.Progress{}, err
		}
		if len(waiting) > 0 {
			return remedy.Running("waits for the GPU operator's pods to leave the driver: " + some(waiting)), nil
		}
		if err := r.record(ctx, a, old.UID); err != nil {
			return remedy.Progress{}, err
		}
		target = old.UID
	}
	for i := range pods {
		if pods[i].UID == target && pods[i].DeletionTimestamp == nil {
			return r.evict(ctx, &pods[i])
		}
	}
	return r.follow(ctx, pods, target, a)
}

// follow says how the pod is that takes the place of the one that went.
func (r *Remedy) follow(ctx context.Context, pods []corev1.Pod, gone types.UID, a remedy.Attempt) (remedy.Progress, error) {
	next, ending := successor(pods, gone)
	switch {
	case ending != "":
		return remedy.Running(fmt.Sprintf("pod %s is ending", ending)), nil
	case next != nil:
		return progress(next), nil
	}
	// A pod that the scheduler has not placed is not on the node; a DaemonSet's says for which node it is.
	var pending corev1.PodList
	err := r.live.List(ctx, &pending, client.InNamespace(a.Rung.DriverPod.Namespace), client.MatchingLabels(a.Rung.DriverPod.PodLabels),
		client.MatchingFields{"spec.nodeName": ""}, client.Limit(maxPods))
	if err != nil {
		return remedy.Progress{}, fmt.Errorf("listing the driver's pods that have no node: %w", err)
	}
	for i := range pending.Items {
		if isFor(&pending.Items[i], a.Node.Name) {
			return progress(&pending.Items[i]), nil
		}
	}
	return remedy.Running(fmt.Sprintf("waits for a new pod with labels %s on node %s", said(a.Rung.DriverPod), a.Node.Name)), nil
}

// End lets the operands come back, and takes our note off the Node.
func (r *Remedy) End(ctx context.Context, a remedy.Attempt) error {
	if err := r.operands.Resume(ctx, a.Node, operands.By(a.Remediation)); err != nil {
		return err
	}
	node := &corev1.Node{}
	if err := r.live.Get(ctx, types.NamespacedName{Name: a.Node.Name}, node); err != nil {
		return client.IgnoreNotFound(err)
	}
	if _, ours := recorded(node, a); !ours || node.UID != a.Node.UID {
		return nil
	}
	after := node.DeepCopy()
	delete(after.Annotations, v1alpha1.AnnotationDriverPod)
	if _, err := claim.Patch(ctx, r.client, node, after); err != nil {
		return err
	}
	return nil
}

// pods lists the pods on the node that have the policy's labels.
func (r *Remedy) pods(ctx context.Context, a remedy.Attempt) ([]corev1.Pod, error) {
	var pods corev1.PodList
	err := r.live.List(ctx, &pods, client.InNamespace(a.Rung.DriverPod.Namespace), client.MatchingLabels(a.Rung.DriverPod.PodLabels),
		client.MatchingFields{"spec.nodeName": a.Node.Name}, client.Limit(maxPods))
	if err != nil {
		return nil, fmt.Errorf("listing the driver's pods on node %s: %w", a.Node.Name, err)
	}
	return pods.Items, nil
}

// owner names the one DaemonSet that all the pods are of.
func owner(pods []corev1.Pod) (name, refusal string) {
	var owners []string
	for i := range pods {
		pod := &pods[i]
		ref := metav1.GetControllerOf(pod)
		if ref == nil || ref.Kind != "DaemonSet" || !strings.HasPrefix(ref.APIVersion, appsv1.GroupName+"/") {
			return "", fmt.Sprintf("pod %s/%s is not a DaemonSet's: nobody would make it anew on this node", pod.Namespace, pod.Name)
		}
		if !slices.Contains(owners, ref.Name) {
			owners = append(owners, ref.Name)
		}
	}
	switch len(owners) {
	case 0:
		return "", ""
	case 1:
		return owners[0], ""
	}
	slices.Sort(owners)
	return "", fmt.Sprintf("driverPod.podLabels select pods of %d DaemonSets (%s): add a label that only the driver's pods have", len(owners), some(owners))
}

// recorded reads which pod this attempt restarts.
func recorded(node *corev1.Node, a remedy.Attempt) (types.UID, bool) {
	attempt, pod, ok := strings.Cut(node.Annotations[v1alpha1.AnnotationDriverPod], "/")
	return types.UID(pod), ok && attempt == a.ID
}

// record writes it down. The Node is read again: pausing the operands has changed it.
func (r *Remedy) record(ctx context.Context, a remedy.Attempt, pod types.UID) error {
	node := &corev1.Node{}
	if err := r.live.Get(ctx, types.NamespacedName{Name: a.Node.Name}, node); err != nil {
		return fmt.Errorf("reading node: %w", err)
	}
	after := node.DeepCopy()
	if after.Annotations == nil {
		after.Annotations = map[string]string{}
	}
	after.Annotations[v1alpha1.AnnotationDriverPod] = a.ID + "/" + string(pod)
	if _, err := claim.Patch(ctx, r.client, node, after); err != nil {
		return fmt.Errorf("recording which pod is restarted: %w", err)
	}
	return nil
}

// outdated is the pod that is to go: one that was there before the attempt began. The API server's times are whole seconds;
// one of the same second counts as new.
func outdated(pods []corev1.Pod, a remedy.Attempt) *corev1.Pod {
	begun := metav1.Time{}
	if step := a.Remediation.Status.Step; step != nil && step.Remedy != nil {
		begun = *step.Remedy.Begun.DeepCopy()
	}
	var old *corev1.Pod
	for i := range pods {
		if !begun.IsZero() && pods[i].CreationTimestamp.Unix() >= begun.Unix() {
			continue
		}
		// Beside one that is ending anyway, it is the other one that drives the devices.
		if old == nil || old.DeletionTimestamp != nil {
			old = &pods[i]
		}
	}
	return old
}

// evict asks for the pod to go.
func (r *Remedy) evict(ctx context.Context, pod *corev1.Pod) (remedy.Progress, error) {
	outcome, err := evict.Evictor{Client: r.client}.Evict(ctx, pod, evict.How{})
	if err != nil {
		return remedy.Progress{}, err
	}
	name := pod.Namespace + "/" + pod.Name
	switch outcome.Kind {
	case evict.Misconfigured:
		return remedy.Failed(remedy.Cut(fmt.Sprintf("pod %s cannot be evicted: %s", name, outcome.Message))), nil
	case evict.Blocked:
		return remedy.Running(remedy.Cut(fmt.Sprintf("pod %s may not be evicted yet: %s", name, outcome.Message))), nil
	case evict.Evicted, evict.Deleted, evict.Forced, evict.Terminating, evict.Gone, evict.Asked:
	}
	return remedy.Running(fmt.Sprintf("pod %s is going; its DaemonSet makes a new one", name)), nil
}
