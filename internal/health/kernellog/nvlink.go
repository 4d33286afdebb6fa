package kernellog

import "bytes"

// Unit is a part of the NVLink hardware of Blackwell and newer GPUs; an index into nvlink5Units plus one, 0 for one that
// is not known.
type Unit uint8

// firstV2 is the driver whose Xids 144 to 150 hold the unit's index elsewhere than those before.
const firstV2 = 575

// action is what NVIDIA's catalogue says of the registers of an NVLink error. Where several bits are set the last of these
// counts.
type action uint8

const (
	// undecided is of registers that the catalogue has not, or that cannot be read.
	undecided action = iota
	// nvIgnore needs nothing; nvWatch needs nothing at once and is worth finding out about.
	nvIgnore
	nvWatch
	// nvEvaluate needs what Xid 154 says, and where there is none the application to be started again.
	nvEvaluate
	// nvReset needs the GPU to be reset; nvResetPeer does too, and the error is the other end's.
	nvReset
	nvResetPeer
	// nvSympathetic follows from another error. Where there is none a human should look.
	nvSympathetic
	// nvRepeat is worth a human's while when a link does it again; nvParity when it does so a third time.
	nvRepeat
	nvParity
	// nvMechanical asks for the link's connections to be looked at, and for a diagnostic.
	nvMechanical
	// nvFabric needs the whole fabric to be reset.
	nvFabric
)

// readNVLink reads the seven registers of Xid 74: "NVLink: fatal error detected on link 14(0x0, 0x0, 0x10000, 0x0, 0x0,
// 0x0, 0x0)".
func readNVLink(b []byte, l *Line) {
	b, ok := after(b, "NVLink: fatal error detected on link ")
	if !ok {
		return
	}
	n, b := digits(b)
	if n < 0 || n > maxLink {
		return
	}
	l.Link = Link(n + 1)
	if b, ok = after(b, "("); !ok {
		return
	}
	read, b := readRegisters(b, ", ", &l.Registers)
	l.HasRegisters = read == len(l.Registers) && starts(b, ")")
}

// nvlinkBits are the bits of the registers of Xid 74 that WORKFLOW_NVLINK_ERR of NVIDIA's catalogue describes, and what it
// says of them. It knows the first, third, fourth and fifth register; a bit of another, or one that is not here, decides
// nothing.
var nvlinkBits = [...]struct {
	register int
	bits     uint32
	action   action
}{
	{0, 1<<0 | 1<<23 | 1<<30, nvIgnore},
	{0, 1<<1 | 1<<20, nvSympathetic},
	{0, 1<<4 | 1<<5, nvParity},
	{0, 1<<8 | 1<<9 | 1<<12 | 1<<16 | 1<<17 | 1<<24 | 1<<28, nvMechanical},
	{0, 1<<21 | 1<<22, nvMechanical},
	{0, 1<<27 | 1<<29, nvRepeat},
	{2, 1<<0 | 1<<1 | 1<<2 | 1<<6, nvParity},
	{2, 1 << 13, nvMechanical},
	{2, 1<<16 | 1<<17 | 1<<18 | 1<<19, nvRepeat},
	{3, 1<<16 | 1<<17, nvSympathetic},
	{3, 1 << 18, nvFabric},
	{4, 1<<18 | 1<<19 | 1<<21 | 1<<22 | 1<<24 | 1<<25 | 1<<27 | 1<<28, nvParity},
	{4, 1<<20 | 1<<23 | 1<<26 | 1<<29, nvIgnore},
}

// nvlinkAction is the most that a bit of Xid 74's registers asks for. With a bit that is not known it is never more than a
// human's look.
func nvlinkAction(l Line) action {
	if !l.HasRegisters {
		return undecided
	}
	rest, most := l.Registers, undecided
	for _, known := range nvlinkBits {
		if rest[known.register]&known.bits != 0 {
			most = max(most, known.action)
			rest[known.register] &^= known.bits
		}
	}
	switch unknown := rest != [7]uint32{}; {
	case unknown && most == nvFabric:
		return nvMechanical
	case unknown && most == nvIgnore:
		return undecided
	}
	return most
}

func isNVLink5(code int) bool { return code >= 144 && code <= 150 }

// rule is what a unit's error status asks for.
type rule struct {
	status uint32
	action action
}

// Rules that several units share. Status 0x80000000 is software's, and asks for nothing.
var (
	software = rule{1 << 31, nvWatch}
	tlwPipe  = []rule{{1, nvIgnore}, {2, nvWatch}, {4, nvReset}, software}
)

