// Package aer looks at what PCI Express Advanced Error Reporting has counted at each accelerator and at the ports above
// it. The counters are the kernel's, so that the check needs no vendor's driver and sees devices that are passed through
// to virtual machines as well.
//
// judge.go is pure; check.go reads. docs/checks/aer.md says what each fault means and what clears it.
package aer

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
const Name = "aer"

// DefaultCorrectablePerHour is how many correctable errors of a link in an hour are too many: the eight replays a minute
// that NVIDIA's driver and DCGM allow (DCGM_LIMIT_MAX_PCIREPLAY_RATE).
const DefaultCorrectablePerHour = 480

const (
	// stateFile holds the counts of the last look, so that a restart of the agent misses nothing.
	stateFile = "aer.json"
	// maxStations bounds what is kept, and with it the file: the accelerators of a node and the bridges above them, of which
	// a board of eight GPUs has some thirty.
	maxStations = 192
	vfio        = "vfio-pci"
)

// Machine is what the check reads.
type Machine interface {
	machine.Booter
	machine.PCIReader
	machine.AERReader
	machine.Store
}

// Options configure the check.
type Options struct {
	Machine Machine
	// Match names accelerators beside the known ones.
	Match []pci.Match
	// CorrectablePerHour is how many correctable errors of one link are too many; DefaultCorrectablePerHour when zero.
	CorrectablePerHour uint64
	// Now is the clock; time.Now when nil.
	Now func() time.Time
}

// Check looks at the error counters of the bus. It is a health.Check and a health.Resetter.
type Check struct {
	o Options

	mu     sync.Mutex
	file   kept.File
	state  state
	last   circumstances
	loaded bool
	note   string
}

