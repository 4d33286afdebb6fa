package pci

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/health"
	"github.com/roundhouse-dev/roundhouse/internal/machine"
	"github.com/roundhouse-dev/roundhouse/internal/machine/fake"
)

// The frame is not one vendor's: each accelerator goes the same way from the inventory through a fault and back. IDs are
// those of pci.ids; the class of an MN-Core board is not published, and it is known by its ID alone.
func TestEveryVendorGoesTheSameWay(t *testing.T) {
	tests := map[string]struct {
		id         machine.PCIID
		match      string
		vendor, as string // the device's vendor, and how its ID begins
		model      string
	}{
		"NVIDIA": {
			id:     machine.PCIID{Vendor: 0x10de, Device: 0x2335, Class: 0x030200, Driver: "nvidia"},
			vendor: "NVIDIA", as: "GPU-", model: "H200",
		},
		"AMD MI300X": {
			id:     machine.PCIID{Vendor: 0x1002, Device: 0x74a1, Class: 0x120000, Driver: "amdgpu"},
			vendor: "AMD", as: "1002-74a1-slot-0", model: "1002:74a1",
		},
		"Gaudi 2": {
			id:     machine.PCIID{Vendor: 0x1da3, Device: 0x1020, Class: 0x120000, Driver: "habanalabs"},
			vendor: "Habana", as: "1da3-1020-slot-0", model: "1da3:1020",
		},
		"MN-Core 2": {
			id:     machine.PCIID{Vendor: 0x0ccd, Device: 0x0120, Class: 0xff0000},
			vendor: "Preferred Networks", as: "0ccd-0120-slot-0", model: "0ccd:0120",
		},
		"an NVMe disk that stands for a GPU": {
			id:    machine.PCIID{Vendor: 0x1b36, Device: 0x0010, Class: 0x010802, Driver: "nvme"},
			match: "1b36:0010", vendor: "1b36", as: "1b36-0010-slot-0", model: "1b36:0010",
		},
		"any other, by its class": {
			id:    machine.PCIID{Vendor: 0x1d0f, Device: 0x7364, Class: 0x120000, Driver: "neuron"},
			match: "*:*:1200", vendor: "1d0f", as: "1d0f-7364-slot-0", model: "1d0f:7364",
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			devices := fake.H200s(4, 7)
			for i := range devices {
				devices[i].PCIID = tc.id
			}
			// A network adapter beside them is none.
			devices = append(devices, fake.Device{PCIDevice: machine.PCIDevice{
				PCIID: machine.PCIID{Vendor: 0x15b3, Device: 0x1021, Class: 0x020700}, Address: "0000:99:00.0",
			}})
			r.m = fake.New(fake.Options{Devices: devices, Now: r.now, BootID: "0fc70fad-6980-4f05-acf8-5f6c56122bb4"})
			o := Options{Machine: r.m, UnderLoad: r.m.UnderLoad, Now: r.now, Declared: Declared{Counts: []DeclaredCount{{N: 4}}}}
			if tc.match != "" {
				m, err := ParseMatch(tc.match)
				if err != nil {
					t.Fatal(err)
				}
				o.Match = []Match{m}
			}
			r.check = New(o)

			res := r.expect("at the start", health.Passing)
			if len(res.Devices) != 4 {
				t.Fatalf("%d devices", len(res.Devices))
			}
			d := res.Devices[0]
			if d.Vendor != tc.vendor || len(d.ID) < len(tc.as) || d.ID[:len(tc.as)] != tc.as || d.Model != tc.model || d.BoundTo != tc.id.Driver {
				t.Errorf("%+v", d)
			}
			want := &v1alpha1.Link{Width: 16, MaxWidth: 16, GTs: "32", MaxGTs: "32", Baseline: &v1alpha1.LinkBaseline{Width: 16, GTs: "32", From: "Peers"}}
			if diff := cmp.Diff(want, d.Link); diff != "" {
				t.Errorf("link (-want +got):\n%s", diff)
			}
			for kind, code := range map[fake.BreakKind]string{fake.Dead: CodeDead, fake.Gone: CodeMissing, fake.Narrow: CodeNarrow} {
				r.m.Break(gpu0, fake.Break{Kind: kind, Width: 2})
				r.look()
				r.advance(10 * time.Second)
				if got := codes(r.look()); !cmp.Equal(got, []string{code + " " + d.ID}) {
					t.Errorf("%v, want %s", got, code)
				}
				r.m.Break(gpu0, fake.Break{})
				r.look()
				r.advance(10 * time.Second)
				r.expect("whole again", health.Passing)
			}
			r.m.SetDriver(gpu0, "vfio-pci")
			r.m.Break(gpu0, fake.Break{Kind: fake.Dead})
			r.look()
			r.advance(10 * time.Second)
			if got := codes(r.look()); !cmp.Equal(got, []string{CodeDead + " " + d.ID}) {
				t.Errorf("passed through: %v", got)
			}
		})
	}
}

