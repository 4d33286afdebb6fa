package decide

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

// CheckAdoption is the check that the root of an adopted incident names.
const CheckAdoption = "adoption"

// Adopt makes an incident of something of ours that is on a node or a device and belongs to none: its Remediation was
// removed by force, or lost in a restore. Nobody knows any more why it was put on, so it stays on, and a human is asked.
func Adopt(name string, node *corev1.Node, intents []v1alpha1.QuarantineIntent, now time.Time) *v1alpha1.Remediation {
	rem := &v1alpha1.Remediation{
		ObjectMeta: metav1.ObjectMeta{Name: name, Finalizers: []string{v1alpha1.FinalizerRemediation}},
		Spec: v1alpha1.RemediationSpec{
			Node: node.Name, NodeUID: string(node.UID), Cause: v1alpha1.CauseFaults, Quarantine: intents,
			Root: v1alpha1.RootFault{Code: "Adopted", Check: CheckAdoption, FirstSeen: metav1.NewTime(now)},
		},
	}
	for _, q := range intents {
		if q.DeviceID != "" {
			rem.Spec.Devices = append(rem.Spec.Devices, q.DeviceID)
		}
	}
	return rem
}

// adopted leaves an adopted incident to a human, as long as something is on.
func adopted(s *Snapshot) *Decision {
	if s.Remediation.Spec.Root.Check != CheckAdoption || !s.anythingOn() {
		return nil
	}
	return escalate(ReasonAdopted, "found on the node without the Remediation that put it there; nobody knows why any more", wayOut)
}
