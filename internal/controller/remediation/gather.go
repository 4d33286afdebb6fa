package remediation

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/claim"
	"github.com/roundhouse-dev/roundhouse/internal/decide"
	"github.com/roundhouse-dev/roundhouse/internal/history"
	"github.com/roundhouse-dev/roundhouse/internal/maintenance"
	"github.com/roundhouse-dev/roundhouse/internal/policy"
)

// gather makes the snapshot a decision depends on: first what is cached, then what decide asks to look at.
func (r *Reconciler) gather(ctx context.Context, w *work) (*decide.Snapshot, error) {
	s := &decide.Snapshot{Now: r.Clock.Now(), Remediation: w.rem, Node: w.node, Over: w.over, NoRules: w.noRules}
	if w.rem != nil {
		_, sure := r.sure.Load(w.rem.UID)
		s.Unsure = !sure
		s.LookedAt, s.LookedBoot = r.lastLook(w.rem)
	}
	if s.Node != nil && w.rem != nil && string(s.Node.UID) != w.rem.Spec.NodeUID {
		s.Node = nil
	}
	if s.Node != nil {
		if err := r.gatherNode(ctx, w, s); err != nil {
			return nil, err
		}
	}
	needs := decide.Look(s)
	if needs.Handles || needs.Rules {
		if err := r.handles(ctx, w, s, needs.Rules); err != nil {
			return nil, err
		}
		needs = decide.Look(s)
	}
	if needs.Taints {
		if err := r.taints(ctx, w, s); err != nil {
			return nil, err
		}
	}
	if err := r.slot(ctx, w, s, needs); err != nil {
		return nil, err
	}
	if needs.Pods {
		if err := r.plans(ctx, w, s); err != nil {
			return nil, err
		}
	}
	if needs.Foreign && !decide.Waits(s) {
		if err := r.findForeign(ctx, w, s); err != nil {
			return nil, err
		}
	}
	if needs.History {
		past, err := r.pastRepairs(ctx, w.rem, s)
		if err != nil {
			return nil, err
		}
		s.PastRepairs = past
	}
	return s, nil
}

// findForeign asks for the claims of others, Leases included.
func (r *Reconciler) findForeign(ctx context.Context, w *work, s *decide.Snapshot) error {
	if w.foreign == nil {
		found, err := r.foreign.Find(ctx, s.Node, s.Now)
		if err != nil {
			return err
		}
		w.foreign = &found
	}
	s.Foreign = append(foreignClaims(*w.foreign), another(w, s)...)
	return nil
}

// gatherNode reads what is known of a node that is there.
func (r *Reconciler) gatherNode(ctx context.Context, w *work, s *decide.Snapshot) error {
	governing := w.policies.For(s.Node)
	s.Policy = governing.Decided()
	if governing.Policy != nil {
		s.Policy.Brake = governing.Policy.Status.Brake
		s.Policy.WindowOpen, s.Policy.NextWindow = policy.WindowOpen(governing.Policy, s.Now)
	}
	if err := r.health(ctx, w, s); err != nil {
		return err
	}
	s.Reporting, s.NotReportingWhy = reporting(s.Node)
	s.Foreign = append(foreignClaims(claim.Foreign(s.Node)), another(w, s)...)
	holds, err := r.holds(ctx, w, s.Node)
	if err != nil {
		return err
	}
	s.Holds = holds
	if asksForTaints(w, governing.AsksForTaints()) {
		if err := r.taints(ctx, w, s); err != nil {
			return err
		}
	}
	if err := matchFaults(ctx, w, s, governing); err != nil {
		return err
	}
	if s.Maintenance, err = maintenance.Of(s.Node); err != nil {
		r.unreadable(ctx, s.Node, err)
	}
	decide.Plan(s)
	return nil
}

// another is the claim of another incident of ours, where one is on the node; the incident's own is noted.
func another(w *work, s *decide.Snapshot) []decide.Claim {
	if w.rem == nil {
		return nil
	}
	name, uid, ok := claim.Ours(s.Node)
	s.ClaimHeld = ok && name == w.rem.Name && uid == w.rem.UID
	if !ok || s.ClaimHeld {
		return nil
	}
	return []decide.Claim{{By: "Remediation " + name, What: "its claim is on the node"}}
}

// health reads the node's NodeHealth: from the cache where it is not Healthy, else from the server where an incident is
// open. Without an incident, and in probation, absence from the cache is health enough.
func (r *Reconciler) health(ctx context.Context, w *work, s *decide.Snapshot) error {
	h := w.health
	if h == nil {
		h = &v1alpha1.NodeHealth{}
		key := types.NamespacedName{Name: w.name}
		err := r.Client.Get(ctx, key, h)
		if apierrors.IsNotFound(err) && w.rem != nil && w.rem.Status.Phase != v1alpha1.PhaseProbation {
			w.healthLive = true
			err = r.Live.Get(ctx, key, h)
		}
		if apierrors.IsNotFound(err) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading nodehealth: %w", err)
		}
		w.health = h
	}
	if h.Spec.NodeUID == string(s.Node.UID) {
		s.Health = h
	}
	return nil
}

