package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Summary is a node's health in one word.
// +kubebuilder:validation:Enum=Healthy;Faulty;Unknown;Acting
type Summary string

// The summaries. Acting is set while an action that was asked of the agent runs.
const (
	SummaryHealthy Summary = "Healthy"
	SummaryFaulty  Summary = "Faulty"
	SummaryUnknown Summary = "Unknown"
	SummaryActing  Summary = "Acting"
)

// ActionType is something an agent can be asked to do to its node.
// +kubebuilder:validation:Enum=ResetDevice;Reboot
type ActionType string

// The actions an agent may support; it lists those it does in status.supportedActions.
const (
	ActionResetDevice ActionType = "ResetDevice"
	ActionReboot      ActionType = "Reboot"
)

// FaultClass says whose fault a fault is.
// +kubebuilder:validation:Enum=Hardware;Driver;Fabric;Host;Application;Unknown
type FaultClass string

// The classes. Only an Application fault is known not to be the machine's; Unknown covers codes no catalogue lists.
const (
	ClassHardware    FaultClass = "Hardware"
	ClassDriver      FaultClass = "Driver"
	ClassFabric      FaultClass = "Fabric"
	ClassHost        FaultClass = "Host"
	ClassApplication FaultClass = "Application"
	ClassUnknown     FaultClass = "Unknown"
)

// Severity says how much a fault matters to work on the node.
// +kubebuilder:validation:Enum=Critical;Warning;Info
type Severity string

// The severities. Critical means that work on the device fails or computes wrongly.
const (
	SeverityCritical Severity = "Critical"
	SeverityWarning  Severity = "Warning"
	SeverityInfo     Severity = "Info"
)

// Recommendation is the least repair that the fault's catalogue or the driver itself names.
// +kubebuilder:validation:Enum=None;RestartApplication;RestartDriver;ResetDevice;Reboot;PowerCycle;Replace;Human
type Recommendation string

// The recommendations, from nothing to a human.
const (
	RecommendNone               Recommendation = "None"
	RecommendRestartApplication Recommendation = "RestartApplication"
	RecommendRestartDriver      Recommendation = "RestartDriver"
	RecommendResetDevice        Recommendation = "ResetDevice"
	RecommendReboot             Recommendation = "Reboot"
	RecommendPowerCycle         Recommendation = "PowerCycle"
	RecommendReplace            Recommendation = "Replace"
	RecommendHuman              Recommendation = "Human"
)

// NodeHealthSpec is the controller's word to the agent.
// +kubebuilder:validation:XValidation:rule="self.nodeUID == oldSelf.nodeUID",message="spec.nodeUID cannot change: a re-created node gets a new NodeHealth"
// +kubebuilder:validation:XValidation:rule="self.fence >= oldSelf.fence",message="spec.fence only rises: this write was decided on an older state"
// +kubebuilder:validation:XValidation:rule="self.fence > oldSelf.fence || (has(self.action) == has(oldSelf.action) && (!has(self.action) || self.action == oldSelf.action))",message="spec.action cannot change without raising spec.fence"
type NodeHealthSpec struct {
	// nodeUID is the UID of the Node this object speaks of; it cannot change.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	NodeUID string `json:"nodeUID"`
	// fence rises with every write of spec. A writer that was frozen and thawed fails here.
	// +kubebuilder:validation:Minimum=0
	// +optional
	Fence int64 `json:"fence"`
	// action is the one thing the agent is asked to do, if any.
	// +optional
	Action *Action `json:"action,omitempty"`
}

// Action is one thing asked of an agent.
type Action struct {
	// id names this asking; the agent does an id at most once.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	ID string `json:"id"`
	// type is what to do.
	Type ActionType `json:"type"`
	// devices are the IDs of the devices to act on, for an action on devices.
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=128
	// +listType=atomic
	// +optional
	Devices []string `json:"devices,omitempty"`
	// bootID is the boot the decision was made on; in another boot the agent refuses.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	BootID string `json:"bootID"`
	// notAfter is when the asking lapses; after it the agent refuses.
	// +kubebuilder:validation:XValidation:rule="self > timestamp('0001-01-01T00:00:00Z')",message="must be a time in RFC 3339, such as 2026-11-23T10:00:00Z"
	NotAfter metav1.Time `json:"notAfter"`
}

