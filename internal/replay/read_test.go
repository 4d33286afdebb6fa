package replay

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// readAll shows the events of a file, one a line, and the notes.
func readAll(t testing.TB, in string, o ReadOptions) ([]string, Notes, error) {
	t.Helper()
	r, err := NewReader("gpu-17.log", strings.NewReader(in), o)
	if err != nil {
		return nil, Notes{}, err
	}
	var out []string
	var e Event
	for {
		err := r.Next(&e)
		if errors.Is(err, io.EOF) {
			return out, r.Notes(), nil
		}
		if err != nil {
			return out, r.Notes(), err
		}
		out = append(out, show(&e))
	}
}

func show(e *Event) string {
	s := e.At.Format(time.RFC3339Nano) + " "
	switch e.Kind {
	case Line:
		return s + fmt.Sprintf("%d %s", e.Priority, e.Text)
	case Boot:
		return s + "boot " + e.BootID
	case PCI:
		return s + fmt.Sprintf("pci %d", len(e.Devices))
	case NVML:
		return s + "nvml"
	case Reset:
		return s + "reset " + e.Address
	case AgentStop:
		return s + "stop"
	case AgentStart:
	}
	return s + "start"
}

func TestReader(t *testing.T) {
	now := at(t, "2027-01-05T00:00:00Z")
	tests := map[string]struct {
		in      string
		o       ReadOptions
		format  Format
		assumed bool
		want    []string
	}{
		"raw records with a boot that is told": {
			in:     "# boot 0fc7 2026-11-23T10:00:00Z\n4,0,1000000,-;a\n SUBSYSTEM=pci\n12,1,2000000,-;b\\x0ac\n# agent stop 2026-11-23T10:00:03Z\n",
			format: FormatKmsg,
			want: []string{
				"2026-11-23T10:00:00Z boot 0fc7", "2026-11-23T10:00:01Z 4 a", `2026-11-23T10:00:02Z 12 b\x0ac`, "2026-11-23T10:00:03Z stop",
			},
		},
		"raw records alone are since the boot": {
			in: "4,17,1000000,-;a\n", format: FormatKmsg, want: []string{"1970-01-01T00:00:00Z boot ", "1970-01-01T00:00:01Z 4 a"},
		},
		"numbers that begin anew are another boot, a minute later": {
			in: "4,17,1000000,-;a\n4,0,500000,-;b\n", format: FormatKmsg,
			want: []string{"1970-01-01T00:00:00Z boot ", "1970-01-01T00:00:01Z 4 a", "1970-01-01T00:01:01Z boot ", "1970-01-01T00:01:01.5Z 4 b"},
		},
		"what is not printable is shown as the kernel shows it": {
			in: "4,17,1000000,-;a\x1b\xffb\\x0a\n", format: FormatKmsg, want: []string{"1970-01-01T00:00:00Z boot ", `1970-01-01T00:00:01Z 4 a\x1b\xffb\x0a`},
		},
		"dmesg with a boot time, and a text of several lines": {
			in: "[    1.000000] NVRM: The NVIDIA GPU 0000:18:00.0\n               NVRM: fallen off\n[    2.000000] b\n", format: FormatDmesg, assumed: true,
			o:    ReadOptions{BootTime: at(t, "2026-11-23T10:00:00Z")},
			want: []string{"2026-11-23T10:00:00Z boot ", `2026-11-23T10:00:01Z 4 NVRM: The NVIDIA GPU 0000:18:00.0\x0aNVRM: fallen off`, "2026-11-23T10:00:02Z 4 b"},
		},
		"dmesg -x tells the facility": {
			in: "kern  :warn  : [    1.000000] a\nuser  :warn  : [    1.000000] b\n", format: FormatDmesg,
			want: []string{"1970-01-01T00:00:00Z boot ", "1970-01-01T00:00:01Z 4 a", "1970-01-01T00:00:01Z 12 b"},
		},
		"dmesg whose times are a little out of order": {
			in: "[    1.000200] a\n[    1.000100] b\n", format: FormatDmesg, assumed: true,
			want: []string{"1970-01-01T00:00:00Z boot ", "1970-01-01T00:00:01.0002Z 4 a", "1970-01-01T00:00:01.0001Z 4 b"},
		},
		"dmesg of two boots in one file": {
			in: "[  100.000000] a\n[    0.000000] Linux version 6.8\n", format: FormatDmesg, assumed: true,
			want: []string{"1970-01-01T00:00:00Z boot ", "1970-01-01T00:01:40Z 4 a", "1970-01-01T00:02:40Z boot ", "1970-01-01T00:02:40Z 4 Linux version 6.8"},
		},
		"dmesg -T in the zone given": {
			in: "[Mon Nov 23 10:00:00 2026] a\n", format: FormatDmesg, assumed: true, o: ReadOptions{Zone: zone},
			want: []string{"2026-11-23T13:30:00Z boot ", "2026-11-23T13:30:00Z 4 a"},
		},
		"a journal over a new year, with a process's line in it": {
			in:     "-- Boot 0fc7 --\nDec 31 23:59:59 gpu-17 kernel: a\nDec 31 23:59:59 gpu-17 sshd[1]: x\n                           y\nJan  1 00:00:01 gpu-17 kernel: b\n",
			format: FormatJournal, assumed: true,
			want: []string{"2026-12-31T23:59:59Z boot 0fc7", "2026-12-31T23:59:59Z 4 a", "2027-01-01T00:00:01Z 4 b"},
		},
		"a journal with a reboot": {
			in: "2026-11-23T10:00:00+0000 gpu-17 kernel: a\n-- Reboot --\n2026-11-23T10:05:00+0000 gpu-17 kernel: b\n", format: FormatJournal, assumed: true,
			want: []string{"2026-11-23T10:00:00Z boot ", "2026-11-23T10:00:00Z 4 a", "2026-11-23T10:05:00Z boot ", "2026-11-23T10:05:00Z 4 b"},
		},
		"a journal without separators: the banner is a boot": {
			in: "2026-11-23T10:00:00+0000 gpu-17 kernel: a\n2026-11-23T10:05:00+0000 gpu-17 kernel: Linux version 6.8\n", format: FormatJournal, assumed: true,
			want: []string{"2026-11-23T10:00:00Z boot ", "2026-11-23T10:00:00Z 4 a", "2026-11-23T10:05:00Z boot ", "2026-11-23T10:05:00Z 4 Linux version 6.8"},
		},
		"short-monotonic is no dmesg": {
			in: "[    1.000000] gpu-17 kernel: a\n[    1.500000] gpu-17 kernel: b\n", format: FormatJournal, assumed: true,
			want: []string{"1970-01-01T00:00:00Z boot ", "1970-01-01T00:00:01Z 4 a", "1970-01-01T00:00:01.5Z 4 b"},
		},
		"short-monotonic with a process's line first": {
			in: "[    1.000000] gpu-17 systemd[1]: x\n[    1.500000] gpu-17 kernel: b\n", format: FormatJournal, assumed: true,
			want: []string{"1970-01-01T00:00:00Z boot ", "1970-01-01T00:00:01.5Z 4 b"},
		},
		"dmesg in which a process says that it is the kernel": {
			in: "[    1.000000] usb 1-1: x\n[    1.500000] gpu-17 kernel: b\n", format: FormatDmesg, assumed: true,
			want: []string{"1970-01-01T00:00:00Z boot ", "1970-01-01T00:00:01Z 4 usb 1-1: x", "1970-01-01T00:00:01.5Z 4 gpu-17 kernel: b"},
		},
		"a journal as JSON over two boots": {
			in: `{"__REALTIME_TIMESTAMP":"1764000000000000","_BOOT_ID":"a","_TRANSPORT":"kernel","PRIORITY":"4","SYSLOG_FACILITY":"0","MESSAGE":"x\ny"}` + "\n" +
				`{"__REALTIME_TIMESTAMP":"1764000100000000","_BOOT_ID":"b","_TRANSPORT":"kernel","PRIORITY":"4","SYSLOG_FACILITY":"1","MESSAGE":"z"}` + "\n",
			format: FormatJournalJSON,
			want:   []string{"2025-11-24T16:00:00Z boot a", `2025-11-24T16:00:00Z 4 x\x0ay`, "2025-11-24T16:01:40Z boot b", "2025-11-24T16:01:40Z 12 z"},
		},
		"facts": {
			in: `{"at":"2026-11-23T10:00:00Z","boot":"0fc7"}` + "\n" + `{"at":"2026-11-23T10:00:01Z","kmsg":"4,0,1,-;a"}` + "\n" +
				`{"at":"2026-11-23T10:00:02Z","pci":[]}` + "\n" + `{"at":"2026-11-23T10:00:03Z","reset":"0000:18:00.0"}`,
			format: FormatFacts,
			want: []string{
				"2026-11-23T10:00:00Z boot 0fc7", "2026-11-23T10:00:01Z 4 a", "2026-11-23T10:00:02Z pci 0", "2026-11-23T10:00:03Z reset 0000:18:00.0",
			},
		},
		"Windows' line ends": {
			in: "[    1.000000] a\r\n[    2.000000] b\r\n", format: FormatDmesg, assumed: true,
			want: []string{"1970-01-01T00:00:00Z boot ", "1970-01-01T00:00:01Z 4 a", "1970-01-01T00:00:02Z 4 b"},
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			tc.o.Now = now
			got, notes, err := readAll(t, tc.in, tc.o)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if notes.Format != tc.format || notes.FacilityAssumed != tc.assumed || notes.Malformed != 0 {
				t.Errorf("%+v", notes)
			}
		})
	}
}

