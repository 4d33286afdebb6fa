package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/go-logr/logr"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/health"
	"github.com/roundhouse-dev/roundhouse/internal/health/steady"
)

const (
	// lookGrace is how much longer than its deadline a look may take: a check that honours the deadline can then say
	// itself what it could not see.
	lookGrace = time.Second
	// lookGap is the least time between two looks that a check itself asks for: a storm of kernel lines is at most fifty
	// looks a second.
	lookGap = 20 * time.Millisecond
	// staleRounds is how many turns a check may miss before its last result is no longer believed.
	staleRounds = 3
	// pauseStep bounds one pause between two looks.
	pauseStep = 5 * time.Second
	// quietPause is how soon a check that must not look while a device is reset asks again.
	quietPause = time.Second
	// closeTimeout bounds the closing of all checks.
	closeTimeout = 5 * time.Second
	// reasonStale is the reason of a check that has not looked for a long time.
	reasonStale = "Stale"
	// reasonNotYet is the reason of a check that has not looked at all.
	reasonNotYet = "NotYetRun"
)

// errLookTimedOut ends a look that took too long.
var errLookTimedOut = errors.New("the check's time is up")

// slot is a check with its schedule and what is believed of it. Node.mu guards all but the first three fields.
type slot struct {
	check   health.Check
	every   time.Duration
	timeout time.Duration

	// busy is set while a look is out, and left when it was given up.
	busy   bool
	left   bool
	looked time.Time // end of the last look, or when it was given up; zero before the first
	due    time.Time
	since  time.Time // since when the outcome is what it is
	result health.Result
	steady steady.Findings
	// was is what was published of the check before this process; its since goes on.
	was *v1alpha1.CheckStatus
	// done is the round this check has completed.
	done roundKey
}

// roundKey names a round of checks: which boot it was in and which act it followed.
type roundKey struct{ boot, after string }

func newSlot(c Scheduled, now time.Time) *slot {
	s := &slot{check: c.Check, every: c.Every, timeout: c.Timeout, due: now, since: now}
	if s.every <= 0 {
		s.every = defaultEvery
	}
	if s.timeout <= 0 {
		s.timeout = defaultTimeout
	}
	s.result = health.Result{Outcome: health.Unknown, Reason: reasonNotYet}
	return s
}

func (n *Node) dueAt(s *slot) time.Time {
	n.mu.Lock()
	defer n.mu.Unlock()
	return s.due
}

// roundLocked is the present round.
func (n *Node) roundLocked() roundKey { return roundKey{boot: n.boot.ID, after: n.journal.lastDone()} }

// look looks once and takes the result. A look that does not come back in time is left behind and the check is Unknown;
// while it is out, the check is not started again. While a device is reset, none looks.
func (n *Node) look(ctx context.Context, s *slot) {
	n.mu.Lock()
	began := n.clock.Now()
	if n.act.quiet {
		s.due = began.Add(quietPause)
		n.mu.Unlock()
		return
	}
	if s.busy {
		n.giveUpLocked(s, began)
		n.mu.Unlock()
		return
	}
	s.busy = true
	round := n.roundLocked()
	n.mu.Unlock()

	ctx, cancel := context.WithCancelCause(ctx)
	done := make(chan health.Result, 1)
	go func() {
		defer cancel(nil)
		r := health.Contained(ctx, s.check)
		n.returned(s)
		done <- r
	}()
	deadline := n.clock.NewTimer(s.timeout)
	defer deadline.Stop()
	select {
	case r := <-done:
		n.take(s, r, round, began)
		return
	case <-deadline.C():
		cancel(errLookTimedOut)
	case <-ctx.Done():
	}
	grace := n.clock.NewTimer(lookGrace)
	defer grace.Stop()
	select {
	case r := <-done:
		n.take(s, r, round, began)
	case <-grace.C():
		n.mu.Lock()
		s.left = s.busy
		n.giveUpLocked(s, n.clock.Now())
		n.mu.Unlock()
		n.nudge()
		logr.FromContextOrDiscard(ctx).Info("A check did not come back and was left behind",
			"node", n.o.Name, "check", s.check.Name(), "timeout", s.timeout.String())
	}
}

// returned notes that a look has come back. When it had been given up, its result is too old to believe, and the check
// looks anew at once.
func (n *Node) returned(s *slot) {
	n.mu.Lock()
	late := s.left
	s.busy, s.left = false, false
	if late {
		s.due = n.clock.Now()
	}
	n.mu.Unlock()
	if late {
		n.nudge()
	}
}

// giveUpLocked makes the check Unknown and keeps what it last found: what is no longer seen is neither over nor worse.
func (n *Node) giveUpLocked(s *slot, now time.Time) {
	n.acceptLocked(s, health.Result{
		Outcome: health.Unknown, Reason: health.ReasonTimedOut,
		Message:  fmt.Sprintf("no answer within %s", s.timeout),
		Findings: s.result.Findings,
	}, now)
	n.o.Metrics.looked(s.check.Name(), s.result.Outcome, s.timeout)
}

