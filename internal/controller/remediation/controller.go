// Package remediation is the loop that brings a node through an incident: it gathers what a decision depends on, asks
// internal/decide for one step, carries it out, and looks again. One Reconcile is about one node, so that at most one
// incident is worked on a node at a time.
//
// Every write carries what it was decided on: a Node's and a NodeHealth's resourceVersion, a pod's UID, a budget's
// compare-and-swap. A write that fails is never repeated; it is decided again.
package remediation

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/clock"
	"k8s.io/utils/lru"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/budget"
	"github.com/roundhouse-dev/roundhouse/internal/claim"
	"github.com/roundhouse-dev/roundhouse/internal/decide"
	"github.com/roundhouse-dev/roundhouse/internal/evict"
	"github.com/roundhouse-dev/roundhouse/internal/metrics"
	"github.com/roundhouse-dev/roundhouse/internal/policy"
	"github.com/roundhouse-dev/roundhouse/internal/remedy"
)

// Options are what the loop works with.
type Options struct {
	// Client writes, and reads from the cache: Nodes, Remediations, RemediationPolicies, RemediationHolds, DeviceRecords,
	// and those NodeHealths that are not Healthy.
	Client client.Client
	// Live asks the API server.
	Live client.Reader
	// Slices lists and watches ResourceSlices, while a policy asks for drivers' taints; nil watches none.
	Slices Slices
	// Policies gives the compiled policies.
	Policies func(ctx context.Context) (*policy.Set, error)
	// Budgets takes and frees slots.
	Budgets *budget.Keeper
	// Namespace is the controller's own, in which the Jobs of repairs run: a drain leaves an incident's own alone.
	Namespace string
	// Remedies are the repairs that this controller can make itself, by the action of their rungs.
	Remedies map[v1alpha1.RungAction]remedy.Remedy
	// BurnIns runs the Jobs that prove repairs; nil can run none.
	BurnIns BurnIns
	// Operands pauses the GPU operator's parts on a node while the agent resets a device, which they hold; nil pauses nothing.
	Operands Operands
	// Events tells people on the Node what happened; nil tells nobody.
	Events events.EventRecorder
	// Metrics counts what was done.
	Metrics *metrics.Controller
	// Clock is the time.
	Clock clock.PassiveClock
	// Workers is how many nodes are worked on at once.
	Workers int
	// Retention is how long an incident that is over stays.
	Retention time.Duration
}

// DefaultRetention is how long an incident that is over stays for people to read; the devices' records keep its digest.
const DefaultRetention = 30 * 24 * time.Hour

// IndexNode is the field by which Remediations are looked up in the cache.
const IndexNode = "spec.node"

// maxSteps bounds the steps of one Reconcile; the rest follows in the next.
const maxSteps = 12

// reconcileTimeout bounds one Reconcile; a request that hangs is given up.
const reconcileTimeout = 2 * time.Minute

// Reconciler works on one node at a time.
type Reconciler struct {
	Options
	evictor evict.Evictor
	// requests asks the responders that pods name.
	requests evict.Requests
	foreign  claim.Finder
	// sure holds the UIDs of the incidents of which this process knows that nothing is on but what they list.
	sure sync.Map
	// opened holds, by node, the name of the last incident that this process has begun; the cache may not show it yet.
	opened sync.Map
	// leads says when this process began to work, which is when it began to lead.
	leads struct {
		sync.Once
		since time.Time
	}
	// placed holds, by UID of their incident, where rules were put on that are not written down yet.
	placed sync.Map
	// looked holds, by UID, when it was last seen that an incident's rules are where they belong.
	looked sync.Map
	// drivers knows of the taints of DRA drivers' own; nil watches none.
	drivers *driverTaints
	// claims remembers which devices a pod's claim was given.
	claims *lru.Cache
	// refusals remembers which pods were refused to go a moment ago, and why.
	refusals *lru.Cache
	// namespaces remembers the labels of namespaces for a moment.
	namespaces *lru.Cache
	// line are the nodes that wait for a budget's slot.
	line line
	// told holds, by UID, when the status of an incident was last written.
	told sync.Map
	// queue holds the nodes that wait for their turn; nil before the loop runs.
	queue queue
}

