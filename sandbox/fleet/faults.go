package fleet

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/retry"

	"github.com/roundhouse-dev/roundhouse/internal/machine/fake"
)

// Never is the value of [Injection].HealsAfter for what no reboot heals.
const Never = -1

// HealedByReset is the value of [Injection].HealedBy for what a reset of the device heals.
const HealedByReset = "reset"

// What foreign writers put on Nodes.
const (
	// ForeignTaint is the key of the taint of foreign-taint.
	ForeignTaint = "maintenance.example.com/down"
	// DriverTaint is the key of the taint of driver-taint, in the manner of gpu.nvidia.com/xid.
	DriverTaint = Driver + "/xid"
	// ForeignCondition is the condition of node-condition; node-problem-detector sets one of this name.
	ForeignCondition corev1.NodeConditionType = "KernelDeadlock"
)

const (
	// defaultStorm is how many lines a storm has that does not say.
	defaultStorm = 1000
	// maxStorm bounds one.
	maxStorm = 1_000_000
	// stormChunk lines are written every stormEvery: 3,200 a second, which the kernel's buffer holds and no reader misses.
	stormChunk = 64
	stormEvery = 20 * time.Millisecond
	// defaultRelapseAfter is when a fault comes back that does not say.
	defaultRelapseAfter = time.Second
	// narrowWidth is what link-narrow leaves of sixteen lanes: few enough to be critical.
	narrowWidth = 4
)

// Injection is one fault on one node.
type Injection struct {
	// Fault is the name of a FaultKind.
	Fault string `json:"fault"`
	// Node is the name of the node.
	Node string `json:"node"`
	// Device is the slot of the device, from 0.
	Device int `json:"device,omitempty"`
	// Count is how many kernel lines a storm has; 1000 when zero.
	Count int `json:"count,omitempty"`
	// HealsAfter is how many reboots heal the device: 1 when zero, none with Never.
	HealsAfter int `json:"healsAfter,omitempty"`
	// HealedBy is HealedByReset for what a reset of the device heals too; else nothing but a reboot does.
	HealedBy string `json:"healedBy,omitempty"`
	// Relapses is how often the fault comes back after a boot has healed it, each time RelapseAfter after the boot; 1 s.
	Relapses     int           `json:"relapses,omitempty"`
	RelapseAfter time.Duration `json:"relapseAfter,omitempty"`
}

// FaultKind describes a fault that can be injected.
type FaultKind struct {
	// Name is what [Injection].Fault and the command line say.
	Name string
	// Summary says in a sentence what happens.
	Summary string
	// OnDevice says that it happens to one device of the node.
	OnDevice bool

	inject func(f *Fleet, ctx context.Context, n *node, in Injection) error
}

// Faults lists what can be injected, in the order in which help shows it.
func Faults() []FaultKind {
	return []FaultKind{
		{"xid79", "the GPU falls off the bus: kernel line Xid 79, and its configuration space reads all ones", true, (*Fleet).offTheBus},
		{"device-dead", "the GPU's configuration space reads all ones, and no driver says a word", true, (*Fleet).silent},
		{"xid95", "an uncontained ECC error: kernel line Xid 95, which asks for a reset of the GPU and is over with one", true, (*Fleet).uncontained},
		{"device-missing", "the GPU is no longer on the bus, and leaves the ResourceSlice", true, (*Fleet).missing},
		{"link-narrow", "the GPU's PCIe link trains to four of its sixteen lanes", true, (*Fleet).narrow},
		{"xid13", "a storm of Xid 13 lines of an application", true, storm(13, "Graphics SM Warp Exception on (GPC 3, TPC 1, SM 0): Out Of Range Address")},
		{"xid31", "a storm of Xid 31 lines of an application", true, storm(31, "MMU Fault: ENGINE GRAPHICS GPCCLIENT_T1_3 faulted @ 0x7fcd_c7a00000. Fault is of type FAULT_PDE ACCESS_TYPE_READ")},
		{"xid45", "a storm of Xid 45 lines of an application", true, storm(45, "Ch 00000012")},
		{"node-condition", "another detector sets the Node condition KernelDeadlock", false, (*Fleet).deadlock},
		{"agent-dead", "the agent's process ends, and ends again whenever it is started", false, (*Fleet).killAgent},
		{"agent-hang", "the agent's process stops where it is: no write, no answer to its probe", false, (*Fleet).hangAgent},
		{"crash", "the node restarts by itself", false, (*Fleet).crash},
		{"foreign-cordon", "somebody else cordons the node", false, (*Fleet).cordon},
		{"foreign-taint", "somebody else taints the node for maintenance", false, (*Fleet).taint},
		{"driver-taint", "the DRA driver itself taints the GPU in its ResourceSlice, " + DriverTaint + "=79:NoSchedule, until it starts anew", true, (*Fleet).driverTaint},
		{"driver-restart", "the DRA driver starts anew, and forgets its own taints; so it does when its node reboots", false, (*Fleet).driverRestart},
		{"heal-device", "the GPU works again; what only a reboot clears stands until one", true, (*Fleet).healDevice},
		{"heal", "all of the above is undone; what only a reboot clears stands until one", false, (*Fleet).heal},
	}
}

