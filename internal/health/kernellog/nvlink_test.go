package kernellog

import (
	"fmt"
	"slices"
	"testing"
)

func nvlink5Line(code int, unit, word string, info, status uint32) Line {
	text := fmt.Sprintf("NVRM: Xid (PCI:0000:18:00): %d, %s %s XC0 i0 Link 03 (0x%08x 0x%08x 0x00000000)", code, unit, word, info, status)
	return ParseLine([]byte(text))
}

// TestEveryRowOfTheNVLink5Table holds that each is found by its unit's index in the layout of the driver, known or not,
// and only there, and that only what the driver calls fatal disturbs a GPU.
func TestEveryRowOfTheNVLink5Table(t *testing.T) {
	for _, u := range nvlink5Units {
		rules := u.rules
		if len(rules) == 0 {
			rules = []rule{{0, nvReset}, {0x1234, nvReset}} // any status, for reason 0
		}
		for _, r := range rules {
			word := "Nonfatal"
			if r.action == nvReset {
				word = "Fatal"
			}
			for driver, info := range map[int]int{570: u.v1, 580: u.v2} {
				if info < 0 {
					continue
				}
				l := nvlink5Line(u.code, u.name, word, uint32(info), r.status)
				other := 570 + 580 - driver
				for _, d := range []int{0, driver, other} {
					want := r.action
					if d == other && u.v1 != u.v2 {
						want = undecided
					}
					if l.Driver = d; nvlink5Action(l) != want {
						t.Errorf("%d %s status %#x, driver %d: action %d, want %d", u.code, u.name, r.status, d, nvlink5Action(l), want)
					}
				}
				if l.Link != 4 || !l.HasRegisters {
					t.Errorf("%+v", l)
				}
				if wrong := nvlink5Line(u.code, u.name, map[string]string{"Fatal": "Nonfatal", "Nonfatal": "Fatal"}[word], uint32(info), r.status); nvlink5Action(wrong) != undecided {
					t.Errorf("%d %s status %#x: the driver's word is not heeded", u.code, u.name, r.status)
				}
				if wrong := nvlink5Line(u.code+1, u.name, word, uint32(info), r.status); nvlink5Action(wrong) != undecided {
					t.Errorf("%s of Xid %d is taken for one of %d", u.name, u.code, u.code+1)
				}
			}
		}
	}
}

// TestEveryReasonOfALinkDown has the reasons as NVIDIA's catalogue lists them, in binary there and in decimal here.
func TestEveryReasonOfALinkDown(t *testing.T) {
	reset := []int{0, 1, 2, 4, 10, 15, 16, 17, 18, 22, 42, 43}
	peer := []int{21, 32, 33, 34, 35, 36, 37}
	nothing := []int{38, 40}
	for reason := range 64 {
		want := "Xid149 Fabric/Warning/Human"
		switch {
		case slices.Contains(reset, reason):
			want = "Xid149 Fabric/Critical/ResetDevice"
		case slices.Contains(peer, reason):
			want = "Xid149Peer Fabric/Critical/ResetDevice"
		case slices.Contains(nothing, reason):
			want = "Xid149 Fabric/Warning/None"
		}
		for unit, index := range map[string]uint32{"NETIR_LINK_EVT": 0x1c6, "NETIR_LINK_DOWN": 0x11} {
			code, e, _ := Describe(nvlink5Line(149, unit, "Fatal", uint32(reason)<<20|index, 0))
			if got := fmt.Sprintf("%s %s/%s/%s", code, e.Class, e.Severity, e.Recommended); got != want {
				t.Errorf("%s, reason %d: %s, want %s", unit, reason, got, want)
			}
		}
	}
}

// TestEveryBitOfXid74 has the bits as NVIDIA's catalogue names them, by register.
func TestEveryBitOfXid74(t *testing.T) {
	known := map[int]map[string][]int{
		0: {
			"Info/None above 0": {0, 23, 30}, "Warning/Human above 2": {4, 5}, "Warning/Human above 1": {27, 29},
			"Warning/Human above 0": {1, 20, 8, 9, 12, 16, 17, 24, 28, 21, 22},
		},
		2: {"Warning/Human above 2": {0, 1, 2, 6}, "Warning/Human above 0": {13}, "Warning/Human above 1": {16, 17, 18, 19}},
		3: {"Warning/Human above 0": {16, 17}, "Critical/Reboot above 0": {18}},
		4: {"Warning/Human above 2": {18, 19, 21, 22, 24, 25, 27, 28}, "Info/None above 0": {20, 23, 26, 29}},
	}
	for register := range 7 {
		for bit := range 32 {
			want := "Warning/None above 0"
			for what, bits := range known[register] {
				if slices.Contains(bits, bit) {
					want = what
				}
			}
			var regs [7]any
			for i := range regs {
				regs[i] = 0
			}
			regs[register] = 1 << bit
			text := "NVRM: Xid (PCI:0000:18:00): 74, NVLink: fatal error detected on link 3" +
				fmt.Sprintf("(0x%x, 0x%x, 0x%x, 0x%x, 0x%x, 0x%x, 0x%x)", regs[:]...)
			_, e, _ := Describe(ParseLine([]byte(text)))
			if got := fmt.Sprintf("%s/%s above %d", e.Severity, e.Recommended, e.OnLink); got != want {
				t.Errorf("register %d bit %d: %s, want %s", register+1, bit, got, want)
			}
		}
	}
}

// FuzzNVLink holds that nothing but registers that the catalogue has disturbs a GPU, and that no text is too odd.
func FuzzNVLink(f *testing.F) {
	texts, _ := corpus(f)
	for _, text := range texts {
		f.Add(74, text)
	}
	f.Add(74, "NVLink: fatal error detected on link 14(0x0, 0x0, 0x0, 0x40000, 0x0, 0x0, 0x0)")
	f.Add(149, "NETIR_LINK_EVT  Fatal   XC0 i0 Link 02 (0x004505c6 0x00000000)")
	f.Add(150, "MSE Degraded Fatal XC0 i0 Link -1 (0x00000000 0xffffffff)")
	f.Add(145, "RLW_REMAP Nonfatal XC0 i0 Link -1 (0x00000004 0x00000001)")
	f.Fuzz(func(t *testing.T, code int, message string) {
		if code != 74 && !isNVLink5(code) {
			return
		}
		l := ParseLine(fmt.Appendf(nil, "NVRM: Xid (PCI:0000:18:00): %d, %s", code, message))
		for _, l.Driver = range []int{0, 570, 580} {
			switch _, e, _ := Describe(l); {
			case e.Severity != "Critical":
			case !l.HasRegisters || l.Link > maxLink+1:
				t.Errorf("%s without registers for %q", e.Recommended, message)
			case code != 74 && l.Fatality != Fatal:
				t.Errorf("%s for %q, which is not fatal", e.Recommended, message)
			}
		}
	})
}
