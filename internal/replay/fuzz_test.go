package replay

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"time"
)

// checkParsed holds what every parser promises.
func checkParsed(t *testing.T, in []byte, p parsed, err error) {
	t.Helper()
	if err != nil {
		if s := err.Error(); len(s) > 4096 {
			t.Errorf("an error of %d bytes", len(s))
		}
		return
	}
	if p.what == aLine && len(p.text) > len(in) {
		t.Errorf("text %q of %q", p.text, in)
	}
	if p.mono < 0 || p.mono > maxMono+time.Second {
		t.Errorf("%s since the boot", p.mono)
	}
	if len(p.boot) > 300 {
		t.Errorf("a boot ID of %d bytes", len(p.boot))
	}
}

func FuzzParseKmsg(f *testing.F) {
	f.Add([]byte("4,7,1500000,-;NVRM: hello"))
	f.Add([]byte("12,0,1,c,caller=T99;x;y"))
	f.Add([]byte("# boot 0fc7 2026-11-23T10:00:00Z"))
	f.Add([]byte("# reset 0000:18:00 2026-11-23T10:00:00Z"))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := parseKmsg(b)
		checkParsed(t, b, p, err)
	})
}

func FuzzParseDmesg(f *testing.F) {
	for _, s := range []string{
		"[   12.345678] NVRM: hello", "kern  :warn  : [   12.345678] [  T1234] x", "<6>[   12.345678] x", "[Mon Nov 23 10:00:00 2026] x",
		"    goes on", "[9999999999.000000] x",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, _, err := parseDmesg(b, zone)
		checkParsed(t, b, p, err)
	})
}

func FuzzParseJournal(f *testing.F) {
	for _, s := range []string{
		"Nov 23 10:00:00 gpu-17 kernel: NVRM: hello", "Nov  3 10:00:00.123456 gpu-17 kernel:", "2026-11-23T10:00:00+0900 gpu-17 kernel: x",
		"[   12.500000] gpu-17 sshd[77]: kernel: x", "-- Boot 0fc70fad69804f05acf85f6c56122bb4 --", "-- Reboot --", "   goes on",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := parseJournal(b, zone)
		checkParsed(t, b, p, err)
	})
}

func FuzzParseJournalJSON(f *testing.F) {
	f.Add([]byte(`{"__REALTIME_TIMESTAMP":"1764000000123456","_BOOT_ID":"0fc7","_TRANSPORT":"kernel","PRIORITY":"4","SYSLOG_FACILITY":"0","MESSAGE":"a\nb"}`))
	f.Add([]byte(`{"__REALTIME_TIMESTAMP":"1764000000123456","_TRANSPORT":"kernel","PRIORITY":"4","MESSAGE":["a",[98,255]]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := parseJournalJSON(b)
		if err == nil && p.what == aLine && p.priority>>3 > 127 {
			t.Errorf("facility %d", p.priority>>3)
		}
		// A byte of JSON may be three of a text that is no UTF-8.
		checkParsed(t, append(append(b, b...), b...), p, err)
	})
}

func FuzzParseFact(f *testing.F) {
	f.Add([]byte(`{"at":"2026-11-23T10:00:00Z","kmsg":"4,7,99,-;NVRM: a"}`))
	f.Add([]byte(`{"at":"2026-11-23T10:00:00Z","pci":[{"Vendor":4318,"Address":"0000:18:00","Link":{"Width":16}}]}`))
	f.Add([]byte(`{"at":"2026-11-23T10:00:00Z","nvml":{"count":8,"gpus":[{"index":0,"recovery":1}]}}`))
	f.Add([]byte(`{"at":"2026-11-23T10:00:00Z","reset":"18:00.0"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := parseFact(b)
		checkParsed(t, append(append(b, b...), b...), p, err)
		if err == nil && len(p.event.Devices) > maxDevices {
			t.Errorf("%d devices", len(p.event.Devices))
		}
	})
}

// FuzzReplay plays whatever it is given, whole: detection, reading, the checks and the tables. Nothing that the tables print
// may move a terminal's cursor.
func FuzzReplay(f *testing.F) {
	f.Add([]byte("# boot 0fc7 2026-11-23T10:00:00Z\n4,0,1000000,-;" + offTheBus + "\n12,1,2000000,-;" + needs + "\n4,9,2000000,-;" + cleanUp + "\n"))
	f.Add([]byte("[    1.000000] " + offTheBus + "\n               more\n[    0.500000] " + needs + "\n"))
	f.Add([]byte("Dec 31 23:59:59 gpu-17 kernel: " + needs + "\nJan  1 00:00:01 gpu-17 kernel: " + needsNone + "\n-- Reboot --\n"))
	f.Add([]byte(`{"__REALTIME_TIMESTAMP":"1764000000123456","_TRANSPORT":"kernel","MESSAGE":"` + unmapped + `"}` + "\n"))
	f.Add([]byte(`{"at":"2026-11-23T10:00:00Z","pci":[{"Vendor":4318,"Device":1,"Class":197120,"Address":"0000:18:00","Config":1}]}` + "\n" +
		`{"at":"2026-11-23T11:00:00Z","pci":[]}` + "\n" + `{"at":"2026-11-23T12:00:00Z","agent":"stop"}` + "\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 1<<16 {
			return
		}
		r, err := NewReader("fuzz", bytes.NewReader(b), ReadOptions{Now: t0})
		if err != nil {
			return
		}
		src := &ordered{Source: r, t: t}
		// A short silence: what is between two lines is not what is looked for here.
		res, err := Run(t.Context(), src, Options{Silence: time.Minute})
		if err != nil {
			return
		}
		report := Report{}
		report.Add(Node{Node: "fuzz", File: "fuzz", Recording: r.Notes(), Result: res})
		var table strings.Builder
		if err := report.WriteTable(&table, View{}); err != nil {
			t.Error(err)
		}
		for _, c := range []byte(table.String()) {
			if c < ' ' && c != '\n' || c >= 0x7f {
				t.Fatalf("byte %#x in the table:\n%q", c, table.String())
			}
		}
		if err := report.WriteJSON(io.Discard); err != nil {
			t.Error(err)
		}
	})
}

// ordered checks what a reader gives.
type ordered struct {
	Source
	t *testing.T
	n int
}

func (o *ordered) Next(e *Event) error {
	err := o.Source.Next(e)
	if err != nil {
		if !errors.Is(err, io.EOF) && err.Error() == "" {
			o.t.Error("an error without words")
		}
		return err
	}
	if o.n++; o.n > 1<<17 {
		o.t.Fatal("more events than bytes")
	}
	for _, c := range e.Text {
		if c < ' ' || c >= 0x7f {
			o.t.Fatalf("byte %#x in a text", c)
		}
	}
	if len(e.Text) > maxText {
		o.t.Fatalf("a text of %d bytes", len(e.Text))
	}
	return nil
}
