package sandbox

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/sandbox/fleet"
	"github.com/roundhouse-dev/roundhouse/sandbox/workload"
)

// health reads a node's NodeHealth.
func health(ctx context.Context, s *Sandbox, node string) (*v1alpha1.NodeHealth, error) {
	h := &v1alpha1.NodeHealth{}
	return h, s.Client().Get(ctx, types.NamespacedName{Name: node}, h)
}

func getNode(ctx context.Context, s *Sandbox, name string) (*corev1.Node, error) {
	node := &corev1.Node{}
	return node, s.Client().Get(ctx, types.NamespacedName{Name: name}, node)
}

func conditionOf(node *corev1.Node, kind corev1.NodeConditionType) corev1.ConditionStatus {
	for _, c := range node.Status.Conditions {
		if c.Type == kind {
			return c.Status
		}
	}
	return "absent"
}

func inject(t *testing.T, s *Sandbox, in fleet.Injection) {
	t.Helper()
	if err := s.Fleet().Inject(t.Context(), in); err != nil {
		t.Fatal(err)
	}
}

// askReboot asks a node's agent for a reboot, as the controller does.
func askReboot(t *testing.T, s *Sandbox, node, id string) *v1alpha1.NodeHealth {
	t.Helper()
	return askFor(t, s, node, v1alpha1.Action{ID: id, Type: v1alpha1.ActionReboot})
}

// askFor asks a node's agent for an action in its present boot.
func askFor(t *testing.T, s *Sandbox, node string, a v1alpha1.Action) *v1alpha1.NodeHealth {
	t.Helper()
	before, err := health(t.Context(), s, node)
	if err != nil {
		t.Fatal(err)
	}
	after := before.DeepCopy()
	after.Spec.Fence++
	a.BootID, a.NotAfter = before.Status.BootID, metav1.NewTime(time.Now().Add(time.Minute))
	after.Spec.Action = &a
	if err := s.Client().Patch(t.Context(), after, client.MergeFrom(before)); err != nil {
		t.Fatal(err)
	}
	return before
}

func rebooted(s *Sandbox, node, id string) func(ctx context.Context) (bool, error) {
	return func(ctx context.Context) (bool, error) {
		h, err := health(ctx, s, node)
		if err != nil {
			return false, err
		}
		a := h.Status.Action
		if a == nil || a.ID != id || a.State != v1alpha1.ActionDone {
			return false, fmt.Errorf("action: %+v", a)
		}
		if a.Result != v1alpha1.ResultSucceeded {
			return false, fmt.Errorf("result %s: %s", a.Result, a.Message)
		}
		return true, nil
	}
}

func TestEveryNodeIsReadyAndItsAgentReportsHealthy(t *testing.T) {
	for _, name := range shared.Fleet().NodeNames() {
		eventually(t, 20*time.Second, name+" is Ready, Healthy and free of taints", func(ctx context.Context) (bool, error) {
			node, err := getNode(ctx, shared, name)
			if err != nil {
				return false, err
			}
			h, err := health(ctx, shared, name)
			if err != nil {
				return false, err
			}
			ready, healthy := conditionOf(node, corev1.NodeReady), conditionOf(node, v1alpha1.ConditionHealthy)
			if len(node.Spec.Taints) > 0 || h.Status.Summary != v1alpha1.SummaryHealthy {
				return false, fmt.Errorf("taints %v, summary %q", node.Spec.Taints, h.Status.Summary)
			}
			if h.Status.BootID != node.Status.NodeInfo.BootID || len(h.Status.Devices) != 8 {
				return false, fmt.Errorf("boot %s, kubelet's %s, %d devices", h.Status.BootID, node.Status.NodeInfo.BootID, len(h.Status.Devices))
			}
			return ready == corev1.ConditionTrue && healthy == corev1.ConditionTrue, fmt.Errorf("Ready %s, %s %s", ready, v1alpha1.ConditionHealthy, healthy)
		})
	}
}

