package npd

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

// The file's shapes. encoding/json matches keys in any case and keeps the last of two, as it does for NPD.
type (
	fileCondition struct {
		Type    string `json:"type"`
		Reason  string `json:"reason"`
		Message string `json:"message"`
		// Status and Transition are keys of NPD's type that it overwrites at start.
		Status     string          `json:"status"`
		Transition time.Time       `json:"transition"`
		Roundhouse json.RawMessage `json:"roundhouse"`
	}
	fileLogRule struct {
		Type       string          `json:"type"`
		Condition  string          `json:"condition"`
		Reason     string          `json:"reason"`
		Pattern    string          `json:"pattern"`
		Suffix     string          `json:"patternGeneratedMessageSuffix"`
		Roundhouse json.RawMessage `json:"roundhouse"`
	}
	fileLog struct {
		Plugin       string            `json:"plugin"`
		PluginConfig map[string]string `json:"pluginConfig"`
		SkipList     []string          `json:"skipList"`
		LogPath      string            `json:"logPath"`
		Lookback     string            `json:"lookback"`
		Delay        string            `json:"delay"`
		BufferSize   int               `json:"bufferSize"`
		Source       string            `json:"source"`
		Conditions   []fileCondition   `json:"conditions"`
		Rules        []fileLogRule     `json:"rules"`
		Metrics      *bool             `json:"metricsReporting"`
	}
	filePluginConfig struct {
		Interval       *string `json:"invoke_interval"`
		Timeout        *string `json:"timeout"`
		MaxOutput      *int    `json:"max_output_length"`
		Concurrency    *int    `json:"concurrency"`
		MessageChanges *bool   `json:"enable_message_change_based_condition_update"`
		SkipInitial    *bool   `json:"skip_initial_status"`
	}
	filePluginRule struct {
		Type       string          `json:"type"`
		Condition  string          `json:"condition"`
		Reason     string          `json:"reason"`
		Path       string          `json:"path"`
		Args       []string        `json:"args"`
		Timeout    *string         `json:"timeout"`
		Interval   *string         `json:"invoke_interval"`
		Roundhouse json.RawMessage `json:"roundhouse"`
	}
	filePlugin struct {
		Plugin       string            `json:"plugin"`
		PluginConfig filePluginConfig  `json:"pluginConfig"`
		Source       string            `json:"source"`
		Conditions   []fileCondition   `json:"conditions"`
		Rules        []*filePluginRule `json:"rules"`
		Metrics      *bool             `json:"metricsReporting"`
	}
)

// reader collects what is odd while one file is read.
type reader struct {
	file     string
	data     []byte
	warnings []Warning
}

func (r *reader) fail(field string, err error) error { return &Error{r.file, field, err} }

// maxWarnings bounds what is said of one file.
const maxWarnings = 64

func (r *reader) warn(field, format string, args ...any) {
	if len(r.warnings) < maxWarnings {
		r.warnings = append(r.warnings, Warning{r.file, field, fmt.Sprintf(format, args...)})
	}
}

// Parse reads a configuration of either kind. The plugin "custom" makes it a custom plugin monitor's.
func Parse(file string, data []byte) (*Config, error) {
	r := &reader{file: file, data: data}
	if len(data) > MaxFile {
		return nil, r.fail("", fmt.Errorf("has %d bytes, at most %d are allowed", len(data), MaxFile))
	}
	var kind struct {
		Plugin string `json:"plugin"`
	}
	if err := r.decode(&kind); err != nil {
		return nil, err
	}
	var c Config
	var err error
	switch kind.Plugin {
	case Kmsg, Filelog, Journald:
		c.Log, err = r.log()
	case custom:
		c.Plugin, err = r.plugin()
	case "":
		err = r.fail("plugin", errors.New("is missing; write kmsg, filelog or journald for a log monitor, custom for scripts"))
	default:
		err = r.fail("plugin", fmt.Errorf("is %q; supported are kmsg, filelog, journald and custom", clip(kind.Plugin)))
	}
	if err != nil {
		return nil, err
	}
	c.Warnings = r.warnings
	return &c, nil
}

// decode unmarshals the file and says where an error is.
func (r *reader) decode(into any) error {
	err := json.Unmarshal(r.data, into)
	if err == nil {
		return nil
	}
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		return r.fail("", fmt.Errorf("is no JSON: line %d: %w", r.line(syntax.Offset), syntax))
	case errors.As(err, &kind):
		return r.fail(kind.Field, fmt.Errorf("line %d: is a JSON %s; write a %s", r.line(kind.Offset), kind.Value, kindOf(kind)))
	}
	return r.fail("", err)
}

