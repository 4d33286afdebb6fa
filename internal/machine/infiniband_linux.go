package machine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// maxPorts bounds the ports of one read.
const maxPorts = 256

// InfiniBandPorts reads /sys/class/infiniband (Documentation/ABI/stable/sysfs-class-infiniband). Each read asks the
// adapter's driver, which may ask its firmware.
func (h *Host) InfiniBandPorts(ctx context.Context) ([]InfiniBandPort, error) {
	return through(ctx, h.infiniband, func() ([]InfiniBandPort, error) {
		class := h.path("sys/class/infiniband")
		entries, err := os.ReadDir(class)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("listing InfiniBand devices: %w", err)
		}
		var out []InfiniBandPort
		for _, e := range entries {
			ports, err := readInfiniBand(filepath.Join(class, e.Name()))
			if err != nil {
				return nil, fmt.Errorf("reading InfiniBand device %s: %w", e.Name(), err)
			}
			if out = append(out, ports...); len(out) >= maxPorts {
				out = out[:maxPorts]
				break
			}
		}
		slices.SortFunc(out, func(a, b InfiniBandPort) int {
			return cmp.Or(cmp.Compare(a.Device, b.Device), cmp.Compare(a.Number, b.Number))
		})
		return out, nil
	})
}

// readInfiniBand reads one device; one that went away while it was read has no ports.
func readInfiniBand(dir string) ([]InfiniBandPort, error) {
	device := InfiniBandPort{Device: bound(filepath.Base(dir), 32)}
	a := attributes{dir: dir, unread: &device.Unread}
	if target, err := os.Readlink(filepath.Join(dir, "device")); err == nil {
		if address, err := ParsePCIAddress(filepath.Base(target)); err == nil {
			device.PCI = address
		}
	}
	_, err := os.Lstat(filepath.Join(dir, "device/physfn"))
	device.Virtual = err == nil
	device.GUID = bound(a.text("node_guid"), 32)
	device.Model = strings.TrimSpace(bound(a.text("hca_type"), 32) + " " + bound(a.text("board_id"), 32))
	entries, err := os.ReadDir(filepath.Join(dir, "ports"))
	if gone(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var ports []InfiniBandPort
	for _, e := range entries {
		number, err := strconv.Atoi(e.Name())
		if err != nil || number < 1 || len(ports) >= maxPorts {
			continue
		}
		p := device
		p.Number = number
		p.read(filepath.Join(dir, "ports", e.Name()))
		ports = append(ports, p)
	}
	return ports, nil
}

// read fills in what the port's directory says.
func (p *InfiniBandPort) read(dir string) {
	a := attributes{dir: dir, unread: &p.Unread}
	number := func(name string) uint8 {
		s := a.text(name)
		if s == "" {
			return 0
		}
		n, err := ParsePortState(s)
		if err != nil {
			a.failed(name, err)
		}
		return n
	}
	p.State, p.Phys = PortState(number("state")), number("phys_state")
	p.Layer = bound(a.text("link_layer"), 32)
	if rate := a.text("rate"); rate != "" {
		var err error
		if p.Mbps, p.Lanes, err = ParseInfiniBandRate(rate); err != nil {
			a.failed("rate", err)
		}
	}
	p.Counters = make(map[string]uint64, len(InfiniBandCounters))
	for name := range InfiniBandCounters {
		data, ok := a.bytes(filepath.Join("counters", name), maxSysfsFile)
		if !ok {
			continue
		}
		n, known, err := ParsePortCounter(data)
		if err != nil {
			a.failed(name, err)
		}
		if known {
			p.Counters[name] = n
		}
	}
}
