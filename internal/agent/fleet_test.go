package agent_test

import (
	"context"
	"fmt"
	"runtime"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/agent"
	"github.com/roundhouse-dev/roundhouse/internal/health/kernellog"
	"github.com/roundhouse-dev/roundhouse/internal/health/pci"
	"github.com/roundhouse-dev/roundhouse/internal/machine/fake"
	"github.com/roundhouse-dev/roundhouse/internal/remedy/reboot"
)

// agreeable is an API server that agrees to everything and stores nothing but a version.
type agreeable struct {
	health *v1alpha1.NodeHealth
	writes int
}

func (a *agreeable) Health(context.Context) (*v1alpha1.NodeHealth, error) { return a.health, nil }

func (a *agreeable) PutStatus(_ context.Context, h *v1alpha1.NodeHealth) (*v1alpha1.NodeHealth, error) {
	a.writes++
	out := *h
	out.ResourceVersion = fmt.Sprint(a.writes + 1)
	a.health = &out
	return a.health, nil
}

func (*agreeable) Watch(context.Context) (watch.Interface, error) { return watch.NewEmptyWatch(), nil }

func (a *agreeable) Node(context.Context) (*corev1.Node, error) {
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: a.health.Name, UID: types.UID(a.health.Spec.NodeUID)}}, nil
}

func (*agreeable) PatchCondition(context.Context, string, corev1.NodeCondition) error { return nil }

func (*agreeable) Holds(context.Context) ([]v1alpha1.RemediationHold, error) { return nil, nil }

// fleetNode is a node of eight GPUs with the real checks.
func fleetNode(tb testing.TB, i int) (*agent.Node, *fake.Machine, *agreeable) {
	tb.Helper()
	name := fmt.Sprintf("gpu-%05d", i)
	m := fake.New(fake.Options{Hostname: name, Devices: fake.H200s(8, uint32(i)), BootID: fmt.Sprintf("%08x-0000-4000-8000-000000000000", i)})
	api := &agreeable{health: &v1alpha1.NodeHealth{
		ObjectMeta: metav1.ObjectMeta{Name: name, UID: "nh", ResourceVersion: "1"}, Spec: v1alpha1.NodeHealthSpec{NodeUID: "uid"},
	}}
	n, err := agent.New(agent.Options{
		Name: name, Version: "test", Machine: m, API: api,
		Checks: func() []agent.Scheduled {
			log := kernellog.New(kernellog.Options{Machine: m})
			return []agent.Scheduled{
				{Check: log, Every: 10 * time.Minute},
				{Check: pci.New(pci.Options{Machine: m, UUID: log.UUID}), Every: 10 * time.Minute},
			}
		},
		Executors: map[v1alpha1.ActionType]agent.Executor{v1alpha1.ActionReboot: reboot.New(m)},
	})
	if err != nil {
		tb.Fatal(err)
	}
	return n, m, api
}

// BenchmarkFleet is what a node costs where one process plays many: memory, an idle step, and a step with a fault.
func BenchmarkFleet(b *testing.B) {
	const size = 1000
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	nodes := make([]*agent.Node, size)
	machines := make([]*fake.Machine, size)
	for i := range nodes {
		nodes[i], machines[i], _ = fleetNode(b, i)
		nodes[i].Step(b.Context())
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	perNode := float64(after.HeapAlloc-before.HeapAlloc) / size
	b.Run("idle step", func(b *testing.B) {
		b.ReportMetric(perNode, "B/node")
		for i := range b.N {
			nodes[i%size].Step(b.Context())
		}
	})
	b.Run("line to write", func(b *testing.B) {
		b.ReportMetric(perNode, "B/node")
		for i := range b.N {
			machines[i%size].Kernel("NVRM: Xid (PCI:0000:28:00): 79, GPU has fallen off the bus.")
			nodes[i%size].Wake()
			nodes[i%size].Step(b.Context())
		}
	})
	runtime.KeepAlive(nodes)
}
