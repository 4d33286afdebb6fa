package budget

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/claim"
)

// ErrActing says that slots are not freed because the Remediation acts, or the Node still carries its claim.
var ErrActing = errors.New("the remediation still acts on the node")

// errMoved says that a budget was changed by a human, or re-created, while we asked: everything is read again.
var errMoved = errors.New("the budget changed while a slot was taken")

// errOthers says that others changed a budget each time.
var errOthers = fmt.Errorf("others changed it %d times", maxSwaps)

const (
	// maxRounds bounds how often everything is read again, maxSwaps how often one budget is.
	maxRounds = 3
	maxSwaps  = 8
)

// holder is the Remediation that a slot belongs to.
type holder struct {
	name    string
	uid     types.UID
	node    string
	nodeUID types.UID
}

func holderOf(remediation *v1alpha1.Remediation) holder {
	return holder{
		name: remediation.Name, uid: remediation.UID,
		node: remediation.Spec.Node, nodeUID: types.UID(remediation.Spec.NodeUID),
	}
}

// holds says whether a reservation is the holder's.
func (h holder) holds(r v1alpha1.Reservation) bool {
	return r.RemediationUID == string(h.uid)
}

// claims says whether a node carries the holder's claim.
func (h holder) claims(node *corev1.Node) bool {
	name, uid, ok := claim.Ours(node)
	return ok && name == h.name && uid == h.uid
}

// request is one asking for slots.
type request struct {
	node        *corev1.Node
	remediation *v1alpha1.Remediation
	devices     int32
}

func (k *Keeper) reserve(ctx context.Context, r request) (Verdict, error) {
	if string(r.node.UID) != r.remediation.Spec.NodeUID || r.node.Name != r.remediation.Spec.Node {
		return Verdict{Reason: ReasonNodeChanged, Message: "the node of this name is not the one the remediation speaks of",
			WouldChange: "nothing: the remediation ends"}, nil
	}
	seen, err := k.look(ctx)
	if err != nil {
		return Verdict{}, err
	}
	if verdict, refused := k.refusedByCache(ctx, r, seen); refused {
		return verdict, nil
	}
	for range maxRounds {
		verdict, err := k.reserveLive(ctx, r, seen)
		if !errors.Is(err, errMoved) {
			return verdict, err
		}
	}
	return contended("the budgets"), nil
}

func contended(what string) Verdict {
	return Verdict{Reason: ReasonContended, Message: "others changed " + what + " each time; nothing was taken",
		WouldChange: "the next try"}
}

// refusedByCache refuses from the cache alone, where it can. It never grants. What the Remediation may hold already is
// left to the live path, which also gives it back.
func (k *Keeper) refusedByCache(ctx context.Context, r request, seen *view) (Verdict, bool) {
	list := &v1alpha1.NodeDisruptionBudgetList{}
	if err := k.options.Client.List(ctx, list, client.UnsafeDisableDeepCopy); err != nil {
		return Verdict{}, false
	}
	all := readGuards(list.Items)
	holder := holderOf(r.remediation)
	if holder.claims(r.node) {
		return Verdict{}, false // a claim comes after its slots, which this cache may not show yet.
	}
	selecting := all.selecting(r.node.Labels)
	for _, budget := range selecting {
		if slices.ContainsFunc(budget.Status.Reservations, holder.holds) {
			return Verdict{}, false
		}
	}
	for _, budget := range selecting {
		if budget.Status.RebuiltFor != string(budget.UID) {
			return Verdict{}, false
		}
		if verdict := decide(k.snapshot(budget, all, r, seen)); !verdict.Granted {
			return verdict, true
		}
	}
	return Verdict{}, false
}

func (k *Keeper) snapshot(budget *v1alpha1.NodeDisruptionBudget, all guards, r request, seen *view) snapshot {
	return snapshot{
		budget: budget, key: all.key(budget), selects: all.selectsNode(budget.Name), seen: seen,
		node: r.node, holder: holderOf(r.remediation), devices: r.devices,
	}
}

