package nvidia

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/roundhouse-dev/roundhouse/internal/health"
	"github.com/roundhouse-dev/roundhouse/internal/machine"
	"github.com/roundhouse-dev/roundhouse/internal/machine/fake"
)

func TestNVMLIsAskedOnceARound(t *testing.T) {
	r := newRig(t, "h100x8")
	for round := 1; round <= 3; round++ {
		r.advance(30 * time.Second)
		for _, name := range r.names() {
			r.look(name)
			r.advance(time.Second)
		}
		r.advance(-time.Duration(len(r.checks)) * time.Second)
		if got := r.asked.Load(); got != int64(round) {
			t.Errorf("round %d: asked %d times", round, got)
		}
	}
}

func TestChecksThatLookAtTheSameTimeAskOnce(t *testing.T) {
	r := newRig(t, "h100x8")
	r.hold = make(chan struct{})
	var wg sync.WaitGroup
	results := make([]health.Result, len(r.names()))
	for i, name := range r.names() {
		wg.Go(func() { results[i] = r.look(name) })
	}
	for r.asked.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	close(r.hold)
	wg.Wait()
	for i, res := range results {
		if show(res) != "Passing" {
			t.Errorf("%s: %s", r.names()[i], show(res))
		}
	}
	if got := r.asked.Load(); got != 1 {
		t.Errorf("asked %d times", got)
	}
}

func TestAHangIsWaitedForOnce(t *testing.T) {
	r := newRig(t, "h100x8")
	r.o.Timeout = 50 * time.Millisecond
	r.restart()
	r.hold = make(chan struct{})
	began := time.Now()
	r.all("Unknown TimedOut")
	if took := time.Since(began); took > 5*r.o.Timeout || r.asked.Load() != 1 {
		t.Errorf("%v for all checks, asked %d times", took, r.asked.Load())
	}
	r.hasMessage("ecc", "nvmlDeviceGetUUID of GPU 2")
	close(r.hold)
	r.all("Passing")
	if got := r.asked.Load(); got != 2 {
		t.Errorf("asked %d times, want again in the next round", got)
	}
}

func TestAWaitingCheckKeepsItsDeadline(t *testing.T) {
	r := newRig(t, "h100x8")
	r.hold = make(chan struct{})
	done := make(chan health.Result)
	go func() { done <- r.look("ecc") }()
	for r.asked.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if res := r.checks["fabric"].Look(ctx); show(res) != "Unknown TimedOut" {
		t.Errorf("%s (%s)", show(res), res.Message)
	}
	close(r.hold)
	if res := <-done; show(res) != "Passing" {
		t.Errorf("the check that asked: %s", show(res))
	}
}

func TestAPanicOfTheReaderLocksNobodyOut(t *testing.T) {
	r := newRig(t, "h100x8")
	good := r.o.Machine
	r.o.Machine = panicking{host{r.m, r}}
	r.restart()
	func() {
		defer func() {
			if recover() == nil {
				t.Error("it did not panic")
			}
		}()
		r.look("ecc")
	}()
	r.source.o.Machine = good
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if res := r.checks["fabric"].Look(ctx); show(res) != "Passing" {
		t.Errorf("%s (%s)", show(res), res.Message)
	}
}

type panicking struct{ host }

func (panicking) NVML(context.Context) (machine.NVMLReport, error) { panic("boom") }

