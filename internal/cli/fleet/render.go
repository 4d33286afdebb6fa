package fleet

import (
	"fmt"
	"strings"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/cli/text"
)

// Bounds that keep the fleet on one screen; wide has none.
const (
	linesPerPhase = 5
	namesShown    = 4
	messageWidth  = 90
)

// Render writes the answer. Wide lists every open incident, with its object.
func (st *Status) Render(p *text.Page, wide bool) {
	head := fmt.Sprintf("%s with accelerators, %s", text.Count(st.Nodes.Total, "node", "nodes"), text.Count(st.Devices.Total, "device", "devices"))
	pad := max(2, 76-len(head))
	p.Section("Fleet", head+strings.Repeat(" ", pad)+p.Clock.Minute(st.At.Time))
	n, d := st.Nodes, st.Devices
	p.Section("Nodes", strings.Join([]string{
		fmt.Sprintf("%d healthy", n.Healthy), tinted(p, text.Bad, n.Faulty, "faulty"),
		tinted(p, text.Waiting, n.Unknown, "unknown"), tinted(p, text.Busy, n.Acting, "acting"),
	}, ", "))
	p.Section("Devices", strings.Join([]string{
		fmt.Sprintf("%d healthy", d.Healthy), tinted(p, text.Bad, d.Unhealthy, "unhealthy"),
		tinted(p, text.Bad, d.Missing, "missing"), tinted(p, text.Waiting, d.Unknown, "unknown"),
	}, ", "))
	p.Section("Coverage", st.coverage(wide))
	p.Section("Policies", st.policies()...)
	p.Section("Incidents", st.incidents(p, wide)...)
	p.Section("Budgets", st.budgets(wide)...)
	p.Section("Holds", st.holds(p)...)
	p.Section("Brakes", st.brakes(p)...)
}

func (st *Status) coverage(wide bool) string {
	c := st.Coverage
	out := fmt.Sprintf("%d of %d nodes report", c.Reporting, c.Of)
	if len(c.Silent) > 0 {
		limit := namesShown
		if wide {
			limit = len(c.Silent)
		}
		out += "; silent: " + text.Bounded(c.Silent, limit)
	}
	return out
}

func (st *Status) policies() []string {
	if len(st.Policies) == 0 {
		return []string{"none: every node is observed only; see kubectl explain remediationpolicy"}
	}
	var rows [][]string
	for _, pol := range st.Policies {
		mode := pol.Mode
		if mode == "" {
			mode = v1alpha1.ModeObserve
		}
		row := []string{pol.Name, string(mode), text.Count(pol.Nodes, "node", "nodes"), fmt.Sprintf("priority %d", pol.Priority), ""}
		if !pol.Accepted {
			row[4] = "NOT ACCEPTED, its nodes are observed only: " + pol.Why
		}
		rows = append(rows, row)
	}
	lines := text.Table(nil, rows)
	if st.Ungoverned > 0 {
		lines = append(lines, fmt.Sprintf("no policy selects %s with accelerators: observed only", text.Count(st.Ungoverned, "node", "nodes")))
	}
	return lines
}

func (st *Status) incidents(p *text.Page, wide bool) []string {
	if st.Open == 0 {
		return []string{"none open"}
	}
	var rows [][]string
	for _, phase := range st.Incidents {
		for i, in := range phase.Incidents {
			if i == linesPerPhase && !wide {
				rows = append(rows, []string{"", fmt.Sprintf("and %d more: kubectl roundhouse status -o wide", len(phase.Incidents)-i)})
				break
			}
			label := ""
			if i == 0 {
				label = fmt.Sprintf("%s %d", phase.Phase, len(phase.Incidents))
			}
			rows = append(rows, in.row(p, label, wide))
		}
	}
	// The line that says how many more there are must not widen the column of names.
	var lines []string
	table := text.Table(nil, shorten(rows))
	for i, row := range rows {
		if len(row) == 2 {
			lines = append(lines, strings.Repeat(" ", indentOf(rows))+row[1])
			continue
		}
		lines = append(lines, table[i])
	}
	return lines
}

