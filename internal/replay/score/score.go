// Package score says how much of what is true of a corpus a replay found, how soon, and what it took for broken that was
// not.
package score

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/roundhouse-dev/roundhouse/internal/replay"
	"github.com/roundhouse-dev/roundhouse/internal/replay/corpus"
)

const (
	// early is how much before the first line's time something may be found: times are rounded.
	early = time.Second
	// late is how long after the end of a fault something said of it is still of it, and may still stand: the agent may just
	// be starting anew.
	late = 2 * time.Minute
	// maxExamples bounds what is listed of the false and the missed.
	maxExamples = 20
)

// Row is what was found of one kind of fault.
type Row struct {
	Kind string `json:"kind"`
	// Class and Codes are those that should be named.
	Class string   `json:"class"`
	Codes []string `json:"codes"`
	// Disruptive says that it takes a reset or a reboot, and Visible that lines reveal it.
	Disruptive bool `json:"disruptive"`
	Visible    bool `json:"visible"`
	// Faults there were; Found of them were found, Root of those as the root of their incident, and Lingering of those that
	// ask for a repair stood on when it was done.
	Faults    int `json:"faults"`
	Found     int `json:"found"`
	Root      int `json:"root"`
	Lingering int `json:"lingering"`
	// False are disruptive incidents without such a fault, by the code of their root.
	False int `json:"false"`
	// Median, P99 and Max are how long after the first line that tells of it it was found.
	Median time.Duration `json:"medianNs"`
	P99    time.Duration `json:"p99Ns"`
	Max    time.Duration `json:"maxNs"`

	delays []time.Duration
}

// Recall is the share of the faults that was found; 1 where there was none.
func (r *Row) Recall() float64 { return share(r.Found, r.Faults) }

// Precision is the share of what was said that was true; 1 where nothing was said.
func (r *Row) Precision() float64 { return share(r.Found, r.Found+r.False) }

func share(n, of int) float64 {
	if of == 0 {
		return 1
	}
	return float64(n) / float64(of)
}

// Noise is what was said of one kind of noise.
type Noise struct {
	Kind string `json:"kind"`
	// Episodes there were of it, on one node each.
	Episodes int `json:"episodes"`
	// Disruptive incidents were false, and began on a device, or a node, on which such an episode was going on.
	Disruptive int `json:"disruptive"`
}

// Score is the whole of it.
type Score struct {
	Seed  uint64 `json:"seed"`
	Nodes int    `json:"nodes"`
	Days  int    `json:"days"`
	// Lines are of the corpus; Counts.Application are those of its noise.
	Counts corpus.Counts `json:"counts"`
	Totals replay.Totals `json:"totals"`
	Rows   []Row         `json:"rows"`
	// Classes are the same by class of fault; their Kind is empty.
	Classes []Row   `json:"classes"`
	Noise   []Noise `json:"noise"`
	// FalseDisruptive are disruptive incidents on devices that no fault asks it for; zero is the aim.
	FalseDisruptive int `json:"falseDisruptive"`
	// Missed are visible faults that were not found; zero is the aim.
	Missed int `json:"missed"`
	// Lingering are faults that stood on when they were repaired; zero is the aim.
	Lingering int `json:"lingering"`
	// Examples are the first of them.
	Examples []string `json:"examples,omitempty"`
}

// Clean says that nothing visible was missed, nothing false was disruptive, and nothing stood on when it was repaired.
func (s *Score) Clean() bool { return s.FalseDisruptive == 0 && s.Missed == 0 && s.Lingering == 0 }

// Run plays a corpus and scores it. each, where it is not nil, is called with the result of each node.
func Run(ctx context.Context, c *corpus.Corpus, o replay.Options, each func(node string, r *replay.Result)) (*Score, error) {
	s := newScore()
	s.Seed, s.Nodes, s.Days = c.Seed(), c.Nodes(), c.Days()
	for i := range c.Nodes() {
		n := c.Node(i)
		r, err := replay.Run(ctx, n, o)
		if err != nil {
			return nil, fmt.Errorf("playing %s: %w", n.Name, err)
		}
		if each != nil {
			each(n.Name, &r)
		}
		s.add(n, &r)
	}
	s.finish()
	return s, nil
}

func newScore() *Score {
	s := &Score{}
	for _, k := range corpus.Kinds() {
		s.Rows = append(s.Rows, Row{Kind: k})
	}
	for _, k := range corpus.Noises() {
		s.Noise = append(s.Noise, Noise{Kind: k})
	}
	return s
}

// said is a fault as it was said, with the incident it belongs to.
type said struct {
	*replay.Fault
	root *replay.Fault
	// true says that a label explains that it is disruptive.
	true bool
}

// add scores one node.
func (s *Score) add(n *corpus.Node, r *replay.Result) {
	s.Counts.Add(n.Counts())
	t := &s.Totals
	t.Recordings++
	t.LinesRead += r.Lines
	t.Lines += r.Lines
	t.Matched += r.Matched
	t.Refused += r.Refused
	t.Lost += r.Lost
	t.Incidents += len(r.Incidents)
	var all []said
	for i := range r.Incidents {
		in := &r.Incidents[i]
		if in.Disruptive {
			t.Disruptive++
		}
		all = append(all, said{Fault: &in.Root, root: &in.Root})
		for j := range in.Consequences {
			all = append(all, said{Fault: &in.Consequences[j], root: &in.Root})
		}
	}
	labels := n.Labels()
	for i := range labels {
		s.label(&labels[i], all)
	}
	s.falseOnes(n.Name, labels, all)
}

