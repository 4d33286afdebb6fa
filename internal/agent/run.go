package agent

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/go-logr/logr"
)

const (
	// maxSilence is how long the watch may be silent before the agent is not ready.
	maxSilence = 3 * time.Minute
	// maxPending is how long a publish may be stuck before the agent is not ready.
	maxPending = 30 * time.Second
)

// Run runs the agent until the context ends: a goroutine a check, one for the watch, and this one, which alone writes.
func (n *Node) Run(ctx context.Context) error {
	var watching sync.WaitGroup
	watching.Go(func() { n.watchLoop(ctx) })
	defer watching.Wait()
	for ctx.Err() == nil {
		n.stepping.Lock()
		err := n.begin(ctx)
		n.stepping.Unlock()
		if err != nil {
			logr.FromContextOrDiscard(ctx).Error(err, "The agent cannot begin", "node", n.o.Name)
			n.sleep(ctx, beginRetry)
			continue
		}
		n.session(ctx)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closeChecksLocked(ctx)
	return nil
}

// session runs one boot. It ends with the context, or when the machine is in another boot, which a process on a real
// machine does not live to see.
func (n *Node) session(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	var checks sync.WaitGroup
	defer checks.Wait()
	defer cancel()
	n.mu.Lock()
	boot, slots := n.boot.ID, slices.Clone(n.slots)
	n.mu.Unlock()
	for _, s := range slots {
		checks.Go(func() { n.checkLoop(ctx, s) })
	}
	for ctx.Err() == nil {
		id, err := n.o.Machine.BootID(ctx)
		if err != nil || id != boot {
			return
		}
		n.stepping.Lock()
		next := n.sync(ctx)
		n.stepping.Unlock()
		n.idleUntil(ctx, next)
	}
}

// idleUntil waits until the time, or until something happened.
func (n *Node) idleUntil(ctx context.Context, at time.Time) {
	timer := n.clock.NewTimer(max(at.Sub(n.clock.Now()), 0))
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C():
	case <-n.poke:
	}
}

// Ready returns nil, or why the agent's word should not be relied on: its watch has been silent, or what it wants to say
// does not get through.
func (n *Node) Ready() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	now := n.clock.Now()
	switch {
	case n.seen.IsZero():
		return fmt.Errorf("the API server has not answered yet")
	case now.Sub(n.seen) >= maxSilence:
		return fmt.Errorf("the watch has been silent since %s", n.seen.UTC().Format(time.RFC3339))
	case !n.pub.pending.IsZero() && now.Sub(n.pub.pending) >= maxPending:
		return fmt.Errorf("a publish has been stuck since %s", n.pub.pending.UTC().Format(time.RFC3339))
	}
	return nil
}

// Silence is how long the watch has been silent.
func (n *Node) Silence() time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.seen.IsZero() {
		return 0
	}
	return n.clock.Since(n.seen)
}
