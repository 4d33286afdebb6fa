// Package budget looks after NodeDisruptionBudgets: new ones get their reservations from the claims on Nodes, slots that
// nobody needs any more are freed, and budgets that cannot be read say so.
package budget

import (
	"context"
	"errors"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/budget"
	"github.com/roundhouse-dev/roundhouse/internal/controller/debounce"
)

// The condition that the loop keeps on budgets, its reasons, and how patient the loop is.
const (
	// ConditionValid says whether a budget can be read.
	ConditionValid = "Valid"
	// ReasonReadable: selector and numbers can be read.
	ReasonReadable = "Readable"
	// ReasonUnreadable: they cannot, and the budget grants nothing.
	ReasonUnreadable = "Unreadable"

	// lookAgain is how often reservations are compared with what they are for.
	lookAgain = time.Minute
)

// Options are what the loop works with.
type Options struct {
	Keeper *budget.Keeper
	Clock  clock.PassiveClock
}

// Setup adds the loop to the manager.
func Setup(mgr ctrl.Manager, options Options) error {
	loop := &loop{Options: options, client: mgr.GetClient()}
	err := ctrl.NewControllerManagedBy(mgr).
		Named("budget").
		For(&v1alpha1.NodeDisruptionBudget{}).
		Watches(&v1alpha1.Remediation{}, handler.EnqueueRequestsFromMapFunc(loop.budgetsOf), builder.WithPredicates(ended())).
		WithOptions(controller.Options{RateLimiter: debounce.Backoff()}).
		Complete(loop)
	if err != nil {
		return fmt.Errorf("building the budget loop: %w", err)
	}
	return nil
}

// ended lets through Remediations that are over now, or gone.
func ended() predicate.Predicate {
	return predicate.Funcs{
		CreateFunc: func(event.CreateEvent) bool { return false },
		UpdateFunc: func(e event.UpdateEvent) bool {
			before, okBefore := e.ObjectOld.(*v1alpha1.Remediation)
			after, okAfter := e.ObjectNew.(*v1alpha1.Remediation)
			return okBefore && okAfter && after.Status.Phase.Over() && !before.Status.Phase.Over()
		},
		GenericFunc: func(event.GenericEvent) bool { return false },
	}
}

type loop struct {
	Options
	client client.Client
}

// budgetsOf names the budgets in which a Remediation holds a slot.
func (l *loop) budgetsOf(ctx context.Context, object client.Object) []reconcile.Request {
	list := &v1alpha1.NodeDisruptionBudgetList{}
	if err := l.client.List(ctx, list, client.UnsafeDisableDeepCopy); err != nil {
		return nil // The turn each minute finds it.
	}
	var requests []reconcile.Request
	for i := range list.Items {
		for _, reservation := range list.Items[i].Status.Reservations {
			if reservation.RemediationUID == string(object.GetUID()) {
				requests = append(requests, reconcile.Request{NamespacedName: types.NamespacedName{Name: list.Items[i].Name}})
				break
			}
		}
	}
	return requests
}

// Reconcile does one of three things to a budget: rebuild it, say whether it can be read, or free what is left over.
func (l *loop) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	current := &v1alpha1.NodeDisruptionBudget{}
	if err := l.client.Get(ctx, request.NamespacedName, current); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	if current.DeletionTimestamp != nil {
		return reconcile.Result{}, nil
	}
	if current.Status.RebuiltFor != string(current.UID) {
		return reconcile.Result{RequeueAfter: lookAgain}, l.Keeper.Rebuild(ctx, current)
	}
	if next := withCondition(current, l.Clock.Now()); !equality.Semantic.DeepEqual(current.Status, next.Status) {
		if err := l.client.Status().Update(ctx, next); client.IgnoreNotFound(err) != nil {
			return reconcile.Result{}, fmt.Errorf("writing the condition of budget %s: %w", current.Name, err)
		}
		return reconcile.Result{RequeueAfter: lookAgain}, nil
	}
	if err := l.freeLeftOver(ctx, current); err != nil {
		return reconcile.Result{}, err
	}
	if len(current.Status.Reservations) == 0 {
		return reconcile.Result{}, nil
	}
	return reconcile.Result{RequeueAfter: lookAgain}, nil
}

// withCondition gives the budget with the condition Valid that it deserves.
func withCondition(current *v1alpha1.NodeDisruptionBudget, now time.Time) *v1alpha1.NodeDisruptionBudget {
	next := current.DeepCopy()
	condition := metav1.Condition{
		Type: ConditionValid, Status: metav1.ConditionTrue, Reason: ReasonReadable, ObservedGeneration: current.Generation,
		Message: "selector and numbers can be read", LastTransitionTime: metav1.NewTime(now),
	}
	if problem := budget.Problem(current); problem != "" {
		condition.Status, condition.Reason, condition.Message = metav1.ConditionFalse, ReasonUnreadable, problem
	}
	if before := meta.FindStatusCondition(next.Status.Conditions, ConditionValid); before != nil {
		if before.Status == condition.Status {
			condition.LastTransitionTime = before.LastTransitionTime
		}
		*before = condition
		return next
	}
	next.Status.Conditions = append(next.Status.Conditions, condition)
	return next
}

// freeLeftOver frees the slots of Remediations that are gone or over. The Keeper checks again, live, before it frees one.
// One that is open gives back its own, whatever it has not come to: freed here, its slot could go while it begins to act.
func (l *loop) freeLeftOver(ctx context.Context, current *v1alpha1.NodeDisruptionBudget) error {
	var errs []error
	for _, reservation := range current.Status.Reservations {
		remediation := &v1alpha1.Remediation{}
		err := l.client.Get(ctx, client.ObjectKey{Name: reservation.Remediation}, remediation)
		if client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("reading remediation %s: %w", reservation.Remediation, err)
		}
		if err == nil && string(remediation.UID) == reservation.RemediationUID && !remediation.Status.Phase.Over() {
			continue
		}
		err = l.Keeper.Release(ctx, holderOf(reservation), budget.Fresh{})
		if !errors.Is(err, budget.ErrActing) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// holderOf is as much of a Remediation as its reservation remembers, for when it is gone.
func holderOf(reservation v1alpha1.Reservation) *v1alpha1.Remediation {
	return &v1alpha1.Remediation{
		ObjectMeta: metav1.ObjectMeta{Name: reservation.Remediation, UID: types.UID(reservation.RemediationUID)},
		Spec:       v1alpha1.RemediationSpec{Node: reservation.Node, NodeUID: reservation.NodeUID},
	}
}
