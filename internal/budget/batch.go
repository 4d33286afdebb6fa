package budget

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

// batchTimeout bounds what is done for all of a batch, whoever of them has less time.
const batchTimeout = 30 * time.Second

// batch does together what is asked for at the same time: what gathers while one lot is worked on is the next. Work on an item
// begins after it was asked for, so that what it reads is no older.
type batch[T any] struct {
	mu      sync.Mutex // of waiting
	waiting []*item[T]
	turn    sync.Mutex // of whoever works, and of done
}

type item[T any] struct {
	of T
	// taken says that somebody has begun to work on it, and done that this has ended as it should.
	taken, done bool
}

// errCutOff says that the work on a lot did not come to its end: whoever did it has panicked.
var errCutOff = errors.New("the work was cut off; whether it was done is not known")

// do returns when work has been done on this item, by this call or by another that took it along.
func (b *batch[T]) do(ctx context.Context, of T, work func(context.Context, []T)) error {
	mine := &item[T]{of: of}
	b.mu.Lock()
	b.waiting = append(b.waiting, mine)
	b.mu.Unlock()
	b.turn.Lock()
	defer b.turn.Unlock()
	switch {
	case mine.done:
		return nil
	case mine.taken:
		return errCutOff
	}
	b.mu.Lock()
	lot := b.waiting
	b.waiting = nil
	b.mu.Unlock()
	all := make([]T, 0, len(lot))
	for _, i := range lot {
		i.taken = true
		all = append(all, i.of)
	}
	// The others did not ask for this call's end.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), batchTimeout)
	defer cancel()
	work(ctx, all)
	for _, i := range lot {
		i.done = true
	}
	return nil
}

// lists gives the budgets as the API server has them, in one LIST for all who ask at the same time.
type lists struct{ batch[*listing] }

type listing struct {
	budgets []v1alpha1.NodeDisruptionBudget
	err     error
}

// live gives the caller budgets of its own; their reservations are everybody's, and not to be written to.
func (l *lists) live(ctx context.Context, from client.Reader) ([]v1alpha1.NodeDisruptionBudget, error) {
	mine := &listing{}
	err := l.do(ctx, mine, func(ctx context.Context, all []*listing) {
		list := &v1alpha1.NodeDisruptionBudgetList{}
		err := from.List(ctx, list)
		for _, each := range all {
			each.budgets, each.err = append(each.budgets, list.Items...), err
		}
	})
	if err = errors.Join(err, mine.err); err != nil {
		return nil, fmt.Errorf("listing budgets: %w", err)
	}
	return mine.budgets, nil
}

// change is what one caller wants of a budget.
type change struct {
	// seen is the budget as the caller read it. It is not written to.
	seen *v1alpha1.NodeDisruptionBudget
	// apply makes the change to current, or says that there is none to make. It is called again where others were before, and
	// changes nothing where it fails.
	apply func(ctx context.Context, current *v1alpha1.NodeDisruptionBudget) (changed bool, err error)
	// after is the budget as it was written, or as it needed no change. It is shared: not to be written to.
	after *v1alpha1.NodeDisruptionBudget
	err   error
	ended bool
}

func (c *change) end(err error) { c.err, c.ended = err, true }

// swaps writes to budgets by compare-and-swap: a status is replaced only where it is the one that was changed. All changes to one
// budget that wait at the same time are one swap: a budget of a thousand reservations is written a few times, not a thousand.
type swaps struct {
	mu     sync.Mutex
	queues map[string]*queue
}

// queue is the changes that wait for one budget, and how many callers have it in hand.
type queue struct {
	batch[*change]
	callers int
	// last is the budget as it was last written from here; it is the worker's.
	last *v1alpha1.NodeDisruptionBudget
}

// newest is the budget to begin with: whoever read it before the last write, or before another did, would lose the swap.
func (q *queue) newest(all []*change) *v1alpha1.NodeDisruptionBudget {
	newest := all[0].seen
	for _, c := range all[1:] {
		newest = newer(newest, c.seen)
	}
	if q.last != nil {
		newest = newer(newest, q.last)
	}
	return newest.DeepCopy()
}

// newer gives a where b is not newer, or nobody can tell: that costs a lost swap.
func newer(a, b *v1alpha1.NodeDisruptionBudget) *v1alpha1.NodeDisruptionBudget {
	if order, err := resourceversion.CompareResourceVersion(a.ResourceVersion, b.ResourceVersion); err == nil && order < 0 {
		return b
	}
	return a
}

func (s *swaps) enter(name string) *queue {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.queues == nil {
		s.queues = map[string]*queue{}
	}
	if s.queues[name] == nil {
		s.queues[name] = &queue{}
	}
	s.queues[name].callers++
	return s.queues[name]
}

func (s *swaps) leave(name string, q *queue) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if q.callers--; q.callers == 0 {
		delete(s.queues, name)
	}
}

// swap makes a change to a budget. It fails with errMoved where the budget is not the one that was seen, or has another spec, and
// with errOthers where others changed it each time.
func (k *Keeper) swap(ctx context.Context, c *change) error {
	q := k.swaps.enter(c.seen.Name)
	defer k.swaps.leave(c.seen.Name, q)
	err := q.do(ctx, c, func(ctx context.Context, all []*change) { k.swapAll(ctx, q, all) })
	return errors.Join(err, c.err)
}

func (k *Keeper) swapAll(ctx context.Context, q *queue, all []*change) {
	current := q.newest(all)
	for range maxSwaps {
		if current == nil {
			return
		}
		if !applyAll(ctx, current, all) {
			endAll(all, nil, current)
			return
		}
		// Update, not patch: the object's resourceVersion makes the server refuse it where anything changed since.
		err := k.options.Client.Status().Update(ctx, current)
		switch {
		case err == nil:
			q.last = current
			endAll(all, nil, current)
			return
		case apierrors.IsNotFound(err):
			err = errMoved
		case apierrors.IsConflict(err):
			current = k.current(ctx, current, all)
			continue
		case apierrors.IsInvalid(err) && len(all) > 1: // one of them is what the server does not take.
			for _, c := range all {
				if !c.ended {
					k.swapAll(ctx, q, []*change{c})
				}
			}
			return
		}
		endAll(all, err, nil)
		return
	}
	endAll(all, errOthers, nil)
}

// current reads the budget; nil, after all changes have ended, where there is none.
func (k *Keeper) current(ctx context.Context, known *v1alpha1.NodeDisruptionBudget, all []*change) *v1alpha1.NodeDisruptionBudget {
	current := &v1alpha1.NodeDisruptionBudget{}
	err := k.options.Live.Get(ctx, client.ObjectKeyFromObject(known), current)
	switch {
	case apierrors.IsNotFound(err):
		err = errMoved
	case err == nil:
		return current
	}
	endAll(all, err, nil)
	return nil
}

// applyAll makes the changes that have not ended, in the order in which they were asked for.
func applyAll(ctx context.Context, current *v1alpha1.NodeDisruptionBudget, all []*change) (changed bool) {
	for _, c := range all {
		if c.ended {
			continue
		}
		if current.UID != c.seen.UID || current.Generation != c.seen.Generation {
			c.end(errMoved)
			continue
		}
		did, err := c.apply(ctx, current)
		if err != nil {
			c.end(err)
			continue
		}
		changed = changed || did
	}
	return changed
}

func endAll(all []*change, err error, after *v1alpha1.NodeDisruptionBudget) {
	for _, c := range all {
		if !c.ended {
			c.after = after
			c.end(err)
		}
	}
}
