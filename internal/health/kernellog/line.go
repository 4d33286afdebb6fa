package kernellog

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/roundhouse-dev/roundhouse/internal/machine"
)

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
)

// Fatality is the driver's word on an NVLink or NVSwitch error.
type Fatality uint8

// The fatalities.
const (
	FatalityUnsaid Fatality = iota
	Fatal
	NonFatal
)

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
	// UUID is of UUIDOf.
	UUID string
}

// ParseLine reads the escaped text of a kernel record. Every pattern is anchored at its start.
func ParseLine(text []byte) Line {
	if rest, ok := bytes.CutPrefix(text, []byte("NVRM: ")); ok {
		return parseNVRM(rest)
	}
	if rest, ok := bytes.CutPrefix(text, []byte("nvidia-nvswitch")); ok {
		return parseNVSwitch(rest)
	}
	return Line{}
}

func parseNVRM(rest []byte) Line {
	if r, ok := bytes.CutPrefix(rest, []byte("Xid (")); ok {
		return parseXid(r)
	}
	if r, ok := bytes.CutPrefix(rest, []byte("GPU at PCI:")); ok {
		return parseUUID(r)
	}
	if r, ok := bytes.CutPrefix(rest, []byte("GPU ")); ok {
		return parseGPU(r)
	}
	if r, ok := bytes.CutPrefix(rest, []byte("The NVIDIA GPU ")); ok {
		return parseTheGPU(r)
	}
	if r, ok := bytes.CutPrefix(rest, []byte("Rate limiting GSP RPC error prints for GPU at PCI:")); ok {
		if a, _, ok := parseAddress(r); ok {
			return Line{Kind: GSPRateLimited, Address: a}
		}
		return Line{}
	}
	switch {
	case bytes.HasPrefix(rest, []byte("The NVIDIA probe routine failed for ")):
		return Line{Kind: ProbeFailed}
	case bytes.HasPrefix(rest, []byte("No NVIDIA GPU found")):
		return Line{Kind: NoGPU}
	}
	return Line{}
}

// parseXid reads "PCI:0000:18:00 GPU-I:05 GPU-CI:01): 79, ..." after "Xid (".
func parseXid(b []byte) Line {
	b = bytes.TrimPrefix(b, []byte("PCI:"))
	a, b, ok := parseAddress(b)
	if !ok {
		return Line{}
	}
	// A MIG instance is part of the GPU at this address, and the GPU is what can be repaired.
	for _, part := range [...]string{" GPU-I:", " GPU-CI:"} {
		if r, found := bytes.CutPrefix(b, []byte(part)); found {
			n, r := digits(r)
			if n < 0 {
				return Line{}
			}
			b = r
		}
	}
	code, b, ok := parseCode(b)
	if !ok {
		return Line{}
	}
	l := Line{Kind: Xid, Address: a, Code: code}
	b, l.Named = beforeName(b)
	if l.Named {
		return l
	}
	l.CausedBy = causedBy(b)
	switch {
	case code == 154:
		l.Recovery = recovery(b)
	case code >= 144 && code <= 150:
		l.Fatality = nvlinkFatality(b)
	}
	return l
}

// parseCode reads "): 79, " and returns the code and what follows.
func parseCode(b []byte) (int, []byte, bool) {
	b, ok := bytes.CutPrefix(b, []byte("): "))
	if !ok {
		return 0, nil, false
	}
	code, b := digits(b)
	if code <= 0 || len(b) > 0 && b[0] != ',' {
		return 0, nil, false
	}
	return code, bytes.TrimPrefix(b, []byte(", ")), true
}

// beforeName drops the process from the front of a message. Where the kernel names one, nothing is left: the name ends
// nowhere in particular. pid='<unknown>' is the driver's, since a process's own pid is always a number.
func beforeName(b []byte) (message []byte, named bool) {
	if r, ok := bytes.CutPrefix(b, []byte("pid='<unknown>', name=<unknown>, ")); ok {
		return r, false
	}
	r, ok := bytes.CutPrefix(b, []byte("pid="))
	if !ok {
		return b, bytes.HasPrefix(b, []byte("name="))
	}
	_, r = digits(r)
	r, ok = bytes.CutPrefix(r, []byte(", "))
	if !ok || bytes.HasPrefix(r, []byte("name=")) {
		return nil, true
	}
	return r, false
}

// causedBy reads " caused by previous Xid 79" at the end of a message.
func causedBy(b []byte) int {
	i := bytes.LastIndex(b, []byte(" caused by previous Xid "))
	if i < 0 {
		return 0
	}
	n, rest := digits(b[i+len(" caused by previous Xid "):])
	if len(bytes.Trim(rest, ". ")) > 0 || n < 0 {
		return 0
	}
	return n
}

