package kernellog

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/health"
)

// suspectAfter is how often an application's error must have come again on one GPU, and on no other, each time a minute or
// more after the one before, to be worth a diagnostic.
const suspectAfter = 3

// Findings is what stands, with the cause of each burst named. It recommends what the driver's own Xid 154 says where
// there is one, and the catalogue's action where there is none.
func (s *State) Findings(check string, t Times) []health.Finding {
	if len(s.Faults) == 0 {
		return nil
	}
	out := make([]health.Finding, len(s.Faults))
	for i, o := range s.Faults {
		cause := s.causeOf(o, t)
		f := v1alpha1.Fault{
			Code: o.Code, Check: check, Class: o.Class, Severity: o.severity(), Recommended: o.recommended(),
			FirstSeen: metav1.NewTime(o.First.Truncate(time.Second)), LastSeen: metav1.NewTime(o.Last.Truncate(time.Second)),
			Count: o.Count, Root: cause == nil, Evidence: o.Evidence,
		}
		switch r := s.recoveryFor(o); {
		case cause != nil:
			f.CausedBy = cause.Code
		case r != nil:
			f.Recommended = r.Recommended
		case s.suspect(o):
			f.Class, f.Recommended = v1alpha1.ClassUnknown, v1alpha1.RecommendHuman
		}
		out[i] = health.Finding{Fault: f, ClearedBy: o.clearedBy()}
		if !o.OnNode {
			out[i].PCI = o.Address.String()
		}
	}
	return out
}

// causeOf is the root of the burst that o is in; nil when o is a root itself. It is the root of the device's own faults,
// or what in turn explains that one from elsewhere.
func (s *State) causeOf(o Open, t Times) *Open {
	if o.OnNode {
		return nil
	}
	own := s.ownCause(o, t)
	if own == nil {
		return s.farCause(o, t)
	}
	if far := s.farCause(*own, t); far != nil {
		return far
	}
	return own
}

// ownCause is what matters most of what can explain o on its own device, or, where the driver says what that was caused
// by, the start of that chain.
func (s *State) ownCause(o Open, t Times) *Open {
	top := &o
	for i := range s.Faults {
		p := &s.Faults[i]
		if p.Address == o.Address && !p.OnNode && p.explains(o, t) && p.compare(*top) > 0 {
			top = p
		}
	}
	// At most as many steps as there are faults: the lines could name each other in a circle.
	for range s.Faults {
		before := s.xid(o.Address, top.CausedBy)
		if before == nil || before.Code == top.Code {
			break
		}
		top = before
	}
	if top.Code == o.Code {
		return nil
	}
	return top
}

// farCause is what matters most of what can explain o and is not on its device: a switch or the host, else another GPU.
func (s *State) farCause(o Open, t Times) *Open {
	for _, reaches := range [...]func(Open, Open, Times) bool{Open.reaches, Open.isOtherEnd} {
		top := &o
		for i := range s.Faults {
			p := &s.Faults[i]
			if (p.OnNode || p.Address != o.Address) && reaches(*p, o, t) && p.compare(*top) > 0 {
				top = p
			}
		}
		if top != &o {
			return top
		}
	}
	return nil
}

// reaches says whether o, a fault of a switch or of the host, explains what happens on a device. It may have caused any
// clean-up, which Xid 45 is, in its burst. What an application may have done by itself it explains only where it is
// Critical, and so does a switch the errors of the links to it in its burst.
func (o Open) reaches(other Open, t Times) bool {
	if !o.Wide || other.Wide {
		return false
	}
	switch {
	case o.severity() != v1alpha1.SeverityCritical:
		return other.Code == xidCode(cleanUp) && o.inBurst(other, t)
	case other.Class == v1alpha1.ClassApplication:
		return o.explains(other, t)
	}
	return other.Class == v1alpha1.ClassFabric && o.Class == v1alpha1.ClassFabric && o.inBurst(other, t)
}

// isOtherEnd says whether other is a GPU's word about the other end of a link, and o what broke there in the same burst.
func (o Open) isOtherEnd(other Open, t Times) bool {
	return other.Peer && !o.Peer && !o.OnNode && o.severity() == v1alpha1.SeverityCritical && o.inBurst(other, t)
}

// cleanUp is the Xid of the clean-up after any error.
const cleanUp = 45

// xid is the open fault of that Xid on the device.
func (s *State) xid(a Address, code int) *Open {
	if code == 0 {
		return nil
	}
	for i := range s.Faults {
		if p := &s.Faults[i]; p.Address == a && !p.OnNode && p.Code == xidCode(code) {
			return p
		}
	}
	return nil
}

// explains says whether other can be o's doing by its time. Only a Critical fault goes on explaining for as long as it
// stands: a device that is off the bus makes errors until it is back.
func (o Open) explains(other Open, t Times) bool {
	if o.severity() == v1alpha1.SeverityCritical {
		return !other.Last.Before(o.First.Add(-t.Burst))
	}
	return o.inBurst(other, t)
}

// inBurst says whether both were logged in the same burst: with no pause between them, or within either, of more than
// Times.Burst.
func (o Open) inBurst(other Open, t Times) bool {
	return !other.Last.Before(o.run().Add(-t.Burst)) && !other.run().After(o.Last.Add(t.Burst))
}

func (o Open) run() time.Time {
	if o.Run.IsZero() {
		return o.First
	}
	return o.Run
}

// suspect says that an application's error keeps coming on one GPU while no other has it. NVIDIA's catalogue then asks for
// a diagnostic (WORKFLOW_XID_13, WORKFLOW_XID_31). It stays Info: an application that is bound to one GPU and crashes again
// and again looks the same.
func (s *State) suspect(o Open) bool {
	if o.Code != xidCode(13) && o.Code != xidCode(31) || o.Repeats < suspectAfter {
		return false
	}
	for i := range s.Faults {
		if p := &s.Faults[i]; p.Code == o.Code && p.Address != o.Address {
			return false
		}
	}
	return true
}

// recoveryFor is the open Xid 154 of the device, when it says what is to be done.
func (s *State) recoveryFor(o Open) *Open {
	if o.OnNode {
		return nil
	}
	if p := s.xid(o.Address, 154); p != nil && p.severity() == v1alpha1.SeverityCritical {
		return p
	}
	return nil
}
