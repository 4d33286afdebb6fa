package scenario

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

// maxReported bounds the facts in a report; the earliest and the latest stay.
const maxReported = 4000

// Report is what became of a scenario.
type Report struct {
	Scenario string `json:"scenario"`
	Title    string `json:"title"`
	// Passed says that every expectation was seen, and that nothing of the record is missing.
	Passed bool `json:"passed"`
	// Error is why it could not be played to its end.
	Error string `json:"error,omitempty"`
	// Began is when, Seconds how long it took.
	Began   time.Time `json:"began"`
	Seconds float64   `json:"seconds"`
	// Compressed says which times are shorter than in life.
	Compressed string `json:"compressed,omitempty"`
	// Roles are the nodes it was played on.
	Roles map[string]string `json:"roles,omitempty"`
	// Seen of Expected expectations were seen.
	Seen         int       `json:"seen"`
	Expected     int       `json:"expected"`
	Expectations []Outcome `json:"expectations"`
	// Nodes is how it went with each node that had an incident; times are in seconds.
	Nodes []NodeTimes `json:"nodes,omitempty"`
	// Facts are the facts, FactsDropped how many of the middle are left out.
	Facts        []Fact `json:"facts"`
	FactsDropped int    `json:"factsDropped,omitempty"`
}

// NodeTimes is how it went with one node: how long after the fault each thing was first seen, and how often.
type NodeTimes struct {
	Node string `json:"node"`
	// Fault is when the first fault was injected, Acting when a policy was told to act on it where that was later, both
	// since the scenario began. The others count from the later of the two; a null was not seen.
	Fault       float64  `json:"fault"`
	Acting      float64  `json:"acting,omitempty"`
	Quarantined *float64 `json:"quarantined"`
	Drained     *float64 `json:"drained"`
	Repaired    *float64 `json:"repaired"`
	Returned    *float64 `json:"returned"`
	Reboots     int      `json:"reboots"`
	Disturbed   int      `json:"podsDisturbed"`
}

// times reads from the facts how it went with the nodes that faults were injected into, at the given times, and that had an
// incident. A policy that is changed while the fault is there makes the clock begin anew: before, nothing was to happen.
func times(facts []Fact, injected map[string]time.Duration) []NodeTimes {
	var out []NodeTimes
	for node, at := range injected {
		n := NodeTimes{Node: node, Fault: seconds(at)}
		incident := false
		for _, f := range facts {
			if f.Kind == KindPolicy && f.At > at && f.Fields["mode"] != string(v1alpha1.ModeObserve) && n.Quarantined == nil {
				at = f.At
				n.Acting = seconds(at)
			}
			if f.Fields["node"] == node {
				n.take(f, at)
				incident = incident || f.Kind == KindRemediation
			}
		}
		if incident {
			out = append(out, n)
		}
	}
	slices.SortFunc(out, func(a, b NodeTimes) int {
		if a.Fault != b.Fault {
			return int((a.Fault - b.Fault) * 1000)
		}
		if a.Node < b.Node {
			return -1
		}
		return 1
	})
	return out
}

func (n *NodeTimes) take(f Fact, injected time.Duration) {
	first := func(at **float64) {
		if *at == nil && f.At >= injected {
			v := seconds(f.At - injected)
			*at = &v
		}
	}
	switch f.Kind {
	case KindQuarantine:
		if f.Fields["state"] == stateOn {
			first(&n.Quarantined)
		}
	case KindEviction:
		n.Disturbed++
	case KindReboot:
		n.Reboots++
	case KindRemediation:
		switch f.Fields["phase"] {
		case "Repairing":
			first(&n.Drained)
		case "Probation":
			first(&n.Repaired)
		case "Succeeded":
			first(&n.Returned)
		}
	default: // the other kinds are not in the table.
	}
}

// sum counts the outcomes and cuts the facts to what a report holds.
func (r *Report) sum(facts []Fact) {
	r.Expected = len(r.Expectations)
	for _, o := range r.Expectations {
		if o.Seen {
			r.Seen++
		}
	}
	r.Passed = r.Seen == r.Expected && r.Error == ""
	if len(facts) > maxReported {
		r.FactsDropped = len(facts) - maxReported
		facts = append(slices.Clone(facts[:maxReported/2]), facts[len(facts)-maxReported/2:]...)
	}
	r.Facts = facts
}

// WriteReports writes reports as JSON, as a list.
func WriteReports(path string, reports []*Report) error {
	data, err := json.MarshalIndent(reports, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding the report: %w", err)
	}
	if err := os.WriteFile(path, append(data, '\n'), 0o644); err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	return nil
}
