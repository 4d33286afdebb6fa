package remediation

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/budget"
	"github.com/roundhouse-dev/roundhouse/internal/claim"
	"github.com/roundhouse-dev/roundhouse/internal/decide"
	"github.com/roundhouse-dev/roundhouse/internal/drain"
	"github.com/roundhouse-dev/roundhouse/internal/history"
)

// taint is the node taint of an incident.
func taint(rem *v1alpha1.Remediation) corev1.Taint {
	return corev1.Taint{Key: v1alpha1.TaintQuarantined, Value: rem.Name, Effect: corev1.TaintEffectNoSchedule}
}

// placed is where rules of an incident were put on that are not written down yet, the look that showed the places, and
// which generation of the incident intends them.
type placed struct {
	handles    map[string]decide.Handle
	by         *offers
	generation int64
}

// quarantine puts on what is intended and the status does not list. Where other nodes wait, what remains, which is
// to look once more and to write it down, comes after their turn: intents and taints first, then the bookkeeping.
func (r *Reconciler) quarantine(ctx context.Context, w *work, s *decide.Snapshot, d decide.Decision, st *v1alpha1.RemediationStatus) error {
	r.sure.Delete(w.rem.UID) // until it is written down.
	if err := r.takeOff(ctx, w, s, d, st); err != nil {
		return err
	}
	on, again := r.justPlaced(w.rem)
	if !again {
		handles, err := r.putOn(ctx, w, s, d, st)
		if err != nil {
			return err
		}
		on = placed{handles: handles, by: w.offers, generation: w.rem.Generation}
		if len(d.TakeOff)+len(d.Release) == 0 && r.queue != nil && r.queue.Len() > 0 {
			r.placed.Store(w.rem.UID, on)
			return errLater
		}
	}
	r.placed.Delete(w.rem.UID)
	if err := r.confirm(ctx, w, on); err != nil {
		return err
	}
	for _, q := range d.Intents {
		is := v1alpha1.Quarantined{Kind: q.Kind, Name: q.Name, DeviceID: q.DeviceID}
		if q.Kind == v1alpha1.QuarantineDeviceTaintRule {
			h, ok := on.handles[q.DeviceID]
			if !ok {
				continue
			}
			is.Driver, is.Pool, is.Device, is.PoolGeneration = h.Driver, h.Pool, h.Device, h.Generation
		}
		if !isListed(st.Quarantined, q.Name) {
			st.Quarantined = append(st.Quarantined, is)
		}
	}
	return nil
}

// takeOff takes off the rules that are not where they belong, or not needed any more: it is a good device, perhaps, that they
// keep from work.
func (r *Reconciler) takeOff(ctx context.Context, w *work, s *decide.Snapshot, d decide.Decision, st *v1alpha1.RemediationStatus) error {
	for _, off := range []struct {
		names        []string
		reason, text string
	}{
		{d.TakeOff, decide.ReasonQuarantineMoved, "not on their devices any more, and taken off: "},
		{d.Release, decide.ReasonReleased, "their devices' faults have ended, and they are taken off: "},
	} {
		for _, name := range off.names {
			if err := r.deleteRule(ctx, w.rem, name); err != nil {
				return err
			}
			st.Quarantined = slices.DeleteFunc(st.Quarantined, func(q v1alpha1.Quarantined) bool { return q.Name == name })
		}
		if len(off.names) > 0 {
			r.placed.Delete(w.rem.UID)
			history.Happened(st, v1alpha1.TimelineEntry{At: metav1.NewTime(s.Now), Phase: d.Phase, Reason: off.reason,
				Message: cut(off.text+strings.Join(off.names, ", "), maxEntry)})
		}
	}
	return nil
}

// justPlaced says whether this process has put on what the incident intends in an earlier turn, and not written it down.
func (r *Reconciler) justPlaced(rem *v1alpha1.Remediation) (placed, bool) {
	if rem == nil {
		return placed{}, false
	}
	known, _ := r.placed.Load(rem.UID)
	on, ok := known.(placed)
	return on, ok && on.generation == rem.Generation
}

// putOn puts the taint on the node, and a rule on each device that has none; it gives where it found those devices.
func (r *Reconciler) putOn(ctx context.Context, w *work, s *decide.Snapshot, d decide.Decision, st *v1alpha1.RemediationStatus) (map[string]decide.Handle, error) {
	handles := map[string]decide.Handle{}
	w.put = true
	for _, q := range d.Intents {
		switch q.Kind {
		case v1alpha1.QuarantineNodeTaint:
			after, err := claim.AddTaint(w.node, taint(w.rem))
			if err != nil {
				return nil, fmt.Errorf("tainting node: %w", err)
			}
			if err := r.patchNode(ctx, w, after); err != nil {
				return nil, err
			}
		case v1alpha1.QuarantineDeviceTaintRule:
			h, ok := s.Handles[q.DeviceID]
			if !ok || isListed(st.Quarantined, q.Name) {
				continue
			}
			err := r.createRule(ctx, w.rem, q, h)
			if noSuchKind(err) {
				w.noRules = true
				return nil, fmt.Errorf("%w: the server has no DeviceTaintRules", errDecideAgain)
			}
			if err != nil {
				return nil, err
			}
			handles[q.DeviceID] = h
		}
	}
	return handles, nil
}

