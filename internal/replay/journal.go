package replay

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"time"
)

// Layouts of the times of journalctl: short and short-precise, short-iso and short-iso-precise of systemd before and from
// 255. A fraction of a second after the seconds is read by time.Parse without being in the layout.
const (
	shortTime   = "Jan _2 15:04:05"
	isoTime     = "2006-01-02T15:04:05-0700"
	isoTimeZone = "2006-01-02T15:04:05-07:00"
)

// parseJournal reads one line of journalctl -k in one of its short forms. The lines of the kernel have the identifier
// "kernel"; others are of processes. A process that writes to /dev/kmsg can choose that identifier, and the short forms do
// not tell.
func parseJournal(b []byte, zone *time.Location) (parsed, error) {
	switch {
	case len(bytes.TrimSpace(b)) == 0:
		return parsed{what: aSkip}, nil
	case bytes.HasPrefix(b, []byte("-- ")):
		return separator(b), nil
	case b[0] == ' ' || b[0] == '\t':
		// The further lines of a text are indented as far as its first begins.
		return parsed{what: aContinuation, text: bytes.TrimLeft(b, " \t")}, nil
	}
	p := parsed{what: aLine, priority: kernelPriority}
	rest, err := p.journalTime(b, zone)
	if err != nil {
		return parsed{}, err
	}
	_, rest, ok := bytes.Cut(rest, []byte(" "))
	if !ok {
		return parsed{}, errNotJournal
	}
	identifier, text, ok := bytes.Cut(rest, []byte(": "))
	if !ok {
		// A line without text has nothing after the colon.
		if identifier, ok = bytes.CutSuffix(rest, []byte(":")); !ok {
			return parsed{}, errNotJournal
		}
	}
	if string(identifier) != "kernel" {
		p.what = aForeign
	}
	p.text = text
	return p, nil
}

// separator reads "-- Boot 0fc70fad69804f05acf85f6c56122bb4 --" and "-- Reboot --"; other such lines tell nothing.
func separator(b []byte) parsed {
	f := bytes.Fields(b)
	switch {
	case len(f) == 4 && string(f[1]) == "Boot":
		return parsed{what: aBoot, boot: clip(string(f[2]))}
	case len(f) == 3 && string(f[1]) == "Reboot":
		return parsed{what: aBoot}
	}
	return parsed{what: aSkip}
}

// journalTime reads the time at the start of a line and returns what follows the space after it.
func (p *parsed) journalTime(b []byte, zone *time.Location) ([]byte, error) {
	if inside, rest, ok := bracketed(b); ok {
		mono, ok := seconds(bytes.TrimLeft(inside, " "))
		if !ok {
			return nil, errNotJournal
		}
		p.mono, p.hasMono = mono, true
		return rest, nil
	}
	if b[0] >= '0' && b[0] <= '9' {
		stamp, rest, _ := bytes.Cut(b, []byte(" "))
		at, err := time.Parse(isoTime, string(stamp))
		if err != nil {
			at, err = time.Parse(isoTimeZone, string(stamp))
		}
		if err != nil {
			return nil, errNotJournal
		}
		p.wall = at.UTC()
		return rest, sane(at)
	}
	if len(b) <= len(shortTime) {
		return nil, errNotJournal
	}
	end := bytes.IndexByte(b[len(shortTime):], ' ')
	if end < 0 {
		return nil, errNotJournal
	}
	end += len(shortTime)
	at, err := time.ParseInLocation(shortTime, string(b[:end]), zone)
	if err != nil {
		return nil, errNotJournal
	}
	p.wall, p.noYear = at, true
	return b[end+1:], nil
}

// journalEntry has the fields of an entry that matter here (systemd.journal-fields).
type journalEntry struct {
	Realtime  string          `json:"__REALTIME_TIMESTAMP"`
	Boot      string          `json:"_BOOT_ID"`
	Transport string          `json:"_TRANSPORT"`
	Priority  string          `json:"PRIORITY"`
	Facility  string          `json:"SYSLOG_FACILITY"`
	Message   json.RawMessage `json:"MESSAGE"`
}

// parseJournalJSON reads one entry of journalctl -o json. journald gives each line that it reads from /dev/kmsg the
// transport "kernel" and the facility that the kernel gave it (src/journal/journald-kmsg.c), and a process can choose
// neither. An entry of another transport is a process's.
func parseJournalJSON(b []byte) (parsed, error) {
	if len(bytes.TrimSpace(b)) == 0 {
		return parsed{what: aSkip}, nil
	}
	var e journalEntry
	if err := json.Unmarshal(b, &e); err != nil {
		return parsed{}, fmt.Errorf("%w: %w", errNotJSON, err)
	}
	usec, err := strconv.ParseInt(e.Realtime, 10, 64)
	if err != nil {
		return parsed{}, fmt.Errorf("%w: __REALTIME_TIMESTAMP is %q, want microseconds since 1970", errNotJSON, clip(e.Realtime))
	}
	p := parsed{what: aLine, wall: time.UnixMicro(usec).UTC(), boot: clip(e.Boot)}
	if err := sane(p.wall); err != nil {
		return parsed{}, err
	}
	if e.Transport != "kernel" {
		p.what = aForeign
		return p, nil
	}
	facility, err1 := small(e.Facility, 0)
	level, err2 := small(e.Priority, 4)
	if err1 != nil || err2 != nil || level > 7 {
		return parsed{}, fmt.Errorf("%w: PRIORITY %q or SYSLOG_FACILITY %q is no number", errNotJSON, clip(e.Priority), clip(e.Facility))
	}
	p.priority = facility<<3 | level
	p.text, err = message(e.Message)
	return p, err
}

// small reads a small number; absent is what an absent one means.
func small(s string, absent uint16) (uint16, error) {
	if s == "" {
		return absent, nil
	}
	n, err := strconv.ParseUint(s, 10, 7)
	return uint16(n), err
}

// message reads a MESSAGE, which is a string, an array of bytes where it is not printable, or null where it is long. A field
// that an entry has more than once is an array of those.
func message(raw json.RawMessage) ([]byte, error) {
	if len(raw) == 0 || string(raw) == "null" {
		return nil, nil
	}
	var s string
	if json.Unmarshal(raw, &s) == nil {
		return []byte(s), nil
	}
	var numbers []uint8array
	if err := json.Unmarshal(raw, &numbers); err != nil {
		return nil, fmt.Errorf("%w: MESSAGE is neither a text nor bytes", errNotJSON)
	}
	out := make([]byte, 0, len(numbers))
	for _, n := range numbers {
		out = append(out, n...)
	}
	return out, nil
}

// uint8array is one element of an array that a MESSAGE may be: a byte, a text, or such an array again.
type uint8array []byte

// UnmarshalJSON reads an element.
func (u *uint8array) UnmarshalJSON(b []byte) error {
	var n uint8
	if json.Unmarshal(b, &n) == nil {
		*u = uint8array{n}
		return nil
	}
	var s string
	if json.Unmarshal(b, &s) == nil {
		*u = uint8array(s)
		return nil
	}
	var numbers []uint16
	if err := json.Unmarshal(b, &numbers); err != nil {
		return err
	}
	out := make([]byte, 0, len(numbers))
	for _, n := range numbers {
		if n > 255 {
			return fmt.Errorf("%d is no byte", n)
		}
		out = append(out, byte(n))
	}
	*u = out
	return nil
}
