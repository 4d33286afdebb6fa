package pci

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/roundhouse-dev/roundhouse/internal/machine"
)

// Declared is what an operator says that devices must have, in place of what the check would expect by itself.
type Declared struct {
	Links  []DeclaredLink
	Counts []DeclaredCount
}

// DeclaredLink is the link that a device must have: the device at an address, those in a slot, or those that are matched.
type DeclaredLink struct {
	Address, Slot string
	Match         Match
	// Width is lanes, MTs megatransfers a second a lane; 0 is not declared.
	Width uint8
	MTs   uint32
}

// DeclaredCount is how many accelerators a node must have, of all or of those that are matched.
type DeclaredCount struct {
	// Match is of all accelerators when zero.
	Match Match
	N     int
}

// ParseDeclaredLink reads "device=xWIDTH@SPEED", the speed in GT/s a lane; either may be left out: "10de:2330=x16@32",
// "slot:3=x8", "0000:18:00.0=@16". The device is an address, "slot:" and a slot's name, or as in ParseMatch.
func ParseDeclaredLink(s string) (DeclaredLink, error) {
	at := strings.LastIndexByte(s, '=')
	if at < 0 {
		return DeclaredLink{}, fmt.Errorf("parsing declared link %q: want device=xWIDTH@SPEED, such as 10de:2330=x16@32", s)
	}
	device, link := strings.TrimSpace(s[:at]), strings.TrimSpace(s[at+1:])
	d := DeclaredLink{}
	var err error
	slot, isSlot := strings.CutPrefix(device, "slot:")
	switch {
	case isSlot && slot == "":
		err = fmt.Errorf("the slot has no name")
	case isSlot:
		d.Slot = slot
	case strings.Contains(device, "."):
		d.Address, err = machine.ParsePCIAddress(device)
	default:
		d.Match, err = ParseMatch(device)
	}
	if err != nil {
		return DeclaredLink{}, fmt.Errorf("parsing declared link %q: %w", s, err)
	}
	width, speed, hasSpeed := strings.Cut(link, "@")
	if width != "" {
		lanes, ok := strings.CutPrefix(width, "x")
		if d.Width, err = machine.ParseLinkWidth(lanes); !ok || err != nil || d.Width == 0 {
			return DeclaredLink{}, fmt.Errorf("parsing declared link %q: %q is no width; want x1, x2, x4, x8, x12, x16 or x32", s, width)
		}
	}
	if hasSpeed {
		if d.MTs, err = machine.ParseLinkSpeed(speed + " GT/s"); err != nil || d.MTs == 0 {
			return DeclaredLink{}, fmt.Errorf("parsing declared link %q: %q is no speed in GT/s, such as 32", s, speed)
		}
	}
	if d.Width == 0 && d.MTs == 0 {
		return DeclaredLink{}, fmt.Errorf("parsing declared link %q: neither width nor speed", s)
	}
	return d, nil
}

// ParseDeclaredCount reads "N", of all accelerators, or "device=N", the device as in ParseMatch: "8", "10de:2330=8".
func ParseDeclaredCount(s string) (DeclaredCount, error) {
	var c DeclaredCount
	number := s
	if at := strings.LastIndexByte(s, '='); at >= 0 {
		var err error
		if c.Match, err = ParseMatch(strings.TrimSpace(s[:at])); err != nil {
			return DeclaredCount{}, fmt.Errorf("parsing declared count %q: %w", s, err)
		}
		number = s[at+1:]
	}
	n, err := strconv.Atoi(strings.TrimSpace(number))
	if err != nil || n < 1 || n > maxKnown {
		return DeclaredCount{}, fmt.Errorf("parsing declared count %q: want a number from 1 to %d, or vendor:device=number", s, maxKnown)
	}
	c.N = n
	return c, nil
}

// of is what is declared of a device's link, the most exact word of each of width and speed: its address, its slot, then
// the first match.
func (d Declared) of(s *Seen) (width uint8, mts uint32) {
	for _, speaks := range []func(DeclaredLink) bool{
		func(l DeclaredLink) bool { return l.Address != "" && l.Address == s.Address },
		func(l DeclaredLink) bool { return l.Slot != "" && l.Slot == s.Slot },
		func(l DeclaredLink) bool { return l.Match != (Match{}) && l.Match.matches(s.PCIID) },
	} {
		for _, l := range d.Links {
			if !speaks(l) {
				continue
			}
			if width == 0 {
				width = l.Width
			}
			if mts == 0 {
				mts = l.MTs
			}
		}
	}
	return width, mts
}

// count is how many of the seats a declared count is about. A missing device counts: it is missed by its own name.
func (c DeclaredCount) count(seats []Seat) int {
	n := 0
	for i := range seats {
		k := &seats[i]
		match, id := c.Match, machine.PCIID{Vendor: k.Vendor, Device: k.Device}
		if k.Seen != nil {
			id = k.Seen.PCIID
		} else if match.Vendor != 0 || match.Device != 0 {
			match.Class = 0 // of a missing one the class is not known
		}
		if match.matches(id) {
			n++
		}
	}
	return n
}

// String is the count as it is declared.
func (c DeclaredCount) String() string {
	if c.Match == (Match{}) {
		return "accelerators"
	}
	return "accelerators " + c.Match.String()
}