// TestCannotLook has every reason why no check that needs NVML can look; each keeps what stood.
func TestCannotLook(t *testing.T) {
	bind := func(driver string) func(r *rig) {
		return func(r *rig) {
			for _, g := range fixture(r, "h100x8").GPUs {
				r.m.SetDriver(g.Address, driver)
			}
		}
	}
	fail := func(err error) func(r *rig) {
		return func(r *rig) { r.report, r.err = machine.NVMLReport{}, err }
	}
	both := func(fs ...func(r *rig)) func(r *rig) {
		return func(r *rig) {
			for _, f := range fs {
				f(r)
			}
		}
	}
	tests := map[string]struct {
		do     func(r *rig)
		reason string
		but    map[string]string // checks that say something else
	}{
		"no library, and the driver holds GPUs":    {do: fail(machine.ErrNoNVML), reason: ReasonNoLibrary},
		"no library, and no driver holds the GPUs": {do: both(fail(machine.ErrNoNVML), bind("")), reason: ReasonNoLibrary},
		"no library, and the bus cannot be read": {
			do: both(fail(machine.ErrNoNVML), func(r *rig) { r.m.Fail(fake.DoorPCI, errors.New("no")) }), reason: ReasonNoLibrary,
		},
		"a call hangs":         {do: fail(fmt.Errorf("nvmlDeviceGetName of GPU 3: %w", machine.ErrStuck)), reason: health.ReasonTimedOut},
		"the helper crashes":   {do: fail(fmt.Errorf("in nvmlInit: %w", machine.ErrNVMLCrashed)), reason: ReasonHelperCrashed},
		"the helper is absent": {do: fail(errors.New("no such file")), reason: health.ReasonCannotRead},
		"the driver is not loaded": {
			do: both(func(r *rig) { r.report = fixture(r, "not-loaded") }, bind("")), reason: ReasonDriverNotLoaded,
			but: map[string]string{"driver": "Unknown Settling"},
		},
		"the library is another's": {
			do: func(r *rig) { r.report = fixture(r, "mismatch") }, reason: ReasonDriverNotLoaded,
			but: map[string]string{"driver": "Unknown Settling"},
		},
		"the library does not initialise": {
			do: func(r *rig) { r.report = fixture(r, "mismatch"); r.report.Init = "UNKNOWN" }, reason: health.ReasonCannotRead,
		},
		"GPUs are not counted": {
			do: func(r *rig) {
				r.report.GPUs, r.report.Count, r.report.Unread = nil, 0, map[string]string{"nvmlDeviceGetCount": "UNKNOWN"}
			}, reason: health.ReasonCannotRead,
		},
		"a GPU operator replaces the driver": {do: func(r *rig) { r.labels[labelUpgrade] = "pod-restart-required" }, reason: ReasonDriverUpgrade},
		"a GPU operator changes MIG":         {do: func(r *rig) { r.labels[labelMIG] = "pending" }, reason: ReasonMIGReconfiguration},
		"and starts the node anew for it":    {do: func(r *rig) { r.labels[labelMIG] = "rebooting" }, reason: ReasonMIGReconfiguration},
		"the boot cannot be told":            {do: func(r *rig) { r.m.Fail(fake.DoorBoot, errors.New("no")) }, reason: health.ReasonCannotRead},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, "h100x8")
			r.gpu(3).Recovery, r.gpu(3).Remap.Failed = ptr(uint32(2)), true
			stood := map[string]string{}
			r.advance(30 * time.Second)
			for _, name := range r.names() {
				stood[name] = show(r.look(name))[len("Passing"):] // as long as Failing
			}
			tc.do(r)
			r.advance(30 * time.Second)
			for _, name := range r.names() {
				want := "Unknown " + tc.reason + stood[name]
				if but, ok := tc.but[name]; ok {
					want = but + stood[name]
				}
				if res := r.look(name); show(res) != want {
					t.Errorf("%s: %s (%s), want %s", name, show(res), res.Message, want)
				}
			}
		})
	}
}