// reserveLive takes a slot of every budget that selects the node, as the API server has them now.
func (k *Keeper) reserveLive(ctx context.Context, r request, seen *view) (Verdict, error) {
	all, err := k.liveGuards(ctx)
	if err != nil {
		return Verdict{}, err
	}
	selecting := all.selecting(r.node.Labels)
	if verdict, broken := all.unreadable(); broken {
		return verdict, k.giveBack(ctx, selecting, nil, r)
	}
	if missing := all.missing(r.node); missing != nil {
		if err := k.create(ctx, missing); err != nil {
			return Verdict{}, err
		}
		return Verdict{}, errMoved // with it among them.
	}
	var taken []*v1alpha1.NodeDisruptionBudget
	for _, budget := range selecting {
		verdict, added, err := k.take(ctx, budget, all, r, seen)
		if added {
			taken = append(taken, budget)
		}
		if err == nil && verdict.Granted {
			continue
		}
		return verdict, errors.Join(err, k.giveBack(ctx, selecting, taken, r))
	}
	return Verdict{Granted: true, Reason: ReasonGranted, Message: "a slot of every budget that selects the node"}, nil
}

// take swaps one budget for one with the slot, and brings budget up to date. added says that this call put the entry
// there.
func (k *Keeper) take(ctx context.Context, budget *v1alpha1.NodeDisruptionBudget, all guards, r request, seen *view) (verdict Verdict, added bool, err error) {
	c := &change{seen: budget, apply: func(ctx context.Context, current *v1alpha1.NodeDisruptionBudget) (bool, error) {
		added = false
		rebuilt, err := k.rebuild(ctx, current, all)
		if err != nil {
			return false, err
		}
		verdict = decide(k.snapshot(current, all, r, seen))
		if !verdict.Granted {
			return false, nil
		}
		if slices.ContainsFunc(current.Status.Reservations, holderOf(r.remediation).holds) {
			return rebuilt, nil
		}
		current.Status.Reservations = append(current.Status.Reservations, k.reservation(current, r))
		added = true
		return true, nil
	}}
	switch err := k.swap(ctx, c); {
	case errors.Is(err, errOthers):
		return contended("budget " + budget.Name), false, nil
	case err != nil:
		return Verdict{}, false, fmt.Errorf("taking a slot of budget %s: %w", budget.Name, err)
	}
	*budget = *c.after // What is given back later is taken off this state.
	return verdict, added, nil
}

func (k *Keeper) reservation(budget *v1alpha1.NodeDisruptionBudget, r request) v1alpha1.Reservation {
	return v1alpha1.Reservation{
		Node: r.node.Name, NodeUID: string(r.node.UID),
		Remediation: r.remediation.Name, RemediationUID: string(r.remediation.UID),
		Domain: domainOf(budget, r.node), Devices: r.devices, Since: metav1.NewTime(k.options.Now()), Token: newToken(),
	}
}

// newToken is one that no other slot has: times are written to the second, and counts begin anew.
func newToken() string { return strconv.FormatUint(rand.Uint64(), 36) }

// giveBack frees, in reverse, what this asking took, and what an earlier one that was cut off had left. While the
// Remediation acts, what it held before stays: a budget that appeared since does not take away the others.
func (k *Keeper) giveBack(ctx context.Context, selecting, taken []*v1alpha1.NodeDisruptionBudget, r request) error {
	h := holderOf(r.remediation)
	free := slices.DeleteFunc(slices.Clone(selecting), func(budget *v1alpha1.NodeDisruptionBudget) bool {
		return !slices.ContainsFunc(budget.Status.Reservations, h.holds)
	})
	if len(free) == 0 {
		return nil
	}
	// Somebody else may have begun with what is there, since the caller looked.
	if err := k.stillActs(ctx, h, Fresh{}); errors.Is(err, ErrActing) {
		free = taken
	} else if err != nil {
		return err
	}
	var errs []error
	for _, budget := range slices.Backward(free) {
		errs = append(errs, k.free(ctx, budget, h))
	}
	return errors.Join(errs...)
}

// create creates a budget that nobody else has made meanwhile.
func (k *Keeper) create(ctx context.Context, budget *v1alpha1.NodeDisruptionBudget) error {
	if err := k.options.Client.Create(ctx, budget); err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("creating budget %s: %w", budget.Name, err)
	}
	return nil
}

func (k *Keeper) liveGuards(ctx context.Context) (guards, error) {
	budgets, err := k.lists.live(ctx, k.options.Live)
	if err != nil {
		return guards{}, err
	}
	return readGuards(budgets), nil
}
