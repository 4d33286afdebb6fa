package v1alpha1

import (
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Mode is how far a policy may go.
// +kubebuilder:validation:Enum=Observe;Quarantine;Remediate
type Mode string

// The modes. Observe changes nothing outside our own objects; Quarantine keeps new work off; Remediate drains and
// repairs too.
const (
	ModeObserve    Mode = "Observe"
	ModeQuarantine Mode = "Quarantine"
	ModeRemediate  Mode = "Remediate"
)

// Response is what a rule does about a fault.
// +kubebuilder:validation:Enum=Ignore;Quarantine;Repair
type Response string

// The responses. Ignore counts and shows, and never acts.
const (
	ResponseIgnore     Response = "Ignore"
	ResponseQuarantine Response = "Quarantine"
	ResponseRepair     Response = "Repair"
)

// When is when the disruptive part of a repair may begin.
// +kubebuilder:validation:Enum=Now;Idle;Window
type When string

// The moments. Idle waits until no work would be lost; Window until a window of the policy is open.
const (
	WhenNow    When = "Now"
	WhenIdle   When = "Idle"
	WhenWindow When = "Window"
)

// AtDeadline is what happens when waiting has lasted too long.
// +kubebuilder:validation:Enum=Escalate;Force
type AtDeadline string

// What happens at a deadline: a human is asked, or the repair begins (by the Eviction API all the same).
const (
	DeadlineEscalate AtDeadline = "Escalate"
	DeadlineForce    AtDeadline = "Force"
)

// FaultScope says how much of a node a fault touches.
// +kubebuilder:validation:Enum=Device;Node
type FaultScope string

// The scopes.
const (
	ScopeDevice FaultScope = "Device"
	ScopeNode   FaultScope = "Node"
)

// NodeConditionMatch matches a condition of the Node that somebody else writes.
type NodeConditionMatch struct {
	// type is the condition's.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=316
	Type string `json:"type"`
	// status is the condition's status that counts as a fault.
	// +kubebuilder:validation:Enum="True";"False";Unknown
	Status corev1.ConditionStatus `json:"status"`
	// for is how long it must have lasted, as a duration such as 2m.
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=24
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,5}(h|m|s|ms))+$')",message="must be a duration such as 90s, 20m or 12h30m; there is no unit for days"
	// +optional
	For metav1.Duration `json:"for,omitempty"`
}

// DeviceTaintMatch matches a taint that a DRA driver itself has put on one of its devices, in its ResourceSlice (KEP-5055).
type DeviceTaintMatch struct {
	// key is the taint's, such as gpu.nvidia.com/xid. Roundhouse's own keys are refused.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=316
	Key string `json:"key"`
	// values are the taint's values, one of which it must have, such as "79"; without them any.
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MaxLength=63
	// +listType=set
	// +optional
	Values []string `json:"values,omitempty"`
	// effects are the taint's effects, one of which it must have; NoSchedule and NoExecute without them. Drivers put None on
	// what is only information, such as an application's own error: nothing disruptive may follow from that.
	// +kubebuilder:validation:MaxItems=3
	// +kubebuilder:validation:items:Enum=None;NoSchedule;NoExecute
	// +listType=set
	// +optional
	Effects []resourcev1.DeviceTaintEffect `json:"effects,omitempty"`
	// for is how long it must have been on, as a duration such as 2m.
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=24
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,5}(h|m|s|ms))+$')",message="must be a duration such as 90s, 20m or 12h30m; there is no unit for days"
	// +optional
	For metav1.Duration `json:"for,omitempty"`
}

