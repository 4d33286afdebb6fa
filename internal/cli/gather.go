package cli

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/cli/explain"
	"github.com/roundhouse-dev/roundhouse/internal/cli/fleet"
)

// maxRecords bounds what is kept of one node's device records.
const maxRecords = 64

// gatherWhy reads what an answer about one node depends on: some ten requests, whatever the size of the fleet. Who holds its
// devices, where only claims tell, readHolders adds.
func (c *cluster) gatherWhy(ctx context.Context, name string) (explain.Snapshot, error) {
	s := explain.Snapshot{Name: name}
	node := &corev1.Node{}
	err := c.Get(ctx, client.ObjectKey{Name: name}, node)
	switch {
	case apierrors.IsNotFound(err):
		if s.Similar, err = c.similarNodes(ctx, name); err != nil {
			return s, err
		}
	case err != nil:
		return s, fmt.Errorf("reading node %s: %w", name, err)
	default:
		s.Node = node
	}
	health := &v1alpha1.NodeHealth{}
	switch err := c.Get(ctx, client.ObjectKey{Name: name}, health); {
	case err == nil:
		s.Health = health
	case !apierrors.IsNotFound(err) || isUnserved(err):
		return s, fmt.Errorf("reading NodeHealth %s: %w", name, err)
	}
	if s.Remediations, err = c.remediationsOf(ctx, name); err != nil {
		return s, err
	}
	if s.Records, err = c.recordsOf(ctx, name); err != nil {
		return s, err
	}
	if s.Slices, s.SlicesUnread, err = c.slicesOf(ctx, name); err != nil {
		return s, err
	}
	s.Policies, s.Budgets, s.Holds, err = c.rules(ctx)
	return s, err
}

// slicesOf are the node's ResourceSlices; none where the server has no such kind (it came with 1.34). Who may not read them
// is told what is not known for that.
func (c *cluster) slicesOf(ctx context.Context, node string) (found []resourcev1.ResourceSlice, unread string, err error) {
	err = pages(ctx, c, &resourcev1.ResourceSliceList{}, func(l *resourcev1.ResourceSliceList) { found = append(found, l.Items...) },
		client.MatchingFields{resourcev1.ResourceSliceSelectorNodeName: node})
	switch {
	case err == nil, notServed(err):
		return found, "", nil
	case apierrors.IsForbidden(err):
		return nil, "you may not list ResourceSlices, so what DRA drivers themselves say of the devices is not known " +
			"(ClusterRole roundhouse-planner may)", nil
	}
	return nil, "", fmt.Errorf("reading the ResourceSlices of node %s: %w", node, err)
}

// remediationsOf uses the selectable field, so that the server searches.
func (c *cluster) remediationsOf(ctx context.Context, node string) ([]v1alpha1.Remediation, error) {
	var out []v1alpha1.Remediation
	err := pages(ctx, c, &v1alpha1.RemediationList{}, func(l *v1alpha1.RemediationList) { out = append(out, l.Items...) },
		client.MatchingFields{"spec.node": node})
	if err != nil {
		return nil, fmt.Errorf("reading the Remediations of node %s: %w", node, err)
	}
	return out, nil
}

// recordsOf gives the records of devices that were ever on a node.
func (c *cluster) recordsOf(ctx context.Context, node string) ([]v1alpha1.DeviceRecord, error) {
	return c.records(ctx, func(r *v1alpha1.DeviceRecord) bool {
		return slices.ContainsFunc(r.Status.Places, func(p v1alpha1.Place) bool { return p.Node == node })
	})
}

// records searches the DeviceRecords; only devices that ever failed have one.
func (c *cluster) records(ctx context.Context, want func(*v1alpha1.DeviceRecord) bool) ([]v1alpha1.DeviceRecord, error) {
	var out []v1alpha1.DeviceRecord
	err := pages(ctx, c, &v1alpha1.DeviceRecordList{}, func(l *v1alpha1.DeviceRecordList) {
		for i := range l.Items {
			if len(out) < maxRecords && want(&l.Items[i]) {
				out = append(out, l.Items[i])
			}
		}
	})
	if err != nil {
		return nil, fmt.Errorf("reading the DeviceRecords: %w", err)
	}
	return out, nil
}

