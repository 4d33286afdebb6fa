package fleet

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/machine"
	"github.com/roundhouse-dev/roundhouse/internal/machine/fake"
)

// node is one simulated node. What the API shows of it is made to agree with its machine again and again (tend), so that
// nothing has to be in order: a reboot that the agent asked for, a crash and a device that vanishes are all the same.
type node struct {
	index   int
	name    string
	offer   string
	machine *fake.Machine
	devices []fake.Device // as they were built in

	// tending lets one tend at a time through.
	tending sync.Mutex

	mu    sync.Mutex
	uid   types.UID
	up    bool
	boot  int
	since time.Time
	// slice is the ResourceSlice as published; nil where there is none.
	slice *resourcev1.ResourceSlice
	// capacity and allocatable are what was published of a device plugin's devices.
	capacity, allocatable int
	// wantSlice says that a slice is to be published.
	wantSlice bool
	agent     *process
	// agentOf is the pod that the agent runs in; empty where agents are no pods.
	agentOf types.UID
	// health is the NodeHealth as last seen by the fleet's own watch; reported says that an agent once wrote to it.
	health   *v1alpha1.NodeHealth
	reported bool
	// seed is the Node as it was registered, until the agent of a fleet that begins as one that has run before has spoken.
	seed    *corev1.Node
	dead    bool // the agent's program ends as soon as it starts
	hung    bool
	relapse *Injection
	// driverTaints are what the DRA driver says of its devices, by slot. It forgets them when it starts anew.
	driverTaints map[int]resourcev1.DeviceTaint
}

// itself is what the token of an agent is bound to that is no pod.
func (n *node) itself() boundTo { return boundTo{kind: "Node", name: n.name, uid: n.uid} }

// seedOf makes what is the same on every run of a sandbox, and different between nodes: multiplying by an odd number maps
// 32 bits onto themselves (Knuth, The Art of Computer Programming 3, 6.4).
func seedOf(index int) uint32 { return uint32(index+1) * 2654435761 }

func newSimulated(o Options, index int, changed func(*node)) *node {
	name := o.NodeName(index)
	seed := seedOf(index)
	n := &node{
		index: index, name: name, offer: o.offers(index), up: true, since: time.Now(),
		capacity: o.GPUs, allocatable: o.GPUs, wantSlice: o.offers(index) == OfferDRA && !o.many(),
	}
	n.devices = fake.H200s(o.GPUs, seed)
	n.machine = fake.New(fake.Options{
		Hostname: name, Devices: n.devices, RebootTakes: o.RebootTakes,
		// The fake replaces the last four digits by the number of the boot.
		BootID:  fmt.Sprintf("%08x-5b6f-4d2a-9c3e-%08x0000", index+1, seed),
		Changed: func() { changed(n) },
	})
	return n
}

// host is what a kubelet asks about.
func (n *node) host() (boot int, up bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.boot, n.up
}

// address is the PCI address of a slot; false when there is no such slot.
func (n *node) address(slot int) (string, bool) {
	if slot < 0 || slot >= len(n.devices) {
		return "", false
	}
	return n.devices[slot].Address, true
}

// tend makes the API agree with the machine, and returns when to come back; zero when something has to happen first.
func (f *Fleet) tend(ctx context.Context, n *node) (time.Duration, error) {
	n.tending.Lock()
	defer n.tending.Unlock()
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	downUntil := n.machine.DownUntil()
	reboots := n.machine.Reboots()
	n.mu.Lock()
	up, boot := n.up, n.boot
	n.mu.Unlock()
	switch {
	case !downUntil.IsZero():
		if up {
			if err := f.goDown(ctx, n); err != nil {
				return 0, err
			}
		}
		return max(time.Until(downUntil), time.Millisecond), nil
	case reboots != boot && up:
		// It went down and came back before anybody looked.
		if err := f.goDown(ctx, n); err != nil {
			return 0, err
		}
		return 0, f.comeUp(ctx, n, reboots)
	case !up:
		return 0, f.comeUp(ctx, n, reboots)
	}
	return 0, f.offer(ctx, n, false)
}

// goDown is the end of a boot: the agent is killed, the kubelet says that it goes, and no pod is looked at any more.
func (f *Fleet) goDown(ctx context.Context, n *node) error {
	n.mu.Lock()
	n.up, n.since = false, time.Now()
	agent := n.agent
	n.agent, n.agentOf = nil, ""
	n.mu.Unlock()
	if agent != nil {
		agent.stop()
	}
	return f.patchNode(ctx, n, map[string]any{"conditions": []corev1.NodeCondition{readyCondition(false, metav1.Now())}})
}

