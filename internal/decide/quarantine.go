package decide

import (
	"fmt"
	"hash/fnv"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

func (s *Snapshot) isBad(id string) bool { return slices.Contains(s.badDevices(), id) }

// join adds the devices of other faults to the incident: at most one incident is open a node, and no fault is lost.
func join(s *Snapshot) *Decision {
	devices := faultyDevices(s.ours())
	devices = slices.DeleteFunc(devices, s.isBad)
	all := append(slices.Clone(s.badDevices()), devices...)
	intents := s.lackingIntents(all)
	if len(devices) == 0 && len(intents) == 0 {
		return nil
	}
	d := move(s.phase(), ReasonFaultJoined, fmt.Sprintf("%s bad now, in one incident", count(len(all), "device")))
	if s.NoRules && len(devices) == 0 {
		d.Reason, d.Message = ReasonNodeQuarantined, noRulesText
	}
	d.Do, d.Devices, d.Intents = Amend, devices, intents
	return d
}

// faultyDevices are the devices that faults are on, in order, each once.
func faultyDevices(faults []Matched) []string {
	var ids []string
	for _, m := range faults {
		if m.Fault.Device != "" && !slices.Contains(ids, m.Fault.Device) {
			ids = append(ids, m.Fault.Device)
		}
	}
	return ids
}

// lackingIntents are what must be put on for these devices and is not intended yet. A device that is not offered any
// more needs nothing: the kubelet's allocatable, or its ResourceSlice, keeps work off it.
func (s *Snapshot) lackingIntents(devices []string) []v1alpha1.QuarantineIntent {
	var out []v1alpha1.QuarantineIntent
	have := s.Remediation.Spec.Quarantine
	if s.nodeIsBad(devices) {
		return s.nodeIntent(have)
	}
	for _, id := range devices {
		intended := slices.ContainsFunc(have, func(q v1alpha1.QuarantineIntent) bool { return q.DeviceID == id })
		if s.NoRules && s.handle(id).Offer == OfferedByDRA {
			return append(out, s.nodeIntent(have)...)
		}
		if intended || len(have)+len(out) >= maxIntents {
			continue
		}
		switch s.handle(id).Offer {
		case OfferedByDRA:
			out = append(out, v1alpha1.QuarantineIntent{Kind: v1alpha1.QuarantineDeviceTaintRule, DeviceID: id,
				Name: fmt.Sprintf("%s-%d", s.Remediation.Name, len(have)+len(out))})
		case OfferedByPlugin:
			// The kubelet offers as many less as are bad: that is the quarantine. It does not say which; where fewer are gone
			// than are bad, at least one that is bad is still given to pods.
			if s.Dropped >= len(devices) {
				continue
			}
			return append(out, s.nodeIntent(have)...)
		default:
			// Not offered: nothing new reaches it.
		}
	}
	return out
}

// maxIntents is the bound of spec.quarantine.
const maxIntents = 64

// needed are the intents that matter: what keeps out the whole node keeps out its devices.
func (s *Snapshot) needed() []v1alpha1.QuarantineIntent {
	all := s.Remediation.Spec.Quarantine
	for _, q := range all {
		if q.Kind == v1alpha1.QuarantineNodeTaint {
			return []v1alpha1.QuarantineIntent{q}
		}
	}
	return all
}

func (s *Snapshot) nodeIntent(have []v1alpha1.QuarantineIntent) []v1alpha1.QuarantineIntent {
	for _, q := range have {
		if q.Kind == v1alpha1.QuarantineNodeTaint {
			return nil
		}
	}
	return []v1alpha1.QuarantineIntent{{Kind: v1alpha1.QuarantineNodeTaint, Name: v1alpha1.TaintQuarantined}}
}

// nodeIsBad says whether the whole node must be kept out: the fault is the node's, or what its good devices could still
// serve is less than the policy finds useful.
func (s *Snapshot) nodeIsBad(devices []string) bool {
	if m, ok := s.lead(); ok && m.Fault.Device == "" {
		return true
	}
	if len(devices) == 0 {
		return s.Remediation.Spec.Root.Device == ""
	}
	p := s.Policy.Policy
	if p == nil || p.Spec.Devices == nil || s.deviceCount() == 0 {
		return false
	}
	ratio := p.Spec.Devices
	if ratio.SmallestUsefulRequest != nil && s.deviceCount()-len(devices) < int(*ratio.SmallestUsefulRequest) {
		return true
	}
	return ratio.KeepServing != nil && len(devices) > share(ratio.KeepServing.UpTo, s.deviceCount())
}

// movesDevices says whether the pods of bad devices are moved without the rest of the node: it is about devices, and where
// the whole node is kept out, then because its device plugin takes no word about one.
func (s *Snapshot) movesDevices() bool {
	return len(s.badDevices()) > 0 && !s.nodeIsBad(s.badDevices())
}

// repairNow says whether so many devices are bad that the rest is worth less than the repair.
func (s *Snapshot) repairNow() bool {
	p := s.Policy.Policy
	if p == nil || p.Spec.Devices == nil || p.Spec.Devices.RepairNow == nil || s.deviceCount() == 0 {
		return false
	}
	return len(s.badDevices()) >= max(1, share(p.Spec.Devices.RepairNow.From, s.deviceCount()))
}

// share is a number, or a percentage of total rounded down. What cannot be read counts as nothing: the schema has
// refused it before.
func share(v intstr.IntOrString, total int) int {
	n, err := intstr.GetScaledValueFromIntOrPercent(&v, total, false)
	if err != nil {
		return 0
	}
	return n
}

// missingQuarantine is what is intended and not on.
func (s *Snapshot) missingQuarantine() []v1alpha1.QuarantineIntent {
	return slices.DeleteFunc(slices.Clone(s.needed()), func(q v1alpha1.QuarantineIntent) bool {
		if q.Kind == v1alpha1.QuarantineNodeTaint {
			return s.nodeTainted() && s.listed(q)
		}
		return s.listed(q) || s.handle(q.DeviceID).Offer != OfferedByDRA
	})
}

// How often it is looked whether the rules that are on are still where they belong. A pool's names may shift whenever its
// driver starts anew, which it does, a little later, when the node does. Nobody watches ResourceSlices.
const (
	lookAgain = 10 * time.Minute
	// lookSpread is by how much that differs from incident to incident, so that not all are looked at together.
	lookSpread = 5 * time.Minute
	// justStarted is how long after a node's start its driver may still publish its pool.
	justStarted = 10 * time.Minute
)

// stale says whether it is time to look where the rules are that are on. While the node as a whole is kept out they keep
// nothing from work.
func (s *Snapshot) stale() bool {
	if !s.rulesOn() || s.nodeTainted() || s.mode() == v1alpha1.ModeObserve {
		return false
	}
	if s.Health != nil && s.LookedBoot != s.Health.Status.BootID {
		return true
	}
	return s.Now.Sub(s.LookedAt) >= s.lookEvery()
}

func (s *Snapshot) rulesOn() bool {
	return slices.ContainsFunc(s.status().Quarantined, func(q v1alpha1.Quarantined) bool { return q.Kind == v1alpha1.QuarantineDeviceTaintRule })
}

// lookEvery is how long one look serves.
func (s *Snapshot) lookEvery() time.Duration {
	if s.Health != nil {
		for _, b := range s.Health.Status.Boots {
			if b.ID == s.Health.Status.BootID && s.Now.Sub(b.At.Time) < justStarted {
				return poll
			}
		}
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(s.Remediation.UID)) // a hash takes all there is.
	return lookAgain + time.Duration(h.Sum32())%lookSpread
}

// Misplaced names the rules that were put on and are not where they belong, or not where they are listed: deleted by
// somebody, or on a name that has come to mean another device. A name that nobody has any more is left alone: the device may come back under it.
func Misplaced(s *Snapshot) []string {
	if s.Rules == nil {
		return nil
	}
	var names []string
	for _, q := range s.status().Quarantined {
		if q.Kind != v1alpha1.QuarantineDeviceTaintRule {
			continue
		}
		is, there := s.Rules[q.Name]
		listed := Handle{Driver: q.Driver, Pool: q.Pool, Device: q.Device}
		belongs := s.handle(q.DeviceID)
		right := is.same(belongs) && listed.same(belongs)
		if !there || !right && (belongs.Offer == OfferedByDRA || s.named(is)) {
			names = append(names, q.Name)
		}
	}
	return names
}

// named says whether a device has this name.
func (s *Snapshot) named(place Handle) bool {
	for _, h := range s.Handles {
		if h.same(place) {
			return true
		}
	}
	return false
}

func (s *Snapshot) listed(q v1alpha1.QuarantineIntent) bool {
	return slices.ContainsFunc(s.status().Quarantined, func(on v1alpha1.Quarantined) bool {
		return on.Kind == q.Kind && on.Name == q.Name
	})
}