// ActionState is how far an action came.
// +kubebuilder:validation:Enum=Accepted;Started;Done
type ActionState string

// The states of an action, in order.
const (
	ActionAccepted ActionState = "Accepted"
	ActionStarted  ActionState = "Started"
	ActionDone     ActionState = "Done"
)

// ActionResult is how an action ended.
// +kubebuilder:validation:Enum=Succeeded;Failed;Refused;Unsupported;Interrupted
type ActionResult string

// The results. Refused means that nothing was done; Interrupted that nobody knows how far it came.
const (
	ResultSucceeded   ActionResult = "Succeeded"
	ResultFailed      ActionResult = "Failed"
	ResultRefused     ActionResult = "Refused"
	ResultUnsupported ActionResult = "Unsupported"
	ResultInterrupted ActionResult = "Interrupted"
)

// ActionStatus is the agent's answer to spec.action.
type ActionStatus struct {
	// id is the id of the action this speaks of.
	// +kubebuilder:validation:MaxLength=128
	ID string `json:"id"`
	// state is how far it came.
	State ActionState `json:"state"`
	// result is how it ended, once it is Done.
	// +optional
	Result ActionResult `json:"result,omitempty"`
	// reason is a word for why, in CamelCase.
	// +kubebuilder:validation:MaxLength=64
	// +optional
	Reason string `json:"reason,omitempty"`
	// message says why in a sentence.
	// +kubebuilder:validation:MaxLength=512
	// +optional
	Message string `json:"message,omitempty"`
	// started is when the act began.
	// +kubebuilder:validation:XValidation:rule="self > timestamp('0001-01-01T00:00:00Z')",message="must be a time in RFC 3339, such as 2026-11-23T10:00:00Z"
	// +optional
	Started *metav1.Time `json:"started,omitempty"`
	// finished is when it ended.
	// +kubebuilder:validation:XValidation:rule="self > timestamp('0001-01-01T00:00:00Z')",message="must be a time in RFC 3339, such as 2026-11-23T10:00:00Z"
	// +optional
	Finished *metav1.Time `json:"finished,omitempty"`
}

// Boot is one start of the node.
type Boot struct {
	// id is the kernel's boot ID.
	// +kubebuilder:validation:MaxLength=64
	ID string `json:"id"`
	// at is when the kernel started.
	// +kubebuilder:validation:XValidation:rule="self > timestamp('0001-01-01T00:00:00Z')",message="must be a time in RFC 3339, such as 2026-11-23T10:00:00Z"
	At metav1.Time `json:"at"`
	// cause says whether Roundhouse asked for it.
	Cause BootCause `json:"cause"`
	// action is the id of the action that caused it, where one of ours did.
	// +kubebuilder:validation:MaxLength=128
	// +optional
	Action string `json:"action,omitempty"`
}

// BootCause says why a node started.
// +kubebuilder:validation:Enum=Roundhouse;Other
type BootCause string

// The causes that can be told apart without out-of-band help.
const (
	BootByRoundhouse BootCause = "Roundhouse"
	BootByOther      BootCause = "Other"
)

// Round says which round of checks was last completed by every check.
type Round struct {
	// bootID is the boot it ran in.
	// +kubebuilder:validation:MaxLength=64
	BootID string `json:"bootID"`
	// afterAction is the id of the last action done before the round began.
	// +kubebuilder:validation:MaxLength=128
	// +optional
	AfterAction string `json:"afterAction,omitempty"`
	// at is when it ended; republished only with another change.
	// +kubebuilder:validation:XValidation:rule="self > timestamp('0001-01-01T00:00:00Z')",message="must be a time in RFC 3339, such as 2026-11-23T10:00:00Z"
	At metav1.Time `json:"at"`
}

