package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Phase is where an incident stands; docs/states.md has every change from one to another and who makes it.
// +kubebuilder:validation:Enum=Pending;Quarantined;Draining;Repairing;Verifying;Probation;Escalated;Succeeded;Cancelled;NodeGone
type Phase string

// The phases. Draining, Repairing and Verifying hold the claim on the node and a slot of every budget that selects it.
const (
	PhasePending     Phase = "Pending"
	PhaseQuarantined Phase = "Quarantined"
	PhaseDraining    Phase = "Draining"
	PhaseRepairing   Phase = "Repairing"
	PhaseVerifying   Phase = "Verifying"
	PhaseProbation   Phase = "Probation"
	PhaseEscalated   Phase = "Escalated"
	PhaseSucceeded   Phase = "Succeeded"
	PhaseCancelled   Phase = "Cancelled"
	PhaseNodeGone    Phase = "NodeGone"
)

// Over says whether nothing more happens in this phase.
func (p Phase) Over() bool {
	return p == PhaseSucceeded || p == PhaseCancelled || p == PhaseNodeGone
}

// Acting says whether this phase holds the claim on the node and its budget slots.
func (p Phase) Acting() bool {
	return p == PhaseDraining || p == PhaseRepairing || p == PhaseVerifying
}

// Cause is why an incident exists.
// +kubebuilder:validation:Enum=Faults;Maintenance
type Cause string

// The causes.
const (
	CauseFaults      Cause = "Faults"
	CauseMaintenance Cause = "Maintenance"
)

// QuarantineKind is a way to keep work off.
// +kubebuilder:validation:Enum=DeviceTaintRule;NodeTaint
type QuarantineKind string

// The kinds of quarantine.
const (
	QuarantineDeviceTaintRule QuarantineKind = "DeviceTaintRule"
	QuarantineNodeTaint       QuarantineKind = "NodeTaint"
)

// RootFault is the fault an incident began with; its identity, and the node's, make the Remediation's name.
type RootFault struct {
	// code is the fault's.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	Code string `json:"code"`
	// device is the ID of the device it is on; empty for a fault of the node.
	// +kubebuilder:validation:MaxLength=128
	// +optional
	Device string `json:"device,omitempty"`
	// check is the check that saw it; "node-condition" for a Node condition of somebody else, "device-taint" for a taint of
	// a DRA driver's own.
	// +kubebuilder:validation:MaxLength=64
	// +optional
	Check string `json:"check,omitempty"`
	// firstSeen is when it was first seen.
	// +kubebuilder:validation:XValidation:rule="self > timestamp('0001-01-01T00:00:00Z')",message="must be a time in RFC 3339, such as 2026-11-23T10:00:00Z"
	FirstSeen metav1.Time `json:"firstSeen"`
}

// QuarantineIntent names something that will be put on, before it is.
type QuarantineIntent struct {
	// kind is what it is.
	Kind QuarantineKind `json:"kind"`
	// name is the DeviceTaintRule's name, or the taint's key.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
	// deviceID is the device it keeps work off; empty for the whole node.
	// +kubebuilder:validation:MaxLength=128
	// +optional
	DeviceID string `json:"deviceID,omitempty"`
}

// ApprovalKind is something a human may let an incident skip.
// +kubebuilder:validation:Enum=SkipIdle;SkipWindow;Retry
type ApprovalKind string

// The approvals: not to wait for idle, not to wait for a window, to try an escalated incident once more. None of
// them skips a budget.
const (
	ApproveSkipIdle   ApprovalKind = "SkipIdle"
	ApproveSkipWindow ApprovalKind = "SkipWindow"
	ApproveRetry      ApprovalKind = "Retry"
)

// Approval is a human's word.
type Approval struct {
	// what is approved.
	What ApprovalKind `json:"what"`
	// by is who approved it.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	By string `json:"by"`
	// until is when the approval lapses.
	// +kubebuilder:validation:XValidation:rule="self > timestamp('0001-01-01T00:00:00Z')",message="must be a time in RFC 3339, such as 2026-11-23T10:00:00Z"
	Until metav1.Time `json:"until"`
}