// RuleMatch says which faults a rule is for; every field that is set must match.
// +kubebuilder:validation:XValidation:rule="has(self.classes) || has(self.codes) || has(self.severities) || has(self.scope) || has(self.nodeConditions) || has(self.deviceTaints) || has(self.expression) || (has(self.any) && self.any)",message="match is empty: set classes, codes, severities, scope, nodeConditions, deviceTaints or expression, or any: true for every fault"
// +kubebuilder:validation:XValidation:rule="!has(self.any) || !self.any || !(has(self.classes) || has(self.codes) || has(self.severities) || has(self.scope) || has(self.nodeConditions) || has(self.deviceTaints) || has(self.expression))",message="any: true stands alone"
type RuleMatch struct {
	// any matches every fault the agent reports.
	// +optional
	Any bool `json:"any,omitempty"`
	// classes are fault classes, one of which must be the fault's.
	// +kubebuilder:validation:MaxItems=8
	// +listType=set
	// +optional
	Classes []FaultClass `json:"classes,omitempty"`
	// codes are fault codes, one of which must be the fault's.
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=64
	// +listType=set
	// +optional
	Codes []string `json:"codes,omitempty"`
	// severities are one of which must be the fault's.
	// +kubebuilder:validation:MaxItems=3
	// +listType=set
	// +optional
	Severities []Severity `json:"severities,omitempty"`
	// scope is Device for faults of one device, Node for faults of the whole node.
	// +optional
	Scope FaultScope `json:"scope,omitempty"`
	// nodeConditions are Node conditions, of any writer, one of which must hold.
	// +kubebuilder:validation:MaxItems=16
	// +listType=atomic
	// +optional
	NodeConditions []NodeConditionMatch `json:"nodeConditions,omitempty"`
	// deviceTaints are taints that DRA drivers put on their devices themselves, one of which must be on. Such a taint is a
	// fault of that device only where a rule names it here, and for no other rule.
	// +kubebuilder:validation:MaxItems=8
	// +listType=atomic
	// +optional
	DeviceTaints []DeviceTaintMatch `json:"deviceTaints,omitempty"`
	// expression is CEL over fault (code, check, device, class, severity, recommended, count, ageSeconds) and node (name,
	// labels), for what fields cannot say. It must give a bool.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	// +optional
	Expression string `json:"expression,omitempty"`
}

// Rule says what to do about the faults it matches.
// +kubebuilder:validation:XValidation:rule="self.response == 'Repair' ? has(self.ladder) && size(self.ladder) > 0 : !has(self.ladder)",message="ladder is required with response Repair, and only then"
// +kubebuilder:validation:XValidation:rule="self.response == 'Repair' || (!has(self.when) && !has(self.deadline) && !has(self.atDeadline))",message="when, deadline and atDeadline go with response Repair"
// +kubebuilder:validation:XValidation:rule="!has(self.when) || self.when == 'Now' || has(self.deadline)",message="when Idle or Window needs a deadline: every wait has one"
// +kubebuilder:validation:XValidation:rule="!has(self.atDeadline) || has(self.deadline)",message="atDeadline needs a deadline"
// +kubebuilder:validation:XValidation:rule="!has(self.refillStop) || (has(self.when) && self.when == 'Idle' && has(self.atDeadline) && self.atDeadline == 'Force')",message="refillStop goes with when Idle and atDeadline Force: it empties the node for the repair that begins at the deadline"
// +kubebuilder:validation:XValidation:rule="!has(self.refillStop) || !has(self.deadline) || duration(self.refillStop) < duration(self.deadline)",message="refillStop must be shorter than deadline, which it is counted back from"
// +kubebuilder:validation:XValidation:rule="self.response != 'Repair' || !has(self.match.deviceTaints) || self.match.deviceTaints.all(t, !has(t.effects) || !('None' in t.effects))",message="response Repair does not go with a deviceTaints effect of None, which is only information; use Quarantine or Ignore"
type Rule struct {
	// name is how the rule is called in explanations.
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	// +kubebuilder:validation:MaxLength=64
	Name string `json:"name"`
	// match says which faults it is for.
	Match RuleMatch `json:"match"`
	// response is what to do.
	Response Response `json:"response"`
	// when is when the disruptive part may begin; Now without it.
	// +optional
	When When `json:"when,omitempty"`
	// deadline is how long waiting lasts, as a duration such as 12h.
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=24
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,5}(h|m|s|ms))+$')",message="must be a duration such as 90s, 20m or 12h30m; there is no unit for days"
	// +optional
	Deadline *metav1.Duration `json:"deadline,omitempty"`
	// atDeadline is what happens then; Escalate without it.
	// +optional
	AtDeadline AtDeadline `json:"atDeadline,omitempty"`
	// refillStop is how long before the deadline a node that is waited for takes no new work: from then on it has its slot of the
	// budgets and is tainted, pods that lose no work are moved, and the others are left to end by themselves until the deadline.
	// Without it, a shared node that is filled again and again may never be idle, and loses all its work at the deadline.
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=24
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,5}(h|m|s|ms))+$')",message="must be a duration such as 90s, 20m or 12h30m; there is no unit for days"
	// +optional
	RefillStop *metav1.Duration `json:"refillStop,omitempty"`
	// ladder names the rungs to climb, the gentlest first; it is begun at the rung the fault recommends.
	// +kubebuilder:validation:MaxItems=8
	// +kubebuilder:validation:items:MaxLength=64
	// +listType=atomic
	// +optional
	Ladder []string `json:"ladder,omitempty"`
	// planned says that what it matches is planned work, such as a reboot that an update asks for: nothing is broken, so new
	// work is kept off only when its turn has come, and what has failed goes first.
	// +optional
	Planned bool `json:"planned,omitempty"`
}

