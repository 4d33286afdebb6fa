// Package docpage holds tables of the documentation to what a test has seen, so that no page says what is not so. It is for tests.
package docpage

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Update is the environment variable with which the pages are rewritten rather than compared.
const Update = "ROUNDHOUSE_UPDATE_DOCS"

// end is the line behind each part.
const end = "<!-- end -->"

// Part is what stands on a page between the line <!-- Mark --> and the next <!-- end -->.
type Part struct {
	Mark, Text string
}

// Hold fails the test where a part of the page is not as given, or has no place on it; with Update set it rewrites them.
// Command is what a person runs for that.
func Hold(t testing.TB, page, command string, parts ...Part) {
	t.Helper()
	data, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	want := string(data)
	for _, p := range parts {
		var placed bool
		if want, placed = p.in(want); !placed {
			t.Errorf("%s has no place for %q: add a line <!-- %s --> and a line %s", page, p.Mark, p.Mark, end)
		}
	}
	if os.Getenv(Update) != "" {
		if err := os.WriteFile(page, []byte(want), 0o644); err != nil { //nolint:gosec // a page of documentation
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(want, string(data)); diff != "" {
		t.Errorf("%s rewrites the tables; what was seen (-) and the page (+):\n%s", command, diff)
	}
}

// in gives the page with the part in its place, where it has one.
func (p Part) in(page string) (string, bool) {
	begin := "<!-- " + p.Mark + " -->\n"
	before, rest, found := strings.Cut(page, begin)
	_, after, ended := strings.Cut(rest, end)
	if !found || !ended {
		return page, false
	}
	return before + begin + p.Text + end + after, true
}
