package v1alpha1

// Keys that Roundhouse puts on objects of others. Nothing else on them is ever changed.
const (
	// TaintQuarantined keeps new pods off a node; its value is the Remediation that put it there.
	TaintQuarantined = "roundhouse.dev/quarantined"
	// DeviceTaintQuarantined is the key of the taint that a DeviceTaintRule of ours gives one device.
	DeviceTaintQuarantined = "roundhouse.dev/quarantined"
	// AnnotationClaim marks a Node as being worked on: "<remediation name>/<remediation UID>".
	AnnotationClaim = "roundhouse.dev/claim"
	// AnnotationPrior records, as a JSON object, the values that the claim's annotations replaced, so that they
	// are restored when the claim ends.
	AnnotationPrior = "roundhouse.dev/prior"
	// AnnotationCheckpoint is when a pod last saved its work, RFC 3339; a job may keep it up to date. It may make an
	// interruption cheaper, never put a deadline off.
	AnnotationCheckpoint = "roundhouse.dev/last-checkpoint"
	// AnnotationMaintenance asks, on a Node, for planned work: a JSON object that kubectl roundhouse maintain writes.
	AnnotationMaintenance = "roundhouse.dev/maintenance"
	// LabelRemediation marks an object that belongs to a Remediation, by name.
	LabelRemediation = "roundhouse.dev/remediation"
	// AnnotationNode and AnnotationDevice say, on a DeviceTaintRule of ours, which node and which device ID it is about.
	AnnotationNode   = "roundhouse.dev/node"
	AnnotationDevice = "roundhouse.dev/device"
	// AnnotationPaused records, on a Node, which of the GPU operator's operands were paused there, and what their labels said
	// before: {"by": "<remediation name>/<remediation UID>", "labels": {...}}.
	AnnotationPaused = "roundhouse.dev/paused"
	// AnnotationDriverPod records, on a Node, the driver pod that an attempt restarts: "<attempt>/<pod UID>". No other pod is
	// ever taken for it, whatever a crash left open.
	AnnotationDriverPod = "roundhouse.dev/driver-pod"
	// FinalizerRemediation keeps a Remediation until what it put on is off again.
	FinalizerRemediation = "roundhouse.dev/release"

	// CheckNodeCondition is the check that a fault made of somebody else's Node condition names.
	CheckNodeCondition = "node-condition"
	// CheckMaintenance is the check that planned work names which a human asked for, and CodeMaintenance its code.
	CheckMaintenance = "maintenance"
	CodeMaintenance  = "Maintenance"
	// CheckDeviceTaint is the check that a fault made of a DRA driver's own taint on its device names.
	CheckDeviceTaint = "device-taint"
	// OwnDomain begins every key of ours, with a slash after it.
	OwnDomain = "roundhouse.dev"

	// ConditionHealthy is the Node condition that the agent owns.
	ConditionHealthy = "RoundhouseHealthy"
	// ConditionReporting is the Node condition that the controller owns: whether the agent's word is fresh. Where it
	// is not True, readers treat ConditionHealthy as Unknown.
	ConditionReporting = "RoundhouseReporting"

	// ReasonLifecycle is the reason of the Node conditions of KEP-5683 that the controller sets; one with another reason is
	// somebody else's word.
	ReasonLifecycle = "Roundhouse"

	// ImplicitBudget is the name of the budget that the controller keeps for nodes that no other budget selects.
	ImplicitBudget = "implicit"

	// ControlPlaneBudget is the name of the budget that the controller makes for nodes with LabelControlPlane, of one node, beside
	// the others that select them. It is an administrator's to change.
	ControlPlaneBudget = "control-plane"
	// LabelControlPlane is on the nodes that run the cluster's control plane
	// (https://kubernetes.io/docs/reference/labels-annotations-taints/#node-role-kubernetes-io-control-plane).
	LabelControlPlane = "node-role.kubernetes.io/control-plane"
)
