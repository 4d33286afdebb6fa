package command

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/roundhouse-dev/roundhouse/internal/replay"
	"github.com/roundhouse-dev/roundhouse/internal/replay/corpus"
	"github.com/roundhouse-dev/roundhouse/internal/replay/score"
)

// update writes the committed samples anew: ROUNDHOUSE_UPDATE_TESTDATA=1 go test ./internal/replay/command.
func update() bool { return os.Getenv("ROUNDHOUSE_UPDATE_TESTDATA") != "" }

const testdata = "../testdata"

// try runs the command.
func try(t *testing.T, stdin string, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	var out, errs bytes.Buffer
	c := Command{
		Now:   func() time.Time { return time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC) },
		Stdin: strings.NewReader(stdin), Stdout: &out, Stderr: &errs,
	}
	err = c.Run(t.Context(), args)
	return out.String(), errs.String(), err
}

// sample is the corpus of which a copy is committed: one of each kind of fault and little noise.
func sample(t *testing.T) *corpus.Corpus {
	t.Helper()
	m := corpus.DefaultMix()
	m.FaultsPerKind, m.Xid45PerNodeDay, m.OtherApplicationPerNodeDay, m.ChatterPerNodeDay, m.OverrunsPerNodeDay = 1, 20, 2, 5, 0
	c, err := corpus.New(corpus.Options{Seed: 20261123, Nodes: 12, Days: 1, Mix: m})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestSampleIsWhatIsCommitted(t *testing.T) {
	dir := filepath.Join(testdata, "corpus")
	if update() {
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		if err := sample(t).Write(dir); err != nil {
			t.Fatal(err)
		}
	}
	fresh := t.TempDir()
	if err := sample(t).Write(fresh); err != nil {
		t.Fatal(err)
	}
	size := 0
	for _, path := range list(t, filepath.Join(fresh, "*")) {
		name := filepath.Base(path)
		want := read(t, path)
		size += len(want)
		if diff := cmp.Diff(string(want), string(read(t, filepath.Join(dir, name)))); diff != "" {
			t.Errorf("%s is not what is committed; run with ROUNDHOUSE_UPDATE_TESTDATA=1 (-made +committed):\n%.2000s", name, diff)
		}
	}
	if size > 200<<10 {
		t.Errorf("%d bytes", size)
	}
	if a, b := len(list(t, filepath.Join(fresh, "*"))), len(list(t, filepath.Join(dir, "*"))); a != b {
		t.Errorf("%d files are made and %d committed", a, b)
	}
}

func list(t *testing.T, pattern string) []string {
	t.Helper()
	out, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// golden compares with a committed file, or writes it.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join(testdata, name)
	if update() {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(string(read(t, path)), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", name, diff)
	}
}

func TestSampleOfTheTable(t *testing.T) {
	out, _, err := try(t, "", append([]string{"-tz", "UTC"}, list(t, filepath.Join(testdata, "corpus", "*.kmsg"))...)...)
	if err != nil {
		t.Fatal(err)
	}
	for i, line := range strings.Split(out, "\n") {
		if len(line) > 120 && !strings.HasPrefix(line, "  note: ") {
			t.Errorf("line %d has %d columns: %s", i+1, len(line), line)
		}
	}
	golden(t, "corpus.txt", out)
}

// TestSampleOfEachFormat replays the same cascade as each program would have recorded it.
func TestSampleOfEachFormat(t *testing.T) {
	var all strings.Builder
	for _, path := range list(t, filepath.Join(testdata, "formats", "*.log")) {
		out, _, err := try(t, "", "-tz", "UTC", path)
		if err != nil {
			t.Error(err)
		}
		all.WriteString(out)
		all.WriteByte('\n')
		if !strings.Contains(out, "Xid79") || !strings.Contains(out, "2 incidents, 1 disruptive") {
			t.Errorf("%s:\n%s", path, out)
		}
	}
	golden(t, "formats.txt", all.String())
}

func TestJSONIsAsDocumented(t *testing.T) {
	out, _, err := try(t, "", append([]string{"-o", "json"}, list(t, filepath.Join(testdata, "formats", "*.log"))...)...)
	if err != nil {
		t.Fatal(err)
	}
	d := json.NewDecoder(strings.NewReader(out))
	d.DisallowUnknownFields()
	var r replay.Report
	if err := d.Decode(&r); err != nil {
		t.Fatal(err)
	}
	if n := len(list(t, filepath.Join(testdata, "formats", "*.log"))); r.Totals.Recordings != n || r.Totals.Disruptive != n || n < 10 {
		t.Errorf("%d files: %+v", n, r.Totals)
	}
	for _, n := range r.Nodes {
		root := n.Incidents[len(n.Incidents)-1].Root
		if root.Code != "Xid79" || root.PCI != "0000:18:00.0" || root.Recommended != "Reboot" || !root.Disruptive || root.First.IsZero() {
			t.Errorf("%s: %+v", n.File, root)
		}
	}
}

// TestThePageShowsRealOutput holds the sample of docs/replay.md to what the command prints.
func TestThePageShowsRealOutput(t *testing.T) {
	out, _, err := try(t, "", "-tz", "UTC", filepath.Join(testdata, "formats", "kmsg-with-boot.log"))
	if err != nil {
		t.Fatal(err)
	}
	if page := string(read(t, "../../../docs/replay.md")); !strings.Contains(page, "kmsg-with-boot.log\n"+out+"```") {
		t.Errorf("docs/replay.md does not show\n%s", out)
	}
}

func TestStandardInput(t *testing.T) {
	out, _, err := try(t, "4,1,1000000,-;NVRM: Xid (PCI:0000:18:00): 79, GPU has fallen off the bus.\n", "-boot-time", "2026-11-23T10:00:00Z", "-tz", "Asia/Tokyo", "-")
	if err != nil || !strings.Contains(out, "stdin  kmsg, 1 line, 2026-11-23 19:00:00 to 2026-11-23 19:00:01 JST\n") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestFailOnDisruptive(t *testing.T) {
	broken := "4,1,1000000,-;NVRM: Xid (PCI:0000:18:00): 79, GPU has fallen off the bus.\n"
	noise := "4,1,1000000,-;NVRM: Xid (PCI:0000:18:00): 45, pid=1, name=python, Ch 00000008\n"
	if _, _, err := try(t, broken, "-"); err != nil {
		t.Errorf("without the flag: %v", err)
	}
	if out, _, err := try(t, broken, "-fail-on-disruptive", "-"); !errors.Is(err, ErrDisruptive) || !strings.Contains(out, "Xid79") {
		t.Errorf("with it: %v", err)
	}
	if _, _, err := try(t, noise, "-fail-on-disruptive", "-"); err != nil {
		t.Errorf("noise: %v", err)
	}
}

func TestSeverityHidesAndCounts(t *testing.T) {
	noise := "4,1,1000000,-;NVRM: Xid (PCI:0000:18:00): 45, pid=1, name=python, Ch 00000008\n"
	out, _, err := try(t, noise, "-severity", "Warning", "-")
	if err != nil || strings.Contains(out, "Xid45") || !strings.Contains(out, "1 incident below Warning not shown") || !strings.Contains(out, "1 incident, 0 disruptive") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestErrorsNameWhatIsWrongAndTheFix(t *testing.T) {
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty.log")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		args []string
		want string
	}{
		"nothing":                    {nil, "say which logs to replay"},
		"a file that is not there":   {[]string{filepath.Join(dir, "none")}, "opening a log: open "},
		"an empty file":              {[]string{empty}, empty + ": nothing is in it"},
		"a directory":                {[]string{dir}, "is a directory; give the logs in it"},
		"an output that is none":     {[]string{"-o", "xml", empty}, "-o xml: want table, json"},
		"markdown of logs":           {[]string{"-o", "markdown", empty}, "-o markdown: want table, json"},
		"a format that is none":      {[]string{"-format", "xml", empty}, `-format: format "xml": want auto`},
		"a zone that is none":        {[]string{"-tz", "Moon", empty}, "-tz: "},
		"a boot time that is none":   {[]string{"-boot-time", "noon", empty}, `-boot-time "noon": want RFC 3339`},
		"a severity that is none":    {[]string{"-severity", "Bad", empty}, "-severity Bad: want Info"},
		"a corpus and a log":         {[]string{"-corpus", empty}, "leave out one of the two"},
		"a corpus to write and none": {[]string{"-write", dir, empty}, "give -corpus too"},
		"a corpus of no nodes":       {[]string{"-corpus", "-nodes", "0"}, "-corpus: 0 nodes: want 1 to"},
		"a flag that is none":        {[]string{"-x"}, "replay -h"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			_, _, err := try(t, "", tc.args...)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%v, want %q", err, tc.want)
			}
		})
	}
}

func TestHelp(t *testing.T) {
	_, help, err := try(t, "", "-h")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Usage: roundhouse-agent replay", "journalctl -k -o json", "-fail-on-disruptive", "-seed"} {
		if !strings.Contains(help, want) {
			t.Errorf("no %q in\n%s", want, help)
		}
	}
}

func TestCorpus(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "fleet")
	out, _, err := try(t, "", "-corpus", "-seed", "3", "-nodes", "21", "-days", "1", "-o", "json", "-write", dir, "-fail-on-disruptive")
	if err != nil {
		t.Fatal(err)
	}
	d := json.NewDecoder(strings.NewReader(out))
	d.DisallowUnknownFields()
	var s score.Score
	if err := d.Decode(&s); err != nil {
		t.Fatal(err)
	}
	if s.Seed != 3 || s.Nodes != 21 || s.FalseDisruptive != 0 || s.Missed != 0 {
		t.Errorf("%+v", s)
	}
	if n := len(list(t, filepath.Join(dir, "*.kmsg"))); n != 21 {
		t.Errorf("%d logs are written", n)
	}
}
