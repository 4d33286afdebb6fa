package budget

import (
	"cmp"
	"context"
	"fmt"
	"math"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/claim"
)

const (
	// pageSize is how many Nodes one request of a live LIST asks for, maxPages how many pages there can be.
	pageSize = 1000
	maxPages = 1000
	// maxName and maxUID are bounds of the schema.
	maxName = 253
	maxUID  = 64
)

func byName(a, b *v1alpha1.NodeDisruptionBudget) int { return cmp.Compare(a.Name, b.Name) }

// Rebuild gives a budget object that is new, or was re-created, its reservations from the claims on Nodes, and writes
// them. Until then it grants nothing. It changes nothing where that was done.
func (k *Keeper) Rebuild(ctx context.Context, budget *v1alpha1.NodeDisruptionBudget) error {
	all, err := k.liveGuards(ctx)
	if err != nil {
		return err
	}
	current := budget.DeepCopy()
	rebuilt, err := k.rebuild(ctx, current, all)
	if err != nil || !rebuilt {
		return err
	}
	if err := k.options.Client.Status().Update(ctx, current); err != nil {
		return fmt.Errorf("writing the rebuilt reservations of budget %s: %w", budget.Name, err)
	}
	return nil
}

// rebuild fills in the reservations of a budget that was re-created; rebuilt says that it did, and must be written. Claims
// are read live: one that a cache has not seen yet would be a slot that is given twice.
func (k *Keeper) rebuild(ctx context.Context, budget *v1alpha1.NodeDisruptionBudget, all guards) (rebuilt bool, err error) {
	if budget.Status.RebuiltFor == string(budget.UID) {
		return false, nil
	}
	claimed, err := k.claimedNodes(ctx)
	if err != nil {
		return false, fmt.Errorf("rebuilding budget %s: %w", budget.Name, err)
	}
	budget.Status.Reservations = nil
	for _, node := range claimed {
		if !all.selects(budget.Name, node.Labels) {
			continue
		}
		if len(budget.Status.Reservations) == maxReservations {
			break // decide counts the other claims by their Nodes, and grants nothing while the list is full.
		}
		name, uid, _ := claim.Ours(node)
		if len(name) > maxName || len(uid) > maxUID {
			continue // no Remediation has such a name, and the schema no room for it; decide counts the node as it does others' claims.
		}
		devices, err := k.devicesOn(ctx, node.Name)
		if err != nil {
			return false, fmt.Errorf("rebuilding budget %s: %w", budget.Name, err)
		}
		budget.Status.Reservations = append(budget.Status.Reservations, v1alpha1.Reservation{
			Node: node.Name, NodeUID: string(node.UID), Remediation: name, RemediationUID: string(uid),
			Domain: domainOf(budget, node), Devices: devices, Since: metav1.NewTime(k.options.Now()), Token: newToken(),
		})
	}
	budget.Status.RebuiltFor = string(budget.UID)
	return true, nil
}

// claimedNodes lists the Nodes with a claim of ours, live, page by page, by their metadata only.
func (k *Keeper) claimedNodes(ctx context.Context) ([]*corev1.Node, error) {
	var claimed []*corev1.Node
	token := ""
	for range maxPages {
		page := &metav1.PartialObjectMetadataList{}
		page.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("NodeList"))
		if err := k.options.Live.List(ctx, page, client.Limit(pageSize), client.Continue(token)); err != nil {
			return nil, fmt.Errorf("listing claims on nodes: %w", err)
		}
		for i := range page.Items {
			node := &corev1.Node{ObjectMeta: page.Items[i].ObjectMeta}
			if _, _, ok := claim.Ours(node); ok {
				claimed = append(claimed, node)
			}
		}
		if token = page.Continue; token == "" {
			return claimed, nil
		}
	}
	return nil, fmt.Errorf("listing claims on nodes: more than %d pages", maxPages)
}

// devicesOn is how many devices a node has, by what its agent reported.
func (k *Keeper) devicesOn(ctx context.Context, name string) (int32, error) {
	health := &v1alpha1.NodeHealth{}
	if err := k.options.Live.Get(ctx, client.ObjectKey{Name: name}, health); err != nil {
		if apierrors.IsNotFound(err) {
			return 0, nil
		}
		return 0, fmt.Errorf("reading the devices of node %s: %w", name, err)
	}
	return int32(min(len(health.Status.Devices), math.MaxInt32)), nil
}
