package fleet

import (
	"slices"
	"testing"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
)

func TestADeviceIsGivenToOnePodAtATime(t *testing.T) {
	k, err := newKubelets(fake.NewClientset(), logr.Discard())
	if err != nil {
		t.Fatal(err)
	}
	k.answering = func(string) []string { return []string{"GPU-0", "GPU-1", "GPU-2"} }
	asks := func(name, count string) *corev1.Pod {
		pod := podWith(func(pod *corev1.Pod) {
			pod.Namespace, pod.Name, pod.UID, pod.Spec.NodeName = "ml", name, types.UID(name), "gpu-06"
			if count != "" {
				pod.Spec.Containers[0].Resources.Requests = corev1.ResourceList{PluginResource: resource.MustParse(count)}
			}
		})
		stripped, err := strip(pod)
		if err != nil || k.informer.GetIndexer().Add(stripped) != nil {
			t.Fatal(err)
		}
		k.give(pod)
		return pod
	}
	says := func(want ...string) {
		t.Helper()
		var got []string
		for _, h := range k.holdings("gpu-06") {
			if h.Namespace != "ml" || h.Container != "main" || h.Resource != PluginResource {
				t.Errorf("%+v", h)
			}
			got = append(got, h.Pod+" "+h.ID)
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
	}
	asks("web", "")
	first := asks("a", "2")
	asks("b", "2") // there is one left.
	says("a GPU-0", "a GPU-1", "b GPU-2")
	k.give(first)
	says("a GPU-0", "a GPU-1", "b GPU-2")
	k.takeBack(first.UID)
	asks("c", "1")
	says("b GPU-2", "c GPU-0")
	if got := k.holdings("gpu-05"); got != nil {
		t.Errorf("another node's: %v", got)
	}
}
