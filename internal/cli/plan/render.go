package plan

import (
	"fmt"
	"strings"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/cli/explain"
	"github.com/roundhouse-dev/roundhouse/internal/cli/text"
	"github.com/roundhouse-dev/roundhouse/internal/drain"
)

// maxNamed bounds the names of a list where -o wide was not asked for.
const maxNamed = 4

// Render writes the plan as sections. Wide names every pod and device.
func (p *Plan) Render(page *text.Page, wide bool) {
	limit := maxNamed
	if wide {
		limit = 1 << 20
	}
	head := text.Clean(p.Node) + "  PLAN: what each rung would move; nothing is done"
	page.Line(head + strings.Repeat(" ", max(2, 86-len([]rune(head)))) + page.Clock.Minute(p.At.Time))
	page.Section("Rule", p.rule()...)
	if p.Remediation != "" {
		page.Section("Incident", strings.TrimSuffix(fmt.Sprintf("%s, %s: %s: %s", p.Remediation, p.Phase, explain.Spell(p.Reason), page.Clock.Localize(p.Message)), ": "))
	}
	page.Section("Assuming", text.Clean(p.Assuming))
	var bad []string
	for _, d := range p.Devices {
		bad = append(bad, explain.Name(d))
	}
	page.Section("Bad", text.Bounded(bad, limit))
	page.Section("Driver", explain.Facts(page, p.ByDriver)...)
	page.Section("Ladder", p.NoRungs)
	if len(p.Rungs) > 0 {
		page.Section("Ladder", text.Table([]string{"RUNG", "ACTION", "EMPTIES", "MOVES", "AT RISK", "TOUCHES", "WHEN"}, p.rows())...)
		page.Section("Moves", p.moves(limit)...)
		page.Section("Gangs", p.gangs(limit)...)
		page.Section("Blocked", p.blocked(limit)...)
		page.Section("Untold", p.untold())
	}
	page.Section("Limit", p.limit())
	page.Section("Server", p.server(limit)...)
}

func (p *Plan) rule() []string {
	g := p.Policy
	switch {
	case g == nil:
		return []string{"no policy governs this node"}
	case !g.Accepted:
		return []string{fmt.Sprintf("policy %s is not accepted, so the mode is Observe: %s", g.Name, g.Why)}
	case g.Rule == "":
		return []string{fmt.Sprintf("%s, mode %s; no rule of it applies", g.Name, g.Mode)}
	}
	out := []string{fmt.Sprintf("%s/%s, mode %s", g.Name, g.Rule, g.Mode), g.RuleSays}
	if g.Mode != v1alpha1.ModeRemediate {
		out[0] += ": nothing of this is done in it"
	}
	return out
}

func (p *Plan) limit() string {
	if p.Limit == "" {
		return ""
	}
	return "a human would be asked now instead: " + p.Limit
}

func (p *Plan) rows() [][]string {
	var rows [][]string
	then := false
	for i := range p.Rungs {
		r := &p.Rungs[i]
		rows = append(rows, []string{r.Name, orDash(string(r.Action)), string(r.Empties), r.count(), r.risk(), r.touched(), r.when(then)})
		then = then || r.Next
	}
	return rows
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// count says how many pods move.
func (r *Rung) count() string {
	if r.Empties == EmptiesNothing {
		return "-"
	}
	parts := []string{text.Count(len(r.Moves), "pod", "pods")}
	if r.Going > 0 {
		parts = append(parts, fmt.Sprintf("%d going", r.Going))
	}
	if len(r.Blockers) > 0 {
		parts = append(parts, fmt.Sprintf("%d blocked", len(r.Blockers)))
	}
	return strings.Join(parts, ", ")
}

func (r *Rung) risk() string {
	if r.Empties == EmptiesNothing {
		return "-"
	}
	return drain.Risk(r.AtRisk)
}

func (r *Rung) touched() string {
	switch {
	case r.TouchesSays != "" && len(r.Touches) > 0:
		return fmt.Sprintf("%s (%d)", r.TouchesSays, len(r.Touches))
	case r.TouchesSays != "":
		return r.TouchesSays
	case len(r.Touches) > 0:
		return text.Count(len(r.Touches), "device", "devices")
	}
	return "-"
}

// when says whether a rung is next, would follow, or is passed over.
func (r *Rung) when(then bool) string {
	switch {
	case r.Next && r.Action == v1alpha1.RungEscalate:
		return "next"
	case r.Next:
		return fmt.Sprintf("next, attempt %d of %d", r.Tried+1, r.Attempts)
	case r.Why != "":
		return "skipped: " + text.Clean(r.Why)
	case then:
		return "then"
	}
	return "-"
}

// moves names the pods of each scope once: rungs with the same scope move the same.
func (p *Plan) moves(limit int) []string {
	var out []string
	for _, scope := range []Empties{EmptiesDevices, EmptiesNode} {
		r := p.first(scope)
		if r == nil {
			continue
		}
		var names []string
		for _, m := range r.Moves {
			said := text.Clean(m.Pod)
			if m.AtRisk > 0 {
				said += " (" + drain.Risk(m.AtRisk) + ")"
			}
			names = append(names, said)
		}
		said := "nothing"
		if len(names) > 0 {
			said = text.Bounded(names, limit)
		}
		out = append(out, string(scope)+": "+said)
	}
	return out
}

func (p *Plan) first(scope Empties) *Rung {
	for i := range p.Rungs {
		if p.Rungs[i].Empties == scope {
			return &p.Rungs[i]
		}
	}
	return nil
}

func (p *Plan) blocked(limit int) []string {
	var out []string
	for _, scope := range []Empties{EmptiesDevices, EmptiesNode} {
		r := p.first(scope)
		if r == nil {
			continue
		}
		for i, b := range r.Blockers {
			if i == limit {
				out = append(out, fmt.Sprintf("%s: and %d more", scope, len(r.Blockers)-limit))
				break
			}
			out = append(out, fmt.Sprintf("%s: %s: %s: %s", scope, text.Clean(b.Pod), explain.Spell(b.Reason), text.Clean(b.Message)))
		}
	}
	return out
}

// untold says of how many pods nobody can tell which devices they hold. A repair of the device takes them too.
func (p *Plan) untold() string {
	d := p.draft.DevicePlan
	if d == nil || d.Untold == 0 || p.first(EmptiesDevices) == nil {
		return ""
	}
	return fmt.Sprintf("of %s nobody can tell whether they hold a bad device, so a repair of it moves them too: %s",
		text.Count(d.Untold, "pod", "pods"), text.Clean(d.UntoldWhy))
}

func (p *Plan) server(limit int) []string {
	var out []string
	for i := range p.Server {
		r := &p.Server[i]
		said := fmt.Sprintf("%s (%s of pool %s, %s)", r.DeviceID, r.Device, r.Pool, r.Driver)
		if r.Device == "" {
			said = r.DeviceID
		}
		out = append(out, text.Clean(said))
		if r.Failed != "" {
			out = append(out, "  not asked, or no answer: "+text.Clean(r.Failed))
		} else {
			out = append(out, "  it says: "+text.Clean(r.Said))
		}
		var names []string
		for _, h := range r.Ours {
			names = append(names, fmt.Sprintf("%s (%s)", text.Clean(h.Pod), h.Does))
		}
		ours := text.Count(len(r.Ours), "pod holds it by a claim", "pods hold it by a claim")
		if len(names) > 0 {
			ours += ": " + text.Bounded(names, limit)
		}
		out = append(out, "  we see:  "+ours)
	}
	return out
}