func TestNothingToLookAt(t *testing.T) {
	clearBus := func(r *rig) {
		for _, g := range r.report.GPUs {
			r.m.RemoveDevice(g.Address)
		}
	}
	bind := func(driver string) func(r *rig) {
		return func(r *rig) {
			for _, g := range r.report.GPUs {
				r.m.SetDriver(g.Address, driver)
			}
		}
	}
	tests := map[string]struct {
		do    func(r *rig)
		asked bool
	}{
		"a machine without an NVIDIA GPU":                    {do: clearBus},
		"all GPUs are held for virtual machines":             {do: bind("vfio-pci")},
		"by a variant of it":                                 {do: bind("nvgrace-gpu-vfio-pci")},
		"another driver's, and none of NVIDIA's is there":    {do: bind("nouveau"), asked: true},
		"an NVSwitch or the sound of a card is not a GPU":    {do: func(r *rig) { clearBus(r); r.m.AddDevice(soundCard()) }},
		"an accelerator of another maker is another check's": {do: func(r *rig) { clearBus(r); r.m.AddDevice(amd()) }},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, "h100x8")
			tc.do(r)
			r.report, r.err = machine.NVMLReport{}, machine.ErrNoNVML
			r.all("Passing")
			r.hasMessage("ecc", "no GPU here")
			if (r.asked.Load() > 0) != tc.asked {
				t.Errorf("NVML was asked %d times", r.asked.Load())
			}
		})
	}
	t.Run("all that there were have gone: that is not nothing", func(t *testing.T) {
		r := newRig(t, "h100x8")
		r.all("Passing")
		clearBus(r)
		r.report, r.err = machine.NVMLReport{}, machine.ErrStuck
		r.all("Unknown TimedOut")
	})
	t.Run("the bus cannot be read, and NVML works", func(t *testing.T) {
		r := newRig(t, "h100x8")
		r.m.Fail(fake.DoorPCI, errors.New("no"))
		r.run("ecc", step{want: "Passing"})
		r.run("device-count", step{want: "Unknown CannotRead"})
	})
}

func soundCard() fake.Device {
	d := onBus("0000:19:00.1", "snd_hda_intel")
	d.Class = 0x040300
	return d
}

func amd() fake.Device {
	d := onBus("0000:20:00.0", "amdgpu")
	d.Vendor, d.Class = 0x1002, 0x120000
	return d
}

func TestWhatAGPUOperatorDoes(t *testing.T) {
	// States of pkg/upgrade/consts.go of github.com/NVIDIA/k8s-operator-libs.
	tests := map[string]bool{
		"": false, "upgrade-done": false, "upgrade-failed": false,
		"upgrade-required": false, "wait-for-jobs-required": false,
		"cordon-required": true, "pod-deletion-required": true, "drain-required": true, "node-maintenance-required": true,
		"post-maintenance-required": true, "pod-restart-required": true, "validation-required": true, "uncordon-required": true,
	}
	for state, underWay := range tests {
		t.Run(state, func(t *testing.T) {
			r := newRig(t, "h100x8")
			r.labels[labelUpgrade] = state
			r.labels[labelMIG] = "success"
			want := "Passing"
			if underWay {
				want = "Unknown DriverUpgrade"
			}
			r.all(want)
			if (r.asked.Load() == 0) != underWay {
				t.Errorf("NVML was asked %d times: an open device would hold the driver up", r.asked.Load())
			}
			if underWay {
				r.hasMessage("ecc", labelUpgrade+"="+state)
			}
		})
	}
	t.Run("a driver that goes meanwhile is no fault", func(t *testing.T) {
		r := newRig(t, "h100x8")
		r.all("Passing")
		r.labels[labelUpgrade] = "pod-restart-required"
		r.report = fixture(t, "not-loaded")
		for range 200 {
			r.all("Unknown DriverUpgrade")
		}
		r.labels[labelUpgrade], r.report = "upgrade-done", fixture(t, "h100x8")
		r.report.Driver = "580.95.05"
		r.all("Passing")
	})
	t.Run("labels that are not known say nothing", func(t *testing.T) {
		r := newRig(t, "h100x8")
		r.labels = nil
		r.all("Passing")
		r.o.NodeLabels = nil
		r.restart()
		r.all("Passing")
	})
}

func TestABrokenOffReportIsJudgedAsFarAsItGoes(t *testing.T) {
	r := newRig(t, "h100x8")
	r.gpu(1).Recovery, r.gpu(6).Recovery = ptr(uint32(2)), ptr(uint32(2))
	one, six := "; GPURecoveryAction on 0000:3b:00.0, Critical, Reboot, x1", "; GPURecoveryAction on 0000:cb:00.0, Critical, Reboot, x1"
	r.run("recovery-action",
		step{want: "Failing" + one + six},
		step{do: func(r *rig) { r.report.GPUs, r.err = r.report.GPUs[:4], machine.ErrStuck }, want: "Unknown TimedOut" + one + six},
		step{do: func(r *rig) { r.gpu(1).Recovery = ptr(uint32(0)) }, want: "Unknown TimedOut" + six},
	)
}

