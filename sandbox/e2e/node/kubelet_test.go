package node

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/roundhouse-dev/roundhouse/config"
)

const (
	// probeEvery is a kubelet's readiness period, shorter because a test waits for it.
	probeEvery = 500 * time.Millisecond
	// probeTimeout bounds one probe. The answer comes from an emulated processor by a serial port.
	probeTimeout = 3 * time.Second
)

// kubelet does for the machine what a kubelet in it would, seen from the API: it probes the agent's /readyz, says in
// which boot the node is, and lets pods go that were told to. Like a kubelet it writes only what has changed.
type kubelet struct {
	rig *rig

	mu     sync.Mutex
	reason string // why the agent is not ready; empty when it is
	err    error  // what the API server said last, where it was an error
}

// run goes round until ctx ends.
func (k *kubelet) run(ctx context.Context) {
	var told struct{ ready, boot string }
	for ctx.Err() == nil {
		boot, ready := k.probe(ctx)
		if now := fmt.Sprint(ready); now != told.ready && k.note(k.tellPod(ctx, ready)) {
			told.ready = now
		}
		if boot != "" && boot != told.boot && k.note(k.tellNode(ctx, boot)) {
			told.boot = boot
		}
		k.note(k.letGo(ctx))
		sleep(ctx, probeEvery)
	}
}

// probe asks the machine for its boot and the agent for its readiness, as a kubelet's HTTP probe does.
func (k *kubelet) probe(ctx context.Context) (boot string, ready bool) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	boot, err := k.rig.vm.BootID(ctx)
	var said []byte
	if err == nil {
		said, err = k.rig.get(ctx, "/readyz")
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case err != nil:
		k.reason = err.Error()
	case string(said) != "ok\n":
		k.reason = string(said)
	default:
		k.reason = ""
	}
	return boot, k.reason == ""
}

// note keeps an error for a failure's message; what failed is tried again in the next round.
func (k *kubelet) note(err error) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.err = err
	return err == nil
}

// String says how things stand, for a failure's message.
func (k *kubelet) String() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return fmt.Sprintf("not ready because %q, error %v", k.reason, k.err)
}

func (k *kubelet) tellPod(ctx context.Context, ready bool) error {
	pod := &corev1.Pod{}
	key := client.ObjectKey{Namespace: config.Namespace, Name: k.rig.agentPod()}
	if err := shared.admin.Get(ctx, key, pod); err != nil {
		return err
	}
	c := corev1.PodCondition{Type: corev1.PodReady, Status: corev1.ConditionFalse, LastTransitionTime: metav1.Now()}
	if ready {
		c.Status = corev1.ConditionTrue
	}
	before := pod.DeepCopy()
	pod.Status.Phase, pod.Status.Conditions = corev1.PodRunning, []corev1.PodCondition{c}
	return shared.admin.Status().Patch(ctx, pod, client.MergeFrom(before))
}

// tellNode says that the node is up in that boot. The agent's own condition stays: the patch merges conditions by type.
func (k *kubelet) tellNode(ctx context.Context, boot string) error {
	node := &corev1.Node{}
	if err := shared.admin.Get(ctx, client.ObjectKey{Name: k.rig.name}, node); err != nil {
		return err
	}
	before := node.DeepCopy()
	node.Status.NodeInfo.BootID = boot
	return shared.admin.Status().Patch(ctx, node, client.StrategicMergeFrom(before))
}

// letGo ends pods that were told to go, at once.
func (k *kubelet) letGo(ctx context.Context) error {
	var pods corev1.PodList
	if err := shared.admin.List(ctx, &pods, client.MatchingFields{"spec.nodeName": k.rig.name}); err != nil {
		return err
	}
	for i := range pods.Items {
		if pods.Items[i].DeletionTimestamp == nil {
			continue
		}
		if err := shared.admin.Delete(ctx, &pods.Items[i], client.GracePeriodSeconds(0)); client.IgnoreNotFound(err) != nil {
			return err
		}
	}
	return nil
}

func isReady(pod *corev1.Pod) bool {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