func TestJobsGetTheirGPUsByDRAAndEnd(t *testing.T) {
	w := workload.Workload{Kind: workload.Jobs, Name: "short", Count: 6, RunFor: 1500 * time.Millisecond}
	start(t, w)
	eventually(t, 30*time.Second, "a claim is allocated", func(ctx context.Context) (bool, error) {
		claims := &resourcev1.ResourceClaimList{}
		if err := shared.Client().List(ctx, claims, client.InNamespace("ml")); err != nil {
			return false, err
		}
		return slices.ContainsFunc(claims.Items, func(c resourcev1.ResourceClaim) bool {
			return c.Status.Allocation != nil && c.Status.Allocation.Devices.Results[0].Driver == fleet.Driver
		}), nil
	})
	eventually(t, 30*time.Second, "all six have succeeded", func(ctx context.Context) (bool, error) {
		pods := &corev1.PodList{}
		if err := shared.Client().List(ctx, pods, client.InNamespace("ml"), client.MatchingLabels{"sandbox.roundhouse.dev/workload": "short"}); err != nil {
			return false, err
		}
		done := 0
		for i := range pods.Items {
			if pods.Items[i].Status.Phase == corev1.PodSucceeded {
				done++
			}
		}
		return done == 6, fmt.Errorf("%d of %d", done, len(pods.Items))
	})
}

// start runs a workload for one test and waits for its pods.
func start(t *testing.T, w workload.Workload) {
	t.Helper()
	if err := workload.Run(t.Context(), shared.Client(), w); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 30*time.Second)
		defer cancel()
		if err := workload.Delete(ctx, shared.Client(), w); err != nil {
			t.Error(err)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
	defer cancel()
	if err := workload.WaitRunning(ctx, shared.Client(), w); err != nil {
		t.Fatal(err)
	}
}

func TestXid79IsSeenWithinASecondAndARebootHealsIt(t *testing.T) {
	const node, slot = "gpu-01", 3
	id, _ := shared.Fleet().DeviceID(node, slot)
	before, err := health(t.Context(), shared, node)
	if err != nil {
		t.Fatal(err)
	}
	inject(t, shared, fleet.Injection{Fault: "xid79", Node: node, Device: slot})
	took := eventually(t, 10*time.Second, "the fault is in the API", func(ctx context.Context) (bool, error) {
		h, err := health(ctx, shared, node)
		if err != nil {
			return false, err
		}
		return h.Status.Summary == v1alpha1.SummaryFaulty && h.Status.Faults[0].Code == "Xid79" && h.Status.Faults[0].Device == id, nil
	})
	t.Logf("kernel line to fault in the API: %s", took.Round(time.Millisecond))
	askReboot(t, shared, node, "test-xid79")
	eventually(t, 10*time.Second, "the node is not Ready", func(ctx context.Context) (bool, error) {
		n, err := getNode(ctx, shared, node)
		return err == nil && conditionOf(n, corev1.NodeReady) == corev1.ConditionFalse, err
	})
	eventually(t, 20*time.Second, "the reboot is done", rebooted(shared, node, "test-xid79"))
	eventually(t, 20*time.Second, "the node is Ready and Healthy in a new boot", func(ctx context.Context) (bool, error) {
		n, err := getNode(ctx, shared, node)
		if err != nil {
			return false, err
		}
		h, err := health(ctx, shared, node)
		if err != nil {
			return false, err
		}
		if h.Status.BootID == before.Status.BootID || n.Status.NodeInfo.BootID != h.Status.BootID {
			return false, fmt.Errorf("boot %s, kubelet's %s", h.Status.BootID, n.Status.NodeInfo.BootID)
		}
		last := h.Status.Boots[len(h.Status.Boots)-1]
		if last.Cause != v1alpha1.BootByRoundhouse {
			return false, fmt.Errorf("boot %+v", last)
		}
		return conditionOf(n, corev1.NodeReady) == corev1.ConditionTrue && h.Status.Summary == v1alpha1.SummaryHealthy, nil
	})
}

