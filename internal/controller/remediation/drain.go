package remediation

import (
	"context"
	"fmt"
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
)

// nodePods is the field by which the API server indexes pods.
const nodePods = "spec.nodeName"

// plans lists what runs on the node, live, and plans both drains.
func (r *Reconciler) plans(ctx context.Context, s *decide.Snapshot) error {
	var pods corev1.PodList
	if err := r.Live.List(ctx, &pods, client.MatchingFields{nodePods: s.Node.Name}); err != nil {
		return fmt.Errorf("listing the node's pods: %w", err)
	}
	in := drain.Input{Now: s.Now, Pods: pods.Items, Scope: drain.ScopeNode, BadDevices: s.Remediation.Spec.Devices}
	if p := s.Policy.Policy; p != nil && p.Spec.Drain != nil {
		in.Classes = p.Spec.Drain.Classes
	}
	var err error
	if in.Holding, err = r.holding(ctx, s, pods.Items); err != nil {
		return err
	}
	node := drain.Make(in)
	in.Scope = drain.ScopeDevice
	device := drain.Make(in)
	s.NodePlan, s.DevicePlan = &node, &device
	return nil
}

// holding joins pods to devices through their claims' allocations (KEP-4381). The names of the bad devices are those of
// when they were quarantined; the others only count.
func (r *Reconciler) holding(ctx context.Context, s *decide.Snapshot, pods []corev1.Pod) (map[types.UID][]string, error) {
	ids := map[string]string{}
	for _, q := range s.Remediation.Status.Quarantined {
		if q.Kind == v1alpha1.QuarantineDeviceTaintRule {
			ids[deviceKey(q.Driver, q.Pool, q.Device)] = q.DeviceID
		}
	}
	for id, h := range s.Handles {
		ids[deviceKey(h.Driver, h.Pool, h.Device)] = id
	}
	held := map[types.UID][]string{}
	for i := range pods {
		pod := &pods[i]
		for _, name := range claimsOf(pod) {
			var c resourcev1.ResourceClaim
			err := r.Live.Get(ctx, types.NamespacedName{Namespace: pod.Namespace, Name: name}, &c)
			if apierrors.IsNotFound(err) {
				continue // the pod is going, and its claim has gone first.
			}
			if err != nil {
				return nil, fmt.Errorf("reading the claim of pod %s/%s: %w", pod.Namespace, pod.Name, err)
			}
			held[pod.UID] = append(held[pod.UID], allocated(&c, ids)...)
		}
	}
	return held, nil
}

func deviceKey(driver, pool, device string) string { return driver + "/" + pool + "/" + device }

// claimsOf are the names of a pod's ResourceClaims, made from templates or named outright.
func claimsOf(pod *corev1.Pod) []string {
	var names []string
	for _, c := range pod.Spec.ResourceClaims {
		if c.ResourceClaimName != nil {
			names = append(names, *c.ResourceClaimName)
		}
	}
	for _, c := range pod.Status.ResourceClaimStatuses {
		if c.ResourceClaimName != nil {
			names = append(names, *c.ResourceClaimName)
		}
	}
	if e := pod.Status.ExtendedResourceClaimStatus; e != nil {
		names = append(names, e.ResourceClaimName)
	}
	return names
}

// allocated are the devices of a claim; those given for administration do no work and do not count.
func allocated(c *resourcev1.ResourceClaim, ids map[string]string) []string {
	if c.Status.Allocation == nil {
		return nil
	}
	var held []string
	for _, res := range c.Status.Allocation.Devices.Results {
		if res.AdminAccess != nil && *res.AdminAccess {
			continue
		}
		key := deviceKey(res.Driver, res.Pool, res.Device)
		if id, ok := ids[key]; ok {
			key = id
		}
		held = append(held, key)
	}
	return held
}

// evictAtOnce bounds the evictions of one step, so that holds and cancels are looked at between.
const evictAtOnce = 16

// evict asks for the eviction of what must go, and writes down who refuses.
func (r *Reconciler) evict(ctx context.Context, w *work, s *decide.Snapshot, d *decide.Decision, st *v1alpha1.RemediationStatus) error {
	if err := r.guard(ctx, w, s); err != nil {
		return err
	}
	refusals := make([]evict.Outcome, 0, evictAtOnce)
	for _, m := range d.Evict[:min(len(d.Evict), evictAtOnce)] {
		out, err := r.evictor.Evict(ctx, &m.Pod)
		if err != nil {
			return err
		}
		r.Metrics.Evictions.WithLabelValues(string(out.Kind)).Inc()
		switch out.Kind {
		case evict.Evicted:
			d.Drain.PodsMoved++
		case evict.Blocked, evict.Misconfigured:
			refusals = append(refusals, out)
			d.Drain.Blockers = append(d.Drain.Blockers, v1alpha1.Blocker{
				Pod: m.Pod.Namespace + "/" + m.Pod.Name, Reason: string(out.Kind), Message: cut(out.Message, maxBlocker)})
		case evict.Gone, evict.Terminating:
		}
	}
	d.Drain.Blockers = d.Drain.Blockers[:min(len(d.Drain.Blockers), drain.MaxBlockers)]
	refused(d, st, refusals)
	return nil
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
	d.WouldChange = "the budget allows it, or a human changes it"
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
