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
)

func (e Entry) class(c v1alpha1.FaultClass) Entry            { e.Class = c; return e }
func (e Entry) recommending(r v1alpha1.Recommendation) Entry { e.Recommended = r; return e }
func (e Entry) rank(n int) Entry                             { e.Rank = n; return e }
func (e Entry) ifRepeated() Entry                            { e.Repeat = true; return e }

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
	{ignored, []int{14, 37, 38, 43, 44, 66, 67, 92, 93, 106, 107, 108, 121, 137, 141, 152, 153, 157, 160, 161}},
	// IGNORE to NVIDIA, fatal to others: a row was remapped, or will be at the next reset.
	{warning.recommending(v1alpha1.RecommendResetDevice).ifRepeated(), []int{63}},
	// CHECK_MECHANICALS, UPDATE_SWFW, CHECK_UVM, CONTACT_SUPPORT.
	{warning.recommending(v1alpha1.RecommendHuman), []int{54, 142}},
	{warning.class(v1alpha1.ClassDriver).recommending(v1alpha1.RecommendHuman), []int{78, 159}},
	// WORKFLOW_XID_45: the clean-up after any error, so a consequence wherever there is something else.
	{application.rank(5), []int{45}},
	// WORKFLOW_NVLINK: without its registers decoded, a fact and no verdict. 144 to 150 say Fatal or Nonfatal themselves.
	{warning.class(v1alpha1.ClassFabric), []int{74, 144, 145, 146, 147, 148, 149, 150}},
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
)

// Describe gives a line's fault code and what is known of it; not ok for a line that tells of no fault.
func Describe(l Line) (code string, e Entry, ok bool) {
	switch l.Kind {
	case Xid:
		return xidCode(l.Code), xidEntry(l), true
	case SXid:
		return "SXid" + strconv.Itoa(l.Code), fabricEntry(l.Fatality), true
	case OffBus:
		return CodeOffBus, rebootNode.rank(95), true
	case InitFailed:
		return CodeInitFailed, rebootNode.class(v1alpha1.ClassDriver).rank(50), true
	case GSPRateLimited:
		return CodeGSPRateLimited, resetGPU.class(v1alpha1.ClassDriver).rank(75), true
	case ProbeFailed:
		return CodeProbeFailed, warning.class(v1alpha1.ClassDriver), true
	case NoGPU:
		return CodeNoGPU, warning.class(v1alpha1.ClassDriver), true
	case None, UUIDOf:
	}
	return "", Entry{}, false
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
	case l.Code >= 144 && l.Code <= 150:
		e := fabricEntry(l.Fatality)
		if l.Fatality == Fatal {
			// One GPU's own link unit: its reset retrains it. An NVSwitch's error needs them all, hence a reboot.
			e = resetGPU.class(v1alpha1.ClassFabric).rank(55)
		}
		return e
	}
	if e, ok := catalogue[l.Code]; ok {
		return e
	}
	return unknownCode
}

// fabricEntry trusts the word Fatal or Non-fatal, and nothing else.
func fabricEntry(f Fatality) Entry {
	if f == Fatal {
		return rebootNode.class(v1alpha1.ClassFabric).rank(70)
	}
	return warning.class(v1alpha1.ClassFabric)
}

// recoveryEntry is what the driver's own word recommends. A text that is not known recommends nothing.
func recoveryEntry(r Recovery) Entry {
	switch r {
	case RecoveryReset, RecoveryDrainAndReset:
		return resetGPU.rank(45)
	case RecoveryReboot:
		return rebootNode.rank(45)
	case RecoveryNone, RecoveryDrainP2P, RecoveryUnknown:
	}
	return warning
}