// state is what survives a restart of the agent; a new boot counts from zero.
type state struct {
	BootID   string    `json:"bootID"`
	Stations []station `json:"stations,omitempty"`
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

// Name is "aer".
func (c *Check) Name() string { return Name }

// Look reads the counters once.
func (c *Check) Look(ctx context.Context) health.Result {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.begin(ctx); err != nil {
		return c.couldNotLook(err)
	}
	devices, err := c.o.Machine.PCIDevices(ctx, func(id machine.PCIID) bool { return pci.IsAccelerator(id, c.o.Match) })
	if err != nil {
		return c.couldNotLook(err)
	}
	now := circumstances{dead: map[string]bool{}, guests: map[string]bool{}}
	addresses := make([]string, len(devices))
	for i, d := range devices {
		addresses[i] = d.Address
		now.dead[d.Address] = d.Config == machine.ConfigAllOnes && !d.Suspended
		now.guests[d.Address] = d.Driver == vfio
	}
	var counted []machine.AERDevice
	if len(addresses) > 0 {
		if counted, err = c.o.Machine.AER(ctx, addresses); err != nil {
			return c.couldNotLook(err)
		}
	}
	c.last = now
	c.fold(addresses, counted)
	c.keep(ctx)
	r := c.result(addresses, counted)
	r.Looked = health.Count(len(addresses), "accelerator") + ", counters of " + health.Count(len(counted), "device")
	return r
}

// DeviceReset forgets the errors of the device, which a reset is the cure of and may itself cause, at the device and at
// the ports that lead to it alone. What is counted by the next look counts as the reset's.
func (c *Check) DeviceReset(ctx context.Context, address string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	roots := make(map[string]bool)
	for i := range c.state.Stations {
		s := &c.state.Stations[i]
		if s.Owner == address {
			s.Rebase, c.file.Dirty, c.file.Urgent = true, true, true
			s.Lost, s.Refused, s.Broken, s.Sent = track.Window{}, track.Window{}, track.Window{}, track.Window{}
			roots[s.Root] = true
		}
	}
	for i := range c.state.Stations {
		if s := &c.state.Stations[i]; roots[s.Address] {
			s.Rebase, s.Heard = true, track.Window{}
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

// begin takes up the saved state, once, and starts a new boot from nothing. A state that cannot be read is done without:
// it holds the past alone, and the counters can be read from now on.
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

// fold takes the counts of one look.
func (c *Check) fold(accelerators []string, counted []machine.AERDevice) {
	now := c.o.Now()
	for i := range c.state.Stations {
		c.state.Stations[i].age(now)
	}
	above := make(map[string]string, len(counted))
	for i := range counted {
		above[counted[i].Address] = counted[i].Parent
	}
	owners, roots := places(accelerators, above)
	for i := range counted {
		d := &counted[i]
		if !d.Reports || d.Unread != "" {
			continue
		}
		s, known := c.station(d.Address)
		if s == nil {
			c.note = fmt.Sprintf("more than %d devices and bridges, the rest is not looked at", maxStations)
			continue
		}
		s.Owner, s.Root = owners[d.Address], roots[d.Address]
		c.count(s, d, known && !s.Rebase, now)
		s.Rebase = false
	}
	for i := range c.state.Stations {
		c.state.Stations[i].listen(c.o.CorrectablePerHour)
	}
	c.state.Stations = slices.DeleteFunc(c.state.Stations, func(s station) bool {
		_, there := above[s.Address]
		return !there && s.quiet()
	})
}

// station is what is kept of an address; nil when there is no room for more.
func (c *Check) station(address string) (s *station, known bool) {
	for i := range c.state.Stations {
		if c.state.Stations[i].Address == address {
			return &c.state.Stations[i], true
		}
	}
	if len(c.state.Stations) >= maxStations {
		return nil, false
	}
	c.state.Stations = append(c.state.Stations, station{Address: address})
	c.file.Dirty, c.file.Urgent = true, true
	return &c.state.Stations[len(c.state.Stations)-1], false
}

// places says of each address which single accelerator is at or below it, and which root port is above it.
func places(accelerators []string, above map[string]string) (owners, roots map[string]string) {
	owners, roots = make(map[string]string, len(above)), make(map[string]string, len(above))
	shared := make(map[string]bool)
	for _, accelerator := range accelerators {
		var path []string
		for a := accelerator; a != "" && len(path) < 32; a = above[a] {
			path = append(path, a)
			if _, taken := owners[a]; taken {
				shared[a] = true
			}
			owners[a] = accelerator
		}
		for _, a := range path {
			roots[a] = path[len(path)-1]
		}
	}
	for a := range shared {
		owners[a] = ""
	}
	return owners, roots
}

// count takes the counts of one station. The first counts of a boot are where it starts: when they came about is not
// known, and a bus that is being set up refuses requests and retries.
func (c *Check) count(s *station, d *machine.AERDevice, compare bool, now time.Time) {
	var told uint64
	if d.Root != nil {
		told = d.Root.Nonfatal + d.Root.Fatal
	}
	if compare {
		if kinds, n := grown(s.Correctable, d.Correctable, advisory); n > 0 {
			s.Link.Add(now, n, words(kinds))
			c.file.Dirty = true
		}
		c.uncorrected(s, d, now)
		if n := risen(s.Told, told); n > 0 {
			s.Heard.Add(now, n, "")
			c.file.Dirty, c.file.Urgent = true, true
		}
	}
	s.Correctable, s.Nonfatal, s.Fatal, s.Told = d.Correctable, d.Nonfatal, d.Fatal, told
}

// uncorrected counts the nonfatal and fatal errors of one station.
func (c *Check) uncorrected(s *station, d *machine.AERDevice, now time.Time) {
	nonfatal, fatal := risen(s.Nonfatal.Total, d.Nonfatal.Total), risen(s.Fatal.Total, d.Fatal.Total)
	if nonfatal+fatal == 0 {
		return
	}
	c.file.Dirty, c.file.Urgent = true, true
	s.Sent.Add(now, nonfatal+fatal, "")
	all, _ := grown(s.Nonfatal, d.Nonfatal, nil)
	lost, n := grown(s.Nonfatal, d.Nonfatal, asked)
	switch {
	case nonfatal == 0:
	case n > 0 || len(all) == 0:
		s.Lost.Add(now, nonfatal, words(lost))
	default:
		s.Refused.Add(now, nonfatal, words(all))
	}
	if fatal > 0 {
		kinds, _ := grown(s.Fatal, d.Fatal, nil)
		s.Broken.Add(now, fatal, words(kinds))
	}
}

// age lets the windows of a station move on.
func (s *station) age(now time.Time) {
	for _, w := range []*track.Window{&s.Link, &s.Lost, &s.Refused, &s.Broken, &s.Heard, &s.Sent} {
		w.Add(now, 0, "")
	}
}

// listen says whether the link is noisy: from the limit on, and until there is less than half of it.
func (s *station) listen(limit uint64) {
	if n := s.Link.Sum(); n >= limit {
		s.Noisy = true
	} else if n == 0 || n < limit/2 {
		s.Noisy = false
	}
}

// quiet says that nothing is held against a station.
func (s *station) quiet() bool {
	return len(s.Link.Ticks)+len(s.Lost.Ticks)+len(s.Refused.Ticks)+len(s.Broken.Ticks)+len(s.Heard.Ticks) == 0
}

func (c *Check) result(accelerators []string, counted []machine.AERDevice) health.Result {
	r := health.Result{Findings: findings(judge(c.state.Stations, c.last))}
	r.Outcome = health.OutcomeOf(r.Findings)
	var notes []string
	reports := make(map[string]bool)
	for i := range counted {
		d := &counted[i]
		if d.Unread != "" {
			notes = append(notes, d.Address+": cannot read "+d.Unread)
			r.Reason = health.ReasonCannotRead
		}
		reports[d.Address] = d.Reports
	}
	for i := range counted {
		if d := &counted[i]; slices.Contains(accelerators, d.Address) && !d.Reports && !reports[d.Parent] {
			notes = append(notes, d.Address+": neither it nor the port above it counts errors")
		}
	}
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
	return health.CouldNotLook(health.ReasonOf(err), err, findings(judge(c.state.Stations, c.last)))
}

// keep saves the state when something in it is new: at once what a fault comes of, and now and then what merely rises.
func (c *Check) keep(ctx context.Context) { c.file.Keep(ctx, c.o.Machine, c.state, c.o.Now()) }
