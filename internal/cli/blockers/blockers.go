// Package blockers answers "blockers": which pods keep drains from going on, why, and what happens when. It is pure.
package blockers

import (
	"cmp"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/cli/explain"
	"github.com/roundhouse-dev/roundhouse/internal/cli/text"
)

// Blocker is a pod in the way of one incident.
type Blocker struct {
	Node        string         `json:"node"`
	Remediation string         `json:"remediation"`
	Phase       v1alpha1.Phase `json:"phase"`
	Pod         string         `json:"pod"`
	Reason      string         `json:"reason"`
	Message     string         `json:"message"`
	// Deadline is when the drain gives up and asks a human; a human that has been asked has none.
	Deadline *metav1.Time `json:"deadline,omitempty"`
	// By is what the drain has come to, and WouldChange what would change it.
	By          v1alpha1.DrainBy `json:"by,omitempty"`
	WouldChange string           `json:"wouldChange,omitempty"`
}

// List is the answer.
type List struct {
	APIVersion string      `json:"apiVersion"`
	Kind       string      `json:"kind"`
	At         metav1.Time `json:"at"`
	Blockers   []Blocker   `json:"blockers"`
}

// Tell lists what blocks the incidents; of these nodes only, where any are named.
func Tell(now time.Time, remediations []v1alpha1.Remediation, nodes []string) List {
	l := List{APIVersion: explain.Version, Kind: "Blockers", At: metav1.NewTime(now), Blockers: []Blocker{}}
	for i := range remediations {
		r := &remediations[i]
		if r.Status.Drain == nil || !waits(r.Status.Phase) || (len(nodes) > 0 && !slices.Contains(nodes, r.Spec.Node)) {
			continue
		}
		for _, b := range r.Status.Drain.Blockers {
			l.Blockers = append(l.Blockers, Blocker{Node: r.Spec.Node, Remediation: r.Name, Phase: r.Status.Phase, Pod: b.Pod,
				Reason: b.Reason, Message: b.Message, Deadline: deadline(r), By: r.Status.Drain.By, WouldChange: r.Status.WouldChange})
		}
	}
	slices.SortFunc(l.Blockers, func(a, b Blocker) int {
		return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.Remediation, b.Remediation), cmp.Compare(a.Pod, b.Pod))
	})
	return l
}

// waits says whether an incident in this phase may be waiting for pods: what a status says of its drain outlives the drain.
func waits(p v1alpha1.Phase) bool {
	return p == v1alpha1.PhasePending || p == v1alpha1.PhaseDraining || p == v1alpha1.PhaseEscalated
}

func deadline(r *v1alpha1.Remediation) *metav1.Time {
	if r.Status.Phase == v1alpha1.PhaseEscalated {
		return nil
	}
	return r.Status.Deadline
}

// Shown is a List with how it is to be shown.
type Shown struct {
	List      `json:",inline"`
	NoHeaders bool `json:"-"`
}

// Render writes the answer for people.
func (s Shown) Render(p *text.Page, wide bool) {
	if len(s.Blockers) == 0 {
		p.Line("No pod keeps a drain from going on.")
		return
	}
	header := []string{"NODE", "POD", "REASON", "HUMAN ASKED", "WHY"}
	if wide {
		header = []string{"NODE", "POD", "REASON", "HUMAN ASKED", "PHASE", "REMEDIATION", "WHY", "CHANGES"}
	}
	if s.NoHeaders {
		header = nil
	}
	var rows [][]string
	for _, b := range s.Blockers {
		asked := "-"
		switch {
		case b.Phase == v1alpha1.PhaseEscalated:
			asked = "already"
		case b.Deadline != nil:
			asked = p.Clock.Until(b.Deadline.Time)
		}
		row := []string{b.Node, b.Pod, b.Reason, asked}
		if wide {
			row = append(row, string(b.Phase), b.Remediation)
		}
		if row = append(row, text.Clean(b.Message)); wide {
			row = append(row, text.Clean(b.WouldChange))
		}
		rows = append(rows, row)
	}
	for _, line := range text.Table(header, rows) {
		p.Line(line)
	}
}
