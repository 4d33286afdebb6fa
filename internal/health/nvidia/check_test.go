package nvidia

import (
	"testing"
	"time"

	"github.com/roundhouse-dev/roundhouse/internal/health"
	"github.com/roundhouse-dev/roundhouse/internal/machine"
)

const gpu3 = "0000:5d:00.0"

func TestAHealthyNodePasses(t *testing.T) {
	for _, name := range []string{"h100x8", "v100x4", "a100x2-mig", "h100x1-captured", "h200x1-captured", "h200x1-captured-load"} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, name)
			for range 12 {
				r.all("Passing")
			}
		})
	}
}

func TestRecoveryAction(t *testing.T) {
	set := func(n uint32) func(r *rig) { return func(r *rig) { r.gpu(3).Recovery = ptr(n) } }
	at := "; GPURecoveryAction on " + gpu3 + ", "
	tests := map[string][]step{
		"reset":                        {{do: set(1), want: "Failing" + at + "Critical, ResetDevice, x1"}},
		"reboot":                       {{do: set(2), want: "Failing" + at + "Critical, Reboot, x1"}},
		"drain peer-to-peer":           {{do: set(3), want: "Failing" + at + "Warning, Human, x1"}},
		"drain peer-to-peer and reset": {{do: set(4), want: "Failing" + at + "Critical, ResetDevice, x1"}},
		"recover the IMEX domain":      {{do: set(5), want: "Failing" + at + "Critical, Human, x1"}},
		"reset the bus":                {{do: set(6), want: "Failing" + at + "Critical, Reboot, x1"}},
		"reboot the system":            {{do: set(7), want: "Failing" + at + "Critical, Reboot, x1"}},
		"what no header has yet is no reason to act": {{do: set(8), want: "Failing" + at + "Warning, Human, x1"}},
		"it is one fault for as long as it stands, whatever is asked for, and ends with it": {
			{do: set(1), want: "Failing" + at + "Critical, ResetDevice, x1"},
			{do: set(2), times: 100, want: "Failing" + at + "Critical, Reboot, x1"},
			{do: set(0), want: "Passing"},
		},
		"a driver that does not know the field passes": {
			{do: func(r *rig) {
				r.gpu(3).Recovery, r.gpu(3).Unread = nil, map[string]string{"GET_GPU_RECOVERY_ACTION": "INVALID_ARGUMENT"}
			}, want: "Passing"},
		},
		"a value that could not be read is neither none nor over": {
			{do: set(2), want: "Failing" + at + "Critical, Reboot, x1"},
			{do: func(r *rig) {
				r.gpu(3).Recovery, r.gpu(3).Unread = nil, map[string]string{"GET_GPU_RECOVERY_ACTION": "UNKNOWN"}
			}, want: "Unknown CannotRead" + at + "Critical, Reboot, x1"},
		},
		"a value that is missing without a word is blindness": {
			{do: func(r *rig) { r.gpu(3).Recovery = nil }, want: "Unknown CannotRead"},
		},
	}
	for name, steps := range tests {
		t.Run(name, func(t *testing.T) { newRig(t, "h100x8").run("recovery-action", steps...) })
	}
}

