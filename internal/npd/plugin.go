package npd

import (
	"errors"
	"fmt"
	"regexp"
	"time"
)

// NPD's defaults for what pluginConfig leaves out.
const (
	defaultInterval    = 30 * time.Second
	defaultTimeout     = 5 * time.Second
	defaultMaxOutput   = 80
	defaultConcurrency = 3
	// minInterval is how often a program may be run; NPD has no such bound.
	minInterval = time.Second
	// maxArgs and maxArg bound what a program is given.
	maxArgs, maxArg = 64, 4096
)

func compile(text string) (*regexp.Regexp, error) {
	if len(text) > MaxPattern {
		return nil, fmt.Errorf("is %d bytes long, at most %d are allowed", len(text), MaxPattern)
	}
	re, err := regexp.Compile(text)
	if err != nil {
		return nil, fmt.Errorf("is no RE2 expression: %w", err)
	}
	return re, nil
}

// plugin reads a custom plugin monitor's configuration.
func (r *reader) plugin() (*Plugin, error) {
	var f filePlugin
	if err := r.decode(&f); err != nil {
		return nil, err
	}
	r.unknownKeys(pluginKeys)
	common, blocks, err := r.common(f.Source, f.Conditions, len(f.Rules), f.Metrics)
	if err != nil {
		return nil, err
	}
	p := &Plugin{Common: common}
	if err := r.global(p, f.PluginConfig); err != nil {
		return nil, err
	}
	for i, rule := range f.Rules {
		if rule == nil {
			return nil, r.fail(fmt.Sprintf("rules[%d]", i), errors.New("is null; write a rule, or remove it"))
		}
		got, err := r.pluginRule(i, *rule, p, blocks)
		if err != nil {
			return nil, err
		}
		p.Rules = append(p.Rules, got)
	}
	return p, nil
}

func (r *reader) global(p *Plugin, f filePluginConfig) (err error) {
	p.MaxOutput, p.Concurrency = defaultMaxOutput, defaultConcurrency
	if p.Interval, err = r.durationOr("pluginConfig.invoke_interval", f.Interval, defaultInterval); err != nil {
		return err
	}
	if p.Timeout, err = r.durationOr("pluginConfig.timeout", f.Timeout, defaultTimeout); err != nil {
		return err
	}
	p.Interval = r.interval("pluginConfig.invoke_interval", p.Interval)
	if f.MaxOutput != nil {
		p.MaxOutput = *f.MaxOutput
	}
	if p.MaxOutput < 0 {
		return r.fail("pluginConfig.max_output_length", fmt.Errorf("is %d; write 1 to %d bytes", p.MaxOutput, MaxOutput))
	}
	if p.MaxOutput > MaxOutput {
		r.warn("pluginConfig.max_output_length", "is %d; more than %d bytes are never read, as in NPD", p.MaxOutput, MaxOutput)
		p.MaxOutput = MaxOutput
	}
	if f.Concurrency != nil {
		p.Concurrency = *f.Concurrency
	}
	if p.Concurrency < 1 || p.Concurrency > MaxConcurrency {
		return r.fail("pluginConfig.concurrency", fmt.Errorf("is %d; write 1 to %d", p.Concurrency, MaxConcurrency))
	}
	p.MessageChanges = f.MessageChanges != nil && *f.MessageChanges
	p.SkipInitial = f.SkipInitial != nil && *f.SkipInitial
	return nil
}

// durationOr reads a duration that is there and must be above zero.
func (r *reader) durationOr(field string, s *string, otherwise time.Duration) (time.Duration, error) {
	if s == nil {
		return otherwise, nil
	}
	d, err := duration(*s)
	if err == nil && d <= 0 {
		err = fmt.Errorf("is %s; write a duration above zero", *s)
	}
	if err != nil {
		return 0, r.fail(field, err)
	}
	return d, nil
}

func (r *reader) interval(field string, d time.Duration) time.Duration {
	if d < minInterval {
		r.warn(field, "is %s; a program is run at most every %s", d, minInterval)
		d = minInterval
	}
	return d
}

func (r *reader) pluginRule(i int, f filePluginRule, p *Plugin, blocks map[string]block) (PluginRule, error) {
	field := fmt.Sprintf("rules[%d]", i)
	rule := PluginRule{Path: f.Path, Args: f.Args, Timeout: p.Timeout, Interval: p.Interval}
	common, b, err := r.rule(field, f.Type, f.Condition, f.Reason, f.Roundhouse, blocks)
	if err != nil {
		return rule, err
	}
	rule.Rule = common
	if b.Clear != nil {
		return rule, r.fail(field+".roundhouse", errors.New("clear is for log monitors; a plugin's problem ends when it exits 0"))
	}
	if f.Path == "" {
		return rule, r.fail(field+".path", errors.New("is missing; write the program to run"))
	}
	if err := arguments(f); err != nil {
		return rule, r.fail(field+".args", err)
	}
	if rule.Timeout, err = r.durationOr(field+".timeout", f.Timeout, p.Timeout); err != nil {
		return rule, err
	}
	if rule.Timeout > p.Timeout {
		return rule, r.fail(field+".timeout", fmt.Errorf("is %s, above pluginConfig.timeout of %s; raise that, or lower this", rule.Timeout, p.Timeout))
	}
	if rule.Interval, err = r.durationOr(field+".invoke_interval", f.Interval, p.Interval); err != nil {
		return rule, err
	}
	rule.Interval = r.interval(field+".invoke_interval", rule.Interval)
	if _, found := p.Find(rule.Condition); f.Type == "permanent" && !found {
		return rule, r.fail(field+".condition", fmt.Errorf("%q is not among the conditions; add it there with its reason and message while nothing is wrong", clip(rule.Condition)))
	}
	return rule, nil
}

func arguments(f filePluginRule) error {
	if len(f.Args) > maxArgs {
		return fmt.Errorf("are %d, at most %d are allowed", len(f.Args), maxArgs)
	}
	for _, a := range append([]string{f.Path}, f.Args...) {
		if len(a) > maxArg {
			return fmt.Errorf("%q is longer than %d bytes", clip(a), maxArg)
		}
		for i := range len(a) {
			if a[i] == 0 {
				return fmt.Errorf("%q has a zero byte, which no program can be given", clip(a))
			}
		}
	}
	return nil
}
