package nvidia

import (
	"testing"
	"time"

	"github.com/roundhouse-dev/roundhouse/internal/health"
	"github.com/roundhouse-dev/roundhouse/internal/machine"
)

func TestPCIe(t *testing.T) {
	replays := func(a int) func(r *rig) { return func(r *rig) { *r.gpu(3).PCIe.Replays += uint32(a) } }
	found := "Failing; PCIeReplays on " + gpu3 + ", Warning, Human, x1"
	all := func(f func(g *machine.NVMLGPU)) func(r *rig) {
		return func(r *rig) {
			for i := range r.report.GPUs {
				f(r.gpu(i))
			}
		}
	}
	width := func(n uint32) func(r *rig) { return func(r *rig) { r.gpu(3).PCIe.Width = ptr(n) } }
	gen := func(n uint32) func(r *rig) { return func(r *rig) { r.gpu(3).PCIe.Generation = ptr(n) } }
	narrow, slow := "Failing; PCIeWidthLow on "+gpu3+", Warning, ", "Failing; PCIeGenerationLow on "+gpu3+", Warning, "
	tests := map[string][]step{
		"replays that were there from the start are not new": {{do: replays(100000), times: 10, want: "Passing"}},
		"eight a minute are allowed":                         {{want: "Passing"}, {do: replays(4), want: "Passing"}, {do: replays(4), want: "Passing"}, {do: replays(4), want: "Passing"}},
		"more are not, until they have ended for ten minutes": {
			{want: "Passing"}, {do: replays(5), want: "Passing"}, {do: replays(5), want: found},
			{times: 20, want: found}, {want: "Passing"},
		},
		"a burst that is over at once is none": {{want: "Passing"}, {do: replays(8), want: "Passing"}, {times: 5, want: "Passing"}},
		"the counter begins anew": {
			{do: replays(1000), want: "Passing"}, {times: 3, want: "Passing"},
			{do: func(r *rig) { *r.gpu(3).PCIe.Replays = 0 }, want: "Passing"}, {times: 3, want: "Passing"},
		},
		"the counter cannot be read": {
			{do: func(r *rig) {
				r.gpu(3).PCIe.Replays, r.gpu(3).Unread = nil, map[string]string{"nvmlDeviceGetPcieReplayCounter": "UNKNOWN"}
			}, want: "Unknown CannotRead"},
		},
		"fewer lanes than its peers, in three looks": {
			{do: width(8), times: 2, want: "Passing"}, {want: narrow + "Reboot, x1"}, {do: width(16), times: 3, want: "Passing"},
		},
		"fewer lanes than the maximum, as all have, is how it is built": {
			{do: all(func(g *machine.NVMLGPU) { g.PCIe.Width = ptr(uint32(8)) }), times: 10, want: "Passing"},
		},
		"fewer lanes than the maximum, and nobody to compare with": {
			{do: func(r *rig) { r.gpu(3).Model = "one of its own"; width(8)(r) }, times: 3, want: narrow + "None, x1"},
		},
		"a lower generation under load": {
			{do: gen(3), times: 2, want: "Passing"}, {want: slow + "Reboot, x1"},
			// Idle says nothing: neither that it is over, nor that it goes on.
			{do: func(r *rig) { r.gpu(3).Clocks.Utilization = ptr(uint32(0)) }, times: 10, want: slow + "Reboot, x1"},
			{do: func(r *rig) { r.gpu(3).Clocks.Utilization = ptr(uint32(90)); gen(5)(r) }, times: 3, want: "Passing"},
		},
		"a lower generation when idle": {
			{do: func(r *rig) { gen(1)(r); r.gpu(3).Clocks.Utilization = ptr(uint32(20)) }, times: 10, want: "Passing"},
		},
		"a lower generation in a lower performance state": {
			{do: func(r *rig) { gen(1)(r); r.gpu(3).Clocks.PState = ptr(uint32(2)) }, times: 10, want: "Passing"},
		},
		"a lower generation and no word about load": {
			{do: func(r *rig) { gen(1)(r); r.gpu(3).Clocks.Utilization = nil }, times: 10, want: "Passing"},
		},
	}
	for name, steps := range tests {
		t.Run(name, func(t *testing.T) { newRig(t, "h100x8").run("pcie", steps...) })
	}
}

