package decide

import (
	"fmt"
	"slices"
	"strings"
	"time"

	resourcev1 "k8s.io/api/resource/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

// DriverTaint is a taint that a DRA driver itself has put on one of its devices, in its ResourceSlice (KEP-5055). It is read
// and explained, never written: it is the driver's word, and only the driver takes it back.
type DriverTaint struct {
	// DeviceID is the device's UUID; empty where the driver does not publish one. Driver and Device name it in its slice.
	DeviceID       string
	Driver, Device string
	Key, Value     string
	Effect         resourcev1.DeviceTaintEffect
	// Since is when the API server first saw it.
	Since time.Time
}

// String writes a taint as kubectl does: key=value:effect.
func (t DriverTaint) String() string {
	said := t.Key
	if t.Value != "" {
		said += "=" + t.Value
	}
	return said + ":" + string(t.Effect)
}

// KeepsOut says whether new pods do not get the device for it. An effect that is not known is none (k8s.io/api/resource/v1).
func (t DriverTaint) KeepsOut() bool {
	return t.Effect == resourcev1.DeviceTaintEffectNoSchedule || t.Effect == resourcev1.DeviceTaintEffectNoExecute
}

// Text says it in a sentence, without when.
func (t DriverTaint) Text() string {
	said := fmt.Sprintf("the DRA driver %s itself taints %s: %s", t.Driver, t.Device, t)
	switch {
	case t.Effect == resourcev1.DeviceTaintEffectNoExecute:
		return said + " (it evicts the device's pods past every PodDisruptionBudget)"
	case !t.KeepsOut():
		return said + " (information only)"
	}
	return said
}

// maxDriverTaints bounds how many taints a message names.
const maxDriverTaints = 2

// keptOutByDriver says which of the incident's devices their driver itself keeps from new pods; nothing where it keeps none,
// or where nobody has looked.
func (s *Snapshot) keptOutByDriver() string {
	taints := slices.DeleteFunc(slices.Clone(s.DriverTaints), func(t DriverTaint) bool {
		return !t.KeepsOut() || !s.isBad(t.DeviceID)
	})
	var said []string
	for i, t := range taints {
		if i == maxDriverTaints {
			said = append(said, fmt.Sprintf("and %d more", len(taints)-i))
			break
		}
		said = append(said, t.Text()+" since "+stamp(t.Since))
	}
	return strings.Join(said, ", ")
}

// alsoByDriver adds to a message what the driver itself does.
func (s *Snapshot) alsoByDriver(message string) string {
	if by := s.keptOutByDriver(); by != "" {
		return message + "; " + by
	}
	return message
}

// notBackYet adds to the message of an end that a device is not back in service for all that: no pod gets it before its
// driver drops its taint. Nothing of ours could change that, nor should.
func (s *Snapshot) notBackYet(message string) string {
	if by := s.keptOutByDriver(); by != "" {
		return message + "; not back in service before its driver says so: " + by
	}
	return message
}

// concludes says whether an incident about devices may be about to end, well or by itself: then it matters what their
// driver says of them.
func (s *Snapshot) concludes() bool {
	if len(s.badDevices()) == 0 || len(s.ours()) > 0 || s.rootStillThere() {
		return false
	}
	switch s.phase() {
	case v1alpha1.PhasePending, v1alpha1.PhaseQuarantined, v1alpha1.PhaseDraining:
		return s.canSeeClear()
	case v1alpha1.PhaseVerifying:
		if s.missingProof() != "" {
			return false
		}
		settled, _ := s.settled()
		return settled
	case v1alpha1.PhaseProbation:
		d := s.status().Deadline
		return d == nil || !s.Now.Before(d.Time)
	default:
		return false
	}
}

// outdated says whether a fault is a driver's taint from before the proof began: a word that the driver has not taken back
// yet, which it may do only when it starts anew, and no word against the repair. It keeps the proof from being complete all
// the same, until verification's time is up.
func (s *Snapshot) outdated(m Matched) bool {
	since := s.status().Since
	return m.Fault.Check == v1alpha1.CheckDeviceTaint && since != nil && m.Fault.FirstSeen.Before(since)
}
