package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/roundhouse-dev/roundhouse/sandbox/demo"
	"github.com/roundhouse-dev/roundhouse/sandbox/fleet"
	"github.com/roundhouse-dev/roundhouse/sandbox/sandbox"
	"github.com/roundhouse-dev/roundhouse/sandbox/scenario"
	"github.com/roundhouse-dev/roundhouse/sandbox/scenarios"
	"github.com/roundhouse-dev/roundhouse/sandbox/stage"
	"github.com/roundhouse-dev/roundhouse/sandbox/workload"
)

// acts are the scenarios that the demonstration plays.
func acts() []string { return []string{"one-of-eight", "never-repaired", "nothing-wrong"} }

// runDemo plays the demonstration.
func runDemo(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	set := flag.NewFlagSet("roundhouse-sandbox demo", flag.ContinueOnError)
	set.SetOutput(stderr)
	once := set.Bool("once", false, "end when the acts have; without it the cluster stays until Ctrl-C")
	report := set.String("report", "", "write a JSON report to this file")
	if err := set.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return fmt.Errorf("reading the command line: %w", err)
	}
	if set.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", set.Arg(0))
	}
	list, err := readActs()
	if err != nil {
		return err
	}
	o := sandbox.Options{Fleet: fleetOf(list, 64)}
	o.Fleet.CheckEvery = 2 * time.Second
	if !*once {
		if o.StateDir, err = sandbox.DefaultStateDir(); err != nil {
			return err
		}
	}
	page := demo.NewPage(stdout)
	page.Text(scenario.Bold, "Roundhouse sandbox: real API server, etcd, scheduler, controllers; simulated kubelets and GPUs")
	return withStage(ctx, o, stdout, func(ctx context.Context, s *stage.Stage, bar *sandbox.Bar) error {
		running, err := tenants(ctx, s.Sandbox())
		if err != nil {
			return err
		}
		bar.Done(s.Sandbox().Ready(), fmt.Sprintf("%s, %d pods running", fleetText(s.Sandbox()), running))
		page.Folded("Compressed: " + list[0].Compressed + ", checks every 30s to 2s. Decisions and evictions are in real time.")
		err = playActs(ctx, s, list, *report, page)
		if *once || ctx.Err() != nil {
			return err
		}
		whatNext(page, s.Sandbox().Kubeconfig())
		return errors.Join(err, page.Err(), untilStopped(ctx))
	})
}

// whatNext tells what to try on the cluster that stays.
func whatNext(page *scenario.Page, kubeconfig string) {
	path := ""
	if self, err := os.Executable(); err == nil {
		path = " PATH=" + filepath.Dir(self) + ":$PATH" // where kubectl-roundhouse is too.
	}
	for _, line := range []string{
		"", "export KUBECONFIG=" + kubeconfig + path,
		"Next: kubectl roundhouse why gpu-40",
		"      roundhouse-sandbox inject xid79 gpu-05 3",
		"      kubectl roundhouse stop --reason \"look first\"",
		"Ctrl-C ends it, and leaves nothing.",
	} {
		page.Text(scenario.Plain, line)
	}
}

func readActs() ([]*scenario.Scenario, error) {
	var list []*scenario.Scenario
	for _, name := range acts() {
		s, err := scenarios.Get(name)
		if err != nil {
			return nil, err
		}
		s.Leave = true // the next act begins where this one ends.
		list = append(list, s)
	}
	return list, nil
}

// playActs plays one act after the other on one clock, and tells the table.
func playActs(ctx context.Context, s *stage.Stage, list []*scenario.Scenario, report string, page *scenario.Page) error {
	began := time.Now()
	var reports []*scenario.Report
	var errs []error
	for i, one := range list {
		r, err := scenario.NewRunner(one, s, demo.NewTeller(page, i+1, time.Since(began))).Run(ctx)
		reports = append(reports, r)
		if err != nil {
			errs = append(errs, fmt.Errorf("act %d: %w", i+1, err))
			break
		}
	}
	if !demo.Table(page, reports) {
		errs = append(errs, errNotSeen)
	}
	if report != "" {
		errs = append(errs, scenario.WriteReports(report, reports))
	}
	return errors.Join(append(errs, page.Err())...)
}

// tenants runs what the fleet has to do meanwhile, in racks of which no act needs a node that is free.
func tenants(ctx context.Context, s *sandbox.Sandbox) (int, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, workloadTimeout, fmt.Errorf("not running after %s", workloadTimeout))
	defer cancel()
	rack := func(name string) map[string]string { return map[string]string{fleet.LabelRack: name} }
	list := []workload.Workload{
		{Kind: workload.Gang, Name: "pretrain", Count: 8, NodeSelector: rack("r1")},
		{Kind: workload.Jobs, Name: "eval", Count: 56, NodeSelector: rack("r2")},
		{Kind: workload.Service, Name: "chat", Count: 48, NodeSelector: rack("r4")},
		{Kind: workload.Prewarmed, Name: "warm", Count: 40, NodeSelector: rack("r5")},
		{Kind: workload.Jobs, Name: "tune", Count: 56, NodeSelector: rack("r7")},
	}
	for _, w := range list {
		if err := workload.Run(ctx, s.Client(), w); err != nil {
			return 0, fmt.Errorf("starting tenants: %w", err)
		}
	}
	running := 0
	for _, w := range list {
		if err := workload.WaitRunning(ctx, s.Client(), w); err != nil {
			return 0, fmt.Errorf("starting tenants: %w", err)
		}
		running += w.Count
	}
	return running, nil
}
