package pci

import (
	"fmt"
	"slices"
	"strings"

	"github.com/roundhouse-dev/roundhouse/internal/health"
	"github.com/roundhouse-dev/roundhouse/internal/machine"
)

// maxKnown bounds the inventory to what NodeHealth can list.
const maxKnown = 64

// Known is one accelerator this machine has had. It stays known until it is replaced or forgotten, which is how a missing
// one is missed.
type Known struct {
	// UUID is the maker's identity; empty where none could be read.
	UUID string `json:"uuid,omitempty"`
	// Model is the product's name, or vendor:device.
	Model string `json:"model"`
	// Firmware is the board firmware's version, where it could be read.
	Firmware string `json:"firmware,omitempty"`
	Address  string `json:"address"`
	Slot     string `json:"slot,omitempty"`
	Vendor   uint16 `json:"vendor"`
	Device   uint16 `json:"device"`
	// Width and MTs are the widest and the fastest the link was ever seen: a baseline that only rises, so that a link
	// degraded from the start does not become normal once it was seen better.
	Width uint8  `json:"width,omitempty"`
	MTs   uint32 `json:"mts,omitempty"`
}

// ID is the best identity known: the UUID, else the model at a slot, else at an address. The latter two are weak: another
// device of the model in that place has the same.
func (k Known) ID() string {
	if k.UUID != "" {
		return k.UUID
	}
	model := fmt.Sprintf("%04x-%04x", k.Vendor, k.Device)
	if k.Slot != "" {
		return model + "-slot-" + k.Slot
	}
	return model + "-pci-" + k.Address
}

// Seen is a device on the bus with what its driver says of it.
type Seen struct {
	machine.PCIDevice
	UUID, Model, Firmware string
}

// Seat is a known accelerator and the device seen in its place; nil when it is missing.
type Seat struct {
	Known
	Seen *Seen
}

// Reconcile pairs what is known with what is seen. Identity goes before place, since bus numbers shift when a device
// vanishes. Another identity in a known place is a replacement, not a fault, and takes the place over with no baseline;
// and a device that nothing known explains is new. changed says that the inventory is not what it was.
func Reconcile(known []Known, seen []Seen) (seats []Seat, changed bool) {
	seats = make([]Seat, 0, max(len(known), len(seen)))
	for _, k := range known {
		seats = append(seats, Seat{Known: k})
	}
	taken := make([]bool, len(seen))
	for _, same := range sameness {
		for i := range seats {
			for j := range seen {
				if seats[i].Seen == nil && !taken[j] && same(seats[i].Known, &seen[j]) {
					seats[i].Seen, taken[j] = &seen[j], true
				}
			}
		}
	}
	for j := range seen {
		if !taken[j] && len(seats) < maxKnown {
			seats = append(seats, Seat{Seen: &seen[j]})
		}
	}
	for i := range seats {
		changed = seats[i].update() || changed
	}
	slices.SortStableFunc(seats, func(a, b Seat) int { return strings.Compare(a.Address, b.Address) })
	return seats, changed
}

// sameness are the ways to be the same device, the surest first.
var sameness = []func(Known, *Seen) bool{
	func(k Known, s *Seen) bool { return k.UUID != "" && k.UUID == s.UUID },
	func(k Known, s *Seen) bool { return k.Address == s.Address && k.sameModel(s) && !k.otherUUID(s) },
	func(k Known, s *Seen) bool {
		return k.Slot != "" && k.Slot == s.Slot && k.sameModel(s) && !k.otherUUID(s)
	},
	func(k Known, s *Seen) bool { return k.sameModel(s) && !k.otherUUID(s) },
	// From here on another device in the same place: a replacement.
	func(k Known, s *Seen) bool { return k.Address == s.Address },
	func(k Known, s *Seen) bool { return k.Slot != "" && k.Slot == s.Slot },
}

func (k Known) sameModel(s *Seen) bool { return k.Vendor == s.Vendor && k.Device == s.PCIID.Device }

// otherUUID says that both identities are known and differ.
func (k Known) otherUUID(s *Seen) bool { return k.UUID != "" && s.UUID != "" && k.UUID != s.UUID }

// update takes over what is seen, and says whether that changed anything.
func (s *Seat) update() bool {
	if s.Seen == nil {
		return false
	}
	before, seen := s.Known, s.Seen
	k := &s.Known
	if k.Vendor != 0 && (k.otherUUID(seen) || !k.sameModel(seen)) {
		*k = Known{}
	}
	if k.Slot != seen.Slot {
		// Another slot may be wired with fewer lanes; what the link was elsewhere is no baseline here.
		k.Width, k.MTs = 0, 0
	}
	k.Vendor, k.Device, k.Address, k.Slot = seen.Vendor, seen.PCIID.Device, seen.Address, seen.Slot
	k.UUID = orElse(seen.UUID, k.UUID)
	k.Model = orElse(seen.Model, orElse(k.Model, fmt.Sprintf("%04x:%04x", k.Vendor, k.Device)))
	k.Firmware = orElse(seen.Firmware, k.Firmware)
	k.Width, k.MTs = max(k.Width, seen.Link.Width), max(k.MTs, seen.Link.MTs)
	k.Model, k.Slot = health.Bound(k.Model, 64), health.Bound(k.Slot, 32)
	return *k != before
}

// ids are the identities of the seats. A slot that several devices share, as on a board with two, names none of them.
func ids(seats []Seat) []string {
	shared := make(map[string]int, len(seats))
	for i := range seats {
		shared[seats[i].ID()]++
	}
	out := make([]string, len(seats))
	for i := range seats {
		k := seats[i].Known
		if shared[k.ID()] > 1 {
			k.Slot = ""
		}
		out[i] = k.ID()
	}
	return out
}

func orElse(a, b string) string {
	if a != "" {
		return a
	}
	return b
}
