package pci

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/health"
	"github.com/roundhouse-dev/roundhouse/internal/health/track"
	"github.com/roundhouse-dev/roundhouse/internal/machine"
)

// Name is the check's name.
const Name = "pci"

// ReasonSettling means that something looks wrong and has not yet lasted long enough to be called a fault. It is Unknown,
// so that a device that has not come back from a reboot is not taken for a repaired one meanwhile.
const ReasonSettling = "Settling"

const (
	// stateFile holds the inventory and the open faults.
	stateFile = "pci.json"
	// driverTimeout bounds the reading of identities, which the driver may hold up, within a look.
	driverTimeout = time.Second
	// loadAttempts is how many looks an inventory that cannot be read is waited for, before the bus is looked at without
	// it: a detector must not die of a broken disk.
	loadAttempts = 3
	// saveTimeout bounds one save.
	saveTimeout = 2 * time.Second
	// vfio is the driver of a device that is passed through to a virtual machine.
	vfio = "vfio-pci"
)

// Machine is what the check reads.
type Machine interface {
	machine.Booter
	machine.PCIReader
	machine.NVIDIAReader
	machine.Store
}

// Options configure the check.
type Options struct {
	Machine Machine
	// Match names accelerators beside the known ones.
	Match []Match
	// Declared is what devices must have, in place of what would be expected of them.
	Declared Declared
	// UnderLoad says which devices work; without it no GPU's link speed is judged.
	UnderLoad UnderLoad
	// UUID is a second source of identities by address, such as the kernel log.
	UUID func(address string) string
	// Times default to DefaultTimes.
	Times Times
	// Now is the clock; time.Now when nil.
	Now func() time.Time
}

// Check looks at the accelerators on the bus and keeps their inventory. It is a health.Check.
type Check struct {
	o Options

	mu      sync.Mutex
	state   state
	loaded  bool
	loads   int
	loadErr error
	unsaved bool
	saveErr error
	// identified are the addresses whose identity was read in this boot.
	identified map[string]machine.NVIDIAGPU
	last       []Seat
	devices    []v1alpha1.Device
}

// state is what survives a restart of the agent. The inventory survives a reboot too; the faults do not.
type state struct {
	BootID  string          `json:"bootID"`
	Known   []Known         `json:"known,omitempty"`
	Tracked []track.Tracked `json:"tracked,omitempty"`
}

var _ health.Check = (*Check)(nil)