// comeUp is the beginning of one: the driver and the device plugin find what is on the bus, then the kubelet is ready and
// looks at its pods, which no longer run.
func (f *Fleet) comeUp(ctx context.Context, n *node, boot int) error {
	id, err := n.machine.BootID(ctx)
	if err != nil {
		return fmt.Errorf("booting node %s: %w", n.name, err)
	}
	n.mu.Lock()
	n.driverTaints = nil // the driver starts anew with its node
	n.mu.Unlock()
	if err := f.offer(ctx, n, true); err != nil {
		return err
	}
	err = f.patchNode(ctx, n, map[string]any{
		"conditions": []corev1.NodeCondition{readyCondition(true, metav1.Now())},
		"nodeInfo":   map[string]string{"bootID": id},
	})
	if err != nil {
		return err
	}
	n.mu.Lock()
	n.up, n.boot, n.since = true, boot, time.Now()
	relapse := n.relapse
	n.mu.Unlock()
	f.kubelets.look(n.name)
	if f.o.many() {
		if err := f.startAgent(n, n.itself(), ""); err != nil {
			return err
		}
	}
	if relapse != nil {
		f.scheduleRelapse(n, *relapse)
	}
	return nil
}

// offer publishes the devices that are there, where that has changed. At a boot a device plugin counts anew what it has.
func (f *Fleet) offer(ctx context.Context, n *node, booting bool) error {
	there, err := n.machine.PCIDevices(ctx, nil)
	if err != nil {
		return fmt.Errorf("listing the devices of node %s: %w", n.name, err)
	}
	if n.offer == OfferPlugin {
		return f.offerByPlugin(ctx, n, there, booting)
	}
	return f.offerByDRA(ctx, n, there)
}

// offerByPlugin lowers allocatable by what has failed, as the device plugin's own health check does; what is not there at
// a boot is not part of capacity either.
func (f *Fleet) offerByPlugin(ctx context.Context, n *node, there []machine.PCIDevice, booting bool) error {
	answering := 0
	for i := range there {
		if there[i].Config == machine.ConfigAnswers {
			answering++
		}
	}
	n.mu.Lock()
	capacity, before := n.capacity, n.allocatable
	if booting {
		capacity = answering
	}
	same := capacity == n.capacity && answering == before
	n.mu.Unlock()
	if same {
		return nil
	}
	quantity := func(n int) map[string]string { return map[string]string{PluginResource: strconv.Itoa(n)} }
	allocatable := min(answering, capacity)
	err := f.patchNode(ctx, n, map[string]any{"capacity": quantity(capacity), "allocatable": quantity(allocatable)})
	if err != nil {
		return err
	}
	n.mu.Lock()
	n.capacity, n.allocatable = capacity, answering
	n.mu.Unlock()
	return nil
}

// offerByDRA publishes the ResourceSlice, with a new generation whenever the pool has changed (KEP-4381).
func (f *Fleet) offerByDRA(ctx context.Context, n *node, there []machine.PCIDevice) error {
	n.mu.Lock()
	old, want := n.slice, n.wantSlice
	n.mu.Unlock()
	if !want {
		return nil
	}
	generation := int64(1)
	if old != nil {
		generation = old.Spec.Pool.Generation
	}
	slice := newSlice(n.name, generation, n.offered(there, f.o.ShiftNames))
	if old != nil {
		keepTimes(slice.Spec.Devices, old.Spec.Devices)
	}
	slices := f.kube.ResourceV1().ResourceSlices()
	var stored *resourcev1.ResourceSlice
	var err error
	switch {
	case old == nil:
		slice.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: n.name, UID: n.uid}}
		stored, err = slices.Create(ctx, slice, metav1.CreateOptions{})
		if apierrors.IsAlreadyExists(err) { // an answer to an earlier try was lost
			stored, err = slices.Get(ctx, slice.Name, metav1.GetOptions{})
		}
	case sameDevices(old.Spec.Devices, slice.Spec.Devices):
		return nil
	default:
		slice.ObjectMeta = old.ObjectMeta
		slice.Spec.Pool.Generation++
		stored, err = slices.Update(ctx, slice, metav1.UpdateOptions{})
		if apierrors.IsConflict(err) { // the device taint controller does not write slices; a human may
			stored, err = slices.Get(ctx, slice.Name, metav1.GetOptions{})
			if err == nil {
				n.keepSlice(stored)
				return fmt.Errorf("publishing the devices of node %s: somebody else wrote its ResourceSlice", n.name)
			}
		}
	}
	if err != nil {
		return fmt.Errorf("publishing the devices of node %s: %w", n.name, err)
	}
	n.keepSlice(stored)
	return nil
}

