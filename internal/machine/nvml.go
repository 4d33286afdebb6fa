package machine

import (
	"context"
	"errors"
	"fmt"
)

// Errors of NVML, which callers tell apart with errors.Is. None of them says that a GPU is well or broken: they say that
// nobody could look.
var (
	// ErrNoNVML means that there is no NVML library on the host: no driver is installed, or its container is not up.
	ErrNoNVML = errors.New("no NVML library (libnvidia-ml.so.1) is on the host or under /run/nvidia/driver")
	// ErrNVMLCrashed means that the helper process died in a call of the library.
	ErrNVMLCrashed = errors.New("the NVML helper crashed")
)

// NVMLReader asks NVIDIA's management library, in a process of its own.
type NVMLReader interface {
	// NVML asks everything that the checks need, once. A report may be partial: what was read before a call hung or
	// crashed is in it, and the error, which is ErrStuck or ErrNVMLCrashed then, names the call. A library that is there
	// and does not initialise is a report with Init set, and no error.
	NVML(ctx context.Context) (NVMLReport, error)
}

// NVMLCall names a call of the library and the GPU it is about; -1 for none.
type NVMLCall struct {
	Name string `json:"call"`
	GPU  int    `json:"gpu"`
}

func (c NVMLCall) String() string {
	switch {
	case c.Name == "":
		return "before the first call"
	case c.GPU < 0:
		return c.Name
	}
	return fmt.Sprintf("%s of GPU %d", c.Name, c.GPU)
}

// NVMLCallError is an error, ErrStuck or ErrNVMLCrashed, in a call.
type NVMLCallError struct {
	Call NVMLCall
	Err  error
}

func (e *NVMLCallError) Error() string { return e.Call.String() + ": " + e.Err.Error() }

func (e *NVMLCallError) Unwrap() error { return e.Err }

// NVMLReport is what one run of the NVML helper read. What could not be read is nil, and Unread says why: absence is never
// zero. Names and units are those of nvml.h.
type NVMLReport struct {
	// Library is the file that was loaded.
	Library string `json:"library,omitempty"`
	// Init is the name of the error that nvmlInit returned, such as DRIVER_NOT_LOADED, LIB_RM_VERSION_MISMATCH or
	// UNKNOWN; empty when it succeeded. Nothing else was asked when it is set.
	Init string `json:"init,omitempty"`
	// Driver and NVML are versions, such as "570.133.20" and "12.570.133.20".
	Driver string `json:"driver,omitempty"`
	NVML   string `json:"nvml,omitempty"`
	// Count is how many GPUs the library counts, those it cannot open included.
	Count int `json:"count"`
	// GPUs are by index.
	GPUs []NVMLGPU `json:"gpus,omitempty"`
	// Unread are the calls about the machine that failed, by name, and the error's name.
	Unread map[string]string `json:"unread,omitempty"`
	// Took is how long the helper ran, in milliseconds, and CPU what it used of a processor, in microseconds.
	Took int64 `json:"tookMs,omitempty"`
	CPU  int64 `json:"cpuMicros,omitempty"`
}

// NVMLGPU is one physical GPU. MIG instances are listed in it: they are parts of it and cannot be repaired alone.
type NVMLGPU struct {
	Index int `json:"index"`
	// Handle is the name of the error that opening the GPU gave, such as GPU_IS_LOST or RESET_REQUIRED; empty when it
	// opened.
	Handle string `json:"handle,omitempty"`
	// Lost is the first error of that kind (GPU_IS_LOST, RESET_REQUIRED) that any call about the GPU gave, Handle's
	// included.
	Lost string `json:"lost,omitempty"`
	// Address is the PCI address, normalised; may be empty where the GPU did not open.
	Address string `json:"address,omitempty"`
	UUID    string `json:"uuid,omitempty"`
	Serial  string `json:"serial,omitempty"`
	Model   string `json:"model,omitempty"`
	VBIOS   string `json:"vbios,omitempty"`
	// Architecture is nvmlDeviceGetArchitecture's: 2 Kepler, 3 Maxwell, 4 Pascal, 5 Volta, 6 Turing, 7 Ampere, 8 Ada, 9 Hopper,
	// 10 Blackwell.
	Architecture *uint32 `json:"architecture,omitempty"`
	// Module is the GPU's module ID on its board, which is the number of its socket on an HGX board.
	Module *uint32 `json:"module,omitempty"`
	// Recovery is NVML_FI_DEV_GET_GPU_RECOVERY_ACTION (field 230): 0 none, 1 reset, 2 reboot, 3 drain P2P, 4 drain and
	// reset, 5 recover IMEX domain, 6 bus reset, 7 system reboot.
	Recovery *uint32 `json:"recovery,omitempty"`
	// Persistence is the persistence mode.
	Persistence *bool `json:"persistence,omitempty"`
	// MIG says that MIG mode is on now, and MIGPending that it will be after a reset.
	MIG        *bool     `json:"mig,omitempty"`
	MIGPending *bool     `json:"migPending,omitempty"`
	Instances  []MIGPart `json:"instances,omitempty"`

	ECC    *NVMLECC    `json:"ecc,omitempty"`
	Remap  *NVMLRemap  `json:"remap,omitempty"`
	Retire *NVMLRetire `json:"retire,omitempty"`
	PCIe   *NVMLPCIe   `json:"pcie,omitempty"`
	Clocks *NVMLClocks `json:"clocks,omitempty"`
	Links  []NVMLLink  `json:"links,omitempty"`
	Fabric *NVMLFabric `json:"fabric,omitempty"`

	// Unread are the calls about this GPU that failed, by name, and the error's name. NOT_SUPPORTED and
	// FUNCTION_NOT_FOUND are normal: not every GPU or driver has everything.
	Unread map[string]string `json:"unread,omitempty"`
}

