package fake

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/roundhouse-dev/roundhouse/internal/machine"
)

// DoorReset is the way to the reset of devices, and DoorHolders to who holds them.
const (
	DoorReset   Door = "reset"
	DoorHolders Door = "holders"
)

var _ machine.DeviceResetter = (*Machine)(nil)

// resetScript is who holds devices, and what resets have been done.
type resetScript struct {
	holders []machine.Holder
	ways    []machine.ResetWay // nil for all
	done    []Reset
}

// Reset is one reset that was done.
type Reset struct {
	// Address is the device's; several that one command reset are joined by commas.
	Address string
	Way     machine.ResetWay
}

// SetHolders sets who holds devices open.
func (m *Machine) SetHolders(holders ...machine.Holder) {
	m.mu.Lock()
	m.resets.holders = slices.Clone(holders)
	m.mu.Unlock()
}

// SetResetWays sets the ways that there are to reset a device; all without it.
func (m *Machine) SetResetWays(ways ...machine.ResetWay) {
	m.mu.Lock()
	m.resets.ways = append([]machine.ResetWay{}, ways...)
	m.mu.Unlock()
}

// Resets are the resets that were done, in order.
func (m *Machine) Resets() []Reset {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.resets.done)
}

// Quiesce has nothing to wait for: a fake starts no helper.
func (m *Machine) Quiesce(ctx context.Context) (func(), error) {
	if err := m.enter(ctx, DoorReset); err != nil {
		return nil, err
	}
	m.mu.Unlock()
	return func() {}, nil
}

// Holders lists who holds the devices, as SetHolders said.
func (m *Machine) Holders(ctx context.Context, addresses []string) ([]machine.Holder, error) {
	if err := m.enter(ctx, DoorHolders); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	var out []machine.Holder
	for _, h := range m.resets.holders {
		if slices.Contains(addresses, h.Address) {
			out = append(out, h)
		}
	}
	return out, nil
}

// CanReset says whether SetResetWays left the way, and whether there is such a device.
func (m *Machine) CanReset(ctx context.Context, address string, way machine.ResetWay) error {
	if err := m.enter(ctx, DoorReset); err != nil {
		return err
	}
	defer m.mu.Unlock()
	return m.canResetLocked(address, way)
}

func (m *Machine) canResetLocked(address string, way machine.ResetWay) error {
	s := m.findLocked(address)
	if s == nil || s.broken.Kind == Gone || m.resets.ways != nil && !slices.Contains(m.resets.ways, way) {
		return fmt.Errorf("%s by %s: %w", address, way, machine.ErrNoSuchWay)
	}
	return nil
}

// ResetDevices resets the devices. What a reset does not heal stays.
func (m *Machine) ResetDevices(ctx context.Context, addresses []string, way machine.ResetWay) (string, error) {
	if err := m.enter(ctx, DoorReset); err != nil {
		return "", err
	}
	err := m.resetLocked(addresses, way)
	m.mu.Unlock()
	if err != nil {
		return "", err
	}
	m.changed()
	return "done", nil
}

func (m *Machine) resetLocked(addresses []string, way machine.ResetWay) error {
	for _, address := range addresses {
		if err := m.canResetLocked(address, way); err != nil {
			return err
		}
	}
	m.resets.done = append(m.resets.done, Reset{Address: strings.Join(addresses, ","), Way: way})
	for _, address := range addresses {
		if s := m.findLocked(address); s.broken.HealedByReset {
			s.broken, s.heals = Break{}, 0
		}
	}
	return nil
}