// DeviceHealth is a device's health in one word.
// +kubebuilder:validation:Enum=Healthy;Unhealthy;Unknown;Missing
type DeviceHealth string

// The healths of a device.
const (
	DeviceHealthy   DeviceHealth = "Healthy"
	DeviceUnhealthy DeviceHealth = "Unhealthy"
	DeviceUnknown   DeviceHealth = "Unknown"
	DeviceMissing   DeviceHealth = "Missing"
)

// LinkBaseline is what a PCIe link is expected to be, and how that is known.
type LinkBaseline struct {
	// width in lanes.
	// +kubebuilder:validation:Minimum=0
	Width int32 `json:"width"`
	// gts is the speed a lane, in GT/s.
	// +kubebuilder:validation:MaxLength=8
	GTs string `json:"gts"`
	// from says how it is known: the device's maximum, its peers, or learned at the first healthy boot.
	// +kubebuilder:validation:Enum=Maximum;Peers;Learned;Declared
	From string `json:"from"`
}

// Link is a device's PCIe link.
type Link struct {
	// width in lanes, now.
	// +kubebuilder:validation:Minimum=0
	Width int32 `json:"width"`
	// maxWidth is the most lanes the device and its port can train.
	// +kubebuilder:validation:Minimum=0
	MaxWidth int32 `json:"maxWidth"`
	// gts is the speed a lane now, in GT/s; an idle device may save power at a lower one.
	// +kubebuilder:validation:MaxLength=8
	GTs string `json:"gts"`
	// maxGTs is the highest speed a lane, in GT/s.
	// +kubebuilder:validation:MaxLength=8
	// +optional
	MaxGTs string `json:"maxGTs,omitempty"`
	// baseline is what the link is held against.
	// +optional
	Baseline *LinkBaseline `json:"baseline,omitempty"`
}

// Device is one accelerator of a node.
type Device struct {
	// id is the best identity known: UUID, else serial, else model at slot.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	ID string `json:"id"`
	// vendor is the maker's name.
	// +kubebuilder:validation:MaxLength=32
	// +optional
	Vendor string `json:"vendor,omitempty"`
	// model is the product's name.
	// +kubebuilder:validation:MaxLength=64
	// +optional
	Model string `json:"model,omitempty"`
	// serial is the maker's serial number.
	// +kubebuilder:validation:MaxLength=64
	// +optional
	Serial string `json:"serial,omitempty"`
	// pci is the PCI address, domain:bus:device.function; it may change between boots.
	// +kubebuilder:validation:MaxLength=16
	// +optional
	PCI string `json:"pci,omitempty"`
	// boundTo is the kernel driver that holds the device; vfio-pci means it is passed through to a virtual machine.
	// +kubebuilder:validation:MaxLength=32
	// +optional
	BoundTo string `json:"boundTo,omitempty"`
	// driver is the driver's version.
	// +kubebuilder:validation:MaxLength=32
	// +optional
	Driver string `json:"driver,omitempty"`
	// firmware is the device firmware's version.
	// +kubebuilder:validation:MaxLength=32
	// +optional
	Firmware string `json:"firmware,omitempty"`
	// slot is the place in the chassis, which stays when the device is replaced.
	// +kubebuilder:validation:MaxLength=32
	// +optional
	Slot string `json:"slot,omitempty"`
	// resetDomain is the same for devices that can only be reset together, such as GPUs before Ampere that NVLink joins; empty
	// for one that can be reset alone.
	// +kubebuilder:validation:MaxLength=64
	// +optional
	ResetDomain string `json:"resetDomain,omitempty"`
	// health is the device's health in one word.
	Health DeviceHealth `json:"health"`
	// link is the PCIe link.
	// +optional
	Link *Link `json:"link,omitempty"`
}

