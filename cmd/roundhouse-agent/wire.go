package main

import (
	"context"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/agent"
	"github.com/roundhouse-dev/roundhouse/internal/checks"
	"github.com/roundhouse-dev/roundhouse/internal/health/kernellog"
	"github.com/roundhouse-dev/roundhouse/internal/machine"
	"github.com/roundhouse-dev/roundhouse/internal/metrics/plain"
	"github.com/roundhouse-dev/roundhouse/internal/podresources"
	"github.com/roundhouse-dev/roundhouse/internal/remedy/reboot"
	"github.com/roundhouse-dev/roundhouse/internal/remedy/reset"
)

// wire puts the agent together.
func wire(ctx context.Context, f *flags) (*agent.Node, *plain.Registry, error) {
	config, err := agent.Config(f.server, f.caFile, f.tokenFile)
	if err != nil {
		return nil, nil, err
	}
	config.UserAgent = "roundhouse-agent/" + version
	api, err := agent.NewClient(config, nil, f.node)
	if err != nil {
		return nil, nil, err
	}
	host := machine.NewHost(machine.Options{Root: f.hostRoot, StateDir: f.stateDir})
	var self lateNode
	f.checks.Machine, f.checks.NodeName, f.checks.Node = host, f.node, &self
	set, err := f.set(ctx, host)
	if err != nil {
		return nil, nil, err
	}
	registry := &plain.Registry{}
	o := agent.Options{
		Name: f.node, Version: version, Machine: host, API: api, DailyLimit: f.dailyLimit,
		// A process on a real machine lives in one boot, and so do its checks.
		Checks:       func() []agent.Scheduled { return set.Scheduled },
		ResetDomains: set.ResetDomains,
		Metrics:      agent.NewMetrics(registry, version, f.checks.AcceptInjected),
	}
	countLines(registry, set.Log)
	if f.podResources != "" {
		o.Holdings = podresources.Helper{Programs: host, Path: beside("roundhouse-podresources"), Socket: f.podResources}
		o.Parts = set.Parts
	}
	if f.dailyLimit == 0 {
		o.DailyLimit = -1
	}
	if !f.observeOnly {
		o.Executors = map[v1alpha1.ActionType]agent.Executor{
			v1alpha1.ActionReboot:      reboot.New(host),
			v1alpha1.ActionResetDevice: reset.New(host, set.Locate, set.ResetDomains),
		}
	}
	if f.checks.AcceptInjected {
		logr.FromContextOrDiscard(ctx).Info("Believing kernel-log lines that any process can write: this is for tests only")
	}
	node, err := agent.New(o)
	self.Store(node)
	return node, registry, err
}

// set makes the checks of this machine, with those that an operator adds.
func (f *flags) set(ctx context.Context, host *machine.Host) (*checks.Set, error) {
	o := f.checks
	o.Every, o.Programs, o.Files, o.Journal = f.every, host, host, host
	o.CELHelper = beside("roundhouse-cel")
	var warnings []string
	var err error
	if o.NPD, warnings, err = checks.ReadNPD(f.npd); err != nil {
		return nil, err
	}
	for _, w := range warnings {
		logr.FromContextOrDiscard(ctx).Info("A configuration of node-problem-detector is odd", "warning", w)
	}
	if o.Custom, err = checks.ReadCustom(f.customDir); err != nil {
		return nil, err
	}
	return checks.New(ctx, o)
}

// beside is a program that was installed with this one; where it is not known where that is, its bare name finds none.
func beside(program string) string {
	self, err := os.Executable()
	if err != nil {
		return program
	}
	return filepath.Join(filepath.Dir(self), program)
}

// lateNode is the Node of an agent that is yet to be made: the checks ask it, and it runs the checks.
type lateNode struct{ atomic.Pointer[agent.Node] }

func (l *lateNode) Labels(age time.Duration) (map[string]string, bool) {
	if n := l.Load(); n != nil {
		return n.Labels(age)
	}
	return nil, false
}

func (l *lateNode) Offered(resource string) (int, bool) {
	if n := l.Load(); n != nil {
		return n.Offered(resource)
	}
	return 0, false
}

func (l *lateNode) Faults() []v1alpha1.Fault {
	if n := l.Load(); n != nil {
		return n.Faults()
	}
	return nil
}

// countLines shows what became of kernel-log lines: a line refused may be somebody asking for a reboot, and a line lost
// a fault that nobody saw.
func countLines(registry *plain.Registry, log *kernellog.Check) {
	for _, m := range []struct {
		name, help string
		of         func(kernellog.Stats) uint64
	}{
		{"read", "Records read.", func(s kernellog.Stats) uint64 { return s.Records }},
		{"matched", "Records that told of a fault.", func(s kernellog.Stats) uint64 { return s.Matched }},
		{"refused", "Records of a known form that were not the kernel's own.", func(s kernellog.Stats) uint64 { return s.Refused }},
		{"lost", "Records that the kernel overwrote before they were read.", func(s kernellog.Stats) uint64 { return s.Lost }},
	} {
		registry.CounterFunc("roundhouse_agent_kernel_log_"+m.name+"_total", m.help, func() float64 { return float64(m.of(log.Stats())) })
	}
}
