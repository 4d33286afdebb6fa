// Package replace has a node replaced by another, by those who own its machine: Cluster API, whose Machine is marked for
// remediation, or Karpenter, whose NodeClaim is deleted. Neither is done twice, and both can be asked again: what is
// found on the Machine or the NodeClaim says how far it has come.
package replace

import (
	"context"
	"errors"
	"fmt"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/remedy"
	"github.com/roundhouse-dev/roundhouse/internal/remedy/untyped"
)

// ErrNoReplace means that the rung does not say who replaces the node; the API's validation keeps such a rung out.
var ErrNoReplace = errors.New("replace.by must be ClusterAPI or Karpenter")

// Remedy asks the one that the rung names.
type Remedy struct {
	client client.Client
}

var _ remedy.Remedy = (*Remedy)(nil)

// New returns the remedy. What the client reads of Cluster API and Karpenter must come from the API server, not from a
// cache, as controller-runtime's clients do with objects that have no Go type.
func New(c client.Client) *Remedy { return &Remedy{client: c} }

// Check says why the node cannot be replaced.
func (r *Remedy) Check(ctx context.Context, a remedy.Attempt) (string, error) {
	by, err := r.by(a)
	if err != nil {
		return "", err
	}
	why, err := by.Check(ctx, a)
	return untyped.Message(why), err
}

// Begin has the node replaced.
func (r *Remedy) Begin(ctx context.Context, a remedy.Attempt) (remedy.Progress, error) {
	by, err := r.by(a)
	if err != nil {
		return remedy.Progress{}, err
	}
	return bounded(by.Begin(ctx, a))
}

// Look says how far that has come.
func (r *Remedy) Look(ctx context.Context, a remedy.Attempt) (remedy.Progress, error) {
	by, err := r.by(a)
	if err != nil {
		return remedy.Progress{}, err
	}
	return bounded(by.Look(ctx, a))
}

// End takes our mark off a Machine that has not been replaced.
func (r *Remedy) End(ctx context.Context, a remedy.Attempt) error {
	by, err := r.by(a)
	if err != nil {
		return err
	}
	return by.End(ctx, a)
}

// by is the one that replaces the node.
func (r *Remedy) by(a remedy.Attempt) (remedy.Remedy, error) {
	if a.Rung.Replace == nil {
		return nil, fmt.Errorf("rung %q: %w", a.Rung.Name, ErrNoReplace)
	}
	switch a.Rung.Replace.By {
	case v1alpha1.ReplaceByClusterAPI:
		return &clusterAPI{client: r.client}, nil
	case v1alpha1.ReplaceByKarpenter:
		return &karpenter{client: r.client}, nil
	}
	return nil, fmt.Errorf("rung %q: %w, not %q", a.Rung.Name, ErrNoReplace, a.Rung.Replace.By)
}

func bounded(p remedy.Progress, err error) (remedy.Progress, error) {
	p.Message = untyped.Message(p.Message)
	return p, err
}

// nodeGone says whether the Node that the incident is about is gone; another of the same name is not it.
func nodeGone(a remedy.Attempt) bool {
	return a.Node == nil || string(a.Node.UID) != a.Remediation.Spec.NodeUID
}

// onlyBegun says whether nothing is known of the attempt but that it was about to be made: the controller may have died
// before the act.
func onlyBegun(a remedy.Attempt) bool {
	step := a.Remediation.Status.Step
	return step == nil || step.Remedy == nil || step.Remedy.State == v1alpha1.RemedyBegun
}