func TestClocks(t *testing.T) {
	set := func(bits uint64) func(r *rig) { return func(r *rig) { r.gpu(3).Clocks.Reasons = ptr(bits) } }
	at := " on " + gpu3 + ", Warning, Human, x"
	tests := map[string][]step{
		"hardware thermal slowdown in three looks": {
			{do: set(0x48), times: 2, want: "Passing"}, {want: "Failing; ThermalSlowdown" + at + "1"},
			{times: 50, want: "Failing; ThermalSlowdown" + at + "1"},
			{do: set(0), times: 10, want: "Failing; ThermalSlowdown" + at + "1"}, {want: "Passing"},
		},
		"it flaps: one fault, counted": {
			{do: set(0x48), times: 3, want: "Failing; ThermalSlowdown" + at + "1"}, {do: set(0), want: "Failing; ThermalSlowdown" + at + "1"},
			{do: set(0x48), want: "Failing; ThermalSlowdown" + at + "2"},
		},
		"hardware slowdown for a moment":         {{do: set(0x40), times: 2, want: "Passing"}, {do: set(0), want: "Passing"}, {do: set(0x40), times: 2, want: "Passing"}},
		"software thermal slowdown takes longer": {{do: set(0x20), times: 9, want: "Passing"}, {want: "Failing; SoftwareThermalSlowdown" + at + "1"}},
		"power brake":                            {{do: set(0x88), times: 3, want: "Failing; PowerBrakeSlowdown" + at + "1"}},
		"the sum of several says nothing":        {{do: set(0x8), times: 50, want: "Passing"}},
		"the power cap is full work":             {{do: set(0x4), times: 50, want: "Passing"}},
		"idle, user's clocks, sync boost, display, board and reliability limits": {{do: set(0x713), times: 50, want: "Passing"}},
		"no answer is not no reason": {
			{do: set(0x48), times: 3, want: "Failing; ThermalSlowdown" + at + "1"},
			{do: func(r *rig) {
				r.gpu(3).Clocks.Reasons, r.gpu(3).Unread = nil, map[string]string{"nvmlDeviceGetCurrentClocksEventReasons": "UNKNOWN"}
			}, times: 30, want: "Unknown CannotRead; ThermalSlowdown" + at + "1"},
		},
	}
	for name, steps := range tests {
		t.Run(name, func(t *testing.T) { newRig(t, "h100x8").run("clocks", steps...) })
	}
}

