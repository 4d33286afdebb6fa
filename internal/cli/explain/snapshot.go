package explain

import (
	"cmp"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/occupancy"
	"github.com/roundhouse-dev/roundhouse/internal/policy"
)

// Snapshot is everything that an answer depends on.
type Snapshot struct {
	// Now is when it was asked.
	Now time.Time
	// Name is the node that was asked about.
	Name string
	// Node is nil where the cluster has none of this name; Similar are names of others that are close to it.
	Node    *corev1.Node
	Similar []string
	// Health is nil where the controller has created none.
	Health *v1alpha1.NodeHealth
	// Remediations are those of this node's name, over or not.
	Remediations []v1alpha1.Remediation
	// Policies, Budgets and Holds are all there are.
	Policies []v1alpha1.RemediationPolicy
	Budgets  []v1alpha1.NodeDisruptionBudget
	Holds    []v1alpha1.RemediationHold
	// Records are of devices that were ever on this node.
	Records []v1alpha1.DeviceRecord
	// Pods are those of the node and Claims what they were given, where they were read; ClaimsUntold is why they could not be.
	Pods         []corev1.Pod
	Claims       occupancy.Claims
	ClaimsUntold string
	// Slices are the node's ResourceSlices; SlicesUnread says why they could not be read.
	Slices       []resourcev1.ResourceSlice
	SlicesUnread string

	// rules is what Explain found to govern the node, by the controller's own code.
	rules policy.Governing
}

// Selects says whether a label selector selects the labels. One that cannot be read selects everything, as it does for
// the controller: nobody can say which nodes its author meant to keep out of harm.
func Selects(selector *metav1.LabelSelector, set map[string]string) bool {
	if selector == nil {
		return false
	}
	parsed, err := metav1.LabelSelectorAsSelector(selector)
	return err != nil || parsed.Matches(labels.Set(set))
}

// InForce says whether a hold has not lapsed.
func InForce(hold *v1alpha1.RemediationHold, now time.Time) bool {
	return hold.Spec.Until == nil || hold.Spec.Until.After(now)
}

// HoldsNode says whether a hold selects a node.
func HoldsNode(hold *v1alpha1.RemediationHold, name string, set map[string]string) bool {
	return slices.Contains(hold.Spec.Nodes, name) || Selects(hold.Spec.NodeSelector, set)
}

// Governor is the policy with the highest priority that selects the labels; with a tie it is the first by name, and
// tied is true. It is nil where none selects them.
func Governor(policies []v1alpha1.RemediationPolicy, set map[string]string) (best *v1alpha1.RemediationPolicy, tied bool) {
	for i := range policies {
		p := &policies[i]
		if !Selects(&p.Spec.NodeSelector, set) {
			continue
		}
		switch {
		case best == nil || p.Spec.Priority > best.Spec.Priority:
			best, tied = p, false
		case p.Spec.Priority == best.Spec.Priority:
			tied = true
			if p.Name < best.Name {
				best = p
			}
		}
	}
	return best, tied
}

func (s *Snapshot) labels() map[string]string {
	if s.Node == nil {
		return nil
	}
	return s.Node.Labels
}

// holds are those in force that select the node.
func (s *Snapshot) holds() []v1alpha1.RemediationHold {
	var out []v1alpha1.RemediationHold
	for i := range s.Holds {
		h := &s.Holds[i]
		if s.Node != nil && InForce(h, s.Now) && HoldsNode(h, s.Name, s.labels()) {
			out = append(out, *h)
		}
	}
	return out
}

// reporting says whether the agent's word is fresh, by the condition that the controller owns.
func (s *Snapshot) reporting() (bool, *corev1.NodeCondition) {
	if s.Node == nil {
		return false, nil
	}
	for i := range s.Node.Status.Conditions {
		if c := &s.Node.Status.Conditions[i]; c.Type == v1alpha1.ConditionReporting {
			return c.Status == corev1.ConditionTrue, c
		}
	}
	return false, nil
}

