package fleet

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

const (
	// podWorkers is how many pods are worked on at once; each waits for the API server most of its time.
	podWorkers = 32
	// podRetry is how soon a pod is looked at again after a write of it failed.
	podRetry = 500 * time.Millisecond
	// requestTimeout bounds one request of the simulation.
	requestTimeout = 20 * time.Second
	// byNode is the index of pods by their node.
	byNode = "node"
)

// kubelets are the kubelets of all nodes. What they do to a pod is decided in lifecycle.go; here it is found and done.
type kubelets struct {
	client kubernetes.Interface
	log    logr.Logger
	// host tells of a node: which boot it is in, and whether it is up; false for a node that is not ours.
	host func(node string) (boot int, up, ok bool)
	// program tells of an agent's pod: whether its program answers. It starts the program where it does not run.
	program func(pod *corev1.Pod) (ready bool)
	// gone tells that a pod's program has to end.
	gone func(pod types.UID, node string)
	// answering lists what a node's device plugin can give; nil where there are no plugins.
	answering func(node string) []string

	informer cache.SharedIndexInformer
	queue    workqueue.TypedDelayingInterface[cache.ObjectName]

	mu   sync.Mutex
	runs map[types.UID]*run
	// given is what pods have of device plugins.
	given map[types.UID]given
}

func newKubelets(client kubernetes.Interface, log logr.Logger) (*kubelets, error) {
	k := &kubelets{
		client: client, log: log, runs: map[types.UID]*run{},
		queue: workqueue.NewTypedDelayingQueue[cache.ObjectName](),
	}
	bound := fields.OneTermNotEqualSelector("spec.nodeName", "").String()
	factory := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithTransform(strip),
		informers.WithTweakListOptions(func(o *metav1.ListOptions) { o.FieldSelector = bound }))
	k.informer = factory.Core().V1().Pods().Informer()
	if err := k.informer.AddIndexers(cache.Indexers{byNode: func(object any) ([]string, error) {
		pod, ok := object.(*corev1.Pod)
		if !ok {
			return nil, fmt.Errorf("indexing pods: got a %T", object)
		}
		return []string{pod.Spec.NodeName}, nil
	}}); err != nil {
		return nil, fmt.Errorf("watching pods: %w", err)
	}
	_, err := k.informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    k.event,
		UpdateFunc: func(_, object any) { k.event(object) },
		DeleteFunc: k.deleted,
	})
	if err != nil {
		return nil, fmt.Errorf("watching pods: %w", err)
	}
	return k, nil
}

// strip drops what no kubelet of ours reads; there may be 200,000 pods.
func strip(object any) (any, error) {
	pod, ok := object.(*corev1.Pod)
	if !ok {
		return object, nil // a tombstone
	}
	pod.ManagedFields, pod.OwnerReferences = nil, nil
	pod.Spec.Volumes, pod.Spec.Tolerations, pod.Spec.Affinity = nil, nil, nil
	for i := range pod.Spec.Containers {
		c := &pod.Spec.Containers[i]
		kept := corev1.Container{Name: c.Name, Image: c.Image}
		if n, ok := c.Resources.Requests[PluginResource]; ok {
			kept.Resources.Requests = corev1.ResourceList{PluginResource: n}
		}
		pod.Spec.Containers[i] = kept
	}
	pod.Status.ContainerStatuses = nil
	return pod, nil
}

// start watches and works until ctx ends; it returns once the pods that there are have been seen.
func (k *kubelets) start(ctx context.Context, wg *sync.WaitGroup) error {
	wg.Go(func() { k.informer.RunWithContext(ctx) })
	wg.Go(func() {
		<-ctx.Done()
		k.queue.ShutDown()
	})
	if !cache.WaitForCacheSync(ctx.Done(), k.informer.HasSynced) {
		return fmt.Errorf("waiting for the pods: %w", context.Cause(ctx))
	}
	for range podWorkers {
		wg.Go(func() { k.work(ctx) })
	}
	return nil
}

func (k *kubelets) event(object any) {
	if pod, ok := object.(*corev1.Pod); ok {
		k.queue.Add(cache.MetaObjectToName(pod))
	}
}

func (k *kubelets) deleted(object any) {
	if tombstone, ok := object.(cache.DeletedFinalStateUnknown); ok {
		object = tombstone.Obj
	}
	pod, ok := object.(*corev1.Pod)
	if !ok {
		return
	}
	k.mu.Lock()
	delete(k.runs, pod.UID)
	delete(k.given, pod.UID)
	k.mu.Unlock()
	k.gone(pod.UID, pod.Spec.NodeName)
}

// look looks at all pods of a node again.
func (k *kubelets) look(node string) {
	for _, pod := range k.on(node) {
		k.event(pod)
	}
}

// probed takes what the agent's probe on a node answered. It compares with the pod, not with the answer before: an agent
// that was ready for less than the time between two probes was reported as ready all the same.
func (k *kubelets) probed(node string, ready bool) {
	for _, pod := range k.on(node) {
		if isAgent(pod) && isReady(pod) != ready {
			k.event(pod)
		}
	}
}

// on lists the pods of a node, as they were last seen.
func (k *kubelets) on(node string) []*corev1.Pod {
	objects, err := k.informer.GetIndexer().ByIndex(byNode, node)
	if err != nil {
		k.log.Error(err, "Finding the pods of a node", "node", node) // Only an index that is not there is an error.
		return nil
	}
	pods := make([]*corev1.Pod, 0, len(objects))
	for _, object := range objects {
		if pod, ok := object.(*corev1.Pod); ok {
			pods = append(pods, pod)
		}
	}
	return pods
}

