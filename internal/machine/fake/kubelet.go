package fake

import (
	"context"

	"github.com/roundhouse-dev/roundhouse/internal/podresources"
)

// DoorKubelet is the way to the kubelet's word of who holds what.
const DoorKubelet Door = "kubelet"

// SetHoldings sets who tells what containers hold, which the kubelet does; nil for nobody who holds anything. It is called
// without the lock.
func (m *Machine) SetHoldings(list func() []podresources.Holding) {
	m.mu.Lock()
	m.holdings = list
	m.mu.Unlock()
}

// Holdings is what containers hold.
func (m *Machine) Holdings(ctx context.Context) ([]podresources.Holding, error) {
	if err := m.enter(ctx, DoorKubelet); err != nil {
		return nil, err
	}
	list := m.holdings
	m.mu.Unlock()
	if list == nil {
		return nil, nil
	}
	return list(), nil
}
