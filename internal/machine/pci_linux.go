package machine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// PCIDevices lists the devices of /sys/bus/pci/devices that want accepts, by address
// (Documentation/ABI/testing/sysfs-bus-pci of the kernel).
func (h *Host) PCIDevices(ctx context.Context, want func(PCIID) bool) ([]PCIDevice, error) {
	return through(ctx, h.pci, func() ([]PCIDevice, error) { return h.readPCI(want) })
}

func (h *Host) readPCI(want func(PCIID) bool) ([]PCIDevice, error) {
	dir := h.path("sys/bus/pci/devices")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("listing PCI devices: %w", err)
	}
	slots := h.readSlots()
	var devices []PCIDevice
	for _, e := range entries {
		d, ok, err := h.readPCIDevice(filepath.Join(dir, e.Name()), want)
		if err != nil {
			return nil, fmt.Errorf("reading PCI device %s: %w", e.Name(), err)
		}
		if ok {
			d.Slot = slotOf(slots, filepath.Join(dir, e.Name()))
			devices = append(devices, d)
		}
	}
	slices.SortFunc(devices, func(a, b PCIDevice) int { return strings.Compare(a.Address, b.Address) })
	return devices, nil
}

// readPCIDevice reads one device; not ok when want refuses it or when it went away while it was read.
func (h *Host) readPCIDevice(dir string, want func(PCIID) bool) (PCIDevice, bool, error) {
	uevent, err := os.ReadFile(filepath.Join(dir, "uevent"))
	if gone(err) {
		return PCIDevice{}, false, nil
	}
	if err != nil {
		return PCIDevice{}, false, err
	}
	address, id, err := ParseUevent(uevent)
	if err != nil {
		return PCIDevice{}, false, err
	}
	_, err = os.Lstat(filepath.Join(dir, "physfn"))
	id.Virtual = err == nil
	if want != nil && !want(id) {
		return PCIDevice{}, false, nil
	}
	d := PCIDevice{PCIID: id, Address: address}
	a := attributes{dir: dir, unread: &d.Unread}
	d.Power = a.text("power_state")
	d.Suspended = a.text("power/runtime_status") == "suspended"
	d.Label = bound(a.text("label"), 32)
	d.Link = a.link()
	d.Config = readConfig(a, d.Suspended)
	if id.Driver != "" {
		d.DriverVersion = bound(a.text("driver/module/version"), 32)
	}
	if parent := upstream(dir); parent != "" {
		d.Parent = parent
		// Beside the device's own directory as the bus lists it: ".." of the link target is the bridge's.
		p := attributes{dir: h.path("sys/bus/pci/devices", parent), unread: new(string)}
		d.ParentLink = p.link()
	}
	return d, true, nil
}

// readConfig looks at the first 64 bytes, the standard header. The read resumes a device that runtime power management
// has suspended (pci_config_pm_runtime_get in drivers/pci/pci-sysfs.c), so a sleeping device is left alone.
func readConfig(a attributes, suspended bool) ConfigState {
	if suspended {
		return ConfigUnread
	}
	f, err := os.Open(filepath.Join(a.dir, "config"))
	if err != nil {
		a.failed("config", err)
		return ConfigUnread
	}
	defer f.Close()
	var header [64]byte
	n, err := io.ReadFull(f, header[:])
	switch {
	case n < 4:
		a.failed("config", err)
		return ConfigUnread
	case allOnes(header[:n]):
		return ConfigAllOnes
	}
	return ConfigAnswers
}

// upstream is the address of the bridge above, from where the bus's link points: .../0000:17:01.0/0000:18:00.0.
func upstream(dir string) string {
	target, err := os.Readlink(dir)
	if err != nil {
		return ""
	}
	parent := filepath.Base(filepath.Dir(target))
	if address, err := ParsePCIAddress(parent); err == nil && address == parent {
		return parent
	}
	return ""
}

// readSlots maps domain:bus:device to the slot's name, from /sys/bus/pci/slots. Most virtual machines have none.
func (h *Host) readSlots() map[string]string {
	dir := h.path("sys/bus/pci/slots")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	slots := make(map[string]string, len(entries))
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(dir, e.Name(), "address"))
		if err == nil {
			slots[strings.TrimSpace(string(data))] = bound(e.Name(), 32)
		}
	}
	return slots
}

// slotOf is the slot of the device, or of the nearest bridge above it: a board behind a switch sits in its switch's slot.
func slotOf(slots map[string]string, dir string) string {
	if len(slots) == 0 {
		return ""
	}
	target, err := os.Readlink(dir)
	if err != nil {
		return ""
	}
	for path := target; len(path) > 1; path = filepath.Dir(path) {
		place, _, ok := strings.Cut(filepath.Base(path), ".")
		if !ok {
			return ""
		}
		if name, ok := slots[place]; ok {
			return name
		}
	}
	return ""
}

// attributes reads the small files of one device's directory.
type attributes struct {
	dir    string
	unread *string
}

// text is the trimmed content, or empty where the attribute is not there or cannot be read.
func (a attributes) text(name string) string {
	data, err := os.ReadFile(filepath.Join(a.dir, name))
	if err != nil {
		a.failed(name, err)
		return ""
	}
	return strings.TrimSpace(string(data))
}

// link reads the four link attributes; a value that does not parse counts as unread.
func (a attributes) link() Link {
	var l Link
	var err error
	width := func(name string) uint8 {
		s := a.text(name)
		if s == "" {
			return 0
		}
		var w uint8
		if w, err = ParseLinkWidth(s); err != nil {
			a.failed(name, err)
		}
		return w
	}
	speed := func(name string) uint32 {
		var mts uint32
		if mts, err = ParseLinkSpeed(a.text(name)); err != nil {
			a.failed(name, err)
		}
		return mts
	}
	l.Width, l.MaxWidth = width("current_link_width"), width("max_link_width")
	l.MTs, l.MaxMTs = speed("current_link_speed"), speed("max_link_speed")
	return l
}

// failed notes the first attribute that is there and could not be read. EINVAL is how the kernel's link attributes say
// that a device has no link.
func (a attributes) failed(name string, err error) {
	if gone(err) || errors.Is(err, syscall.EINVAL) || *a.unread != "" {
		return
	}
	*a.unread = name
}

func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENODEV)
}

// NVIDIAGPUs reads /proc/driver/nvidia/gpus. Its files answer when NVML does not; should the driver itself hang in
// them, the deadline ends the wait.
func (h *Host) NVIDIAGPUs(ctx context.Context) ([]NVIDIAGPU, error) {
	return through(ctx, h.nvidia, func() ([]NVIDIAGPU, error) {
		dir := h.path("proc/driver/nvidia/gpus")
		entries, err := os.ReadDir(dir)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("listing NVIDIA GPUs: %w", err)
		}
		var gpus []NVIDIAGPU
		for _, e := range entries {
			data, err := os.ReadFile(filepath.Join(dir, e.Name(), "information"))
			if gone(err) {
				continue
			}
			if err != nil {
				return nil, fmt.Errorf("reading NVIDIA GPU %s: %w", e.Name(), err)
			}
			gpu, err := ParseNVIDIAInformation(data)
			if err != nil {
				return nil, fmt.Errorf("NVIDIA GPU %s: %w", e.Name(), err)
			}
			gpus = append(gpus, gpu)
		}
		return gpus, nil
	})
}
