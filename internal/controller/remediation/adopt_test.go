package remediation

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

// A node's taint and claim may be two incidents', in whatever order they are met.
func TestWhatNobodyOwnsIsAdoptedBesideWhatSomebodyOwns(t *testing.T) {
	for range 20 {
		node := aNode()
		node.Annotations = map[string]string{v1alpha1.AnnotationClaim: "gone/uid"}
		node.Spec.Taints = []corev1.Taint{{Key: v1alpha1.TaintQuarantined, Value: "there", Effect: corev1.TaintEffectNoSchedule}}
		there := &v1alpha1.Remediation{ObjectMeta: metav1.ObjectMeta{Name: "there"}, Spec: v1alpha1.RemediationSpec{Node: "n"}}
		c := newCluster(t, node, there)
		c.must((&adopter{Options: c.Options}).adopt(t.Context()))
		if n := len(c.incidents()); n != 2 {
			t.Fatalf("%d incidents, want the one that was there and the one that was adopted", n)
		}
	}
}

// A process whose cache was behind has put them on after another had ended the incident, and was killed.
func TestWhatWasPutOnTooLateComesOff(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*v1alpha1.Remediation)
		off    bool
	}{
		"it is over and let go of":    {func(*v1alpha1.Remediation) {}, true},
		"it is not let go of yet":     {func(rem *v1alpha1.Remediation) { rem.Finalizers = []string{v1alpha1.FinalizerRemediation} }, false},
		"it waits for a human":        {func(rem *v1alpha1.Remediation) { rem.Status.Phase = v1alpha1.PhaseEscalated }, false},
		"the claim is of a later one": {func(rem *v1alpha1.Remediation) { rem.UID = "later" }, false},
	} {
		t.Run(name, func(t *testing.T) {
			node := aNode()
			node.Annotations = map[string]string{v1alpha1.AnnotationClaim: "inc/i"}
			rem := &v1alpha1.Remediation{ObjectMeta: metav1.ObjectMeta{Name: "inc", UID: "i"}, Spec: v1alpha1.RemediationSpec{Node: "n"},
				Status: v1alpha1.RemediationStatus{Phase: v1alpha1.PhaseSucceeded}}
			tc.change(rem)
			rule := ruleOn("gpu-0")
			rule.Annotations = map[string]string{v1alpha1.AnnotationNode: "n"}
			if rem.UID == "i" {
				node.Spec.Taints = []corev1.Taint{taint(rem)}
			} else {
				rule.Labels = nil
			}
			c := newCluster(t, node, rem, rule)
			c.must((&adopter{Options: c.Options}).adopt(t.Context()))
			node = c.node()
			if off := len(node.Annotations)+len(node.Spec.Taints)+len(c.rules()) == 0; off != tc.off {
				t.Errorf("on are %v %v %v", node.Annotations, node.Spec.Taints, c.rules())
			}
		})
	}
}
