package kernellog

import (
	"strconv"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/health"
)

// CatalogueVersion says what the table below follows: NVIDIA's public Xid catalogue as of late 2025, codes to 172, and
// what the open driver's nverror.h names beyond. Raise it with the table.
const CatalogueVersion = "2025-12"

// Entry is what is known of a kind of fault.
type Entry struct {
	Class       v1alpha1.FaultClass     `json:"class"`
	Severity    v1alpha1.Severity       `json:"severity"`
	Recommended v1alpha1.Recommendation `json:"recommended"`
	ClearedBy   health.ClearedBy        `json:"clearedBy"`
	// Rank orders the faults of one device: of two of the same severity the higher is the cause.
	Rank int `json:"rank"`
	// Repeat says that vendors disagree about the code: until it is seen again a minute or more later it is a Warning
	// that recommends nothing.
	Repeat bool `json:"repeat,omitempty"`
	// OnLink, where above 0, says that it recommends nothing until one link has shown it more often than that.
	OnLink int64 `json:"onLink,omitempty"`
	// Wide says that it explains what happens to the applications of the whole node, whatever device they use.
	Wide bool `json:"wide,omitempty"`
	// Peer says that a GPU tells of the other end of a link: a fault that stands there, or on another GPU, explains it.
	Peer bool `json:"peer,omitempty"`
}

// Entries that several codes share. Only an Application's entry is known not to be the machine's; nothing in it
// recommends to disturb anything but the application.
var (
	application = Entry{
		Class: v1alpha1.ClassApplication, Severity: v1alpha1.SeverityInfo,
		Recommended: v1alpha1.RecommendRestartApplication, ClearedBy: health.ClearedByQuiet, Rank: 10,
	}
	ignored = Entry{
		Class: v1alpha1.ClassHardware, Severity: v1alpha1.SeverityInfo,
		Recommended: v1alpha1.RecommendNone, ClearedBy: health.ClearedByQuiet, Rank: 15,
	}
	unknownCode = Entry{
		Class: v1alpha1.ClassUnknown, Severity: v1alpha1.SeverityInfo,
		Recommended: v1alpha1.RecommendNone, ClearedBy: health.ClearedByQuiet, Rank: 20,
	}
	resetGPU = Entry{
		Class: v1alpha1.ClassHardware, Severity: v1alpha1.SeverityCritical,
		Recommended: v1alpha1.RecommendResetDevice, ClearedBy: health.ClearedByReset, Rank: 60,
	}
	rebootNode = Entry{
		Class: v1alpha1.ClassHardware, Severity: v1alpha1.SeverityCritical,
		Recommended: v1alpha1.RecommendReboot, ClearedBy: health.ClearedByBoot, Rank: 100,
	}
	warning = Entry{
		Class: v1alpha1.ClassHardware, Severity: v1alpha1.SeverityWarning,
		Recommended: v1alpha1.RecommendNone, ClearedBy: health.ClearedByQuiet, Rank: 40,
	}
	fabric = warning.class(v1alpha1.ClassFabric)
)

func (e Entry) class(c v1alpha1.FaultClass) Entry            { e.Class = c; return e }
func (e Entry) recommending(r v1alpha1.Recommendation) Entry { e.Recommended = r; return e }
func (e Entry) rank(n int) Entry                             { e.Rank = n; return e }
func (e Entry) ifRepeated() Entry                            { e.Repeat = true; return e }
func (e Entry) onLink(n int64) Entry                         { e.OnLink = n; return e }
func (e Entry) wide() Entry                                  { e.Wide = true; return e }
func (e Entry) until(c health.ClearedBy) Entry               { e.ClearedBy = c; return e }

