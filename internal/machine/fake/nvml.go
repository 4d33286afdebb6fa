package fake

import (
	"context"
	"fmt"

	"github.com/roundhouse-dev/roundhouse/internal/machine"
)

const (
	// driverVersion is the driver's version where no device tells one.
	driverVersion = "595.45"
	// nvLinks are how many an H200 on its board has.
	nvLinks = 18
	// lost is what NVML says of a GPU that does not answer: NVML_ERROR_GPU_IS_LOST.
	lost = "GPU_IS_LOST"
)

// NVML reports the devices bound to the nvidia driver as NVML sees them: all well, except that one that does not answer,
// or went off the bus since the boot, is counted and lost. After a boot the driver knows only what it found then. What
// SetNVML says comes last.
func (m *Machine) NVML(ctx context.Context) (machine.NVMLReport, error) {
	if err := m.enter(ctx, DoorNVML); err != nil {
		return machine.NVMLReport{}, err
	}
	report, change := m.nvmlLocked(), m.nvml
	m.mu.Unlock()
	if change != nil {
		change(&report)
	}
	return report, nil
}

// SetNVML sets what is different in each report of NVML from what the devices make it; nil for nothing. It survives
// reboots. It is called without the lock, on a report of its own, by as many at a time as ask.
func (m *Machine) SetNVML(change func(*machine.NVMLReport)) {
	m.mu.Lock()
	m.nvml = change
	m.mu.Unlock()
	m.changed()
}

func (m *Machine) nvmlLocked() machine.NVMLReport {
	report := machine.NVMLReport{Library: "/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1", Driver: driverVersion}
	report.GPUs = make([]machine.NVMLGPU, 0, len(m.devices))
	for i := range m.devices {
		s := &m.devices[i]
		if s.Driver != "nvidia" || s.gone || s.broken.Kind == Gone && s.missed {
			continue
		}
		if s.DriverVersion != "" {
			report.Driver = s.DriverVersion
		}
		report.GPUs = append(report.GPUs, s.nvml(len(report.GPUs)))
	}
	report.Count = len(report.GPUs)
	report.NVML = "13." + report.Driver
	return report
}

// nvml is the device as NVML sees it. Every value is the report's own, so that a script may change any.
func (s *slot) nvml(index int) machine.NVMLGPU {
	if s.broken.Kind == Gone || s.broken.Kind == Dead {
		return machine.NVMLGPU{Index: index, Handle: lost, Lost: lost}
	}
	link, utilization := s.seen().Link, uint32(0)
	if s.Busy {
		utilization = 100
	}
	return machine.NVMLGPU{
		Index: index, Address: s.Address, UUID: s.UUID, Serial: fmt.Sprintf("16529230%05d", index), Model: s.Model, VBIOS: s.VideoBIOS,
		Module: new(uint32(index + 1)), Recovery: new(uint32(0)),
		Persistence: new(true), MIG: new(false), MIGPending: new(false),
		ECC: &machine.NVMLECC{
			Enabled: new(true), VolatileUncorrected: new(uint64), VolatileCorrected: new(uint64),
			AggregateUncorrected: new(uint64), AggregateCorrected: new(uint64), SRAMThresholdExceeded: new(false),
			SRAMVolatileUncorrected: new(uint64), SRAMAggregateUncorrected: new(uint64),
		},
		Remap: &machine.NVMLRemap{},
		PCIe: &machine.NVMLPCIe{
			Width: new(uint32(link.Width)), MaxWidth: new(uint32(link.MaxWidth)),
			Generation: new(generation(link.MTs)), MaxGeneration: new(generation(link.MaxMTs)), Replays: new(uint32),
		},
		Clocks: &machine.NVMLClocks{
			Reasons: new(uint64), PState: new(uint32), Utilization: new(utilization), Temperature: new(uint32(34)),
			Slowdown: new(uint32(87)), Shutdown: new(uint32(92)), PowerMilliwatts: new(uint32(75_000)),
			LimitMilliwatts: new(uint32(700_000)), Processes: new(int),
		},
		Links:  whole(nvLinks),
		Fabric: &machine.NVMLFabric{State: 3, Health: new(uint32)},
	}
}

// whole are n NVLinks to the four switches of a board.
func whole(n int) []machine.NVMLLink {
	links, counts := make([]machine.NVMLLink, n), make([]uint64, 3*n)
	for i := range links {
		links[i] = machine.NVMLLink{
			Link: i, Active: true, RemoteType: "Switch", Remote: switches[i%len(switches)],
			Replays: &counts[3*i], Recoveries: &counts[3*i+1], CRC: &counts[3*i+2],
		}
	}
	return links
}

// switches are where an eight-GPU board's NVSwitches are.
var switches = [...]string{"0000:05:00.0", "0000:06:00.0", "0000:07:00.0", "0000:08:00.0"}

// generation is the PCI Express generation of a rate in megatransfers a second: 2.5, 5, 8, 16, 32 and 64 GT/s.
func generation(mts uint32) uint32 {
	for i, rate := range []uint32{2500, 5000, 8000, 16000, 32000, 64000} {
		if mts <= rate {
			return uint32(i + 1)
		}
	}
	return 6
}
