package replay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/health"
	"github.com/roundhouse-dev/roundhouse/internal/health/kernellog"
	"github.com/roundhouse-dev/roundhouse/internal/health/nvidia"
	"github.com/roundhouse-dev/roundhouse/internal/health/pci"
	"github.com/roundhouse-dev/roundhouse/internal/health/steady"
)

const (
	// lookGap is the least time between two looks of a check, as the agent has it.
	lookGap = 20 * time.Millisecond
	// maxUnread is how many bytes of lines of one moment are gathered before the checks are made to read them: less than
	// the log keeps, so that none is lost that was recorded.
	maxUnread = 128 << 10
	// backwards is how far a time may go back before it is worth telling: the lines of several processors are not in
	// order to the microsecond.
	backwards = 5 * time.Second
)

// Options say how a recording is played. The zero value plays it as the agent runs by default.
type Options struct {
	// Checks makes the checks, anew at each start of the agent; DefaultChecks when nil. now is recorded time.
	Checks func(m *Machine, now func() time.Time) []health.Check
	// Every is the time between two turns of a check; 30 s when zero.
	Every time.Duration
	// ClearAfter is the agent's hysteresis; 30 s when zero.
	ClearAfter time.Duration
	// Silence is for how long the checks have their turns while nothing is recorded; 25 h when zero. After it they are
	// taken to say the same until something is. It has to be longer than anything they let pass by time alone.
	Silence time.Duration
	// MaxFaults bounds what is remembered of one recording; 10,000 when zero. What is more is counted.
	MaxFaults int
}

func (o Options) withDefaults() Options {
	if o.Checks == nil {
		o.Checks = DefaultChecks
	}
	if o.Every <= 0 {
		o.Every = 30 * time.Second
	}
	if o.ClearAfter <= 0 {
		o.ClearAfter = 30 * time.Second
	}
	if o.Silence <= 0 {
		o.Silence = 25 * time.Hour
	}
	if o.MaxFaults <= 0 {
		o.MaxFaults = 10000
	}
	return o
}

// FactChecks are the checks that judge a stream of facts: those of lines and of the bus, and those of what NVML told.
func FactChecks(m *Machine, now func() time.Time) []health.Check {
	source := nvidia.New(nvidia.Options{Machine: m, Store: m, Now: now})
	lines := kernellog.New(kernellog.Options{Machine: m, Now: now})
	bus := pci.New(pci.Options{Machine: m, UUID: lines.UUID, Now: now})
	return append([]health.Check{lines, bus}, source.Checks()...)
}

// DefaultChecks are the checks that judge what a log can have.
func DefaultChecks(m *Machine, now func() time.Time) []health.Check {
	lines := kernellog.New(kernellog.Options{Machine: m, Now: now})
	return []health.Check{lines, pci.New(pci.Options{Machine: m, UUID: lines.UUID, Now: now})}
}

// Result is what came of one recording.
type Result struct {
	// From and To are the times of the first and the last event.
	From time.Time `json:"from,omitzero"`
	To   time.Time `json:"to,omitzero"`
	// Lines were played; Matched of them told of something, Refused had a known form and were not the kernel's own, and
	// Lost were overwritten before they were read.
	Lines   uint64 `json:"lines"`
	Matched uint64 `json:"matched"`
	Refused uint64 `json:"refused"`
	Lost    uint64 `json:"lost"`
	// Boots and AgentStarts count starts, the first included.
	Boots       int `json:"boots"`
	AgentStarts int `json:"agentStarts"`
	// Backwards is how often time went back, by more than a few seconds; it was then held.
	Backwards int `json:"backwards,omitempty"`
	// Checks is how each check fared.
	Checks []CheckSummary `json:"checks"`
	// Incidents are what was found, the oldest first.
	Incidents []Incident `json:"incidents"`
	// Dropped counts faults that did not fit Options.MaxFaults.
	Dropped int `json:"dropped,omitempty"`
}