func TestARestartOfTheAgent(t *testing.T) {
	r := newRig(t, "h100x8")
	dead := func(r *rig) {
		r.report = fixture(r, "h100x8-no-fabric-manager")
	}
	want := "Failing; FabricNotReady on node, Critical, Reboot, x1"
	r.run("fabric", step{do: dead, want: "Unknown Settling"}, step{after: 5 * time.Minute, want: want})
	before := r.look("fabric").Findings[0].Fault.FirstSeen
	r.restart()
	r.run("fabric", step{want: want})
	if after := r.look("fabric").Findings[0].Fault.FirstSeen; !after.Equal(&before) {
		t.Errorf("first seen at %v, then at %v", before, after)
	}

	r.report = fixture(t, "h100x8")
	found := "Failing; ECCUncorrectable on 0000:19:00.0, Warning, ResetDevice, x"
	errors := func(n uint64) func(r *rig) { return func(r *rig) { r.gpu(0).ECC.VolatileUncorrected = ptr(n) } }
	r.run("ecc", step{do: errors(2), want: "Passing"})
	r.restart()
	r.run("ecc", step{do: errors(5), want: found + "3"})
	r.restart()
	r.run("ecc", step{want: found + "3"}, step{do: errors(6), want: found + "4"})

	r.m.GoDown(0)
	r.restart()
	r.run("ecc", step{do: errors(1), want: "Passing"})
	r.run("fabric", step{want: "Passing"})
}

func TestStateThatCannotBeKept(t *testing.T) {
	r := newRig(t, "h100x8")
	r.m.Fail(fake.DoorStore, errors.New("the disk is gone"))
	r.run("ecc", step{times: 2, want: "Unknown CannotRead"}, step{want: "Passing"})
	r.hasMessage("ecc", "state is not kept", "the disk is gone")
	r.m.Fail(fake.DoorStore, nil)
	r.run("ecc", step{want: "Passing"})
	if res := r.look("ecc"); res.Message != "" {
		t.Errorf("%q", res.Message)
	}
	if err := r.m.Save(t.Context(), "nvidia-ecc.json", []byte("{")); err != nil {
		t.Fatal(err)
	}
	r.restart()
	r.run("ecc", step{want: "Passing"})
	r.o.Store = nil
	r.restart()
	r.all("Passing")
}

func TestAnIdleNodeWritesNothing(t *testing.T) {
	r := newRig(t, "h100x8")
	saves := &countingStore{Store: r.m}
	r.o.Store = saves
	r.restart()
	r.all("Passing")
	first := saves.n
	for range 100 {
		r.all("Passing")
	}
	// The first counts of ecc and the links that are up are kept; then nothing is new.
	if first != 2 || saves.n != first {
		t.Errorf("%d saves in the first round, %d after a hundred more", first, saves.n)
	}
}

type countingStore struct {
	machine.Store
	n int
}

func (s *countingStore) Save(ctx context.Context, name string, data []byte) error {
	s.n++
	return s.Store.Save(ctx, name, data)
}

func TestPartsOfAGPUAreTheGPU(t *testing.T) {
	r := newRig(t, "a100x2-mig")
	r.gpu(0).Recovery = ptr(uint32(1))
	res := r.look("recovery-action")
	if len(res.Findings) != 1 || res.Findings[0].PCI != "0000:41:00.0" || res.Devices != nil {
		t.Errorf("%+v", res)
	}
}