// RemediationSpec is the intent and the humans' words.
// +kubebuilder:validation:XValidation:rule="self.node == oldSelf.node && self.nodeUID == oldSelf.nodeUID",message="spec.node and spec.nodeUID cannot change"
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.cancel) || !oldSelf.cancel || (has(self.cancel) && self.cancel)",message="spec.cancel cannot be taken back; a new fault opens a new Remediation"
type RemediationSpec struct {
	// node is the Node's name.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Node string `json:"node"`
	// nodeUID is the Node's UID; a re-created node of the same name inherits nothing.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	NodeUID string `json:"nodeUID"`
	// root is the fault it began with.
	Root RootFault `json:"root"`
	// devices are the IDs of the devices it is about; empty for the whole node.
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=128
	// +listType=atomic
	// +optional
	Devices []string `json:"devices,omitempty"`
	// policy is the RemediationPolicy that governed the node when it began.
	// +kubebuilder:validation:MaxLength=253
	// +optional
	Policy string `json:"policy,omitempty"`
	// cause is why it exists.
	// +kubebuilder:default=Faults
	// +optional
	Cause Cause `json:"cause,omitempty"`
	// group is shared by incidents of one root in one domain: one group, one alert.
	// +kubebuilder:validation:MaxLength=128
	// +optional
	Group string `json:"group,omitempty"`
	// quarantine lists what will be put on, before it is put on.
	// +kubebuilder:validation:MaxItems=64
	// +listType=atomic
	// +optional
	Quarantine []QuarantineIntent `json:"quarantine,omitempty"`
	// cancel asks to stop what has not happened yet and to take off what was put on.
	// +optional
	Cancel bool `json:"cancel,omitempty"`
	// approvals let it skip a wait; at most one of a kind counts, the latest.
	// +kubebuilder:validation:MaxItems=8
	// +listType=atomic
	// +optional
	Approvals []Approval `json:"approvals,omitempty"`
}

// Quarantined is something that was put on.
type Quarantined struct {
	// kind is what it is.
	Kind QuarantineKind `json:"kind"`
	// name is the DeviceTaintRule's name, or the taint's key.
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
	// deviceID is the device it keeps work off; empty for the whole node.
	// +kubebuilder:validation:MaxLength=128
	// +optional
	DeviceID string `json:"deviceID,omitempty"`
	// driver, pool and device are what the rule selects, all set.
	// +kubebuilder:validation:MaxLength=253
	// +optional
	Driver string `json:"driver,omitempty"`
	// pool is the ResourceSlice pool.
	// +kubebuilder:validation:MaxLength=253
	// +optional
	Pool string `json:"pool,omitempty"`
	// device is the device's name in the pool.
	// +kubebuilder:validation:MaxLength=253
	// +optional
	Device string `json:"device,omitempty"`
	// poolGeneration is the pool's generation when the name was resolved.
	// +optional
	PoolGeneration int64 `json:"poolGeneration,omitempty"`
}

// Restart is a retry that a human approved.
type Restart struct {
	// at is when the ladder began anew.
	// +kubebuilder:validation:XValidation:rule="self > timestamp('0001-01-01T00:00:00Z')",message="must be a time in RFC 3339, such as 2026-11-23T10:00:00Z"
	At metav1.Time `json:"at"`
	// approvedUntil is the end of the approval that was used, so that it is used once.
	// +kubebuilder:validation:XValidation:rule="self > timestamp('0001-01-01T00:00:00Z')",message="must be a time in RFC 3339, such as 2026-11-23T10:00:00Z"
	ApprovedUntil metav1.Time `json:"approvedUntil"`
}

// Blocker is a pod that keeps a drain from going on.
type Blocker struct {
	// pod is namespace/name.
	// +kubebuilder:validation:MaxLength=317
	Pod string `json:"pod"`
	// reason is a word for why, in CamelCase.
	// +kubebuilder:validation:MaxLength=64
	Reason string `json:"reason"`
	// message says why in a sentence, with the PodDisruptionBudget's name where one refuses.
	// +kubebuilder:validation:MaxLength=256
	// +optional
	Message string `json:"message,omitempty"`
}

