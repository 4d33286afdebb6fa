package agent

import (
	"context"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

const (
	// offeredAge is how old what the kubelet offers may be; this is asked at every look, by every agent of a fleet.
	offeredAge = 15 * time.Minute
)

// Labels are the Node's labels as last read. It never waits: where they are not known or are older than asked for, it says so
// or gives the old ones, and they are read before long.
func (n *Node) Labels(age time.Duration) (map[string]string, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.askLocked(age)
	return n.node.labels, !n.node.readAt.IsZero()
}

// Offered is how many of an extended resource, such as nvidia.com/gpu, the kubelet offers to pods; like Labels it never
// waits. It is false where the Node has not been read, or has no such resource.
func (n *Node) Offered(resource string) (int, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.askLocked(offeredAge)
	quantity, ok := n.node.offered[corev1.ResourceName(resource)]
	return int(quantity.Value()), ok
}

// Faults are what is published of what stands.
func (n *Node) Faults() []v1alpha1.Fault {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.health == nil {
		return nil
	}
	return n.health.Status.Faults
}

// askLocked asks for the Node to be read where it was read longer ago than that.
func (n *Node) askLocked(age time.Duration) {
	now := n.clock.Now()
	if n.node.staleAt.IsZero() && now.Sub(n.node.readAt) >= age {
		n.node.staleAt = now
		n.nudge()
	}
}

// renewFacts reads the Node where a check found what is known of it too old. An API server that does not answer leaves
// the old facts; nothing that is published waits for them.
func (n *Node) renewFacts(ctx context.Context) {
	n.mu.Lock()
	wanted := !n.node.staleAt.IsZero() && n.clock.Now().Sub(n.node.readAt) >= nodeRetry
	n.mu.Unlock()
	if !wanted {
		return
	}
	if err := n.readNode(ctx); err != nil {
		logr.FromContextOrDiscard(ctx).V(1).Info("The Node could not be read", "node", n.o.Name, "error", err.Error())
		n.mu.Lock()
		n.node.staleAt = time.Time{}
		n.mu.Unlock()
	}
}