// xidGroups is the catalogue: the groups of immediate actions, in NVIDIA's words as comments.
var xidGroups = []struct {
	entry Entry
	codes []int
}{
	// RESTART_APP.
	{application, []int{
		8, 11, 13, 25, 31, 32, 39, 40, 41, 60, 68, 69, 70, 71, 72, 75, 76, 77, 80, 82, 83, 84, 85, 86, 88, 89, 96, 97, 98,
		99, 100, 101, 102, 103, 104, 105, 126, 127, 128, 129, 130, 131, 132, 133, 134, 135, 139,
	}},
	// RESTART_APP too, but a contained memory error is the memory's fault, not the application's.
	{warning.recommending(v1alpha1.RecommendRestartApplication), []int{94}},
	// RESET_GPU. Memory that fails outranks what it makes fail.
	{resetGPU, []int{46, 110, 136, 155, 156, 158}},
	{resetGPU.rank(90), []int{64, 95, 140}},
	{resetGPU.class(v1alpha1.ClassDriver).rank(80), []int{62, 119, 120, 143}},
	// RESET_GPU to NVIDIA; others skip it, or call it fatal.
	{resetGPU.class(v1alpha1.ClassDriver).ifRepeated(), []int{109}},
	// Double-bit ECC error: alone a reset; with 63 or 64, which then are its consequences, a drain and a reset.
	{resetGPU.rank(92), []int{48}},
	// RESTART_BM (reboot the node).
	{rebootNode, []int{79}},
	// RESTART_VM: the guest, which is not this node's to restart.
	{warning.class(v1alpha1.ClassDriver).recommending(v1alpha1.RecommendHuman), []int{151}},
	// IGNORE.
	{ignored, []int{14, 37, 38, 44, 66, 67, 92, 93, 106, 107, 108, 121, 137, 141, 152, 153, 157, 160, 161}},
	// IGNORE too: a channel is stopped after a fault that its application made, which has often been named before it.
	{ignored.class(v1alpha1.ClassApplication).rank(8), []int{43}},
	// IGNORE to NVIDIA, fatal to others: a row was remapped, or will be at the next reset.
	{warning.recommending(v1alpha1.RecommendResetDevice).ifRepeated(), []int{63}},
	// CHECK_MECHANICALS, UPDATE_SWFW, CHECK_UVM, CONTACT_SUPPORT.
	{warning.recommending(v1alpha1.RecommendHuman), []int{54, 142}},
	{warning.class(v1alpha1.ClassDriver).recommending(v1alpha1.RecommendHuman), []int{78, 159}},
	// WORKFLOW_XID_45: the clean-up after any error, so a consequence wherever there is something else.
	{application.rank(5), []int{45}},
	// WORKFLOW_NVLINK and WORKFLOW_NVLINK5: their registers say what they are; see nvlink.go. This is what they are
	// without.
	{fabric, []int{74, 144, 145, 146, 147, 148, 149, 150}},
	// No action listed, or named by the driver's header alone.
	{ignored, []int{162, 163, 164, 165, 166, 167, 168, 169, 170, 171, 172, 173, 175, 176}},
}

// catalogue is xidGroups by code.
var catalogue = byCode()

func byCode() map[int]Entry {
	m := make(map[int]Entry, 160)
	for _, g := range xidGroups {
		for _, code := range g.codes {
			m[code] = g.entry
		}
	}
	return m
}

// Codes of the lines that have no number; docs/checks/kernel-log.md describes them.
const (
	CodeOffBus         = "NVIDIAOffBus"
	CodeInitFailed     = "NVIDIAInitFailed"
	CodeGSPRateLimited = "NVIDIAGSPRateLimited"
	CodeProbeFailed    = "NVIDIAProbeFailed"
	CodeNoGPU          = "NVIDIANoGPU"

	// CodeLinkDownByPeer is Xid 149 where the other end of the link took it down.
	CodeLinkDownByPeer = "Xid149Peer"

	CodeAMDReset         = "AMDGPUReset"
	CodeAMDResetFailed   = "AMDGPUResetFailed"
	CodeAMDRingTimeout   = "AMDGPURingTimeout"
	CodeAMDUncorrectable = "AMDGPUUncorrectable"
	CodeAMDCorrectable   = "AMDGPUCorrectable"
	CodeAMDBadPages      = "AMDGPUBadPages"
	CodeAMDReplace       = "AMDGPUReplace"
	CodeAMDLost          = "AMDGPULost"
	CodeAMDVRAMLost      = "AMDGPUVRAMLost"
	CodeAMDSMUHung       = "AMDGPUSMUHung"

	CodePCIeCorrected      = "PCIeCorrected"
	CodePCIeNonFatal       = "PCIeNonFatal"
	CodePCIeFatal          = "PCIeFatal"
	CodePCIeRecoveryFailed = "PCIeRecoveryFailed"
	CodePCIeContained      = "PCIeContained"
	CodePCIeSlotDown       = "PCIeSlotDown"

	CodeOOMKilled           = "HostOOMKilled"
	CodeCgroupOOMKilled     = "HostCgroupOOMKilled"
	CodeHungTask            = "HostHungTask"
	CodeSoftLockup          = "HostSoftLockup"
	CodeHardLockup          = "HostHardLockup"
	CodeRCUStall            = "HostRCUStall"
	CodeKernelOops          = "HostKernelOops"
	CodeKernelPanic         = "HostKernelPanic"
	CodeHardwareCorrected   = "HostHardwareCorrected"
	CodeHardwareUncorrected = "HostHardwareUncorrected"
	CodeMachineCheckLogged  = "HostMachineCheckLogged"
	CodeMemoryCorrected     = "HostMemoryCorrected"
	CodeMemoryUncorrected   = "HostMemoryUncorrected"
	CodeReadOnlyFilesystem  = "HostReadOnlyFilesystem"
	CodeNVMeReset           = "HostNVMeReset"
	CodeNVMeFailed          = "HostNVMeFailed"
)

