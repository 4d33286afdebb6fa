package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/go-logr/logr"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/roundhouse-dev/roundhouse/sandbox/fleet"
	"github.com/roundhouse-dev/roundhouse/sandbox/sandbox"
	"github.com/roundhouse-dev/roundhouse/sandbox/scenario"
	"github.com/roundhouse-dev/roundhouse/sandbox/scenarios"
	"github.com/roundhouse-dev/roundhouse/sandbox/stage"
)

// errNotSeen says that a scenario was played and that something of it was not seen.
var errNotSeen = errors.New("not everything that was expected was seen")

// runOptions are what `run` was asked.
type runOptions struct {
	names  []string
	nodes  int
	once   bool
	report string
}

// runRun plays scenarios one after the other, on clusters of their own.
func runRun(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o, err := parseRun(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	var list []*scenario.Scenario
	for _, name := range o.names {
		s, err := readScenario(name)
		if err != nil {
			return err
		}
		list = append(list, s)
	}
	r := &player{options: o, stdout: stdout}
	var errs []error
	parts := clusters(list)
	for i, part := range parts {
		errs = append(errs, r.part(ctx, part, !o.once && i == len(parts)-1))
		if ctx.Err() != nil {
			break
		}
	}
	return errors.Join(errs...)
}

// player plays what one `run` was asked for.
type player struct {
	options runOptions
	stdout  io.Writer
	reports []*scenario.Report
}

// clusters divides scenarios into those that can share a cluster: one that leaves its traces is the last on its, and one that needs
// other features of the API server has another.
func clusters(list []*scenario.Scenario) [][]*scenario.Scenario {
	var parts [][]*scenario.Scenario
	fresh, features := true, false
	for _, s := range list {
		if fresh || features != s.Fleet.EvictionRequests {
			parts = append(parts, nil)
		}
		parts[len(parts)-1] = append(parts[len(parts)-1], s)
		fresh, features = s.Leave, s.Fleet.EvictionRequests
	}
	return parts
}

// part plays scenarios on a cluster of their own, which stays until Ctrl-C where keep says so.
func (r *player) part(ctx context.Context, part []*scenario.Scenario, keep bool) error {
	options := sandbox.Options{Fleet: fleetOf(part, r.options.nodes)}
	if keep {
		var err error
		if options.StateDir, err = sandbox.DefaultStateDir(); err != nil {
			return err
		}
	}
	return withStage(ctx, options, r.stdout, func(ctx context.Context, s *stage.Stage, bar *sandbox.Bar) error {
		bar.Done(s.Sandbox().Ready(), fleetText(s.Sandbox()))
		err := r.play(ctx, s, part)
		if !keep || ctx.Err() != nil {
			return err
		}
		return errors.Join(err, linger(ctx, s, r.stdout))
	})
}

func parseRun(args []string, stderr io.Writer) (runOptions, error) {
	var o runOptions
	set := flag.NewFlagSet("roundhouse-sandbox run", flag.ContinueOnError)
	set.SetOutput(stderr)
	set.IntVar(&o.nodes, "nodes", 0, "number of nodes; what the scenarios ask for by default")
	set.BoolVar(&o.once, "once", false, "end when the scenarios have; without it the cluster stays until Ctrl-C")
	set.StringVar(&o.report, "report", "", "write a JSON report to this file")
	set.Usage = func() {
		_, _ = fmt.Fprintf(stderr, "Usage: roundhouse-sandbox run SCENARIO... [--once] [--report FILE] [--nodes N]\n\n"+
			"SCENARIO is one that `roundhouse-sandbox scenarios` lists, or a file. Exit code 0 only if all was seen.\n\n")
		set.PrintDefaults()
	}
	// Names and flags may come in any order, as people write them.
	for len(args) > 0 {
		if err := set.Parse(args); err != nil {
			return o, err
		}
		if args = set.Args(); len(args) > 0 {
			o.names, args = append(o.names, args[0]), args[1:]
		}
	}
	if len(o.names) == 0 {
		return o, errors.New("name a scenario; `roundhouse-sandbox scenarios` lists them")
	}
	return o, nil
}

// readScenario reads a shipped scenario, or a file.
func readScenario(name string) (*scenario.Scenario, error) {
	if !strings.ContainsAny(name, "./") {
		return scenarios.Get(name)
	}
	data, err := os.ReadFile(filepath.Clean(name))
	if err != nil {
		return nil, fmt.Errorf("reading a scenario: %w", err)
	}
	return scenario.Parse(name, data)
}

// fleetOf is a fleet that all the scenarios can be played on.
func fleetOf(list []*scenario.Scenario, nodes int) fleet.Options {
	var o fleet.Options
	for _, s := range list {
		o.Nodes = max(o.Nodes, s.Fleet.Nodes)
		o.GPUs = max(o.GPUs, s.Fleet.GPUs)
		o.DevicePlugin = max(o.DevicePlugin, s.Fleet.DevicePlugin)
		o.EvictionRequests = o.EvictionRequests || s.Fleet.EvictionRequests
		o.RebootTakes = max(o.RebootTakes, s.Fleet.Reboot.Of())
	}
	if nodes > 0 {
		o.Nodes = nodes
	}
	return o
}

func fleetText(s *sandbox.Sandbox) string {
	o := s.Fleet().Options()
	return fmt.Sprintf("%d nodes, %d GPUs, %d racks", o.Nodes, o.Nodes*o.GPUs, o.Racks())
}

// withStage starts a cluster with a progress bar, uses it and takes it down.
func withStage(ctx context.Context, o sandbox.Options, stdout io.Writer, use func(context.Context, *stage.Stage, *sandbox.Bar) error) error {
	// kubectl-roundhouse runs in this process; what it logs is no part of the story.
	ctrllog.SetLogger(logr.Discard())
	bar := sandbox.NewBar(stdout)
	o.Progress = bar.Show
	starting, cancel := context.WithTimeoutCause(ctx, startTimeout, fmt.Errorf("not ready after %s", startTimeout))
	defer cancel()
	s, err := stage.Start(starting, o)
	if err != nil {
		bar.Clear()
		return fmt.Errorf("starting the sandbox: %w", err)
	}
	watched, stop := s.Supervise(ctx, stdout)
	err = use(watched, s, bar)
	stop()
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	return errors.Join(err, s.Stop(ending))
}

// play plays scenarios one after the other, and writes the reports so far.
func (r *player) play(ctx context.Context, s *stage.Stage, list []*scenario.Scenario) error {
	var errs []error
	for _, one := range list {
		report, err := scenario.NewRunner(one, s, scenario.NewPlainNarrator(r.stdout)).Run(ctx)
		r.reports = append(r.reports, report)
		if err == nil && !report.Passed {
			err = errNotSeen
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("scenario %s: %w", one.Name, err))
		}
		if ctx.Err() != nil {
			break
		}
	}
	if r.options.report != "" {
		errs = append(errs, scenario.WriteReports(r.options.report, r.reports))
	}
	return errors.Join(errs...)
}

