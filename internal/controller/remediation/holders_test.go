package remediation

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

const gpuResource = "nvidia.com/gpu"

// onPlugin is a running pod of a Job that asked a device plugin for so many.
func onPlugin(name string, count string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ml", Name: name, UID: types.UID(name),
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "batch/v1", Kind: "Job", Name: name, UID: types.UID("job-" + name), Controller: ptr.To(true)}}},
		Spec: corev1.PodSpec{NodeName: "n", Containers: []corev1.Container{{Name: "main", Resources: corev1.ResourceRequirements{
			Requests: corev1.ResourceList{gpuResource: resource.MustParse(count)}}}}},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, StartTime: &metav1.Time{Time: seen.Add(-time.Hour)}},
	}
}

func TestHowManyDevicesThePluginHasDropped(t *testing.T) {
	list := func(name, n string) corev1.ResourceList {
		return corev1.ResourceList{corev1.ResourceName(name): resource.MustParse(n)}
	}
	eight := make([]v1alpha1.Device, 8)
	mixed := append(slices.Clone(eight), make([]v1alpha1.Device, 8)...)
	for i := range mixed {
		mixed[i].Vendor = []string{"NVIDIA", "AMD"}[i/8]
	}
	for name, tc := range map[string]struct {
		resource, capacity, allocatable string
		devices                         []v1alpha1.Device
		want                            int
	}{
		"none":                            {gpuResource, "8", "8", eight, 0},
		"two of eight":                    {gpuResource, "8", "6", eight, 2},
		"one that is shared by four":      {gpuResource, "32", "28", eight, 1},
		"less than one is none":           {gpuResource, "32", "29", eight, 0},
		"what is not even counts as less": {gpuResource, "30", "22", eight, 2},
		"all, while the plugin restarts":  {gpuResource, "8", "0", eight, 8},
		"others' devices share nothing":   {gpuResource, "32", "28", mixed, 1},
		"where nobody counts devices":     {gpuResource, "8", "6", nil, 2},
		"more than there were":            {gpuResource, "8", "9", eight, 0},
		"another resource":                {"rdma/hca", "8", "0", eight, 0},
	} {
		t.Run(name, func(t *testing.T) {
			node := &corev1.Node{Status: corev1.NodeStatus{Capacity: list(tc.resource, tc.capacity), Allocatable: list(tc.resource, tc.allocatable)}}
			health := &v1alpha1.NodeHealth{Status: v1alpha1.NodeHealthStatus{Devices: tc.devices}}
			if got := dropped(node, health); got != tc.want {
				t.Errorf("%d, want %d", got, tc.want)
			}
		})
	}
	if got := dropped(&corev1.Node{Status: corev1.NodeStatus{Capacity: list(gpuResource, "8"), Allocatable: list(gpuResource, "7")}}, nil); got != 1 {
		t.Errorf("%d without a NodeHealth", got)
	}
}

// pluginNode is a cluster of a node with a device plugin that has dropped so many, and a policy that waits for idle.
func pluginNode(capacity, allocatable string, health *v1alpha1.NodeHealth, pods ...*corev1.Pod) []client.Object {
	node, policy := aNode(), aPolicy()
	node.Status.Capacity = corev1.ResourceList{gpuResource: resource.MustParse(capacity)}
	node.Status.Allocatable = corev1.ResourceList{gpuResource: resource.MustParse(allocatable)}
	policy.Spec.Rules[0].When = v1alpha1.WhenIdle
	out := []client.Object{node, policy, health, aBudget("a", "a")}
	for _, p := range pods {
		out = append(out, p)
	}
	return out
}

func TestOnAPluginsNodeOnlyTheBadDevicesPodsMove(t *testing.T) {
	says := func(change func(*v1alpha1.NodeHealthStatus), faults ...v1alpha1.Fault) *v1alpha1.NodeHealth {
		h := aHealth(faults...)
		h.Status.HoldersAt = &metav1.Time{Time: seen}
		h.Status.Holders = []v1alpha1.Holder{{Device: bad, Namespace: "ml", Pod: "a"}}
		change(&h.Status)
		return h
	}
	asIs := func(*v1alpha1.NodeHealthStatus) {}
	unknown := func(st *v1alpha1.NodeHealthStatus) {
		st.HoldersAt, st.Holders, st.HoldersUnknown = nil, nil, "no kubelet socket /x"
	}
	one, two := []v1alpha1.Fault{aFault("Xid79", bad)}, []v1alpha1.Fault{aFault("Xid79", bad), aFault("Xid79", "GPU-1")}
	for name, tc := range map[string]struct {
		capacity, allocatable string
		health                *v1alpha1.NodeHealth
		gone                  []string
		tainted               bool
		says                  string
	}{
		"the kubelet has dropped it":                        {"2", "1", says(asIs, one...), []string{"a"}, false, "a reboot would kill 1 job pod"},
		"the kubelet still offers it":                       {"2", "2", says(asIs, one...), []string{"a"}, true, "a reboot would kill 1 job pod"},
		"fewer are dropped than are bad":                    {"2", "1", says(asIs, two...), []string{"a"}, true, "a reboot would kill 1 job pod"},
		"as many are dropped as are bad":                    {"2", "0", says(asIs, two...), []string{"a"}, false, "a reboot would kill 1 job pod"},
		"two replicas of one of two are dropped":            {"4", "2", says(asIs, two...), []string{"a"}, true, "a reboot would kill 1 job pod"},
		"nobody can tell who holds it, and nobody is moved": {"2", "1", says(unknown, one...), nil, false, "; of 2 pods nobody can tell whether they hold a bad device, and they are left alone (no kubelet socket /x)"},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, pluginNode(tc.capacity, tc.allocatable, tc.health, onPlugin("a", "1"), onPlugin("b", "1"))...)
			c.turns(4, time.Minute)
			left := map[string]bool{"a": true, "b": true}
			var pods corev1.PodList
			c.must(c.server.List(t.Context(), &pods))
			for _, p := range pods.Items {
				delete(left, p.Name)
			}
			if diff := cmp.Diff(tc.gone, slices.Sorted(maps.Keys(left))); diff != "" {
				t.Errorf("gone (-want +got):\n%s", diff)
			}
			if got := len(c.node().Spec.Taints) > 0; got != tc.tainted {
				t.Errorf("tainted: %t, want %t", got, tc.tainted)
			}
			if st := c.incident().Status; !strings.Contains(st.Message, tc.says) {
				t.Errorf("%s, %s: %s; want %q", st.Phase, st.Reason, st.Message, tc.says)
			}
		})
	}
}
