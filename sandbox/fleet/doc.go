// Package fleet plays the nodes of a cluster: their kubelets, their accelerators and their agents.
//
// For a newcomer, what is real here and what is not:
//
//   - Real: the agent's code, one agent.Node a node, with a bound service-account token of its own, so that RBAC and the
//     admission policy judge each write as they would in production. The API server, scheduler and controllers are.
//   - Simulated: the machine under the agent (internal/machine/fake), the kubelet, the container runtime, the DRA driver
//     and the device plugin. A pod that is bound to a node runs, becomes ready, completes after the time its annotation
//     says, and ends after its grace; no program of it is ever started.
//   - Compressed: a reboot takes seconds ([Options].RebootTakes). Nothing else is.
//
// The parts:
//
//	options.go  what a fleet is made of
//	objects.go  its API objects: Nodes, ResourceSlices, the DeviceClass, DaemonSets
//	fleet.go    start and stop
//	node.go     one simulated node: up, down, rebooting
//	agents.go   the real agents: each by itself, or thousands by a few workers
//	token.go    each agent's own credential, asked for when it is first needed
//	kubelet.go  what becomes of pods; lifecycle.go is its pure part
//	plugin.go   which devices a device plugin's pods were given, as a kubelet tells on its pod-resources socket
//	faults.go   what can be injected
//	foreign.go  others who write to the same Nodes
package fleet
