// Package past answers "history": the incidents of a node or a device with what happened in them, what is remembered of
// devices, and the node's boots. It is pure.
package past

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/cli/explain"
	"github.com/roundhouse-dev/roundhouse/internal/cli/text"
)

// Incident is a Remediation, or what a DeviceRecord keeps of one whose object is gone.
type Incident struct {
	Remediation string          `json:"remediation"`
	Node        string          `json:"node,omitempty"`
	Device      string          `json:"device,omitempty"`
	Fault       string          `json:"fault"`
	Began       metav1.Time     `json:"began"`
	Ended       *metav1.Time    `json:"ended,omitempty"`
	Phase       v1alpha1.Phase  `json:"phase,omitempty"`
	Reason      string          `json:"reason,omitempty"`
	Attempts    []string        `json:"attempts,omitempty"`
	Timeline    []explain.Event `json:"timeline,omitempty"`
	Dropped     int32           `json:"timelineDropped,omitempty"`
	// Digest says that only a DeviceRecord remembers it.
	Digest bool `json:"digest,omitempty"`
}

// Record is what is remembered of a device.
type Record struct {
	Name      string                `json:"name"`
	Model     string                `json:"model,omitempty"`
	Serial    string                `json:"serial,omitempty"`
	Places    []v1alpha1.Place      `json:"places,omitempty"`
	Totals    v1alpha1.DeviceTotals `json:"totals"`
	Suspicion string                `json:"suspicion,omitempty"`
	Because   []string              `json:"because,omitempty"`
	RMA       v1alpha1.RMAState     `json:"rma,omitempty"`
}

// History is the answer.
type History struct {
	APIVersion string          `json:"apiVersion"`
	Kind       string          `json:"kind"`
	Of         string          `json:"of"`
	At         metav1.Time     `json:"at"`
	Incidents  []Incident      `json:"incidents,omitempty"`
	Records    []Record        `json:"records,omitempty"`
	Boots      []v1alpha1.Boot `json:"boots,omitempty"`
}

// Snapshot is everything that a History depends on.
type Snapshot struct {
	Now time.Time
	// Of is the node or the device that was asked about.
	Of           string
	Remediations []v1alpha1.Remediation
	Records      []v1alpha1.DeviceRecord
	// Health is the node's, where a node was asked about.
	Health *v1alpha1.NodeHealth
	// Node is set where a node was asked about: of a device that moved, only the incidents here are its history.
	Node string
}

// Tell makes the answer, the newest incident first.
func Tell(s Snapshot) History {
	h := History{APIVersion: explain.Version, Kind: "History", Of: s.Of, At: metav1.NewTime(s.Now)}
	known := map[string]bool{}
	for i := range s.Remediations {
		known[s.Remediations[i].Name] = true
		h.Incidents = append(h.Incidents, incidentOf(&s.Remediations[i]))
	}
	for i := range s.Records {
		rec := &s.Records[i]
		h.Records = append(h.Records, recordOf(rec))
		for _, d := range rec.Status.Incidents {
			if known[d.Remediation] || s.Node != "" && placeAt(rec, d.At.Time) != s.Node {
				continue
			}
			known[d.Remediation] = true
			h.Incidents = append(h.Incidents, digestOf(rec, d))
		}
	}
	slices.SortFunc(h.Incidents, func(a, b Incident) int {
		return cmp.Or(b.Began.Compare(a.Began.Time), cmp.Compare(a.Remediation, b.Remediation))
	})
	if s.Health != nil {
		h.Boots = s.Health.Status.Boots
	}
	return h
}

// Empty says whether nothing is remembered.
func (h *History) Empty() bool { return len(h.Incidents)+len(h.Records)+len(h.Boots) == 0 }

func incidentOf(r *v1alpha1.Remediation) Incident {
	in := Incident{
		Remediation: r.Name, Node: r.Spec.Node, Device: r.Spec.Root.Device, Fault: text.Clean(r.Spec.Root.Code),
		Began: r.Spec.Root.FirstSeen, Phase: r.Status.Phase, Reason: r.Status.Reason, Dropped: r.Status.TimelineDropped,
	}
	if in.Began.IsZero() {
		in.Began = r.CreationTimestamp
	}
	if in.Phase == "" {
		in.Phase = v1alpha1.PhasePending
	}
	if in.Phase.Over() {
		in.Ended = r.Status.Since
	}
	for _, a := range r.Status.Attempts {
		in.Attempts = append(in.Attempts, text.Clean(a.Rung)+" "+explain.Spell(string(a.Result)))
	}
	for _, e := range r.Status.Timeline {
		in.Timeline = append(in.Timeline, explain.Event{At: e.At, Phase: e.Phase, Reason: e.Reason, Message: text.Clean(e.Message)})
	}
	return in
}

func digestOf(rec *v1alpha1.DeviceRecord, d v1alpha1.DeviceIncident) Incident {
	in := Incident{
		Remediation: d.Remediation, Node: placeAt(rec, d.At.Time), Device: rec.Name, Fault: text.Clean(d.Code), Began: d.At,
		Ended: d.Ended, Phase: d.Outcome, Digest: true,
	}
	if d.RepairedBy != "" {
		in.Attempts = append(in.Attempts, text.Clean(d.RepairedBy)+" repaired")
	}
	if d.Relapses > 0 {
		in.Attempts = append(in.Attempts, text.Count(d.Relapses, "relapse", "relapses"))
	}
	return in
}