// current is the open incident, else the one that ended last.
func (s *Snapshot) current() *v1alpha1.Remediation {
	var best *v1alpha1.Remediation
	for i := range s.Remediations {
		r := &s.Remediations[i]
		switch {
		case best == nil, best.Status.Phase.Over() && !r.Status.Phase.Over():
			best = r
		case best.Status.Phase.Over() == r.Status.Phase.Over() && began(r).After(began(best)):
			best = r
		}
	}
	return best
}

// past are the other incidents of the node, newest first.
func (s *Snapshot) past(current *v1alpha1.Remediation) []v1alpha1.Remediation {
	var out []v1alpha1.Remediation
	for i := range s.Remediations {
		if current == nil || s.Remediations[i].Name != current.Name {
			out = append(out, s.Remediations[i])
		}
	}
	slices.SortFunc(out, func(a, b v1alpha1.Remediation) int {
		return cmp.Or(began(&b).Compare(began(&a)), cmp.Compare(a.Name, b.Name))
	})
	return out
}

// began is when an incident began: with its fault, which the object may be younger than.
func began(r *v1alpha1.Remediation) time.Time {
	if !r.Spec.Root.FirstSeen.IsZero() {
		return r.Spec.Root.FirstSeen.Time
	}
	return r.CreationTimestamp.Time
}

// entered is when an incident came into its phase.
func entered(r *v1alpha1.Remediation) *metav1.Time {
	if r.Status.Since != nil {
		return r.Status.Since
	}
	if n := len(r.Status.Timeline); n > 0 {
		return &r.Status.Timeline[n-1].At
	}
	if r.CreationTimestamp.IsZero() {
		return nil
	}
	return &r.CreationTimestamp
}

// faults are the node's faults as the agent reports them now and as conditions of others show them; without any, those
// that were saved before the incident's repair.
func (s *Snapshot) faults(r *v1alpha1.Remediation) []v1alpha1.Fault {
	var now []v1alpha1.Fault
	if s.Health != nil {
		now = append(now, s.Health.Status.Faults...)
	}
	if s.Node != nil {
		conditions, _ := s.rules.ConditionFaults(s.Node, s.Now)
		taints, _ := s.rules.TaintFaults(s.driverTaints(), nil, s.Now)
		now = slices.Concat(now, conditions, taints)
	}
	if len(now) > 0 {
		return now
	}
	if r != nil && r.Status.Evidence != nil {
		return r.Status.Evidence.Faults
	}
	return nil
}

// device finds what is known of a device: as the agent sees it now, else as it was saved.
func (s *Snapshot) device(r *v1alpha1.Remediation, id string) Device {
	var known []v1alpha1.Device
	if s.Health != nil {
		known = append(known, s.Health.Status.Devices...)
	}
	if r != nil && r.Status.Evidence != nil {
		known = append(known, r.Status.Evidence.Devices...)
	}
	for _, d := range known {
		if d.ID == id {
			return Device{ID: id, Slot: d.Slot, Model: d.Model, Serial: d.Serial, Health: d.Health}
		}
	}
	for i := range s.Records {
		identity := s.Records[i].Status.Identity
		if identity.UUID == id || identity.Serial == id {
			return Device{ID: id, Model: identity.Model, Serial: identity.Serial}
		}
	}
	return Device{ID: id}
}

func findRule(p *v1alpha1.RemediationPolicy, name string) *v1alpha1.Rule {
	if p == nil {
		return nil
	}
	for i := range p.Spec.Rules {
		if p.Spec.Rules[i].Name == name {
			return &p.Spec.Rules[i]
		}
	}
	return nil
}

func findRung(p *v1alpha1.RemediationPolicy, name string) *v1alpha1.Rung {
	if p == nil {
		return nil
	}
	for i := range p.Spec.Rungs {
		if p.Spec.Rungs[i].Name == name {
			return &p.Spec.Rungs[i]
		}
	}
	return nil
}
