package machine

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// PCIID is what a device says it is.
type PCIID struct {
	// Vendor and Device are the PCI IDs, such as 0x10de and 0x2330.
	Vendor, Device uint16
	// SubVendor and SubDevice name the board.
	SubVendor, SubDevice uint16
	// Class is the 24-bit class code: base class, subclass, programming interface.
	Class uint32
	// Driver is the kernel driver that holds the device; empty when none does.
	Driver string
	// Virtual says that this is an SR-IOV virtual function; those come and go by configuration.
	Virtual bool
}

// BaseAndSub is the class code without its programming interface, such as 0x0302.
func (id PCIID) BaseAndSub() uint16 { return uint16(id.Class >> 8) }

// ConfigState says what a read of a device's configuration space gave.
type ConfigState uint8

const (
	// ConfigUnread means that it could not be read, or that reading it would have woken a sleeping device.
	ConfigUnread ConfigState = iota
	// ConfigAnswers means that the device answered.
	ConfigAnswers
	// ConfigAllOnes means that every byte was 0xff: what the bus returns when nothing answers (PCI Express Base
	// Specification, completion timeout and unsupported request).
	ConfigAllOnes
)

// Link is a PCI Express link as the device at its lower end reports it.
type Link struct {
	// Width and MaxWidth are lanes now and at most; 0 is unknown or not trained.
	Width, MaxWidth uint8
	// MTs and MaxMTs are megatransfers a second a lane now and at most; 0 is unknown. 32 GT/s is 32000.
	MTs, MaxMTs uint32
}

// Known says whether the link's present state could be read.
func (l Link) Known() bool { return l.Width != 0 && l.MTs != 0 }

// PCIDevice is one function on the bus.
type PCIDevice struct {
	PCIID
	// Address is domain:bus:device.function in lower-case hexadecimal, such as 0000:18:00.0. Bus numbers may change
	// between boots.
	Address string
	// Parent is the address of the bridge above; empty below a root bus.
	Parent string
	// DriverVersion is the version the driver's module states; many state none.
	DriverVersion string
	// Slot is the physical slot's name, the device's own or the nearest above it; empty where firmware names none.
	Slot string
	// Label is the name the firmware gives the device (SMBIOS type 41 or ACPI _DSM); often empty.
	Label string
	// Link is the link above the device, as the device reports it.
	Link Link
	// ParentLink is the same link as the bridge above reports it.
	ParentLink Link
	// Config says whether configuration space answers.
	Config ConfigState
	// Power is the power state (D0, D3hot, D3cold, unknown); empty where the kernel does not tell.
	Power string
	// Suspended says that runtime power management has put the device to sleep.
	Suspended bool
	// Unread names the first attribute that was there and could not be read; empty when all could.
	Unread string
}

// ParsePCIAddress checks and normalises an address. It accepts a missing function, which NVRM leaves out, as function
// 0, and a missing domain as domain 0.
func ParsePCIAddress(s string) (string, error) {
	head, fn, hasFn := strings.Cut(s, ".")
	if !hasFn {
		fn = "0"
	}
	parts := strings.Split(head, ":")
	if len(parts) == 2 {
		parts = append([]string{"0"}, parts...)
	}
	if len(parts) != 3 {
		return "", fmt.Errorf("parsing PCI address %q: want domain:bus:device.function", clip(s))
	}
	domain, err1 := parseHex(parts[0], 32)
	bus, err2 := parseHex(parts[1], 8)
	dev, err3 := parseHex(parts[2], 5)
	function, err4 := parseHex(fn, 3)
	for _, err := range []error{err1, err2, err3, err4} {
		if err != nil {
			return "", fmt.Errorf("parsing PCI address %q: %w", clip(s), err)
		}
	}
	return fmt.Sprintf("%04x:%02x:%02x.%x", domain, bus, dev, function), nil
}

// parseHex reads bare hexadecimal digits; strconv alone would also take signs and underscores.
func parseHex(s string, bits int) (uint64, error) {
	for _, c := range []byte(s) {
		if !strings.ContainsRune("0123456789abcdefABCDEF", rune(c)) {
			return 0, fmt.Errorf("%q is not hexadecimal", clip(s))
		}
	}
	return strconv.ParseUint(s, 16, bits)
}

