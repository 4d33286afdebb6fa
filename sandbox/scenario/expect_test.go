package scenario

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

func incident(phase v1alpha1.Phase, reason string) Change {
	return modified(&v1alpha1.Remediation{
		ObjectMeta: metav1.ObjectMeta{Name: "gpu-01-x"}, Spec: v1alpha1.RemediationSpec{Node: "gpu-01"},
		Status: v1alpha1.RemediationStatus{Phase: phase, Reason: reason},
	})
}

func seePhase(phase string) *Expect {
	return &Expect{Name: phase, Within: Duration(20 * time.Millisecond), See: &Pattern{Kind: KindRemediation, Where: map[string]string{"node": "gpu-01", "phase": phase}}}
}

func TestExpectationsAreMetInTheirOrder(t *testing.T) {
	tape, _ := newTestTape(nil)
	for _, c := range []Change{
		incident(v1alpha1.PhasePending, "A"), incident(v1alpha1.PhaseDraining, "B"), incident(v1alpha1.PhasePending, "C"), incident(v1alpha1.PhaseRepairing, "D"),
	} {
		tape.Record(c)
	}
	c := cursors{}
	var got []int
	for _, want := range []string{"Pending", "Pending", "Repairing"} {
		o, err := await(t.Context(), tape, seePhase(want), 0, c)
		if err != nil || !o.Seen {
			t.Fatalf("%s: %+v %v", want, o, err)
		}
		got = append(got, o.Fact.Seq)
	}
	if diff := cmp.Diff([]int{1, 3, 4}, got); diff != "" {
		t.Error(diff)
	}
	o, err := await(t.Context(), tape, seePhase("Draining"), 0, c)
	if err != nil || o.Seen {
		t.Errorf("Draining lies before what was seen already, and was seen: %+v %v", o, err)
	}
	if !strings.Contains(o.Why, "reason=D") {
		t.Errorf("the reason does not say what happened instead: %s", o.Why)
	}
}

func TestAnExpectationThatComesTooLateFails(t *testing.T) {
	tape, _ := newTestTape(nil)
	o, err := await(t.Context(), tape, seePhase("Draining"), 0, cursors{})
	if err != nil || o.Seen {
		t.Fatalf("seen before it happened: %+v %v", o, err)
	}
	tape.Record(incident(v1alpha1.PhaseDraining, "B"))
	if !strings.Contains(o.Why, "within 20ms") {
		t.Errorf("the reason does not say how long was waited: %s", o.Why)
	}
}

func TestAnExpectationWaitsForWhatIsToCome(t *testing.T) {
	tape, _ := newTestTape(nil)
	e := seePhase("Draining")
	e.Within = Duration(10 * time.Second)
	go tape.Record(incident(v1alpha1.PhaseDraining, "B"))
	if o, err := await(t.Context(), tape, e, 0, cursors{}); err != nil || !o.Seen {
		t.Fatalf("%+v %v", o, err)
	}
}

func TestNumbersOfFacts(t *testing.T) {
	for name, test := range map[string]struct {
		expect Expect
		facts  int
		seen   bool
	}{
		"one is enough without a number":     {facts: 3, seen: true},
		"none is too few without a number":   {},
		"three at least, two seen":           {expect: Expect{AtLeast: ptr.To(3)}, facts: 2},
		"three at least, three seen":         {expect: Expect{AtLeast: ptr.To(3)}, facts: 3, seen: true},
		"exactly two, two seen":              {expect: Expect{Exactly: ptr.To(2)}, facts: 2, seen: true},
		"exactly two, three seen":            {expect: Expect{Exactly: ptr.To(2)}, facts: 3},
		"exactly none, none seen":            {expect: Expect{Exactly: ptr.To(0)}, seen: true},
		"at most two, three seen":            {expect: Expect{AtMost: ptr.To(2)}, facts: 3},
		"at most two, none seen, is no more": {expect: Expect{AtMost: ptr.To(2)}, seen: true},
	} {
		t.Run(name, func(t *testing.T) {
			tape, _ := newTestTape(nil)
			for range test.facts {
				tape.Add(fact(KindReboot, "node", "gpu-01"))
			}
			e := test.expect
			e.See, e.Within = &Pattern{Kind: KindReboot}, Duration(10*time.Millisecond)
			o, err := await(t.Context(), tape, &e, 0, cursors{})
			if err != nil || o.Seen != test.seen {
				t.Errorf("seen %t, want %t: %+v %v", o.Seen, test.seen, o, err)
			}
		})
	}
}

func TestWhatMustNeverBeIsSeenOnlyWhileItIsWatchedFor(t *testing.T) {
	g := &guard{Expect: Expect{Name: "no second reboot", See: &Pattern{Kind: KindReboot}, AtMost: ptr.To(1)}}
	tape, clock := newTestTape(func(f Fact) { g.take(f) })
	reboot := func() { clock.forward(time.Second); tape.Add(fact(KindReboot, "node", "gpu-01")) }
	reboot() // not armed yet
	g.armed = true
	reboot() // allowed
	if o := g.outcome(tape.Since()); !o.Seen || o.Count != 1 {
		t.Fatalf("one is allowed: %+v", o)
	}
	reboot() // one too many
	reboot()
	o := g.outcome(tape.Since())
	if o.Seen || o.Count != 3 || o.At != 3 {
		t.Errorf("got %+v, want it not seen to hold at 3 s, with 3 counted", o)
	}
}

func TestATapeThatMissesFactsFailsEveryWait(t *testing.T) {
	tape, _ := newTestTape(nil)
	broken := errors.New("the watch of pods ended")
	tape.Fail(broken)
	if _, err := await(t.Context(), tape, seePhase("Draining"), 0, cursors{}); !errors.Is(err, broken) {
		t.Errorf("got %v, want %v", err, broken)
	}
}

func TestATapeIsBounded(t *testing.T) {
	tape, _ := newTestTape(nil)
	for range maxFacts + 1 {
		tape.Add(Fact{Kind: KindPublished})
	}
	if tape.Len() != maxFacts || tape.Err() == nil {
		t.Errorf("%d facts and error %v, want %d and an error", tape.Len(), tape.Err(), maxFacts)
	}
}

func TestUntilEndsWithItsContext(t *testing.T) {
	tape, _ := newTestTape(nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if done, err := tape.Until(ctx, func([]Fact, *World) bool { return false }); done || err != nil {
		t.Errorf("got %t %v", done, err)
	}
}
