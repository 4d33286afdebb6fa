package agent

import (
	"context"
	"testing"
	"time"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/health"
)

func TestHangingCheckIsUnknownAndNeverStartedTwice(t *testing.T) {
	b := newBench(t)
	b.check.finds(offTheBus)
	b.step(time.Minute)
	release := make(chan struct{})
	b.check.does(func(context.Context) health.Result { <-release; return health.Result{Outcome: health.Passing} })
	looks := b.check.looked()
	stop := make(chan struct{})
	go func() { // time passes while Step waits for the check
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
				b.clock.Step(time.Second)
			}
		}
	}()
	for range 4 {
		b.node.Wake()
		b.node.Step(t.Context())
	}
	close(stop)
	status := b.server.get().Status
	if got := b.check.looked() - looks; got != 1 {
		t.Errorf("a hanging check was started %d times", got)
	}
	if len(status.Checks) != 1 || status.Checks[0].Result != "Unknown" || status.Checks[0].Reason != health.ReasonTimedOut {
		t.Errorf("checks are %+v", status.Checks)
	}
	if len(status.Faults) != 1 {
		t.Errorf("what stood is gone: %+v", status.Faults)
	}
	b.check.does(nil)
	close(release)
	for range 1000 {
		if b.step(time.Second); len(b.server.get().Status.Checks) == 1 && b.server.get().Status.Checks[0].Result == "Failing" {
			return
		}
	}
	t.Errorf("the check did not come back: %+v", b.server.get().Status.Checks)
}

func TestPanickingCheckIsUnknown(t *testing.T) {
	b := newBench(t)
	b.check.does(func(context.Context) health.Result { panic("index out of range") })
	b.step(time.Minute)
	b.wantSummary(v1alpha1.SummaryUnknown)
	status := b.server.get().Status
	if len(status.Checks) != 1 || status.Checks[0].Reason != health.ReasonPanicked {
		t.Errorf("checks are %+v", status.Checks)
	}
	if status.CompletedRound != nil {
		t.Errorf("a round was completed by a check that could not look")
	}
}