// label looks for one truth among what was said.
func (s *Score) label(l *corpus.Label, all []said) {
	if !l.Fault {
		if at := slices.IndexFunc(s.Noise, func(n Noise) bool { return n.Kind == l.Kind }); at >= 0 {
			s.Noise[at].Episodes++
		}
		return
	}
	row, class := s.row(l.Kind), s.class(string(l.Class))
	row.Class, row.Disruptive, row.Visible = string(l.Class), l.Disruptive, l.Visible
	if l.Code != "" && !slices.Contains(row.Codes, l.Code) {
		row.Codes = append(row.Codes, l.Code)
	}
	row.Faults++
	class.Faults += number(l.Visible)
	var found *said
	var at time.Time
	for i := range all {
		f := &all[i]
		if l.Disruptive && f.Disruptive && of(l, f.Fault) && within(l, f.DisruptiveFrom) {
			f.true = true
			s.ended(l, row, f.Fault)
		}
		when, ok := tells(l, f.Fault)
		if ok && (found == nil || when.Before(at)) {
			found, at = f, when
		}
	}
	if found == nil {
		if l.Visible {
			s.Missed++
			s.example("missed: %s of %s %s, %s from %s", l.Kind, l.Node, l.Device, l.Code, l.From.Format(time.RFC3339))
		}
		return
	}
	for _, r := range []*Row{row, class} {
		r.Found++
		r.delays = append(r.delays, max(at.Sub(l.From), 0))
		r.Root += number(found.root.Code == l.Code)
	}
}

// ended sees to it that a fault which was repaired is no longer said.
func (s *Score) ended(l *corpus.Label, row *Row, f *replay.Fault) {
	if f.PCI == l.Device && (f.Cleared.IsZero() || f.Cleared.After(l.Until.Add(late))) {
		row.Lingering++
		s.Lingering++
		s.example("lingering: %s of %s %s stands after %s", f.Code, l.Node, l.Device, l.Until.Format(time.RFC3339))
	}
}

// class is the row of a class of faults.
func (s *Score) class(name string) *Row {
	at := slices.IndexFunc(s.Classes, func(r Row) bool { return r.Class == name })
	if at < 0 {
		at = len(s.Classes)
		s.Classes = append(s.Classes, Row{Class: name, Visible: true})
	}
	return &s.Classes[at]
}

func number(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (s *Score) row(kind string) *Row {
	at := slices.IndexFunc(s.Rows, func(r Row) bool { return r.Kind == kind })
	if at < 0 {
		at = len(s.Rows)
		s.Rows = append(s.Rows, Row{Kind: kind})
	}
	return &s.Rows[at]
}

// tells says since when a fault that was said tells what the label does: its code on its device, and disruptive where that
// is what it takes.
func tells(l *corpus.Label, f *replay.Fault) (time.Time, bool) {
	if f.Code != l.Code || f.PCI != l.Device {
		return time.Time{}, false
	}
	if !l.Disruptive {
		return f.Found, within(l, f.Found)
	}
	return f.DisruptiveFrom, f.Disruptive && within(l, f.DisruptiveFrom)
}

// of says whether a fault is on the label's device, or on one that tells of the same.
func of(l *corpus.Label, f *replay.Fault) bool {
	return f.PCI == l.Device || f.PCI != "" && slices.Contains(l.Related, f.PCI)
}

func within(l *corpus.Label, at time.Time) bool {
	return !at.Before(l.From.Add(-early)) && !at.After(l.Until.Add(late))
}

// falseOnes counts the incidents that are disruptive without a label that explains it.
func (s *Score) falseOnes(node string, labels []corpus.Label, all []said) {
	blamed := map[*replay.Fault]bool{}
	for i := range all {
		f := &all[i]
		if !f.Disruptive || f.true || blamed[f.root] {
			continue
		}
		blamed[f.root] = true
		s.FalseDisruptive++
		s.class(string(f.Class)).False++
		s.example("false: %s on %s %s recommends %s since %s: %s", f.Code, node, f.PCI, f.Recommended,
			f.DisruptiveFrom.Format(time.RFC3339), f.Evidence)
		for r := range s.Rows {
			if slices.Contains(s.Rows[r].Codes, f.root.Code) {
				s.Rows[r].False++
				break
			}
		}
		for _, l := range labels {
			if !l.Fault && (l.Device == f.PCI || l.Device == "") && !f.DisruptiveFrom.Before(l.From.Add(-early)) &&
				!f.DisruptiveFrom.After(l.Until.Add(late)) {
				s.Noise[slices.IndexFunc(s.Noise, func(n Noise) bool { return n.Kind == l.Kind })].Disruptive++
			}
		}
	}
}

func (s *Score) example(format string, args ...any) {
	if len(s.Examples) < maxExamples {
		s.Examples = append(s.Examples, fmt.Sprintf(format, args...))
	}
}

// finish works out the delays.
func (s *Score) finish() {
	slices.SortFunc(s.Classes, func(a, b Row) int { return cmp.Compare(a.Class, b.Class) })
	rows := make([]*Row, 0, len(s.Rows)+len(s.Classes))
	for i := range s.Rows {
		rows = append(rows, &s.Rows[i])
	}
	for i := range s.Classes {
		rows = append(rows, &s.Classes[i])
	}
	for _, r := range rows {
		slices.Sort(r.delays)
		slices.SortFunc(r.Codes, func(a, b string) int { return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b)) })
		r.Median, r.P99, r.Max = quantile(r.delays, 0.5), quantile(r.delays, 0.99), quantile(r.delays, 1)
	}
}

// quantile is the smallest delay that the share of all does not exceed.
func quantile(sorted []time.Duration, share float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	i := int(share*float64(len(sorted))+0.999999) - 1
	return sorted[min(max(i, 0), len(sorted)-1)]
}
