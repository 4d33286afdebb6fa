package evict

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
)

func TestBudgetsThatNobodyButAHumanMoves(t *testing.T) {
	bound := func(s string) *intstr.IntOrString { v := intstr.Parse(s); return &v }
	status := func(expected, desired, current int32) func(*policyv1.PodDisruptionBudget) {
		return func(b *policyv1.PodDisruptionBudget) {
			b.Status.ExpectedPods, b.Status.DesiredHealthy, b.Status.CurrentHealthy = expected, desired, current
		}
	}
	all := func(changes ...func(*policyv1.PodDisruptionBudget)) func(*policyv1.PodDisruptionBudget) {
		return func(b *policyv1.PodDisruptionBudget) {
			for _, c := range changes {
				c(b)
			}
		}
	}
	policy := func(p policyv1.UnhealthyPodEvictionPolicyType) func(*policyv1.PodDisruptionBudget) {
		return func(b *policyv1.PodDisruptionBudget) { b.Spec.UnhealthyPodEvictionPolicy = &p }
	}
	tests := map[string]struct {
		change func(*policyv1.PodDisruptionBudget)
		ready  bool
		want   string // empty: it may pass
	}{
		"maxUnavailable 0":              {func(b *policyv1.PodDisruptionBudget) { b.Spec.MaxUnavailable = bound("0") }, true, "PodDisruptionBudget web never allows an eviction: its maxUnavailable is 0"},
		"maxUnavailable 0%":             {func(b *policyv1.PodDisruptionBudget) { b.Spec.MaxUnavailable = bound("0%") }, true, "its maxUnavailable is 0%"},
		"maxUnavailable 1, used up":     {all(status(3, 2, 2), func(b *policyv1.PodDisruptionBudget) { b.Spec.MaxUnavailable = bound("1") }), true, ""},
		"minAvailable of all":           {status(3, 3, 3), true, "it asks for 3 healthy pods, and there are to be 3"},
		"minAvailable of more than all": {status(1, 2, 1), true, "it asks for 2 healthy pods, and there are to be 1"},
		"minAvailable of fewer":         {status(3, 2, 2), true, ""},
		"no pods expected yet":          {status(0, 0, 0), true, ""},
		"a status of an older spec":     {all(status(3, 3, 3), func(b *policyv1.PodDisruptionBudget) { b.Generation = 5 }), true, ""},
		"pods that cannot be counted": {func(b *policyv1.PodDisruptionBudget) {
			b.Status.Conditions = []metav1.Condition{{Type: policyv1.DisruptionAllowedCondition, Status: metav1.ConditionFalse,
				Reason: policyv1.SyncFailedReason, Message: "found no controller ref for pod \"a\""}}
		}, true, "cannot be counted: found no controller ref"},
		"pods that are too few now": {func(b *policyv1.PodDisruptionBudget) {
			b.Status.Conditions = []metav1.Condition{{Type: policyv1.DisruptionAllowedCondition, Status: metav1.ConditionFalse, Reason: policyv1.InsufficientPodsReason}}
		}, true, ""},
		"a pod that is not ready, of an application that is not either": {status(3, 2, 1), false,
			"keeps this pod, which is not ready, for as long as fewer than 2 of its pods are (1 now): unhealthyPodEvictionPolicy AlwaysAllow"},
		"a pod that is not ready, and enough others are": {status(3, 2, 2), false, ""},
		"where unhealthy pods may always go":             {all(status(3, 2, 1), policy(policyv1.AlwaysAllow)), false, ""},
		"where they may go from a healthy application":   {all(status(3, 2, 1), policy(policyv1.IfHealthyBudget)), false, "AlwaysAllow would let it go"},
		"a ready pod of an application that is not":      {status(3, 2, 1), true, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			b := &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Name: "web"}}
			tt.change(b)
			pod := newPod()
			if tt.ready {
				pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
			}
			got := Stuck(b, pod)
			if (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// The budget is read where it refuses, and only there.
func TestARefusalSaysWhetherItWillLast(t *testing.T) {
	refused := failure(429, metav1.StatusReasonTooManyRequests, "no", byBudget("The disruption budget b needs 1 healthy pods and has 1 currently", 0))
	budget := policyv1.PodDisruptionBudget{TypeMeta: metav1.TypeMeta{APIVersion: "policy/v1", Kind: "PodDisruptionBudget"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "ml", Name: "b"}, Spec: policyv1.PodDisruptionBudgetSpec{MinAvailable: ptr.To(intstr.FromInt32(1))},
		Status: policyv1.PodDisruptionBudgetStatus{ExpectedPods: 1, DesiredHealthy: 1, CurrentHealthy: 1}}
	for name, tt := range map[string]struct {
		how   How
		found bool
		want  string
	}{
		"it will":                              {How{}, true, "PodDisruptionBudget b never allows an eviction: it asks for 1 healthy pods, and there are to be 1"},
		"nobody knows, where it has just gone": {How{}, false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := &server{status: 429, answer: refused}
			if tt.found {
				s.budget = &budget
			}
			got, err := Evictor{Client: newClient(t, s)}.Evict(t.Context(), newPod(), tt.how)
			if err != nil || got.Kind != Blocked || got.Stuck != tt.want {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
}