func shorten(rows [][]string) [][]string {
	out := make([][]string, len(rows))
	for i, row := range rows {
		out[i] = row
		if len(row) == 2 {
			out[i] = []string{""}
		}
	}
	return out
}

func indentOf(rows [][]string) int {
	width := 0
	for _, row := range rows {
		width = max(width, len(row[0]))
	}
	return width + 2
}

func (in Incident) row(p *text.Page, label string, wide bool) []string {
	fault := in.Fault
	if in.Devices > 1 {
		fault += fmt.Sprintf(" x%d", in.Devices)
	}
	age := ""
	if in.Since != nil {
		age = strings.TrimSuffix(p.Clock.Age(in.Since.Time), " ago")
	}
	said := p.Clock.Localize(in.Message)
	if runes := []rune(said); len(runes) > messageWidth && !wide {
		said = string(runes[:messageWidth-3]) + "..."
	}
	if said == "" {
		said = in.Reason
	}
	row := []string{label, in.Node, fault, age, said}
	if wide {
		rung := in.Rung
		if rung == "" {
			rung = "-"
		}
		row = []string{label, in.Node, fault, age, in.Remediation, rung, in.Reason, said}
	}
	return row
}

func (st *Status) budgets(wide bool) []string {
	if len(st.Budgets) == 0 {
		return []string{"none: the implicit one lets 1 node at a time be out"}
	}
	var rows [][]string
	for _, b := range st.Budgets {
		name := b.Name
		if b.Domain != "" {
			name += " " + b.Domain
		}
		limit := namesShown
		if wide {
			limit = len(b.Reserved) + len(b.Others)
		}
		var who []string
		if len(b.Reserved) > 0 {
			who = append(who, "ours: "+text.Bounded(b.Reserved, limit))
		}
		if len(b.Others) > 0 {
			who = append(who, "others: "+text.Bounded(b.Others, limit))
		}
		rows = append(rows, []string{name, b.used(), strings.Join(who, "; ")})
	}
	return text.Table(nil, rows)
}

func (b Budget) used() string {
	var parts []string
	if b.MaxNodes != nil {
		parts = append(parts, fmt.Sprintf("%d of %d nodes out", len(b.Reserved)+len(b.Others), *b.MaxNodes))
	}
	if b.MaxDevices != nil {
		parts = append(parts, fmt.Sprintf("%d of %d devices out", b.Devices, *b.MaxDevices))
	}
	switch {
	case len(parts) == 0:
		return "nothing out"
	case b.Selected == 0:
		parts = append(parts, "selects no node")
	}
	return strings.Join(parts, ", ")
}

func (st *Status) holds(p *text.Page) []string {
	if len(st.Holds) == 0 {
		return []string{"none"}
	}
	var lines []string
	for _, h := range st.Holds {
		until := "until it is released"
		if h.Until != nil {
			until = "until " + p.Clock.Until(h.Until.Time)
		}
		kind := ""
		if h.Holds == v1alpha1.HoldEverything {
			kind = ", quarantine too"
		}
		lines = append(lines, fmt.Sprintf("%s: %s%s, by %s, %s: %q", h.Name, text.Count(h.Nodes, "node", "nodes"), kind, h.By, until, h.Reason))
	}
	return lines
}

func (st *Status) brakes(p *text.Page) []string {
	var lines []string
	for _, pol := range st.Policies {
		b := pol.Brake
		if b == nil || b.State != v1alpha1.BrakeHolding {
			continue
		}
		said := fmt.Sprintf("%s holds: %s on %s", pol.Name, text.Clean(b.Signature), text.Count(b.Nodes, "node", "nodes"))
		if b.Since != nil {
			said += ", " + p.Clock.Since(b.Since.Time)
		}
		if b.ReleaseWhen != "" {
			said += "; lets go when " + text.Clean(b.ReleaseWhen)
		}
		lines = append(lines, said)
	}
	if len(lines) == 0 {
		return []string{"released"}
	}
	return lines
}

// tinted says "3 faulty", coloured where there is any.
func tinted(p *text.Page, tone text.Tone, n int, what string) string {
	if n == 0 {
		tone = text.Plain
	}
	return p.Tint(tone, fmt.Sprintf("%d %s", n, what))
}
