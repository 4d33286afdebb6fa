package kernellog

import "bytes"

// pattern is a line of the host that starts with the prefix. What follows it says the kind, or match does.
type pattern struct {
	prefix string
	kind   Kind
	match  func(rest []byte) Kind
}

// hostPatterns are the lines about the host. The forms are those of Linux 6.1, with older and newer ones beside them; the
// comment names the function that prints them.
var hostPatterns = [...]pattern{
	// mm/oom_kill.c, __oom_kill_process. Its name is in parentheses after the pid.
	{"Out of memory: Killed process ", OOMKilled, nil},
	{"Out of memory (oom_kill_allocating_task): Killed process ", OOMKilled, nil},
	{"Memory cgroup out of memory: Killed process ", CgroupOOMKilled, nil},
	// kernel/hung_task.c, check_hung_task.
	{"INFO: task ", None, hungTask},
	// kernel/watchdog.c, watchdog_timer_fn, and watchdog_hardlockup_check in it or in watchdog_hld.c.
	{"watchdog: BUG: soft lockup - CPU#", SoftLockup, nil},
	{"NMI watchdog: Watchdog detected hard LOCKUP on cpu ", HardLockup, nil},
	{"watchdog: Watchdog detected hard LOCKUP on cpu ", HardLockup, nil},
	{"watchdog: CPU", None, hardLockup},
	// kernel/rcu/tree_stall.h, print_cpu_stall and print_other_cpu_stall.
	{"rcu: INFO: rcu_", None, rcuStall},
	// arch/x86/mm/fault.c, show_fault_oops; lib/bug.c, report_bug; arch/x86/kernel/traps.c, exc_general_protection;
	// arch/arm64/mm/fault.c, die_kernel_fault; arch/arm64/kernel/traps.c, __die.
	{"BUG: unable to handle page fault for address: ", KernelOops, nil},
	{"BUG: unable to handle kernel ", KernelOops, nil},
	{"BUG: kernel NULL pointer dereference, address: ", KernelOops, nil},
	{"kernel BUG at ", None, kernelBug},
	{"general protection fault, ", KernelOops, nil},
	{"general protection fault: ", KernelOops, nil},
	{"Oops: general protection fault, ", KernelOops, nil},
	{"Unable to handle kernel ", KernelOops, nil},
	{"Internal error: Oops", KernelOops, nil},
	// kernel/panic.c, panic.
	{"Kernel panic - not syncing: ", KernelPanic, nil},
	// arch/x86/kernel/cpu/mce/core.c, __print_mce and mce_notify_irq.
	{"mce: [Hardware Error]: CPU ", None, machineCheck},
	{"mce: [Hardware Error]: Machine check events logged", MachineCheckLogged, nil},
	// drivers/edac/mce_amd.c, decode_error_status.
	{"[Hardware Error]: Corrected error, no action required.", HardwareCorrected, nil},
	{"[Hardware Error]: Deferred error, no action required.", HardwareCorrected, nil},
	{"[Hardware Error]: Uncorrected, software restartable error.", HardwareUncorrected, nil},
	{"[Hardware Error]: Uncorrected, software containable error.", HardwareUncorrected, nil},
	{"[Hardware Error]: System Fatal error.", HardwareUncorrected, nil},
	// drivers/acpi/apei/ghes.c, __ghes_print_estatus, and drivers/firmware/efi/cper.c, cper_estatus_print. Without the
	// number in braces it is an error of the boot before, which the firmware had kept (drivers/acpi/apei/bert.c).
	{"{", None, firmwareError},
	// drivers/edac/edac_mc.c, edac_ce_error and edac_ue_error.
	{"EDAC MC", None, edac},
	// fs/ext4/super.c, ext4_handle_error; fs/xfs/xfs_fsops.c, xfs_do_force_shutdown; fs/btrfs/super.c or fs.c,
	// __btrfs_handle_fs_error.
	{"EXT4-fs (", None, ext4},
	{"XFS (", None, xfs},
	{"BTRFS info (device ", None, btrfs},
	// drivers/nvme/host/pci.c, nvme_timeout, nvme_warn_reset and nvme_reset_work.
	{"nvme nvme", None, nvme},
}

// byFirst are hostPatterns by their first byte: most lines of a kernel log are foreign, and are to cost little.
var byFirst = func() (table [256][]pattern) {
	for _, p := range hostPatterns {
		table[p.prefix[0]] = append(table[p.prefix[0]], p)
	}
	return table
}()

func parseHost(text []byte) Kind {
	for _, p := range byFirst[text[0]] {
		rest, ok := after(text, p.prefix)
		switch {
		case !ok:
		case p.match == nil:
			return p.kind
		default:
			if kind := p.match(rest); kind != None {
				return kind
			}
		}
	}
	return None
}

// hungTask reads "python:4711 blocked for more than 122 seconds." from its end: what is before the pid is the process's
// name, which may say anything.
func hungTask(b []byte) Kind {
	b, ok := before(b, " seconds.")
	if !ok {
		return None
	}
	b, ok = before(trimDigits(b), " for more than ")
	if !ok {
		return None
	}
	for _, how := range [...]string{" blocked", " blocked in I/O wait"} {
		if r, ok := before(b, how); ok {
			if pid := trimDigits(r); len(pid) < len(r) && ends(pid, ":") {
				return HungTask
			}
		}
	}
	return None
}

