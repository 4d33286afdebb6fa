// Package bench measures Roundhouse on a real API server, each figure beside its baseline: the same least writes, made by
// a bare client on the same cluster in the same run. On a shared machine only the ratios mean anything.
//
// There are two clusters, one after the other. On the small one each agent is a goroutine with its own watch, as on a real
// node: delays and requests are measured there, one fault at a time, the requests from the API server's audit log, so that
// none is missed. On the large one many faults happen at once, and the controller's memory is looked at. The controller
// is bin/roundhouse-controller as a process of its own throughout.
package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/roundhouse-dev/roundhouse/sandbox/fleet"
	"github.com/roundhouse-dev/roundhouse/sandbox/sandbox"
)

// Options say what is measured. The zero value of a field means its default.
type Options struct {
	// Nodes is the size of the large fleet; 30,000.
	Nodes int
	// Faults is how many happen at once in it; 1,000.
	Faults int
	// GPUs is how many devices a node has; 8.
	GPUs int
	// Pods is how many pods of tenants exist in the large cluster besides; none.
	Pods int
	// Lines is how many kernel lines are timed, one after the other; 200.
	Lines int
	// Repairs is how many whole incidents are counted; 8.
	Repairs int
	// Idle is how long the agent is looked at with nothing to tell; it is not when zero.
	Idle time.Duration
	// NPD is a program of node-problem-detector's to run beside it, and NPDConfig the directory of its configurations.
	NPD, NPDConfig string
	// NVML is a file to put where NVIDIA's library is on the agent's machine, such as that of the tests
	// (internal/machine/nvml/nvmltest); there is none when empty.
	NVML string
	// DrainNodes is how many nodes are drained at once, 750, and DrainPods how many pods each has, 15; with OnlyDrain.
	DrainNodes, DrainPods int
	// Only is one of the parts below; the two clusters when empty.
	Only string
	// Progress is told what is under way. It may be nil.
	Progress func(what string)
}

// Quick is what takes a minute or two: enough to see whether something broke, too little to quote.
func Quick() Options { return Options{Nodes: 1200, Faults: 200, Lines: 30, Repairs: 2} }

// The parts that may be asked for alone.
const (
	OnlySmall = "small"
	OnlyLarge = "large"
	OnlyIdle  = "idle"
	OnlyDrain = "drain"
)

// maxSmall bounds the small fleet, whose nodes each cost goroutines and pods.
const maxSmall = 1000

func (o Options) withDefaults() Options {
	for _, field := range []struct {
		value     *int
		otherwise int
	}{{&o.Nodes, 30_000}, {&o.Faults, 1000}, {&o.GPUs, 8}, {&o.Lines, 200}, {&o.Repairs, 8}, {&o.DrainNodes, 750}, {&o.DrainPods, 15}} {
		if *field.value == 0 {
			*field.value = field.otherwise
		}
	}
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
	return o
}

func (o Options) validate() error {
	switch {
	case o.Only != "" && !slices.Contains([]string{OnlySmall, OnlyLarge, OnlyIdle, OnlyDrain}, o.Only):
		return fmt.Errorf("no part %q: want %s, %s, %s or %s", o.Only, OnlySmall, OnlyLarge, OnlyIdle, OnlyDrain)
	case o.DrainNodes < guardedEvery || o.DrainNodes > maxSmall-spares:
		return fmt.Errorf("drain %d nodes: want %d to %d", o.DrainNodes, guardedEvery, maxSmall-spares)
	case o.DrainPods < 1 || o.DrainPods > 100:
		return fmt.Errorf("drain %d pods a node: want 1 to 100", o.DrainPods)
	case o.Only == OnlyIdle && o.Idle <= 0:
		return fmt.Errorf("idle for %s: say for how long", o.Idle)
	case o.Faults < 1 || o.Faults > o.Nodes:
		return fmt.Errorf("%d faults in %d nodes: want one at least, and at most one a node", o.Faults, o.Nodes)
	case o.Lines < 1 || o.Lines > maxSmall-repairRack:
		return fmt.Errorf("%d lines: want 1 to %d", o.Lines, maxSmall-repairRack)
	case o.Repairs < 1 || o.Repairs > repairRack:
		return fmt.Errorf("%d repairs: want 1 to %d", o.Repairs, repairRack)
	case o.Pods < 0 || o.Pods > maxPods:
		return fmt.Errorf("%d pods: want 0 to %d", o.Pods, maxPods)
	}
	return nil
}

// Report is what was measured.
type Report struct {
	// Machine is what it was measured on.
	Machine Machine `json:"machine"`
	Nodes   int     `json:"nodes"`
	Faults  int     `json:"faults"`
	GPUs    int     `json:"gpus"`
	Pods    int     `json:"pods"`
	Lines   int     `json:"lines"`
	// Visible and Quarantine are the times from a kernel line, and those of a bare client's writes.
	Visible    Pair `json:"visible"`
	Quarantine Pair `json:"quarantine"`
	// Kmsg are the times from a line in the real /dev/kmsg to the fault in the API.
	Kmsg     Spread    `json:"kmsg"`
	Requests *Requests `json:"requests"`
	Burst    *Burst    `json:"burst,omitempty"`
	Usage    []Usage   `json:"usage"`
	Idle     *Idle     `json:"idle,omitempty"`
	Drains   *Drains   `json:"drains,omitempty"`
	// Missing says what could not be measured, and why.
	Missing []string `json:"missing,omitempty"`
}

