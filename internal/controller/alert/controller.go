package alert

import (
	"context"
	"fmt"
	"time"

	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/controller/debounce"
	"github.com/roundhouse-dev/roundhouse/internal/metrics"
	"github.com/roundhouse-dev/roundhouse/internal/notify"
)

// Sender sends alerts; notify.Alertmanager is one.
type Sender interface {
	Send(ctx context.Context, alerts []notify.Alert) error
}

// Options are what the loop works with.
type Options struct {
	Sender Sender
	// Every is how often alerts that are on are sent again; it should be well under Alertmanager's resolve_timeout.
	Every   time.Duration
	Clock   clock.PassiveClock
	Metrics *metrics.Controller
}

// settle gathers what happens at the same time, such as a rack that fails, into one request.
const settle = 250 * time.Millisecond

// Setup adds the loop to the manager.
func Setup(mgr ctrl.Manager, options Options) error {
	loop := &loop{Options: options, client: mgr.GetClient()}
	err := ctrl.NewControllerManagedBy(mgr).
		Named("alert").
		WatchesRawSource(debounce.Start()).
		Watches(&v1alpha1.Remediation{}, debounce.Handler(settle), builder.WithPredicates(phaseChanged())).
		WithOptions(controller.Options{RateLimiter: debounce.Backoff()}).
		Complete(reconcile.Func(loop.Reconcile))
	if err != nil {
		return fmt.Errorf("building the alert loop: %w", err)
	}
	return nil
}

// phaseChanged lets through what can change an alert's being on; its texts follow at the next turn.
func phaseChanged() predicate.Predicate {
	return predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		before, okBefore := e.ObjectOld.(*v1alpha1.Remediation)
		after, okAfter := e.ObjectNew.(*v1alpha1.Remediation)
		return !okBefore || !okAfter || before.Status.Phase != after.Status.Phase ||
			(before.Status.ActingSince == nil) != (after.Status.ActingSince == nil)
	}}
}

type loop struct {
	Options
	client client.Client
}

// Reconcile sends everything that is on or has just ended, and comes back after Every.
func (l *loop) Reconcile(ctx context.Context, _ reconcile.Request) (reconcile.Result, error) {
	list := &v1alpha1.RemediationList{}
	if err := l.client.List(ctx, list, client.UnsafeDisableDeepCopy); err != nil {
		return reconcile.Result{}, fmt.Errorf("listing remediations: %w", err)
	}
	alerts := Alerts(list.Items, l.Clock.Now(), 4*l.Every)
	if len(alerts) == 0 {
		return reconcile.Result{RequeueAfter: l.Every}, nil
	}
	if err := l.Sender.Send(ctx, alerts); err != nil {
		l.Metrics.AlertsSent.WithLabelValues("failed").Inc()
		return reconcile.Result{}, fmt.Errorf("telling Alertmanager: %w", err)
	}
	l.Metrics.AlertsSent.WithLabelValues("ok").Inc()
	return reconcile.Result{RequeueAfter: l.Every}, nil
}
