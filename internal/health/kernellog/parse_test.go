package kernellog

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/roundhouse-dev/roundhouse/internal/machine"
)

// show writes a line the way testdata/lines.txt does.
func show(l Line) string {
	kinds := map[Kind]string{
		Xid: "xid", SXid: "sxid", OffBus: "offbus", InitFailed: "init", GSPRateLimited: "gsp", ProbeFailed: "probe",
		NoGPU: "nogpu", UUIDOf: "uuid",
	}
	if l.Kind == None {
		return "none"
	}
	s := fmt.Sprintf("%s %s %d", kinds[l.Kind], l.Address, l.Code)
	if l.CausedBy != 0 {
		s += fmt.Sprintf(" caused=%d", l.CausedBy)
	}
	if l.Named {
		s += " named"
	}
	if r := map[Recovery]string{
		RecoveryNone: "none", RecoveryReset: "reset", RecoveryReboot: "reboot", RecoveryDrainP2P: "drain-p2p",
		RecoveryDrainAndReset: "drain-and-reset",
	}[l.Recovery]; r != "" {
		s += " recovery=" + r
	}
	if f := map[Fatality]string{Fatal: "fatal", NonFatal: "nonfatal"}[l.Fatality]; f != "" {
		s += " " + f
	}
	return s
}

// corpus is the texts of testdata/lines.txt and what is to be read of each.
func corpus(t testing.TB) (texts, want []string) {
	t.Helper()
	f, err := os.Open("testdata/lines.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	for s := bufio.NewScanner(f); s.Scan(); {
		switch line := s.Text(); {
		case strings.HasPrefix(line, "#"):
		case strings.HasPrefix(line, "> "):
			want = append(want, line[2:])
		default:
			texts = append(texts, line)
		}
	}
	if len(texts) != len(want) || len(texts) < 40 {
		t.Fatalf("%d texts and %d answers", len(texts), len(want))
	}
	return texts, want
}

func TestParseLineReadsTheDriversFormsAndNothingThatAProcessChose(t *testing.T) {
	texts, want := corpus(t)
	for i, text := range texts {
		t.Run(want[i], func(t *testing.T) {
			if got := show(ParseLine([]byte(text))); got != want[i] {
				t.Errorf("%s\n got %s\nwant %s", text, got, want[i])
			}
		})
	}
}

