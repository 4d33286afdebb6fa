package pci

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/roundhouse-dev/roundhouse/internal/machine"
)

func TestLocate(t *testing.T) {
	at := func(address, uuid string, change ...func(*Seen)) Seen {
		s := Seen{PCIDevice: machine.PCIDevice{PCIID: machine.PCIID{Vendor: 0x10de, Device: 0x2335}, Address: address, Slot: address[5:7]}, UUID: uuid}
		for _, c := range change {
			c(&s)
		}
		return s
	}
	had := func(address, uuid string) Known {
		return Known{UUID: uuid, Address: address, Slot: address[5:7], Vendor: 0x10de, Device: 0x2335, Model: "H200"}
	}
	const a, b, c = "0000:18:00.0", "0000:28:00.0", "0000:38:00.0"
	tests := map[string]struct {
		id    string
		known []Known
		seen  []Seen
		want  string // the address, or part of the error
	}{
		"by its identity": {
			id: "GPU-b", known: []Known{had(a, "GPU-a"), had(b, "GPU-b")}, seen: []Seen{at(a, "GPU-a"), at(b, "GPU-b")}, want: b,
		},
		"by its identity, at an address that another had": {
			id: "GPU-b", known: []Known{had(a, "GPU-a"), had(b, "GPU-b")}, seen: []Seen{at(a, "GPU-b")}, want: a,
		},
		"one that does not tell its identity, by the place it is known in": {
			id: "GPU-b", known: []Known{had(a, "GPU-a"), had(b, "GPU-b")}, seen: []Seen{at(a, "GPU-a"), at(b, "")}, want: b,
		},
		"not another in its place": {
			id: "GPU-b", known: []Known{had(b, "GPU-b")}, seen: []Seen{at(b, "GPU-x")}, want: "not on the bus",
		},
		"not another model in its place": {
			id: "GPU-b", known: []Known{had(b, "GPU-b")},
			seen: []Seen{at(b, "", func(s *Seen) { s.PCIID.Device = 0x2330 })}, want: "not on the bus",
		},
		"not one in another slot": {
			id: "GPU-b", known: []Known{had(b, "GPU-b")}, seen: []Seen{at(b, "", func(s *Seen) { s.Slot = "99" })}, want: "not on the bus",
		},
		"not the only one left of its model": {
			id: "GPU-b", known: []Known{had(a, "GPU-a"), had(b, "GPU-b")}, seen: []Seen{at(c, "")}, want: "not on the bus",
		},
		"one that was never seen": {
			id: "GPU-z", known: []Known{had(a, "GPU-a")}, seen: []Seen{at(a, "GPU-a")}, want: "not on the bus",
		},
		"a weak ID, by its slot": {
			id: "10de-2335-slot-28", known: []Known{had(a, ""), had(b, "")}, seen: []Seen{at(a, ""), at(b, "")}, want: b,
		},
		"a weak ID of a device that has since told its identity": {
			id: "10de-2335-slot-28", known: []Known{had(b, "")}, seen: []Seen{at(b, "GPU-b")}, want: "not on the bus",
		},
		"two of one identity": {
			id: "GPU-a", known: []Known{had(a, "GPU-a")}, seen: []Seen{at(a, "GPU-a"), at(b, "GPU-a")}, want: "could be 2 devices",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			d, err := locate(tt.id, tt.known, tt.seen)
			got := d.Address
			if err != nil {
				got = err.Error()
			}
			if !strings.Contains(got, tt.want) || err == nil && got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

func TestLocateLooksAtTheBusAsItIsNow(t *testing.T) {
	r := newRig(t)
	r.look()
	first := r.check.Devices()[0]
	got, err := r.check.Locate(t.Context(), []string{first.ID})
	if err != nil || len(got) != 1 || got[0].Address != first.PCI {
		t.Fatalf("got %+v, %v", got, err)
	}
	if diff := cmp.Diff(first.BoundTo, got[0].Driver); diff != "" {
		t.Error(diff)
	}
	r.m.RemoveDevice(first.PCI)
	if _, err := r.check.Locate(t.Context(), []string{first.ID}); err == nil {
		t.Error("found a device that is no longer there")
	}
}
