package cli

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/cli/explain"
	"github.com/roundhouse-dev/roundhouse/internal/cli/text"
	"github.com/roundhouse-dev/roundhouse/internal/decide"
)

// maxApprovals is the bound of spec.approvals in the schema.
const maxApprovals = 8

// defaultApproval is how long an approval lasts without --for: long enough to see it work, too short to be forgotten.
const defaultApproval = time.Hour

type approveFlags struct {
	output
	skipIdle, skipWindow, retry bool
	length                      time.Duration
	by, dryRun                  string
}

func (f *approveFlags) kinds() []v1alpha1.ApprovalKind {
	var out []v1alpha1.ApprovalKind
	if f.skipIdle {
		out = append(out, v1alpha1.ApproveSkipIdle)
	}
	if f.skipWindow {
		out = append(out, v1alpha1.ApproveSkipWindow)
	}
	if f.retry {
		out = append(out, v1alpha1.ApproveRetry)
	}
	return out
}

func (a *app) approveCommand() *cobra.Command {
	var f approveFlags
	cmd := &cobra.Command{
		Use:   "approve NODE (--skip-idle | --skip-window | --retry) [--for 1h]",
		Short: "Let a node's open incident skip a wait, or try once more",
		Long: `Let a node's open incident skip a wait, or try once more. An approval never skips a budget, a brake, a hold or the
policy's mode, and it lapses.`,
		Example:           "  kubectl roundhouse approve gpu-0417 --skip-idle --for 2h",
		Args:              exactly(1, "the name of one node"),
		ValidArgsFunction: a.completeNodes,
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case len(f.kinds()) == 0:
				return usage("say what is approved: --skip-idle, --skip-window or --retry")
			case f.length <= 0:
				return usage("--for %s: give a length such as 1h", f.length)
			}
			return a.approve(cmd.Context(), &f, args[0])
		},
	}
	f.output.add(cmd, formatJSON, formatYAML, formatName)
	flags := cmd.Flags()
	flags.BoolVar(&f.skipIdle, "skip-idle", false, "do not wait until no work would be lost")
	flags.BoolVar(&f.skipWindow, "skip-window", false, "do not wait for a window of the policy")
	flags.BoolVar(&f.retry, "retry", false, "let an escalated incident try once more")
	flags.DurationVar(&f.length, "for", defaultApproval, "how long the approval lasts")
	flags.StringVar(&f.by, "by", "", "who approves; without it, who the server says you are")
	addDryRun(cmd, &f.dryRun)
	return cmd
}

func (a *app) approve(ctx context.Context, f *approveFlags, node string) error {
	if err := cmp.Or(f.check(), checkDryRun(f.dryRun)); err != nil {
		return err
	}
	c, err := a.connect()
	if err != nil {
		return err
	}
	open, err := c.openOn(ctx, node)
	if err != nil {
		return err
	}
	if open.Spec.Cancel {
		return &foundError{what: fmt.Sprintf("incident %s of node %q is being cancelled; there is nothing to approve", open.Name, node)}
	}
	by, err := c.by(ctx, f.by)
	if err != nil {
		return err
	}
	until := metav1.Time{Time: in(a.Now(), f.length)}
	// The controller writes the status of the same object, so that a conflict is usual and means nothing.
	err = retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		if err := c.Get(ctx, client.ObjectKeyFromObject(open), open); err != nil {
			return err
		}
		before := open.DeepCopy()
		open.Spec.Approvals = withApprovals(open.Spec.Approvals, f.kinds(), by, until, a.Now())
		return c.patch(ctx, open, before, f.dryRun)
	})
	if err != nil {
		return fmt.Errorf("approving %s: %w", open.Name, err)
	}
	return a.sayApproved(f, open, until)
}

func (a *app) sayApproved(f *approveFlags, r *v1alpha1.Remediation, until metav1.Time) error {
	switch f.format {
	case formatJSON, formatYAML:
		r.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("Remediation"))
		r.ManagedFields = nil
		return encode(a.Out, f.format, r)
	case formatName:
		_, err := fmt.Fprintln(a.Out, remediationName(r.Name))
		return err
	}
	p := a.page()
	p.Line(remediationName(r.Name) + " approved" + dryRunNote(f.dryRun))
	var words []string
	for _, k := range f.kinds() {
		words = append(words, explain.Spell(string(k)))
	}
	line(p, "Approved", "%s on %s until %s", strings.Join(words, ", "), r.Spec.Node, p.Clock.Until(until.Time))
	p.Section("Now", consequence(r, f.kinds())...)
	p.Section("Watch it", "kubectl roundhouse why "+r.Spec.Node)
	_, err := p.WriteTo(a.Out)
	return err
}

// consequence says whether an approval changes what the incident waits for; one that does not is a surprise best told
// now.
func consequence(r *v1alpha1.Remediation, kinds []v1alpha1.ApprovalKind) []string {
	helps := map[v1alpha1.ApprovalKind]bool{
		v1alpha1.ApproveSkipIdle:   r.Status.Reason == decide.ReasonWaitingForIdle,
		v1alpha1.ApproveSkipWindow: r.Status.Reason == decide.ReasonWaitingForWindow,
		v1alpha1.ApproveRetry:      r.Status.Phase == v1alpha1.PhaseEscalated,
	}
	for _, k := range kinds {
		if helps[k] {
			return []string{"it goes on with the next decision, if budgets, brake and holds allow"}
		}
	}
	phase := r.Status.Phase
	if phase == "" {
		phase = v1alpha1.PhasePending
	}
	out := fmt.Sprintf("it is %s, reason %s, which this does not skip", phase, r.Status.Reason)
	if r.Status.Message != "" {
		out += ": " + text.Clean(r.Status.Message)
	}
	return []string{out}
}

// withApprovals adds approvals in place of earlier ones of their kind, and drops those that have lapsed.
func withApprovals(have []v1alpha1.Approval, kinds []v1alpha1.ApprovalKind, by string, until metav1.Time, now time.Time) []v1alpha1.Approval {
	out := slices.DeleteFunc(slices.Clone(have), func(a v1alpha1.Approval) bool {
		return !a.Until.After(now) || slices.Contains(kinds, a.What)
	})
	for _, k := range kinds {
		out = append(out, v1alpha1.Approval{What: k, By: by, Until: until})
	}
	return out[max(0, len(out)-maxApprovals):]
}

// openOn is the open Remediation of a node; there is at most one.
func (c *cluster) openOn(ctx context.Context, node string) (*v1alpha1.Remediation, error) {
	all, err := c.remediationsOf(ctx, node)
	if err != nil {
		return nil, err
	}
	for i := range all {
		if !all[i].Status.Phase.Over() {
			return &all[i], nil
		}
	}
	return nil, &foundError{what: fmt.Sprintf("node %q has no open incident; see kubectl roundhouse why %s", node, node)}
}

// patch writes a Remediation's spec, guarded by its resourceVersion.
func (c *cluster) patch(ctx context.Context, r, before *v1alpha1.Remediation, dryRun string) error {
	if dryRun == dryRunClient {
		return nil
	}
	var options []client.PatchOption
	if dryRun == dryRunServer {
		options = append(options, client.DryRunAll)
	}
	return c.Patch(ctx, r, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}), options...)
}
