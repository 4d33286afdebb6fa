package bench

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/sandbox/fleet"
)

// bare is a node that nobody looks after: its objects are what a bare client writes to.
type bare struct {
	name   string
	node   *corev1.Node
	health *v1alpha1.NodeHealth
}

// bares makes nodes beside the fleet, each with a NodeHealth whose status is as long as a real one.
func (c *cluster) bares(ctx context.Context, n int) ([]bare, error) {
	like := &v1alpha1.NodeHealth{}
	if err := c.client.Get(ctx, client.ObjectKey{Name: c.s.Fleet().Options().NodeName(0)}, like); err != nil {
		return nil, fmt.Errorf("reading a NodeHealth: %w", err)
	}
	out := make([]bare, n)
	err := each(ctx, n, func(ctx context.Context, i int) error {
		b := bare{name: fmt.Sprintf("bare-%05d", i)}
		b.node = &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: b.name}}
		if err := c.client.Create(ctx, b.node); err != nil {
			return fmt.Errorf("making a node: %w", err)
		}
		b.health = &v1alpha1.NodeHealth{ObjectMeta: metav1.ObjectMeta{Name: b.name}, Spec: v1alpha1.NodeHealthSpec{NodeUID: string(b.node.UID)}}
		if err := c.client.Create(ctx, b.health); err != nil {
			return fmt.Errorf("making a NodeHealth: %w", err)
		}
		b.health.Status = *like.Status.DeepCopy()
		if err := c.client.Status().Update(ctx, b.health); err != nil {
			return fmt.Errorf("filling a NodeHealth: %w", err)
		}
		out[i] = b
		return nil
	})
	return out, err
}

// removeBares takes them away again, and what was written for them.
func (c *cluster) removeBares(ctx context.Context, list []bare) error {
	return each(ctx, len(list), func(ctx context.Context, i int) error {
		meta := metav1.ObjectMeta{Name: list[i].name}
		for _, object := range []client.Object{
			&resourcev1.DeviceTaintRule{ObjectMeta: meta}, &v1alpha1.Remediation{ObjectMeta: meta}, &v1alpha1.NodeHealth{ObjectMeta: meta}, &corev1.Node{ObjectMeta: meta},
		} {
			if err := c.client.Delete(ctx, object); client.IgnoreNotFound(err) != nil {
				return fmt.Errorf("removing %s: %w", list[i].name, err)
			}
		}
		return nil
	})
}

// report writes the fault: the one write of an agent.
func (b *bare) report(ctx context.Context, c client.Client) error {
	now := metav1.NewTime(time.Now().Truncate(time.Second))
	device := b.health.Status.Devices[badSlot].ID
	b.health.Status.Summary = v1alpha1.SummaryFaulty
	b.health.Status.Devices[badSlot].Health = v1alpha1.DeviceUnhealthy
	b.health.Status.Faults = []v1alpha1.Fault{{
		Code: "Xid79", Check: "kernel-log", Device: device, Class: v1alpha1.ClassHardware, Severity: v1alpha1.SeverityCritical,
		FirstSeen: now, LastSeen: now, Count: 1, Root: true, Evidence: "NVRM: Xid (PCI:0000:18:00): 79, GPU has fallen off the bus.",
	}}
	if err := c.Status().Update(ctx, b.health); err != nil {
		return fmt.Errorf("writing a NodeHealth: %w", err)
	}
	return nil
}