// errDecideAgain says that what was decided on is no longer so.
var errDecideAgain = errors.New("what was decided on has changed")

// errLater says that the rest of a step has time.
var errLater = errors.New("other nodes come first")

// Reconcile brings one node's incident forward until it has to wait.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, reconcileTimeout)
	defer cancel()
	r.leads.Do(func() { r.leads.since = r.Clock.Now() })
	w, err := r.begin(ctx, req.Name)
	if err != nil {
		return ctrl.Result{}, err
	}
	for range maxSteps {
		after, err := r.step(ctx, w)
		if err == nil && (after > 0 || w.done) {
			err = r.lifecycle(ctx, w)
		}
		switch {
		case overtaken(err):
			// Somebody else wrote first, or the cache is behind: look live, and decide again.
			r.Metrics.Overtaken.WithLabelValues(string(w.doing)).Inc()
			if err := r.refresh(ctx, w); err != nil || w.done {
				return ctrl.Result{}, err
			}
		case errors.Is(err, errWaiting):
			return again(w, waitingPoll), nil
		case errors.Is(err, errLater):
			return again(w, time.Millisecond), nil
		case err != nil:
			return ctrl.Result{}, fmt.Errorf("node %s: %w", req.Name, err)
		case after > 0:
			return again(w, after), nil
		case w.done:
			return ctrl.Result{}, nil
		}
	}
	return again(w, breather), nil
}

// breather is the pause of a node that takes many steps, or is overtaken again and again: others have their turn.
const breather = 200 * time.Millisecond

// overtaken says whether a step failed because what it was decided on is no longer so.
func overtaken(err error) bool {
	return apierrors.IsConflict(err) || errors.Is(err, errDecideAgain) || errors.Is(err, claim.ErrClaimed) ||
		errors.Is(err, claim.ErrTaint) || errors.Is(err, budget.ErrActing)
}

// resume goes on with an incident that exists and that the cache does not show: another controller was first, or the
// cache is behind, for however long. Where it is over it is looked live whether its fault is there, and decided again.
func (r *Reconciler) resume(ctx context.Context, w *work, name string) (time.Duration, error) {
	rem := &v1alpha1.Remediation{}
	if err := r.Live.Get(ctx, types.NamespacedName{Name: name}, rem); err != nil {
		return 0, fmt.Errorf("reading remediation: %w", err)
	}
	if rem.Status.Phase.Over() && !r.unfinished(rem) {
		w.over = append(w.over, rem)
		return 0, r.seeLive(ctx, w)
	}
	w.rem, w.fresh = rem, true
	return 0, nil
}

// seeLive reads the NodeHealth from the server, for the next step.
func (r *Reconciler) seeLive(ctx context.Context, w *work) error {
	_, err := r.liveHealth(ctx, w)
	if apierrors.IsNotFound(err) {
		w.health, w.healthLive = &v1alpha1.NodeHealth{}, true // no node's.
		return nil
	}
	return err
}

// refresh reads node and incident live, and asks for the rest anew. What this Reconcile itself has just read live, or
// written, stands.
func (r *Reconciler) refresh(ctx context.Context, w *work) error {
	if !w.healthLive {
		w.health = nil
	}
	if w.offers != nil && !w.offers.current {
		w.offers = nil
	}
	w.slotHeld = nil
	w.moved()
	if w.node != nil {
		node := &corev1.Node{}
		err := r.Live.Get(ctx, types.NamespacedName{Name: w.name}, node)
		if client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("reading node: %w", err)
		}
		w.nodeFresh = true
		if w.node = node; err != nil {
			w.node = nil
		}
	}
	if w.rem != nil && !w.fresh {
		rem := &v1alpha1.Remediation{}
		err := r.Live.Get(ctx, types.NamespacedName{Name: w.rem.Name}, rem)
		if apierrors.IsNotFound(err) {
			w.done = true
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading remediation: %w", err)
		}
		w.rem, w.fresh = rem, true
	}
	return nil
}