// kindOf names what JSON must have for the Go type.
func kindOf(e *json.UnmarshalTypeError) string {
	switch e.Type.Kind().String() {
	case "struct", "map":
		return "object"
	case "slice":
		return "list"
	case "int":
		return "whole number"
	}
	return e.Type.Kind().String()
}

func (r *reader) line(offset int64) int {
	return 1 + bytes.Count(r.data[:min(max(offset, 0), int64(len(r.data)))], []byte("\n"))
}

// log reads a log monitor's configuration.
func (r *reader) log() (*Log, error) {
	var f fileLog
	if err := r.decode(&f); err != nil {
		return nil, err
	}
	r.unknownKeys(logKeys)
	common, blocks, err := r.common(f.Source, f.Conditions, len(f.Rules), f.Metrics)
	if err != nil {
		return nil, err
	}
	l := &Log{Common: common, Plugin: f.Plugin, Path: f.LogPath, Skip: f.SkipList, Buffer: f.BufferSize}
	if l.Buffer == 0 {
		l.Buffer = 10
	}
	if l.Buffer < 0 || l.Buffer > MaxBuffer {
		return nil, r.fail("bufferSize", fmt.Errorf("is %d; write 1 to %d, or leave it out for 10", f.BufferSize, MaxBuffer))
	}
	if l.Lookback, err = r.optionalDuration("lookback", f.Lookback); err != nil {
		return nil, err
	}
	if l.Delay, err = r.optionalDuration("delay", f.Delay); err != nil {
		return nil, err
	}
	if err := r.source(l, f); err != nil {
		return nil, err
	}
	for i := range f.Rules {
		rule, err := r.logRule(i, f.Rules[i], &l.Common, blocks)
		if err != nil {
			return nil, err
		}
		l.Rules = append(l.Rules, rule)
	}
	return l, nil
}

func (r *reader) optionalDuration(field, s string) (time.Duration, error) {
	if s == "" {
		return 0, nil
	}
	d, err := duration(s)
	if err != nil {
		return 0, r.fail(field, err)
	}
	return d, nil
}

// source reads what each of the three sources needs.
func (r *reader) source(l *Log, f fileLog) error {
	if l.Plugin != Filelog && len(f.SkipList) > 0 {
		r.warn("skipList", "only filelog monitors have one; it is ignored, as NPD does")
	}
	for i, s := range f.SkipList {
		if s == "" {
			r.warn(fmt.Sprintf("skipList[%d]", i), "is empty, which every line contains: nothing would ever be read; it is kept, as NPD does")
		}
	}
	switch l.Plugin {
	case Journald:
		l.Identifier = f.PluginConfig["source"]
		if l.Identifier == "" {
			return r.fail("pluginConfig.source", errors.New("is missing; write the SYSLOG_IDENTIFIER to read, such as kubelet"))
		}
	case Filelog:
		if l.Path == "" {
			return r.fail("logPath", errors.New("is missing; write the file to read"))
		}
		return r.translator(l, f.PluginConfig)
	}
	return nil
}

func (r *reader) translator(l *Log, config map[string]string) error {
	t := &Translator{format: config["timestampFormat"]}
	if t.format == "" {
		return r.fail("pluginConfig.timestampFormat", errors.New("is missing; write the time 2006-01-02 15:04:05 as the log would"))
	}
	for _, e := range []struct {
		key  string
		into **regexp.Regexp
	}{{"timestamp", &t.timestamp}, {"message", &t.message}} {
		text := config[e.key]
		if text == "" {
			return r.fail("pluginConfig."+e.key, errors.New("is missing; write an expression whose last group is the "+e.key))
		}
		re, err := compile(text)
		if err != nil {
			return r.fail("pluginConfig."+e.key, err)
		}
		*e.into = re
	}
	l.Translator = t
	return nil
}

