package occupancy

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/decide"
)

func TestWhatAPodHolds(t *testing.T) {
	given := func(driver, device string) resourcev1.DeviceRequestAllocationResult {
		return resourcev1.DeviceRequestAllocationResult{Driver: driver, Pool: "gpu-17", Device: device}
	}
	claims := Claims{
		"with-nic": {given("gpu.example.com", "gpu-3"), given("nic.example.com", "nic-0")},
		"two":      {given("gpu.example.com", "gpu-3"), given("gpu.example.com", "gpu-4")},
		"nic":      {given("nic.example.com", "nic-1")},
	}
	rem := &v1alpha1.Remediation{Status: v1alpha1.RemediationStatus{Quarantined: []v1alpha1.Quarantined{
		{Kind: v1alpha1.QuarantineDeviceTaintRule, DeviceID: "GPU-3", Driver: "gpu.example.com", Pool: "gpu-17", Device: "gpu-3"},
	}}}
	health := &v1alpha1.NodeHealth{Status: v1alpha1.NodeHealthStatus{Devices: []v1alpha1.Device{{ID: "GPU-3"}}}}
	handle := decide.Handle{Offer: decide.OfferedByDRA, Driver: "gpu.example.com", Pool: "gpu-17", Device: "gpu-3"}
	good := "gpu.example.com/gpu-17/gpu-4"
	for name, tc := range map[string]struct {
		s    *decide.Snapshot
		want map[types.UID][]string
	}{
		"another driver's devices are no accelerators": {
			&decide.Snapshot{Remediation: rem},
			map[types.UID][]string{"with-nic": {"GPU-3"}, "two": {"GPU-3", good}},
		},
		"nor where the accelerators are known by their ResourceSlice": {
			&decide.Snapshot{Remediation: &v1alpha1.Remediation{}, Health: health,
				Handles: map[string]decide.Handle{"GPU-3": handle, "a card": {Driver: "nic.example.com", Pool: "gpu-17", Device: "nic-7"}}},
			map[types.UID][]string{"with-nic": {"GPU-3"}, "two": {"GPU-3", good}},
		},
		"where no driver is known, each counts": {
			&decide.Snapshot{Remediation: &v1alpha1.Remediation{}},
			map[types.UID][]string{"with-nic": {"gpu.example.com/gpu-17/gpu-3", "nic.example.com/gpu-17/nic-0"},
				"two": {"gpu.example.com/gpu-17/gpu-3", good}, "nic": {"nic.example.com/gpu-17/nic-1"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, Holding(claims, tc.s)); diff != "" {
				t.Error(diff)
			}
		})
	}
}
