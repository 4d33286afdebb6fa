package decide

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/drain"
	"github.com/roundhouse-dev/roundhouse/internal/maintenance"
)

// Matched is a fault and the rule of the governing policy that it falls under; Rule is nil where none matches.
type Matched struct {
	Fault v1alpha1.Fault
	Rule  *v1alpha1.Rule
}

// Governing is the policy that governs the node.
type Governing struct {
	// Policy is nil where none selects the node.
	Policy *v1alpha1.RemediationPolicy
	// Accepted is false for a policy that is Invalid or Conflicted; Why says what about it.
	Accepted bool
	Why      string
	// Says evaluates the expressions of its workload classes; AsksForNamespaces says whether one asks for a namespace's labels.
	Says              drain.Says
	AsksForNamespaces bool
	// WindowOpen says whether one of its windows is open, NextWindow when the next opens.
	WindowOpen bool
	NextWindow time.Time
	// Brake is nil or Released where it does not hold.
	Brake *v1alpha1.BrakeStatus
}

// Offer is how a device is offered to pods.
type Offer string

// The offers. NotOffered devices are out of reach of new pods already: the kubelet's allocatable or the ResourceSlice
// has dropped them.
const (
	OfferedByDRA    Offer = "DRA"
	OfferedByPlugin Offer = "DevicePlugin"
	NotOffered      Offer = "NotOffered"
)

// Handle is where a device is found for quarantine.
type Handle struct {
	Offer Offer
	// Driver, Pool, Device and Generation name it in its ResourceSlice, with OfferedByDRA.
	Driver, Pool, Device string
	Generation           int64
}

// same says whether two handles name the same place.
func (h Handle) same(other Handle) bool {
	return h.Driver == other.Driver && h.Pool == other.Pool && h.Device == other.Device
}

// Claim is somebody else's claim on the node.
type Claim struct{ By, What string }

// Refusal is why a budget gave no slot, or an eviction was refused.
type Refusal struct{ Reason, Message, WouldChange string }

// Snapshot is everything that a Decision depends on.
type Snapshot struct {
	// Now is the time of the decision.
	Now time.Time
	// Remediation is the incident; Next never changes it.
	Remediation *v1alpha1.Remediation
	// Node is nil where it is gone or is another one of the same name.
	Node *corev1.Node
	// Health is nil where there is none for this Node.
	Health *v1alpha1.NodeHealth
	// Reporting is whether the agent's word is fresh; NotReportingWhy says why not.
	Reporting       bool
	NotReportingWhy string
	// Policy governs the node.
	Policy Governing
	// Faults are the faults of the node now, roots first, with their rules.
	Faults []Matched
	// Maintenance is the planned work that a human asks for on the node; nil where none does.
	Maintenance *maintenance.Request
	// Holds are the holds in force that select the node.
	Holds []v1alpha1.RemediationHold
	// Foreign are others' claims on the node.
	Foreign []Claim
	// Handles say how each device is offered, by device ID; Otherwise is how one is offered that they do not list. It is
	// empty where nobody has looked.
	Handles   map[string]Handle
	Otherwise Offer
	// DriverTaints are the taints that DRA drivers themselves have on the node's devices; nil where nobody has looked.
	DriverTaints []DriverTaint
	// Rules are where the incident's rules are, by name; nil where nobody has looked. LookedAt is when somebody last looked
	// and found each where it belongs, in boot LookedBoot; zero where this process never did.
	Rules      map[string]Handle
	LookedAt   time.Time
	LookedBoot string
	// NoRules says that the server has no DeviceTaintRules (they came after ResourceSlices): a device is kept out with its node.
	NoRules bool
	// Dropped is how many devices the kubelet's allocatable lacks of its capacity: its plugin offers them no more.
	Dropped int
	// SlotHeld says whether any budget holds a slot for this incident; ClaimHeld whether the node carries its claim.
	SlotHeld, ClaimHeld bool
	// SlotSure says that every budget that selects the node has just given its slot: a cache's word is enough to give one
	// back, not to begin.
	SlotSure bool
	// Over are incidents of this node that are over; they speak where none is open.
	Over []*v1alpha1.Remediation
	// Unsure says that what is intended and not listed may be on all the same: a process that died, or a step that was
	// cut off, may have put it on and not come to write it down.
	Unsure bool
	// Refused is set where a budget was asked and gave no slot.
	Refused *Refusal
	// DevicePlan and NodePlan are what a drain would do, RepairPlan what one for a repair of only the bad devices would: it
	// takes the pods too that work on good devices beside a bad one. They are nil where pods were not looked at.
	DevicePlan, RepairPlan, NodePlan *drain.Plan
	// Holders are the pods that hold devices, by device ID, this incident's own apart; MayHold is one of which nobody can tell.
	// Holders is nil where pods were not looked at.
	Holders map[string]string
	MayHold string
	// PastRepairs counts the repairs of this hardware by other incidents within the policy's loop window.
	PastRepairs int
}

