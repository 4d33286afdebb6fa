package remediation

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

func TestADeviceThatIsNotOfferedAnyMoreIsRepaired(t *testing.T) {
	dropped := aNode()
	dropped.Status.Capacity = corev1.ResourceList{"nvidia.com/gpu": resource.MustParse("2")}
	dropped.Status.Allocatable = corev1.ResourceList{"nvidia.com/gpu": resource.MustParse("1")}
	slice := pool(2, "GPU-1")
	for name, objects := range map[string][]client.Object{
		"its plugin has dropped it":             {dropped, aPolicy(), aHealth(aFault("Xid79", bad)), aBudget("a", "a")},
		"its ResourceSlice does not list it":    {aNode(), aPolicy(), aHealth(aFault("Xid79", bad)), aBudget("a", "a"), &slice},
		"it is offered, and a rule goes before": faulty(aFault("Xid79", bad)),
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, objects...)
			c.turns(2, time.Minute)
			if st := c.incident().Status; st.Phase != v1alpha1.PhaseRepairing || c.health().Spec.Action == nil {
				t.Errorf("%s, %s: %s; asked %v", st.Phase, st.Reason, st.Message, c.health().Spec.Action)
			}
		})
	}
}
