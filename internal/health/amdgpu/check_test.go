package amdgpu

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

const (
	gpu0 = "0000:0c:00.0"
	gpu1 = "0000:22:00.0"
)

var t0 = time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)

// rig is a machine of two MI300X with 192 GB each, and one NVIDIA GPU.
type rig struct {
	*testing.T
	ns    atomic.Int64
	m     *fake.Machine
	check *Check
}

func newRig(t *testing.T) *rig {
	r := &rig{T: t}
	r.ns.Store(t0.UnixNano())
	devices := fake.H200s(1, 1)
	for _, address := range []string{gpu0, gpu1} {
		devices = append(devices, fake.Device{PCIDevice: machine.PCIDevice{
			PCIID:   machine.PCIID{Vendor: 0x1002, Device: 0x74a1, Class: 0x120000, Driver: "amdgpu"},
			Address: address, Config: machine.ConfigAnswers,
		}})
	}
	r.m = fake.New(fake.Options{Now: r.now, Devices: devices, BootID: "0fc70fad-6980-4f05-acf8-5f6c56122bb4"})
	r.m.SetAMDGPU(sound(gpu0))
	r.m.SetAMDGPU(sound(gpu1))
	r.restart()
	return r
}

// sound is a GPU with errors of long ago and a few bad pages.
func sound(address string) machine.AMDGPU {
	return machine.AMDGPU{
		Address: address, RAS: true, MemoryBytes: 192 << 30, PageThreshold: -1, Pages: machine.BadPages{Reserved: 4},
		Blocks: []machine.RASCount{{Block: "gfx"}, {Block: "umc", Uncorrectable: 1, Correctable: 5000, Deferred: 2}},
	}
}

func (r *rig) now() time.Time          { return time.Unix(0, r.ns.Load()).UTC() }
func (r *rig) advance(d time.Duration) { r.ns.Add(int64(d)) }
func (r *rig) restart()                { r.check = New(Options{Machine: r.m, Now: r.now}) }

// set has the driver say of the first GPU what f makes of a sound one.
func (r *rig) set(f func(*machine.AMDGPU)) {
	g := sound(gpu0)
	f(&g)
	r.m.SetAMDGPU(g)
}

func (r *rig) look() health.Result {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.Context(), 10*time.Second)
	defer cancel()
	return r.check.Look(ctx)
}

func (r *rig) expect(when string, outcome health.Outcome, want ...string) health.Result {
	r.Helper()
	res := r.look()
	if diff := cmp.Diff(want, show(res.Findings)); diff != "" {
		r.Errorf("%s (-want +got):\n%s", when, diff)
	}
	if res.Outcome != outcome || outcome == health.Unknown && res.Reason == "" {
		r.Errorf("%s: %s %s (%s), want %s", when, res.Outcome, res.Reason, res.Message, outcome)
	}
	return res
}

func show(findings []health.Finding) []string {
	var out []string
	for _, f := range findings {
		out = append(out, fmt.Sprintf("%s %s %s %s x%d", f.Fault.Code, f.PCI, f.Fault.Severity, f.Fault.Recommended, f.Fault.Count))
	}
	return out
}

const broken = "AMDUncorrectableError 0000:0c:00.0 Critical ResetDevice x1"

func oneMore(g *machine.AMDGPU) { g.Blocks[1].Uncorrectable++ }

