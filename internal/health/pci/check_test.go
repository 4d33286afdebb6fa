package pci

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/health"
	"github.com/roundhouse-dev/roundhouse/internal/machine"
	"github.com/roundhouse-dev/roundhouse/internal/machine/fake"
)

const gpu0 = "0000:18:00.0"

var t0 = time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)

// rig is a machine of four GPUs, its clock, and a check on it.
type rig struct {
	*testing.T
	ns    atomic.Int64
	m     *fake.Machine
	check *Check
}

func newRig(t *testing.T) *rig {
	r := &rig{T: t}
	r.ns.Store(t0.UnixNano())
	r.m = fake.New(fake.Options{Devices: fake.H200s(4, 7), Now: r.now, BootID: "0fc70fad-6980-4f05-acf8-5f6c56122bb4"})
	r.restart()
	return r
}

func (r *rig) now() time.Time          { return time.Unix(0, r.ns.Load()).UTC() }
func (r *rig) advance(d time.Duration) { r.ns.Add(int64(d)) }

// restart is a new agent on the same machine.
func (r *rig) restart() { r.check = New(Options{Machine: r.m, UnderLoad: r.m.UnderLoad, Now: r.now}) }

func (r *rig) look() health.Result {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.Context(), 10*time.Second)
	defer cancel()
	return r.check.Look(ctx)
}

// expect looks and compares the outcome, the findings and the healths of the devices that are not healthy.
func (r *rig) expect(when string, outcome health.Outcome, want ...string) health.Result {
	r.Helper()
	res := r.look()
	var got []string
	for _, f := range res.Findings {
		got = append(got, fmt.Sprintf("%s %s x%d", f.Fault.Code, f.PCI, f.Fault.Count))
	}
	for _, d := range health.WithHealth(res.Devices, res.Findings, false) {
		if d.Health != v1alpha1.DeviceHealthy {
			got = append(got, d.PCI+" "+string(d.Health))
		}
	}
	if res.Outcome != outcome || (outcome == health.Unknown) != (res.Reason != "") {
		r.Errorf("%s: %s %s (%s), want %s", when, res.Outcome, res.Reason, res.Message, outcome)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		r.Errorf("%s (-want +got):\n%s", when, diff)
	}
	return res
}

func TestTheInventory(t *testing.T) {
	r := newRig(t)
	res := r.expect("at the start", health.Passing)
	want := v1alpha1.Device{
		ID: "GPU-00000007-0000-4000-8000-000000000000", Vendor: "NVIDIA", Model: "H200", PCI: gpu0, BoundTo: "nvidia",
		Driver: "595.45", Firmware: "96.00.BC.00.01", Slot: "0", Health: v1alpha1.DeviceHealthy,
		Link: &v1alpha1.Link{
			Width: 16, MaxWidth: 16, GTs: "32", MaxGTs: "32", Baseline: &v1alpha1.LinkBaseline{Width: 16, GTs: "32", From: "Peers"},
		},
	}
	if diff := cmp.Diff(want, res.Devices[0]); diff != "" || len(res.Devices) != 4 {
		t.Errorf("%d devices (-want +got):\n%s", len(res.Devices), diff)
	}

	r.m.SetLink(gpu0, machine.Link{Width: 16, MaxWidth: 16, MTs: 2500, MaxMTs: 32000})
	again := r.expect("idle", health.Passing)
	if diff := cmp.Diff(res.Devices, again.Devices); diff != "" {
		t.Errorf("an idle moment changes what is published:\n%s", diff)
	}
}

