package decide

import (
	"fmt"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/drain"
)

const (
	// defaultBurnIn is how long a burn-in may take where the policy does not say.
	defaultBurnIn = 30 * time.Minute
	// burnInGrace is how long after that it may take to see that it has ended.
	burnInGrace = 2 * time.Minute
)

// underLoad has what was repaired come through the policy's burn-in, once everything else is proved; nil where it has, or
// where none is asked for.
func underLoad(s *Snapshot) *Decision {
	how, run := s.burnIn(), s.burning()
	if how == nil {
		return nil
	}
	switch {
	case (run == nil || run.State == v1alpha1.RemedyRefused) && s.closedGate() != nil:
		return s.burnInWaits(*s.closedGate())
	case run == nil && (s.Otherwise == "" || s.Holders == nil):
		return wait(v1alpha1.PhaseVerifying, time.Second, ReasonVerifying, "how the node's devices are offered, and who holds them, could not be looked at", "the API server answers")
	case run == nil:
		return s.beginBurnIn(*how)
	case run.State == v1alpha1.RemedySucceeded:
		return nil
	case run.State == v1alpha1.RemedyFailed && run.Ran:
		return s.notRepaired("the burn-in failed: " + run.Message)
	case run.State == v1alpha1.RemedyFailed:
		return s.burnInNotRun(run.Message)
	case s.late() && run.Ran:
		return s.notRepaired("the burn-in did not end in time: " + run.Message)
	case s.late():
		return s.burnInNotRun(run.Message)
	case run.State == v1alpha1.RemedyRefused:
		d := s.beginBurnIn(*how)
		d.Message, d.WouldChange, d.Requeue = "the burn-in cannot be run: "+run.Message, "that is mended", poll
		if d.BurnIn.State == v1alpha1.RemedyRefused {
			d.Deadline = nil
		}
		return d
	}
	d := wait(v1alpha1.PhaseVerifying, remedyPoll, ReasonBurningIn, s.burnInText(*run), "it ends, or its deadline passes")
	d.Do = LookBurnIn
	return d
}

// burnInWaits keeps a burn-in from beginning while a gate is closed, and the proof from failing for that.
func (s *Snapshot) burnInWaits(gate Decision) *Decision {
	d := wait(v1alpha1.PhaseVerifying, poll, gate.Reason, "the fault is gone; the burn-in waits: "+gate.Message, gate.WouldChange)
	if st := s.status(); st.Deadline != nil && st.Deadline.Sub(s.Now) < s.verifyTimeout()/2 {
		until := s.Now.Add(s.verifyTimeout())
		d.Deadline = &until
	}
	return d
}

// burnIn is the burn-in that the policy asks for.
func (s *Snapshot) burnIn() *v1alpha1.BurnIn {
	if s.Policy.Policy == nil || s.Policy.Policy.Spec.Verify == nil {
		return nil
	}
	return s.Policy.Policy.Spec.Verify.BurnIn
}

// burning is the burn-in of the attempt that is being proved; nil before it was begun.
func (s *Snapshot) burning() *v1alpha1.BurnInRun {
	if s.status().Step == nil {
		return nil
	}
	return s.status().Step.BurnIn
}

// late says whether the phase has lasted as long as it may.
func (s *Snapshot) late() bool {
	st := s.status()
	return st.Deadline != nil && !s.Now.Before(st.Deadline.Time)
}

// burnsInNext says whether a burn-in is the next thing to begin: it must be known then how its devices are offered.
func (s *Snapshot) burnsInNext() bool {
	run := s.burning()
	if s.phase() != v1alpha1.PhaseVerifying || s.burnIn() == nil || run != nil && run.State != v1alpha1.RemedyRefused || s.missingProof() != "" {
		return false
	}
	ok, _ := s.settled()
	return ok
}

// beginBurnIn writes down the burn-in that is to be run.
func (s *Snapshot) beginBurnIn(how v1alpha1.BurnIn) *Decision {
	run := v1alpha1.BurnInRun{BurnIn: how, State: v1alpha1.RemedyBegun, Devices: s.toBurnIn(), Begun: metav1.NewTime(s.Now)}
	if run.Driver = s.driverOf(run.Devices); run.Driver != "" && how.DeviceClassName == "" {
		run.BurnIn.DeviceClassName = run.Driver
	}
	run.ID = fmt.Sprintf("%s-burn-in-%d", s.Remediation.Name, s.Now.Unix())
	if st := s.status().Step; st != nil && st.ActionID != "" {
		run.ID = st.ActionID + "-burn-in"
	}
	if before := s.burning(); before != nil { // which was refused
		run.ID = before.ID
	}
	d := move(v1alpha1.PhaseVerifying, ReasonBurningIn, s.burnInText(run))
	until := s.Now.Add(BurnInTimeout(how) + burnInGrace)
	d.Do, d.BurnIn, d.Deadline, d.WouldChange = BeginBurnIn, &run, &until, "it ends, or its deadline passes"
	if lacks := s.notToBurn(run); lacks != "" {
		d.BurnIn.State, d.BurnIn.Message = v1alpha1.RemedyRefused, lacks
	}
	return d
}

// BurnInTimeout is how long a burn-in may take.
func BurnInTimeout(how v1alpha1.BurnIn) time.Duration {
	if how.Timeout != nil {
		return how.Timeout.Duration
	}
	return defaultBurnIn
}

