package text

import (
	"regexp"
	"time"

	"k8s.io/apimachinery/pkg/util/duration"
)

// Clock shows times to one reader: in their zone, and from where they stand.
type Clock struct {
	// Now is when the reader asks.
	Now time.Time
	// Zone is the reader's; UTC without it.
	Zone *time.Location
}

func (c Clock) zone() *time.Location {
	if c.Zone == nil {
		return time.UTC
	}
	return c.Zone
}

// Time is the time of day, with the date where it is not today's and the year where it is not this year's.
func (c Clock) Time(t time.Time) string { return c.format(t, "15:04:05") }

// Minute is Time to the minute, with the zone's name.
func (c Clock) Minute(t time.Time) string {
	return c.format(t, "15:04") + t.In(c.zone()).Format(" MST")
}

func (c Clock) format(t time.Time, layout string) string {
	local, now := t.In(c.zone()), c.Now.In(c.zone())
	switch {
	case local.Year() != now.Year():
		layout = "2006-01-02 " + layout
	case local.YearDay() != now.YearDay():
		layout = "Jan 2 " + layout
	}
	return local.Format(layout)
}

// Age is how long ago t was, "3h12m ago", or how soon it will be, "in 40m".
func (c Clock) Age(t time.Time) string {
	// Rounded, so that what lies two hours ahead does not read "in 119m" a moment later.
	d := c.Now.Sub(t).Round(time.Second)
	switch {
	case d < 0:
		return "in " + duration.HumanDuration(-d)
	case d < time.Second:
		return "now"
	}
	return duration.HumanDuration(d) + " ago"
}

// Since is the time to the minute and its age, "since 10:00 JST (14m ago)".
func (c Clock) Since(t time.Time) string {
	return "since " + c.Minute(t) + " (" + c.Age(t) + ")"
}

// Until is the time to the minute and how far it is, "22:00 JST (in 11h)".
func (c Clock) Until(t time.Time) string { return c.Minute(t) + " (" + c.Age(t) + ")" }

// Duration is a length of time as people say it, "30d", "12h", "2m".
func Duration(d time.Duration) string { return duration.HumanDuration(d) }

// stamps are the times that the controller writes into its sentences.
var stamps = regexp.MustCompile(`\b\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?(Z|[+-]\d{2}:\d{2})\b`)

// Localize turns the times in a sentence, RFC 3339 as the controller writes them, into the reader's.
func (c Clock) Localize(s string) string {
	return stamps.ReplaceAllStringFunc(s, func(stamp string) string {
		at, err := time.Parse(time.RFC3339, stamp)
		if err != nil {
			return stamp // looks like a time and is none, such as the 31st of February
		}
		return c.Minute(at)
	})
}
