package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/roundhouse-dev/roundhouse/internal/cli/explain"
)

func (a *app) whyCommand() *cobra.Command {
	var o output
	var watch bool
	cmd := &cobra.Command{
		Use:   "why NODE",
		Short: "Say what is done about a node, or why nothing is",
		Long: `Say what is done about a node, or why nothing is: what is wrong and how that is known, what could not be seen, what was
done, what comes next, what it waits for and until when, what would change that, and how to stop it.`,
		Example:           "  kubectl roundhouse why gpu-0417\n  kubectl roundhouse why gpu-0417 -o json | jq -r .meaning",
		Args:              exactly(1, "the name of one node"),
		ValidArgsFunction: a.completeNodes,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.check(); err != nil {
				return err
			}
			c, err := a.connect()
			if err != nil {
				return err
			}
			return a.repeat(cmd.Context(), watch, func(ctx context.Context) error { return a.why(ctx, c, &o, args[0]) })
		},
	}
	o.add(cmd, formatWide, formatJSON, formatYAML, formatName)
	addWatch(cmd, &watch)
	return cmd
}

func (a *app) why(ctx context.Context, c *cluster, o *output, node string) error {
	s, err := c.gatherWhy(ctx, node)
	if err != nil {
		return err
	}
	if err := c.readHolders(ctx, &s); err != nil {
		return err
	}
	s.Now = a.Now()
	w := explain.Explain(s)
	var names []string
	if w.Remediation != "" {
		names = append(names, remediationName(w.Remediation))
	}
	if err := a.show(o, &w, names); err != nil {
		return err
	}
	if w.State == explain.NoSuchNode {
		return &foundError{what: fmt.Sprintf("there is no node %q; see kubectl get nodes", node)}
	}
	return nil
}

// readHolders reads who holds the bad devices where only claims tell. Who may ask why need not be able to read pods.
func (c *cluster) readHolders(ctx context.Context, s *explain.Snapshot) error {
	if !s.AsksClaims() {
		return nil
	}
	err := c.readPods(ctx, s)
	if apierrors.IsForbidden(err) {
		s.Pods, s.Claims = nil, nil
		s.ClaimsUntold = "you may not read pods and their claims, as the role roundhouse-planner may"
		return nil
	}
	return err
}

// completeNodes completes node names in shells that ask.
func (a *app) completeNodes(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	names, err := a.nodeNames(cmd.Context())
	if err != nil || len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// errNoContext is for a command that was completed outside of Run.
var errNoContext = errors.New("no context")

func (a *app) nodeNames(ctx context.Context) ([]string, error) {
	if ctx == nil {
		return nil, errNoContext
	}
	c, err := a.connect()
	if err != nil {
		return nil, err
	}
	return c.nodeNames(ctx)
}
