package occupancy

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/decide"
)

func TestWhatDriversThemselvesSay(t *testing.T) {
	at := metav1.NewTime(time.Date(2026, 11, 23, 10, 2, 0, 0, time.UTC))
	slice := func(name string, generation int64, key string) resourcev1.ResourceSlice {
		return resourcev1.ResourceSlice{
			ObjectMeta: metav1.ObjectMeta{Name: name, CreationTimestamp: at},
			Spec: resourcev1.ResourceSliceSpec{Driver: "gpu.nvidia.com", Pool: resourcev1.ResourcePool{Name: "gpu-17", Generation: generation},
				Devices: []resourcev1.Device{
					{Name: "gpu-2", Attributes: map[resourcev1.QualifiedName]resourcev1.DeviceAttribute{"uuid": {StringValue: ptr.To("GPU-2")}}},
					{Name: "gpu-3", Attributes: map[resourcev1.QualifiedName]resourcev1.DeviceAttribute{"uuid": {StringValue: ptr.To("GPU-3")}},
						Taints: []resourcev1.DeviceTaint{{Key: key, Value: "79", Effect: resourcev1.DeviceTaintEffectNoSchedule}}},
				}},
		}
	}
	said := []decide.DriverTaint{{DeviceID: "GPU-3", Driver: "gpu.nvidia.com", Device: "gpu-3", Key: "gpu.nvidia.com/xid", Value: "79",
		Effect: resourcev1.DeviceTaintEffectNoSchedule, Since: at.Time}}
	for name, tc := range map[string]struct {
		slices []resourcev1.ResourceSlice
		want   []decide.DriverTaint
	}{
		"a taint of the device it is on":             {[]resourcev1.ResourceSlice{slice("a", 1, "gpu.nvidia.com/xid")}, said},
		"a taint with our key is never a signal":     {[]resourcev1.ResourceSlice{slice("a", 1, v1alpha1.DeviceTaintQuarantined)}, []decide.DriverTaint{}},
		"nor one of plan's":                          {[]resourcev1.ResourceSlice{slice("a", 1, "roundhouse.dev/plan")}, []decide.DriverTaint{}},
		"a slice of an older generation is not read": {[]resourcev1.ResourceSlice{slice("a", 1, "stale.example.com/xid"), slice("b", 2, "gpu.nvidia.com/xid")}, said},
		"no slice, which is not the same as no look": {nil, []decide.DriverTaint{}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, DriverTaints(tc.slices)); diff != "" {
				t.Error(diff)
			}
		})
	}
}
