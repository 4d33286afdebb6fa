package explain

import (
	"fmt"
	"slices"
	"strings"

	"github.com/roundhouse-dev/roundhouse/internal/cli/text"
)

// tones are what the states look like where there is colour.
var tones = map[State]text.Tone{
	Healthy: text.Good, Succeeded: text.Good, Probation: text.Good,
	Unknown: text.Waiting, NoAgent: text.Waiting, Waiting: text.Waiting, Held: text.Waiting, Braked: text.Waiting,
	Observing: text.Waiting, Quarantined: text.Waiting, Cancelled: text.Waiting,
	Draining: text.Busy, Repairing: text.Busy, Verifying: text.Busy,
	Faulty: text.Bad, Escalated: text.Bad, NoSuchNode: text.Bad, NodeGone: text.Waiting,
}

// words are the states as the header shows them, where the name alone reads badly.
var words = map[State]string{NoAgent: "NO AGENT", NoSuchNode: "NO SUCH NODE", NodeGone: "NODE GONE"}

// Word is a state in capital letters.
func (s State) Word() string {
	if w, ok := words[s]; ok {
		return w
	}
	return strings.ToUpper(string(s))
}

// Render writes the answer as sections. Wide also shows the names of objects and the reasons.
func (w *Why) Render(p *text.Page, wide bool) {
	head := text.Clean(w.Node) + "  " + w.State.Word()
	if !goesOn(w.Meaning) {
		head += ":"
	}
	head += " " + p.Clock.Localize(w.Meaning)
	pad := max(2, 86-len([]rune(head)))
	head = strings.Replace(head, w.State.Word(), p.Tint(tones[w.State], w.State.Word()), 1)
	p.Line(head + strings.Repeat(" ", pad) + p.Clock.Minute(w.At.Time))

	p.Section("What", Facts(p, w.What)...)
	p.Section("Proof", Facts(p, w.Proof)...)
	p.Section("Not seen", Facts(p, w.NotSeen)...)
	p.Section("Done", w.done(p, wide)...)
	p.Section("Would do", local(p, w.WouldDo)...)
	p.Section("Next", local(p, w.Next)...)
	p.Section("At risk", local(p, w.AtRisk)...)
	p.Section("Waiting", Facts(p, w.Waiting)...)
	p.Section("Changes", local(p, w.Changes)...)
	if w.Deadline != nil {
		p.Section("Deadline", p.Clock.Until(w.Deadline.At.Time)+", then: "+p.Clock.Localize(w.Deadline.Then))
	}
	p.Section("Deadline", w.NoDeadline)
	p.Section("History", local(p, w.History)...)
	p.Section("Rule", w.rule()...)
	if wide && w.Remediation != "" {
		p.Section("Object", fmt.Sprintf("remediation %s, phase %s, reason %s", w.Remediation, w.Phase, w.Reason))
	}
	p.Section("Stop it", w.StopIt...)
}

// goesOn says whether a meaning reads on from the state's word, "WAITING for a budget slot".
func goesOn(meaning string) bool {
	first, _, _ := strings.Cut(strings.TrimSuffix(meaning, ":"), " ")
	return slices.Contains([]string{"only", "only:", "for", "for:", "by", "until", "and"}, first)
}

func local(p *text.Page, lines []string) []string {
	out := make([]string, len(lines))
	for i, l := range lines {
		out[i] = p.Clock.Localize(l)
	}
	return out
}

// Facts are the lines of facts, each with since when.
func Facts(p *text.Page, facts []Fact) []string {
	out := make([]string, 0, len(facts))
	for _, f := range facts {
		if f.Text == "" {
			continue
		}
		f.Text = p.Clock.Localize(f.Text)
		if f.Since != nil && !f.Since.IsZero() {
			f.Text += ", " + p.Clock.Since(f.Since.Time)
		}
		out = append(out, f.Text)
	}
	return out
}

func (w *Why) done(p *text.Page, wide bool) []string {
	var out []string
	if w.DoneEarlier > 0 {
		out = append(out, fmt.Sprintf("(%d earlier: kubectl roundhouse history %s)", w.DoneEarlier, w.Node))
	}
	width := 0
	for _, e := range w.Done {
		width = max(width, len(p.Clock.Time(e.At.Time)))
	}
	before := ""
	for _, e := range w.Done {
		said := e.Message
		if said == "" {
			said = Spell(e.Reason)
		}
		if said == before && !wide {
			continue // the same sentence under another reason
		}
		before = said
		if wide {
			said = fmt.Sprintf("%s %s: %s", e.Phase, e.Reason, said)
		}
		out = append(out, fmt.Sprintf("%-*s  %s", width, p.Clock.Time(e.At.Time), p.Clock.Localize(said)))
	}
	return slices.Clip(out)
}

func (w *Why) rule() []string {
	if w.Policy == nil {
		return []string{"no policy governs this node"}
	}
	g := w.Policy
	name := g.Name
	if g.Rule != "" {
		name += "/" + g.Rule
	}
	out := []string{fmt.Sprintf("%s, generation %d, mode %s", name, g.Generation, g.Mode)}
	if g.RuleSays != "" {
		out = append(out, g.RuleSays)
	}
	if !g.Governs {
		out = append(out, "does not select this node: no policy does, so it is in Observe")
	}
	if !g.Accepted {
		out = append(out, "not accepted ("+g.Why+"): its nodes are in Observe")
	}
	return out
}
