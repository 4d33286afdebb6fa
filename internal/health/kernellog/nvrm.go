package kernellog

import (
	"bytes"
	"slices"
	"strings"

	"github.com/roundhouse-dev/roundhouse/internal/machine"
)

// The forms below are those of the open driver, version 595.45.04: krcReportXid_IMPL in src/nvidia/src/kernel/gpu/rc/
// kernel_rc.c for Xids, NVSWITCH_PRINT_SXID in src/common/nvswitch/kernel/inc/common_nvswitch.h for SXids, and
// nv_module_init in kernel-open/nvidia/nv.c for the driver's start.

func parseNVRM(rest []byte) Line {
	if r, ok := after(rest, "Xid ("); ok {
		return parseXid(r)
	}
	if r, ok := after(rest, "GPU at PCI:"); ok {
		return parseUUID(r)
	}
	if r, ok := after(rest, "GPU "); ok {
		return parseGPU(r)
	}
	if r, ok := after(rest, "The NVIDIA GPU "); ok {
		return parseTheGPU(r)
	}
	if r, ok := after(rest, "loading NVIDIA UNIX "); ok {
		return parseLoading(r)
	}
	if r, ok := after(rest, "Rate limiting GSP RPC error prints for GPU at PCI:"); ok {
		if a, _, ok := parseAddress(r); ok {
			return Line{Kind: GSPRateLimited, Address: a}
		}
		return Line{}
	}
	switch {
	case starts(rest, "The NVIDIA probe routine failed for "):
		return Line{Kind: ProbeFailed}
	case starts(rest, "No NVIDIA GPU found"):
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
		if r, found := after(b, part); found {
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
	case code == 74:
		readNVLink(b, &l)
	case isNVLink5(code):
		readNVLink5(b, &l)
	}
	return l
}

// parseCode reads "): 79, " and returns the code and what follows.
func parseCode(b []byte) (int, []byte, bool) {
	b, ok := after(b, "): ")
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
	if r, ok := after(b, "pid='<unknown>', name=<unknown>, "); ok {
		return r, false
	}
	r, ok := after(b, "pid=")
	if !ok {
		return b, starts(b, "name=")
	}
	_, r = digits(r)
	r, ok = after(r, ", ")
	if !ok || starts(r, "name=") {
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

// recovery reads "GPU recovery action changed from 0x0 (None) to 0x2 (Node Reboot Required)": the second number, and only
// where the words agree with it. The numbers are NV2080_CTRL_GPU_RECOVERY_ACTION in src/common/sdk/nvidia/inc/ctrl/
// ctrl2080/ctrl2080gpu.h, which are those of NVML's field 230, and the words are _gpuRecoveryActionName's in
// src/nvidia/src/kernel/gpu/gpu.c.
func recovery(b []byte) Recovery {
	b, ok := after(b, "GPU recovery action changed from 0x")
	if !ok {
		return RecoveryUnknown
	}
	_, b, ok = bytes.Cut(b, []byte(") to 0x"))
	if !ok {
		return RecoveryUnknown
	}
	n, b, ok := hexField(b, 2)
	if !ok || int(n) >= len(recoveries) {
		return RecoveryUnknown
	}
	words, ok := after(b, " (")
	if !ok || len(words) == 0 || words[len(words)-1] != ')' {
		return RecoveryUnknown
	}
	r := recoveries[n]
	words = words[:len(words)-1]
	if slices.Contains(r.words, string(words)) || r.word != "" && bytes.Contains(words, []byte(r.word)) {
		return r.Recovery
	}
	return RecoveryUnknown
}

// recoveries are the actions by number. Drivers of the 610 series have been reported to print "OS Reboot" and "PF FLR", a
// reset of the function, in public. NVML names the last two, and no public driver prints them yet, so their words are not
// known: it must do that they hold the one that matters.
var recoveries = [...]struct {
	Recovery
	words []string
	word  string
}{
	{RecoveryNone, []string{"None"}, ""},
	{RecoveryReset, []string{"GPU Reset Required", "PF FLR"}, ""},
	{RecoveryReboot, []string{"Node Reboot Required", "OS Reboot"}, ""},
	{RecoveryDrainP2P, []string{"Drain P2P"}, ""},
	{RecoveryDrainAndReset, []string{"Drain and Reset"}, ""},
	{RecoveryIMEX, []string{"Recover IMEX Domain"}, ""},
	{RecoveryBusReset, nil, "Bus Reset"},
	{RecoverySystemReboot, nil, "System Reboot"},
}

// parseLoading reads "x86_64 Kernel Module  580.105.08  ..." or "Open Kernel Module for x86_64  595.45.04  Release Build
// ..." after "loading NVIDIA UNIX ".
func parseLoading(b []byte) Line {
	_, b, ok := bytes.Cut(b, []byte("Kernel Module"))
	if !ok {
		return Line{}
	}
	if r, ok := after(b, " for "); ok {
		_, b, _ = bytes.Cut(r, []byte(" "))
	}
	major := driverMajor(bytes.TrimLeft(b, " "))
	if major == 0 {
		return Line{}
	}
	return Line{Kind: DriverLoaded, Driver: major}
}

// driverMajor is the first number of a version such as 580.105.08; 0 for what is none.
func driverMajor(version []byte) int {
	n, rest := digits(version)
	if n < 0 || n > 9999 || !starts(rest, ".") {
		return 0
	}
	return n
}

// parseGPU reads "0000:18:00.0: RmInitAdapter failed! ..." after "GPU ".
func parseGPU(b []byte) Line {
	a, b, ok := parseAddress(b)
	switch {
	case !ok:
	case starts(b, ": GPU has fallen off the bus"):
		return Line{Kind: OffBus, Address: a}
	case starts(b, ": RmInitAdapter failed!"):
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
	b, ok = after(b, ": ")
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
	b, ok := after(b, ": SXid (PCI:")
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
	if starts(b, "Severity ") || starts(b, "Data {") {
		// The driver logs an error's registers as lines of the same form after it; they are not further errors.
		return Line{}
	}
	for _, word := range [...]struct {
		text string
		Fatality
	}{{"Fatal, ", Fatal}, {"Non-fatal, ", NonFatal}, {"Correctable, ", Correctable}} {
		if rest, ok := after(b, word.text); ok {
			l.Fatality = word.Fatality
			// The switch's own port. What is at its other end only the fabric manager knows.
			l.Link, _ = readLink(rest)
		}
	}
	return l
}
