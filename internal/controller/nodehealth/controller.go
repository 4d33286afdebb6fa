// Package nodehealth gives every Node its NodeHealth, and keeps the Node condition RoundhouseReporting, which says whether
// the agent's word is fresh.
//
// At 30,000 nodes it must cost little: one paged LIST of metadata when this process begins to lead, and then one write
// only where something is missing or has changed. Nodes that never had an agent, and never will, are not written to.
package nodehealth

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/metrics"
)

const (
	// workers is how many nodes are looked at together; a new cluster of 30,000 needs as many creates.
	workers = 8
	// reseed is how often all NodeHealths are listed again: one that somebody deleted while its node was Healthy is
	// seen in no other way.
	reseed = 10 * time.Minute
	// lag is how long a new NodeHealth may take to show in the cache.
	lag = 5 * time.Second
	// nodeNameIndex finds the agents' Pods of a node.
	nodeNameIndex = "spec.nodeName"
)

// Options are what the loop works with.
type Options struct {
	// NodeSelector selects the Nodes that get a NodeHealth.
	NodeSelector labels.Selector
	// AgentsElsewhere says that agents are not Pods of this cluster: what they have published is all that can be seen.
	AgentsElsewhere bool
	// Grace is how long an agent may be away before its node counts as not reporting.
	Grace   time.Duration
	Clock   clock.PassiveClock
	Metrics *metrics.Controller
}

// Setup adds the loop to the manager.
func Setup(ctx context.Context, mgr ctrl.Manager, options Options) error {
	loop := newLoop(options, mgr.GetClient(), mgr.GetAPIReader(), mgr.GetCache())
	reseeded := make(chan event.GenericEvent)
	if err := mgr.Add(&seeder{loop: loop, changed: reseeded}); err != nil {
		return fmt.Errorf("adding the seeding of NodeHealths: %w", err)
	}
	if err := build(ctx, mgr, loop, reseeded); err != nil {
		return fmt.Errorf("building the NodeHealth loop: %w", err)
	}
	return nil
}

// loop looks at one node at a time.
type loop struct {
	Options
	client client.Client
	live   client.Reader
	cache  client.Reader
	*index
}

func newLoop(options Options, c client.Client, live, cached client.Reader) *loop {
	return &loop{Options: options, client: c, live: live, cache: cached, index: newIndex()}
}

// Reconcile makes one change to one node's objects, if one is needed.
func (l *loop) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	if err := l.seedOnce(ctx, l.live); err != nil {
		return reconcile.Result{}, err
	}
	node := &corev1.Node{}
	if err := l.client.Get(ctx, request.NamespacedName, node); err != nil {
		if apierrors.IsNotFound(err) {
			l.forget(request.Name)
			l.count(request.Name, "")
		}
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	if node.DeletionTimestamp != nil || !l.NodeSelector.Matches(labels.Set(node.Labels)) {
		return reconcile.Result{}, nil
	}
	if err := l.verify(ctx, node.Name, l.live); err != nil {
		return reconcile.Result{}, err
	}
	if l.owner(node.Name) != node.UID {
		return l.give(ctx, node)
	}
	return l.report(ctx, node)
}

// give creates the node's NodeHealth. One of an earlier node of the same name is deleted first: a new node inherits
// nothing.
func (l *loop) give(ctx context.Context, node *corev1.Node) (reconcile.Result, error) {
	l.creating(node.Name, l.Clock.Now())
	err := l.client.Create(ctx, newHealth(node))
	if err == nil {
		l.set(node.Name, node.UID)
		l.Metrics.NodeHealthsCreated.WithLabelValues(l.why(node.Name)).Inc()
		return reconcile.Result{RequeueAfter: lag}, nil
	}
	if !apierrors.IsAlreadyExists(err) {
		return reconcile.Result{}, fmt.Errorf("creating the NodeHealth of node %s: %w", node.Name, err)
	}
	existing := &v1alpha1.NodeHealth{}
	if err := l.live.Get(ctx, client.ObjectKeyFromObject(node), existing); err != nil {
		if apierrors.IsNotFound(err) {
			return reconcile.Result{RequeueAfter: time.Second}, nil
		}
		return reconcile.Result{}, fmt.Errorf("reading the NodeHealth of node %s: %w", node.Name, err)
	}
	if existing.Spec.NodeUID == string(node.UID) {
		l.shown(node.Name)
		l.set(node.Name, node.UID)
		return reconcile.Result{RequeueAfter: time.Millisecond}, nil
	}
	if err := l.stillTheNode(ctx, node); err != nil {
		return reconcile.Result{}, err
	}
	preconditions := client.Preconditions{UID: &existing.UID, ResourceVersion: &existing.ResourceVersion}
	if err := l.client.Delete(ctx, existing, preconditions); client.IgnoreNotFound(err) != nil {
		return reconcile.Result{}, fmt.Errorf("deleting the NodeHealth of an earlier node %s: %w", node.Name, err)
	}
	l.replacing(node.Name)
	return reconcile.Result{RequeueAfter: time.Millisecond}, nil
}

