package decide

import (
	"fmt"
	"hash/fnv"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/drain"
)

func (s *Snapshot) isBad(id string) bool { return slices.Contains(s.badDevices(), id) }

// join adds the devices of other faults to the incident: at most one incident is open a node, and no fault is lost.
func join(s *Snapshot) *Decision {
	devices := slices.DeleteFunc(faultyDevices(s.ours()), s.isBad)
	all := append(s.stillBad(), devices...)
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

// widerThanNeeded gives back the rest of a node that was kept out for more bad devices than there are now.
func widerThanNeeded(s *Snapshot) *Decision {
	intents, ok := s.narrower()
	if !ok {
		return nil
	}
	d := move(s.phase(), ReasonFaultLeft, fmt.Sprintf("%s bad still; the rest of the node is kept out no more", count(len(s.stillBad()), "device")))
	d.Do, d.Drop, d.Intents = Amend, []string{v1alpha1.TaintQuarantined}, intents
	return d
}

// narrows says whether the whole node is kept out for more bad devices than there are now.
func (s *Snapshot) narrows() bool {
	if s.handsOver() && s.phase() != v1alpha1.PhasePending {
		return false // a human has it, or is about to.
	}
	bad := s.stillBad()
	fewer := len(bad) < len(s.badDevices()) || s.Remediation.Spec.Root.Device == ""
	return s.nodeIntended() && len(bad) > 0 && fewer && !s.nodeIsBad(bad)
}

// narrower are the intents that keep out the devices that are still bad in place of their node.
func (s *Snapshot) narrower() ([]v1alpha1.QuarantineIntent, bool) {
	if !s.narrows() || s.Otherwise == "" {
		return nil, false
	}
	narrow := *s
	narrow.Remediation = s.Remediation.DeepCopy()
	narrow.Remediation.Spec.Quarantine = slices.DeleteFunc(narrow.Remediation.Spec.Quarantine,
		func(q v1alpha1.QuarantineIntent) bool { return q.Kind == v1alpha1.QuarantineNodeTaint })
	intents := narrow.lackingIntents(s.stillBad())
	return intents, !slices.ContainsFunc(intents, func(q v1alpha1.QuarantineIntent) bool { return q.Kind == v1alpha1.QuarantineNodeTaint })
}

// over says whether the incident has nothing to do with one of its devices any more: its fault has ended though another
// stays, and its rule is off or may come off. What an attempt has left behind unproved stays where it is.
func (s *Snapshot) over(id string) bool {
	if s.Health == nil || slices.Contains(faultyDevices(s.ours()), id) || s.inRepair(id) {
		return false
	}
	i := slices.IndexFunc(s.Health.Status.Devices, func(d v1alpha1.Device) bool { return d.ID == id })
	if i < 0 {
		return false
	}
	health := s.Health.Status.Devices[i].Health
	if slices.ContainsFunc(s.status().Quarantined, func(q v1alpha1.Quarantined) bool { return q.DeviceID == id }) {
		return health == v1alpha1.DeviceHealthy && !s.unproved() && s.canSeeClear()
	}
	// Neither a relapse of another device is a word against one that was proved and given back, nor that nobody can see how
	// it is: a check that looks twice at the other knows of none meanwhile.
	return (health == v1alpha1.DeviceHealthy || health == v1alpha1.DeviceUnknown) && (!s.unproved() || s.relapsedLast())
}

// inRepair says whether a device is being repaired: what is wrong with it has ended only when that is proved.
func (s *Snapshot) inRepair(id string) bool {
	p := s.phase()
	return (p == v1alpha1.PhaseRepairing || p == v1alpha1.PhaseVerifying) && s.status().Step != nil && slices.Contains(s.status().Step.Devices, id)
}

// relapsedLast says whether the last attempt that did something was proved, and did not last.
func (s *Snapshot) relapsedLast() bool {
	last := s.lastDone()
	return last != nil && last.Result == v1alpha1.AttemptRelapsed
}

// stillBad are the devices of the incident that it is not over for.
func (s *Snapshot) stillBad() []string {
	return slices.DeleteFunc(slices.Clone(s.badDevices()), s.over)
}

// ended names the rules that are on a device that the incident is over for.
func (s *Snapshot) ended() []string {
	var names []string
	for _, q := range s.status().Quarantined {
		if q.Kind == v1alpha1.QuarantineDeviceTaintRule && s.over(q.DeviceID) {
			names = append(names, q.Name)
		}
	}
	return names
}

// untaint gives the node back where only devices are to be kept out, and are.
func untaint(s *Snapshot) *Decision {
	if !s.nodeTainted() || s.ClaimHeld || s.nodeIntended() || s.unproved() && !s.resolved() {
		return nil
	}
	st := s.status()
	return &Decision{Do: Unclaim, Phase: s.phase(), Reason: st.Reason, Message: st.Message, WouldChange: st.WouldChange}
}

// resolved says whether the node's taint may come off although nothing has proved the last attempt: that was about devices
// only, and each rule has been seen on its device since.
func (s *Snapshot) resolved() bool {
	at, ok := s.deviceAttempt()
	return ok && s.deviceScoped() && (!s.rulesOn() || !s.LookedAt.Before(at.Add(time.Second))) // times are written to the second.
}

// deviceAttempt is when the last attempt that did something ended, where it was about devices only.
func (s *Snapshot) deviceAttempt() (time.Time, bool) {
	last := s.lastDone()
	if last == nil || s.Policy.Policy == nil {
		return time.Time{}, false
	}
	def, ok := findRung(s.Policy.Policy, last.Rung)
	return last.At.Time, ok && len(last.Devices) > 0 && s.drainBefore(rung{Rung: def}) == drain.ScopeDevice
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
				Name: s.freeRule(out)})
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