// work is what one Reconcile knows: the objects as the API server last gave them to us.
type work struct {
	name   string
	node   *corev1.Node
	rem    *v1alpha1.Remediation
	health *v1alpha1.NodeHealth
	// healthLive says that health was read from the server, not from the cache.
	healthLive bool
	policies   *policy.Set
	// occupants and foreign are what was looked at for the step before; nil where that has to be looked at anew.
	occupants *occupants
	// lookTook is how long the API server took to list them.
	lookTook time.Duration
	foreign  *[]claim.ForeignClaim
	// offers is the last look at how the devices are offered; nil before the first.
	offers *offers
	// holds are the holds of the cluster as last read live; nil where the cache is to be asked.
	holds []v1alpha1.RemediationHold
	// noRules says that the server has refused a DeviceTaintRule as a kind that it does not have.
	noRules bool
	// slotHeld is what this Reconcile did to the slot; nil where it did nothing. slotLost says that it was not held when an
	// act asked for it live.
	slotHeld *bool
	slotLost bool
	// fresh and nodeFresh say that rem and node are as the server had them a moment ago, by a guarded write or a live
	// read of this Reconcile.
	fresh, nodeFresh bool
	// nextCheck is when a Node condition or a driver's taint will have lasted long enough to be a fault.
	nextCheck time.Duration
	// over are the node's incidents that are over.
	over []*v1alpha1.Remediation
	// seen is what the last decision was made on.
	seen *decide.Snapshot
	// put says that this Reconcile has put something on, perhaps for an incident that had ended by then.
	put bool
	// doing is the step under way.
	doing decide.Do
	done  bool
}

// moved says that time or a write has gone by: what runs on the node, and who else works on it, is looked at anew.
func (w *work) moved() { w.occupants, w.foreign = nil, nil }

// begin reads what is cached.
func (r *Reconciler) begin(ctx context.Context, name string) (*work, error) {
	w := &work{name: name}
	var err error
	if w.policies, err = r.Policies(ctx); err != nil {
		return nil, fmt.Errorf("reading policies: %w", err)
	}
	if err := r.incidents(ctx, w); err != nil {
		return nil, err
	}
	node := &corev1.Node{}
	switch err := r.Client.Get(ctx, types.NamespacedName{Name: name}, node); {
	case apierrors.IsNotFound(err):
	case err != nil:
		return nil, fmt.Errorf("reading node: %w", err)
	default:
		w.node = node
	}
	return w, nil
}

// incidents finds the node's Remediation to work on: the open one, else the oldest that is over and not let go of yet.
func (r *Reconciler) incidents(ctx context.Context, w *work) error {
	list, err := r.ofNode(ctx, w.name)
	if err != nil {
		return err
	}
	var found *v1alpha1.Remediation
	for i := range list {
		rem := &list[i]
		if rem.Status.Phase.Over() {
			w.over = append(w.over, rem)
		}
		if rem.Status.Phase.Over() && !r.unfinished(rem) {
			continue
		}
		if found == nil || before(rem, found) {
			found = rem
		}
	}
	w.rem = found.DeepCopy()
	return nil
}

func (r *Reconciler) ofNode(ctx context.Context, node string) ([]v1alpha1.Remediation, error) {
	var list v1alpha1.RemediationList
	if err := r.Client.List(ctx, &list, client.MatchingFields{IndexNode: node}); err != nil {
		return nil, fmt.Errorf("listing remediations of the node: %w", err)
	}
	return list.Items, nil
}

// before prefers what is open over what is over, then the older, then the lower name: two turns must agree on one.
func before(a, b *v1alpha1.Remediation) bool {
	if a.Status.Phase.Over() != b.Status.Phase.Over() {
		return b.Status.Phase.Over()
	}
	if a.Spec.Cancel != b.Spec.Cancel && a.Status.Phase.Over() {
		return b.Spec.Cancel // which may have to stay, and must not keep the others.
	}
	if a.CreationTimestamp.Equal(&b.CreationTimestamp) { // to the second.
		return a.Name < b.Name
	}
	return a.CreationTimestamp.Before(&b.CreationTimestamp)
}

// unfinished says whether an incident that is over still has something to be done about it.
func (r *Reconciler) unfinished(rem *v1alpha1.Remediation) bool {
	return len(rem.Finalizers) > 0 || r.expired(rem)
}

func (r *Reconciler) expired(rem *v1alpha1.Remediation) bool {
	return rem.Status.Phase.Over() && rem.Status.Since != nil && r.Clock.Since(rem.Status.Since.Time) > r.Retention
}