// confirm looks once more where the devices are, unless the look that the rules were made by was current, and has just
// been: the names in a pool may have come to mean other devices. A rule on one that is not the bad one any more is taken off again.
func (r *Reconciler) confirm(ctx context.Context, w *work, on placed) error {
	if len(on.handles) == 0 || (on.by != nil && on.by.current && r.Clock.Since(on.by.at) <= offersMaxAge) {
		return nil
	}
	if w.offers == on.by || !w.offers.current {
		offers, err := r.look(ctx, w.name, true)
		if err != nil {
			return err
		}
		w.offers = offers
	}
	for _, q := range w.rem.Spec.Quarantine {
		put, ok := on.handles[q.DeviceID]
		if !ok {
			continue
		}
		now := w.offers.handles[q.DeviceID]
		if now.Driver == put.Driver && now.Pool == put.Pool && now.Device == put.Device {
			on.handles[q.DeviceID] = now
			continue
		}
		if err := r.deleteRule(ctx, w.rem, q.Name); err != nil {
			return err
		}
		return fmt.Errorf("%w: device %s is not %s of pool %s any more", errDecideAgain, q.DeviceID, put.Device, put.Pool)
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
		// Put on before a crash, or by the other controller: the name is this incident's alone. The device may have
		// another name since.
		return r.sameDevice(ctx, rem, rule)
	}
	if err != nil {
		return fmt.Errorf("creating device taint rule: %w", err)
	}
	return nil
}

// sameDevice makes sure that a rule that is there taints the device that it is to taint; one that does not is taken off.
func (r *Reconciler) sameDevice(ctx context.Context, rem *v1alpha1.Remediation, want *resourcev1.DeviceTaintRule) error {
	rule := &resourcev1.DeviceTaintRule{}
	if err := r.Live.Get(ctx, client.ObjectKeyFromObject(want), rule); err != nil {
		if apierrors.IsNotFound(err) {
			return fmt.Errorf("%w: rule %s has just gone", errDecideAgain, want.Name)
		}
		return fmt.Errorf("reading device taint rule: %w", err)
	}
	if equality.Semantic.DeepEqual(rule.Spec.DeviceSelector, want.Spec.DeviceSelector) {
		return nil
	}
	if err := r.deleteRule(ctx, rem, want.Name); err != nil {
		return err
	}
	return fmt.Errorf("%w: rule %s was on another device", errDecideAgain, want.Name)
}

// unquarantine takes off the taint and the claim, and the rules: the Node first, since it is what others write to, too.
func (r *Reconciler) unquarantine(ctx context.Context, w *work, s *decide.Snapshot, st *v1alpha1.RemediationStatus) error {
	r.placed.Delete(w.rem.UID)
	if s.Node != nil {
		after := claim.RemoveTaint(w.node, v1alpha1.TaintQuarantined, w.rem.Name)
		if err := r.patchNode(ctx, w, claim.TakeOff(after, w.rem.Name, w.rem.UID)); err != nil {
			return err
		}
	}
	if err := r.deleteRules(ctx, w.rem); err != nil {
		return err
	}
	st.Quarantined = nil
	return nil
}

// takeBack takes off what this Reconcile has put on for an incident that had ended, and been let go of, by then: nobody looks
// for it any more.
func (r *Reconciler) takeBack(ctx context.Context, w *work, s *decide.Snapshot) error {
	if !w.put {
		return nil
	}
	if err := r.unquarantine(ctx, w, s, w.rem.Status.DeepCopy()); err != nil {
		return err
	}
	w.put = false
	return nil
}

// deleteRules deletes every rule that the spec intends, listed or not: one may have been put on just before a crash; and
// every one that is listed, intended any more or not.
func (r *Reconciler) deleteRules(ctx context.Context, rem *v1alpha1.Remediation) error {
	names := map[string]bool{}
	for _, q := range rem.Spec.Quarantine {
		names[q.Name] = q.Kind == v1alpha1.QuarantineDeviceTaintRule
	}
	for _, q := range rem.Status.Quarantined {
		names[q.Name] = q.Kind == v1alpha1.QuarantineDeviceTaintRule
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if !names[name] {
			continue
		}
		if err := r.deleteRule(ctx, rem, name); err != nil {
			return err
		}
	}
	return nil
}

