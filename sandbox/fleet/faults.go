package fleet

import (
	"context"
	"time"
)

// FaultKind describes a fault that can be injected.
type FaultKind struct {
	// Name is what [Injection].Fault and the command line say.
	Name string
	// Summary says in a sentence what happens.
	Summary string
	// OnDevice says that it happens to one device of the node.
	OnDevice bool
}

// Never is the value of [Injection].HealsAfter for what no reboot heals.
const Never = -1

// Injection is one fault on one node.
type Injection struct {
	// Fault is the name of a FaultKind.
	Fault string `json:"fault"`
	// Node is the name of the node.
	Node string `json:"node"`
	// Device is the slot of the device, from 0.
	Device int `json:"device,omitempty"`
	// Count is how many kernel lines a storm has; 1000 when zero.
	Count int `json:"count,omitempty"`
	// HealsAfter is how many reboots heal the device: 1 when zero, none with Never.
	HealsAfter int `json:"healsAfter,omitempty"`
	// Relapses is how often the fault comes back after it has healed, each time RelapseAfter after the boot; 1 s.
	Relapses     int           `json:"relapses,omitempty"`
	RelapseAfter time.Duration `json:"relapseAfter,omitempty"`
}

// Faults lists what can be injected, in the order in which help shows it.
func Faults() []FaultKind { return nil }

// Inject makes a fault happen. It returns once it has happened, not once anybody has seen it.
func (f *Fleet) Inject(ctx context.Context, in Injection) error { panic("being written") }
