package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/go-logr/logr"

	"github.com/roundhouse-dev/roundhouse/sandbox/fleet"
	"github.com/roundhouse-dev/roundhouse/sandbox/sandbox"
	"github.com/roundhouse-dev/roundhouse/sandbox/workload"
)

const (
	// startTimeout bounds the start of 30,000 nodes on a machine that does something else as well.
	startTimeout = 20 * time.Minute
	// workloadTimeout bounds the wait for the pods that up starts; a cluster without them is usable too.
	workloadTimeout = 2 * time.Minute
	// leaseDuration is what controllers have in production; nobody here waits for a new leader.
	leaseDuration = 15 * time.Second
	// stopTimeout bounds the end.
	stopTimeout = 15 * time.Second
)

// runUp starts a cluster and keeps it until ctx ends.
func runUp(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o, work, err := upOptions(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	bar := sandbox.NewBar(stdout)
	o.Progress = bar.Show
	starting, cancel := context.WithTimeoutCause(ctx, startTimeout, fmt.Errorf("not ready after %s", startTimeout))
	defer cancel()
	s, err := sandbox.Start(starting, o)
	if err != nil {
		bar.Clear()
		if ctx.Err() != nil {
			return nil // Ctrl-C while it started: nothing is left, and nothing failed.
		}
		return err
	}
	err = serve(ctx, s, work, bar, stdout)
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	return errors.Join(err, s.Stop(ending))
}

// upOptions reads the command line.
func upOptions(args []string, stderr io.Writer) (o sandbox.Options, work bool, err error) {
	set := flag.NewFlagSet("roundhouse-sandbox up", flag.ContinueOnError)
	set.SetOutput(stderr)
	set.IntVar(&o.Fleet.Nodes, "nodes", 8, "number of nodes, at most 100000")
	set.IntVar(&o.Fleet.GPUs, "gpus", 8, "GPUs a node, at most 64")
	set.IntVar(&o.Fleet.NodesPerRack, "rack", 8, "nodes a rack")
	set.IntVar(&o.Fleet.DevicePlugin, "device-plugin", 0, "how many of the nodes offer their GPUs by device plugin and not by DRA")
	set.BoolVar(&o.Fleet.ShiftNames, "shift-names", false, "give GPUs new names in the ResourceSlice when one has vanished")
	set.DurationVar(&o.Fleet.RebootTakes, "reboot", 5*time.Second, "how long a reboot takes")
	set.IntVar(&o.Controllers, "controllers", 1, "number of controllers, of which one leads; 0 starts none")
	set.StringVar(&o.StateDir, "state-dir", "", "where inject and kubeconfig look for this sandbox; .cache/sandbox by default")
	set.BoolVar(&work, "workloads", true, "run Jobs, a gang, a service and idle pods, enough for 64 nodes; none with more than 1000 nodes")
	verbose := set.Bool("v", false, "log what the simulation cannot do to standard error")
	if err := set.Parse(args); err != nil {
		return o, false, err
	}
	if set.NArg() > 0 {
		return o, false, fmt.Errorf("unexpected argument %q", set.Arg(0))
	}
	if o.Controllers == 0 {
		o.Controllers = -1
	}
	o.LeaseDuration = leaseDuration
	if *verbose {
		o.Logger = logr.FromSlogHandler(slog.NewTextHandler(stderr, nil))
	}
	if o.StateDir == "" {
		o.StateDir, err = sandbox.DefaultStateDir()
	}
	return o, work && !o.Fleet.Many(), err
}

// serve runs the workloads, says what there is, and waits.
func serve(ctx context.Context, s *sandbox.Sandbox, work bool, bar *sandbox.Bar, stdout io.Writer) error {
	running := 0
	if work {
		var err error
		if running, err = startWorkloads(ctx, s); err != nil && ctx.Err() == nil {
			return err
		}
	}
	o := s.Fleet().Options()
	bar.Done(s.Ready(), fmt.Sprintf("%d nodes, %d GPUs, %d racks, %d pods of tenants running", o.Nodes, o.Nodes*o.GPUs, o.Racks(), running))
	_, err := fmt.Fprintf(stdout, "Compressed: a reboot takes %s. Everything else is in real time.\n"+
		"export KUBECONFIG=%s\nroundhouse-sandbox inject xid79 %s 3\nCtrl-C ends it, and leaves nothing.\n", o.RebootTakes, s.Kubeconfig(), o.NodeName(0))
	if err != nil {
		return fmt.Errorf("writing to the terminal: %w", err)
	}
	return keep(ctx, s, stdout)
}

// keep waits until ctx ends. A controller that ends by itself is started again, as its Deployment would; anything else
// that ends is the end.
func keep(ctx context.Context, s *sandbox.Sandbox, stdout io.Writer) error {
	wanted := len(s.Controllers())
	for {
		select {
		case <-ctx.Done():
			return nil
		case died := <-s.Exited():
			if len(s.Controllers()) >= wanted {
				return died
			}
			again, err := s.StartController(ctx)
			if err != nil {
				return fmt.Errorf("%w (starting it again: %w)", died, err)
			}
			// What cannot be written is not said.
			_, _ = fmt.Fprintf(stdout, "a controller ended by itself; %s, process %d, runs in its place\n", again.Identity(), again.PID())
		}
	}
}

// startWorkloads fills about three quarters of the fleet's GPUs, with some of each kind, and returns how many pods run.
func startWorkloads(ctx context.Context, s *sandbox.Sandbox) (int, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, workloadTimeout, fmt.Errorf("not running after %s", workloadTimeout))
	defer cancel()
	running := 0
	list := workloads(s.Fleet().Options())
	for _, w := range list {
		if err := workload.Run(ctx, s.Client(), w); err != nil {
			return running, err
		}
	}
	for _, w := range list {
		if err := workload.WaitRunning(ctx, s.Client(), w); err != nil {
			return running, err
		}
		running += max(w.Count, 1)
	}
	return running, nil
}

// maxTenantNodes bounds what up runs: as much as fills three quarters of so many nodes.
const maxTenantNodes = 64

// workloads are what up runs. They are for DRA nodes, of which a gang needs eight to itself.
func workloads(o fleet.Options) []workload.Workload {
	nodes := o.Nodes - o.DevicePlugin
	if nodes < 1 {
		return nil
	}
	gpus := min(nodes, maxTenantNodes) * o.GPUs
	var out []workload.Workload
	if nodes >= 16 {
		out = append(out, workload.Workload{Kind: workload.Gang, Name: "train", Count: 8, GPUs: o.GPUs})
		gpus -= 8 * o.GPUs
	}
	return append(out,
		workload.Workload{Kind: workload.Jobs, Name: "batch", Count: max(1, gpus/2), GPUs: 1},
		workload.Workload{Kind: workload.Service, Name: "infer", Count: max(1, gpus/8), GPUs: 1},
		workload.Workload{Kind: workload.Prewarmed, Name: "warm", Count: max(1, gpus/8), GPUs: 1},
	)
}
