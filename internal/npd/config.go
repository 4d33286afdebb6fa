package npd

import (
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"regexp/syntax"
	"slices"
	"time"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

// Bounds of a configuration. NPD has none of them but the first of plugins; each is far above what its own files use.
const (
	// MaxFile is the size of a file in bytes.
	MaxFile = 1 << 20
	// MaxRules and MaxConditions bound one file's lists.
	MaxRules      = 256
	MaxConditions = 32
	// MaxBuffer is the most lines a pattern may span.
	MaxBuffer = 1000
	// MaxPattern is the length of a pattern in bytes.
	MaxPattern = 4096
	// MaxOutput is how much of a plugin's output is read, in bytes, as in NPD.
	MaxOutput = 4096
	// MaxConcurrency bounds how many plugins of one file run at the same time.
	MaxConcurrency = 64
	// MaxDuration bounds every duration.
	MaxDuration = 366 * 24 * time.Hour
)

// The sources of a log monitor.
const (
	Kmsg     = "kmsg"
	Filelog  = "filelog"
	Journald = "journald"
)

// custom is the one plugin of a custom plugin monitor.
const custom = "custom"

// Warning is something that does no harm and is worth a human's look.
type Warning struct {
	// File and Field say where; Field is a path such as rules[2].pattern.
	File, Field string
	// Message says what is odd and what to do.
	Message string
}

// String is one line.
func (w Warning) String() string { return fmt.Sprintf("%s: %s: %s", w.File, w.Field, w.Message) }

// Error is why a file cannot be used.
type Error struct {
	File, Field string
	// Err says what is wrong and what to do.
	Err error
}

// Error is one line.
func (e *Error) Error() string {
	if e.Field == "" {
		return fmt.Sprintf("%s: %v", e.File, e.Err)
	}
	return fmt.Sprintf("%s: %s: %v", e.File, e.Field, e.Err)
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// Config is one file: exactly one of Log and Plugin is set.
type Config struct {
	Log      *Log
	Plugin   *Plugin
	Warnings []Warning
}

// Common is what both kinds have.
type Common struct {
	// File is the name the configuration was read from.
	File string
	// Source names the monitor in events.
	Source string
	// Conditions are in the file's order.
	Conditions []Condition
	// Metrics says whether NPD would count this file's problems in its metrics.
	Metrics bool
}

// Condition is a Node condition with what it says while nothing is wrong.
type Condition struct {
	Type, Reason, Message string
}

// Find is the condition of the type.
func (c *Common) Find(conditionType string) (Condition, bool) {
	for _, d := range c.Conditions {
		if d.Type == conditionType {
			return d, true
		}
	}
	return Condition{}, false
}

// Rule is what rules of both kinds have.
type Rule struct {
	// Permanent problems set the condition; temporary ones are told and fade.
	Permanent bool
	// Condition is the type of the condition of a permanent problem.
	Condition string
	// Reason is as written, and Code is Reason as a fault's code: letters and digits, at most 64.
	Reason, Code string
	// Severity is Info for a temporary problem; Warning, or what the file's own block says, for a permanent one.
	Severity v1alpha1.Severity
	// Recommended is what the file's own block says; None otherwise.
	Recommended v1alpha1.Recommendation
}

// Log is the configuration of a system log monitor.
type Log struct {
	Common
	// Plugin is Kmsg, Filelog or Journald.
	Plugin string
	// Path is the file, or the journal's directory; kmsg has one place only.
	Path string
	// Identifier is the SYSLOG_IDENTIFIER of a journald monitor.
	Identifier string
	// Translator reads the lines of a filelog monitor.
	Translator *Translator
	// Skip are texts; a line of a file that contains one is not read. NPD asks this of filelog only.
	Skip []string
	// Buffer is how many lines a pattern can span.
	Buffer int
	// Lookback and Delay bound what is read at the first start in a boot: nothing before now less Lookback, nothing
	// before the boot plus Delay.
	Lookback, Delay time.Duration
	Rules           []LogRule
}

// LogRule is a rule of a log monitor.
type LogRule struct {
	Rule
	// Pattern has NPD's end anchor already.
	Pattern *Pattern
	// Suffix is added to the message.
	Suffix string
	// ClearAfter, where above zero, ends the problem that long after it was last seen.
	ClearAfter time.Duration
	// ClearPattern, where set, ends the problem when it matches.
	ClearPattern *Pattern
}

// Plugin is the configuration of a custom plugin monitor.
type Plugin struct {
	Common
	Interval, Timeout time.Duration
	// MaxOutput is the length of a message in bytes.
	MaxOutput   int
	Concurrency int
	// MessageChanges says that a change of the message alone updates the condition.
	MessageChanges bool
	// SkipInitial says that no condition is published before the first result.
	SkipInitial bool
	Rules       []PluginRule
}

// PluginRule is a rule of a custom plugin monitor.
type PluginRule struct {
	Rule
	Path string
	Args []string
	// Timeout and Interval are the rule's own, or else the file's.
	Timeout, Interval time.Duration
}

// Validate gives NPD's error for a plugin that is not there. exists answers fs.ErrNotExist for that; any other error is,
// as in NPD, for the run to show.
func (p *Plugin) Validate(exists func(path string) error) error {
	for i := range p.Rules {
		path := p.Rules[i].Path
		if err := exists(path); errors.Is(err, fs.ErrNotExist) {
			return &Error{p.File, fmt.Sprintf("rules[%d].path", i), fmt.Errorf("%q does not exist; mount it, or correct the path: %w", path, err)}
		}
	}
	return nil
}

// Pattern is a regular expression that must match to the end of the buffered lines.
type Pattern struct {
	text string
	re   *regexp.Regexp
	// oneLine says that nothing in the pattern can match a newline or look at the start of the text, so that the last line
	// alone decides; most rules are so, and a storm of lines is then cheap.
	oneLine bool
	// loose says that the anchor does not bind to every branch.
	loose bool
}

// CompilePattern appends the anchor as NPD does, so that it binds to the last branch of an alternation alone.
func CompilePattern(text string) (*Pattern, error) {
	if len(text) > MaxPattern {
		return nil, fmt.Errorf("is %d bytes long, at most %d are allowed; split the rule", len(text), MaxPattern)
	}
	// Alone first, so that an error shows the text as it was written.
	if _, err := regexp.Compile(text); err != nil {
		return nil, fmt.Errorf("is no RE2 expression: %w", err)
	}
	re, err := regexp.Compile(text + `\z`)
	if err != nil {
		return nil, fmt.Errorf("with the end anchor that is appended, is no RE2 expression: %w", err)
	}
	p := &Pattern{text: text, re: re}
	as, err1 := syntax.Parse(text+`\z`, syntax.Perl)
	grouped, err2 := syntax.Parse(`(?:`+text+`)\z`, syntax.Perl)
	if err1 == nil && err2 == nil {
		p.loose = !as.Equal(grouped)
		p.oneLine = !p.loose && withinLine(as)
	}
	return p, nil
}

// withinLine says that the expression matches no newline and has no anchor at a start or at the end of a line.
func withinLine(e *syntax.Regexp) bool {
	switch e.Op {
	case syntax.OpAnyChar, syntax.OpBeginLine, syntax.OpEndLine, syntax.OpBeginText:
		return false
	case syntax.OpLiteral:
		if slices.Contains(e.Rune, '\n') {
			return false
		}
	case syntax.OpCharClass:
		for i := 0; i+1 < len(e.Rune); i += 2 {
			if e.Rune[i] <= '\n' && e.Rune[i+1] >= '\n' {
				return false
			}
		}
	default:
	}
	return !slices.ContainsFunc(e.Sub, func(sub *syntax.Regexp) bool { return !withinLine(sub) })
}

// String is the pattern as it was written.
func (p *Pattern) String() string { return p.text }
