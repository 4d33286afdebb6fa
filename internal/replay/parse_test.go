package replay

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/roundhouse-dev/roundhouse/internal/machine"
)

func at(t testing.TB, s string) time.Time {
	t.Helper()
	out, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		t.Fatal(err)
	}
	return out.UTC()
}

// zone is one whose offset is not whole hours from UTC, nor what it was in the year 0.
var zone = time.FixedZone("test", -(3*3600 + 30*60))

type parseCase struct {
	in   string
	want parsed
	err  string
}

func testParse(t *testing.T, parse func(b []byte) (parsed, error), tests map[string]parseCase) {
	t.Helper()
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := parse([]byte(tc.in))
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Errorf("error %v, want one with %q", err, tc.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			opts := []cmp.Option{cmp.AllowUnexported(parsed{}), cmpopts.EquateEmpty()}
			if diff := cmp.Diff(tc.want, got, opts...); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestParseKmsg(t *testing.T) {
	boot := at(t, "2026-11-23T10:00:00Z")
	testParse(t, parseKmsg, map[string]parseCase{
		"a record, numbered from one": {
			in:   "4,7,1500000,-;NVRM: hello",
			want: parsed{what: aLine, priority: 4, seq: 8, mono: 1500 * time.Millisecond, hasMono: true, text: []byte("NVRM: hello"), escaped: true},
		},
		"a process's": {
			in:   "12,0,1,-,caller=T99;x;y",
			want: parsed{what: aLine, priority: 12, seq: 1, mono: time.Microsecond, hasMono: true, text: []byte("x;y"), escaped: true},
		},
		"a continuation": {
			in:   "4,1,0,c;x",
			want: parsed{what: aLine, priority: 4, seq: 2, fragment: true, hasMono: true, text: []byte("x"), escaped: true},
		},
		"a property of the record before": {in: " SUBSYSTEM=pci", want: parsed{what: aSkip}},
		"an empty line":                   {in: "", want: parsed{what: aSkip}},
		"a comment":                       {in: "# taken by hand", want: parsed{what: aSkip}},
		"a boot": {
			in:   "# boot 0fc70fad-6980-4f05-acf8-5f6c56122bb4 2026-11-23T10:00:00Z",
			want: parsed{what: aBoot, wall: boot, boot: "0fc70fad-6980-4f05-acf8-5f6c56122bb4", event: Event{At: boot}},
		},
		"the agent was killed":  {in: "# agent stop 2026-11-23T10:00:00Z", want: parsed{what: aFact, wall: boot, event: Event{At: boot, Kind: AgentStop}}},
		"the agent was started": {in: "# agent start 2026-11-23T10:00:00Z", want: parsed{what: aFact, wall: boot, event: Event{At: boot, Kind: AgentStart}}},
		"a device was reset": {
			in:   "# reset 0000:18:00 2026-11-23T10:00:00Z",
			want: parsed{what: aFact, wall: boot, event: Event{At: boot, Kind: Reset, Address: "0000:18:00.0"}},
		},
		"a boot without a time":           {in: "# boot 0fc7 yesterday", err: "want RFC 3339"},
		"a boot of long ago":              {in: "# boot 0fc7 1066-10-14T10:00:00Z", err: "1970 to 2200"},
		"a reset of no address":           {in: "# reset GPU-1 2026-11-23T10:00:00Z", err: "parsing PCI address"},
		"no record":                       {in: "hello", err: "not a record of /dev/kmsg"},
		"a record of the next millennium": {in: "4,1,99999999999999999,-;x", err: "century"},
	})
}

func TestParseDmesg(t *testing.T) {
	parse := func(b []byte) (parsed, error) {
		p, facility, err := parseDmesg(b, zone)
		if facility {
			p.boot = "told" // stands for the second result
		}
		return p, err
	}
	mono := 12*time.Second + 345678*time.Microsecond
	testParse(t, parse, map[string]parseCase{
		"plain":            {in: "[   12.345678] NVRM: hello", want: parsed{what: aLine, priority: 4, mono: mono, hasMono: true, text: []byte("NVRM: hello")}},
		"a large time":     {in: "[1234567.000001] x", want: parsed{what: aLine, priority: 4, mono: 1234567*time.Second + time.Microsecond, hasMono: true, text: []byte("x")}},
		"with -x":          {in: "kern  :warn  : [   12.345678] x", want: parsed{what: aLine, priority: 4, mono: mono, hasMono: true, text: []byte("x"), boot: "told"}},
		"a process's":      {in: "user  :err   : [   12.345678] x", want: parsed{what: aLine, priority: 11, mono: mono, hasMono: true, text: []byte("x"), boot: "told"}},
		"local0 of -x":     {in: "local0:debug : [   12.345678] x", want: parsed{what: aLine, priority: 135, mono: mono, hasMono: true, text: []byte("x"), boot: "told"}},
		"with -r":          {in: "<6>[   12.345678] x", want: parsed{what: aLine, priority: 6, mono: mono, hasMono: true, text: []byte("x")}},
		"a process's, -r":  {in: "<12>[   12.345678] x", want: parsed{what: aLine, priority: 12, mono: mono, hasMono: true, text: []byte("x"), boot: "told"}},
		"with its caller":  {in: "[   12.345678] [  T1234] x", want: parsed{what: aLine, priority: 4, mono: mono, hasMono: true, text: []byte("x")}},
		"brackets in text": {in: "[   12.345678] [Firmware Bug]: x", want: parsed{what: aLine, priority: 4, mono: mono, hasMono: true, text: []byte("[Firmware Bug]: x")}},
		"with -T": {
			in:   "[Mon Nov 23 10:00:00 2026] x",
			want: parsed{what: aLine, priority: 4, wall: at(t, "2026-11-23T13:30:00Z"), text: []byte("x")},
		},
		"with -x and -T, a day of one digit": {
			in:   "kern  :info  : [Thu Nov  5 10:00:00 2026] x",
			want: parsed{what: aLine, priority: 6, wall: at(t, "2026-11-05T13:30:00Z"), text: []byte("x"), boot: "told"},
		},
		"text that goes on":               {in: "               NVRM: second line", want: parsed{what: aContinuation, text: []byte("NVRM: second line"), priority: 0}},
		"an empty line":                   {in: "", want: parsed{what: aSkip}},
		"a bracket that is no time":       {in: "[drm] x", want: parsed{what: aContinuation, text: []byte("[drm] x")}},
		"a time beyond what there can be": {in: "[9999999999.000000] x", want: parsed{what: aContinuation, text: []byte("[9999999999.000000] x")}},
		"a year beyond what there can be": {in: "[Mon Nov 23 10:00:00 1066] x", err: "1970 to 2200"},
	})
}

func TestParseJournal(t *testing.T) {
	parse := func(b []byte) (parsed, error) { return parseJournal(b, zone) }
	line := func(wall time.Time) parsed {
		return parsed{what: aLine, priority: 4, wall: wall, text: []byte("NVRM: hello")}
	}
	short := line(time.Date(0, 11, 23, 10, 0, 0, 0, zone))
	short.noYear = true
	precise := line(time.Date(0, 11, 3, 10, 0, 0, 123456000, zone))
	precise.noYear = true
	testParse(t, parse, map[string]parseCase{
		"short":                 {in: "Nov 23 10:00:00 gpu-17 kernel: NVRM: hello", want: short},
		"short-precise":         {in: "Nov  3 10:00:00.123456 gpu-17 kernel: NVRM: hello", want: precise},
		"short-iso":             {in: "2026-11-23T10:00:00+0900 gpu-17 kernel: NVRM: hello", want: line(at(t, "2026-11-23T01:00:00Z"))},
		"short-iso of new":      {in: "2026-11-23T10:00:00+09:00 gpu-17 kernel: NVRM: hello", want: line(at(t, "2026-11-23T01:00:00Z"))},
		"short-iso-precise":     {in: "2026-11-23T10:00:00.500000+0000 gpu-17 kernel: NVRM: hello", want: line(at(t, "2026-11-23T10:00:00.5Z"))},
		"short-monotonic":       {in: "[   12.500000] gpu-17 kernel: NVRM: hello", want: parsed{what: aLine, priority: 4, mono: 12500 * time.Millisecond, hasMono: true, text: []byte("NVRM: hello")}},
		"a line without text":   {in: "[   12.500000] gpu-17 kernel:", want: parsed{what: aLine, priority: 4, mono: 12500 * time.Millisecond, hasMono: true}},
		"a process's":           {in: "[   12.500000] gpu-17 sshd[77]: kernel: x", want: parsed{what: aForeign, priority: 4, mono: 12500 * time.Millisecond, hasMono: true, text: []byte("kernel: x")}},
		"text that goes on":     {in: "                         NVRM: second", want: parsed{what: aContinuation, text: []byte("NVRM: second")}},
		"a boot":                {in: "-- Boot 0fc70fad69804f05acf85f6c56122bb4 --", want: parsed{what: aBoot, boot: "0fc70fad69804f05acf85f6c56122bb4"}},
		"a boot of old systemd": {in: "-- Reboot --", want: parsed{what: aBoot}},
		"where a journal begins": {
			in: "-- Journal begins at Mon 2026-11-23 10:00:00 UTC, ends at Mon 2026-11-23 11:00:00 UTC. --", want: parsed{what: aSkip},
		},
		"a month of another language": {in: "Nov. 23 10:00:00 gpu-17 kernel: x", err: "journalctl"},
		"no host":                     {in: "Nov 23 10:00:00", err: "journalctl"},
		"no identifier":               {in: "Nov 23 10:00:00 gpu-17 hello", err: "journalctl"},
		"a time that is none":         {in: "[ 12] gpu-17 kernel: x", err: "journalctl"},
	})
}

func TestParseJournalJSON(t *testing.T) {
	wall := time.UnixMicro(1764000000123456).UTC()
	entry := func(rest string) string {
		return `{"__REALTIME_TIMESTAMP":"1764000000123456","_BOOT_ID":"0fc7","_HOSTNAME":"gpu-17",` + rest + `}`
	}
	line := func(priority uint16, text string) parsed {
		return parsed{what: aLine, priority: priority, wall: wall, boot: "0fc7", text: []byte(text)}
	}
	testParse(t, parseJournalJSON, map[string]parseCase{
		"the kernel's": {in: entry(`"_TRANSPORT":"kernel","PRIORITY":"4","SYSLOG_FACILITY":"0","SYSLOG_IDENTIFIER":"kernel","MESSAGE":"hello"`), want: line(4, "hello")},
		"a process's that calls itself kernel": {
			in: entry(`"_TRANSPORT":"kernel","PRIORITY":"3","SYSLOG_FACILITY":"1","SYSLOG_IDENTIFIER":"kernel","MESSAGE":"hello"`), want: line(11, "hello"),
		},
		"of another transport": {
			in:   entry(`"_TRANSPORT":"syslog","PRIORITY":"3","SYSLOG_FACILITY":"0","SYSLOG_IDENTIFIER":"kernel","MESSAGE":"hello"`),
			want: parsed{what: aForeign, wall: wall, boot: "0fc7"}, // priority is not read
		},
		"a text with a line break": {in: entry(`"_TRANSPORT":"kernel","PRIORITY":"4","SYSLOG_FACILITY":"0","MESSAGE":"a\nb"`), want: line(4, "a\nb")},
		"bytes":                    {in: entry(`"_TRANSPORT":"kernel","PRIORITY":"4","SYSLOG_FACILITY":"0","MESSAGE":[104,255,105]`), want: line(4, "h\xffi")},
		"a field of two values":    {in: entry(`"_TRANSPORT":"kernel","PRIORITY":"4","SYSLOG_FACILITY":"0","MESSAGE":["a",[98,99]]`), want: line(4, "abc")},
		"a text too long":          {in: entry(`"_TRANSPORT":"kernel","PRIORITY":"4","SYSLOG_FACILITY":"0","MESSAGE":null`), want: line(4, "")},
		"an empty line":            {in: " ", want: parsed{what: aSkip}},
		"no JSON":                  {in: "{", err: "not an entry"},
		"no time":                  {in: `{"MESSAGE":"x"}`, err: "__REALTIME_TIMESTAMP"},
		"a level that is none":     {in: entry(`"_TRANSPORT":"kernel","PRIORITY":"9","MESSAGE":"x"`), err: "PRIORITY"},
		"a message that is none":   {in: entry(`"_TRANSPORT":"kernel","PRIORITY":"4","MESSAGE":{}`), err: "MESSAGE"},
	})
}

func TestParseFact(t *testing.T) {
	when := at(t, "2026-11-23T10:00:00Z")
	fact := func(e Event) parsed { e.At = when; return parsed{what: aFact, wall: when, event: e} }
	at := `{"at":"2026-11-23T10:00:00Z",`
	testParse(t, parseFact, map[string]parseCase{
		"a line": {
			in:   at + `"kmsg":"4,7,99,-;NVRM: a\\x0ab"}`,
			want: parsed{what: aLine, wall: when, priority: 4, seq: 8, text: []byte(`NVRM: a\x0ab`), escaped: true},
		},
		"a boot": {in: at + `"boot":"0fc7"}`, want: parsed{what: aBoot, wall: when, boot: "0fc7"}},
		"a bus": {
			in: at + `"pci":[{"Vendor":4318,"Device":9013,"Class":197120,"Address":"0000:18:00","Config":1,"Link":{"Width":16,"MaxWidth":16,"MTs":32000,"MaxMTs":32000}}]}`,
			want: fact(Event{Kind: PCI, Devices: []machine.PCIDevice{{
				PCIID: machine.PCIID{Vendor: 0x10de, Device: 0x2335, Class: 0x030200}, Address: "0000:18:00.0", Config: machine.ConfigAnswers,
				Link: machine.Link{Width: 16, MaxWidth: 16, MTs: 32000, MaxMTs: 32000},
			}}}),
		},
		"an empty bus":            {in: at + `"pci":[]}`, want: fact(Event{Kind: PCI})},
		"a report of NVML":        {in: at + `"nvml":{"driver":"580.105.08","count":8}}`, want: fact(Event{Kind: NVML, Report: &machine.NVMLReport{Driver: "580.105.08", Count: 8}})},
		"a reset":                 {in: at + `"reset":"18:00.0"}`, want: fact(Event{Kind: Reset, Address: "0000:18:00.0"})},
		"an agent killed":         {in: at + `"agent":"stop"}`, want: fact(Event{Kind: AgentStop})},
		"an agent started":        {in: at + `"agent":"start"}`, want: fact(Event{Kind: AgentStart})},
		"an empty line":           {in: "", want: parsed{what: aSkip}},
		"no time":                 {in: `{"boot":"x"}`, err: "exactly one of"},
		"nothing":                 {in: at[:len(at)-1] + `}`, err: "exactly one of"},
		"two at once":             {in: at + `"boot":"x","agent":"stop"}`, err: "exactly one of"},
		"a key that is none":      {in: at + `"bot":"x"}`, err: `unknown field "bot"`},
		"two on a line":           {in: at + `"boot":"x"} {}`, err: "one object a line"},
		"no record":               {in: at + `"kmsg":"hello"}`, err: "kmsg: not a record"},
		"an address that is none": {in: at + `"pci":[{"Address":"x"}]}`, err: "pci[0].Address"},
		"a reset of nothing":      {in: at + `"reset":"x"}`, err: "reset: parsing PCI address"},
		"an agent that dances":    {in: at + `"agent":"dance"}`, err: "want stop or start"},
		"a time that is none":     {in: `{"at":"now","boot":"x"}`, err: "reading a fact"},
		"a time of long ago":      {in: `{"at":"0066-10-14T10:00:00Z","boot":"x"}`, err: "at: time"},
	})
}

func TestEscapeIsPrintableAndBounded(t *testing.T) {
	got := string(Escape([]byte("<"), []byte("a\nb\\x\x7f\xff\x1b[2J")))
	if want := `<a\x0ab\x5cx\x7f\xff\x1b[2J`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if got := string(escape(nil, []byte("a\\x0ab\n"), false)); got != `a\x0ab\x0a` {
		t.Errorf("the kernel's own: %s", got)
	}
	if got := len(Escape(nil, []byte(strings.Repeat("\n", 1<<20)))); got > maxText {
		t.Errorf("%d bytes", got)
	}
}
