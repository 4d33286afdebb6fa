package score

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/docpage"
	"github.com/roundhouse-dev/roundhouse/internal/health"
	"github.com/roundhouse-dev/roundhouse/internal/replay"
	"github.com/roundhouse-dev/roundhouse/internal/replay/corpus"
)

func run(t *testing.T, o corpus.Options, r replay.Options) *Score {
	t.Helper()
	c, err := corpus.New(o)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	s, err := Run(t.Context(), c, r, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s; took %s", strings.Join(s.Summary(), " "), time.Since(began).Truncate(time.Millisecond))
	return s
}

// clean fails the test for everything missed or false.
func clean(t *testing.T, s *Score) {
	t.Helper()
	for _, e := range s.Examples {
		t.Error(e)
	}
	if !s.Clean() {
		t.Errorf("seed %d: %d missed, %d false, %d lingering", s.Seed, s.Missed, s.FalseDisruptive, s.Lingering)
	}
	for i := range s.Rows {
		r := &s.Rows[i]
		switch {
		case r.Faults == 0:
			t.Errorf("seed %d has no %s", s.Seed, r.Kind)
		case r.Visible && r.Found != r.Faults:
			t.Errorf("seed %d: found %d of %d %s", s.Seed, r.Found, r.Faults, r.Kind)
		case r.Visible && r.Root != r.Faults:
			t.Errorf("seed %d: named %d of %d %s as the root", s.Seed, r.Root, r.Faults, r.Kind)
		}
		// A line is found at once, except where the agent starts anew, where a code has to come again, and where a need was
		// over when the agent came back, and came again.
		limit := map[string]time.Duration{"disputed-again": 6 * time.Minute, "recovery-flap": 20 * time.Minute}[r.Kind]
		if r.Max > max(limit, 62*time.Second) {
			t.Errorf("seed %d: %s found after %s", s.Seed, r.Kind, r.Max)
		}
	}
	for _, n := range s.Noise {
		if n.Disruptive > 0 {
			t.Errorf("seed %d: %d of %s taken for broken", s.Seed, n.Disruptive, n.Kind)
		}
	}
}

// TestFleetSizedCorpus is the project's promise: 288 node-days with 170,000 lines of applications and every kind of fault.
func TestFleetSizedCorpus(t *testing.T) {
	if testing.Short() {
		t.Skip("plays 288 node-days")
	}
	s := run(t, corpus.Options{Seed: corpus.DefaultSeed, Nodes: corpus.DefaultNodes, Days: corpus.DefaultDays}, replay.Options{})
	clean(t, s)
	if s.Counts.Application < 170000 {
		t.Errorf("%d application lines", s.Counts.Application)
	}
	for _, n := range s.Noise {
		if n.Episodes == 0 {
			t.Errorf("no %s", n.Kind)
		}
	}
	documented(t, s)
}

// documented holds the tables of the page to what was scored. With ROUNDHOUSE_UPDATE_DOCS set it rewrites them.
func documented(t *testing.T, s *Score) {
	t.Helper()
	var tables strings.Builder
	if err := s.WriteMarkdown(&tables); err != nil {
		t.Fatal(err)
	}
	docpage.Hold(t, "../../../docs/replay.md", docpage.Update+"=1 go test ./internal/replay/score", docpage.Part{Mark: "score", Text: tables.String()})
}

// small is a corpus of every kind of fault and thinner noise.
func small(seed uint64) corpus.Options {
	mix := corpus.DefaultMix()
	mix.Xid45PerNodeDay, mix.ChatterPerNodeDay = 150, 50
	return corpus.Options{Seed: seed, Nodes: 24, Days: 1, Mix: mix}
}

func TestAnySeed(t *testing.T) {
	random := rand.Uint64()
	t.Logf("the random seed is %d", random)
	for _, seed := range []uint64{0, 2, 3, 1 << 63, 20261123, random} {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			clean(t, run(t, small(seed), replay.Options{}))
		})
	}
}

// altered are the default checks, with every finding passed through a mistake.
func altered(mistake func(f *health.Finding) bool) replay.Options {
	return replay.Options{Checks: func(m *replay.Machine, now func() time.Time) []health.Check {
		checks := replay.DefaultChecks(m, now)
		return []health.Check{&mistaken{Check: checks[0], mistake: mistake}}
	}}
}

// mistaken drops the findings of which mistake says so, and may change the others.
type mistaken struct {
	health.Check
	mistake func(f *health.Finding) bool
}

func (m *mistaken) Look(ctx context.Context) health.Result {
	r := m.Check.Look(ctx)
	kept := r.Findings[:0]
	for _, f := range r.Findings {
		if !m.mistake(&f) {
			kept = append(kept, f)
		}
	}
	r.Findings = kept
	return r
}

// Wait is the kernel log's, so that the check is still woken by lines.
func (m *mistaken) Wait(ctx context.Context) error { return m.Check.(health.Waiter).Wait(ctx) }

// DeviceReset is the kernel log's too.
func (m *mistaken) DeviceReset(ctx context.Context, pci string) error {
	return m.Check.(health.Resetter).DeviceReset(ctx, pci)
}