func TestNVLink(t *testing.T) {
	down := func(links ...int) func(r *rig) {
		return func(r *rig) {
			for _, n := range links {
				r.gpu(1).Links[n] = machine.NVMLLink{Link: n}
			}
		}
	}
	every := func(f func(g *machine.NVMLGPU)) func(r *rig) {
		return func(r *rig) {
			for i := range r.report.GPUs {
				f(r.gpu(i))
			}
		}
	}
	errors := func(a uint64, which func(k *machine.NVMLLink) *uint64) func(r *rig) {
		return func(r *rig) { *which(&r.gpu(1).Links[4]) += a }
	}
	recoveries := func(k *machine.NVMLLink) *uint64 { return k.Recoveries }
	crc := func(k *machine.NVMLLink) *uint64 { return k.CRC }
	const at = "0000:3b:00.0"
	inactive, noisy := "Failing; NVLinkInactive on "+at+", Critical, Reboot, x1", "Failing; NVLinkErrors on "+at+", Warning, Human, x1"
	more := func(n int, a uint64, which func(k *machine.NVMLLink) *uint64, last string) (out []step) {
		for range n {
			out = append(out, step{do: errors(a, which), want: "Passing"})
		}
		out[n-1].want = last
		return out
	}
	tests := map[string][]step{
		"a link to a switch is down that its peers have up": {
			{do: down(4), want: "Unknown Settling"}, {after: 4 * time.Minute, want: "Unknown Settling"}, {after: time.Minute, want: inactive},
		},
		"all of its links are": {{do: down(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17), want: "Unknown Settling"}, {after: 5 * time.Minute, want: inactive}},
		"a link that no peer has up is how the board is built": {
			{do: every(func(g *machine.NVMLGPU) { g.Links[17] = machine.NVMLLink{Link: 17} }), times: 20, want: "Passing"},
		},
		"it was up before, and now nobody has it up": {
			{want: "Passing"},
			{do: every(func(g *machine.NVMLGPU) { g.Links[17] = machine.NVMLLink{Link: 17} }), want: "Unknown Settling"},
		},
		"it was up before the driver was loaded anew, which says nothing of now": {
			{want: "Passing"}, {do: func(r *rig) { r.report.Init = "DRIVER_NOT_LOADED" }, want: "Unknown DriverNotLoaded"},
			{do: func(r *rig) {
				r.report.Init = ""
				every(func(g *machine.NVMLGPU) { g.Links[17] = machine.NVMLLink{Link: 17} })(r)
			}, times: 20, want: "Passing"},
		},
		"nobody knows whether MIG has taken its parts off": {
			{do: func(r *rig) {
				down(4)(r)
				r.gpu(1).MIG, r.gpu(1).Unread = nil, map[string]string{"nvmlDeviceGetMigMode": "UNKNOWN"}
			}, times: 20, want: "Unknown CannotRead"},
		},
		"MIG takes its parts off": {{do: func(r *rig) { down(4)(r); r.gpu(1).MIG = ptr(true) }, times: 20, want: "Passing"}},
		"errors that were there are not new": {
			{do: errors(1000, recoveries), times: 10, want: "Passing"},
		},
		"a recovery now and then":           append(more(1, 1, recoveries, "Passing"), step{times: 20, want: "Passing"}),
		"recoveries that do not end":        more(6, 2, recoveries, noisy),
		"CRC errors at a hundred a second":  more(6, 100*30, crc, noisy),
		"CRC errors at fifty a second":      more(20, 50*30, crc, "Passing"),
		"a GPU without NVLink says nothing": {{do: every(func(g *machine.NVMLGPU) { g.Links = nil }), times: 3, want: "Passing"}},
		"links that cannot be read": {
			{do: func(r *rig) {
				r.gpu(1).Links, r.gpu(1).Unread = nil, map[string]string{"nvmlDeviceGetNvLinkState(link 0)": "UNKNOWN"}
			}, want: "Unknown CannotRead"},
		},
		"counters that a generation does not have": {
			{do: every(func(g *machine.NVMLGPU) {
				for n := range g.Links {
					g.Links[n].Replays, g.Links[n].Recoveries, g.Links[n].CRC = nil, nil, nil
				}
			}), times: 10, want: "Passing"},
		},
	}
	for name, steps := range tests {
		t.Run(name, func(t *testing.T) { newRig(t, "h100x8").run("nvlink", steps...) })
	}
	t.Run("bridges are optional: a card without one has no link at all", func(t *testing.T) {
		r := newRig(t, "v100x4")
		for n := range r.gpu(1).Links {
			r.gpu(1).Links[n] = machine.NVMLLink{Link: n}
		}
		r.run("nvlink", step{times: 20, want: "Passing"})
	})
	t.Run("a bridge of which one link is down only slows traffic", func(t *testing.T) {
		r := newRig(t, "v100x4")
		r.run("nvlink", step{want: "Passing"})
		r.gpu(1).Links[2] = machine.NVMLLink{Link: 2}
		r.run("nvlink", step{times: 11, want: "Failing; NVLinkInactive on 0000:0a:00.0, Warning, Reboot, x1"})
	})
	t.Run("a pair of cards may have fewer bridges than another", func(t *testing.T) {
		r := newRig(t, "v100x4")
		r.gpu(1).Links[2] = machine.NVMLLink{Link: 2}
		r.run("nvlink", step{times: 20, want: "Passing"})
	})
	t.Run("a restart of the agent does not mend a link that is down everywhere", func(t *testing.T) {
		r := newRig(t, "h100x8")
		r.run("nvlink", step{want: "Passing"})
		for i := range r.report.GPUs {
			r.gpu(i).Links[17] = machine.NVMLLink{Link: 17}
		}
		var before health.Result
		for range 12 {
			r.advance(30 * time.Second)
			before = r.look("nvlink")
		}
		r.restart()
		r.advance(30 * time.Second)
		if after := r.look("nvlink"); before.Outcome != health.Failing || len(after.Findings) != len(before.Findings) || after.Outcome != before.Outcome {
			t.Errorf("before the restart %s, after it %s", show(before), show(after))
		}
	})
}

