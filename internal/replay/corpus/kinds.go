package corpus

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/replay"
)

// place says what a fault is on.
type place uint8

const (
	onGPU place = iota
	onSwitch
	onNode
)

// repair says what ends a fault.
type repair uint8

const (
	// byReset is a reset by the agent, a reset by someone else of which only the driver's word is seen, or a reboot.
	byReset repair = iota
	// byBoot is a reboot.
	byBoot
	// byNothing stands until the end: it needs no repair, or a human.
	byNothing
	// byItself has ended in its own lines.
	byItself
)

// kind is a kind of fault: what it logs, and what is true of it. The truths are NVIDIA's: its Xid catalogue's immediate
// actions, and the driver's own words.
type kind struct {
	name       string
	place      place
	class      v1alpha1.FaultClass
	code       string
	disruptive bool
	hidden     bool
	cause      string
	repair     repair
	build      func(b *builder, l *Label)
}

const (
	hardware = v1alpha1.ClassHardware
	driver   = v1alpha1.ClassDriver
	fabric   = v1alpha1.ClassFabric
)

// kinds are all of them, in the order of the table.
var kinds = []kind{
	{name: "off-bus", class: hardware, code: "Xid79", disruptive: true, cause: "gpu", repair: byBoot, build: offBus},
	{name: "off-bus-at-start", class: hardware, code: "NVIDIAOffBus", disruptive: true, cause: "gpu", repair: byBoot, build: offBusAtStart},
	{name: "init-failed", class: driver, code: "NVIDIAInitFailed", disruptive: true, cause: "gpu", repair: byBoot, build: initFailed},
	{name: "ecc-double-bit", class: hardware, code: "Xid48", disruptive: true, cause: "hbm3", build: doubleBit(63, rowRemapped)},
	{name: "ecc-remap-failed", class: hardware, code: "Xid48", disruptive: true, cause: "hbm3", build: doubleBit(64, rowFailed)},
	{name: "remap-failed", class: hardware, code: "Xid64", disruptive: true, cause: "hbm3", build: alone(64, rowFailed)},
	{name: "ecc-uncontained", class: hardware, code: "Xid95", disruptive: true, cause: "sram", build: uncontained},
	{name: "ecc-escaped", class: hardware, code: "Xid140", disruptive: true, cause: "sram", build: alone(140, "Unrecovered ECC error")},
	{name: "ecc-contained", class: hardware, code: "Xid94", cause: "hbm3", repair: byNothing, build: contained},
	{name: "gsp-timeout", class: driver, code: "Xid119", disruptive: true, cause: "gsp", build: gspTimeout},
	{name: "gsp-error", class: driver, code: "Xid120", disruptive: true, cause: "gsp", build: gspError},
	{name: "gsp-chain", class: driver, code: "Xid119", disruptive: true, cause: "gsp", build: gspChain},
	{name: "gsp-hang", class: driver, code: "Xid119", disruptive: true, cause: "gsp", build: gspHang},
	{name: "gsp-rate-limited", class: driver, code: "NVIDIAGSPRateLimited", disruptive: true, cause: "gsp", build: gspRateLimited},
	{name: "microcontroller-halt", class: driver, code: "Xid62", disruptive: true, cause: "gpu", build: halt},
	{name: "gpu-init-error", class: driver, code: "Xid143", disruptive: true, cause: "gpu", build: alone(143, "GPU initialization error")},
	{name: "stopped-processing", class: hardware, code: "Xid46", disruptive: true, cause: "gpu", build: alone(46, "GPU stopped processing")},
	{name: "security-fault", class: hardware, code: "Xid110", disruptive: true, cause: "gpu", build: alone(110, "Security fault error")},
	{name: "link-training", class: hardware, code: "Xid136", disruptive: true, cause: "network", build: alone(136, "Link training failed")},
	{name: "nvlink-software", class: hardware, code: "Xid155", disruptive: true, cause: "network", build: alone(155, "NVLINK: SW defined error, link 3")},
	{name: "retirement", class: hardware, code: "Xid156", disruptive: true, cause: "hbm3", build: alone(156, "Resource retirement event")},
	{name: "gpu-timeout", class: hardware, code: "Xid158", disruptive: true, cause: "gpu", build: alone(158, "GPU fatal timeout")},
	{name: "nvlink5-fatal", class: fabric, disruptive: true, cause: "network", build: nvlink5Fatal},
	{name: "nvlink5-nonfatal", class: fabric, cause: "network", repair: byNothing, build: nvlink5Nonfatal},
	{name: "nvlink4", class: fabric, code: "Xid74", cause: "network", repair: byNothing, build: nvlink4},
	{name: "nvswitch-fatal", place: onSwitch, class: fabric, code: "SXid20034", disruptive: true, cause: "network", repair: byBoot, build: switchFatal},
	{name: "nvswitch-nonfatal", place: onSwitch, class: fabric, code: "SXid12028", cause: "network", repair: byNothing, build: switchNonfatal},
	{name: "recovery-reset", class: hardware, code: "Xid154", disruptive: true, build: recovery(needReset)},
	{name: "recovery-reboot", class: hardware, code: "Xid154", disruptive: true, repair: byBoot, build: recovery(needReboot)},
	{name: "recovery-os-reboot", class: hardware, code: "Xid154", disruptive: true, repair: byBoot, build: recovery(needReboot610)},
	{name: "recovery-flr", class: hardware, code: "Xid154", disruptive: true, build: recovery(needResetFLR)},
	{name: "recovery-drain-reset", class: hardware, code: "Xid154", disruptive: true, build: recovery(needDrainAndReset)},
	{name: "recovery-drain-p2p", class: hardware, code: "Xid154", repair: byNothing, build: recovery(needDrainP2P)},
	{name: "recovery-flap", class: hardware, code: "Xid154", disruptive: true, repair: byItself, build: flap},
	{name: "row-remapped", class: hardware, code: "Xid63", cause: "hbm3", repair: byNothing, build: repeated(63, 1, rowRemapped)},
	{name: "row-remapped-again", class: hardware, code: "Xid63", cause: "hbm3", repair: byNothing, build: repeated(63, 4, rowRemapped)},
	{name: "disputed-once", class: driver, code: "Xid109", repair: byNothing, build: repeated(109, 1, ctxSwitch)},
	{name: "disputed-again", class: driver, code: "Xid109", disruptive: true, build: repeated(109, 4, ctxSwitch)},
	{name: "asks-a-human", class: hardware, repair: byNothing, build: asksHuman},
	{name: "probe-failed", place: onNode, class: driver, code: "NVIDIAProbeFailed", repair: byNothing, build: probeFailed},
	{name: "no-gpu", place: onNode, class: driver, code: "NVIDIANoGPU", repair: byNothing, build: noGPU},
	{name: "silent", class: hardware, disruptive: true, hidden: true, repair: byBoot, build: func(*builder, *Label) {}},
	{name: "overwritten", class: hardware, code: "Xid79", disruptive: true, hidden: true, repair: byBoot, build: overwritten},
}