// described is a kind of line that has no number.
type described struct {
	code  string
	entry Entry
	// onNode says that it names no device.
	onNode bool
}

// Entries of the host. Only a panic leaves no doubt that the machine must start again; whether anything else is worth the
// work of a whole node only a human can say.
var (
	hostInfo  = ignored.class(v1alpha1.ClassHost)
	hostOdd   = warning.class(v1alpha1.ClassHost)
	hostHuman = hostOdd.recommending(v1alpha1.RecommendHuman).rank(42)
)

// byKind are the lines that have no number; the entry without a code is of a line that tells of no fault.
var byKind = [kinds]described{
	OffBus:         {CodeOffBus, rebootNode.rank(95), false},
	InitFailed:     {CodeInitFailed, rebootNode.class(v1alpha1.ClassDriver).rank(50), false},
	GSPRateLimited: {CodeGSPRateLimited, resetGPU.class(v1alpha1.ClassDriver).rank(75), false},
	ProbeFailed:    {CodeProbeFailed, warning.class(v1alpha1.ClassDriver), true},
	NoGPU:          {CodeNoGPU, warning.class(v1alpha1.ClassDriver), true},

	// What made the driver reset a GPU outranks the reset and what that loses.
	AMDReset: {CodeAMDReset, ignored.class(v1alpha1.ClassDriver).rank(6), false},
	// The driver's own reset has failed, so the next thing is a reboot; a later reset that succeeds ends it all the same.
	AMDResetFailed: {
		CodeAMDResetFailed,
		rebootNode.class(v1alpha1.ClassDriver).until(health.ClearedByReset).rank(50), false,
	},
	AMDRingTimeout:   {CodeAMDRingTimeout, application, false},
	AMDUncorrectable: {CodeAMDUncorrectable, resetGPU.rank(90), false},
	AMDCorrectable:   {CodeAMDCorrectable, ignored, false},
	AMDBadPages:      {CodeAMDBadPages, warning.recommending(v1alpha1.RecommendHuman), false},
	AMDReplace: {
		CodeAMDReplace,
		rebootNode.recommending(v1alpha1.RecommendReplace).rank(92), false,
	},
	AMDLost:     {CodeAMDLost, rebootNode, false},
	AMDVRAMLost: {CodeAMDVRAMLost, application.class(v1alpha1.ClassDriver).rank(7), false},
	AMDSMUHung:  {CodeAMDSMUHung, warning.class(v1alpha1.ClassDriver), false},

	PCIeCorrected:      {CodePCIeCorrected, ignored, false},
	PCIeNonFatal:       {CodePCIeNonFatal, warning, false},
	PCIeFatal:          {CodePCIeFatal, warning.rank(44), false},
	PCIeRecoveryFailed: {CodePCIeRecoveryFailed, warning.recommending(v1alpha1.RecommendHuman).rank(43), false},
	PCIeContained:      {CodePCIeContained, warning, false},
	PCIeSlotDown:       {CodePCIeSlotDown, warning.rank(41), false},

	OOMKilled: {CodeOOMKilled, hostInfo.wide(), true},
	// A container that uses more than it asked for is the application's affair.
	CgroupOOMKilled:     {CodeCgroupOOMKilled, application.rank(12).wide(), true},
	HungTask:            {CodeHungTask, hostOdd, true},
	SoftLockup:          {CodeSoftLockup, hostOdd, true},
	HardLockup:          {CodeHardLockup, hostHuman, true},
	RCUStall:            {CodeRCUStall, hostOdd, true},
	KernelOops:          {CodeKernelOops, hostHuman.wide(), true},
	KernelPanic:         {CodeKernelPanic, rebootNode.class(v1alpha1.ClassHost).wide(), true},
	HardwareCorrected:   {CodeHardwareCorrected, hostInfo, true},
	HardwareUncorrected: {CodeHardwareUncorrected, hostHuman.wide(), true},
	MachineCheckLogged:  {CodeMachineCheckLogged, hostInfo, true},
	MemoryCorrected:     {CodeMemoryCorrected, hostInfo, true},
	MemoryUncorrected:   {CodeMemoryUncorrected, hostHuman.wide(), true},
	// It stays so until someone mounts it anew, which the log does not tell of.
	ReadOnlyFilesystem: {CodeReadOnlyFilesystem, hostHuman.until(health.ClearedByBoot), true},
	NVMeReset:          {CodeNVMeReset, hostOdd, true},
	NVMeFailed:         {CodeNVMeFailed, hostHuman.until(health.ClearedByBoot), true},
}

