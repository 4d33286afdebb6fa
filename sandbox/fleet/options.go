package fleet

import (
	"fmt"
	"strconv"
	"time"

	"github.com/go-logr/logr"
)

// Labels, annotations and names of the fleet's objects.
const (
	// LabelRack is the label of a node's rack: r1, r2 and so on.
	LabelRack = "topology.roundhouse.dev/rack"
	// LabelPool is the label of a node's pool.
	LabelPool = "pool"
	// LabelRole is the label by which DaemonSets find the fleet's nodes; its value is RoleGPU.
	LabelRole = "node-role"
	// RoleGPU is the value of LabelRole.
	RoleGPU = "gpu"
	// LabelOffer says how a node offers its devices: OfferDRA or OfferPlugin.
	LabelOffer = "sandbox.roundhouse.dev/offer"
	// OfferDRA is the value of LabelOffer for devices in a ResourceSlice.
	OfferDRA = "dra"
	// OfferPlugin is the value of LabelOffer for devices of a device plugin, which are PluginResource.
	OfferPlugin = "device-plugin"
	// Driver is the name of the DRA driver.
	Driver = "gpu.example.com"
	// DeviceClass is the name of the DeviceClass of the driver's devices.
	DeviceClass = "gpu.example.com"
	// PluginResource is the extended resource of device-plugin nodes.
	PluginResource = "nvidia.com/gpu"
	// AnnotationRunFor is how long a pod runs until it succeeds, a Go duration; without it, for ever.
	AnnotationRunFor = "sandbox.roundhouse.dev/run-for"
	// AnnotationExitCode is what a pod ends with when it has run for as long as AnnotationRunFor says; without it 0, which is
	// success.
	AnnotationExitCode = "sandbox.roundhouse.dev/exit-code"
	// AnnotationStopsIn is how long a pod takes to end once it is asked to, a Go duration; its grace period bounds it.
	AnnotationStopsIn = "sandbox.roundhouse.dev/stops-in"
	// AnnotationHangs, set to "true", is a pod whose program does not end when it is killed, as one that waits inside a driver:
	// it is there until the node reboots or somebody removes it from the API.
	AnnotationHangs = "sandbox.roundhouse.dev/hangs"
	// AnnotationKeepsEvery is how often a pod's program keeps its work, a Go duration, and says so by the annotation that Roundhouse
	// reads; without it, never.
	AnnotationKeepsEvery = "sandbox.roundhouse.dev/keeps-every"
	// SystemNamespace is where driver DaemonSets live.
	SystemNamespace = "gpu-system"
	// DriverTolerant is the driver DaemonSet that tolerates our taint.
	DriverTolerant = "gpu-driver"
	// DriverIntolerant is the monitoring DaemonSet that does not, which preflight must find.
	DriverIntolerant = "gpu-exporter"
)

// Options say what a fleet is made of. The zero value of a field means its default.
type Options struct {
	// Nodes is how many nodes there are; 8.
	Nodes int
	// GPUs is how many a node has; 8.
	GPUs int
	// NodesPerRack is 8.
	NodesPerRack int
	// Pools are dealt to racks in turn; one pool, h200-training.
	Pools []string
	// DevicePlugin is how many of the nodes, the last ones, offer their devices by device plugin and not by DRA; none.
	DevicePlugin int
	// ShiftNames gives devices new names in the ResourceSlice when one has vanished, as drivers do that number what they
	// find; without it a name stays with its slot.
	ShiftNames bool
	// RebootTakes is how long a reboot takes; 5 s.
	RebootTakes time.Duration
	// DailyLimit is each host's limit of disruptive acts a day; the agent's default when zero.
	DailyLimit int
	// CheckEvery is the time between two looks of a check that nothing hurries: 30 s, and 5 m above ManyNodes.
	CheckEvery time.Duration
	// ManyNodes is the number of nodes above which a few workers step all agents, agents are no pods, and slices are
	// made when they are first needed ([Fleet.EnsureSlices]); 1000.
	ManyNodes int
	// FromScratch has a fleet above ManyNodes begin as smaller ones do: the controller creates each NodeHealth, and each
	// agent's first word is written with a token of its own. Without it such a fleet begins as one that has run before: its
	// NodeHealths and the two conditions on its Nodes are there, what the agents' code has to say of a healthy node is
	// written by the administrator, and an agent asks for its token when it has something else to say.
	FromScratch bool
	// EvictionRequests has the fleet play the controller of EvictionRequests and a responder, on an API server that has their
	// feature on.
	EvictionRequests bool
	// OwnWatches is the number of nodes up to which each agent runs by itself, with its own watch; 128.
	OwnWatches int
	// AgentVersion is what the agents publish as their version.
	AgentVersion string
	// Progress is told how far Start has come. It may be nil, and must not block.
	Progress func(stage string, done, of int)
	// Logger takes what is worth knowing; nothing by default.
	Logger logr.Logger
}