// New returns the check. It reads nothing yet.
func New(o Options) *Check {
	if o.Times == (Times{}) {
		o.Times = DefaultTimes()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Check{o: o}
}

// Name is "pci".
func (c *Check) Name() string { return Name }

// Devices is the inventory as last seen; nil before the first look.
func (c *Check) Devices() []v1alpha1.Device {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.devices
}

// Forget drops the device of that ID from the inventory, so that it is no longer missed: a human's word that it was taken
// out for good. It says whether there was one.
func (c *Check) Forget(ctx context.Context, id string) (bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.begin(ctx); err != nil {
		return false, err
	}
	n := len(c.state.Known)
	c.state.Known = slices.DeleteFunc(c.state.Known, func(k Known) bool { return k.ID() == id })
	c.state.Tracked = slices.DeleteFunc(c.state.Tracked, func(t track.Tracked) bool { return t.ID == id })
	if len(c.state.Known) == n {
		return false, nil
	}
	c.save(ctx)
	return true, c.saveErr
}

// Look looks at the bus once.
func (c *Check) Look(ctx context.Context) health.Result {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.begin(ctx); err != nil {
		return c.couldNotLook(err)
	}
	listed := 0
	devices, err := c.o.Machine.PCIDevices(ctx, func(id machine.PCIID) bool {
		listed++
		return IsAccelerator(id, c.o.Match)
	})
	if err == nil && listed == 0 && len(c.state.Known) > 1 {
		err = errors.New("the PCI bus lists nothing at all; is this the host's /sys?")
	}
	if err != nil {
		return c.couldNotLook(err)
	}
	seen, driverErr := c.identify(ctx, devices)
	seats, learned := Reconcile(c.state.Known, seen)
	verdict := Judge(seats, c.o.UnderLoad, c.o.Declared)
	next, changed := c.fold(seats, verdict)
	c.last = seats
	if learned {
		c.state.Known = c.state.Known[:0]
		for i := range seats {
			c.state.Known = append(c.state.Known, seats[i].Known)
		}
	}
	if c.loaded && (learned || changed || c.unsaved) {
		c.save(ctx)
	}
	r := c.result(seats, verdict, driverErr, next)
	r.Looked, c.devices = health.Count(listed, "device")+" on the bus, "+health.Count(len(devices), "accelerator"), r.Devices
	return r
}

// begin takes up the saved state, once, and starts a new boot with the old inventory and no faults.
func (c *Check) begin(ctx context.Context) error {
	boot, err := c.o.Machine.BootID(ctx)
	if err != nil {
		return err
	}
	if !c.loaded {
		c.loadErr = c.load(ctx)
		if c.loads++; c.loadErr != nil && c.loads < loadAttempts {
			return c.loadErr
		}
	}
	if c.state.BootID != boot {
		c.state.BootID, c.state.Tracked, c.identified, c.unsaved = boot, nil, nil, true
	}
	return nil
}

// load replaces what is known by what was saved. Until it could be read, nothing is saved over it.
func (c *Check) load(ctx context.Context) error {
	data, err := c.o.Machine.Load(ctx, stateFile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		c.loaded = true
		return nil
	case err != nil:
		return err
	}
	c.loaded = true
	var s state
	if err := json.Unmarshal(data, &s); err != nil {
		c.saveErr = fmt.Errorf("reading %s, inventory starts anew: %w", stateFile, err)
		return nil
	}
	s.Tracked = reopened(s.Tracked, c.o.Times)
	c.state = s
	return nil
}

// identify adds what the driver says of the devices. It is asked only while some device that it holds is not identified
// in this boot: a driver that hangs later is not touched again.
func (c *Check) identify(ctx context.Context, devices []machine.PCIDevice) ([]Seen, error) {
	var err error
	if slices.ContainsFunc(devices, c.unidentified) {
		err = c.askDriver(ctx)
	}
	return c.seen(devices), err
}

// seen is what is on the bus with what is known of each identity.
func (c *Check) seen(devices []machine.PCIDevice) []Seen {
	seen := make([]Seen, len(devices))
	for i, d := range devices {
		gpu := c.identified[d.Address]
		seen[i] = Seen{PCIDevice: d, UUID: gpu.UUID, Model: strings.TrimPrefix(gpu.Model, "NVIDIA "), Firmware: gpu.VideoBIOS}
		if seen[i].UUID == "" && c.o.UUID != nil {
			seen[i].UUID = c.o.UUID(d.Address)
		}
	}
	return seen
}

func (c *Check) unidentified(d machine.PCIDevice) bool {
	return d.Driver == "nvidia" && d.Config != machine.ConfigAllOnes && c.identified[d.Address].UUID == ""
}

func (c *Check) askDriver(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, driverTimeout)
	defer cancel()
	gpus, err := c.o.Machine.NVIDIAGPUs(ctx)
	if err != nil {
		return err
	}
	if c.identified == nil {
		c.identified = make(map[string]machine.NVIDIAGPU, len(gpus))
	}
	for _, g := range gpus {
		c.identified[g.Address] = g
	}
	return nil
}

// fold tracks what the verdict says.
func (c *Check) fold(seats []Seat, v Verdict) (next time.Duration, changed bool) {
	id := ids(seats)
	blind := map[string]bool{}
	for i, why := range v.Unseen {
		if why != "" {
			blind[id[i]] = true
		}
	}
	seen := make([]track.Observation, len(v.Conditions))
	for i, cond := range v.Conditions {
		if cond.Seat == wholeNode {
			seen[i] = cond.observe("", Seat{}, c.o.Times)
			continue
		}
		seen[i] = cond.observe(id[cond.Seat], seats[cond.Seat], c.o.Times)
	}
	unseen := func(id, _ string) bool { return blind[id] }
	c.state.Tracked, changed, next = track.Fold(c.state.Tracked, seen, unseen, c.o.Now())
	return next, changed
}