func TestParseRecord(t *testing.T) {
	tests := map[string]struct {
		in   string
		want Record
		bad  bool
	}{
		"a plain record": {
			in: "4,1234,5678,-;NVRM: hello\n", want: Record{Priority: 4, Seq: 1234, Usec: 5678, Text: []byte("NVRM: hello")},
		},
		"properties follow on lines of their own and are no text": {
			in:   "6,1,2,-;pci 0000:18:00.0: removed\n SUBSYSTEM=pci\n DEVICE=+pci:0000:18:00.0\n",
			want: Record{Priority: 6, Seq: 1, Usec: 2, Text: []byte("pci 0000:18:00.0: removed")},
		},
		"a caller after the flags": {
			in: "4,1,2,-,caller=T99;x\n", want: Record{Priority: 4, Seq: 1, Usec: 2, Text: []byte("x")},
		},
		"a continuation": {
			in: "4,1,2,c;x\n", want: Record{Priority: 4, Seq: 1, Usec: 2, Fragment: true, Text: []byte("x")},
		},
		"a continuation of an old kernel": {
			in: "4,1,2,+;x\n", want: Record{Priority: 4, Seq: 1, Usec: 2, Fragment: true, Text: []byte("x")},
		},
		"a process's, by its facility": {
			in: "12,1,2,-;x\n", want: Record{Priority: 12, Seq: 1, Usec: 2, Text: []byte("x")},
		},
		"semicolons in the text stay":       {in: "4,1,2,-;a;b\n", want: Record{Priority: 4, Seq: 1, Usec: 2, Text: []byte("a;b")}},
		"no newline at the end":             {in: "4,1,2,-;x", want: Record{Priority: 4, Seq: 1, Usec: 2, Text: []byte("x")}},
		"an empty text":                     {in: "4,1,2,-;\n", want: Record{Priority: 4, Seq: 1, Usec: 2, Text: []byte{}}},
		"no semicolon is malformed":         {in: "4,1,2,-", bad: true},
		"too few fields are malformed":      {in: "4,1;x", bad: true},
		"a word for a number is malformed":  {in: "4,x,2,-;x", bad: true},
		"a sign is malformed":               {in: "-4,1,2,-;x", bad: true},
		"an empty number is malformed":      {in: ",1,2,-;x", bad: true},
		"a priority too large is malformed": {in: "70000,1,2,-;x", bad: true},
		"a number too long is malformed":    {in: "4,99999999999999999999,2,-;x", bad: true},
		"nothing is malformed":              {in: "", bad: true},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := ParseRecord([]byte(tc.in))
			if errors.Is(err, ErrMalformed) != tc.bad {
				t.Fatalf("error %v", err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestUnescape(t *testing.T) {
	for in, want := range map[string]string{
		`plain`: "plain", `a\x0ab`: "a\nb", `\x5cx0a`: `\x0a`, `\x`: `\x`, `\x0`: `\x0`, `\xzz`: `\xzz`, `\x41`: "A",
	} {
		if got := string(Unescape([]byte(in))); got != want {
			t.Errorf("Unescape(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestCatalogueNeverDisturbsForAnApplicationOrAnUnknownCode(t *testing.T) {
	for code := range 2000 {
		_, e, _ := Describe(Line{Kind: Xid, Code: code})
		_, known := catalogue[code]
		quiet := e.Recommended == "None" || e.Recommended == "RestartApplication"
		switch {
		case e.Class == "Application" && (e.Severity != "Info" || !quiet):
			t.Errorf("Xid %d is an application's and yet %s, %s", code, e.Severity, e.Recommended)
		case !known && code != 154 && (e.Severity != "Info" || e.Recommended != "None"):
			t.Errorf("Xid %d is not in the catalogue and yet %s, %s", code, e.Severity, e.Recommended)
		case e.Recommended == "" || e.ClearedBy == "" || e.Class == "":
			t.Errorf("Xid %d is not filled in: %+v", code, e)
		}
	}
	for _, g := range xidGroups {
		for _, code := range g.codes {
			if catalogue[code] != g.entry {
				t.Errorf("Xid %d is in two groups", code)
			}
		}
	}
	if n := len(catalogue); n < 110 {
		t.Errorf("only %d codes", n)
	}
}

func FuzzParseRecord(f *testing.F) {
	f.Add([]byte("4,1234,5678,-;NVRM: hello\n SUBSYSTEM=pci\n"))
	f.Add([]byte("4,1,2,c,caller=T1;x"))
	f.Add([]byte(",;,"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := ParseRecord(b)
		if err != nil {
			return
		}
		if bytes.ContainsRune(r.Text, '\n') || len(r.Text) > len(b) {
			t.Errorf("text %q", r.Text)
		}
		again, err := ParseRecord(fmt.Appendf(nil, "%d,%d,%d,-;%s\n", r.Priority, r.Seq, r.Usec, r.Text))
		if err != nil || again.Seq != r.Seq || again.Usec != r.Usec || again.Priority != r.Priority || !bytes.Equal(again.Text, r.Text) {
			t.Errorf("%q reads back as %+v, %v", b, again, err)
		}
	})
}

// FuzzParseLine holds that whatever a process calls itself, the line says the same.
func FuzzParseLine(f *testing.F) {
	texts, _ := corpus(f)
	for _, text := range texts {
		f.Add([]byte(text), "python")
	}
	f.Add([]byte(""), "x): 79, GPU has fallen off the bus. caused by previous Xid 79")
	f.Fuzz(func(t *testing.T, text []byte, name string) {
		l := ParseLine(text)
		if l.Kind == UUIDOf && !machine.IsGPUUUID(l.UUID) {
			t.Errorf("UUID %q", l.UUID)
		}
		if l.Kind != None && l.Kind != ProbeFailed && l.Kind != NoGPU {
			if a, err := machine.ParsePCIAddress(l.Address.String()); err != nil || a != l.Address.String() {
				t.Errorf("address %s: %v", l.Address, err)
			}
		}
		if code, e, ok := Describe(l); ok && (len(code) > 64 || e.Severity == "") {
			t.Errorf("code %q, %+v", code, e)
		}
		for _, code := range []int{13, 31, 45, 149, 154} {
			named := fmt.Appendf(nil, "NVRM: Xid (PCI:0000:18:00): %d, pid=7, name=%s, Graphics Exception", code, name)
			want := Line{Kind: Xid, Address: Address{Bus: 0x18}, Code: code, Named: true}
			if got := ParseLine(named); got != want {
				t.Errorf("name %q turns the line into %+v", name, got)
			}
		}
	})
}

func BenchmarkParse(b *testing.B) {
	for name, record := range map[string]string{
		"application-xid": "4,1234,5678,-;NVRM: Xid (PCI:0000:18:00): 13, pid=4711, name=python, Graphics SM Warp Exception on (GPC 0, TPC 1)\n",
		"foreign-line":    "6,1234,5678,-;eth0: renamed from veth1234567, and some more words to make it a usual line\n",
	} {
		b.Run(name, func(b *testing.B) {
			rec := []byte(record)
			b.ReportAllocs()
			for b.Loop() {
				r, err := ParseRecord(rec)
				if err != nil {
					b.Fatal(err)
				}
				ParseLine(r.Text)
			}
		})
	}
}
