package fleet

import (
	"context"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

const (
	// followPage is the size of a page of the first list.
	followPage = 500
	// followRetry is the pause after a watch has ended.
	followRetry = 500 * time.Millisecond
	// watchLife is when the API server ends a watch, in seconds.
	watchLife = 600
)

// follow watches every NodeHealth: it counts the nodes whose agent has published, and tells stepped agents what is asked
// of their nodes. It returns once the first list has been read.
func (f *Fleet) follow(ctx context.Context) error {
	version, err := f.list(ctx)
	if err != nil {
		return err
	}
	f.wg.Go(func() {
		for f.ctx.Err() == nil {
			err := f.watch(f.ctx, &version)
			if err == nil || f.ctx.Err() != nil {
				continue
			}
			f.o.Logger.Error(err, "The watch of NodeHealths ended")
			pause(f.ctx, followRetry)
			// The version may be too old to go on from.
			if version, err = f.list(f.ctx); err != nil && f.ctx.Err() == nil {
				f.o.Logger.Error(err, "Listing NodeHealths")
				pause(f.ctx, followRetry)
			}
		}
	})
	return nil
}

// list reads all of them, page by page.
func (f *Fleet) list(ctx context.Context) (version string, err error) {
	page := &v1alpha1.NodeHealthList{}
	for {
		next := page.Continue
		page = &v1alpha1.NodeHealthList{}
		if err := f.client.List(ctx, page, client.Limit(followPage), client.Continue(next)); err != nil {
			return "", fmt.Errorf("listing NodeHealths: %w", err)
		}
		for i := range page.Items {
			f.see(page.Items[i].Name, &page.Items[i])
		}
		if page.Continue == "" {
			return page.ResourceVersion, nil
		}
	}
}

// watch follows from a version on, and moves it forward.
func (f *Fleet) watch(ctx context.Context, version *string) error {
	seconds := int64(watchLife)
	w, err := f.client.Watch(ctx, &v1alpha1.NodeHealthList{}, &client.ListOptions{Raw: &metav1.ListOptions{
		ResourceVersion: *version, AllowWatchBookmarks: true, TimeoutSeconds: &seconds,
	}})
	if err != nil {
		return fmt.Errorf("watching NodeHealths: %w", err)
	}
	defer w.Stop()
	for event := range w.ResultChan() {
		h, ok := event.Object.(*v1alpha1.NodeHealth)
		if !ok {
			return fmt.Errorf("watching NodeHealths: got a %T", event.Object)
		}
		*version = h.ResourceVersion
		switch event.Type {
		case watch.Added, watch.Modified:
			f.see(h.Name, h)
		case watch.Deleted:
			f.see(h.Name, nil)
		case watch.Bookmark:
			f.signOfLife()
		case watch.Error:
		}
	}
	return nil
}

// see takes what the watch saw of one node. Where agents are no pods, an agent starts when there is something for it to
// write to: before that it could only ask, 30,000 times.
func (f *Fleet) see(name string, h *v1alpha1.NodeHealth) {
	n := f.byName[name]
	if n == nil {
		return
	}
	if h != nil {
		h.ManagedFields = nil // a third of it, and no agent reads them
	}
	n.mu.Lock()
	n.health = h
	first := h != nil && h.Status.BootID != "" && !n.reported
	if first {
		n.reported = true
	}
	start := h != nil && f.o.many() && n.agent == nil
	n.mu.Unlock()
	if first {
		f.reported.Add(1)
	}
	if start {
		if err := f.startAgent(n, n.itself(), ""); err != nil {
			f.o.Logger.Error(err, "An agent did not start", "node", name)
		}
		return
	}
	n.mu.Lock()
	agent := n.agent
	n.mu.Unlock()
	f.agents.observe(agent, h)
}

// signOfLife tells every stepped agent that its watch is alive.
func (f *Fleet) signOfLife() {
	if f.agents.queue == nil {
		return
	}
	for _, n := range f.nodes {
		n.mu.Lock()
		agent, h := n.agent, n.health
		n.mu.Unlock()
		if agent != nil && !agent.api.hung.Load() {
			agent.node.Observe(h)
		}
	}
}

// WaitReporting waits until the agents of all nodes have published their first word to NodeHealth, which the controller
// has to have created.
func (f *Fleet) WaitReporting(ctx context.Context) error {
	err := waitFor(ctx, func() (bool, error) {
		got := int(f.reported.Load())
		f.o.Progress("agents", got, f.o.Nodes)
		return got == f.o.Nodes, nil
	})
	if err != nil {
		return fmt.Errorf("waiting for the agents: %d of %d have reported: %w", f.reported.Load(), f.o.Nodes, err)
	}
	return nil
}

// pause waits, or less when ctx ends.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