// Texts after the codes, in the driver's forms (src/nvidia/src/kernel of the open driver, and NVIDIA's Xid catalogue).
const (
	rowRemapped = "Row Remapper: New row (0x00000000000000c2) marked for remapping, reset gpu to activate."
	rowFailed   = "Row Remapper: Failed to write remapping to InfoROM"
	ctxSwitch   = "errorString CTX SWITCH TIMEOUT, Info 0x14010"

	needNone          = "0x0 (None)"
	needReset         = "0x1 (GPU Reset Required)"
	needReboot        = "0x2 (Node Reboot Required)"
	needDrainP2P      = "0x3 (Drain P2P)"
	needDrainAndReset = "0x4 (Drain and Reset)"
	// What drivers of the 610 series print for a reboot, by public reports.
	needReboot610 = "0x2 (OS Reboot)"
	// And what a newer driver prints for the reset of a function, by the same kind of report.
	needResetFLR = "0x1 (PF FLR)"
)

// builder adds what one episode does to a node's items.
type builder struct {
	n  *Node
	r  *rand.Rand
	at time.Time
	// gpu is the device it is about, last when its last line was, and tag what the Xids are counted as.
	gpu  string
	last time.Duration
	tag  tag
	// recovery says that the driver asked for something and has not taken that back.
	recovery bool
}

