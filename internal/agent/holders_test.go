package agent

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apiresource "k8s.io/apimachinery/pkg/api/resource"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/health"
	"github.com/roundhouse-dev/roundhouse/internal/podresources"
)

// kubelet says what the test says.
type kubelet struct {
	mu    sync.Mutex
	list  []podresources.Holding
	err   error
	hold  chan struct{}
	asked int
}

func (k *kubelet) Holdings(ctx context.Context) ([]podresources.Holding, error) {
	k.mu.Lock()
	k.asked++
	list, err, hold := k.list, k.err, k.hold
	k.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return list, err
}

func (k *kubelet) says(err error, list ...podresources.Holding) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.list, k.err = list, err
}

func (k *kubelet) times() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.asked
}

func given(pod, container, id string) podresources.Holding {
	return podresources.Holding{Namespace: "ml", Pod: pod, Container: container, Resource: "nvidia.com/gpu", ID: id}
}

func held(device, pod, container string) v1alpha1.Holder {
	return v1alpha1.Holder{Device: device, Namespace: "ml", Pod: pod, Container: container}
}

// pluginBench is an agent on a node with a device plugin and two devices.
func pluginBench(t *testing.T, k *kubelet) *bench {
	t.Helper()
	b := newBench(t, func(o *Options) {
		if k != nil {
			o.Holdings = k
		}
		o.Parts = func() map[string]string { return map[string]string{"MIG-1": "GPU-1"} }
	})
	b.server.node.Status.Allocatable = corev1.ResourceList{"cpu": apiresource.MustParse("8"), "nvidia.com/gpu": apiresource.MustParse("2")}
	b.finds()
	return b
}

// finds is what the check finds, with the inventory.
func (b *bench) finds(findings ...health.Finding) {
	b.check.finds(findings...)
	b.check.mu.Lock()
	defer b.check.mu.Unlock()
	b.check.result.Devices = []v1alpha1.Device{{ID: "GPU-1", PCI: "0000:18:00.0"}, {ID: "GPU-2", PCI: "0000:2a:00.0"}}
}

// breaks has a fault on a device found at once.
func (b *bench) breaks(f ...health.Finding) {
	b.finds(f...)
	b.node.Wake()
	b.step(2 * time.Second)
}

func (b *bench) wantHolders(unknown string, want ...v1alpha1.Holder) {
	b.t.Helper()
	s := b.server.get().Status
	if diff := cmp.Diff(want, s.Holders); diff != "" {
		b.t.Errorf("holders (-want +got):\n%s", diff)
	}
	if unknown == "" && s.HoldersUnknown != "" || !strings.Contains(s.HoldersUnknown, unknown) {
		b.t.Errorf("unknown: %q, want %q", s.HoldersUnknown, unknown)
	}
	if asked := s.HoldersAt != nil; asked != (unknown == "" || strings.HasPrefix(unknown, "which device")) {
		b.t.Errorf("holdersAt is %v", s.HoldersAt)
	}
}

func TestWhoHoldsABadDevice(t *testing.T) {
	second := offTheBus
	second.Fault.Device = "GPU-2"
	application := finding("Xid31", v1alpha1.ClassApplication, v1alpha1.SeverityCritical, 1)
	everybody := []podresources.Holding{
		given("b", "main", "GPU-1"), given("a", "side", "GPU-1::1"), given("a", "side", "GPU-1::0"), given("a", "main", "GPU-2"), given("m", "main", "MIG-1"),
		{Namespace: "ml", Pod: "b", Container: "main", Resource: "rdma/hca", ID: "mlx5_0"},
	}
	for name, tc := range map[string]struct {
		faults  []health.Finding
		list    []podresources.Holding
		err     error
		want    []v1alpha1.Holder
		unknown string
	}{
		"by UUID, as replica and as MIG device, each container once": {
			faults: []health.Finding{offTheBus}, list: everybody,
			want: []v1alpha1.Holder{held("GPU-1", "a", "side"), held("GPU-1", "b", "main"), held("GPU-1", "m", "main")},
		},
		"nobody holds it, and that is known": {faults: []health.Finding{second}, list: everybody[:3]},
		"both": {
			faults: []health.Finding{offTheBus, second}, list: everybody[2:4],
			want: []v1alpha1.Holder{held("GPU-1", "a", "side"), held("GPU-2", "a", "main")},
		},
		"a plugin that counts": {
			faults: []health.Finding{offTheBus}, list: append(everybody[:1:1], given("x", "c", "nvidia0"), given("y", "c", "nvidia1"), given("z", "c", "nvidia2")),
			want:    []v1alpha1.Holder{held("GPU-1", "b", "main")},
			unknown: `which device is meant cannot be told: "nvidia0" of nvidia.com/gpu, held by ml/x, "nvidia1" of nvidia.com/gpu, held by ml/y, and 1 more`,
		},
		"the kubelet cannot be asked":                     {faults: []health.Finding{offTheBus}, err: errors.New("no kubelet socket /x"), unknown: "no kubelet socket /x"},
		"a long excuse is cut":                            {faults: []health.Finding{offTheBus}, err: errors.New(strings.Repeat("x", 999)), unknown: "xxx..."},
		"an application's own fault is nobody's business": {faults: []health.Finding{application}, list: everybody, unknown: "-"},
		"the node's own fault is on no device":            {faults: []health.Finding{{Fault: v1alpha1.Fault{Code: "N", Check: "a", Severity: v1alpha1.SeverityCritical, Class: v1alpha1.ClassHost, Count: 1}}}, list: everybody, unknown: "-"},
	} {
		t.Run(name, func(t *testing.T) {
			k := &kubelet{}
			b := pluginBench(t, k)
			b.step(time.Second)
			k.says(tc.err, tc.list...)
			b.breaks(tc.faults...)
			if tc.unknown == "-" {
				if s := b.server.get().Status; s.Holders != nil || s.HoldersUnknown != "" || s.HoldersAt != nil || k.times() > 0 {
					t.Errorf("asked %d times: %+v", k.times(), s)
				}
				return
			}
			b.wantHolders(tc.unknown, tc.want...)
		})
	}
}

