package agent

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/health"
)

func TestWhatCanOnlyBeResetTogetherIsPublished(t *testing.T) {
	domains := map[string]string{}
	b := newBench(t, func(o *Options) { o.ResetDomains = func() map[string]string { return domains } })
	b.check.does(func(context.Context) health.Result {
		return health.Result{Outcome: health.Passing, Devices: []v1alpha1.Device{{ID: "GPU-1", PCI: "0000:18:00.0"}, {ID: "GPU-2", PCI: "0000:28:00.0"}, {ID: "GPU-3"}}}
	})
	published := func() map[string]string {
		out := map[string]string{}
		for _, d := range b.server.get().Status.Devices {
			out[d.ID] = d.ResetDomain
		}
		return out
	}
	b.step(time.Minute)
	if diff := cmp.Diff(map[string]string{"GPU-1": "", "GPU-2": "", "GPU-3": ""}, published()); diff != "" {
		t.Errorf("while nothing is known (-want +got):\n%s", diff)
	}
	domains = map[string]string{"0000:18:00.0": "nvlink-a", "0000:28:00.0": "nvlink-a"}
	b.step(10 * time.Minute)
	if diff := cmp.Diff(map[string]string{"GPU-1": "nvlink-a", "GPU-2": "nvlink-a", "GPU-3": ""}, published()); diff != "" {
		t.Errorf("once it is known (-want +got):\n%s", diff)
	}
}
