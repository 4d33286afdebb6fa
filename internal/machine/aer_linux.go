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
)

const (
	// maxSysfsFile bounds what is read of one attribute; sysfs gives at most a page (fs/sysfs/file.c).
	maxSysfsFile = 4096
	// maxAERDevices bounds the devices and bridges of one read.
	maxAERDevices = 512
	// maxBridges bounds the bridges above one device.
	maxBridges = 16
)

// AER reads the counters of the devices and of the bridges above them. They are the kernel's own memory, so that reading
// them wakes no device and cannot hang in one (Documentation/ABI/testing/sysfs-bus-pci-devices-aer_stats).
func (h *Host) AER(ctx context.Context, addresses []string) ([]AERDevice, error) {
	addresses = slices.Clone(addresses)
	return through(ctx, h.aer, func() ([]AERDevice, error) {
		if _, err := os.Stat(h.path("sys/bus/pci/devices")); err != nil {
			return nil, fmt.Errorf("reading AER counters: %w", err)
		}
		seen := make(map[string]bool)
		var out []AERDevice
		for _, address := range addresses {
			chain, err := h.chain(address)
			if err != nil {
				return nil, fmt.Errorf("reading AER counters: %w", err)
			}
			// From the root port down: the kernel counts a message there before it counts the error at its source
			// (aer_irq and aer_isr), so that no message looks as if it had none.
			for i, a := range slices.Backward(chain) {
				if seen[a] || len(out) >= maxAERDevices {
					continue
				}
				seen[a] = true
				d := h.readAER(a)
				if i+1 < len(chain) {
					d.Parent = chain[i+1]
				}
				out = append(out, d)
			}
		}
		slices.SortFunc(out, func(a, b AERDevice) int { return strings.Compare(a.Address, b.Address) })
		return out, nil
	})
}

// chain is the device and the bridges above it, the nearest first, from where the bus's link points; empty when the
// device is not there.
func (h *Host) chain(address string) ([]string, error) {
	if !isPCIAddress(address) {
		return nil, fmt.Errorf("%q is not a PCI address: %w", clip(address), fs.ErrInvalid)
	}
	target, err := os.Readlink(h.path("sys/bus/pci/devices", address))
	if gone(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	chain := []string{address}
	for path := filepath.Dir(target); len(chain) <= maxBridges; path = filepath.Dir(path) {
		name := filepath.Base(path)
		if !isPCIAddress(name) {
			break
		}
		chain = append(chain, name)
	}
	return chain, nil
}

// isPCIAddress says whether s is an address as the bus writes it, and so a name below /sys/bus/pci/devices.
func isPCIAddress(s string) bool {
	a, err := ParsePCIAddress(s)
	return err == nil && a == s
}

func (h *Host) readAER(address string) AERDevice {
	d := AERDevice{Address: address}
	a := attributes{dir: h.path("sys/bus/pci/devices", address), unread: &d.Unread}
	for _, f := range []struct {
		name string
		to   *AERCount
	}{
		{"aer_dev_correctable", &d.Correctable}, {"aer_dev_nonfatal", &d.Nonfatal}, {"aer_dev_fatal", &d.Fatal},
	} {
		data, ok := a.bytes(f.name, maxSysfsFile)
		if !ok {
			continue
		}
		d.Reports = true
		var err error
		if *f.to, err = ParseAERCount(data); err != nil {
			a.failed(f.name, err)
		}
	}
	var root AERRoot
	for _, f := range []struct {
		name string
		to   *uint64
	}{
		{"aer_rootport_total_err_cor", &root.Correctable},
		{"aer_rootport_total_err_nonfatal", &root.Nonfatal},
		{"aer_rootport_total_err_fatal", &root.Fatal},
	} {
		data, ok := a.bytes(f.name, maxSysfsFile)
		if !ok {
			continue
		}
		d.Root = &root
		var err error
		if *f.to, err = ParseSysfsCount(data); err != nil {
			a.failed(f.name, err)
		}
	}
	return d
}

// bytes is the content of an attribute up to a size; not ok where it is not there or cannot be read, and the latter is
// noted.
func (a attributes) bytes(name string, size int64) ([]byte, bool) {
	data, err := readBounded(filepath.Join(a.dir, name), size)
	if err != nil {
		a.failed(name, err)
		return nil, false
	}
	return data, true
}

// readBounded reads at most size bytes of a file.
func readBounded(path string, size int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, size))
	return data, errors.Join(err, f.Close())
}