// toBurnIn are the devices that a burn-in runs on: those that were repaired, or what has taken their place. A repair of the
// node as a whole is proved on all of its devices where nothing else runs on it, else on none.
func (s *Snapshot) toBurnIn() []string {
	var repaired []string
	if st := s.status().Step; st != nil {
		repaired = st.Devices
	}
	if len(repaired) == 0 {
		repaired = s.badDevices()
	}
	var ids []string
	for _, d := range s.Health.Status.Devices {
		if len(repaired) == 0 && s.emptied() || slices.Contains(repaired, d.ID) || s.replaces(d, repaired) {
			ids = append(ids, d.ID)
		}
	}
	return ids
}

// emptied says whether the node was emptied for the attempt that is being proved.
func (s *Snapshot) emptied() bool {
	st := s.status()
	return st.Step != nil && st.Step.ActionID != "" && st.Drain != nil && s.scope() == drain.ScopeNode && st.Drain.PodsLeft == 0
}

// notToBurn says why a burn-in cannot be run on its devices; nothing where it can.
func (s *Snapshot) notToBurn(run v1alpha1.BurnInRun) string {
	st := s.status()
	if bad := s.badDevices(); len(run.Devices) == 0 && (len(bad) > 0 || st.Step != nil && len(st.Step.Devices) > 0) {
		return "none of the devices that were repaired is on the node, and what has taken their place is not known"
	}
	for _, id := range run.Devices {
		if pod := s.Holders[id]; pod != "" {
			return fmt.Sprintf("pod %s holds %s", pod, s.what(id))
		}
	}
	// What a repair of ours has emptied nobody holds, though the kubelet is not asked any more who holds a device that is well.
	if len(run.Devices) > 0 && s.MayHold != "" && (st.Step == nil || st.Step.ActionID == "") {
		return fmt.Sprintf("pod %s may hold a device, and nobody can tell which", s.MayHold)
	}
	return s.notClaimable(run)
}

// replaces says whether a device is where one of these was when the evidence was saved, and is not that one any more.
func (s *Snapshot) replaces(d v1alpha1.Device, gone []string) bool {
	e := s.status().Evidence
	return e != nil && d.Slot != "" && slices.ContainsFunc(e.Devices, func(was v1alpha1.Device) bool {
		return was.Slot == d.Slot && was.ID != d.ID && slices.Contains(gone, was.ID)
	})
}

// driverOf is the DRA driver that offers these devices, or nothing where none does: then the container runtime shows them.
func (s *Snapshot) driverOf(ids []string) string {
	for _, id := range ids {
		if h := s.handle(id); h.Offer == OfferedByDRA {
			return h.Driver
		}
	}
	return ""
}

// notClaimable says why the scheduler could not give a burn-in its devices; nothing where it could.
func (s *Snapshot) notClaimable(run v1alpha1.BurnInRun) string {
	for _, id := range run.Devices {
		h := s.handle(id)
		switch {
		case h.Offer == OfferedByDRA && h.Driver != run.Driver:
			return fmt.Sprintf("%s is of driver %s and another device of %s: one burn-in cannot be given both", s.what(id), h.Driver, run.Driver)
		case h.Offer != OfferedByDRA && (run.Driver != "" || s.Otherwise == NotOffered):
			return fmt.Sprintf("no ResourceSlice of the node offers %s: its DRA driver does not know it yet", s.what(id))
		}
	}
	return ""
}

// burnInNotRun asks a human for a burn-in that says nothing about the devices, since it never ran. The node stays out.
func (s *Snapshot) burnInNotRun(why string) *Decision {
	text := "the burn-in could not be run: " + why
	d := escalate(ReasonBurnInNotRun, text, "that is mended, and kubectl roundhouse approve "+s.Remediation.Spec.Node+" --retry")
	d.Do, d.KeepTaint = Unclaim, true
	d.Attempt = s.attempt(v1alpha1.AttemptNotRepaired, text)
	return d
}

func (s *Snapshot) burnInText(run v1alpha1.BurnInRun) string {
	on := "the node"
	switch len(run.Devices) {
	case 0:
	case 1:
		on = s.what(run.Devices[0])
	default:
		on = count(len(run.Devices), "device") + " (" + s.what(run.Devices[0]) + ", ...)"
	}
	return fmt.Sprintf("the fault is gone; PodTemplate %s burns in %s, for at most %s", run.BurnIn.PodTemplateRef.Name, on, span(BurnInTimeout(run.BurnIn)))
}

// burnInStands says whether the last attempt did not come through its burn-in, and nothing has been done about it since: no
// other repair, no human's word, no other device in the place. No check sees what it saw, so that no fault says it.
func (s *Snapshot) burnInStands() bool {
	last := s.lastDone()
	if last == nil || last.BurnIn == nil || last.Result == v1alpha1.AttemptRepaired {
		return false
	}
	if r := s.status().Restart; r != nil && !last.At.After(r.At.Time) {
		return false
	}
	run := last.BurnIn
	return run.State != v1alpha1.RemedySucceeded && (len(run.Devices) == 0 || slices.ContainsFunc(run.Devices, s.present))
}

// present says whether the node has a device.
func (s *Snapshot) present(id string) bool {
	return s.Health != nil && slices.ContainsFunc(s.Health.Status.Devices, func(d v1alpha1.Device) bool { return d.ID == id })
}
