package kernellog

import "bytes"

// maxDriver bounds a driver's name at the start of a line.
const maxDriver = 32

// parseDevice reads what the kernel says of one PCI device: "driver 0000:18:00.0: ...", as __dev_printk in
// drivers/base/core.c writes it. The driver's name is that of a module, or "pci" for a device that has none.
func parseDevice(text []byte) Line {
	i := bytes.IndexByte(text[:min(len(text), maxDriver)], ' ')
	if i <= 0 {
		return Line{}
	}
	a, b, ok := parseAddress(text[i+1:])
	if !ok {
		return Line{}
	}
	if b, ok = after(b, ": "); !ok {
		return Line{}
	}
	if l := parseBus(a, b); l.Kind != None {
		return l
	}
	if string(text[:i]) == "amdgpu" {
		if kind := parseAMD(b); kind != None {
			return Line{Kind: kind, Address: a}
		}
	}
	return Line{}
}

// parseBus reads what the kernel's PCI Express services say: drivers/pci/pcie/aer.c, err.c and dpc.c, and
// drivers/pci/hotplug/pciehp_ctrl.c.
func parseBus(a Address, b []byte) Line {
	if r, ok := after(b, "pciehp: Slot("); ok {
		if ends(r, "): Link Down") || ends(r, "): Card not present") {
			return Line{Kind: PCIeSlotDown, Address: a}
		}
		return Line{}
	}
	if starts(b, "DPC: containment event, status:0x") {
		return Line{Kind: PCIeContained, Address: a}
	}
	aer, isAER := after(b, "AER: ")
	if isAER {
		b = aer
	}
	// aer_print_error: the device itself, with or without "AER: ", which some kernels leave out.
	if r, ok := after(b, "PCIe Bus Error: severity="); ok {
		if kind, r := busSeverity(r); kind != None && starts(r, ", type=") {
			return Line{Kind: kind, Address: a}
		}
		return Line{}
	}
	switch {
	case !isAER:
	case starts(b, "device recovery failed"):
		return Line{Kind: PCIeRecoveryFailed, Address: a}
	default:
		return parseReceived(b)
	}
	return Line{}
}

// parseReceived reads "Multiple Uncorrectable (Fatal) error message received from 0000:18:00.0", which a root port says of
// a device below it (aer_print_port_info), and "... error received: 0000:18:00.0" of older kernels.
func parseReceived(b []byte) Line {
	if r, ok := after(b, "Multiple "); ok {
		b = r
	}
	kind, b := busSeverity(b)
	if kind == None {
		return Line{}
	}
	from, ok := after(b, " error message received from ")
	if !ok {
		if from, ok = after(b, " error received: "); !ok {
			return Line{}
		}
	}
	a, rest, ok := parseAddress(from)
	if !ok || len(rest) > 0 && rest[0] != ' ' {
		return Line{}
	}
	return Line{Kind: kind, Address: a}
}

// busSeverity reads a severity as older and as newer kernels write it (aer_error_severity_string).
func busSeverity(b []byte) (Kind, []byte) {
	for _, s := range [...]struct {
		text string
		kind Kind
	}{
		{"Corrected", PCIeCorrected}, {"Correctable", PCIeCorrected},
		{"Uncorrected (Non-Fatal)", PCIeNonFatal}, {"Uncorrectable (Non-Fatal)", PCIeNonFatal},
		{"Uncorrected (Fatal)", PCIeFatal}, {"Uncorrectable (Fatal)", PCIeFatal},
	} {
		if rest, ok := after(b, s.text); ok {
			return s.kind, rest
		}
	}
	return None, nil
}

// parseAMD reads what the amdgpu driver says of a GPU: drivers/gpu/drm/amd. Its lines have "amdgpu: " once more after the
// address, or "[drm] ", by version. The name of a process comes in a line of its own, "Process information: ...".
func parseAMD(b []byte) Kind {
	for _, prefix := range [...]string{"amdgpu: ", "[drm] ", "*ERROR* "} {
		if r, ok := after(b, prefix); ok {
			b = r
		}
	}
	for _, m := range amdMessages {
		if starts(b, m.prefix) {
			return m.kind
		}
	}
	if r, ok := after(b, "GPU reset("); ok {
		n, r := digits(r)
		switch {
		case n < 0:
		case starts(r, ") succeeded!"):
			return AMDResetDone
		case starts(r, ") failed"):
			return AMDResetFailed
		}
		return None
	}
	if r, ok := after(b, "ring "); ok {
		_, r, _ = bytes.Cut(r, []byte(" "))
		if starts(r, "timeout, ") {
			return AMDRingTimeout
		}
		return None
	}
	if r, ok := after(b, "RAS records:"); ok {
		if bytes.Contains(r, []byte("GPU will not be initialized. Replace this GPU")) {
			return AMDReplace
		}
		if _, r = digits(r); starts(r, " exceed") {
			return AMDBadPages
		}
		return None
	}
	return parseRAS(b)
}

// amdMessages are what says all by its start.
var amdMessages = [...]struct {
	prefix string
	kind   Kind
}{
	{"GPU reset begin!", AMDReset},                                               // amdgpu_device_gpu_recover
	{"GPU reset end with ret = -", AMDResetFailed},                               // the same, where it failed
	{"GPU Recovery Failed: -", AMDResetFailed},                                   // amdgpu_job_timedout
	{"device lost from bus!", AMDLost},                                           // amdgpu_device_health_check
	{"VRAM is lost due to GPU reset!", AMDVRAMLost},                              // amdgpu_do_asic_reset
	{"SMU: I'm not done with your previous command", AMDSMUHung},                 // __smu_cmn_reg_print_error
	{"SMU: response:0xFFFFFFFF for index:", AMDSMUHung},                          // the same: nothing answered
	{"uncorrectable hardware error(ERREVENT_ATHUB_INTERRUPT)", AMDUncorrectable}, // amdgpu_ras_global_ras_isr
	{"Saved bad pages ", AMDBadPages},                                            // amdgpu_ras_eeprom_update_header
}

// parseRAS reads "{12}socket: 0, die: 1, 2 new uncorrectable hardware errors detected in umc block", of which older
// versions leave out the first parts (amdgpu_ras_error_print_error_data). The totals since the driver's start, which it
// says with them, are no new errors.
func parseRAS(b []byte) Kind {
	if r, ok := after(b, "{"); ok {
		_, r = digits(r)
		b = bytes.TrimLeft(bytes.TrimPrefix(r, []byte("}")), " ")
	}
	if r, ok := after(b, "socket: "); ok {
		_, r = digits(r)
		r, ok1 := after(r, ", die: ")
		_, r = digits(r)
		if b = bytes.TrimLeft(bytes.TrimPrefix(r, []byte(",")), " "); !ok1 {
			return None
		}
	}
	if r, ok := after(b, "new "); ok {
		b = r
	}
	n, b := digits(b)
	if n < 0 {
		return None
	}
	if r, ok := after(b, " new"); ok {
		b = r
	}
	kind := AMDUncorrectable
	r, ok := after(b, " uncorrectable hardware errors detected in ")
	if !ok {
		kind = AMDCorrectable
		if r, ok = after(b, " correctable hardware errors detected in "); !ok {
			return None
		}
	}
	if starts(r, "total ") {
		return None
	}
	return kind
}