func (b *builder) add(after time.Duration, it item) {
	it.event.At = b.at.Add(after)
	b.last = max(b.last, after)
	b.n.items = append(b.n.items, it)
}

// kernel adds a line of the kernel.
func (b *builder) kernel(after time.Duration, text string) {
	b.add(after, item{event: kernelLine(time.Time{}, 4, text)})
}

// xid adds an Xid of the episode's GPU.
func (b *builder) xid(after time.Duration, code int, text string) {
	b.xidOf(after, b.gpu, short(b.gpu), code, text)
}

// xidOf adds one of a GPU, or of the part that the place names.
func (b *builder) xidOf(after time.Duration, gpu, place string, code int, text string) {
	b.add(after, item{gpu: gpu, tag: b.tag, event: kernelLine(time.Time{}, 4, fmt.Sprintf("NVRM: Xid (PCI:%s): %d, %s", place, code, text))})
}

// driverXid adds one that no process is to blame for, in either of the driver's two forms.
func (b *builder) driverXid(after time.Duration, code int, text string) {
	if b.chance(50) {
		text = "pid='<unknown>', name=<unknown>, " + text
	}
	b.xid(after, code, text)
}

// cleanUp adds the 45s of the processes that were on the GPU.
func (b *builder) cleanUp(after time.Duration) {
	for i := range 1 + b.r.IntN(8) {
		b.xid(after+b.upTo(2*time.Second), 45, fmt.Sprintf("%sCh %08x", b.process(), 8+i))
	}
}

func (b *builder) process() string {
	return fmt.Sprintf("pid=%d, name=%s, ", 1000+b.r.IntN(4e6), pick(b, names))
}

func (b *builder) chance(percent float64) bool { return b.r.Float64()*100 < percent }

// upTo is in whole microseconds, as all times are: the kernel has no finer ones.
func (b *builder) upTo(d time.Duration) time.Duration {
	return time.Duration(b.r.Int64N(int64(d))).Truncate(time.Microsecond)
}

func (b *builder) between(from, to time.Duration) time.Duration { return from + b.upTo(to-from) }

func pick[T any](b *builder, of []T) T { return of[b.r.IntN(len(of))] }

// fault is an episode of a kind, from its first line to its repair.
func (b *builder) fault(k *kind, device string) {
	b.gpu = device
	l := Label{
		Node: b.n.Name, Device: device, Kind: k.name, Class: k.class, Code: k.code, From: b.at, Fault: true,
		Disruptive: k.disruptive, Visible: !k.hidden,
	}
	if !k.hidden && b.chance(b.n.c.o.Mix.RestartPercent) {
		b.restart(-5 * time.Second)
	}
	k.build(b, &l)
	l.Until = b.at.Add(b.repair(k.repair))
	b.n.labels = append(b.n.labels, l)
}

// repair ends the episode and returns when.
func (b *builder) repair(r repair) time.Duration {
	after := b.last + b.between(5*time.Minute, 40*time.Minute)
	if r == byReset && b.chance(40) {
		r = byBoot
	}
	switch r {
	case byItself:
		return b.last
	case byNothing:
		return 400 * 24 * time.Hour
	case byBoot:
		b.reboot(after)
		return b.last
	case byReset:
		if b.recovery && b.chance(50) {
			b.recover(after, needReset, needNone)
		} else {
			b.add(after, item{op: opEvent, event: replay.Event{Kind: replay.Reset, Address: b.gpu}})
		}
	}
	return after
}

func (b *builder) reboot(after time.Duration) {
	b.add(after, item{op: opDown})
	b.add(after+b.between(2*time.Minute, 7*time.Minute), item{op: opUp})
}