// Inject makes a fault happen. It returns once it has happened, not once anybody has seen it. A storm is over when it
// returns.
func (f *Fleet) Inject(ctx context.Context, in Injection) error {
	n, err := f.node(in.Node)
	if err != nil {
		return err
	}
	for _, kind := range Faults() {
		if kind.Name != in.Fault {
			continue
		}
		if _, ok := n.address(in.Device); kind.OnDevice && !ok {
			return fmt.Errorf("injecting %s: node %s has no device %d", in.Fault, in.Node, in.Device)
		}
		if in.HealedBy != "" && in.HealedBy != HealedByReset {
			return fmt.Errorf("injecting %s: healed by %q: want %q or nothing", in.Fault, in.HealedBy, HealedByReset)
		}
		if err := kind.inject(f, ctx, n, in); err != nil {
			return fmt.Errorf("injecting %s on node %s: %w", in.Fault, in.Node, err)
		}
		return nil
	}
	return fmt.Errorf("no fault %q: there are %s", in.Fault, strings.Join(faultNames(), ", "))
}

func faultNames() []string {
	var names []string
	for _, kind := range Faults() {
		names = append(names, kind.Name)
	}
	return names
}

// breakDevice breaks a device as the injection says, and remembers a relapse.
func (f *Fleet) breakDevice(n *node, in Injection, b fake.Break) string {
	switch b.HealsAfterBoots = in.HealsAfter; in.HealsAfter {
	case 0:
		b.HealsAfterBoots = 1
	case Never:
		b.HealsAfterBoots = 0
	}
	b.HealedByReset = in.HealedBy == HealedByReset
	n.mu.Lock()
	n.relapse = nil
	if in.Relapses > 0 {
		n.relapse = &in
	}
	n.mu.Unlock()
	address := n.devices[in.Device].Address
	n.machine.Break(address, b)
	return address
}

// scheduleRelapse brings a fault back after a boot that healed it. One that several boots heal waits for the last.
func (f *Fleet) scheduleRelapse(n *node, in Injection) {
	n.mu.Lock()
	n.relapse = nil
	if in.HealsAfter > 1 {
		in.HealsAfter--
		n.relapse = &in
		n.mu.Unlock()
		return
	}
	n.mu.Unlock()
	in.Relapses--
	after := in.RelapseAfter
	if after <= 0 {
		after = defaultRelapseAfter
	}
	f.wg.Go(func() {
		if pause(f.ctx, after); f.ctx.Err() != nil {
			return
		}
		if err := f.Inject(f.ctx, in); err != nil {
			f.o.Logger.Error(err, "A relapse did not happen", "node", n.name)
		}
	})
}

// busID is a PCI address without its function, as NVRM writes it.
func busID(address string) string { return strings.TrimSuffix(address, ".0") }

