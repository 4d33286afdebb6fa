package fleet

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/roundhouse-dev/roundhouse/internal/machine"
	"github.com/roundhouse-dev/roundhouse/internal/podresources"
)

// given is what a pod was given of a device plugin.
type given struct {
	container string
	ids       []string
}

// give picks devices for a pod that starts, as a kubelet's device manager does: any that answer and that no other pod of
// the node has. A pod keeps what it was given until it ends.
func (k *kubelets) give(pod *corev1.Pod) {
	container, want := wantsPlugin(pod)
	if want == 0 || k.answering == nil {
		return
	}
	free := k.answering(pod.Spec.NodeName)
	pods := k.on(pod.Spec.NodeName)
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, has := k.given[pod.UID]; has {
		return
	}
	for _, other := range pods {
		for _, id := range k.given[other.UID].ids {
			free = slices.DeleteFunc(free, func(one string) bool { return one == id })
		}
	}
	if k.given == nil {
		k.given = map[types.UID]given{}
	}
	k.given[pod.UID] = given{container: container, ids: free[:min(want, len(free))]}
}

// takeBack gives a pod's devices to whoever comes next.
func (k *kubelets) takeBack(pod types.UID) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.given, pod)
}

// wantsPlugin is how many devices the first container asks for that asks for any.
func wantsPlugin(pod *corev1.Pod) (container string, count int) {
	for i := range pod.Spec.Containers {
		c := &pod.Spec.Containers[i]
		if n := c.Resources.Requests[PluginResource]; n.Sign() > 0 {
			return c.Name, int(n.Value())
		}
	}
	return "", 0
}

// holdings is what the kubelet of a node says on its pod-resources socket.
func (k *kubelets) holdings(node string) []podresources.Holding {
	var out []podresources.Holding
	pods := k.on(node)
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, pod := range pods {
		of := k.given[pod.UID]
		for _, id := range of.ids {
			out = append(out, podresources.Holding{
				Namespace: pod.Namespace, Pod: pod.Name, Container: of.container, Resource: PluginResource, ID: id,
			})
		}
	}
	return out
}

// answering are the UUIDs of a node's devices that its device plugin calls healthy.
func (f *Fleet) answering(name string) []string {
	n := f.byName[name]
	if n == nil || n.offer != OfferPlugin {
		return nil
	}
	there, err := n.machine.PCIDevices(f.ctx, nil)
	if err != nil {
		return nil // it is down, and starts no pod.
	}
	var ids []string
	for i := range n.devices {
		d := &n.devices[i]
		if slices.ContainsFunc(there, func(p machine.PCIDevice) bool { return p.Address == d.Address && p.Config == machine.ConfigAnswers }) {
			ids = append(ids, d.UUID)
		}
	}
	return ids
}
