package past

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/cli/text"
)

var now = time.Date(2026, 11, 23, 1, 14, 0, 0, time.UTC)

func ago(d time.Duration) metav1.Time { return metav1.NewTime(now.Add(-d)) }

func snapshot() Snapshot {
	ended := ago(100 * time.Hour)
	timeline := []v1alpha1.TimelineEntry{
		{At: ago(14 * time.Minute), Phase: v1alpha1.PhasePending, Reason: "FaultsReported", Message: "Xid79 on slot 3"},
		{At: ago(10 * time.Minute), Phase: v1alpha1.PhaseDraining, Reason: "DrainStarted"},
	}
	rem := func(name string, began time.Duration, phase v1alpha1.Phase, since *metav1.Time) v1alpha1.Remediation {
		return v1alpha1.Remediation{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec:       v1alpha1.RemediationSpec{Node: "gpu-0417", Root: v1alpha1.RootFault{Code: "Xid79", Device: "GPU-6a", FirstSeen: ago(began)}},
			Status: v1alpha1.RemediationStatus{
				Phase: phase, Since: since, Timeline: timeline,
				Attempts: []v1alpha1.Attempt{{Rung: "reboot", Result: v1alpha1.AttemptRelapsed}},
			},
		}
	}
	older := ago(800 * time.Hour)
	return Snapshot{
		Now: now, Of: "gpu-0417", Node: "gpu-0417",
		Remediations: []v1alpha1.Remediation{rem("gpu-0417-old", 103*time.Hour, v1alpha1.PhaseSucceeded, &ended), rem("gpu-0417-new", 14*time.Minute, v1alpha1.PhaseDraining, nil)},
		Records: []v1alpha1.DeviceRecord{{
			ObjectMeta: metav1.ObjectMeta{Name: "gpu-6a"},
			Spec:       v1alpha1.DeviceRecordSpec{RMA: v1alpha1.RMA{State: v1alpha1.RMARequested}},
			Status: v1alpha1.DeviceRecordStatus{
				Identity: v1alpha1.DeviceIdentity{UUID: "GPU-6a", Serial: "1324", Model: "H200"},
				Places:   []v1alpha1.Place{{Node: "gpu-0001", Slot: "1", From: ago(2000 * time.Hour)}, {Node: "gpu-0417", Slot: "3", From: ago(900 * time.Hour)}},
				Incidents: []v1alpha1.DeviceIncident{
					{Remediation: "elsewhere", Code: "Xid48", At: ago(1000 * time.Hour), Outcome: v1alpha1.PhaseSucceeded},
					{Remediation: "forgotten", Code: "Xid48", At: ago(802 * time.Hour), Ended: &older, Outcome: v1alpha1.PhaseSucceeded, RepairedBy: "reboot", Relapses: 1},
					{Remediation: "gpu-0417-old", Code: "Xid79", At: ago(103 * time.Hour)},
				},
				Totals: v1alpha1.DeviceTotals{Incidents: 4, Repairs: 3, Relapses: 2, OutHours: "7.50"}, Suspicion: &v1alpha1.Suspicion{Level: "Lemon", Because: []string{"4 incidents in 28 days"}},
			},
		}},
		Health: &v1alpha1.NodeHealth{Status: v1alpha1.NodeHealthStatus{Boots: []v1alpha1.Boot{
			{ID: "b0", At: ago(300 * time.Hour), Cause: v1alpha1.BootByOther}, {ID: "b1", At: ago(time.Hour), Cause: v1alpha1.BootByRoundhouse, Action: "gpu-0417-old-1"},
		}}},
	}
}

func names(h History) []string {
	var out []string
	for _, in := range h.Incidents {
		out = append(out, in.Remediation)
	}
	return out
}

func TestTell(t *testing.T) {
	device := snapshot()
	device.Node, device.Of = "", "GPU-6a"
	for name, c := range map[string]struct {
		s    Snapshot
		want []string
	}{
		"a node's history has its incidents once each, newest first, and not those its device had elsewhere": {
			snapshot(), []string{"gpu-0417-new", "gpu-0417-old", "forgotten"},
		},
		"a device's history has them wherever they were": {device, []string{"gpu-0417-new", "gpu-0417-old", "forgotten", "elsewhere"}},
		"nothing is an answer too":                       {Snapshot{Now: now}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			h := Tell(c.s)
			if diff := cmp.Diff(c.want, names(h)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if h.Empty() != (c.want == nil) {
				t.Errorf("Empty() = %t", h.Empty())
			}
		})
	}
}

func TestHistoryReadsAsItShould(t *testing.T) {
	for file, wide := range map[string]bool{"node.txt": false, "node-wide.txt": true} {
		t.Run(file, func(t *testing.T) {
			h := Tell(snapshot())
			p := &text.Page{Clock: text.Clock{Now: now, Zone: time.FixedZone("JST", 9*60*60)}}
			Shown{History: &h}.Render(p, wide)
			path := filepath.Join("testdata", file)
			if os.Getenv("UPDATE_GOLDEN") != "" {
				if err := os.WriteFile(path, []byte(p.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), p.String()); diff != "" {
				t.Errorf("%s (-want +got; UPDATE_GOLDEN=1 go test accepts it):\n%s", path, diff)
			}
		})
	}
}