// placeAt is the node a device was on at a time.
func placeAt(rec *v1alpha1.DeviceRecord, at time.Time) string {
	node := ""
	for _, p := range rec.Status.Places {
		if node == "" || !p.From.After(at) {
			node = p.Node
		}
	}
	return node
}

func recordOf(rec *v1alpha1.DeviceRecord) Record {
	st := rec.Status
	out := Record{
		Name: rec.Name, Model: st.Identity.Model, Serial: st.Identity.Serial, Places: st.Places, Totals: st.Totals, RMA: rec.Spec.RMA.State,
	}
	if st.Suspicion != nil {
		out.Suspicion, out.Because = st.Suspicion.Level, st.Suspicion.Because
	}
	return out
}

// Shown says how much of an answer is shown as text.
type Shown struct {
	// NoHeaders leaves the table's header out.
	NoHeaders bool
	History   *History
}

// Render writes a table of the incidents, then what happened in the newest, or with wide in each.
func (v Shown) Render(p *text.Page, wide bool) {
	h := v.History
	if len(h.Incidents) == 0 {
		p.Line(text.Clean(h.Of) + ": no incident is remembered")
	} else {
		for _, l := range h.table(p, v.NoHeaders) {
			p.Line(l)
		}
	}
	shown := h.Incidents
	if !wide && len(shown) > 1 {
		shown = shown[:1]
	}
	for _, in := range shown {
		in.timeline(p, wide)
	}
	if len(h.Records) > 0 {
		p.Line("")
	}
	for _, rec := range h.Records {
		p.Section("Device", rec.lines(p)...)
	}
	if len(h.Boots) > 0 {
		p.Line("")
		p.Section("Boots", boots(p, h.Boots)...)
	}
	if !wide && len(h.Incidents) > 1 {
		p.Line("")
		p.Line("what happened in each: kubectl roundhouse history " + text.Clean(h.Of) + " -o wide")
	}
}

func (h *History) table(p *text.Page, noHeaders bool) []string {
	header := []string{"BEGAN", "LASTED", "NODE", "FAULT", "DEVICE", "PHASE", "TRIED", "REMEDIATION"}
	if noHeaders {
		header = nil
	}
	var rows [][]string
	for _, in := range h.Incidents {
		lasted := "open"
		if in.Ended != nil {
			lasted = text.Duration(in.Ended.Sub(in.Began.Time))
		}
		name := in.Remediation
		if in.Digest {
			name += " (from the device's record)"
		}
		rows = append(rows, []string{
			p.Clock.Minute(in.Began.Time), lasted, orDash(in.Node), in.Fault, orDash(text.Clean(in.Device)), orDash(string(in.Phase)),
			orDash(strings.Join(in.Attempts, ", ")), name,
		})
	}
	return text.Table(header, rows)
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func (in Incident) timeline(p *text.Page, wide bool) {
	if len(in.Timeline) == 0 {
		return
	}
	p.Line("")
	p.Line(in.Remediation + ":")
	if in.Dropped > 0 {
		p.Line(fmt.Sprintf("  (%d entries did not fit and are gone)", in.Dropped))
	}
	var rows [][]string
	before := ""
	for _, e := range in.Timeline {
		said := e.Message
		if said == "" {
			said = explain.Spell(e.Reason)
		}
		if said == before && !wide {
			continue // the same sentence under another reason
		}
		before = said
		said = p.Clock.Localize(said)
		row := []string{"  " + p.Clock.Time(e.At.Time), string(e.Phase), e.Reason, said}
		if !wide {
			row = []string{row[0], row[1], said}
		}
		rows = append(rows, row)
	}
	for _, l := range text.Table(nil, rows) {
		p.Line(l)
	}
}

func (rec Record) lines(p *text.Page) []string {
	about := []string{rec.Name}
	if rec.Model != "" {
		about = append(about, text.Clean(rec.Model))
	}
	if rec.Serial != "" {
		about = append(about, "serial "+text.Clean(rec.Serial))
	}
	t := rec.Totals
	sums := fmt.Sprintf("%s, %s, %s", text.Count(t.Incidents, "incident", "incidents"), text.Count(t.Repairs, "repair", "repairs"),
		text.Count(t.Relapses, "relapse", "relapses"))
	if t.OutHours != "" {
		sums += ", " + text.Clean(t.OutHours) + " hours out"
	}
	lines := []string{strings.Join(about, ", ") + ": " + sums}
	if rec.Suspicion != "" && rec.Suspicion != "None" {
		lines = append(lines, "suspicion "+rec.Suspicion+": "+text.Clean(strings.Join(rec.Because, "; ")))
	}
	if rec.RMA != "" && rec.RMA != v1alpha1.RMANone {
		lines = append(lines, "return: "+string(rec.RMA))
	}
	for _, place := range rec.Places {
		where := "on " + place.Node
		if place.Slot != "" {
			where += " slot " + text.Clean(place.Slot)
		}
		lines = append(lines, where+" "+p.Clock.Since(place.From.Time))
	}
	return lines
}

func boots(p *text.Page, boots []v1alpha1.Boot) []string {
	var rows [][]string
	for _, b := range slices.Backward(boots) {
		cause := "not asked for by Roundhouse"
		if b.Cause == v1alpha1.BootByRoundhouse {
			cause = strings.TrimSpace("asked for by Roundhouse " + text.Clean(b.Action))
		}
		rows = append(rows, []string{p.Clock.Minute(b.At.Time), p.Clock.Age(b.At.Time), text.Clean(b.ID), cause})
	}
	return text.Table(nil, rows)
}
