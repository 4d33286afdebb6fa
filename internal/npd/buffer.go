package npd

import "strings"

// Line is one log line as rules see it.
type Line struct {
	Text string `json:"text"`
	// Untrusted says that it need not come from whom its log is named after: a record of /dev/kmsg that a process wrote.
	Untrusted bool `json:"untrusted,omitempty"`
}

// Buffer holds the last lines of a log. Patterns are matched against all of them joined by newlines. A buffer that is not
// full has empty lines before the first, which a pattern that begins with ^ can see; NPD's has them too.
type Buffer struct {
	lines  []Line
	next   int
	filled int
	joined string
	valid  bool
}

// NewBuffer returns a buffer of n lines, at least one.
func NewBuffer(n int) *Buffer { return &Buffer{lines: make([]Line, max(n, 1))} }

// Push adds a line and drops the oldest.
func (b *Buffer) Push(l Line) {
	b.lines[b.next] = l
	b.next = (b.next + 1) % len(b.lines)
	b.filled = min(b.filled+1, len(b.lines))
	b.valid = false
}

// Lines are the lines pushed, oldest first.
func (b *Buffer) Lines() []Line {
	out := make([]Line, 0, b.filled)
	for i := range b.filled {
		out = append(out, b.lines[(b.next-b.filled+i+len(b.lines))%len(b.lines)])
	}
	return out
}

// text is what patterns are matched against; it is made once a line, not once a rule.
func (b *Buffer) text() string {
	if b.valid {
		return b.joined
	}
	var s strings.Builder
	for i := range b.lines {
		if i > 0 {
			s.WriteByte('\n')
		}
		s.WriteString(b.lines[(b.next+i)%len(b.lines)].Text)
	}
	b.joined, b.valid = s.String(), true
	return b.joined
}

// Match returns the lines that the leftmost match touches, oldest first; none when the pattern does not match. As in NPD
// they reach to the last line, whichever branch of the pattern matched.
func (b *Buffer) Match(p *Pattern) []Line {
	if b.filled == 0 {
		return nil
	}
	if p.oneLine {
		last := b.lines[(b.next-1+len(b.lines))%len(b.lines)]
		if !p.re.MatchString(last.Text) {
			return nil
		}
		return []Line{last}
	}
	text := b.text()
	at := p.re.FindStringIndex(text)
	if at == nil {
		return nil
	}
	// How many bytes there are from the match's start to the end decides how many lines are touched.
	rest := len(text) - at[0]
	lines := b.Lines()
	first := len(lines) - 1
	for covered := len(lines[first].Text) + 1; covered < rest && first > 0; {
		first--
		covered += len(lines[first].Text) + 1
	}
	return lines[first:]
}

// Message is the lines of a match as NPD writes them.
func Message(lines []Line, suffix string) string {
	texts := make([]string, len(lines))
	for i := range lines {
		texts[i] = lines[i].Text
	}
	message := strings.Join(texts, "\n")
	if suffix != "" {
		message += "; " + suffix
	}
	return message
}
