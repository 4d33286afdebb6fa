package main

import (
	"context"
	"sync/atomic"

	"github.com/go-logr/logr"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/agent"
	"github.com/roundhouse-dev/roundhouse/internal/health/kernellog"
	"github.com/roundhouse-dev/roundhouse/internal/health/pci"
	"github.com/roundhouse-dev/roundhouse/internal/machine"
	"github.com/roundhouse-dev/roundhouse/internal/metrics/plain"
	"github.com/roundhouse-dev/roundhouse/internal/remedy/reboot"
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
	registry := &plain.Registry{}
	var log atomic.Pointer[kernellog.Check]
	o := agent.Options{
		Name: f.node, Version: version, Machine: host, API: api, DailyLimit: f.dailyLimit,
		Checks:  func() []agent.Scheduled { return checks(f, host, &log) },
		Metrics: agent.NewMetrics(registry, version, f.acceptInjected),
	}
	countLines(registry, &log)
	if f.dailyLimit == 0 {
		o.DailyLimit = -1
	}
	if !f.observeOnly {
		o.Executors = map[v1alpha1.ActionType]agent.Executor{v1alpha1.ActionReboot: reboot.New(host)}
	}
	if f.acceptInjected {
		logr.FromContextOrDiscard(ctx).Info("Believing kernel-log lines that any process can write: this is for tests only")
	}
	node, err := agent.New(o)
	return node, registry, err
}

// checks makes the checks of one boot. log, where there is one, is told of the check that reads the kernel log.
func checks(f *flags, host machine.Machine, log *atomic.Pointer[kernellog.Check]) []agent.Scheduled {
	lines := kernellog.New(kernellog.Options{Machine: host, AcceptInjected: f.acceptInjected})
	if log != nil {
		log.Store(lines)
	}
	bus := pci.New(pci.Options{Machine: host, Match: f.matches, UUID: lines.UUID})
	return []agent.Scheduled{{Check: lines, Every: f.every}, {Check: bus, Every: f.every}}
}

// countLines shows what became of kernel-log lines: a line refused may be somebody asking for a reboot, and a line lost
// a fault that nobody saw.
func countLines(registry *plain.Registry, log *atomic.Pointer[kernellog.Check]) {
	for _, m := range []struct {
		name, help string
		of         func(kernellog.Stats) uint64
	}{
		{"read", "Records read.", func(s kernellog.Stats) uint64 { return s.Records }},
		{"matched", "Records that told of a fault.", func(s kernellog.Stats) uint64 { return s.Matched }},
		{"refused", "Records of a known form that were not the kernel's own.", func(s kernellog.Stats) uint64 { return s.Refused }},
		{"lost", "Records that the kernel overwrote before they were read.", func(s kernellog.Stats) uint64 { return s.Lost }},
	} {
		registry.CounterFunc("roundhouse_agent_kernel_log_"+m.name+"_total", m.help, func() float64 {
			check := log.Load()
			if check == nil {
				return 0
			}
			return float64(m.of(check.Stats()))
		})
	}
}
