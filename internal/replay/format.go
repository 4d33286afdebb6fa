package replay

import (
	"bytes"
	"fmt"
	"strings"
	"time"
)

// Format is a kind of recording.
type Format string

// The formats.
const (
	FormatKmsg        Format = "kmsg"
	FormatDmesg       Format = "dmesg"
	FormatJournal     Format = "journal"
	FormatJournalJSON Format = "journal-json"
	FormatFacts       Format = "facts"
)

// Formats are all of them.
func Formats() []Format {
	return []Format{FormatKmsg, FormatDmesg, FormatJournal, FormatJournalJSON, FormatFacts}
}

// ParseFormat reads a format's name; "" and "auto" are none.
func ParseFormat(s string) (Format, error) {
	if s == "" || s == "auto" {
		return "", nil
	}
	names := make([]string, 0, 5)
	for _, f := range Formats() {
		if string(f) == s {
			return f, nil
		}
		names = append(names, string(f))
	}
	return "", fmt.Errorf("format %q: want auto, %s", clip(s), strings.Join(names, ", "))
}

// detect says what kind of file the lines are of; not ok where none fits. Lines that tell nothing are passed over, and the
// first line that is of one kind alone decides. A line of dmesg may look like one of journalctl -o short-monotonic, in which
// every line has the same word, the host, after its time, and those of the kernel have "kernel:" after that.
func detect(lines [][]byte) (Format, bool) {
	var host []byte
	dmesg, kernel, sameHost := false, false, true
	for _, b := range lines {
		if f, ok := plain(b); ok {
			return f, true
		}
		p, _, err := parseDmesg(b, time.UTC)
		if err != nil || p.what != aLine {
			continue
		}
		word, _, _ := bytes.Cut(p.text, []byte(" "))
		if !dmesg {
			host = word
		}
		dmesg, sameHost = true, sameHost && bytes.Equal(word, host)
		if q, err := parseJournal(b, time.UTC); err == nil && q.what == aLine {
			kernel = true
		}
	}
	switch {
	case !dmesg:
		return "", false
	case kernel && sameHost:
		return FormatJournal, true
	}
	return FormatDmesg, true
}

// plain says what a line is that is of one kind alone.
func plain(b []byte) (Format, bool) {
	trimmed := bytes.TrimSpace(b)
	switch {
	case len(trimmed) == 0:
		return "", false
	case trimmed[0] == '{':
		if _, err := parseFact(b); err == nil {
			return FormatFacts, true
		}
		if _, err := parseJournalJSON(b); err == nil {
			return FormatJournalJSON, true
		}
		if bytes.Contains(b, []byte(`"at"`)) && !bytes.Contains(b, []byte(`"__REALTIME_TIMESTAMP"`)) {
			// A fact with an error in it: its own reader says which.
			return FormatFacts, true
		}
		return "", false
	case b[0] == '#':
		p, err := parseKmsg(b)
		return FormatKmsg, err == nil && p.what != aSkip
	case b[0] == '[' || b[0] == '<':
		return "", false
	}
	if p, err := parseKmsg(b); err == nil && p.what == aLine {
		return FormatKmsg, true
	}
	if p, err := parseJournal(b, time.UTC); err == nil && (p.what == aLine || p.what == aForeign || p.what == aBoot) {
		return FormatJournal, true
	}
	return "", false
}

// looksLike is what an error says a recording may be.
const looksLike = "want raw /dev/kmsg records, dmesg, journalctl -k (short forms or -o json), or a fact stream; say -format where you know"