// KeepServing says up to how many bad devices a node goes on with the rest.
type KeepServing struct {
	// upTo is a number of devices, or a percentage of the node's, rounded down.
	// +kubebuilder:validation:XIntOrString
	// +kubebuilder:validation:XValidation:rule="type(self) == int ? self >= 0 && self <= 64 : self.matches('^([0-9]|[1-9][0-9]|100)%$')",message="must be a number from 0 to 64, or a percentage from 0% to 100%"
	UpTo intstr.IntOrString `json:"upTo"`
}

// RepairNow says from how many bad devices the rest of the node is not waited for.
type RepairNow struct {
	// from is a number of devices, or a percentage of the node's, rounded up: 37% of eight is three.
	// +kubebuilder:validation:XIntOrString
	// +kubebuilder:validation:XValidation:rule="type(self) == int ? self >= 1 && self <= 64 : self.matches('^([1-9]|[1-9][0-9]|100)%$')",message="must be a number from 1 to 64, or a percentage from 1% to 100%"
	From intstr.IntOrString `json:"from"`
}

// DeviceRatio says how many of a node's devices may be bad; it only brings the moment of a repair forward.
type DeviceRatio struct {
	// keepServing says up to how many bad devices the node goes on with the rest.
	// +optional
	KeepServing *KeepServing `json:"keepServing,omitempty"`
	// repairNow says from how many bad devices the rest is worth less than the repair.
	// +optional
	RepairNow *RepairNow `json:"repairNow,omitempty"`
	// smallestUsefulRequest is how many devices the smallest useful job asks for: 8 where jobs ask for whole nodes, and
	// then one bad device is a bad node, whose rest is not waited for.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=64
	// +optional
	SmallestUsefulRequest *int32 `json:"smallestUsefulRequest,omitempty"`
}

// Loop says when repairing the same hardware again and again ends.
type Loop struct {
	// maxRepairs is how many repairs one device (or node, for faults of the node) may have within window.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=50
	// +optional
	MaxRepairs *int32 `json:"maxRepairs,omitempty"`
	// maxBoots is how many boots from any cause the node may have within window before it is not rebooted again.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=16
	// +optional
	MaxBoots *int32 `json:"maxBoots,omitempty"`
	// window is how far back they are counted, such as 720h.
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=24
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,5}(h|m|s|ms))+$')",message="must be a duration such as 90s, 20m or 12h30m; there is no unit for days"
	// +optional
	Window *metav1.Duration `json:"window,omitempty"`
}

