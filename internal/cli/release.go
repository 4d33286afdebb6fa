package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/cli/explain"
	"github.com/roundhouse-dev/roundhouse/internal/cli/text"
)

type releaseFlags struct {
	all, yes bool
	timeout  time.Duration
	dryRun   string
}

func (a *app) releaseCommand() *cobra.Command {
	var f releaseFlags
	cmd := &cobra.Command{
		Use:   "release (NODE... | HOLD... | --all)",
		Short: "Let go of nodes and holds, or of everything before an uninstall",
		Long: `Let go of nodes and holds.

A node: its open incident is cancelled, which takes off what was put on (a faulty device may get work again), and holds
that name only it are lifted. A hold: it is lifted. Where a name is both, write node/NAME or hold/NAME.

--all, before an uninstall: every node is held, every incident cancelled, and the command waits until no taint, claim,
DeviceTaintRule or note of a repair of ours is left. It ends with exit code 1 and a list where something is.`,
		Example: `  kubectl roundhouse release gpu-0417
  kubectl roundhouse release stop
  kubectl roundhouse release --all`,
		ValidArgsFunction: a.completeNodes,
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case f.all && len(args) > 0:
				return usage("--all releases everything; do not name %s too", strings.Join(args, ", "))
			case !f.all && len(args) == 0:
				return usage("name nodes or holds to release, or give --all")
			case f.timeout <= 0:
				return usage("--timeout %s: give a length such as 5m", f.timeout)
			}
			if err := checkDryRun(f.dryRun); err != nil {
				return err
			}
			c, err := a.connect()
			if err != nil {
				return err
			}
			if f.all {
				return a.releaseAll(cmd.Context(), c, &f)
			}
			return a.releaseEach(cmd.Context(), c, &f, args)
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&f.all, "all", false, "release everything and wait until nothing of ours is left on any node")
	flags.BoolVarP(&f.yes, "yes", "y", false, "with --all: do not ask")
	flags.DurationVar(&f.timeout, "timeout", 5*time.Minute, "with --all: how long to wait")
	addDryRun(cmd, &f.dryRun)
	return cmd
}

// target is what a name means.
type target struct {
	name string
	node bool
	hold *v1alpha1.RemediationHold
	open *v1alpha1.Remediation
}

// releaseEach finds out what each name means before it changes anything, so that a typing error changes nothing.
func (a *app) releaseEach(ctx context.Context, c *cluster, f *releaseFlags, names []string) error {
	targets := make([]target, 0, len(names))
	for _, name := range names {
		t, err := c.resolve(ctx, name)
		if err != nil {
			return err
		}
		targets = append(targets, t)
	}
	p := a.page()
	for _, t := range targets {
		var err error
		if t.hold != nil {
			err = c.lift(ctx, p, t.hold, f.dryRun)
		} else {
			err = a.releaseNode(ctx, c, p, t, f.dryRun)
		}
		if err != nil {
			_, writeErr := p.WriteTo(a.Out) // what was done before the error was done
			return errors.Join(err, writeErr)
		}
	}
	_, err := p.WriteTo(a.Out)
	return err
}

func (c *cluster) resolve(ctx context.Context, name string) (target, error) {
	t := target{name: name}
	kind := ""
	if prefix, rest, ok := strings.Cut(name, "/"); ok {
		kind, t.name = prefix, rest
		// As -o name writes them.
		kind, _, _ = strings.Cut(kind, ".")
	}
	switch kind {
	case "", "node", "hold", "remediationhold":
	default:
		return t, usage("%q: write node/NAME or hold/NAME", name)
	}
	if kind != "node" {
		hold := &v1alpha1.RemediationHold{}
		switch err := c.Get(ctx, client.ObjectKey{Name: t.name}, hold); {
		case err == nil:
			t.hold = hold
		case !apierrors.IsNotFound(err) || isUnserved(err):
			return t, fmt.Errorf("reading hold %s: %w", t.name, err)
		}
	}
	if kind == "" || kind == "node" {
		err := c.resolveNode(ctx, &t)
		// Who may hold need not be able to read Nodes or incidents; then a hold is what they mean.
		if err != nil && (t.hold == nil || !apierrors.IsForbidden(err)) {
			return t, err
		}
	}
	switch {
	case t.hold != nil && t.node:
		return t, usage("%q is a node and a hold; write node/%s or hold/%s", name, t.name, t.name)
	case t.hold == nil && !t.node:
		return t, &foundError{what: fmt.Sprintf("there is no %s %q; see kubectl get nodes, kubectl get holds", cmp.Or(kind, "node or hold"), t.name)}
	}
	return t, nil
}