func TestPartsStayKnownWhenTheirGPUIsLost(t *testing.T) {
	r := newRig(t, "a100x2-mig")
	r.look("recovery-action")
	parts := r.source.Parts()
	if len(parts) == 0 {
		t.Fatal("the fixture has no parts")
	}
	split := slices.IndexFunc(r.report.GPUs, func(g machine.NVMLGPU) bool { return len(g.Instances) > 0 })
	for _, gpu := range parts {
		if gpu != r.gpu(split).UUID {
			t.Errorf("a part of %s", gpu)
		}
	}
	gpu := *r.gpu(split)
	*r.gpu(split) = machine.NVMLGPU{Index: split, Handle: "GPU_IS_LOST", Lost: "GPU_IS_LOST", UUID: gpu.UUID}
	r.advance(time.Hour)
	r.look("recovery-action")
	if diff := cmp.Diff(parts, r.source.Parts()); diff != "" {
		t.Error(diff)
	}
	gpu.Instances, gpu.MIG = nil, ptr(false)
	*r.gpu(split) = gpu
	r.advance(time.Hour)
	r.look("recovery-action")
	if got := r.source.Parts(); len(got) != 0 {
		t.Errorf("MIG was switched off, and there are still %v", got)
	}
}

func TestWhatIsNewAndBadIsLookedAtAgainSoon(t *testing.T) {
	r := newRig(t, "h100x8")
	r.look("gpu-lost")
	r.advance(30 * time.Second)
	*r.gpu(3) = machine.NVMLGPU{Index: 3, Handle: "GPU_IS_LOST", Lost: "GPU_IS_LOST"}
	if res := r.look("gpu-lost"); res.Again != settleEvery {
		t.Errorf("%s is looked at again after %s, want %s", show(res), res.Again, settleEvery)
	}
	before := r.asked.Load()
	r.advance(settleEvery)
	res := r.look("gpu-lost")
	if want := "Failing; GPULost on " + gpu3 + ", Critical, Reboot, x1"; show(res) != want || r.asked.Load() != before+1 || res.Again != 0 {
		t.Errorf("%s after %d questions, again after %s; want %s", show(res), r.asked.Load()-before, res.Again, want)
	}
	r.advance(settleEvery)
	r.look("gpu-lost")
	if n := r.asked.Load() - before; n != 1 {
		t.Errorf("%d questions: what is known is not hurried", n)
	}
}

func TestWhatHasToLastIsNotHurriedForLong(t *testing.T) {
	r := newRig(t, "not-loaded")
	r.m.AddDevice(onBus(gpu3, ""))
	hurried := 0
	for range 20 {
		r.advance(settleEvery)
		if r.look("driver").Again > 0 {
			hurried++
		}
	}
	if hurried == 0 || hurried > lostLooks {
		t.Errorf("%d of 20 looks were hurried, want 1 to %d", hurried, lostLooks)
	}
}

func TestAnAnswerThatWasDearServesForLonger(t *testing.T) {
	for cpu, want := range map[time.Duration]time.Duration{
		10 * time.Millisecond:  defaultAge,
		35 * time.Millisecond:  35 * time.Second,
		340 * time.Millisecond: 340 * time.Second,
		20 * time.Second:       maxAge,
	} {
		t.Run(cpu.String(), func(t *testing.T) {
			r := newRig(t, "h100x8")
			r.report.CPU = cpu.Microseconds()
			r.look("gpu-lost")
			r.advance(want - time.Second)
			r.look("gpu-lost")
			if n := r.asked.Load(); n != 1 {
				t.Errorf("asked %d times within %s", n, want)
			}
			r.advance(time.Second)
			r.look("gpu-lost")
			if n := r.asked.Load(); n != 2 {
				t.Errorf("asked %d times after %s, want 2", n, want)
			}
		})
	}
}

func TestAResetIsNotProvedByAnOlderAnswer(t *testing.T) {
	r := newRig(t, "h100x8")
	r.look("ecc")
	reset, ok := r.checks["ecc"].(health.Resetter)
	if !ok {
		t.Fatal("ecc is not told of resets")
	}
	if err := reset.DeviceReset(t.Context(), gpu3); err != nil {
		t.Fatal(err)
	}
	r.look("gpu-lost")
	if n := r.asked.Load(); n != 2 {
		t.Errorf("asked %d times, want anew after the reset", n)
	}
}