// Fault is something wrong, as seen on the node.
type Fault struct {
	// code names what is wrong, such as Xid79 or PCIDeviceMissing; docs/checks lists them.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	Code string `json:"code"`
	// check is the check that saw it.
	// +kubebuilder:validation:MaxLength=64
	Check string `json:"check"`
	// device is the ID of the device it is on; empty for a fault of the whole node.
	// +kubebuilder:validation:MaxLength=128
	// +optional
	Device string `json:"device,omitempty"`
	// class says whose fault it is.
	Class FaultClass `json:"class"`
	// severity says how much it matters.
	Severity Severity `json:"severity"`
	// recommended is the least repair its catalogue names.
	// +optional
	Recommended Recommendation `json:"recommended,omitempty"`
	// firstSeen is when it was first seen since it last cleared.
	// +kubebuilder:validation:XValidation:rule="self > timestamp('0001-01-01T00:00:00Z')",message="must be a time in RFC 3339, such as 2026-11-23T10:00:00Z"
	FirstSeen metav1.Time `json:"firstSeen"`
	// lastSeen is when it was last seen; republished when count reaches the next power of two.
	// +kubebuilder:validation:XValidation:rule="self > timestamp('0001-01-01T00:00:00Z')",message="must be a time in RFC 3339, such as 2026-11-23T10:00:00Z"
	LastSeen metav1.Time `json:"lastSeen"`
	// count is how often it was seen; republished at powers of two.
	// +kubebuilder:validation:Minimum=1
	Count int64 `json:"count"`
	// root says that this fault is the cause of the others of its burst.
	// +optional
	Root bool `json:"root,omitempty"`
	// causedBy is the code of the root of its burst, where it is not the root.
	// +kubebuilder:validation:MaxLength=64
	// +optional
	CausedBy string `json:"causedBy,omitempty"`
	// evidence is the line or the reading that shows it.
	// +kubebuilder:validation:MaxLength=512
	// +optional
	Evidence string `json:"evidence,omitempty"`
}

// CheckStatus is a check that does not pass, or could not look.
type CheckStatus struct {
	// name is the check's.
	// +kubebuilder:validation:MaxLength=64
	Name string `json:"name"`
	// result is Failing, or Unknown when the check could not look.
	// +kubebuilder:validation:Enum=Failing;Unknown
	Result string `json:"result"`
	// reason is a word for why, in CamelCase.
	// +kubebuilder:validation:MaxLength=64
	// +optional
	Reason string `json:"reason,omitempty"`
	// message says why in a sentence.
	// +kubebuilder:validation:MaxLength=256
	// +optional
	Message string `json:"message,omitempty"`
	// since is when it began.
	// +kubebuilder:validation:XValidation:rule="self > timestamp('0001-01-01T00:00:00Z')",message="must be a time in RFC 3339, such as 2026-11-23T10:00:00Z"
	Since metav1.Time `json:"since"`
}

// Holder is a container that a device plugin gave a device with a fault to.
type Holder struct {
	// device is the ID of the device.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	Device string `json:"device"`
	// namespace is the pod's.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Namespace string `json:"namespace"`
	// pod is the pod's name.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Pod string `json:"pod"`
	// container is the container's name, where it is known.
	// +kubebuilder:validation:MaxLength=63
	// +optional
	Container string `json:"container,omitempty"`
}

