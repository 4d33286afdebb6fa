package fleet

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/podresources"
)

const (
	// nodeWorkers is how many nodes are written at once.
	nodeWorkers = 32
	// nodeRetry is how soon a node is looked at again after a write of it failed.
	nodeRetry = 500 * time.Millisecond
	// probeEvery is how often agents are asked whether they are ready. A kubelet asks every ten seconds by default.
	probeEvery = 200 * time.Millisecond
	// settleEvery is how often something that is waited for is asked for again.
	settleEvery = 50 * time.Millisecond
)

// Fleet is a running fleet. Its methods may be called concurrently.
type Fleet struct {
	o        Options
	kube     kubernetes.Interface
	client   client.WithWatch // of Roundhouse's kinds
	admin    *rest.Config
	nodes    []*node
	byName   map[string]*node
	kubelets *kubelets
	agents   *agents
	queue    workqueue.TypedDelayingInterface[*node]
	reported atomic.Int64 // nodes whose agent has published

	ctx    context.Context // the fleet's life
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// Start creates the nodes and whatever belongs to them, and begins to play them, as an administrator. Roundhouse's own
// objects (package config) have to be there. It returns once every node is Ready and its kubelet is at work, and
// [Fleet.WaitReporting] waits for the agents' word. ctx bounds the start only.
func Start(ctx context.Context, admin *rest.Config, o Options) (*Fleet, error) {
	o = o.withDefaults()
	if err := o.validate(); err != nil {
		return nil, fmt.Errorf("reading the fleet's options: %w", err)
	}
	f, err := newFleet(ctx, admin, o)
	if err != nil {
		return nil, err
	}
	if err := f.bringUp(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("starting the fleet: %w", err), f.Stop())
	}
	return f, nil
}

func newFleet(ctx context.Context, admin *rest.Config, o Options) (*Fleet, error) {
	admin = rest.CopyConfig(admin)
	admin.QPS = -1 // the API server's own limits are enough
	admin.UserAgent = "roundhouse-sandbox-fleet"
	f := &Fleet{o: o, admin: admin, byName: make(map[string]*node, o.Nodes), queue: workqueue.NewTypedDelayingQueue[*node]()}
	f.ctx, f.cancel = context.WithCancel(context.WithoutCancel(ctx))
	var err error
	if f.kube, err = kubernetes.NewForConfig(admin); err != nil {
		return nil, fmt.Errorf("making the fleet's client: %w", err)
	}
	if f.kubelets, err = newKubelets(f.kube, o.Logger); err != nil {
		return nil, err
	}
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		return nil, fmt.Errorf("making the fleet's client: %w", err)
	}
	if f.client, err = client.NewWithWatch(admin, client.Options{Scheme: scheme}); err != nil {
		return nil, fmt.Errorf("making the fleet's client: %w", err)
	}
	f.kubelets.host, f.kubelets.program, f.kubelets.gone = f.hostOf, f.program, f.gone
	f.kubelets.answering = f.answering
	for i := range o.Nodes {
		n := newSimulated(o, i, f.changed)
		n.machine.SetHoldings(func() []podresources.Holding { return f.kubelets.holdings(n.name) })
		f.nodes = append(f.nodes, n)
		f.byName[n.name] = n
	}
	return f, nil
}

// bringUp makes the objects and starts the actors.
func (f *Fleet) bringUp(ctx context.Context) error {
	var err error
	//nolint:contextcheck // The agents live as long as the fleet, and ctx bounds the start only.
	if f.agents, err = newAgents(f.ctx, &f.wg, f.o, f.kube, f.admin); err != nil {
		return err
	}
	f.wg.Go(func() {
		<-f.ctx.Done()
		f.queue.ShutDown()
	})
	if err := f.register(ctx); err != nil {
		return err
	}
	//nolint:contextcheck // So do the kubelets.
	if err := f.kubelets.start(f.ctx, &f.wg); err != nil {
		return err
	}
	for range nodeWorkers {
		f.wg.Go(f.work)
	}
	if f.o.EvictionRequests {
		asked := &responders{client: f.kube, log: f.o.Logger}
		f.wg.Go(func() { asked.run(f.ctx) })
	}
	if err := f.follow(ctx); err != nil {
		return err
	}
	if !f.o.many() {
		if err := f.EnsureSlices(ctx); err != nil {
			return err
		}
		for _, set := range daemonSets() {
			if _, err := f.kube.AppsV1().DaemonSets(set.Namespace).Create(ctx, set, metav1.CreateOptions{}); err != nil {
				return fmt.Errorf("creating DaemonSet %s: %w", set.Name, err)
			}
		}
		f.wg.Go(f.probe)
		return f.waitDaemons(ctx)
	}
	return nil
}

