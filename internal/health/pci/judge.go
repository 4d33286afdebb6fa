package pci

import (
	"fmt"
	"strings"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/machine"
)

// Codes of the faults; docs/checks/pci.md describes them.
const (
	// CodeMissing is a known accelerator that is not on the bus.
	CodeMissing = "PCIDeviceMissing"
	// CodeDead is one that is on the bus and does not answer.
	CodeDead = "PCIDeviceDead"
	// CodeNarrow is a link of fewer lanes than expected.
	CodeNarrow = "PCILinkNarrow"
	// CodeSlow is a link of a lower speed than expected, where that cannot be power-saving.
	CodeSlow = "PCILinkSlow"
	// CodeCount is fewer accelerators than declared, beside those that are missing by name.
	CodeCount = "PCIDeviceCount"
)

// wholeNode is the seat of a condition that is of no device.
const wholeNode = -1

// minPeers is how many others of a model have to agree before less than the maximum counts as the platform's way.
const minPeers = 2

// Baseline is what a link is held against.
type Baseline struct {
	Width uint8
	MTs   uint32
	From  string // Maximum, Peers, Learned or Declared
	// Judged says that the speed was, and not only the width.
	Judged bool
}

// The provenances, as the API has them.
const (
	fromMaximum  = "Maximum"
	fromPeers    = "Peers"
	fromLearned  = "Learned"
	fromDeclared = "Declared"
)

// Condition is something wrong at one look; it becomes a finding when it lasts.
type Condition struct {
	Code string
	// Seat is the index of the device's seat; below zero for the whole node.
	Seat        int
	Severity    v1alpha1.Severity
	Recommended v1alpha1.Recommendation
	Evidence    string
	// Link says that it is about the link, which takes longer to settle.
	Link bool
}

// Verdict is what one look at the bus gives.
type Verdict struct {
	Conditions []Condition
	// Baselines are by seat; zero where a link cannot be judged.
	Baselines []Baseline
	// Unseen are by seat: why the device could not be looked at, or empty.
	Unseen []string
}

// UnderLoad says whether the device at an address works hard enough to run its link at full speed, where that is known.
type UnderLoad func(address string) (busy, known bool)

// Judge says what is wrong. It is pure but for load, which may be nil.
func Judge(seats []Seat, load UnderLoad, declared Declared) Verdict {
	v := Verdict{Baselines: make([]Baseline, len(seats)), Unseen: make([]string, len(seats))}
	for i := range seats {
		s := seats[i].Seen
		switch {
		case s == nil:
			v.add(Condition{
				Code: CodeMissing, Seat: i, Severity: v1alpha1.SeverityCritical, Recommended: v1alpha1.RecommendReboot,
				Evidence: fmt.Sprintf("%s, last at %s, is not on the PCI bus", seats[i].Model, seats[i].Address),
			})
		case s.Suspended:
			v.Unseen[i] = "asleep"
		case s.Config == machine.ConfigAllOnes:
			v.add(Condition{
				Code: CodeDead, Seat: i, Severity: v1alpha1.SeverityCritical, Recommended: v1alpha1.RecommendReboot,
				Evidence: fmt.Sprintf("PCI configuration space of %s reads all ones", s.Address),
			})
		case s.Config == machine.ConfigUnread:
			v.Unseen[i] = "configuration space could not be read"
		default:
			v.judgeLink(seats, i, load, declared)
		}
	}
	v.judgeCounts(seats, declared.Counts)
	return v
}

// judgeCounts compares how many accelerators are known with how many there should be. It is no more than a Warning: which
// one is not there nobody knows, and those that are work.
func (v *Verdict) judgeCounts(seats []Seat, counts []DeclaredCount) {
	var short []string
	for _, c := range counts {
		if n := c.count(seats); n < c.N {
			short = append(short, fmt.Sprintf("%d %s, declared %d", n, c, c.N))
		}
	}
	if len(short) > 0 {
		v.add(Condition{
			Code: CodeCount, Seat: wholeNode, Link: true, Severity: v1alpha1.SeverityWarning, Recommended: v1alpha1.RecommendReboot,
			Evidence: "this node has " + strings.Join(short, "; "),
		})
	}
}

func (v *Verdict) add(c Condition) { v.Conditions = append(v.Conditions, c) }

