package cli

import (
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/cli/blockers"
)

func (a *app) blockersCommand() *cobra.Command {
	var o output
	var noHeaders bool
	cmd := &cobra.Command{
		Use:   "blockers [NODE...]",
		Short: "Show the pods that keep drains from going on, and why",
		Long: `Show the pods that keep drains from going on: those that only a human may stop, and those whose PodDisruptionBudget
refuses, with the budget's name, whether it can ever allow it, and when a human is asked.`,
		Example:           "  kubectl roundhouse blockers\n  kubectl roundhouse blockers gpu-0417 -o wide",
		ValidArgsFunction: a.completeNodes,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.check(); err != nil {
				return err
			}
			c, err := a.connect()
			if err != nil {
				return err
			}
			var found []v1alpha1.Remediation
			err = pages(cmd.Context(), c, &v1alpha1.RemediationList{}, func(l *v1alpha1.RemediationList) {
				for i := range l.Items {
					if l.Items[i].Status.Drain != nil && len(l.Items[i].Status.Drain.Blockers) > 0 {
						found = append(found, l.Items[i])
					}
				}
			})
			if err != nil {
				return fmt.Errorf("reading Remediations: %w", err)
			}
			list := blockers.Tell(a.Now(), found, args)
			var names []string
			for _, b := range list.Blockers {
				if name := "pod/" + b.Pod; !slices.Contains(names, name) {
					names = append(names, name)
				}
			}
			return a.show(&o, blockers.Shown{NoHeaders: noHeaders, List: list}, names)
		},
	}
	o.add(cmd, formatWide, formatJSON, formatYAML, formatName)
	cmd.Flags().BoolVar(&noHeaders, "no-headers", false, "leave the table's header out")
	return cmd
}