func TestAHealthyNodeDoesNotAsk(t *testing.T) {
	k := &kubelet{}
	b := pluginBench(t, k)
	b.step(time.Second)
	before := b.server.writes()
	for i := range 60 {
		k.says(nil, given(fmt.Sprint("pod-", i), "c", "GPU-1"))
		b.step(time.Minute)
	}
	if k.times() != 0 || b.server.writes() != before {
		t.Errorf("asked %d times, %d writes", k.times(), b.server.writes()-before)
	}
}

// A bad node writes when the bad device changes hands, not when others do, and now and then that it still holds.
func TestWhatIsWrittenWhileADeviceIsBad(t *testing.T) {
	k := &kubelet{}
	b := pluginBench(t, k)
	b.step(time.Second)
	k.says(nil, given("a", "c", "GPU-1"))
	b.breaks(offTheBus)
	b.wantHolders("", held("GPU-1", "a", "c"))
	first := *b.server.get().Status.HoldersAt
	before := b.server.writes()
	for i := range 8 {
		k.says(nil, given("a", "c", "GPU-1"), given(fmt.Sprint("pod-", i), "c", "GPU-2"))
		b.step(30 * time.Second)
	}
	if n := b.server.writes() - before; n != 0 {
		t.Errorf("%d writes because of other devices", n)
	}
	b.step(2 * time.Minute)
	if n := b.server.writes() - before; n != 1 || !b.server.get().Status.HoldersAt.After(first.Time) {
		t.Errorf("%d writes, want that of the word renewed after five minutes", n)
	}
	k.says(nil)
	b.step(holdersEvery + time.Second)
	b.wantHolders("")
	b.finds()
	b.step(2 * time.Minute)
	if s := b.server.get().Status; s.HoldersAt != nil || len(s.Faults) > 0 {
		t.Errorf("the fault is over: %+v", s)
	}
	asked := k.times()
	b.step(10 * time.Minute)
	if k.times() != asked {
		t.Error("still asked")
	}
}

func TestTheFaultDoesNotWaitForTheKubelet(t *testing.T) {
	k := &kubelet{hold: make(chan struct{}), list: []podresources.Holding{given("a", "c", "GPU-1")}}
	check := &hurried{scripted: scripted{name: "a"}, lines: make(chan struct{}, 1)}
	check.finds()
	b := runBenchWith(t, func(o *Options) { o.Holdings = k }, check)
	b.server.mu.Lock()
	b.server.node.Status.Allocatable = corev1.ResourceList{"nvidia.com/gpu": apiresource.MustParse("2")}
	b.server.mu.Unlock()
	soon(t, "healthy", b.is(v1alpha1.SummaryHealthy))
	b.node.knowNode(&b.server.node)
	check.mu.Lock()
	check.result = health.Result{Outcome: health.Failing, Findings: []health.Finding{offTheBus}, Devices: []v1alpha1.Device{{ID: "GPU-1"}}}
	check.mu.Unlock()
	check.lines <- struct{}{}
	soon(t, "faulty", b.is(v1alpha1.SummaryFaulty))
	b.wantHolders(holdersNotAsked)
	soon(t, "asked", func() bool { return k.times() == 1 })
	close(k.hold)
	took := soon(t, "who holds it", func() bool { return len(b.server.get().Status.Holders) == 1 })
	if took > 500*time.Millisecond {
		t.Errorf("the word took %s to be written", took)
	}
}

