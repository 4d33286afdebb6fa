// Package config embeds the manifests that install Roundhouse, so that a program that applies them needs no checkout:
// crd/ (generated from api/), rbac/ and admission/. The Helm chart is made of the same files.
package config

import "embed"

// Files holds the directories crd, rbac and admission, each with YAML files only. Apply them in this order; everything
// namespaced in them is in [Namespace].
//
//go:embed crd rbac admission
var Files embed.FS

// Names that the manifests fix, because the admission policies compare with them.
const (
	// Namespace is where agent and controller run.
	Namespace = "roundhouse-system"
	// AgentServiceAccount is the agent's service account.
	AgentServiceAccount = "roundhouse-agent"
	// ControllerServiceAccount is the controller's service account.
	ControllerServiceAccount = "roundhouse-controller"
	// JobServiceAccount is what the Jobs of RunJob and of burn-ins run as; config/admission/jobs.yaml lets them run as no other.
	JobServiceAccount = "roundhouse-job"
	// LeaderLease is the Lease, in Namespace, of the controller's leader election.
	LeaderLease = "roundhouse-controller"
	// FieldManagerPrefix and the holder identity of LeaderLease are the field manager of every write of the
	// controller; config/admission/leader-fence.yaml refuses the others. A field manager has at most 128 characters.
	FieldManagerPrefix = "roundhouse-"
)
