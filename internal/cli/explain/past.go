package explain

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/cli/text"
)

// history says what came before: this incident's repairs, the devices' records, the node's other incidents and boots.
func (s *Snapshot) history(r *v1alpha1.Remediation) []string {
	var out []string
	if r != nil {
		out = append(out, attempts(r)...)
		out = append(out, s.recordsOf(r)...)
	}
	if past := s.past(r); len(past) > 0 {
		var names []string
		for i := range past {
			p := &past[i]
			names = append(names, fmt.Sprintf("%s %s", text.Clean(p.Spec.Root.Code), p.Status.Phase))
		}
		out = append(out, "this node: "+text.Count(len(past), "other incident", "other incidents")+" ("+text.Bounded(names, 3)+"); kubectl roundhouse history "+s.Name)
	}
	if said := s.boots(); said != "" {
		out = append(out, said)
	}
	if limit := s.limit(r); limit != "" {
		out = append(out, limit)
	}
	if len(out) > maxHistory {
		out = append(out[:maxHistory], "more: kubectl roundhouse history "+s.Name)
	}
	return out
}

func attempts(r *v1alpha1.Remediation) []string {
	var tried []string
	for _, a := range r.Status.Attempts {
		tried = append(tried, fmt.Sprintf("%s %s", text.Clean(a.Rung), Spell(string(a.Result))))
	}
	if len(tried) == 0 {
		return nil
	}
	return []string{"this incident: " + strings.Join(tried, ", ")}
}

func (s *Snapshot) recordsOf(r *v1alpha1.Remediation) []string {
	var out []string
	for i := range s.Records {
		rec := &s.Records[i]
		id := rec.Status.Identity
		if !slices.ContainsFunc(r.Spec.Devices, func(d string) bool {
			return d == id.UUID || d == id.Serial || strings.EqualFold(d, rec.Name)
		}) {
			continue
		}
		t := rec.Status.Totals
		said := fmt.Sprintf("device %s: %s, %s, %s", rec.Name, text.Count(t.Incidents, "incident", "incidents"),
			text.Count(t.Repairs, "repair", "repairs"), text.Count(t.Relapses, "relapse", "relapses"))
		if t.OutHours != "" {
			said += ", " + text.Clean(t.OutHours) + " hours out"
		}
		if sus := rec.Status.Suspicion; sus != nil && sus.Level != "None" {
			said += "; " + sus.Level + ": " + text.Clean(strings.Join(sus.Because, "; "))
		}
		out = append(out, said)
	}
	return out
}

// boots counts the starts of the node that are still listed, and how many of them were ours.
func (s *Snapshot) boots() string {
	if s.Health == nil || len(s.Health.Status.Boots) == 0 {
		return ""
	}
	ours := 0
	for _, b := range s.Health.Status.Boots {
		if b.Cause == v1alpha1.BootByRoundhouse {
			ours++
		}
	}
	return fmt.Sprintf("boots: %d on record, %d of them asked for by Roundhouse", len(s.Health.Status.Boots), ours)
}

// limit says when repairing again and again ends, and how far it is from there.
func (s *Snapshot) limit(r *v1alpha1.Remediation) string {
	policy := s.policyOf(r)
	if r == nil || policy == nil || policy.Spec.Loop == nil || policy.Spec.Loop.MaxRepairs == nil || policy.Spec.Loop.Window == nil {
		return ""
	}
	loop := policy.Spec.Loop
	return fmt.Sprintf("limit: after %s in %s a human is asked instead; %d so far", text.Count(*loop.MaxRepairs, "repair", "repairs"),
		text.Duration(loop.Window.Duration), s.repairs(r, s.Now.Add(-loop.Window.Duration)))
}

// repairs counts the repairs of the incident's hardware, its own included. What was before a human let it try once more
// does not count.
func (s *Snapshot) repairs(r *v1alpha1.Remediation, since time.Time) int {
	restart := r.Status.Restart
	n := 0
	if restart == nil {
		n = s.PastRepairs(r, since)
	}
	for _, a := range r.Status.Attempts {
		if a.Result.Done() && (restart == nil || a.At.After(restart.At.Time)) {
			n++
		}
	}
	return n
}

// stopIt lists the commands with which a human takes over.
func (s *Snapshot) stopIt(r *v1alpha1.Remediation) []string {
	if r == nil || r.Status.Phase.Over() || s.Node == nil {
		return nil
	}
	out := []string{"kubectl roundhouse hold " + s.Name + ` --reason "..."`}
	if len(s.holds()) > 0 {
		out = []string{"held already"}
	}
	return append(out, "kubectl roundhouse release "+s.Name+"  (cancels it and takes off what was put on)")
}
