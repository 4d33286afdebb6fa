package decide

import (
	"slices"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

// Needs says what a decision about an incident depends on that costs requests to look at.
type Needs struct {
	// Handles: how its devices are offered.
	Handles bool
	// Rules: where its rules are; the handles must then be those of this moment.
	Rules bool
	// Taints: what taints DRA drivers themselves have on the node's devices.
	Taints bool
	// Pods: what runs on the node.
	Pods bool
	// Foreign: others' claims that are not on the Node itself.
	Foreign bool
	// Slot: whether the budgets hold a slot for it.
	Slot bool
	// History: past repairs of the hardware.
	History bool
}

// Look says what to look at before Next. What was looked at for nothing costs the API server; what was not looked at
// makes Next wait. It is asked again once the handles are known: only then is it known whether something is still to be
// put on, and until nothing is, nothing else matters.
func Look(s *Snapshot) Needs {
	needs := look(s)
	needs.Taints = s.Node != nil && s.Remediation != nil && s.DriverTaints == nil && s.concludes()
	return needs
}

func look(s *Snapshot) Needs {
	if s.Node == nil {
		return Needs{Slot: true}
	}
	if s.Remediation == nil {
		return Needs{Handles: len(s.ours()) > 0}
	}
	switch s.phase() {
	case v1alpha1.PhasePending:
		act := s.mode() == v1alpha1.ModeRemediate && s.keptOut()
		// A gate that is seen to be closed keeps it waiting whatever runs on the node, and for hours perhaps.
		open := act && s.closedGate() == nil
		return Needs{Handles: s.misses(), Rules: s.stale(), Pods: open || s.mode() == v1alpha1.ModeObserve,
			Foreign: open, Slot: true, History: act}
	case v1alpha1.PhaseQuarantined:
		return Needs{Handles: s.misses(), Rules: s.stale(), Slot: true}
	case v1alpha1.PhaseDraining:
		return Needs{Handles: s.misses(), Rules: s.stale(), Pods: true, Foreign: true, History: true}
	case v1alpha1.PhaseRepairing:
		return Needs{Handles: !s.nodeTainted() && s.misses(), Foreign: !s.started()}
	case v1alpha1.PhaseVerifying:
		return Needs{Handles: !s.nodeTainted() && s.misses() || s.burnsInNext(), Rules: s.stale(), Pods: s.burnsInNext()}
	case v1alpha1.PhaseEscalated:
		return Needs{Handles: s.misses(), Rules: s.stale(), Slot: true}
	default:
		return Needs{Slot: true}
	}
}

// misses says whether something may be lacking for which it must be known how the devices are offered.
func (s *Snapshot) misses() bool {
	return s.narrows() || s.unplaced() || slices.ContainsFunc(s.needed(), func(q v1alpha1.QuarantineIntent) bool { return !s.listed(q) })
}

// keptOut says whether nothing is left to be put on. A device that is not offered needs nothing, which its handle says.
func (s *Snapshot) keptOut() bool {
	if (s.misses() || s.stale()) && s.Otherwise == "" {
		return false
	}
	return join(s) == nil && widerThanNeeded(s) == nil && quarantine(s) == nil
}

// unplaced says whether a bad device has no intent, or a fault is on a device that has not joined.
func (s *Snapshot) unplaced() bool {
	lacks := func(id string) bool {
		return !slices.ContainsFunc(s.Remediation.Spec.Quarantine, func(q v1alpha1.QuarantineIntent) bool {
			return q.DeviceID == id || q.Kind == v1alpha1.QuarantineNodeTaint
		})
	}
	return slices.ContainsFunc(faultyDevices(s.ours()), func(id string) bool { return !s.isBad(id) }) ||
		slices.ContainsFunc(s.badDevices(), lacks)
}

// unlisted are intents that are not on.
func (s *Snapshot) unlisted() []v1alpha1.QuarantineIntent {
	return slices.DeleteFunc(slices.Clone(s.Remediation.Spec.Quarantine), s.listed)
}
