// Package checks puts together what is looked at on a machine: every check that there is, and those that an operator adds.
// The agent, its check command and its replay share it, so that all three judge alike.
package checks

import (
	"context"
	"fmt"
	"time"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/agent"
	"github.com/roundhouse-dev/roundhouse/internal/health"
	"github.com/roundhouse-dev/roundhouse/internal/health/aer"
	"github.com/roundhouse-dev/roundhouse/internal/health/amdgpu"
	"github.com/roundhouse-dev/roundhouse/internal/health/custom"
	"github.com/roundhouse-dev/roundhouse/internal/health/infiniband"
	"github.com/roundhouse-dev/roundhouse/internal/health/kernellog"
	healthnpd "github.com/roundhouse-dev/roundhouse/internal/health/npd"
	"github.com/roundhouse-dev/roundhouse/internal/health/nvidia"
	"github.com/roundhouse-dev/roundhouse/internal/health/pci"
	"github.com/roundhouse-dev/roundhouse/internal/machine"
	"github.com/roundhouse-dev/roundhouse/internal/npd"
)

const (
	// nvmlEvery is the time between two rounds of the checks that ask NVML, and nvmlAge how old an answer of its may be. A
	// round starts a process: twice a minute would be too much for what an idle agent may use.
	nvmlEvery = time.Minute
	nvmlAge   = 40 * time.Second
	// nvmlTimeout is longer than one question may take, so that the check itself can say what hung.
	nvmlTimeout = time.Minute
)

// Node is what checks may ask of the Node; see agent.Node.
type Node interface {
	Labels(age time.Duration) (map[string]string, bool)
	Offered(resource string) (int, bool)
	Faults() []v1alpha1.Fault
}

// Options say what is looked at. Only Machine has no default.
type Options struct {
	Machine machine.Machine
	// Programs, Files and Journal are for checks that an operator adds; without them there can be none.
	Programs machine.ProgramRunner
	Files    machine.FileTailer
	Journal  machine.JournalReader
	// Every is the time between two looks of a check that nothing hurries; 30 s when zero.
	Every time.Duration
	// AcceptInjected believes kernel lines that processes wrote. It is for tests.
	AcceptInjected bool
	// Accelerators are further devices to watch, and Declared is what they must have.
	Accelerators []pci.Match
	Declared     pci.Declared
	// NoKernelLog leaves out the check of the kernel log: where it cannot be read, a check that is Unknown for ever would keep
	// every round of checks from completing.
	NoKernelLog bool
	// NoNVML leaves out the checks that ask NVIDIA's library.
	NoNVML bool
	// Ports are left out of the check infiniband, and Rates are what the others must run at.
	Ports []infiniband.Pattern
	Rates []infiniband.Rate
	// NPD and Custom are the checks that an operator adds. AllowRepair lets NPD's health-checker restart services.
	NPD         []*npd.Config
	Custom      []custom.Config
	AllowRepair bool
	// CELHelper is the program that evaluates the expressions of custom checks.
	CELHelper string
	// NodeName is the Node's name, and Node the rest of it; nil where there is no cluster.
	NodeName string
	Node     Node
	// Now is the clock; time.Now when nil.
	Now func() time.Time
}

// Set is the checks of one boot.
type Set struct {
	Scheduled []agent.Scheduled
	// Log is the one of them that reads the kernel log.
	Log *kernellog.Check

	o      Options
	bus    *pci.Check
	nvidia *nvidia.Source
}

// New makes the checks. What an operator added and cannot be used is an error that says what to mend.
func New(ctx context.Context, o Options) (*Set, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	s := &Set{o: o}
	s.nvidia = nvidia.New(s.nvidiaOptions())
	s.Log = kernellog.New(kernellog.Options{Machine: o.Machine, AcceptInjected: o.AcceptInjected, Now: o.Now})
	s.bus = pci.New(pci.Options{
		Machine: o.Machine, Match: o.Accelerators, Declared: o.Declared, UUID: s.Log.UUID, Now: o.Now,
	})
	if !o.NoKernelLog {
		s.add(o.Every, 0, s.Log)
	}
	s.add(o.Every, 0, s.bus,
		aer.New(aer.Options{Machine: o.Machine, Match: o.Accelerators, Now: o.Now}),
		infiniband.New(infiniband.Options{Machine: o.Machine, Exclude: o.Ports, Rates: o.Rates, Now: o.Now}),
		amdgpu.New(amdgpu.Options{Machine: o.Machine, Match: o.Accelerators, Now: o.Now}),
	)
	if !o.NoNVML {
		s.add(max(o.Every, nvmlEvery), nvmlTimeout, s.nvidia.Checks()...)
	}
	for _, c := range o.NPD {
		if err := s.addNPD(ctx, c); err != nil {
			return nil, err
		}
	}
	for _, c := range o.Custom {
		if err := s.addCustom(ctx, c); err != nil {
			return nil, err
		}
	}
	if n := len(s.Scheduled); n > agent.MaxChecks {
		return nil, fmt.Errorf("%d checks, of which %d are NPD's configurations and %d custom: at most %d can be published",
			n, len(o.NPD), len(o.Custom), agent.MaxChecks)
	}
	return s, nil
}