// judgeLink compares one link with what it should be. A device without a link, or whose link the kernel cannot tell, is
// not judged.
func (v *Verdict) judgeLink(seats []Seat, i int, load UnderLoad, declared Declared) {
	s := seats[i].Seen
	if !s.Link.Known() {
		return
	}
	wantWidth, wantSpeed := declared.of(s)
	width, widthFrom := expect(uint32(capWidth(s)), uint32(seats[i].Width), peerWidths(seats, i))
	if wantWidth != 0 {
		width, widthFrom = uint32(wantWidth), fromDeclared
	}
	v.Baselines[i] = Baseline{Width: uint8(width), From: widthFrom}
	if uint32(s.Link.Width) < width {
		v.add(narrow(s, i, uint8(width), widthFrom))
	}
	speed, speedFrom := expect(capSpeed(s), seats[i].MTs, peerSpeeds(seats, i, load))
	if wantSpeed != 0 {
		speed, speedFrom = wantSpeed, fromDeclared
		v.Baselines[i].From = fromDeclared
	}
	v.Baselines[i].MTs, v.Baselines[i].Judged = speed, fullSpeed(s, load)
	if s.Link.MTs < speed && v.Baselines[i].Judged {
		v.add(Condition{
			Code: CodeSlow, Seat: i, Link: true, Severity: v1alpha1.SeverityWarning, Recommended: recommend(speedFrom),
			Evidence: fmt.Sprintf("PCIe link of %s runs at %s GT/s, expected %s GT/s (%s)",
				s.Address, machine.FormatGTs(s.Link.MTs), machine.FormatGTs(speed), speedFrom),
		})
	}
}

// narrow is Critical at a quarter of the lanes or less, where transfers starve; above that work goes on, slower.
func narrow(s *Seen, seat int, want uint8, from string) Condition {
	c := Condition{
		Code: CodeNarrow, Seat: seat, Link: true, Severity: v1alpha1.SeverityWarning, Recommended: recommend(from),
		Evidence: fmt.Sprintf("PCIe link of %s is x%d, expected x%d (%s)", s.Address, s.Link.Width, want, from),
	}
	if s.Link.Width*4 <= want {
		c.Severity = v1alpha1.SeverityCritical
	}
	return c
}

// recommend a reboot, which trains the link anew, where peers, the device's own past or an operator say that it can do better. That
// the registers allow more is no proof that the board is wired for it.
func recommend(from string) v1alpha1.Recommendation {
	if from == fromMaximum {
		return v1alpha1.RecommendNone
	}
	return v1alpha1.RecommendReboot
}

// expect is what a link should have, and how that is known. The device's maximum is the start; enough peers that all run
// at less, and none at more, say that the platform is built so; and what the device itself once had beats both, since a
// whole platform can degrade.
func expect(limit, learned uint32, peers []uint32) (uint32, string) {
	want, from := limit, fromMaximum
	best := uint32(0)
	for _, p := range peers {
		best = max(best, p)
	}
	if best > 0 && (best == limit || len(peers) >= minPeers || limit == 0) {
		want, from = best, fromPeers
	}
	if learned > want {
		want, from = learned, fromLearned
	}
	return want, from
}

// capWidth is what device and port can both do.
func capWidth(s *Seen) uint8 {
	return uint8(lesser(uint32(s.Link.MaxWidth), uint32(s.ParentLink.MaxWidth)))
}

func capSpeed(s *Seen) uint32 { return lesser(s.Link.MaxMTs, s.ParentLink.MaxMTs) }

// lesser is the smaller of two where 0 is unknown.
func lesser(a, b uint32) uint32 {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// peers are the other devices of the model that answer and sit behind a port of the same ability.
func peers(seats []Seat, i int) []*Seen {
	var out []*Seen
	me := seats[i].Seen
	for j := range seats {
		p := seats[j].Seen
		if j == i || p == nil || p.Config != machine.ConfigAnswers || p.Suspended || !p.Link.Known() {
			continue
		}
		if p.Vendor == me.Vendor && p.PCIID.Device == me.PCIID.Device && capWidth(p) == capWidth(me) && capSpeed(p) == capSpeed(me) {
			out = append(out, p)
		}
	}
	return out
}

func peerWidths(seats []Seat, i int) []uint32 {
	var out []uint32
	for _, p := range peers(seats, i) {
		out = append(out, uint32(p.Link.Width))
	}
	return out
}

// peerSpeeds are of those peers only whose speed says something now.
func peerSpeeds(seats []Seat, i int, load UnderLoad) []uint32 {
	var out []uint32
	for _, p := range peers(seats, i) {
		if fullSpeed(p, load) {
			out = append(out, p.Link.MTs)
		}
	}
	return out
}

// fullSpeed says whether the link should run at full speed now. An idle GPU lowers it to save power, and nothing on the
// bus tells that from a fault, so a GPU is judged only when it is known to be under load.
func fullSpeed(s *Seen, load UnderLoad) bool {
	if !savesPower(s.PCIID) {
		return true
	}
	if load == nil {
		return false
	}
	busy, known := load(s.Address)
	return known && busy
}