// restart kills the agent and starts it again within a minute.
func (b *builder) restart(after time.Duration) {
	b.add(after, item{op: opEvent, event: replay.Event{Kind: replay.AgentStop}})
	b.add(after+b.between(5*time.Second, agentDown), item{op: opEvent, event: replay.Event{Kind: replay.AgentStart}})
}

func (b *builder) recover(after time.Duration, from, to string) {
	b.driverXid(after, 154, "GPU recovery action changed from "+from+" to "+to)
	b.recovery = to != needNone
}

// alone is a kind of one line.
func alone(code int, text string) func(*builder, *Label) {
	return func(b *builder, _ *Label) { b.driverXid(0, code, text) }
}

// repeated is a kind of the same line some times, minutes apart.
func repeated(code, times int, text string) func(*builder, *Label) {
	return func(b *builder, _ *Label) {
		at := time.Duration(0)
		for range times {
			b.xid(at, code, b.process()+text)
			at += b.between(70*time.Second, 5*time.Minute)
		}
	}
}

func recovery(to string) func(*builder, *Label) {
	return func(b *builder, _ *Label) { b.recover(0, needNone, to) }
}

func offBus(b *builder, l *Label) {
	lead := time.Duration(0)
	if b.chance(b.n.c.o.Mix.OffBusWithAERPercent) {
		// The bus tells of it first: the port above the GPU.
		port := portOf(b.gpu)
		l.Related = append(l.Related, port)
		b.kernel(0, "pcieport "+port+": AER: Uncorrectable (Fatal) error message received from "+b.gpu)
		b.kernel(time.Millisecond, "nvidia "+b.gpu+": AER: can't recover (no error_detected callback)")
		lead = b.between(5*time.Millisecond, 500*time.Millisecond)
	}
	b.at = b.at.Add(lead)
	l.From = b.at
	b.xid(0, 79, "pid='<unknown>', name=<unknown>, GPU has fallen off the bus.")
	b.kernel(time.Millisecond, "NVRM: GPU "+b.gpu+": GPU has fallen off the bus.")
	b.kernel(2*time.Millisecond, "NVRM: GPU "+b.gpu+": GPU serial number is 1650822000000.")
	b.cleanUp(10 * time.Millisecond)
	if b.chance(50) {
		b.recover(b.upTo(time.Second), needNone, pick(b, []string{needReboot, needReboot, needReboot610}))
	}
}

// portOf is the address of the port above a GPU; in these servers the bus number before.
func portOf(gpu string) string {
	var bus int
	if _, err := fmt.Sscanf(gpu, "0000:%02x:00.0", &bus); err != nil {
		return gpu
	}
	return fmt.Sprintf("0000:%02x:01.0", bus-1)
}

func offBusAtStart(b *builder, _ *Label) {
	b.kernel(0, "NVRM: The NVIDIA GPU "+b.gpu+"\nNVRM: (PCI ID: 10de:2335) installed in this system has\n"+
		"NVRM: fallen off the bus and is not responding to commands.")
}

func initFailed(b *builder, _ *Label) {
	for i := range 1 + b.r.IntN(4) {
		at := time.Duration(i) * 10 * time.Second
		b.kernel(at, "NVRM: GPU "+b.gpu+": RmInitAdapter failed! (0x25:0x65:1457)")
		b.kernel(at+time.Millisecond, "NVRM: GPU "+b.gpu+": rm_init_adapter failed, device minor number 0")
	}
}

func doubleBit(then int, text string) func(*builder, *Label) {
	return func(b *builder, _ *Label) {
		b.driverXid(0, 48, "DBE (double bit error) ECC Error: An uncorrectable double bit error has been detected on GPU in the framebuffer at partition 3, subpartition 0.")
		b.driverXid(b.upTo(time.Second), then, text)
		b.cleanUp(50 * time.Millisecond)
		if b.chance(30) {
			b.recover(b.upTo(2*time.Second), needNone, needReset)
		}
	}
}