func (n *node) keepSlice(s *resourcev1.ResourceSlice) {
	n.mu.Lock()
	n.slice = s
	n.mu.Unlock()
}

func sameDevices(a, b []resourcev1.Device) bool {
	return slices.EqualFunc(a, b, func(x, y resourcev1.Device) bool {
		return x.Name == y.Name && equality.Semantic.DeepEqual(x.Attributes, y.Attributes) && equality.Semantic.DeepEqual(x.Taints, y.Taints)
	})
}

// keepTimes keeps since when the API server has known of a taint: it would set that anew (k8s.io/api/resource/v1, DeviceTaint).
func keepTimes(devices, old []resourcev1.Device) {
	for i := range devices {
		for j := range devices[i].Taints {
			t := &devices[i].Taints[j]
			for _, before := range old {
				k := slices.IndexFunc(before.Taints, func(o resourcev1.DeviceTaint) bool {
					return o.Key == t.Key && o.Value == t.Value && o.Effect == t.Effect
				})
				if before.Name == devices[i].Name && k >= 0 {
					t.TimeAdded = before.Taints[k].TimeAdded
				}
			}
		}
	}
}

// offered names the devices that are there: by their slot, or, where names shift, by the order in which they are found.
func (n *node) offered(there []machine.PCIDevice, shift bool) []offered {
	n.mu.Lock()
	taints := maps.Clone(n.driverTaints)
	n.mu.Unlock()
	var out []offered
	for i := range n.devices {
		d := &n.devices[i]
		if !slices.ContainsFunc(there, func(p machine.PCIDevice) bool { return p.Address == d.Address }) {
			continue
		}
		number := i
		if shift {
			number = len(out)
		}
		one := offered{name: "gpu-" + strconv.Itoa(number), device: d}
		if t, ok := taints[i]; ok {
			one.taints = []resourcev1.DeviceTaint{t}
		}
		out = append(out, one)
	}
	return out
}

// patchNode merges into the status of a Node, conditions by type, as a kubelet does.
func (f *Fleet) patchNode(ctx context.Context, n *node, status map[string]any) error {
	body, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": n.uid}, "status": status})
	if err != nil {
		return fmt.Errorf("encoding the status of node %s: %w", n.name, err)
	}
	if _, err := f.kube.CoreV1().Nodes().Patch(ctx, n.name, types.StrategicMergePatchType, body, metav1.PatchOptions{}, "status"); err != nil {
		return fmt.Errorf("writing the status of node %s: %w", n.name, err)
	}
	return nil
}

// startAgent starts the agent of a node, unless it runs already, is scripted not to, or the node is down.
func (f *Fleet) startAgent(n *node, bound boundTo, pod types.UID) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.agent != nil || n.dead || !n.up {
		return nil
	}
	p, err := f.agents.start(n.name, n.machine, bound, n.seed)
	if err != nil {
		return err
	}
	n.seed = nil
	p.api.hung.Store(n.hung)
	n.agent, n.agentOf = p, pod
	f.agents.observe(p, n.health)
	return nil
}

// stopAgent stops the agent of a node if it runs in that pod.
func (n *node) stopAgent(pod types.UID) {
	n.mu.Lock()
	agent := n.agent
	if agent == nil || n.agentOf != pod {
		n.mu.Unlock()
		return
	}
	n.agent, n.agentOf = nil, ""
	n.mu.Unlock()
	agent.stop()
}

// program is the kubelet's view of an agent's pod.
func (f *Fleet) program(pod *corev1.Pod) bool {
	n := f.byName[pod.Spec.NodeName]
	if n == nil {
		return false
	}
	if err := f.startAgent(n, boundTo{kind: "Pod", name: pod.Name, uid: pod.UID}, pod.UID); err != nil {
		f.o.Logger.Error(err, "An agent did not start", "node", n.name)
		return false
	}
	return n.ready()
}

// ready says whether the node's agent answers its readiness probe.
func (n *node) ready() bool {
	n.mu.Lock()
	agent := n.agent
	n.mu.Unlock()
	return agent != nil && agent.ready()
}
