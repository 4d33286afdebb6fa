package occupancy

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/decide"
)

// Claims are the devices that each pod was given through its ResourceClaims (KEP-4381).
type Claims map[types.UID][]resourcev1.DeviceRequestAllocationResult

// Holding maps pods to the devices that they hold. The names of the bad devices are those of when they were quarantined;
// the others only count.
func Holding(claims Claims, s *decide.Snapshot) map[types.UID][]string {
	ids := map[string]string{}
	for _, q := range s.Remediation.Status.Quarantined {
		if q.Kind == v1alpha1.QuarantineDeviceTaintRule {
			ids[deviceKey(q.Driver, q.Pool, q.Device)] = q.DeviceID
		}
	}
	for id, h := range s.Handles {
		ids[deviceKey(h.Driver, h.Pool, h.Device)] = id
	}
	drivers := driversOf(s)
	held := map[types.UID][]string{}
	for pod, results := range claims {
		for i := range results {
			if len(drivers) > 0 && !drivers[results[i].Driver] {
				continue // what another driver gives is no accelerator: a network card that comes with it.
			}
			key := deviceKey(results[i].Driver, results[i].Pool, results[i].Device)
			if id, ok := ids[key]; ok {
				key = id
			}
			held[pod] = append(held[pod], key)
		}
	}
	return held
}

// driversOf are the DRA drivers that offer the node's accelerators, as far as that is known.
func driversOf(s *decide.Snapshot) map[string]bool {
	drivers := map[string]bool{}
	for _, q := range s.Remediation.Status.Quarantined {
		if q.Kind == v1alpha1.QuarantineDeviceTaintRule {
			drivers[q.Driver] = true
		}
	}
	for id, h := range s.Handles {
		if s.Health != nil && slices.ContainsFunc(s.Health.Status.Devices, func(d v1alpha1.Device) bool { return d.ID == id }) {
			drivers[h.Driver] = true
		}
	}
	return drivers
}

func deviceKey(driver, pool, device string) string { return driver + "/" + pool + "/" + device }

// ClaimsOf are the names of a pod's ResourceClaims, made from templates or named outright.
func ClaimsOf(pod *corev1.Pod) []string {
	var names []string
	for _, c := range pod.Spec.ResourceClaims {
		if c.ResourceClaimName != nil {
			names = append(names, *c.ResourceClaimName)
		}
	}
	for _, c := range pod.Status.ResourceClaimStatuses {
		if c.ResourceClaimName != nil {
			names = append(names, *c.ResourceClaimName)
		}
	}
	if e := pod.Status.ExtendedResourceClaimStatus; e != nil {
		names = append(names, e.ResourceClaimName)
	}
	return names
}

// Given are the devices of a claim; those given for administration do no work and do not count.
func Given(c *resourcev1.ResourceClaim) []resourcev1.DeviceRequestAllocationResult {
	if c.Status.Allocation == nil {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(c.Status.Allocation.Devices.Results), func(given resourcev1.DeviceRequestAllocationResult) bool {
		return given.AdminAccess != nil && *given.AdminAccess
	})
}
