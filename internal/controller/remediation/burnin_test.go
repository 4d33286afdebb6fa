package remediation

import (
	"context"
	"errors"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/decide"
	"github.com/roundhouse-dev/roundhouse/internal/remedy"
	"github.com/roundhouse-dev/roundhouse/internal/remedy/job"
)

// oven burns in as it is told, and remembers what for.
type oven struct {
	refusal          string
	startErr, endErr error
	now              job.Outcome
	begun, ended     []job.Run
	// words are the states that were written down when a Job was made, and started is what the last look was told.
	words   []v1alpha1.RemedyState
	started bool
	wordOf  func() v1alpha1.RemedyState
}

func (o *oven) Check(context.Context, job.Run) (string, error) { return o.refusal, nil }

func (o *oven) Start(_ context.Context, run job.Run) (job.Outcome, error) {
	o.begun, o.words = append(o.begun, run), append(o.words, o.wordOf())
	return o.now, o.startErr
}

func (o *oven) Look(ctx context.Context, run job.Run, started bool) (job.Outcome, error) {
	if o.started = started; !started {
		return o.Start(ctx, run)
	}
	return o.now, nil
}

func (o *oven) End(_ context.Context, run job.Run) error {
	o.ended = append(o.ended, run)
	return o.endErr
}

// baked is a cluster whose policy cycles the power of a faulty node and has it burn in after that.
func baked(t *testing.T) (*cluster, *oven) {
	c, p := powered(t)
	o := &oven{now: job.Outcome{Progress: remedy.Running("pod is Running"), Ran: true}}
	o.wordOf = func() v1alpha1.RemedyState { return c.incident().Status.Step.BurnIn.State }
	c.BurnIns = o
	c.policy(func(s *v1alpha1.RemediationPolicySpec) {
		s.Verify = &v1alpha1.Verify{Settle: &metav1.Duration{Duration: time.Second},
			BurnIn: &v1alpha1.BurnIn{PodTemplateRef: v1alpha1.LocalReference{Name: "diag"}}}
	})
	c.turns(3, 10*time.Second)
	p.now = remedy.Succeeded("the power is on")
	c.turns(1, 10*time.Second)
	h := c.health()
	h.Status.BootID = "another-boot"
	h.Status.Faults = nil
	for i := range h.Status.Devices {
		h.Status.Devices[i].Health = v1alpha1.DeviceHealthy
	}
	h.Status.CompletedRound = &v1alpha1.Round{BootID: h.Status.BootID, At: metav1.NewTime(c.clock.Now())}
	c.must(c.server.Status().Update(t.Context(), h))
	return c, o
}

func TestABurnInIsWrittenDownBeforeItIsMade(t *testing.T) {
	c, o := baked(t)
	c.turns(2, 10*time.Second)
	st := c.incident().Status
	if len(o.begun) != 1 || o.words[0] != v1alpha1.RemedyBegun || st.Reason != decide.ReasonBurningIn || st.Step.BurnIn.State != v1alpha1.RemedyRunning || !st.Step.BurnIn.Ran {
		t.Fatalf("begun %+v when the word was %v; %s/%s: %s", o.begun, o.words, st.Phase, st.Reason, st.Message)
	}
	if run := o.begun[0]; run.Template != "diag" || !run.OnNode || run.ID != st.Step.BurnIn.ID || run.Timeout != 30*time.Minute || run.Devices == nil {
		t.Errorf("%+v", run)
	}
	// A Job that runs out of time loses its pod: that it ran is remembered.
	o.now = job.Outcome{Progress: remedy.Failed("DeadlineExceeded"), Log: "no more to say"}
	c.turns(1, 10*time.Second)
	st = c.incident().Status
	if a := st.Attempts[0]; a.Result != v1alpha1.AttemptNotRepaired || a.BurnIn.Log != "no more to say" || a.BurnIn.Finished == nil || !a.BurnIn.Ran || len(o.ended) == 0 {
		t.Errorf("%+v; ended %v", a, o.ended)
	}
}

// A controller that dies after the word, or before it hears of the Job, leaves it to the next one to make it, by the same name.
func TestABurnInIsMadeOnce(t *testing.T) {
	c, o := baked(t)
	o.startErr = errors.New("the connection was lost")
	for range 3 {
		if _, err := c.turn(); err != nil {
			break
		}
		c.clock.SetTime(c.clock.Now().Add(10 * time.Second))
	}
	if len(o.begun) != 1 {
		t.Fatalf("begun %+v", o.begun)
	}
	remedies := c.Remedies
	c.restart()
	c.Remedies, c.BurnIns, o.startErr = remedies, o, nil
	c.turns(1, 10*time.Second)
	if len(o.begun) != 2 || o.begun[0].ID != o.begun[1].ID || o.started {
		t.Errorf("begun %+v; looked as if it had been: %v", o.begun, o.started)
	}
}

func TestABurnInEndsWithItsVerification(t *testing.T) {
	c, o := baked(t)
	c.turns(2, 10*time.Second)
	o.endErr = errors.New("try again")
	c.cancel()
	c.turn() //nolint:errcheck // that it fails is what is tested.
	if p := c.incident().Status.Phase; p != v1alpha1.PhaseVerifying || len(o.ended) == 0 {
		t.Errorf("it went on to %s before the Job was taken away; ended %d times", p, len(o.ended))
	}
	o.endErr = nil
	c.turns(2, 10*time.Second)
	if p := c.incident().Status.Phase; p != v1alpha1.PhaseCancelled {
		t.Error(p)
	}
}

func TestABurnInThatMayNotBeMadeIsTriedAgain(t *testing.T) {
	c, o := baked(t)
	o.refusal = "there is no PodTemplate diag"
	c.turns(3, 10*time.Second)
	st := c.incident().Status
	if len(o.begun) > 0 || st.Phase != v1alpha1.PhaseVerifying || st.Step.BurnIn.State != v1alpha1.RemedyRefused || st.Step.BurnIn.Finished != nil {
		t.Fatalf("begun %v; %s: %s; %+v", o.begun, st.Phase, st.Message, st.Step.BurnIn)
	}
	if c.count("status Remediation") == 0 {
		t.Fatal("no write of a Remediation is counted")
	}
	before := c.count("status Remediation")
	c.turns(3, 30*time.Second)
	if n := c.count("status Remediation"); n != before {
		t.Errorf("written %d times though nothing has changed", n-before)
	}
	o.refusal = ""
	c.turns(1, 30*time.Second)
	if len(o.begun) != 1 {
		t.Errorf("begun %v", o.begun)
	}
	// What was refused need not be there to be ended, nor need it be allowed to look.
	c, o = baked(t)
	o.refusal, o.endErr = "not allowed", errors.New("not allowed either")
	c.turns(2, 10*time.Second)
	c.cancel()
	c.turns(2, 10*time.Second)
	if p := c.incident().Status.Phase; p != v1alpha1.PhaseCancelled {
		t.Error(p)
	}
}
