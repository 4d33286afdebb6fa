package agent

import (
	"errors"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
)

const gpus = "nvidia.com/gpu"

func nodeReads(b *bench) int {
	b.server.mu.Lock()
	defer b.server.mu.Unlock()
	return len(slices.DeleteFunc(slices.Clone(b.server.calls), func(c string) bool { return c != "get node" }))
}

func (b *bench) label(value string) {
	b.server.mu.Lock()
	defer b.server.mu.Unlock()
	b.server.node.Labels["nvidia.com/gpu-driver-upgrade-state"] = value
	b.server.node.Status.Allocatable = corev1.ResourceList{corev1.ResourceName(gpus): apiresource.MustParse("7")}
}

func TestTheNodesFactsAreReadWhenACheckAsksAndTheyAreOld(t *testing.T) {
	b := newBench(t)
	if _, known := b.node.Labels(30 * time.Second); known {
		t.Error("labels are known before the Node was read")
	}
	b.step(time.Second)
	if n, known := b.node.Offered(gpus); known {
		t.Errorf("%d GPUs are offered by a kubelet that has none", n)
	}
	b.label("drain-required")
	b.step(time.Second) // what was asked for above.
	before := nodeReads(b)
	b.step(time.Hour)
	if nodeReads(b) != before {
		t.Error("the Node is read though nobody asks")
	}
	b.node.Labels(30 * time.Second)
	b.step(time.Second)
	labels, known := b.node.Labels(30 * time.Second)
	if !known || labels["nvidia.com/gpu-driver-upgrade-state"] != "drain-required" || nodeReads(b) != before+1 {
		t.Errorf("labels %v, known %t, after %d reads", labels, known, nodeReads(b)-before)
	}
	if n, known := b.node.Offered(gpus); n != 7 || !known {
		t.Errorf("%d GPUs are offered, known %t; want 7", n, known)
	}
	for range 60 {
		b.node.Offered(gpus)
		b.step(20 * time.Second)
	}
	if n := nodeReads(b) - before; n != 2 {
		t.Errorf("%d reads in twenty minutes, want 2", n)
	}
}

func TestANodeThatCannotBeReadKeepsItsFacts(t *testing.T) {
	b := newBench(t)
	b.step(time.Second)
	b.label("done")
	b.clock.Step(time.Hour)
	b.node.Labels(30 * time.Second)
	b.step(time.Second)
	b.server.before = func(call string) error {
		if call == "get node" {
			return errors.New("no route to host")
		}
		return nil
	}
	b.clock.Step(time.Hour)
	b.node.Labels(30 * time.Second)
	b.check.finds(offTheBus)
	b.node.Wake()
	b.step(time.Second)
	if labels, known := b.node.Labels(30 * time.Second); !known || labels["pool"] != "a" {
		t.Errorf("labels %v, known %t", labels, known)
	}
	if status := b.server.get().Status; len(status.Faults) != 1 {
		t.Errorf("the fault waits for the Node: %+v", status)
	}
}