func uncontained(b *builder, _ *Label) {
	b.xid(0, 95, b.process()+"Uncontained: L1 (GPC 3, TPC 4). RST: Yes, D-RST: No")
	b.cleanUp(20 * time.Millisecond)
	if b.chance(50) {
		b.recover(b.upTo(time.Second), needNone, needReset)
	}
}

func contained(b *builder, _ *Label) {
	b.xid(0, 94, b.process()+"Contained: CE User Channel (0x9). RST: No, D-RST: No")
	b.cleanUp(20 * time.Millisecond)
}

const gspTimedOut = "Timeout after 45s of waiting for RPC response from GPU0 GSP! Expected function 76 (GSP_RM_CONTROL) (0x20801702 0x4)."

func gspTimeout(b *builder, _ *Label) {
	for i := range 1 + b.r.IntN(3) {
		b.xid(time.Duration(i)*45*time.Second, 119, b.process()+gspTimedOut)
	}
	if b.chance(50) {
		b.recover(b.last+time.Second, needNone, needReset)
	}
}

func gspError(b *builder, _ *Label) {
	b.driverXid(0, 120, "GSP task exception: load access fault (5) @ pc:0x4c0f24c, task: 1")
	b.cleanUp(time.Second)
}

func gspChain(b *builder, _ *Label) {
	b.xid(0, 119, b.process()+gspTimedOut)
	b.driverXid(b.between(time.Second, time.Minute), 120, "GSP task exception: load access fault (5) @ pc:0x4c0f24c, task: 1 caused by previous Xid 119")
	b.cleanUp(b.last)
}

// gspHang goes on timing out until it is repaired.
func gspHang(b *builder, _ *Label) {
	for i := range 20 + b.r.IntN(20) {
		b.xid(time.Duration(i)*45*time.Second, 119, b.process()+gspTimedOut)
		if i == 4 {
			b.kernel(time.Duration(i)*45*time.Second+time.Millisecond, rateLimiting(b.gpu))
		}
	}
}

func gspRateLimited(b *builder, _ *Label) { b.kernel(0, rateLimiting(b.gpu)) }

func rateLimiting(gpu string) string {
	return "NVRM: Rate limiting GSP RPC error prints for GPU at PCI:" + gpu + " (printing 1 of every 30).  The GPU likely needs to be reset."
}

func halt(b *builder, _ *Label) {
	b.driverXid(0, 62, "32c7(3a88) 00000000 00000000")
	b.cleanUp(100 * time.Millisecond)
	if b.chance(50) {
		b.recover(b.upTo(time.Second), needNone, needReset)
	}
}

// link is an error of the NVLinks of Blackwell and newer: what intrInfo holds depends on the driver (NVIDIA's catalogue, the
// sheet on Xids 144 to 150).
type link struct {
	code   int
	old    string
	now    string
	oldReg uint32
	nowReg uint32
	status uint32
}

var fatalLinks = []link{
	{144, "SAW_MVB", "SAW_MVB", 0x021, 1, 2},
	{145, "RLW_SRC_TRACK", "RLW_SRC_TRACK", 0x0e2, 7, 1},
	{146, "TLW_CTRL", "TLW_CTRL", 0x123, 9, 4},
	{149, "NETIR_LINK_EVT", "NETIR_LINK_DOWN", 4<<20 | 0x1c6, 4<<20 | 17, 0},
	{150, "MSE_WATCHDOG", "MSE_WATCHDOG", 0, 0, 0},
}

var nonfatalLinks = []link{
	{144, "SAW_MVB", "SAW_MVB", 0x021, 1, 1},
	{145, "RLW_RXPIPE", "RLW_RXPIPE", 0x0c2, 6, 8},
	{147, "TREX", "TREX", 0x184, 14, 1},
	{148, "NVLPW_CTRL", "NVLPW", 0x005, 15, 1 << 31},
}

func (k link) line(b *builder, l *Label, word string) {
	l.Code = fmt.Sprintf("Xid%d", k.code)
	name, register := k.now, k.nowReg
	if b.n.driver < "575" {
		name, register = k.old, k.oldReg
	}
	b.driverXid(0, k.code, fmt.Sprintf("%-14s %-8s XC0 i0 Link %02d (0x%08x 0x%08x 0x00000000 0x00000000 0x00000000 0x00000000)",
		name, word, b.r.IntN(18), register, k.status))
}