// Describe gives a line's fault code and what is known of it; not ok for a line that tells of no fault.
func Describe(l Line) (code string, e Entry, ok bool) {
	switch l.Kind {
	case Xid:
		e := xidEntry(l)
		if e.Peer && l.Code == 149 {
			return CodeLinkDownByPeer, e, true
		}
		return xidCode(l.Code), e, true
	case SXid:
		return "SXid" + strconv.Itoa(l.Code), switchEntry(l.Fatality), true
	default:
		d := byKind[l.Kind]
		return d.code, d.entry, d.code != ""
	}
}

// xidCodes holds the codes of the Xids there are, so that a storm of lines allocates nothing.
var xidCodes = func() (codes [256]string) {
	for i := range codes {
		codes[i] = "Xid" + strconv.Itoa(i)
	}
	return codes
}()

func xidCode(n int) string {
	if n >= 0 && n < len(xidCodes) {
		return xidCodes[n]
	}
	return "Xid" + strconv.Itoa(n)
}

func xidEntry(l Line) Entry {
	switch {
	case l.Code == 154:
		return recoveryEntry(l.Recovery)
	case l.Code == 74:
		a := nvlinkAction(l)
		e := nvlinkEntry(a, l.Fatality)
		// A link goes down at both ends. What the registers say of this end is this end's.
		e.Peer = a == undecided || a == nvSympathetic || a == nvFabric
		return e
	case isNVLink5(l.Code):
		return nvlinkEntry(nvlink5Action(l), l.Fatality)
	}
	if e, ok := catalogue[l.Code]; ok {
		return e
	}
	return unknownCode
}

// nvlinkEntry is what an NVLink error's registers ask for. Registers that decide nothing recommend nothing, except that a
// human should look at what the driver calls fatal: if the GPU needs a reset, Xid 154 says so.
func nvlinkEntry(a action, f Fatality) Entry {
	human := fabric.recommending(v1alpha1.RecommendHuman)
	switch a {
	case nvIgnore:
		return ignored.class(v1alpha1.ClassFabric)
	case nvWatch:
		return fabric
	case nvEvaluate:
		return fabric.recommending(v1alpha1.RecommendRestartApplication)
	case nvRepeat:
		return human.onLink(1)
	case nvParity:
		return human.onLink(2)
	case nvSympathetic:
		return human.rank(38)
	case nvMechanical:
		return human
	case nvReset:
		return resetGPU.class(v1alpha1.ClassFabric).rank(55)
	case nvResetPeer:
		e := resetGPU.class(v1alpha1.ClassFabric).rank(52)
		e.Peer = true
		return e
	case nvFabric:
		// The GPUs and the switches between them have to be reset together, which is what a reboot does.
		return rebootNode.class(v1alpha1.ClassFabric).until(health.ClearedByReset).rank(54)
	case undecided:
	}
	if f == Fatal {
		return human.rank(42)
	}
	return fabric
}

// switchEntry trusts an NVSwitch's word Fatal, Non-fatal or Correctable, and nothing else.
func switchEntry(f Fatality) Entry {
	switch f {
	case Fatal:
		return rebootNode.class(v1alpha1.ClassFabric).rank(70).wide()
	case Correctable:
		return ignored.class(v1alpha1.ClassFabric)
	case NonFatal, FatalityUnsaid:
	}
	return fabric.wide()
}

// recoveryEntry is what the driver's own word recommends. A text that is not known recommends nothing.
func recoveryEntry(r Recovery) Entry {
	switch r {
	case RecoveryReset, RecoveryDrainAndReset, RecoveryBusReset:
		return resetGPU.rank(45)
	case RecoveryReboot, RecoverySystemReboot:
		return rebootNode.rank(45)
	case RecoveryIMEX:
		return fabric.recommending(v1alpha1.RecommendHuman)
	case RecoveryNone, RecoveryDrainP2P, RecoveryUnknown:
	}
	return warning
}
