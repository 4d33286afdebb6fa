package occupancy

import (
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/decide"
)

func TestThePlansFollowThePolicysExpressions(t *testing.T) {
	s := told()
	s.Policy = decide.Governing{Accepted: true, Policy: &v1alpha1.RemediationPolicy{Spec: v1alpha1.RemediationPolicySpec{Drain: &v1alpha1.Drain{
		Classes: []v1alpha1.WorkloadClass{{Name: "spare", Cost: v1alpha1.CostFree, Match: v1alpha1.WorkloadMatch{Expression: "x"}}}}}},
		Says: func(class int, pod *corev1.Pod, namespace map[string]string) (bool, error) {
			return class == 0 && pod.Name == "a" && namespace["team"] == "x", nil
		}}
	Plan(s, Seen{Pods: []corev1.Pod{*onPlugin("a", "1")}, Namespaces: map[string]map[string]string{"ml": {"team": "x"}}})
	for _, p := range []struct {
		name  string
		moves int
		class string
	}{{"node", len(s.NodePlan.Move), s.NodePlan.Move[0].Class}, {"device", len(s.DevicePlan.Move), s.DevicePlan.Move[0].Class},
		{"repair", len(s.RepairPlan.Move), s.RepairPlan.Move[0].Class}} {
		if p.moves != 1 || p.class != "spare" {
			t.Errorf("%s: %d moves, by class %s", p.name, p.moves, p.class)
		}
	}
}
