package kernellog

import "fmt"

// Kind is what a line says.
type Kind uint8

// The kinds. None is every line that is not ours to know.
const (
	None Kind = iota
	// Xid is an error report of the driver about one GPU.
	Xid
	// SXid is one about an NVSwitch.
	SXid
	// OffBus says that a GPU no longer answers.
	OffBus
	// InitFailed says that the driver could not initialise a GPU.
	InitFailed
	// GSPRateLimited says that a GPU's system processor fails so often that the driver stops saying so.
	GSPRateLimited
	// ProbeFailed says that the driver could not take some GPUs; it does not say which.
	ProbeFailed
	// NoGPU says that the driver found none.
	NoGPU
	// UUIDOf maps an address to a UUID; no fault.
	UUIDOf
	// DriverLoaded says which NVIDIA driver was loaded; no fault.
	DriverLoaded

	// AMDReset says that the amdgpu driver resets a GPU.
	AMDReset
	// AMDResetDone says that it has done so: what a reset of the GPU ends is over. No fault.
	AMDResetDone
	// AMDResetFailed says that it could not.
	AMDResetFailed
	// AMDRingTimeout says that a job on a GPU did not end in time.
	AMDRingTimeout
	// AMDUncorrectable and AMDCorrectable say that a GPU's hardware found errors in itself.
	AMDUncorrectable
	// AMDCorrectable is of errors that the hardware has corrected.
	AMDCorrectable
	// AMDBadPages says that a GPU has retired as much memory as it may, or nearly.
	AMDBadPages
	// AMDReplace says that the driver asks for the GPU to be replaced, and does not use it.
	AMDReplace
	// AMDLost says that a GPU no longer answers.
	AMDLost
	// AMDVRAMLost says that a reset has lost the contents of a GPU's memory.
	AMDVRAMLost
	// AMDSMUHung says that the processor which manages a GPU's power does not answer.
	AMDSMUHung

	// PCIeCorrected is an error on the bus that the link has corrected.
	PCIeCorrected
	// PCIeNonFatal is one that lost a transaction and left the link working.
	PCIeNonFatal
	// PCIeFatal is one after which the link cannot be relied on.
	PCIeFatal
	// PCIeRecoveryFailed says that the kernel could not make a device work again after one.
	PCIeRecoveryFailed
	// PCIeContained says that a port cut off what is below it, to contain an error.
	PCIeContained
	// PCIeSlotDown says that a hot-plug slot has lost its link or its card.
	PCIeSlotDown

	// OOMKilled says that the kernel killed a process because the machine had no memory left.
	OOMKilled
	// CgroupOOMKilled says that it did so because a control group, a container say, had used up its own.
	CgroupOOMKilled
	// HungTask says that a task has been waiting in the kernel for minutes.
	HungTask
	// SoftLockup says that a processor has run kernel code for so long that nothing else could.
	SoftLockup
	// HardLockup says that one does not even take interrupts.
	HardLockup
	// RCUStall says that a processor holds up the kernel's own clean-up.
	RCUStall
	// KernelOops says that kernel code made an error that killed what it ran for.
	KernelOops
	// KernelPanic says that the kernel has given up.
	KernelPanic
	// HardwareCorrected is a machine check, or an error that the firmware reports, without harm.
	HardwareCorrected
	// HardwareUncorrected is one with harm.
	HardwareUncorrected
	// MachineCheckLogged says that there were machine checks, and not which.
	MachineCheckLogged
	// MemoryCorrected is an error of the host's memory that was corrected.
	MemoryCorrected
	// MemoryUncorrected is one that was not.
	MemoryUncorrected
	// ReadOnlyFilesystem says that a filesystem no longer takes writes, because of an error.
	ReadOnlyFilesystem
	// NVMeReset says that an NVMe controller does not answer and is being reset.
	NVMeReset
	// NVMeFailed says that this did not help, and that the disk is gone.
	NVMeFailed

	kinds
)

// Address is a PCI address; comparable, and made without allocating.
type Address struct {
	Domain                uint32
	Bus, Device, Function uint8
}

// String is the address as sysfs writes it.
func (a Address) String() string {
	return fmt.Sprintf("%04x:%02x:%02x.%x", a.Domain, a.Bus, a.Device, a.Function)
}

// Recovery is what the driver itself says a GPU needs, in the words of Xid 154.
type Recovery uint8

// The recoveries. RecoveryUnknown is a text that this version does not know, and no recommendation.
const (
	RecoveryUnknown Recovery = iota
	RecoveryNone
	RecoveryReset
	RecoveryReboot
	RecoveryDrainP2P
	RecoveryDrainAndReset
	// RecoveryIMEX asks for the service that shares memory between nodes to be restored.
	RecoveryIMEX
	// RecoveryBusReset asks for a reset of the GPU by way of the bus.
	RecoveryBusReset
	// RecoverySystemReboot asks for a reboot of the whole system.
	RecoverySystemReboot
)

