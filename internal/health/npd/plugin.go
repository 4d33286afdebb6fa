package npd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/roundhouse-dev/roundhouse/internal/health"
	"github.com/roundhouse-dev/roundhouse/internal/machine"
	config "github.com/roundhouse-dev/roundhouse/internal/npd"
)

// PluginOptions configure a PluginMonitor.
type PluginOptions struct {
	Config   *config.Plugin
	Machine  Machine
	Programs machine.ProgramRunner
	// Name is the check's; NameOf the file when empty.
	Name string
	// Root is the root of the programs; empty for the agent's own.
	Root string
	// Dir is where relative paths begin; / when empty.
	Dir string
	// Env is added to the programs' environment.
	Env []string
	// AllowRepair lets NPD's health-checker restart services, where its arguments ask for it.
	AllowRepair bool
	// Now is the clock; time.Now when nil.
	Now func() time.Time
}

// PluginMonitor is the check of one custom plugin monitor's configuration. Its programs run beside the looks, each at its
// own interval and never twice at the same time: a look says what they said last, and waits only for the first time.
type PluginMonitor struct {
	o PluginOptions
	// slots bounds how many programs run at once, and news is told when one has ended.
	slots chan struct{}
	news  chan struct{}

	mu      sync.Mutex
	state   pluginState
	rules   []pluginRun
	loaded  bool
	dirty   bool
	saveErr error
	// base is what the programs run under, since they may take longer than a look; stop ends it.
	base    context.Context
	stop    context.CancelFunc
	running sync.WaitGroup
}

// pluginRun is where a rule's program stands.
type pluginRun struct {
	due     time.Time
	running bool
	ran     bool
}

// pluginState is what is remembered of a plugin monitor across restarts of the agent within a boot.
type pluginState struct {
	BootID string `json:"bootID"`
	// Rules are by the rule's identity; those of rules that are no longer there are dropped.
	Rules map[string]ruleState `json:"rules,omitempty"`
	Said  map[string]said      `json:"said,omitempty"`
}

// ruleState is what a rule's program said.
type ruleState struct {
	// Status is False for exit code 0, True for 1 and Unknown for all else.
	Status  Status `json:"status"`
	Message string `json:"message,omitempty"`
	// Problem is what stands: also while the last run could not tell.
	Problem *problem `json:"problem,omitempty"`
}

var _ health.Waiter = (*PluginMonitor)(nil)

