// Package reset tests internal/machine's view of holders, and its ways to reset a device, on a real kernel with a real
// PCI Express device that stands for a GPU.
package reset

import (
	"context"
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/roundhouse-dev/roundhouse/internal/machine"
	"github.com/roundhouse-dev/roundhouse/sandbox/e2e/reset/ask"
	"github.com/roundhouse-dev/roundhouse/sandbox/vm"
)

const (
	doorPackage = "github.com/roundhouse-dev/roundhouse/sandbox/e2e/reset/testdata/door"
	patience    = 6 * time.Minute
	gpu         = "gpu0"
	// probed is what the nvme driver logs when it is given a device, and found what the kernel logs when a device appears
	// on the bus.
	probed = "pci function "
	found  = "[1b36:0010]"
)

// rig is a machine with the program in it.
type rig struct {
	*testing.T
	ctx     context.Context
	vm      *vm.VM
	address string
	asked   int
}

func newRig(t *testing.T) *rig {
	t.Helper()
	door := filepath.Join(t.TempDir(), "door")
	if err := vm.BuildStatic(t.Context(), door, doorPackage); err != nil { // go test's own time-out bounds it
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	r := &rig{T: t, ctx: ctx}
	var err error
	r.vm, err = vm.Start(ctx, vm.Options{Devices: []vm.Device{{ID: gpu}}, Agent: vm.Agent{Binary: door}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("console:\n%s", r.vm.Console())
		}
		if err := r.vm.Stop(context.WithoutCancel(ctx)); err != nil {
			t.Errorf("stopping the machine: %v", err)
		}
	})
	if r.address, err = r.vm.PCIAddress(ctx, gpu); err != nil {
		t.Fatal(err)
	}
	r.eventually("the device's file", func() bool {
		names, err := r.vm.ReadDir(ctx, "/dev")
		return err == nil && slices.Contains(names, "nvme0")
	})
	return r
}

func (r *rig) eventually(what string, is func() bool) {
	r.Helper()
	for !is() {
		select {
		case <-r.ctx.Done():
			r.Fatalf("waited in vain for %s", what)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// ask asks the program in the machine.
func (r *rig) ask(way machine.ResetWay) ask.Answer {
	r.Helper()
	r.asked++
	raw, err := json.Marshal(ask.Question{ID: r.asked, Address: r.address, Way: way})
	if err != nil {
		r.Fatal(err)
	}
	if err := r.vm.WriteFile(r.ctx, ask.QuestionFile, raw); err != nil {
		r.Fatal(err)
	}
	var a ask.Answer
	r.eventually("an answer", func() bool {
		raw, err := r.vm.ReadFile(r.ctx, ask.AnswerFile)
		return err == nil && json.Unmarshal(raw, &a) == nil && a.ID == r.asked
	})
	return a
}

// lines counts the lines of the kernel's own log with the text.
func (r *rig) lines(text string) int {
	r.Helper()
	log, err := r.vm.KernelLog(r.ctx)
	if err != nil {
		r.Fatal(err)
	}
	return strings.Count(log, text)
}

func (r *rig) resets() int {
	r.Helper()
	n, err := r.vm.DeviceResets()
	if err != nil {
		r.Fatal(err)
	}
	return n
}

func TestHoldersAndResetsAreReal(t *testing.T) {
	r := newRig(t)
	run := func(name string, f func(t *testing.T)) {
		t.Run(name, func(t *testing.T) {
			r.T = t
			f(t)
		})
	}
	run("nobody holds the device to begin with", func(t *testing.T) {
		if a := r.ask(""); a.Error != "" || len(a.Holders) > 0 {
			t.Errorf("got %+v", a)
		}
	})
	run("a process that holds it is named", func(t *testing.T) {
		pid, err := r.vm.Hold(r.ctx, "/dev/nvme0")
		if err != nil {
			t.Fatal(err)
		}
		want := []machine.Holder{{Address: r.address, Kind: machine.HolderProcess, PID: pid, Name: "init", Path: "/dev/nvme0"}}
		if diff := cmp.Diff(want, r.ask("").Holders); diff != "" {
			t.Errorf("holders (-want +got):\n%s", diff)
		}
		if err := r.vm.Free(r.ctx); err != nil {
			t.Fatal(err)
		}
		if a := r.ask(""); a.Error != "" || len(a.Holders) > 0 {
			t.Errorf("after it has ended: %+v", a)
		}
	})
	run("by function: the device itself is reset, and its driver takes it anew", func(t *testing.T) {
		resets, probes := r.resets(), r.lines(probed+r.address)
		a := r.ask(machine.ResetByFunction)
		if a.Error != "" || !strings.HasSuffix(a.Said, "driver nvme bound anew") {
			t.Fatalf("got %+v", a)
		}
		t.Log(a.Said)
		if got := r.resets() - resets; got < 1 {
			t.Errorf("the device was reset %d times", got)
		}
		r.eventually("the driver to take it anew", func() bool { return r.lines(probed+r.address) == probes+1 })
	})
	run("by rescan: the kernel finds it anew", func(t *testing.T) {
		finds, probes := r.lines(found), r.lines(probed+r.address)
		a := r.ask(machine.ResetByRescan)
		if a.Error != "" || a.Said != "removed and found anew" {
			t.Fatalf("got %+v", a)
		}
		if got := r.lines(found) - finds; got != 1 {
			t.Errorf("found %d times, want once", got)
		}
		if got := r.lines(probed+r.address) - probes; got != 1 {
			t.Errorf("taken by its driver %d times, want once", got)
		}
	})
	run("not by nvidia-smi, which is not there", func(t *testing.T) {
		if a := r.ask(machine.ResetByNVIDIA); !strings.Contains(a.Error, "nvidia-smi is neither on the host nor") {
			t.Errorf("got %+v", a)
		}
	})
}
