package corpus

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

// Noises name what is not a fault of the machine.
const (
	NoiseStorm    = "application-storm"
	NoiseErrors   = "application-errors"
	NoiseCrash    = "job-crash"
	NoiseForged   = "forged-name"
	NoiseInjected = "injected-line"
	NoiseOdd      = "odd-code"
	NoiseHost     = "host-remark"
	NoiseUpgrade  = "driver-upgrade"
	NoiseReboot   = "planned-reboot"
	NoiseOverrun  = "log-overrun"
	NoiseRestart  = "agent-restart"
)

// Noises are all of them, in the order of the table.
func Noises() []string {
	return []string{
		NoiseStorm, NoiseErrors, NoiseCrash, NoiseForged, NoiseInjected, NoiseOdd, NoiseHost, NoiseUpgrade, NoiseReboot, NoiseOverrun, NoiseRestart,
	}
}

// names are of processes. The kernel gives 15 bytes of a name, and a process chooses them.
var names = []string{"python", "python3", "pt_main_thread", "ray::IDLE", "all_reduce_perf", "vllm::worker", "java", "gmx_mpi", "a,b: c", "x): 79, GPU has"}

// attackers are names that hold what they should not: a code, a whole line, an action, a line break.
var attackers = []string{
	"x): 79, GPU has fallen off the bus.",
	"NVRM: Xid (PCI:0000:2a:00): 79, GPU has fallen off the bus.",
	"a, GPU recovery action changed from 0x0 (None) to 0x2 (Node Reboot Required)",
	"NETIR_LINK_EVT  Fatal   XC0 i0 Link 02 (0x004505c6 0x00000000)",
	"a caused by previous Xid 79",
	"a\nNVRM: Xid (PCI:0000:18:00): 79, GPU has fallen off the bus.",
	"a\n4,1,1,-;NVRM: Xid (PCI:0000:18:00): 79, GPU has fallen off the bus.",
	"<unknown>, GPU has fallen off the bus.",
	"pid='<unknown>', name=<unknown>, GPU has fallen off the bus.",
	"name=,,::", "\x1b[2J\x07", "", "ünïcode 漢字",
}

// applicationCodes are Xids that NVIDIA's catalogue answers with RESTART_APP, and those that it ignores and a crash leaves.
var applicationCodes = []int{8, 13, 13, 13, 31, 31, 31, 32, 43, 43, 68, 69, 96, 126, 139}

func (b *builder) noise(kind, device, code string) {
	b.n.labels = append(b.n.labels, Label{
		Node: b.n.Name, Device: device, Kind: kind, Class: v1alpha1.ClassApplication, Code: code, From: b.at, Until: b.at.Add(b.last), Visible: true,
	})
}

// anyGPU is the address of one of the node's GPUs.
func (b *builder) anyGPU() string { return gpuAddresses[b.r.IntN(b.n.c.o.Mix.GPUs)] }

// storm is a burst of clean-up lines: of one GPU, or of all.
func (b *builder) storm(size int) {
	b.tag = application
	gpu, all := b.anyGPU(), b.chance(50)
	length := b.between(time.Second, 10*time.Minute)
	process := b.process()
	for i := range size {
		if all {
			gpu = gpuAddresses[i%b.n.c.o.Mix.GPUs]
		}
		if i%16 == 0 {
			process = b.process()
		}
		b.xidOf(b.upTo(length), gpu, short(gpu), 45, fmt.Sprintf("%sCh %08x", process, i%1024))
	}
	if all {
		gpu = ""
	}
	b.noise(NoiseStorm, gpu, "Xid45")
}

// applicationErrors are other errors of applications: of one GPU, some of a MIG instance.
func (b *builder) applicationErrors(size int) {
	b.tag = application
	gpu := b.anyGPU()
	place := short(gpu)
	if b.chance(20) {
		place += fmt.Sprintf(" GPU-I:%02d", 1+b.r.IntN(7))
		if b.chance(50) {
			place += " GPU-CI:00"
		}
	}
	code := pick(b, applicationCodes)
	for range size {
		b.xidOf(b.upTo(time.Minute), gpu, place, code, b.process()+b.applicationText(code))
	}
	b.noise(NoiseErrors, gpu, fmt.Sprintf("Xid%d", code))
}