// nvlink5Units are the units of Xids 144 to 150 and their errors, from the sheet "XID 144-150 Decode" of NVIDIA's
// catalogue. v1 is what bits 9:0 of intrInfo hold with drivers before R575: the unit's index in bits 9:5 and the Xid's in
// 4:0. v2 is what bits 6:0 hold from R575 on. -1 is a unit that the one has and the other calls something else.
var nvlink5Units = [...]struct {
	code   int
	name   string
	v1, v2 int
	rules  []rule
}{
	{144, "SAW_MVB", 0x021, 1, []rule{{1, nvWatch}, {2, nvReset}, {4, nvIgnore}, {8, nvWatch}, {0x10, nvReset}, {0x20, nvIgnore}}},
	{145, "RLW_CTRL", 0x062, 3, []rule{software}},
	{145, "RLW_REMAP", 0x082, 4, []rule{
		{1, nvEvaluate}, {2, nvEvaluate}, {4, nvEvaluate}, {8, nvEvaluate}, {0x10, nvEvaluate}, {0x20, nvEvaluate},
		{0x40, nvReset}, {0x80, nvReset}, {0x100, nvIgnore}, {0x200, nvIgnore}, software,
	}},
	{145, "RLW_RSPCOL", 0x0a2, 5, []rule{{1, nvIgnore}, {2, nvReset}, software}},
	// The first three are what the bit above the unit's index says; see promoted.
	{145, "RLW_RXPIPE", 0x0c2, 6, []rule{{1, nvWatch}, {2, nvWatch}, {4, nvWatch}, {8, nvWatch}, software}},
	{145, "RLW_SRC_TRACK", 0x0e2, 7, []rule{
		{1, nvReset}, {2, nvIgnore}, {4, nvEvaluate}, {8, nvEvaluate}, {0x10, nvReset}, {0x20, nvReset}, software,
	}},
	{145, "RLW_TAGSTATE", 0x102, 8, []rule{
		{1, nvIgnore}, {2, nvReset}, {0x10000, nvIgnore}, {0x20000, nvReset}, {0x100000, nvReset}, software,
	}},
	{146, "TLW_CTRL", 0x123, 9, []rule{{1, nvIgnore}, {2, nvWatch}, {4, nvReset}, software}},
	{146, "TLW_RX", 0x143, -1, tlwPipe},
	{146, "TLW_RX_PIPE0", -1, 10, tlwPipe},
	{146, "TLW_RX_PIPE1", -1, 11, tlwPipe},
	{146, "TLW_TX", 0x163, -1, tlwPipe},
	{146, "TLW_TX_PIPE0", -1, 12, tlwPipe},
	{146, "TLW_TX_PIPE1", -1, 13, tlwPipe},
	{147, "TREX", 0x184, 14, []rule{{1, nvWatch}, software}},
	{148, "NVLPW_CTRL", 0x005, -1, []rule{software}},
	{148, "NVLPW", -1, 15, []rule{software}},
	{149, "NETIR", 0x006, -1, nil},
	{149, "NETIR_INT", -1, 24, nil},
	{149, "NETIR_LINK_EVT", 0x1c6, -1, nil},
	{149, "NETIR_LINK_DOWN", -1, 17, nil},
	{149, "NETIR_BER_EVENT", 0x226, 19, []rule{{0, nvWatch}, {1, nvWatch}, {2, nvWatch}, {3, nvWatch}}},
	{149, "NETIR_MFDE_EVENT", 0x246, 20, []rule{{1, nvReset}, {3, nvIgnore}, {4, nvReset}, {5, nvReset}, {7, nvReset}}},
	{150, "MSE", 0, 0, []rule{{0, nvReset}, {0xffffffff, nvReset}}},
	{150, "MSE_WATCHDOG", 0, 0, []rule{{0, nvReset}}},
}

// The reasons for which a link goes down, bits 25:20 of intrInfo, as sets: those after which the GPU needs a reset; of
// them those that are the other end's (its sleep, its switching off, its heat, its reset, or no reason given); and those
// after which it needs nothing, because someone or something on the host wanted it so.
const (
	downReset = 1<<0 | 1<<1 | 1<<2 | 1<<4 | 1<<10 | 1<<15 | 1<<16 | 1<<17 | 1<<18 | 1<<22 | 1<<42 | 1<<43
	downPeer  = 1<<21 | 1<<32 | 1<<33 | 1<<34 | 1<<35 | 1<<36 | 1<<37
	downWatch = 1<<38 | 1<<40
)

