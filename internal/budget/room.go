package budget

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

// Room is how many nodes a budget lets be out in one of its domains, and how many more may go now.
type Room struct {
	Free, Slots int
}

// Rooms says, from the cache, through which rooms nodes have to go, and how large those are. A room that a node is counted in
// as out already is not listed for it: it needs no slot more there. Budgets of devices alone, and nodes that the cache does not
// have, have none. It is an estimate: only Reserve grants.
func (k *Keeper) Rooms(ctx context.Context, nodes []string) (of map[string][]string, rooms map[string]Room, err error) {
	seen, err := k.look(ctx)
	if err != nil {
		return nil, nil, err
	}
	list := &v1alpha1.NodeDisruptionBudgetList{}
	if err := k.options.Client.List(ctx, list, client.UnsafeDisableDeepCopy); err != nil {
		return nil, nil, fmt.Errorf("listing budgets: %w", err)
	}
	all := readGuards(list.Items)
	of, rooms = map[string][]string{}, map[string]Room{}
	out := map[string]map[string]bool{}
	for _, name := range nodes {
		node := seen.byName[name]
		if node == nil {
			continue
		}
		for _, budget := range all.selecting(node.Labels) {
			if budget.Spec.MaxUnavailable == nil {
				continue
			}
			domain := domainOf(budget, node)
			key := budget.Name + "/" + domain
			if out[key] == nil {
				room, names, err := k.room(budget, all, domain, seen)
				if err != nil {
					return nil, nil, err
				}
				rooms[key], out[key] = room, names
			}
			if !out[key][name] {
				of[name] = append(of[name], key)
			}
		}
	}
	return of, rooms, nil
}

// room counts one domain of a budget, as for somebody who is not in it.
func (k *Keeper) room(budget *v1alpha1.NodeDisruptionBudget, all guards, domain string, seen *view) (Room, map[string]bool, error) {
	s := k.snapshot(budget, all, request{node: &corev1.Node{}, remediation: &v1alpha1.Remediation{}}, seen)
	out, size := s.outages(domain)
	allowed, err := allowedNodes(*budget.Spec.MaxUnavailable, size)
	if err != nil {
		return Room{}, nil, fmt.Errorf("budget %s: maxUnavailable: %w", budget.Name, err)
	}
	names := make(map[string]bool, len(out))
	for _, o := range out {
		names[o.node] = true
	}
	return Room{Free: max(0, allowed-len(out)), Slots: allowed}, names, nil
}
