//go:build cgo && linux

package nvml

import (
	"fmt"
	"strings"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"github.com/roundhouse-dev/roundhouse/internal/machine"
)

// identity reads who the GPU is, and what the driver wants done to it, which matters most of all.
func (a *asker) identity(g *machine.NVMLGPU) {
	d := a.device
	var pci nvml.PciInfo
	if a.ask("nvmlDeviceGetPciInfo", func() (ret nvml.Return) { pci, ret = d.GetPciInfo(); return ret }) {
		g.Address = address(pci)
	}
	g.UUID = uuid(text(a, "nvmlDeviceGetUUID", d.GetUUID))
	g.Model = text(a, "nvmlDeviceGetName", d.GetName)
	a.fields("recovery", []field{
		{nvml.FI_DEV_GET_GPU_RECOVERY_ACTION, 0, "GET_GPU_RECOVERY_ACTION", func(v uint64) { g.Recovery = new(uint32(v)) }},
	})
	g.Serial = text(a, "nvmlDeviceGetSerial", d.GetSerial)
	g.VBIOS = text(a, "nvmlDeviceGetVbiosVersion", d.GetVbiosVersion)
	g.Architecture = number[uint32](a, "nvmlDeviceGetArchitecture", d.GetArchitecture)
	g.Module = number[uint32](a, "nvmlDeviceGetModuleId", d.GetModuleId)
}

// health reads the rest.
func (a *asker) health(g *machine.NVMLGPU) {
	g.Persistence = enabled(a, "nvmlDeviceGetPersistenceMode", a.device.GetPersistenceMode)
	g.ECC = a.ecc()
	g.Remap = a.remap()
	// A GPU remaps rows or retires pages, and never both (nvml.h, nvmlDeviceGetRemappedRows: "Ampere or newer").
	if g.Remap == nil {
		g.Retire = a.retire()
	}
	g.PCIe = a.pcie()
	g.Clocks = a.clocks()
	g.Links = a.links()
	g.Fabric = a.fabric()
	a.mig(g)
}

func (a *asker) ecc() *machine.NVMLECC {
	d := a.device
	ecc := &machine.NVMLECC{
		Enabled: enabled(a, "nvmlDeviceGetEccMode", func() (nvml.EnableState, nvml.Return) {
			now, _, ret := d.GetEccMode()
			return now, ret
		}),
	}
	total := func(what string, kind nvml.MemoryErrorType, counter nvml.EccCounterType) *uint64 {
		return number[uint64](a, "nvmlDeviceGetTotalEccErrors("+what+")", func() (uint64, nvml.Return) {
			return d.GetTotalEccErrors(kind, counter)
		})
	}
	ecc.VolatileUncorrected = total("volatile uncorrected", nvml.MEMORY_ERROR_TYPE_UNCORRECTED, nvml.VOLATILE_ECC)
	ecc.VolatileCorrected = total("volatile corrected", nvml.MEMORY_ERROR_TYPE_CORRECTED, nvml.VOLATILE_ECC)
	ecc.AggregateUncorrected = total("aggregate uncorrected", nvml.MEMORY_ERROR_TYPE_UNCORRECTED, nvml.AGGREGATE_ECC)
	ecc.AggregateCorrected = total("aggregate corrected", nvml.MEMORY_ERROR_TYPE_CORRECTED, nvml.AGGREGATE_ECC)

	var sram nvml.EccSramErrorStatus
	if a.ask("nvmlDeviceGetSramEccErrorStatus", func() (ret nvml.Return) { sram, ret = d.GetSramEccErrorStatus(); return ret }) {
		ecc.SRAMThresholdExceeded = new(sram.BThresholdExceeded != 0)
		ecc.SRAMVolatileUncorrected = new(sram.VolatileUncParity + sram.VolatileUncSecDed)
		ecc.SRAMAggregateUncorrected = new(sram.AggregateUncParity + sram.AggregateUncSecDed)
	}
	if *ecc == (machine.NVMLECC{}) {
		return nil
	}
	return ecc
}

func (a *asker) remap() *machine.NVMLRemap {
	var correctable, uncorrectable int
	var remap machine.NVMLRemap
	ok := a.ask("nvmlDeviceGetRemappedRows", func() (ret nvml.Return) {
		correctable, uncorrectable, remap.Pending, remap.Failed, ret = a.device.GetRemappedRows()
		return ret
	})
	if !ok {
		return nil
	}
	remap.Correctable, remap.Uncorrectable = uint32(correctable), uint32(uncorrectable)
	return &remap
}

// retire asks for the counts by their fields, since nvmlDeviceGetRetiredPages would list the pages.
func (a *asker) retire() *machine.NVMLRetire {
	var retire machine.NVMLRetire
	read := 0
	a.fields("retired pages", []field{
		{nvml.FI_DEV_RETIRED_SBE, 0, "RETIRED_SBE", func(v uint64) { retire.SingleBit, read = uint32(v), read+1 }},
		{nvml.FI_DEV_RETIRED_DBE, 0, "RETIRED_DBE", func(v uint64) { retire.DoubleBit, read = uint32(v), read+1 }},
		{nvml.FI_DEV_RETIRED_PENDING, 0, "RETIRED_PENDING", func(v uint64) { retire.Pending, read = v != 0, read+1 }},
	})
	// The three are one fact: a count of zero must not stand for one that could not be read.
	if read < 3 {
		return nil
	}
	return &retire
}

