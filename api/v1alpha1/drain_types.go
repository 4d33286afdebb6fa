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
// +kubebuilder:validation:XValidation:rule="has(self.podSelector) || has(self.namespaces) || has(self.ownerKinds) || has(self.gang)",message="match is empty: set podSelector, namespaces, ownerKinds or gang"
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
}

// WorkloadClass gives the pods it matches an interruption cost.
type WorkloadClass struct {
	// name is how the class is called in explanations.
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	// +kubebuilder:validation:MaxLength=64
	Name string `json:"name"`
	// match says which pods it is for.
	Match WorkloadMatch `json:"match"`
	// cost is what stopping such a pod costs.
	Cost InterruptionCost `json:"cost"`
}

// Drain says how pods are moved.
type Drain struct {
	// classes say what stopping a pod costs; the first that matches counts.
	// +kubebuilder:validation:MaxItems=32
	// +listType=map
	// +listMapKey=name
	// +optional
	Classes []WorkloadClass `json:"classes,omitempty"`
	// deadline is how long the eviction of pods may take before a human is asked; 1h without it.
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=24
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,5}(h|m|s|ms))+$')",message="must be a duration such as 90s, 20m or 12h30m; there is no unit for days"
	// +optional
	Deadline *metav1.Duration `json:"deadline,omitempty"`
}
