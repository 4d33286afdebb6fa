package remediation

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

// A drain that goes on while a Job of the incident runs leaves the Job's pod alone; a tenant's pod with the same label is moved.
func TestADrainLeavesThePodsOfTheRepairAlone(t *testing.T) {
	waited := onPlugin("waited", "1")
	waited.OwnerReferences = nil // nobody would make it anew: the drain waits for a human.
	c := newCluster(t, append(faulty(aFault("Xid79", bad)), waited)...)
	c.Namespace = "roundhouse-system"
	c.turns(1, 0)
	if phase := c.incident().Status.Phase; phase != v1alpha1.PhaseDraining {
		t.Fatalf("to begin with, it drains: %s", phase)
	}
	for name, namespace := range map[string]string{"own": c.Namespace, "tenant": "ml"} {
		p := onPlugin(name, "1")
		p.Namespace, p.Labels = namespace, map[string]string{v1alpha1.LabelRemediation: c.incident().Name}
		c.must(c.server.Create(t.Context(), p))
	}
	c.turns(3, time.Second)
	left := map[string]bool{}
	var pods corev1.PodList
	c.must(c.server.List(t.Context(), &pods))
	for i := range pods.Items {
		left[pods.Items[i].Name] = true
	}
	if !left["own"] || left["tenant"] || !left["waited"] {
		t.Errorf("left are %v, want the incident's own and the one that is waited for", left)
	}
}
