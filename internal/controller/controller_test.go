package controller

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

func TestConfigCompletes(t *testing.T) {
	first, err := Config{Namespace: "ns"}.complete()
	if err != nil {
		t.Fatal(err)
	}
	second, err := Config{Namespace: "ns"}.complete()
	if err != nil {
		t.Fatal(err)
	}
	if first.Identity == second.Identity {
		t.Errorf("two controllers of one host have the same identity %s", first.Identity)
	}
	// FieldManagerMaxLength is 128 bytes (apimachinery, meta/v1/validation).
	if manager := FieldOwnerPrefix + first.Identity; len(manager) > 128 {
		t.Errorf("the field manager %s is too long", manager)
	}
	if first.AgentNamespace != "ns" || first.AgentSelector.String() != "app.kubernetes.io/name=roundhouse-agent" || first.Workers == 0 {
		t.Errorf("got %+v", first)
	}
	if _, err := (Config{}).complete(); err == nil || !strings.Contains(err.Error(), "namespace") {
		t.Errorf("error is %v, want that a namespace is needed", err)
	}
}

func TestTheLocksTimeoutIsItsOwn(t *testing.T) {
	c, err := Config{Namespace: "ns"}.complete()
	if err != nil {
		t.Fatal(err)
	}
	restConfig := &rest.Config{Host: "https://127.0.0.1:1", UserAgent: "mine"}
	lock, err := newLock(restConfig, c)
	if err != nil {
		t.Fatal(err)
	}
	if lock.Identity() != c.Identity || restConfig.Timeout != 0 || restConfig.UserAgent != "mine" {
		t.Errorf("identity %s; the given config has timeout %v and user agent %s", lock.Identity(), restConfig.Timeout, restConfig.UserAgent)
	}
}

func TestStripNodeKeepsWhatIsRead(t *testing.T) {
	node := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{
			Name: "n", UID: "u", ResourceVersion: "3", Labels: map[string]string{"pool": "gpu"},
			ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "kubelet"}},
			Annotations: map[string]string{
				"roundhouse.dev/claim": "r/u", "weave.works/kured-reboot-in-progress": "x", corev1.LastAppliedConfigAnnotation: "{}",
				"nfd.node.kubernetes.io/feature-labels": "a,b",
			},
		},
		Spec: corev1.NodeSpec{PodCIDR: "10.0.0.0/24", Unschedulable: true, Taints: []corev1.Taint{{Key: "a"}}},
		Status: corev1.NodeStatus{
			Capacity:    corev1.ResourceList{"cpu": resource.MustParse("8"), "nvidia.com/gpu": resource.MustParse("8"), "attachable.kubernetes.io/x": resource.MustParse("1")},
			Allocatable: corev1.ResourceList{"cpu": resource.MustParse("8"), "nvidia.com/gpu": resource.MustParse("7")},
			Conditions:  []corev1.NodeCondition{{Type: "Ready", Status: "True", Reason: "R", Message: "M"}},
			Images:      []corev1.ContainerImage{{Names: []string{"x"}}},
			NodeInfo:    corev1.NodeSystemInfo{BootID: "b", KubeletVersion: "v1.37.2", KernelVersion: "6.1"},
		},
	}
	got, err := stripNode(node)
	if err != nil {
		t.Fatal(err)
	}
	want := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{
			Name: "n", UID: "u", ResourceVersion: "3", Labels: map[string]string{"pool": "gpu"},
			Annotations: map[string]string{"roundhouse.dev/claim": "r/u", "weave.works/kured-reboot-in-progress": "x"},
		},
		Spec: corev1.NodeSpec{Unschedulable: true, Taints: []corev1.Taint{{Key: "a"}}},
		Status: corev1.NodeStatus{
			Capacity:    corev1.ResourceList{"nvidia.com/gpu": resource.MustParse("8")},
			Allocatable: corev1.ResourceList{"nvidia.com/gpu": resource.MustParse("7")},
			Conditions:  []corev1.NodeCondition{{Type: "Ready", Status: "True", Reason: "R", Message: "M"}},
			NodeInfo:    corev1.NodeSystemInfo{BootID: "b", KubeletVersion: "v1.37.2"},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("node (-want +got):\n%s", diff)
	}
}

func TestStripPodKeepsWhereAndWhetherReady(t *testing.T) {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "p", Annotations: map[string]string{"a": "b"}},
		Spec:       corev1.PodSpec{NodeName: "n", Containers: []corev1.Container{{Name: "c"}}},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, PodIP: "10.0.0.1", Conditions: []corev1.PodCondition{
			{Type: corev1.PodScheduled, Status: "True"}, {Type: corev1.PodReady, Status: "True"},
		}},
	}
	got, err := stripPod(pod)
	if err != nil {
		t.Fatal(err)
	}
	want := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "p"}, Spec: corev1.PodSpec{NodeName: "n"},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: "True"}}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("pod (-want +got):\n%s", diff)
	}
}

func TestStripLeavesATombstoneAlone(t *testing.T) {
	tombstone := cache.DeletedFinalStateUnknown{Key: "n"}
	for _, strip := range []cache.TransformFunc{stripNode, stripPod} {
		if got, err := strip(tombstone); err != nil || got != tombstone {
			t.Errorf("got %v, %v", got, err)
		}
	}
}