// register creates the namespace, the DeviceClass and the Nodes.
func (f *Fleet) register(ctx context.Context) error {
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: SystemNamespace}}
	if _, err := f.kube.CoreV1().Namespaces().Create(ctx, namespace, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("creating namespace %s: %w", SystemNamespace, err)
	}
	if _, err := f.kube.ResourceV1().DeviceClasses().Create(ctx, deviceClass(), metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("creating the DeviceClass: %w", err)
	}
	var done atomic.Int64
	return each(ctx, f.nodes, func(ctx context.Context, n *node) error {
		id, err := n.machine.BootID(ctx)
		if err != nil {
			return fmt.Errorf("booting node %s: %w", n.name, err)
		}
		created, err := f.kube.CoreV1().Nodes().Create(ctx, newNode(f.o, n.index, id, metav1.Now()), metav1.CreateOptions{})
		if err != nil {
			return fmt.Errorf("registering node %s: %w", n.name, err)
		}
		n.mu.Lock()
		n.uid = created.UID
		if f.o.many() && !f.o.FromScratch {
			n.seed = created
		}
		n.mu.Unlock()
		if f.o.many() && !f.o.FromScratch {
			if err := f.client.Create(ctx, newHealth(created)); err != nil {
				return fmt.Errorf("registering node %s: %w", n.name, err)
			}
		}
		f.o.Progress("nodes", int(done.Add(1)), f.o.Nodes)
		return nil
	})
}