func (c *Check) result(seats []Seat, v Verdict, driverErr error, next time.Duration) health.Result {
	r := health.Result{Findings: track.Findings(Name, c.state.Tracked), Devices: inventory(seats, v), Again: next}
	r.Outcome = health.OutcomeOf(r.Findings)
	var notes []string
	unread := 0
	for i, why := range v.Unseen {
		if why != "" {
			notes = append(notes, seats[i].Address+": "+why)
		}
		if why != "" && !seats[i].Seen.Suspended {
			unread++
		}
	}
	pending := c.pending(r.Devices)
	switch {
	case pending != "":
		r.Reason = ReasonSettling
		notes = append(notes, pending)
	case unread > 0:
		r.Reason = health.ReasonCannotRead
	case c.loadErr != nil:
		r.Reason = health.ReasonOf(c.loadErr)
		notes = append(notes, "inventory: "+c.loadErr.Error())
	case driverErr != nil:
		r.Reason = health.ReasonOf(driverErr)
		notes = append(notes, "identities: "+driverErr.Error())
	}
	if c.saveErr != nil {
		notes = append(notes, "state is not kept: "+c.saveErr.Error())
	}
	r.Message = health.Bound(strings.Join(notes, "; "), health.MaxMessage)
	if r.Reason != "" && r.Outcome == health.Passing {
		r.Outcome = health.Unknown
	}
	return r
}

// pending marks the devices that something not yet believed was seen on, and says what that is.
func (c *Check) pending(devices []v1alpha1.Device) string {
	var notes []string
	for _, t := range c.state.Tracked {
		if t.Open {
			continue
		}
		notes = append(notes, t.Evidence)
		for i := range devices {
			if devices[i].ID == t.ID && devices[i].Health == v1alpha1.DeviceHealthy {
				devices[i].Health = v1alpha1.DeviceUnknown
			}
		}
	}
	return strings.Join(notes, "; ")
}

// inventory is the devices as NodeHealth lists them, missing ones included. Health is set where only this check can tell.
func inventory(seats []Seat, v Verdict) []v1alpha1.Device {
	out := make([]v1alpha1.Device, len(seats))
	id := ids(seats)
	for i := range seats {
		k := seats[i].Known
		d := v1alpha1.Device{
			ID: id[i], Vendor: vendorName(k.Vendor), Model: k.Model, PCI: k.Address, Slot: k.Slot, Firmware: k.Firmware,
			Health: v1alpha1.DeviceHealthy,
		}
		if s := seats[i].Seen; s == nil {
			d.Health = v1alpha1.DeviceMissing
		} else {
			d.BoundTo, d.Driver, d.Link = s.Driver, s.DriverVersion, link(&seats[i], v.Baselines[i])
			if v.Unseen[i] != "" {
				d.Health = v1alpha1.DeviceUnknown
			}
		}
		out[i] = d
	}
	return out
}

// link is nil for a device without one. The speed of a device that may be saving power is the highest it was seen at: it
// changes with every idle moment, and each change would be a write to the API and look like a fault.
func link(seat *Seat, b Baseline) *v1alpha1.Link {
	s := seat.Seen
	if s.Link.MaxWidth == 0 && !s.Link.Known() {
		return nil
	}
	speed := s.Link.MTs
	if !b.Judged && speed != 0 {
		speed = max(speed, seat.MTs)
	}
	l := &v1alpha1.Link{
		Width: int32(s.Link.Width), MaxWidth: int32(capWidth(s)),
		GTs: machine.FormatGTs(speed), MaxGTs: machine.FormatGTs(capSpeed(s)),
	}
	if b.From != "" {
		l.Baseline = &v1alpha1.LinkBaseline{Width: int32(b.Width), GTs: machine.FormatGTs(b.MTs), From: b.From}
	}
	return l
}

// couldNotLook keeps what stood, and the inventory, of which nothing is known now.
func (c *Check) couldNotLook(err error) health.Result {
	r := health.CouldNotLook(health.ReasonOf(err), err, track.Findings(Name, c.state.Tracked))
	if c.last != nil {
		v := Judge(c.last, nil, c.o.Declared)
		r.Devices = inventory(c.last, v)
		for i := range r.Devices {
			if r.Devices[i].Health == v1alpha1.DeviceHealthy {
				r.Devices[i].Health = v1alpha1.DeviceUnknown
			}
		}
	}
	return r
}

func (c *Check) save(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, saveTimeout)
	defer cancel()
	data, err := json.Marshal(c.state)
	if err == nil {
		err = c.o.Machine.Save(ctx, stateFile, data)
	}
	c.saveErr, c.unsaved = err, err != nil
}
