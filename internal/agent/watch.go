package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

const (
	// watchPatience is how long a watch may say nothing before it is opened anew. The API server sends a bookmark about
	// once a minute (k8s.io/apiserver, cacher: defaultBookmarkFrequency), so that a quiet watch is not a silent one; and
	// where it sends none, opening anew is a sign of life well within maxSilence.
	watchPatience = 80 * time.Second
	// watchGap is the least time between two watches.
	watchGap = time.Second
)

// errSilent ends a watch that says nothing.
var errSilent = errors.New("the watch said nothing for too long")

// watchLoop watches the NodeHealth until the context ends.
func (n *Node) watchLoop(ctx context.Context) {
	failures := 0
	for ctx.Err() == nil {
		err := n.watchOnce(ctx)
		if ctx.Err() != nil {
			return
		}
		pause := watchGap
		if err != nil && !errors.Is(err, errSilent) {
			logr.FromContextOrDiscard(ctx).Error(err, "The watch ended", "node", n.o.Name)
			pause = max(pause, backoff(failures, err))
			failures++
		} else {
			failures = 0
		}
		n.sleep(ctx, pause)
	}
}

// watchOnce opens one watch and takes what it says until it ends.
func (n *Node) watchOnce(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	// The answer to the request itself has a deadline too.
	opening := n.clock.NewTimer(requestTimeout)
	defer opening.Stop()
	opened := make(chan struct{})
	go func() {
		select {
		case <-opening.C():
			cancel(errSilent)
		case <-opened:
		}
	}()
	w, err := n.o.API.Watch(ctx)
	close(opened)
	if err != nil {
		return err
	}
	defer w.Stop()
	n.signOfLife()
	return n.follow(ctx, w)
}

// follow reads events until the watch ends or falls silent.
func (n *Node) follow(ctx context.Context, w watch.Interface) error {
	patience := n.clock.NewTimer(watchPatience)
	defer patience.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-patience.C():
			return errSilent
		case event, ok := <-w.ResultChan():
			if !ok {
				return nil
			}
			if err := n.event(event); err != nil {
				return err
			}
			if !patience.Stop() {
				select {
				case <-patience.C():
				default:
				}
			}
			patience.Reset(watchPatience)
		}
	}
}

// event takes one event.
func (n *Node) event(e watch.Event) error {
	switch e.Type {
	case watch.Error:
		return fmt.Errorf("watching NodeHealth %s: %w", n.o.Name, apierrors.FromObject(e.Object))
	case watch.Bookmark:
		n.signOfLife()
		return nil
	case watch.Added, watch.Modified, watch.Deleted:
	}
	h, ok := e.Object.(*v1alpha1.NodeHealth)
	if !ok {
		return fmt.Errorf("watching NodeHealth %s: got a %T", n.o.Name, e.Object)
	}
	if e.Type == watch.Deleted {
		h = nil
	}
	n.Observe(h)
	return nil
}

func (n *Node) signOfLife() {
	n.mu.Lock()
	n.seen = n.clock.Now()
	n.mu.Unlock()
}
