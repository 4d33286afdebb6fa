package checkup

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/cli/text"
	"github.com/roundhouse-dev/roundhouse/internal/health"
)

// WriteJSON writes the report as indented JSON.
func (r *Report) WriteJSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	if err := enc.Encode(r); err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	return nil
}

// Render writes the report for a person: the answer first, then what it rests on.
func (r *Report) Render(p *text.Page) {
	p.Line(p.Tint(tones[r.Summary], strings.ToUpper(string(r.Summary))) + "  " + r.answer())
	p.Line(r.machine(p.Clock))
	p.Line("")
	for i := range r.Faults {
		r.fault(p, &r.Faults[i])
	}
	if r.Dropped > 0 {
		p.Line(fmt.Sprintf("and %d faults more", r.Dropped))
	}
	for _, line := range text.Table([]string{"DEVICE", "MODEL", "PCI", "SLOT", "DRIVER", "LINK", "HEALTH"}, r.devices()) {
		p.Line(line)
	}
	if len(r.Devices) == 0 {
		p.Line("none: no accelerator is on the bus, and none was before")
	}
	p.Line("")
	for _, line := range text.Table([]string{"CHECK", "RESULT", "LOOKED AT", "NOTE"}, r.checks()) {
		p.Line(line)
	}
}

var tones = map[v1alpha1.Summary]text.Tone{
	v1alpha1.SummaryHealthy: text.Good, v1alpha1.SummaryUnknown: text.Waiting, v1alpha1.SummaryFaulty: text.Bad,
}

// answer is the report in a sentence.
func (r *Report) answer() string {
	faults, remarks, blind := 0, 0, 0
	for i := range r.Faults {
		if health.Matters(r.Faults[i]) {
			faults++
		} else {
			remarks++
		}
	}
	for _, c := range r.Checks {
		if c.Result == health.Unknown {
			blind++
		}
	}
	parts := []string{health.Count(len(r.Devices), "device"), health.Count(faults, "fault")}
	if remarks > 0 {
		parts = append(parts, health.Count(remarks, "remark"))
	}
	if blind > 0 {
		parts = append(parts, fmt.Sprintf("%d of %s could not look", blind, health.Count(len(r.Checks), "check")))
	} else {
		parts = append(parts, health.Count(len(r.Checks), "check")+" looked")
	}
	return strings.Join(parts, ", ")
}

func (r *Report) machine(clock text.Clock) string {
	line := text.Clean(r.Host)
	if r.Booted != nil {
		line += ", booted " + clock.Minute(*r.Booted) + " (" + clock.Age(*r.Booted) + ")"
	}
	return line + ", roundhouse-agent " + r.Version
}

// fault is a paragraph: what, where and what it recommends, then the evidence.
func (r *Report) fault(p *text.Page, f *v1alpha1.Fault) {
	tone := map[v1alpha1.Severity]text.Tone{v1alpha1.SeverityCritical: text.Bad, v1alpha1.SeverityWarning: text.Waiting}[f.Severity]
	head := p.Tint(tone, string(f.Severity)) + "  " + text.Clean(f.Code)
	if where := r.place(f.Device); where != "" {
		head += " on " + where
	}
	if f.CausedBy != "" {
		head += ", caused by " + text.Clean(f.CausedBy)
	}
	p.Line(head)
	seen := "seen " + p.Clock.Time(f.FirstSeen.Time) + " (" + p.Clock.Age(f.FirstSeen.Time) + ")"
	if f.Count > 1 {
		seen += fmt.Sprintf(", %d times since, last %s", f.Count, p.Clock.Age(f.LastSeen.Time))
	}
	if f.Recommended != "" && f.Recommended != v1alpha1.RecommendNone {
		seen += "; recommends " + string(f.Recommended)
	}
	p.Section("", text.Clean(f.Evidence), seen+" (check "+f.Check+")")
	p.Line("")
}

// place is a device with its slot and address.
func (r *Report) place(id string) string {
	for i := range r.Devices {
		if d := &r.Devices[i]; d.ID == id {
			where := text.Clean(id)
			if d.Slot != "" {
				where += ", slot " + text.Clean(d.Slot)
			}
			return where + ", " + d.PCI
		}
	}
	return text.Clean(id)
}

func (r *Report) devices() [][]string {
	rows := make([][]string, len(r.Devices))
	for i := range r.Devices {
		d := &r.Devices[i]
		driver := strings.TrimSpace(d.BoundTo + " " + d.Driver)
		link := "-"
		if l := d.Link; l != nil {
			link = fmt.Sprintf("x%d %s GT/s", l.Width, dash(l.GTs))
			if l.MaxWidth > l.Width {
				link += fmt.Sprintf(" (of x%d)", l.MaxWidth)
			}
		}
		rows[i] = []string{
			text.Clean(d.ID), dash(text.Clean(d.Model)), dash(d.PCI), dash(text.Clean(d.Slot)), dash(text.Clean(driver)), link, string(d.Health),
		}
	}
	return rows
}

func (r *Report) checks() [][]string {
	rows := make([][]string, len(r.Checks))
	for i, c := range r.Checks {
		note := text.Clean(c.Message)
		if c.Reason != "" {
			note = strings.TrimSuffix(c.Reason+": "+note, ": ")
		}
		rows[i] = []string{text.Clean(c.Name), string(c.Result), dash(text.Clean(c.Looked)), note}
	}
	return rows
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
