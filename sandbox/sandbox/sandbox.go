// Package sandbox puts a whole cluster together on one machine: a real control plane, Roundhouse's own objects, a
// simulated fleet with real agents, and the real controller as a process of its own that can be killed and frozen.
package sandbox

import (
	"context"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/roundhouse-dev/roundhouse/sandbox/controlplane"
	"github.com/roundhouse-dev/roundhouse/sandbox/fleet"
)

// Sandbox is a running cluster. Its methods may be called concurrently.
type Sandbox struct{}

// Start brings everything up and returns once every node is Ready and its agent has reported. ctx bounds the start only.
// When Start fails it leaves nothing running.
func Start(ctx context.Context, o Options) (*Sandbox, error) { panic("being written") }

// Stop ends everything and removes what Start wrote. It may be called more than once.
func (s *Sandbox) Stop(ctx context.Context) error { panic("being written") }

// ControlPlane is the control plane.
func (s *Sandbox) ControlPlane() *controlplane.ControlPlane { panic("being written") }

// Fleet is the simulated fleet.
func (s *Sandbox) Fleet() *fleet.Fleet { panic("being written") }

// AdminConfig is an administrator's client configuration.
func (s *Sandbox) AdminConfig() *rest.Config { panic("being written") }

// Kube is an administrator's client of Kubernetes' own kinds.
func (s *Sandbox) Kube() kubernetes.Interface { panic("being written") }

// Client is an administrator's client of every kind, Roundhouse's included. It reads live, never from a cache.
func (s *Sandbox) Client() client.WithWatch { panic("being written") }

// Kubeconfig is the path of an administrator's kubeconfig.
func (s *Sandbox) Kubeconfig() string { panic("being written") }

// Exited yields an error for each process of the control plane, and each controller, that ended although nobody asked.
func (s *Sandbox) Exited() <-chan error { panic("being written") }
