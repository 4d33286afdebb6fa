package budget

import (
	"context"
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

func (k *Keeper) release(ctx context.Context, h holder, fresh Fresh) error {
	if fresh.Remediation == nil || !fresh.Remediation.Status.Phase.Over() {
		fresh = Fresh{}
	}
	// First the budgets, then who acts, then the swaps: what begins to act after it was looked for has written to the budgets.
	holding, err := k.holding(ctx, h)
	if err != nil {
		return err
	}
	if err := k.stillActs(ctx, h, fresh); err != nil {
		return err
	}
	var errs []error
	for _, budget := range slices.Backward(holding) {
		errs = append(errs, k.free(ctx, budget, h))
	}
	return errors.Join(errs...)
}

// stillActs fails with ErrActing where the Remediation or the Node says that the act goes on.
func (k *Keeper) stillActs(ctx context.Context, h holder, fresh Fresh) error {
	remediation, err := read(ctx, k.options.Live, fresh.Remediation, h.name)
	if err != nil {
		return fmt.Errorf("reading remediation %s before its slots are freed: %w", h.name, err)
	}
	if remediation != nil && remediation.UID == h.uid && remediation.Status.Phase.Acting() {
		return fmt.Errorf("%w: remediation %s is %s", ErrActing, h.name, remediation.Status.Phase)
	}
	node, err := read(ctx, k.options.Live, fresh.Node, h.node)
	if err != nil {
		return fmt.Errorf("reading node %s before slots are freed: %w", h.node, err)
	}
	if node != nil && h.claims(node) {
		return fmt.Errorf("%w: node %s carries the claim of remediation %s", ErrActing, h.node, h.name)
	}
	return nil
}

// object is a pointer to a T that the API server knows.
type object[T any] interface {
	*T
	client.Object
}

// read gives what is known already, else what the server has; nil where it has nothing.
func read[T any, P object[T]](ctx context.Context, live client.Reader, known P, name string) (P, error) {
	if known != nil && known.GetName() == name {
		return known, nil
	}
	found := P(new(T))
	err := live.Get(ctx, client.ObjectKey{Name: name}, found)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	return found, err
}

// holding lists the budgets with a slot of the holder, in the order of their names. The cache's word is enough where it
// shows some: freeing swaps on what it shows, and the budget controller frees what it did not.
func (k *Keeper) holding(ctx context.Context, h holder) ([]*v1alpha1.NodeDisruptionBudget, error) {
	for _, reader := range []client.Reader{k.options.Client, k.options.Live} {
		list := &v1alpha1.NodeDisruptionBudgetList{}
		if err := reader.List(ctx, list, client.UnsafeDisableDeepCopy); err != nil {
			return nil, fmt.Errorf("listing budgets: %w", err)
		}
		var holding []*v1alpha1.NodeDisruptionBudget
		for i := range list.Items {
			if slices.ContainsFunc(list.Items[i].Status.Reservations, h.holds) {
				holding = append(holding, &list.Items[i])
			}
		}
		if len(holding) > 0 {
			slices.SortFunc(holding, byName)
			return holding, nil
		}
	}
	return nil, nil
}

// free swaps a budget for one without the holder's entries. Where the entries are not those that were there before it was looked
// who acts, it is looked again: the holder may have begun since.
func (k *Keeper) free(ctx context.Context, budget *v1alpha1.NodeDisruptionBudget, h holder) error {
	looked := h.entries(budget)
	apply := func(ctx context.Context, current *v1alpha1.NodeDisruptionBudget) (bool, error) {
		entries := h.entries(current)
		if len(entries) == 0 {
			return false, nil
		}
		if !equality.Semantic.DeepEqual(entries, looked) {
			if err := k.stillActs(ctx, h, Fresh{}); err != nil {
				return false, err
			}
			looked = entries
		}
		current.Status.Reservations = slices.DeleteFunc(current.Status.Reservations, h.holds)
		return true, nil
	}
	for range maxRounds {
		err := k.swap(ctx, &change{seen: budget, apply: apply})
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, errMoved):
			return fmt.Errorf("freeing a slot of budget %s: %w", budget.Name, err)
		}
		// Another spec, or another object, may hold a slot of the holder's as well.
		current := &v1alpha1.NodeDisruptionBudget{}
		if err := k.options.Live.Get(ctx, client.ObjectKeyFromObject(budget), current); err != nil {
			if apierrors.IsNotFound(err) {
				return nil
			}
			return fmt.Errorf("reading budget %s again: %w", budget.Name, err)
		}
		if current.UID != budget.UID {
			looked = nil
		}
		budget = current
	}
	return fmt.Errorf("freeing a slot of budget %s: %w", budget.Name, errOthers)
}

// entries are the holder's.
func (h holder) entries(budget *v1alpha1.NodeDisruptionBudget) []v1alpha1.Reservation {
	var out []v1alpha1.Reservation
	for _, r := range budget.Status.Reservations {
		if h.holds(r) {
			out = append(out, r)
		}
	}
	return out
}

// begin counts up on every budget that the holder begins to act.
func (k *Keeper) begin(ctx context.Context, node *corev1.Node, h holder) (bool, error) {
	all, err := k.liveGuards(ctx)
	if err != nil {
		return false, err
	}
	if _, broken := all.unreadable(); broken {
		return false, nil
	}
	selecting := all.selecting(node.Labels)
	for _, budget := range selecting {
		if ok, err := k.mark(ctx, budget, h); !ok || err != nil {
			return false, err
		}
	}
	return len(selecting) > 0, nil
}

// mark counts up on one budget; false where the holder has no slot of it, or others changed it each time: the next try.
func (k *Keeper) mark(ctx context.Context, budget *v1alpha1.NodeDisruptionBudget, h holder) (bool, error) {
	held := false
	err := k.swap(ctx, &change{seen: budget, apply: func(_ context.Context, current *v1alpha1.NodeDisruptionBudget) (bool, error) {
		i := slices.IndexFunc(current.Status.Reservations, h.holds)
		held = i >= 0 && current.Status.RebuiltFor == string(current.UID)
		if held {
			current.Status.Reservations[i].Begun++
		}
		return held, nil
	}})
	switch {
	case errors.Is(err, errMoved), errors.Is(err, errOthers):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("beginning under budget %s: %w", budget.Name, err)
	}
	return held, nil
}

func (k *Keeper) held(ctx context.Context, node *corev1.Node, h holder) (bool, error) {
	all, err := k.liveGuards(ctx)
	if err != nil {
		return false, err
	}
	if _, broken := all.unreadable(); broken {
		return false, nil
	}
	selecting := all.selecting(node.Labels)
	for _, budget := range selecting {
		if budget.Status.RebuiltFor != string(budget.UID) || !slices.ContainsFunc(budget.Status.Reservations, h.holds) {
			return false, nil
		}
	}
	return len(selecting) > 0, nil
}