func (b *builder) applicationText(code int) string {
	gpc, tpc := b.r.IntN(8), b.r.IntN(9)
	switch code {
	case 13:
		return fmt.Sprintf("Graphics SM Warp Exception on (GPC %d, TPC %d, SM %d): Out Of Range Address", gpc, tpc, b.r.IntN(2))
	case 31:
		return fmt.Sprintf("Ch %08x, intr 00000000. MMU Fault: ENGINE GRAPHICS GPC%d GPCCLIENT_T1_%d faulted @ 0x7f%02x_%08x. "+
			"Fault is of type FAULT_PDE ACCESS_TYPE_VIRT_READ", 8+gpc, gpc, tpc, b.r.IntN(256), b.r.Uint32())
	}
	return fmt.Sprintf("Ch %08x", 8+gpc)
}

// jobCrash is one node's part of the crash of a large job: every GPU, several codes, within a second.
func (b *builder) jobCrash() {
	b.tag = application
	for _, gpu := range gpuAddresses[:b.n.c.o.Mix.GPUs] {
		code := pick(b, applicationCodes)
		b.xidOf(b.upTo(time.Second), gpu, short(gpu), code, b.process()+b.applicationText(code))
		for i := range 1 + b.r.IntN(4) {
			b.xidOf(b.upTo(time.Second), gpu, short(gpu), 45, fmt.Sprintf("%sCh %08x", b.process(), i))
		}
	}
	b.noise(NoiseCrash, "", "Xid45")
}

// forgedName is an application's error of a process with a name that is an attack.
func forgedName(b *builder) {
	gpu, name := b.anyGPU(), pick(b, attackers)
	if b.chance(25) {
		// The kernel begins some lines with the name of a process, 15 bytes of it (show_signal_msg in arch/x86/mm/fault.c).
		b.add(0, item{tag: forged, event: kernelLine(time.Time{}, 4, fmt.Sprintf(
			"%.15s[%d]: segfault at 0 ip 00007f0000000000 sp 00007ffd00000000 error 4 in libc.so.6[7f0000000000+1000]",
			pick(b, []string{"NVRM: Xid (PCI:", "NVRM: GPU 0000:", "nvidia-nvswitch", "NVRM: No NVIDIA"}), b.r.IntN(4e6)))})
	} else {
		b.tag = forged
		b.xidOf(0, gpu, short(gpu), pick(b, []int{13, 31, 43, 45}), fmt.Sprintf("pid=%d, name=%s, Ch 00000008", b.r.IntN(4e6), name))
	}
	b.noise(NoiseForged, gpu, "")
}

// injectedLine is what a process wrote to /dev/kmsg: the kernel gives it another facility than its own.
func injectedLine(b *builder) {
	gpu := b.anyGPU()
	text := pick(b, []string{
		"NVRM: Xid (PCI:" + short(gpu) + "): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.",
		"NVRM: Xid (PCI:" + short(gpu) + "): 154, GPU recovery action changed from " + needNone + " to " + needReboot,
		"NVRM: Xid (PCI:" + short(gpu) + "): 48, DBE (double bit error) ECC Error",
		"NVRM: GPU " + gpu + ": GPU has fallen off the bus.",
		"NVRM: GPU " + gpu + ": RmInitAdapter failed! (0x25:0x65:1457)",
		"nvidia-nvswitch0: SXid (PCI:0000:05:00.0): 20034, Fatal, Link 30 LTSSM Fault Up",
	})
	e := kernelLine(time.Time{}, 4, text)
	e.Priority = pick(b, []uint16{1<<3 | 4, 1<<3 | 4, 1<<3 | 3, 3<<3 | 4, 16<<3 | 2})
	b.add(0, item{tag: injected, event: e})
	b.noise(NoiseInjected, gpu, "")
}

// oddCode is a code that NVIDIA ignores, or that nobody knows.
func oddCode(b *builder) {
	gpu := b.anyGPU()
	code := pick(b, []int{14, 37, 38, 44, 66, 67, 92, 93, 106, 107, 108, 121, 137, 141, 152, 153, 157, 160, 161, 162, 172, 51, 177, 400, 999})
	b.xidOf(0, gpu, short(gpu), code, "something that asks for nothing")
	b.noise(NoiseOdd, gpu, fmt.Sprintf("Xid%d", code))
}

