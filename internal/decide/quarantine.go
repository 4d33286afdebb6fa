package decide

import (
	"fmt"
	"slices"

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
		if intended || len(have)+len(out) >= maxIntents {
			continue
		}
		switch s.handle(id).Offer {
		case OfferedByDRA:
			out = append(out, v1alpha1.QuarantineIntent{Kind: v1alpha1.QuarantineDeviceTaintRule, DeviceID: id,
				Name: fmt.Sprintf("%s-%d", s.Remediation.Name, len(have)+len(out))})
		case OfferedByPlugin:
			if s.Dropped >= len(devices) {
				continue // the kubelet offers none of them any more: that is the quarantine.
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
	return slices.DeleteFunc(slices.Clone(s.Remediation.Spec.Quarantine), func(q v1alpha1.QuarantineIntent) bool {
		if q.Kind == v1alpha1.QuarantineNodeTaint {
			return s.nodeTainted() && s.listed(q)
		}
		return s.listed(q) || s.handle(q.DeviceID).Offer != OfferedByDRA
	})
}

func (s *Snapshot) listed(q v1alpha1.QuarantineIntent) bool {
	return slices.ContainsFunc(s.status().Quarantined, func(on v1alpha1.Quarantined) bool {
		return on.Kind == q.Kind && on.Name == q.Name
	})
}
