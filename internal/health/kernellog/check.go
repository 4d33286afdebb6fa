package kernellog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"github.com/roundhouse-dev/roundhouse/internal/health"
	"github.com/roundhouse-dev/roundhouse/internal/machine"
)

// Name is the check's name.
const Name = "kernel-log"

// ReasonLinesLost means that the kernel overwrote lines before they were read; what they said is not known.
const ReasonLinesLost = "LinesLost"

const (
	// stateFile is where the cursor and the open faults are kept, in one file so that they always fit each other.
	stateFile = "kernel-log.json"
	// maxRecords bounds one look, so that a storm cannot keep it from answering.
	maxRecords = 8192
	// saveCounts and saveCursor are how often what is worth no haste is written to disk: counts, and how far a log was
	// read in which nothing was found. An older cursor only means reading again, unless the kernel has overwritten it.
	saveCounts = 5 * time.Second
	saveCursor = 10 * time.Minute
	// saveTimeout bounds one save, so that a disk that hangs delays no look for longer.
	saveTimeout = 2 * time.Second
	// lossHolds is how long a look says that lines were lost.
	lossHolds = time.Minute
	// loadAttempts is how many looks a state that cannot be read is waited for, before the log is read without it: a
	// detector must not die of a broken disk.
	loadAttempts = 3
	// retryAfter is how soon to look again after a look that failed.
	retryAfter = 2 * time.Second
)

// Machine is what the check reads.
type Machine interface {
	machine.Booter
	machine.LogOpener
	machine.Store
}

// Options configure the check.
type Options struct {
	Machine Machine
	// Times default to DefaultTimes.
	Times Times
	// Now is the clock; time.Now when nil.
	Now func() time.Time
	// DriverVersion is the NVIDIA driver's, 580.105.08 say. It is only needed where the log no longer has the line that
	// the driver starts with, and that line wins.
	DriverVersion string
	// AcceptInjected believes every facility. Any process that can open /dev/kmsg can then ask for a reboot: it is for
	// tests, off by default, and shows in Stats.
	AcceptInjected bool
}

// Stats count what the check has seen since it started.
type Stats struct {
	// Records were read; Matched of them told of a fault.
	Records, Matched uint64
	// Refused had a known form but were not the kernel's own.
	Refused uint64
	// Malformed had not the form of a record.
	Malformed uint64
	// Overruns is how often the kernel overwrote unread records, and Lost how many those were.
	Overruns, Lost uint64
	// SaveErrors is how often the state could not be saved.
	SaveErrors uint64
	// FaultsDropped counts the faults that did not fit.
	FaultsDropped int64
	// AcceptsInjected says that lines written by processes are believed.
	AcceptsInjected bool
}

// Check looks at the kernel log. It is a health.Waiter and a health.Resetter.
type Check struct {
	o Options

	mu    sync.Mutex
	state State
	stats Stats

	reader    machine.LogReader
	bootTime  time.Time
	fresh     bool      // no cursor for this boot: lines older than the lookback are history
	openedAt  time.Time // when the log was opened
	loads     int
	dirty     Change
	saved     time.Time
	saveErr   error
	lostUntil time.Time
	expectGap bool // the next record may follow a gap: after opening, or after an overrun
}

var (
	_ health.Waiter   = (*Check)(nil)
	_ health.Resetter = (*Check)(nil)
)

// buffers are shared, since a sandbox runs tens of thousands of checks in one process.
var buffers = sync.Pool{New: func() any { return new([machine.MaxLogRecord]byte) }}

// New returns the check. It reads nothing yet.
func New(o Options) *Check {
	if o.Times == (Times{}) {
		o.Times = DefaultTimes()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Check{o: o, stats: Stats{AcceptsInjected: o.AcceptInjected}}
}

// Name is "kernel-log".
func (c *Check) Name() string { return Name }

// Stats are the counts so far.
func (c *Check) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.stats
	s.FaultsDropped = c.state.Dropped
	return s
}

// UUID is the UUID that the driver logged for the device at the address in this boot; empty where it logged none.
func (c *Check) UUID(address string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state.UUIDs[address]
}

