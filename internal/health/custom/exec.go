package custom

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"regexp"
	"strings"
	"time"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/health"
	"github.com/roundhouse-dev/roundhouse/internal/machine"
)

// Reasons of Unknown beside those of package health.
const (
	// ReasonExit means that the program ended with another code than 0 or 1, or by a signal.
	ReasonExit = "ProgramUnknown"
	// ReasonCannotRun means that the program did not start.
	ReasonCannotRun = "CannotRun"
	// ReasonBadOutput means that the program's output is JSON and not of the contract's form.
	ReasonBadOutput = "BadOutput"
	// ReasonCannotEvaluate means that an expression could not be evaluated: a fact that it asks for is not there.
	ReasonCannotEvaluate = "CannotEvaluate"
)

const (
	// maxOutput is how much of a program's output is read, in bytes, and maxFindings how many findings it may give.
	maxOutput   = 64 << 10
	maxFindings = 32
)

// ExecOptions configure an ExecCheck.
type ExecOptions struct {
	Config   Config
	Programs machine.ProgramRunner
	// Env is added to the program's environment, such as NODE_NAME.
	Env []string
	// Now is the clock; time.Now when nil.
	Now func() time.Time
}

// ExecCheck is a program that checks something. Its exit code is 0 when all is well, 1 when something is wrong, and
// anything else when it could not tell.
type ExecCheck struct {
	o        ExecOptions
	standing standing
}

var _ health.Check = (*ExecCheck)(nil)

// NewExecCheck returns the check; a program that is not there is an error.
func NewExecCheck(ctx context.Context, o ExecOptions) (*ExecCheck, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	c := &ExecCheck{o: o, standing: standing{check: checkName(o.Config)}}
	if err := o.Programs.FindProgram(ctx, c.program()); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: exec.path: %w; correct the path, or mount it", o.Config.File, err)
	}
	return c, nil
}

func checkName(c Config) string { return "custom-" + c.Name }

// Name is custom- and the name of the configuration.
func (c *ExecCheck) Name() string { return c.standing.check }

// Schedule is how often to look, and after how long to give a look up.
func (c *ExecCheck) Schedule() (every, timeout time.Duration) { return schedule(c.o.Config) }

// schedule gives a look the time to say itself that its program took too long.
func schedule(c Config) (every, timeout time.Duration) {
	return c.Every.Duration, c.Timeout.Duration + 5*time.Second
}

func (c *ExecCheck) program() machine.Program {
	e := c.o.Config.Exec
	return machine.Program{
		Root: e.Root, Path: e.Path, Args: e.Args, Env: c.o.Env, Timeout: c.o.Config.Timeout.Duration, MaxOutput: maxOutput,
	}
}

// Look runs the program once.
func (c *ExecCheck) Look(ctx context.Context) health.Result {
	ran, err := c.o.Programs.RunProgram(ctx, c.program())
	switch {
	case errors.Is(err, machine.ErrStuck), errors.Is(err, context.DeadlineExceeded):
		return c.standing.unknown(health.ReasonTimedOut, err.Error())
	case err != nil:
		return c.standing.unknown(ReasonCannotRun, err.Error())
	case ran.TimedOut:
		return c.standing.unknown(health.ReasonTimedOut, fmt.Sprintf("no end within %s: %s", c.o.Config.Timeout.Duration, firstLine(ran)))
	case ran.Exit != 0 && ran.Exit != 1:
		return c.standing.unknown(ReasonExit, strings.TrimSuffix(ran.State+": "+firstLine(ran), ": "))
	}
	all, err := interpret(ran, c.o.Config.Finding)
	if err != nil {
		return c.standing.unknown(ReasonBadOutput, err.Error())
	}
	findings := c.standing.settle(c.o.Config.Finding.Class, all, c.o.Now())
	return health.Result{Outcome: health.OutcomeOf(findings), Findings: findings}
}

