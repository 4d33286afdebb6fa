package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// InterruptionCost is what stopping a pod costs.
// +kubebuilder:validation:Enum=Free;Cheap;Dear;Never
type InterruptionCost string

// The costs. Free is pre-warmed or idle; Cheap is replaced elsewhere at once; Dear loses work; Never is stopped only by
// a human.
const (
	CostFree  InterruptionCost = "Free"
	CostCheap InterruptionCost = "Cheap"
	CostDear  InterruptionCost = "Dear"
	CostNever InterruptionCost = "Never"
)

// WorkloadMatch says which pods a class is for; every field that is set must match.
// +kubebuilder:validation:XValidation:rule="has(self.podSelector) || has(self.namespaces) || has(self.ownerKinds) || has(self.gang) || has(self.expression)",message="match is empty: set podSelector, namespaces, ownerKinds, gang or expression"
type WorkloadMatch struct {
	// podSelector selects pods by label.
	// +optional
	PodSelector *metav1.LabelSelector `json:"podSelector,omitempty"`
	// namespaces are the namespaces it is for.
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=63
	// +listType=set
	// +optional
	Namespaces []string `json:"namespaces,omitempty"`
	// ownerKinds are kinds of the pod's controller, such as Job.
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MaxLength=63
	// +listType=set
	// +optional
	OwnerKinds []string `json:"ownerKinds,omitempty"`
	// gang is whether the pod runs only together with others.
	// +optional
	Gang *bool `json:"gang,omitempty"`
	// expression is CEL for what fields cannot say, over pod (name, namespace, labels, annotations, ownerReferences, priority,
	// priorityClassName, schedulerName, runtimeClassName, serviceAccountName, nodeSelector), owner (apiVersion, kind and name of
	// the pod's controller, empty where it has none) and namespaceObject (name, labels). It must give a bool. It is asked where the other
	// fields match; where it fails on a pod, such as by reading a label that the pod does not have, only a human stops that pod.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	// +optional
	Expression string `json:"expression,omitempty"`
}

// WorkloadGate is another system's word that its work on a node has ended.
type WorkloadGate struct {
	// nodeCondition is the type of a condition of the Node that this system sets to True when nothing of its work is left there.
	// +kubebuilder:validation:Pattern=`^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$`
	// +kubebuilder:validation:MaxLength=316
	NodeCondition string `json:"nodeCondition"`
	// deadline is how long a drain waits for it, where that is longer than the drain's own deadline; then a human is asked.
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=24
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,5}(h|m|s|ms))+$')",message="must be a duration such as 90s, 20m or 12h30m; there is no unit for days"
	Deadline metav1.Duration `json:"deadline"`
}

// WorkloadClass gives the pods it matches an interruption cost.
// +kubebuilder:validation:XValidation:rule="!has(self.gate) || self.cost == 'Never'",message="gate goes with cost Never: it is the word without which the pods are not stopped"
type WorkloadClass struct {
	// name is how the class is called in explanations.
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	// +kubebuilder:validation:MaxLength=64
	Name string `json:"name"`
	// match says which pods it is for.
	Match WorkloadMatch `json:"match"`
	// cost is what stopping such a pod costs.
	Cost InterruptionCost `json:"cost"`
	// gate says, with cost Never, whose word lets the pods be moved after all: of those that another scheduler fills with work
	// which Kubernetes does not see, such as Slurm.
	// +optional
	Gate *WorkloadGate `json:"gate,omitempty"`
}

// DrainBy is how a drain stops pods.
// +kubebuilder:validation:Enum=Evict;Delete;ForceDelete
type DrainBy string

// The means, each on top of those before. Evict asks for an eviction, which a PodDisruptionBudget may refuse. Delete deletes
// the pods whose eviction is refused. ForceDelete also removes pods that outlast their grace period from the API without
// the kubelet's word that they have ended: their processes may still run. None of them stops a pod of cost Never.
const (
	DrainByEvict       DrainBy = "Evict"
	DrainByDelete      DrainBy = "Delete"
	DrainByForceDelete DrainBy = "ForceDelete"
)

