package npd

import (
	"errors"
	"fmt"
	"regexp"
	"time"
)

// Translator takes a line of a file apart. Of several groups of an expression the last counts.
type Translator struct {
	timestamp, message *regexp.Regexp
	format             string
}

// ErrNoMessage means that a line has a time and no message, which is how some configurations choose their lines.
var ErrNoMessage = errors.New("pluginConfig.message does not match")

// aheadAllowed is how far in the future a time without a year may lie before it is taken for last year's.
const aheadAllowed = 24 * time.Hour

// Translate gives a line's time and message. A time without a year is of now's year, or of the year before where it would
// otherwise lie ahead. A time without a zone is of the location.
func (t *Translator) Translate(line string, now time.Time, location *time.Location) (time.Time, string, error) {
	stamp, ok := lastGroup(t.timestamp, line)
	if !ok {
		return time.Time{}, "", fmt.Errorf("pluginConfig.timestamp %q does not match", t.timestamp)
	}
	at, err := time.ParseInLocation(t.format, stamp, location)
	if err != nil {
		return time.Time{}, "", fmt.Errorf("pluginConfig.timestampFormat: %w", err)
	}
	if at.Year() == 0 {
		year := now.In(location).Year()
		if at = at.AddDate(year, 0, 0); at.After(now.Add(aheadAllowed)) {
			at = at.AddDate(-1, 0, 0)
		}
	}
	message, ok := lastGroup(t.message, line)
	if !ok {
		return time.Time{}, "", ErrNoMessage
	}
	return at, message, nil
}

func lastGroup(re *regexp.Regexp, s string) (string, bool) {
	groups := re.FindStringSubmatch(s)
	if len(groups) == 0 {
		return "", false
	}
	return groups[len(groups)-1], true
}
