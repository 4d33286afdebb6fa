package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Verify says how a repair is proved.
type Verify struct {
	// settle is how long the node must be without the fault, after the first completed round of checks.
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=24
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,5}(h|m|s|ms))+$')",message="must be a duration such as 90s, 20m or 12h30m; there is no unit for days"
	// +optional
	Settle *metav1.Duration `json:"settle,omitempty"`
	// timeout is how long verification may last before the repair has failed.
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=24
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,5}(h|m|s|ms))+$')",message="must be a duration such as 90s, 20m or 12h30m; there is no unit for days"
	// +optional
	Timeout *metav1.Duration `json:"timeout,omitempty"`
	// burnIn is a Job that the repaired devices must come through before they return to service; without it none is run.
	// +optional
	BurnIn *BurnIn `json:"burnIn,omitempty"`
}

// BurnIn says which Job a repair must come through. It runs on the node, on exactly the devices that were repaired, when the
// fault is gone and has stayed away for as long as verify.settle says.
type BurnIn struct {
	// podTemplateRef names a PodTemplate in the controller's namespace. The Job's pods get the same environment variables as
	// those of a rung's job.
	PodTemplateRef LocalReference `json:"podTemplateRef"`
	// timeout is how long the Job may take; 30m without it.
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=24
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,5}(h|m|s|ms))+$')",message="must be a duration such as 90s, 20m or 12h30m; there is no unit for days"
	// +optional
	Timeout *metav1.Duration `json:"timeout,omitempty"`
	// deviceClassName is the DeviceClass by which the devices are claimed where DRA offers them; without it the one that
	// has their driver's name, such as gpu.nvidia.com.
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$`
	// +kubebuilder:validation:MaxLength=253
	// +optional
	DeviceClassName string `json:"deviceClassName,omitempty"`
}

// BurnInRun is a burn-in that was begun.
type BurnInRun struct {
	// id is the name of its Job, in the controller's namespace.
	// +kubebuilder:validation:MaxLength=63
	ID string `json:"id"`
	// burnIn is the policy's word as it was when it began, so that it can be ended however the policy has changed since.
	BurnIn BurnIn `json:"burnIn"`
	// driver is the DRA driver that the devices are claimed of; empty where the container runtime shows them.
	// +kubebuilder:validation:MaxLength=63
	// +optional
	Driver string `json:"driver,omitempty"`
	// devices are the IDs of the devices it runs on; empty where it asks for none.
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=128
	// +listType=atomic
	// +optional
	Devices []string `json:"devices,omitempty"`
	// state is how far it has come.
	State RemedyState `json:"state"`
	// ran says that a container of it has run: a burn-in that never did says nothing about the devices.
	// +optional
	Ran bool `json:"ran,omitempty"`
	// message says more.
	// +kubebuilder:validation:MaxLength=512
	// +optional
	Message string `json:"message,omitempty"`
	// log is the end of what it has written, once it is over; at most 2 KiB.
	// +kubebuilder:validation:MaxLength=2048
	// +optional
	Log string `json:"log,omitempty"`
	// begun is when it began.
	// +kubebuilder:validation:XValidation:rule="self > timestamp('0001-01-01T00:00:00Z')",message="must be a time in RFC 3339, such as 2026-11-23T10:00:00Z"
	Begun metav1.Time `json:"begun"`
	// finished is when it ended.
	// +kubebuilder:validation:XValidation:rule="self > timestamp('0001-01-01T00:00:00Z')",message="must be a time in RFC 3339, such as 2026-11-23T10:00:00Z"
	// +optional
	Finished *metav1.Time `json:"finished,omitempty"`
}
