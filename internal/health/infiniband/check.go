// Package infiniband looks at the ports of RDMA adapters, InfiniBand's and those of RDMA over Ethernet: is each one up
// that ever was, at the rate it should have, and does it stay up.
//
// inventory.go and judge.go are pure; check.go reads. docs/checks/infiniband.md says what each fault means and what
// clears it.
package infiniband

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

	"github.com/roundhouse-dev/roundhouse/internal/health"
	"github.com/roundhouse-dev/roundhouse/internal/health/kept"
	"github.com/roundhouse-dev/roundhouse/internal/machine"
)

// Name is the check's name.
const Name = "infiniband"

// ReasonSettling means that something looks wrong and has not yet lasted long enough to be called a fault. It is Unknown,
// so that a port that has not come back from a reboot is not taken for a good one meanwhile.
const ReasonSettling = "Settling"

const (
	// stateFile holds the inventory, and what was counted in this boot.
	stateFile = "infiniband.json"
	// loadAttempts is how many looks an inventory that cannot be read is waited for.
	loadAttempts = 3
)

// Machine is what the check reads.
type Machine interface {
	machine.Booter
	machine.PCIReader
	machine.InfiniBandReader
	machine.Store
}

// Options configure the check.
type Options struct {
	Machine Machine
	// Exclude names ports that are not watched.
	Exclude []Pattern
	// Rates are what ports are declared to run at; what is declared of a port counts alone.
	Rates []Rate
	// Times default to DefaultTimes.
	Times Times
	// Now is the clock; time.Now when nil.
	Now func() time.Time
}

// Check looks at the ports and keeps their inventory. It is a health.Check.
type Check struct {
	o Options

	mu      sync.Mutex
	file    kept.File
	state   state
	loaded  bool
	loads   int
	loadErr error
	last    []health.Finding
}

// state is what survives a restart of the agent. Ports.Boot is of the boot alone.
type state struct {
	BootID  string    `json:"bootID"`
	SavedAt time.Time `json:"savedAt,omitzero"`
	Ports   []known   `json:"ports,omitempty"`
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
	return &Check{o: o, file: kept.File{Name: stateFile}}
}

// Name is "infiniband".
func (c *Check) Name() string { return Name }

// Forget drops the port of that name from the inventory, so that it is no longer missed, nor its best rate expected of it:
// a human's word that its adapter was taken out, or its cable put elsewhere, on purpose. It says whether there was one. A
// port that stays and is not to be used is for Options.Exclude.
func (c *Check) Forget(ctx context.Context, name string) (bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.begin(ctx); err != nil {
		return false, err
	}
	n := len(c.state.Ports)
	c.state.Ports = slices.DeleteFunc(c.state.Ports, func(k known) bool { return k.name() == name })
	if len(c.state.Ports) == n {
		return false, nil
	}
	c.file.Dirty, c.file.Urgent = true, true
	c.keep(ctx)
	return true, c.file.Err
}

// Look looks at the ports once.
func (c *Check) Look(ctx context.Context) health.Result {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.begin(ctx); err != nil {
		return c.couldNotLook(err)
	}
	seen, err := c.o.Machine.InfiniBandPorts(ctx)
	if err != nil {
		return c.couldNotLook(err)
	}
	now := c.o.Now()
	ports, learned := reconcile(c.state.Ports, seen, c.o.Exclude)
	c.state.Ports = ports
	c.file.Dirty, c.file.Urgent = c.file.Dirty || learned, c.file.Urgent || learned
	for i := range ports {
		c.file.Dirty = ports[i].count(now) || c.file.Dirty
	}
	bus, err := c.bus(ctx, ports)
	if err != nil {
		return c.couldNotLook(err)
	}
	v := judge(ports, c.o.Rates, bus, now, c.o.Times)
	if len(v.findings) != len(c.last) {
		c.file.Dirty, c.file.Urgent = true, true
	}
	c.last = v.findings
	c.keep(ctx)
	r := c.result(v)
	r.Looked = health.Count(len(seen), "port")
	return r
}

// bus is what the PCI bus says of the adapters whose ports are not there; it is asked only then.
func (c *Check) bus(ctx context.Context, ports []known) (map[string]onBus, error) {
	if !slices.ContainsFunc(ports, func(k known) bool { return k.seen == nil && k.Active }) {
		return nil, nil
	}
	devices, err := c.o.Machine.PCIDevices(ctx, nil)
	if err != nil {
		return nil, err
	}
	if len(devices) == 0 {
		return nil, errors.New("the PCI bus lists nothing at all; is this the host's /sys?")
	}
	bus := make(map[string]onBus, len(devices))
	for _, d := range devices {
		bus[d.Address] = onBus{there: true, driver: d.Driver}
	}
	return bus, nil
}

// begin takes up the saved state, once, and starts a new boot with the old inventory and nothing counted.
func (c *Check) begin(ctx context.Context) error {
	id, err := c.o.Machine.BootID(ctx)
	if err != nil {
		return err
	}
	if !c.loaded {
		c.loadErr = c.load(ctx)
		if c.loads++; c.loadErr != nil && c.loads < loadAttempts {
			return c.loadErr
		}
	}
	if c.state.BootID != id {
		c.state.BootID, c.last = id, nil
		for i := range c.state.Ports {
			c.state.Ports[i].Boot = boot{}
		}
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
		c.file.Err = fmt.Errorf("reading %s, inventory starts anew: %w", stateFile, err)
		return nil
	}
	for i := range s.Ports {
		b := &s.Ports[i].Boot
		for _, from := range []*time.Time{&b.DownFrom, &b.SlowFrom, &b.AwayFrom} {
			if s.SavedAt.Sub(*from) < c.o.Times.Settle {
				*from = time.Time{} // it had not lasted yet, and nobody looked meanwhile
			}
		}
	}
	c.state = s
	return nil
}

func (c *Check) result(v verdict) health.Result {
	r := health.Result{Findings: v.findings, Again: v.again}
	r.Outcome = health.OutcomeOf(r.Findings)
	notes := slices.Concat(v.pending, v.blind, v.notes)
	for i := range c.state.Ports {
		k := &c.state.Ports[i]
		if k.seen == nil {
			continue
		}
		if full := k.saturated(); len(full) > 0 {
			notes = append(notes, fmt.Sprintf("%s: %s at the end of their range, count no more (perfquery -R sets them to zero)", k.name(), strings.Join(full, ", ")))
		}
	}
	switch {
	case len(v.pending) > 0:
		r.Reason = ReasonSettling
	case len(v.blind) > 0:
		r.Reason = health.ReasonCannotRead
	case c.loadErr != nil:
		r.Reason = health.ReasonOf(c.loadErr)
		notes = append(notes, "inventory: "+c.loadErr.Error())
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
	return health.CouldNotLook(health.ReasonOf(err), err, c.last)
}

// Close saves what is not saved yet.
func (c *Check) Close(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.file.Urgent = true
	c.keep(ctx)
	return c.file.Err
}

// keep saves the state when something in it is new: at once what was learned or found, and now and then what merely rises.
func (c *Check) keep(ctx context.Context) {
	if !c.loaded {
		return
	}
	now := c.o.Now()
	c.state.SavedAt = now
	c.file.Keep(ctx, c.o.Machine, c.state, now)
}