func TestGPULost(t *testing.T) {
	lost := func(err string) func(r *rig) {
		return func(r *rig) { *r.gpu(3) = machine.NVMLGPU{Index: 3, Handle: err, Lost: err} }
	}
	tests := map[string][]step{
		"lost, seen twice, named by the address that it had": {
			{want: "Passing"}, {do: lost("GPU_IS_LOST"), want: "Unknown Settling"},
			{want: "Failing; GPULost on " + gpu3 + ", Critical, Reboot, x1"},
		},
		"lost from the start, named by what is left over on the bus": {
			{do: lost("GPU_IS_LOST"), times: 2, want: "Failing; GPULost on " + gpu3 + ", Critical, Reboot, x1"},
		},
		"lost in the middle of a report": {
			{do: func(r *rig) { r.gpu(3).Lost = "GPU_IS_LOST" }, times: 2, want: "Failing; GPULost on " + gpu3 + ", Critical, Reboot, x1"},
		},
		"a reset is required": {
			{do: lost("RESET_REQUIRED"), times: 2, want: "Failing; GPUResetRequired on " + gpu3 + ", Critical, ResetDevice, x1"},
		},
		"an administrator's reset shows once": {
			{do: lost("RESET_REQUIRED"), want: "Unknown Settling"},
			{do: func(r *rig) { r.report = fixture(r, "h100x8") }, want: "Passing"},
		},
		"a GPU that does not open for another reason is not lost": {
			{do: func(r *rig) { *r.gpu(3) = machine.NVMLGPU{Index: 3, Handle: "NO_PERMISSION"} }, times: 5, want: "Unknown CannotRead"},
		},
	}
	for name, steps := range tests {
		t.Run(name, func(t *testing.T) { newRig(t, "h100x8").run("gpu-lost", steps...) })
	}
	t.Run("the fixture of one that has fallen off", func(t *testing.T) {
		r := newRig(t, "h100x8")
		r.report = fixture(t, "h100x8-lost")
		r.run("gpu-lost", step{times: 2, want: "Failing; GPULost on " + gpu3 + ", Critical, Reboot, x1"})
		for _, name := range r.names() {
			if name == "gpu-lost" {
				continue
			}
			// The others look at the seven that are left, and say which they did not see.
			r.run(name, step{want: "Passing"})
			if name != "driver" && name != "device-count" {
				r.hasMessage(name, gpu3+": GPU_IS_LOST")
			}
		}
	})
	t.Run("two lost at once, neither ever seen well", func(t *testing.T) {
		r := newRig(t, "h100x8")
		for _, i := range []int{3, 5} {
			*r.gpu(i) = machine.NVMLGPU{Index: i, Handle: "GPU_IS_LOST", Lost: "GPU_IS_LOST"}
		}
		r.run("gpu-lost", step{times: 2, want: "Failing; GPULost on 0000:5d:00.0, Critical, Reboot, x1; GPULost on 0000:bb:00.0, Critical, Reboot, x1"})
	})
	t.Run("two that differ are named by the addresses that they had", func(t *testing.T) {
		r := newRig(t, "h100x8")
		r.run("gpu-lost", step{want: "Passing"})
		*r.gpu(3) = machine.NVMLGPU{Index: 3, Handle: "GPU_IS_LOST", Lost: "GPU_IS_LOST"}
		*r.gpu(5) = machine.NVMLGPU{Index: 5, Handle: "RESET_REQUIRED", Lost: "RESET_REQUIRED"}
		r.run("gpu-lost", step{times: 2, want: "Failing; GPULost on 0000:5d:00.0, Critical, Reboot, x1; GPUResetRequired on 0000:bb:00.0, Critical, ResetDevice, x1"})
	})
	t.Run("which of two is lost and which needs a reset cannot be told: it is the node's", func(t *testing.T) {
		r := newRig(t, "h100x8")
		*r.gpu(3) = machine.NVMLGPU{Index: 3, Handle: "GPU_IS_LOST", Lost: "GPU_IS_LOST"}
		*r.gpu(5) = machine.NVMLGPU{Index: 5, Handle: "RESET_REQUIRED", Lost: "RESET_REQUIRED"}
		r.run("gpu-lost", step{times: 2, want: "Failing; GPULost on node, Critical, Reboot, x1; GPUResetRequired on node, Critical, ResetDevice, x1"})
	})
}

func TestDriver(t *testing.T) {
	answer := func(name string) func(r *rig) {
		return func(r *rig) { r.report = fixture(r, name) }
	}
	bind := func(driver string) func(r *rig) {
		return func(r *rig) {
			for _, g := range fixture(r, "h100x8").GPUs {
				r.m.SetDriver(g.Address, driver)
			}
		}
	}
	unloaded := func(r *rig) { answer("not-loaded")(r); bind("")(r) }
	inContainer := func(r *rig) {
		unloaded(r)
		r.report.Library = "/run/nvidia/driver/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1"
	}
	healthy := func(r *rig) { answer("h100x8")(r); bind("nvidia")(r) }
	tests := map[string][]step{
		"not loaded for five minutes": {
			{do: unloaded, want: "Unknown Settling"},
			{after: 4 * time.Minute, want: "Unknown Settling"},
			{after: time.Minute, want: "Failing; DriverNotLoaded on node, Critical, Reboot, x1"},
			{do: healthy, times: 3, want: "Passing"},
		},
		"a driver container has as long as its operator gives it": {
			{do: inContainer, want: "Unknown Settling"},
			{after: 20 * time.Minute, want: "Unknown Settling"},
			{do: healthy, want: "Passing"},
			{do: inContainer, want: "Unknown Settling"},
			{after: 21 * time.Minute, want: "Failing; DriverNotLoaded on node, Critical, Reboot, x1"},
		},
		"the library was replaced under a running driver": {
			{do: answer("mismatch"), want: "Unknown Settling"},
			{after: 5 * time.Minute, want: "Failing; DriverLibraryMismatch on node, Critical, Reboot, x1"},
		},
		"the bus shows a driver that NVML does not see: something is missing here, not there": {
			{do: answer("not-loaded"), want: "Unknown CannotRead"},
			{after: time.Hour, want: "Unknown CannotRead"},
		},
		"it does not initialise, and nobody knows why": {
			{do: func(r *rig) { answer("mismatch")(r); r.report.Init = "UNKNOWN" }, want: "Unknown CannotRead"},
			{after: 5 * time.Minute, want: "Unknown CannotRead; NVMLInitFailed on node, Warning, Human, x1"},
		},
		"this process may not ask, which says nothing of the driver": {
			{do: func(r *rig) { answer("mismatch")(r); r.report.Init = "NO_PERMISSION" }, times: 100, want: "Unknown CannotRead"},
		},
		"nothing here is the driver's to hold": {
			{do: func(r *rig) { answer("not-loaded")(r); bind("vfio-pci")(r) }, times: 100, want: "Passing"},
		},
		"what stood stands while nobody can look": {
			{do: unloaded}, {after: 5 * time.Minute, want: "Failing; DriverNotLoaded on node, Critical, Reboot, x1"},
			{do: func(r *rig) { r.report, r.err = machine.NVMLReport{}, machine.ErrStuck }, want: "Unknown TimedOut; DriverNotLoaded on node, Critical, Reboot, x1"},
		},
	}
	for name, steps := range tests {
		t.Run(name, func(t *testing.T) {
			for i := range steps {
				if steps[i].want == "" {
					steps[i].want = "Unknown Settling"
				}
			}
			newRig(t, "h100x8").run("driver", steps...)
		})
	}
}

