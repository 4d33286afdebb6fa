package drain

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

func TestAGateIsAnothersWord(t *testing.T) {
	slurm := v1alpha1.WorkloadClass{Name: "slurm", Match: v1alpha1.WorkloadMatch{PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "slurmd"}}},
		Cost: v1alpha1.CostNever, Gate: &v1alpha1.WorkloadGate{NodeCondition: "SlurmDrained", Deadline: metav1.Duration{Duration: 6 * time.Hour}}}
	says := func(kind string, status corev1.ConditionStatus) []corev1.NodeCondition {
		return []corev1.NodeCondition{{Type: "Ready", Status: corev1.ConditionTrue}, {Type: corev1.NodeConditionType(kind), Status: status}}
	}
	closedGate := []v1alpha1.Blocker{{Pod: "ml/slurmd", Reason: ReasonGateClosed, Message: "class slurm waits until condition SlurmDrained of the Node is True"}}
	tests := map[string]struct {
		conditions []corev1.NodeCondition
		blockers   []v1alpha1.Blocker
		moves      int
		gate       time.Duration
	}{
		"that has not come":     {nil, closedGate, 1, 6 * time.Hour},
		"that is no":            {says("SlurmDrained", corev1.ConditionFalse), closedGate, 1, 6 * time.Hour},
		"that nobody knows":     {says("SlurmDrained", corev1.ConditionUnknown), closedGate, 1, 6 * time.Hour},
		"that is of other work": {says("OtherDrained", corev1.ConditionTrue), closedGate, 1, 6 * time.Hour},
		"that is yes":           {says("SlurmDrained", corev1.ConditionTrue), nil, 2, 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p := Make(Input{Now: now, Scope: ScopeNode, Classes: []v1alpha1.WorkloadClass{slurm}, Conditions: tt.conditions,
				Pods: []corev1.Pod{pod("slurmd", "StatefulSet", labelled("app", "slurmd"), gpus(8)), pod("web", "ReplicaSet")}})
			if diff := cmp.Diff(tt.blockers, p.Blockers); diff != "" || len(p.Move) != tt.moves || p.Gate != tt.gate {
				t.Errorf("%d moves, gate %s, blockers (-want +got):\n%s", len(p.Move), p.Gate, diff)
			}
		})
	}
	never := slurm
	never.Gate = nil
	if p := Make(Input{Now: now, Scope: ScopeNode, Classes: []v1alpha1.WorkloadClass{never}, Conditions: says("SlurmDrained", corev1.ConditionTrue),
		Pods: []corev1.Pod{pod("slurmd", "StatefulSet", labelled("app", "slurmd"))}}); len(p.Move) > 0 || p.Blockers[0].Reason != ReasonNever {
		t.Errorf("without a gate: %+v", p)
	}
}