func (s *Snapshot) status() *v1alpha1.RemediationStatus { return &s.Remediation.Status }

// mode is the mode in force: whatever is not an accepted policy observes.
func (s *Snapshot) mode() v1alpha1.Mode {
	if s.Policy.Policy == nil || !s.Policy.Accepted || s.Policy.Policy.Spec.Mode == "" {
		return v1alpha1.ModeObserve
	}
	return s.Policy.Policy.Spec.Mode
}

// ours are the faults now that this incident is about: those under a rule that does something, and that no human has
// cancelled. Planned work is set aside while something is to be repaired.
func (s *Snapshot) ours() []Matched {
	return s.failedFirst(slices.DeleteFunc(slices.Clone(s.Faults), func(m Matched) bool {
		return m.Rule == nil || m.Rule.Response == v1alpha1.ResponseIgnore || s.cancelledFor(m)
	}))
}

// lead is the fault whose rule the incident follows: the root it began with where that is still there, else the first. One
// that is to be repaired leads one that is only to be kept out, or its repair would never come.
func (s *Snapshot) lead() (Matched, bool) {
	ours := s.ours()
	if repair := slices.DeleteFunc(slices.Clone(ours), func(m Matched) bool { return m.Rule.Response != v1alpha1.ResponseRepair }); len(repair) > 0 {
		ours = repair
	}
	root := s.Remediation.Spec.Root
	for _, m := range ours {
		if m.Fault.Code == root.Code && m.Fault.Device == root.Device {
			return m, true
		}
	}
	if len(ours) > 0 {
		return ours[0], true
	}
	return Matched{}, false
}

// rule is the rule in force: the lead fault's, else the one the incident last followed.
func (s *Snapshot) rule() *v1alpha1.Rule {
	if m, ok := s.lead(); ok {
		return m.Rule
	}
	if s.Policy.Policy == nil {
		return nil
	}
	if s.status().Rule == RuleMaintenance && s.Maintenance != nil {
		return maintenanceRule(s.Maintenance)
	}
	for i := range s.Policy.Policy.Spec.Rules {
		if r := &s.Policy.Policy.Spec.Rules[i]; r.Name == s.status().Rule {
			return r
		}
	}
	return nil
}

// handle is where a device is found.
func (s *Snapshot) handle(id string) Handle {
	if h, ok := s.Handles[id]; ok {
		return h
	}
	return Handle{Offer: s.Otherwise}
}

// badDevices are the devices the incident is about: those of its spec.
func (s *Snapshot) badDevices() []string { return s.Remediation.Spec.Devices }

// RepairDevices are the devices that a repair of the bad ones touches: also those that can only be reset together with one.
func (s *Snapshot) RepairDevices() []string {
	bad := s.stillBad()
	if st := s.status().Step; st != nil && s.phase() == v1alpha1.PhaseRepairing {
		bad = slices.Clone(st.Devices)
	}
	if s.Health == nil {
		return bad
	}
	domains := map[string]bool{}
	for _, d := range s.Health.Status.Devices {
		if d.ResetDomain != "" && slices.Contains(bad, d.ID) {
			domains[d.ResetDomain] = true
		}
	}
	for _, d := range s.Health.Status.Devices {
		if domains[d.ResetDomain] && !slices.Contains(bad, d.ID) {
			bad = append(bad, d.ID)
		}
	}
	return bad
}

// deviceScoped says whether the incident is about devices, not the whole node.
func (s *Snapshot) deviceScoped() bool { return len(s.badDevices()) > 0 && !s.nodeIntended() }

// nodeIntended says whether the whole node is to be kept out.
func (s *Snapshot) nodeIntended() bool {
	return slices.ContainsFunc(s.Remediation.Spec.Quarantine,
		func(q v1alpha1.QuarantineIntent) bool { return q.Kind == v1alpha1.QuarantineNodeTaint })
}

func (s *Snapshot) deviceCount() int {
	if s.Health == nil {
		return 0
	}
	return len(s.Health.Status.Devices)
}
