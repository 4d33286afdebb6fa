package plan

import (
	"testing"

	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

// TestAPlanNamesWhatADriverItselfTaints has a rule name the taint: the plan is of the incident that it would begin.
func TestAPlanNamesWhatADriverItselfTaints(t *testing.T) {
	s := node()
	since := metav1.NewTime(now.Add(-60))
	s.Slices[0].Spec.Devices[6].Taints = []resourcev1.DeviceTaint{
		{Key: "gpu.example.com/xid", Value: "79", Effect: resourcev1.DeviceTaintEffectNoExecute, TimeAdded: &since}}
	rules := &s.Policies[0].Spec.Rules
	*rules = append([]v1alpha1.Rule{{Name: "driver-says", Response: v1alpha1.ResponseRepair, Ladder: []string{"reboot"},
		Match: v1alpha1.RuleMatch{DeviceTaints: []v1alpha1.DeviceTaintMatch{{Key: "gpu.example.com/xid"}}}}}, *rules...)
	p, err := Make(s)
	if err != nil {
		t.Fatal(err)
	}
	const said = "the DRA driver gpu.example.com itself taints gpu-6: gpu.example.com/xid=79:NoExecute (it evicts the device's pods past every PodDisruptionBudget)"
	if len(p.ByDriver) != 1 || p.ByDriver[0].Text != said {
		t.Errorf("%+v", p.ByDriver)
	}
	if p.Assuming != "the incident that the controller would open about DeviceTaint/gpu.example.com/xid=79" || len(p.Devices) != 1 || p.Devices[0].ID != id(6) {
		t.Errorf("%s, %+v", p.Assuming, p.Devices)
	}
}