func TestARebootRestartsWhatMayBeRestartedAndFailsTheRest(t *testing.T) {
	const node = "gpu-02"
	service := workload.Workload{Kind: workload.Service, Name: "stays", Count: 1, Node: node}
	job := workload.Workload{Kind: workload.Jobs, Name: "again", Count: 1, Node: node}
	start(t, service)
	start(t, job)
	jobPod := func(ctx context.Context) (*corev1.Pod, error) { return newest(ctx, "again") }
	first, err := jobPod(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := shared.Fleet().Crash(node); err != nil {
		t.Fatal(err)
	}
	eventually(t, 30*time.Second, "the service's container was restarted in its pod", func(ctx context.Context) (bool, error) {
		pod, err := newest(ctx, "stays")
		if err != nil || len(pod.Status.ContainerStatuses) == 0 {
			return false, err
		}
		s := pod.Status.ContainerStatuses[0]
		return s.RestartCount == 1 && s.Ready, fmt.Errorf("%+v", s)
	})
	eventually(t, 30*time.Second, "the Job has a new pod", func(ctx context.Context) (bool, error) {
		pod, err := jobPod(ctx)
		if err != nil {
			return false, err
		}
		return pod.UID != first.UID && pod.Status.Phase == corev1.PodRunning, fmt.Errorf("%s", pod.Status.Phase)
	})
	eventually(t, 20*time.Second, "the boot is not ours", func(ctx context.Context) (bool, error) {
		h, err := health(ctx, shared, node)
		if err != nil {
			return false, err
		}
		return len(h.Status.Boots) == 2 && h.Status.Boots[1].Cause == v1alpha1.BootByOther, fmt.Errorf("%+v", h.Status.Boots)
	})
}

// newest is the newest pod of a workload.
func newest(ctx context.Context, name string) (*corev1.Pod, error) {
	pods := &corev1.PodList{}
	if err := shared.Client().List(ctx, pods, client.InNamespace("ml"), client.MatchingLabels{"sandbox.roundhouse.dev/workload": name}); err != nil {
		return nil, err
	}
	if len(pods.Items) == 0 {
		return nil, fmt.Errorf("no pod of %s", name)
	}
	return &slices.SortedFunc(slices.Values(pods.Items), func(a, b corev1.Pod) int {
		return b.CreationTimestamp.Compare(a.CreationTimestamp.Time)
	})[0], nil
}

func TestAResetOfADeviceHealsWhatAsksForOne(t *testing.T) {
	const node, id = "gpu-02", "reset-1"
	eventually(t, 10*time.Second, "it is healthy", broken(false, node))
	inject(t, shared, fleet.Injection{Fault: "xid95", Node: node, Device: 3})
	eventually(t, 10*time.Second, "the fault is seen", broken(true, node))
	h, err := health(t.Context(), shared, node)
	if err != nil {
		t.Fatal(err)
	}
	fault := h.Status.Faults[0]
	if fault.Code != "Xid95" || fault.Recommended != v1alpha1.RecommendResetDevice || fault.Device != h.Status.Devices[3].ID {
		t.Fatalf("got %+v", fault)
	}
	boot := askFor(t, shared, node, v1alpha1.Action{ID: id, Type: v1alpha1.ActionResetDevice, Devices: []string{fault.Device}}).Status.BootID
	eventually(t, 20*time.Second, "the reset is done, and all is well after it", func(ctx context.Context) (bool, error) {
		h, err := health(ctx, shared, node)
		if err != nil {
			return false, err
		}
		a, round := h.Status.Action, h.Status.CompletedRound
		return a != nil && a.ID == id && a.Result == v1alpha1.ResultSucceeded && round != nil && round.AfterAction == id &&
			h.Status.Summary == v1alpha1.SummaryHealthy && h.Status.BootID == boot, fmt.Errorf("%+v; %+v", a, h.Status.Faults)
	})
}

func TestADeviceThatVanishesLeavesTheSliceUntilARebootBringsItBack(t *testing.T) {
	const node, slot = "gpu-03", 5
	slice := func(ctx context.Context) (*resourcev1.ResourceSlice, error) {
		s := &resourcev1.ResourceSlice{}
		return s, shared.Client().Get(ctx, types.NamespacedName{Name: node + "-" + fleet.Driver}, s)
	}
	has := func(s *resourcev1.ResourceSlice) bool {
		return slices.ContainsFunc(s.Spec.Devices, func(d resourcev1.Device) bool { return d.Name == "gpu-5" })
	}
	before, err := slice(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !has(before) || len(before.Spec.Devices) != 8 {
		t.Fatalf("the slice has %d devices", len(before.Spec.Devices))
	}
	inject(t, shared, fleet.Injection{Fault: "device-missing", Node: node, Device: slot})
	eventually(t, 10*time.Second, "the device is out of the slice, in a new generation", func(ctx context.Context) (bool, error) {
		s, err := slice(ctx)
		return err == nil && !has(s) && s.Spec.Pool.Generation == before.Spec.Pool.Generation+1, err
	})
	eventually(t, 15*time.Second, "the agent says that it is missing", func(ctx context.Context) (bool, error) {
		h, err := health(ctx, shared, node)
		return err == nil && len(h.Status.Faults) > 0 && h.Status.Faults[0].Code == "PCIDeviceMissing", err
	})
	askReboot(t, shared, node, "test-missing")
	eventually(t, 20*time.Second, "the reboot is done", rebooted(shared, node, "test-missing"))
	eventually(t, 10*time.Second, "it is back in the slice", func(ctx context.Context) (bool, error) {
		s, err := slice(ctx)
		return err == nil && has(s) && s.Spec.Pool.Generation == before.Spec.Pool.Generation+2, err
	})
}

func TestADevicePluginLowersAllocatableAndCountsAnewAtABoot(t *testing.T) {
	const node = "gpu-07"
	offers := func(want string) func(ctx context.Context) (bool, error) {
		return func(ctx context.Context) (bool, error) {
			n, err := getNode(ctx, shared, node)
			if err != nil {
				return false, err
			}
			capacity, allocatable := n.Status.Capacity[fleet.PluginResource], n.Status.Allocatable[fleet.PluginResource]
			got := allocatable.String() + " of " + capacity.String()
			return got == want, fmt.Errorf("%s", got)
		}
	}
	eventually(t, 5*time.Second, "eight are offered", offers("8 of 8"))
	inject(t, shared, fleet.Injection{Fault: "xid79", Node: node, HealsAfter: 2})
	eventually(t, 5*time.Second, "seven are offered", offers("7 of 8"))
	restart(t, node)
	eventually(t, 15*time.Second, "the plugin finds seven", offers("7 of 7"))
	restart(t, node)
	eventually(t, 15*time.Second, "the plugin finds eight", offers("8 of 8"))
}

func TestAnAgentThatIsDeadOrHangsIsNotReadyUntilItIsHealed(t *testing.T) {
	for _, fault := range []string{"agent-dead", "agent-hang"} {
		t.Run(fault, func(t *testing.T) {
			const node = "gpu-04"
			ready := func(want bool) func(ctx context.Context) (bool, error) {
				return func(ctx context.Context) (bool, error) {
					pods := &corev1.PodList{}
					err := shared.Client().List(ctx, pods, client.InNamespace("roundhouse-system"), client.MatchingFields{"spec.nodeName": node})
					if err != nil || len(pods.Items) != 1 {
						return false, fmt.Errorf("%d pods: %w", len(pods.Items), err)
					}
					return slices.ContainsFunc(pods.Items[0].Status.Conditions, func(c corev1.PodCondition) bool {
						return c.Type == corev1.PodReady && (c.Status == corev1.ConditionTrue) == want
					}), nil
				}
			}
			eventually(t, 10*time.Second, "it is ready", ready(true))
			inject(t, shared, fleet.Injection{Fault: fault, Node: node})
			eventually(t, 10*time.Second, "it is not ready", ready(false))
			inject(t, shared, fleet.Injection{Fault: "heal", Node: node})
			eventually(t, 10*time.Second, "it is ready again", ready(true))
		})
	}
}

func TestAnAgentWritesAsItself(t *testing.T) {
	h, err := health(t.Context(), shared, "gpu-00")
	if err != nil {
		t.Fatal(err)
	}
	// With which credential is e2e's to test: the admission policy refuses a status that another node's token writes.
	if !writtenByAnAgent(h) {
		t.Errorf("the status was not written by an agent: %+v", h.ManagedFields)
	}
}

// writtenByAnAgent says whether an agent has written a status as itself.
func writtenByAnAgent(h *v1alpha1.NodeHealth) bool {
	return slices.ContainsFunc(h.ManagedFields, func(m metav1.ManagedFieldsEntry) bool {
		return m.Manager == "roundhouse-agent" && m.Subresource == "status"
	})
}

func TestForeignWritersLoseNothing(t *testing.T) {
	x, err := shared.Fleet().StartForeign(t.Context(), 20*time.Millisecond, "gpu-05")
	if err != nil {
		t.Fatal(err)
	}
	inject(t, shared, fleet.Injection{Fault: "link-narrow", Node: "gpu-05", Device: 1})
	if err := shared.Fleet().Crash("gpu-05"); err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, "the node is back", func(ctx context.Context) (bool, error) {
		state, _ := shared.Fleet().State(ctx, "gpu-05")
		return state.Up && state.Reboots == 1, fmt.Errorf("%+v", state)
	})
	writes, lost, err := x.Stop(t.Context())
	if err != nil || len(lost) > 0 || writes < 20 {
		t.Errorf("%d writes, lost %q, error %v", writes, lost, err)
	}
}

func TestAFaultThatCannotBeInjectedIsRefused(t *testing.T) {
	tests := map[string]fleet.Injection{
		"a fault that there is not":  {Fault: "xid0", Node: "gpu-00"},
		"a node that there is not":   {Fault: "xid79", Node: "gpu-99"},
		"a device that there is not": {Fault: "xid79", Node: "gpu-00", Device: 8},
		"a device below the first":   {Fault: "xid79", Node: "gpu-00", Device: -1},
		"a healer that there is not": {Fault: "xid79", Node: "gpu-00", HealedBy: "prayer"},
		"a storm without measure":    {Fault: "xid45", Node: "gpu-00", Count: 1 << 30},
	}
	for name, in := range tests {
		t.Run(name, func(t *testing.T) {
			if err := shared.Fleet().Inject(t.Context(), in); err == nil {
				t.Error("no error")
			}
		})
	}
}

// broken says whether a node's agent reports a critical fault of a device.
func broken(want bool, node string) func(ctx context.Context) (bool, error) {
	return func(ctx context.Context) (bool, error) {
		h, err := health(ctx, shared, node)
		if err != nil {
			return false, err
		}
		return (h.Status.Summary == v1alpha1.SummaryFaulty) == want && h.Status.Summary != v1alpha1.SummaryUnknown,
			fmt.Errorf("%s in boot %s: %+v", h.Status.Summary, h.Status.BootID, h.Status.Faults)
	}
}

// restart restarts a node and waits until it is in its next boot.
func restart(t *testing.T, node string) {
	t.Helper()
	before, _ := shared.Fleet().State(t.Context(), node)
	if err := shared.Fleet().Crash(node); err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, "the agent reports from the next boot", func(ctx context.Context) (bool, error) {
		state, _ := shared.Fleet().State(ctx, node)
		if !state.Up || state.Reboots != before.Reboots+1 {
			return false, fmt.Errorf("%+v", state)
		}
		h, err := health(ctx, shared, node)
		return err == nil && h.Status.BootID == state.BootID && h.Status.CompletedRound != nil && h.Status.CompletedRound.BootID == state.BootID, err
	})
}

