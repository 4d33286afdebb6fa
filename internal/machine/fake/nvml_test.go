package fake

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/roundhouse-dev/roundhouse/internal/machine"
)

func nvml(t *testing.T, m *Machine) machine.NVMLReport {
	t.Helper()
	report, err := m.NVML(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return report
}

// looks is what can be seen of each GPU.
func looks(r machine.NVMLReport) []string {
	var out []string
	for i := range r.GPUs {
		g := &r.GPUs[i]
		switch {
		case g.Index != i:
			out = append(out, "out of order")
		case g.Handle != "":
			out = append(out, g.Handle)
		case *g.PCIe.Width != *g.PCIe.MaxWidth || *g.PCIe.Generation != *g.PCIe.MaxGeneration:
			out = append(out, "degraded")
		default:
			out = append(out, g.UUID)
		}
	}
	return out
}

func TestNVMLOfAHealthyMachine(t *testing.T) {
	m, _ := newMachine(t)
	report := nvml(t, m)
	if report.Count != 2 || len(report.GPUs) != 2 || report.Driver != "595.45" || report.NVML != "13.595.45" || report.Init != "" {
		t.Fatalf("got %+v", report)
	}
	g := report.GPUs[1]
	if g.Address != "0000:28:00.0" || g.Model != "NVIDIA H200" || g.VBIOS != "96.00.BC.00.01" || *g.Module != 2 || *g.Recovery != 0 {
		t.Errorf("got %+v", g)
	}
	if *g.PCIe.Generation != 5 || len(g.Links) != nvLinks || !g.Links[17].Active || g.Fabric.State != 3 || len(g.Unread) != 0 {
		t.Errorf("got %+v", g)
	}
	if *g.Clocks.Utilization != 0 || !m.SetBusy("0000:28:00.0", true) || *nvml(t, m).GPUs[1].Clocks.Utilization != 100 {
		t.Error("load does not show")
	}
}

func TestNVMLOfABrokenMachine(t *testing.T) {
	const first, second = "GPU-00000001-0000-4000-8000-000000000000", "GPU-00000001-0000-4000-8000-000000000001"
	tests := map[string]struct {
		b             Break
		broken, after []string // after a reboot
	}{
		"off the bus is lost, and after a boot nobody knows of it": {Break{Kind: Gone}, []string{lost, second}, []string{second}},
		"dead is lost":        {Break{Kind: Dead}, []string{lost, second}, []string{lost, second}},
		"dead until a reboot": {Break{Kind: Dead, HealsAfterBoots: 1}, []string{lost, second}, []string{first, second}},
		"a narrow link":       {Break{Kind: Narrow, Width: 8}, []string{"degraded", second}, []string{"degraded", second}},
		"a slow link":         {Break{Kind: Slow, MTs: 2500}, []string{"degraded", second}, []string{"degraded", second}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			m, c := newMachine(t)
			m.Break("0000:18:00.0", tt.b)
			if diff := cmp.Diff(tt.broken, looks(nvml(t, m))); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			m.GoDown(time.Minute)
			if _, err := m.NVML(t.Context()); !errors.Is(err, machine.ErrDown) {
				t.Errorf("while it is down: %v", err)
			}
			c.t = c.t.Add(2 * time.Minute)
			report := nvml(t, m)
			if diff := cmp.Diff(tt.after, looks(report)); diff != "" || report.Count != len(tt.after) {
				t.Errorf("after a reboot, count %d (-want +got):\n%s", report.Count, diff)
			}
			m.Break("0000:18:00.0", Break{})
			if diff := cmp.Diff([]string{first, second}, looks(nvml(t, m))); diff != "" {
				t.Errorf("mended (-want +got):\n%s", diff)
			}
		})
	}
}

func TestNVMLSeesWhatTheDriverHolds(t *testing.T) {
	m, _ := newMachine(t)
	m.SetDriver("0000:18:00.0", "vfio-pci")
	m.RemoveDevice("0000:28:00.0")
	if report := nvml(t, m); report.Count != 0 || len(report.GPUs) != 0 {
		t.Errorf("got %+v", report)
	}
}

func TestAScriptChangesWhatNVMLSays(t *testing.T) {
	m, _ := newMachine(t)
	changes := 0
	m.o.Changed = func() { changes++ }
	m.SetNVML(func(r *machine.NVMLReport) {
		*r.GPUs[0].Recovery = 1
		*r.GPUs[0].ECC.VolatileUncorrected = 4
		*r.GPUs[0].Links[3].CRC = 5
	})
	report := nvml(t, m)
	if *report.GPUs[0].Recovery != 1 || *report.GPUs[1].Recovery != 0 || changes != 1 {
		t.Errorf("recovery %d and %d, %d changes", *report.GPUs[0].Recovery, *report.GPUs[1].Recovery, changes)
	}
	if *report.GPUs[0].ECC.VolatileCorrected != 0 || *report.GPUs[0].Links[4].CRC != 0 {
		t.Error("two values are one")
	}
	m.SetNVML(nil)
	if got := nvml(t, m).GPUs[0]; *got.Recovery != 0 || *got.ECC.VolatileUncorrected != 0 {
		t.Error("a report of before was changed")
	}
}

func TestTheDoorOfNVML(t *testing.T) {
	m, _ := newMachine(t)
	m.Fail(DoorNVML, machine.ErrNoNVML)
	if _, err := m.NVML(t.Context()); !errors.Is(err, machine.ErrNoNVML) {
		t.Errorf("got %v", err)
	}
	m.Fail(DoorNVML, nil)
	m.Hang(DoorNVML, true)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := m.NVML(ctx); !errors.Is(err, machine.ErrStuck) {
		t.Errorf("got %v", err)
	}
	if gpus, err := m.NVIDIAGPUs(t.Context()); err != nil || len(gpus) != 2 {
		t.Errorf("what the driver publishes hangs too: %v", err)
	}
}
