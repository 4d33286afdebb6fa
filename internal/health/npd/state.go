package npd

import (
	"cmp"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/health"
	"github.com/roundhouse-dev/roundhouse/internal/machine"
	config "github.com/roundhouse-dev/roundhouse/internal/npd"
)

// key says which problems are the same one: rules of the same reason find the same.
type key struct {
	Permanent bool   `json:"permanent,omitempty"`
	Condition string `json:"condition,omitempty"`
	Reason    string `json:"reason"`
}

func keyOf(r config.Rule) key { return key{r.Permanent, r.Condition, r.Reason} }

// problem stands.
type problem struct {
	key
	Severity    v1alpha1.Severity       `json:"severity"`
	Recommended v1alpha1.Recommendation `json:"recommended"`
	First       time.Time               `json:"first"`
	Last        time.Time               `json:"last"`
	Count       int64                   `json:"count"`
	Message     string                  `json:"message"`
	// Untrusted says that no line that shows it came from whom the log is named after.
	Untrusted bool `json:"untrusted,omitempty"`
}

// logState is what is remembered of a log monitor. The place in the log and what was found up to it are saved together:
// reading on from there, and some lines again after a crash, gives the same problems and counts.
type logState struct {
	// BootID is the boot the problems are of.
	BootID string `json:"bootID"`
	// Start is the time before which lines are history, by the file's lookback and delay.
	Start time.Time `json:"start"`
	// Live says that the kernel log was read to its end once: what comes now is no history, whatever its time.
	Live bool `json:"live,omitempty"`

	// Next is the number of the next kernel record.
	Next uint64 `json:"next,omitempty"`
	// File is the place in a file, Partial the line it is in, and Cut says that the rest of that line is not wanted.
	File    machine.FilePosition `json:"file,omitzero"`
	Partial string               `json:"partial,omitempty"`
	Cut     bool                 `json:"cut,omitempty"`
	// Cursor is the place in the journal.
	Cursor string `json:"cursor,omitempty"`

	// Lines are the last ones, for patterns that span several.
	Lines    []config.Line   `json:"lines,omitempty"`
	Problems []problem       `json:"problems,omitempty"`
	Said     map[string]said `json:"said,omitempty"`
}

// inBoot is the state in the boot. A new boot ends the problems; the places in logs that survive it stay.
func (s logState) inBoot(boot string) logState {
	if s.BootID == boot {
		return s
	}
	return logState{BootID: boot, File: s.File, Partial: s.Partial, Cut: s.Cut, Cursor: s.Cursor}
}

// keep drops what no rule of the configuration can have found.
func (s *logState) keep(rules []config.LogRule) {
	s.Problems = slices.DeleteFunc(s.Problems, func(p problem) bool {
		return !slices.ContainsFunc(rules, func(r config.LogRule) bool { return keyOf(r.Rule) == p.key })
	})
}

// change says what something did to the state; the greater, the more haste it is worth.
type change uint8

const (
	unchanged change = iota
	moved
	counted
	changed
)

// found takes in that a rule matched.
func (s *logState) found(r config.LogRule, lines []config.Line, at time.Time) change {
	untrusted := slices.ContainsFunc(lines, func(l config.Line) bool { return l.Untrusted })
	p := problem{
		key: keyOf(r.Rule), Severity: r.Severity, Recommended: r.Recommended, First: at, Last: at, Count: 1, Untrusted: untrusted,
		Message: health.Bound(printable(config.Message(lines, r.Suffix)), health.MaxEvidence),
	}
	if untrusted && p.Severity == v1alpha1.SeverityCritical {
		p.Severity = v1alpha1.SeverityWarning
	}
	if untrusted {
		p.Recommended = v1alpha1.RecommendNone
	}
	i := slices.IndexFunc(s.Problems, func(o problem) bool { return o.key == p.key })
	if i < 0 {
		s.Problems = append(s.Problems, p)
		return changed
	}
	return s.Problems[i].again(p)
}

// printable replaces what a terminal would obey: anybody may have written it.
func printable(s string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' && c != '\n' && c != '\t' || c == 0x7f {
			return '\ufffd'
		}
		return c
	}, strings.ToValidUTF8(s, "\ufffd"))
}

