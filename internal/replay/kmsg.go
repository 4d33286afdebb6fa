package replay

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/roundhouse-dev/roundhouse/internal/health/kernellog"
	"github.com/roundhouse-dev/roundhouse/internal/machine"
)

// what says what one line of a file is.
type what uint8

const (
	// aLine begins a kernel line.
	aLine what = iota
	// aContinuation goes on with the line before: its text has line breaks.
	aContinuation
	// aBoot says that what follows is of another boot.
	aBoot
	// aSkip tells nothing.
	aSkip
	// aForeign is a line of a process.
	aForeign
	// aFact is a whole event.
	aFact
)

// parsed is what one line of a file says, before it is known when that was.
type parsed struct {
	what     what
	priority uint16
	// seq is the kernel's number of the record plus one; 0 where the format has none.
	seq      uint64
	fragment bool
	// mono is since the boot, where hasMono; else wall is the time.
	mono    time.Duration
	hasMono bool
	wall    time.Time
	// noYear says that wall is of year 0.
	noYear bool
	boot   string
	// text is raw, or escaped by the kernel already.
	text    []byte
	escaped bool
	event   Event
}

// Errors of single lines. The reader adds file and line.
var (
	errNotKmsg    = errors.New("not a record of /dev/kmsg (prio,seq,usec,flags;text)")
	errNotDmesg   = errors.New("not a line of dmesg ([12.345678] text, or [Mon Nov 23 10:00:00 2026] text)")
	errNotJournal = errors.New("not a line of journalctl -k (-o short, short-iso, short-precise or short-monotonic)")
	errNotJSON    = errors.New("not an entry of journalctl -k -o json")
)

// maxMono bounds times since a boot; a century is a broken file.
const maxMono = 100 * 365 * 24 * time.Hour

// parseKmsg reads one line of a recorded /dev/kmsg. Lines that begin with a space are properties of the record before.
// Lines that begin with # are comments, of which four mean something:
//
//	# boot ID TIME
//	# agent stop TIME
//	# agent start TIME
//	# reset ADDRESS TIME
func parseKmsg(b []byte) (parsed, error) {
	switch {
	case len(b) == 0 || b[0] == ' ':
		return parsed{what: aSkip}, nil
	case b[0] == '#':
		return parseComment(string(b))
	}
	rec, err := kernellog.ParseRecord(b)
	if err != nil {
		return parsed{}, errNotKmsg
	}
	if rec.Usec > uint64(maxMono.Microseconds()) {
		return parsed{}, fmt.Errorf("%w: more than a century after the boot", errNotKmsg)
	}
	return parsed{
		what: aLine, priority: rec.Priority, seq: rec.Seq + 1, fragment: rec.Fragment,
		mono: time.Duration(rec.Usec) * time.Microsecond, hasMono: true, text: rec.Text, escaped: true,
	}, nil
}

func parseComment(s string) (parsed, error) {
	f := strings.Fields(strings.TrimPrefix(s, "#"))
	if len(f) != 3 || f[0] != "boot" && f[0] != "agent" && f[0] != "reset" {
		return parsed{what: aSkip}, nil
	}
	at, err := time.Parse(time.RFC3339Nano, f[2])
	if err != nil {
		return parsed{}, fmt.Errorf("time %q of a comment: want RFC 3339, such as 2026-11-23T10:00:00Z", clip(f[2]))
	}
	if err := sane(at); err != nil {
		return parsed{}, err
	}
	p := parsed{what: aFact, wall: at.UTC(), event: Event{At: at.UTC()}}
	switch {
	case f[0] == "boot":
		p.what, p.boot = aBoot, clip(f[1])
	case f[0] == "reset":
		address, err := machine.ParsePCIAddress(f[1])
		if err != nil {
			return parsed{}, fmt.Errorf("a comment of a reset: %w", err)
		}
		p.event.Kind, p.event.Address = Reset, address
	case f[1] == "stop":
		p.event.Kind = AgentStop
	case f[1] == "start":
		p.event.Kind = AgentStart
	default:
		p.what = aSkip
	}
	return p, nil
}

// sane refuses times that the arithmetic of durations could not bear.
func sane(t time.Time) error {
	if y := t.Year(); y < 1970 || y > 2200 {
		return fmt.Errorf("time %s: want a year from 1970 to 2200", t.UTC().Format(time.RFC3339))
	}
	return nil
}

// clip bounds what an error quotes, and makes it printable.
func clip(s string) string {
	if len(s) > 64 {
		s = s[:64] + "..."
	}
	return printable(s)
}

// isBanner says whether a text is the first line of a kernel's log (linux_banner in init/version.c).
func isBanner(text []byte) bool { return bytes.HasPrefix(text, []byte("Linux version ")) }

// digits reads decimal digits; ok is false where there are none, or more than a number of that many can be.
func digits(b []byte, most int) (n int64, rest []byte, ok bool) {
	i := 0
	for ; i < len(b) && b[i] >= '0' && b[i] <= '9'; i++ {
		if i == most {
			return 0, nil, false
		}
		n = n*10 + int64(b[i]-'0')
	}
	return n, b[i:], i > 0
}

// kernelPriority is given to lines of formats that do not tell the facility.
const kernelPriority = machine.KernelPriority
