package remediation

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/claim"
	"github.com/roundhouse-dev/roundhouse/internal/decide"
)

// attributeUUID is how DRA drivers of GPUs publish a device's identity (k8s-dra-driver-gpu, docs: "uuid").
const attributeUUID = "uuid"

// taint is the node taint of an incident.
func taint(rem *v1alpha1.Remediation) corev1.Taint {
	return corev1.Taint{Key: v1alpha1.TaintQuarantined, Value: rem.Name, Effect: corev1.TaintEffectNoSchedule}
}

// quarantine puts on what the spec intends and the status does not list.
func (r *Reconciler) quarantine(ctx context.Context, w *work, s *decide.Snapshot, st *v1alpha1.RemediationStatus) error {
	r.sure.Delete(w.rem.UID) // until it is written down.
	for _, q := range w.rem.Spec.Quarantine {
		on := v1alpha1.Quarantined{Kind: q.Kind, Name: q.Name, DeviceID: q.DeviceID}
		switch q.Kind {
		case v1alpha1.QuarantineNodeTaint:
			after, err := claim.AddTaint(w.node, taint(w.rem))
			if err != nil {
				return fmt.Errorf("tainting node: %w", err)
			}
			if err := r.patchNode(ctx, w, after); err != nil {
				return err
			}
		case v1alpha1.QuarantineDeviceTaintRule:
			h, ok := s.Handles[q.DeviceID]
			if !ok || isListed(st.Quarantined, q.Name) {
				continue
			}
			on.Driver, on.Pool, on.Device, on.PoolGeneration = h.Driver, h.Pool, h.Device, h.Generation
			if err := r.createRule(ctx, w.rem, q, h); err != nil {
				return err
			}
		}
		if !isListed(st.Quarantined, q.Name) {
			st.Quarantined = append(st.Quarantined, on)
		}
	}
	return nil
}

func isListed(on []v1alpha1.Quarantined, name string) bool {
	return slices.ContainsFunc(on, func(q v1alpha1.Quarantined) bool { return q.Name == name })
}

// createRule taints one device. Driver, pool and device are all set: an empty selector would taint every device of the
// cluster (k8s.io/api/resource/v1, DeviceTaintSelector).
func (r *Reconciler) createRule(ctx context.Context, rem *v1alpha1.Remediation, q v1alpha1.QuarantineIntent, h decide.Handle) error {
	if h.Driver == "" || h.Pool == "" || h.Device == "" {
		return fmt.Errorf("device %s has no full name in its ResourceSlice: driver %q, pool %q, device %q", q.DeviceID, h.Driver, h.Pool, h.Device)
	}
	rule := &resourcev1.DeviceTaintRule{
		ObjectMeta: metav1.ObjectMeta{
			Name:   q.Name,
			Labels: map[string]string{v1alpha1.LabelRemediation: rem.Name},
			// No owner: the garbage collector must not give a bad device back because an object was removed by force.
			Annotations: map[string]string{v1alpha1.AnnotationNode: rem.Spec.Node, v1alpha1.AnnotationDevice: q.DeviceID},
		},
		Spec: resourcev1.DeviceTaintRuleSpec{
			DeviceSelector: &resourcev1.DeviceTaintSelector{Driver: ptr.To(h.Driver), Pool: ptr.To(h.Pool), Device: ptr.To(h.Device)},
			Taint:          resourcev1.DeviceTaint{Key: v1alpha1.DeviceTaintQuarantined, Value: rem.Name, Effect: resourcev1.DeviceTaintEffectNoSchedule},
		},
	}
	err := r.Client.Create(ctx, rule)
	if apierrors.IsAlreadyExists(err) {
		return nil // put on before a crash, or by the other controller: the name is this incident's alone.
	}
	if err != nil {
		return fmt.Errorf("creating device taint rule: %w", err)
	}
	return nil
}

// unquarantine takes off the rules, the taint and the claim.
func (r *Reconciler) unquarantine(ctx context.Context, w *work, s *decide.Snapshot, st *v1alpha1.RemediationStatus) error {
	if err := r.deleteRules(ctx, w.rem); err != nil {
		return err
	}
	if s.Node != nil {
		after := claim.RemoveTaint(w.node, v1alpha1.TaintQuarantined, w.rem.Name)
		if err := r.patchNode(ctx, w, claim.TakeOff(after, w.rem.Name, w.rem.UID)); err != nil {
			return err
		}
	}
	st.Quarantined = nil
	return nil
}

// deleteRules deletes every rule the spec intends, listed or not: one may have been put on just before a crash. Each is
// deleted by its UID and only where it is this incident's, so that no late request takes off another's.
func (r *Reconciler) deleteRules(ctx context.Context, rem *v1alpha1.Remediation) error {
	for _, q := range rem.Spec.Quarantine {
		if q.Kind != v1alpha1.QuarantineDeviceTaintRule {
			continue
		}
		rule := &resourcev1.DeviceTaintRule{}
		err := r.Live.Get(ctx, types.NamespacedName{Name: q.Name}, rule)
		if apierrors.IsNotFound(err) || (err == nil && rule.Labels[v1alpha1.LabelRemediation] != rem.Name) {
			continue
		}
		if err != nil {
			return fmt.Errorf("reading device taint rule: %w", err)
		}
		if err := r.Client.Delete(ctx, rule, client.Preconditions{UID: &rule.UID}); client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("deleting device taint rule: %w", err)
		}
	}
	return nil
}