// firstLine is what a program says where it gives no findings: the first line of its output, else of its errors.
func firstLine(ran machine.Ran) string {
	for _, out := range [][]byte{ran.Stdout, ran.Stderr} {
		line, _, _ := strings.Cut(strings.TrimSpace(printable(string(out))), "\n")
		if line != "" {
			return line
		}
	}
	return ""
}

// output is the contract's JSON.
type output struct {
	Findings []outputFinding `json:"findings"`
}

type outputFinding struct {
	Code        string                  `json:"code"`
	Device      string                  `json:"device"`
	PCI         string                  `json:"pci"`
	Severity    v1alpha1.Severity       `json:"severity"`
	Recommended v1alpha1.Recommendation `json:"recommended"`
	Message     string                  `json:"message"`
}

// interpret says what a run with exit code 0 or 1 found.
func interpret(ran machine.Ran, otherwise Finding) ([]found, error) {
	text := bytes.TrimSpace(ran.Stdout)
	if !bytes.HasPrefix(text, []byte("{")) {
		if ran.Exit == 0 {
			return nil, nil
		}
		message := firstLine(ran)
		if message == "" {
			message = otherwise.Message
		}
		return []found{{Code: otherwise.Code, Severity: otherwise.Severity, Recommended: otherwise.Recommended, Message: message}}, nil
	}
	if ran.Cut {
		return nil, fmt.Errorf("stdout is longer than %d bytes", maxOutput)
	}
	all, err := parseOutput(text, otherwise)
	if err != nil {
		return nil, err
	}
	if ran.Exit == 1 && len(all) == 0 {
		return nil, errors.New("exit code 1 and no findings; give one, or exit with 0")
	}
	for _, f := range all {
		if ran.Exit == 0 && f.Severity != v1alpha1.SeverityInfo {
			return nil, fmt.Errorf("exit code 0 and a finding %s of severity %s; exit with 1 when something is wrong", f.Code, f.Severity)
		}
	}
	return all, nil
}

// parseOutput reads the contract's JSON strictly.
func parseOutput(text []byte, otherwise Finding) ([]found, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	var o output
	if err := d.Decode(&o); err != nil {
		return nil, fmt.Errorf("stdout: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("stdout: there is something after the JSON object")
	}
	if len(o.Findings) > maxFindings {
		return nil, fmt.Errorf("stdout: %d findings, at most %d are allowed", len(o.Findings), maxFindings)
	}
	out := make([]found, 0, len(o.Findings))
	for i, f := range o.Findings {
		got, err := f.check(otherwise)
		if err != nil {
			return nil, fmt.Errorf("stdout: findings[%d].%w", i, err)
		}
		out = append(out, got)
	}
	return out, nil
}

// pciForm is an address as the agent writes it.
var pciForm = regexp.MustCompile(`^[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$`)

func (f outputFinding) check(otherwise Finding) (found, error) {
	if f.Severity == "" {
		f.Severity = otherwise.Severity
	}
	if f.Recommended == "" {
		f.Recommended = otherwise.Recommended
	}
	f.PCI = strings.ToLower(f.PCI)
	switch {
	case !codeForm.MatchString(f.Code):
		return found{}, fmt.Errorf("code: %q: write a CamelCase word of at most 64 letters and digits", clip(f.Code, 80))
	case f.PCI != "" && !pciForm.MatchString(f.PCI):
		return found{}, fmt.Errorf("pci: %q: write an address such as 0000:18:00.0", clip(f.PCI, 40))
	case f.PCI != "" && f.Device != "":
		return found{}, errors.New("device: write device or pci, and not both")
	case len(f.Device) > 128:
		return found{}, errors.New("device: write at most 128 bytes")
	case oneOf(f.Severity, severities) != nil:
		return found{}, fmt.Errorf("severity: %w", oneOf(f.Severity, severities))
	case oneOf(f.Recommended, recommendations) != nil:
		return found{}, fmt.Errorf("recommended: %w", oneOf(f.Recommended, recommendations))
	}
	return found{f.Code, printable(f.Device), f.PCI, f.Severity, f.Recommended, printable(f.Message)}, nil
}