func TestWhatTheDriverCounts(t *testing.T) {
	tests := map[string]struct {
		then    func(*machine.AMDGPU)
		outcome health.Outcome
		want    []string
	}{
		"what was counted before the first look is where it starts": {func(*machine.AMDGPU) {}, health.Passing, nil},
		"an uncorrectable error in memory":                          {oneMore, health.Failing, []string{broken}},
		"an uncorrectable error in a unit":                          {func(g *machine.AMDGPU) { g.Blocks[0].Uncorrectable++ }, health.Failing, []string{broken}},
		"an uncorrectable error in a unit that was not counted before": {
			func(g *machine.AMDGPU) {
				g.Blocks = append(g.Blocks, machine.RASCount{Block: "xgmi_wafl", Uncorrectable: 1})
			}, health.Failing, []string{broken},
		},
		"corrected errors that a good GPU has": {func(g *machine.AMDGPU) { g.Blocks[1].Correctable += 99 }, health.Passing, nil},
		"corrected errors, too many in an hour, in all units": {
			func(g *machine.AMDGPU) { g.Blocks[1].Correctable += 60; g.Blocks[0].Correctable += 40 },
			health.Failing, []string{"AMDCorrectableErrors 0000:0c:00.0 Warning None x100"},
		},
		"bad data that nothing has used yet": {
			func(g *machine.AMDGPU) { g.Blocks[1].Deferred++ }, health.Passing, []string{"AMDDeferredErrors 0000:0c:00.0 Info None x1"},
		},
		"a bad page that could not be taken out of use": {
			func(g *machine.AMDGPU) { g.Pages.Failed = 2 }, health.Failing, []string{"AMDBadPageInUse 0000:0c:00.0 Warning ResetDevice x2"},
		},
		"a bad page that will be": {func(g *machine.AMDGPU) { g.Pages.Pending = 2 }, health.Passing, nil},
		"bad pages, 1769 of 1966": {func(g *machine.AMDGPU) { g.Pages.Reserved = 1769 }, health.Passing, nil},
		"bad pages near what the driver bears, 1770 of 1966": {
			func(g *machine.AMDGPU) { g.Pages.Reserved = 1770 }, health.Failing, []string{"AMDBadPages 0000:0c:00.0 Warning None x1770"},
		},
		"as many as it bears": {
			func(g *machine.AMDGPU) { g.Pages.Reserved, g.Pages.Pending = 1960, 6 },
			health.Failing, []string{"AMDBadPages 0000:0c:00.0 Warning Replace x1966"},
		},
		"a threshold that was set": {
			func(g *machine.AMDGPU) { g.PageThreshold = 4 }, health.Failing, []string{"AMDBadPages 0000:0c:00.0 Warning Replace x4"},
		},
		"nine tenths of a threshold that was set": {
			func(g *machine.AMDGPU) { g.PageThreshold, g.Pages.Reserved = 10, 9 },
			health.Failing, []string{"AMDBadPages 0000:0c:00.0 Warning None x9"},
		},
		"pages are not taken out of use, so that no number is too many": {
			func(g *machine.AMDGPU) { g.PageThreshold, g.Pages.Reserved = 0, 9000 }, health.Passing, nil,
		},
		"the size of the memory is not known": {func(g *machine.AMDGPU) { g.MemoryBytes, g.Pages.Reserved = 0, 9000 }, health.Passing, nil},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.expect("at the start", health.Passing)
			r.advance(30 * time.Second)
			r.set(tc.then)
			res := r.expect("then", tc.outcome, tc.want...)
			for _, f := range res.Findings {
				if f.Fault.Check != Name || f.Fault.Class != v1alpha1.ClassHardware || f.Fault.Evidence == "" || !f.Fault.FirstSeen.Time.Equal(r.now()) {
					t.Errorf("%+v", f)
				}
			}
		})
	}
}

func TestAnUncorrectableErrorStandsUntilTheGPUIsWhole(t *testing.T) {
	ends := map[string]func(r *rig){
		"a reset": func(r *rig) {
			if err := r.check.DeviceReset(t.Context(), gpu0); err != nil {
				t.Fatal(err)
			}
		},
		"a new boot": func(r *rig) { r.m.GoDown(0) },
		"a driver that was loaded anew": func(r *rig) {
			r.set(func(g *machine.AMDGPU) { g.Blocks[1] = machine.RASCount{Block: "umc"} })
		},
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.look()
			r.set(oneMore)
			res := r.expect("found", health.Failing, broken)
			if f := res.Findings[0]; f.ClearedBy != health.ClearedByReset || f.Fault.Evidence != "0000:0c:00.0: 1 uncorrectable errors, last umc 1" {
				t.Errorf("%+v", f)
			}
			r.advance(24 * time.Hour)
			r.restart()
			r.expect("a day later, and a new agent", health.Failing, broken)
			end(r)
			r.expect("whole", health.Passing)
			r.expect("and still", health.Passing)
		})
	}
	r := newRig(t)
	r.look()
	r.set(oneMore)
	r.look()
	r.set(func(g *machine.AMDGPU) { g.Blocks[1].Uncorrectable = 3 })
	if err := r.check.DeviceReset(t.Context(), gpu0); err != nil {
		t.Fatal(err)
	}
	r.restart()
	r.set(func(g *machine.AMDGPU) { g.Busy, g.Blocks = true, nil })
	r.expect("it is being reset", health.Unknown)
	r.set(func(g *machine.AMDGPU) { g.Blocks[1].Uncorrectable = 3 })
	r.expect("what came before the reset is the reset's to cure", health.Passing)
	r.set(func(g *machine.AMDGPU) { g.Blocks[1].Uncorrectable = 4 })
	r.expect("what comes after is new", health.Failing, broken)
	r.set(func(g *machine.AMDGPU) { g.Blocks[1].Uncorrectable = 6 })
	r.expect("and is counted", health.Failing, "AMDUncorrectableError 0000:0c:00.0 Critical ResetDevice x3")
}