// recovery reads "GPU recovery action changed from 0x0 (None) to 0x2 (Node Reboot Required)". The words decide: the
// numbers are the driver's internal ones.
func recovery(b []byte) Recovery {
	b, ok := bytes.CutPrefix(b, []byte("GPU recovery action changed from 0x"))
	if !ok {
		return RecoveryUnknown
	}
	_, b, ok = bytes.Cut(b, []byte(") to 0x"))
	if !ok {
		return RecoveryUnknown
	}
	_, b, ok = bytes.Cut(b, []byte(" ("))
	if !ok {
		return RecoveryUnknown
	}
	words, _, ok := bytes.Cut(b, []byte(")"))
	if !ok {
		return RecoveryUnknown
	}
	switch string(words) {
	case "None":
		return RecoveryNone
	case "GPU Reset Required":
		return RecoveryReset
	case "Node Reboot Required":
		return RecoveryReboot
	case "Drain P2P":
		return RecoveryDrainP2P
	case "Drain and Reset":
		return RecoveryDrainAndReset
	}
	return RecoveryUnknown
}

// nvlinkFatality reads "RLW_RXPIPE Nonfatal XC0 i0 Link 02 (...)": the second word.
func nvlinkFatality(b []byte) Fatality {
	_, b, _ = bytes.Cut(b, []byte(" "))
	b = bytes.TrimLeft(b, " ")
	switch {
	case bytes.HasPrefix(b, []byte("Fatal ")):
		return Fatal
	case bytes.HasPrefix(b, []byte("Nonfatal ")):
		return NonFatal
	}
	return FatalityUnsaid
}

// parseGPU reads "0000:18:00.0: RmInitAdapter failed! ..." after "GPU ".
func parseGPU(b []byte) Line {
	a, b, ok := parseAddress(b)
	switch {
	case !ok:
	case bytes.HasPrefix(b, []byte(": GPU has fallen off the bus")):
		return Line{Kind: OffBus, Address: a}
	case bytes.HasPrefix(b, []byte(": RmInitAdapter failed!")):
		return Line{Kind: InitFailed, Address: a}
	}
	return Line{}
}

// parseTheGPU reads "0000:18:00.0\nNVRM: (PCI ID: ...) installed in this system has\nNVRM: fallen off the bus and is not
// responding to commands."; the same start with another end says that the GPU is not supported.
func parseTheGPU(b []byte) Line {
	a, b, ok := parseAddress(b)
	if ok && bytes.Contains(b, []byte("fallen off the bus and is not responding")) {
		return Line{Kind: OffBus, Address: a}
	}
	return Line{}
}

// parseUUID reads "0000:18:00: GPU-..." after "GPU at PCI:".
func parseUUID(b []byte) Line {
	a, b, ok := parseAddress(b)
	if !ok {
		return Line{}
	}
	b, ok = bytes.CutPrefix(b, []byte(": "))
	if !ok || len(b) < uuidLen || !machine.IsGPUUUID(string(b[:uuidLen])) {
		return Line{}
	}
	return Line{Kind: UUIDOf, Address: a, UUID: strings.Replace(strings.ToLower(string(b[:uuidLen])), "gpu", "GPU", 1)}
}

// uuidLen is "GPU-" and a UUID.
const uuidLen = 40

// parseNVSwitch reads "3: SXid (PCI:0000:05:00.0): 12028, Non-fatal, Link 32 ..." after "nvidia-nvswitch".
func parseNVSwitch(b []byte) Line {
	_, b = digits(b)
	b, ok := bytes.CutPrefix(b, []byte(": SXid (PCI:"))
	if !ok {
		return Line{}
	}
	a, b, ok := parseAddress(b)
	if !ok {
		return Line{}
	}
	code, b, ok := parseCode(b)
	if !ok {
		return Line{}
	}
	l := Line{Kind: SXid, Address: a, Code: code}
	switch {
	case bytes.HasPrefix(b, []byte("Fatal,")):
		l.Fatality = Fatal
	case bytes.HasPrefix(b, []byte("Non-fatal,")):
		l.Fatality = NonFatal
	case bytes.HasPrefix(b, []byte("Severity ")), bytes.HasPrefix(b, []byte("Data {")):
		// The driver logs an error's registers as lines of the same form after it; they are not further errors.
		return Line{}
	}
	return l
}

// parseAddress reads "0000:18:00" with or without ".0".
func parseAddress(b []byte) (a Address, rest []byte, ok bool) {
	domain, b, ok1 := hexField(b, 8)
	b, ok2 := bytes.CutPrefix(b, []byte(":"))
	bus, b, ok3 := hexField(b, 2)
	b, ok4 := bytes.CutPrefix(b, []byte(":"))
	device, b, ok5 := hexField(b, 2)
	if !ok1 || !ok2 || !ok3 || !ok4 || !ok5 || device > 31 {
		return Address{}, nil, false
	}
	a = Address{Domain: domain, Bus: uint8(bus), Device: uint8(device)}
	if r, found := bytes.CutPrefix(b, []byte(".")); found {
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
