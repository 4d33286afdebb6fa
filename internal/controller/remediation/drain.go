package remediation

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/decide"
	"github.com/roundhouse-dev/roundhouse/internal/drain"
	"github.com/roundhouse-dev/roundhouse/internal/evict"
	"github.com/roundhouse-dev/roundhouse/internal/occupancy"
)

// nodePods is the field by which the API server indexes pods.
const nodePods = "spec.nodeName"

// occupants is what runs on a node, as one look showed it.
type occupants struct {
	pods []corev1.Pod
	// claims are the devices that each pod was given.
	claims occupancy.Claims
	// namespaces are the labels of their namespaces, where the policy asks for them.
	namespaces map[string]map[string]string
}

// shown is what a plan is made of.
func (r *Reconciler) shown(w *work) occupancy.Seen {
	o := w.occupants
	return occupancy.Seen{Pods: o.pods, Claims: o.claims, Namespaces: o.namespaces, Home: r.Namespace}
}

// plans looks at what runs on the node, live, and plans both drains. What was looked at for the step before serves this
// one too where that step changed nothing about it, but not for the word that nothing is left.
func (r *Reconciler) plans(ctx context.Context, w *work, s *decide.Snapshot) error {
	reused := w.occupants != nil
	if !reused {
		if err := r.occupy(ctx, w, s); err != nil {
			return err
		}
	}
	occupancy.Plan(s, r.shown(w))
	if reused && decide.Emptied(s) {
		if err := r.occupy(ctx, w, s); err != nil {
			return err
		}
		occupancy.Plan(s, r.shown(w))
	}
	return nil
}

// occupy lists what runs on the node, and joins pods to devices through their claims' allocations (KEP-4381).
func (r *Reconciler) occupy(ctx context.Context, w *work, s *decide.Snapshot) error {
	var pods corev1.PodList
	began := r.Clock.Now()
	if err := r.Live.List(ctx, &pods, client.MatchingFields{nodePods: w.name}); err != nil {
		return fmt.Errorf("listing the node's pods: %w", err)
	}
	w.lookTook = r.Clock.Since(began)
	o := &occupants{pods: pods.Items, claims: occupancy.Claims{}}
	for i := range pods.Items {
		pod := &pods.Items[i]
		for _, name := range occupancy.ClaimsOf(pod) {
			given, err := r.given(ctx, pod, name)
			if err != nil {
				return err
			}
			o.claims[pod.UID] = append(o.claims[pod.UID], given...)
		}
	}
	if s.Policy.AsksForNamespaces {
		var err error
		if o.namespaces, err = r.namespaceLabels(ctx, occupancy.NamespacesOf(o.pods)); err != nil {
			return err
		}
	}
	w.occupants = o
	return nil
}

const (
	// lookShare is how much longer than a look at a node's pods the time until the next is: where thousands are drained at once, the
	// API server has better things to do than to say that nothing has changed. maxPause is the most that this puts it off.
	lookShare = 10
	maxPause  = 5 * time.Second
)

// gently puts off the next look of a wait in a drain where the last one took long.
func (w *work) gently(d decide.Decision, after time.Duration) time.Duration {
	if d.Do != decide.Wait || d.Phase != v1alpha1.PhaseDraining || after <= 0 {
		return after
	}
	return max(after, min(lookShare*w.lookTook, maxPause))
}

// claimOf names a claim of a pod.
type claimOf struct {
	pod  types.UID
	name string
}

// maxGiven bounds how many claims are remembered; the least used is read again.
const maxGiven = 1 << 14