func nvlink5Fatal(b *builder, l *Label) { pick(b, fatalLinks).line(b, l, "Fatal") }

func nvlink5Nonfatal(b *builder, l *Label) { pick(b, nonfatalLinks).line(b, l, "Nonfatal") }

// nvlink4 is an error of the NVLinks of A100 and H100 that one occurrence of recommends nothing for but a look.
func nvlink4(b *builder, _ *Label) {
	registers := pick(b, []string{"0x0, 0x0, 0x10000, 0x0, 0x0, 0x0, 0x0", "0x10000, 0x0, 0x0, 0x0, 0x0, 0x0, 0x0"})
	b.xid(0, 74, fmt.Sprintf("pid='<unknown>', name=<unknown>, NVLink: fatal error detected on link %d(%s)", b.r.IntN(18), registers))
}

func (b *builder) sxid(after time.Duration, code int, text string) {
	b.kernel(after, fmt.Sprintf("nvidia-nvswitch%d: SXid (PCI:%s): %d, %s", b.gpu[6]-'5', b.gpu, code, text))
}

func switchFatal(b *builder, _ *Label) {
	n := b.r.IntN(64)
	b.sxid(0, 20034, fmt.Sprintf("Fatal, Link %02d LTSSM Fault Up", n))
	b.sxid(time.Millisecond, 20034, fmt.Sprintf("Severity 1 Engine instance %02d Sub-engine instance 00", n))
	b.sxid(2*time.Millisecond, 20034, "Data {0x50610001, 0x10100030, 0x00000000}")
}

func switchNonfatal(b *builder, _ *Label) {
	b.sxid(0, 12028, fmt.Sprintf("Non-fatal, Link %02d egress non-posted PRIV error (First)", b.r.IntN(64)))
	b.sxid(time.Millisecond, 12028, "Severity 0 Engine instance 07 Sub-engine instance 00")
}

// flap is a need that comes and goes. What comes and goes while the agent starts anew is over when it reads of it, so the last
// time is longer than that.
func flap(b *builder, _ *Label) {
	at := time.Duration(0)
	for range 2 + b.r.IntN(4) {
		b.recover(at, needNone, needReset)
		at += b.between(2*time.Second, 2*time.Minute)
		b.recover(at, needReset, needNone)
		at += b.between(2*time.Second, 2*time.Minute)
	}
	b.recover(at, needNone, needReset)
	b.recover(at+b.between(agentDown+30*time.Second, 3*time.Minute), needReset, needNone)
}

func asksHuman(b *builder, l *Label) {
	code := pick(b, []int{54, 78, 142, 151, 159})
	l.Code = fmt.Sprintf("Xid%d", code)
	if code != 54 && code != 142 {
		l.Class = driver
	}
	b.driverXid(0, code, "error of that kind")
}

func probeFailed(b *builder, _ *Label) {
	b.kernel(0, "NVRM: The NVIDIA probe routine failed for 1 device(s).")
}

func noGPU(b *builder, _ *Label) { b.kernel(0, "NVRM: No NVIDIA GPU found.") }

// overwritten is a fault whose lines the kernel overwrote while no agent read: it cannot be seen in the log.
func overwritten(b *builder, _ *Label) {
	b.add(-time.Second, item{op: opEvent, event: replay.Event{Kind: replay.AgentStop}})
	b.add(0, item{op: opLost})
	for range 2000 + b.r.IntN(2000) {
		b.add(b.upTo(20*time.Second), item{op: opLost})
	}
	b.add(agentDown, item{op: opEvent, event: replay.Event{Kind: replay.AgentStart}})
}

// Kinds names the kinds of faults, in the order of the table.
func Kinds() []string {
	out := make([]string, len(kinds))
	for i := range kinds {
		out[i] = kinds[i].name
	}
	return out
}
