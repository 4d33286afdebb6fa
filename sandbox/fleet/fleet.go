package fleet

import (
	"context"
	"time"

	"github.com/roundhouse-dev/roundhouse/sandbox/controlplane"
)

// Fleet is a running fleet. Its methods may be called concurrently.
type Fleet struct {
	o Options
}

// Start creates the nodes and whatever belongs to them, and begins to play them. It returns once every node is Ready and
// its kubelet and, where it has one, its agent are at work; [Fleet.WaitReporting] waits for the agents' word.
func Start(ctx context.Context, cp *controlplane.ControlPlane, o Options) (*Fleet, error) {
	panic("being written")
}

// Stop ends everything the fleet runs. It leaves the API's objects, which go with the control plane.
func (f *Fleet) Stop(ctx context.Context) error { panic("being written") }

// Options are the fleet's, with defaults filled in.
func (f *Fleet) Options() Options { return f.o }

// NodeNames lists the nodes.
func (f *Fleet) NodeNames() []string { panic("being written") }

// WaitReporting waits until the agents of all nodes have published their first word to NodeHealth, which the controller
// has to have created.
func (f *Fleet) WaitReporting(ctx context.Context) error { panic("being written") }

// EnsureSlices publishes the ResourceSlices of nodes that have none yet; only a fleet above ManyNodes needs it.
func (f *Fleet) EnsureSlices(ctx context.Context, nodes ...string) error { panic("being written") }

// State is what a node is like now, as the simulation knows it.
type State struct {
	Name, BootID string
	// Up is false while the node reboots.
	Up bool
	// Reboots counts the boots since the start, but for the first.
	Reboots int
	// AgentUp says whether the agent's process runs.
	AgentUp bool
	// Since is when it last went up or down.
	Since time.Time
}

// State returns the state of a node; false when there is none of that name.
func (f *Fleet) State(node string) (State, bool) { panic("being written") }

// DeviceID returns the identity of the device in a slot of a node, as NodeHealth names it.
func (f *Fleet) DeviceID(node string, slot int) (string, bool) { panic("being written") }

// Crash makes a node restart without anybody having asked for it.
func (f *Fleet) Crash(ctx context.Context, node string) error { panic("being written") }

// Foreign is a third party at work on Nodes: it puts its own taint and condition on, changes them and looks whether they
// are still as it left them.
type Foreign struct{}

// StartForeign starts a foreign tainter and a foreign condition writer on nodes, each with a write a node every so often.
func (f *Fleet) StartForeign(ctx context.Context, every time.Duration, nodes ...string) (*Foreign, error) {
	panic("being written")
}

// Stop ends the work, takes its taints off and returns how much was written and what was lost in between: one line for
// each taint or condition that was not found as it had been left.
func (x *Foreign) Stop(ctx context.Context) (writes int, lost []string, err error) {
	panic("being written")
}
