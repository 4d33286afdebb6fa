package controlplane

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Component names one process of the control plane; it is also the first argument
// of the binary and the name of its log file.
type Component string

// The components, in the order in which they start.
const (
	Etcd              Component = "etcd"
	APIServer         Component = "kube-apiserver"
	ControllerManager Component = "kube-controller-manager"
	Scheduler         Component = "kube-scheduler"
)

// Options says which control plane to start. The zero value is an API server with
// its etcd and nothing else, which is enough to test CRDs, admission and RBAC.
type Options struct {
	// Binary is the roundhouse-controlplane to run. Empty looks beside the running
	// program and then in bin/ of the repository that holds the working directory.
	Binary string
	// Dir holds keys, data and logs. Empty makes a temporary one, which Stop removes;
	// a directory named here is the caller's, and Stop leaves its logs.
	Dir string

	// WithScheduler starts kube-scheduler.
	WithScheduler bool
	// WithControllerManager starts kube-controller-manager.
	WithControllerManager bool

	// FeatureGates and RuntimeConfig go to every component that has them. Nothing is
	// needed for dynamic resource allocation and DeviceTaintRules in 1.37.
	FeatureGates map[string]bool
	// RuntimeConfig turns API versions on and off, such as "resource.k8s.io/v1beta2": true.
	RuntimeConfig map[string]bool
	// ExtraArgs are flags without their dashes, such as "v": "4". They win over what
	// this package sets.
	ExtraArgs map[Component]map[string]string

	// Env is added to the environment of every component, such as "GOGC=300" where there is memory to spare.
	Env []string

	// NodeMonitorGracePeriod is how long a node may be silent before it is NotReady.
	// Zero means 24 hours: simulated nodes renew no leases.
	NodeMonitorGracePeriod time.Duration
	// WithoutNodeLifecycle leaves the node-lifecycle controller out, and with it the
	// node.kubernetes.io taints: those that it makes of conditions, and the not-ready
	// one that admission puts on a new node and only this controller takes off. Its
	// price is one write a node; a fleet that can afford that should keep it.
	WithoutNodeLifecycle bool
	// WithoutControllers names further controllers of the controller manager to leave
	// out, such as "podgroup-protection-controller". The ttl-controller always is: it
	// tells kubelets how long to cache secrets, and writes to every node whenever the
	// number of nodes passes another of its steps.
	WithoutControllers []string
	// ConcurrentSyncs is the number of workers of each busy controller; zero means 20.
	ConcurrentSyncs int

	// TokenMaxExpiration caps the tokens of ServiceAccountConfig; zero means 24 hours,
	// and the API server accepts no less than one hour.
	TokenMaxExpiration time.Duration

	// ReadyTimeout bounds the start of each component; zero means one minute, because
	// a machine that is compiling something else can be that slow.
	ReadyTimeout time.Duration
	// Progress is told of each component that became ready. It may be nil.
	Progress func(Progress)
}

// Progress says that one more component is ready.
type Progress struct {
	Component   Component
	Ready, Of   int           // components ready so far, and in all
	SinceStart  time.Duration // since Start was called
	SinceLaunch time.Duration // since this component's process was started
}

// withDefaults fills in what the caller left open.
func (o Options) withDefaults() Options {
	if o.NodeMonitorGracePeriod == 0 {
		o.NodeMonitorGracePeriod = 24 * time.Hour
	}
	if o.ConcurrentSyncs == 0 {
		o.ConcurrentSyncs = 20
	}
	if o.TokenMaxExpiration == 0 {
		o.TokenMaxExpiration = 24 * time.Hour
	}
	if o.ReadyTimeout == 0 {
		o.ReadyTimeout = time.Minute
	}
	if o.Progress == nil {
		o.Progress = func(Progress) {}
	}
	return o
}

// controllers is the value of --controllers.
func (o Options) controllers() string {
	out := []string{"*", "-ttl-controller"}
	if o.WithoutNodeLifecycle {
		out = append(out, "-node-lifecycle-controller")
	}
	for _, name := range o.WithoutControllers {
		out = append(out, "-"+name)
	}
	return strings.Join(out, ",")
}

// components lists what these options start, in order.
func (o Options) components() []Component {
	out := []Component{Etcd, APIServer}
	if o.WithControllerManager {
		out = append(out, ControllerManager)
	}
	if o.WithScheduler {
		out = append(out, Scheduler)
	}
	return out
}

// validate refuses what the components would refuse, before anything is started.
func (o Options) validate() error {
	if o.TokenMaxExpiration < time.Hour {
		return fmt.Errorf("TokenMaxExpiration %s: the API server accepts no less than 1h", o.TokenMaxExpiration)
	}
	for component := range o.ExtraArgs {
		if !slices.Contains(o.components(), component) {
			return fmt.Errorf("ExtraArgs name %q, which these options do not start", component)
		}
	}
	return nil
}

// flags renders args in a stable order, with the caller's extra ones on top.
func flags(args, extra map[string]string) []string {
	all := maps.Clone(args)
	maps.Copy(all, extra)
	out := make([]string, 0, len(all))
	for _, name := range slices.Sorted(maps.Keys(all)) {
		out = append(out, "--"+name+"="+all[name])
	}
	return out
}

// switches renders a map of gates or API versions as "A=false,B=true".
func switches(m map[string]bool) string {
	parts := make([]string, 0, len(m))
	for _, name := range slices.Sorted(maps.Keys(m)) {
		parts = append(parts, fmt.Sprintf("%s=%t", name, m[name]))
	}
	return strings.Join(parts, ",")
}
