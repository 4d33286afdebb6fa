package fake

import (
	"context"
	"slices"
	"strings"

	"github.com/roundhouse-dev/roundhouse/internal/machine"
)

// DoorAER is the way to the counters of PCI errors.
const DoorAER Door = "aer"

// aerScript is what the bus has counted in one boot.
type aerScript struct {
	boot    int
	devices map[string]machine.AERDevice
}

// SetAER puts a device or a bridge with its counters on the bus, in place of one already at its address. A bridge is named
// as the Parent of what is below it. A reboot sets all counters to zero.
func (m *Machine) SetAER(d machine.AERDevice) {
	m.mu.Lock()
	m.aerLocked()[d.Address] = d
	m.mu.Unlock()
	m.changed()
}

// aerLocked is what is counted in the present boot.
func (m *Machine) aerLocked() map[string]machine.AERDevice {
	if m.aer.devices == nil {
		m.aer.devices = make(map[string]machine.AERDevice)
	}
	if m.aer.boot != m.boots {
		m.aer.boot = m.boots
		for address, d := range m.aer.devices {
			d.Correctable, d.Nonfatal, d.Fatal = machine.AERCount{}, machine.AERCount{}, machine.AERCount{}
			if d.Root != nil {
				d.Root = &machine.AERRoot{}
			}
			m.aer.devices[address] = d
		}
	}
	return m.aer.devices
}

// AER lists the devices at the addresses and the bridges above them, as far as SetAER put them there.
func (m *Machine) AER(ctx context.Context, addresses []string) ([]machine.AERDevice, error) {
	if err := m.enter(ctx, DoorAER); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	devices := m.aerLocked()
	listed := make(map[string]bool)
	var out []machine.AERDevice
	for _, address := range addresses {
		for a := address; a != "" && !listed[a]; {
			d, ok := devices[a]
			if !ok {
				break
			}
			listed[a] = true
			out = append(out, d)
			a = d.Parent
		}
	}
	slices.SortFunc(out, func(a, b machine.AERDevice) int { return strings.Compare(a.Address, b.Address) })
	return out, nil
}
