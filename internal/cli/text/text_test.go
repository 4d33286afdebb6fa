package text

import (
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

var (
	now   = time.Date(2026, 11, 23, 1, 14, 0, 0, time.UTC)
	tokyo = time.FixedZone("JST", 9*60*60)
	clock = Clock{Now: now, Zone: tokyo}
)

func TestTimesAreTheReaders(t *testing.T) {
	for name, c := range map[string]struct{ got, want string }{
		"a time of today has no date":                     {clock.Minute(now.Add(-14 * time.Minute)), "10:00 JST"},
		"a time of another day of this year has one":      {clock.Minute(now.Add(-11 * time.Hour)), "Nov 22 23:14 JST"},
		"a time of another year has that too":             {clock.Minute(now.AddDate(-1, 0, 0)), "2025-11-23 10:14 JST"},
		"today is the reader's today, not UTC's":          {clock.Minute(now.Add(-2 * time.Hour)), "08:14 JST"},
		"an age":                                          {clock.Age(now.Add(-90 * time.Second)), "90s ago"},
		"what is ahead":                                   {clock.Age(now.Add(2*time.Hour - 300*time.Millisecond)), "in 120m"},
		"this moment":                                     {clock.Age(now.Add(-200 * time.Millisecond)), "now"},
		"without a zone it is UTC":                        {Clock{Now: now}.Minute(now), "01:14 UTC"},
		"the controller's stamps become the reader's":     {clock.Localize("until 2026-11-23T13:14:00Z, then ask"), "until 22:14 JST, then ask"},
		"a stamp with a zone too":                         {clock.Localize("at 2026-11-23T10:00:00.123+09:00"), "at 10:00 JST"},
		"what only looks like a time stays":               {clock.Localize("at 2026-02-31T10:00:00Z"), "at 2026-02-31T10:00:00Z"},
		"a stamp within a longer word stays":              {clock.Localize("x2026-11-23T13:14:00Zy"), "x2026-11-23T13:14:00Zy"},
		"one is singular":                                 {Count(1, "node", "nodes"), "1 node"},
		"none is plural":                                  {Count(0, "node", "nodes"), "0 nodes"},
		"a short list is whole":                           {Bounded([]string{"a", "b"}, 2), "a, b"},
		"a long list says how many more":                  {Bounded([]string{"a", "b", "c", "d"}, 2), "a, b and 2 more"},
		"escape sequences do not reach the terminal":      {Clean("a\x1b[31mb\u009b2J"), "a?[31mb?2J"},
		"white space becomes one space, none at the ends": {Clean("  a \t\n b  "), "a b"},
		"bytes that are no text are shown as such":        {Clean("a\xffb"), "a?b"},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, c.got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestSectionsAlign(t *testing.T) {
	for name, c := range map[string]struct {
		page Page
		want string
	}{
		"a pipe gets long lines whole": {Page{}, `
What      one two three four five six seven eight nine ten
          second
          third
`},
		"a terminal gets them folded": {Page{Width: 40}, `
What      one two three four five six
            seven eight nine ten
          second
          third
`},
		"a very narrow one folds itself": {Page{Width: 20}, `
What      one two three four five six seven eight nine ten
          second
          third
`},
		"colour does not move columns": {Page{Color: true}, "\n\x1b[31mWhat\x1b[0m      one two three four five six seven eight nine ten\n          second\n          third\n"},
	} {
		t.Run(name, func(t *testing.T) {
			p := c.page
			p.Toned(Bad, "What", "one two three four five six seven eight nine ten", "", "second\nthird")
			p.Section("Nothing")
			if diff := cmp.Diff(strings.TrimPrefix(c.want, "\n"), p.String()); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestTableAligns(t *testing.T) {
	got := Table([]string{"NODE", "FAULT"}, [][]string{{"gpu-1", "Xid79"}, {"ä", "b", "c"}})
	want := []string{"NODE   FAULT", "gpu-1  Xid79", "ä      b      c"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// FuzzClean: whatever others wrote, what is shown is printable, on one line and no longer than it was.
func FuzzClean(f *testing.F) {
	for _, seed := range []string{"", "NVRM: Xid 79", "a\x1b[2Jb", "\xff\xfe", "  \t\n", "日本"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := Clean(s)
		if !utf8.ValidString(got) || utf8.RuneCountInString(got) > utf8.RuneCountInString(s) {
			t.Errorf("Clean(%q) = %q", s, got)
		}
		for _, r := range got {
			if !unicode.IsPrint(r) {
				t.Errorf("Clean(%q) = %q holds %q", s, got, r)
			}
		}
		if again := Clean(got); again != got {
			t.Errorf("Clean is not done after once: %q, then %q", got, again)
		}
	})
}

// FuzzLocalize: text without a stamp stays as it is, and nothing panics.
func FuzzLocalize(f *testing.F) {
	f.Add("until 2026-11-23T13:14:00Z")
	f.Add("9999-99-99T99:99:99Z")
	f.Fuzz(func(t *testing.T, s string) {
		if got := clock.Localize(s); !strings.Contains(s, "T") && got != s {
			t.Errorf("Localize(%q) = %q", s, got)
		}
	})
}
