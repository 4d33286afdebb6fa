package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"time"

	"github.com/go-logr/logr"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/roundhouse-dev/roundhouse/sandbox/bench"
)

// runBench measures, and prints the table of docs/benchmarks.md.
func runBench(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o, report, err := benchOptions(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	ctrllog.SetLogger(logr.Discard())
	began := time.Now()
	o.Progress = func(what string) { _, _ = fmt.Fprintf(stderr, "  %4.0fs %s\n", time.Since(began).Seconds(), what) } // who cannot read it misses only that
	r, err := bench.Run(ctx, o)
	if err != nil {
		return err
	}
	if report != "" {
		if err := r.Write(report); err != nil {
			return err
		}
	}
	return r.Print(stdout)
}

// benchOptions reads the command line.
func benchOptions(args []string, stderr io.Writer) (o bench.Options, report string, err error) {
	set := flag.NewFlagSet("roundhouse-sandbox bench", flag.ContinueOnError)
	set.SetOutput(stderr)
	quick := set.Bool("quick", false, "a few minutes on a small fleet: too little to quote")
	nodes := set.Int("nodes", 0, "nodes of the large fleet; 30000 by default")
	faults := set.Int("faults", 0, "faults at once in it; 1000 by default")
	gpus := set.Int("gpus", 0, "devices a node; 8 by default")
	pods := set.Int("pods", 0, "pods that exist besides in the large fleet; none by default")
	lines := set.Int("lines", 0, "kernel lines that are timed; 200 by default")
	repairs := set.Int("repairs", 0, "repairs whose requests are counted; 8 by default")
	only := set.String("only", "", "small, large, idle or drain: measure that alone")
	drainNodes := set.Int("drain-nodes", 0, "with -only drain: how many nodes are drained at once; 750 by default")
	drainPods := set.Int("drain-pods", 0, "with -only drain: how many pods a node has; 15 by default")
	idle := set.Duration("idle", time.Hour, "with -only idle: how long the agent has nothing to tell")
	npd := set.String("npd", "", "with -only idle: node-problem-detector's program, to run beside it")
	nvml := set.String("nvml", "", "with -only idle: a libnvidia-ml.so.1 for the agent's machine")
	npdConfig := set.String("npd-config", "", "with -npd: the directory of its configurations")
	set.StringVar(&report, "report", "", "write a JSON report to this file")
	if err := set.Parse(args); err != nil {
		return o, "", err
	}
	if set.NArg() > 0 {
		return o, "", fmt.Errorf("unexpected argument %q", set.Arg(0))
	}
	if *quick {
		o = bench.Quick()
	}
	o.Only, o.Idle, o.NPD, o.NPDConfig, o.NVML = *only, *idle, *npd, *npdConfig, *nvml
	for _, one := range []struct{ given, field *int }{
		{nodes, &o.Nodes}, {faults, &o.Faults}, {gpus, &o.GPUs}, {pods, &o.Pods}, {lines, &o.Lines}, {repairs, &o.Repairs},
		{drainNodes, &o.DrainNodes}, {drainPods, &o.DrainPods},
	} {
		if *one.given != 0 {
			*one.field = *one.given
		}
	}
	return o, report, nil
}
