package scenario

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestFold(t *testing.T) {
	for name, test := range map[string]struct {
		text string
		want []string
	}{
		"short":                            {text: "one two", want: []string{"one two"}},
		"folded between words":             {text: "one two three", want: []string{"one two", "three"}},
		"a word wider than the page":       {text: "a 123456789abc", want: []string{"a", "123456789", "abc"}},
		"nothing is an empty line":         {want: []string{""}},
		"control characters of a log line": {text: "a\x1b[31m\x07b", want: []string{"a [31m b"}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, Fold(test.text, 9)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestAPageIsNoWiderThanItSays(t *testing.T) {
	var out strings.Builder
	p := NewPage(&out, 20)
	p.Line(0, "a-rather-long-word", Red, strings.Repeat("word ", 60))
	p.More(Green, strings.Repeat("x", 300))
	p.Split(Bold, "left", "right")
	for line := range strings.Lines(out.String()) {
		if n := len([]rune(strings.TrimSuffix(line, "\n"))); n > Width {
			t.Errorf("%d characters: %s", n, line)
		}
		if strings.Contains(line, "\x1b") {
			t.Errorf("colour where there is no terminal: %q", line)
		}
	}
}
