package fleet

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/workqueue"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/agent"
	"github.com/roundhouse-dev/roundhouse/internal/health/kernellog"
	"github.com/roundhouse-dev/roundhouse/internal/health/pci"
	"github.com/roundhouse-dev/roundhouse/internal/machine"
	"github.com/roundhouse-dev/roundhouse/internal/machine/fake"
	"github.com/roundhouse-dev/roundhouse/internal/remedy/reboot"
	"github.com/roundhouse-dev/roundhouse/internal/remedy/reset"
)

// stepWorkers is how many agents are stepped at once in a large fleet. A step is mostly waiting for the API server.
const stepWorkers = 64

// hungRetry is how soon an agent that hangs is looked at again.
const hungRetry = time.Second

// agentName is the name of the agents' DaemonSet, and the value of its pods' label.
const agentName = "roundhouse-agent"

// agents starts and drives the agents of a fleet. Up to Options.OwnWatches nodes each agent runs by itself, with its own
// watch, as on a real node. Above, a few workers step all of them, and one watch tells them what is asked of their nodes.
type agents struct {
	o         Options
	kube      kubernetes.Interface
	config    *rest.Config // the API server's address and CA; no credential
	transport http.RoundTripper
	ctx       context.Context // the fleet's life; an agent's ends with it at the latest
	wg        *sync.WaitGroup
	queue     workqueue.TypedDelayingInterface[*process] // nil where each runs by itself
	// fleetwide is the administrator's transport, for the first word of agents of a seeded fleet.
	fleetwide *http.Client
}

func newAgents(ctx context.Context, wg *sync.WaitGroup, o Options, kube kubernetes.Interface, admin *rest.Config) (*agents, error) {
	anonymous := rest.AnonymousClientConfig(admin)
	anonymous.QPS = -1
	anonymous.UserAgent = agentName + "/" + o.AgentVersion
	transport, err := rest.TransportFor(anonymous)
	if err != nil {
		return nil, fmt.Errorf("making the agents' transport: %w", err)
	}
	fleetwide, err := rest.HTTPClientFor(admin)
	if err != nil {
		return nil, fmt.Errorf("making the agents' transport: %w", err)
	}
	a := &agents{o: o, kube: kube, config: anonymous, transport: transport, ctx: ctx, wg: wg, fleetwide: fleetwide}
	if o.Nodes > o.OwnWatches {
		a.queue = workqueue.NewTypedDelayingQueue[*process]()
		wg.Go(func() {
			<-ctx.Done()
			a.queue.ShutDown()
		})
		for range stepWorkers {
			wg.Go(a.work)
		}
	}
	return a, nil
}

// process is one running agent.
type process struct {
	node   *agent.Node
	api    *gate
	holder *credential
	// ended is closed once a process that runs by itself has ended; nil for one that is stepped.
	ended  chan struct{}
	cancel context.CancelFunc
	ctx    context.Context
	// bus is the check that takes the inventory, of the present boot.
	bus atomic.Pointer[pci.Check]
	// turn is held during a step, so that a process that was stopped is not in the middle of one.
	turn sync.Mutex
}

// start starts an agent on a machine, as the holder of a token that is bound to that object. Of a node with a seed its
// first word is written without.
func (a *agents) start(name string, m *fake.Machine, bound boundTo, seed *corev1.Node) (*process, error) {
	holder := &credential{kube: a.kube, base: a.transport, bound: bound}
	client, err := agent.NewClient(a.config, &http.Client{Transport: holder}, name)
	if err != nil {
		return nil, fmt.Errorf("starting the agent of node %s: %w", name, err)
	}
	p := &process{api: &gate{API: client}, holder: holder}
	if seed != nil {
		first, err := agent.NewClient(a.config, a.fleetwide, name)
		if err != nil {
			return nil, fmt.Errorf("starting the agent of node %s: %w", name, err)
		}
		p.api.seed.Store(&seeding{first: first, node: seed})
	}
	p.node, err = agent.New(agent.Options{
		Name: name, Version: a.o.AgentVersion, Machine: m, API: p.api, DailyLimit: a.o.DailyLimit, Holdings: m,
		Checks: func() []agent.Scheduled { return p.checks(m, a.o.CheckEvery) },
		Executors: map[v1alpha1.ActionType]agent.Executor{
			v1alpha1.ActionReboot: reboot.New(m), v1alpha1.ActionResetDevice: reset.New(m, p.locate, nil),
		},
	})
	if err != nil {
		return nil, fmt.Errorf("starting the agent of node %s: %w", name, err)
	}
	p.ctx, p.cancel = context.WithCancel(logr.NewContext(a.ctx, a.o.Logger))
	if a.queue != nil {
		a.queue.Add(p)
		return p, nil
	}
	p.ended = make(chan struct{})
	a.wg.Go(func() {
		defer close(p.ended)
		if err := p.node.Run(p.ctx); err != nil {
			a.o.Logger.Error(err, "An agent ended", "node", name)
		}
	})
	return p, nil
}

