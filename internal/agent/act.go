package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/go-logr/logr"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/health"
	"github.com/roundhouse-dev/roundhouse/internal/machine"
	"github.com/roundhouse-dev/roundhouse/internal/remedy"
)

const (
	// actWindow is how old the live reads may be when the act begins. A process that was frozen for longer reads again.
	actWindow = 30 * time.Second
	// actRetry is how soon an action that waits is looked at again.
	actRetry = 2 * time.Second
	// stillUpAfter is how long an act may take, and how long after it was asked for a reboot is taken not to come.
	stillUpAfter = 10 * time.Minute
	// actGrace is how long an act may take to end when the agent is stopped. The kubelet kills it after ten seconds.
	actGrace = 8 * time.Second
	// tellTimeout bounds the telling of one check that a device was reset.
	tellTimeout = 10 * time.Second
	// maxActionMessage is the bound of status.action.message, in bytes.
	maxActionMessage = 512
)

// acting is what this process knows of actions. The journal knows the rest.
type acting struct {
	// inherited says that answer holds what was published before.
	inherited bool
	// answer is what is published as status.action.
	answer *v1alpha1.ActionStatus
	// begun is the id for which this process itself asked to write Started.
	begun string
	// running is the id whose executor is at work; ran is the last one whose executor came back, at ranAt.
	running, ran string
	ranAt        time.Time
	// quiet says that no check looks while running is at work: what it would see is the act.
	quiet bool
	// waitUntil is when an action that waits is looked at again.
	waitUntil time.Time
}

func isOpen(a *v1alpha1.ActionStatus) bool { return a != nil && a.State != v1alpha1.ActionDone }

// advance takes the action of the NodeHealth one step further, if there is one that is not over. It returns when to come
// back at the latest. Each step reads live and decides from scratch.
func (n *Node) advance(ctx context.Context) (time.Time, error) {
	n.mu.Lock()
	now := n.clock.Now()
	later := now.Add(idle)
	a, h := n.act, n.health
	n.mu.Unlock()
	if h == nil {
		// Deleted since this step began.
		return now, nil
	}
	want := h.Spec.Action
	switch {
	case a.running != "":
		return later, nil
	case isOpen(a.answer) && a.ran == a.answer.ID:
		return n.awaitBoot(ctx, a)
	case isOpen(a.answer) && (want == nil || want.ID != a.answer.ID):
		n.abandon(ctx, *a.answer)
		return now, nil
	case want == nil || a.answer != nil && a.answer.ID == want.ID && !isOpen(a.answer):
		return later, nil
	case now.Before(a.waitUntil):
		return a.waitUntil, nil
	}
	return n.consider(ctx, want.ID)
}

// consider decides on an action from what is read live, and does what comes of it.
func (n *Node) consider(ctx context.Context, id string) (time.Time, error) {
	if at, accepted, err := n.accept(ctx, id); err != nil || !accepted {
		return at, err
	}
	now := n.clock.Now()
	s, err := n.gather(ctx)
	if err != nil {
		return now, err
	}
	if s.live == nil || s.live.Spec.Action == nil || s.live.Spec.Action.ID != id {
		// Withdrawn or replaced while we looked.
		return now, nil
	}
	switch v := decide(s); v.step {
	case stepStart:
		return n.start(ctx, s)
	case stepWait:
		return n.hesitate(v), nil
	case stepEnd:
		n.end(ctx, s.action, v)
	}
	return now, nil
}

