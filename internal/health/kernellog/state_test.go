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
	const fell = "79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus."
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
				xid(0, gpu0, "149, NETIR_LINK_EVT Nonfatal XC0 i0 Link 02 (0x1)"),
				xid(sec, gpu0, "149, NETIR_LINK_EVT Fatal XC0 i0 Link 02 (0x1)"),
				xid(2*sec, gpu0, "149, NETIR_LINK_EVT Nonfatal XC0 i0 Link 02 (0x1)"),
			},
			want: []string{"Xid149 0000:18:00.0 Fabric/Critical/ResetDevice x3"},
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
		"an application's error that stopped is over, a warning lasts a day, and hardware stands": {
			lines: []told{
				xid(0, gpu0, "13, pid=1, name=a"), xid(0, gpu1, "63, row remap"), xid(0, gpu1, "95, Uncontained"),
				xid(time.Hour, gpu1, "31, pid=1, name=b"), xid(25*time.Hour, gpu1, "43, pid=1, name=b"),
			},
			want: []string{
				"Xid95 0000:2a:00.0 Hardware/Critical/ResetDevice x1",
				"Xid43 0000:2a:00.0 Hardware/Info/None x1 caused by Xid95",
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