func TestReaderSaysWhereAndWhatToDo(t *testing.T) {
	tests := map[string]struct {
		in, want string
	}{
		"an empty file":          {"\n\n", "gpu-17.log: nothing is in it; want raw /dev/kmsg"},
		"a file of another kind": {"\nhello\nworld\n", "gpu-17.log:2: cannot tell what this is; want raw /dev/kmsg"},
		"a compressed file":      {"\x1f\x8b\x08\x00", "gpu-17.log: compressed; give it as `zcat"},
		"JSON of another kind":   {`{"hello":1}`, "gpu-17.log:1: cannot tell"},
		"a fact with an error in it": {
			`{"at":"2026-11-23T10:00:00Z","boot":"0fc7"}` + "\n" + `{"at":"2026-11-23T10:00:00Z","reset":"x"}` + "\n",
			`gpu-17.log:2: reset: parsing PCI address "x"`,
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			_, _, err := readAll(t, tc.in, ReadOptions{})
			if err == nil || !strings.HasPrefix(err.Error(), tc.want) {
				t.Errorf("%v, want %s", err, tc.want)
			}
		})
	}
}

func TestReaderGoesOnAfterALineThatIsNone(t *testing.T) {
	got, notes, err := readAll(t, "4,1,1000000,-;a\n4,2,20000\n4,3,3000000,-;c\n", ReadOptions{})
	if err != nil || len(got) != 3 || notes.Malformed != 1 || !strings.HasPrefix(notes.FirstMalformed, "gpu-17.log:2: not a record") {
		t.Errorf("%q %+v %v", got, notes, err)
	}
	got, notes, err = readAll(t, "the end of a text\n[    1.000000] a\n", ReadOptions{Format: FormatDmesg})
	if err != nil || len(got) != 2 || notes.Malformed != 1 {
		t.Errorf("%q %+v %v", got, notes, err)
	}
}