// accept publishes that the action was seen; it reports whether that is published.
func (n *Node) accept(ctx context.Context, id string) (time.Time, bool, error) {
	n.mu.Lock()
	if n.act.answer == nil || n.act.answer.ID != id {
		n.act.answer = &v1alpha1.ActionStatus{ID: id, State: v1alpha1.ActionAccepted}
	}
	n.mu.Unlock()
	at, err := n.publish(ctx)
	if err != nil {
		return at, false, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.health == nil {
		return n.clock.Now(), false, nil
	}
	published := n.health.Status.Action
	return at, published != nil && published.ID == id, nil
}

// gather reads everything that a decision needs, live. What cannot be read is part of the snapshot; only without the
// NodeHealth itself there is nothing to decide.
func (n *Node) gather(ctx context.Context) (snapshot, error) {
	s := snapshot{now: n.clock.Now(), limit: n.o.DailyLimit, supported: slices.Sorted(maps.Keys(n.o.Executors))}
	live, err := n.refresh(ctx)
	if err != nil {
		return s, err
	}
	if live == nil || live.Spec.Action == nil {
		return s, nil
	}
	s.live, s.action = live, *live.Spec.Action
	if s.bootID, err = n.o.Machine.BootID(ctx); err != nil {
		return s, fmt.Errorf("reading the boot before an action: %w", err)
	}
	readCtx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	if s.node, s.nodeErr = n.o.API.Node(readCtx); s.nodeErr == nil {
		n.knowNode(s.node)
	}
	s.holds, s.holdsErr = n.o.API.Holds(readCtx)
	n.reviveJournal(ctx)
	n.mu.Lock()
	defer n.mu.Unlock()
	s.journal, s.journalErr = n.journal.clone(), n.journalErr
	s.fence = n.fence
	if n.journal.FenceOf == string(live.UID) {
		s.fence = max(s.fence, n.journal.Fence)
	}
	s.begun = n.act.begun == s.action.ID
	return s, nil
}

// reviveJournal tries a journal that failed once more, so that a disk that was full for a minute does not keep the node
// from being repaired for ever.
func (n *Node) reviveJournal(ctx context.Context) {
	n.mu.Lock()
	failed, boot := n.journalErr != nil, n.boot
	n.mu.Unlock()
	if !failed {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	j, err := loadJournal(ctx, n.o.Machine)
	if err == nil {
		j.booted(boot.ID, boot.At.Time)
		err = j.save(ctx, n.o.Machine)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.journalErr = err
	if err == nil {
		n.journal = j
	}
}

// hesitate keeps an action as it is and says what it waits for.
func (n *Node) hesitate(v verdict) time.Time {
	n.mu.Lock()
	defer n.mu.Unlock()
	answer := *n.act.answer
	answer.Reason, answer.Message = v.reason, ""
	n.act.answer = &answer
	n.act.waitUntil = n.clock.Now().Add(actRetry)
	return n.act.waitUntil
}

// start journals the act on the host, writes Started over exactly the object that was decided on, and acts. Whatever
// fails on the way, the next step decides anew.
func (n *Node) start(ctx context.Context, s snapshot) (time.Time, error) {
	n.mu.Lock()
	j := n.journal.clone()
	j.open(s.action, s.now)
	j.Fence, j.FenceOf = s.live.Spec.Fence, string(s.live.UID)
	n.mu.Unlock()
	if err := n.saveJournal(ctx, j); err != nil {
		n.end(ctx, s.action, *refuse(v1alpha1.ActionReasonJournalUnavailable, "%v", err))
		return n.clock.Now(), nil
	}
	started := seconds(s.now)
	answer := &v1alpha1.ActionStatus{ID: s.action.ID, State: v1alpha1.ActionStarted, Started: &started}
	n.mu.Lock()
	n.journal = j
	if !s.mayHaveBegun() {
		n.act.begun = s.action.ID
	}
	status := n.statusLocked(n.clock.Now(), s.live.Status, answer)
	n.mu.Unlock()
	if err := n.put(ctx, s.live, status); err != nil {
		return n.clock.Now(), err
	}
	now := n.clock.Now()
	n.mu.Lock()
	n.act.answer = answer
	n.mu.Unlock()
	if now.Sub(s.now) > actWindow || !now.Before(s.action.NotAfter.Time) {
		return now, nil
	}
	n.mu.Lock()
	n.act.running, n.act.quiet = s.action.ID, s.action.Type == v1alpha1.ActionResetDevice
	n.mu.Unlock()
	logr.FromContextOrDiscard(ctx).Info("Acting", "node", n.o.Name, "action", s.action.ID, "type", s.action.Type)
	n.acts.Go(func() { n.execute(ctx, s.action) })
	return now.Add(idle), nil
}

// execute runs the executor and notes how it came back.
func (n *Node) execute(ctx context.Context, action v1alpha1.Action) {
	actCtx, cancel := context.WithTimeout(ctx, stillUpAfter)
	defer cancel()
	report, err := doContained(actCtx, n.o.Executors[action.Type], action)
	n.tellReset(context.WithoutCancel(ctx), report.Reset)
	n.mu.Lock()
	n.act.quiet = false
	n.mu.Unlock()
	if v, over := n.outcome(ctx, action, report, err); over {
		// What is done is written down, also when the agent is stopped just now.
		n.end(context.WithoutCancel(ctx), action, v)
	}
	n.mu.Lock()
	if n.act.running == action.ID {
		n.act.running, n.act.ran, n.act.ranAt = "", action.ID, n.clock.Now()
	}
	n.mu.Unlock()
	n.nudge()
}

// awaitAct waits for an act that is at work while the agent is stopped, for as long as there is before it is killed: a
// device that is off the bus for a moment should be back.
func (n *Node) awaitAct() {
	done := make(chan struct{})
	go func() {
		defer close(done)
		n.acts.Wait()
	}()
	timer := n.clock.NewTimer(actGrace)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C():
	}
}

// outcome says how an act ended; it is false for one whose end a new boot or the next process has to tell.
func (n *Node) outcome(ctx context.Context, action v1alpha1.Action, report remedy.Report, err error) (verdict, bool) {
	var refusal *remedy.Refusal
	switch {
	case err == nil && action.Type == v1alpha1.ActionReboot:
		return verdict{}, false
	case err == nil:
		return verdict{step: stepEnd, result: v1alpha1.ResultSucceeded, reason: remedy.ReasonDeviceReset, message: report.Message}, true
	case ctx.Err() != nil:
		// An agent that is stopped, as it is by the shutdown it asked for, cannot know what the error is worth.
		return verdict{}, false
	}
	// A machine that is down, which only a fake can be seen to be, has a new boot to come, which tells.
	id, bootErr := n.o.Machine.BootID(ctx)
	if errors.Is(bootErr, machine.ErrDown) || bootErr == nil && id != action.BootID {
		return verdict{}, false
	}
	if errors.As(err, &refusal) && len(report.Reset) == 0 {
		return *refuse(refusal.Reason, "%s", refusal.Message), true
	}
	return verdict{step: stepEnd, result: v1alpha1.ResultFailed, reason: v1alpha1.ActionReasonActFailed, message: err.Error()}, true
}

// tellReset tells the checks that devices were reset, before any of them looks again.
func (n *Node) tellReset(ctx context.Context, addresses []string) {
	n.mu.Lock()
	slots := slices.Clone(n.slots)
	n.mu.Unlock()
	for _, address := range addresses {
		for _, s := range slots {
			r, ok := s.check.(health.Resetter)
			if !ok {
				continue
			}
			if err := resetContained(ctx, r, address); err != nil {
				logr.FromContextOrDiscard(ctx).Error(err, "A check was not told of a reset",
					"node", n.o.Name, "check", s.check.Name(), "device", address)
			}
		}
	}
}

// resetContained tells one check, and turns a panic of it into an error.
func resetContained(ctx context.Context, r health.Resetter, address string) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the check itself broke: %v", p)
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, tellTimeout)
	defer cancel()
	return r.DeviceReset(ctx, address)
}

