package occupancy

import (
	"strings"

	resourcev1 "k8s.io/api/resource/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/decide"
)

// AttributeUUID is how DRA drivers of GPUs publish a device's identity (k8s-dra-driver-gpu, docs: "uuid").
const AttributeUUID = "uuid"

// Resolve finds each device of a node in its ResourceSlices by its UUID. Only the slices of a pool's newest generation
// count: those of an older one are stale, and their names may mean other devices now.
func Resolve(slices []resourcev1.ResourceSlice) map[string]decide.Handle {
	found := map[string]decide.Handle{}
	for _, slice := range current(slices) {
		spec := &slice.Spec
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

// current are the slices of each pool's newest generation.
func current(slices []resourcev1.ResourceSlice) []*resourcev1.ResourceSlice {
	newest := map[string]int64{}
	for i := range slices {
		p := &slices[i].Spec.Pool
		newest[p.Name] = max(newest[p.Name], p.Generation)
	}
	var out []*resourcev1.ResourceSlice
	for i := range slices {
		if p := &slices[i].Spec.Pool; p.Generation == newest[p.Name] {
			out = append(out, &slices[i])
		}
	}
	return out
}

// DriverTaints are the taints that DRA drivers themselves have put on the devices of a node; never nil. Those of a
// DeviceTaintRule, ours among them, are in no slice: the scheduler merges them when it reads (KEP-5055).
func DriverTaints(slices []resourcev1.ResourceSlice) []decide.DriverTaint {
	out := []decide.DriverTaint{}
	for _, slice := range current(slices) {
		out = append(out, TaintsOf(slice)...)
	}
	return out
}

// TaintsOf are those of one slice. One with a key of ours is none of a driver's, whoever wrote it there.
func TaintsOf(slice *resourcev1.ResourceSlice) []decide.DriverTaint {
	var out []decide.DriverTaint
	for i := range slice.Spec.Devices {
		device := &slice.Spec.Devices[i]
		for _, t := range device.Taints {
			if strings.HasPrefix(t.Key, v1alpha1.OwnDomain+"/") {
				continue
			}
			since := slice.CreationTimestamp
			if t.TimeAdded != nil {
				since = *t.TimeAdded
			}
			out = append(out, decide.DriverTaint{DeviceID: uuidOf(slice.Spec.Driver, device.Attributes), Driver: slice.Spec.Driver,
				Device: device.Name, Key: t.Key, Value: t.Value, Effect: t.Effect, Since: since.Time})
		}
	}
	return out
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
