package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// RungAction is what a rung does.
// +kubebuilder:validation:Enum=RestartDriver;ResetDevice;Reboot;PowerCycle;Replace;RunJob;External;Escalate
type RungAction string

// The actions of rungs, the gentlest first. The agent does ResetDevice and Reboot; the controller does the others. RunJob and
// External are whatever their templates do. Escalate names a human and ends the ladder.
const (
	RungRestartDriver RungAction = "RestartDriver"
	RungResetDevice   RungAction = "ResetDevice"
	RungReboot        RungAction = "Reboot"
	RungPowerCycle    RungAction = "PowerCycle"
	RungReplace       RungAction = "Replace"
	RungRunJob        RungAction = "RunJob"
	RungExternal      RungAction = "External"
	RungEscalate      RungAction = "Escalate"
)

// ByAgent says whether the agent on the node does it; what is neither the agent's nor a human's is the controller's.
func (a RungAction) ByAgent() bool { return a == RungResetDevice || a == RungReboot }

// RungDrain says what must be empty before a rung.
// +kubebuilder:validation:Enum=Nothing;Devices;Node
type RungDrain string

// The drains of rungs.
const (
	DrainNothing RungDrain = "Nothing"
	DrainDevices RungDrain = "Devices"
	DrainNode    RungDrain = "Node"
)

