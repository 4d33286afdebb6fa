package decide

import (
	"testing"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

// TestAdoptedNodeStaysOutWhileADeviceIsBad: nobody knows why the node was kept out, and the policy asks nothing for what is
// wrong with it; it is given back by its being well as a whole, or by a human.
func TestAdoptedNodeStaysOutWhileADeviceIsBad(t *testing.T) {
	w := newWorld(t)
	w.rem = Adopt("gpu-17-adopted", w.node, []v1alpha1.QuarantineIntent{{Kind: v1alpha1.QuarantineNodeTaint, Name: v1alpha1.TaintQuarantined}}, w.now)
	w.taint(true)
	w.fault("Xid79", bad)
	w.policy.Spec.Rules = nil
	for range 3 {
		w.run()
		if st := w.rem.Status; st.Phase != v1alpha1.PhaseEscalated || st.Reason != ReasonAdopted {
			t.Fatalf("%s/%s: %s", st.Phase, st.Reason, st.Message)
		}
	}
	w.clear()
	w.run()
	if st := w.rem.Status; st.Phase != v1alpha1.PhaseVerifying {
		t.Errorf("all is well, and it is %s/%s: %s", st.Phase, st.Reason, st.Message)
	}
}