// take takes a result that came back in time.
func (n *Node) take(s *slot, r health.Result, round roundKey, began time.Time) {
	n.mu.Lock()
	now := n.clock.Now()
	if r.Reason == health.ReasonPanicked {
		r.Findings = s.result.Findings
	} else {
		r.Findings = s.steady.Settle(r.Findings, now, n.o.ClearAfter)
	}
	if r.Outcome == health.Passing {
		r.Outcome = health.OutcomeOf(r.Findings)
	}
	n.acceptLocked(s, r, now)
	if r.Outcome != health.Unknown && round == n.roundLocked() {
		s.done = round
		n.completeLocked(round, now)
	}
	n.mu.Unlock()
	n.o.Metrics.looked(s.check.Name(), r.Outcome, now.Sub(began))
	n.nudge()
}

func (n *Node) acceptLocked(s *slot, r health.Result, now time.Time) {
	if r.Outcome != s.result.Outcome || s.looked.IsZero() {
		s.since = now
		if was := s.was; was != nil && was.Result == string(r.Outcome) {
			s.since = was.Since.Time
		}
		if !s.looked.IsZero() {
			s.was = nil
		}
	}
	if r.Devices == nil {
		r.Devices = s.result.Devices
	}
	s.result, s.looked = r, now
	s.due = now.Add(s.every)
	if r.Again > 0 {
		s.due = now.Add(max(r.Again, lookGap))
	}
}

// completeLocked completes the round when this was its last check. A check that could not look completes nothing.
func (n *Node) completeLocked(round roundKey, now time.Time) {
	for _, s := range n.slots {
		if s.done != round {
			return
		}
	}
	n.completed = &v1alpha1.Round{BootID: round.boot, AfterAction: round.after, At: seconds(now)}
}

// inherit takes over what was published of the check in this boot before this process.
func (s *slot) inherit(status v1alpha1.NodeHealthStatus, now time.Time) {
	mine := slices.DeleteFunc(slices.Clone(status.Faults), func(f v1alpha1.Fault) bool { return f.Check != s.check.Name() })
	s.result.Findings = s.steady.Seed(mine, status.Devices, now)
	if s.result.Outcome == health.Passing {
		s.result.Outcome = health.OutcomeOf(s.result.Findings)
	}
	for i := range status.Checks {
		if was := &status.Checks[i]; was.Name == s.check.Name() {
			s.was = was
			if !s.looked.IsZero() && was.Result == string(s.result.Outcome) {
				s.since = was.Since.Time
			}
		}
	}
}

// opinion is what is believed of a check now.
func (s *slot) opinion(now time.Time) opinion {
	o := opinion{name: s.check.Name(), result: s.result, since: s.since}
	if limit := staleRounds*s.every + s.timeout; !s.looked.IsZero() && now.Sub(s.looked) > limit {
		o.result.Outcome, o.result.Reason = health.Unknown, reasonStale
		o.result.Message = fmt.Sprintf("has not looked for more than %s", limit)
		o.since = s.looked
	}
	return o
}

// checkLoop looks whenever the check is due or asks for it, until the context ends.
func (n *Node) checkLoop(ctx context.Context, s *slot) {
	for ctx.Err() == nil {
		if left := n.dueAt(s).Sub(n.clock.Now()); left > 0 {
			n.pause(ctx, s, min(left, pauseStep))
			continue
		}
		n.look(ctx, s)
		n.sleep(ctx, lookGap)
	}
}

// pause waits for at most d, or until the check has something new. It is short, so that Wake and a look that comes back
// late are not waited out.
func (n *Node) pause(ctx context.Context, s *slot, d time.Duration) {
	n.mu.Lock()
	busy := s.busy
	n.mu.Unlock()
	waiter, ok := s.check.(health.Waiter)
	if !ok || busy {
		n.sleep(ctx, d)
		return
	}
	waitCtx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	if err := wait(waitCtx, waiter); err == nil {
		n.mu.Lock()
		s.due = n.clock.Now()
		n.mu.Unlock()
	} else if waitCtx.Err() == nil {
		// It cannot wait: back to the schedule.
		n.sleep(ctx, d)
	}
}

// wait contains a panic of the check.
func wait(ctx context.Context, w health.Waiter) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("waiting for %s: panic: %v", w.Name(), p)
		}
	}()
	return w.Wait(ctx)
}

// sleep waits on the node's clock, or until the context ends.
func (n *Node) sleep(ctx context.Context, d time.Duration) {
	timer := n.clock.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C():
	case <-ctx.Done():
	}
}

// closer is a check that holds something open, or has something left to save.
type closer interface {
	Close(ctx context.Context) error
}

// closeChecksLocked lets go of what the checks hold. It works on when the context has ended, which is when it is needed.
func (n *Node) closeChecksLocked(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	for _, s := range n.slots {
		c, ok := s.check.(closer)
		if !ok || s.busy {
			continue
		}
		if err := c.Close(ctx); err != nil {
			logr.FromContextOrDiscard(ctx).Error(err, "Closing a check", "node", n.o.Name, "check", s.check.Name())
		}
	}
}
