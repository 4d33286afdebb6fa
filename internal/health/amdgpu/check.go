// Package amdgpu looks at what the amdgpu driver has counted of errors in AMD accelerators: uncorrectable, deferred and
// corrected ones by unit, and the pages of memory that are out of use.
//
// judge.go is pure; check.go reads. docs/checks/amdgpu.md says what each fault means and what clears it.
package amdgpu

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/roundhouse-dev/roundhouse/internal/health"
	"github.com/roundhouse-dev/roundhouse/internal/health/kept"
	"github.com/roundhouse-dev/roundhouse/internal/health/pci"
	"github.com/roundhouse-dev/roundhouse/internal/health/track"
	"github.com/roundhouse-dev/roundhouse/internal/machine"
)

// Name is the check's name.
const Name = "amdgpu"

// Reasons of Unknown, beside those of package health.
const (
	// ReasonNoDriver means that no driver holds an AMD accelerator, so that nobody counts its errors.
	ReasonNoDriver = "NoDriver"
	// ReasonBusy means that the driver cannot say now, as while it resets the GPU.
	ReasonBusy = "Busy"
)

// DefaultCorrectablePerHour is how many corrected errors of one GPU in an hour are too many.
const DefaultCorrectablePerHour = 100

const (
	vendorAMD = 0x1002
	driver    = "amdgpu"
	// stateFile holds the counts of the last look, so that a restart of the agent misses nothing.
	stateFile = "amdgpu.json"
	// maxGPUs bounds what is kept.
	maxGPUs = 64
)

// Machine is what the check reads.
type Machine interface {
	machine.Booter
	machine.PCIReader
	machine.AMDGPUReader
	machine.Store
}

// Options configure the check.
type Options struct {
	Machine Machine
	// Match names accelerators beside the known ones; those that are not AMD's are passed over.
	Match []pci.Match
	// CorrectablePerHour is how many corrected errors are too many; DefaultCorrectablePerHour when zero.
	CorrectablePerHour uint64
	// Now is the clock; time.Now when nil.
	Now func() time.Time
}

// Check looks at the counts of the amdgpu driver. It is a health.Check and a health.Resetter.
type Check struct {
	o Options

	mu     sync.Mutex
	file   kept.File
	state  state
	loaded bool
	note   string
}

// state is what survives a restart of the agent; a new boot counts from zero.
type state struct {
	BootID string `json:"bootID"`
	GPUs   []gpu  `json:"gpus,omitempty"`
}

var (
	_ health.Check    = (*Check)(nil)
	_ health.Resetter = (*Check)(nil)
)

