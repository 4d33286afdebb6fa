// Package corpus makes up the kernel logs of a fleet, with labels that say what is true. Applications storm, GPUs fail in the
// ways whose lines are known, processes forge lines, agents restart in the middle. The same seed makes the same corpus; a
// node's log is made a day at a time, so a large fleet needs little memory.
//
//	mix.go     how much of what, and where the figures are from
//	plan.go    what happens where and when
//	kinds.go   what each kind of fault logs
//	noise.go   what applications, processes and the kernel log beside that
//	node.go    a node's log as a replay.Source
//	write.go   the same as files
package corpus

import (
	"fmt"
	"time"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

// Defaults of a corpus: 288 node-days.
const (
	DefaultSeed  = 1
	DefaultNodes = 288
	DefaultDays  = 1
)

// Bounds of a corpus.
const (
	maxNodes    = 30000
	maxDays     = 366
	maxNodeDays = 100000
)

// Options say which corpus.
type Options struct {
	Seed        uint64
	Nodes, Days int
	// Start is when it begins; 2026-11-23T00:00:00Z when zero.
	Start time.Time
	// Mix is DefaultMix when zero.
	Mix Mix
}

// Label says what is true of one node at one time.
type Label struct {
	Node string `json:"node"`
	// Device is the PCI address; empty for the whole node, or for several devices.
	Device string `json:"device,omitempty"`
	// Related are further devices of which findings may tell the same, such as the port above.
	Related []string `json:"related,omitempty"`
	// Kind names what happens; Kinds and Noises list them.
	Kind string `json:"kind"`
	// Class and Code are those of the fault that should be named as the root.
	Class v1alpha1.FaultClass `json:"class"`
	Code  string              `json:"code,omitempty"`
	// From is when the first line that tells of it was written, and Until when it was over.
	From  time.Time `json:"from"`
	Until time.Time `json:"until"`
	// Fault says that something is wrong with the machine; what applications and processes do is noise.
	Fault bool `json:"fault"`
	// Disruptive says that a reset or a reboot is what it takes.
	Disruptive bool `json:"disruptive"`
	// Visible says that lines reveal it which an agent could read.
	Visible bool `json:"visible"`
}

// Corpus is a fleet's logs.
type Corpus struct {
	o      Options
	plans  []plan
	faults int
}

// New plans a corpus.
func New(o Options) (*Corpus, error) {
	if o.Mix == (Mix{}) {
		o.Mix = DefaultMix()
	}
	if o.Start.IsZero() {
		o.Start = time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)
	}
	o.Start = o.Start.UTC()
	switch {
	case o.Nodes < 1 || o.Nodes > maxNodes:
		return nil, fmt.Errorf("%d nodes: want 1 to %d", o.Nodes, maxNodes)
	case o.Days < 1 || o.Days > maxDays:
		return nil, fmt.Errorf("%d days: want 1 to %d", o.Days, maxDays)
	case o.Nodes*o.Days > maxNodeDays:
		return nil, fmt.Errorf("%d nodes over %d days: want %d node-days at most", o.Nodes, o.Days, maxNodeDays)
	case o.Mix.GPUs < 1 || o.Mix.GPUs > len(gpuAddresses) || o.Mix.Switches < 0 || o.Mix.Switches > 8:
		return nil, fmt.Errorf("%d GPUs and %d switches a node: want 1 to %d, and 0 to 8", o.Mix.GPUs, o.Mix.Switches, len(gpuAddresses))
	}
	c := &Corpus{o: o}
	if err := c.plan(); err != nil {
		return nil, err
	}
	return c, nil
}

// Nodes is how many nodes there are.
func (c *Corpus) Nodes() int { return c.o.Nodes }

// Days is how many days there are.
func (c *Corpus) Days() int { return c.o.Days }

// Seed is what it was made from.
func (c *Corpus) Seed() uint64 { return c.o.Seed }

// NodeDays is nodes times days.
func (c *Corpus) NodeDays() int { return c.o.Nodes * c.o.Days }

// Faults is how many faults there are, those that no line reveals included.
func (c *Corpus) Faults() int { return c.faults }

func (c *Corpus) end() time.Time { return c.o.Start.Add(time.Duration(c.o.Days) * 24 * time.Hour) }

// gpuAddresses are where the GPUs of an HGX H100 are in several servers.
var gpuAddresses = []string{
	"0000:18:00.0", "0000:2a:00.0", "0000:3a:00.0", "0000:5d:00.0", "0000:9a:00.0", "0000:ab:00.0", "0000:ba:00.0", "0000:db:00.0",
}

func switchAddress(i int) string { return fmt.Sprintf("0000:%02x:00.0", 5+i) }

// nodeName is sorted by its number.
func nodeName(i int) string { return fmt.Sprintf("gpu-%05d", i) }