// hardLockup reads "3: Watchdog detected hard LOCKUP on cpu 3", of newer kernels.
func hardLockup(b []byte) Kind {
	if n, r := digits(b); n >= 0 && starts(r, ": Watchdog detected hard LOCKUP on cpu ") {
		return HardLockup
	}
	return None
}

// rcuStall reads "sched self-detected stall on CPU" and "preempt detected stalls on CPUs/tasks:".
func rcuStall(b []byte) Kind {
	_, b, _ = bytes.Cut(b, []byte(" "))
	if starts(b, "self-detected stall on CPU") || starts(b, "detected stalls on CPUs/tasks:") || starts(b, "detected expedited stalls on CPUs/tasks:") {
		return RCUStall
	}
	return None
}

// kernelBug reads "mm/slub.c:4023!".
func kernelBug(b []byte) Kind {
	b, ok := before(b, "!")
	if !ok {
		return None
	}
	if file := trimDigits(b); len(file) < len(b) && ends(file, ":") {
		return KernelOops
	}
	return None
}

// Bits of a machine check's status: valid, and not corrected (MCi_STATUS of Intel's and AMD's manuals).
const (
	mceValid       = 1 << 63
	mceUncorrected = 1 << 61
)

// machineCheck reads "3: Machine Check Exception: 5 Bank 4: be00000000800400": the last is the status.
func machineCheck(b []byte) Kind {
	n, b := digits(b)
	b, ok := after(b, ": Machine Check")
	if !ok || n < 0 {
		return None
	}
	if r, ok := after(b, " Exception"); ok {
		b = r
	}
	b, ok = after(b, ": ")
	if !ok {
		return None
	}
	_, b, ok = bytes.Cut(b, []byte(" Bank "))
	if !ok {
		return None
	}
	_, b = digits(b)
	if b, ok = after(b, ": "); !ok {
		return None
	}
	high, b, ok1 := hexField(b, 8)
	low, b, ok2 := hexField(b, 8)
	status := uint64(high)<<32 | uint64(low)
	switch {
	case !ok1 || !ok2 || len(b) > 0 || status&mceValid == 0:
		return None
	case status&mceUncorrected != 0:
		return HardwareUncorrected
	}
	return HardwareCorrected
}

// firmwareError reads "12}[Hardware Error]: event severity: fatal".
func firmwareError(b []byte) Kind {
	n, b := digits(b)
	b, ok := after(b, "}[Hardware Error]: event severity: ")
	if !ok || n < 0 {
		return None
	}
	switch string(b) {
	case "corrected":
		return HardwareCorrected
	case "recoverable", "fatal":
		return HardwareUncorrected
	}
	return None
}

// edac reads "0: 1 CE memory read error on CPU_SrcID#0_Ha#0_Chan#1_DIMM#0 (channel:1 slot:0 page:0x1234 offset:0x0 ...".
func edac(b []byte) Kind {
	controller, b := digits(b)
	b, ok := after(b, ": ")
	errors, b := digits(b)
	if !ok || controller < 0 || errors < 0 || !bytes.Contains(b, []byte(" page:0x")) {
		return None
	}
	switch {
	case starts(b, " CE "):
		return MemoryCorrected
	case starts(b, " UE "):
		return MemoryUncorrected
	}
	return None
}

// onDisk says that a filesystem's device is a disk's: what is made of an image file by a loop device is no fault of the
// host, and whoever may mount one can break it.
func onDisk(device []byte) bool { return len(device) > 0 && !starts(device, "loop") }

// ext4 reads "nvme0n1p1): Remounting filesystem read-only".
func ext4(b []byte) Kind {
	device, b, ok := bytes.Cut(b, []byte("): "))
	if ok && onDisk(device) && string(b) == "Remounting filesystem read-only" {
		return ReadOnlyFilesystem
	}
	return None
}

// xfs reads "nvme0n1p1): Metadata I/O Error (0x1) detected at ... (fs/xfs/xfs_buf.c:1558).  Shutting down filesystem.".
func xfs(b []byte) Kind {
	device, b, ok := bytes.Cut(b, []byte("): "))
	if ok && onDisk(device) && (ends(b, "Shutting down filesystem.") || ends(b, "Shutting down filesystem")) {
		return ReadOnlyFilesystem
	}
	return None
}

// btrfs reads "dm-0: state EA): forced readonly".
func btrfs(b []byte) Kind {
	device, b, ok := bytes.Cut(b, []byte("): "))
	if ok && onDisk(device) && string(b) == "forced readonly" {
		return ReadOnlyFilesystem
	}
	return None
}

// nvme reads "0: I/O 123 QID 4 timeout, reset controller" and the like. The controller's number is no PCI address.
func nvme(b []byte) Kind {
	n, b := digits(b)
	b, ok := after(b, ": ")
	switch {
	case !ok || n < 0:
	case starts(b, "I/O ") && ends(b, " timeout, reset controller"),
		starts(b, "controller is down; will reset: CSTS=0x"):
		return NVMeReset
	case starts(b, "Removing after probe failure status: -"), starts(b, "Disabling device after reset failure: -"):
		return NVMeFailed
	}
	return None
}

// before is what is before the suffix.
func before(b []byte, suffix string) (rest []byte, ok bool) {
	if !ends(b, suffix) {
		return nil, false
	}
	return b[:len(b)-len(suffix)], true
}

// trimDigits drops the decimal digits at the end.
func trimDigits(b []byte) []byte {
	for len(b) > 0 && b[len(b)-1] >= '0' && b[len(b)-1] <= '9' {
		b = b[:len(b)-1]
	}
	return b
}
