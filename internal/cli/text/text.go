// Package text writes what kubectl-roundhouse shows: titled sections, tables, times in the reader's zone and ages. It
// is pure: the same input, time and zone give the same bytes.
package text

import (
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Tone is what a word in capitals says about a node, as a colour where there is one.
type Tone string

// The tones. Good needs nobody, Busy is being worked on, Waiting waits, Bad needs a human.
const (
	Plain   Tone = ""
	Good    Tone = "Good"
	Busy    Tone = "Busy"
	Waiting Tone = "Waiting"
	Bad     Tone = "Bad"
)

// codes are ECMA-48 colours that can be read on a dark and on a light ground.
var codes = map[Tone]string{Good: "\x1b[32m", Busy: "\x1b[36m", Waiting: "\x1b[33m", Bad: "\x1b[31m"}

// titleWidth is the column at which the lines of a section begin.
const titleWidth = 10

// Page writes sections one after the other.
type Page struct {
	// Clock says how times are shown.
	Clock Clock
	// Color is whether Tones become colours.
	Color bool
	// Width folds lines that are longer; 0 leaves them as they are, which is what a pipe wants.
	Width int

	out strings.Builder
}

// Tint gives a word its colour.
func (p *Page) Tint(tone Tone, word string) string {
	code := codes[tone]
	if !p.Color || code == "" {
		return word
	}
	return code + word + "\x1b[0m"
}

// Line writes one line as it is; the caller has cleaned what others wrote.
func (p *Page) Line(line string) {
	p.out.WriteString(strings.TrimRight(line, " "))
	p.out.WriteByte('\n')
}

// Section writes a title and its lines beside it. Without lines it writes nothing.
func (p *Page) Section(title string, lines ...string) { p.Toned(Plain, title, lines...) }

// Toned is Section with a coloured title.
func (p *Page) Toned(tone Tone, title string, lines ...string) {
	first := true
	for _, line := range lines {
		if line == "" {
			continue
		}
		for _, part := range p.fold(strings.Split(line, "\n")) {
			column := strings.Repeat(" ", titleWidth)
			if first {
				column = p.Tint(tone, title) + strings.Repeat(" ", max(1, titleWidth-utf8.RuneCountInString(title)))
			}
			p.Line(column + part)
			first = false
		}
	}
}

// fold breaks lines at spaces so that they fit Width; what goes over is indented by two.
func (p *Page) fold(lines []string) []string {
	room := p.Width - titleWidth
	var parts []string
	for _, line := range lines {
		// A very narrow terminal is served better by its own wrapping.
		if p.Width <= 0 || room < 30 || utf8.RuneCountInString(line) <= room {
			parts = append(parts, line)
			continue
		}
		parts = append(parts, wrap(line, room)...)
	}
	return parts
}

func wrap(line string, room int) []string {
	var parts []string
	var current strings.Builder
	used := 0
	for _, word := range strings.SplitAfter(line, " ") {
		// The space that ends a word may hang over: Line cuts it off.
		if used > 0 && used+utf8.RuneCountInString(strings.TrimRight(word, " ")) > room {
			parts = append(parts, strings.TrimRight(current.String(), " "))
			current.Reset()
			current.WriteString("  ")
			used = 2
		}
		current.WriteString(word)
		used += utf8.RuneCountInString(word)
	}
	return append(parts, strings.TrimRight(current.String(), " "))
}

// String is the page so far.
func (p *Page) String() string { return p.out.String() }

// WriteTo writes the page out.
func (p *Page) WriteTo(w io.Writer) (int64, error) {
	n, err := io.WriteString(w, p.out.String())
	if err != nil {
		return int64(n), fmt.Errorf("writing the answer: %w", err)
	}
	return int64(n), nil
}

// Table renders rows as columns with two spaces between them; the header may be nil.
func Table(header []string, rows [][]string) []string {
	all := rows
	if header != nil {
		all = append([][]string{header}, rows...)
	}
	var widths []int
	for _, row := range all {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	lines := make([]string, 0, len(all))
	for _, row := range all {
		var line strings.Builder
		for i, cell := range row {
			line.WriteString(cell)
			if i < len(row)-1 {
				line.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)+2))
			}
		}
		lines = append(lines, strings.TrimRight(line.String(), " "))
	}
	return lines
}

// Clean makes text of unknown origin safe for a terminal: kernel lines and annotations may hold escape sequences, which
// would otherwise move the cursor or recolour what is above them. Runs of white space become one space.
func Clean(s string) string {
	var out strings.Builder
	space := false
	for _, r := range s {
		switch {
		case unicode.IsSpace(r):
			space = out.Len() > 0
		case r == utf8.RuneError || !unicode.IsPrint(r):
			out.WriteByte('?')
			space = false
		default:
			if space {
				out.WriteByte(' ')
				space = false
			}
			out.WriteRune(r)
		}
	}
	return out.String()
}

// Count says "1 node" or "3 nodes".
func Count[N ~int | ~int32 | ~int64](n N, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// Bounded lists at most limit names and says how many more there are.
func Bounded(names []string, limit int) string {
	if len(names) <= limit {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:limit], ", "), len(names)-limit)
}