func (f *Fleet) offTheBus(_ context.Context, n *node, in Injection) error {
	address := f.breakDevice(n, in, fake.Break{Kind: fake.Dead})
	n.machine.Kernel(
		"NVRM: Xid (PCI:"+busID(address)+"): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.",
		"NVRM: GPU "+address+": GPU has fallen off the bus.",
	)
	n.wake(f)
	return nil
}

func (f *Fleet) silent(_ context.Context, n *node, in Injection) error {
	f.breakDevice(n, in, fake.Break{Kind: fake.Dead})
	n.wake(f)
	return nil
}

func (f *Fleet) uncontained(_ context.Context, n *node, in Injection) error {
	n.machine.Kernel("NVRM: Xid (PCI:" + busID(n.devices[in.Device].Address) + "): 95, pid='<unknown>', name=<unknown>, " +
		"Uncontained ECC error. RST: Yes, D-RST: Yes")
	n.wake(f)
	return nil
}

func (f *Fleet) missing(_ context.Context, n *node, in Injection) error {
	f.breakDevice(n, in, fake.Break{Kind: fake.Gone})
	n.wake(f)
	return nil
}

func (f *Fleet) narrow(_ context.Context, n *node, in Injection) error {
	f.breakDevice(n, in, fake.Break{Kind: fake.Narrow, Width: narrowWidth})
	n.wake(f)
	return nil
}

// wake has the agent look at the bus now, which it otherwise does every CheckEvery.
func (n *node) wake(f *Fleet) {
	n.mu.Lock()
	agent := n.agent
	n.mu.Unlock()
	if agent != nil {
		f.agents.wake(agent)
	}
}

// storm is a fault of many lines that an application's crash makes the driver write.
func storm(xid int, message string) func(*Fleet, context.Context, *node, Injection) error {
	return func(_ *Fleet, ctx context.Context, n *node, in Injection) error {
		count := in.Count
		if count == 0 {
			count = defaultStorm
		}
		if count < 0 || count > maxStorm {
			return fmt.Errorf("%d lines: want 1 to %d", count, maxStorm)
		}
		line := fmt.Sprintf("NVRM: Xid (PCI:%s): %d, pid=4711, name=train.py, %s", busID(n.devices[in.Device].Address), xid, message)
		for count > 0 {
			chunk := min(count, stormChunk)
			n.machine.Storm(chunk, line)
			count -= chunk
			if pause(ctx, stormEvery); ctx.Err() != nil {
				return context.Cause(ctx)
			}
		}
		return nil
	}
}

func (f *Fleet) deadlock(ctx context.Context, n *node, _ Injection) error {
	return f.setCondition(ctx, n, ForeignCondition, corev1.ConditionTrue, "DockerHung", "task docker:7 blocked for more than 120 seconds.")
}

// setCondition writes a Node condition as node-problem-detector does: a strategic merge by type.
func (f *Fleet) setCondition(ctx context.Context, n *node, kind corev1.NodeConditionType, status corev1.ConditionStatus, reason, message string) error {
	now := metav1.Now()
	return f.patchNode(ctx, n, map[string]any{"conditions": []corev1.NodeCondition{{
		Type: kind, Status: status, Reason: reason, Message: message, LastHeartbeatTime: now, LastTransitionTime: now,
	}}})
}

func (f *Fleet) killAgent(_ context.Context, n *node, _ Injection) error {
	n.mu.Lock()
	n.dead = true
	agent := n.agent
	n.agent, n.agentOf = nil, ""
	n.mu.Unlock()
	if agent != nil {
		agent.stop()
	}
	return nil
}

func (f *Fleet) hangAgent(_ context.Context, n *node, _ Injection) error {
	n.setHung(true)
	return nil
}

func (n *node) setHung(hung bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hung = hung
	if n.agent != nil {
		n.agent.api.hung.Store(hung)
	}
}

func (f *Fleet) crash(_ context.Context, n *node, _ Injection) error { return f.Crash(n.name) }

func (f *Fleet) cordon(ctx context.Context, n *node, _ Injection) error {
	return f.setCordon(ctx, n, true)
}

