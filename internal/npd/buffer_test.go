package npd

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func match(t *testing.T, size int, pattern string, lines ...string) []string {
	t.Helper()
	p, err := CompilePattern(pattern)
	if err != nil {
		t.Fatal(err)
	}
	b := NewBuffer(size)
	for _, l := range lines {
		b.Push(Line{Text: l})
	}
	var out []string
	for _, l := range b.Match(p) {
		out = append(out, l.Text)
	}
	return out
}

// The cases are what NPD's log buffer does, read from its pkg/systemlogmonitor/log_buffer.go.
func TestMatch(t *testing.T) {
	tests := map[string]struct {
		size    int
		pattern string
		lines   []string
		want    []string
	}{
		"the last line matches":                           {4, "b2", []string{"a1", "b2"}, []string{"b2"}},
		"a pattern may begin anywhere in it":              {4, "2", []string{"a1", "b2"}, []string{"b2"}},
		"it must match to the end":                        {4, "b", []string{"a1", "b2"}, nil},
		"an earlier line alone does not match":            {4, "a1", []string{"a1", "b2"}, nil},
		"a pattern spans lines":                           {4, "a1\nb2", []string{"a1", "b2"}, []string{"a1", "b2"}},
		"lines are joined by newlines":                    {4, "a1b2", []string{"a1", "b2"}, nil},
		"a point does not span lines":                     {4, "a1.*", []string{"a1", "b2"}, nil},
		"a point spans lines where it is told to":         {4, "(?s)1.*", []string{"a1", "b2"}, []string{"a1", "b2"}},
		"what left the buffer is gone":                    {2, "(?s)a1.*", []string{"a1", "b2", "c3"}, nil},
		"the leftmost match counts":                       {4, `(?s)\d.*`, []string{"a1", "b2", "c3"}, []string{"a1", "b2", "c3"}},
		"a start anchor means the whole buffer's start":   {1, "^b2", []string{"a1", "b2"}, []string{"b2"}},
		"and a buffer that is not full starts empty":      {4, "^b2", []string{"b2"}, nil},
		"so such a pattern may name the empty lines":      {2, "^\nb2", []string{"b2"}, []string{"b2"}},
		"a line's start is one with the flag":             {4, "(?m)^b2", []string{"a1", "b2"}, []string{"b2"}},
		"a dollar before the anchor is fine":              {4, "b2$", []string{"a1", "b2"}, []string{"b2"}},
		"the anchor binds to the last branch alone":       {4, "a1|zz", []string{"a1", "b2"}, []string{"a1", "b2"}},
		"and to all of a group":                           {4, "(?:a1|zz)", []string{"a1", "b2"}, nil},
		"a newline before a line is part of that line":    {4, "\nb2", []string{"a1", "b2"}, []string{"b2"}},
		"an empty pattern matches every line":             {4, "", []string{"a1", "b2"}, []string{"b2"}},
		"an empty line is a line":                         {4, "a1\n", []string{"a1", ""}, []string{"a1", ""}},
		"a class that is negated accepts a newline":       {4, "a[^x]*", []string{"a1", "b2"}, []string{"a1", "b2"}},
		"a line that itself has two lines is one":         {4, "a1\nb2\nc3", []string{"a1\nb2", "c3"}, []string{"a1\nb2", "c3"}},
		"a match in the second half of it needs one line": {4, "b2", []string{"a1", "x\nb2"}, []string{"x\nb2"}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, match(t, tc.size, tc.pattern, tc.lines...)); diff != "" {
				t.Error(diff)
			}
		})
	}
	if p, _ := CompilePattern("x"); NewBuffer(3).Match(p) != nil {
		t.Error("an empty buffer matches")
	}
}

func TestTheShortCutIsTakenForOrdinaryRules(t *testing.T) {
	for pattern, want := range map[string]bool{
		`task [\S ]+:\w+ blocked for more than \w+ seconds\.`: true, `Killed process \d+ (.+) total-vm:\d+kB.*`: true,
		"a\nb": false, "(?s)a.*": false, "^a": false, "a|b": false, "a[^x]b": false, "a$": true, "(?m)a$": false, `a\sb`: false,
	} {
		p, err := CompilePattern(pattern)
		if err != nil || p.oneLine != want {
			t.Errorf("%q: %v, %v", pattern, p.oneLine, err)
		}
	}
}

