package explain

import (
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/cli/text"
	"github.com/roundhouse-dev/roundhouse/internal/decide"
	"github.com/roundhouse-dev/roundhouse/internal/occupancy"
)

// driverTaints are the taints that DRA drivers themselves have on the node's devices.
func (s *Snapshot) driverTaints() []decide.DriverTaint { return occupancy.DriverTaints(s.Slices) }

// byDriver says which devices their DRA driver itself taints, those first that it keeps from new pods.
func (s *Snapshot) byDriver() []Fact {
	taints := s.driverTaints()
	slices.SortStableFunc(taints, func(a, b decide.DriverTaint) int {
		switch {
		case a.KeepsOut() == b.KeepsOut():
			return 0
		case a.KeepsOut():
			return -1
		}
		return 1
	})
	var out []Fact
	for i, t := range taints {
		if i == maxDevices {
			return append(out, Fact{Text: "and " + text.Count(len(taints)-i, "more taint of a driver's", "more taints of drivers'") +
				": kubectl get resourceslices --field-selector spec.nodeName=" + s.Name + " -o yaml"})
		}
		since := metav1.NewTime(t.Since)
		out = append(out, Fact{Text: text.Clean(t.Text()), Since: &since})
	}
	return out
}

// keptByDriver says whether a device's driver itself keeps new pods off it.
func (s *Snapshot) keptByDriver(id string) bool {
	return slices.ContainsFunc(s.driverTaints(), func(t decide.DriverTaint) bool { return t.DeviceID == id && t.KeepsOut() })
}

// notBack says that a device is not in service for all that an incident says, where its driver still taints it.
func (s *Snapshot) notBack(r *v1alpha1.Remediation, w *Why) string {
	if r == nil || w.Phase != v1alpha1.PhaseProbation && w.Phase != v1alpha1.PhaseSucceeded {
		return ""
	}
	for _, id := range r.Spec.Devices {
		if s.keptByDriver(id) {
			return Name(s.device(r, id)) + " is not back in service: only its DRA driver takes its own taint off, often when it starts anew"
		}
	}
	return ""
}

// ByDriver says it to an answer that builds on this snapshot.
func (s *Snapshot) ByDriver() []Fact { return s.byDriver() }