// given are the devices that a pod's claim was given. They stay the same as long as the claim is reserved for the pod
// (KEP-4381), so each is read once.
func (r *Reconciler) given(ctx context.Context, pod *corev1.Pod, name string) ([]resourcev1.DeviceRequestAllocationResult, error) {
	key := claimOf{pod: pod.UID, name: name}
	if known, ok := r.claims.Get(key); ok {
		if given, ok := known.([]resourcev1.DeviceRequestAllocationResult); ok {
			return given, nil
		}
	}
	var c resourcev1.ResourceClaim
	err := r.Live.Get(ctx, types.NamespacedName{Namespace: pod.Namespace, Name: name}, &c)
	if apierrors.IsNotFound(err) {
		return nil, nil // the pod is going, and its claim has gone first.
	}
	if err != nil {
		return nil, fmt.Errorf("reading the claim of pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	given := occupancy.Given(&c)
	reserved := slices.ContainsFunc(c.Status.ReservedFor, func(by resourcev1.ResourceClaimConsumerReference) bool { return by.UID == pod.UID })
	if c.Status.Allocation != nil && reserved {
		r.claims.Add(key, given)
	}
	return given, nil
}

// evictAtOnce bounds the evictions of one step, so that holds and cancels are looked at between.
const evictAtOnce = 16

// evict asks for the eviction of what must go, and writes down who refuses; or does more, where the policy's drain has come
// to that.
func (r *Reconciler) evict(ctx context.Context, w *work, s *decide.Snapshot, d *decide.Decision, st *v1alpha1.RemediationStatus) error {
	if err := r.mayAct(ctx, w, s); err != nil {
		return err
	}
	var refusals []evict.Outcome
	var named []v1alpha1.Blocker
	var failed []error
	for i, m := range r.turns(d, s.Now) {
		if i >= evictAtOnce && m.told == nil {
			continue // in the next step.
		}
		out, err := r.stop(ctx, m, d.Means, s)
		if err != nil {
			// What is not known of one pod keeps no other from its turn.
			failed = append(failed, err)
			continue
		}
		switch out.Kind {
		case evict.Evicted, evict.Deleted:
			if m.Pod.DeletionTimestamp == nil {
				d.Drain.PodsMoved++
			}
		case evict.Blocked, evict.Misconfigured, evict.Asked:
			refusals = append(refusals, out)
			named = append(named, blocker(&m.Pod, out))
		case evict.Gone, evict.Terminating, evict.Forced:
		}
	}
	refused(d, st, s.Now, refusals, named)
	return errors.Join(failed...)
}

// turn is a pod whose turn it is to be asked to go; told is what was said a moment ago, where it has to wait to be asked again.
type turn struct {
	drain.Move
	told *evict.Outcome
}

// refusalOf names an answer: the same pod may be asked again at once by other means.
type refusalOf struct {
	pod types.UID
	by  v1alpha1.DrainBy
}

// refusal is what was answered, and until when asking again is useless.
type refusal struct {
	out   evict.Outcome
	until time.Time
}

// turns orders the pods of a decision: those that were refused a moment ago come last and are not asked, so that many that
// cannot go never keep the others from going.
func (r *Reconciler) turns(d *decide.Decision, now time.Time) []turn {
	var due, later []turn
	for _, m := range d.Evict {
		known, _ := r.refusals.Get(refusalOf{m.Pod.UID, d.Means.By})
		if said, ok := known.(refusal); ok && now.Before(said.until) {
			later = append(later, turn{Move: m, told: &said.out})
			continue
		}
		due = append(due, turn{Move: m})
	}
	return append(due, later...)
}

// stop asks one pod to go, its own responders first, and remembers a refusal.
func (r *Reconciler) stop(ctx context.Context, m turn, means drain.Means, s *decide.Snapshot) (evict.Outcome, error) {
	if m.told != nil {
		return *m.told, nil
	}
	out, err := r.askFirst(ctx, &m.Pod, means, s)
	if err == nil && out.Kind != evict.Asked {
		out, err = r.evictor.Evict(ctx, &m.Pod, howToStop(&m.Pod, means, s.Now))
	}
	if err != nil {
		return out, err
	}
	r.Metrics.Evictions.WithLabelValues(string(out.Kind)).Inc()
	if out.Kind == evict.Blocked || out.Kind == evict.Misconfigured || out.Kind == evict.Asked {
		after := out.RetryAfter
		if after <= 0 {
			after = evict.DefaultRetryAfter
		}
		r.refusals.Add(refusalOf{m.Pod.UID, means.By}, refusal{out: out, until: s.Now.Add(after)})
	}
	return out, nil
}

func blocker(pod *corev1.Pod, out evict.Outcome) v1alpha1.Blocker {
	b := v1alpha1.Blocker{Pod: pod.Namespace + "/" + pod.Name, Reason: string(out.Kind), Message: cut(out.Message, maxBlocker)}
	switch {
	case out.Kind == evict.Asked:
		b.Reason = decide.ReasonEvictionRequested
	case out.Stuck != "":
		b.Reason, b.Message = decide.ReasonEvictionStuck, cut(out.Stuck, maxBlocker)
	}
	return b
}

// howToStop is how hard a pod is asked to go by what the drain has come to.
func howToStop(pod *corev1.Pod, means drain.Means, now time.Time) evict.How {
	return evict.How{Grace: means.Shorter(pod), Delete: means.Deletes(), Force: means.Force(pod, now)}
}

// patience orders blockers: first what only a human changes, last what is under way.
func patience(b v1alpha1.Blocker) int {
	switch b.Reason {
	case decide.ReasonEvictionStuck:
		return 0
	case decide.ReasonEvictionRequested:
		return 2
	default:
		return 1
	}
}

// maxBlocker is the bound of a blocker's message.
const maxBlocker = 256

// refused makes an eviction that was refused, or is asked for, the reason; one that nobody but a human can change before one that
// may pass.
// Where nothing else is under way, it waits as long as the server asks.
func refused(d *decide.Decision, st *v1alpha1.RemediationStatus, now time.Time, refusals []evict.Outcome, named []v1alpha1.Blocker) {
	if len(refusals) == 0 {
		return
	}
	slices.SortStableFunc(named, func(a, b v1alpha1.Blocker) int { return cmp.Compare(patience(a), patience(b)) })
	d.Drain.Blockers = append(named, d.Drain.Blockers...)
	d.Drain.Blockers = d.Drain.Blockers[:min(len(d.Drain.Blockers), drain.MaxBlockers)]
	otherwise := strings.TrimPrefix(d.WouldChange, decide.PodsEnd)
	d.Reason, d.WouldChange = decide.ReasonEvictionBlocked, "the budget allows it, or a human changes it"+otherwise
	switch named[0].Reason {
	case decide.ReasonEvictionStuck:
		d.Reason, d.WouldChange = decide.ReasonEvictionStuck, "a human changes the budget, or stops the pod"+otherwise
	case decide.ReasonEvictionRequested:
		d.Reason, d.WouldChange = decide.ReasonEvictionRequested, "the pods end, or their responders' time is over"+otherwise
	}
	d.Message = named[0].Pod + ": " + named[0].Message
	if otherwise != "" || len(refusals) < int(d.Drain.PodsLeft) {
		return // something is to happen before.
	}
	d.Requeue = evict.DefaultRetryAfter
	for _, out := range refusals {
		if out.RetryAfter > 0 {
			d.Requeue = min(d.Requeue, out.RetryAfter)
		}
	}
	if st.Deadline != nil {
		d.Requeue = max(time.Millisecond, min(d.Requeue, st.Deadline.Sub(now)))
	}
}
