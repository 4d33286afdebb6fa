package kernellog

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const (
	gpu0 = "0000:18:00"
	gpu1 = "0000:2a:00"
)

// t0 is when every story starts.
var t0 = time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)

// told is one line of a story: when, and the text.
type told struct {
	at   time.Duration
	text string
}

func xid(at time.Duration, gpu string, rest string) told {
	return told{at, "NVRM: Xid (PCI:" + gpu + "): " + rest}
}

// every repeats a line from its time on, up to and including the end.
func every(interval, end time.Duration, line told) (lines []told) {
	for ; line.at <= end; line.at += interval {
		lines = append(lines, line)
	}
	return lines
}

// tell folds a story and returns the state at its end.
func tell(lines ...told) *State {
	s := &State{BootID: "b"}
	for _, l := range lines {
		s.Expire(t0.Add(l.at), DefaultTimes())
		s.Apply(ParseLine([]byte(l.text)), []byte(l.text), t0.Add(l.at), DefaultTimes())
	}
	return s
}

// summary writes a finding as people would: code, place, severity, recommendation, count, and its cause.
func summary(s *State) []string {
	var out []string
	for _, f := range s.Findings(Name, DefaultTimes()) {
		line := fmt.Sprintf("%s %s %s/%s/%s x%d", f.Fault.Code, f.PCI, f.Fault.Class, f.Fault.Severity, f.Fault.Recommended, f.Fault.Count)
		if f.Fault.Root != (f.Fault.CausedBy == "") {
			line += " root and caused at once"
		}
		if f.Fault.CausedBy != "" {
			line += " caused by " + f.Fault.CausedBy
		}
		out = append(out, line)
	}
	return out
}

