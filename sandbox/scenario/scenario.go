package scenario

import (
	"fmt"
	"time"

	"go.yaml.in/yaml/v3"
)

// Scenario is a timeline and what is expected of it.
type Scenario struct {
	// Name is how it is called, which is also its file's name.
	Name string `yaml:"name"`
	// Title is a line for people.
	Title string `yaml:"title"`
	// About says what it shows and why that matters.
	About string `yaml:"about"`
	// Fleet is the least fleet it needs.
	Fleet Fleet `yaml:"fleet"`
	// Roles are the nodes it speaks of; ${ROLE} in a step is that node's name.
	Roles map[string]Role `yaml:"roles"`
	// Timeout bounds the whole of it.
	Timeout Duration `yaml:"timeout"`
	// Compressed says which times are shorter here than in life, for people to read.
	Compressed string `yaml:"compressed"`
	// Steps are done one after the other.
	Steps []Step `yaml:"steps"`
	// Never must not be seen.
	Never []Expect `yaml:"never"`
	// Finally is looked at when the steps are done.
	Finally []Expect `yaml:"finally"`
	// Leave keeps what the steps applied; without it that is deleted at the end.
	Leave bool `yaml:"leave"`
}

// Fleet is what a scenario plays on.
type Fleet struct {
	// Nodes is how many there are at least.
	Nodes int `yaml:"nodes"`
	// GPUs is how many devices a node has.
	GPUs int `yaml:"gpus"`
	// DevicePlugin is how many of the nodes, the last ones, offer their devices by device plugin and not by DRA.
	DevicePlugin int `yaml:"devicePlugin"`
	// EvictionRequests has the API of EvictionRequests on (KEP-4563), with somebody who acts on them. Such a scenario is played
	// on a cluster of its own.
	EvictionRequests bool `yaml:"evictionRequests"`
	// Reboot is how long a node is away when it reboots.
	Reboot Duration `yaml:"reboot"`
}

// Role is a node, or some, that a scenario gives a name.
type Role struct {
	// Prefer is the node to take if the fleet has it.
	Prefer string `yaml:"prefer"`
	// Labels must be on the node.
	Labels map[string]string `yaml:"labels"`
	// Count is how many nodes it is; one without it. ${ROLE} is then their names with commas between.
	Count int `yaml:"count"`
}

// Step is one thing done, or one thing waited for.
type Step struct {
	// ID is for From and Until of other expectations.
	ID string `yaml:"id"`
	// Say is what the narrator says when it begins.
	Say string `yaml:"say"`
	// After is how long to wait before it.
	After Duration `yaml:"after"`

	// Apply applies objects, as kubectl apply --server-side does.
	Apply []Object `yaml:"apply"`
	// Delete deletes objects, named as they are applied.
	Delete []Object `yaml:"delete"`
	// Workload starts what tenants run.
	Workload *Workload `yaml:"workload"`
	// Finish lets the pods of an app, or of a workload, end as done.
	Finish *PodRef `yaml:"finish"`
	// Fault breaks something.
	Fault *Fault `yaml:"fault"`
	// Controller is kill (SIGKILL) or start.
	Controller string `yaml:"controller"`
	// Roundhouse is a command line of kubectl-roundhouse.
	Roundhouse []string `yaml:"roundhouse"`
	// Expect is waited for.
	Expect *Expect `yaml:"expect"`
}

// Object is a Kubernetes object as it stands in the file.
type Object map[string]any

// Fault is something that breaks.
type Fault struct {
	// Kind is one of the sandbox's faults, such as xid79.
	Kind string `yaml:"kind"`
	// Node is where; several names with commas between are several nodes.
	Node string `yaml:"node"`
	// Device is the device's index on the node, such as "3".
	Device string `yaml:"device"`
	// DeviceOf takes the device that a pod of the node holds by its claim.
	DeviceOf *PodRef `yaml:"deviceOf"`
	// Lines is how many lines a storm has, on each of its nodes.
	Lines int `yaml:"lines"`
	// HealsAfter is how many reboots heal it, 1 without it; -1 is never.
	HealsAfter int `yaml:"healsAfter"`
	// HealedBy is reset for what a reset of the device heals, too.
	HealedBy string `yaml:"healedBy"`
	// Relapses is how often it comes back after it has healed, each time RelapseAfter after the boot.
	Relapses     int      `yaml:"relapses"`
	RelapseAfter Duration `yaml:"relapseAfter"`
}