func TestTheScoreShowsMistakes(t *testing.T) {
	disrupts := func(f *health.Finding) {
		f.Fault.Severity, f.Fault.Recommended, f.Fault.Class = v1alpha1.SeverityCritical, v1alpha1.RecommendReboot, v1alpha1.ClassHardware
	}
	tests := map[string]struct {
		mistake        func(f *health.Finding) bool
		false, missing bool
	}{
		"none": {func(*health.Finding) bool { return false }, false, false},
		"an application's clean-up is taken for a broken GPU": {func(f *health.Finding) bool {
			if f.Fault.Code == "Xid45" {
				disrupts(f)
			}
			return false
		}, true, false},
		"an unknown code is taken for a broken GPU": {func(f *health.Finding) bool {
			if f.Fault.Class == v1alpha1.ClassUnknown {
				disrupts(f)
			}
			return false
		}, true, false},
		"a GPU off the bus is not seen": {func(f *health.Finding) bool { return f.Fault.Code == "Xid79" }, false, true},
		"a GPU off the bus is seen, and nothing is asked for": {func(f *health.Finding) bool {
			if f.Fault.Code == "Xid79" {
				f.Fault.Recommended = v1alpha1.RecommendNone
			}
			return false
		}, false, true},
		"a row that was remapped is taken for a broken GPU": {func(f *health.Finding) bool {
			if f.Fault.Code == "Xid63" {
				disrupts(f)
			}
			return false
		}, true, false},
		"the wrong GPU is blamed": {func(f *health.Finding) bool {
			if f.PCI == "0000:18:00.0" {
				f.PCI = "0000:2a:00.0"
			}
			return false
		}, true, true},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			s := run(t, small(7), altered(tc.mistake))
			if got := s.FalseDisruptive > 0; got != tc.false {
				t.Errorf("%d false disruptive", s.FalseDisruptive)
			}
			if got := s.Missed > 0; got != tc.missing {
				t.Errorf("%d missed", s.Missed)
			}
			if s.Clean() == (tc.false || tc.missing) || len(s.Examples) == 0 == (tc.false || tc.missing) {
				t.Errorf("clean is %t, examples %q", s.Clean(), s.Examples)
			}
		})
	}
}

// TestTheScoreShowsWhatStandsAfterItsRepair plays the corpus to checks that are never told of a reset.
func TestTheScoreShowsWhatStandsAfterItsRepair(t *testing.T) {
	deaf := replay.Options{Checks: func(m *replay.Machine, now func() time.Time) []health.Check {
		return []health.Check{unresettable{replay.DefaultChecks(m, now)[0]}}
	}}
	s := run(t, small(7), deaf)
	if s.Lingering == 0 || s.Clean() || s.FalseDisruptive > 0 || s.Missed > 0 {
		t.Errorf("%d lingering, %d false, %d missed", s.Lingering, s.FalseDisruptive, s.Missed)
	}
}

// unresettable hides that the check is a health.Resetter.
type unresettable struct{ health.Check }

func (u unresettable) Wait(ctx context.Context) error { return u.Check.(health.Waiter).Wait(ctx) }

func TestQuantile(t *testing.T) {
	d := func(n ...time.Duration) []time.Duration { return n }
	tests := []struct {
		sorted []time.Duration
		share  float64
		want   time.Duration
	}{
		{nil, 0.5, 0}, {d(7), 0.5, 7}, {d(7), 1, 7}, {d(1, 2, 3), 0.5, 2}, {d(1, 2, 3, 4), 0.5, 2}, {d(1, 2, 3, 4), 0.99, 4}, {d(1, 2, 3, 4), 1, 4},
	}
	for _, tc := range tests {
		if got := quantile(tc.sorted, tc.share); got != tc.want {
			t.Errorf("%v of %v is %v, want %v", tc.share, tc.sorted, got, tc.want)
		}
	}
}

func TestTables(t *testing.T) {
	s := &Score{
		Seed: 7, Nodes: 2, Days: 1, Counts: corpus.Counts{Lines: 10, Application: 5, Forged: 1, Injected: 2, Lost: 3}, FalseDisruptive: 1, Missed: 1,
		Rows: []Row{
			{Kind: "off-bus", Class: "Hardware", Codes: []string{"Xid79"}, Disruptive: true, Visible: true, Faults: 3, Found: 2, Root: 1, False: 2, Median: 20 * time.Millisecond, P99: 2 * time.Second, Max: 90 * time.Second},
			{Kind: "silent", Class: "Hardware", Disruptive: true, Faults: 4},
			{Kind: "not there"},
		},
		Classes: []Row{{Class: "Hardware", Faults: 3, Found: 2, False: 2}},
		Noise:   []Noise{{Kind: "storm", Episodes: 3, Disruptive: 1}},
	}
	s.Totals.Disruptive = 5
	var table, page strings.Builder
	if err := s.WriteTable(&table); err != nil {
		t.Fatal(err)
	}
	if err := s.WriteMarkdown(&page); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"off-bus  Xid79  Hardware  reset or reboot  3       2      0.67      0.50       1           0          20 ms   2.0 s  1m30s",
		"silent   -      Hardware  reset or reboot  4       0      no lines  -",
		"storm  3         1",
		"Seed 7, 2 nodes over 1 day: 10 kernel lines, 5 of them of applications, 1 with a forged name, 2 written by processes; 3 overwritten.",
		"Found 2 of 3 faults that lines reveal (recall 0.667); 4 left no line that could be read.",
		"False disruptive recommendations: 1, of 5 disruptive incidents. Standing after the repair: 0.",
	} {
		if !strings.Contains(table.String(), want) {
			t.Errorf("no %q in\n%s", want, table.String())
		}
	}
	if want := "| off-bus | Xid79 | Hardware | reset or reboot | 3 | 2 | 0.67 | 0.50 | 1 | 0 | 20 ms | 2.0 s | 1m30s |\n"; !strings.Contains(page.String(), want) {
		t.Errorf("no %q in\n%s", want, page.String())
	}
	if strings.Contains(table.String(), "not there") {
		t.Error("a kind of which there was none is shown")
	}
}