// DrainStatus is how far a drain came.
type DrainStatus struct {
	// podsLeft counts the pods that still must go.
	// +kubebuilder:validation:Minimum=0
	// +optional
	PodsLeft int32 `json:"podsLeft"`
	// podsMoved counts the pods that this incident has evicted.
	// +kubebuilder:validation:Minimum=0
	// +optional
	PodsMoved int32 `json:"podsMoved,omitempty"`
	// workAtRisk is what stopping the rest now would cost, in device-hours since each job's last checkpoint, else since
	// its start.
	// +kubebuilder:validation:MaxLength=64
	// +optional
	WorkAtRisk string `json:"workAtRisk,omitempty"`
	// deadline is when waiting ends.
	// +kubebuilder:validation:XValidation:rule="self > timestamp('0001-01-01T00:00:00Z')",message="must be a time in RFC 3339, such as 2026-11-23T10:00:00Z"
	// +optional
	Deadline *metav1.Time `json:"deadline,omitempty"`
	// blockers are pods that keep the drain from going on, the first few.
	// +kubebuilder:validation:MaxItems=16
	// +listType=atomic
	// +optional
	Blockers []Blocker `json:"blockers,omitempty"`
	// scope says whether the bad devices' pods, all pods of the node, or none are moved.
	// +kubebuilder:validation:Enum=Nothing;Device;Node
	// +optional
	Scope string `json:"scope,omitempty"`
	// since is when this drain began; the policy's drain.escalate counts from it.
	// +kubebuilder:validation:XValidation:rule="self > timestamp('0001-01-01T00:00:00Z')",message="must be a time in RFC 3339, such as 2026-11-23T10:00:00Z"
	// +optional
	Since *metav1.Time `json:"since,omitempty"`
	// by is the means it has come to.
	// +optional
	By DrainBy `json:"by,omitempty"`
	// workUntil is until when pods that would lose work are left to end by themselves, while the node takes no new ones (the rule's
	// refillStop). The policy's drain.deadline and drain.escalate count from then.
	// +kubebuilder:validation:XValidation:rule="self > timestamp('0001-01-01T00:00:00Z')",message="must be a time in RFC 3339, such as 2026-11-23T10:00:00Z"
	// +optional
	WorkUntil *metav1.Time `json:"workUntil,omitempty"`
}

// Evidence is what was saved before the repair that erases it.
type Evidence struct {
	// at is when it was taken.
	// +kubebuilder:validation:XValidation:rule="self > timestamp('0001-01-01T00:00:00Z')",message="must be a time in RFC 3339, such as 2026-11-23T10:00:00Z"
	At metav1.Time `json:"at"`
	// bootID is the boot it was taken in.
	// +kubebuilder:validation:MaxLength=64
	BootID string `json:"bootID"`
	// sha256 is over faults and devices as stored here, in canonical JSON.
	// +kubebuilder:validation:MaxLength=64
	SHA256 string `json:"sha256"`
	// faults are the node's faults then.
	// +kubebuilder:validation:MaxItems=16
	// +listType=atomic
	// +optional
	Faults []Fault `json:"faults,omitempty"`
	// devices are the incident's devices then, with serials and links.
	// +kubebuilder:validation:MaxItems=16
	// +listType=atomic
	// +optional
	Devices []Device `json:"devices,omitempty"`
}

// TimelineEntry is something that happened, or that was decided not to.
type TimelineEntry struct {
	// at is when.
	// +kubebuilder:validation:XValidation:rule="self > timestamp('0001-01-01T00:00:00Z')",message="must be a time in RFC 3339, such as 2026-11-23T10:00:00Z"
	At metav1.Time `json:"at"`
	// phase is the phase then.
	Phase Phase `json:"phase"`
	// reason is one of the documented reasons.
	// +kubebuilder:validation:MaxLength=64
	Reason string `json:"reason"`
	// message says it in a sentence.
	// +kubebuilder:validation:MaxLength=512
	// +optional
	Message string `json:"message,omitempty"`
}

