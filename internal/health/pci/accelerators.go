// Package pci looks at the accelerators from the bus alone: is each one there, does it answer, and is its link as wide and
// as fast as it should be. It needs no vendor's driver or library, so it works where those hang, and for devices passed
// through to virtual machines.
//
// judge.go is pure; check.go reads. docs/checks/pci.md says what each fault means and what clears it.
package pci

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/roundhouse-dev/roundhouse/internal/machine"
)

// PCI IDs of vendors, and class codes (base class and subclass) of the PCI Code and ID Assignment Specification.
const (
	vendorNVIDIA = 0x10de
	vendorAMD    = 0x1002
	vendorHabana = 0x1da3
	vendorPFN    = 0x0ccd

	// The boards of Preferred Networks; the vendor's other devices are links and switches between them (pci.ids).
	deviceMNCore  = 0x0110
	deviceMNCore2 = 0x0120

	classVGA         = 0x0300
	class3D          = 0x0302
	classDisplay     = 0x0380
	classAccelerator = 0x1200
)

// Match names devices that count as accelerators beside the known ones. Zero fields match anything.
type Match struct {
	Vendor, Device uint16
	// Class is base class and subclass, such as 0x0108 for NVMe.
	Class uint16
}

// ParseMatch reads "vendor:device" in hexadecimal with "*" for any, with ":class" after it where wanted: "1b36:0010",
// "10de:*", "*:*:1200".
func ParseMatch(s string) (Match, error) {
	fields := strings.Split(s, ":")
	if len(fields) < 2 || len(fields) > 3 {
		return Match{}, fmt.Errorf("parsing device match %q: want vendor:device or vendor:device:class", s)
	}
	var m Match
	for i, to := range []*uint16{&m.Vendor, &m.Device, &m.Class}[:len(fields)] {
		if fields[i] == "*" {
			continue
		}
		n, err := strconv.ParseUint(fields[i], 16, 16)
		if err != nil {
			return Match{}, fmt.Errorf("parsing device match %q: %w", s, err)
		}
		*to = uint16(n)
	}
	if m == (Match{}) {
		return Match{}, fmt.Errorf("parsing device match %q: it would match every device", s)
	}
	return m, nil
}

// String is the match as ParseMatch reads it.
func (m Match) String() string {
	word := func(n uint16) string {
		if n == 0 {
			return "*"
		}
		return fmt.Sprintf("%04x", n)
	}
	s := word(m.Vendor) + ":" + word(m.Device)
	if m.Class != 0 {
		s += ":" + word(m.Class)
	}
	return s
}

func (m Match) matches(id machine.PCIID) bool {
	return (m.Vendor == 0 || m.Vendor == id.Vendor) && (m.Device == 0 || m.Device == id.Device) &&
		(m.Class == 0 || m.Class == id.BaseAndSub())
}

// IsAccelerator says whether a device is one: NVIDIA's GPUs, AMD's without a monitor's class (its processors' own graphics
// are VGA), Gaudi, MN-Core, and what is matched by configuration. A virtual function is none: those come and go by configuration, and
// would be missed.
func IsAccelerator(id machine.PCIID, extra []Match) bool {
	if id.Virtual {
		return false
	}
	class := id.BaseAndSub()
	switch id.Vendor {
	case vendorNVIDIA:
		if class == class3D || class == classVGA {
			return true
		}
	case vendorAMD:
		if class == classDisplay || class == class3D || class == classAccelerator {
			return true
		}
	case vendorHabana:
		if class == classAccelerator {
			return true
		}
	case vendorPFN:
		if id.Device == deviceMNCore || id.Device == deviceMNCore2 {
			return true
		}
	}
	for _, m := range extra {
		if m.matches(id) {
			return true
		}
	}
	return false
}

// savesPower says whether devices of the class lower their link's speed when idle: GPUs do, and many accelerators.
func savesPower(id machine.PCIID) bool {
	base := id.Class >> 16
	return base == 0x03 || base == 0x12
}

func vendorName(vendor uint16) string {
	switch vendor {
	case vendorNVIDIA:
		return "NVIDIA"
	case vendorAMD:
		return "AMD"
	case vendorHabana:
		return "Habana"
	case vendorPFN:
		return "Preferred Networks"
	}
	return fmt.Sprintf("%04x", vendor)
}