// claim puts the claim on the node, with the taint where the decision asks for it, in one guarded patch.
func (r *Reconciler) claim(ctx context.Context, w *work, s *decide.Snapshot, d decide.Decision) error {
	if err := r.guard(ctx, w, s); err != nil {
		return err
	}
	var with *corev1.Taint
	if d.TaintNode {
		t := taint(w.rem)
		with = &t
	}
	after, err := claim.Put(w.node, w.rem.Name, w.rem.UID, with)
	if err != nil {
		return fmt.Errorf("claiming node: %w", err)
	}
	return r.patchNode(ctx, w, after)
}

// unclaim takes the claim off, and the taint unless the quarantine intends it or the node is not proved fit.
func (r *Reconciler) unclaim(ctx context.Context, w *work, s *decide.Snapshot, d decide.Decision, st *v1alpha1.RemediationStatus) error {
	if s.Node == nil {
		return nil
	}
	after := claim.TakeOff(w.node, w.rem.Name, w.rem.UID)
	intended := slices.ContainsFunc(w.rem.Spec.Quarantine, func(q v1alpha1.QuarantineIntent) bool {
		return q.Kind == v1alpha1.QuarantineNodeTaint
	})
	keep := intended && d.Phase != v1alpha1.PhaseProbation
	if d.KeepTaint && !isListed(st.Quarantined, v1alpha1.TaintQuarantined) {
		keep = true
		st.Quarantined = append(st.Quarantined, v1alpha1.Quarantined{Kind: v1alpha1.QuarantineNodeTaint, Name: v1alpha1.TaintQuarantined})
	}
	if !keep && !d.KeepTaint {
		after = claim.RemoveTaint(after, v1alpha1.TaintQuarantined, w.rem.Name)
	}
	return r.patchNode(ctx, w, after)
}

func (r *Reconciler) patchNode(ctx context.Context, w *work, after *corev1.Node) error {
	stored, err := claim.Patch(ctx, r.Client, w.node, after)
	if err != nil {
		return err
	}
	w.node = stored
	return nil
}

// reserve takes the slots; a refusal is what the incident then waits for.
func (r *Reconciler) reserve(ctx context.Context, w *work, s *decide.Snapshot) (*decide.Refusal, error) {
	devices := 1
	if s.Health != nil {
		devices = max(1, len(s.Health.Status.Devices))
	}
	v, err := r.Budgets.Reserve(ctx, w.node, w.rem, int32(devices))
	if err != nil {
		return nil, fmt.Errorf("taking a budget slot: %w", err)
	}
	if !v.Granted {
		return &decide.Refusal{Reason: v.Reason, Message: v.Message, WouldChange: v.WouldChange}, nil
	}
	w.slotHeld = ptr.To(true)
	return nil, nil
}

// free gives the slots back.
func (r *Reconciler) free(ctx context.Context, w *work) error {
	if err := r.Budgets.Release(ctx, w.rem); err != nil {
		return fmt.Errorf("giving a budget slot back: %w", err)
	}
	w.slotHeld = ptr.To(false)
	return nil
}

// handles looks up how each device of the node is offered to pods. One that no slice lists is not offered any more where
// the node has slices; where it has none, a device plugin offers it.
func (r *Reconciler) handles(ctx context.Context, s *decide.Snapshot) error {
	var list resourcev1.ResourceSliceList
	err := r.Live.List(ctx, &list, client.MatchingFields{resourcev1.ResourceSliceSelectorNodeName: s.Node.Name})
	if err != nil && !apierrors.IsNotFound(err) && !meta.IsNoMatchError(err) {
		return fmt.Errorf("listing resource slices: %w", err)
	}
	s.Handles, s.Dropped, s.Otherwise = resolve(list.Items), dropped(s.Node), decide.OfferedByPlugin
	if len(list.Items) > 0 {
		s.Otherwise = decide.NotOffered
	}
	return nil
}

// guard reads live, before something disruptive, what must not have changed: the incident itself and the holds.
func (r *Reconciler) guard(ctx context.Context, w *work, s *decide.Snapshot) error {
	if !w.fresh {
		var live v1alpha1.Remediation
		if err := r.Live.Get(ctx, types.NamespacedName{Name: w.rem.Name}, &live); err != nil {
			return fmt.Errorf("reading remediation: %w", err)
		}
		if live.UID != w.rem.UID || live.ResourceVersion != w.rem.ResourceVersion {
			return errDecideAgain
		}
		w.fresh = true
	}
	var holds v1alpha1.RemediationHoldList
	if err := r.Live.List(ctx, &holds); err != nil {
		return fmt.Errorf("listing holds: %w", err)
	}
	w.holds = slices.Clone(holds.Items)
	s.Holds = selecting(holds.Items, s.Node)
	if decide.Held(s) {
		return errDecideAgain
	}
	return nil
}
