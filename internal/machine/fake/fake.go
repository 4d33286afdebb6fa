// Package fake is a machine in memory, scripted by tests and by the sandbox, which runs tens of thousands at once. A
// machine owns no goroutine and no timer: a reboot takes effect when the clock has passed its end and somebody looks, and
// Options.Changed tells the owner when looking is worth while.
//
// Every call takes the machine's one lock and none calls out with it held, so scripts may run beside the agent under test.
package fake

import (
	"context"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/roundhouse-dev/roundhouse/internal/machine"
	"github.com/roundhouse-dev/roundhouse/internal/podresources"
)

// maxLog is how many records the kernel log keeps; older ones are overwritten, as the kernel does.
const maxLog = 256

// Options describe a machine.
type Options struct {
	// Hostname is its name.
	Hostname string
	// Devices are what is on the bus from the start. They are copied; what their strings share is not.
	Devices []Device
	// BootID is the first boot's ID; later ones are derived from it. It has to differ between machines.
	BootID string
	// Now is the clock; time.Now when nil.
	Now func() time.Time
	// BootTime is when the first boot began; Now when zero.
	BootTime time.Time
	// RebootTakes is how long a reboot takes.
	RebootTakes time.Duration
	// Changed, when set, is called after anything changed that a look could see, outside the lock: a kernel line, a
	// device, a boot. It must not block.
	Changed func()
	// BootLines are what the kernel logs at each start; the lines mapping addresses to UUIDs come by themselves.
	BootLines []string
}

// Device is one accelerator, with what its driver knows of it.
type Device struct {
	machine.PCIDevice
	Model, UUID, VideoBIOS string
	// Busy says that it is under load.
	Busy bool
}

// Door names one way into the machine that can be made to fail or to hang.
type Door string

// The doors.
const (
	DoorPCI    Door = "pci"
	DoorNVIDIA Door = "nvidia"
	DoorNVML   Door = "nvml"
	DoorLog    Door = "log"
	DoorStore  Door = "store"
	DoorBoot   Door = "boot"
	DoorReboot Door = "reboot"
)

// Machine is a machine in memory.
type Machine struct {
	mu        sync.Mutex
	o         Options
	boots     int
	bootTime  time.Time
	downUntil time.Time
	reboots   int
	devices   []slot
	log       []record
	firstSeq  uint64
	nvml      func(*machine.NVMLReport)
	files     map[string][]byte
	errs      map[Door]error
	hung      map[Door]bool
	wake      chan struct{}
	aer       aerScript
	ports     portScript
	amd       amdScript
	holdings  func() []podresources.Holding
	resets    resetScript
}

// slot is a place on the bus: the device as it was made, and what is wrong with it.
type slot struct {
	Device
	gone   bool
	missed bool // it was off the bus at the present boot
	broken Break
	heals  int // boots left until it is whole again; 0 is never
}

type record struct {
	prio uint16
	usec uint64
	text string
}

var _ machine.Machine = (*Machine)(nil)

// New returns a machine that is up.
func New(o Options) *Machine {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.BootTime.IsZero() {
		o.BootTime = o.Now()
	}
	if o.BootID == "" {
		o.BootID = "00000000-0000-4000-8000-000000000000"
	}
	m := &Machine{o: o, bootTime: o.BootTime}
	m.devices = make([]slot, len(o.Devices))
	for i, d := range o.Devices {
		m.devices[i].Device = d
	}
	m.o.Devices = nil
	m.logBootLocked()
	return m
}

// enter is the start of every call from the agent's side: it ends a reboot that is over, and fails or hangs as scripted.
// It returns with the lock held when it returns nil.
func (m *Machine) enter(ctx context.Context, door Door) error {
	m.mu.Lock()
	m.advanceLocked()
	down, err, hung := !m.downUntil.IsZero(), m.errs[door], m.hung[door]
	switch {
	case down:
		err = machine.ErrDown
	case hung:
		m.mu.Unlock()
		<-ctx.Done()
		return fmt.Errorf("%s: %w: %w", door, machine.ErrStuck, context.Cause(ctx))
	}
	if err != nil {
		m.mu.Unlock()
		return fmt.Errorf("%s: %w", door, err)
	}
	return nil
}

