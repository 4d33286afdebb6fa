package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/roundhouse-dev/roundhouse/internal/cli/fleet"
	"github.com/roundhouse-dev/roundhouse/internal/cli/text"
)

func (a *app) statusCommand() *cobra.Command {
	var o output
	var watch bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the fleet on one screen",
		Long: `Show the fleet on one screen: nodes and devices by health, on how many nodes an agent reports, policies and whether
they are accepted, open incidents by phase, what budgets have used, holds and brakes.`,
		Args: exactly(0, "no arguments (kubectl roundhouse why NODE answers for one node)"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.check(); err != nil {
				return err
			}
			c, err := a.connect()
			if err != nil {
				return err
			}
			return a.repeat(cmd.Context(), watch, func(ctx context.Context) error {
				s, err := c.gatherFleet(ctx)
				if err != nil {
					return err
				}
				s.Now = a.Now()
				st := fleet.Summarize(s)
				return a.show(&o, &st, incidentNames(&st))
			})
		},
	}
	o.add(cmd, formatWide, formatJSON, formatYAML, formatName)
	addWatch(cmd, &watch)
	return cmd
}

// incidentNames are the open Remediations as kubectl writes them.
func incidentNames(st *fleet.Status) []string {
	var names []string
	for _, phase := range st.Incidents {
		for _, in := range phase.Incidents {
			names = append(names, remediationName(in.Remediation))
		}
	}
	return names
}

func remediationName(name string) string { return "remediation.roundhouse.dev/" + name }

func addWatch(cmd *cobra.Command, watch *bool) {
	cmd.Flags().BoolVarP(watch, "watch", "w", false, "ask again every few seconds, until interrupted")
}

// Bounds of how often --watch asks: not sooner than a reader can follow, and a large fleet not for most of the time.
const (
	watchEvery  = 2 * time.Second
	watchFactor = 10
)

// repeat asks once, or with --watch until the context ends; then a wait of at least ten times what the asking took keeps
// a watched fleet of 30,000 nodes from loading its API server.
func (a *app) repeat(ctx context.Context, watch bool, ask func(context.Context) error) error {
	for {
		began := time.Now()
		a.watching = watch
		err := ask(ctx)
		interrupted := watch && ctx.Err() != nil // then asking fails, and nobody wants to know
		if interrupted || !watch && err == nil {
			return nil
		}
		if err != nil {
			return err
		}
		timer := time.NewTimer(max(watchEvery, watchFactor*time.Since(began)))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil // the reader has seen enough
		case <-timer.C:
		}
	}
}

// terminal says whether a writer is one.
func terminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

// line writes "title  said" as the sections do.
func line(p *text.Page, title, format string, args ...any) {
	p.Section(title, fmt.Sprintf(format, args...))
}
