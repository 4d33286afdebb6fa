package npd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/roundhouse-dev/roundhouse/internal/health"
	"github.com/roundhouse-dev/roundhouse/internal/machine"
	config "github.com/roundhouse-dev/roundhouse/internal/npd"
)

// Reasons of Unknown beside those of package health.
const (
	// ReasonLinesLost means that lines were overwritten or deleted before they were read.
	ReasonLinesLost = "LinesLost"
	// ReasonNoTimestamps means that the file's timestamp expression or format fits none of its lines.
	ReasonNoTimestamps = "NoTimestamps"
	// ReasonNotYetRun means that a program has not ended for the first time yet.
	ReasonNotYetRun = "NotYetRun"
	// ReasonPlugin means that a program could not tell: another exit code than 0 or 1, a time-out, no start.
	ReasonPlugin = "PluginUnknown"
)

const (
	// saveCounts and saveCursor are how often what is worth no haste is written to disk, and saveTimeout bounds one write.
	saveCounts  = 5 * time.Second
	saveCursor  = 10 * time.Minute
	saveTimeout = 2 * time.Second
	// lossHolds is how long a look says that lines were lost.
	lossHolds = time.Minute
	// loadAttempts is how many looks a state that cannot be read is waited for.
	loadAttempts = 3
	// retryAfter is how soon to look again after a look that failed.
	retryAfter = 2 * time.Second
	// unstamped is how many lines without a time, and none with one, make the file unreadable.
	unstamped = 20
)

// Machine is what both monitors need.
type Machine interface {
	machine.Booter
	machine.Store
}

// LogMachine is what a log monitor needs.
type LogMachine interface {
	Machine
	machine.LogOpener
}

// LogOptions configure a LogMonitor.
type LogOptions struct {
	Config  *config.Log
	Machine LogMachine
	// Files is needed for a filelog monitor, and Journal for a journald monitor.
	Files   machine.FileTailer
	Journal machine.JournalReader
	// Name is the check's; NameOf the file when empty.
	Name string
	// Now is the clock; time.Now when nil.
	Now func() time.Time
	// Location is the zone of times that name none; time.Local when nil, as in NPD.
	Location *time.Location
	// Quiet is how long a temporary problem stands after it was last seen; 10 minutes when zero.
	Quiet time.Duration
	// FileEvery and JournalEvery are how often a file and the journal are looked at; 500 ms and 10 s when zero.
	FileEvery, JournalEvery time.Duration
	// AcceptInjected believes lines that processes wrote as if they were the system's. It is for tests.
	AcceptInjected bool
}

// LogStats count what a monitor has seen since it started.
type LogStats struct {
	// Lines were read, Matched of them by a rule, and Unread had not the form they should have.
	Lines, Matched, Unread uint64
	// Lost is how often lines were lost, and SaveErrors how often the state could not be saved.
	Lost, SaveErrors uint64
}

// LogMonitor is the check of one log monitor's configuration.
type LogMonitor struct {
	o     LogOptions
	codes map[key]string
	quiet map[key]time.Duration

	// last is what Conditions gives, so that nobody waits for a look that reads.
	last atomic.Pointer[[]Condition]

	mu        sync.Mutex
	source    source
	state     logState
	buffer    *config.Buffer
	stats     LogStats
	loaded    bool
	loads     int
	stamped   bool
	dirty     change
	saved     time.Time
	saveErr   error
	lostUntil time.Time
}

var _ health.Waiter = (*LogMonitor)(nil)