// ParseLinkSpeed reads current_link_speed or max_link_speed of sysfs ("32.0 GT/s PCIe", "8 GT/s", "Unknown") as
// megatransfers a second. Unknown is 0 and no error.
func ParseLinkSpeed(s string) (uint32, error) {
	s = strings.TrimSpace(s)
	if s == "" || strings.HasPrefix(s, "Unknown") {
		return 0, nil
	}
	number, unit, ok := strings.Cut(s, " ")
	if !ok || !strings.HasPrefix(unit, "GT/s") {
		return 0, fmt.Errorf("parsing link speed %q: want GT/s", clip(s))
	}
	whole, tenths, _ := strings.Cut(number, ".")
	w, err := strconv.ParseUint(whole, 10, 10)
	if err != nil {
		return 0, fmt.Errorf("parsing link speed %q: %w", clip(s), err)
	}
	t := uint64(0)
	if tenths != "" {
		if t, err = strconv.ParseUint(tenths, 10, 4); err != nil || t > 9 {
			return 0, fmt.Errorf("parsing link speed %q: one decimal at most", clip(s))
		}
	}
	return uint32(w*1000 + t*100), nil
}

// ParseLinkWidth reads current_link_width or max_link_width of sysfs as lanes. What no link can have is unknown, 0 and
// no error: 255 is the kernel's PCIE_LNK_WIDTH_UNKNOWN, and 63 is the field of a register that reads all ones.
func ParseLinkWidth(s string) (uint8, error) {
	n, err := strconv.ParseUint(strings.TrimSpace(s), 10, 8)
	if err != nil {
		return 0, fmt.Errorf("parsing link width %q: %w", clip(s), err)
	}
	switch n {
	case 1, 2, 4, 8, 12, 16, 32:
		return uint8(n), nil
	}
	return 0, nil
}

// FormatGTs writes megatransfers a second as GT/s the way the API does: 32000 is "32" and 2500 is "2.5". Unknown is
// empty.
func FormatGTs(mts uint32) string {
	if mts == 0 {
		return ""
	}
	return strconv.FormatFloat(float64(mts)/1000, 'f', -1, 64)
}

// ParseUevent reads a PCI device's uevent file, which holds in one read what its own small files hold.
func ParseUevent(data []byte) (address string, id PCIID, err error) {
	for line := range bytes.Lines(data) {
		key, value, _ := strings.Cut(strings.TrimSpace(string(line)), "=")
		switch key {
		case "DRIVER":
			id.Driver = value
		case "PCI_SLOT_NAME":
			address, err = ParsePCIAddress(value)
		case "PCI_CLASS":
			var class uint64
			class, err = parseHex(value, 24)
			id.Class = uint32(class)
		case "PCI_ID":
			id.Vendor, id.Device, err = parseIDPair(value)
		case "PCI_SUBSYS_ID":
			id.SubVendor, id.SubDevice, err = parseIDPair(value)
		}
		if err != nil {
			return "", PCIID{}, fmt.Errorf("parsing uevent %s: %w", key, err)
		}
	}
	if address == "" || id.Vendor == 0 {
		return "", PCIID{}, fmt.Errorf("parsing uevent: no PCI_SLOT_NAME or PCI_ID")
	}
	return address, id, nil
}

// parseIDPair reads "10DE:2330".
func parseIDPair(s string) (uint16, uint16, error) {
	a, b, ok := strings.Cut(s, ":")
	if !ok {
		return 0, 0, fmt.Errorf("%q is not vendor:device", clip(s))
	}
	vendor, err := parseHex(a, 16)
	if err != nil {
		return 0, 0, err
	}
	device, err := parseHex(b, 16)
	return uint16(vendor), uint16(device), err
}

// allOnes says that every byte is 0xff; nothing read is not all ones.
func allOnes(b []byte) bool {
	for _, c := range b {
		if c != 0xff {
			return false
		}
	}
	return len(b) > 0
}

// clip bounds what an error quotes.
func clip(s string) string {
	if len(s) > 64 {
		return s[:64] + "..."
	}
	return s
}
