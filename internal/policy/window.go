package policy

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

// clockTime is a time of day.
type clockTime struct{ hour, minute int }

// span is one opening of a window.
type span struct{ start, end time.Time }

// window is a Window that was read.
type window struct {
	days       [7]bool
	start, end clockTime
	location   *time.Location
}

var dayNames = [...]string{"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"}

// parseWindow reads a window.
func parseWindow(spec v1alpha1.Window) (window, error) {
	var w window
	if len(spec.Days) == 0 {
		return w, errors.New("days is empty: name at least one of Mon to Sun")
	}
	for _, day := range spec.Days {
		index := slices.Index(dayNames[:], day)
		if index < 0 {
			return w, fmt.Errorf("days: %q is not one of Mon, Tue, Wed, Thu, Fri, Sat, Sun", day)
		}
		w.days[index] = true
	}
	var err error
	if w.start, err = parseClock(spec.Start); err != nil {
		return w, fmt.Errorf("start: %w", err)
	}
	if w.end, err = parseClock(spec.End); err != nil {
		return w, fmt.Errorf("end: %w", err)
	}
	if w.location, err = parseZone(spec.TimeZone); err != nil {
		return w, fmt.Errorf("timeZone: %w", err)
	}
	return w, nil
}

// parseClock reads HH:MM, of 24 hours.
func parseClock(text string) (clockTime, error) {
	at, err := time.Parse("15:04", text)
	if err != nil || len(text) != len("15:04") {
		return clockTime{}, fmt.Errorf("%q is not a time of day such as 22:00", text)
	}
	return clockTime{hour: at.Hour(), minute: at.Minute()}, nil
}

// parseZone reads an IANA name. "Local" is refused: it would mean the zone of whichever machine the controller is on.
func parseZone(name string) (*time.Location, error) {
	if name == "" {
		return time.UTC, nil
	}
	location, err := time.LoadLocation(name)
	if err != nil || strings.EqualFold(name, "local") {
		return nil, fmt.Errorf("%q is not an IANA name such as Asia/Tokyo", name)
	}
	return location, nil
}

// spans lists the openings that may matter at now: those that began yesterday to those a week ahead. Where clocks are
// put forward over a time of day, time.Date moves it by the hour that is missing.
func (w window) spans(now time.Time) []span {
	local := now.In(w.location)
	var spans []span
	for offset := -2; offset <= 8; offset++ {
		day := time.Date(local.Year(), local.Month(), local.Day()+offset, 12, 0, 0, 0, w.location)
		if !w.days[day.Weekday()] {
			continue
		}
		start := time.Date(day.Year(), day.Month(), day.Day(), w.start.hour, w.start.minute, 0, 0, w.location)
		end := time.Date(day.Year(), day.Month(), day.Day(), w.end.hour, w.end.minute, 0, 0, w.location)
		if w.start.hour*60+w.start.minute >= w.end.hour*60+w.end.minute {
			// Before its start, or the same: it ends on the next day.
			end = time.Date(day.Year(), day.Month(), day.Day()+1, w.end.hour, w.end.minute, 0, 0, w.location)
		}
		// A window that lies in the hour that is left out has no length that night.
		if end.After(start) {
			spans = append(spans, span{start: start, end: end})
		}
	}
	return spans
}

// WindowOpen says whether one of the policy's windows is open, and when that changes next; next is zero where it never
// does. A window is open from its start up to, not including, its end; an end equal to the start is a day later.
// A window that cannot be read is never open; Compile says so.
func WindowOpen(policy *v1alpha1.RemediationPolicy, now time.Time) (open bool, next time.Time) {
	var spans []span
	for _, spec := range policy.Spec.Windows {
		if w, err := parseWindow(spec); err == nil {
			spans = append(spans, w.spans(now)...)
		}
	}
	slices.SortFunc(spans, func(a, b span) int { return a.start.Compare(b.start) })
	for _, s := range spans {
		switch {
		case !s.end.After(now) || (open && s.start.After(next)):
			// It is past, or it begins after the one that is open has closed.
		case !s.start.After(now):
			open = true
			if s.end.After(next) {
				next = s.end
			}
		case open:
			// It begins before, or just when, the open one closes: they are one.
			if s.end.After(next) {
				next = s.end
			}
		case next.IsZero():
			next = s.start
		}
	}
	return open, next
}

func (c *compiled) checkWindows() {
	for i, spec := range c.policy.Spec.Windows {
		if _, err := parseWindow(spec); err != nil {
			c.problem(fmt.Sprintf("spec.windows[%d]", i), err.Error())
		}
	}
}

// maxDuration is longer than anything a policy waits for; more is a unit that was mistaken.
const maxDuration = 366 * 24 * time.Hour

// checkDurations refuses negative and absurd durations: the schema knows them as text only.
func (c *compiled) checkDurations() {
	spec := &c.policy.Spec
	for i := range spec.Rules {
		path := fmt.Sprintf("spec.rules[%d](%s)", i, spec.Rules[i].Name)
		c.checkDuration(path+".deadline", spec.Rules[i].Deadline)
		c.checkDuration(path+".refillStop", spec.Rules[i].RefillStop)
		for j := range spec.Rules[i].Match.NodeConditions {
			c.checkDuration(fmt.Sprintf("%s.match.nodeConditions[%d].for", path, j), &spec.Rules[i].Match.NodeConditions[j].For)
		}
		for j := range spec.Rules[i].Match.DeviceTaints {
			c.checkDuration(fmt.Sprintf("%s.match.deviceTaints[%d].for", path, j), &spec.Rules[i].Match.DeviceTaints[j].For)
		}
	}
	for i := range spec.Rungs {
		c.checkDuration(fmt.Sprintf("spec.rungs[%d](%s).timeout", i, spec.Rungs[i].Name), spec.Rungs[i].Timeout)
	}
	if spec.Drain != nil {
		c.checkDuration("spec.drain.deadline", spec.Drain.Deadline)
		c.checkDuration("spec.drain.checkpoint", spec.Drain.Checkpoint)
	}
	if spec.Verify != nil {
		c.checkDuration("spec.verify.settle", spec.Verify.Settle)
		c.checkDuration("spec.verify.timeout", spec.Verify.Timeout)
		if spec.Verify.BurnIn != nil {
			c.checkDuration("spec.verify.burnIn.timeout", spec.Verify.BurnIn.Timeout)
		}
	}
	c.checkDuration("spec.probation", spec.Probation)
	if spec.Loop != nil {
		c.checkDuration("spec.loop.window", spec.Loop.Window)
	}
	if spec.Brake != nil && spec.Brake.SameSignature != nil {
		c.checkDuration("spec.brake.sameSignature.window", spec.Brake.SameSignature.Window)
	}
}

func (c *compiled) checkDuration(path string, duration *metav1.Duration) {
	switch {
	case duration == nil:
	case duration.Duration < 0:
		c.problem(path, fmt.Sprintf("%s is negative; write a duration such as 2m", duration.Duration))
	case duration.Duration > maxDuration:
		c.problem(path, fmt.Sprintf("%s is over a year; write a duration such as 720h", duration.Duration))
	}
}