// LocalReference names an object in the controller's namespace.
type LocalReference struct {
	// name is the object's name.
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$`
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
}

// DriverPod says which pod of the node RestartDriver restarts.
type DriverPod struct {
	// namespace is the pod's, such as gpu-operator.
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	// +kubebuilder:validation:MaxLength=63
	Namespace string `json:"namespace"`
	// podLabels select it, all of them together, such as app: nvidia-driver-daemonset. It must belong to a DaemonSet.
	// +kubebuilder:validation:MinProperties=1
	// +kubebuilder:validation:MaxProperties=16
	PodLabels map[string]string `json:"podLabels"`
}

// Redfish says how PowerCycle finds the node's management controller (BMC).
// +kubebuilder:validation:XValidation:rule="has(self.addressLabel) != has(self.addressAnnotation)",message="one of addressLabel and addressAnnotation says where the address of the BMC is"
type Redfish struct {
	// addressLabel is the label of the Node that has the BMC's host name or IP address.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=317
	// +optional
	AddressLabel string `json:"addressLabel,omitempty"`
	// addressAnnotation is the annotation of the Node that has the BMC's address; it may have a port, as 10.0.0.7:8443.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=317
	// +optional
	AddressAnnotation string `json:"addressAnnotation,omitempty"`
	// secretRef names a Secret of type kubernetes.io/basic-auth in the controller's namespace; its key ca.crt, where it is
	// there, is the authority that the BMC's certificate must be of, else the system's are.
	SecretRef LocalReference `json:"secretRef"`
	// systemID is the Redfish system of the node, where the BMC has several.
	// +kubebuilder:validation:MaxLength=128
	// +optional
	SystemID string `json:"systemID,omitempty"`
}

// ReplaceBy says who replaces the node.
// +kubebuilder:validation:Enum=ClusterAPI;Karpenter
type ReplaceBy string

// Who replaces nodes.
const (
	ReplaceByClusterAPI ReplaceBy = "ClusterAPI"
	ReplaceByKarpenter  ReplaceBy = "Karpenter"
)

// Replace says how the node is replaced by another.
type Replace struct {
	// by says who does it: ClusterAPI marks the node's Machine for remediation, Karpenter has its NodeClaim deleted.
	By ReplaceBy `json:"by"`
}

// RunJob says which Job is run.
type RunJob struct {
	// podTemplateRef names a PodTemplate in the controller's namespace. The Job's pods get the environment variables
	// ROUNDHOUSE_NODE, ROUNDHOUSE_DEVICES, ROUNDHOUSE_FAULTS and ROUNDHOUSE_REMEDIATION.
	PodTemplateRef LocalReference `json:"podTemplateRef"`
	// onNode runs them on the node itself, tolerating our taint and nothing else; without it they run anywhere.
	// +optional
	OnNode bool `json:"onNode,omitempty"`
}

// External names a template that a remediator made for medik8s understands.
type External struct {
	// apiVersion is the template's, such as self-node-remediation.medik8s.io/v1alpha1.
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9.]*[a-z0-9])?/v[0-9][a-z0-9]*$`
	// +kubebuilder:validation:MaxLength=317
	APIVersion string `json:"apiVersion"`
	// kind is the template's; it ends in Template.
	// +kubebuilder:validation:Pattern=`^[A-Z][A-Za-z0-9]*Template$`
	// +kubebuilder:validation:MaxLength=63
	Kind string `json:"kind"`
	// namespace is the template's, and that of what is made from it.
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	// +kubebuilder:validation:MaxLength=63
	Namespace string `json:"namespace"`
	// name is the template's.
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$`
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
}

// Rung is a step that ladders are made of.
// +kubebuilder:validation:XValidation:rule="self.action != 'Escalate' || has(self.message)",message="a rung that escalates needs a message: what the human should do"
// +kubebuilder:validation:XValidation:rule="(self.action == 'RestartDriver') == has(self.driverPod)",message="driverPod goes with action RestartDriver, which needs it: the pod to restart"
// +kubebuilder:validation:XValidation:rule="(self.action == 'PowerCycle') == has(self.redfish)",message="redfish goes with action PowerCycle, which needs it: the node's BMC"
// +kubebuilder:validation:XValidation:rule="(self.action == 'Replace') == has(self.replace)",message="replace goes with action Replace, which needs it: who replaces the node"
// +kubebuilder:validation:XValidation:rule="(self.action == 'RunJob') == has(self.job)",message="job goes with action RunJob, which needs it: what to run"
// +kubebuilder:validation:XValidation:rule="(self.action == 'External') == has(self.external)",message="external goes with action External, which needs it: the remediator's template"
// +kubebuilder:validation:XValidation:rule="!has(self.drain) || self.drain == 'Node' || !(self.action in ['Reboot', 'PowerCycle', 'Replace'])",message="what stops the whole node needs drain: Node"
// +kubebuilder:validation:XValidation:rule="!has(self.drain) || self.drain != 'Nothing' || self.action != 'ResetDevice'",message="a reset kills what runs on the device: drain: Devices or Node"
type Rung struct {
	// name is how ladders call it.
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	// +kubebuilder:validation:MaxLength=64
	Name string `json:"name"`
	// action is what it does.
	Action RungAction `json:"action"`
	// drain says what must be empty before it: Nothing, the bad Devices, or the Node. Without it, Devices for ResetDevice
	// and Node for every other.
	// +optional
	Drain RungDrain `json:"drain,omitempty"`
	// timeout is how long one attempt may take, from asking to the first completed round of checks after it.
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=24
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,5}(h|m|s|ms))+$')",message="must be a duration such as 90s, 20m or 12h30m; there is no unit for days"
	// +optional
	Timeout *metav1.Duration `json:"timeout,omitempty"`
	// attempts is how often it is tried.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=8
	// +optional
	Attempts *int32 `json:"attempts,omitempty"`
	// message says what the human should do, for Escalate.
	// +kubebuilder:validation:MaxLength=512
	// +optional
	Message string `json:"message,omitempty"`
	// driverPod is the pod that RestartDriver restarts.
	// +optional
	DriverPod *DriverPod `json:"driverPod,omitempty"`
	// redfish is how PowerCycle reaches the node's BMC.
	// +optional
	Redfish *Redfish `json:"redfish,omitempty"`
	// replace says who replaces the node, for Replace.
	// +optional
	Replace *Replace `json:"replace,omitempty"`
	// job is what RunJob runs.
	// +optional
	Job *RunJob `json:"job,omitempty"`
	// external is the template of the remediator that External hands the node to.
	// +optional
	External *External `json:"external,omitempty"`
}
