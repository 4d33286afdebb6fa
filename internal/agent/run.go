package agent

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/go-logr/logr"
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
			n.turned()
			n.sleep(ctx, beginRetry)
			continue
		}
		n.session(ctx)
	}
	n.awaitAct()
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
	if n.o.Holdings != nil {
		checks.Go(func() { n.holdersLoop(ctx) })
	}
	for ctx.Err() == nil {
		id, err := n.o.Machine.BootID(ctx)
		if err != nil || id != boot {
			return
		}
		n.stepping.Lock()
		next := n.sync(ctx)
		n.stepping.Unlock()
		n.turned()
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
