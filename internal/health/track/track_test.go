package track

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/health"
)

var t0 = time.Date(2026, 11, 26, 10, 0, 0, 0, time.UTC)

// step is one look: when, in seconds, and what it sees of "hot" on "gpu".
type step struct {
	at   int
	sees string // bad, good, blind
	want string // "open x2 since 0", "pending", or nothing
}

func run(t *testing.T, o Observation, steps []step) {
	t.Helper()
	o.ID, o.Code = "gpu", "Hot"
	var tracked []Tracked
	for _, s := range steps {
		var seen []Observation
		if s.sees == "bad" {
			seen = []Observation{o, o}
		}
		blind := func(string, string) bool { return s.sees == "blind" }
		was := opened(tracked)
		var changed bool
		tracked, changed, _ = Fold(tracked, seen, blind, t0.Add(time.Duration(s.at)*time.Second))
		var got []string
		for _, k := range tracked {
			state := "pending"
			if k.Open {
				state = fmt.Sprintf("open x%d since %.0f", k.Count, k.Since.Sub(t0).Seconds())
			}
			got = append(got, state)
		}
		if diff := cmp.Diff(s.want, strings.Join(got, ", ")); diff != "" {
			t.Errorf("at %d s, %s (-want +got):\n%s", s.at, s.sees, diff)
		}
		if changed != (was != opened(tracked)) {
			t.Errorf("at %d s: changed is %v, open went from %d to %d", s.at, changed, was, opened(tracked))
		}
	}
}

func opened(tracked []Tracked) (n int) {
	for _, k := range tracked {
		if k.Open {
			n++
		}
	}
	return n
}

func TestFold(t *testing.T) {
	tests := map[string]struct {
		o     Observation
		steps []step
	}{
		"without a time to settle the first look opens it": {
			Observation{Clear: 10 * time.Second},
			[]step{{0, "bad", "open x1 since 0"}, {30, "bad", "open x1 since 0"}},
		},
		"it opens when it has lasted, and what ends before is forgotten": {
			Observation{Settle: 60 * time.Second},
			[]step{
				{0, "bad", "pending"}, {30, "bad", "pending"}, {45, "good", ""},
				{60, "bad", "pending"}, {90, "bad", "pending"}, {120, "bad", "open x1 since 60"},
			},
		},
		"it opens when it was seen often enough in a row": {
			Observation{Looks: 3},
			[]step{
				{0, "bad", "pending"}, {30, "bad", "pending"}, {60, "good", ""},
				{90, "bad", "pending"}, {120, "bad", "pending"}, {150, "bad", "open x1 since 90"},
			},
		},
		"the same look seen again is not another look": {
			Observation{Looks: 2},
			[]step{{0, "bad", "pending"}, {0, "bad", "pending"}, {0, "bad", "pending"}, {30, "bad", "open x1 since 0"}},
		},
		"time and looks are both asked for": {
			Observation{Settle: 60 * time.Second, Looks: 2},
			[]step{{0, "bad", "pending"}, {30, "bad", "pending"}, {60, "bad", "open x1 since 0"}},
		},
		"what flaps is one fault, counted": {
			Observation{Clear: time.Minute},
			[]step{
				{0, "bad", "open x1 since 0"}, {30, "good", "open x1 since 0"}, {60, "bad", "open x2 since 0"},
				{90, "good", "open x2 since 0"}, {149, "good", "open x2 since 0"}, {150, "good", ""}, {180, "bad", "open x1 since 180"},
			},
		},
		"what cannot be looked at stays as it is": {
			Observation{Clear: time.Second},
			[]step{{0, "bad", "open x1 since 0"}, {30, "blind", "open x1 since 0"}, {3600, "blind", "open x1 since 0"}},
		},
		"what is counted adds up, but not the same look twice": {
			Observation{Clear: time.Hour, Times: 3},
			[]step{{0, "bad", "open x3 since 0"}, {0, "bad", "open x3 since 0"}, {30, "good", "open x3 since 0"}, {60, "bad", "open x6 since 0"}},
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) { run(t, tc.o, tc.steps) })
	}
}

func TestFoldSaysWhenToLookAgain(t *testing.T) {
	o := Observation{ID: "gpu", Code: "Hot", Settle: 20 * time.Second, Clear: 7 * time.Second}
	sees := func(string, string) bool { return false }
	tracked, _, next := Fold(nil, []Observation{o}, sees, t0)
	if next != 20*time.Second {
		t.Errorf("pending: next in %v", next)
	}
	tracked, _, next = Fold(tracked, []Observation{o}, sees, t0.Add(20*time.Second))
	if next != 0 {
		t.Errorf("open: next in %v", next)
	}
	if _, _, next = Fold(tracked, nil, sees, t0.Add(30*time.Second)); next != 7*time.Second {
		t.Errorf("clearing: next in %v", next)
	}
	o = Observation{ID: "gpu", Code: "Hot", Looks: 2}
	if _, _, next = Fold(nil, []Observation{o}, sees, t0); next != 0 {
		t.Errorf("what waits for a look waits for no time: next in %v", next)
	}
}

func TestFindings(t *testing.T) {
	o := Observation{
		ID: "gpu", Code: "Hot", PCI: "0000:18:00.0", Class: v1alpha1.ClassHost, Severity: v1alpha1.SeverityWarning,
		Recommended: v1alpha1.RecommendHuman, ClearedBy: health.ClearedByLook, Evidence: strings.Repeat("x", 1000),
	}
	pending := Observation{ID: "gpu", Code: "Later", Looks: 2}
	tracked, _, _ := Fold(nil, []Observation{o, pending}, func(string, string) bool { return false }, t0.Add(500*time.Millisecond))
	got := Findings("clocks", tracked)
	if len(got) != 1 {
		t.Fatalf("%d findings, want the open one", len(got))
	}
	f := got[0]
	if len(f.Fault.Evidence) != health.MaxEvidence || !f.Fault.FirstSeen.Time.Equal(t0) || !f.Fault.LastSeen.Time.Equal(t0) {
		t.Errorf("evidence of %d bytes, seen from %v to %v", len(f.Fault.Evidence), f.Fault.FirstSeen, f.Fault.LastSeen)
	}
	f.Fault.Evidence, f.Fault.FirstSeen, f.Fault.LastSeen = "", got[0].Fault.LastSeen, got[0].Fault.LastSeen
	want := health.Finding{
		PCI: "0000:18:00.0", ClearedBy: health.ClearedByLook,
		Fault: v1alpha1.Fault{
			Code: "Hot", Check: "clocks", Device: "gpu", Class: v1alpha1.ClassHost, Severity: v1alpha1.SeverityWarning,
			Recommended: v1alpha1.RecommendHuman, Root: true, Count: 1, FirstSeen: f.Fault.FirstSeen, LastSeen: f.Fault.LastSeen,
		},
	}
	if diff := cmp.Diff(want, f); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