func TestMessage(t *testing.T) {
	lines := []Line{{Text: "a"}, {Text: "b"}}
	if got := Message(lines, ""); got != "a\nb" {
		t.Errorf("%q", got)
	}
	if got := Message(lines, "call us"); got != "a\nb; call us" {
		t.Errorf("%q", got)
	}
}

func TestLines(t *testing.T) {
	b := NewBuffer(2)
	for _, s := range []string{"a", "b", "c"} {
		b.Push(Line{Text: s, Untrusted: s == "b"})
	}
	if diff := cmp.Diff([]Line{{Text: "b", Untrusted: true}, {Text: "c"}}, b.Lines()); diff != "" {
		t.Error(diff)
	}
}

// FuzzMatch holds the short cut and the count of lines against the plain meaning: the joined text, the anchored pattern.
func FuzzMatch(f *testing.F) {
	f.Add("b2", "a1\x00b2", 4)
	f.Add("(?s)a.*", "a1\x00b2\x00c3", 2)
	f.Add("a|b", "a\x00b\x00", 3)
	f.Add(`a[^x]*`, "a\x00\x00b", 3)
	f.Add("(?s).*", "\x000", 2)
	f.Fuzz(func(t *testing.T, pattern, lines string, size int) {
		if size < 1 || size > 20 || len(pattern) > 200 || len(lines) > 500 {
			return
		}
		p, err := CompilePattern(pattern)
		if err != nil {
			return
		}
		b := NewBuffer(size)
		all := make([]string, size)
		for _, l := range strings.Split(lines, "\x00") {
			b.Push(Line{Text: l})
			all = append(all[1:], l)
		}
		text := strings.Join(all, "\n")
		at := regexp.MustCompile(pattern + `\z`).FindStringIndex(text)
		got := b.Match(p)
		if (at == nil) != (got == nil) {
			t.Fatalf("%v, %v", at, got)
		}
		if at == nil {
			return
		}
		// The newline before a line is counted as part of it, as in NPD.
		if shown := Message(got, ""); len(shown)+1 < len(text)-at[0] && len(got) < len(b.Lines()) || !strings.HasSuffix(text, shown) {
			t.Errorf("%q of %q does not hold the match at %v", shown, text, at)
		}
	})
}

func TestTranslate(t *testing.T) {
	location := time.FixedZone("X", 3600)
	now := time.Date(2026, 1, 1, 0, 0, 5, 0, location)
	syslog := &Translator{regexp.MustCompile("^.{15}"), regexp.MustCompile(`kernel: \[.*\] (.*)`), "Jan _2 15:04:05"}
	containerd := &Translator{regexp.MustCompile(`^time="(\S*)"`), regexp.MustCompile(`msg="([^\n]*)"`), "2006-01-02T15:04:05.999999999-07:00"}
	tests := map[string]struct {
		with    *Translator
		line    string
		at      time.Time
		message string
		err     string
	}{
		"a year that is not written is this one": {
			syslog, "Jan  1 00:00:01 host kernel: [0.000000] hello", time.Date(2026, 1, 1, 0, 0, 1, 0, location), "hello", "",
		},
		"or the last one, on the evening of New Year": {
			syslog, "Dec 31 23:59:59 host kernel: [0.000000] bye", time.Date(2025, 12, 31, 23, 59, 59, 0, location), "bye", "",
		},
		"a time with a zone": {
			containerd, `time="2026-11-26T10:00:00.5+02:00" level=error msg="it broke"`,
			time.Date(2026, 11, 26, 8, 0, 0, 5e8, time.UTC), "it broke", "",
		},
		"no time":           {containerd, `level=error msg="it broke"`, time.Time{}, "", "pluginConfig.timestamp"},
		"a time that is no": {containerd, `time="now" msg="it broke"`, time.Time{}, "", "pluginConfig.timestampFormat"},
		"no message":        {syslog, "Jan  1 00:00:01 host sshd: hello", time.Time{}, "", "pluginConfig.message"},
		"nothing":           {syslog, "", time.Time{}, "", "pluginConfig.timestamp"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			at, message, err := tc.with.Translate(tc.line, now, location)
			if !at.Equal(tc.at) || message != tc.message {
				t.Errorf("%s %q, want %s %q", at, message, tc.at, tc.message)
			}
			if (err == nil) != (tc.err == "") || err != nil && !strings.Contains(err.Error(), tc.err) {
				t.Errorf("%v, want %s", err, tc.err)
			}
		})
	}
}
