package occupancy

import (
	resourcev1 "k8s.io/api/resource/v1"

	"github.com/roundhouse-dev/roundhouse/internal/decide"
)

// AttributeUUID is how DRA drivers of GPUs publish a device's identity (k8s-dra-driver-gpu, docs: "uuid").
const AttributeUUID = "uuid"

// Resolve finds each device of a node in its ResourceSlices by its UUID. Only the slices of a pool's newest generation
// count: those of an older one are stale, and their names may mean other devices now.
func Resolve(slices []resourcev1.ResourceSlice) map[string]decide.Handle {
	newest := map[string]int64{}
	for i := range slices {
		p := &slices[i].Spec.Pool
		newest[p.Name] = max(newest[p.Name], p.Generation)
	}
	found := map[string]decide.Handle{}
	for i := range slices {
		spec := &slices[i].Spec
		if spec.Pool.Generation != newest[spec.Pool.Name] {
			continue
		}
		for j := range spec.Devices {
			id := uuidOf(spec.Driver, spec.Devices[j].Attributes)
			if id == "" {
				continue
			}
			found[id] = decide.Handle{Offer: decide.OfferedByDRA, Driver: spec.Driver, Pool: spec.Pool.Name,
				Device: spec.Devices[j].Name, Generation: spec.Pool.Generation}
		}
	}
	return found
}

// uuidOf reads the identity of a device; attribute names without a domain are the driver's own (KEP-4381).
func uuidOf(driver string, attributes map[resourcev1.QualifiedName]resourcev1.DeviceAttribute) string {
	for _, name := range []resourcev1.QualifiedName{AttributeUUID, resourcev1.QualifiedName(driver + "/" + AttributeUUID)} {
		if a, ok := attributes[name]; ok && a.StringValue != nil {
			return *a.StringValue
		}
	}
	return ""
}
