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

// show writes a line the way testdata/lines.txt does: what was parsed, and what is made of it.
func show(l Line) string {
	code, e, fault := Describe(l)
	switch {
	case l.Kind == None:
		return "none"
	case l.Kind == DriverLoaded:
		return fmt.Sprintf("driver %d", l.Driver)
	case !fault:
		return fmt.Sprintf("%s %s", map[Kind]string{UUIDOf: "uuid", AMDResetDone: "recovered"}[l.Kind], l.Address)
	}
	s := code
	if !byKind[l.Kind].onNode {
		s += " " + l.Address.String()
	}
	s += fmt.Sprintf(" %s/%s/%s", e.Class, e.Severity, e.Recommended)
	if l.CausedBy != 0 {
		s += fmt.Sprintf(" caused=%d", l.CausedBy)
	}
	if l.Named {
		s += " named"
	}
	if l.Link != 0 {
		s += fmt.Sprintf(" link=%d", l.Link-1)
	}
	if f := map[Fatality]string{Fatal: "fatal", NonFatal: "nonfatal", Correctable: "correctable"}[l.Fatality]; f != "" {
		s += " " + f
	}
	if e.OnLink > 0 {
		s += fmt.Sprintf(" above=%d", e.OnLink)
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

// escaped is a process's name as /dev/kmsg shows it (msg_add_ext_text in kernel/printk/printk.c).
func escaped(name string) string {
	var b strings.Builder
	for i := range len(name) {
		if c := name[i]; c < ' ' || c >= 0x7f || c == '\\' {
			fmt.Fprintf(&b, `\x%02x`, c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// comm is the name of a process as the kernel keeps it: at most 15 bytes, none of them 0 (TASK_COMM_LEN).
func comm(name string) string {
	name, _, _ = strings.Cut(name, "\x00")
	return escaped(name[:min(len(name), 15)])
}

// namedLines are lines of the kernel that hold the name of a process, and what they are whatever that is.
var namedLines = []struct {
	before, after string
	want          Kind
}{
	{"", " invoked oom-killer: gfp_mask=0x140cca(GFP_HIGHUSER_MOVABLE|__GFP_COMP), order=0, oom_score_adj=0", None},
	{"", ": page allocation failure: order:4, mode:0x40cc0(GFP_KERNEL|__GFP_COMP), nodemask=(null),cpuset=/,mems_allowed=0", None},
	{"", "[4711]: segfault at 0 ip 00007f0000000000 sp 00007ffd00000000 error 4 in a[400000+1000]", None},
	{"", " (4711): drop_caches: 3", None},
	{"", "[4711] vsyscall attempted with vsyscall=none ip:ffffffffff600000 cs:33 sp:7ffd00000000 ax:0 si:0 di:0", None},
	{"", " (4711) used greatest stack depth: 11000 bytes left", None},
	{"traps: ", "[4711] general protection fault ip:7f0000000000 sp:7ffd00000000 error:0 in a[400000+1000]", None},
	{"process '", "' started with executable stack", None},
	{"CPU: 3 PID: 4711 Comm: ", " Tainted: P           OE      6.1.0 #1", None},
	{"EXT4-fs error (device nvme0n1p1): ext4_find_entry:1455: inode #2: comm ", ": reading directory lblock 0", None},
	{"amdgpu 0000:03:00.0: amdgpu: Process information: process ", " pid 4711 thread a pid 4711", None},
	{"amdgpu 0000:03:00.0: amdgpu:  Process ", " pid 4711 thread a pid 4711", None},
	{"INFO: task dd:456 is blocked on a mutex likely owned by task ", ":4711.", None},
	{"INFO: task ", ":4711 blocked for more than 122 seconds.", HungTask},
	{"watchdog: BUG: soft lockup - CPU#17 stuck for 22s! [", ":4711]", SoftLockup},
	{"Out of memory: Killed process 4711 (", ") total-vm:1kB, anon-rss:1kB, file-rss:0kB, shmem-rss:0kB", OOMKilled},
	{"Memory cgroup out of memory: Killed process 4711 (", ") total-vm:1kB, anon-rss:1kB, file-rss:0kB", CgroupOOMKilled},
}

func checkNames(t *testing.T, name string) {
	t.Helper()
	for _, l := range namedLines {
		if text := l.before + comm(name) + l.after; ParseLine([]byte(text)) != (Line{Kind: l.want}) {
			t.Errorf("name %q: %s is read as %+v", name, text, ParseLine([]byte(text)))
		}
	}
	for _, code := range []int{13, 31, 45, 74, 144, 149, 154} {
		// The driver keeps longer names (NV_PROC_NAME_MAX_LENGTH).
		text := fmt.Sprintf("NVRM: Xid (PCI:0000:18:00): %d, pid=7, name=%s, Graphics Exception", code, escaped(name[:min(len(name), 99)]))
		want := Line{Kind: Xid, Address: Address{Bus: 0x18}, Code: code, Named: true}
		if got := ParseLine([]byte(text)); got != want {
			t.Errorf("name %q turns the line into %+v", name, got)
		}
	}
}

// TestNoNameOfAProcessIsRead tries as a name every line that is known and every part of one that fits.
func TestNoNameOfAProcessIsRead(t *testing.T) {
	texts, _ := corpus(t)
	for _, text := range texts {
		for i := range min(len(text), 64) {
			checkNames(t, text[i:])
		}
		checkNames(t, "a\n"+text)
		checkNames(t, "a, "+text)
		checkNames(t, "<unknown>, "+text)
	}
	for _, p := range hostPatterns {
		checkNames(t, p.prefix)
	}
	for _, m := range amdMessages {
		checkNames(t, m.prefix)
		checkNames(t, "amdgpu 0:3:0: "+m.prefix)
	}
}

// FuzzParseLine holds that what is read of any line is well formed.
func FuzzParseLine(f *testing.F) {
	texts, _ := corpus(f)
	for _, text := range texts {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		l := ParseLine(text)
		if l.Kind == UUIDOf && !machine.IsGPUUUID(l.UUID) {
			t.Errorf("UUID %q", l.UUID)
		}
		if a, err := machine.ParsePCIAddress(l.Address.String()); err != nil || a != l.Address.String() {
			t.Errorf("address %s: %v", l.Address, err)
		}
		if l.Kind >= kinds || l.Link > maxLink+1 || l.Named && (l.HasRegisters || l.Link != 0 || l.Recovery != 0 || l.Fatality != 0 || l.CausedBy != 0) {
			t.Errorf("%+v", l)
		}
		code, e, ok := Describe(l)
		if ok && (len(code) > 64 || e.Severity == "" || e.Class == "" || e.Recommended == "" || e.ClearedBy == "") {
			t.Errorf("code %q, %+v", code, e)
		}
	})
}

// FuzzName holds that whatever a process calls itself, the lines that name it say the same.
func FuzzName(f *testing.F) {
	texts, _ := corpus(f)
	for _, text := range texts {
		f.Add(text)
	}
	for _, p := range hostPatterns {
		f.Add(p.prefix)
	}
	f.Add("x): 79, GPU has fallen off the bus. caused by previous Xid 79")
	f.Add("EDAC MC0: 1 UE ")
	f.Add("INFO: task a:1")
	f.Add("a\x0a, pid='<unknown>', name=<unknown>, ")
	f.Fuzz(checkNames)
}

func BenchmarkParse(b *testing.B) {
	for name, record := range map[string]string{
		"application-xid": "4,1234,5678,-;NVRM: Xid (PCI:0000:18:00): 13, pid=4711, name=python, Graphics SM Warp Exception on (GPC 0, TPC 1)\n",
		"foreign-line":    "6,1234,5678,-;eth0: renamed from veth1234567, and some more words to make it a usual line\n",
		"foreign-device":  "6,1234,5678,-;pci 0000:18:00.0: BAR 1 [mem 0x3b000000000-0x3bfffffffff 64bit pref]: assigned\n",
		"nvlink5-xid":     "4,1234,5678,-;NVRM: Xid (PCI:0000:18:00): 149, NETIR_LINK_EVT  Fatal   XC0 i0 Link 02 (0x004505c6 0x00000000 0x00000000)\n",
		"host-line":       "3,1234,5678,-;INFO: task kworker/u128:3:4711 blocked for more than 122 seconds.\n",
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
