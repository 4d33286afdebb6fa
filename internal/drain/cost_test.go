package drain

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

// asks is a class with an expression.
func asks(name, expression string, cost v1alpha1.InterruptionCost) v1alpha1.WorkloadClass {
	return v1alpha1.WorkloadClass{Name: name, Cost: cost, Match: v1alpha1.WorkloadMatch{Expression: expression}}
}

// TestAnExpressionIsOneFieldOfAMatch: answers are given by class, and an answer that nobody should ask for is an error.
func TestAnExpressionIsOneFieldOfAMatch(t *testing.T) {
	failed := errors.New("no such key: app")
	never := asks("kept", "x", v1alpha1.CostNever)
	elsewhere := asks("elsewhere", "x", v1alpha1.CostFree)
	elsewhere.Match.Namespaces = []string{"other"}
	plain := v1alpha1.WorkloadClass{Name: "plain", Cost: v1alpha1.CostDear, Match: v1alpha1.WorkloadMatch{Namespaces: []string{"ml"}}}
	for name, tc := range map[string]struct {
		classes []v1alpha1.WorkloadClass
		answers []any // a bool, an error, or nil where it must not be asked
		cost    v1alpha1.InterruptionCost
		class   string
		untold  error
	}{
		"it says yes": {[]v1alpha1.WorkloadClass{asks("c", "x", v1alpha1.CostFree)}, []any{true}, v1alpha1.CostFree, "c", nil},
		"it says no":  {[]v1alpha1.WorkloadClass{asks("c", "x", v1alpha1.CostFree)}, []any{false}, v1alpha1.CostCheap, defaultReplicated, nil},
		"it says no, and the next class is asked":         {[]v1alpha1.WorkloadClass{asks("c", "x", v1alpha1.CostFree), never}, []any{false, true}, v1alpha1.CostNever, "kept", nil},
		"it says yes, and the next class is not":          {[]v1alpha1.WorkloadClass{asks("c", "x", v1alpha1.CostFree), never}, []any{true, nil}, v1alpha1.CostFree, "c", nil},
		"it fails: the pod is taken for what stays":       {[]v1alpha1.WorkloadClass{asks("c", "x", v1alpha1.CostFree)}, []any{failed}, v1alpha1.CostNever, "c", failed},
		"it fails, and no class after it is tried":        {[]v1alpha1.WorkloadClass{asks("c", "x", v1alpha1.CostFree), plain}, []any{failed, nil}, v1alpha1.CostNever, "c", failed},
		"a class before it needs no answer":               {[]v1alpha1.WorkloadClass{plain, asks("c", "x", v1alpha1.CostFree)}, []any{nil, nil}, v1alpha1.CostDear, "plain", nil},
		"another field says no before it would be asked":  {[]v1alpha1.WorkloadClass{elsewhere, plain}, []any{nil, nil}, v1alpha1.CostDear, "plain", nil},
		"nobody can evaluate it: nothing is taken for no": {[]v1alpha1.WorkloadClass{asks("c", "x", v1alpha1.CostFree)}, nil, v1alpha1.CostNever, "c", errNotAsked},
	} {
		t.Run(name, func(t *testing.T) {
			var says Says
			if tc.answers != nil {
				says = func(class int, pod *corev1.Pod, namespace map[string]string) (bool, error) {
					if namespace["of"] != "ml" {
						t.Errorf("asked with the labels %v", namespace)
					}
					switch answer := tc.answers[class].(type) {
					case bool:
						return answer, nil
					case error:
						return false, answer
					}
					t.Errorf("class %d was asked about %s", class, pod.Name)
					return false, nil
				}
			}
			p := pod("p", "ReplicaSet")
			cost, class, untold := costOf(&p, compile(&Input{Classes: tc.classes, Says: says,
				Namespaces: map[string]map[string]string{"ml": {"of": "ml"}, "other": {"of": "other"}}}))
			if cost != tc.cost || class != tc.class || !errors.Is(untold, tc.untold) {
				t.Errorf("%s by %s, %v; want %s by %s, %v", cost, class, untold, tc.cost, tc.class, tc.untold)
			}
		})
	}
}

// TestAGateIsForThePodsOfItsClass: a pod that may be of the class, and may be of another, is not moved by the class's gate.
func TestAGateIsForThePodsOfItsClass(t *testing.T) {
	slurm := asks("slurm", "x", v1alpha1.CostNever)
	slurm.Gate = &v1alpha1.WorkloadGate{NodeCondition: "SlurmDrained", Deadline: metav1.Duration{Duration: 6 * time.Hour}}
	p := Make(Input{Now: now, Scope: ScopeNode, Classes: []v1alpha1.WorkloadClass{slurm}, Pods: []corev1.Pod{pod("p", "ReplicaSet")},
		Conditions: []corev1.NodeCondition{{Type: "SlurmDrained", Status: corev1.ConditionTrue}},
		Says: func(int, *corev1.Pod, map[string]string) (bool, error) {
			return false, errors.New(strings.Repeat("é", 300))
		}})
	text := "class slurm may be meant for it, so only a human stops it: "
	want := []v1alpha1.Blocker{{Pod: "ml/p", Reason: ReasonClassUntold, Message: text + strings.Repeat("é", (maxMessage-len(text))/2)}}
	if diff := cmp.Diff(want, p.Blockers); diff != "" || len(p.Move) > 0 || p.Gate != 0 {
		t.Errorf("%d moves, gate %s, blockers (-want +got):\n%s", len(p.Move), p.Gate, diff)
	}
}