// CheckSummary is how a check fared over a recording.
type CheckSummary struct {
	Name string `json:"name"`
	// Looks is how often it looked, and Unknown how often it could not see.
	Looks   int `json:"looks"`
	Unknown int `json:"unknown"`
	// Reason and Message are of the last look that could not see.
	Reason  string `json:"reason,omitempty"`
	Message string `json:"message,omitempty"`
}

// slot is a check with its schedule.
type slot struct {
	check  health.Check
	due    time.Time
	looked time.Time
	steady steady.Findings
	result health.Result
}

// run plays one recording.
type run struct {
	o       Options
	m       *Machine
	now     time.Time
	last    time.Time // of the last event
	running bool
	slots   []*slot
	unread  int
	book    *book
	result  Result
}

// Run plays a recording to its end.
func Run(ctx context.Context, src Source, o Options) (Result, error) {
	o = o.withDefaults()
	r := &run{o: o, m: newMachine(), book: newBook(o.MaxFaults)}
	for n := 0; ; n++ {
		var e Event
		err := src.Next(&e)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return Result{}, err
		}
		if n%1024 == 0 && ctx.Err() != nil {
			return Result{}, context.Cause(ctx)
		}
		if err := r.play(ctx, &e); err != nil {
			return Result{}, err
		}
	}
	// What the last events began has one turn more to settle.
	r.advance(ctx, r.now.Add(r.o.Every+time.Nanosecond))
	r.gather()
	r.result.Incidents, r.result.Dropped = r.book.incidents(), r.book.dropped
	return r.result, nil
}

// play plays one event.
func (r *run) play(ctx context.Context, e *Event) error {
	if r.last.IsZero() {
		r.now, r.result.From = e.At, e.At
		if e.Kind != Boot {
			r.boot(&Event{At: e.At})
		}
	}
	if e.At.Before(r.now) {
		if r.now.Sub(e.At) > backwards {
			r.result.Backwards++
		}
		e.At = r.now
	}
	r.advance(ctx, e.At)
	r.now, r.last, r.result.To = e.At, e.At, e.At
	switch e.Kind {
	case Line:
		r.line(ctx, e)
	case Boot:
		r.boot(e)
	case PCI:
		r.m.devices, r.m.hasPCI = slices.Clone(e.Devices), true
	case NVML:
		r.m.report = e.Report
	case Reset:
		return r.reset(ctx, e.Address)
	case AgentStop:
		r.stop()
	case AgentStart:
		if !r.running {
			r.start(r.published())
		}
	}
	return nil
}

func (r *run) clock() time.Time { return r.now }

// line writes one and wakes the checks that wait for lines.
func (r *run) line(ctx context.Context, e *Event) {
	r.result.Lines++
	r.unread += r.m.write(e)
	if !r.running {
		return
	}
	for _, s := range r.slots {
		if _, waits := s.check.(health.Waiter); !waits {
			continue
		}
		if at := later(r.now, s.looked.Add(lookGap)); at.Before(s.due) {
			s.due = at
		}
		if r.unread >= maxUnread {
			r.look(ctx, s)
		}
	}
	if r.unread >= maxUnread {
		r.unread = 0
	}
}

// boot ends the agent, and what it published with it, and starts the machine and a new agent. The boot it is in already is
// no boot.
func (r *run) boot(e *Event) {
	if r.m.boots > 0 && e.BootID != "" && e.BootID == r.m.bootID {
		return
	}
	r.stop()
	r.book.clear(r.now, "")
	r.slots = nil
	r.m.boot(e.BootID, e.At)
	r.result.Boots++
	r.start(nil, nil)
}

// stop kills the agent: nothing is closed or saved. What it published stands.
func (r *run) stop() {
	if r.running {
		r.gather()
		r.running = false
	}
}

// start starts an agent, which takes over what was published in this boot.
func (r *run) start(faults []v1alpha1.Fault, devices []v1alpha1.Device) {
	r.running = true
	r.result.AgentStarts++
	r.unread = 0
	r.slots = nil
	for _, c := range r.o.Checks(r.m, r.clock) {
		s := &slot{check: c, due: r.now}
		mine := slices.DeleteFunc(slices.Clone(faults), func(f v1alpha1.Fault) bool { return f.Check != c.Name() })
		s.result.Findings = s.steady.Seed(mine, devices, r.now)
		r.slots = append(r.slots, s)
	}
}

