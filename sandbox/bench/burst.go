package bench

import (
	"context"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

// Burst is many faults at once, in seconds from the first one.
type Burst struct {
	// Concurrency is the bare client's.
	Concurrency int `json:"concurrency"`
	// Seconds and Bare are the times to the last quarantine, ours and the bare client's; Visible is the last fault's.
	Seconds float64 `json:"seconds"`
	Bare    float64 `json:"bareSeconds"`
	Visible float64 `json:"visibleSeconds"`
}

// idleFor is over how long something idle is looked at.
const idleFor = 20 * time.Second

// bareBurst has the bare client do the same least writes.
func (c *cluster) bareBurst(ctx context.Context, b *Burst) error {
	c.o.Progress(fmt.Sprintf("a bare client, %d at once", c.o.Faults))
	list, err := c.bares(ctx, c.o.Faults)
	if err != nil {
		return err
	}
	began := time.Now()
	err = each(ctx, len(list), func(ctx context.Context, i int) error {
		if err := list[i].report(ctx, c.client); err != nil {
			return err
		}
		return list[i].keepOut(ctx, c.client)
	})
	if err != nil {
		return err
	}
	names := make([]string, len(list))
	for i := range list {
		names[i] = list[i].name
	}
	last, err := c.rule.wait(ctx, names...)
	if err != nil {
		return err
	}
	b.Bare = last.Sub(began).Seconds()
	return c.removeBares(ctx, list)
}

// burst breaks a device of each of many nodes at once.
func (c *cluster) burst(ctx context.Context, r *Report) error {
	if err := c.policy(ctx, "repair", v1alpha1.ModeRemediate, metav1.LabelSelector{}); err != nil {
		return err
	}
	// Spread over the fleet, as faults are.
	o, names := c.s.Fleet().Options(), make([]string, c.o.Faults)
	for i := range names {
		names[i] = o.NodeName(i * (o.Nodes / c.o.Faults))
	}
	c.o.Progress("publishing slices, and handing out tokens")
	if err := c.s.Fleet().EnsureSlices(ctx, names...); err != nil {
		return err
	}
	if err := c.s.Fleet().EnsureTokens(ctx, names...); err != nil {
		return err
	}
	leader := c.s.Controllers()[0]
	if err := pause(ctx, idleFor/2); err != nil {
		return err
	}
	what := fmt.Sprintf("controller, idle, %d nodes of %d devices, %d pods", o.Nodes, o.GPUs, c.o.Pods)
	idle, err := usageOf(ctx, idleFor, target{what, leader.PID()})
	if err != nil {
		return err
	}
	c.o.Progress(fmt.Sprintf("%d faults at once", c.o.Faults))
	before, err := cpuTime(leader.PID())
	if err != nil {
		return err
	}
	began := time.Now()
	for _, name := range names {
		if _, err := c.inject(ctx, name); err != nil {
			return err
		}
	}
	last, err := c.fault.wait(ctx, names...)
	if err != nil {
		return err
	}
	r.Burst.Visible = last.Sub(began).Seconds()
	if last, err = c.rule.wait(ctx, names...); err != nil {
		return err
	}
	r.Burst.Seconds = last.Sub(began).Seconds()
	busy, err := usageSince(leader.PID(), before, time.Since(began))
	if err != nil {
		return err
	}
	busy.What = fmt.Sprintf("controller, %d faults at once", c.o.Faults)
	r.Usage = append(append(r.Usage, idle...), busy)
	return nil
}