func TestDeviceCount(t *testing.T) {
	without3 := func(r *rig) {
		r.report.GPUs = append(r.report.GPUs[:3:3], r.report.GPUs[4:]...)
		r.report.Count = 7
	}
	offer := func(n int) func(r *rig) {
		return func(r *rig) { r.o.Offered = func() (int, bool) { return n, true }; r.restart() }
	}
	tests := map[string][]step{
		"the driver holds one that NVML does not have": {
			{do: without3, want: "Unknown Settling"},
			{times: 2, want: "Failing; GPUInvisible on " + gpu3 + ", Critical, Reboot, x1"},
		},
		"no driver holds it": {
			{do: func(r *rig) { without3(r); r.m.SetDriver(gpu3, "") }, want: "Passing"},
			{after: 5 * time.Minute, want: "Failing; GPUNotBound on " + gpu3 + ", Warning, Reboot, x1"},
		},
		"it was given to a virtual machine": {
			{do: func(r *rig) { without3(r); r.m.SetDriver(gpu3, "vfio-pci") }, times: 20, want: "Passing"},
		},
		"a report that broke off misses nobody": {
			{do: func(r *rig) { without3(r); r.report.Count, r.err = 8, machine.ErrNVMLCrashed }, times: 20, want: "Unknown HelperCrashed"},
		},
		"a report that counts more than it tells misses nobody": {
			{do: func(r *rig) { without3(r); r.report.Count = 8 }, times: 20, want: "Unknown CannotRead"},
		},
		"NVML that cannot count says nothing by counting none": {
			{do: func(r *rig) {
				r.report.GPUs, r.report.Count, r.report.Unread = nil, 0, map[string]string{"nvmlDeviceGetCount": "UNKNOWN"}
			}, times: 20, want: "Unknown CannotRead"},
		},
		"the kubelet offers less": {
			{do: offer(6), times: 19, want: "Passing"},
			{times: 2, want: "Failing; GPUsNotOffered on node, Warning, Human, x1"},
		},
		"the kubelet offers what is not there": {
			{do: offer(9), times: 21, want: "Failing; GPUsNotOffered on node, Warning, Human, x1"},
		},
		"a plugin that was removed leaves a zero": {{do: offer(0), times: 30, want: "Passing"}},
		"the kubelet offers as many":              {{do: offer(8), times: 30, want: "Passing"}},
		"shared GPUs are offered more often": {
			{do: func(r *rig) { offer(32)(r); r.labels[labelSharing] = "time-slicing" }, times: 30, want: "Passing"},
		},
		"a multiple may be sharing where nobody says": {{do: offer(32), times: 30, want: "Passing"}},
		"a multiple is none where sharing is off": {
			{do: func(r *rig) { offer(16)(r); r.labels[labelSharing] = "none" }, times: 21, want: "Failing; GPUsNotOffered on node, Warning, Human, x1"},
		},
		"parts of a GPU are other resources": {
			{do: func(r *rig) { offer(7)(r); r.gpu(2).MIG = ptr(true) }, times: 30, want: "Passing"},
		},
		"the Node has no such resource": {
			{do: func(r *rig) { r.o.Offered = func() (int, bool) { return 0, false }; r.restart() }, times: 30, want: "Passing"},
		},
	}
	for name, steps := range tests {
		t.Run(name, func(t *testing.T) { newRig(t, "h100x8").run("device-count", steps...) })
	}
}

