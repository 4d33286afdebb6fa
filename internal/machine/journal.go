package machine

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// journalLine is a line of journalctl -o json (systemd's docs/JOURNAL_EXPORT_FORMATS.md): a field is a string, a list of
// byte values where it is not printable UTF-8, a list of those where it is there more than once, or null where it is too
// long and --all was not given.
type journalLine struct {
	Cursor    string          `json:"__CURSOR"`
	Realtime  string          `json:"__REALTIME_TIMESTAMP"`
	Message   json.RawMessage `json:"MESSAGE"`
	Transport json.RawMessage `json:"_TRANSPORT"`
	UID       json.RawMessage `json:"_UID"`
}

// maxJournalMessage is what is kept of one message, in bytes.
const maxJournalMessage = 16 << 10

// ParseJournal reads what journalctl -o json wrote. A last line that is cut off is left for the next time; cut says that
// the output may have been.
func ParseJournal(out []byte, cut bool) (entries []JournalEntry, err error) {
	for line := range bytes.Lines(out) {
		if cut && !bytes.HasSuffix(line, []byte("\n")) {
			break
		}
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		e, err := parseJournalLine(line)
		if err != nil {
			return entries, err
		}
		entries = append(entries, e)
	}
	return entries, nil
}

func parseJournalLine(line []byte) (JournalEntry, error) {
	var l journalLine
	if err := json.Unmarshal(line, &l); err != nil {
		return JournalEntry{}, fmt.Errorf("reading journalctl's output: %w", err)
	}
	if l.Cursor == "" {
		return JournalEntry{}, errors.New("reading journalctl's output: an entry without __CURSOR")
	}
	usec, err := strconv.ParseInt(l.Realtime, 10, 64)
	if err != nil {
		return JournalEntry{}, fmt.Errorf("reading journalctl's output: __REALTIME_TIMESTAMP: %w", err)
	}
	// What journald adds itself is one printable string; anything else is not believed.
	transport, uid := journalField(l.Transport), journalField(l.UID)
	return JournalEntry{
		Cursor: l.Cursor, Time: time.UnixMicro(usec), Message: bound(journalField(l.Message), maxJournalMessage),
		Kernel: transport == "kernel", Root: uid == "0",
	}, nil
}

// journalField is the field as text; of several the first.
func journalField(raw json.RawMessage) string {
	var text string
	if json.Unmarshal(raw, &text) == nil {
		return text
	}
	var values []uint8Number
	if json.Unmarshal(raw, &values) == nil {
		b := make([]byte, len(values))
		for i, v := range values {
			b[i] = byte(v)
		}
		return strings.ToValidUTF8(string(b), "\ufffd")
	}
	var several []json.RawMessage
	if json.Unmarshal(raw, &several) == nil && len(several) > 0 && !bytes.HasPrefix(bytes.TrimSpace(several[0]), []byte("[[")) {
		return journalField(several[0])
	}
	return ""
}

// uint8Number keeps encoding/json from taking a list of bytes for base64.
type uint8Number uint8