// Workload is what tenants run; package workload has what the fields mean.
type Workload struct {
	Kind         string            `yaml:"kind"`
	Name         string            `yaml:"name"`
	Namespace    string            `yaml:"namespace"`
	Count        int               `yaml:"count"`
	GPUs         int               `yaml:"gpus"`
	RunFor       Duration          `yaml:"runFor"`
	MinAvailable *int              `yaml:"minAvailable"`
	Node         string            `yaml:"node"`
	Prefer       string            `yaml:"prefer"`
	NodeSelector map[string]string `yaml:"nodeSelector"`
	DevicePlugin bool              `yaml:"devicePlugin"`
	Labels       map[string]string `yaml:"labels"`
	Annotations  map[string]string `yaml:"annotations"`
	Responder    string            `yaml:"responder"`
}

// PodRef finds pods by their namespace and their label app, or the name of their workload.
type PodRef struct {
	Namespace string `yaml:"namespace"`
	App       string `yaml:"app"`
}

// Expect is something that must be seen, or in Never must not.
type Expect struct {
	// Name says it in words.
	Name string `yaml:"name"`
	// See is the facts that count.
	See *Pattern `yaml:"see"`
	// State is looked at instead: how the cluster is, not what happened.
	State *State `yaml:"state"`
	// AtLeast, AtMost and Exactly are how many; one at least without them, in Never none.
	AtLeast *int `yaml:"atLeast"`
	AtMost  *int `yaml:"atMost"`
	Exactly *int `yaml:"exactly"`
	// Within bounds the wait.
	Within Duration `yaml:"within"`
	// From and Until are IDs of steps: only what was seen after the one was done and before the other begins counts.
	From  string `yaml:"from"`
	Until string `yaml:"until"`
}

// StateKind is something about the cluster as it is.
type StateKind string

// The kinds of state.
const (
	// StatePods counts pods.
	StatePods StateKind = "pods"
	// StateIncidents counts Remediations.
	StateIncidents StateKind = "incidents"
	// StateLeftovers counts what Roundhouse has on nodes and devices: taints, rules, claims, annotations, budget slots.
	StateLeftovers StateKind = "leftovers"
	// StateHealthy counts the nodes whose agent says Healthy, of every device.
	StateHealthy StateKind = "healthy"
	// StatePolicies counts the policies whose present generation the controller has judged.
	StatePolicies StateKind = "policies"
	// StateOccurrences adds up how often the agents say that their faults were seen.
	StateOccurrences StateKind = "occurrences"
)

// states are the fields that each kind of state is narrowed by.
var states = map[StateKind][]string{
	StatePods:        {"node", "app", "namespace", "phase"},
	StateIncidents:   {"node", "phase"},
	StateLeftovers:   {"node"},
	StateHealthy:     {"node"},
	StatePolicies:    {"name", "mode", "accepted"},
	StateOccurrences: {"node", "code", "class"},
}

// State says what of the cluster is counted.
type State struct {
	Kind  StateKind
	Where map[string]string
}

// Duration is a time.Duration that YAML writes as 5s.
type Duration time.Duration

// UnmarshalYAML reads a duration.
func (d *Duration) UnmarshalYAML(n *yaml.Node) error {
	v, err := time.ParseDuration(n.Value)
	if err != nil || n.Kind != yaml.ScalarNode || v < 0 {
		return fmt.Errorf("line %d: %q is no duration; write 500ms, 5s or 2m", n.Line, n.Value)
	}
	*d = Duration(v)
	return nil
}

// UnmarshalYAML reads an object, of which nothing is known here.
func (o *Object) UnmarshalYAML(n *yaml.Node) error {
	var m map[string]any
	if err := n.Decode(&m); err != nil {
		return fmt.Errorf("line %d: not an object: %w", n.Line, err)
	}
	*o = m
	return nil
}

// Of is the duration as Go has it.
func (d Duration) Of() time.Duration { return time.Duration(d) }

// UnmarshalYAML reads a pattern written as one flat map: {kind: reboot, node: gpu-17}.
func (p *Pattern) UnmarshalYAML(n *yaml.Node) error {
	kind, where, err := flat(n)
	p.Kind, p.Where = Kind(kind), where
	return err
}

// UnmarshalYAML reads a state written as one flat map: {kind: pods, app: infer}.
func (s *State) UnmarshalYAML(n *yaml.Node) error {
	kind, where, err := flat(n)
	s.Kind, s.Where = StateKind(kind), where
	return err
}

func flat(n *yaml.Node) (string, map[string]string, error) {
	var m map[string]string
	if err := n.Decode(&m); err != nil {
		return "", nil, fmt.Errorf("line %d: a flat map is needed, such as {kind: reboot, node: gpu-17}: %w", n.Line, err)
	}
	kind := m["kind"]
	delete(m, "kind")
	return kind, m, nil
}
