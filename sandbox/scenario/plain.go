package scenario

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

// PlainNarrator tells a scenario line by line: what is done, what incidents say, and each expectation as it is seen.
type PlainNarrator struct {
	page *Page
	said map[string]string // the last reason told, by incident
}

// NewPlainNarrator tells to w.
func NewPlainNarrator(w io.Writer) *PlainNarrator {
	return &PlainNarrator{page: NewPage(w, 20), said: map[string]string{}}
}

// Began tells what is played, and on which nodes.
func (n *PlainNarrator) Began(s *Scenario, words map[string]string, _ func(State) (int, string)) {
	n.page.Text(Bold, s.Name+": "+s.Title)
	var roles []string
	for _, role := range slices.Sorted(maps.Keys(words)) {
		roles = append(roles, role+" is "+words[role])
	}
	if len(roles) > 0 {
		n.page.Folded("Roles: " + strings.ReplaceAll(strings.Join(roles, "; "), ",", ", "))
	}
	if s.Compressed != "" {
		n.page.Folded("Compressed: " + s.Compressed + ". Decisions and evictions are in real time.")
	}
}

// Step tells what is done.
func (n *PlainNarrator) Step(at time.Duration, s *Step) {
	if text := s.describe(); text != "" {
		n.page.Line(at, "do", Bold, text)
	}
}

// describe says what a step does; nothing for one that waits.
func (s *Step) describe() string {
	switch {
	case s.Say != "":
		return s.Say
	case s.Workload != nil:
		return fmt.Sprintf("start %s %s/%s (%d)", s.Workload.Kind, s.Workload.Namespace, s.Workload.Name, max(1, s.Workload.Count))
	case len(s.Apply) > 0:
		return "apply " + named(s.Apply)
	case len(s.Delete) > 0:
		return "delete " + named(s.Delete)
	case s.Finish != nil:
		return "let the pods of " + s.Finish.Namespace + "/" + s.Finish.App + " finish their work"
	case s.Fault != nil:
		return "fault " + s.Fault.Kind + " on " + s.Fault.Node
	case s.Controller != "":
		return s.Controller + " the controller"
	case len(s.Roundhouse) > 0:
		return "kubectl roundhouse " + strings.Join(s.Roundhouse, " ")
	}
	return ""
}

func named(objects []Object) string {
	var names []string
	for _, o := range objects {
		meta, _ := o["metadata"].(map[string]any)
		names = append(names, fmt.Sprintf("%v %v", o["kind"], meta["name"]))
	}
	return strings.Join(names, ", ")
}

// Fact tells what incidents say, each reason once, and what the expectations do not.
func (n *PlainNarrator) Fact(f Fact) {
	if f.Kind != KindRemediation || f.Fields["phase"] == "" {
		return
	}
	key := f.Fields["phase"] + "/" + f.Fields["reason"]
	if n.said[f.Fields["name"]] == key {
		return
	}
	n.said[f.Fields["name"]] = key
	n.page.Line(f.At, f.Fields["phase"], Plain, f.Fields["node"]+" "+f.Fields["reason"]+": "+f.Fields["message"])
}

// Outcome tells whether an expectation was seen.
func (n *PlainNarrator) Outcome(o Outcome) {
	at := time.Duration(o.At * float64(time.Second))
	switch {
	case !o.Seen:
		n.page.Line(at, "NOT SEEN", Red, o.Name)
		n.page.More(Plain, o.Why)
	case o.Part == "never":
		n.page.Line(at, "never", Green, o.Name+" ("+o.Evidence+")")
	default:
		n.page.Line(at, "seen", Green, o.Name)
	}
}

// Ended tells the sum.
func (n *PlainNarrator) Ended(r *Report) {
	for _, t := range r.Nodes {
		n.page.Folded(fmt.Sprintf("%s: quarantined %s, drained %s, repaired %s, returned %s after the fault or the word to act; %d reboots, %d pods disturbed",
			t.Node, since(t.Quarantined), since(t.Drained), since(t.Repaired), since(t.Returned), t.Reboots, t.Disturbed))
	}
	style, word := Green, "passed"
	if !r.Passed {
		style, word = Red, "FAILED"
	}
	text := fmt.Sprintf("%s %s: %d of %d expectations seen in the API, %.1fs", r.Scenario, word, r.Seen, r.Expected, r.Seconds)
	if r.Error != "" {
		text += "; " + r.Error
	}
	n.page.Text(style, text)
	n.page.Text(Plain, "")
}

// since writes a time of the table; "-" where there is none.
func since(at *float64) string {
	if at == nil {
		return "-"
	}
	return fmt.Sprintf("%.2fs", *at)
}