func TestADeviceGoesAndComesBack(t *testing.T) {
	for kind, code := range map[fake.BreakKind]string{fake.Gone: CodeMissing, fake.Dead: CodeDead} {
		t.Run(code, func(t *testing.T) {
			r := newRig(t)
			mark := gpu0 + " Unhealthy"
			if kind == fake.Gone {
				mark = gpu0 + " Missing"
			}
			r.expect("at the start", health.Passing)
			r.m.Break(gpu0, fake.Break{Kind: kind})
			if res := r.look(); res.Outcome != health.Unknown || res.Reason != ReasonSettling || res.Again != 2*time.Second {
				t.Errorf("seen once: %s, again in %v", res.Outcome, res.Again)
			}
			r.advance(2 * time.Second)
			r.expect("and it lasts", health.Failing, code+" "+gpu0+" x1", mark)
			r.advance(time.Hour)
			res := r.expect("counted once, however often it is seen", health.Failing, code+" "+gpu0+" x1", mark)
			f := res.Findings[0].Fault
			if !f.FirstSeen.Time.Equal(t0) || f.Device != "GPU-00000007-0000-4000-8000-000000000000" || f.Recommended != "Reboot" {
				t.Errorf("%+v", f)
			}
			r.restart()
			res = r.expect("a new agent does not start the clock again", health.Failing, code+" "+gpu0+" x1", mark)
			if !res.Findings[0].Fault.FirstSeen.Time.Equal(t0) {
				t.Errorf("first seen %v", res.Findings[0].Fault.FirstSeen)
			}
			r.m.Break(gpu0, fake.Break{})
			r.expect("back, but for how long?", health.Failing, code+" "+gpu0+" x1", unlessGone(kind, gpu0+" Unhealthy", gpu0+" Unhealthy"))
			r.m.Break(gpu0, fake.Break{Kind: kind})
			r.advance(time.Second)
			r.expect("gone again: the same fault, counted", health.Failing, code+" "+gpu0+" x2", mark)
			r.m.Break(gpu0, fake.Break{})
			r.look()
			r.advance(10 * time.Second)
			r.expect("back for good", health.Passing)
		})
	}
}

// unlessGone is the mark of a device that is back while its fault still stands.
func unlessGone(kind fake.BreakKind, gone, other string) string {
	if kind == fake.Gone {
		return gone
	}
	return other
}

func TestAShortResetIsNoFault(t *testing.T) {
	r := newRig(t)
	r.look()
	r.m.Break(gpu0, fake.Break{Kind: fake.Dead})
	r.look()
	r.advance(time.Second)
	r.m.Break(gpu0, fake.Break{})
	r.expect("back within the time", health.Passing)
	r.advance(10 * time.Second)
	r.m.Break(gpu0, fake.Break{Kind: fake.Dead})
	r.expect("the next one starts anew", health.Unknown, gpu0+" Unknown")
}

func TestAReboot(t *testing.T) {
	r := newRig(t)
	r.look()
	r.m.Break(gpu0, fake.Break{Kind: fake.Gone, HealsAfterBoots: 1})
	r.m.Break("0000:28:00.0", fake.Break{Kind: fake.Gone})
	r.look()
	r.advance(2 * time.Second)
	r.expect("before", health.Failing, CodeMissing+" "+gpu0+" x1", CodeMissing+" 0000:28:00.0 x1", gpu0+" Missing", "0000:28:00.0 Missing")
	r.m.GoDown(0)
	r.expect("the faults of the old boot are over, the inventory is not", health.Unknown, "0000:28:00.0 Missing")
	r.advance(2 * time.Second)
	r.expect("one did not come back", health.Failing, CodeMissing+" 0000:28:00.0 x1", "0000:28:00.0 Missing")
	id := "GPU-00000007-0000-4000-8000-000000000001"
	if ok, err := r.check.Forget(t.Context(), id); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if ok, err := r.check.Forget(t.Context(), id); ok || err != nil {
		t.Fatal(ok, err)
	}
	if res := r.expect("a human says that it is not to come back", health.Passing); len(res.Devices) != 3 {
		t.Errorf("%d devices", len(res.Devices))
	}
	r.restart()
	r.expect("and that is kept", health.Passing)
}