func TestDeviceCountOfADeadDevice(t *testing.T) {
	r := newRig(t, "h100x8")
	r.report.GPUs, r.report.Count = r.report.GPUs[:7], 7
	d := onBus("0000:db:00.0", boundNVIDIA)
	d.Config = machine.ConfigAllOnes
	r.m.AddDevice(d)
	// It is the pci check's to tell.
	r.run("device-count", step{times: 10, want: "Passing"})
}

func TestRowRemap(t *testing.T) {
	set := func(pending, failed bool) func(r *rig) {
		return func(r *rig) { r.gpu(3).Remap = &machine.NVMLRemap{Uncorrectable: 1, Pending: pending, Failed: failed} }
	}
	pending, failed := "RowRemapPending on "+gpu3+", Warning, ResetDevice, x1", "RowRemapFailure on "+gpu3+", Critical, Replace, x1"
	tests := map[string][]step{
		"pending, until the reset":       {{do: set(true, false), times: 100, want: "Failing; " + pending}, {do: set(false, false), want: "Passing"}},
		"failed":                         {{do: set(false, true), want: "Failing; " + failed}},
		"both":                           {{do: set(true, true), want: "Failing; " + failed + "; " + pending}},
		"rows remapped are a spare used": {{do: set(false, false), want: "Passing"}},
		"MIG hides it: what stood stands": {
			{do: set(false, true), want: "Failing; " + failed},
			{do: func(r *rig) {
				r.gpu(3).Remap, r.gpu(3).Unread = nil, map[string]string{"nvmlDeviceGetRemappedRows": "NOT_SUPPORTED"}
			}, times: 10, want: "Failing; " + failed},
		},
		"it cannot be read": {
			{do: func(r *rig) {
				r.gpu(3).Remap, r.gpu(3).Unread = nil, map[string]string{"nvmlDeviceGetRemappedRows": "UNKNOWN"}
			}, want: "Unknown CannotRead"},
		},
	}
	for name, steps := range tests {
		t.Run(name, func(t *testing.T) { newRig(t, "h100x8").run("row-remap", steps...) })
	}
}

func TestRetiredPages(t *testing.T) {
	const at = "0000:0a:00.0"
	set := func(double, single uint32, pending bool) func(r *rig) {
		return func(r *rig) {
			r.gpu(1).Retire = &machine.NVMLRetire{DoubleBit: double, SingleBit: single, Pending: pending}
		}
	}
	double, limit := "PageRetirementDoubleBit on "+at+", Warning, Human, x1", "PageRetirementLimit on "+at+", Critical, Replace, x1"
	tests := map[string][]step{
		"pending":                         {{do: set(1, 0, true), want: "Failing; PageRetirementPending on " + at + ", Warning, ResetDevice, x1"}},
		"some are how memory ages":        {{do: set(15, 47, false), want: "Passing"}},
		"many for double-bit errors":      {{do: set(16, 0, false), want: "Failing; " + double}},
		"as many as there may be":         {{do: set(3, 60, false), want: "Failing; " + limit}},
		"both limits":                     {{do: set(40, 30, false), want: "Failing; " + double + "; " + limit}},
		"numbers that wrap are not small": {{do: set(1<<31, 1<<31, false), want: "Failing; " + double + "; " + limit}},
		"it cannot be read": {
			{do: func(r *rig) { r.gpu(1).Retire = nil; r.gpu(1).Unread["RETIRED_DBE"] = "UNKNOWN" }, want: "Unknown CannotRead"},
		},
	}
	for name, steps := range tests {
		t.Run(name, func(t *testing.T) { newRig(t, "v100x4").run("retired-pages", steps...) })
	}
}