func (k *kubelets) work(ctx context.Context) {
	for {
		key, shutdown := k.queue.Get()
		if shutdown {
			return
		}
		wait, err := k.one(ctx, key)
		if err != nil && ctx.Err() == nil {
			k.log.Error(err, "A kubelet could not write", "pod", key.String())
			wait = podRetry
		}
		k.queue.Done(key)
		if wait > 0 {
			k.queue.AddAfter(key, wait)
		}
	}
}

// one makes one move of one pod.
func (k *kubelets) one(ctx context.Context, key cache.ObjectName) (time.Duration, error) {
	object, exists, err := k.informer.GetIndexer().GetByKey(key.String())
	if err != nil || !exists {
		return 0, err
	}
	pod, ok := object.(*corev1.Pod)
	if !ok {
		return 0, fmt.Errorf("looking at a pod: got a %T", object)
	}
	boot, up, ours := k.host(pod.Spec.NodeName)
	if !ours || !up {
		return 0, nil // The end of a reboot looks at its pods again.
	}
	s := situation{now: time.Now(), pod: pod, run: k.known(pod, boot), boot: boot, ready: true}
	if isAgent(pod) {
		// A program that was started in an earlier boot, or not at all, is started by moveStart or moveRestart first.
		s.ready = s.run != nil && s.run.boot == boot && pod.DeletionTimestamp == nil && k.program(pod)
	}
	step := next(s)
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	return step.wait, k.make(ctx, s, step)
}

// known is what is remembered of a pod. One that runs although nobody here started it was there before this process.
func (k *kubelets) known(pod *corev1.Pod, boot int) *run {
	k.mu.Lock()
	defer k.mu.Unlock()
	r := k.runs[pod.UID]
	if r == nil && pod.Status.Phase == corev1.PodRunning {
		r = &run{boot: boot, started: time.Now()}
		if pod.Status.StartTime != nil {
			r.started = pod.Status.StartTime.Time
		}
		k.runs[pod.UID] = r
	}
	return r
}

// make makes a move.
func (k *kubelets) make(ctx context.Context, s situation, step step) error {
	var status corev1.PodStatus
	var r *run
	switch step.move {
	case moveNone:
		return nil
	case moveRemove:
		return k.remove(ctx, s.pod)
	case moveKeep:
		return k.keep(ctx, s.pod, s.now)
	case moveStart:
		k.give(s.pod)
		r = &run{boot: s.boot, started: s.now}
	case moveRestart:
		r = &run{boot: s.boot, started: s.now, restarts: s.run.restarts + 1}
	case moveReport:
		r = s.run
	case moveSucceed, moveFail:
		status = ended(s.pod, s.run, step, metav1.NewTime(s.now))
	}
	if r != nil {
		// An agent is ready when it answers, which is after it was started.
		status = running(s.pod, *r, s.ready && (step.move == moveReport || !isAgent(s.pod)))
	}
	if err := k.patch(ctx, s.pod, status); err != nil {
		return err
	}
	if r != nil {
		k.mu.Lock()
		k.runs[s.pod.UID] = r
		k.mu.Unlock()
	} else {
		k.takeBack(s.pod.UID)
		k.gone(s.pod.UID, s.pod.Spec.NodeName)
	}
	return nil
}

// patch writes a pod's status as the kubelet does, by a strategic merge that the UID guards.
func (k *kubelets) patch(ctx context.Context, pod *corev1.Pod, status corev1.PodStatus) error {
	body, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": pod.UID}, "status": status})
	if err != nil {
		return fmt.Errorf("encoding the status of pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	_, err = k.client.CoreV1().Pods(pod.Namespace).Patch(ctx, pod.Name, types.StrategicMergePatchType, body, metav1.PatchOptions{}, "status")
	if err = ignoreGone(err); err != nil {
		return fmt.Errorf("writing the status of pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	return nil
}

// keep writes what a program writes into its own pod when it has kept its work.
func (k *kubelets) keep(ctx context.Context, pod *corev1.Pod, now time.Time) error {
	body, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": pod.UID,
		"annotations": map[string]string{v1alpha1.AnnotationCheckpoint: now.UTC().Format(time.RFC3339)}}})
	if err != nil {
		return fmt.Errorf("encoding the checkpoint of pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	_, err = k.client.CoreV1().Pods(pod.Namespace).Patch(ctx, pod.Name, types.MergePatchType, body, metav1.PatchOptions{})
	if err = ignoreGone(err); err != nil {
		return fmt.Errorf("writing the checkpoint of pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	return nil
}

// remove is the kubelet's last word: a delete without grace of exactly that pod.
func (k *kubelets) remove(ctx context.Context, pod *corev1.Pod) error {
	options := metav1.DeleteOptions{GracePeriodSeconds: new(int64), Preconditions: &metav1.Preconditions{UID: &pod.UID}}
	if err := ignoreGone(k.client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, options)); err != nil {
		return fmt.Errorf("removing pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	return nil
}

// ignoreGone takes it for done when the object is gone, or another one has its name.
func ignoreGone(err error) error {
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	return err
}

// isAgent says whether a pod is an agent's.
func isAgent(pod *corev1.Pod) bool { return pod.Labels[agentLabel] == agentName }