// deleteRule deletes a rule by its UID, and only where it is this incident's, so that no late request takes off another's.
func (r *Reconciler) deleteRule(ctx context.Context, rem *v1alpha1.Remediation, name string) error {
	rule := &resourcev1.DeviceTaintRule{}
	err := r.Live.Get(ctx, types.NamespacedName{Name: name}, rule)
	if noSuchKind(err) || (err == nil && rule.Labels[v1alpha1.LabelRemediation] != rem.Name) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading device taint rule: %w", err)
	}
	if err := r.Client.Delete(ctx, rule, client.Preconditions{UID: &rule.UID}); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("deleting device taint rule: %w", err)
	}
	return nil
}

// claim puts the claim on the node, with the taint where the decision asks for it, in one guarded patch. It moves no pod,
// so that holds are read live by what does, a step later.
func (r *Reconciler) claim(ctx context.Context, w *work, d decide.Decision) error {
	if err := r.unchanged(ctx, w); err != nil {
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
		st.Quarantined = slices.DeleteFunc(st.Quarantined, func(q v1alpha1.Quarantined) bool { return q.Kind == v1alpha1.QuarantineNodeTaint })
	}
	return r.patchNode(ctx, w, after)
}

func (r *Reconciler) patchNode(ctx context.Context, w *work, after *corev1.Node) error {
	stored, err := claim.Patch(ctx, r.Client, w.node, after)
	if err != nil {
		return err
	}
	w.nodeFresh = w.nodeFresh || stored != w.node
	w.node = stored
	return nil
}

// slotOrRefusal takes the slots where it is the node's turn; it gives how long to wait where that cannot be said yet.
func (r *Reconciler) slotOrRefusal(ctx context.Context, w *work, s *decide.Snapshot, empties *drain.Plan) (*decide.Refusal, time.Duration, error) {
	refused, after := r.itsTurn(ctx, w, s, empties)
	if refused != nil || after > 0 {
		return refused, after, nil
	}
	refused, err := r.reserve(ctx, w, s)
	switch {
	case err != nil:
	case refused == nil:
		r.line.leave(w.name)
	default:
		r.line.refused(w.name, r.Clock.Now())
	}
	return refused, 0, err
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
	w.slotHeld, w.slotLost = ptr.To(true), false
	return nil, nil
}

// free gives the slots back.
func (r *Reconciler) free(ctx context.Context, w *work) error {
	fresh := budget.Fresh{}
	if w.fresh {
		fresh.Remediation = w.rem
	}
	if w.nodeFresh {
		fresh.Node = w.node
	}
	if err := r.Budgets.Release(ctx, w.rem, fresh); err != nil {
		return fmt.Errorf("giving a budget slot back: %w", err)
	}
	w.slotHeld = ptr.To(false)
	return nil
}

// unchanged fails where the incident is not what the decision was made on.
func (r *Reconciler) unchanged(ctx context.Context, w *work) error {
	if w.fresh {
		return nil
	}
	var live v1alpha1.Remediation
	if err := r.Live.Get(ctx, types.NamespacedName{Name: w.rem.Name}, &live); err != nil {
		return fmt.Errorf("reading remediation: %w", err)
	}
	if live.UID != w.rem.UID || live.ResourceVersion != w.rem.ResourceVersion {
		return errDecideAgain
	}
	w.fresh = true
	return nil
}

// unchangedNode fails where the Node is not what the decision was made on.
func (r *Reconciler) unchangedNode(ctx context.Context, w *work) error {
	if w.nodeFresh {
		return nil
	}
	var live corev1.Node
	if err := r.Live.Get(ctx, types.NamespacedName{Name: w.name}, &live); err != nil {
		if apierrors.IsNotFound(err) {
			return errDecideAgain
		}
		return fmt.Errorf("reading node: %w", err)
	}
	if live.UID != w.node.UID || live.ResourceVersion != w.node.ResourceVersion {
		return errDecideAgain
	}
	w.nodeFresh = true
	return nil
}

// mayAct reads live, right before something disruptive, that the incident and the Node with its claim are what was decided on,
// and that nobody holds the node. What this Reconcile itself has written a moment ago is no exception: another process that
// sees more, or less, may have taken the claim off since.
func (r *Reconciler) mayAct(ctx context.Context, w *work, s *decide.Snapshot) error {
	w.fresh, w.nodeFresh = false, false
	if err := r.unchangedNode(ctx, w); err != nil {
		return err
	}
	return r.guard(ctx, w, s)
}

// guard reads live, before something disruptive, what must not have changed: the incident itself and the holds.
func (r *Reconciler) guard(ctx context.Context, w *work, s *decide.Snapshot) error {
	if err := r.unchanged(ctx, w); err != nil {
		return err
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