func TestReaderBoundsLinesAndTexts(t *testing.T) {
	long := strings.Repeat("x", 1<<20)
	got, notes, err := readAll(t, "[    1.000000] "+long+"\n[    2.000000] b\n", ReadOptions{Format: FormatDmesg})
	if err != nil || len(got) != 3 || notes.Cut != 1 {
		t.Fatalf("%d events, %+v, %v", len(got), notes, err)
	}
	if len(got[1]) > maxText+64 || got[2] != "1970-01-01T00:00:02Z 4 b" {
		t.Errorf("%d bytes, then %q", len(got[1]), got[2])
	}
	// A text that goes on for ever is one record of bounded length.
	got, _, err = readAll(t, "[    1.000000] a\n"+strings.Repeat("  more\n", 100000), ReadOptions{})
	if err != nil || len(got) != 2 || len(got[1]) > maxText+64 {
		t.Errorf("%d events, %v", len(got), err)
	}
}

func TestReaderReportsAFileThatBreaks(t *testing.T) {
	broken := io.MultiReader(strings.NewReader("4,1,1,-;a\n"), iotest.ErrReader(errors.New("input/output error")))
	r, err := NewReader("gpu-17.log", broken, ReadOptions{Format: FormatKmsg})
	if err != nil {
		t.Fatal(err)
	}
	var e Event
	for err == nil {
		err = r.Next(&e)
	}
	if err.Error() != "gpu-17.log:2: input/output error" {
		t.Error(err)
	}
}

func TestParseFormat(t *testing.T) {
	for _, f := range Formats() {
		if got, err := ParseFormat(string(f)); got != f || err != nil {
			t.Errorf("%s: %s %v", f, got, err)
		}
	}
	if f, err := ParseFormat("auto"); f != "" || err != nil {
		t.Errorf("%s %v", f, err)
	}
	if _, err := ParseFormat("xml"); err == nil || !strings.Contains(err.Error(), "journal-json") {
		t.Error(err)
	}
}