// Look reads what the log has, at most some thousands of records, and says what stands.
func (c *Check) Look(ctx context.Context) health.Result {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.ensureOpen(ctx); err != nil {
		return c.couldNotLook(err)
	}
	// What an earlier look left, for a runner that never waits.
	c.saveIfDue(ctx)
	more, err := c.drain(ctx)
	c.note(c.state.Expire(c.o.Now(), c.o.Times))
	if err != nil {
		return c.couldNotLook(errors.Join(err, c.closeReader()))
	}
	r := c.result()
	r.Looked = health.Count(int(c.stats.Records), "line")
	if more {
		r.Again = time.Millisecond
	}
	return r
}

// Wait returns when there is a record to read. It first saves what the last look found: published before it is saved is
// right here, since reading the same lines again after a crash gives the same faults.
func (c *Check) Wait(ctx context.Context) error {
	c.mu.Lock()
	c.saveIfDue(ctx)
	reader := c.reader
	c.mu.Unlock()
	if reader == nil {
		return sleep(ctx, retryAfter)
	}
	err := reader.Wait(ctx)
	if err != nil && ctx.Err() == nil {
		// Broken: the next look reads and reports the error itself.
		return sleep(ctx, retryAfter)
	}
	return err
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// DeviceReset drops what a reset of the device at the PCI address clears, and saves that. It first reads what the log has:
// what was written of the device since the last look is the reset's own doing, and over with it.
func (c *Check) DeviceReset(ctx context.Context, pci string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.state.on(pci)
	if err := c.catchUp(ctx); err != nil {
		return fmt.Errorf("reading what a reset logged: %w", err)
	}
	if max(c.state.Reset(pci), c.state.forget(pci, before)) == Unchanged {
		return nil
	}
	c.note(Changed)
	c.save(ctx)
	return c.saveErr
}

// catchUp reads the log to its end, or as far as the context allows.
func (c *Check) catchUp(ctx context.Context) error {
	if err := c.ensureOpen(ctx); err != nil {
		return err
	}
	for more := true; more; {
		var err error
		if more, err = c.drain(ctx); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	return nil
}

// Close saves the state and closes the log.
func (c *Check) Close(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dirty != Unchanged {
		c.save(ctx)
	}
	return errors.Join(c.saveErr, c.closeReader())
}

// ensureOpen opens the log once a boot. A new boot starts with a new state: the faults of the old one are over, and what
// still is wrong the kernel says again.
func (c *Check) ensureOpen(ctx context.Context) error {
	if c.reader != nil {
		return nil
	}
	boot, err := c.o.Machine.BootID(ctx)
	if err != nil {
		return err
	}
	at, err := c.o.Machine.BootTime(ctx)
	if err != nil {
		return err
	}
	if c.state.BootID != boot {
		c.saveErr = nil
		if err := c.load(ctx, boot); err != nil {
			return err
		}
	}
	reader, err := c.o.Machine.OpenLog(ctx)
	if err != nil {
		return err
	}
	c.reader, c.bootTime, c.openedAt = reader, at, c.o.Now()
	c.fresh, c.expectGap = c.state.Next == 0, true
	return nil
}

// load takes up the state saved in this boot, if there is one.
func (c *Check) load(ctx context.Context, boot string) error {
	data, err := c.o.Machine.Load(ctx, stateFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		if c.loads++; c.loads < loadAttempts {
			return err
		}
		c.saveErr = err
	}
	var s State
	if err == nil {
		if err := json.Unmarshal(data, &s); err != nil {
			c.saveErr = fmt.Errorf("reading %s: %w", stateFile, err)
			s = State{}
		}
	}
	if s.BootID != boot {
		s = State{BootID: boot}
	}
	if s.Driver == 0 {
		s.Driver = driverMajor([]byte(c.o.DriverVersion))
	}
	c.state, c.loads = s, 0
	return nil
}

// drain reads until nothing is waiting; more says that the bound was reached first.
func (c *Check) drain(ctx context.Context) (more bool, err error) {
	buf := buffers.Get().(*[machine.MaxLogRecord]byte)
	defer buffers.Put(buf)
	for i := range maxRecords {
		if i%256 == 255 && ctx.Err() != nil {
			return true, nil
		}
		n, err := c.reader.TryRead(buf[:])
		switch {
		case errors.Is(err, machine.ErrLogDrained):
			return false, nil
		case errors.Is(err, machine.ErrLogOverrun):
			c.stats.Overruns++
			c.expectGap, c.lostUntil = true, c.o.Now().Add(lossHolds)
			continue
		case err != nil:
			return false, err
		}
		c.take(buf[:n])
	}
	return true, nil
}

// take folds in one record.
func (c *Check) take(b []byte) {
	rec, err := ParseRecord(b)
	if err != nil {
		c.stats.Malformed++
		return
	}
	if rec.Seq < c.state.Next {
		return
	}
	if c.expectGap && c.state.Next > 0 && rec.Seq > c.state.Next {
		c.stats.Lost += rec.Seq - c.state.Next
		c.lostUntil = c.o.Now().Add(lossHolds)
	}
	c.expectGap = false
	c.state.Next = rec.Seq + 1
	c.stats.Records++
	c.note(Moved)
	l := ParseLine(rec.Text)
	if l.Kind == None {
		return
	}
	if rec.Facility() != 0 && !c.o.AcceptInjected || isPacket(rec.Text) {
		c.stats.Refused++
		return
	}
	at := c.timeOf(rec)
	if c.fresh && c.history(l, at) {
		return
	}
	c.stats.Matched++
	c.note(c.state.Apply(l, rec.Text, at, c.o.Times))
}

// history says that a line is too old to tell of a fault that stands, in a log that nobody followed so far.
func (c *Check) history(l Line, at time.Time) bool {
	_, e, fault := Describe(l)
	return fault && e.ClearedBy != health.ClearedByBoot && c.openedAt.Sub(at) > c.o.Times.Lookback
}

// timeOf is the record's time by the wall clock, never in the future: the kernel's clock is not disciplined and drifts.
func (c *Check) timeOf(rec Record) time.Time {
	at, now := c.bootTime.Add(time.Duration(min(rec.Usec, 1<<52))*time.Microsecond), c.o.Now()
	if at.After(now) {
		return now
	}
	return at
}

// result is what stands. A fault that stands is said even when something could not be seen; the message says the rest.
func (c *Check) result() health.Result {
	r := health.Result{Findings: c.state.Findings(Name, c.o.Times)}
	r.Outcome = health.OutcomeOf(r.Findings)
	switch {
	case c.o.Now().Before(c.lostUntil):
		r.Message = fmt.Sprintf("%d lines were overwritten before they were read", c.stats.Lost)
		if r.Outcome == health.Passing {
			r.Outcome, r.Reason = health.Unknown, ReasonLinesLost
		}
	case c.saveErr != nil:
		r.Message = health.Bound("state is not kept: "+c.saveErr.Error(), health.MaxMessage)
	case c.state.Dropped > 0:
		r.Message = fmt.Sprintf("%d faults did not fit", c.state.Dropped)
	}
	return r
}

func (c *Check) couldNotLook(err error) health.Result {
	r := health.CouldNotLook(health.ReasonOf(err), err, c.state.Findings(Name, c.o.Times))
	r.Again = retryAfter
	return r
}

func (c *Check) closeReader() error {
	if c.reader == nil {
		return nil
	}
	r := c.reader
	c.reader = nil
	return r.Close()
}

func (c *Check) note(change Change) { c.dirty = max(c.dirty, change) }

// saveIfDue saves what changed at once, or soon after a save that failed, and the rest now and then.
func (c *Check) saveIfDue(ctx context.Context) {
	since := c.o.Now().Sub(c.saved)
	switch {
	case c.dirty == Changed && (c.saveErr == nil || since >= saveCounts),
		c.dirty == Counted && since >= saveCounts,
		c.dirty == Moved && since >= saveCursor:
		c.save(ctx)
	}
}

func (c *Check) save(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, saveTimeout)
	defer cancel()
	data, err := json.Marshal(c.state)
	if err == nil {
		err = c.o.Machine.Save(ctx, stateFile, data)
	}
	c.saveErr, c.saved = err, c.o.Now()
	if err != nil {
		c.stats.SaveErrors++
		return
	}
	c.dirty = Unchanged
}
