package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// HoldKind is what a hold keeps from happening.
// +kubebuilder:validation:Enum=Disruption;Everything
type HoldKind string

// The kinds of hold. Disruption stops evictions and actions but not quarantine; Everything stops quarantine too.
const (
	HoldDisruption HoldKind = "Disruption"
	HoldEverything HoldKind = "Everything"
)

// RemediationHoldSpec says what is held, why, by whom and until when.
// +kubebuilder:validation:XValidation:rule="(has(self.nodes) && size(self.nodes) > 0) != has(self.nodeSelector)",message="set exactly one of spec.nodes and spec.nodeSelector; an empty nodeSelector ({}) holds every node"
type RemediationHoldSpec struct {
	// nodes are the names of the nodes held.
	// +kubebuilder:validation:MaxItems=256
	// +kubebuilder:validation:items:MaxLength=253
	// +listType=set
	// +optional
	Nodes []string `json:"nodes,omitempty"`
	// nodeSelector selects the nodes held; empty ({}) selects every node.
	// +optional
	NodeSelector *metav1.LabelSelector `json:"nodeSelector,omitempty"`
	// holds is what is kept from happening.
	// +kubebuilder:default=Disruption
	// +optional
	Holds HoldKind `json:"holds,omitempty"`
	// reason is why, for those who find it at night.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	Reason string `json:"reason"`
	// requestedBy is who asked for it.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	RequestedBy string `json:"requestedBy"`
	// until is when it lapses; without it, it stays until deleted.
	// +kubebuilder:validation:XValidation:rule="self > timestamp('0001-01-01T00:00:00Z')",message="must be a time in RFC 3339, such as 2026-11-23T10:00:00Z"
	// +optional
	Until *metav1.Time `json:"until,omitempty"`
}

// RemediationHold is a human's brake: nothing disruptive begins on the nodes it selects.
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,shortName=hold,categories=roundhouse
// +kubebuilder:printcolumn:name="Holds",type=string,JSONPath=".spec.holds"
// +kubebuilder:printcolumn:name="By",type=string,JSONPath=".spec.requestedBy"
// +kubebuilder:printcolumn:name="Until",type=string,JSONPath=".spec.until"
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=".spec.reason"
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=".metadata.creationTimestamp"
type RemediationHold struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec says what is held.
	Spec RemediationHoldSpec `json:"spec"`
}

// RemediationHoldList is a list of RemediationHold.
// +kubebuilder:object:root=true
type RemediationHoldList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []RemediationHold `json:"items"`
}