// Machine is the size of the machine, and how busy it was.
type Machine struct {
	CPUs       int    `json:"cpus"`
	MemoryMiB  int    `json:"memoryMiB"`
	LoadBefore string `json:"loadBefore"`
	LoadAfter  string `json:"loadAfter"`
}

const (
	// startTimeout bounds the start of a cluster, and everyTimeout one measurement.
	startTimeout = 20 * time.Minute
	everyTimeout = 10 * time.Minute
	stopTimeout  = 30 * time.Second
	// leaseDuration is the controller's own default. The sandbox's is shorter, and lost where two cores do everything.
	leaseDuration = 15 * time.Second
)

// Run measures everything.
func Run(ctx context.Context, given Options) (*Report, error) {
	o := given.withDefaults()
	if err := o.validate(); err != nil {
		return nil, err
	}
	r := &Report{Nodes: o.Nodes, Faults: o.Faults, GPUs: o.GPUs, Pods: o.Pods, Lines: o.Lines,
		Machine: Machine{CPUs: runtime.NumCPU(), MemoryMiB: totalMemory(), LoadBefore: load()}}
	if o.Only == OnlySmall || o.Only == "" {
		if err := small(ctx, o, r); err != nil {
			return nil, fmt.Errorf("measuring on the small cluster: %w", err)
		}
	}
	if o.Only == OnlyLarge || o.Only == "" {
		if err := large(ctx, o, r); err != nil {
			return nil, fmt.Errorf("measuring on the large cluster: %w", err)
		}
	}
	if o.Only == OnlyIdle {
		if err := idle(ctx, o, r); err != nil {
			return nil, fmt.Errorf("measuring what is idle: %w", err)
		}
	}
	if o.Only == OnlyDrain {
		if err := drains(ctx, o, r); err != nil {
			return nil, fmt.Errorf("measuring drains: %w", err)
		}
	}
	r.Machine.LoadAfter = load()
	return r, nil
}

// small measures delays and requests.
func small(ctx context.Context, o Options, r *Report) error {
	audit, err := newAudit()
	if err != nil {
		return err
	}
	defer audit.remove()
	so := sandbox.Options{APIServerArgs: audit.args(), Fleet: fleet.Options{
		Nodes: o.Lines + repairRack, GPUs: o.GPUs, NodesPerRack: repairRack, OwnWatches: maxSmall, RebootTakes: 2 * time.Second,
	}}
	// The last rack, whole, is for repairs.
	so.Fleet.Nodes += (repairRack - so.Fleet.Nodes%repairRack) % repairRack
	return with(ctx, so, o, func(ctx context.Context, s *sandbox.Sandbox) error {
		c, err := newCluster(ctx, s, o)
		if err != nil {
			return err
		}
		defer c.close()
		if err := c.bareDelays(ctx, r); err != nil {
			return err
		}
		if err := c.startController(ctx); err != nil {
			return err
		}
		if err := c.delays(ctx, r); err != nil {
			return err
		}
		if r.Requests, err = c.countRequests(ctx, audit); err != nil {
			return err
		}
		return errors.Join(c.agentUsage(ctx, r), c.kmsgDelays(ctx, r))
	})
}

// large measures many faults at once.
func large(ctx context.Context, o Options, r *Report) error {
	so := sandbox.Options{Fleet: fleet.Options{Nodes: o.Nodes, GPUs: o.GPUs, NodesPerRack: 8, RebootTakes: 2 * time.Second}}
	return with(ctx, so, o, func(ctx context.Context, s *sandbox.Sandbox) error {
		c, err := newCluster(ctx, s, o)
		if err != nil {
			return err
		}
		defer c.close()
		if err := c.fillPods(ctx, o.Pods); err != nil {
			return err
		}
		r.Burst = &Burst{Concurrency: concurrency}
		if err := c.bareBurst(ctx, r.Burst); err != nil {
			return err
		}
		if err := c.startController(ctx); err != nil {
			return err
		}
		return c.burst(ctx, r)
	})
}

// with starts a cluster whose controller has stopped, uses it and takes it down.
func with(ctx context.Context, so sandbox.Options, o Options, use func(context.Context, *sandbox.Sandbox) error) error {
	started, cancel := context.WithTimeoutCause(ctx, startTimeout, fmt.Errorf("not ready after %s", startTimeout))
	defer cancel()
	stage := ""
	so.LeaseDuration = leaseDuration
	so.Progress = func(p sandbox.Progress) {
		if p.Stage != stage {
			stage = p.Stage
			o.Progress(fmt.Sprintf("%d nodes: %s", so.Fleet.Nodes, stage))
		}
	}
	s, err := sandbox.Start(started, so)
	if err != nil {
		return err
	}
	watched, lost := context.WithCancelCause(ctx)
	defer lost(nil)
	go func() {
		select {
		case err := <-s.Exited(): // nothing that is waited for will come
			lost(err)
		case <-watched.Done():
		}
	}()
	err = use(watched, s)
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	return errors.Join(err, s.Stop(end))
}

// Write writes a report as JSON.
func (r *Report) Write(path string) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding the report: %w", err)
	}
	if err := os.WriteFile(path, append(data, '\n'), 0o600); err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	return nil
}

// load is the load average of one, five and fifteen minutes; empty where nobody says.
func load() string {
	data, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return ""
	}
	return strings.Join(strings.Fields(string(data))[:3], " ")
}
