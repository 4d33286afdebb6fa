package docpage_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/roundhouse-dev/roundhouse/internal/docpage"
)

// judge notes what a test would have failed with.
type judge struct {
	testing.TB
	said []string
}

func (j *judge) Helper() {}

func (j *judge) Errorf(format string, args ...any) {
	j.said = append(j.said, fmt.Sprintf(format, args...))
}

func TestHold(t *testing.T) {
	const page = "# A\n<!-- one -->\n1\n<!-- end -->\nb\n<!-- two -->\n2\n<!-- end -->\nc\n"
	one, two := docpage.Part{Mark: "one", Text: "1\n"}, docpage.Part{Mark: "two", Text: "2\n"}
	other := docpage.Part{Mark: "two", Text: "3\n"}
	for name, tc := range map[string]struct {
		update string
		parts  []docpage.Part
		want   string // of the page
		says   string
	}{
		"as it is":              {"", []docpage.Part{one, two}, page, ""},
		"another text":          {"", []docpage.Part{one, other}, page, "make it so rewrites the tables"},
		"another, and written":  {"1", []docpage.Part{one, other}, strings.Replace(page, "2\n", "3\n", 1), ""},
		"no place":              {"", []docpage.Part{{Mark: "three"}}, page, `no place for "three"`},
		"no place, and written": {"1", []docpage.Part{{Mark: "three"}, other}, strings.Replace(page, "2\n", "3\n", 1), `no place for "three"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(docpage.Update, tc.update)
			path := filepath.Join(t.TempDir(), "page.md")
			if err := os.WriteFile(path, []byte(page), 0o600); err != nil {
				t.Fatal(err)
			}
			j := &judge{TB: t}
			docpage.Hold(j, path, "make it so", tc.parts...)
			got, err := os.ReadFile(path)
			if err != nil || string(got) != tc.want {
				t.Errorf("the page: %s, %v", got, err)
			}
			if said := strings.Join(j.said, "\n"); (said == "") != (tc.says == "") || !strings.Contains(said, tc.says) {
				t.Errorf("said %q, want %q", said, tc.says)
			}
		})
	}
}