func TestAFaultComesBackAsOftenAsItIsScriptedTo(t *testing.T) {
	const node = "gpu-06"
	inject(t, shared, fleet.Injection{Fault: "xid79", Node: node, Device: 2, Relapses: 1, RelapseAfter: 2 * time.Second})
	eventually(t, 10*time.Second, "it is broken", broken(true, node))
	restart(t, node)
	eventually(t, 10*time.Second, "a boot heals it", broken(false, node))
	eventually(t, 10*time.Second, "it comes back", broken(true, node))
	restart(t, node)
	eventually(t, 10*time.Second, "a second boot heals it", broken(false, node))
	time.Sleep(3 * time.Second) // longer than a relapse would take
	eventually(t, time.Second, "it is healed for good", broken(false, node))
}

func TestAFaultThatNoBootHealsStandsUntilItIsHealed(t *testing.T) {
	const node = "gpu-06"
	inject(t, shared, fleet.Injection{Fault: "device-missing", Node: node, Device: 1, HealsAfter: fleet.Never})
	eventually(t, 15*time.Second, "it is broken", broken(true, node))
	restart(t, node)
	eventually(t, 15*time.Second, "it is broken after a boot", broken(true, node))
	inject(t, shared, fleet.Injection{Fault: "heal", Node: node})
	restart(t, node)
	eventually(t, 15*time.Second, "it is healed", broken(false, node))
}

