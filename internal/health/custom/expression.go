package custom

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/health"
	"github.com/roundhouse-dev/roundhouse/internal/machine"
)

// Facts are what an expression can ask for, under the names of the JSON tags. What could not be read is left out, so that
// an expression that asks for it is an error and never false.
type Facts struct {
	// Node is the name of the node, and Now the time.
	Node string    `json:"node"`
	Now  time.Time `json:"now"`
	// Boot is this boot.
	Boot *BootFacts `json:"boot,omitempty"`
	// Devices are the accelerators, as published.
	Devices []v1alpha1.Device `json:"devices,omitzero"`
	// Faults are what stands, as published.
	Faults []v1alpha1.Fault `json:"faults,omitzero"`
	// NVML is the last report of NVIDIA's library.
	NVML *machine.NVMLReport `json:"nvml,omitempty"`
}

// BootFacts are of one boot.
type BootFacts struct {
	ID            string    `json:"id"`
	At            time.Time `json:"at"`
	UptimeSeconds int64     `json:"uptimeSeconds"`
}

// ProtocolVersion is the version of Question and Answer; another one is not understood.
const ProtocolVersion = 1

// Question is what the process that evaluates CEL is asked.
type Question struct {
	Version    int    `json:"version"`
	Expression string `json:"expression"`
	Each       string `json:"each,omitempty"`
	// Facts is left out to have the expression compiled alone.
	Facts json.RawMessage `json:"facts,omitempty"`
}

// Answer is what it answers.
type Answer struct {
	Version int `json:"version"`
	// Compile says what is wrong with the expression, with the place; empty when nothing is.
	Compile string `json:"compile,omitempty"`
	// Error says why nothing could be evaluated.
	Error string `json:"error,omitempty"`
	// Values are one, or one for each element, in order.
	Values []Value `json:"values,omitempty"`
}

// Value is what the expression gave, once.
type Value struct {
	True bool `json:"true,omitempty"`
	// Error says why it gave nothing.
	Error string `json:"error,omitempty"`
	// PCI is the address of the element, and Device its ID, where it has them.
	PCI    string `json:"pci,omitempty"`
	Device string `json:"device,omitempty"`
}

// Evaluator evaluates expressions.
type Evaluator interface {
	Evaluate(ctx context.Context, q Question) (Answer, error)
}

// Helper evaluates in a process of its own, cmd/roundhouse-cel, which it starts for each question.
type Helper struct {
	Programs machine.ProgramRunner
	// Path is the helper's file.
	Path string
	// Args are given to it.
	Args []string
	// Timeout bounds one question.
	Timeout time.Duration
}

var _ Evaluator = Helper{}

// maxAnswer bounds what the helper may say, in bytes.
const maxAnswer = 256 << 10

// Evaluate starts the helper and asks it one question.
func (h Helper) Evaluate(ctx context.Context, q Question) (Answer, error) {
	q.Version = ProtocolVersion
	question, err := json.Marshal(q)
	if err != nil {
		return Answer{}, fmt.Errorf("asking the CEL helper: %w", err)
	}
	ran, err := h.Programs.RunProgram(ctx, machine.Program{
		Path: h.Path, Args: h.Args, Stdin: question, Timeout: h.Timeout, MaxOutput: maxAnswer, Env: []string{"GOMEMLIMIT=64MiB", "GOMAXPROCS=1"},
	})
	switch {
	case err != nil:
		return Answer{}, fmt.Errorf("asking the CEL helper: %w", err)
	case ran.TimedOut:
		return Answer{}, fmt.Errorf("asking the CEL helper: no answer within %s: %w", h.Timeout, machine.ErrStuck)
	case ran.Exit != 0:
		return Answer{}, fmt.Errorf("asking the CEL helper: %s: %s", ran.State, clip(printable(string(ran.Stderr)), 120))
	}
	var a Answer
	if err := json.Unmarshal(ran.Stdout, &a); err != nil {
		return Answer{}, fmt.Errorf("reading the CEL helper's answer: %w", err)
	}
	if a.Version != ProtocolVersion {
		return Answer{}, fmt.Errorf("the CEL helper speaks version %d, and this agent %d: install both from one release", a.Version, ProtocolVersion)
	}
	return a, nil
}

