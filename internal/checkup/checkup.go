// Package checkup looks at this machine once, with every check that the agent has and without a cluster: what a person
// runs over ssh. It changes nothing on the machine.
package checkup

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/health"
	"github.com/roundhouse-dev/roundhouse/internal/machine"
)

// Bounds of one check's looks. A check that asks to look again is waiting for what it saw to settle.
const (
	maxLooks = 64
	// unreadLooks is how often a check that cannot read is asked: a state file is waited for as long.
	unreadLooks = 3
	unreadPause = 100 * time.Millisecond
	// grace is how much longer than the deadline a look may take to say what it could not see.
	grace = time.Second
)

// Options say what is looked at.
type Options struct {
	// Checks are looked with side by side.
	Checks []health.Check
	// Within is the time that all looks together may take; a check that has not come back by then is Unknown.
	Within time.Duration
}

// Report is what was seen. It is what -o json prints.
type Report struct {
	// Version is the program's, Host the machine's name.
	Version string `json:"version"`
	Host    string `json:"host,omitempty"`
	// BootID is the kernel's, and Booted when it started.
	BootID string     `json:"bootID,omitempty"`
	Booted *time.Time `json:"booted,omitempty"`
	// Summary is Faulty, Unknown or Healthy.
	Summary v1alpha1.Summary  `json:"summary"`
	Devices []v1alpha1.Device `json:"devices"`
	Checks  []Check           `json:"checks"`
	// Faults are by severity, roots first; Dropped counts those beyond the list's bound.
	Faults  []v1alpha1.Fault `json:"faults"`
	Dropped int32            `json:"faultsDropped,omitempty"`
}

// Check is what came of one check.
type Check struct {
	Name   string         `json:"name"`
	Result health.Outcome `json:"result"`
	Reason string         `json:"reason,omitempty"`
	// Looked says what was looked at, and Message what could not be seen or is worth knowing.
	Looked  string `json:"looked,omitempty"`
	Message string `json:"message,omitempty"`
}

// Exit codes of the command.
const (
	ExitHealthy = 0
	ExitFaulty  = 1
	ExitUnknown = 2
	// ExitUsage is for a command line that cannot be read.
	ExitUsage = 3
)

// Exit is the report as an exit code. A fault that was seen goes before what could not be seen.
func (r *Report) Exit() int {
	switch r.Summary {
	case v1alpha1.SummaryFaulty:
		return ExitFaulty
	case v1alpha1.SummaryUnknown:
		return ExitUnknown
	default:
		return ExitHealthy
	}
}

// Run looks with every check at once and puts what they found together.
func Run(ctx context.Context, o Options) *Report {
	ctx, cancel := context.WithTimeout(ctx, o.Within)
	defer cancel()
	results := make([]health.Result, len(o.Checks))
	var wait sync.WaitGroup
	for i, c := range o.Checks {
		wait.Go(func() { results[i] = settle(ctx, c) })
	}
	wait.Wait()
	r := &Report{Devices: []v1alpha1.Device{}, Checks: []Check{}, Faults: []v1alpha1.Fault{}, Summary: v1alpha1.SummaryHealthy}
	var findings []health.Finding
	var blind bool
	for i, res := range results {
		findings = append(findings, res.Findings...)
		if res.Devices != nil {
			r.Devices, blind = res.Devices, res.Outcome == health.Unknown
		}
		r.Checks = append(r.Checks, Check{
			Name: o.Checks[i].Name(), Result: res.Outcome, Reason: res.Reason, Looked: res.Looked, Message: res.Message,
		})
	}
	findings = health.Group(health.Identify(findings, r.Devices))
	r.Devices = health.WithHealth(r.Devices, findings, blind)
	r.Faults, r.Dropped = health.Faults(findings)
	r.Summary = health.Summary(r.Faults, slices.ContainsFunc(r.Checks, func(c Check) bool { return c.Result == health.Unknown }))
	slices.SortStableFunc(r.Checks, func(a, b Check) int { return strings.Compare(a.Name, b.Name) })
	return r
}

// Machine tells which machine it is.
type Machine interface {
	machine.Booter
	machine.Namer
}

// Identify adds which machine the report is of, as far as it can be read; the checks say what could not be.
func (r *Report) Identify(ctx context.Context, m Machine) {
	r.Host, r.BootID = "this machine", ""
	if name, err := m.Hostname(ctx); err == nil {
		r.Host = name
	}
	if id, err := m.BootID(ctx); err == nil {
		r.BootID = id
	}
	if at, err := m.BootTime(ctx); err == nil {
		r.Booted = &at
	}
}

// settle looks until the check no longer asks to look again, or until the time is up.
func settle(ctx context.Context, c health.Check) health.Result {
	var r health.Result
	for n := range maxLooks {
		r = look(ctx, c)
		pause := r.Again
		if r.Outcome == health.Unknown && r.Reason == health.ReasonCannotRead {
			if pause = unreadPause; n+1 >= unreadLooks {
				return r
			}
		}
		if pause == 0 || !sleep(ctx, pause) {
			return r
		}
	}
	return r
}

// look looks once. A look that does not come back is left behind: this process ends soon.
func look(ctx context.Context, c health.Check) health.Result {
	done := make(chan health.Result, 1)
	go func() { done <- health.Contained(ctx, c) }()
	select {
	case r := <-done:
		return r
	case <-ctx.Done():
	}
	late := time.NewTimer(grace)
	defer late.Stop()
	select {
	case r := <-done:
		return r
	case <-late.C:
		return health.Result{Outcome: health.Unknown, Reason: health.ReasonTimedOut, Message: "no answer before the time was up"}
	}
}

// sleep says false where the time would be up before the pause is over: what was seen last is then the answer.
func sleep(ctx context.Context, d time.Duration) bool {
	if end, ok := ctx.Deadline(); ok && time.Until(end) <= d {
		return false
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
