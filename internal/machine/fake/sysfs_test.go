package fake

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/roundhouse-dev/roundhouse/internal/machine"
)

// What the kernel counts starts at zero with each boot; what is written into a device does not.
func TestCountersEndWithTheBoot(t *testing.T) {
	m, c := newMachine(t)
	const gpu, port = "0000:18:00.0", "0000:17:00.0"
	if !m.SetDriver(gpu, "amdgpu") {
		t.Fatal("no such device")
	}
	counted := machine.AERCount{Total: 3, Kinds: []machine.AERKind{{Name: "BadTLP", N: 3}}}
	m.SetAER(machine.AERDevice{Address: gpu, Parent: port, Reports: true, Correctable: counted})
	m.SetAER(machine.AERDevice{Address: port, Reports: true, Root: &machine.AERRoot{Correctable: 3}})
	m.SetPort(machine.InfiniBandPort{Device: "mlx5_0", Number: 1, Counters: map[string]uint64{"link_downed": 2}})
	m.SetAMDGPU(machine.AMDGPU{
		Address: gpu, RAS: true, Blocks: []machine.RASCount{{Block: "umc", Correctable: 4}}, Pages: machine.BadPages{Reserved: 1},
	})

	type facts struct {
		AER   []machine.AERDevice
		Ports []machine.InfiniBandPort
		AMD   []machine.AMDGPU
	}
	read := func() facts {
		t.Helper()
		aer, err1 := m.AER(t.Context(), []string{gpu, "0000:28:00.0"})
		ports, err2 := m.InfiniBandPorts(t.Context())
		amd, err3 := m.AMDGPUs(t.Context(), []string{gpu, "0000:28:00.0"})
		if err := errors.Join(err1, err2, err3); err != nil {
			t.Fatal(err)
		}
		return facts{aer, ports, amd}
	}
	if f := read(); f.AER[1].Correctable.Total != 3 || f.Ports[0].Counters["link_downed"] != 2 || f.AMD[0].Blocks[0].Correctable != 4 {
		t.Errorf("%+v", f)
	}
	m.GoDown(time.Minute)
	c.t = c.t.Add(time.Hour)
	want := facts{
		AER: []machine.AERDevice{
			{Address: port, Reports: true, Root: &machine.AERRoot{}}, {Address: gpu, Parent: port, Reports: true},
		},
		Ports: []machine.InfiniBandPort{{Device: "mlx5_0", Number: 1, Counters: map[string]uint64{"link_downed": 0}}},
		AMD:   []machine.AMDGPU{{Address: gpu, RAS: true, Blocks: []machine.RASCount{{Block: "umc"}}, Pages: machine.BadPages{Reserved: 1}}},
	}
	if diff := cmp.Diff(want, read()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	m.RemovePorts("mlx5_0")
	m.SetDriver(gpu, "vfio-pci")
	if f := read(); len(f.Ports) != 0 || len(f.AMD) != 0 {
		t.Errorf("%+v", f)
	}
}