func TestCorrectedErrorsHaveHysteresis(t *testing.T) {
	r := newRig(t)
	r.look()
	r.set(func(g *machine.AMDGPU) { g.Blocks[1].Correctable += 50 })
	r.look()
	r.advance(20 * time.Minute)
	r.set(func(g *machine.AMDGPU) { g.Blocks[1].Correctable += 110 })
	r.expect("110 in an hour", health.Failing, "AMDCorrectableErrors 0000:0c:00.0 Warning None x110")
	r.advance(40 * time.Minute)
	r.expect("60 in the last hour", health.Failing, "AMDCorrectableErrors 0000:0c:00.0 Warning None x110")
	r.m.RemoveDevice(gpu0)
	r.advance(20 * time.Minute)
	r.expect("none, and the GPU is gone", health.Passing)

	r = newRig(t)
	r.look()
	r.set(func(g *machine.AMDGPU) { g.Blocks[1].Correctable += 110 })
	r.expect("before a reboot", health.Failing, "AMDCorrectableErrors 0000:0c:00.0 Warning None x110")
	r.m.GoDown(0)
	r.expect("after it", health.Passing)
}

func TestPagesOverTime(t *testing.T) {
	r := newRig(t)
	r.set(func(g *machine.AMDGPU) { g.PageThreshold = 4; g.Pages.Failed = 1 })
	want := []string{"AMDBadPageInUse 0000:0c:00.0 Warning ResetDevice x1", "AMDBadPages 0000:0c:00.0 Warning Replace x5"}
	r.expect("a level needs no look before", health.Failing, want...)
	r.advance(time.Hour)
	r.expect("an hour later", health.Failing, want...)
	r.set(func(g *machine.AMDGPU) {
		g.MemoryBytes, g.Pages, g.Unread = 0, machine.BadPages{}, "ras/gpu_vram_bad_pages"
	})
	res := r.expect("and they cannot be read", health.Failing, want...)
	if !res.Findings[0].Fault.FirstSeen.Time.Equal(t0) || res.Reason != health.ReasonCannotRead {
		t.Errorf("%+v", res)
	}
	r.set(func(g *machine.AMDGPU) { g.Pages.Cut = true })
	if res := r.expect("below", health.Passing); !strings.Contains(res.Message, "more bad pages than were read") {
		t.Errorf("%q", res.Message)
	}
}