// DrainEscalation is what a drain does to pods that are still there after a while.
// +kubebuilder:validation:XValidation:rule="self.by != 'ForceDelete' || !has(self.gracePeriod)",message="gracePeriod goes with Evict and Delete: ForceDelete removes what has outlasted its grace"
type DrainEscalation struct {
	// after is how long the drain has lasted when this begins.
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=24
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,5}(h|m|s|ms))+$')",message="must be a duration such as 90s, 20m or 12h30m; there is no unit for days"
	After metav1.Duration `json:"after"`
	// by is the means from then on.
	By DrainBy `json:"by"`
	// gracePeriod bounds the time that pods have to end, from then on; their own terminationGracePeriodSeconds where that is
	// shorter. At least 1s.
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=24
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,5}(h|m|s|ms))+$') && duration(self) >= duration('1s')",message="must be a duration of at least 1s, such as 90s, 20m or 12h30m; there is no unit for days"
	// +optional
	GracePeriod *metav1.Duration `json:"gracePeriod,omitempty"`
}

// DrainResponders says how long the responders that pods name in spec.evictionResponders (KEP-4563) are asked first.
type DrainResponders struct {
	// answer is how long a responder may take to begin before the pod is evicted all the same; 30s without it.
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=24
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,5}(h|m|s|ms))+$')",message="must be a duration such as 90s, 20m or 12h30m; there is no unit for days"
	// +optional
	Answer *metav1.Duration `json:"answer,omitempty"`
	// deadline is how long it may take in all; 0s asks none. Without it 10m, and at most half the drain's deadline.
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=24
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,5}(h|m|s|ms))+$')",message="must be a duration such as 90s, 20m or 12h30m; there is no unit for days"
	// +optional
	Deadline *metav1.Duration `json:"deadline,omitempty"`
}

// Drain says how pods are moved.
// +kubebuilder:validation:XValidation:rule="!has(self.responders) || !has(self.responders.deadline) || duration(self.responders.deadline) < duration(has(self.deadline) ? self.deadline : '1h')",message="responders.deadline must come before the drain's deadline, which is 1h unless drain.deadline says otherwise"
// +kubebuilder:validation:XValidation:rule="!has(self.escalate) || self.escalate.all(e, duration(e.after) < duration(has(self.deadline) ? self.deadline : '1h'))",message="escalate[].after must come before the drain's deadline, which is 1h unless drain.deadline says otherwise"
// +kubebuilder:validation:XValidation:rule="!has(self.checkpoint) || duration(self.checkpoint) < duration(has(self.deadline) ? self.deadline : '1h')",message="checkpoint must be shorter than the drain's deadline, which is 1h unless drain.deadline says otherwise"
// +kubebuilder:validation:XValidation:rule="!has(self.checkpoint) || !has(self.escalate) || self.escalate.all(e, duration(self.checkpoint) < duration(e.after))",message="checkpoint must be shorter than each escalate[].after: who is left to keep its work is asked kindly first"
type Drain struct {
	// classes say what stopping a pod costs; the first that matches counts.
	// +kubebuilder:validation:MaxItems=32
	// +listType=map
	// +listMapKey=name
	// +optional
	Classes []WorkloadClass `json:"classes,omitempty"`
	// deadline is how long a drain may take before a human is asked; 1h without it.
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=24
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,5}(h|m|s|ms))+$')",message="must be a duration such as 90s, 20m or 12h30m; there is no unit for days"
	// +optional
	Deadline *metav1.Duration `json:"deadline,omitempty"`
	// checkpoint is how long a pod of cost Dear that says when it last kept its work (annotation roundhouse.dev/last-checkpoint) is left
	// to keep it once more, so that stopping it loses nothing; then it is evicted. Without it, nobody waits for that.
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=24
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,5}(h|m|s|ms))+$')",message="must be a duration such as 90s, 20m or 12h30m; there is no unit for days"
	// +optional
	Checkpoint *metav1.Duration `json:"checkpoint,omitempty"`
	// responders says how long the responders that pods name are asked to end them gracefully, before they are evicted.
	// +optional
	Responders *DrainResponders `json:"responders,omitempty"`
	// escalate says what is done to pods that do not go. Without it, pods are only ever evicted. Delete and ForceDelete need
	// the right to delete pods, which the chart grants with drain.deletePods.
	// +kubebuilder:validation:MaxItems=3
	// +listType=map
	// +listMapKey=by
	// +optional
	Escalate []DrainEscalation `json:"escalate,omitempty"`
}
