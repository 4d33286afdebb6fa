// Package drain plans which pods of a node must go for a repair, in which order, and what stopping them costs. It is
// pure: a plan is a function of what was seen, so the same plan can be carried out, simulated and printed.
package drain

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

// Scope is how much of a node a drain empties.
type Scope string

// The scopes: no pod; the pods that hold a bad device, except those that would lose work on good devices too; or every pod
// of the node.
const (
	ScopeNothing Scope = "Nothing"
	ScopeDevice  Scope = "Device"
	ScopeNode    Scope = "Node"
)

// Wider says whether a scope empties more than another.
func (s Scope) Wider(than Scope) bool {
	order := []Scope{ScopeNothing, ScopeDevice, ScopeNode}
	return slices.Index(order, s) > slices.Index(order, than)
}

// Reasons why a pod is left alone or blocks.
const (
	// ReasonDaemonSet is given for pods that their DaemonSet would put back at once.
	ReasonDaemonSet = "DaemonSet"
	// ReasonMirror is given for pods that the kubelet runs from a file and that no eviction removes.
	ReasonMirror = "MirrorPod"
	// ReasonFinished is given for pods that have ended: nothing runs in them.
	ReasonFinished = "Finished"
	// ReasonOfThisRepair is given for pods that this incident's own Jobs run: they are there for the repair.
	ReasonOfThisRepair = "OfThisRepair"
	// ReasonOtherDevice is given, in a device drain, for pods that hold no bad device.
	ReasonOtherDevice = "OtherDevice"
	// ReasonGoodDevices is given, in a device drain, for pods that hold a bad device and would lose their work on good ones.
	ReasonGoodDevices = "GoodDevices"
	// ReasonUntold is given, in a device drain, for pods of which nobody can tell whether they hold a bad device.
	ReasonUntold = "DeviceUntold"
	// ReasonUnreplicated is given for pods that nothing would create again.
	ReasonUnreplicated = "Unreplicated"
	// ReasonCannotMigrate is given for the pods of virtual machines that have a device of the node's.
	ReasonCannotMigrate = "CannotMigrate"
	// ReasonGateClosed is given for pods whose class has a gate, while the system that it names has not said that its work on
	// the node has ended.
	ReasonGateClosed = "GateClosed"
	// ReasonClassUntold is given for pods of which a class's expression cannot say whether they are of the class: it may be the one
	// that nothing may stop.
	ReasonClassUntold = "ClassUntold"
	// ReasonNever is given for pods whose class says that only a human stops them.
	ReasonNever = "NeverByPolicy"
)

// MaxBlockers is how many blockers are named; a status has no room for more.
const MaxBlockers = 16

// Input is all that a plan depends on.
type Input struct {
	// Now is when the plan is made.
	Now time.Time
	// Pods are the pods bound to the node.
	Pods []corev1.Pod
	// Holding maps a pod to the IDs of the devices it holds, where that is known.
	Holding map[types.UID][]string
	// Untold are pods that may hold a bad device beside what Holding lists, and UntoldWhy is why that cannot be told. A device
	// drain leaves them alone: what is not known to be on broken hardware is not stopped for it.
	Untold    map[types.UID]bool
	UntoldWhy string
	// Scope is how much is emptied.
	Scope Scope
	// Whole, with ScopeDevice, takes the pods too that would lose work on good devices, and those that may hold a bad one: a
	// repair of the device would stop them.
	Whole bool
	// BadDevices are the devices whose pods must go, with ScopeDevice.
	BadDevices []string
	// Incident names the Remediation that it is for, and Home the controller's namespace, in which its Jobs run: their pods
	// stay. Empty where that is not known; then every pod counts.
	Incident, Home string
	// Classes say what stopping a pod costs; the first that matches counts.
	Classes []v1alpha1.WorkloadClass
	// Says evaluates their expressions. Where it is nil, they are taken to fail.
	Says Says
	// Namespaces are the labels of the pods' namespaces, where an expression asks for them and they could be read.
	Namespaces map[string]map[string]string
	// Conditions are the Node's, for the classes that have a gate.
	Conditions []corev1.NodeCondition
}

// Move is a pod that must go.
type Move struct {
	Pod corev1.Pod
	// Cost is what stopping it costs, Class the policy's class that says so, or the default's name.
	Cost  v1alpha1.InterruptionCost
	Class string
	// AtRisk is the work it would lose, in device-hours, and Devices how many devices it holds.
	AtRisk  float64
	Devices int64
}

// LosesWork says whether stopping it loses work.
func (m *Move) LosesWork() bool { return m.Cost == v1alpha1.CostDear }

// Left is a pod that stays, and why.
type Left struct {
	Pod    corev1.Pod
	Reason string
}

