package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/cli/text"
	"github.com/roundhouse-dev/roundhouse/internal/decide"
	"github.com/roundhouse-dev/roundhouse/internal/maintenance"
)

const (
	// awaitEvery is how often it is looked how far planned work has come, barWidth how long a bar is.
	awaitEvery = time.Second
	barWidth   = 20
)

// waitFlags are those of commands that may wait for what they asked for.
type waitFlags struct {
	wait    bool
	timeout time.Duration
}

func (f *waitFlags) add(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&f.wait, "wait", false, "wait until it is done, or handed over, and show how far it has come")
	cmd.Flags().DurationVar(&f.timeout, "timeout", time.Hour, "with --wait: how long")
}

// drainCommand is maintain for a node that is wanted empty now.
func (a *app) drainCommand() *cobra.Command {
	f := maintainFlags{now: true}
	cmd := &cobra.Command{
		Use:   "drain (NODE... | -l SELECTOR) --reason TEXT [--wait]",
		Short: "Empty nodes for your own hands, within their budgets, as kindly as a repair would",
		Long: `Empty nodes for your own hands: maintain --now without an action. Unlike kubectl drain it takes a slot of every budget, knows what
stopping each pod costs, and keeps the nodes empty until you say that you are done: kubectl roundhouse maintain NODE --done`,
		Example:           `  kubectl roundhouse drain gpu-0417 --reason "swap the riser" --wait`,
		ValidArgsFunction: a.completeNodes,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.runMaintain(cmd.Context(), &f, args) },
	}
	f.output.add(cmd, formatName)
	flags := cmd.Flags()
	flags.StringVar(&f.reason, "reason", "", "why, for those who find it at night")
	flags.StringVar(&f.by, "by", "", "who asks for it; without it, who the server says you are")
	flags.StringVarP(&f.selector, "selector", "l", "", "the nodes that this label selector selects now")
	addDryRun(cmd, &f.dryRun)
	f.waitFlags.add(cmd)
	return cmd
}

// await shows how far planned work has come on each node, until none is left to wait for.
func (a *app) await(ctx context.Context, c *cluster, nodes []string, request *maintenance.Request, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	said, stuck := map[string]string{}, []string{}
	waiting := slices.Clone(nodes)
	for {
		for _, node := range slices.Clone(waiting) {
			rems, err := c.remediationsOf(ctx, node)
			if err != nil && ctx.Err() == nil {
				return err
			}
			r := newest(rems, request)
			if line := progressLine(node, r); line != said[node] {
				said[node] = line
				if _, err := fmt.Fprintln(a.Out, line); err != nil {
					return err
				}
			}
			switch ended, well := settled(r); {
			case !ended:
				continue
			case !well:
				stuck = append(stuck, node)
			}
			waiting = slices.DeleteFunc(waiting, func(n string) bool { return n == node })
		}
		if len(waiting) == 0 {
			break
		}
		select {
		case <-time.After(awaitEvery):
		case <-ctx.Done():
			if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return ctx.Err()
			}
			return &foundError{what: fmt.Sprintf("after %s still waiting for %s; it goes on without you", timeout, text.Bounded(waiting, maxSaid))}
		}
	}
	if len(stuck) > 0 {
		return &foundError{what: "a human is asked about " + text.Bounded(stuck, maxSaid) + "; see kubectl roundhouse why " + stuck[0]}
	}
	return nil
}

// newest is the incident that serves a request: the last one that was open when it was made, or was opened since; nil before.
func newest(rems []v1alpha1.Remediation, request *maintenance.Request) *v1alpha1.Remediation {
	var found *v1alpha1.Remediation
	for i := range rems {
		r := &rems[i]
		if r.Status.Phase.Over() && r.CreationTimestamp.Before(&request.At) {
			continue
		}
		if found == nil || found.CreationTimestamp.Before(&r.CreationTimestamp) {
			found = r
		}
	}
	return found
}

// settled says whether nothing more is waited for, and whether it went well.
func settled(r *v1alpha1.Remediation) (ended, well bool) {
	switch {
	case r == nil:
		return false, false
	case r.Status.Phase == v1alpha1.PhaseEscalated:
		return true, r.Status.Reason == decide.ReasonHandedOver
	}
	return r.Status.Phase.Over(), r.Status.Phase == v1alpha1.PhaseSucceeded
}

// progressLine is how far a node has come, in a line that changes only when that does.
func progressLine(node string, r *v1alpha1.Remediation) string {
	if r == nil || r.Status.Phase == "" {
		return fmt.Sprintf("%-16s asked for", node)
	}
	st := &r.Status
	line := fmt.Sprintf("%-16s %-10s %s", node, st.Phase, st.Reason)
	if st.Phase != v1alpha1.PhaseDraining || st.Drain == nil {
		return line
	}
	moved, all := int(st.Drain.PodsMoved), int(st.Drain.PodsMoved+st.Drain.PodsLeft)
	filled := barWidth * moved / max(1, all)
	line += fmt.Sprintf(" [%s%s] %s left", strings.Repeat("#", filled), strings.Repeat("-", barWidth-filled), text.Count(int(st.Drain.PodsLeft), "pod", "pods"))
	for _, b := range st.Drain.Blockers[:min(len(st.Drain.Blockers), 1)] {
		line += fmt.Sprintf("; %s: %s", text.Clean(b.Pod), cmp.Or(b.Reason, "blocked"))
	}
	return line
}
