// Package policy compiles RemediationPolicies: which one governs a node, which of its rules matches a fault, when its
// windows are open, whether its brake holds. It calls no API and reads no clock.
package policy

import (
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/decide"
)

// Reasons of the condition Accepted of a policy, and of Governing.
const (
	// ReasonValid: the policy can be followed.
	ReasonValid = "Valid"
	// ReasonInvalid: something in it cannot be read; its nodes are in Observe.
	ReasonInvalid = "Invalid"
	// ReasonConflicted: another policy of the same priority selects the same nodes; these are in Observe.
	ReasonConflicted = "Conflicted"
	// ReasonNoPolicy: no policy selects the node.
	ReasonNoPolicy = "NoPolicy"
)

// Governing is what governs one node.
type Governing struct {
	// Policy is the policy that selects the node; nil where none does. Where Accepted is false it may name one of
	// those to blame, but must not be followed.
	Policy *v1alpha1.RemediationPolicy
	// Accepted says that Policy may be followed as it stands.
	Accepted bool
	// Reason is one of the reasons above.
	Reason string
	// Message says why in a sentence, and what to change where something is wrong.
	Message string

	compiled *compiled
}

// Mode is how far we may go on the node: Observe unless an accepted policy says otherwise.
func (g Governing) Mode() v1alpha1.Mode {
	if g.Policy == nil || !g.Accepted || g.Policy.Spec.Mode == "" {
		return v1alpha1.ModeObserve
	}
	return g.Policy.Spec.Mode
}

// Decided is what decisions are told of it; its windows and its brake are for the caller to add.
func (g Governing) Decided() decide.Governing {
	return decide.Governing{Policy: g.Policy, Accepted: g.Accepted, Why: g.Message, Says: g.MatchesClass, AsksForNamespaces: g.AsksForNamespaces()}
}

// Match gives the first rule that matches a fault of the node, or nil. An error means that a rule's expression failed
// on this fault: no later rule is tried then, because the one that failed may have been the one to say Ignore.
func (g Governing) Match(fault v1alpha1.Fault, node *corev1.Node, now time.Time) (*v1alpha1.Rule, error) {
	if g.compiled == nil {
		return nil, nil
	}
	return g.compiled.match(fault, node, now)
}

// ConditionFaults turns the Node conditions that the policy's rules name into faults. nextCheck is how long until one
// that holds has held for long enough; zero where there is nothing to wait for.
func (g Governing) ConditionFaults(node *corev1.Node, now time.Time) (faults []v1alpha1.Fault, nextCheck time.Duration) {
	if g.Policy == nil || !g.Accepted {
		return nil, 0
	}
	return conditionFaults(g.Policy, node, now)
}

// AsksForTaints says whether a rule of the policy names a taint of a DRA driver's.
func (g Governing) AsksForTaints() bool {
	return g.Policy != nil && g.Accepted && asksForTaints(g.Policy)
}

// TaintFaults turns the taints of DRA drivers that the policy's rules name into faults, and the one that an open incident
// began with, where root is not nil. nextCheck is how long until one has been on for long enough; zero where there is nothing
// to wait for.
func (g Governing) TaintFaults(taints []decide.DriverTaint, root *v1alpha1.RootFault, now time.Time) (faults []v1alpha1.Fault, nextCheck time.Duration) {
	if g.Policy == nil || !g.Accepted {
		return taintFaults(nil, taints, root, now)
	}
	return taintFaults(g.Policy, taints, root, now)
}