// rules reads what people have set: policies, budgets and holds.
func (c *cluster) rules(ctx context.Context) (p []v1alpha1.RemediationPolicy, b []v1alpha1.NodeDisruptionBudget, h []v1alpha1.RemediationHold, err error) {
	err = pages(ctx, c, &v1alpha1.RemediationPolicyList{}, func(l *v1alpha1.RemediationPolicyList) { p = append(p, l.Items...) })
	if err != nil {
		return nil, nil, nil, fmt.Errorf("reading the RemediationPolicies: %w", err)
	}
	err = pages(ctx, c, &v1alpha1.NodeDisruptionBudgetList{}, func(l *v1alpha1.NodeDisruptionBudgetList) { b = append(b, l.Items...) })
	if err != nil {
		return nil, nil, nil, fmt.Errorf("reading the NodeDisruptionBudgets: %w", err)
	}
	if h, err = c.holds(ctx); err != nil {
		return nil, nil, nil, err
	}
	return p, b, h, nil
}

func (c *cluster) holds(ctx context.Context) ([]v1alpha1.RemediationHold, error) {
	var out []v1alpha1.RemediationHold
	err := pages(ctx, c, &v1alpha1.RemediationHoldList{}, func(l *v1alpha1.RemediationHoldList) { out = append(out, l.Items...) })
	if err != nil {
		return nil, fmt.Errorf("reading the RemediationHolds: %w", err)
	}
	return out, nil
}

// similarNodes are the names closest to one that does not exist, names only.
func (c *cluster) similarNodes(ctx context.Context, name string) ([]string, error) {
	list := &metav1.PartialObjectMetadataList{}
	list.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("NodeList"))
	type near struct {
		name     string
		distance int
	}
	var found []near
	err := pages(ctx, c, list, func(l *metav1.PartialObjectMetadataList) {
		for i := range l.Items {
			d := distance(name, l.Items[i].Name)
			if d <= 2 || strings.HasPrefix(l.Items[i].Name, name) {
				found = append(found, near{l.Items[i].Name, d})
			}
		}
		slices.SortFunc(found, func(a, b near) int { return cmp.Or(cmp.Compare(a.distance, b.distance), cmp.Compare(a.name, b.name)) })
		found = found[:min(len(found), 3)]
	})
	if err != nil {
		return nil, fmt.Errorf("looking for nodes with a name like %s: %w", name, err)
	}
	var names []string
	for _, n := range found {
		names = append(names, n.name)
	}
	return names, nil
}

// distance is how many characters must be changed, added or left out to turn a into b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		last := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			last, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, last+cost)
		}
	}
	return row[len(b)]
}

// gatherFleet reads what the fleet's status depends on, keeping rows only.
func (c *cluster) gatherFleet(ctx context.Context) (fleet.Snapshot, error) {
	var s fleet.Snapshot
	var err error
	if s.Nodes, err = c.nodes(ctx); err != nil {
		return s, err
	}
	err = pages(ctx, c, &v1alpha1.NodeHealthList{}, func(l *v1alpha1.NodeHealthList) {
		for i := range l.Items {
			s.Healths = append(s.Healths, fleet.HealthOf(&l.Items[i]))
		}
	})
	if err != nil {
		return s, fmt.Errorf("reading the NodeHealths: %w", err)
	}
	if s.Remediations, err = c.openRemediations(ctx); err != nil {
		return s, err
	}
	s.Policies, s.Budgets, s.Holds, err = c.rules(ctx)
	return s, err
}

func (c *cluster) nodes(ctx context.Context) ([]fleet.Node, error) {
	var out []fleet.Node
	err := pages(ctx, c, &corev1.NodeList{}, func(l *corev1.NodeList) {
		for i := range l.Items {
			out = append(out, fleet.RowOf(&l.Items[i]))
		}
	})
	if err != nil {
		return nil, fmt.Errorf("reading the Nodes: %w", err)
	}
	return out, nil
}

// openRemediations are those that are not over; the selectable field spares the others, which are most.
func (c *cluster) openRemediations(ctx context.Context) ([]v1alpha1.Remediation, error) {
	var out []v1alpha1.Remediation
	over := "status.phase!=" + string(v1alpha1.PhaseSucceeded) + ",status.phase!=" + string(v1alpha1.PhaseCancelled) +
		",status.phase!=" + string(v1alpha1.PhaseNodeGone)
	err := pages(ctx, c, &v1alpha1.RemediationList{}, func(l *v1alpha1.RemediationList) { out = append(out, l.Items...) },
		&client.ListOptions{Raw: &metav1.ListOptions{FieldSelector: over}})
	if err != nil {
		return nil, fmt.Errorf("reading the open Remediations: %w", err)
	}
	return out, nil
}