// SameSignature holds acts back when many nodes show the same fault at once: then it is rarely the hardware.
type SameSignature struct {
	// nodes is a number, or a percentage of the policy's nodes, rounded down.
	// +kubebuilder:validation:XIntOrString
	// +kubebuilder:validation:XValidation:rule="type(self) == int ? self >= 1 && self <= 1000000 : self.matches('^([1-9]|[1-9][0-9]|100)%$')",message="must be a number from 1 to 1000000, or a percentage from 1% to 100%"
	Nodes intstr.IntOrString `json:"nodes"`
	// minNodes is how many nodes it takes at least.
	// +kubebuilder:validation:Minimum=2
	// +kubebuilder:validation:Maximum=10000
	// +optional
	MinNodes *int32 `json:"minNodes,omitempty"`
	// window is how close together the faults must have begun, such as 10m.
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=24
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,5}(h|m|s|ms))+$')",message="must be a duration such as 90s, 20m or 12h30m; there is no unit for days"
	// +optional
	Window *metav1.Duration `json:"window,omitempty"`
}

// Brake says when the robot stops itself.
type Brake struct {
	// sameSignature holds acts back when many nodes show the same fault at once.
	// +optional
	SameSignature *SameSignature `json:"sameSignature,omitempty"`
}

// Window is a time of the week.
type Window struct {
	// days are the days on which it starts.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=7
	// +kubebuilder:validation:items:Enum=Mon;Tue;Wed;Thu;Fri;Sat;Sun
	// +listType=set
	Days []string `json:"days"`
	// start is the time of day, HH:MM.
	// +kubebuilder:validation:Pattern=`^([01][0-9]|2[0-3]):[0-5][0-9]$`
	// +kubebuilder:validation:MaxLength=5
	Start string `json:"start"`
	// end is the time of day, HH:MM; before start, it is on the next day.
	// +kubebuilder:validation:Pattern=`^([01][0-9]|2[0-3]):[0-5][0-9]$`
	// +kubebuilder:validation:MaxLength=5
	End string `json:"end"`
	// timeZone is an IANA name, such as Asia/Tokyo; UTC without it.
	// +kubebuilder:validation:MaxLength=64
	// +optional
	TimeZone string `json:"timeZone,omitempty"`
}

// RemediationPolicySpec says what to do.
// +kubebuilder:validation:XValidation:rule="!has(self.rules) || self.rules.all(r, !has(r.ladder) || r.ladder.all(l, has(self.rungs) && self.rungs.exists(s, s.name == l)))",message="the ladder of a rule names a rung that spec.rungs does not have"
// +kubebuilder:validation:XValidation:rule="!has(self.rules) || has(self.windows) || !self.rules.exists(r, has(r.when) && r.when == 'Window')",message="a rule with when: Window needs spec.windows"
type RemediationPolicySpec struct {
	// mode is how far it may go.
	// +kubebuilder:default=Observe
	// +optional
	Mode Mode `json:"mode,omitempty"`
	// nodeSelector selects the nodes it governs; empty ({}) selects every node.
	NodeSelector metav1.LabelSelector `json:"nodeSelector"`
	// priority decides between policies that select the same node: the highest governs. A tie is Conflicted, and its nodes
	// are in Observe.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=1000000
	// +optional
	Priority int32 `json:"priority,omitempty"`
	// rules say what to do; the first that matches counts. A fault that none matches is shown, never acted on.
	// +kubebuilder:validation:MaxItems=64
	// +listType=map
	// +listMapKey=name
	// +optional
	Rules []Rule `json:"rules,omitempty"`
	// devices says how many of a node's devices may be bad.
	// +optional
	Devices *DeviceRatio `json:"devices,omitempty"`
	// rungs are the steps that ladders are made of.
	// +kubebuilder:validation:MaxItems=16
	// +listType=map
	// +listMapKey=name
	// +optional
	Rungs []Rung `json:"rungs,omitempty"`
	// drain says how pods are moved.
	// +optional
	Drain *Drain `json:"drain,omitempty"`
	// verify says how a repair is proved.
	// +optional
	Verify *Verify `json:"verify,omitempty"`
	// probation is how long a returned node is watched; a relapse in it climbs a rung. 24h without it.
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=24
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,5}(h|m|s|ms))+$')",message="must be a duration such as 90s, 20m or 12h30m; there is no unit for days"
	// +optional
	Probation *metav1.Duration `json:"probation,omitempty"`
	// loop says when repairing again and again ends.
	// +optional
	Loop *Loop `json:"loop,omitempty"`
	// brake says when the robot stops itself.
	// +optional
	Brake *Brake `json:"brake,omitempty"`
	// windows are the times in which rules with when: Window may act.
	// +kubebuilder:validation:MaxItems=16
	// +listType=atomic
	// +optional
	Windows []Window `json:"windows,omitempty"`
}