// linger keeps the cluster until Ctrl-C.
func linger(ctx context.Context, s *stage.Stage, stdout io.Writer) error {
	if _, err := fmt.Fprintf(stdout, "export KUBECONFIG=%s\nCtrl-C ends it, and leaves nothing.\n", s.Sandbox().Kubeconfig()); err != nil {
		return fmt.Errorf("writing to the terminal: %w", err)
	}
	return untilStopped(ctx)
}

// untilStopped waits for Ctrl-C, which is no error, or for a process of the cluster to die.
func untilStopped(ctx context.Context) error {
	<-ctx.Done()
	if cause := context.Cause(ctx); errors.Is(cause, stage.ErrEnded) {
		return cause
	}
	return nil
}

// runScenarios lists the scenarios.
func runScenarios(_ context.Context, args []string, stdout, _ io.Writer) error {
	if len(args) > 0 {
		return fmt.Errorf("unexpected argument %q", args[0])
	}
	names, err := scenarios.Names()
	if err != nil {
		return err
	}
	for _, name := range names {
		s, err := scenarios.Get(name)
		if err != nil {
			return err
		}
		text := fmt.Sprintf("%s: %s\n", s.Name, s.Title)
		for _, line := range scenario.Fold(s.About, scenario.Width-2) {
			text += "  " + line + "\n"
		}
		text += fmt.Sprintf("  %d nodes at least; ends after %s at most; compressed: %s\n\n", s.Fleet.Nodes, s.Timeout.Of().Round(time.Second), s.Compressed)
		if _, err := io.WriteString(stdout, text); err != nil {
			return fmt.Errorf("writing to the terminal: %w", err)
		}
	}
	return nil
}