// checks are those of cmd/roundhouse-agent, made anew at each boot.
func (p *process) checks(m *fake.Machine, every time.Duration) []agent.Scheduled {
	log := kernellog.New(kernellog.Options{Machine: m})
	bus := pci.New(pci.Options{Machine: m, UUID: log.UUID, UnderLoad: m.UnderLoad})
	p.bus.Store(bus)
	return []agent.Scheduled{{Check: log, Every: every}, {Check: bus, Every: every}}
}

// locate finds devices on the bus by the inventory of the present boot.
func (p *process) locate(ctx context.Context, ids []string) ([]machine.PCIDevice, error) {
	bus := p.bus.Load()
	if bus == nil {
		return nil, errors.New("the agent has not looked at the bus yet")
	}
	return bus.Locate(ctx, ids)
}

// stop ends an agent, as SIGKILL does: nothing more of it is written once stop has returned.
func (p *process) stop() {
	p.cancel()
	if p.ended != nil {
		<-p.ended // bounded: each request and each look ends with its context
		return
	}
	p.turn.Lock()
	defer p.turn.Unlock()
}

// ready says what the agent's /readyz would.
func (p *process) ready() bool { return !p.api.hung.Load() && p.node.Ready() == nil }

// observe tells an agent that is stepped what a watch saw.
func (a *agents) observe(p *process, h *v1alpha1.NodeHealth) {
	if a.queue == nil || p == nil || p.api.hung.Load() {
		return
	}
	p.node.Observe(h)
	a.queue.Add(p)
}

// changed tells an agent that is stepped that its machine has changed. One that runs by itself follows the kernel log.
func (a *agents) changed(p *process) {
	if a.queue == nil || p == nil {
		return
	}
	p.node.Wake()
	a.queue.Add(p)
}

// wake makes an agent look at everything now.
func (a *agents) wake(p *process) {
	p.node.Wake()
	if a.queue != nil {
		a.queue.Add(p)
	}
}

// work steps agents, each when it is due.
func (a *agents) work() {
	for {
		p, shutdown := a.queue.Get()
		if shutdown {
			return
		}
		p.turn.Lock()
		at := time.Now().Add(hungRetry)
		if p.ctx.Err() == nil && !p.api.hung.Load() {
			at = p.node.Step(p.ctx)
		}
		p.turn.Unlock()
		a.queue.Done(p)
		if p.ctx.Err() == nil {
			a.queue.AddAfter(p, max(time.Until(at), time.Millisecond))
		}
	}
}

// gate stands between an agent and the API server. While it is hung, nothing gets through in either direction, as if the
// agent's process had stopped where it is.
type gate struct {
	agent.API
	hung atomic.Bool
	// seed is there until the first word of an agent of a seeded fleet is written.
	seed atomic.Pointer[seeding]
}

// seeding is how a fleet begins that has run before.
type seeding struct {
	first agent.API    // writes as the administrator
	node  *corev1.Node // as it was registered
}

// pass waits while the gate is hung.
func (g *gate) pass(ctx context.Context) error {
	if !g.hung.Load() {
		return nil
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for g.hung.Load() {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
	return nil
}

func (g *gate) Health(ctx context.Context) (*v1alpha1.NodeHealth, error) {
	if err := g.pass(ctx); err != nil {
		return nil, err
	}
	return g.API.Health(ctx)
}

func (g *gate) PutStatus(ctx context.Context, h *v1alpha1.NodeHealth) (*v1alpha1.NodeHealth, error) {
	if err := g.pass(ctx); err != nil {
		return nil, err
	}
	api := g.API
	// Only that nothing is wrong may be said in the administrator's name.
	if seed := g.seed.Load(); seed != nil && h.Status.Summary == v1alpha1.SummaryHealthy && h.Spec.Action == nil {
		api = seed.first
	}
	out, err := api.PutStatus(ctx, h)
	if err != nil {
		return nil, err
	}
	g.seed.Store(nil)
	out.ManagedFields = nil // there may be 30,000 of these
	return out, nil
}

func (g *gate) Watch(ctx context.Context) (watch.Interface, error) {
	if err := g.pass(ctx); err != nil {
		return nil, err
	}
	return g.API.Watch(ctx)
}

func (g *gate) Node(ctx context.Context) (*corev1.Node, error) {
	if err := g.pass(ctx); err != nil {
		return nil, err
	}
	if seed := g.seed.Load(); seed != nil {
		return seed.node, nil
	}
	return g.API.Node(ctx)
}

func (g *gate) PatchCondition(ctx context.Context, uid string, c corev1.NodeCondition) error {
	if err := g.pass(ctx); err != nil {
		return err
	}
	return g.API.PatchCondition(ctx, uid, c)
}

func (g *gate) Holds(ctx context.Context) ([]v1alpha1.RemediationHold, error) {
	if err := g.pass(ctx); err != nil {
		return nil, err
	}
	return g.API.Holds(ctx)
}
