// Package policy keeps the status of RemediationPolicies: whether they can be followed, how many nodes they govern, and
// whether their brake holds.
package policy

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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
	"github.com/roundhouse-dev/roundhouse/internal/policy"
)

const (
	// settle gathers what happens at the same time; a brake must still be seen to hold within a second.
	settle = 100 * time.Millisecond
	// again bounds how long a brake's window may have passed unseen: nothing happens in the API when it does.
	again = 30 * time.Second
	// maxMessage bounds a condition's message.
	maxMessage = 2048
)

// Options are what the loop works with.
type Options struct {
	Clock   clock.PassiveClock
	Metrics *metrics.Controller
}

// Setup adds the loop to the manager.
func Setup(mgr ctrl.Manager, options Options) error {
	loop := &loop{Options: options, client: mgr.GetClient()}
	err := ctrl.NewControllerManagedBy(mgr).
		Named("policy").
		WatchesRawSource(debounce.Start()).
		Watches(&v1alpha1.RemediationPolicy{}, debounce.Handler(settle), builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Watches(&corev1.Node{}, debounce.Handler(settle, loop.nodesChanged), builder.WithPredicates(predicate.LabelChangedPredicate{})).
		Watches(&v1alpha1.Remediation{}, debounce.Handler(settle), builder.WithPredicates(phaseChanged())).
		WithOptions(controller.Options{RateLimiter: debounce.Backoff()}).
		Complete(reconcile.Func(loop.Reconcile))
	if err != nil {
		return fmt.Errorf("building the policy loop: %w", err)
	}
	return nil
}

// phaseChanged lets through what a brake can depend on.
func phaseChanged() predicate.Predicate {
	return predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		before, okBefore := e.ObjectOld.(*v1alpha1.Remediation)
		after, okAfter := e.ObjectNew.(*v1alpha1.Remediation)
		return !okBefore || !okAfter || before.Status.Phase != after.Status.Phase
	}}
}

// loop looks at everything at once, with one worker. What it surveyed stays until nodes or policies change: in a burst
// of incidents it has a turn every tenth of a second.
type loop struct {
	Options
	client client.Client

	stale    atomic.Bool
	compiled policy.Cache
	set      *policy.Set
	survey   policy.Survey
	surveyed time.Time
}

func (l *loop) nodesChanged() { l.stale.Store(true) }

// look gives the survey of the nodes by these policies.
func (l *loop) look(ctx context.Context, policies []v1alpha1.RemediationPolicy, now time.Time) (policy.Survey, error) {
	set := l.compiled.Get(policies)
	stale := l.stale.Swap(false)
	if set == l.set && !stale && now.Sub(l.surveyed) < again {
		return l.survey, nil
	}
	nodes := &corev1.NodeList{}
	// Not copied: nothing here writes to what it reads.
	if err := l.client.List(ctx, nodes, client.UnsafeDisableDeepCopy); err != nil {
		l.stale.Store(true)
		return policy.Survey{}, fmt.Errorf("listing nodes: %w", err)
	}
	l.survey = set.Survey(func(yield func(*corev1.Node) bool) {
		for i := range nodes.Items {
			if !yield(&nodes.Items[i]) {
				return
			}
		}
	})
	l.set, l.surveyed = set, now
	return l.survey, nil
}

// Reconcile looks at all policies, nodes and incidents at once, and writes the statuses that changed.
func (l *loop) Reconcile(ctx context.Context, _ reconcile.Request) (reconcile.Result, error) {
	policies := &v1alpha1.RemediationPolicyList{}
	remediations := &v1alpha1.RemediationList{}
	for _, list := range []client.ObjectList{policies, remediations} {
		if err := l.client.List(ctx, list, client.UnsafeDisableDeepCopy); err != nil {
			return reconcile.Result{}, fmt.Errorf("listing %T: %w", list, err)
		}
	}
	now := l.Clock.Now()
	survey, err := l.look(ctx, policies.Items, now)
	if err != nil {
		return reconcile.Result{}, err
	}
	l.countPhases(remediations.Items)
	l.Metrics.BrakesHolding.Reset() // A policy that was deleted holds nothing.
	var errs []error
	for i := range policies.Items {
		next := statusOf(&policies.Items[i], survey, remediations.Items, now)
		l.gauge(policies.Items[i].Name, next)
		errs = append(errs, l.write(ctx, &policies.Items[i], next))
	}
	return reconcile.Result{RequeueAfter: again}, errors.Join(errs...)
}

// statusOf gives the status that a policy deserves. Times in it move only when what they belong to does.
func statusOf(p *v1alpha1.RemediationPolicy, survey policy.Survey, remediations []v1alpha1.Remediation, now time.Time) v1alpha1.RemediationPolicyStatus {
	next := *p.Status.DeepCopy()
	reason, message := survey.Status(p.Name)
	accepted := metav1.ConditionFalse
	if reason == policy.ReasonValid {
		accepted = metav1.ConditionTrue
	}
	next.ObservedGeneration = p.Generation
	next.MatchedNodes = survey.Matched[p.Name]
	brake := policy.Brake(p, remediations, next.MatchedNodes, p.Status.Brake, now)
	next.Brake = &brake
	if condition := meta.FindStatusCondition(next.Conditions, v1alpha1.ConditionAccepted); condition == nil || condition.Status != accepted {
		// SetStatusCondition would ask the machine's clock.
		meta.RemoveStatusCondition(&next.Conditions, v1alpha1.ConditionAccepted)
	}
	meta.SetStatusCondition(&next.Conditions, metav1.Condition{
		Type: v1alpha1.ConditionAccepted, Status: accepted, Reason: reason, Message: message[:min(len(message), maxMessage)],
		ObservedGeneration: p.Generation, LastTransitionTime: transition(p.Status.Conditions, accepted, now),
	})
	return next
}

// transition is when the condition got the status that it has.
func transition(conditions []metav1.Condition, status metav1.ConditionStatus, now time.Time) metav1.Time {
	if condition := meta.FindStatusCondition(conditions, v1alpha1.ConditionAccepted); condition != nil && condition.Status == status {
		return condition.LastTransitionTime
	}
	return metav1.NewTime(now)
}

// countPhases keeps the gauge of Remediations by phase.
func (l *loop) countPhases(remediations []v1alpha1.Remediation) {
	phases := map[v1alpha1.Phase]int{}
	for i := range remediations {
		phases[remediations[i].Status.Phase]++
	}
	l.Metrics.Remediations.Reset()
	for phase, n := range phases {
		l.Metrics.Remediations.WithLabelValues(string(phase)).Set(float64(n))
	}
}

func (l *loop) gauge(name string, status v1alpha1.RemediationPolicyStatus) {
	holding := 0.0
	if status.Brake.State == v1alpha1.BrakeHolding {
		holding = 1
	}
	l.Metrics.BrakesHolding.WithLabelValues(name).Set(holding)
}

// write updates the status where it changed. A conflict comes back and is decided again.
func (l *loop) write(ctx context.Context, p *v1alpha1.RemediationPolicy, next v1alpha1.RemediationPolicyStatus) error {
	if equality.Semantic.DeepEqual(p.Status, next) {
		return nil
	}
	changed := p.DeepCopy()
	changed.Status = next
	if err := l.client.Status().Update(ctx, changed); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("writing the status of policy %s: %w", p.Name, err)
	}
	return nil
}