// New returns the check. It reads nothing yet.
func New(o Options) *Check {
	if o.CorrectablePerHour == 0 {
		o.CorrectablePerHour = DefaultCorrectablePerHour
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Check{o: o, file: kept.File{Name: stateFile}}
}

// Name is "amdgpu".
func (c *Check) Name() string { return Name }

// Look reads the counts once.
func (c *Check) Look(ctx context.Context) health.Result {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.begin(ctx); err != nil {
		return c.couldNotLook(err)
	}
	devices, err := c.o.Machine.PCIDevices(ctx, func(id machine.PCIID) bool {
		return id.Vendor == vendorAMD && pci.IsAccelerator(id, c.o.Match)
	})
	if err != nil {
		return c.couldNotLook(err)
	}
	var s sights
	ask := s.sort(devices)
	if len(ask) > 0 {
		seen, err := c.o.Machine.AMDGPUs(ctx, ask)
		if err != nil {
			return c.couldNotLook(err)
		}
		for i := range seen {
			c.take(&s, &seen[i])
		}
		for _, address := range ask {
			if !slices.ContainsFunc(seen, func(g machine.AMDGPU) bool { return g.Address == address }) {
				s.blind(health.ReasonCannotRead, address+": the driver has let go of it")
			}
		}
	}
	for i := range c.state.GPUs {
		c.state.GPUs[i].age(c.o.Now(), c.o.CorrectablePerHour)
	}
	c.keep(ctx)
	r := c.result(s)
	if len(ask) > 0 {
		r.Looked = health.Count(len(ask), "GPU")
	}
	return r
}

// sights are what a look could not see, and why.
type sights struct {
	reason string
	notes  []string
}

// blind notes what could not be seen; the first reason stands for all.
func (s *sights) blind(reason, why string) {
	if s.reason == "" {
		s.reason = reason
	}
	s.notes = append(s.notes, why)
}

// sort picks the devices to ask the driver about. One that another driver holds is passed over: in a virtual machine it is
// its guest who counts. One that sleeps or does not answer is left alone; that it is dead, the pci check says.
func (s *sights) sort(devices []machine.PCIDevice) (ask []string) {
	for i := range devices {
		d := &devices[i]
		switch {
		case d.Driver == "":
			s.blind(ReasonNoDriver, d.Address+": no driver holds it")
		case d.Driver != driver:
			s.notes = append(s.notes, d.Address+": held by "+d.Driver+", passed over")
		case d.Suspended:
			s.notes = append(s.notes, d.Address+": asleep")
		case d.Config == machine.ConfigAllOnes:
			s.blind(health.ReasonCannotRead, d.Address+": does not answer")
		default:
			ask = append(ask, d.Address)
		}
	}
	return ask
}

// take takes what the driver says of one GPU.
func (c *Check) take(s *sights, seen *machine.AMDGPU) {
	switch {
	case !seen.RAS:
		s.notes = append(s.notes, seen.Address+": its driver counts no errors of it")
		return
	case seen.Busy:
		s.blind(ReasonBusy, seen.Address+": the driver cannot say now, as while it resets the GPU")
	case seen.Unread != "":
		s.blind(health.ReasonCannotRead, seen.Address+": cannot read "+seen.Unread)
	}
	now := c.o.Now()
	k, known := c.gpu(seen.Address)
	if k == nil {
		return
	}
	var changed, urgent bool
	if !seen.Busy {
		changed, urgent = k.take(seen, known, now)
		urgent = urgent || !known
	}
	// What could not be read may be the pages, or the memory they are held against.
	if seen.Unread == "" {
		urgent = k.takePages(seen, now) || urgent
	}
	if seen.Pages.Cut {
		s.notes = append(s.notes, seen.Address+": more bad pages than were read")
	}
	c.file.Dirty = c.file.Dirty || changed || urgent
	c.file.Urgent = c.file.Urgent || urgent
}

// gpu is what is kept of an address; nil when there is no room for more. One that was only ever busy is not known yet.
func (c *Check) gpu(address string) (k *gpu, known bool) {
	for i := range c.state.GPUs {
		if k := &c.state.GPUs[i]; k.Address == address {
			return k, len(k.Blocks) > 0
		}
	}
	if len(c.state.GPUs) >= maxGPUs {
		return nil, false
	}
	c.state.GPUs = append(c.state.GPUs, gpu{Address: address})
	return &c.state.GPUs[len(c.state.GPUs)-1], false
}

// DeviceReset forgets the errors of the device, which a reset is the cure of. What is counted by the next look is from
// before it.
func (c *Check) DeviceReset(ctx context.Context, address string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.state.GPUs {
		if k := &c.state.GPUs[i]; k.Address == address {
			k.Broken, k.Waiting, k.Rebase = nil, track.Window{}, true
			c.file.Dirty, c.file.Urgent = true, true
		}
	}
	c.keep(ctx)
	return c.file.Err
}

// Close saves what is not saved yet.
func (c *Check) Close(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.file.Urgent = true
	c.keep(ctx)
	return c.file.Err
}

// begin takes up the saved state, once, and starts a new boot from nothing. A state that cannot be read is done without,
// and said to be: an uncorrectable error of before may be missing.
func (c *Check) begin(ctx context.Context) error {
	boot, err := c.o.Machine.BootID(ctx)
	if err != nil {
		return err
	}
	if !c.loaded {
		c.loaded = true
		var s state
		switch err := c.file.Load(ctx, c.o.Machine, &s); {
		case err == nil:
			c.state = s
		case !errors.Is(err, fs.ErrNotExist):
			c.note = fmt.Sprintf("what was counted before is not known: %v", err)
		}
	}
	if c.state.BootID != boot {
		c.state = state{BootID: boot}
	}
	return nil
}

func (c *Check) findings() []health.Finding {
	var out []health.Finding
	for i := range c.state.GPUs {
		out = append(out, c.state.GPUs[i].findings()...)
	}
	return out
}

func (c *Check) result(s sights) health.Result {
	r := health.Result{Findings: c.findings(), Reason: s.reason}
	r.Outcome = health.OutcomeOf(r.Findings)
	notes := s.notes
	if c.note != "" {
		notes = append(notes, c.note)
	}
	if c.file.Err != nil {
		notes = append(notes, "state is not kept: "+c.file.Err.Error())
	}
	r.Message = health.Bound(strings.Join(notes, "; "), health.MaxMessage)
	if r.Reason != "" && r.Outcome == health.Passing {
		r.Outcome = health.Unknown
	}
	return r
}

// couldNotLook keeps what stood.
func (c *Check) couldNotLook(err error) health.Result {
	return health.CouldNotLook(health.ReasonOf(err), err, c.findings())
}

// keep saves the state when something in it is new: at once what a fault comes of, and now and then what merely rises.
func (c *Check) keep(ctx context.Context) { c.file.Keep(ctx, c.o.Machine, c.state, c.o.Now()) }