// NewPluginMonitor returns the check, or NPD's error for a program that is not there.
func NewPluginMonitor(ctx context.Context, o PluginOptions) (*PluginMonitor, error) {
	if o.Name == "" {
		o.Name = NameOf(o.Config.File)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	err := o.Config.Validate(func(file string) error {
		return o.Programs.FindProgram(ctx, machine.Program{Root: o.Root, Dir: o.Dir, Path: file})
	})
	if err != nil {
		return nil, err
	}
	return &PluginMonitor{
		o: o, slots: make(chan struct{}, o.Config.Concurrency), news: make(chan struct{}, 1),
		rules: make([]pluginRun, len(o.Config.Rules)),
	}, nil
}

// Name is the check's name.
func (m *PluginMonitor) Name() string { return m.o.Name }

// Conditions are what NPD would publish as conditions of the Node; one is missing until its programs have run.
func (m *PluginMonitor) Conditions() []Condition {
	m.mu.Lock()
	defer m.mu.Unlock()
	return conditions(m.o.Config.Conditions, m.state.Said)
}

// Look starts what is due and says what stands.
func (m *PluginMonitor) Look(ctx context.Context) health.Result {
	m.mu.Lock()
	err := m.enterBoot(ctx)
	if err == nil {
		m.startDue(ctx)
	}
	m.mu.Unlock()
	if err == nil {
		m.awaitFirst(ctx)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err != nil {
		return health.CouldNotLook(health.ReasonCannotRead, err, m.findings())
	}
	if m.dirty {
		m.save(ctx)
	}
	return m.result()
}

// Wait returns when a program has ended or the next one is due.
func (m *PluginMonitor) Wait(ctx context.Context) error {
	m.mu.Lock()
	next := time.Hour
	for i := range m.rules {
		if !m.rules[i].running {
			next = min(next, m.rules[i].due.Sub(m.o.Now()))
		}
	}
	m.mu.Unlock()
	timer := time.NewTimer(max(next, time.Millisecond))
	defer timer.Stop()
	select {
	case <-m.news:
		return nil
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Close kills what runs and saves the state.
func (m *PluginMonitor) Close(ctx context.Context) error {
	m.mu.Lock()
	if m.stop != nil {
		m.stop()
	}
	m.mu.Unlock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		m.running.Wait()
	}()
	select {
	case <-done:
	case <-ctx.Done():
		return fmt.Errorf("%s: waiting for programs to end: %w", m.o.Name, context.Cause(ctx))
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.dirty {
		m.save(ctx)
	}
	return m.saveErr
}

// startDue starts the programs whose time has come. NPD starts them on a common beat; here each has its own.
func (m *PluginMonitor) startDue(ctx context.Context) {
	if m.base == nil {
		m.base, m.stop = context.WithCancel(context.WithoutCancel(ctx))
	}
	now := m.o.Now()
	for i := range m.rules {
		if r := &m.rules[i]; !r.running && !now.Before(r.due) && m.base.Err() == nil {
			r.running, r.due = true, now.Add(m.o.Config.Rules[i].Interval)
			m.running.Add(1)
			go m.run(m.base, i) //nolint:contextcheck // A program may outlast the look that starts it; Close ends it.
		}
	}
}

// awaitFirst waits until every program has ended once, or the look's time is up.
func (m *PluginMonitor) awaitFirst(ctx context.Context) {
	for m.waiting() {
		select {
		case <-m.news:
		case <-ctx.Done():
			return
		}
	}
}

func (m *PluginMonitor) waiting() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.ContainsFunc(m.rules, func(r pluginRun) bool { return r.running && !r.ran })
}

// run runs one rule's program and takes what it said.
func (m *PluginMonitor) run(ctx context.Context, i int) {
	defer m.running.Done()
	select {
	case m.slots <- struct{}{}:
	case <-ctx.Done():
		return
	}
	rule := m.o.Config.Rules[i]
	ran, err := m.o.Programs.RunProgram(ctx, machine.Program{
		Root: m.o.Root, Dir: m.o.Dir, Path: rule.Path, Args: withoutRepair(rule.Path, rule.Args, m.o.AllowRepair), Env: m.o.Env,
		Timeout: rule.Timeout, MaxOutput: config.MaxOutput,
	})
	<-m.slots
	m.mu.Lock()
	m.rules[i].running = false
	if ctx.Err() == nil {
		m.rules[i].ran = true
		status, message := verdict(rule, ran, err, m.o.Config.MaxOutput)
		m.take(rule, status, message)
	}
	m.mu.Unlock()
	select {
	case m.news <- struct{}{}:
	default:
	}
}

// verdict is what a run says: exit code 0 is well, 1 a problem, and all else that it could not tell.
func verdict(rule config.PluginRule, ran machine.Ran, err error, most int) (Status, string) {
	output := strings.TrimSpace(printable(string(ran.Stdout)))
	switch {
	case err != nil:
		return Unknown, cut("cannot run: "+err.Error(), max(most, 80))
	case ran.TimedOut:
		return Unknown, cut(fmt.Sprintf("timed out after %s: %s", rule.Timeout, output), most)
	case ran.Exit == 0:
		return False, cut(output, most)
	case ran.Exit == 1:
		return True, cut(output, most)
	case output == "":
		return Unknown, cut(ran.State, most)
	}
	return Unknown, cut(output, most)
}

// cut cuts to at most n bytes between characters, without a mark, as NPD does.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "")
}

// withoutRepair takes from NPD's health-checker the repair that its arguments, and already its defaults, ask for: a restart
// of a service is an act, and acts are the controller's.
func withoutRepair(program string, args []string, allow bool) []string {
	const flag = "--enable-repair"
	asked := func(a string) bool { return a == flag || strings.HasPrefix(a, flag+"=") }
	if allow || path.Base(program) != "health-checker" && !slices.ContainsFunc(args, asked) {
		return args
	}
	return append(slices.DeleteFunc(slices.Clone(args), asked), flag+"=false")
}

// id says which rule a state is of.
func id(r config.PluginRule) string {
	return strings.Join(append([]string{fmt.Sprint(r.Permanent), r.Condition, r.Reason, r.Path}, r.Args...), "\x00")
}

// take folds in what a program said.
func (m *PluginMonitor) take(rule config.PluginRule, status Status, message string) {
	now := m.o.Now()
	was := m.state.Rules[id(rule)]
	next := ruleState{Status: status, Message: message, Problem: was.Problem}
	switch {
	case status == False:
		next.Problem = nil
	case status == True && was.Problem == nil:
		next.Problem = &problem{
			key: keyOf(rule.Rule), Severity: rule.Severity, Recommended: rule.Recommended, First: now, Last: now, Count: 1, Message: message,
		}
	case status == True:
		p := *was.Problem
		p.Last, p.Message, p.Severity, p.Recommended = now, message, rule.Severity, rule.Recommended
		p.Count++
		next.Problem = &p
	}
	m.state.Rules[id(rule)] = next
	// Counts are worth no write: after a restart the program runs again at once.
	if was.Status != next.Status || (was.Problem == nil) != (next.Problem == nil) {
		m.dirty = true
	}
	m.speak(now)
}

// speak says each condition anew.
func (m *PluginMonitor) speak(now time.Time) {
	for _, d := range m.o.Config.Conditions {
		status, reason, message, known := m.opinion(d)
		if !known {
			continue
		}
		was := m.state.Said[d.Type]
		if next := was.say(status, reason, message, now, m.o.Config.MessageChanges); next != was {
			m.state.Said[d.Type], m.dirty = next, true
		}
	}
}

// opinion is the worst of a condition's rules: a problem, the most severe first; else that one of them cannot tell; else
// that all is well. It is not known until all have run, unless one has found a problem: NPD's first word, that all is well,
// is not known then.
func (m *PluginMonitor) opinion(d config.Condition) (status Status, reason, message string, known bool) {
	status, reason, message, known = False, d.Reason, d.Message, true
	worst := 3
	for _, r := range m.o.Config.Rules {
		if !r.Permanent || r.Condition != d.Type {
			continue
		}
		s, ran := m.state.Rules[id(r)]
		known = known && ran
		switch {
		case s.Status == True && rank(r.Severity) < worst:
			worst = rank(r.Severity)
			status, reason, message = True, r.Reason, s.Message
		case s.Status == Unknown && status == False:
			status, message = Unknown, s.Message
		}
	}
	return status, reason, message, known || status == True
}

func (m *PluginMonitor) enterBoot(ctx context.Context) error {
	boot, err := m.o.Machine.BootID(ctx)
	if err != nil {
		return err
	}
	if !m.loaded {
		m.state = m.load(ctx)
		m.loaded = true
	}
	if m.state.BootID != boot {
		m.state = pluginState{BootID: boot}
	}
	if m.state.Rules == nil {
		m.state.Rules = make(map[string]ruleState)
	}
	if m.state.Said == nil {
		m.state.Said = make(map[string]said)
	}
	return nil
}

// load takes up what was saved. Without it only the beginnings of problems are lost: the programs run again at once.
func (m *PluginMonitor) load(ctx context.Context) pluginState {
	var s pluginState
	data, err := m.o.Machine.Load(ctx, m.o.Name+".json")
	if err == nil {
		err = json.Unmarshal(data, &s)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		m.saveErr = fmt.Errorf("reading %s.json: %w", m.o.Name, err)
		return pluginState{}
	}
	for k := range s.Rules {
		if !slices.ContainsFunc(m.o.Config.Rules, func(r config.PluginRule) bool { return id(r) == k }) {
			delete(s.Rules, k)
		}
	}
	return s
}

func (m *PluginMonitor) save(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, saveTimeout)
	defer cancel()
	data, err := json.Marshal(m.state)
	if err == nil {
		err = m.o.Machine.Save(ctx, m.o.Name+".json", data)
	}
	m.saveErr, m.dirty = err, err != nil
}

// findings are the problems that stand, one a code.
func (m *PluginMonitor) findings() []health.Finding {
	var problems []problem
	codes := make(map[key]string, len(m.o.Config.Rules))
	for _, r := range m.o.Config.Rules {
		codes[keyOf(r.Rule)] = r.Code
		if p := m.state.Rules[id(r)].Problem; p != nil {
			problems = append(problems, *p)
		}
	}
	s := logState{Problems: problems}
	out := s.findings(m.o.Name, codes, nil)
	for i := range out {
		out[i].ClearedBy = health.ClearedByLook
	}
	return out
}

// result is what stands. A problem is said even when another program could not tell.
func (m *PluginMonitor) result() health.Result {
	r := health.Result{Findings: m.findings()}
	r.Outcome = health.OutcomeOf(r.Findings)
	reason := ""
	for i, rule := range m.o.Config.Rules {
		s, ok := m.state.Rules[id(rule)]
		switch {
		case reason == "" && ok && s.Status == Unknown:
			reason, r.Message = ReasonPlugin, health.Bound(rule.Path+": "+s.Message, health.MaxMessage)
		case reason == "" && !m.rules[i].ran:
			reason, r.Message = ReasonNotYetRun, health.Bound(rule.Path+" has not ended yet", health.MaxMessage)
		}
	}
	if reason == "" && m.saveErr != nil {
		r.Message = health.Bound("state is not kept: "+m.saveErr.Error(), health.MaxMessage)
	}
	if reason != "" && r.Outcome == health.Passing {
		r.Outcome, r.Reason = health.Unknown, reason
	}
	return r
}