func (o Options) withDefaults() Options {
	fill(&o.Nodes, 8)
	fill(&o.GPUs, 8)
	fill(&o.NodesPerRack, 8)
	fill(&o.RebootTakes, 5*time.Second)
	fill(&o.ManyNodes, 1000)
	fill(&o.OwnWatches, 128)
	fill(&o.AgentVersion, "sandbox")
	fill(&o.CheckEvery, 30*time.Second)
	if o.Nodes > o.ManyNodes {
		o.CheckEvery = max(o.CheckEvery, 5*time.Minute)
	}
	if len(o.Pools) == 0 {
		o.Pools = []string{"h200-training"}
	}
	if o.Progress == nil {
		o.Progress = func(string, int, int) {}
	}
	return o
}

// fill sets what was left zero.
func fill[T comparable](field *T, otherwise T) {
	var zero T
	if *field == zero {
		*field = otherwise
	}
}

// maxNodes and maxGPUs bound a fleet: a ResourceSlice holds 64 devices once any of them has taints.
const (
	maxNodes = 100_000
	maxGPUs  = 64
)

func (o Options) validate() error {
	switch {
	case o.Nodes < 1 || o.Nodes > maxNodes:
		return fmt.Errorf("%d nodes: want 1 to %d", o.Nodes, maxNodes)
	case o.GPUs < 1 || o.GPUs > maxGPUs:
		return fmt.Errorf("%d GPUs a node: want 1 to %d", o.GPUs, maxGPUs)
	case o.DevicePlugin < 0 || o.DevicePlugin > o.Nodes:
		return fmt.Errorf("%d device-plugin nodes of %d", o.DevicePlugin, o.Nodes)
	case o.NodesPerRack < 1:
		return fmt.Errorf("%d nodes a rack", o.NodesPerRack)
	}
	return nil
}

// Many says whether the fleet is too large for what costs an object or a goroutine a node. Defaults count.
func (o Options) Many() bool {
	o = o.withDefaults()
	return o.Nodes > o.ManyNodes
}

// many is Many of options that have their defaults.
func (o Options) many() bool { return o.Nodes > o.ManyNodes }

// Seeded says whether the fleet begins as one that has run before. Defaults count.
func (o Options) Seeded() bool { return o.Many() && !o.FromScratch }

// NodeName is the name of a node: gpu- and its number, with as many digits as the last one's, two at least.
func (o Options) NodeName(index int) string {
	width := max(2, len(strconv.Itoa(o.Nodes-1)))
	return fmt.Sprintf("gpu-%0*d", width, index)
}

// Rack is the rack of a node.
func (o Options) Rack(index int) string { return "r" + strconv.Itoa(index/o.NodesPerRack+1) }

// Racks is how many racks there are.
func (o Options) Racks() int { return (o.Nodes + o.NodesPerRack - 1) / o.NodesPerRack }

// Pool is the pool of a node.
func (o Options) Pool(index int) string { return o.Pools[index/o.NodesPerRack%len(o.Pools)] }

// offers says how a node offers its devices.
func (o Options) offers(index int) string {
	if index >= o.Nodes-o.DevicePlugin {
		return OfferPlugin
	}
	return OfferDRA
}
