package remediation

import (
	"context"
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
}

// plans looks at what runs on the node, live, and plans both drains. What was looked at for the step before serves this
// one too where that step changed nothing about it, but not for the word that nothing is left.
func (r *Reconciler) plans(ctx context.Context, w *work, s *decide.Snapshot) error {
	reused := w.occupants != nil
	if !reused {
		if err := r.occupy(ctx, w); err != nil {
			return err
		}
	}
	occupancy.Plan(s, w.occupants.pods, w.occupants.claims, r.Namespace)
	if reused && decide.Emptied(s) {
		if err := r.occupy(ctx, w); err != nil {
			return err
		}
		occupancy.Plan(s, w.occupants.pods, w.occupants.claims, r.Namespace)
	}
	return nil
}

// occupy lists what runs on the node, and joins pods to devices through their claims' allocations (KEP-4381).
func (r *Reconciler) occupy(ctx context.Context, w *work) error {
	var pods corev1.PodList
	if err := r.Live.List(ctx, &pods, client.MatchingFields{nodePods: w.name}); err != nil {
		return fmt.Errorf("listing the node's pods: %w", err)
	}
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
	w.occupants = o
	return nil
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
	// The claim is on the Node; in the turn that put it on, nothing is read again.
	if err := r.unchangedNode(ctx, w); err != nil {
		return err
	}
	if err := r.guard(ctx, w, s); err != nil {
		return err
	}
	refusals := make([]evict.Outcome, 0, evictAtOnce)
	for _, m := range d.Evict[:min(len(d.Evict), evictAtOnce)] {
		out, err := r.evictor.Evict(ctx, &m.Pod, howToStop(&m.Pod, d.Means, s.Now))
		if err != nil {
			return err
		}
		r.Metrics.Evictions.WithLabelValues(string(out.Kind)).Inc()
		switch out.Kind {
		case evict.Evicted, evict.Deleted:
			if m.Pod.DeletionTimestamp == nil {
				d.Drain.PodsMoved++
			}
		case evict.Blocked, evict.Misconfigured:
			refusals = append(refusals, out)
			d.Drain.Blockers = append(d.Drain.Blockers, v1alpha1.Blocker{
				Pod: m.Pod.Namespace + "/" + m.Pod.Name, Reason: string(out.Kind), Message: cut(out.Message, maxBlocker)})
		case evict.Gone, evict.Terminating, evict.Forced:
		}
	}
	d.Drain.Blockers = d.Drain.Blockers[:min(len(d.Drain.Blockers), drain.MaxBlockers)]
	refused(d, st, refusals)
	return nil
}

// howToStop is how hard a pod is asked to go by what the drain has come to.
func howToStop(pod *corev1.Pod, means drain.Means, now time.Time) evict.How {
	return evict.How{Grace: means.Shorter(pod), Delete: means.Deletes(), Force: means.Force(pod, now)}
}

// maxBlocker is the bound of a blocker's message.
const maxBlocker = 256

// refused makes an eviction that was refused the reason, and waits as long as the server asks.
func refused(d *decide.Decision, st *v1alpha1.RemediationStatus, refusals []evict.Outcome) {
	if len(refusals) == 0 {
		return
	}
	last := d.Drain.Blockers[len(d.Drain.Blockers)-1]
	d.Reason, d.Message = decide.ReasonEvictionBlocked, last.Pod+": "+last.Message
	d.WouldChange = "the budget allows it, or a human changes it" + strings.TrimPrefix(d.WouldChange, decide.PodsEnd)
	d.Requeue = evict.DefaultRetryAfter
	for _, out := range refusals {
		if out.RetryAfter > 0 {
			d.Requeue = min(d.Requeue, out.RetryAfter)
		}
	}
	if st.Deadline != nil {
		d.Requeue = max(time.Millisecond, min(d.Requeue, time.Until(st.Deadline.Time)))
	}
}
