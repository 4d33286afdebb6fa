package fake

import (
	"cmp"
	"context"
	"maps"
	"slices"

	"github.com/roundhouse-dev/roundhouse/internal/machine"
)

// DoorInfiniBand is the way to the RDMA ports.
const DoorInfiniBand Door = "infiniband"

// portScript is the RDMA ports in one boot.
type portScript struct {
	boot int
	list []machine.InfiniBandPort
}

// SetPort puts an RDMA port into the machine, in place of one of the same device and number. A reboot sets its counters to
// zero.
func (m *Machine) SetPort(p machine.InfiniBandPort) {
	m.mu.Lock()
	list := m.portsLocked()
	p.Counters = maps.Clone(p.Counters)
	if i := slices.IndexFunc(list, func(q machine.InfiniBandPort) bool { return q.Name() == p.Name() }); i >= 0 {
		list[i] = p
	} else {
		m.ports.list = append(list, p)
	}
	m.mu.Unlock()
	m.changed()
}

// RemovePorts takes an RDMA device out of the list, as when its driver lets go of it.
func (m *Machine) RemovePorts(device string) {
	m.mu.Lock()
	m.ports.list = slices.DeleteFunc(m.portsLocked(), func(p machine.InfiniBandPort) bool { return p.Device == device })
	m.mu.Unlock()
	m.changed()
}

// portsLocked is the ports in the present boot.
func (m *Machine) portsLocked() []machine.InfiniBandPort {
	if m.ports.boot != m.boots {
		m.ports.boot = m.boots
		for _, p := range m.ports.list {
			for name := range p.Counters {
				p.Counters[name] = 0
			}
		}
	}
	return m.ports.list
}

// InfiniBandPorts lists the RDMA ports.
func (m *Machine) InfiniBandPorts(ctx context.Context) ([]machine.InfiniBandPort, error) {
	if err := m.enter(ctx, DoorInfiniBand); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	out := slices.Clone(m.portsLocked())
	for i := range out {
		out[i].Counters = maps.Clone(out[i].Counters)
	}
	slices.SortFunc(out, func(a, b machine.InfiniBandPort) int {
		return cmp.Or(cmp.Compare(a.Device, b.Device), cmp.Compare(a.Number, b.Number))
	})
	return out, nil
}