// NodeHealthStatus is the agent's word to everybody.
// +kubebuilder:validation:XValidation:rule="!has(self.holders) || has(self.holdersAt)",message="status.holders needs status.holdersAt: nobody can tell which pod is meant otherwise"
type NodeHealthStatus struct {
	// summary is the node's health in one word.
	// +optional
	Summary Summary `json:"summary,omitempty"`
	// bootID is the kernel's boot ID now.
	// +kubebuilder:validation:MaxLength=64
	// +optional
	BootID string `json:"bootID,omitempty"`
	// boots are the last starts of the node, newest last.
	// +kubebuilder:validation:MaxItems=16
	// +listType=atomic
	// +optional
	Boots []Boot `json:"boots,omitempty"`
	// agentVersion is the version of the agent that wrote this.
	// +kubebuilder:validation:MaxLength=64
	// +optional
	AgentVersion string `json:"agentVersion,omitempty"`
	// supportedActions are the actions this agent can do on this node.
	// +kubebuilder:validation:MaxItems=8
	// +listType=atomic
	// +optional
	SupportedActions []ActionType `json:"supportedActions,omitempty"`
	// completedRound is the last round that every check completed.
	// +optional
	CompletedRound *Round `json:"completedRound,omitempty"`
	// devices are the accelerators known on this node, missing ones included.
	// +kubebuilder:validation:MaxItems=64
	// +listType=atomic
	// +optional
	Devices []Device `json:"devices,omitempty"`
	// faults are what is wrong, root causes first.
	// +kubebuilder:validation:MaxItems=64
	// +listType=atomic
	// +optional
	Faults []Fault `json:"faults,omitempty"`
	// faultsDropped counts the faults that did not fit the list.
	// +kubebuilder:validation:Minimum=0
	// +optional
	FaultsDropped int32 `json:"faultsDropped,omitempty"`
	// checks are the checks that do not pass.
	// +kubebuilder:validation:MaxItems=32
	// +listType=atomic
	// +optional
	Checks []CheckStatus `json:"checks,omitempty"`
	// holders are the containers that hold a device with a fault that matters, by the kubelet's word of holdersAt. They are of
	// device plugins only: what DRA gave stands in ResourceClaims.
	// +kubebuilder:validation:MaxItems=64
	// +listType=atomic
	// +optional
	Holders []Holder `json:"holders,omitempty"`
	// holdersUnknown says why it cannot be told, or not in full, who holds such a device. Where it is empty, nobody holds one
	// whom holders does not list.
	// +kubebuilder:validation:MaxLength=256
	// +optional
	HoldersUnknown string `json:"holdersUnknown,omitempty"`
	// holdersAt is when the kubelet was asked, by the node's clock; republished with another change, or after five minutes. A
	// pod that started later is not meant.
	// +kubebuilder:validation:XValidation:rule="self > timestamp('0001-01-01T00:00:00Z')",message="must be a time in RFC 3339, such as 2026-11-23T10:00:00Z"
	// +optional
	HoldersAt *metav1.Time `json:"holdersAt,omitempty"`
	// action is the answer to spec.action.
	// +optional
	Action *ActionStatus `json:"action,omitempty"`
}

// NodeHealth is the contract between the agent on a node and the controller. It has the Node's name, is created by the
// controller and owned by the Node.
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,path=nodehealths,shortName=nh,categories=roundhouse
// +kubebuilder:selectablefield:JSONPath=".status.summary"
// +kubebuilder:printcolumn:name="Summary",type=string,JSONPath=".status.summary"
// +kubebuilder:printcolumn:name="Fault",type=string,JSONPath=".status.faults[0].code"
// +kubebuilder:printcolumn:name="Device",type=string,JSONPath=".status.faults[0].device",priority=1
// +kubebuilder:printcolumn:name="Action",type=string,JSONPath=".spec.action.type"
// +kubebuilder:printcolumn:name="State",type=string,JSONPath=".status.action.state"
// +kubebuilder:printcolumn:name="Agent",type=string,JSONPath=".status.agentVersion",priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=".metadata.creationTimestamp"
type NodeHealth struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is the controller's.
	Spec NodeHealthSpec `json:"spec"`
	// status is the agent's.
	// +optional
	Status NodeHealthStatus `json:"status,omitempty"`
}

// NodeHealthList is a list of NodeHealth.
// +kubebuilder:object:root=true
type NodeHealthList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []NodeHealth `json:"items"`
}
