package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Step is where on the ladder an incident is.
type Step struct {
	// rung is the rung's name.
	// +kubebuilder:validation:MaxLength=64
	// +optional
	Rung string `json:"rung,omitempty"`
	// index is the rung's place on the rule's ladder, from 0.
	// +kubebuilder:validation:Minimum=0
	// +optional
	Index int32 `json:"index"`
	// attempt counts the attempts on this rung, from 1; 0 before the first.
	// +kubebuilder:validation:Minimum=0
	// +optional
	Attempt int32 `json:"attempt"`
	// actionID is the id of the action asked for this attempt.
	// +kubebuilder:validation:MaxLength=128
	// +optional
	ActionID string `json:"actionID,omitempty"`
	// devices are the IDs of the devices the attempt is for; empty where it is for the whole node.
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=128
	// +listType=atomic
	// +optional
	Devices []string `json:"devices,omitempty"`
	// bootID is the boot the attempt was decided on.
	// +kubebuilder:validation:MaxLength=64
	// +optional
	BootID string `json:"bootID,omitempty"`
	// deadline is when the attempt has failed if it has not ended.
	// +kubebuilder:validation:XValidation:rule="self > timestamp('0001-01-01T00:00:00Z')",message="must be a time in RFC 3339, such as 2026-11-23T10:00:00Z"
	// +optional
	Deadline *metav1.Time `json:"deadline,omitempty"`
	// remedy is how far an attempt has come that the controller makes; the agent's answers are in the NodeHealth.
	// +optional
	Remedy *RemedyStatus `json:"remedy,omitempty"`
	// burnIn is how far the burn-in has come that is to prove the attempt.
	// +optional
	BurnIn *BurnInRun `json:"burnIn,omitempty"`
}

// RemedyState is how far a remedy has come.
// +kubebuilder:validation:Enum=Begun;Running;Succeeded;Failed;Refused
type RemedyState string

// The states of a remedy. Begun is written before the act: a controller that finds it does not know whether the act
// happened, and does not do it again where that matters.
const (
	RemedyBegun     RemedyState = "Begun"
	RemedyRunning   RemedyState = "Running"
	RemedySucceeded RemedyState = "Succeeded"
	RemedyFailed    RemedyState = "Failed"
	RemedyRefused   RemedyState = "Refused"
)

// Over says whether the remedy has ended.
func (s RemedyState) Over() bool {
	return s == RemedySucceeded || s == RemedyFailed || s == RemedyRefused
}

// RemedyStatus is how far a remedy has come.
type RemedyStatus struct {
	// rung is the rung as it was when the attempt began, so that it can be ended however the policy has changed since.
	Rung Rung `json:"rung"`
	// state is how far it has come.
	State RemedyState `json:"state"`
	// message says more.
	// +kubebuilder:validation:MaxLength=512
	// +optional
	Message string `json:"message,omitempty"`
	// begun is when it began.
	// +kubebuilder:validation:XValidation:rule="self > timestamp('0001-01-01T00:00:00Z')",message="must be a time in RFC 3339, such as 2026-11-23T10:00:00Z"
	Begun metav1.Time `json:"begun"`
	// finished is when it ended: what proves it must have been seen after that.
	// +kubebuilder:validation:XValidation:rule="self > timestamp('0001-01-01T00:00:00Z')",message="must be a time in RFC 3339, such as 2026-11-23T10:00:00Z"
	// +optional
	Finished *metav1.Time `json:"finished,omitempty"`
}

// AttemptResult is how an attempt ended.
// +kubebuilder:validation:Enum=Repaired;Relapsed;NotRepaired;Failed;Interrupted;Unsupported;Refused;Withdrawn
type AttemptResult string

// The results of attempts. Repaired lasted so far, Relapsed did not last. Nothing was done where the agent refused, does
// not support the action, or the asking was withdrawn.
const (
	AttemptRepaired    AttemptResult = "Repaired"
	AttemptRelapsed    AttemptResult = "Relapsed"
	AttemptNotRepaired AttemptResult = "NotRepaired"
	AttemptFailed      AttemptResult = "Failed"
	AttemptInterrupted AttemptResult = "Interrupted"
	AttemptUnsupported AttemptResult = "Unsupported"
	AttemptRefused     AttemptResult = "Refused"
	AttemptWithdrawn   AttemptResult = "Withdrawn"
)

// Done says whether an attempt that ended so did something to the node.
func (r AttemptResult) Done() bool {
	return r != AttemptUnsupported && r != AttemptRefused && r != AttemptWithdrawn
}

// Attempt is one repair that was tried.
type Attempt struct {
	// rung is the rung's name.
	// +kubebuilder:validation:MaxLength=64
	Rung string `json:"rung"`
	// index is the rung's place on the rule's ladder, from 0.
	// +kubebuilder:validation:Minimum=0
	// +optional
	Index int32 `json:"index"`
	// devices are the IDs of the devices that were bad then; empty where the whole node was.
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=128
	// +listType=atomic
	// +optional
	Devices []string `json:"devices,omitempty"`
	// actionID is the id of the action asked for.
	// +kubebuilder:validation:MaxLength=128
	// +optional
	ActionID string `json:"actionID,omitempty"`
	// at is when it ended.
	// +kubebuilder:validation:XValidation:rule="self > timestamp('0001-01-01T00:00:00Z')",message="must be a time in RFC 3339, such as 2026-11-23T10:00:00Z"
	At metav1.Time `json:"at"`
	// result is how.
	Result AttemptResult `json:"result"`
	// message says more.
	// +kubebuilder:validation:MaxLength=512
	// +optional
	Message string `json:"message,omitempty"`
	// burnIn is the burn-in that was to prove it, where one was begun; its log is kept as evidence.
	// +optional
	BurnIn *BurnInRun `json:"burnIn,omitempty"`
}