// doContained turns a panic of the executor into an error.
func doContained(ctx context.Context, e Executor, action v1alpha1.Action) (report remedy.Report, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the executor itself broke: %v", p)
		}
	}()
	return e.Do(ctx, action)
}

// awaitBoot waits for a reboot that was asked for; one that does not come has failed.
func (n *Node) awaitBoot(ctx context.Context, a acting) (time.Time, error) {
	over := a.ranAt.Add(stillUpAfter)
	now := n.clock.Now()
	if now.Before(over) {
		return earlier(over, now.Add(idle)), nil
	}
	n.end(ctx, v1alpha1.Action{ID: a.answer.ID, Type: v1alpha1.ActionReboot}, verdict{
		step: stepEnd, result: v1alpha1.ResultFailed, reason: v1alpha1.ActionReasonStillUp,
		message: fmt.Sprintf("asked for, and the node has not gone down within %s", stillUpAfter),
	})
	return now, nil
}

// abandon ends an action that is no longer asked for.
func (n *Node) abandon(ctx context.Context, answer v1alpha1.ActionStatus) {
	n.mu.Lock()
	e, journalled := n.journal.find(answer.ID)
	knows := n.act.begun == answer.ID
	n.mu.Unlock()
	v := *refuse(v1alpha1.ActionReasonWithdrawn, "no longer asked for, and not begun")
	switch {
	case journalled && e.Result != "":
		v = verdict{step: stepEnd, result: e.Result, reason: e.Reason, message: e.Message}
	case answer.State == v1alpha1.ActionStarted && !knows:
		v.result, v.reason = v1alpha1.ResultInterrupted, v1alpha1.ActionReasonAgentRestarted
		v.message = "begun before the agent restarted, and no longer asked for"
	}
	n.end(ctx, v1alpha1.Action{ID: answer.ID, Type: e.Type}, v)
}

// end ends an action: in the journal where it is there, and in what is published next.
func (n *Node) end(ctx context.Context, action v1alpha1.Action, v verdict) {
	finished := seconds(n.clock.Now())
	n.mu.Lock()
	answer := v1alpha1.ActionStatus{
		ID: action.ID, State: v1alpha1.ActionDone, Result: v.result, Reason: v.reason,
		Message: health.Bound(v.message, maxActionMessage), Finished: &finished,
	}
	e, journalled := n.journal.find(action.ID)
	if journalled {
		began := e.Began
		answer.Started = &began
		if e.Result != "" {
			answer.Finished = e.Finished
		}
		n.journal.finish(answer)
	}
	j := n.journal.clone()
	n.act.answer = &answer
	if journalled {
		// What stands after the act is a new round's to say.
		for _, s := range n.slots {
			s.due = n.clock.Now()
		}
	}
	n.mu.Unlock()
	n.o.Metrics.acted(action.Type, answer)
	logger := logr.FromContextOrDiscard(ctx).WithValues("node", n.o.Name, "action", action.ID)
	logger.Info("An action ended", "result", v.result, "reason", v.reason, "message", v.message)
	if journalled && e.Result == "" {
		if err := n.saveJournal(ctx, j); err != nil {
			// The journal still says that the act is open, which the next boot or a live read will end the same way.
			logger.Error(err, "The end of an action was not journalled")
		}
	}
}
