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