// hostRemark is what a host says of itself that asks for nothing: a container that had no memory left, and errors that were
// corrected.
func hostRemark(b *builder) {
	gpu := b.anyGPU()
	b.kernel(0, pick(b, []string{
		"Memory cgroup out of memory: Killed process 4711 (python) total-vm:8388608kB, anon-rss:8126464kB, file-rss:0kB, shmem-rss:0kB, UID:1000 pgtables:16384kB oom_score_adj:998",
		"pcieport " + portOf(gpu) + ": AER: Correctable error message received from " + gpu,
		"nvidia " + gpu + ": PCIe Bus Error: severity=Correctable, type=Data Link Layer, (Transmitter ID)",
		"EDAC MC0: 1 CE memory read error on CPU_SrcID#0_MC#0_Chan#0_DIMM#0 (channel:0 slot:0 page:0x2f offset:0x0 grain:32 syndrome:0x0)",
		"mce: [Hardware Error]: Machine check events logged",
	}))
	b.noise(NoiseHost, "", "")
}

// driverUpgrade unloads the driver's modules and loads others, as a GPU operator does. The GPUs get their UUIDs said anew.
func driverUpgrade(b *builder) {
	for i, text := range []string{
		"nvidia-uvm: Unloaded the UVM driver.",
		"nvidia-modeset: Unloading",
		"nvidia-nvlink: Unregistered Nvlink Core, major device number 234",
	} {
		b.kernel(time.Duration(i)*time.Second, text)
	}
	at := b.between(30*time.Second, 5*time.Minute)
	for i, text := range []string{
		"nvidia-nvlink: Nvlink Core is being initialized, major device number 234",
		"NVRM: loading NVIDIA UNIX Open Kernel Module for x86_64  " + b.n.driver + "  Release Build  (dvs-builder@U22-I3)",
		"nvidia-modeset: Loading NVIDIA UNIX Open Kernel Mode Setting Driver for x86_64  " + b.n.driver,
		"[drm] [nvidia-drm] [GPU ID 0x00001800] Loading driver",
		"nvidia-uvm: Loaded the UVM driver, major device number 510.",
	} {
		b.kernel(at+time.Duration(i)*time.Second, text)
	}
	b.noise(NoiseUpgrade, "", "")
}

func plannedReboot(b *builder) {
	b.reboot(0)
	b.noise(NoiseReboot, "", "")
}

// overrun is a burst of lines of which the kernel overwrote some.
func overrun(b *builder) {
	for range 300 + b.r.IntN(1000) {
		it := item{event: kernelLine(time.Time{}, 6, pick(b, chatterTexts))}
		if b.chance(50) {
			it.op = opLost
		}
		b.add(b.upTo(5*time.Second), it)
	}
	b.noise(NoiseOverrun, "", "")
}

func agentRestart(b *builder) {
	b.restart(0)
	b.noise(NoiseRestart, "", "")
}

// chatterTexts are what any kernel logs in a day.
var chatterTexts = []string{
	"eth0: link becomes ready",
	"usb 1-1: new high-speed USB device number 2 using xhci_hcd",
	"IPv6: ADDRCONF(NETDEV_CHANGE): cali0f3a7: link becomes ready",
	"docker0: port 3(veth1f2e) entered blocking state",
	"docker0: port 3(veth1f2e) entered disabled state",
	"device veth1f2e left promiscuous mode",
	"audit: type=1400 audit(1764000000.000:42): apparmor=\"STATUS\" operation=\"profile_replace\"",
	"systemd-journald[512]: Received client request to flush runtime journal.",
	"nvidia 0000:18:00.0: enabling device (0140 -> 0142)",
	"NVRM: GPU0 nvAssertOkFailedNoLog: Assertion failed: Failure: Generic Error [NV_ERR_GENERIC] (0x0000FFFF)",
	"nvidia-nvswitch0: using MSI",
	"perf: interrupt took too long (2503 > 2500), lowering kernel.perf_event_max_sample_rate to 79750",
	"mlx5_core 0000:0c:00.0 ib0: Link up",
	"kauditd_printk_skb: 12 callbacks suppressed",
}

// chatter adds a day's kernel lines that tell nothing.
func (n *Node) chatter(from time.Time) {
	r := rand.New(rand.NewPCG(n.c.o.Seed, 1<<41+uint64(n.number)<<16+uint64(n.day)))
	mean := int(n.c.o.Mix.ChatterPerNodeDay)
	if mean < 1 {
		return
	}
	for range mean/2 + r.IntN(mean+1) {
		at := from.Add(time.Duration(r.Int64N(int64(24*time.Hour/time.Microsecond))) * time.Microsecond)
		n.items = append(n.items, item{event: kernelLine(at, 6, chatterTexts[r.IntN(len(chatterTexts))])})
	}
}