// each does something for each node, some at a time, until all are done or one fails.
func each(ctx context.Context, nodes []*node, do func(context.Context, *node) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	var at atomic.Int64
	for range min(nodeWorkers, len(nodes)) {
		wg.Go(func() {
			for i := int(at.Add(1)) - 1; i < len(nodes) && ctx.Err() == nil; i = int(at.Add(1)) - 1 {
				one, stop := context.WithTimeout(ctx, requestTimeout)
				if err := do(one, nodes[i]); err != nil {
					cancel(err)
				}
				stop()
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// waitDaemons waits until every DaemonSet's pod runs on every node: then the nodes are Ready, the scheduler places pods
// on them, and the agents answer.
func (f *Fleet) waitDaemons(ctx context.Context) error {
	sets := daemonSets()
	err := waitFor(ctx, func() (bool, error) {
		ready := 0
		for _, set := range sets {
			var got *appsv1.DaemonSet
			got, err := f.kube.AppsV1().DaemonSets(set.Namespace).Get(ctx, set.Name, metav1.GetOptions{})
			if err != nil {
				return false, err
			}
			ready += int(got.Status.NumberReady)
		}
		f.o.Progress("daemons", ready, len(sets)*f.o.Nodes)
		return ready == len(sets)*f.o.Nodes, nil
	})
	if err != nil {
		return fmt.Errorf("waiting for the DaemonSets: %w", err)
	}
	return nil
}

// waitFor asks until the answer is true or an error, or ctx ends.
func waitFor(ctx context.Context, done func() (bool, error)) error {
	tick := time.NewTicker(settleEvery)
	defer tick.Stop()
	for {
		ok, err := done()
		if err != nil || ok {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// Stop ends everything the fleet runs. It leaves the API's objects, which go with the control plane.
func (f *Fleet) Stop() error {
	f.cancel()
	f.wg.Wait() // bounded: everything below waits for its context or for one request
	return nil
}

// changed is called by a machine, from anywhere: it only notes.
func (f *Fleet) changed(n *node) {
	f.queue.Add(n)
	n.mu.Lock()
	agent := n.agent
	n.mu.Unlock()
	f.agents.changed(agent)
}

// work tends nodes, each when it is due.
func (f *Fleet) work() {
	for {
		n, shutdown := f.queue.Get()
		if shutdown {
			return
		}
		wait, err := f.tend(f.ctx, n)
		if err != nil && f.ctx.Err() == nil {
			f.o.Logger.Error(err, "A node could not be tended", "node", n.name)
			wait = nodeRetry
		}
		f.queue.Done(n)
		if wait > 0 {
			f.queue.AddAfter(n, wait)
		}
	}
}

// probe asks the agents whether they are ready, and has the kubelet report where its pod says otherwise.
func (f *Fleet) probe() {
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for {
		select {
		case <-f.ctx.Done():
			return
		case <-tick.C:
		}
		for _, n := range f.nodes {
			f.kubelets.probed(n.name, n.ready())
		}
	}
}

// hostOf tells a kubelet of its node.
func (f *Fleet) hostOf(name string) (boot int, up, ok bool) {
	n := f.byName[name]
	if n == nil {
		return 0, false, false
	}
	boot, up = n.host()
	return boot, up, true
}

// gone ends what ran in a pod.
func (f *Fleet) gone(pod types.UID, name string) {
	if n := f.byName[name]; n != nil {
		n.stopAgent(pod)
	}
}

// Options are the fleet's, with defaults filled in.
func (f *Fleet) Options() Options { return f.o }

// NodeNames lists the nodes.
func (f *Fleet) NodeNames() []string {
	names := make([]string, len(f.nodes))
	for i, n := range f.nodes {
		names[i] = n.name
	}
	return names
}

// node finds a node by name.
func (f *Fleet) node(name string) (*node, error) {
	if n := f.byName[name]; n != nil {
		return n, nil
	}
	return nil, fmt.Errorf("no node %q: there are %s to %s", name, f.o.NodeName(0), f.o.NodeName(f.o.Nodes-1))
}

// EnsureSlices publishes the ResourceSlices of nodes that have none yet, of all of them when none is named. Only a fleet
// above ManyNodes needs it after Start.
func (f *Fleet) EnsureSlices(ctx context.Context, names ...string) error {
	nodes := f.nodes
	if len(names) > 0 {
		nodes = nil
		for _, name := range names {
			n, err := f.node(name)
			if err != nil {
				return err
			}
			nodes = append(nodes, n)
		}
	}
	var done atomic.Int64
	return each(ctx, nodes, func(ctx context.Context, n *node) error {
		n.mu.Lock()
		n.wantSlice = n.offer == OfferDRA
		n.mu.Unlock()
		_, err := f.tend(ctx, n)
		f.o.Progress("slices", int(done.Add(1)), len(nodes))
		return err
	})
}

// State is what a node is like now, as the simulation knows it.
type State struct {
	Name, BootID string
	// Up is false while the node reboots.
	Up bool
	// Reboots counts the boots that are over, the first not among them.
	Reboots int
	// AgentUp says whether the agent's process runs.
	AgentUp bool
	// Since is when it last went up or down.
	Since time.Time
}

// State returns the state of a node; false when there is none of that name.
func (f *Fleet) State(ctx context.Context, name string) (State, bool) {
	n := f.byName[name]
	if n == nil {
		return State{}, false
	}
	id, err := n.machine.BootID(ctx)
	if err != nil {
		id = "" // it is down
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return State{Name: name, BootID: id, Up: n.up, Reboots: n.boot, AgentUp: n.agent != nil, Since: n.since}, true
}

// DeviceID returns the identity of the device in a slot of a node, as NodeHealth names it; false when there is none.
func (f *Fleet) DeviceID(name string, slot int) (string, bool) {
	n := f.byName[name]
	if n == nil || slot < 0 || slot >= len(n.devices) {
		return "", false
	}
	return n.devices[slot].UUID, true
}

// Crash makes a node restart without anybody having asked for it.
func (f *Fleet) Crash(name string) error {
	n, err := f.node(name)
	if err != nil {
		return err
	}
	n.machine.GoDown(f.o.RebootTakes)
	return nil
}
