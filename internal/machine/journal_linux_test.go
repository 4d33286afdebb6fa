package machine

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// The lines follow journalctl -o json as of systemd 252 and docs/JOURNAL_EXPORT_FORMATS.md of systemd.
const journalLines = `{"__CURSOR":"s=1;i=1","__REALTIME_TIMESTAMP":"1764115200000001","__MONOTONIC_TIMESTAMP":"5","_BOOT_ID":"b","MESSAGE":"plain","_TRANSPORT":"kernel"}
{"__CURSOR":"s=1;i=2","__REALTIME_TIMESTAMP":"1764115200000002","MESSAGE":[104,105,255,10],"_UID":"0","_TRANSPORT":"syslog"}
{"__CURSOR":"s=1;i=3","__REALTIME_TIMESTAMP":"1764115200000003","MESSAGE":null,"_UID":"1000"}

{"__CURSOR":"s=1;i=4","__REALTIME_TIMESTAMP":"1764115200000004","MESSAGE":["first","second"],"_UID":["0","0"]}
{"__CURSOR":"s=1;i=5","__REALTIME_TIMESTAMP":"1764115200000005","MESSAGE":[[104,105],"x"]}
`

func TestParseJournal(t *testing.T) {
	at := func(usec int64) time.Time { return time.UnixMicro(1764115200000000 + usec) }
	want := []JournalEntry{
		{Cursor: "s=1;i=1", Time: at(1), Message: "plain", Kernel: true},
		{Cursor: "s=1;i=2", Time: at(2), Message: "hi\ufffd\n", Root: true},
		{Cursor: "s=1;i=3", Time: at(3)},
		{Cursor: "s=1;i=4", Time: at(4), Message: "first", Root: true},
		{Cursor: "s=1;i=5", Time: at(5), Message: "hi"},
	}
	got, err := ParseJournal([]byte(journalLines), false)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	half := journalLines[:len(journalLines)-20]
	if got, err := ParseJournal([]byte(half), true); err != nil || len(got) != 4 {
		t.Errorf("%d of a cut output, %v", len(got), err)
	}
	for name, line := range map[string]string{
		"no JSON": "hello\n", "no cursor": `{"__REALTIME_TIMESTAMP":"1"}` + "\n", "no time": `{"__CURSOR":"x"}` + "\n",
	} {
		if got, err := ParseJournal([]byte(journalLines+line), false); err == nil || len(got) != 5 {
			t.Errorf("%s: %d, %v", name, len(got), err)
		}
	}
}

func TestJournalArgs(t *testing.T) {
	q := JournalQuery{Directory: "/var/log/journal", Identifier: "--kernel", Since: time.Unix(1764115200, 5)}
	first := strings.Join(journalArgs(q), " ")
	if !strings.HasSuffix(first, " --directory=/var/log/journal --since=@1764115200 SYSLOG_IDENTIFIER=--kernel") {
		t.Error(first)
	}
	q.After, q.Directory = "s=1;i=2", ""
	if next := strings.Join(journalArgs(q), " "); !strings.HasSuffix(next, "_UID --after-cursor=s=1;i=2 SYSLOG_IDENTIFIER=--kernel") {
		t.Error(next)
	}
}

// TestTheHostsJournalctlTakesOurArguments runs the real one on an empty directory.
func TestTheHostsJournalctlTakesOurArguments(t *testing.T) {
	if _, err := os.Stat("/usr/bin/journalctl"); err != nil {
		t.Skip("no journalctl here")
	}
	h := NewHost(Options{})
	dir := t.TempDir()
	entries, more, err := h.Journal(t.Context(), JournalQuery{Directory: dir, Identifier: "kernel", Since: time.Unix(1764115200, 0)})
	if err != nil || more || len(entries) != 0 {
		t.Errorf("%d, %v, %v", len(entries), more, err)
	}
	if _, _, err = h.Journal(t.Context(), JournalQuery{Directory: dir + "/none", Identifier: "kernel"}); err == nil {
		t.Error("a directory that is not there is no error")
	}
}

func FuzzParseJournal(f *testing.F) {
	f.Add([]byte(journalLines), false)
	f.Add([]byte(journalLines[:100]), true)
	f.Fuzz(func(t *testing.T, data []byte, cut bool) {
		entries, _ := ParseJournal(data, cut)
		for _, e := range entries {
			if e.Cursor == "" || len(e.Message) > maxJournalMessage {
				t.Errorf("%+v", e)
			}
		}
	})
}
