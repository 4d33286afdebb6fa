// Package fleet answers "status": the whole fleet on one screen. It is pure: an answer is a function of a Snapshot, and
// its text one of the answer and a clock.
package fleet

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

// Nodes counts the nodes that have accelerators or an agent, by health.
type Nodes struct {
	Total   int `json:"total"`
	Healthy int `json:"healthy"`
	Faulty  int `json:"faulty"`
	// Unknown counts those whose agent could not look, has not reported, or is silent.
	Unknown int `json:"unknown"`
	Acting  int `json:"acting"`
}

// Devices counts the accelerators that agents know of, by health.
type Devices struct {
	Total     int `json:"total"`
	Healthy   int `json:"healthy"`
	Unhealthy int `json:"unhealthy"`
	Missing   int `json:"missing"`
	Unknown   int `json:"unknown"`
}

// Coverage says on how many of the nodes with accelerators an agent reports.
type Coverage struct {
	Reporting int `json:"reporting"`
	Of        int `json:"of"`
	// Silent are the nodes whose agent does not report, sorted.
	Silent []string `json:"silent,omitempty"`
}

// Incident is one open Remediation.
type Incident struct {
	Remediation string         `json:"remediation"`
	Node        string         `json:"node"`
	Policy      string         `json:"policy,omitempty"`
	Phase       v1alpha1.Phase `json:"phase"`
	Fault       string         `json:"fault"`
	Devices     int            `json:"devices"`
	Rung        string         `json:"rung,omitempty"`
	Reason      string         `json:"reason,omitempty"`
	Message     string         `json:"message,omitempty"`
	Since       *metav1.Time   `json:"since,omitempty"`
}

// Phase is the open incidents of one phase, the oldest first.
type Phase struct {
	Phase     v1alpha1.Phase `json:"phase"`
	Incidents []Incident     `json:"incidents"`
}

// Budget is what is out under a NodeDisruptionBudget, in one domain.
type Budget struct {
	Name     string `json:"name"`
	Domain   string `json:"domain,omitempty"`
	Selected int    `json:"selected"`
	// MaxNodes is how many nodes may be out, percentages resolved; absent where the budget bounds devices only.
	MaxNodes   *int   `json:"maxNodes,omitempty"`
	MaxDevices *int32 `json:"maxDevices,omitempty"`
	// Reserved are the nodes that hold a slot; Others are out for other reasons and count too.
	Reserved []string `json:"reserved,omitempty"`
	Others   []string `json:"others,omitempty"`
	Devices  int32    `json:"devices"`
}

// Hold is a human's brake that is in force.
type Hold struct {
	Name   string            `json:"name"`
	Holds  v1alpha1.HoldKind `json:"holds"`
	Nodes  int               `json:"nodes"`
	By     string            `json:"by"`
	Reason string            `json:"reason"`
	Until  *metav1.Time      `json:"until,omitempty"`
}

// Policy is a RemediationPolicy and whether it is followed.
type Policy struct {
	Name       string        `json:"name"`
	Mode       v1alpha1.Mode `json:"mode"`
	Priority   int32         `json:"priority"`
	Nodes      int           `json:"nodes"`
	Generation int64         `json:"generation"`
	Accepted   bool          `json:"accepted"`
	// Why says why it is not accepted.
	Why   string                `json:"why,omitempty"`
	Brake *v1alpha1.BrakeStatus `json:"brake,omitempty"`
}

// Status is the answer to "status".
type Status struct {
	APIVersion string      `json:"apiVersion"`
	Kind       string      `json:"kind"`
	At         metav1.Time `json:"at"`
	Nodes      Nodes       `json:"nodes"`
	Devices    Devices     `json:"devices"`
	Coverage   Coverage    `json:"coverage"`
	// Ungoverned counts the nodes with accelerators that no policy selects.
	Ungoverned int      `json:"ungoverned"`
	Policies   []Policy `json:"policies,omitempty"`
	Open       int      `json:"open"`
	Incidents  []Phase  `json:"incidents,omitempty"`
	Budgets    []Budget `json:"budgets,omitempty"`
	Holds      []Hold   `json:"holds,omitempty"`
}