// keepOut writes the incident and the rule: the least that a controller has to write.
func (b *bare) keepOut(ctx context.Context, c client.Client) error {
	fault := b.health.Status.Faults[0]
	incident := &v1alpha1.Remediation{ObjectMeta: metav1.ObjectMeta{Name: b.name}, Spec: v1alpha1.RemediationSpec{
		Node: b.name, NodeUID: string(b.node.UID), Devices: []string{fault.Device},
		Root:       v1alpha1.RootFault{Code: fault.Code, Device: fault.Device, Check: fault.Check, FirstSeen: fault.FirstSeen},
		Quarantine: []v1alpha1.QuarantineIntent{{Kind: v1alpha1.QuarantineDeviceTaintRule, Name: b.name, DeviceID: fault.Device}},
	}}
	if err := c.Create(ctx, incident); err != nil {
		return fmt.Errorf("writing a Remediation: %w", err)
	}
	rule := &resourcev1.DeviceTaintRule{
		ObjectMeta: metav1.ObjectMeta{Name: b.name, Annotations: map[string]string{v1alpha1.AnnotationNode: b.name, v1alpha1.AnnotationDevice: fault.Device}},
		Spec: resourcev1.DeviceTaintRuleSpec{
			DeviceSelector: &resourcev1.DeviceTaintSelector{Driver: ptr.To(fleet.Driver), Pool: &b.name, Device: ptr.To("gpu-3")},
			Taint:          resourcev1.DeviceTaint{Key: v1alpha1.DeviceTaintQuarantined, Value: b.name, Effect: resourcev1.DeviceTaintEffectNoSchedule},
		},
	}
	if err := c.Create(ctx, rule); err != nil {
		return fmt.Errorf("writing a DeviceTaintRule: %w", err)
	}
	return nil
}

// Pair is a measurement and its baseline.
type Pair struct {
	Ours     Spread `json:"ours"`
	Baseline Spread `json:"baseline"`
}

// Spread is what many durations look like, in milliseconds.
type Spread struct {
	P50 float64 `json:"p50ms"`
	P99 float64 `json:"p99ms"`
	N   int     `json:"n"`
}

func spread(all []time.Duration) Spread {
	if len(all) == 0 {
		return Spread{}
	}
	slices.Sort(all)
	// The nearest rank: the smallest value that so many hundredths of all do not exceed.
	at := func(hundredths int) float64 {
		return float64(all[(len(all)*hundredths+99)/100-1].Microseconds()) / 1000
	}
	return Spread{P50: at(50), P99: at(99), N: len(all)}
}

// bareDelays times the bare writes, one node after the other, each until a watch shows it.
func (c *cluster) bareDelays(ctx context.Context, r *Report) error {
	c.o.Progress(fmt.Sprintf("timing a bare client, %d times", c.o.Lines))
	list, err := c.bares(ctx, c.o.Lines)
	if err != nil {
		return err
	}
	var visible, quarantined []time.Duration
	for i := range list {
		b := &list[i]
		began := time.Now()
		if err := b.report(ctx, c.client); err != nil {
			return err
		}
		if err := b.keepOut(ctx, c.client); err != nil {
			return err
		}
		at, err := c.fault.wait(ctx, b.name)
		if err != nil {
			return err
		}
		visible = append(visible, at.Sub(began))
		if at, err = c.rule.wait(ctx, b.name); err != nil {
			return err
		}
		quarantined = append(quarantined, at.Sub(began))
	}
	r.Visible.Baseline, r.Quarantine.Baseline = spread(visible), spread(quarantined)
	return c.removeBares(ctx, list)
}

// delays times kernel lines, one node after the other.
func (c *cluster) delays(ctx context.Context, r *Report) error {
	o := c.s.Fleet().Options()
	selector := metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{
		{Key: fleet.LabelRack, Operator: metav1.LabelSelectorOpNotIn, Values: []string{o.Rack(o.Nodes - 1)}},
	}}
	if err := c.policy(ctx, "keep-out", v1alpha1.ModeQuarantine, selector); err != nil {
		return err
	}
	c.o.Progress(fmt.Sprintf("timing %d kernel lines", c.o.Lines))
	var visible, quarantined []time.Duration
	for i := range c.o.Lines {
		name := o.NodeName(i)
		began, err := c.inject(ctx, name)
		if err != nil {
			return err
		}
		at, err := c.fault.wait(ctx, name)
		if err != nil {
			return err
		}
		visible = append(visible, at.Sub(began))
		if at, err = c.rule.wait(ctx, name); err != nil {
			return err
		}
		quarantined = append(quarantined, at.Sub(began))
		// What is still written about this one is no part of the next one's time.
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
	r.Visible.Ours, r.Quarantine.Ours = spread(visible), spread(quarantined)
	return nil
}