// again counts a problem that stands. What the kernel itself says goes before what a process says.
func (p *problem) again(next problem) change {
	p.Count++
	if next.Last.After(p.Last) {
		p.Last = next.Last
	}
	if !p.Permanent {
		p.Message = next.Message
	}
	worse := rank(next.Severity) < rank(p.Severity)
	if !worse && (next.Untrusted || !p.Untrusted) {
		return counted
	}
	if worse {
		p.Severity = next.Severity
	}
	if !next.Untrusted {
		p.Untrusted, p.Recommended = false, next.Recommended
	}
	p.Message = next.Message
	return changed
}

// end ends a problem.
func (s *logState) end(over func(problem) bool) change {
	n := len(s.Problems)
	s.Problems = slices.DeleteFunc(s.Problems, over)
	if len(s.Problems) < n {
		return changed
	}
	return unchanged
}

// findings are the problems, one for each code: two conditions may have the same reason.
func (s *logState) findings(check string, codes map[key]string, quiet map[key]time.Duration) []health.Finding {
	out := make([]health.Finding, 0, len(s.Problems))
	for _, p := range worstFirst(s.Problems) {
		code := codes[p.key]
		if i := slices.IndexFunc(out, func(f health.Finding) bool { return f.Fault.Code == code }); i >= 0 {
			merge(&out[i].Fault, p.First, p.Last, p.Count)
			continue
		}
		clearedBy := health.ClearedByBoot
		if quiet[p.key] > 0 {
			clearedBy = health.ClearedByQuiet
		}
		out = append(out, health.Finding{ClearedBy: clearedBy, Fault: fault(check, code, p)})
	}
	return out
}

func fault(check, code string, p problem) v1alpha1.Fault {
	evidence := p.Message
	if p.Untrusted {
		evidence = "(not from the system itself) " + evidence
	}
	if p.Condition != "" {
		evidence = p.Condition + ": " + evidence
	}
	return v1alpha1.Fault{
		Code: code, Check: check, Class: v1alpha1.ClassHost, Severity: p.Severity, Recommended: p.Recommended, Root: true,
		FirstSeen: metav1.NewTime(p.First), LastSeen: metav1.NewTime(p.Last), Count: p.Count,
		Evidence: health.Bound(evidence, health.MaxEvidence),
	}
}

// merge adds a problem to the worse one of the same code.
func merge(f *v1alpha1.Fault, first, last time.Time, count int64) {
	f.Count += count
	if first.Before(f.FirstSeen.Time) {
		f.FirstSeen = metav1.NewTime(first)
	}
	if last.After(f.LastSeen.Time) {
		f.LastSeen = metav1.NewTime(last)
	}
}

// worstFirst sorts by severity, then the oldest.
func worstFirst(problems []problem) []problem {
	out := slices.Clone(problems)
	slices.SortStableFunc(out, func(a, b problem) int {
		return cmp.Or(cmp.Compare(rank(a.Severity), rank(b.Severity)), a.First.Compare(b.First))
	})
	return out
}

func rank(s v1alpha1.Severity) int {
	switch s {
	case v1alpha1.SeverityCritical:
		return 0
	case v1alpha1.SeverityWarning:
		return 1
	case v1alpha1.SeverityInfo:
	}
	return 2
}

// speak says of each condition the worst of its problems; where none stands and the log cannot be read, it is Unknown.
func (s *logState) speak(declared []config.Condition, now time.Time, blind *health.Result) change {
	if s.Said == nil {
		s.Said = make(map[string]said, len(declared))
	}
	worst := worstFirst(s.Problems)
	c := unchanged
	for _, d := range declared {
		was := s.Said[d.Type]
		var next said
		i := slices.IndexFunc(worst, func(p problem) bool { return p.Permanent && p.Condition == d.Type })
		switch {
		case i >= 0:
			next = was.say(True, worst[i].Reason, worst[i].Message, worst[i].First, false)
		case blind != nil:
			next = was.say(Unknown, blind.Reason, blind.Message, now, false)
		default:
			next = was.say(False, d.Reason, d.Message, now, false)
		}
		if next != was {
			s.Said[d.Type], c = next, changed
		}
	}
	return c
}

// maxSavedLines bounds the bytes of lines that are saved; of more the newest are.
const maxSavedLines = 256 << 10

// newest is the end of the lines that fits.
func newest(lines []config.Line) []config.Line {
	size := 0
	for i := len(lines) - 1; i >= 0; i-- {
		if size += len(lines[i].Text); size > maxSavedLines {
			return lines[i+1:]
		}
	}
	return lines
}