// NewLogMonitor returns the check. It reads nothing yet.
func NewLogMonitor(o LogOptions) (*LogMonitor, error) {
	if o.Name == "" {
		o.Name = NameOf(o.Config.File)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Location == nil {
		o.Location = time.Local
	}
	o.Quiet = or(o.Quiet, 10*time.Minute)
	o.FileEvery = or(o.FileEvery, 500*time.Millisecond)
	o.JournalEvery = or(o.JournalEvery, 10*time.Second)
	m := &LogMonitor{o: o, codes: make(map[key]string), quiet: make(map[key]time.Duration), buffer: config.NewBuffer(o.Config.Buffer)}
	switch {
	case o.Config.Plugin == config.Kmsg:
		m.source = &kmsgSource{m: m}
	case o.Config.Plugin == config.Filelog && o.Files != nil:
		m.source = &fileSource{m: m}
	case o.Config.Plugin == config.Journald && o.Journal != nil:
		m.source = &journalSource{m: m}
	default:
		return nil, fmt.Errorf("%s: this agent cannot read the source of a %s monitor", o.Config.File, o.Config.Plugin)
	}
	m.durations()
	return m, nil
}

func or(d, otherwise time.Duration) time.Duration {
	if d > 0 {
		return d
	}
	return otherwise
}

// durations notes of each problem its code and how long it stands unseen. Where one of its rules names no such time, a
// permanent problem stands until the boot ends.
func (m *LogMonitor) durations() {
	for _, r := range m.o.Config.Rules {
		k, after := keyOf(r.Rule), r.ClearAfter
		if !r.Permanent && after == 0 {
			after = m.o.Quiet
		}
		was, twice := m.quiet[k]
		switch {
		case twice && (was == 0 || after == 0):
			after = 0
		case twice:
			after = max(was, after)
		}
		m.quiet[k], m.codes[k] = after, r.Code
	}
}

// Name is the check's name.
func (m *LogMonitor) Name() string { return m.o.Name }

// Stats are the counts so far.
func (m *LogMonitor) Stats() LogStats {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.stats
}

// Conditions are what NPD would publish as conditions of the Node; none before the first look.
func (m *LogMonitor) Conditions() []Condition {
	if c := m.last.Load(); c != nil {
		return slices.Clone(*c)
	}
	return nil
}

// speak says the conditions anew.
func (m *LogMonitor) speak(blind *health.Result) {
	if m.loaded {
		m.note(m.state.speak(m.o.Config.Conditions, m.o.Now(), blind))
	}
	c := conditions(m.o.Config.Conditions, m.state.Said)
	m.last.Store(&c)
}

// Clear ends, by a human's word, the problems of the condition or with the code or reason, and says how many those were.
func (m *LogMonitor) Clear(ctx context.Context, name string) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := len(m.state.Problems)
	c := m.state.end(func(p problem) bool {
		return name != "" && (p.Condition == name || p.Reason == name || m.codes[p.key] == name)
	})
	if c == unchanged {
		return 0, nil
	}
	m.note(changed)
	m.speak(nil)
	m.save(ctx)
	return n - len(m.state.Problems), m.saveErr
}

// Look reads what the log has and says what stands.
func (m *LogMonitor) Look(ctx context.Context) health.Result {
	m.mu.Lock()
	defer m.mu.Unlock()
	err := m.enterBoot(ctx)
	if err == nil {
		err = m.source.open(ctx)
	}
	if err != nil {
		return m.couldNotLook(err)
	}
	// What an earlier look left, for a runner that never waits.
	m.saveIfDue(ctx)
	more, err := m.source.read(ctx)
	m.expire()
	if err != nil {
		return m.couldNotLook(errors.Join(err, m.source.close()))
	}
	r := m.result()
	var blind *health.Result
	if r.Reason != "" {
		blind = &r
	}
	m.speak(blind)
	if more {
		r.Again = time.Millisecond
	}
	return r
}

// Wait saves what the last look found and returns when there may be more.
func (m *LogMonitor) Wait(ctx context.Context) error {
	m.mu.Lock()
	m.saveIfDue(ctx)
	m.mu.Unlock()
	return m.source.wait(ctx)
}

// Close saves the state and closes the log.
func (m *LogMonitor) Close(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.dirty != unchanged {
		m.save(ctx)
	}
	return errors.Join(m.saveErr, m.source.close())
}

// take matches one line against the rules. What ends a problem is asked first: a line that is both leaves it standing.
func (m *LogMonitor) take(l config.Line, at time.Time) {
	m.stats.Lines++
	m.buffer.Push(l)
	for _, r := range m.o.Config.Rules {
		if r.ClearPattern != nil && len(m.state.Problems) > 0 && m.buffer.Match(r.ClearPattern) != nil {
			m.note(m.state.end(func(p problem) bool { return p.key == keyOf(r.Rule) }))
		}
	}
	matched := false
	for _, r := range m.o.Config.Rules {
		if lines := m.buffer.Match(r.Pattern); lines != nil {
			matched = true
			m.note(m.state.found(r, lines, at))
		}
	}
	if matched {
		m.stats.Matched++
	}
}

// takeFileLine translates a line of a file and takes it.
func (m *LogMonitor) takeFileLine(line string) {
	for _, skip := range m.o.Config.Skip {
		if strings.Contains(line, skip) {
			return
		}
	}
	at, message, err := m.o.Config.Translator.Translate(line, m.o.Now(), m.o.Location)
	if err == nil || errors.Is(err, config.ErrNoMessage) {
		m.stamped = true
	}
	switch {
	case errors.Is(err, config.ErrNoMessage):
	case err != nil:
		m.stats.Unread++
	case !at.Before(m.state.Start):
		m.take(config.Line{Text: message}, at)
	}
}