func TestNobodyAndNobodyCouldTellAreNotTheSame(t *testing.T) {
	t.Run("an agent that does not ask says so", func(t *testing.T) {
		b := pluginBench(t, nil)
		b.step(time.Second)
		b.breaks(offTheBus)
		b.wantHolders(holdersNobody)
	})
	t.Run("a node without a device plugin has nothing to tell", func(t *testing.T) {
		k := &kubelet{}
		b := pluginBench(t, k)
		b.server.node.Status.Allocatable = corev1.ResourceList{"cpu": apiresource.MustParse("8"), "rdma/hca": apiresource.MustParse("8")}
		b.step(time.Second)
		b.breaks(offTheBus)
		if s := b.server.get().Status; s.HoldersUnknown != "" || s.HoldersAt != nil || k.times() != 0 {
			t.Errorf("%+v", s)
		}
	})
	t.Run("a plugin that has died counts", func(t *testing.T) {
		k := &kubelet{}
		b := pluginBench(t, k)
		b.server.node.Status.Allocatable = corev1.ResourceList{"nvidia.com/gpu": apiresource.MustParse("0")}
		b.step(time.Second)
		b.breaks(offTheBus)
		b.wantHolders("")
	})
	t.Run("a kubelet that answers no more takes its word back", func(t *testing.T) {
		k := &kubelet{list: []podresources.Holding{given("a", "c", "GPU-1")}}
		b := pluginBench(t, k)
		b.step(time.Second)
		b.breaks(offTheBus)
		k.says(errors.New("down"))
		b.step(holdersEvery + time.Second)
		b.wantHolders("down")
		k.says(nil, given("a", "c", "GPU-1"))
		b.step(holdersRetry + time.Second)
		b.wantHolders("", held("GPU-1", "a", "c"))
	})
	t.Run("a boot begins anew", func(t *testing.T) {
		k := &kubelet{list: []podresources.Holding{given("a", "c", "GPU-1")}}
		b := pluginBench(t, k)
		b.step(time.Second)
		b.breaks(offTheBus)
		k.says(errors.New("the kubelet is not up yet"))
		b.machine.GoDown(5 * time.Second)
		b.step(10 * time.Second)
		if got := b.server.get().Status.BootID; got == bootID {
			t.Fatal("no boot")
		}
		b.wantHolders("the kubelet is not up yet")
	})
	t.Run("a new process of the agent goes on with what was said", func(t *testing.T) {
		k := &kubelet{list: []podresources.Holding{given("a", "c", "GPU-1")}}
		b := pluginBench(t, k)
		b.step(time.Second)
		placed := offTheBus
		placed.PCI = "0000:18:00.0"
		b.breaks(placed)
		before := b.server.writes()
		was := b.server.get().Status
		b.restart()
		b.step(2 * time.Second)
		b.wantHolders("", held("GPU-1", "a", "c"))
		if n := b.server.writes() - before; n != 0 {
			t.Errorf("%d writes: %s", n, cmp.Diff(was, b.server.get().Status))
		}
	})
	t.Run("more than can be listed", func(t *testing.T) {
		k := &kubelet{}
		b := pluginBench(t, k)
		b.step(time.Second)
		for i := range MaxHolders + 6 {
			k.list = append(k.list, given(fmt.Sprintf("p%02d", i), "c", "GPU-1::"+fmt.Sprint(i)))
		}
		b.breaks(offTheBus)
		if s := b.server.get().Status; len(s.Holders) != MaxHolders || s.HoldersUnknown != "6 more containers hold bad devices than can be listed" {
			t.Errorf("%d, %q", len(s.Holders), s.HoldersUnknown)
		}
	})
}

// What was said of a fault that is over, or in another boot, is no word of this one.
func TestAnOldWordIsNotTakenForANewOne(t *testing.T) {
	k := &kubelet{list: []podresources.Holding{given("a", "c", "GPU-1")}}
	b := pluginBench(t, k)
	b.step(time.Second)
	b.breaks(offTheBus)
	b.finds()
	b.step(2 * time.Minute)
	if !b.node.held.said.at.IsZero() {
		t.Error("the word outlives its fault")
	}
	at := seconds(began)
	published := v1alpha1.NodeHealthStatus{BootID: "1", HoldersAt: &at, Faults: []v1alpha1.Fault{offTheBus.Fault}}
	for name, next := range map[string]v1alpha1.NodeHealthStatus{
		"of another boot":   {BootID: "2", HoldersUnknown: holdersNotAsked, Faults: published.Faults},
		"of another device": {BootID: "1", HoldersUnknown: holdersNotAsked, Faults: []v1alpha1.Fault{{Device: "GPU-2", Severity: v1alpha1.SeverityCritical}}},
	} {
		if got := settledHolders(published, next); got.HoldersUnknown != holdersNotAsked {
			t.Errorf("a word %s was kept", name)
		}
	}
}

// Helm does not upgrade CRDs: what they do not know, the API server drops without a word.
func TestAnOlderCRDIsNotWrittenToForEver(t *testing.T) {
	b := pluginBench(t, &kubelet{list: []podresources.Holding{given("a", "c", "GPU-1")}})
	b.server.oldCRD = true
	b.step(time.Second)
	before := b.server.writes()
	b.breaks(offTheBus)
	b.step(10 * time.Minute)
	if n := b.server.writes() - before; n > 3 {
		t.Errorf("%d writes, want the fault's, the condition's and at most one more", n)
	}
	b.wantSummary(v1alpha1.SummaryFaulty)
}