// errStale says that the cache shows a node that is no longer there.
var errStale = errors.New("the cached node is not the one that exists")

// stillTheNode asks live before something is deleted on a cache's word: an old cache would take the new node's
// NodeHealth for the old one's.
func (l *loop) stillTheNode(ctx context.Context, node *corev1.Node) error {
	current := &metav1.PartialObjectMetadata{}
	current.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Node"))
	if err := l.live.Get(ctx, client.ObjectKeyFromObject(node), current); err != nil {
		return fmt.Errorf("reading node %s: %w", node.Name, err)
	}
	if current.UID != node.UID {
		return fmt.Errorf("%w: node %s", errStale, node.Name)
	}
	return nil
}

// newHealth is the NodeHealth of a node, which goes when the node goes.
func newHealth(node *corev1.Node) *v1alpha1.NodeHealth {
	return &v1alpha1.NodeHealth{
		ObjectMeta: metav1.ObjectMeta{
			Name: node.Name,
			OwnerReferences: []metav1.OwnerReference{{
				APIVersion: corev1.SchemeGroupVersion.String(), Kind: "Node", Name: node.Name, UID: node.UID,
			}},
		},
		Spec: v1alpha1.NodeHealthSpec{NodeUID: string(node.UID)},
	}
}

// report keeps the condition.
func (l *loop) report(ctx context.Context, node *corev1.Node) (reconcile.Result, error) {
	seen, wait, err := l.look(ctx, node)
	if err != nil {
		return reconcile.Result{}, err
	}
	verdict := judge(seen)
	l.count(node.Name, verdict.notReporting())
	before := conditionOf(node)
	if verdict.status == "" || (before != nil && before.Status == verdict.status && before.Reason == verdict.reason) {
		return reconcile.Result{RequeueAfter: wait}, nil
	}
	patch, err := conditionPatch(node, verdict, l.Clock.Now())
	if err != nil {
		return reconcile.Result{}, err
	}
	target := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: node.Name}}
	// By type, so that the conditions of others are not touched.
	if err := l.client.Status().Patch(ctx, target, client.RawPatch(types.StrategicMergePatchType, patch)); client.IgnoreNotFound(err) != nil {
		return reconcile.Result{}, fmt.Errorf("writing condition %s of node %s: %w", v1alpha1.ConditionReporting, node.Name, err)
	}
	return reconcile.Result{RequeueAfter: wait}, nil
}

// look gathers what the verdict depends on. wait is when to look again without an event.
func (l *loop) look(ctx context.Context, node *corev1.Node) (seen observation, wait time.Duration, err error) {
	seen.had, seen.elsewhere = conditionOf(node) != nil, l.AgentsElsewhere
	if seen.pod, seen.ready, err = l.agent(ctx, node.Name); err != nil {
		return seen, 0, err
	}
	if !seen.pod && !seen.had {
		return seen, 0, nil // Most likely it has no accelerators; nothing is read, written or waited for.
	}
	health := &v1alpha1.NodeHealth{}
	err = l.client.Get(ctx, client.ObjectKeyFromObject(node), health)
	switch {
	case apierrors.IsNotFound(err):
		// It exists, or Reconcile would have created it; so it is Healthy, or too new for the cache.
		seen.reported = l.Clock.Since(l.createdAt(node.Name)) > lag
		if !seen.reported {
			// Too new to tell which; saying so would cost two writes a node for nothing.
			seen.settling, wait = true, lag
		}
	case err != nil:
		return seen, 0, fmt.Errorf("reading the NodeHealth of node %s: %w", node.Name, err)
	default:
		seen.reported = health.Spec.NodeUID == string(node.UID) && health.Status.BootID != ""
	}
	if seen.ready {
		l.present(node.Name)
		return seen, wait, nil
	}
	if away := l.awayFor(node.Name, l.Clock.Now()); away < l.Grace {
		seen.settling, wait = true, l.Grace-away
	}
	return seen, wait, nil
}

// agent says whether the node has an agent's Pod, and whether that is Ready. An agent that is not a Pod cannot be asked:
// it is taken to be there, and what it has published decides.
func (l *loop) agent(ctx context.Context, node string) (pod, ready bool, err error) {
	if l.AgentsElsewhere {
		return true, true, nil
	}
	pods := &corev1.PodList{}
	if err := l.cache.List(ctx, pods, client.MatchingFields{nodeNameIndex: node}); err != nil {
		return false, false, fmt.Errorf("listing agent pods of node %s: %w", node, err)
	}
	return len(pods.Items) > 0, anyReady(pods.Items), nil
}
