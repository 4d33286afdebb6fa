package scenario

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

// fakeCluster records what it is told and, when something breaks, plays changes onto the tape.
type fakeCluster struct {
	tape  *Tape
	plays []Change
	did   []string
	fails error
}

func (c *fakeCluster) AdminConfig() *rest.Config { return nil }

func (c *fakeCluster) Apply(_ context.Context, objects ...*unstructured.Unstructured) error {
	c.did = append(c.did, "apply "+objects[0].GetName())
	return c.fails
}

func (c *fakeCluster) Delete(_ context.Context, objects ...*unstructured.Unstructured) error {
	c.did = append(c.did, "delete "+objects[0].GetName())
	return nil
}

func (c *fakeCluster) StartWorkload(context.Context, Workload) error { return nil }
func (c *fakeCluster) EndWorkload(context.Context, Workload) error   { return nil }
func (c *fakeCluster) Finish(context.Context, PodRef) error          { return nil }

func (c *fakeCluster) DeviceOf(context.Context, string, PodRef) (int, string, error) {
	return 3, "gpu-3", nil
}

func (c *fakeCluster) Break(_ context.Context, node string, _ int, f Fault) error {
	c.did = append(c.did, f.Kind+" "+node)
	for _, change := range c.plays {
		c.tape.Record(change)
	}
	return nil
}

func (c *fakeCluster) KillController(context.Context) error {
	c.did = append(c.did, "kill")
	return nil
}
func (c *fakeCluster) StartController(context.Context) error { return nil }

func (c *fakeCluster) Roundhouse(_ context.Context, args ...string) (string, error) {
	c.did = append(c.did, strings.Join(args, " "))
	return "", nil
}

func (c *fakeCluster) FollowAlerts(func(name, node, state, message string)) func() {
	return func() {}
}

// perform runs a scenario, given as YAML, on a cluster of one node whose changes after a fault are plays.
func perform(t *testing.T, text string, plays ...Change) (*Report, *fakeCluster, error) {
	t.Helper()
	s, err := Parse("test.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	c := &fakeCluster{plays: plays}
	var told bytes.Buffer
	r := NewRunner(s, c, NewPlainNarrator(&told))
	r.record = func(_ context.Context, tape *Tape) (func(), error) {
		c.tape = tape
		tape.Record(initial(node()))
		return func() {}, nil
	}
	report, err := r.Run(t.Context())
	if report.Passed == strings.Contains(told.String(), "FAILED") {
		t.Errorf("passed %t, and the narrator says:\n%s", report.Passed, told.String())
	}
	return report, c, err
}

const played = `
name: played
title: A fault
timeout: 5s
roles: {broken: {labels: {}}}
steps:
- apply: [{apiVersion: v1, kind: ConfigMap, metadata: {name: "of-${broken}"}}]
- {id: break, fault: {kind: xid79, node: "${broken}", deviceOf: {namespace: ml, app: infer}}}
- expect: {name: it drains, see: {kind: remediation, node: "${broken}", phase: Draining}, within: 50ms}
- {id: late, expect: {name: it repairs, see: {kind: remediation, node: "${broken}", phase: Repairing}, within: 50ms}}
never:
- {name: no reboot, see: {kind: reboot}}
- {name: no second drain after the repair, see: {kind: remediation, phase: Draining}, from: late}
finally:
- {name: nothing is left, state: {kind: leftovers}, within: 10ms}
`

func seen(r *Report) []string {
	var out []string
	for _, o := range r.Expectations {
		mark := "- "
		if o.Seen {
			mark = "+ "
		}
		out = append(out, mark+o.Part+": "+o.Name)
	}
	return out
}

func TestRunnerPlaysItsSteps(t *testing.T) {
	report, c, err := perform(t, played, incident(v1alpha1.PhaseDraining, "A"), incident(v1alpha1.PhaseRepairing, "B"))
	if err != nil || !report.Passed {
		t.Fatalf("%+v %v", report, err)
	}
	want := []string{"+ step 3: it drains", "+ step 4: it repairs", "+ finally: nothing is left", "+ never: no reboot", "+ never: no second drain after the repair"}
	if diff := cmp.Diff(want, seen(report)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"apply of-gpu-01", "xid79 gpu-01", "delete of-gpu-01"}, c.did); diff != "" {
		t.Error(diff)
	}
	if report.Expectations[0].Source != "Remediation gpu-01-x@" {
		t.Errorf("the evidence is of %q", report.Expectations[0].Source)
	}
}

func TestRunnerEndsAtWhatIsNotSeen(t *testing.T) {
	report, c, err := perform(t, played, incident(v1alpha1.PhaseRepairing, "B"))
	if err != nil || report.Passed {
		t.Fatalf("%+v %v", report, err)
	}
	want := []string{"- step 3: it drains", "- step 4: it repairs", "- finally: nothing is left", "+ never: no reboot", "+ never: no second drain after the repair"}
	if diff := cmp.Diff(want, seen(report)); diff != "" {
		t.Error(diff)
	}
	if report.Expectations[1].Why != "not reached" || c.did[len(c.did)-1] != "delete of-gpu-01" {
		t.Errorf("reason %q, did %v", report.Expectations[1].Why, c.did)
	}
}

func TestRunnerSeesWhatMustNeverBeEvenIfAllElseWasSeen(t *testing.T) {
	booted := func(id string) func(*v1alpha1.NodeHealth) {
		return func(h *v1alpha1.NodeHealth) { h.Status.BootID = id }
	}
	report, _, err := perform(t, played, incident(v1alpha1.PhaseDraining, "A"), incident(v1alpha1.PhaseRepairing, "B"),
		modified(nodeHealth()), modified(nodeHealth(booted("boot-2"))))
	if err != nil || report.Passed {
		t.Fatalf("a reboot was not seen: %+v %v", report, err)
	}
	if diff := cmp.Diff("- never: no reboot", seen(report)[3]); diff != "" {
		t.Error(diff)
	}
}

func TestRunnerThatCannotPlaySaysSo(t *testing.T) {
	s, err := Parse("test.yaml", []byte(played))
	if err != nil {
		t.Fatal(err)
	}
	broken := errors.New("the server is gone")
	c := &fakeCluster{fails: broken}
	r := NewRunner(s, c, nil)
	r.record = func(_ context.Context, tape *Tape) (func(), error) {
		tape.Record(initial(node()))
		return func() {}, nil
	}
	report, err := r.Run(t.Context())
	if !errors.Is(err, broken) || report.Passed || !strings.Contains(report.Error, "step 1") {
		t.Errorf("got %v and %+v", err, report)
	}
}

func TestRunnerGivesNoRoleToANodeWithAnOpenIncident(t *testing.T) {
	s, err := Parse("test.yaml", []byte(played))
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		phase v1alpha1.Phase
		cast  bool
	}{
		"open": {phase: v1alpha1.PhaseEscalated},
		"over": {phase: v1alpha1.PhaseSucceeded, cast: true},
	} {
		t.Run(name, func(t *testing.T) {
			r := NewRunner(s, &fakeCluster{}, nil)
			r.report, r.words = &Report{}, words{}
			r.tape = NewTape(time.Now(), time.Now, nil)
			r.tape.Record(initial(node()))
			earlier := incident(test.phase, "A")
			earlier.Initial = true
			r.tape.Record(earlier)
			if err := r.cast(); (err == nil) != test.cast {
				t.Errorf("cast: %v, want one %t", err, test.cast)
			}
		})
	}
}
