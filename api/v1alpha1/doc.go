// Package v1alpha1 holds the objects through which Roundhouse is told what to do and says what it did.
//
// NodeHealth is the contract between the agent on a node and the controller; Remediation is one incident on one
// node; RemediationPolicy, RemediationHold and NodeDisruptionBudget are what people write; DeviceRecord is what is
// remembered of a device that failed. All are cluster-scoped. The package has no logic beyond accessors.
//
// +kubebuilder:object:generate=true
// +groupName=roundhouse.dev
package v1alpha1
