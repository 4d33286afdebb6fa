package fake

import (
	"context"
	"slices"

	"github.com/roundhouse-dev/roundhouse/internal/machine"
)

// DoorAMDGPU is the way to the amdgpu driver.
const DoorAMDGPU Door = "amdgpu"

// amdScript is what the amdgpu driver says in one boot.
type amdScript struct {
	boot int
	gpus map[string]machine.AMDGPU
}

// SetAMDGPU sets what the amdgpu driver says of the device at the GPU's address, while it is bound to that driver. A
// reboot sets the counts to zero; bad pages stay.
func (m *Machine) SetAMDGPU(gpu machine.AMDGPU) {
	m.mu.Lock()
	gpu.Blocks = slices.Clone(gpu.Blocks)
	m.amdLocked()[gpu.Address] = gpu
	m.mu.Unlock()
	m.changed()
}

// amdLocked is what the driver says in the present boot.
func (m *Machine) amdLocked() map[string]machine.AMDGPU {
	if m.amd.gpus == nil {
		m.amd.gpus = make(map[string]machine.AMDGPU)
	}
	if m.amd.boot != m.boots {
		m.amd.boot = m.boots
		for _, gpu := range m.amd.gpus {
			for i := range gpu.Blocks {
				gpu.Blocks[i] = machine.RASCount{Block: gpu.Blocks[i].Block}
			}
		}
	}
	return m.amd.gpus
}

// AMDGPUs lists what the driver says of the devices at the addresses that it holds.
func (m *Machine) AMDGPUs(ctx context.Context, addresses []string) ([]machine.AMDGPU, error) {
	if err := m.enter(ctx, DoorAMDGPU); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	gpus := m.amdLocked()
	var out []machine.AMDGPU
	for _, address := range addresses {
		gpu, ok := gpus[address]
		if s := m.findLocked(address); !ok || s == nil || s.Driver != "amdgpu" {
			continue
		}
		gpu.Blocks = slices.Clone(gpu.Blocks)
		out = append(out, gpu)
	}
	return out, nil
}
