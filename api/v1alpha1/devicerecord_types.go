package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// RMAState is how far the return of a part came.
// +kubebuilder:validation:Enum=None;Recommended;Requested;Shipped;Replaced
type RMAState string

// The states of a return; a human moves them on.
const (
	RMANone        RMAState = "None"
	RMARecommended RMAState = "Recommended"
	RMARequested   RMAState = "Requested"
	RMAShipped     RMAState = "Shipped"
	RMAReplaced    RMAState = "Replaced"
)

// RMA is the return of a part.
type RMA struct {
	// state is how far it came.
	// +kubebuilder:default=None
	// +optional
	State RMAState `json:"state,omitempty"`
	// ticket is the maker's number for it.
	// +kubebuilder:validation:MaxLength=128
	// +optional
	Ticket string `json:"ticket,omitempty"`
}

// DeviceRecordSpec is the humans' part.
type DeviceRecordSpec struct {
	// rma is the return of the part.
	// +optional
	RMA RMA `json:"rma,omitempty"`
}

// DeviceIdentity says which device it is, wherever it is.
type DeviceIdentity struct {
	// uuid is the device's own, such as GPU-6a1f....
	// +kubebuilder:validation:MaxLength=128
	// +optional
	UUID string `json:"uuid,omitempty"`
	// serial is the maker's serial number.
	// +kubebuilder:validation:MaxLength=64
	// +optional
	Serial string `json:"serial,omitempty"`
	// vendor is the maker's name.
	// +kubebuilder:validation:MaxLength=32
	// +optional
	Vendor string `json:"vendor,omitempty"`
	// model is the product's name.
	// +kubebuilder:validation:MaxLength=64
	// +optional
	Model string `json:"model,omitempty"`
	// weak says that it has neither UUID nor serial: it is only the model at a slot.
	// +optional
	Weak bool `json:"weak,omitempty"`
}

// Place is where a device was.
type Place struct {
	// node is the Node's name.
	// +kubebuilder:validation:MaxLength=253
	Node string `json:"node"`
	// slot is the place in the chassis.
	// +kubebuilder:validation:MaxLength=32
	// +optional
	Slot string `json:"slot,omitempty"`
	// from is when it was first seen there.
	// +kubebuilder:validation:XValidation:rule="self > timestamp('0001-01-01T00:00:00Z')",message="must be a time in RFC 3339, such as 2026-11-23T10:00:00Z"
	From metav1.Time `json:"from"`
}

// DeviceIncident is a digest of a Remediation that was about the device.
type DeviceIncident struct {
	// remediation is its name.
	// +kubebuilder:validation:MaxLength=253
	Remediation string `json:"remediation"`
	// code is the root fault's.
	// +kubebuilder:validation:MaxLength=64
	Code string `json:"code"`
	// repairedBy is the rung that repaired it; empty when none did.
	// +kubebuilder:validation:MaxLength=64
	// +optional
	RepairedBy string `json:"repairedBy,omitempty"`
	// repairs counts the attempts that ended in service.
	// +kubebuilder:validation:Minimum=0
	// +optional
	Repairs int32 `json:"repairs,omitempty"`
	// relapses counts the repairs that did not last.
	// +kubebuilder:validation:Minimum=0
	// +optional
	Relapses int32 `json:"relapses,omitempty"`
	// outcome is the phase it ended in.
	// +optional
	Outcome Phase `json:"outcome,omitempty"`
	// at is when it began.
	// +kubebuilder:validation:XValidation:rule="self > timestamp('0001-01-01T00:00:00Z')",message="must be a time in RFC 3339, such as 2026-11-23T10:00:00Z"
	At metav1.Time `json:"at"`
	// ended is when it ended.
	// +kubebuilder:validation:XValidation:rule="self > timestamp('0001-01-01T00:00:00Z')",message="must be a time in RFC 3339, such as 2026-11-23T10:00:00Z"
	// +optional
	Ended *metav1.Time `json:"ended,omitempty"`
}

// DeviceTotals are sums over all incidents, those no longer listed included.
type DeviceTotals struct {
	// incidents counts them.
	Incidents int32 `json:"incidents"`
	// repairs counts the repairs that brought it back into service.
	Repairs int32 `json:"repairs"`
	// relapses counts the repairs that did not last.
	Relapses int32 `json:"relapses"`
	// outHours is how long it was out of service, in hours, as a decimal.
	// +kubebuilder:validation:MaxLength=32
	// +optional
	OutHours string `json:"outHours,omitempty"`
}

// Suspicion says how likely the device itself is bad, and how that follows.
type Suspicion struct {
	// level is None, Watch or Lemon.
	// +kubebuilder:validation:Enum=None;Watch;Lemon
	Level string `json:"level"`
	// because lists what it follows from.
	// +kubebuilder:validation:MaxItems=8
	// +kubebuilder:validation:items:MaxLength=256
	// +listType=atomic
	// +optional
	Because []string `json:"because,omitempty"`
}

// DeviceRecordStatus is what is remembered.
type DeviceRecordStatus struct {
	// identity says which device it is.
	// +optional
	Identity DeviceIdentity `json:"identity,omitempty"`
	// places are where it was, newest last.
	// +kubebuilder:validation:MaxItems=16
	// +listType=atomic
	// +optional
	Places []Place `json:"places,omitempty"`
	// incidents are the last ones, newest last.
	// +kubebuilder:validation:MaxItems=50
	// +listType=atomic
	// +optional
	Incidents []DeviceIncident `json:"incidents,omitempty"`
	// totals are over all incidents.
	// +optional
	Totals DeviceTotals `json:"totals,omitempty"`
	// suspicion says how likely the device itself is bad.
	// +optional
	Suspicion *Suspicion `json:"suspicion,omitempty"`
}

// DeviceRecord is what is remembered of a device that failed. It survives reboot, rename and re-provision of the node.
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,shortName=dr,categories=roundhouse
// +kubebuilder:printcolumn:name="Model",type=string,JSONPath=".status.identity.model"
// +kubebuilder:printcolumn:name="Serial",type=string,JSONPath=".status.identity.serial"
// +kubebuilder:printcolumn:name="Incidents",type=integer,JSONPath=".status.totals.incidents"
// +kubebuilder:printcolumn:name="Repairs",type=integer,JSONPath=".status.totals.repairs"
// +kubebuilder:printcolumn:name="Suspicion",type=string,JSONPath=".status.suspicion.level"
// +kubebuilder:printcolumn:name="RMA",type=string,JSONPath=".spec.rma.state"
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=".metadata.creationTimestamp"
type DeviceRecord struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is the humans' part.
	// +optional
	Spec DeviceRecordSpec `json:"spec,omitempty"`
	// status is what is remembered.
	// +optional
	Status DeviceRecordStatus `json:"status,omitempty"`
}

// DeviceRecordList is a list of DeviceRecord.
// +kubebuilder:object:root=true
type DeviceRecordList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []DeviceRecord `json:"items"`
}