func (r *reader) logRule(i int, f fileLogRule, c *Common, blocks map[string]block) (LogRule, error) {
	field := fmt.Sprintf("rules[%d]", i)
	var rule LogRule
	common, b, err := r.rule(field, f.Type, f.Condition, f.Reason, f.Roundhouse, blocks)
	if err != nil {
		return rule, err
	}
	rule.Rule, rule.Suffix = common, f.Suffix
	if rule.Pattern, err = CompilePattern(f.Pattern); err != nil {
		return rule, r.fail(field+".pattern", err)
	}
	if f.Pattern == "" {
		r.warn(field+".pattern", "is empty, which every line matches")
	}
	if rule.Pattern.loose {
		r.warn(field+".pattern", "the end anchor binds to the last branch of the alternation alone, as in NPD; write (?:a|b) to bind it to all")
	}
	if rule.ClearAfter, rule.ClearPattern, err = b.clearing(); err != nil {
		return rule, r.fail(field+".roundhouse", err)
	}
	if _, found := c.Find(rule.Condition); rule.Permanent && !found {
		// NPD matches such a rule and then does nothing.
		r.warn(field+".condition", "%q is not among the conditions, and in NPD the rule then does nothing; its problem is shown and no Node condition is set; add it to conditions", clip(rule.Condition))
	}
	return rule, nil
}

// rule reads what rules of both kinds have.
func (r *reader) rule(field, kind, condition, reason string, raw json.RawMessage, blocks map[string]block) (Rule, block, error) {
	rule := Rule{Permanent: kind != "temporary", Reason: reason, Severity: v1alpha1.SeverityInfo, Recommended: v1alpha1.RecommendNone}
	if kind != "temporary" && kind != "permanent" {
		r.warn(field+".type", "is %q, which NPD takes for permanent; write temporary or permanent", clip(kind))
	}
	b, err := readBlock(raw)
	if err != nil {
		return rule, b, r.fail(field+".roundhouse", err)
	}
	rule.Code = r.code(field+".reason", reason)
	if !rule.Permanent {
		if b.Severity != "" || b.Recommended != "" {
			return rule, b, r.fail(field+".roundhouse", errors.New("a temporary problem is Info and recommends nothing; make the rule permanent, or remove severity and recommended"))
		}
		return rule, b, nil
	}
	rule.Condition = condition
	b = b.over(blocks[condition])
	if rule.Severity, err = b.severity(); err != nil {
		return rule, b, r.fail(field+".roundhouse", err)
	}
	if rule.Recommended, err = b.recommended(); err != nil {
		return rule, b, r.fail(field+".roundhouse", err)
	}
	return rule, b, nil
}

// code is the reason as a fault's code.
func (r *reader) code(field, reason string) string {
	const most = 64
	var b strings.Builder
	upper := false
	for _, c := range reason {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		digit := c >= '0' && c <= '9'
		switch {
		case b.Len() >= most:
		case letter && upper:
			b.WriteString(strings.ToUpper(string(c)))
		case letter, digit && b.Len() > 0:
			b.WriteRune(c)
		}
		upper = !letter && !digit
	}
	code := b.String()
	if code == "" {
		code = "Unnamed"
	}
	if code != reason {
		r.warn(field, "%q is no CamelCase word of at most %d letters and digits; the fault's code is %s", clip(reason), most, code)
	}
	return code
}

// common reads what both kinds have, and the blocks of the conditions by their type.
func (r *reader) common(source string, conditions []fileCondition, rules int, metrics *bool) (Common, map[string]block, error) {
	c := Common{File: r.file, Source: source, Metrics: metrics == nil || *metrics}
	if rules > MaxRules {
		return c, nil, r.fail("rules", fmt.Errorf("are %d, at most %d are allowed; split the file", rules, MaxRules))
	}
	if rules == 0 {
		r.warn("rules", "there are none, so this file finds nothing")
	}
	if len(conditions) > MaxConditions {
		return c, nil, r.fail("conditions", fmt.Errorf("are %d, at most %d are allowed; split the file", len(conditions), MaxConditions))
	}
	blocks := make(map[string]block, len(conditions))
	for i, f := range conditions {
		field := fmt.Sprintf("conditions[%d]", i)
		if err := conditionType(f.Type); err != nil {
			return c, nil, r.fail(field+".type", err)
		}
		if _, twice := c.Find(f.Type); twice {
			r.warn(field+".type", "%q is here twice; the first counts", f.Type)
			continue
		}
		b, err := readBlock(f.Roundhouse)
		if err != nil {
			return c, nil, r.fail(field+".roundhouse", err)
		}
		blocks[f.Type] = b
		c.Conditions = append(c.Conditions, Condition{f.Type, f.Reason, f.Message})
	}
	return c, blocks, nil
}

// conditionType checks what the API server would refuse later, with every other condition of the node.
func conditionType(s string) error {
	if s == "" {
		return errors.New("is missing; write a CamelCase word such as KernelDeadlock")
	}
	if len(s) > 63 || strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c >= 0x7f }) {
		return fmt.Errorf("%q is no condition type; write at most 63 printable characters without spaces", clip(s))
	}
	return nil
}
