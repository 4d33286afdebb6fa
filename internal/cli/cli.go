// Package cli is kubectl-roundhouse: what a human asks of Roundhouse and tells it. It only reads and writes the
// Kubernetes API, with the human's own credential and kubectl's own flags; it never decides and never acts on a node.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"
	"k8s.io/cli-runtime/pkg/genericclioptions"

	"github.com/roundhouse-dev/roundhouse/internal/cli/text"
)

// The exit codes.
const (
	// ExitOK: done, or nothing is wrong.
	ExitOK = 0
	// ExitFound: the answer is that something must be fixed, is left over, or is not there.
	ExitFound = 1
	// ExitUsage: the command line cannot be understood; nothing was asked of the cluster.
	ExitUsage = 2
	// ExitFailed: the cluster could not be asked, or refused.
	ExitFailed = 3
)

// Options is the world around the command.
type Options struct {
	In       io.Reader
	Out, Err io.Writer
	// Now is the clock; time.Now without it.
	Now func() time.Time
	// Zone is where times are shown; time.Local without it.
	Zone *time.Location
	// Version is what --version prints.
	Version string
	// Getenv reads the environment; os.Getenv without it.
	Getenv func(string) string
}

func (o Options) withDefaults() Options {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Zone == nil {
		o.Zone = time.Local
	}
	if o.Getenv == nil {
		o.Getenv = os.Getenv
	}
	if o.Version == "" {
		o.Version = "unknown"
	}
	return o
}

// foundError says that the command did its work, and that what it found is not as it should be. The answer has been
// printed already.
type foundError struct{ what string }

func (e *foundError) Error() string { return e.what }

// usageError is a command line that cannot be understood.
type usageError struct{ message string }

func (e *usageError) Error() string { return e.message }

func usage(format string, args ...any) error {
	return &usageError{message: fmt.Sprintf(format, args...)}
}

// Run runs one command line, without the program's name, and returns its exit code.
func Run(ctx context.Context, args []string, options Options) int {
	options = options.withDefaults()
	command := New(options) //nolint:contextcheck // cobra hands ExecuteContext's context to each command
	command.SetArgs(args)
	err := command.ExecuteContext(ctx)
	var found *foundError
	var wrong *usageError
	switch {
	case err == nil:
		return ExitOK
	case errors.As(err, &found):
		if found.what != "" {
			fmt.Fprintln(options.Err, "error:", found.what)
		}
		return ExitFound
	case errors.As(err, &wrong):
		fmt.Fprintln(options.Err, "error:", wrong.message)
		return ExitUsage
	}
	fmt.Fprintln(options.Err, "error:", explainError(err))
	return ExitFailed
}

// app is what the commands share.
type app struct {
	Options
	flags *genericclioptions.ConfigFlags
	// watching is whether answers replace each other.
	watching bool
}

// New gives the command tree.
func New(options Options) *cobra.Command {
	a := &app{Options: options.withDefaults(), flags: genericclioptions.NewConfigFlags(true)}
	root := &cobra.Command{
		Use:   "kubectl-roundhouse",
		Short: "See what Roundhouse does with faulty accelerators, and why; stop it, and let it go on",
		Long: `See what Roundhouse does with faulty accelerators, and why; stop it, and let it go on.

Exit codes: 0 done, nothing is wrong; 1 something must be fixed, is left over or is not there; 2 the command line
cannot be understood; 3 the cluster could not be asked, or refused.`,
		Version:       a.Version,
		Args:          cobra.ArbitraryArgs, // so that RunE says what is wrong with them
		SilenceErrors: true,
		SilenceUsage:  true,
		Annotations:   map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl roundhouse"},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usage("there is no command %q; see kubectl roundhouse --help", args[0])
			}
			return cmd.Help()
		},
	}
	root.SetIn(a.In)
	root.SetOut(a.Out)
	root.SetErr(a.Err)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usage("%v; see %s --help", err, cmd.CommandPath())
	})
	a.flags.AddFlags(root.PersistentFlags())
	root.AddCommand(a.statusCommand(), a.whyCommand(), a.planCommand(), a.blockersCommand(), a.historyCommand(), a.holdCommand(), a.stopCommand(), a.maintainCommand(), a.drainCommand(),
		a.releaseCommand(), a.approveCommand(), a.checkCommand())
	return root
}

// clock is the reader's.
func (a *app) clock() text.Clock { return text.Clock{Now: a.Now(), Zone: a.Zone} }

// page is a page for the reader: coloured and folded only on a terminal, and coloured only without NO_COLOR
// (https://no-color.org).
func (a *app) page() *text.Page {
	p := &text.Page{Clock: a.clock()}
	file, ok := a.Out.(*os.File)
	if !ok || !terminal(a.Out) {
		return p
	}
	if width, _, err := term.GetSize(int(file.Fd())); err == nil {
		p.Width = width
	}
	p.Color = coloured(a.Getenv)
	return p
}

// coloured says whether a terminal's reader wants colour.
func coloured(getenv func(string) string) bool {
	return getenv("NO_COLOR") == "" && getenv("TERM") != "dumb"
}

// exactly demands a number of arguments, and says which.
func exactly(n int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != n {
			return usage("%s takes %s, got %d arguments; usage: %s", cmd.CommandPath(), what, len(args), cmd.UseLine())
		}
		return nil
	}
}
