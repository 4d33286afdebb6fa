// Package nvidia looks at NVIDIA GPUs through NVML. One Source asks NVML once for all checks of a round, in the process that
// package machine starts for it; each check is a small type with a pure judge, and check.go is what they share.
//
// Three rules hold for all of them. What NVML did not tell is nil, and nil is never zero: it makes a check Unknown, or is
// not judged where a GPU has no such thing. What a check remembers of counters is by GPU and load of the driver, since
// counters begin anew with it. And a fault names its GPU by PCI address; who that is, the inventory of the pci check says.
//
// docs/checks has a page for each check.
package nvidia

import (
	"time"

	"github.com/roundhouse-dev/roundhouse/internal/health"
	"github.com/roundhouse-dev/roundhouse/internal/machine"
)

// Reasons of Unknown, beside those of package health. docs/checks/README.md describes them.
const (
	// ReasonNoLibrary means that NVIDIA's driver could hold a GPU here and there is no NVML library.
	ReasonNoLibrary = "NoLibrary"
	// ReasonHelperCrashed means that the process that asks NVML died in a call.
	ReasonHelperCrashed = "HelperCrashed"
	// ReasonDriverNotLoaded means that NVML found no driver, or one of another version; the driver check says more.
	ReasonDriverNotLoaded = "DriverNotLoaded"
	// ReasonDriverUpgrade means that a GPU operator is replacing the driver.
	ReasonDriverUpgrade = "DriverUpgrade"
	// ReasonMIGReconfiguration means that a GPU operator is changing the MIG layout.
	ReasonMIGReconfiguration = "MIGReconfiguration"
	// ReasonSettling means that something that would be Critical is seen and has not lasted long enough yet.
	ReasonSettling = "Settling"
)

const (
	// defaultAge is how long an answer serves: less than the 30 s between two looks of a check, so that each round asks
	// anew, and long enough for all checks of a round.
	defaultAge = 20 * time.Second
	// defaultFailedAge is how long a failure serves: ten checks do not wait for one hang each.
	defaultFailedAge = 15 * time.Second
	// thrift is how many times longer than its processor time an answer serves at least: asking costs no more than a
	// thousandth of a core. Where persistence mode is off, each round has the driver initialise every idle GPU, a third of a
	// second of processor for an H200. maxAge bounds it.
	thrift = 1000
	maxAge = 10 * time.Minute
	// labelsAge is how old the Node's labels may be where all is well, and labelsSoon where something is not: somebody may be
	// at work on the driver. Every agent of a fleet asks at every round.
	labelsAge  = 15 * time.Minute
	labelsSoon = 30 * time.Second
	// settleEvery is how soon NVML is asked again about something that would be Critical and is new: longer than a reset by
	// an administrator's hand makes a GPU look lost.
	settleEvery = 10 * time.Second
	// defaultTimeout bounds one question. Where persistence mode is off the driver initialises every GPU that nothing uses,
	// one after the other: 2.6 s for an H200.
	defaultTimeout = 45 * time.Second
)

// Machine is what the checks read.
type Machine interface {
	machine.Booter
	machine.PCIReader
	machine.NVMLReader
}

// Options configure the checks. Only Machine has no default.
type Options struct {
	Machine Machine
	// Store keeps open faults and the counters of the ecc check across a restart of the agent; without it a fault that has
	// to last before it is one would end and begin anew with each restart. Nil keeps nothing.
	Store machine.Store
	// NodeLabels are the labels of the Node, where that can be had no older than the age; not ok, or nil, when they are not
	// known.
	NodeLabels func(age time.Duration) (labels map[string]string, ok bool)
	// Offered is how many nvidia.com/gpu the kubelet has allocatable; not ok when the Node has no such resource, or it is
	// not known.
	Offered func() (n int, ok bool)
	// Age is how long an answer of NVML serves; 20 s when zero. FailedAge is the same for a failure; 15 s when zero.
	Age, FailedAge time.Duration
	// Timeout bounds one question to NVML; 45 s when zero. A check has to be given more.
	Timeout time.Duration
	// Now is the clock; time.Now when nil.
	Now func() time.Time
}

// Checks are all checks on one source, in the order of docs/checks/README.md. They are of one boot, as the source is.
func (s *Source) Checks() []health.Check {
	judges := []judge{
		recoveryAction{}, gpuLost{}, driver{}, deviceCount{s.o}, rowRemap{}, retiredPages{}, newECC(), newPCIe(), clocks{},
		newNVLink(), fabric{},
	}
	out := make([]health.Check, len(judges))
	for i, j := range judges {
		c := &check{judge: j, source: s}
		out[i] = c
		if _, ok := j.(*ecc); ok {
			// Only what is counted is over with a reset; a level shows at the next look.
			out[i] = resettable{c}
		}
	}
	return out
}
