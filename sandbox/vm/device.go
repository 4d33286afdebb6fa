package vm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

const (
	// firstPort is the first root port's device number on the root bus, above those that QEMU gives out itself.
	firstPort = 0x10
	// maxDevices keeps the ports below device 0x1f, where q35 has its own bridge.
	maxDevices = 14
	// unplugDeadline bounds the guest's part in taking a device away: its kernel unbinds the driver first.
	unplugDeadline = 30 * time.Second
)

// Device is one PCI Express device behind a root port of its own, and stands for a GPU. QEMU has no GPU, but for
// whoever watches the bus alone an NVMe controller differs only in its class and IDs: it has a link with a speed and a
// width, a driver that is built into the guest's kernel, and it can be taken off the bus. QEMU's NVMe controller is
// 1b36:0010 of class 0108, and its link is 2.5 GT/s on one lane, which is its own maximum, whatever its port could do.
type Device struct {
	// ID names it: lower-case letters, digits and dashes, beginning with a letter.
	ID string
	// Model is QEMU's name of the device. Default nvme.
	Model string
	// Serial is the serial number that the device reports. Default its ID.
	Serial string
	// PortSpeed is the root port's fastest link: 2_5, 5, 8 or 16 GT/s. Default 16.
	PortSpeed string
	// PortWidth is the root port's widest link in lanes. Default 16.
	PortWidth int
}

// deviceID is what QEMU takes as an ID and what needs no quoting on its command line.
var deviceID = regexp.MustCompile(`^[a-z][a-z0-9-]{0,30}$`)

// defaulted returns d with its defaults filled in.
func (d Device) defaulted() (Device, error) {
	if !deviceID.MatchString(d.ID) {
		return d, fmt.Errorf("device ID %q: want %s", d.ID, deviceID)
	}
	if d.Model == "" {
		d.Model = "nvme"
	}
	if d.Serial == "" {
		d.Serial = d.ID
	}
	if d.PortSpeed == "" {
		d.PortSpeed = "16"
	}
	if d.PortWidth == 0 {
		d.PortWidth = 16
	}
	return d, nil
}

// defaultedDevices returns all with their defaults, and refuses two of one ID.
func defaultedDevices(all []Device) ([]Device, error) {
	seen := map[string]bool{}
	out := make([]Device, 0, len(all))
	for _, d := range all {
		d, err := d.defaulted()
		if err != nil {
			return nil, err
		}
		if seen[d.ID] {
			return nil, fmt.Errorf("device ID %q is there twice", d.ID)
		}
		seen[d.ID] = true
		out = append(out, d)
	}
	return out, nil
}

// port is the name of the device's root port.
func (d Device) port() string { return "port-" + d.ID }

// resetEvent is the event that QEMU's NVMe controller traces when it is reset, by the machine or as a function alone
// (hw/nvme/trace-events of QEMU's source).
const resetEvent = "pci_nvme_pci_reset"

// DeviceResets counts how often the NVMe controllers of the machine have been reset so far, at the machine's own resets
// too. It is the hardware's word, not the guest's.
func (v *VM) DeviceResets() (int, error) {
	raw, err := os.ReadFile(filepath.Join(v.dir, traceFile))
	if err != nil {
		return 0, fmt.Errorf("reading what QEMU traced: %w", err)
	}
	return strings.Count(string(raw), resetEvent), nil
}

// properties are the device's, for QEMU's monitor.
func (d Device) properties() map[string]any {
	p := map[string]any{"driver": d.Model, "id": d.ID, "bus": d.port()}
	if d.Model == "nvme" {
		p["serial"] = d.Serial
	}
	return p
}

// device is the same for QEMU's command line.
func (d Device) device() string {
	raw, err := json.Marshal(d.properties()) // QEMU takes JSON there, since 6.2
	if err != nil {
		panic(err) // strings always encode
	}
	return string(raw)
}

// device finds a device of the options.
func (v *VM) device(id string) (Device, error) {
	i := slices.IndexFunc(v.options.Devices, func(d Device) bool { return d.ID == id })
	if i < 0 {
		return Device{}, fmt.Errorf("the machine was started without a device %q", id)
	}
	return v.options.Devices[i], nil
}

