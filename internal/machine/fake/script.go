package fake

import (
	"slices"
	"time"

	"github.com/roundhouse-dev/roundhouse/internal/machine"
)

// BreakKind is a way for a device to break that the bus can see.
type BreakKind uint8

// The ways.
const (
	// Whole is not broken.
	Whole BreakKind = iota
	// Gone is off the bus: the device is no longer listed.
	Gone
	// Dead is listed and does not answer: configuration space reads all ones and the link attributes are unknown.
	Dead
	// Narrow is a link of Break.Width lanes.
	Narrow
	// Slow is a link of Break.MTs megatransfers a second a lane.
	Slow
)

// Break says how a device is broken, and what heals it.
type Break struct {
	Kind  BreakKind
	Width uint8
	MTs   uint32
	// HealsAfterBoots is how many reboots make it whole: 1 for what a reboot cures, 0 for what none does.
	HealsAfterBoots int
	// HealedByReset says that a reset of the device makes it whole.
	HealedByReset bool
}

// Break breaks the device at the address, or mends it with a zero Break; false when there is none.
func (m *Machine) Break(address string, b Break) bool {
	return m.change(address, func(s *slot) { s.broken, s.heals = b, b.HealsAfterBoots })
}

// AddDevice puts a device on the bus, in place of one already at its address.
func (m *Machine) AddDevice(d Device) {
	if m.change(d.Address, func(s *slot) { *s = slot{Device: d} }) {
		return
	}
	m.mu.Lock()
	m.devices = append(m.devices, slot{Device: d})
	m.mu.Unlock()
	m.changed()
}

// RemoveDevice takes the device at the address out of the machine for good; false when there is none.
func (m *Machine) RemoveDevice(address string) bool {
	return m.change(address, func(s *slot) { s.gone = true })
}

// SetLink sets the state of a link without breaking it, as power-saving does.
func (m *Machine) SetLink(address string, l machine.Link) bool {
	return m.change(address, func(s *slot) { s.Link = l })
}

// SetDriver binds the device to another driver, such as vfio-pci.
func (m *Machine) SetDriver(address, driver string) bool {
	return m.change(address, func(s *slot) { s.Driver = driver })
}

// SetBusy sets whether the device is under load.
func (m *Machine) SetBusy(address string, busy bool) bool {
	return m.change(address, func(s *slot) { s.Busy = busy })
}

func (m *Machine) change(address string, f func(*slot)) bool {
	m.mu.Lock()
	s := m.findLocked(address)
	if s != nil {
		f(s)
	}
	m.mu.Unlock()
	if s != nil {
		m.changed()
	}
	return s != nil
}

func (m *Machine) findLocked(address string) *slot {
	i := slices.IndexFunc(m.devices, func(s slot) bool { return s.Address == address && !s.gone })
	if i < 0 {
		return nil
	}
	return &m.devices[i]
}

// seen is the device as the bus shows it.
func (s *slot) seen() machine.PCIDevice {
	d := s.PCIDevice
	if d.Config == machine.ConfigUnread && !d.Suspended {
		d.Config = machine.ConfigAnswers
	}
	switch s.broken.Kind {
	case Dead:
		d.Config, d.Link = machine.ConfigAllOnes, machine.Link{}
	case Narrow:
		d.Link.Width = s.broken.Width
	case Slow:
		d.Link.MTs = s.broken.MTs
	case Whole, Gone:
	}
	return d
}

// Fail makes every call through the door fail, until it is called with nil.
func (m *Machine) Fail(door Door, err error) {
	m.mu.Lock()
	if m.errs == nil {
		m.errs = make(map[Door]error)
	}
	m.errs[door] = err
	if err == nil {
		delete(m.errs, door)
	}
	m.mu.Unlock()
	m.changed()
}

// Hang makes every call through the door wait for its deadline, until it is called with false. Calls that hang already
// are not released.
func (m *Machine) Hang(door Door, hung bool) {
	m.mu.Lock()
	if m.hung == nil {
		m.hung = make(map[Door]bool)
	}
	m.hung[door] = hung
	m.mu.Unlock()
	m.changed()
}

// GoDown makes the machine unreachable for that long, after which it has booted anew: a crash, or a reboot that nobody of
// ours asked for.
func (m *Machine) GoDown(d time.Duration) {
	m.mu.Lock()
	m.advanceLocked()
	m.goDownLocked(d)
	m.mu.Unlock()
	m.changed()
}

// DownUntil is when the machine is up again; zero when it is up.
func (m *Machine) DownUntil() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.advanceLocked()
	return m.downUntil
}

// Reboots counts the reboots that were asked for and the crashes.
func (m *Machine) Reboots() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.reboots
}

func (m *Machine) goDownLocked(d time.Duration) {
	m.reboots++
	m.downUntil = m.o.Now().Add(d)
	m.advanceLocked()
}

// advanceLocked boots the machine when its down time is over.
func (m *Machine) advanceLocked() {
	if m.downUntil.IsZero() || m.o.Now().Before(m.downUntil) {
		return
	}
	m.bootTime, m.downUntil = m.downUntil, time.Time{}
	m.boots++
	for i := range m.devices {
		s := &m.devices[i]
		if s.heals > 0 {
			if s.heals--; s.heals == 0 {
				s.broken = Break{}
			}
		}
		s.missed = s.broken.Kind == Gone
	}
	m.log, m.firstSeq = nil, 0
	m.logBootLocked()
	m.wakeLocked()
}

// logBootLocked writes what the kernel logs at a start.
func (m *Machine) logBootLocked() {
	for _, line := range m.o.BootLines {
		m.appendLocked(machine.KernelPriority, line)
	}
	for i := range m.devices {
		s := &m.devices[i]
		if s.Driver == "nvidia" && s.UUID != "" && !s.gone && s.broken.Kind != Gone && s.broken.Kind != Dead {
			m.appendLocked(machine.KernelPriority, "NVRM: GPU at PCI:"+s.Address[:len(s.Address)-2]+": "+s.UUID)
		}
	}
}

func (m *Machine) changed() {
	if m.o.Changed != nil {
		m.o.Changed()
	}
}