func TestWhatOthersDoToANodeIsDoneAndUndone(t *testing.T) {
	const node = "gpu-00"
	look := func(want bool) func(ctx context.Context) (bool, error) {
		return func(ctx context.Context) (bool, error) {
			n, err := getNode(ctx, shared, node)
			if err != nil {
				return false, err
			}
			tainted := slices.ContainsFunc(n.Spec.Taints, func(t corev1.Taint) bool { return t.Key == fleet.ForeignTaint })
			deadlock := conditionOf(n, fleet.ForeignCondition) == corev1.ConditionTrue
			return n.Spec.Unschedulable == want && tainted == want && deadlock == want,
				fmt.Errorf("cordoned %t, tainted %t, deadlocked %t", n.Spec.Unschedulable, tainted, deadlock)
		}
	}
	for _, fault := range []string{"foreign-cordon", "foreign-taint", "node-condition"} {
		inject(t, shared, fleet.Injection{Fault: fault, Node: node})
	}
	eventually(t, 5*time.Second, "all of it is there", look(true))
	inject(t, shared, fleet.Injection{Fault: "heal", Node: node})
	eventually(t, 5*time.Second, "none of it is left", look(false))
}

func TestAnApplicationsStormIsCountedAndNoFaultOfTheNode(t *testing.T) {
	const node = "gpu-00"
	inject(t, shared, fleet.Injection{Fault: "xid45", Node: node, Device: 4, Count: 1000})
	eventually(t, 15*time.Second, "a thousand lines are seen and the node is Healthy", func(ctx context.Context) (bool, error) {
		h, err := health(ctx, shared, node)
		if err != nil || len(h.Status.Faults) == 0 {
			return false, err
		}
		f := h.Status.Faults[0]
		// Counts are published at powers of two.
		return f.Code == "Xid45" && f.Count >= 512 && h.Status.Summary == v1alpha1.SummaryHealthy, fmt.Errorf("%s, %+v", h.Status.Summary, f)
	})
}
