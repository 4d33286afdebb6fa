package budget

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

// view is the Nodes at one moment, and what was counted on them. When a slot is freed, a thousand incidents may ask for
// it at once, and 30,000 nodes are not counted for each.
type view struct {
	nodes    []*corev1.Node
	byName   map[string]*corev1.Node
	deviceOf func(*corev1.Node) int32

	mu      sync.Mutex
	tallies map[string]tally
}

// tally is what a budget sees on the Nodes, by topology domain, reservations apart.
type tally map[string]*domainTally

// domainTally is one domain: how many nodes the budget selects there, and which of them are out.
type domainTally struct {
	size int
	out  []outage
}

func newView(nodes []*corev1.Node, deviceOf func(*corev1.Node) int32) *view {
	v := &view{nodes: nodes, byName: make(map[string]*corev1.Node, len(nodes)), deviceOf: deviceOf, tallies: map[string]tally{}}
	for _, node := range nodes {
		v.byName[node.Name] = node
	}
	return v
}

// domain gives a domain of a budget. key stands for everything that selects depends on.
func (v *view) domain(budget *v1alpha1.NodeDisruptionBudget, key, domain string, selects func(*corev1.Node) bool) domainTally {
	v.mu.Lock()
	defer v.mu.Unlock()
	t, ok := v.tallies[key]
	if !ok {
		t = v.count(budget, selects)
		v.tallies[key] = t
	}
	if d := t[domain]; d != nil {
		return *d
	}
	return domainTally{}
}

func (v *view) count(budget *v1alpha1.NodeDisruptionBudget, selects func(*corev1.Node) bool) tally {
	t := tally{}
	for _, node := range v.nodes {
		if !selects(node) {
			continue
		}
		domain := domainOf(budget, node)
		if t[domain] == nil {
			t[domain] = &domainTally{}
		}
		t[domain].size++
		if why := whyOut(node, budget.Spec.CountTaints); why != "" {
			t[domain].out = append(t[domain].out, outage{node: node.Name, why: why, devices: v.deviceOf(node)})
		}
	}
	return t
}

// domainNow is the domain that the node of this name is in now; false where there is no such node.
func (v *view) domainNow(budget *v1alpha1.NodeDisruptionBudget, name string) (string, bool) {
	node, ok := v.byName[name]
	if !ok {
		return "", false
	}
	return domainOf(budget, node), true
}

// memo is the Keeper's last view.
type memo struct {
	mu    sync.Mutex
	seen  *view
	until time.Time
}

// look lists the Nodes from the cache, not copied: nobody here writes to them. One look serves for NodesMaxAge; a cache
// is behind by as much anyway.
func (k *Keeper) look(ctx context.Context) (*view, error) {
	k.memo.mu.Lock()
	defer k.memo.mu.Unlock()
	now := k.options.Now()
	if k.memo.seen != nil && now.Before(k.memo.until) {
		return k.memo.seen, nil
	}
	list := &corev1.NodeList{}
	if err := k.options.Client.List(ctx, list, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("listing nodes: %w", err)
	}
	nodes := make([]*corev1.Node, 0, len(list.Items))
	for i := range list.Items {
		nodes = append(nodes, &list.Items[i])
	}
	k.memo.seen, k.memo.until = newView(nodes, k.options.DevicesOf), now.Add(k.options.NodesMaxAge)
	return k.memo.seen, nil
}

// key says what a budget's counting depends on: its own text, and for the implicit one every other's selector.
func (g guards) key(budget *v1alpha1.NodeDisruptionBudget) string {
	key := versionOf(budget)
	if budget.Name != v1alpha1.ImplicitBudget {
		return key
	}
	var all strings.Builder
	all.WriteString(key)
	for _, named := range g.named {
		all.WriteString(" " + versionOf(named.budget))
	}
	return all.String()
}

func versionOf(budget *v1alpha1.NodeDisruptionBudget) string {
	return fmt.Sprintf("%s/%s/%d", budget.Name, budget.UID, budget.Generation)
}
