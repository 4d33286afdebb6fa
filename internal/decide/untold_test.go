package decide

import (
	"strings"
	"testing"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/drain"
)

// A device plugin takes no word about a single device, and may not tell who holds which: what cannot be promised is said.
func TestWhatCannotBePromisedIsSaid(t *testing.T) {
	node := []v1alpha1.QuarantineIntent{{Kind: v1alpha1.QuarantineNodeTaint, Name: v1alpha1.TaintQuarantined}}
	untold := &drain.Plan{Untold: 2, UntoldWhy: "no kubelet socket /x"}
	for name, tc := range map[string]struct {
		snapshot Snapshot
		text     func(*Snapshot) string
		want     string
	}{
		"a whole node is kept out for a plugin's device": {
			Snapshot{Otherwise: OfferedByPlugin, Remediation: &v1alpha1.Remediation{Spec: v1alpha1.RemediationSpec{Devices: []string{"GPU-1"}, Quarantine: node}}},
			(*Snapshot).quarantineText, "new work is kept off the node, since nobody can tell its device plugin which device to keep back; what runs goes on",
		},
		"a whole node is kept out for its own fault": {
			Snapshot{Otherwise: OfferedByPlugin, Remediation: &v1alpha1.Remediation{Spec: v1alpha1.RemediationSpec{Quarantine: node}}},
			(*Snapshot).quarantineText, "new work is kept off the node; what runs goes on",
		},
		"pods whose devices nobody can tell stay": {
			Snapshot{Remediation: &v1alpha1.Remediation{Spec: v1alpha1.RemediationSpec{Devices: []string{"GPU-1"}}}},
			func(s *Snapshot) string { return s.drainText(drain.ScopeDevice, *untold) },
			"moving 0 pods off 1 bad device; 0 stay; of 2 pods nobody can tell whether they hold a bad device, and they are left alone (no kubelet socket /x)",
		},
		"they are no holders that have gone": {
			Snapshot{DevicePlan: untold, Remediation: &v1alpha1.Remediation{}}, (*Snapshot).deviceDrainedText, "no pod is known to hold a bad device any more; of 2 pods",
		},
		"nobody holds it": {
			Snapshot{DevicePlan: &drain.Plan{}, Remediation: &v1alpha1.Remediation{}}, (*Snapshot).deviceDrainedText, "no pod holds a bad device any more; the others were not touched",
		},
		"what would be done": {
			Snapshot{DevicePlan: untold, Remediation: &v1alpha1.Remediation{Spec: v1alpha1.RemediationSpec{Devices: []string{"GPU-1"}}}},
			func(s *Snapshot) string { return strings.Join(s.wouldMove(), "") }, "move 0 pods; of 2 pods nobody can tell",
		},
		"a plan that moves nobody is not told": {
			Snapshot{DevicePlan: &drain.Plan{}, Remediation: &v1alpha1.Remediation{Spec: v1alpha1.RemediationSpec{Devices: []string{"GPU-1"}}}},
			func(s *Snapshot) string { return strings.Join(s.wouldMove(), "") + "." }, ".",
		},
	} {
		t.Run(name, func(t *testing.T) {
			if got := tc.text(&tc.snapshot); !strings.HasPrefix(got, tc.want) {
				t.Errorf("%q, want %q", got, tc.want)
			}
		})
	}
}