func (a *asker) pcie() *machine.NVMLPCIe {
	d := a.device
	pcie := machine.NVMLPCIe{
		Width:         number[uint32](a, "nvmlDeviceGetCurrPcieLinkWidth", d.GetCurrPcieLinkWidth),
		MaxWidth:      number[uint32](a, "nvmlDeviceGetMaxPcieLinkWidth", d.GetMaxPcieLinkWidth),
		Generation:    number[uint32](a, "nvmlDeviceGetCurrPcieLinkGeneration", d.GetCurrPcieLinkGeneration),
		MaxGeneration: number[uint32](a, "nvmlDeviceGetMaxPcieLinkGeneration", d.GetMaxPcieLinkGeneration),
		Replays:       number[uint32](a, "nvmlDeviceGetPcieReplayCounter", d.GetPcieReplayCounter),
	}
	if pcie == (machine.NVMLPCIe{}) {
		return nil
	}
	return &pcie
}

func (a *asker) clocks() *machine.NVMLClocks {
	d := a.device
	// The same function under its older name, which newer drivers keep.
	reasons, getReasons := "nvmlDeviceGetCurrentClocksEventReasons", d.GetCurrentClocksEventReasons
	if !a.has(reasons) {
		reasons, getReasons = "nvmlDeviceGetCurrentClocksThrottleReasons", d.GetCurrentClocksThrottleReasons
	}
	threshold := func(what string, t nvml.TemperatureThresholds) *uint32 {
		return number[uint32](a, "nvmlDeviceGetTemperatureThreshold("+what+")", func() (uint32, nvml.Return) {
			return d.GetTemperatureThreshold(t)
		})
	}
	c := machine.NVMLClocks{
		Reasons: number[uint64](a, reasons, getReasons),
		PState:  number[uint32](a, "nvmlDeviceGetPerformanceState", d.GetPerformanceState),
		Utilization: number[uint32](a, "nvmlDeviceGetUtilizationRates", func() (uint32, nvml.Return) {
			rates, ret := d.GetUtilizationRates()
			return rates.Gpu, ret
		}),
		Temperature: number[uint32](a, "nvmlDeviceGetTemperature", func() (uint32, nvml.Return) {
			return d.GetTemperature(nvml.TEMPERATURE_GPU)
		}),
		Slowdown:        threshold("slowdown", nvml.TEMPERATURE_THRESHOLD_SLOWDOWN),
		Shutdown:        threshold("shutdown", nvml.TEMPERATURE_THRESHOLD_SHUTDOWN),
		PowerMilliwatts: number[uint32](a, "nvmlDeviceGetPowerUsage", d.GetPowerUsage),
		LimitMilliwatts: number[uint32](a, "nvmlDeviceGetEnforcedPowerLimit", d.GetEnforcedPowerLimit),
	}
	processes := number[uint32](a, "nvmlDeviceGetComputeRunningProcesses", func() (int, nvml.Return) {
		list, ret := d.GetComputeRunningProcesses()
		return len(list), ret
	})
	if processes != nil {
		c.Processes = new(int(*processes))
	}
	if c == (machine.NVMLClocks{}) {
		return nil
	}
	return &c
}

// mig lists the MIG devices, where that mode is on.
func (a *asker) mig(g *machine.NVMLGPU) {
	d := a.device
	var now, pending int
	if !a.ask("nvmlDeviceGetMigMode", func() (ret nvml.Return) { now, pending, ret = d.GetMigMode(); return ret }) {
		return
	}
	g.MIG, g.MIGPending = new(now == nvml.DEVICE_MIG_ENABLE), new(pending == nvml.DEVICE_MIG_ENABLE)
	if !*g.MIG {
		return
	}
	most := number[uint32](a, "nvmlDeviceGetMaxMigDeviceCount", d.GetMaxMigDeviceCount)
	if most == nil {
		return
	}
	for i := range min(int(*most), machine.MaxMIGParts) {
		if part := a.part(i); part != nil {
			g.Instances = append(g.Instances, *part)
		}
	}
}

// part is the MIG device of an index, of which most stand for nothing: then the library says NOT_FOUND.
func (a *asker) part(index int) *machine.MIGPart {
	const open = "nvmlDeviceGetMigDeviceHandleByIndex"
	var d nvml.Device
	var ret nvml.Return
	ok := a.ask(open, func() nvml.Return { d, ret = a.device.GetMigDeviceHandleByIndex(index); return ret })
	if ret == nvml.ERROR_NOT_FOUND {
		delete(a.unread, open)
	}
	if !ok {
		return nil
	}
	id := text(a, "nvmlDeviceGetUUID(MIG)", d.GetUUID)
	gpu := number[uint32](a, "nvmlDeviceGetGpuInstanceId", d.GetGpuInstanceId)
	compute := number[uint32](a, "nvmlDeviceGetComputeInstanceId", d.GetComputeInstanceId)
	if id == "" || gpu == nil || compute == nil {
		return nil
	}
	return &machine.MIGPart{UUID: id, GPUInstance: *gpu, ComputeInstance: *compute}
}

// address is the normalised PCI address. NVML numbers no function: a GPU is always function 0.
func address(pci nvml.PciInfo) string {
	return fmt.Sprintf("%04x:%02x:%02x.0", pci.Domain, pci.Bus, pci.Device)
}

// uuid is the UUID as the rest of the agent writes it; what is none, such as a MIG device's, stays as it is.
func uuid(s string) string {
	if machine.IsGPUUUID(s) {
		return "GPU-" + strings.ToLower(s[4:])
	}
	return s
}