func (m *LogMonitor) expire() {
	now := m.o.Now()
	m.note(m.state.end(func(p problem) bool {
		after := m.quiet[p.key]
		return after > 0 && now.Sub(p.Last) >= after
	}))
}

func (m *LogMonitor) lost() {
	m.stats.Lost++
	m.lostUntil = m.o.Now().Add(lossHolds)
}

// enterBoot loads the state, and begins anew when the machine has booted since.
func (m *LogMonitor) enterBoot(ctx context.Context) error {
	boot, err := m.o.Machine.BootID(ctx)
	if err != nil {
		return err
	}
	if m.loaded && m.state.BootID == boot {
		return nil
	}
	at, err := m.o.Machine.BootTime(ctx)
	if err != nil {
		return err
	}
	if !m.loaded {
		if err := m.load(ctx); err != nil {
			return err
		}
	}
	fresh := m.state.BootID != boot
	if fresh {
		m.buffer = config.NewBuffer(m.o.Config.Buffer)
		// What was open is of a machine that is no more.
		_ = m.source.close()
	}
	m.state = m.state.inBoot(boot)
	if fresh {
		// As in NPD, but to the second, which is all that most logs have.
		m.state.Start = at.Add(m.o.Config.Delay)
		if back := m.o.Now().Add(-m.o.Config.Lookback); m.state.Start.Before(back) {
			m.state.Start = back
		}
		m.state.Start = m.state.Start.Truncate(time.Second)
		m.note(changed)
	}
	return nil
}

func (m *LogMonitor) file() string { return m.o.Name + ".json" }

// load takes up what was saved. A state that cannot be read is waited for a while, and then done without.
func (m *LogMonitor) load(ctx context.Context) error {
	data, err := m.o.Machine.Load(ctx, m.file())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		if m.loads++; m.loads < loadAttempts {
			return err
		}
		m.saveErr = err
	}
	var s logState
	if err == nil {
		if err := json.Unmarshal(data, &s); err != nil {
			m.saveErr = fmt.Errorf("reading %s: %w", m.file(), err)
			s = logState{}
		}
	}
	s.keep(m.o.Config.Rules)
	for _, l := range s.Lines {
		m.buffer.Push(l)
	}
	m.state, m.loaded = s, true
	return nil
}

func (m *LogMonitor) note(c change) { m.dirty = max(m.dirty, c) }

func (m *LogMonitor) saveIfDue(ctx context.Context) {
	since := m.o.Now().Sub(m.saved)
	if m.dirty == changed && (m.saveErr == nil || since >= saveCounts) ||
		m.dirty == counted && since >= saveCounts || m.dirty == moved && since >= saveCursor {
		m.save(ctx)
	}
}

func (m *LogMonitor) save(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, saveTimeout)
	defer cancel()
	s := m.state
	s.Lines = newest(m.buffer.Lines())
	data, err := json.Marshal(s)
	if err == nil {
		err = m.o.Machine.Save(ctx, m.file(), data)
	}
	m.saveErr, m.saved = err, m.o.Now()
	if err != nil {
		m.stats.SaveErrors++
		return
	}
	m.dirty = unchanged
}

// result is what stands. A problem that stands is said even when something could not be seen.
func (m *LogMonitor) result() health.Result {
	r := health.Result{Findings: m.state.findings(m.o.Name, m.codes, m.quiet)}
	r.Outcome = health.OutcomeOf(r.Findings)
	reason := ""
	switch {
	case m.o.Now().Before(m.lostUntil):
		reason, r.Message = ReasonLinesLost, "lines were gone before they were read"
	case !m.stamped && m.stats.Unread >= unstamped:
		reason, r.Message = ReasonNoTimestamps, fmt.Sprintf("no time found in %d lines: check pluginConfig.timestamp and timestampFormat", m.stats.Unread)
	case m.saveErr != nil:
		r.Message = health.Bound("state is not kept: "+m.saveErr.Error(), health.MaxMessage)
	}
	if reason != "" && r.Outcome == health.Passing {
		r.Outcome, r.Reason = health.Unknown, reason
	}
	return r
}

func (m *LogMonitor) couldNotLook(err error) health.Result {
	r := health.CouldNotLook(health.ReasonOf(err), err, m.state.findings(m.o.Name, m.codes, m.quiet))
	m.speak(&r)
	r.Again = retryAfter
	return r
}