// CELOptions configure a CELCheck.
type CELOptions struct {
	Config    Config
	Evaluator Evaluator
	// Facts gathers what expressions can ask for.
	Facts func(ctx context.Context) (Facts, error)
	// Now is the clock; time.Now when nil.
	Now func() time.Time
}

// CELCheck is an expression over facts.
type CELCheck struct {
	o        CELOptions
	standing standing
}

var _ health.Check = (*CELCheck)(nil)

// NewCELCheck returns the check; an expression that does not compile is an error. A helper that cannot be asked is not: the
// check will be Unknown, and say so.
func NewCELCheck(ctx context.Context, o CELOptions) (*CELCheck, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if a, err := o.Evaluator.Evaluate(ctx, Question{Expression: o.Config.CEL.Expression, Each: o.Config.CEL.Each}); err == nil && a.Compile != "" {
		return nil, fmt.Errorf("%s: cel.expression: %s", o.Config.File, a.Compile)
	}
	return &CELCheck{o: o, standing: standing{check: checkName(o.Config)}}, nil
}

// Name is custom- and the name of the configuration.
func (c *CELCheck) Name() string { return c.standing.check }

// Schedule is how often to look, and after how long to give a look up.
func (c *CELCheck) Schedule() (every, timeout time.Duration) { return schedule(c.o.Config) }

// Look evaluates the expression once.
func (c *CELCheck) Look(ctx context.Context) health.Result {
	ctx, cancel := context.WithTimeout(ctx, c.o.Config.Timeout.Duration)
	defer cancel()
	a, err := c.ask(ctx)
	switch {
	case errors.Is(err, machine.ErrStuck), errors.Is(err, context.DeadlineExceeded):
		return c.standing.unknown(health.ReasonTimedOut, err.Error())
	case err != nil:
		return c.standing.unknown(health.ReasonCannotRead, err.Error())
	case a.Compile != "" || a.Error != "":
		return c.standing.unknown(ReasonCannotEvaluate, a.Compile+a.Error)
	}
	return c.judge(a.Values)
}

func (c *CELCheck) ask(ctx context.Context) (Answer, error) {
	facts, err := c.o.Facts(ctx)
	if err != nil {
		return Answer{}, fmt.Errorf("gathering facts: %w", err)
	}
	data, err := json.Marshal(facts)
	if err != nil {
		return Answer{}, fmt.Errorf("gathering facts: %w", err)
	}
	return c.o.Evaluator.Evaluate(ctx, Question{Expression: c.o.Config.CEL.Expression, Each: c.o.Config.CEL.Each, Facts: data})
}

// judge makes findings of values. An element that could not be judged keeps what stood on it.
func (c *CELCheck) judge(values []Value) health.Result {
	f := c.o.Config.Finding
	message := f.Message
	if message == "" {
		message = c.o.Config.CEL.Expression
	}
	var all []found
	trouble := ""
	for _, v := range values {
		if v.Error != "" && trouble == "" {
			trouble = v.Error
		}
		if !v.True {
			continue
		}
		device := v.Device
		if v.PCI != "" {
			device = ""
		}
		all = append(all, found{f.Code, device, v.PCI, f.Severity, f.Recommended, message})
	}
	if trouble != "" {
		for i := range c.standing.findings {
			s := &c.standing.findings[i]
			all = append(all, found{s.Fault.Code, s.Fault.Device, s.PCI, s.Fault.Severity, s.Fault.Recommended, s.Fault.Evidence})
		}
	}
	r := health.Result{Findings: c.standing.settle(f.Class, all, c.o.Now())}
	r.Outcome = health.OutcomeOf(r.Findings)
	if trouble != "" {
		r.Message = health.Bound(trouble, health.MaxMessage)
		if r.Outcome == health.Passing {
			r.Outcome, r.Reason = health.Unknown, ReasonCannotEvaluate
		}
	}
	return r
}
