// Package workload makes what tenants run: Jobs, gangs, services with a disruption budget, pre-warmed pods. The real
// controllers and the real scheduler do the rest.
package workload

import (
	"context"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Kind is a shape of workload.
type Kind string

// The kinds.
const (
	// Jobs are Count Jobs of one pod each, with GPUs devices a pod (1).
	Jobs Kind = "Jobs"
	// Gang is one indexed Job of Count pods (8) that run together, with GPUs devices a pod (8).
	Gang Kind = "Gang"
	// Service is a Deployment of Count replicas with a PodDisruptionBudget that keeps MinAvailable of them (all but one).
	Service Kind = "Service"
	// Prewarmed is a Deployment of Count idle pods, labelled session=prewarmed.
	Prewarmed Kind = "Prewarmed"
)

// Workload is one workload to run.
type Workload struct {
	Kind Kind   `json:"kind"`
	Name string `json:"name"`
	// Namespace is "ml" by default; it is created where it is missing.
	Namespace string `json:"namespace,omitempty"`
	// Count is how many Jobs, pods or replicas.
	Count int `json:"count,omitempty"`
	// GPUs is how many devices a pod holds; none with -1.
	GPUs int `json:"gpus,omitempty"`
	// RunFor is how long a pod works until it has succeeded; for ever when zero. Only Jobs and gangs end.
	RunFor time.Duration `json:"runFor,omitempty"`
	// MinAvailable is the PodDisruptionBudget's.
	MinAvailable *int `json:"minAvailable,omitempty"`
	// NodeSelector and Node say where it may run; anywhere by default.
	NodeSelector map[string]string `json:"nodeSelector,omitempty"`
	Node         string            `json:"node,omitempty"`
	// DevicePlugin asks for devices of a device plugin, and not by DRA.
	DevicePlugin bool `json:"devicePlugin,omitempty"`
	// Labels and Annotations are put on the pods, beside what the kind needs.
	Labels      map[string]string `json:"labels,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// Run creates the workload.
func Run(ctx context.Context, c client.Client, w Workload) error { panic("being written") }

// WaitRunning waits until every pod of the workload is Running and Ready.
func WaitRunning(ctx context.Context, c client.Client, w Workload) error { panic("being written") }

// Delete deletes the workload, and its pods with it.
func Delete(ctx context.Context, c client.Client, w Workload) error { panic("being written") }
