// Package plan says what each rung of a node's ladder would move, by the same pure code with which the controller decides
// and drains: internal/decide, internal/drain and internal/occupancy. It is pure itself, and nothing is done by it.
package plan

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/cli/explain"
	"github.com/roundhouse-dev/roundhouse/internal/decide"
)

// Plan is the answer about one node.
type Plan struct {
	APIVersion string      `json:"apiVersion"`
	Kind       string      `json:"kind"`
	Node       string      `json:"node"`
	At         metav1.Time `json:"at"`

	// Policy is nil where none selects the node.
	Policy *Governing `json:"policy,omitempty"`
	// Remediation is the open incident, with its phase, reason and message.
	Remediation string         `json:"remediation,omitempty"`
	Phase       v1alpha1.Phase `json:"phase,omitempty"`
	Reason      string         `json:"reason,omitempty"`
	Message     string         `json:"message,omitempty"`
	// Assuming says of what the plan is: the incident, or what was assumed where none is open.
	Assuming string `json:"assuming"`
	// Devices are the bad ones that the plan is about; none where it is about the node as a whole.
	Devices []explain.Device `json:"devices,omitempty"`
	// ByDriver says which devices their DRA driver itself taints.
	ByDriver []explain.Fact `json:"byDriver,omitempty"`

	Rungs []Rung `json:"rungs,omitempty"`
	// NoRungs says why there are none.
	NoRungs string `json:"noRungs,omitempty"`
	// Limit says why a human would be asked although a rung is left.
	Limit string `json:"limit,omitempty"`
	// Gangs are the gangs that the drains would stop, and what each would lose.
	Gangs []Gang `json:"gangs,omitempty"`
	// Server is what the API server's own dry run says, device by device, with --server.
	Server []DryRun `json:"server,omitempty"`

	// draft is what the plan was made of.
	draft  *decide.Snapshot
	claims map[string][]Held
}

// Governing is the policy and the rule that the plan follows.
type Governing struct {
	Name string        `json:"name"`
	Mode v1alpha1.Mode `json:"mode"`
	// Accepted is false where the policy cannot be followed as it stands; Why says what about it.
	Accepted bool   `json:"accepted"`
	Why      string `json:"why,omitempty"`
	Rule     string `json:"rule,omitempty"`
	RuleSays string `json:"ruleSays,omitempty"`
}

// Empties is what must be empty before a rung.
type Empties string

// What a rung empties.
const (
	EmptiesNothing Empties = "Nothing"
	EmptiesDevices Empties = "Devices"
	EmptiesNode    Empties = "Node"
)

// Rung is one rung of the ladder.
type Rung struct {
	Name   string              `json:"name"`
	Action v1alpha1.RungAction `json:"action,omitempty"`
	// Tried counts its attempts so far, Attempts is how many it has.
	Tried    int32 `json:"tried"`
	Attempts int32 `json:"attempts"`
	// Next says that it is the one to try now; Why what speaks against trying it at all.
	Next bool   `json:"next,omitempty"`
	Why  string `json:"why,omitempty"`

	Empties Empties `json:"empties"`
	// Moves are the pods to evict, the cheapest first; Going counts those that are going already.
	Moves []Move `json:"moves,omitempty"`
	Going int    `json:"going,omitempty"`
	// Blockers are the pods that only a human stops.
	Blockers []v1alpha1.Blocker `json:"blockers,omitempty"`
	// Jobs counts the pods that would lose work, AtRisk is how much, in device-hours.
	Jobs   int     `json:"jobs"`
	AtRisk float64 `json:"atRiskDeviceHours"`
	// Touches are the IDs of the devices that the action stops or resets; TouchesSays says what else may be.
	Touches     []string `json:"touches,omitempty"`
	TouchesSays string   `json:"touchesSays,omitempty"`
}

// Move is a pod that would be evicted.
type Move struct {
	Pod    string                    `json:"pod"`
	Cost   v1alpha1.InterruptionCost `json:"cost"`
	Class  string                    `json:"class,omitempty"`
	AtRisk float64                   `json:"atRiskDeviceHours"`
}

// DryRun is what the API server says that its own eviction would do about one device, beside what we would. Its words are
// shown and never decided by.
type DryRun struct {
	DeviceID string `json:"deviceID"`
	Driver   string `json:"driver,omitempty"`
	Pool     string `json:"pool,omitempty"`
	Device   string `json:"device,omitempty"`
	// Said is the server's text, Failed why there is none.
	Said   string `json:"said,omitempty"`
	Failed string `json:"failed,omitempty"`
	// Ours are the pods that hold the device by a claim, as we see it.
	Ours []Held `json:"ours,omitempty"`
}

// Held is a pod that holds a device by a claim, and what a repair of the device does with it.
type Held struct {
	Pod  string `json:"pod"`
	Does string `json:"does"`
}