func TestFabric(t *testing.T) {
	set := func(f machine.NVMLFabric) func(r *rig) { return func(r *rig) { r.gpu(3).Fabric = &f } }
	mask := func(m uint32) func(r *rig) { return set(machine.NVMLFabric{State: 3, Health: &m}) }
	const well = 0x1aa
	at := " on " + gpu3 + ", "
	tests := map[string][]step{
		"the fabric manager is dead: found in minutes, and said for as long as it is so": {
			{do: func(r *rig) { r.report = fixture(r, "h100x8-no-fabric-manager") }, want: "Unknown Settling"},
			{after: 5 * time.Minute, want: "Failing; FabricNotReady on node, Critical, Reboot, x1"},
			{after: 20 * 24 * time.Hour, want: "Failing; FabricNotReady on node, Critical, Reboot, x1"},
			{do: func(r *rig) { r.report = fixture(r, "h100x8") }, times: 3, want: "Passing"},
		},
		"it starts, which takes a while": {
			{do: func(r *rig) { r.report = fixture(r, "h100x8-no-fabric-manager") }, times: 8, want: "Unknown Settling"},
			{do: func(r *rig) { r.report = fixture(r, "h100x8") }, want: "Passing"},
		},
		"one GPU does not get in": {
			{do: set(machine.NVMLFabric{State: 2}), times: 10, want: "Unknown Settling"},
			{want: "Failing; FabricNotReady" + at + "Critical, Reboot, x1"},
		},
		"one GPU says that it has no fabric, and its peers have": {
			{do: set(machine.NVMLFabric{}), times: 11, want: "Failing; FabricNotReady" + at + "Critical, Reboot, x1"},
		},
		"registration failed":                    {{do: set(machine.NVMLFabric{State: 3, Status: "UNKNOWN"}), times: 3, want: "Failing; FabricError" + at + "Critical, Reboot, x1"}},
		"registration wants a reset":             {{do: set(machine.NVMLFabric{State: 3, Status: "RESET_REQUIRED"}), times: 3, want: "Failing; FabricError" + at + "Critical, ResetDevice, x1"}},
		"every field says well":                  {{do: mask(well), times: 30, want: "Passing"}},
		"a mask that says nothing":               {{do: mask(0), times: 30, want: "Passing"}},
		"no mask":                                {{do: set(machine.NVMLFabric{State: 3}), times: 30, want: "Passing"}},
		"bandwidth degraded":                     {{do: mask(well&^0x3 | 0x1), times: 11, want: "Failing; FabricBandwidthDegraded" + at + "Warning, Human, x1"}},
		"route unhealthy":                        {{do: mask(well&^0x30 | 0x10), times: 3, want: "Failing; FabricRouteUnhealthy" + at + "Critical, Human, x1"}},
		"route recovers":                         {{do: mask(well&^0xc | 0x4), times: 20, want: "Passing"}, {want: "Failing; FabricRecovering" + at + "Warning, Human, x1"}},
		"access time-out recovers":               {{do: mask(well&^0xc0 | 0x40), times: 21, want: "Failing; FabricRecovering" + at + "Warning, Human, x1"}},
		"too few links for the place":            {{do: mask(well&^0xf00 | 0x500), times: 3, want: "Failing; FabricMisconfigured" + at + "Critical, Human, x1"}},
		"a misfit of a later driver":             {{do: mask(well&^0xf00 | 0xf00), times: 3, want: "Failing; FabricMisconfigured" + at + "Critical, Human, x1"}},
		"the global manager is gone":             {{do: mask(well | 0x8000), times: 11, want: "Failing; FabricManagerLost" + at + "Warning, Human, x1"}},
		"a global manager, and no partition yet": {{do: mask(well | 0x4000 | 0x2000), times: 30, want: "Passing"}},
		"MIG takes its parts off":                {{do: func(r *rig) { set(machine.NVMLFabric{State: 1})(r); r.gpu(3).MIG = ptr(true) }, times: 30, want: "Passing"}},
		"it cannot be read": {
			{do: func(r *rig) {
				r.gpu(3).Fabric, r.gpu(3).Unread = nil, map[string]string{"nvmlDeviceGetGpuFabricInfoV": "UNKNOWN"}
			}, want: "Unknown CannotRead"},
		},
		"a report that broke off says nothing of those who wait": {
			{do: func(r *rig) {
				r.report = fixture(r, "h100x8-no-fabric-manager")
				r.report.GPUs, r.err = r.report.GPUs[:2], machine.ErrStuck
			}, times: 100, want: "Unknown TimedOut"},
		},
	}
	for name, steps := range tests {
		t.Run(name, func(t *testing.T) { newRig(t, "h100x8").run("fabric", steps...) })
	}
}

func TestTheNodeIsNotBlamedForWhatOneGPUDoesNotTell(t *testing.T) {
	r := newRig(t, "h100x8")
	r.report = fixture(t, "h100x8-no-fabric-manager")
	r.gpu(3).Fabric, r.gpu(3).Unread = nil, map[string]string{"nvmlDeviceGetGpuFabricInfoV": "UNKNOWN"}
	r.advance(5 * time.Minute)
	r.look("fabric")
	r.advance(5 * time.Minute)
	res := r.look("fabric")
	if len(res.Findings) != 7 || res.Reason != "CannotRead" {
		t.Errorf("%s (%s)", show(res), res.Message)
	}
	for _, f := range res.Findings {
		if f.PCI == "" || f.PCI == gpu3 {
			t.Errorf("%s is on %q", f.Fault.Code, f.PCI)
		}
	}
}