func (f *Fleet) setCordon(ctx context.Context, n *node, cordoned bool) error {
	body, err := json.Marshal(map[string]any{"spec": map[string]any{"unschedulable": cordoned}})
	if err != nil {
		return fmt.Errorf("encoding a cordon: %w", err)
	}
	if _, err := f.kube.CoreV1().Nodes().Patch(ctx, n.name, types.MergePatchType, body, metav1.PatchOptions{}); err != nil {
		return fmt.Errorf("cordoning: %w", err)
	}
	return nil
}

func (f *Fleet) taint(ctx context.Context, n *node, _ Injection) error {
	return f.setTaint(ctx, n, ForeignTaint, "planned", corev1.TaintEffectNoSchedule, true)
}

// setTaint changes one taint of a Node's list, which is atomic: read, change only that, write the version that was read.
func (f *Fleet) setTaint(ctx context.Context, n *node, key, value string, effect corev1.TaintEffect, on bool) error {
	err := retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		node, err := f.kube.CoreV1().Nodes().Get(ctx, n.name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		var taints []corev1.Taint
		for _, t := range node.Spec.Taints {
			if t.Key != key {
				taints = append(taints, t)
			}
		}
		if on {
			taints = append(taints, corev1.Taint{Key: key, Value: value, Effect: effect})
		}
		node.Spec.Taints = taints
		_, err = f.kube.CoreV1().Nodes().Update(ctx, node, metav1.UpdateOptions{})
		return err
	})
	if err != nil {
		return fmt.Errorf("tainting: %w", err)
	}
	return nil
}

// driverTaint has the DRA driver taint a device, whatever state that is in. A driver says so of its own accord.
func (f *Fleet) driverTaint(ctx context.Context, n *node, in Injection) error {
	if n.offer != OfferDRA {
		return fmt.Errorf("a device plugin offers its devices (label %s): no DRA driver could taint them", LabelOffer)
	}
	n.mu.Lock()
	if n.driverTaints == nil {
		n.driverTaints = map[int]resourcev1.DeviceTaint{}
	}
	n.driverTaints[in.Device] = resourcev1.DeviceTaint{Key: DriverTaint, Value: "79", Effect: resourcev1.DeviceTaintEffectNoSchedule}
	n.mu.Unlock()
	return f.republish(ctx, n)
}

func (f *Fleet) driverRestart(ctx context.Context, n *node, _ Injection) error {
	n.mu.Lock()
	n.driverTaints = nil
	n.mu.Unlock()
	return f.republish(ctx, n)
}

// republish has the driver publish its devices now.
func (f *Fleet) republish(ctx context.Context, n *node) error {
	n.tending.Lock()
	defer n.tending.Unlock()
	return f.offer(ctx, n, false)
}

// healDevice undoes what was done to one device, as one that recovers by itself.
func (f *Fleet) healDevice(_ context.Context, n *node, in Injection) error {
	n.machine.Break(n.devices[in.Device].Address, fake.Break{})
	n.wake(f)
	return nil
}

// heal undoes whatever was done to a node.
func (f *Fleet) heal(ctx context.Context, n *node, _ Injection) error {
	n.mu.Lock()
	n.dead, n.relapse, n.driverTaints = false, nil, nil
	n.mu.Unlock()
	n.setHung(false)
	for i := range n.devices {
		n.machine.Break(n.devices[i].Address, fake.Break{})
	}
	if err := f.setCordon(ctx, n, false); err != nil {
		return err
	}
	if err := f.setTaint(ctx, n, ForeignTaint, "", "", false); err != nil {
		return err
	}
	if err := f.setCondition(ctx, n, ForeignCondition, corev1.ConditionFalse, "KernelHasNoDeadlock", "kernel has no deadlock"); err != nil {
		return err
	}
	if err := f.republish(ctx, n); err != nil {
		return err
	}
	if f.o.many() {
		if err := f.startAgent(n, n.itself(), ""); err != nil {
			return err
		}
	} else {
		f.kubelets.look(n.name) // which starts the agent in its pod
	}
	n.wake(f)
	return nil
}