func TestAReplacedDeviceIsNoFault(t *testing.T) {
	r := newRig(t)
	r.look()
	d := fake.H200s(1, 99)[0]
	r.m.GoDown(0)
	r.m.AddDevice(d)
	r.look()
	r.advance(time.Minute)
	res := r.expect("another UUID in the slot", health.Passing)
	if len(res.Devices) != 4 || res.Devices[0].ID != d.UUID {
		t.Errorf("%+v", res.Devices[0])
	}
}

func TestLinks(t *testing.T) {
	r := newRig(t)
	r.look()
	r.m.Break(gpu0, fake.Break{Kind: fake.Narrow, Width: 8})
	r.look()
	r.advance(2 * time.Second)
	r.expect("a link trains for longer than a device resets", health.Unknown, gpu0+" Unknown")
	r.advance(8 * time.Second)
	r.expect("narrow", health.Failing, CodeNarrow+" "+gpu0+" x1")
	r.m.Break(gpu0, fake.Break{Kind: fake.Slow, MTs: 8000})
	r.look()
	r.advance(10 * time.Second)
	r.expect("slow and idle", health.Passing)
	r.m.SetBusy(gpu0, true)
	r.look()
	r.advance(10 * time.Second)
	r.expect("slow and busy", health.Failing, CodeSlow+" "+gpu0+" x1")
}

func TestPassedThroughToAVirtualMachine(t *testing.T) {
	r := newRig(t)
	r.look()
	r.m.SetDriver(gpu0, "vfio-pci")
	r.m.Break(gpu0, fake.Break{Kind: fake.Dead})
	r.look()
	r.advance(2 * time.Second)
	r.expect("its guest may reset it as it likes", health.Unknown, gpu0+" Unknown")
	r.advance(8 * time.Second)
	res := r.expect("dead from the bus alone", health.Failing, CodeDead+" "+gpu0+" x1", gpu0+" Unhealthy")
	if d := res.Devices[0]; d.BoundTo != "vfio-pci" || !strings.HasPrefix(d.ID, "GPU-") {
		t.Errorf("%+v", d)
	}
	d := fake.H200s(1, 7)[0]
	d.Suspended, d.Config, d.Driver = true, machine.ConfigUnread, "vfio-pci"
	r.m.AddDevice(d)
	r.expect("asleep: what stood stands, and nothing new is said", health.Failing, CodeDead+" "+gpu0+" x1", gpu0+" Unhealthy")
}

func TestAConfiguredDeviceStandsForAGPU(t *testing.T) {
	r := newRig(t)
	d := fake.Device{PCIDevice: diskAt(1, linkOf(1, 1, 2500, 2500))}
	r.m = fake.New(fake.Options{Devices: []fake.Device{d}, Now: r.now})
	r.check = New(Options{Machine: r.m, Now: r.now, Match: []Match{{Vendor: 0x1b36, Device: 0x10}}})
	res := r.expect("at the start", health.Passing)
	if len(res.Devices) != 1 || res.Devices[0].ID != "1b36-0010-pci-0000:01:00.0" || res.Devices[0].Model != "1b36:0010" {
		t.Errorf("%+v", res.Devices)
	}
	r.m.RemoveDevice("0000:01:00.0")
	r.look()
	r.advance(2 * time.Second)
	// The bus is empty now, as on the machine of one device; one missing of one known is believed.
	r.expect("off the bus", health.Failing, CodeMissing+" 0000:01:00.0 x1", "0000:01:00.0 Missing")
}