// MIGPart is a MIG device of a GPU.
type MIGPart struct {
	UUID string `json:"uuid"`
	// GPUInstance and ComputeInstance are its IDs, as GPU-I and GPU-CI in the kernel log.
	GPUInstance     uint32 `json:"gpuInstance"`
	ComputeInstance uint32 `json:"computeInstance"`
}

// NVMLECC are error counts. Volatile ones begin anew with each load of the driver, aggregate ones are the GPU's life.
type NVMLECC struct {
	// Enabled says that ECC is on now.
	Enabled               *bool   `json:"enabled,omitempty"`
	VolatileUncorrected   *uint64 `json:"volatileUncorrected,omitempty"`
	VolatileCorrected     *uint64 `json:"volatileCorrected,omitempty"`
	AggregateUncorrected  *uint64 `json:"aggregateUncorrected,omitempty"`
	AggregateCorrected    *uint64 `json:"aggregateCorrected,omitempty"`
	SRAMThresholdExceeded *bool   `json:"sramThresholdExceeded,omitempty"`
	// SRAMVolatileUncorrected and SRAMAggregateUncorrected are parity and SEC-DED errors together.
	SRAMVolatileUncorrected  *uint64 `json:"sramVolatileUncorrected,omitempty"`
	SRAMAggregateUncorrected *uint64 `json:"sramAggregateUncorrected,omitempty"`
}

// NVMLRemap is row remapping, of A100 and later (nvmlDeviceGetRemappedRows).
type NVMLRemap struct {
	Correctable   uint32 `json:"correctable"`
	Uncorrectable uint32 `json:"uncorrectable"`
	// Pending says that a row will be remapped at the next reset; Failed that one could not be.
	Pending bool `json:"pending"`
	Failed  bool `json:"failed"`
}

// NVMLRetire is page retirement, of GPUs before A100.
type NVMLRetire struct {
	SingleBit uint32 `json:"singleBit"`
	DoubleBit uint32 `json:"doubleBit"`
	Pending   bool   `json:"pending"`
}

// NVMLPCIe is the link as the driver sees it.
type NVMLPCIe struct {
	Width    *uint32 `json:"width,omitempty"`
	MaxWidth *uint32 `json:"maxWidth,omitempty"`
	// Generation is 1 to 6; an idle GPU lowers it. MaxGeneration is of GPU and system together.
	Generation    *uint32 `json:"generation,omitempty"`
	MaxGeneration *uint32 `json:"maxGeneration,omitempty"`
	// Replays counts since the driver was loaded.
	Replays *uint32 `json:"replays,omitempty"`
}

// NVMLClocks are load, heat and what holds the clocks down.
type NVMLClocks struct {
	// Reasons are bits of nvmlClocksEventReason*, and PState is 0 (most) to 15 (least).
	Reasons *uint64 `json:"reasons,omitempty"`
	PState  *uint32 `json:"pstate,omitempty"`
	// Utilization of the GPU's engines in percent of the last sample period.
	Utilization *uint32 `json:"utilization,omitempty"`
	// Temperature and the thresholds are degrees Celsius.
	Temperature *uint32 `json:"temperature,omitempty"`
	Slowdown    *uint32 `json:"slowdown,omitempty"`
	Shutdown    *uint32 `json:"shutdown,omitempty"`
	// PowerMilliwatts is drawn now, and LimitMilliwatts is enforced.
	PowerMilliwatts *uint32 `json:"powerMilliwatts,omitempty"`
	LimitMilliwatts *uint32 `json:"limitMilliwatts,omitempty"`
	// Processes is how many processes compute on the GPU.
	Processes *int `json:"processes,omitempty"`
}

// NVMLLink is one NVLink that the GPU has; a link it has not is not listed.
type NVMLLink struct {
	Link   int  `json:"link"`
	Active bool `json:"active"`
	// RemoteType is GPU, IBMNPU, Switch or Unknown, and Remote its PCI address.
	RemoteType string `json:"remoteType,omitempty"`
	Remote     string `json:"remote,omitempty"`
	// Counters since the driver was loaded: data-link replays, recoveries, and flits with a bad CRC.
	Replays    *uint64 `json:"replays,omitempty"`
	Recoveries *uint64 `json:"recoveries,omitempty"`
	CRC        *uint64 `json:"crc,omitempty"`
}

// NVMLFabric is the GPU's registration with the fabric manager (nvmlDeviceGetGpuFabricInfoV).
type NVMLFabric struct {
	// State is 0 not supported, 1 not started, 2 in progress, 3 completed.
	State uint32 `json:"state"`
	// Status is the error's name once completed; empty for success.
	Status string `json:"status,omitempty"`
	// Health is nvmlGpuFabricInfo's health mask; nil where the driver does not give it.
	Health *uint32 `json:"health,omitempty"`
	Clique uint32  `json:"clique"`
	// Cluster is the UUID of the cluster; empty where all zero.
	Cluster string `json:"cluster,omitempty"`
}
