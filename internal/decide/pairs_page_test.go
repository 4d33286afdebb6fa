package decide

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/docpage"
)

// columns are the stages that the page tells apart; of the others it says how they follow from these.
var columns = []stage{stageBefore, stageAsked, stageRunning, stageVerifying, stageProbation}

// onThePage holds the tables of the page to what was seen. With ROUNDHOUSE_UPDATE_DOCS set it rewrites them.
func onThePage(t *testing.T, seen map[pair]*moments) {
	t.Helper()
	docpage.Hold(t, "../../docs/fault-pairs.md", docpage.Update+"=1 go test ./internal/decide", docpage.Part{Mark: "pairs", Text: tables(seen)})
}

// tables writes a table for each of places. Classes that come to the same share a row.
func tables(seen map[pair]*moments) string {
	var b strings.Builder
	for _, pl := range places {
		fmt.Fprintf(&b, "## %s%s\n\n| first | second | before | asked | running | verifying | probation |\n|:--|:--|:--|:--|:--|:--|:--|\n",
			strings.ToUpper(pl.name[:1]), pl.name[1:])
		rowsOf := func(first v1alpha1.Recommendation) string {
			return grouped(func(then v1alpha1.Recommendation) string { return cells(seen[pair{first, then, pl.first, pl.second}]) })
		}
		for _, g := range groups(rowsOf) {
			for row := range strings.Lines(rowsOf(g[0])) {
				fmt.Fprintf(&b, "| %s | %s", list(g), row)
			}
		}
		b.WriteString("\n")
	}
	return b.String()
}

// grouped is a row for each group of classes.
func grouped(of func(v1alpha1.Recommendation) string) string {
	var b strings.Builder
	for _, g := range groups(of) {
		fmt.Fprintf(&b, "%s | %s\n", list(g), of(g[0]))
	}
	return b.String()
}

// groups are the classes by what they come to, each group where its first class is.
func groups(of func(v1alpha1.Recommendation) string) [][]v1alpha1.Recommendation {
	var out [][]v1alpha1.Recommendation
	for _, c := range actionClasses {
		i := slices.IndexFunc(out, func(g []v1alpha1.Recommendation) bool { return of(g[0]) == of(c) })
		if i < 0 {
			out = append(out, []v1alpha1.Recommendation{c})
			continue
		}
		out[i] = append(out[i], c)
	}
	return out
}

func list(classes []v1alpha1.Recommendation) string {
	names := make([]string, 0, len(classes))
	for _, c := range classes {
		names = append(names, string(c))
	}
	return strings.Join(names, ", ")
}

// cells are a pair's outcomes; one that is the same as the last before it is left out.
func cells(m *moments) string {
	var b strings.Builder
	var last *outcome
	for _, c := range columns {
		o, met := m.outcomes[c]
		switch {
		case !met:
			b.WriteString("– | ")
		case last != nil && *last == o:
			b.WriteString("″ | ")
		default:
			b.WriteString(o.String() + " | ")
			last = &o
		}
	}
	return strings.TrimSpace(b.String())
}

// String is an outcome as people read it.
func (o outcome) String() string {
	switch {
	case o.acts == "" && o.end == v1alpha1.PhaseSucceeded:
		return "nothing is done"
	case o.acts == "":
		return string(o.end)
	}
	return o.acts + ": " + string(o.end)
}