func TestECC(t *testing.T) {
	errors := func(n uint64) func(r *rig) { return func(r *rig) { r.gpu(1).ECC.VolatileUncorrected = ptr(n) } }
	const at = "0000:3b:00.0"
	found := "Failing; ECCUncorrectable on " + at + ", Warning, ResetDevice, x"
	tests := map[string][]step{
		"what was there at the first look is not new": {{do: errors(7), times: 20, want: "Passing"}},
		"new errors are counted, and told of for a day": {
			{want: "Passing"}, {do: errors(2), want: found + "2"}, {want: found + "2"}, {do: errors(3), want: found + "3"},
			{after: 23 * time.Hour, want: found + "3"}, {after: time.Hour, want: found + "3"},
			{after: 24 * time.Hour, want: "Passing"},
		},
		"the driver was loaded anew between two looks": {
			{do: errors(5), want: "Passing"}, {do: errors(8), want: found + "3"}, {do: errors(0), want: "Passing"}, {do: errors(1), want: found + "1"},
		},
		"the driver was away, and its counters with it": {
			{do: errors(5), want: "Passing"}, {do: errors(8), want: found + "3"},
			{do: func(r *rig) { r.report.Init = "DRIVER_NOT_LOADED" }, want: "Unknown DriverNotLoaded; ECCUncorrectable on " + at + ", Warning, ResetDevice, x3"},
			{do: func(r *rig) { r.report.Init = ""; errors(9)(r) }, want: "Passing"},
			{do: errors(10), want: found + "1"},
		},
		"another version of the driver is another load": {
			{do: errors(5), want: "Passing"}, {do: func(r *rig) { errors(9)(r); r.report.Driver = "580.95.05" }, want: "Passing"},
		},
		"another GPU in the place": {
			{do: errors(5), want: "Passing"}, {do: errors(6), want: found + "1"},
			{do: func(r *rig) { errors(30)(r); r.gpu(1).UUID = "GPU-99999999-0000-4000-8000-000000000000" }, want: "Passing"},
		},
		"a counter that cannot be read is not zero": {
			{do: errors(5), want: "Passing"},
			{do: func(r *rig) {
				r.gpu(1).ECC.VolatileUncorrected = nil
				r.gpu(1).Unread = map[string]string{"nvmlDeviceGetTotalEccErrors(volatile uncorrected)": "UNKNOWN"}
			}, want: "Unknown CannotRead"},
			{do: func(r *rig) { errors(6)(r); r.gpu(1).Unread = nil }, want: found + "1"},
		},
		"ECC is off": {{do: func(r *rig) { r.gpu(1).ECC = &machine.NVMLECC{Enabled: ptr(false)} }, want: "Passing"}},
		"on-chip memory over the threshold": {
			{do: func(r *rig) { r.gpu(1).ECC.SRAMThresholdExceeded = ptr(true) }, want: "Failing; SRAMThreshold on " + at + ", Critical, Replace, x1"},
		},
		"the threshold cannot be read": {
			{do: func(r *rig) {
				r.gpu(1).ECC.SRAMThresholdExceeded = nil
				r.gpu(1).Unread = map[string]string{"nvmlDeviceGetSramEccErrorStatus": "TIMEOUT"}
			}, want: "Unknown CannotRead"},
		},
	}
	for name, steps := range tests {
		t.Run(name, func(t *testing.T) { newRig(t, "h100x8").run("ecc", steps...) })
	}
	t.Run("before A100 an error cannot be contained", func(t *testing.T) {
		newRig(t, "v100x4").run("ecc", step{want: "Passing"},
			step{do: errors(1), want: "Failing; ECCUncorrectable on 0000:0a:00.0, Critical, ResetDevice, x1"})
	})
	t.Run("what has MIG is not of before A100, whatever it tells of pages", func(t *testing.T) {
		r := newRig(t, "a100x2-mig")
		r.gpu(0).Retire = &machine.NVMLRetire{}
		r.run("ecc", step{want: "Passing"}, step{
			do:   func(r *rig) { r.gpu(0).ECC.VolatileUncorrected = ptr(uint64(1)) },
			want: "Failing; ECCUncorrectable on 0000:41:00.0, Warning, ResetDevice, x1",
		})
	})
	t.Run("a reset ends it", func(t *testing.T) {
		r := newRig(t, "h100x8")
		r.run("ecc", step{want: "Passing"}, step{do: errors(1), want: found + "1"})
		resetter, ok := r.checks["ecc"].(health.Resetter)
		if !ok {
			t.Fatal("it is no Resetter")
		}
		if err := resetter.DeviceReset(t.Context(), gpu3); err != nil {
			t.Fatal(err)
		}
		r.run("ecc", step{want: found + "1"})
		if err := resetter.DeviceReset(t.Context(), at); err != nil {
			t.Fatal(err)
		}
		r.run("ecc", step{want: "Passing"})
	})
	t.Run("no other check has to be told", func(t *testing.T) {
		for name, c := range newRig(t, "h100x8").checks {
			if _, ok := c.(health.Resetter); ok != (name == "ecc") {
				t.Errorf("%s is a Resetter: %v", name, ok)
			}
		}
	})
}
