package v1alpha1

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// TaintMatch selects taints of others that say that a node is out.
// +kubebuilder:validation:XValidation:rule="!has(self.operator) || self.operator != 'Exists' || !has(self.value) || size(self.value) == 0",message="value must be empty when operator is Exists"
type TaintMatch struct {
	// key is the taint's key.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=316
	Key string `json:"key"`
	// operator is Exists or Equal.
	// +kubebuilder:validation:Enum=Exists;Equal
	// +kubebuilder:default=Exists
	// +optional
	Operator corev1.TolerationOperator `json:"operator,omitempty"`
	// value is the taint's value, with Equal.
	// +kubebuilder:validation:MaxLength=63
	// +optional
	Value string `json:"value,omitempty"`
}

// NodeDisruptionBudgetSpec says how much may be out.
// +kubebuilder:validation:XValidation:rule="has(self.maxUnavailable) || has(self.maxUnavailableDevices)",message="set maxUnavailable, maxUnavailableDevices or both"
type NodeDisruptionBudgetSpec struct {
	// nodeSelector selects the nodes it speaks of; empty ({}) selects every node.
	NodeSelector metav1.LabelSelector `json:"nodeSelector"`
	// topologyKey is the node label that divides the nodes into domains, each with the whole budget. Absent: one
	// domain; a node without the label is a domain of its own.
	// +kubebuilder:validation:MaxLength=316
	// +optional
	TopologyKey string `json:"topologyKey,omitempty"`
	// maxUnavailable is how many nodes of a domain may be out: a number, or a percentage of those selected, rounded
	// down.
	// +kubebuilder:validation:XIntOrString
	// +kubebuilder:validation:XValidation:rule="type(self) == int ? self >= 0 && self <= 1000000 : self.matches('^([0-9]|[1-9][0-9]|100)%$')",message="must be a number from 0 to 1000000, or a percentage from 0% to 100%"
	// +optional
	MaxUnavailable *intstr.IntOrString `json:"maxUnavailable,omitempty"`
	// maxUnavailableDevices is how many devices of a domain may be out.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=10000000
	// +optional
	MaxUnavailableDevices *int32 `json:"maxUnavailableDevices,omitempty"`
	// countTaints are taints of others that say that a node is out.
	// +kubebuilder:validation:MaxItems=16
	// +listType=atomic
	// +optional
	CountTaints []TaintMatch `json:"countTaints,omitempty"`
}

// Reservation is a slot that a Remediation holds.
type Reservation struct {
	// node is the Node's name.
	// +kubebuilder:validation:MaxLength=253
	Node string `json:"node"`
	// nodeUID is the Node's UID.
	// +kubebuilder:validation:MaxLength=64
	NodeUID string `json:"nodeUID"`
	// remediation is the holder's name.
	// +kubebuilder:validation:MaxLength=253
	Remediation string `json:"remediation"`
	// remediationUID is the holder's UID.
	// +kubebuilder:validation:MaxLength=64
	RemediationUID string `json:"remediationUID"`
	// domain is the topology domain it was taken in.
	// +kubebuilder:validation:MaxLength=63
	// +optional
	Domain string `json:"domain,omitempty"`
	// devices counts the devices that it takes out.
	// +kubebuilder:validation:Minimum=0
	// +optional
	Devices int32 `json:"devices,omitempty"`
	// since is when it was taken.
	// +kubebuilder:validation:XValidation:rule="self > timestamp('0001-01-01T00:00:00Z')",message="must be a time in RFC 3339, such as 2026-11-23T10:00:00Z"
	Since metav1.Time `json:"since"`
	// begun counts how often its holder has begun to act: who would free it must have seen the last time.
	// +kubebuilder:validation:Minimum=0
	// +optional
	Begun int64 `json:"begun,omitempty"`
	// token is another for each slot that is taken, so that one that was freed and taken again is not mistaken for the first.
	// +kubebuilder:validation:MaxLength=16
	// +optional
	Token string `json:"token,omitempty"`
}

// NodeDisruptionBudgetStatus is what is out.
type NodeDisruptionBudgetStatus struct {
	// rebuiltFor is the UID of the budget object whose reservations were rebuilt from the claims on Nodes; while it is
	// not the object's own, the budget grants nothing.
	// +kubebuilder:validation:MaxLength=64
	// +optional
	RebuiltFor string `json:"rebuiltFor,omitempty"`
	// reservations are the slots held by Remediations.
	// +kubebuilder:validation:MaxItems=2048
	// +listType=atomic
	// +optional
	Reservations []Reservation `json:"reservations,omitempty"`
	// conditions: Valid says whether selector and numbers could be read.
	// +kubebuilder:validation:MaxItems=8
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:XValidation:rule="self.all(c, c.lastTransitionTime > timestamp('0001-01-01T00:00:00Z'))",message="lastTransitionTime must be a time in RFC 3339, such as 2026-11-23T10:00:00Z"
	// +optional
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// NodeDisruptionBudget says how many nodes or devices may be out of service at once, others' outages counted.
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,shortName=ndb,categories=roundhouse
// +kubebuilder:printcolumn:name="Max nodes",type=string,JSONPath=".spec.maxUnavailable"
// +kubebuilder:printcolumn:name="Max devices",type=integer,JSONPath=".spec.maxUnavailableDevices"
// +kubebuilder:printcolumn:name="Per",type=string,JSONPath=".spec.topologyKey"
// +kubebuilder:printcolumn:name="Held by",type=string,JSONPath=".status.reservations[*].node",priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=".metadata.creationTimestamp"
type NodeDisruptionBudget struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec says how much may be out.
	Spec NodeDisruptionBudgetSpec `json:"spec"`
	// status is what is out.
	// +optional
	Status NodeDisruptionBudgetStatus `json:"status,omitempty"`
}

// NodeDisruptionBudgetList is a list of NodeDisruptionBudget.
// +kubebuilder:object:root=true
type NodeDisruptionBudgetList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []NodeDisruptionBudget `json:"items"`
}
