package pci

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/roundhouse-dev/roundhouse/internal/machine"
)

// link is "xW@MTs of xMaxW@MaxMTs".
func linkOf(width, maxWidth uint8, mts, maxMTs uint32) machine.Link {
	return machine.Link{Width: width, MaxWidth: maxWidth, MTs: mts, MaxMTs: maxMTs}
}

func gpuAt(bus int, l machine.Link) machine.PCIDevice {
	return machine.PCIDevice{
		PCIID:   machine.PCIID{Vendor: 0x10de, Device: 0x2335, Class: 0x030200, Driver: "nvidia"},
		Address: fmt.Sprintf("0000:%02x:00.0", bus), Link: l, ParentLink: linkOf(16, 16, 32000, 32000),
		Config: machine.ConfigAnswers, Power: "D0",
	}
}

func diskAt(bus int, l machine.Link) machine.PCIDevice {
	d := gpuAt(bus, l)
	d.PCIID = machine.PCIID{Vendor: 0x1b36, Device: 0x0010, Class: 0x010802, Driver: "nvme"}
	return d
}

// seatsOf seats devices as a first look would.
func seatsOf(devices ...machine.PCIDevice) []Seat {
	seen := make([]Seen, len(devices))
	for i, d := range devices {
		seen[i] = Seen{PCIDevice: d}
	}
	seats, _ := Reconcile(nil, seen)
	return seats
}