// Fatality is the driver's word on an NVLink or NVSwitch error.
type Fatality uint8

// The fatalities.
const (
	FatalityUnsaid Fatality = iota
	Fatal
	NonFatal
	// Correctable is of NVSwitches only.
	Correctable
)

// Link is the number of an NVLink plus one, as the device that tells of it counts its own; 0 is none.
type Link uint8

// maxLink bounds the numbers: an NVSwitch has 64 links or fewer, a GPU 18.
const maxLink = 127

// Line is what could be read of one line without reading anything that a process chose.
type Line struct {
	Kind Kind
	// Address is the device; Domain to Function are zero for a line that names none.
	Address Address
	// Code is the Xid or SXid.
	Code int
	// CausedBy is the Xid that the driver says came first; 0 where it does not.
	CausedBy int
	// Named says that a process is named, and that nothing after the code was read.
	Named bool
	// Recovery is of Xid 154.
	Recovery Recovery
	// Fatality is of SXids and of Xids 144 to 150.
	Fatality Fatality
	// Link is of SXids and of Xids 74 and 144 to 150.
	Link Link
	// Unit is the part of the NVLink hardware that Xids 144 to 150 name; 0 for one that is not known.
	Unit Unit
	// Registers are those of Xids 74 and 144 to 150, where HasRegisters says that all there should be were read.
	Registers    [7]uint32
	HasRegisters bool
	// Driver is the first number of the driver's version: of DriverLoaded. Elsewhere State fills it in, since the
	// registers of Xids 144 to 150 depend on it; 0 where it is not known.
	Driver int
	// UUID is of UUIDOf.
	UUID string
}

// ParseLine reads the escaped text of a kernel record. Every pattern is anchored at its start, and none can be met by the
// 15 bytes that a process may choose for the start of a kernel line, its name, with the kernel's own words after it.
func ParseLine(text []byte) Line {
	if len(text) == 0 {
		return Line{}
	}
	if text[0] == 'N' {
		if rest, ok := after(text, "NVRM: "); ok {
			return parseNVRM(rest)
		}
	}
	if text[0] == 'n' {
		if rest, ok := after(text, "nvidia-nvswitch"); ok {
			return parseNVSwitch(rest)
		}
	}
	if kind := parseHost(text); kind != None {
		return Line{Kind: kind}
	}
	return parseDevice(text)
}

// after is what follows the prefix.
func after(b []byte, prefix string) (rest []byte, ok bool) {
	if !starts(b, prefix) {
		return nil, false
	}
	return b[len(prefix):], true
}

func starts(b []byte, prefix string) bool {
	return len(b) >= len(prefix) && string(b[:len(prefix)]) == prefix
}

func ends(b []byte, suffix string) bool {
	return len(b) >= len(suffix) && string(b[len(b)-len(suffix):]) == suffix
}

// parseAddress reads "0000:18:00" with or without ".0".
func parseAddress(b []byte) (a Address, rest []byte, ok bool) {
	domain, b, ok1 := hexField(b, 8)
	b, ok2 := after(b, ":")
	bus, b, ok3 := hexField(b, 2)
	b, ok4 := after(b, ":")
	device, b, ok5 := hexField(b, 2)
	if !ok1 || !ok2 || !ok3 || !ok4 || !ok5 || device > 31 {
		return Address{}, nil, false
	}
	a = Address{Domain: domain, Bus: uint8(bus), Device: uint8(device)}
	if r, found := after(b, "."); found {
		function, r, ok := hexField(r, 1)
		if !ok || function > 7 {
			return Address{}, nil, false
		}
		a.Function, b = uint8(function), r
	}
	return a, b, true
}

// hexField reads up to width hexadecimal digits, at least one.
func hexField(b []byte, width int) (n uint32, rest []byte, ok bool) {
	i := 0
	for ; i < len(b) && i < width; i++ {
		d, isHex := hexDigit(b[i])
		if !isHex {
			break
		}
		n = n<<4 | uint32(d)
	}
	return n, b[i:], i > 0
}

// digits reads decimal digits; -1 where there are none or too many to be a code.
func digits(b []byte) (int, []byte) {
	n, i := 0, 0
	for ; i < len(b) && b[i] >= '0' && b[i] <= '9'; i++ {
		if n < 1e8 {
			n = n*10 + int(b[i]-'0')
		}
	}
	if i == 0 {
		return -1, b
	}
	return n, b[i:]
}
