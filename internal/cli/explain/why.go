// Package explain answers "why NODE": what is wrong, how that is known, what was done, what comes next, what it waits
// for, until when, and how to stop it. It is pure: an answer is a function of a Snapshot, and its text one of the answer
// and a clock.
package explain

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

// State is where a node stands, in one word.
type State string

// The states. Those of an incident have the name of its phase, except that a Pending one says what it waits for.
const (
	// Healthy: every check passes and no incident is open.
	Healthy State = "Healthy"
	// Unknown: the agent could not look, or its word is not fresh.
	Unknown State = "Unknown"
	// Faulty: something is wrong, and no incident is open about it.
	Faulty State = "Faulty"
	// NoAgent: no agent has ever reported on this node.
	NoAgent State = "NoAgent"
	// NoSuchNode: the cluster has no node of this name, and nothing is remembered of one.
	NoSuchNode State = "NoSuchNode"

	// Observing: an incident is open in Observe; nothing is done.
	Observing State = "Observing"
	// Waiting: an incident is Pending for the reason given.
	Waiting State = "Waiting"
	// Held: an incident is Pending because a human holds the node.
	Held State = "Held"
	// Braked: an incident is Pending because too many nodes show the same fault.
	Braked State = "Braked"

	// The phases of an incident that has begun, or is over.
	Quarantined State = "Quarantined"
	Draining    State = "Draining"
	Repairing   State = "Repairing"
	Verifying   State = "Verifying"
	Probation   State = "Probation"
	Escalated   State = "Escalated"
	Succeeded   State = "Succeeded"
	Cancelled   State = "Cancelled"
	NodeGone    State = "NodeGone"
)

// Version is the API version of what -o json prints; a field is added to it, never renamed or removed.
const Version = "cli.roundhouse.dev/v1alpha1"

// Fact is a sentence, and since when it is so.
type Fact struct {
	Text  string       `json:"text"`
	Since *metav1.Time `json:"since,omitempty"`
}

// Event is something that happened.
type Event struct {
	At      metav1.Time    `json:"at"`
	Phase   v1alpha1.Phase `json:"phase,omitempty"`
	Reason  string         `json:"reason"`
	Message string         `json:"message,omitempty"`
}

// Deadline is when a wait ends, and what happens then.
type Deadline struct {
	At   metav1.Time `json:"at"`
	Then string      `json:"then"`
}

// Governing is the policy that governs the node.
type Governing struct {
	Name       string        `json:"name"`
	Generation int64         `json:"generation"`
	Mode       v1alpha1.Mode `json:"mode"`
	// Rule is the rule that the incident follows, with its match and response in words.
	Rule     string `json:"rule,omitempty"`
	RuleSays string `json:"ruleSays,omitempty"`
	// Governs is false where the policy does not select the node, or no longer: an incident began under it.
	Governs bool `json:"governs"`
	// Accepted is false where the policy is Invalid or Conflicted; Why says what about it.
	Accepted bool   `json:"accepted"`
	Why      string `json:"why,omitempty"`
}

// Device is a device that an incident is about.
type Device struct {
	ID     string                `json:"id"`
	Slot   string                `json:"slot,omitempty"`
	Model  string                `json:"model,omitempty"`
	Serial string                `json:"serial,omitempty"`
	Health v1alpha1.DeviceHealth `json:"health,omitempty"`
}

// Devices counts the accelerators of a node and lists those an incident is about.
type Devices struct {
	Total   int      `json:"total"`
	Serving int      `json:"serving"`
	Bad     []Device `json:"bad,omitempty"`
	// Holders are the pods that hold bad devices, as far as can be told.
	Holders []Holder `json:"holders,omitempty"`
}

// Why is the answer to "why NODE".
type Why struct {
	APIVersion string      `json:"apiVersion"`
	Kind       string      `json:"kind"`
	Node       string      `json:"node"`
	At         metav1.Time `json:"at"`

	// State is where the node stands, Meaning says so in a sentence.
	State   State  `json:"state"`
	Meaning string `json:"meaning"`

	// Remediation is the open incident's name, else that of the last one where it explains the state.
	Remediation string         `json:"remediation,omitempty"`
	Phase       v1alpha1.Phase `json:"phase,omitempty"`
	Reason      string         `json:"reason,omitempty"`
	Message     string         `json:"message,omitempty"`
	WouldChange string         `json:"wouldChange,omitempty"`
	Since       *metav1.Time   `json:"since,omitempty"`
	Policy      *Governing     `json:"policy,omitempty"`
	Devices     Devices        `json:"devices"`

	What        []Fact    `json:"what,omitempty"`
	Proof       []Fact    `json:"proof,omitempty"`
	NotSeen     []Fact    `json:"notSeen,omitempty"`
	Done        []Event   `json:"done,omitempty"`
	DoneEarlier int       `json:"doneEarlier,omitempty"`
	WouldDo     []string  `json:"wouldDo,omitempty"`
	Next        []string  `json:"next,omitempty"`
	AtRisk      []string  `json:"atRisk,omitempty"`
	Waiting     []Fact    `json:"waiting,omitempty"`
	Changes     []string  `json:"changes,omitempty"`
	Deadline    *Deadline `json:"deadline,omitempty"`
	// NoDeadline says why a wait has no Deadline.
	NoDeadline string   `json:"noDeadline,omitempty"`
	History    []string `json:"history,omitempty"`
	StopIt     []string `json:"stopIt,omitempty"`
}