// freeRule is a name for a rule that none has of those that are intended or on.
func (s *Snapshot) freeRule(also []v1alpha1.QuarantineIntent) string {
	taken := map[string]bool{}
	for _, q := range append(slices.Clone(s.Remediation.Spec.Quarantine), also...) {
		taken[q.Name] = true
	}
	for _, q := range s.status().Quarantined {
		taken[q.Name] = true
	}
	for i := 0; ; i++ {
		if n := fmt.Sprintf("%s-%d", s.Remediation.Name, i); !taken[n] {
			return n
		}
	}
}

// maxIntents is the bound of spec.quarantine.
const maxIntents = 64

// needed are the intents that matter: what keeps out the whole node keeps out its devices, and a device whose fault has
// ended needs none.
func (s *Snapshot) needed() []v1alpha1.QuarantineIntent {
	all := s.Remediation.Spec.Quarantine
	for _, q := range all {
		if q.Kind == v1alpha1.QuarantineNodeTaint {
			return []v1alpha1.QuarantineIntent{q}
		}
	}
	return slices.DeleteFunc(slices.Clone(all), func(q v1alpha1.QuarantineIntent) bool { return s.over(q.DeviceID) })
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
	if s.nodeIsOut() {
		return true
	}
	if len(devices) == 0 {
		return s.Remediation.Spec.Root.Device == "" && s.Remediation.Spec.Cause != v1alpha1.CauseMaintenance
	}
	p := s.Policy.Policy
	if p == nil || p.Spec.Devices == nil || s.deviceCount() == 0 {
		return false
	}
	ratio := p.Spec.Devices
	if s.useless(len(devices)) {
		return true
	}
	return ratio.KeepServing != nil && len(devices) > upTo(ratio.KeepServing.UpTo, s.deviceCount())
}

// ofNode says whether one of the faults is of the node as a whole.
func (s *Snapshot) ofNode() bool {
	return slices.ContainsFunc(s.ours(), func(m Matched) bool { return m.Fault.Device == "" })
}

// nodeIsOut says whether one of the faults keeps work off the node as a whole: planned work does not before its turn.
func (s *Snapshot) nodeIsOut() bool {
	return slices.ContainsFunc(s.ours(), func(m Matched) bool { return m.Fault.Device == "" && !m.planned() })
}

// useless says whether no job that is worth running fits on what is left when so many devices are bad.
func (s *Snapshot) useless(bad int) bool {
	smallest := s.Policy.Policy.Spec.Devices.SmallestUsefulRequest
	return smallest != nil && s.deviceCount()-bad < int(*smallest)
}

// movesDevices says whether the pods of bad devices are moved without the rest of the node: it is about devices, and where
// the whole node is kept out, then because its device plugin takes no word about one.
func (s *Snapshot) movesDevices() bool {
	bad := s.stillBad()
	return len(bad) > 0 && !s.nodeIsBad(bad)
}

// repairNow says whether so many devices are bad that the rest is worth less than the repair: from the policy's ratio on,
// and where nothing useful could run on it.
func (s *Snapshot) repairNow() bool {
	p, bad := s.Policy.Policy, len(s.stillBad())
	if p == nil || p.Spec.Devices == nil || s.deviceCount() == 0 || bad == 0 {
		return false
	}
	now := p.Spec.Devices.RepairNow
	return s.useless(bad) || (now != nil && bad >= from(now.From, s.deviceCount()))
}

// upTo is a number, or the most that is no more than a percentage of total. What cannot be read counts as nothing: the
// schema has refused it before.
func upTo(v intstr.IntOrString, total int) int {
	n, err := intstr.GetScaledValueFromIntOrPercent(&v, total, false)
	if err != nil {
		return 0
	}
	return n
}

// from is a number, or the least that is no less than a percentage of total: 37% of eight is three, since two are only a
// quarter. What cannot be read is never reached.
func from(v intstr.IntOrString, total int) int {
	n, err := intstr.GetScaledValueFromIntOrPercent(&v, total, true)
	if err != nil {
		return total + 1
	}
	return max(1, n)
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
	if !s.rulesOn() || s.mode() == v1alpha1.ModeObserve {
		return false
	}
	if s.nodeTainted() {
		_, ofDevices := s.deviceAttempt()
		return ofDevices && s.unproved() && !s.resolved() && s.phase() != v1alpha1.PhaseVerifying
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
	if at, ok := s.deviceAttempt(); ok && s.Now.Sub(at) < justStarted {
		return poll
	}
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