func TestStories(t *testing.T) {
	const (
		fell   = "79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus."
		parity = "74, NVLink: fatal error detected on "
		amd0   = "amdgpu 0000:03:00.0: amdgpu: "
	)
	sec := time.Second
	tests := map[string]struct {
		lines []told
		want  []string
	}{
		"nothing was said": {},
		"an application's error alone recommends nothing but the application": {
			lines: []told{xid(0, gpu0, "13, pid=1, name=a, Graphics Exception")},
			want:  []string{"Xid13 0000:18:00.0 Application/Info/RestartApplication x1"},
		},
		"a clean-up alone is an application's": {
			lines: []told{xid(0, gpu0, "45, pid=1, name=a, Ch 00000010")},
			want:  []string{"Xid45 0000:18:00.0 Application/Info/RestartApplication x1"},
		},
		"off the bus with its clean-ups: one root, whoever came first": {
			lines: []told{
				xid(0, gpu0, "45, pid=1, name=a, Ch 00000010"), xid(sec, gpu0, fell), xid(2*sec, gpu0, "45, pid=1, name=a, Ch 00000011"),
			},
			want: []string{
				"Xid45 0000:18:00.0 Application/Info/RestartApplication x2 caused by Xid79",
				"Xid79 0000:18:00.0 Hardware/Critical/Reboot x1",
			},
		},
		"what an application did long before is not the hardware's doing": {
			lines: []told{xid(0, gpu0, "13, pid=1, name=a"), xid(60*sec, gpu0, fell)},
			want: []string{
				"Xid13 0000:18:00.0 Application/Info/RestartApplication x1",
				"Xid79 0000:18:00.0 Hardware/Critical/Reboot x1",
			},
		},
		"a device that is off the bus goes on causing errors": {
			lines: []told{xid(0, gpu0, fell), xid(300*sec, gpu0, "45, pid=1, name=a")},
			want: []string{
				"Xid79 0000:18:00.0 Hardware/Critical/Reboot x1",
				"Xid45 0000:18:00.0 Application/Info/RestartApplication x1 caused by Xid79",
			},
		},
		"another device has its own root": {
			lines: []told{xid(0, gpu0, fell), xid(sec, gpu1, "45, pid=1, name=a")},
			want: []string{
				"Xid79 0000:18:00.0 Hardware/Critical/Reboot x1",
				"Xid45 0000:2a:00.0 Application/Info/RestartApplication x1",
			},
		},
		"a double-bit error is the root of the page retirement failure after it": {
			lines: []told{xid(0, gpu0, "48, DBE"), xid(sec, gpu0, "64, failed"), xid(sec, gpu0, "45, pid=1, name=a")},
			want: []string{
				"Xid48 0000:18:00.0 Hardware/Critical/ResetDevice x1",
				"Xid64 0000:18:00.0 Hardware/Critical/ResetDevice x1 caused by Xid48",
				"Xid45 0000:18:00.0 Application/Info/RestartApplication x1 caused by Xid48",
			},
		},
		"the driver's own recovery action beats the catalogue": {
			lines: []told{
				xid(0, gpu0, "119, pid=1, name=x, Timeout"),
				xid(sec, gpu0, "154, GPU recovery action changed from 0x0 (None) to 0x2 (Node Reboot Required)"),
			},
			want: []string{
				"Xid119 0000:18:00.0 Driver/Critical/Reboot x1",
				"Xid154 0000:18:00.0 Hardware/Critical/Reboot x1 caused by Xid119",
			},
		},
		"the driver's recovery action makes an application's error its consequence": {
			lines: []told{
				xid(0, gpu0, "13, pid=1, name=x"),
				xid(sec, gpu0, "154, GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset Required)"),
			},
			want: []string{
				"Xid13 0000:18:00.0 Application/Info/RestartApplication x1 caused by Xid154",
				"Xid154 0000:18:00.0 Hardware/Critical/ResetDevice x1",
			},
		},
		"a recovery action that becomes worse is the later one": {
			lines: []told{
				xid(0, gpu0, "154, GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset Required)"),
				xid(sec, gpu0, "154, GPU recovery action changed from 0x1 (GPU Reset Required) to 0x2 (Node Reboot Required)"),
			},
			want: []string{"Xid154 0000:18:00.0 Hardware/Critical/Reboot x2"},
		},
		"a recovery action of words not known is a warning and no recommendation": {
			lines: []told{xid(0, gpu0, "154, GPU recovery action changed from 0x0 (None) to 0x9 (Fly)")},
			want:  []string{"Xid154 0000:18:00.0 Hardware/Warning/None x1"},
		},
		"the driver says that the GPU needs nothing more: what a reset clears is over": {
			lines: []told{
				xid(0, gpu0, "95, Uncontained"), xid(0, gpu1, "95, Uncontained"),
				xid(0, gpu0, "154, GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset Required)"),
				xid(60*sec, gpu0, "154, GPU recovery action changed from 0x1 (GPU Reset Required) to 0x0 (None)"),
			},
			want: []string{"Xid95 0000:2a:00.0 Hardware/Critical/ResetDevice x1"},
		},
		"what only a boot clears stands whatever the driver says": {
			lines: []told{
				xid(0, gpu0, fell),
				xid(60*sec, gpu0, "154, GPU recovery action changed from 0x2 (Node Reboot Required) to 0x0 (None)"),
			},
			want: []string{"Xid79 0000:18:00.0 Hardware/Critical/Reboot x1"},
		},
		"a code that vendors disagree about waits for its repeat": {
			lines: []told{xid(0, gpu0, "109, CTX SWITCH TIMEOUT"), xid(sec, gpu0, "109, CTX SWITCH TIMEOUT")},
			want:  []string{"Xid109 0000:18:00.0 Driver/Warning/None x2"},
		},
		"and counts when it comes again later": {
			lines: []told{xid(0, gpu0, "109, CTX SWITCH TIMEOUT"), xid(90*sec, gpu0, "109, CTX SWITCH TIMEOUT")},
			want:  []string{"Xid109 0000:18:00.0 Driver/Critical/ResetDevice x2"},
		},
		"an unknown code is an event": {
			lines: []told{xid(0, gpu0, "999, of tomorrow")},
			want:  []string{"Xid999 0000:18:00.0 Unknown/Info/None x1"},
		},
		"a named cause is the root even of what usually outranks it": {
			lines: []told{xid(0, gpu0, "62, halt"), xid(sec, gpu0, "95, Uncontained caused by previous Xid 62")},
			want: []string{
				"Xid62 0000:18:00.0 Driver/Critical/ResetDevice x1",
				"Xid95 0000:18:00.0 Hardware/Critical/ResetDevice x1 caused by Xid62",
			},
		},
		"causes named in a circle leave a root": {
			lines: []told{xid(0, gpu0, "62, halt caused by previous Xid 95"), xid(sec, gpu0, "95, Uncontained caused by previous Xid 62")},
			want: []string{
				"Xid62 0000:18:00.0 Driver/Critical/ResetDevice x1 caused by Xid95",
				"Xid95 0000:18:00.0 Hardware/Critical/ResetDevice x1",
			},
		},
		"a fatal NVLink error asks for the GPU's reset, and a later harmless one does not take that back": {
			lines: []told{
				xid(0, gpu0, "149, NETIR_LINK_EVT Nonfatal XC0 i0 Link 02 (0x004505c6 0x00000000)"),
				xid(sec, gpu0, "149, NETIR_LINK_EVT Fatal XC0 i0 Link 02 (0x004505c6 0x00000000)"),
				xid(2*sec, gpu0, "149, NETIR_LINK_EVT Nonfatal XC0 i0 Link 02 (0x004505c6 0x00000000)"),
			},
			want: []string{"Xid149 0000:18:00.0 Fabric/Critical/ResetDevice x3"},
		},
		"a fatal NVLink error that the catalogue has not is a human's to look at, until the driver says what it needs": {
			lines: []told{
				xid(0, gpu0, "149, OF_TOMORROW Fatal XC0 i0 Link 02 (0x004505c6 0x00000000)"),
				xid(sec, gpu1, "149, OF_TOMORROW Fatal XC0 i0 Link 02 (0x004505c6 0x00000000)"),
				xid(2*sec, gpu1, "154, GPU recovery action changed from 0x0 (None) to 0x4 (Drain and Reset)"),
			},
			want: []string{
				"Xid149 0000:18:00.0 Fabric/Warning/Human x1",
				"Xid149 0000:2a:00.0 Fabric/Warning/Human x1 caused by Xid154",
				"Xid154 0000:2a:00.0 Hardware/Critical/ResetDevice x1",
			},
		},
		"the driver's version says where a unit's index is: these registers are not those of a driver before R575": {
			lines: []told{
				{0, "NVRM: loading NVIDIA UNIX Open Kernel Module for x86_64  570.172.08  Release Build  (a@b)"},
				xid(0, gpu0, "145, RLW_REMAP Fatal XC0 i0 Link 02 (0x00000004 0x00000040)"),
				xid(sec, gpu1, "145, RLW_REMAP Fatal XC0 i0 Link 02 (0x00000082 0x00000040)"),
			},
			want: []string{
				"Xid145 0000:18:00.0 Fabric/Warning/Human x1", "Xid145 0000:2a:00.0 Fabric/Critical/ResetDevice x1",
			},
		},
		"nor are those the registers of a newer one": {
			lines: []told{
				{0, "NVRM: loading NVIDIA UNIX x86_64 Kernel Module  580.105.08"},
				xid(0, gpu0, "145, RLW_REMAP Fatal XC0 i0 Link 02 (0x00000004 0x00000040)"),
				xid(sec, gpu1, "145, RLW_REMAP Fatal XC0 i0 Link 02 (0x00000082 0x00000040)"),
			},
			want: []string{
				"Xid145 0000:18:00.0 Fabric/Critical/ResetDevice x1", "Xid145 0000:2a:00.0 Fabric/Warning/Human x1",
			},
		},
		"ECC errors of a link recommend nothing until one link has had three": {
			lines: []told{
				xid(0, gpu0, parity+"link 1(0x10, 0x0, 0x0, 0x0, 0x0, 0x0, 0x0)"),
				xid(sec, gpu0, parity+"link 2(0x10, 0x0, 0x0, 0x0, 0x0, 0x0, 0x0)"),
				xid(2*sec, gpu0, parity+"link 1(0x10, 0x0, 0x0, 0x0, 0x0, 0x0, 0x0)"),
			},
			want: []string{"Xid74 0000:18:00.0 Fabric/Warning/None x3"},
		},
		"and then a human": {
			lines: []told{
				xid(0, gpu0, parity+"link 1(0x10, 0x0, 0x0, 0x0, 0x0, 0x0, 0x0)"),
				xid(sec, gpu0, parity+"link 1(0x10, 0x0, 0x0, 0x0, 0x0, 0x0, 0x0)"),
				xid(2*sec, gpu0, parity+"link 1(0x10, 0x0, 0x0, 0x0, 0x0, 0x0, 0x0)"),
			},
			want: []string{"Xid74 0000:18:00.0 Fabric/Warning/Human x3"},
		},
		"a loose link does not wait for a repeat, whatever came before it": {
			lines: []told{
				xid(0, gpu0, parity+"link 1(0x10, 0x0, 0x0, 0x0, 0x0, 0x0, 0x0)"),
				xid(sec, gpu0, parity+"link 2(0x100, 0x0, 0x0, 0x0, 0x0, 0x0, 0x0)"),
			},
			want: []string{"Xid74 0000:18:00.0 Fabric/Warning/Human x2"},
		},
		"an NVSwitch's word Fatal is trusted": {
			lines: []told{
				{0, "nvidia-nvswitch0: SXid (PCI:0000:05:00.0): 12028, Non-fatal, Link 32"},
				{0, "nvidia-nvswitch1: SXid (PCI:0000:06:00.0): 20034, Fatal, Link 30"},
			},
			want: []string{
				"SXid12028 0000:05:00.0 Fabric/Warning/None x1", "SXid20034 0000:06:00.0 Fabric/Critical/Reboot x1",
			},
		},
		"off the bus said three ways is one incident": {
			lines: []told{
				{0, "NVRM: GPU 0000:18:00.0: GPU has fallen off the bus."}, xid(0, gpu0, fell),
				{sec, "NVRM: Rate limiting GSP RPC error prints for GPU at PCI:0000:18:00.0 (printing 1 of every 30)."},
				{sec, "NVRM: GPU 0000:18:00.0: RmInitAdapter failed! (0x25:0x65:1457)"},
			},
			want: []string{
				"NVIDIAOffBus 0000:18:00.0 Hardware/Critical/Reboot x1 caused by Xid79",
				"Xid79 0000:18:00.0 Hardware/Critical/Reboot x1",
				"NVIDIAGSPRateLimited 0000:18:00.0 Driver/Critical/ResetDevice x1 caused by Xid79",
				"NVIDIAInitFailed 0000:18:00.0 Driver/Critical/Reboot x1 caused by Xid79",
			},
		},
		"the driver found no GPU: the node's, and no reason to act": {
			lines: []told{{0, "NVRM: No NVIDIA GPU found."}, {0, "NVRM: The NVIDIA probe routine failed for 1 device(s)."}},
			want:  []string{"NVIDIANoGPU  Driver/Warning/None x1", "NVIDIAProbeFailed  Driver/Warning/None x1"},
		},
		"an error on the bus belongs to the GPU's fall off it": {
			lines: []told{
				{0, "pcieport 0000:17:01.0: AER: Uncorrectable (Fatal) error message received from 0000:18:00.0"},
				{0, "nvidia 0000:18:00.0: PCIe Bus Error: severity=Uncorrectable (Fatal), type=Inaccessible, (Unregistered Agent ID)"},
				xid(sec, gpu0, fell), xid(2*sec, gpu0, "45, pid=1, name=a, Ch 00000010"),
			},
			want: []string{
				"PCIeFatal 0000:18:00.0 Hardware/Warning/None x2 caused by Xid79",
				"Xid79 0000:18:00.0 Hardware/Critical/Reboot x1",
				"Xid45 0000:18:00.0 Application/Info/RestartApplication x1 caused by Xid79",
			},
		},
		"a double-bit error, the remapping after it, the clean-up, and the containment": {
			lines: []told{
				xid(0, gpu0, "48, DBE"), xid(0, gpu0, "171, DRAM"), xid(sec, gpu0, "63, Row Remapper"),
				xid(sec, gpu0, "45, pid=1, name=a"), xid(2*sec, gpu0, "94, pid=1, name=a"), xid(3*sec, gpu0, "95, Uncontained"),
			},
			want: []string{
				"Xid48 0000:18:00.0 Hardware/Critical/ResetDevice x1",
				"Xid171 0000:18:00.0 Hardware/Info/None x1 caused by Xid48",
				"Xid63 0000:18:00.0 Hardware/Warning/None x1 caused by Xid48",
				"Xid45 0000:18:00.0 Application/Info/RestartApplication x1 caused by Xid48",
				"Xid94 0000:18:00.0 Hardware/Warning/RestartApplication x1 caused by Xid48",
				"Xid95 0000:18:00.0 Hardware/Critical/ResetDevice x1 caused by Xid48",
			},
		},
		"clean-ups follow from errors of the GPU's links": {
			lines: []told{
				xid(0, gpu0, parity+"link 1(0x100, 0x0, 0x0, 0x0, 0x0, 0x0, 0x0)"), xid(sec, gpu0, "45, pid=1, name=a"),
				xid(0, gpu1, "145, RLW_REMAP Nonfatal XC0 i0 Link -1 (0x00000004 0x00000001)"), xid(sec, gpu1, "45, pid=1, name=a"),
			},
			want: []string{
				"Xid74 0000:18:00.0 Fabric/Warning/Human x1",
				"Xid45 0000:18:00.0 Application/Info/RestartApplication x1 caused by Xid74",
				"Xid145 0000:2a:00.0 Fabric/Warning/RestartApplication x1",
				"Xid45 0000:2a:00.0 Application/Info/RestartApplication x1 caused by Xid145",
			},
		},
		"a fatal error of a switch explains the links and the applications of every GPU, and not what is the GPU's own": {
			lines: []told{
				xid(0, gpu0, parity+"link 1(0x2, 0x0, 0x0, 0x0, 0x0, 0x0, 0x0)"),
				{sec, "nvidia-nvswitch0: SXid (PCI:0000:05:00.0): 20034, Fatal, Link 30 LTSSM Fault Up"},
				{sec, "nvidia-nvswitch1: SXid (PCI:0000:06:00.0): 20034, Fatal, Link 31 LTSSM Fault Up"},
				xid(2*sec, gpu0, "45, pid=1, name=a"), xid(2*sec, gpu1, "31, pid=1, name=a"), xid(3*sec, gpu1, "45, pid=1, name=a"),
				xid(4*sec, gpu1, "95, Uncontained"), xid(60*sec, gpu0, "13, pid=2, name=a"),
			},
			want: []string{
				"Xid74 0000:18:00.0 Fabric/Warning/Human x1 caused by SXid20034",
				"SXid20034 0000:05:00.0 Fabric/Critical/Reboot x1",
				"SXid20034 0000:06:00.0 Fabric/Critical/Reboot x1",
				"Xid45 0000:18:00.0 Application/Info/RestartApplication x1 caused by SXid20034",
				"Xid31 0000:2a:00.0 Application/Info/RestartApplication x1 caused by Xid95",
				"Xid45 0000:2a:00.0 Application/Info/RestartApplication x1 caused by Xid95",
				"Xid95 0000:2a:00.0 Hardware/Critical/ResetDevice x1",
				"Xid13 0000:18:00.0 Application/Info/RestartApplication x1 caused by SXid20034",
			},
		},
		"a link that breaks at another time than the switch is its own fault": {
			lines: []told{
				{0, "nvidia-nvswitch0: SXid (PCI:0000:05:00.0): 20034, Fatal, Link 30 LTSSM Fault Up"},
				xid(60*sec, gpu0, "149, NETIR_LINK_EVT Fatal XC0 i0 Link 02 (0x004505c6 0x00000000)"),
				xid(60*sec, gpu1, "45, pid=1, name=a"),
			},
			want: []string{
				"SXid20034 0000:05:00.0 Fabric/Critical/Reboot x1",
				"Xid149 0000:18:00.0 Fabric/Critical/ResetDevice x1",
				"Xid45 0000:2a:00.0 Application/Info/RestartApplication x1 caused by SXid20034",
			},
		},
		"one that is not fatal explains clean-ups, and no application's own error": {
			lines: []told{
				{0, "nvidia-nvswitch0: SXid (PCI:0000:05:00.0): 12028, Non-fatal, Link 32"},
				xid(sec, gpu0, "45, pid=1, name=a"), xid(sec, gpu1, "31, pid=1, name=a"), xid(sec, gpu1, "45, pid=1, name=a"),
			},
			want: []string{
				"SXid12028 0000:05:00.0 Fabric/Warning/None x1",
				"Xid45 0000:18:00.0 Application/Info/RestartApplication x1 caused by SXid12028",
				"Xid31 0000:2a:00.0 Application/Info/RestartApplication x1",
				"Xid45 0000:2a:00.0 Application/Info/RestartApplication x1 caused by Xid31",
			},
		},
		"a storm without a pause is in the burst it began in": {
			lines: append([]told{{0, "nvidia-nvswitch0: SXid (PCI:0000:05:00.0): 12028, Non-fatal, Link 32"}},
				every(5*sec, 60*sec, xid(0, gpu0, "45, pid=1, name=a"))...),
			want: []string{
				"SXid12028 0000:05:00.0 Fabric/Warning/None x1",
				"Xid45 0000:18:00.0 Application/Info/RestartApplication x13 caused by SXid12028",
			},
		},
		"silence closes a burst: what comes after it is its own": {
			lines: []told{
				{0, "nvidia-nvswitch0: SXid (PCI:0000:05:00.0): 12028, Non-fatal, Link 32"},
				xid(sec, gpu0, "45, pid=1, name=a"), xid(30*sec, gpu0, "45, pid=1, name=a"),
			},
			want: []string{
				"SXid12028 0000:05:00.0 Fabric/Warning/None x1", "Xid45 0000:18:00.0 Application/Info/RestartApplication x2",
			},
		},
		"a link that the other end took down is that end's fault, where it can be seen": {
			lines: []told{
				xid(0, gpu1, "149, NETIR_LINK_EVT Fatal XC0 i0 Link 08 (0x025001c6 0x00000000)"), xid(sec, gpu0, fell),
				xid(sec, gpu1, "45, pid=1, name=a"),
			},
			want: []string{
				"Xid149Peer 0000:2a:00.0 Fabric/Critical/ResetDevice x1 caused by Xid79",
				"Xid79 0000:18:00.0 Hardware/Critical/Reboot x1",
				"Xid45 0000:2a:00.0 Application/Info/RestartApplication x1 caused by Xid79",
			},
		},
		"and not the fault of what broke at another time, or of the other side's complaint": {
			lines: []told{
				xid(0, gpu0, fell), xid(60*sec, gpu1, "149, NETIR_LINK_EVT Fatal XC0 i0 Link 08 (0x025001c6 0x00000000)"),
				xid(61*sec, "0000:3a:00", "149, NETIR_LINK_EVT Fatal XC0 i0 Link 08 (0x025001c6 0x00000000)"),
			},
			want: []string{
				"Xid79 0000:18:00.0 Hardware/Critical/Reboot x1",
				"Xid149Peer 0000:2a:00.0 Fabric/Critical/ResetDevice x1",
				"Xid149Peer 0000:3a:00.0 Fabric/Critical/ResetDevice x1",
			},
		},
		"what the kernel killed for its memory is why it was cleaned up after": {
			lines: []told{
				{0, "Memory cgroup out of memory: Killed process 4711 (a) total-vm:1kB"}, xid(sec, gpu0, "45, pid=4711, name=a"),
				xid(sec, gpu1, "31, pid=1, name=a"),
			},
			want: []string{
				"HostCgroupOOMKilled  Application/Info/RestartApplication x1",
				"Xid45 0000:18:00.0 Application/Info/RestartApplication x1 caused by HostCgroupOOMKilled",
				"Xid31 0000:2a:00.0 Application/Info/RestartApplication x1",
			},
		},
		"an application's error that keeps coming on one GPU, and on no other, is worth a diagnostic": {
			lines: every(90*sec, 270*sec, xid(0, gpu0, "31, pid=1, name=a")),
			want:  []string{"Xid31 0000:18:00.0 Unknown/Info/Human x4"},
		},
		"two repeats of it are not enough": {
			lines: every(90*sec, 180*sec, xid(0, gpu0, "13, pid=1, name=a")),
			want:  []string{"Xid13 0000:18:00.0 Application/Info/RestartApplication x3"},
		},
		"on two GPUs it is the application's": {
			lines: append(every(90*sec, 270*sec, xid(0, gpu0, "31, pid=1, name=a")), xid(270*sec, gpu1, "31, pid=1, name=a")),
			want: []string{
				"Xid31 0000:18:00.0 Application/Info/RestartApplication x4",
				"Xid31 0000:2a:00.0 Application/Info/RestartApplication x1",
			},
		},
		"a storm of it is one occasion": {
			lines: every(sec/10, 30*sec, xid(0, gpu0, "13, pid=1, name=a")),
			want:  []string{"Xid13 0000:18:00.0 Application/Info/RestartApplication x301"},
		},
		"a memory domain to recover does not make less of what the table says": {
			lines: []told{
				xid(0, gpu0, "154, GPU recovery action changed from 0x0 (None) to 0x5 (Recover IMEX Domain)"), xid(sec, gpu0, "95, Uncontained"),
			},
			want: []string{
				"Xid154 0000:18:00.0 Fabric/Warning/Human x1 caused by Xid95",
				"Xid95 0000:18:00.0 Hardware/Critical/ResetDevice x1",
			},
		},
		"an AMD GPU whose job hung is reset by its driver, and all is well but for what it held": {
			lines: []told{
				{0, amd0 + "ring gfx_0.0.0 timeout, signaled seq=1, emitted seq=2"}, {sec, amd0 + "GPU reset begin!"},
				{2 * sec, amd0 + "VRAM is lost due to GPU reset!"}, {3 * sec, amd0 + "GPU reset(1) succeeded!"},
			},
			want: []string{
				"AMDGPURingTimeout 0000:03:00.0 Application/Info/RestartApplication x1",
				"AMDGPUReset 0000:03:00.0 Driver/Info/None x1 caused by AMDGPURingTimeout",
				"AMDGPUVRAMLost 0000:03:00.0 Driver/Info/RestartApplication x1 caused by AMDGPURingTimeout",
			},
		},
		"an AMD GPU's memory error stands until it is reset": {
			lines: []told{{0, amd0 + "2 uncorrectable hardware errors detected in umc block"}, {sec, amd0 + "GPU reset begin!"}},
			want: []string{
				"AMDGPUUncorrectable 0000:03:00.0 Hardware/Critical/ResetDevice x1",
				"AMDGPUReset 0000:03:00.0 Driver/Info/None x1 caused by AMDGPUUncorrectable",
			},
		},
		"which its driver may do itself": {
			lines: []told{{0, amd0 + "2 uncorrectable hardware errors detected in umc block"}, {sec, amd0 + "GPU reset(1) succeeded!"}},
		},
		"or fail to": {
			lines: []told{
				{0, amd0 + "2 uncorrectable hardware errors detected in umc block"}, {sec, amd0 + "device lost from bus!"},
				{2 * sec, amd0 + "GPU reset end with ret = -19"},
			},
			want: []string{
				"AMDGPUUncorrectable 0000:03:00.0 Hardware/Critical/ResetDevice x1 caused by AMDGPULost",
				"AMDGPULost 0000:03:00.0 Hardware/Critical/Reboot x1",
				"AMDGPUResetFailed 0000:03:00.0 Driver/Critical/Reboot x1 caused by AMDGPULost",
			},
		},
		"what is wrong with the host is the node's": {
			lines: []told{
				{0, "EXT4-fs (nvme0n1p1): Remounting filesystem read-only"}, {0, "nvme nvme0: controller is down; will reset: CSTS=0xffffffff"},
				{0, "INFO: task a:1 blocked for more than 122 seconds."}, {25 * time.Hour, "Kernel panic - not syncing: Fatal exception"},
			},
			want: []string{
				"HostReadOnlyFilesystem  Host/Warning/Human x1", "HostKernelPanic  Host/Critical/Reboot x1",
			},
		},
		"a channel that is stopped is what its application's error has come to": {
			lines: []told{xid(0, gpu0, "31, pid=1, name=a"), xid(3*time.Second, gpu0, "43, pid=1, name=a"), xid(4*time.Second, gpu0, "45, pid=1, name=a")},
			want: []string{
				"Xid31 0000:18:00.0 Application/Info/RestartApplication x1",
				"Xid43 0000:18:00.0 Application/Info/None x1 caused by Xid31",
				"Xid45 0000:18:00.0 Application/Info/RestartApplication x1 caused by Xid31",
			},
		},
		"an application's error that stopped is over, a warning lasts a day, and hardware stands": {
			lines: []told{
				xid(0, gpu0, "13, pid=1, name=a"), xid(0, gpu1, "63, row remap"), xid(0, gpu1, "95, Uncontained"),
				xid(time.Hour, gpu1, "31, pid=1, name=b"), xid(25*time.Hour, gpu1, "43, pid=1, name=b"),
			},
			want: []string{
				"Xid95 0000:2a:00.0 Hardware/Critical/ResetDevice x1",
				"Xid43 0000:2a:00.0 Application/Info/None x1 caused by Xid95",
			},
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, summary(tell(tc.lines...))); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestAResetClearsItsDeviceAndNoOther(t *testing.T) {
	s := tell(
		xid(0, gpu0, "95, Uncontained"), xid(0, gpu0, "13, pid=1, name=a"), xid(0, gpu1, "95, Uncontained"),
		xid(0, gpu0, "79, GPU has fallen off the bus."),
		told{0, "NVRM: No NVIDIA GPU found."},
	)
	if c := s.Reset("0000:18:00.0"); c != Changed {
		t.Errorf("change %d", c)
	}
	want := []string{
		"Xid95 0000:2a:00.0 Hardware/Critical/ResetDevice x1",
		"Xid79 0000:18:00.0 Hardware/Critical/Reboot x1",
		"NVIDIANoGPU  Driver/Warning/None x1",
	}
	if diff := cmp.Diff(want, summary(s)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestTheListOfFaultsIsBoundedAndKeepsWhatMatters(t *testing.T) {
	s := &State{}
	apply := func(text string) {
		s.Apply(ParseLine([]byte(text)), []byte(text), t0, DefaultTimes())
	}
	for i := range 200 {
		apply(fmt.Sprintf("NVRM: Xid (PCI:0000:%02x:00): 13, pid=1, name=a", i))
	}
	apply("NVRM: Xid (PCI:0000:18:01): 79, GPU has fallen off the bus.")
	for i := range 200 {
		apply(fmt.Sprintf("NVRM: Xid (PCI:0001:%02x:00): 13, pid=1, name=a", i))
	}
	if len(s.Faults) != 64 || s.Dropped != 337 {
		t.Errorf("%d faults, %d dropped", len(s.Faults), s.Dropped)
	}
	if !strings.Contains(strings.Join(summary(s), "\n"), "Xid79 0000:18:01.0") {
		t.Error("the one that matters was dropped")
	}
	for i := range 200 {
		apply(fmt.Sprintf("NVRM: GPU at PCI:0002:%02x:00: GPU-6a1f0b1c-1111-2222-3333-444455556666", i))
	}
	if len(s.UUIDs) != maxUUIDs {
		t.Errorf("%d UUIDs", len(s.UUIDs))
	}
}

func TestEvidenceIsBounded(t *testing.T) {
	s := tell(xid(0, gpu0, "13, pid=1, name="+strings.Repeat("\xff", 5000)))
	if n := len(s.Faults[0].Evidence); n > 512 {
		t.Errorf("%d bytes", n)
	}
}

// BenchmarkStorm is one line of a storm of application errors from record to state.
func BenchmarkStorm(b *testing.B) {
	rec := []byte("4,1234,5678,-;NVRM: Xid (PCI:0000:18:00): 13, pid=4711, name=python, Graphics SM Warp Exception on (GPC 0, TPC 1)\n")
	s := tell(xid(0, gpu0, "79, x"), xid(0, gpu1, "31, x"))
	b.ReportAllocs()
	for b.Loop() {
		r, err := ParseRecord(rec)
		if err != nil {
			b.Fatal(err)
		}
		s.Apply(ParseLine(r.Text), r.Text, t0, DefaultTimes())
	}
}
