package scenario

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"
)

// Width is how wide a page is written.
const Width = 100

// Style is how a word is shown on a terminal.
type Style string

// The styles: ANSI SGR parameters, used on terminals only (https://no-color.org is honoured).
const (
	Plain  Style = ""
	Bold   Style = "1"
	Dim    Style = "2"
	Green  Style = "32"
	Yellow Style = "33"
	Red    Style = "1;31"
)

// Page writes aligned lines: a time, a word, a text that is folded under itself.
type Page struct {
	w      io.Writer
	color  bool
	indent int
	err    error
}

// NewPage writes to w, with colour where w is a terminal that wants it. indent is where texts begin.
func NewPage(w io.Writer, indent int) *Page {
	file, ok := w.(*os.File)
	color := ok && term.IsTerminal(int(file.Fd())) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	return &Page{w: w, color: color, indent: indent}
}

// Err is the first error of writing; what was to be written after it was not.
func (p *Page) Err() error { return p.err }

// Line writes a line of a timeline.
func (p *Page) Line(at time.Duration, word string, style Style, text string) {
	head := fmt.Sprintf("%6.2fs ", at.Seconds())
	room := p.indent - len(head)
	p.fold(head+p.paint(style, fmt.Sprintf("%-*s ", room-1, word[:min(len(word), room-1)])), text)
}

// More writes a text under the last one.
func (p *Page) More(style Style, text string) {
	p.foldStyled(strings.Repeat(" ", p.indent), text, style)
}

// Text writes a line as it is.
func (p *Page) Text(style Style, text string) { p.write(p.paint(style, text) + "\n") }

// Folded writes a text from the left edge, folded.
func (p *Page) Folded(text string) {
	for _, line := range Fold(text, Width) {
		p.write(line + "\n")
	}
}

// Split writes a line with one text at its left and one at its right.
func (p *Page) Split(style Style, left, right string) {
	gap := max(2, Width-len([]rune(left))-len([]rune(right)))
	p.write(p.paint(style, left) + strings.Repeat(" ", gap) + right + "\n")
}

func (p *Page) fold(head, text string) { p.foldStyled(head, text, Plain) }

func (p *Page) foldStyled(head, text string, style Style) {
	for i, line := range Fold(text, Width-p.indent) {
		if i > 0 {
			head = strings.Repeat(" ", p.indent)
		}
		p.write(strings.TrimRight(head+p.paint(style, line), " ") + "\n")
	}
}

func (p *Page) paint(style Style, text string) string {
	if !p.color || style == Plain {
		return text
	}
	return "\x1b[" + string(style) + "m" + text + "\x1b[0m"
}

func (p *Page) write(text string) {
	if p.err == nil {
		_, p.err = io.WriteString(p.w, text)
	}
}

// Fold breaks a text into lines of at most width characters, between words where it can. Control characters, which a
// kernel log or a tenant's names may hold, never reach the terminal.
func Fold(text string, width int) []string {
	var out []string
	line := ""
	for _, word := range strings.Fields(strings.Map(printable, text)) {
		for len([]rune(word)) > width {
			if line != "" {
				out = append(out, line)
				line = ""
			}
			r := []rune(word)
			out, word = append(out, string(r[:width])), string(r[width:])
		}
		switch {
		case line == "":
			line = word
		case len([]rune(line))+1+len([]rune(word)) > width:
			out = append(out, line)
			line = word
		default:
			line += " " + word
		}
	}
	if line != "" || len(out) == 0 {
		out = append(out, line)
	}
	return out
}

func printable(r rune) rune {
	if r < ' ' || (r >= 0x7f && r < 0xa0) {
		return ' '
	}
	return r
}