// resolveNode also knows a node that is gone by its open incident.
func (c *cluster) resolveNode(ctx context.Context, t *target) error {
	open, err := c.openOn(ctx, t.name)
	var none *foundError
	if err != nil && !errors.As(err, &none) {
		return err
	}
	there := open != nil
	if !there {
		if there, err = c.exists(ctx, t.name); err != nil {
			return err
		}
	}
	t.open, t.node = open, there
	return nil
}

func (c *cluster) lift(ctx context.Context, p *text.Page, hold *v1alpha1.RemediationHold, dryRun string) error {
	if dryRun != dryRunClient {
		options := []client.DeleteOption{client.Preconditions{UID: &hold.UID, ResourceVersion: &hold.ResourceVersion}}
		if dryRun == dryRunServer {
			options = append(options, client.DryRunAll)
		}
		if err := c.Delete(ctx, hold, options...); client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("lifting hold %s: %w", hold.Name, err)
		}
	}
	p.Line("remediationhold.roundhouse.dev/" + hold.Name + " lifted" + dryRunNote(dryRun))
	return nil
}

// releaseNode cancels a node's incident and lifts the holds that name it alone.
func (a *app) releaseNode(ctx context.Context, c *cluster, p *text.Page, t target, dryRun string) error {
	if t.open == nil {
		p.Line("node/" + t.name + ": no incident is open")
	} else {
		phase := t.open.Status.Phase
		if err := c.cancel(ctx, t.open, dryRun); err != nil {
			return err
		}
		p.Line(remediationName(t.open.Name) + " cancelled" + dryRunNote(dryRun))
		p.Section("Node", t.name+": what was put on is taken off; while the fault lasts, nothing more is done about it")
		if phase == v1alpha1.PhaseRepairing {
			p.Section("Acting", "the agent has been asked to act: what it has begun it ends, and the incident ends after that")
		}
	}
	return a.releaseHolds(ctx, c, p, t.name, dryRun)
}

// releaseHolds lifts the holds that name a node alone, and names those that hold it with others. Who may cancel need not
// be able to read or lift holds.
func (a *app) releaseHolds(ctx context.Context, c *cluster, p *text.Page, node, dryRun string) error {
	holds, err := c.holds(ctx)
	if apierrors.IsForbidden(err) {
		p.Section("Holds", "were not looked at: you may not list them")
		return nil
	}
	if err != nil {
		return err
	}
	labels, err := c.labels(ctx, node)
	if err != nil && !apierrors.IsForbidden(err) {
		return err
	}
	for i := range holds {
		h := &holds[i]
		if len(h.Spec.Nodes) == 1 && h.Spec.Nodes[0] == node {
			if err := c.lift(ctx, p, h, dryRun); err != nil {
				return err
			}
			continue
		}
		if explain.InForce(h, a.Now()) && explain.HoldsNode(h, node, labels) {
			p.Section("Held", fmt.Sprintf("still, with others, by hold %s (%s): kubectl roundhouse release %s", h.Name, text.Clean(h.Spec.RequestedBy), h.Name))
		}
	}
	return nil
}

// cancel asks the controller to end an incident. It is retried on a conflict: that the status changed meanwhile does not
// change what the human wants.
func (c *cluster) cancel(ctx context.Context, r *v1alpha1.Remediation, dryRun string) error {
	err := retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		if err := c.Get(ctx, client.ObjectKeyFromObject(r), r); err != nil {
			return err
		}
		if r.Spec.Cancel || r.Status.Phase.Over() {
			return nil
		}
		before := r.DeepCopy()
		r.Spec.Cancel = true
		return c.patch(ctx, r, before, dryRun)
	})
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("cancelling %s: %w", r.Name, err)
	}
	return nil
}