// RemediationStatus is what happened.
type RemediationStatus struct {
	// phase is where it stands.
	// +optional
	Phase Phase `json:"phase,omitempty"`
	// reason is one of the documented reasons for being there.
	// +kubebuilder:validation:MaxLength=64
	// +optional
	Reason string `json:"reason,omitempty"`
	// message says why in a sentence.
	// +kubebuilder:validation:MaxLength=1024
	// +optional
	Message string `json:"message,omitempty"`
	// wouldChange says what would make the decision another one.
	// +kubebuilder:validation:MaxLength=512
	// +optional
	WouldChange string `json:"wouldChange,omitempty"`
	// rule is the policy's rule that it follows.
	// +kubebuilder:validation:MaxLength=64
	// +optional
	Rule string `json:"rule,omitempty"`
	// policyGeneration is the generation of the policy that the last decision read.
	// +optional
	PolicyGeneration int64 `json:"policyGeneration,omitempty"`
	// fence is the NodeHealth's fence at our last write of it.
	// +optional
	Fence int64 `json:"fence,omitempty"`
	// since is when the phase was entered.
	// +kubebuilder:validation:XValidation:rule="self > timestamp('0001-01-01T00:00:00Z')",message="must be a time in RFC 3339, such as 2026-11-23T10:00:00Z"
	// +optional
	Since *metav1.Time `json:"since,omitempty"`
	// quarantined lists what was put on and is not off yet.
	// +kubebuilder:validation:MaxItems=64
	// +listType=atomic
	// +optional
	Quarantined []Quarantined `json:"quarantined,omitempty"`
	// step is where on the ladder it is.
	// +optional
	Step *Step `json:"step,omitempty"`
	// attempts are the repairs that were tried, oldest first.
	// +kubebuilder:validation:MaxItems=32
	// +listType=atomic
	// +optional
	Attempts []Attempt `json:"attempts,omitempty"`
	// restart is when a human last let it begin its ladder anew; attempts before it no longer count.
	// +optional
	Restart *Restart `json:"restart,omitempty"`
	// drain is how far the drain came.
	// +optional
	Drain *DrainStatus `json:"drain,omitempty"`
	// evidence is what was saved before the last repair.
	// +optional
	Evidence *Evidence `json:"evidence,omitempty"`
	// actingSince is when it first began to act; empty while it has not.
	// +kubebuilder:validation:XValidation:rule="self > timestamp('0001-01-01T00:00:00Z')",message="must be a time in RFC 3339, such as 2026-11-23T10:00:00Z"
	// +optional
	ActingSince *metav1.Time `json:"actingSince,omitempty"`
	// deadline is when the wait of this phase ends: of idle, of verification, of probation.
	// +kubebuilder:validation:XValidation:rule="self > timestamp('0001-01-01T00:00:00Z')",message="must be a time in RFC 3339, such as 2026-11-23T10:00:00Z"
	// +optional
	Deadline *metav1.Time `json:"deadline,omitempty"`
	// timeline is what happened, oldest first; the first eight and every change of phase stay.
	// +kubebuilder:validation:MaxItems=64
	// +listType=atomic
	// +optional
	Timeline []TimelineEntry `json:"timeline,omitempty"`
	// timelineDropped counts the entries that did not fit.
	// +optional
	TimelineDropped int32 `json:"timelineDropped,omitempty"`
	// conditions are for tools that read conditions: Quarantined, Drained, Repaired.
	// +kubebuilder:validation:MaxItems=8
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:XValidation:rule="self.all(c, c.lastTransitionTime > timestamp('0001-01-01T00:00:00Z'))",message="lastTransitionTime must be a time in RFC 3339, such as 2026-11-23T10:00:00Z"
	// +optional
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// Remediation is one incident on one node, from the fault to the node's return.
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,shortName=rem,categories=roundhouse
// +kubebuilder:selectablefield:JSONPath=".spec.node"
// +kubebuilder:selectablefield:JSONPath=".status.phase"
// +kubebuilder:selectablefield:JSONPath=".spec.policy"
// +kubebuilder:printcolumn:name="Node",type=string,JSONPath=".spec.node"
// +kubebuilder:printcolumn:name="Fault",type=string,JSONPath=".spec.root.code"
// +kubebuilder:printcolumn:name="Phase",type=string,JSONPath=".status.phase"
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=".status.reason"
// +kubebuilder:printcolumn:name="Rung",type=string,JSONPath=".status.step.rung"
// +kubebuilder:printcolumn:name="Message",type=string,JSONPath=".status.message",priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=".metadata.creationTimestamp"
type Remediation struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is the intent.
	Spec RemediationSpec `json:"spec"`
	// status is what happened.
	// +optional
	Status RemediationStatus `json:"status,omitempty"`
}

// RemediationList is a list of Remediation.
// +kubebuilder:object:root=true
type RemediationList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Remediation `json:"items"`
}