// matchFaults puts each fault under its rule. A rule whose expression fails matches nothing: the fault is shown, and
// nothing is done about it until a human has seen to the rule.
func matchFaults(ctx context.Context, w *work, s *decide.Snapshot, governing policy.Governing) error {
	var faults []v1alpha1.Fault
	if s.Health != nil {
		faults = slices.Clone(s.Health.Status.Faults)
	}
	conditions, next := governing.ConditionFaults(s.Node, s.Now)
	var root *v1alpha1.RootFault
	if w.rem != nil {
		root = &w.rem.Spec.Root
	}
	taints, nextTaint := governing.TaintFaults(s.DriverTaints, root, s.Now)
	if w.nextCheck = next; next == 0 || nextTaint > 0 && nextTaint < next {
		w.nextCheck = nextTaint
	}
	for _, f := range slices.Concat(faults, conditions, taints) {
		rule, err := governing.Match(f, s.Node, s.Now)
		if err != nil {
			ctrl.LoggerFrom(ctx).Error(err, "A rule's expression failed; nothing is done about the fault", "fault", f.Code)
			rule = nil
		}
		s.Faults = append(s.Faults, decide.Matched{Fault: f, Rule: rule})
	}
	return nil
}

func reporting(node *corev1.Node) (bool, string) {
	for _, c := range node.Status.Conditions {
		if c.Type == v1alpha1.ConditionReporting {
			return c.Status == corev1.ConditionTrue, c.Message
		}
	}
	return false, "no agent has ever reported from this node"
}

func foreignClaims(found []claim.ForeignClaim) []decide.Claim {
	var claims []decide.Claim
	for _, f := range found {
		claims = append(claims, decide.Claim{By: f.By, What: f.What})
	}
	return claims
}

// holds are the holds that select the node, from the cache unless an act has just read them live.
func (r *Reconciler) holds(ctx context.Context, w *work, node *corev1.Node) ([]v1alpha1.RemediationHold, error) {
	if w.holds != nil {
		return selecting(slices.Clone(w.holds), node), nil
	}
	var list v1alpha1.RemediationHoldList
	if err := r.Client.List(ctx, &list); err != nil {
		return nil, fmt.Errorf("listing holds: %w", err)
	}
	return selecting(list.Items, node), nil
}

// selecting are the holds that select a node. A selector that cannot be read selects every node: it fails closed.
func selecting(holds []v1alpha1.RemediationHold, node *corev1.Node) []v1alpha1.RemediationHold {
	return slices.DeleteFunc(holds, func(h v1alpha1.RemediationHold) bool {
		if h.Spec.NodeSelector == nil {
			return !slices.Contains(h.Spec.Nodes, node.Name)
		}
		sel, err := metav1.LabelSelectorAsSelector(h.Spec.NodeSelector)
		return err == nil && !sel.Matches(labels.Set(node.Labels))
	})
}

// slot says whether the budgets hold a slot for the incident. A phase that acts was entered with one, and it is freed
// only after the phase was left; a cache that is behind must not make it look lost, but a live look may have.
func (r *Reconciler) slot(ctx context.Context, w *work, s *decide.Snapshot, needs decide.Needs) error {
	switch {
	case w.rem == nil:
		return nil
	case w.rem.Status.Phase.Acting():
		s.SlotHeld, s.SlotSure = !w.slotLost, !w.slotLost
		return nil
	case w.slotHeld != nil:
		s.SlotHeld, s.SlotSure = *w.slotHeld, *w.slotHeld
		return nil
	case !needs.Slot:
		return nil
	}
	held, err := r.holdsSlot(ctx, w.rem)
	s.SlotHeld = held
	return err
}

// holdsSlot says whether any budget lists a slot of this incident's, from the cache: a slot that the cache does not show
// yet is taken again at no cost, and one that it still shows is freed again at none.
func (r *Reconciler) holdsSlot(ctx context.Context, rem *v1alpha1.Remediation) (bool, error) {
	var list v1alpha1.NodeDisruptionBudgetList
	if err := r.Client.List(ctx, &list, client.UnsafeDisableDeepCopy); err != nil {
		return false, fmt.Errorf("listing budgets: %w", err)
	}
	for i := range list.Items {
		for _, res := range list.Items[i].Status.Reservations {
			if res.RemediationUID == string(rem.UID) {
				return true, nil
			}
		}
	}
	return false, nil
}

// pastRepairs counts the repairs of the incident's hardware by earlier incidents: of its devices by their records, of
// the node, where it is about no device, by the Remediations that are kept.
func (r *Reconciler) pastRepairs(ctx context.Context, rem *v1alpha1.Remediation, s *decide.Snapshot) (int, error) {
	since := s.Now.Add(-s.LoopWindow())
	most := 0
	for _, id := range rem.Spec.Devices {
		var rec v1alpha1.DeviceRecord
		err := r.Client.Get(ctx, types.NamespacedName{Name: history.RecordName(rem.Spec.Node, id)}, &rec)
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("reading device record: %w", err)
		}
		most = max(most, history.Repairs(rec.Status, since, rem.Name))
	}
	if len(rem.Spec.Devices) > 0 {
		return most, nil
	}
	return r.pastNodeRepairs(ctx, rem, since)
}

func (r *Reconciler) pastNodeRepairs(ctx context.Context, rem *v1alpha1.Remediation, since time.Time) (int, error) {
	list, err := r.ofNode(ctx, rem.Spec.Node)
	if err != nil {
		return 0, err
	}
	n := 0
	for i := range list {
		other := &list[i]
		if other.Name != rem.Name && other.Spec.Cause != v1alpha1.CauseMaintenance && other.Spec.NodeUID == rem.Spec.NodeUID && len(other.Spec.Devices) == 0 &&
			!other.Spec.Root.FirstSeen.Time.Before(since) {
			n += int(history.Digest(other, since).Repairs)
		}
	}
	return n, nil
}