// BrakeStatus is whether the robot has stopped itself.
type BrakeStatus struct {
	// state is Released or Holding.
	// +kubebuilder:validation:Enum=Released;Holding
	State string `json:"state"`
	// signature is the fault code that many nodes show.
	// +kubebuilder:validation:MaxLength=64
	// +optional
	Signature string `json:"signature,omitempty"`
	// nodes counts them.
	// +optional
	Nodes int32 `json:"nodes,omitempty"`
	// since is when it began to hold.
	// +kubebuilder:validation:XValidation:rule="self > timestamp('0001-01-01T00:00:00Z')",message="must be a time in RFC 3339, such as 2026-11-23T10:00:00Z"
	// +optional
	Since *metav1.Time `json:"since,omitempty"`
	// releaseWhen says what releases it.
	// +kubebuilder:validation:MaxLength=256
	// +optional
	ReleaseWhen string `json:"releaseWhen,omitempty"`
}

// The states of a brake.
const (
	BrakeReleased = "Released"
	BrakeHolding  = "Holding"
)

// ConditionAccepted is the policy condition that says whether it can be followed.
const ConditionAccepted = "Accepted"

// RemediationPolicyStatus says whether the policy is followed.
type RemediationPolicyStatus struct {
	// observedGeneration is the generation this speaks of.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// matchedNodes counts the nodes it governs.
	// +optional
	MatchedNodes int32 `json:"matchedNodes"`
	// conditions: Accepted is True with reason Valid, or False with Invalid or Conflicted, and its nodes are then in
	// Observe.
	// +kubebuilder:validation:MaxItems=8
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:XValidation:rule="self.all(c, c.lastTransitionTime > timestamp('0001-01-01T00:00:00Z'))",message="lastTransitionTime must be a time in RFC 3339, such as 2026-11-23T10:00:00Z"
	// +optional
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// brake is whether the robot has stopped itself.
	// +optional
	Brake *BrakeStatus `json:"brake,omitempty"`
}

// RemediationPolicy says what to do about which fault on which nodes, and how far to go.
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,shortName=rp,categories=roundhouse
// +kubebuilder:printcolumn:name="Mode",type=string,JSONPath=".spec.mode"
// +kubebuilder:printcolumn:name="Priority",type=integer,JSONPath=".spec.priority"
// +kubebuilder:printcolumn:name="Nodes",type=integer,JSONPath=".status.matchedNodes"
// +kubebuilder:printcolumn:name="Accepted",type=string,JSONPath=".status.conditions[?(@.type=='Accepted')].status"
// +kubebuilder:printcolumn:name="Brake",type=string,JSONPath=".status.brake.state"
// +kubebuilder:printcolumn:name="Why",type=string,JSONPath=".status.conditions[?(@.type=='Accepted')].message",priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=".metadata.creationTimestamp"
type RemediationPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec says what to do.
	Spec RemediationPolicySpec `json:"spec"`
	// status says whether it is followed.
	// +optional
	Status RemediationPolicyStatus `json:"status,omitempty"`
}

// RemediationPolicyList is a list of RemediationPolicy.
// +kubebuilder:object:root=true
type RemediationPolicyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []RemediationPolicy `json:"items"`
}
