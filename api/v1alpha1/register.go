package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupVersion is the group and version of every object of this package.
var GroupVersion = schema.GroupVersion{Group: "roundhouse.dev", Version: "v1alpha1"}

// SchemeBuilder collects the functions that add this group to a scheme.
var SchemeBuilder = runtime.NewSchemeBuilder(addKnownTypes)

// AddToScheme adds every kind of this package to a scheme.
var AddToScheme = SchemeBuilder.AddToScheme

func addKnownTypes(scheme *runtime.Scheme) error {
	scheme.AddKnownTypes(GroupVersion,
		&RemediationPolicy{}, &RemediationPolicyList{},
		&Remediation{}, &RemediationList{},
		&RemediationHold{}, &RemediationHoldList{},
		&NodeDisruptionBudget{}, &NodeDisruptionBudgetList{},
		&NodeHealth{}, &NodeHealthList{},
		&DeviceRecord{}, &DeviceRecordList{},
	)
	metav1.AddToGroupVersion(scheme, GroupVersion)
	return nil
}