func TestJudge(t *testing.T) {
	full, half, one := linkOf(16, 16, 32000, 32000), linkOf(8, 16, 32000, 32000), linkOf(1, 16, 32000, 32000)
	idle := linkOf(16, 16, 2500, 32000)
	dead := gpuAt(2, machine.Link{})
	dead.Config = machine.ConfigAllOnes
	deadInD3 := dead
	deadInD3.Power = "D3cold"
	asleep := dead
	asleep.Suspended, asleep.Config = true, machine.ConfigUnread
	unread := gpuAt(2, full)
	unread.Config = machine.ConfigUnread
	narrowPort := gpuAt(2, half)
	narrowPort.ParentLink = linkOf(8, 8, 32000, 32000)
	noLink := gpuAt(2, machine.Link{})

	wide := seatsOf(gpuAt(1, full), gpuAt(2, half))
	learned := seatsOf(gpuAt(1, half), gpuAt(2, half), gpuAt(3, half))
	learned[1].Width = 16
	missing := seatsOf(gpuAt(1, full), gpuAt(2, full))
	missing[1].Seen = nil

	busy := func(addresses ...string) UnderLoad {
		return func(address string) (bool, bool) {
			for _, a := range addresses {
				if a == address {
					return true, true
				}
			}
			return false, true
		}
	}
	links := func(words ...string) (d Declared) {
		for _, w := range words {
			l, err := ParseDeclaredLink(w)
			if err != nil {
				t.Fatal(err)
			}
			d.Links = append(d.Links, l)
		}
		return d
	}
	counts := func(words ...string) (d Declared) {
		for _, w := range words {
			c, err := ParseDeclaredCount(w)
			if err != nil {
				t.Fatal(err)
			}
			d.Counts = append(d.Counts, c)
		}
		return d
	}
	slotted := gpuAt(2, half)
	slotted.Slot = "3"
	tests := map[string]struct {
		seats    []Seat
		load     UnderLoad
		declared Declared
		want     []string
	}{
		"declared to have fewer lanes than it could, than its peers and than it once had": {
			seats: learned, declared: links("10de:2335=x8"),
		},
		"declared to have more lanes than all of its kind run at": {
			seats: seatsOf(gpuAt(1, half), gpuAt(2, half), gpuAt(3, half)), declared: links("0000:02:00.0=x16"),
			want: []string{"2 PCILinkNarrow Warning Reboot"},
		},
		"the address goes before the slot, and the slot before the model": {
			seats: seatsOf(gpuAt(1, half), slotted), declared: links("10de:*=x16", "slot:3=x4", "0000:01:00.0=x8"),
		},
		"what the exact word leaves out, the other says": {
			seats: seatsOf(slotted), declared: links("slot:3=@16", "10de:*=x16@32"), want: []string{"2 PCILinkNarrow Warning Reboot"},
		},
		"a declared speed is judged under load alone": {seats: seatsOf(gpuAt(2, idle)), declared: links("10de:*=@32")},
		"and then it counts": {
			seats: seatsOf(gpuAt(2, linkOf(16, 16, 16000, 16000))), declared: links("10de:*=@32"), load: busy("0000:02:00.0"),
			want: []string{"2 PCILinkSlow Warning Reboot"},
		},
		"the more exact speed goes first": {
			seats: seatsOf(gpuAt(2, linkOf(16, 16, 16000, 16000))), declared: links("10de:*=@32", "0000:02:00.0=@16"), load: busy("0000:02:00.0"),
		},
		"declared for another device": {seats: seatsOf(diskAt(1, linkOf(4, 4, 16000, 16000))), declared: links("10de:*=x16")},
		"as many as declared":         {seats: seatsOf(gpuAt(1, full), gpuAt(2, full)), declared: counts("2", "10de:2335=2")},
		"more than declared":          {seats: seatsOf(gpuAt(1, full), gpuAt(2, full)), declared: counts("1")},
		"fewer than declared": {
			seats: seatsOf(gpuAt(1, full), gpuAt(2, full)), declared: counts("10de:2335=3"), want: []string{"node PCIDeviceCount Warning Reboot"},
		},
		"fewer in all, and of one kind: one fault": {
			seats: seatsOf(gpuAt(1, full)), declared: counts("8", "10de:2335=2"), want: []string{"node PCIDeviceCount Warning Reboot"},
		},
		"one that is missing by name is not missed twice": {
			seats: missing, declared: counts("2", "10de:2335:0302=2"), want: []string{"2 PCIDeviceMissing Critical Reboot"},
		},
		"all well": {seats: seatsOf(gpuAt(1, full), gpuAt(2, full))},
		"an idle GPU's speed is power-saving, not a fault":        {seats: seatsOf(gpuAt(1, full), gpuAt(2, idle), gpuAt(3, full))},
		"a known device that is gone":                             {seats: missing, want: []string{"2 PCIDeviceMissing Critical Reboot"}},
		"a device that reads all ones":                            {seats: seatsOf(gpuAt(1, full), dead), want: []string{"2 PCIDeviceDead Critical Reboot"}},
		"the kernel calls a dead device D3cold; it is dead still": {seats: seatsOf(gpuAt(1, full), deadInD3), want: []string{"2 PCIDeviceDead Critical Reboot"}},
		"a device asleep is not looked at":                        {seats: seatsOf(gpuAt(1, full), asleep), want: []string{"2 unseen: asleep"}},
		"configuration space that cannot be read":                 {seats: seatsOf(gpuAt(1, full), unread), want: []string{"2 unseen: configuration space could not be read"}},
		"half the lanes, and a peer shows the rest":               {seats: wide, want: []string{"2 PCILinkNarrow Warning Reboot"}},
		"a sixteenth of the lanes is critical":                    {seats: seatsOf(gpuAt(1, full), gpuAt(2, one)), want: []string{"2 PCILinkNarrow Critical Reboot"}},
		"half the lanes with no peer: the registers allow more, and that is all that is known": {
			seats: seatsOf(gpuAt(2, half)), want: []string{"2 PCILinkNarrow Warning None"},
		},
		"two alike and narrow prove nothing about the platform": {
			seats: seatsOf(gpuAt(1, half), gpuAt(2, half)), want: []string{"1 PCILinkNarrow Warning None", "2 PCILinkNarrow Warning None"},
		},
		"three alike are how the platform is built": {seats: seatsOf(gpuAt(1, half), gpuAt(2, half), gpuAt(3, half))},
		"unless one of them was once wider":         {seats: learned, want: []string{"2 PCILinkNarrow Warning Reboot"}},
		"a port of fewer lanes is no fault":         {seats: seatsOf(gpuAt(1, full), narrowPort)},
		"a device without a link is not judged":     {seats: seatsOf(gpuAt(1, full), noLink)},
		"slow under load": {
			seats: seatsOf(gpuAt(1, full), gpuAt(2, idle)), load: busy("0000:01:00.0", "0000:02:00.0"),
			want: []string{"2 PCILinkSlow Warning Reboot"},
		},
		"slow and idle beside a busy one": {seats: seatsOf(gpuAt(1, full), gpuAt(2, idle)), load: busy("0000:01:00.0")},
		"a device that does not save power is judged at any time": {
			seats: seatsOf(diskAt(1, linkOf(4, 4, 2500, 16000))), want: []string{"1 PCILinkSlow Warning None"},
		},
		"a device at its own maximum in a faster port": {seats: seatsOf(diskAt(1, linkOf(1, 1, 2500, 2500)))},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			v := Judge(tc.seats, tc.load, tc.declared)
			var got []string
			for _, c := range v.Conditions {
				place := "node"
				if c.Seat >= 0 {
					place = tc.seats[c.Seat].Address[6:7]
				}
				got = append(got, fmt.Sprintf("%s %s %s %s", place, c.Code, c.Severity, c.Recommended))
				if c.Evidence == "" {
					t.Error("no evidence")
				}
			}
			for i, why := range v.Unseen {
				if why != "" {
					got = append(got, fmt.Sprintf("%c unseen: %s", tc.seats[i].Address[6], why))
				}
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestReconcile(t *testing.T) {
	const a, b, x = "GPU-a", "GPU-b", "GPU-x"
	known := func(bus int, uuid string, slot string) Known {
		return Known{UUID: uuid, Model: "H200", Address: fmt.Sprintf("0000:%02x:00.0", bus), Slot: slot, Vendor: 0x10de, Device: 0x2335, Width: 16, MTs: 32000}
	}
	seen := func(bus int, uuid string, slot string) Seen {
		d := gpuAt(bus, linkOf(8, 16, 2500, 32000))
		d.Slot = slot
		return Seen{PCIDevice: d, UUID: uuid, Model: "H200"}
	}
	tests := map[string]struct {
		known   []Known
		seen    []Seen
		want    []string // uuid at address, learned width; or missing
		changed bool
	}{
		"the first look learns": {seen: []Seen{seen(1, a, "1")}, want: []string{"GPU-a at 01 x8"}, changed: true},
		"nothing new":           {known: []Known{known(1, a, "1")}, seen: []Seen{seen(1, a, "1")}, want: []string{"GPU-a at 01 x16"}},
		"one is missing": {
			known: []Known{known(1, a, "1"), known(2, b, "2")}, seen: []Seen{seen(2, b, "2")},
			want: []string{"GPU-a at 01 missing", "GPU-b at 02 x16"},
		},
		"a bus number shifts: the same device, and nothing is missing": {
			known: []Known{known(1, a, "1"), known(2, b, "2")}, seen: []Seen{seen(1, b, "2"), seen(3, a, "1")},
			want: []string{"GPU-b at 01 x16", "GPU-a at 03 x16"}, changed: true,
		},
		"a bus number shifts where no identity can be read: by the slot": {
			known: []Known{known(1, "", "1"), known(2, "", "2")}, seen: []Seen{seen(2, "", "2"), seen(7, "", "1")},
			want: []string{" at 02 x16", " at 07 x16"}, changed: true,
		},
		"no driver now: the identity last read in this place is kept": {
			known: []Known{known(1, a, "1")}, seen: []Seen{seen(1, "", "1")}, want: []string{"GPU-a at 01 x16"},
		},
		"another identity in the place is a replacement, with a baseline of its own": {
			known: []Known{known(1, a, "1")}, seen: []Seen{seen(1, x, "1")}, want: []string{"GPU-x at 01 x8"}, changed: true,
		},
		"a replacement that also shifts the bus number is found by its slot": {
			known: []Known{known(1, a, "1")}, seen: []Seen{seen(5, x, "1")}, want: []string{"GPU-x at 05 x8"}, changed: true,
		},
		"two devices that changed places took their identities along, and start a new baseline there": {
			known: []Known{known(1, a, "1"), known(2, b, "2")}, seen: []Seen{seen(1, b, "1"), seen(2, a, "2")},
			want: []string{"GPU-b at 01 x8", "GPU-a at 02 x8"}, changed: true,
		},
		"an identity beats a place that has none": {
			known: []Known{known(1, a, "1"), known(2, "", "2")}, seen: []Seen{seen(1, "", "1"), seen(2, a, "2")},
			want: []string{" at 01 x8", "GPU-a at 02 x8"}, changed: true,
		},
		"a replacement where no slot has a name is found by its address": {
			known: []Known{known(1, a, "")}, seen: []Seen{seen(1, x, "")}, want: []string{"GPU-x at 01 x8"}, changed: true,
		},
		"another device elsewhere is new, and the old one missing": {
			known: []Known{known(1, a, "1")}, seen: []Seen{seen(9, x, "9")},
			want: []string{"GPU-a at 01 missing", "GPU-x at 09 x8"}, changed: true,
		},
		"an identity is learned once the driver gives it": {
			known: []Known{known(1, "", "1")}, seen: []Seen{seen(1, a, "1")}, want: []string{"GPU-a at 01 x16"}, changed: true,
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			seats, changed := Reconcile(tc.known, tc.seen)
			var got []string
			for _, s := range seats {
				line := fmt.Sprintf("%s at %s x%d", s.UUID, s.Address[5:7], s.Width)
				if s.Seen == nil {
					line = fmt.Sprintf("%s at %s missing", s.UUID, s.Address[5:7])
				}
				got = append(got, line)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if changed != tc.changed && len(tc.known) == len(seats) {
				t.Errorf("changed %v", changed)
			}
		})
	}
}

func TestIdentitiesAreUniqueOnTheNode(t *testing.T) {
	a, b, c := gpuAt(1, machine.Link{}), gpuAt(2, machine.Link{}), gpuAt(3, machine.Link{})
	a.Slot, b.Slot, c.Slot = "4", "4", "5"
	want := []string{"10de-2335-pci-0000:01:00.0", "10de-2335-pci-0000:02:00.0", "10de-2335-slot-5"}
	if diff := cmp.Diff(want, ids(seatsOf(a, b, c))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestIsAccelerator(t *testing.T) {
	nvme := Match{Vendor: 0x1b36, Device: 0x0010}
	tests := map[string]struct {
		id   machine.PCIID
		want bool
	}{
		"an NVIDIA 3D controller":           {machine.PCIID{Vendor: 0x10de, Class: 0x030200}, true},
		"an NVIDIA VGA controller":          {machine.PCIID{Vendor: 0x10de, Class: 0x030000}, true},
		"an NVIDIA NVSwitch":                {machine.PCIID{Vendor: 0x10de, Class: 0x068000}, false},
		"the sound of an NVIDIA card":       {machine.PCIID{Vendor: 0x10de, Class: 0x040300}, false},
		"a virtual function of a GPU":       {machine.PCIID{Vendor: 0x10de, Class: 0x030200, Virtual: true}, false},
		"an AMD processing accelerator":     {machine.PCIID{Vendor: 0x1002, Class: 0x120000}, true},
		"an AMD display controller":         {machine.PCIID{Vendor: 0x1002, Class: 0x038000}, true},
		"the graphics of an AMD processor":  {machine.PCIID{Vendor: 0x1002, Class: 0x030000}, false},
		"the VGA of a BMC":                  {machine.PCIID{Vendor: 0x1a03, Class: 0x030000}, false},
		"what configuration names":          {machine.PCIID{Vendor: 0x1b36, Device: 0x0010, Class: 0x010802}, true},
		"a Gaudi":                           {machine.PCIID{Vendor: 0x1da3, Device: 0x1020, Class: 0x120000}, true},
		"an MN-Core 2, of whatever class":   {machine.PCIID{Vendor: 0x0ccd, Device: 0x0120, Class: 0x120000}, true},
		"a link between MN-Core boards":     {machine.PCIID{Vendor: 0x0ccd, Device: 0x0200, Class: 0x120000}, false},
		"another device of the same vendor": {machine.PCIID{Vendor: 0x1b36, Device: 0x000c, Class: 0x060400}, false},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if got := IsAccelerator(tc.id, []Match{nvme}); got != tc.want {
				t.Errorf("%+v: %v", tc.id, got)
			}
		})
	}
}

func TestParseMatch(t *testing.T) {
	for in, want := range map[string]Match{
		"1b36:0010": {Vendor: 0x1b36, Device: 0x10}, "10DE:*": {Vendor: 0x10de}, "*:*:1200": {Class: 0x1200},
	} {
		if got, err := ParseMatch(in); err != nil || got != want {
			t.Errorf("%q: %+v, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "10de", "*:*", "x:y", "1:2:3:4", "10de0:1", "*:*:*"} {
		if m, err := ParseMatch(in); err == nil {
			t.Errorf("%q is taken as %+v", in, m)
		}
	}
}

func FuzzParseMatch(f *testing.F) {
	f.Add("1b36:0010")
	f.Add("*:*:1200")
	f.Fuzz(func(t *testing.T, s string) {
		if m, err := ParseMatch(s); err == nil && m.matches(machine.PCIID{Vendor: m.Vendor + 1, Device: m.Device + 1, Class: uint32(m.Class+1) << 8}) {
			t.Errorf("%q matches what it does not name", s)
		}
	})
}
