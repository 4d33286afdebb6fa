package pci

import (
	"time"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/health"
	"github.com/roundhouse-dev/roundhouse/internal/health/track"
)

// Times are how long a condition must last.
type Times struct {
	// Settle is how long a device must be missing or dead. A reset makes one look so for a second.
	Settle time.Duration
	// LinkSettle is the same for its link, and for a device that a guest of a virtual machine may reset as it likes.
	LinkSettle time.Duration
	// Clear is how long it must be well again before the fault ends; what flaps within it is one fault, counted.
	Clear time.Duration
}

// DefaultTimes are what docs/checks/pci.md says.
func DefaultTimes() Times {
	return Times{Settle: 2 * time.Second, LinkSettle: 10 * time.Second, Clear: 10 * time.Second}
}

// observe is a condition of one device at one look.
func (c Condition) observe(id string, seat Seat, t Times) track.Observation {
	settle := t.Settle
	if c.Link || seat.Seen != nil && seat.Seen.Driver == vfio {
		settle = t.LinkSettle
	}
	return track.Observation{
		ID: id, PCI: seat.Address, Code: c.Code, Class: v1alpha1.ClassHardware, Severity: c.Severity,
		Recommended: c.Recommended, ClearedBy: health.ClearedByLook, Evidence: c.Evidence, Settle: settle, Clear: t.Clear,
	}
}

// reopened is what was saved as open, as this version keeps it. What was pending is measured anew: nobody looked meanwhile.
func reopened(saved []track.Tracked, t Times) []track.Tracked {
	var out []track.Tracked
	for _, k := range saved {
		if k.Open {
			k.Class, k.ClearedBy, k.Clear = v1alpha1.ClassHardware, health.ClearedByLook, t.Clear
			out = append(out, k)
		}
	}
	return out
}