func codes(res health.Result) []string {
	var out []string
	for _, f := range health.Identify(res.Findings, res.Devices) {
		out = append(out, f.Fault.Code+" "+f.Fault.Device)
	}
	return out
}

func TestADeclaredCountOverTime(t *testing.T) {
	r := newRig(t)
	o := Options{Machine: r.m, Now: r.now, Declared: Declared{Counts: []DeclaredCount{{Match{Vendor: 0x10de, Device: 0x2335}, 5}}}}
	r.check = New(o)
	r.expect("a device may yet come", health.Unknown)
	r.advance(10 * time.Second)
	res := r.expect("four of five", health.Failing, "PCIDeviceCount  x1")
	if f := res.Findings[0]; f.Fault.Device != "" || f.PCI != "" || f.Fault.Severity != v1alpha1.SeverityWarning ||
		f.Fault.Evidence != "this node has 4 accelerators 10de:2335, declared 5" {
		t.Errorf("%+v", f)
	}
	if got := health.Identify(res.Findings, res.Devices)[0].Fault.Device; got != "" {
		t.Errorf("it is the node's, not that of %q", got)
	}
	r.m.Break(gpu0, fake.Break{Kind: fake.Gone})
	r.look()
	r.advance(10 * time.Second)
	r.expect("one goes: it is missed by name, and still one more was declared", health.Failing,
		"PCIDeviceCount  x1", fmt.Sprintf("%s %s x1", CodeMissing, gpu0), gpu0+" Missing")
	r.m.Break(gpu0, fake.Break{})
	d := fake.H200s(5, 7)[4]
	r.m.AddDevice(d)
	r.look()
	r.advance(10 * time.Second)
	r.expect("the fifth came", health.Passing)
	if ok, err := r.check.Forget(t.Context(), d.UUID); !ok || err != nil {
		t.Fatal(ok, err)
	}
	r.m.RemoveDevice(d.Address)
	r.look()
	r.advance(10 * time.Second)
	r.expect("forgotten, and still declared", health.Failing, "PCIDeviceCount  x1")
}

func TestADeclaredLinkIsPublishedAsSuch(t *testing.T) {
	r := newRig(t)
	r.check = New(Options{Machine: r.m, Now: r.now, Declared: Declared{Links: []DeclaredLink{{Slot: "0", Width: 8, MTs: 16000}}}})
	res := r.expect("declared to have less than it has", health.Passing)
	want := &v1alpha1.LinkBaseline{Width: 8, GTs: "16", From: "Declared"}
	if diff := cmp.Diff(want, res.Devices[0].Link.Baseline); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if from := res.Devices[1].Link.Baseline.From; from != "Peers" {
		t.Errorf("the next slot's is %s", from)
	}
	r.check = New(Options{Machine: r.m, Now: r.now, Declared: Declared{Links: []DeclaredLink{{Slot: "0", MTs: 16000}}}})
	want = &v1alpha1.LinkBaseline{Width: 16, GTs: "16", From: "Declared"}
	if diff := cmp.Diff(want, r.look().Devices[0].Link.Baseline); diff != "" {
		t.Errorf("a speed alone (-want +got):\n%s", diff)
	}
}