// Plan is what a drain does.
type Plan struct {
	// Move lists the pods to evict, the cheapest first.
	Move []Move
	// Terminating are pods that are going already.
	Terminating []corev1.Pod
	// going are those of them that would be moved if they were not.
	going []Move
	// Left are the pods that stay.
	Left []Left
	// Blockers are pods that only a human may stop.
	Blockers []v1alpha1.Blocker
	// AtRisk is what stopping Move and Blockers would lose, in device-hours.
	AtRisk float64
	// Untold counts the pods of Left with ReasonUntold, and UntoldWhy is the input's where there are any.
	Untold    int
	UntoldWhy string
	// Gate is the longest time that a gate which is closed lets this drain wait; 0 where none is.
	Gate time.Duration
	// Jobs counts the pods of Move and Blockers that would lose work.
	Jobs int
}

// Empty says whether nothing is left to wait for.
func (p Plan) Empty() bool {
	return len(p.Move) == 0 && len(p.Terminating) == 0 && len(p.Blockers) == 0
}

// Idle says whether the plan could be carried out without losing any work.
func (p Plan) Idle() bool { return p.Jobs == 0 && len(p.Blockers) == 0 }

// PodsLeft counts the pods that must still go.
func (p Plan) PodsLeft() int { return len(p.Move) + len(p.Terminating) + len(p.Blockers) }

// Risk writes device-hours for people.
func Risk(deviceHours float64) string { return fmt.Sprintf("%.1f device-hours", deviceHours) }

// Make plans a drain.
func Make(in Input) Plan {
	p := Plan{Move: make([]Move, 0, len(in.Pods))}
	classes := compile(&in)
	for i := range in.Pods {
		p.place(&in, classes, &in.Pods[i])
	}
	slices.SortFunc(p.Move, cheapestFirst)
	slices.SortFunc(p.Blockers, func(a, b v1alpha1.Blocker) int { return cmp.Compare(a.Pod, b.Pod) })
	p.Blockers = p.Blockers[:min(len(p.Blockers), MaxBlockers)]
	return p
}

func (p *Plan) place(in *Input, classes []class, pod *corev1.Pod) {
	if reason := leave(in, pod); reason != "" {
		p.Left = append(p.Left, Left{Pod: *pod, Reason: reason})
		if reason == ReasonUntold {
			p.Untold++
			p.UntoldWhy = in.UntoldWhy
		}
		return
	}
	cost, class, untold := costOf(pod, classes)
	var gate *v1alpha1.WorkloadGate
	if untold == nil {
		gate = gateOf(in.Classes, class, cost)
	}
	if gate != nil && isOpen(gate, in.Conditions) {
		gate, cost = nil, v1alpha1.CostCheap // its work has ended.
	}
	onOthers := in.Scope == ScopeDevice && !in.Whole && cost == v1alpha1.CostDear && holdsOther(in.Holding[pod.UID], in.BadDevices)
	if pod.DeletionTimestamp != nil {
		p.Terminating = append(p.Terminating, *pod)
		asked := *pod
		asked.DeletionTimestamp = nil
		if !onOthers && leave(in, &asked) == "" {
			p.going = append(p.going, Move{Pod: *pod, Cost: cost, Class: class})
		}
		return
	}
	if onOthers {
		p.Left = append(p.Left, Left{Pod: *pod, Reason: ReasonGoodDevices})
		return
	}
	if gate != nil {
		p.Gate = max(p.Gate, gate.Deadline.Duration)
		p.Blockers = append(p.Blockers, closed(pod, class, gate))
		return
	}
	risk := atRisk(in, pod, cost)
	p.AtRisk += risk
	if cost == v1alpha1.CostNever {
		p.Blockers = append(p.Blockers, blocker(pod, class, untold))
		return
	}
	if cost == v1alpha1.CostDear {
		p.Jobs++
	}
	p.Move = append(p.Move, Move{Pod: *pod, Cost: cost, Class: class, AtRisk: risk, Devices: devices(in.Holding, pod)})
}

// maxMessage is the bound of a blocker's message, in bytes.
const maxMessage = 256

func blocker(pod *corev1.Pod, class string, untold error) v1alpha1.Blocker {
	b := v1alpha1.Blocker{Pod: pod.Namespace + "/" + pod.Name, Reason: ReasonNever,
		Message: fmt.Sprintf("class %s says that only a human stops it", class)}
	switch {
	case untold != nil:
		b.Reason = ReasonClassUntold
		b.Message = cut(fmt.Sprintf("class %s may be meant for it, so only a human stops it: %v", class, untold))
	case class == defaultMachine:
		b.Reason = ReasonCannotMigrate
		b.Message = "its virtual machine has a device of the node's, so that it cannot be migrated; stop it, or give its pods a class in the policy's drain.classes"
	case class == defaultUnreplicated:
		b.Reason = ReasonUnreplicated
		b.Message = "nothing would create it again; delete it, or give it a class in the policy's drain.classes"
	}
	return b
}

// cut shortens a message to what a blocker has room for, at a rune's boundary; what is no UTF-8 is left out, since the API
// server takes no other.
func cut(text string) string {
	return strings.ToValidUTF8(text[:min(len(text), maxMessage)], "")
}