func TestCannotLook(t *testing.T) {
	tests := map[string]struct {
		arrange func(*fake.Machine)
		reason  string
		message string
	}{
		"the bus cannot be listed": {func(m *fake.Machine) { m.Fail(fake.DoorPCI, errors.New("permission denied")) }, health.ReasonCannotRead, "permission denied"},
		"the bus hangs":            {func(m *fake.Machine) { m.Hang(fake.DoorPCI, true) }, health.ReasonTimedOut, "in time"},
		"the bus is empty all at once: not this host's /sys, rather than every GPU lost": {
			func(m *fake.Machine) {
				for _, d := range fake.H200s(4, 7) {
					m.RemoveDevice(d.Address)
				}
			}, health.ReasonCannotRead, "lists nothing",
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.look()
			r.m.Break(gpu0, fake.Break{Kind: fake.Dead})
			r.look()
			r.advance(2 * time.Second)
			r.look()
			tc.arrange(r.m)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			defer cancel()
			res := r.check.Look(ctx)
			if res.Outcome != health.Unknown || res.Reason != tc.reason || !strings.Contains(res.Message, tc.message) {
				t.Errorf("%s %s %q", res.Outcome, res.Reason, res.Message)
			}
			if len(res.Findings) != 1 || len(res.Devices) != 4 {
				t.Errorf("what stood is gone: %+v", res)
			}
			for _, d := range res.Devices {
				if d.Health == v1alpha1.DeviceHealthy {
					t.Errorf("%s is called healthy unseen", d.PCI)
				}
			}
		})
	}
}

func TestADriverThatHangs(t *testing.T) {
	r := newRig(t)
	r.m.Fail(fake.DoorNVIDIA, errors.New("stuck"))
	res := r.expect("at the start the identities are not known, and that is said", health.Unknown)
	if len(res.Devices) != 4 || !strings.Contains(res.Devices[0].ID, "-slot-0") {
		t.Errorf("%+v", res.Devices)
	}
	r.check = New(Options{Machine: r.m, Now: r.now, UUID: func(a string) string { return "GPU-log-" + a }})
	if res := r.look(); res.Devices[0].ID != "GPU-log-"+gpu0 {
		t.Errorf("the kernel log is a second source: %+v", res.Devices[0])
	}
	r = newRig(t)
	r.look()
	r.m.Fail(fake.DoorNVIDIA, errors.New("stuck"))
	r.expect("later it is not asked again", health.Passing)
}

func TestADiskThatFails(t *testing.T) {
	r := newRig(t)
	r.look()
	r.m.Break(gpu0, fake.Break{Kind: fake.Gone})
	r.m.Fail(fake.DoorStore, errors.New("input/output error"))
	r.restart()
	r.expect("the inventory may still come", health.Unknown)
	r.look()
	res := r.expect("it does not, and what can be seen is looked at", health.Unknown)
	if len(res.Devices) != 3 {
		t.Errorf("%d devices", len(res.Devices))
	}
	r.m.Fail(fake.DoorStore, nil)
	r.look()
	r.advance(2 * time.Second)
	r.expect("it comes at last, and nothing was written over it", health.Failing, CodeMissing+" "+gpu0+" x1", gpu0+" Missing")
	if err := r.m.Save(t.Context(), stateFile, []byte("{")); err != nil {
		t.Fatal(err)
	}
	r.restart()
	if res := r.expect("a broken file starts anew", health.Passing); len(res.Devices) != 3 {
		t.Errorf("%+v", res)
	}
}

// unreadable is a machine whose state can be written and not read.
type unreadable struct{ *fake.Machine }

func (unreadable) Load(context.Context, string) ([]byte, error) {
	return nil, errors.New("input/output error")
}

func TestAnInventoryThatCannotBeReadIsNotWrittenOver(t *testing.T) {
	r := newRig(t)
	r.look()
	r.m.Break(gpu0, fake.Break{Kind: fake.Gone})
	r.check = New(Options{Machine: unreadable{r.m}, Now: r.now})
	for range loadAttempts + 1 {
		r.look()
	}
	r.restart()
	r.look()
	r.advance(2 * time.Second)
	r.expect("the device is still missed", health.Failing, CodeMissing+" "+gpu0+" x1", gpu0+" Missing")
}

func TestWhatWasPendingIsMeasuredAnew(t *testing.T) {
	r := newRig(t)
	r.m.Break(gpu0, fake.Break{Kind: fake.Dead})
	r.expect("seen once, and saved with the new inventory", health.Unknown, gpu0+" Unknown")
	r.advance(time.Hour)
	r.restart()
	r.expect("nobody looked for an hour", health.Unknown, gpu0+" Unknown")
}
