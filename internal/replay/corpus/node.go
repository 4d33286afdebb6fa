package corpus

import (
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/roundhouse-dev/roundhouse/internal/replay"
)

// op says what becomes of an item.
type op uint8

const (
	// opLine is written to the log.
	opLine op = iota
	// opLost was, and was overwritten before anybody read it.
	opLost
	// opDown and opUp are the ends of a reboot.
	opDown
	opUp
	// opEvent is an event of another kind than a line.
	opEvent
)

// item is one thing that happens on a node.
type item struct {
	op    op
	event replay.Event
	// gpu is the address of the GPU that the driver names; it says once a boot which UUID that has.
	gpu string
	tag tag
}

// tag says what a line is counted as beside a line.
type tag uint8

const (
	untagged tag = iota
	application
	forged
	injected
)

// Counts are of the lines of a node's log: all that are in it, those of them that an application made the driver write, those
// in which a name is an attack, those that a process wrote, and those that were overwritten and so are not in it.
type Counts struct {
	Lines       int `json:"lines"`
	Application int `json:"application"`
	Forged      int `json:"forged"`
	Injected    int `json:"injected"`
	Lost        int `json:"lost"`
}

// Add adds others.
func (c *Counts) Add(o Counts) {
	c.Lines += o.Lines
	c.Application += o.Application
	c.Forged += o.Forged
	c.Injected += o.Injected
	c.Lost += o.Lost
}

// Node is one node's log. It is a replay.Source, for one pass.
type Node struct {
	// Name is the node's.
	Name string

	c      *Corpus
	plan   *plan
	number int
	r      *rand.Rand
	// driver is the version of its driver.
	driver string
	labels []Label
	counts Counts

	day   int
	items []item
	ready []replay.Event
	// seq is the number of the last line of this boot, and boots counts those.
	seq       uint64
	boots     int
	down      bool
	killed    bool
	announced map[string]bool
}

// drivers are versions before and from R575, at which the form of some lines changed.
var drivers = []string{"550.144.03", "570.133.20", "580.105.08"}

// Node is a new reading of the log of node i.
func (c *Corpus) Node(i int) *Node {
	n := &Node{Name: nodeName(i), c: c, plan: &c.plans[i], number: i, r: rand.New(rand.NewPCG(c.o.Seed, 1<<40+uint64(i)))}
	n.driver = drivers[n.r.IntN(len(drivers))]
	n.boot(c.o.Start.Add(-uptime))
	return n
}

// Labels say what is true of the node. They are complete when the log has been read to its end.
func (n *Node) Labels() []Label { return n.labels }

// Counts are of the lines so far.
func (n *Node) Counts() Counts { return n.counts }

// Next gives the next event.
func (n *Node) Next(e *replay.Event) error {
	for len(n.ready) == 0 {
		if len(n.items) == 0 && n.day >= n.c.o.Days {
			return io.EOF
		}
		n.makeDay()
	}
	*e = n.ready[0]
	n.ready = n.ready[1:]
	return nil
}

// makeDay makes a day's events. What an episode of the day leaves for the next is kept; the last day is as long as it takes.
func (n *Node) makeDay() {
	from := n.c.o.Start.Add(time.Duration(n.day) * 24 * time.Hour)
	to := from.Add(24 * time.Hour)
	for _, ep := range n.plan.episodes {
		if !ep.at.Before(from) && ep.at.Before(to) {
			ep.build(&builder{n: n, at: ep.at, r: rand.New(rand.NewPCG(n.c.o.Seed, ep.seed))})
		}
	}
	n.chatter(from)
	n.day++
	if n.day == n.c.o.Days {
		to = to.Add(365 * 24 * time.Hour)
	}
	slices.SortStableFunc(n.items, compareItems)
	done := len(n.items)
	for i := range n.items {
		if !n.items[i].event.At.Before(to) {
			done = i
			break
		}
		n.emit(&n.items[i])
	}
	n.items = slices.Clone(n.items[done:])
}

// emit makes events of an item, as the machine's state has it.
func (n *Node) emit(it *item) {
	switch it.op {
	case opDown:
		n.down = true
	case opUp:
		n.boot(it.event.At)
	case opLine:
		if n.down {
			return
		}
		n.announce(it)
		n.line(it.event)
		switch it.tag {
		case application:
			n.counts.Application++
		case forged:
			n.counts.Forged++
		case injected:
			n.counts.Injected++
		case untagged:
		}
	case opLost:
		if !n.down {
			n.seq++
			n.counts.Lost++
		}
	case opEvent:
		if !n.down {
			n.agent(it.event)
		}
	}
}

// agent emits what happens to the agent, or what it does: an agent that was killed resets nothing before it is back.
func (n *Node) agent(e replay.Event) {
	if e.Kind == replay.Reset && n.killed {
		n.agent(replay.Event{Kind: replay.AgentStart, At: e.At})
	}
	n.killed = e.Kind == replay.AgentStop
	n.ready = append(n.ready, e)
}

func (n *Node) line(e replay.Event) {
	n.seq++
	e.Seq = n.seq
	n.counts.Lines++
	n.ready = append(n.ready, e)
}

// announce says which UUID a GPU has, before the driver first names it in a boot.
func (n *Node) announce(it *item) {
	if it.gpu == "" || n.announced[it.gpu] {
		return
	}
	n.announced[it.gpu] = true
	n.line(kernelLine(it.event.At, 4, fmt.Sprintf("NVRM: GPU at PCI:%s: %s", short(it.gpu), n.uuid(it.gpu))))
}

// uuid is the GPU's; made up, and the same in every boot.
func (n *Node) uuid(address string) string {
	return fmt.Sprintf("GPU-%08x-0000-4000-8000-%012x", n.number+1, slices.Index(gpuAddresses, address)+1)
}

// boot starts the machine.
func (n *Node) boot(at time.Time) {
	n.seq, n.down, n.killed, n.announced = 0, false, false, map[string]bool{}
	n.boots++
	n.ready = append(n.ready, replay.Event{
		Kind: replay.Boot, At: at, BootID: fmt.Sprintf("%08x-0000-4000-8000-%012x", n.number+1, n.boots),
	})
	for _, text := range []string{
		"Linux version 6.8.0-60-generic (buildd@lcy02) (x86_64-linux-gnu-gcc-13) #63-Ubuntu SMP PREEMPT_DYNAMIC",
		"nvidia-nvlink: Nvlink Core is being initialized, major device number 234",
		"NVRM: loading NVIDIA UNIX Open Kernel Module for x86_64  " + n.driver + "  Release Build  (dvs-builder@U22-I3)",
		"nvidia-uvm: Loaded the UVM driver, major device number 510.",
	} {
		n.line(kernelLine(at, 6, text))
	}
}

// kernelLine is a line of the kernel itself.
func kernelLine(at time.Time, level uint16, text string) replay.Event {
	return replay.Event{Kind: replay.Line, At: at, Priority: level, Text: replay.Escape(nil, []byte(text))}
}

// short is a PCI address without its function, as the driver writes it.
func short(address string) string { return address[:len(address)-2] }
