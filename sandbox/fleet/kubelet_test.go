package fleet

import (
	"testing"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes/fake"
)

func TestWhatAProbeOfAnAgentChanges(t *testing.T) {
	onNode := func(pod *corev1.Pod) { pod.Spec.NodeName = "gpu-04" }
	ofAgent := func(pod *corev1.Pod) { pod.Labels = map[string]string{agentLabel: agentName} }
	notReady := func(pod *corev1.Pod) { pod.Status.Conditions = nil }
	tests := map[string]struct {
		pod    *corev1.Pod
		ready  bool
		looked int
	}{
		"an agent that answers, as its pod says":                      {pod: podWith(onNode, ofAgent), ready: true},
		"an agent that does not, as its pod says":                     {pod: podWith(onNode, ofAgent, notReady)},
		"an agent that has begun to answer":                           {pod: podWith(onNode, ofAgent, notReady), ready: true, looked: 1},
		"an agent that answers no more, though no probe saw it ready": {pod: podWith(onNode, ofAgent), looked: 1},
		"another's pod is no answer of the agent":                     {pod: podWith(onNode)},
		"an agent of another node":                                    {pod: podWith(ofAgent, func(pod *corev1.Pod) { pod.Spec.NodeName = "gpu-05" })},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			k, err := newKubelets(fake.NewClientset(), logr.Discard())
			if err != nil {
				t.Fatal(err)
			}
			if err := k.informer.GetIndexer().Add(tt.pod); err != nil {
				t.Fatal(err)
			}
			// Each probe compares with the pod anew: what could not be reported is reported later.
			for range 2 {
				k.probed("gpu-04", tt.ready)
				if got := k.queue.Len(); got != tt.looked {
					t.Errorf("the kubelet looks at %d pods, want %d", got, tt.looked)
				}
				for k.queue.Len() > 0 {
					key, _ := k.queue.Get()
					k.queue.Done(key)
				}
			}
		})
	}
}
