package sandbox

import (
	"context"
	"fmt"
	"testing"
	"time"

	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/roundhouse-dev/roundhouse/sandbox/fleet"
)

// TestADriversOwnTaintStandsUntilItStartsAnew has the simulated DRA driver taint a device, and republish for another's sake.
func TestADriversOwnTaintStandsUntilItStartsAnew(t *testing.T) {
	const node = "gpu-01"
	var since *metav1.Time
	tainted := func(want bool, devices int) func(context.Context) (bool, error) {
		return func(ctx context.Context) (bool, error) {
			slice := &resourcev1.ResourceSlice{}
			if err := shared.Client().Get(ctx, types.NamespacedName{Name: node + "-" + fleet.Driver}, slice); err != nil {
				return false, err
			}
			var on []resourcev1.DeviceTaint
			for _, d := range slice.Spec.Devices {
				if len(d.Taints) > 0 && d.Name != "gpu-3" {
					return false, fmt.Errorf("%s is tainted: %v", d.Name, d.Taints)
				}
				on = append(on, d.Taints...)
			}
			if len(on) == 1 && since == nil {
				since = on[0].TimeAdded
			}
			ok := len(slice.Spec.Devices) == devices && (len(on) == 1) == want
			return ok && (!want || on[0].Key == fleet.DriverTaint && on[0].TimeAdded.Equal(since)), fmt.Errorf("%d devices, taints %v, first since %s", len(slice.Spec.Devices), on, since)
		}
	}
	inject(t, shared, fleet.Injection{Fault: "driver-taint", Node: node, Device: 3})
	eventually(t, 5*time.Second, "it is tainted", tainted(true, 8))
	eventually(t, 5*time.Second, "another time would show, to the second", func(context.Context) (bool, error) {
		return time.Since(since.Time) > time.Second, nil
	})
	inject(t, shared, fleet.Injection{Fault: "device-missing", Node: node, Device: 5})
	eventually(t, 15*time.Second, "it is tainted still, since the same time", tainted(true, 7))
	inject(t, shared, fleet.Injection{Fault: "driver-restart", Node: node})
	eventually(t, 5*time.Second, "the driver has forgotten", tainted(false, 7))
	inject(t, shared, fleet.Injection{Fault: "heal", Node: node})
	eventually(t, 15*time.Second, "all devices are there", tainted(false, 8))
}