// readNVLink5 reads "NETIR_LINK_EVT  Fatal   XC0 i0 Link 02 (0x004505c6 0x00000000 0x00000000)": the unit, whether it is
// fatal, whether it spreads to other channels, whether it was injected, the link, and the registers.
func readNVLink5(b []byte, l *Line) {
	name, b, _ := bytes.Cut(b, []byte(" "))
	b = bytes.TrimLeft(b, " ")
	if r, ok := after(b, "Degraded "); ok {
		b = bytes.TrimLeft(r, " ")
	}
	if r, ok := after(b, "Fatal "); ok {
		l.Fatality, b = Fatal, r
	} else if r, ok := after(b, "Nonfatal "); ok {
		l.Fatality, b = NonFatal, r
	} else {
		return
	}
	for i := range nvlink5Units {
		if nvlink5Units[i].code == l.Code && nvlink5Units[i].name == string(name) {
			l.Unit = Unit(i + 1)
		}
	}
	for _, field := range [...]string{"XC", "i"} {
		r, ok := after(bytes.TrimLeft(b, " "), field)
		n, r := digits(r)
		if !ok || n < 0 {
			return
		}
		b = r
	}
	var ok bool
	if l.Link, b = readLink(bytes.TrimLeft(b, " ")); b == nil {
		return
	}
	if b, ok = after(b, " ("); !ok {
		return
	}
	read, b := readRegisters(b, " ", &l.Registers)
	l.HasRegisters = read >= 2 && starts(b, ")")
}

// readLink reads "Link 02", or "Link -1" for none; what follows is nil where there is neither.
func readLink(b []byte) (link Link, rest []byte) {
	b, ok := after(b, "Link ")
	if !ok {
		return 0, nil
	}
	if r, ok := after(b, "-1"); ok {
		return 0, r
	}
	n, rest := digits(b)
	if n < 0 || n > maxLink {
		return 0, nil
	}
	return Link(n + 1), rest
}

// readRegisters reads at most as many registers as there is room for, and says how many those were.
func readRegisters(b []byte, separator string, into *[7]uint32) (n int, rest []byte) {
	for n < len(into) {
		if n > 0 {
			r, ok := after(b, separator)
			if !ok {
				break
			}
			b = r
		}
		r, ok := after(b, "0x")
		if !ok {
			break
		}
		value, r, ok := hexField(r, 8)
		if !ok {
			break
		}
		into[n], b = value, r
		n++
	}
	return n, b
}

// nvlink5Action is what the catalogue says of the registers of Xids 144 to 150.
func nvlink5Action(l Line) action {
	if !l.HasRegisters || l.Unit == 0 {
		return undecided
	}
	u := &nvlink5Units[l.Unit-1]
	info, status := l.Registers[0], l.Registers[1]
	v2, ok := layout(info, u.v1, u.v2, l.Driver)
	if !ok {
		return undecided
	}
	fatal, reason := l.Fatality == Fatal, info>>20&0x3f
	switch u.name {
	case "NETIR_LINK_EVT", "NETIR_LINK_DOWN":
		if a := linkDown(reason); fatal || a == nvWatch {
			return a
		}
		return undecided
	case "NETIR", "NETIR_INT":
		if fatal {
			return nvReset
		}
		return undecided
	}
	i := indexRule(u.rules, status)
	if i < 0 || reason != 0 {
		return undecided
	}
	a := u.rules[i].action
	if u.name == "RLW_RXPIPE" && status <= 4 && promoted(info, v2) {
		a = nvReset
	}
	if fatal != (a == nvReset) {
		// The driver and the catalogue do not agree.
		return undecided
	}
	return a
}

// layout says where the unit's index is, and that it is the index of the unit that the line names. The driver's version
// decides; where that is not known, the one that fits the name does. No unit's indices fit both.
func layout(info uint32, v1, v2, driver int) (isV2, ok bool) {
	fitsV1, fitsV2 := v1 >= 0 && int(info&0x3ff) == v1, v2 >= 0 && int(info&0x7f) == v2
	switch {
	case driver >= firstV2:
		return true, fitsV2
	case driver > 0:
		return false, fitsV1
	}
	return fitsV2, fitsV1 || fitsV2
}

// promoted says that an error which may be fatal is: the bit above the unit's index.
func promoted(info uint32, v2 bool) bool {
	if v2 {
		return info>>7&1 == 1
	}
	return info>>10&1 == 1
}

// linkDown is what the reason for which a link went down asks for.
func linkDown(reason uint32) action {
	switch bit := uint64(1) << reason; {
	case bit&downReset != 0:
		return nvReset
	case bit&downPeer != 0:
		return nvResetPeer
	case bit&downWatch != 0:
		return nvWatch
	}
	return undecided
}

func indexRule(rules []rule, status uint32) int {
	for i := range rules {
		if rules[i].status == status {
			return i
		}
	}
	return -1
}