// leave says why a pod stays, or nothing.
func leave(in *Input, pod *corev1.Pod) string {
	owner := metav1.GetControllerOfNoCopy(pod)
	switch {
	case pod.Annotations[corev1.MirrorPodAnnotationKey] != "":
		return ReasonMirror
	case pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed:
		return ReasonFinished
	case owner != nil && owner.Kind == "DaemonSet":
		return ReasonDaemonSet
	case ofThisRepair(in, pod, owner):
		return ReasonOfThisRepair
	case in.Scope == ScopeDevice && !holdsAny(in.Holding[pod.UID], in.BadDevices):
		return otherDevice(in, pod)
	}
	return ""
}

// OfThisRepair says whether a pod is there for the repair: one that this incident's own Jobs run.
func OfThisRepair(in Input, pod *corev1.Pod) bool {
	return ofThisRepair(&in, pod, metav1.GetControllerOfNoCopy(pod))
}

// ofThisRepair says whether a pod is of a Job that this incident runs. The label alone says nothing, since anybody may put it
// on a pod of theirs: only where nobody but administrators makes pods, the controller's own namespace, is it believed, and there
// only of a Job's pod. One that is going already is waited for as every other.
func ofThisRepair(in *Input, pod *corev1.Pod, owner *metav1.OwnerReference) bool {
	return in.Incident != "" && in.Home != "" && pod.Namespace == in.Home && pod.Labels[v1alpha1.LabelRemediation] == in.Incident &&
		owner != nil && owner.Kind == "Job" && strings.HasPrefix(owner.APIVersion, "batch/") && pod.DeletionTimestamp == nil
}

// otherDevice says why a pod stays that is not known to hold a bad device. One that may, and is going anyway, is waited for.
func otherDevice(in *Input, pod *corev1.Pod) string {
	switch {
	case !in.Untold[pod.UID]:
		return ReasonOtherDevice
	case in.Whole || pod.DeletionTimestamp != nil:
		return ""
	}
	return ReasonUntold
}

func holdsAny(held, bad []string) bool {
	return slices.ContainsFunc(held, func(id string) bool { return slices.Contains(bad, id) })
}

// holdsOther says whether a pod holds a good device too.
func holdsOther(held, bad []string) bool {
	return slices.ContainsFunc(held, func(id string) bool { return !slices.Contains(bad, id) })
}

// LeftFor counts the pods that stay for a reason.
func (p Plan) LeftFor(reason string) int {
	n := 0
	for i := range p.Left {
		if p.Left[i].Reason == reason {
			n++
		}
	}
	return n
}

// atRisk is what a pod would lose: its devices times the time since its last checkpoint, else since its start.
func atRisk(in *Input, pod *corev1.Pod, cost v1alpha1.InterruptionCost) float64 {
	if cost == v1alpha1.CostFree || cost == v1alpha1.CostCheap {
		return 0
	}
	return float64(devices(in.Holding, pod)) * hoursLost(in.Now, pod)
}

// hoursLost is how long a pod has worked since its last checkpoint, else since its start.
func hoursLost(now time.Time, pod *corev1.Pod) float64 {
	since, _ := lastKept(now, pod)
	return hoursSince(now, since)
}

// hoursSince is 0 where there is no time, or it is still to come.
func hoursSince(now, since time.Time) float64 {
	if since.IsZero() {
		return 0
	}
	return max(0, now.Sub(since).Hours())
}

// lastKept is until when a pod's work is kept: its last checkpoint, else its start. A checkpoint in the future counts for
// nothing, so that no tenant can make its work look free for ever, and a missing one only makes it dearer.
func lastKept(now time.Time, pod *corev1.Pod) (at time.Time, checkpointed bool) {
	if pod.Status.StartTime == nil {
		return time.Time{}, false
	}
	began := pod.Status.StartTime.Time
	if at, err := time.Parse(time.RFC3339, pod.Annotations[v1alpha1.AnnotationCheckpoint]); err == nil && at.After(began) && !at.After(now) {
		return at, true
	}
	return began, false
}

func cheapestFirst(a, b Move) int {
	return cmp.Or(
		cmp.Compare(costRank(a.Cost), costRank(b.Cost)),
		cmp.Compare(a.AtRisk, b.AtRisk),
		cmp.Compare(priority(&a.Pod), priority(&b.Pod)),
		cmp.Compare(deletionCost(&a.Pod), deletionCost(&b.Pod)),
		cmp.Compare(a.Pod.Namespace, b.Pod.Namespace),
		cmp.Compare(a.Pod.Name, b.Pod.Name),
	)
}

func costRank(c v1alpha1.InterruptionCost) int {
	return slices.Index([]v1alpha1.InterruptionCost{
		v1alpha1.CostFree, v1alpha1.CostCheap, v1alpha1.CostDear, v1alpha1.CostNever,
	}, c)
}
