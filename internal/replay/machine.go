package replay

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/roundhouse-dev/roundhouse/internal/machine"
)

// ErrNotRecorded means that the recording has not, or not yet, what a check asks for: it could not look.
var ErrNotRecorded = errors.New("the recording has none of it")

// errNoPCI and errNoNVML are made once, since they are given at every turn of a recording that has lines alone.
var (
	errNoPCI  = fmt.Errorf("what is on the bus: %w", ErrNotRecorded)
	errNoNVML = fmt.Errorf("what NVML answers: %w", ErrNotRecorded)
)

// Machine is the machine that was recorded, as it was at the moment to which the recording was played. It is what checks
// read, and is for one goroutine.
type Machine struct {
	boots    int
	bootID   string
	bootTime time.Time
	log      ring
	// nextSeq is the number the next line should have; 0 before the first of a boot.
	nextSeq uint64

	devices []machine.PCIDevice
	hasPCI  bool
	report  *machine.NVMLReport
	files   map[string][]byte
}

var (
	_ machine.Booter       = (*Machine)(nil)
	_ machine.PCIReader    = (*Machine)(nil)
	_ machine.NVIDIAReader = (*Machine)(nil)
	_ machine.NVMLReader   = (*Machine)(nil)
	_ machine.LogOpener    = (*Machine)(nil)
	_ machine.Store        = (*Machine)(nil)
)

// newMachine is a machine that has not started.
func newMachine() *Machine { return &Machine{files: make(map[string][]byte)} }

// boot starts the machine. What is on its bus, and what its driver says, stays until the recording says otherwise.
func (m *Machine) boot(id string, at time.Time) {
	m.boots++
	if id == "" {
		id = fmt.Sprintf("00000000-0000-4000-8000-%012d", m.boots)
	}
	m.bootID, m.bootTime, m.nextSeq = id, at, 0
	m.log.reset()
}

// write adds a line to the kernel log and returns its length.
func (m *Machine) write(e *Event) int {
	seq := e.Seq
	if seq == 0 {
		seq = max(m.nextSeq, 1)
	}
	gap := m.nextSeq != 0 && seq > m.nextSeq
	m.nextSeq = seq + 1
	usec := max(e.At.Sub(m.bootTime).Microseconds(), 0)
	return m.log.append(e.Priority, seq, uint64(usec), e.Fragment, e.Text, gap)
}

// BootID is the recorded boot's, or one made up for it.
func (m *Machine) BootID(context.Context) (string, error) { return m.bootID, nil }

// BootTime is when the kernel started, or when the recording did.
func (m *Machine) BootTime(context.Context) (time.Time, error) { return m.bootTime, nil }

// PCIDevices are those of the last recorded look at the bus.
func (m *Machine) PCIDevices(_ context.Context, want func(machine.PCIID) bool) ([]machine.PCIDevice, error) {
	if !m.hasPCI {
		return nil, errNoPCI
	}
	var out []machine.PCIDevice
	for i := range m.devices {
		if want == nil || want(m.devices[i].PCIID) {
			out = append(out, m.devices[i])
		}
	}
	return out, nil
}

// NVIDIAGPUs are those that the last recorded NVML report names.
func (m *Machine) NVIDIAGPUs(context.Context) ([]machine.NVIDIAGPU, error) {
	if m.report == nil {
		return nil, nil
	}
	var out []machine.NVIDIAGPU
	for i := range m.report.GPUs {
		if g := &m.report.GPUs[i]; g.Address != "" {
			out = append(out, machine.NVIDIAGPU{Address: g.Address, Model: g.Model, UUID: g.UUID, VideoBIOS: g.VBIOS})
		}
	}
	return out, nil
}

// NVML is the last recorded report.
func (m *Machine) NVML(context.Context) (machine.NVMLReport, error) {
	if m.report == nil {
		return machine.NVMLReport{}, errNoNVML
	}
	return *m.report, nil
}

// OpenLog opens the recorded log at the oldest record that is kept.
func (m *Machine) OpenLog(context.Context) (machine.LogReader, error) {
	return &logReader{m: m, boot: m.boots, next: m.log.first, told: m.log.first + 1}, nil
}

// Load returns what was last saved.
func (m *Machine) Load(_ context.Context, name string) ([]byte, error) {
	data, ok := m.files[name]
	if !ok {
		return nil, fmt.Errorf("loading %s: %w", name, fs.ErrNotExist)
	}
	return data, nil
}

// Save keeps data in memory, also when the context has ended: checks save in the pause that a real agent has.
func (m *Machine) Save(_ context.Context, name string, data []byte) error {
	m.files[name] = append([]byte(nil), data...)
	return nil
}
