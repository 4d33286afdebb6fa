package sandbox

import (
	"time"

	"github.com/go-logr/logr"

	"github.com/roundhouse-dev/roundhouse/sandbox/fleet"
)

// Options say what a sandbox is made of. The zero value is eight nodes of eight GPUs and one controller.
type Options struct {
	// Fleet is the nodes.
	Fleet fleet.Options
	// Controllers is how many controller processes to start; 1, and none with -1.
	Controllers int
	// ControllerArgs are further arguments of each controller, such as --alertmanager-url=http://127.0.0.1:9093.
	ControllerArgs []string
	// APIServerArgs are further flags of the API server, without their dashes, such as "audit-log-path".
	APIServerArgs map[string]string
	// LeaseDuration is the controllers' leader election's, so that a new leader comes soon after one was killed; 6 s.
	LeaseDuration time.Duration
	// Dir holds keys, data and logs. Empty makes a temporary one, which Stop removes.
	Dir string
	// StateDir is where `inject` and `kubeconfig` look for a running sandbox; empty announces none.
	StateDir string
	// BinDir is where the binaries are; beside the running program, or bin/ of the repository, by default.
	BinDir string
	// Progress is told how far Start has come. It may be nil, and must not block.
	Progress func(Progress)
	// Logger takes what is worth knowing; nothing by default.
	Logger logr.Logger
}

// tokenLife is how long the credentials that the sandbox hands out are good for, and with them a sandbox.
const tokenLife = 7 * 24 * time.Hour

func (o Options) withDefaults() Options {
	switch {
	case o.Controllers == 0:
		o.Controllers = 1
	case o.Controllers < 0:
		o.Controllers = 0
	}
	if o.LeaseDuration == 0 {
		o.LeaseDuration = 6 * time.Second
	}
	if o.Progress == nil {
		o.Progress = func(Progress) {}
	}
	if o.Fleet.Many() {
		// Agents of a large fleet are no pods.
		o.ControllerArgs = append([]string{"--agents-elsewhere"}, o.ControllerArgs...)
	}
	return o
}

// Progress says how far the start has come.
type Progress struct {
	// Stage is what is being done, in two or three words.
	Stage string
	// Done of Of parts of the stage are done.
	Done, Of int
	// Fraction is how much of the whole start is done, from 0 to 1.
	Fraction float64
	// SinceStart is the time since Start was called.
	SinceStart time.Duration
}