func TestWhatIsPassedOver(t *testing.T) {
	tests := map[string]struct {
		arrange func(r *rig)
		outcome health.Outcome
		reason  string
		message string
	}{
		"no AMD accelerator": {
			func(r *rig) {
				r.m.RemoveDevice(gpu0)
				r.m.RemoveDevice(gpu1)
				r.m.Fail(fake.DoorAMDGPU, errors.New("asked"))
			}, health.Passing, "", "",
		},
		"a virtual machine has it": {
			func(r *rig) { r.m.SetDriver(gpu0, "vfio-pci"); r.set(oneMore) }, health.Passing, "", "held by vfio-pci",
		},
		"no driver holds it": {func(r *rig) { r.m.SetDriver(gpu0, "") }, health.Unknown, ReasonNoDriver, "no driver"},
		"the driver counts nothing of it": {
			func(r *rig) { r.set(func(g *machine.AMDGPU) { *g = machine.AMDGPU{Address: gpu0, PageThreshold: 1} }) }, health.Passing, "", "counts no errors",
		},
		"it is being reset": {
			func(r *rig) { r.set(func(g *machine.AMDGPU) { g.Busy, g.Blocks = true, nil }) }, health.Unknown, ReasonBusy, "resets",
		},
		"it does not answer": {func(r *rig) { r.m.Break(gpu0, fake.Break{Kind: fake.Dead}) }, health.Unknown, health.ReasonCannotRead, "does not answer"},
		"a count cannot be read": {
			func(r *rig) { r.set(func(g *machine.AMDGPU) { g.Unread = "ras/umc_err_count" }) }, health.Unknown, health.ReasonCannotRead, "ras/umc_err_count",
		},
		"it sleeps": {
			func(r *rig) {
				r.m.AddDevice(fake.Device{PCIDevice: machine.PCIDevice{
					PCIID: machine.PCIID{Vendor: 0x1002, Device: 0x74a1, Class: 0x120000, Driver: "amdgpu"}, Address: gpu0, Suspended: true,
				}})
				r.set(oneMore)
			}, health.Passing, "", "asleep",
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			for _, first := range []bool{true, false} {
				r := newRig(t)
				if !first {
					r.look()
				}
				tc.arrange(r)
				res := r.expect(name, tc.outcome)
				if res.Reason != tc.reason || !strings.Contains(res.Message, tc.message) || tc.message == "" && res.Message != "" {
					t.Errorf("%s %q", res.Reason, res.Message)
				}
			}
		})
	}
	r := newRig(t)
	r.set(func(g *machine.AMDGPU) { g.Busy, g.Blocks = true, nil })
	r.look()
	r.set(oneMore)
	r.expect("the first counts after it was busy are where it starts", health.Passing)
}

func TestCannotLook(t *testing.T) {
	tests := map[string]struct {
		arrange         func(*rig)
		reason, message string
	}{
		"the bus cannot be listed":     {func(r *rig) { r.m.Fail(fake.DoorPCI, errors.New("permission denied")) }, health.ReasonCannotRead, "permission denied"},
		"the counts cannot be read":    {func(r *rig) { r.m.Fail(fake.DoorAMDGPU, errors.New("input/output error")) }, health.ReasonCannotRead, "input/output"},
		"the driver hangs":             {func(r *rig) { r.m.Hang(fake.DoorAMDGPU, true) }, health.ReasonTimedOut, "in time"},
		"the boot ID cannot be read":   {func(r *rig) { r.m.Fail(fake.DoorBoot, errors.New("no such file")) }, health.ReasonCannotRead, "no such file"},
		"the machine is between boots": {func(r *rig) { r.m.GoDown(time.Hour) }, health.ReasonCannotRead, "down"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.look()
			r.set(oneMore)
			r.look()
			tc.arrange(r)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			defer cancel()
			res := r.check.Look(ctx)
			if res.Outcome != health.Unknown || res.Reason != tc.reason || !strings.Contains(res.Message, tc.message) {
				t.Errorf("%s %s %q", res.Outcome, res.Reason, res.Message)
			}
			if diff := cmp.Diff([]string{broken}, show(res.Findings)); diff != "" {
				t.Errorf("what stood is gone (-want +got):\n%s", diff)
			}
		})
	}
}

func TestStateThatCannotBeKept(t *testing.T) {
	r := newRig(t)
	if err := r.m.Save(t.Context(), stateFile, []byte("{")); err != nil {
		t.Fatal(err)
	}
	if res := r.expect("a broken file starts anew", health.Passing); !strings.Contains(res.Message, "not known") {
		t.Errorf("%q", res.Message)
	}
	r.m.Fail(fake.DoorStore, errors.New("read-only file system"))
	r.set(oneMore)
	if res := r.expect("a disk that fails does not hide a fault", health.Failing, broken); !strings.Contains(res.Message, "not kept") {
		t.Errorf("%q", res.Message)
	}
	if err := r.check.Close(t.Context()); err == nil {
		t.Error("the last save failed, and nobody was told")
	}
}

// leaving is a driver that lets go of a device between the look at the bus and the question to it.
type leaving struct{ *fake.Machine }

func (leaving) AMDGPUs(context.Context, []string) ([]machine.AMDGPU, error) { return nil, nil }

func TestADriverThatLetsGo(t *testing.T) {
	r := newRig(t)
	r.check = New(Options{Machine: leaving{r.m}, Now: r.now})
	if res := r.expect("nobody counts", health.Unknown); !strings.Contains(res.Message, "let go") {
		t.Errorf("%q", res.Message)
	}
}