// step gathers, decides and applies once. It gives how long to wait, or 0 for another step.
func (r *Reconciler) step(ctx context.Context, w *work) (time.Duration, error) {
	s, err := r.gather(ctx, w)
	if err != nil {
		return 0, err
	}
	w.seen = s
	if w.rem != nil && w.rem.Status.Phase.Over() && len(w.rem.Finalizers) == 0 {
		if err := r.takeBack(ctx, w, s); err != nil {
			return 0, err
		}
		return 0, r.retire(ctx, w, s)
	}
	if w.rem == nil {
		return r.open(ctx, w, s)
	}
	d := decide.Next(s)
	if d.Do == decide.Reserve {
		refused, after, err := r.slotOrRefusal(ctx, w, s, d.Empties)
		if err != nil || refused == nil {
			return after, err
		}
		s.Refused = refused
		d = decide.Next(s)
	} else {
		r.line.leave(w.name)
	}
	if d.Do != decide.Move || d.Phase != v1alpha1.PhaseDraining {
		defer w.moved()
	}
	after, err := r.apply(ctx, w, s, d)
	return w.gently(d, after), err
}

// retire deletes an incident that is over, let go of, and older than people are likely to read, unless a human's word in
// it still stands: then the node's other faults are looked at.
func (r *Reconciler) retire(ctx context.Context, w *work, s *decide.Snapshot) error {
	if decide.CancelStands(s, w.rem) {
		w.rem = nil
		return nil
	}
	w.done = true
	if !r.expired(w.rem) {
		return nil
	}
	r.opened.CompareAndDelete(w.name, w.rem.Name)
	if err := r.Client.Delete(ctx, w.rem, client.Preconditions{UID: &w.rem.UID}); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("deleting an old remediation: %w", err)
	}
	return nil
}

// open begins an incident where the node's faults ask for one.
func (r *Reconciler) open(ctx context.Context, w *work, s *decide.Snapshot) (time.Duration, error) {
	rem, ok := decide.Open(s)
	if !ok {
		w.done = true
		return w.nextCheck, nil
	}
	if err := r.unseen(ctx, w); err != nil || w.rem != nil {
		return 0, err
	}
	if decide.Again(s, rem) && !w.healthLive {
		// A cache that is behind may show a fault that has gone; it is no new one.
		return 0, r.seeLive(ctx, w)
	}
	err := r.Client.Create(ctx, rem)
	if apierrors.IsAlreadyExists(err) {
		return r.resume(ctx, w, rem.Name)
	}
	if err != nil {
		return 0, fmt.Errorf("creating remediation: %w", err)
	}
	r.Metrics.Opened.WithLabelValues(rem.Spec.Root.Code).Inc()
	r.opened.Store(w.name, rem.Name)
	w.rem = rem
	return 0, nil
}

// cacheLag is how long a new leader does not rely on its cache to show what the one before it has begun.
const cacheLag = 15 * time.Second

// unseen finds an open incident of the node that the cache does not show yet: at most one is open a node, and another fault
// would begin another. Only this process's own last one can be behind, but for a while after another led.
func (r *Reconciler) unseen(ctx context.Context, w *work) error {
	last, known := r.opened.Load(w.name)
	switch {
	case known && slices.ContainsFunc(w.over, func(rem *v1alpha1.Remediation) bool { return rem.Name == last }):
		return nil
	case !known && r.Clock.Since(r.leads.since) > cacheLag:
		return nil
	}
	var list v1alpha1.RemediationList
	if err := r.Live.List(ctx, &list, client.MatchingFields{IndexNode: w.name}); err != nil {
		return fmt.Errorf("listing remediations of the node: %w", err)
	}
	w.over = nil
	for i := range list.Items {
		rem := &list.Items[i]
		switch {
		case rem.Status.Phase.Over():
			w.over = append(w.over, rem)
		case w.rem == nil || before(rem, w.rem):
			w.rem, w.fresh = rem, true
		}
	}
	if known && !slices.ContainsFunc(list.Items, func(rem v1alpha1.Remediation) bool { return rem.Name == last }) {
		r.opened.Delete(w.name)
	}
	return nil
}