// DeviceDel takes a device off the bus, and returns when it is gone: the guest's kernel has let go of it. It stays away,
// through reboots too, until DeviceAdd or as ReturnAtReset says.
//
// The request goes by ACPI hotplug, which QEMU's q35 offers and Linux prefers. It takes milliseconds, where the native
// PCI Express button would blink for five seconds first, for a person who might change their mind.
func (v *VM) DeviceDel(ctx context.Context, id string) error {
	if _, err := v.device(id); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, unplugDeadline)
	defer cancel()
	gone := make(chan struct{})
	v.mu.Lock()
	v.unplugging[id] = gone
	v.mu.Unlock()
	if err := v.monitor.execute(ctx, "device_del", map[string]any{"id": id}, nil); err != nil {
		return err
	}
	select {
	case <-gone:
		return nil
	case <-v.monitor.done:
		return errQEMUGone
	case <-ctx.Done():
		return fmt.Errorf("waiting for the guest to release %s: %w", id, ctx.Err())
	}
}

// DeviceAdd puts a device back where it was. The guest's kernel finds it by itself, within milliseconds.
func (v *VM) DeviceAdd(ctx context.Context, id string) error {
	d, err := v.device(id)
	if err != nil {
		return err
	}
	if err := v.monitor.execute(ctx, "device_add", d.properties(), nil); err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.away, id)
	return nil
}

// ReturnAtReset says that a device which is away at the next reset of the machine comes back with it, as a GPU does that
// a reboot brings back onto the bus. It holds once.
func (v *VM) ReturnAtReset(id string) error {
	if _, err := v.device(id); err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.returning[id] = true
	return nil
}

// onEvent follows what QEMU tells of the machine.
func (v *VM) onEvent(e event) {
	switch e.Name {
	case "DEVICE_DELETED":
		var data struct {
			Device string `json:"device"` // absent for the parts of a device
		}
		if json.Unmarshal(e.Data, &data) != nil || data.Device == "" {
			return
		}
		v.mu.Lock()
		defer v.mu.Unlock()
		v.away[data.Device] = true
		if gone := v.unplugging[data.Device]; gone != nil {
			close(gone)
			delete(v.unplugging, data.Device)
		}
	case "RESET":
		v.control.reset()
		v.mu.Lock()
		back := v.takeReturning()
		v.mu.Unlock()
		if len(back) > 0 {
			go v.bringBack(back) // not here: the answer comes to the goroutine that called us
		}
	}
}

// takeReturning returns, in order, the devices to bring back now. The caller holds v.mu.
func (v *VM) takeReturning() []string {
	var back []string
	for _, d := range v.options.Devices {
		if v.returning[d.ID] && v.away[d.ID] {
			back = append(back, d.ID)
		}
	}
	clear(v.returning)
	return back
}

// bringBack adds devices after a reset. Nobody waits for it, so Stop tells of what it could not do.
func (v *VM) bringBack(ids []string) {
	ctx, cancel := context.WithTimeout(v.life, commandDeadline)
	defer cancel()
	for _, id := range ids {
		if err := v.DeviceAdd(ctx, id); err != nil {
			v.mu.Lock()
			v.failure = errors.Join(v.failure, fmt.Errorf("bringing %s back at the reset: %w", id, err))
			v.mu.Unlock()
		}
	}
}

// pciBus is the part of query-pci's answer that leads to a device (qapi/pci.json of QEMU's source).
type pciBus struct {
	Devices []struct {
		ID       string  `json:"qdev_id"`
		Bus      int     `json:"bus"`
		Slot     int     `json:"slot"`
		Function int     `json:"function"`
		Bridge   *pciBus `json:"pci_bridge"`
	} `json:"devices"`
}

// find walks down the bridges, which are one level deep here and bounded by PCI's 256 buses in any case.
func (b pciBus) find(id string) (string, bool) {
	for _, d := range b.Devices {
		if d.ID == id {
			return fmt.Sprintf("0000:%02x:%02x.%d", d.Bus, d.Slot, d.Function), true
		}
		if d.Bridge == nil {
			continue
		}
		if address, ok := d.Bridge.find(id); ok {
			return address, true
		}
	}
	return "", false
}

// PCIAddress returns where a device is on the guest's bus, such as 0000:01:00.0. A device that is away has none.
func (v *VM) PCIAddress(ctx context.Context, id string) (string, error) {
	var buses []pciBus
	if err := v.monitor.execute(ctx, "query-pci", nil, &buses); err != nil {
		return "", err
	}
	for _, b := range buses {
		if address, ok := b.find(id); ok {
			return address, nil
		}
	}
	return "", fmt.Errorf("%s is not on the guest's bus", id)
}
