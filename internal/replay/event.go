package replay

import (
	"time"

	"github.com/roundhouse-dev/roundhouse/internal/machine"
)

// Kind says what an event tells.
type Kind uint8

// The kinds of events.
const (
	// Line is a record of the kernel log.
	Line Kind = iota
	// Boot is a start of the machine; At is when the kernel started.
	Boot
	// PCI is what is on the bus from now on.
	PCI
	// NVML is what the driver's library answers from now on.
	NVML
	// Reset says that a device was reset by the agent.
	Reset
	// AgentStop says that the agent was killed; the kernel goes on logging.
	AgentStop
	// AgentStart says that a new agent was started on the same machine.
	AgentStart
)

// Event is one thing that a recording tells.
type Event struct {
	At   time.Time
	Kind Kind

	// Priority is a line's facility times 8 plus its level.
	Priority uint16
	// Seq numbers the lines of a boot from 1 on; 0 lets the machine number them. A number left out is a line that was lost.
	Seq uint64
	// Fragment says that the line continues the one before.
	Fragment bool
	// Text is a line's text in the kernel's escaped form: printable ASCII alone. The receiver may not change it.
	Text []byte

	// BootID is of Boot; empty where the recording does not tell.
	BootID string
	// Devices are of PCI.
	Devices []machine.PCIDevice
	// Report is of NVML.
	Report *machine.NVMLReport
	// Address is the PCI address of the device that was reset.
	Address string
}

// Source gives events, the oldest first.
type Source interface {
	// Next fills in the next event. io.EOF ends the recording.
	Next(e *Event) error
}

// maxText bounds the escaped text of one line, so that a record always fits machine.MaxLogRecord with its head.
const maxText = 6000

const hexDigits = "0123456789abcdef"

// Escape appends raw text to b in the form in which the kernel shows it (msg_add_ext_text in kernel/printk/printk.c), so
// that a line break in it never begins a line. What does not fit maxText is cut.
func Escape(b, raw []byte) []byte { return escape(b, raw, true) }

// escape leaves backslashes as they are where they are the kernel's own.
func escape(b, raw []byte, backslash bool) []byte {
	for _, c := range raw {
		if len(b) > maxText-4 {
			break
		}
		if c < ' ' || c >= 0x7f || c == '\\' && backslash {
			b = append(b, '\\', 'x', hexDigits[c>>4], hexDigits[c&0xf])
			continue
		}
		b = append(b, c)
	}
	return b
}
