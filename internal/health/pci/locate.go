package pci

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/roundhouse-dev/roundhouse/internal/machine"
)

// Locate finds devices by their IDs on the bus as it is at this moment, in the order of the IDs, for somebody who is about
// to do something to them. It asks bus and driver anew. A device that tells its identity is known by that; one that
// cannot, by the place in which this boot has seen it. What could be another device is not found.
func (c *Check) Locate(ctx context.Context, wanted []string) ([]machine.PCIDevice, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.begin(ctx); err != nil {
		return nil, fmt.Errorf("finding devices: %w", err)
	}
	devices, err := c.o.Machine.PCIDevices(ctx, func(id machine.PCIID) bool { return IsAccelerator(id, c.o.Match) })
	if err != nil {
		return nil, fmt.Errorf("finding devices: %w", err)
	}
	if slices.ContainsFunc(devices, func(d machine.PCIDevice) bool { return d.Driver == "nvidia" }) {
		// What the driver does not tell now it may have told before: its silence alone is no obstacle.
		err = c.askDriver(ctx)
	}
	out := make([]machine.PCIDevice, 0, len(wanted))
	for _, id := range wanted {
		d, e := locate(id, c.state.Known, c.seen(devices))
		if e != nil {
			return nil, errors.Join(e, err)
		}
		out = append(out, d)
	}
	return out, nil
}

// locate finds one device. It is stricter than Reconcile, which has to make the best of what it sees.
func locate(id string, known []Known, seen []Seen) (machine.PCIDevice, error) {
	var found []int
	for i := range seen {
		if seen[i].UUID == id {
			found = append(found, i)
		}
	}
	if len(found) == 0 {
		found = inPlace(id, known, seen)
	}
	switch len(found) {
	case 0:
		return machine.PCIDevice{}, fmt.Errorf("%s is not on the bus of this machine now", id)
	case 1:
		return seen[found[0]].PCIDevice, nil
	}
	return machine.PCIDevice{}, fmt.Errorf("%s could be %d devices", id, len(found))
}

// inPlace finds the device without an identity in the place where the inventory has the ID.
func inPlace(id string, known []Known, seen []Seen) (found []int) {
	seats := make([]Seat, len(known))
	for i, k := range known {
		seats[i] = Seat{Known: k}
	}
	for n, name := range ids(seats) {
		k := known[n]
		if name != id {
			continue
		}
		for i := range seen {
			s := &seen[i]
			if s.Address == k.Address && s.Slot == k.Slot && k.sameModel(s) && (s.UUID == "" || s.UUID == k.UUID) {
				found = append(found, i)
			}
		}
	}
	return found
}
