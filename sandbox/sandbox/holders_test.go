package sandbox

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/sandbox/fleet"
	"github.com/roundhouse-dev/roundhouse/sandbox/workload"
)

// Three Jobs have six of a node's eight GPUs by device plugin: the API server knows of six, and not of which.
func TestTheAgentFindsWhoHoldsABadDeviceOfAPlugin(t *testing.T) {
	const node = "gpu-06"
	start(t, workload.Workload{Kind: workload.Jobs, Name: "by-plugin", Count: 3, GPUs: 2, DevicePlugin: true, Node: node})
	told := func(want func(st *v1alpha1.NodeHealthStatus) bool) func(ctx context.Context) (bool, error) {
		return func(ctx context.Context) (bool, error) {
			h, err := health(ctx, shared, node)
			if err != nil {
				return false, err
			}
			st := &h.Status
			return st.HoldersAt != nil && want(st), fmt.Errorf("%d faults; %v at %v, unknown %q", len(st.Faults), st.Holders, st.HoldersAt, st.HoldersUnknown)
		}
	}
	held, ok := shared.Fleet().DeviceID(node, 0)
	if !ok {
		t.Fatal("no device")
	}
	inject(t, shared, fleet.Injection{Fault: "xid79", Node: node, Device: 0, HealsAfter: 1})
	took := eventually(t, 5*time.Second, "one pod holds the device in slot 0", told(func(st *v1alpha1.NodeHealthStatus) bool {
		return len(st.Holders) == 1 && st.Holders[0].Device == held && st.Holders[0].Namespace == "ml" &&
			strings.HasPrefix(st.Holders[0].Pod, "by-plugin-") && st.Holders[0].Container == "main" && st.HoldersUnknown == ""
	}))
	t.Logf("known %s after the fault", took)
	restart(t, node)
	eventually(t, 15*time.Second, "nothing is told of a node that is well", func(ctx context.Context) (bool, error) {
		h, err := health(ctx, shared, node)
		return err == nil && h.Status.Summary == v1alpha1.SummaryHealthy && h.Status.HoldersAt == nil && h.Status.Holders == nil, err
	})
	inject(t, shared, fleet.Injection{Fault: "xid79", Node: node, Device: 7, HealsAfter: 1})
	eventually(t, 5*time.Second, "nobody holds the device in slot 7, and that is known", told(func(st *v1alpha1.NodeHealthStatus) bool {
		return len(st.Holders) == 0 && st.HoldersUnknown == ""
	}))
	restart(t, node)
}