// Locate finds devices by their IDs on the bus as it is now.
func (s *Set) Locate(ctx context.Context, ids []string) ([]machine.PCIDevice, error) {
	return s.bus.Locate(ctx, ids)
}

func (s *Set) add(every, timeout time.Duration, checks ...health.Check) {
	for _, c := range checks {
		s.Scheduled = append(s.Scheduled, agent.Scheduled{Check: c, Every: every, Timeout: timeout})
	}
}

// Checks are the checks without their schedule.
func (s *Set) Checks() []health.Check {
	out := make([]health.Check, len(s.Scheduled))
	for i := range s.Scheduled {
		out[i] = s.Scheduled[i].Check
	}
	return out
}

func (s *Set) nvidiaOptions() nvidia.Options {
	o := nvidia.Options{Machine: s.o.Machine, Store: s.o.Machine, Age: nvmlAge, Now: s.o.Now}
	if s.o.Node != nil {
		o.NodeLabels = s.o.Node.Labels
		o.Offered = func() (int, bool) { return s.o.Node.Offered(resourceGPU) }
	}
	return o
}

// resourceGPU is what NVIDIA's device plugin offers GPUs as.
const resourceGPU = "nvidia.com/gpu"

func (s *Set) addNPD(ctx context.Context, c *npd.Config) error {
	if c.Log != nil {
		m, err := healthnpd.NewLogMonitor(healthnpd.LogOptions{
			Config: c.Log, Machine: s.o.Machine, Files: s.o.Files, Journal: s.o.Journal, AcceptInjected: s.o.AcceptInjected, Now: s.o.Now,
		})
		if err != nil {
			return err
		}
		s.add(s.o.Every, 0, m)
		return nil
	}
	m, err := healthnpd.NewPluginMonitor(ctx, healthnpd.PluginOptions{
		Config: c.Plugin, Machine: s.o.Machine, Programs: s.o.Programs, Env: s.env(), AllowRepair: s.o.AllowRepair, Now: s.o.Now,
	})
	if err != nil {
		return err
	}
	s.add(s.o.Every, 0, m)
	return nil
}

// env is what programs of an operator's are told.
func (s *Set) env() []string {
	if s.o.NodeName == "" {
		return nil
	}
	return []string{"NODE_NAME=" + s.o.NodeName}
}

func (s *Set) addCustom(ctx context.Context, c custom.Config) error {
	if c.Exec != nil {
		check, err := custom.NewExecCheck(ctx, custom.ExecOptions{Config: c, Programs: s.o.Programs, Env: s.env(), Now: s.o.Now})
		if err != nil {
			return err
		}
		every, timeout := check.Schedule()
		s.add(every, timeout, check)
		return nil
	}
	helper := custom.Helper{Programs: s.o.Programs, Path: s.o.CELHelper, Timeout: c.Timeout.Duration}
	check, err := custom.NewCELCheck(ctx, custom.CELOptions{Config: c, Evaluator: helper, Facts: s.facts, Now: s.o.Now})
	if err != nil {
		return err
	}
	every, timeout := check.Schedule()
	s.add(every, timeout, check)
	return nil
}

// Parts are the MIG devices by UUID, and the UUID of the GPU that each is a part of.
func (s *Set) Parts() map[string]string { return s.nvidia.Parts() }

// ResetDomains are names that are the same for devices that can only be reset together, by PCI address.
func (s *Set) ResetDomains() map[string]string { return s.nvidia.ResetDomains() }

// facts are what expressions can ask for; what is not known is left out.
func (s *Set) facts(ctx context.Context) (custom.Facts, error) {
	f := custom.Facts{Node: s.o.NodeName, Now: s.o.Now(), Devices: s.bus.Devices(), NVML: s.nvidia.Report()}
	if s.o.Node != nil {
		f.Faults = s.o.Node.Faults()
	}
	id, err := s.o.Machine.BootID(ctx)
	if err != nil {
		return f, err
	}
	at, err := s.o.Machine.BootTime(ctx)
	if err != nil {
		return f, err
	}
	f.Boot = &custom.BootFacts{ID: id, At: at, UptimeSeconds: int64(f.Now.Sub(at).Seconds())}
	return f, nil
}