// published is what an agent publishes of what stands.
func (r *run) published() ([]v1alpha1.Fault, []v1alpha1.Device) {
	var all []health.Finding
	for _, s := range r.slots {
		all = append(all, s.result.Findings...)
	}
	devices := r.devices()
	faults, _ := health.Faults(health.Identify(all, devices))
	return faults, devices
}

func (r *run) devices() []v1alpha1.Device {
	for _, s := range r.slots {
		if s.result.Devices != nil {
			return s.result.Devices
		}
	}
	return nil
}

// reset is a reset that the agent did: it tells the checks, and has them look.
func (r *run) reset(ctx context.Context, address string) error {
	if !r.running {
		return nil
	}
	for _, s := range r.slots {
		if c, ok := s.check.(health.Resetter); ok {
			if err := c.DeviceReset(ctx, address); err != nil {
				return fmt.Errorf("telling %s of a reset: %w", s.check.Name(), err)
			}
		}
		s.due = r.now
	}
	return nil
}

// advance gives every check its turns before the time.
func (r *run) advance(ctx context.Context, to time.Time) {
	if !r.running {
		return
	}
	for {
		next := r.slots[0]
		for _, s := range r.slots[1:] {
			if s.due.Before(next.due) {
				next = s
			}
		}
		if !next.due.Before(to) {
			return
		}
		if !r.last.IsZero() && next.due.Sub(r.last) > r.o.Silence {
			for _, s := range r.slots {
				s.due = to
			}
			return
		}
		r.now = later(r.now, next.due)
		r.look(ctx, next)
	}
}

// look is one look of one check, with what the agent's runner does around it.
func (r *run) look(ctx context.Context, s *slot) {
	res := contained(ctx, s.check)
	if res.Reason == health.ReasonPanicked {
		res.Findings = s.result.Findings
	} else {
		res.Findings = s.steady.Settle(res.Findings, r.now, r.o.ClearAfter)
	}
	if res.Devices == nil {
		res.Devices = s.result.Devices
	}
	s.result, s.looked, s.due = res, r.now, r.now.Add(r.o.Every)
	if res.Again > 0 {
		s.due = r.now.Add(max(res.Again, lookGap))
	}
	if w, ok := s.check.(health.Waiter); ok {
		r.unread = 0
		// The agent waits after each look, and what is not urgent is done then. The wait is over before it began.
		over, cancel := context.WithCancel(ctx)
		cancel()
		_ = w.Wait(over)
	}
	r.summary(s.check.Name()).add(res)
	r.book.update(r.now, s.check.Name(), health.Identify(res.Findings, r.devices()))
}

// contained looks, and turns a panic of the check into its result, as the agent does.
func contained(ctx context.Context, c health.Check) (r health.Result) {
	defer func() {
		if p := recover(); p != nil {
			r = health.Result{
				Outcome: health.Unknown, Reason: health.ReasonPanicked,
				Message: health.Bound(fmt.Sprint("the check itself broke: ", p), health.MaxMessage),
			}
		}
	}()
	return c.Look(ctx)
}

func (r *run) summary(name string) *CheckSummary {
	i := slices.IndexFunc(r.result.Checks, func(c CheckSummary) bool { return c.Name == name })
	if i < 0 {
		i = len(r.result.Checks)
		r.result.Checks = append(r.result.Checks, CheckSummary{Name: name})
	}
	return &r.result.Checks[i]
}

func (c *CheckSummary) add(r health.Result) {
	c.Looks++
	if r.Outcome == health.Unknown {
		c.Unknown++
		c.Reason, c.Message = r.Reason, r.Message
	}
}

// gather adds up what the checks that read lines have counted.
func (r *run) gather() {
	if !r.running {
		return
	}
	for _, s := range r.slots {
		if c, ok := s.check.(interface{ Stats() kernellog.Stats }); ok {
			stats := c.Stats()
			r.result.Matched += stats.Matched
			r.result.Refused += stats.Refused
			r.result.Lost += stats.Lost
		}
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