// BootID is the present boot's ID.
func (m *Machine) BootID(ctx context.Context) (string, error) {
	if err := m.enter(ctx, DoorBoot); err != nil {
		return "", err
	}
	defer m.mu.Unlock()
	return m.bootIDLocked(), nil
}

// bootIDLocked replaces the end of the first ID by the number of the boot.
func (m *Machine) bootIDLocked() string {
	if m.boots == 0 {
		return m.o.BootID
	}
	tail := fmt.Sprintf("%04x", m.boots&0xffff)
	if len(m.o.BootID) < len(tail) {
		return m.o.BootID + "-" + tail
	}
	return m.o.BootID[:len(m.o.BootID)-len(tail)] + tail
}

// BootTime is when the present boot began.
func (m *Machine) BootTime(ctx context.Context) (time.Time, error) {
	if err := m.enter(ctx, DoorBoot); err != nil {
		return time.Time{}, err
	}
	defer m.mu.Unlock()
	return m.bootTime, nil
}

// Hostname is the machine's name.
func (m *Machine) Hostname(ctx context.Context) (string, error) {
	if err := m.enter(ctx, DoorBoot); err != nil {
		return "", err
	}
	defer m.mu.Unlock()
	return m.o.Hostname, nil
}

// PCIDevices lists the devices on the bus as they look now.
func (m *Machine) PCIDevices(ctx context.Context, want func(machine.PCIID) bool) ([]machine.PCIDevice, error) {
	if err := m.enter(ctx, DoorPCI); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	out := make([]machine.PCIDevice, 0, len(m.devices))
	for i := range m.devices {
		s := &m.devices[i]
		if s.gone || s.broken.Kind == Gone || want != nil && !want(s.PCIID) {
			continue
		}
		out = append(out, s.seen())
	}
	slices.SortFunc(out, func(a, b machine.PCIDevice) int { return strings.Compare(a.Address, b.Address) })
	return out, nil
}

// NVIDIAGPUs lists the devices bound to the nvidia driver. A dead one is still listed, as the driver does.
func (m *Machine) NVIDIAGPUs(ctx context.Context) ([]machine.NVIDIAGPU, error) {
	if err := m.enter(ctx, DoorNVIDIA); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	out := make([]machine.NVIDIAGPU, 0, len(m.devices))
	for i := range m.devices {
		s := &m.devices[i]
		if s.gone || s.broken.Kind == Gone || s.Driver != "nvidia" {
			continue
		}
		out = append(out, machine.NVIDIAGPU{Address: s.Address, Model: s.Model, UUID: s.UUID, VideoBIOS: s.VideoBIOS})
	}
	return out, nil
}

// UnderLoad says whether the device works, which a fake always knows.
func (m *Machine) UnderLoad(address string) (busy, known bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := m.findLocked(address); s != nil {
		return s.Busy, true
	}
	return false, false
}

// Load returns what was last saved under the name.
func (m *Machine) Load(ctx context.Context, name string) ([]byte, error) {
	if err := m.enter(ctx, DoorStore); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	data, ok := m.files[name]
	if !ok {
		return nil, fmt.Errorf("loading state %s: %w", name, fs.ErrNotExist)
	}
	return slices.Clone(data), nil
}

// Save replaces what is stored under the name; it survives reboots.
func (m *Machine) Save(ctx context.Context, name string, data []byte) error {
	if err := m.enter(ctx, DoorStore); err != nil {
		return err
	}
	defer m.mu.Unlock()
	if m.files == nil {
		m.files = make(map[string][]byte, 2)
	}
	m.files[name] = slices.Clone(data)
	return nil
}

// Reboot starts a reboot and returns when the context ends or, on a machine whose reboots take no time, at once. A caller
// that outlives the reboot is a script's, since on a real machine none would.
func (m *Machine) Reboot(ctx context.Context) error {
	if err := m.enter(ctx, DoorReboot); err != nil {
		return err
	}
	m.goDownLocked(m.o.RebootTakes)
	m.mu.Unlock()
	m.changed()
	return nil
}
