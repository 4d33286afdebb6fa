//go:build linux

package machine

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestRealGPUHolders finds, on a machine with an NVIDIA GPU, who has it open: this process does, and then does not. It
// changes nothing.
func TestRealGPUHolders(t *testing.T) {
	nodes, err := filepath.Glob("/dev/nvidia[0-9]*")
	if err != nil || len(nodes) == 0 {
		t.Skip("this machine has no NVIDIA GPU: there is no /dev/nvidia0")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	h := NewHost(Options{StateDir: t.TempDir()})
	gpus, err := h.NVIDIAGPUs(ctx)
	if err != nil || len(gpus) == 0 {
		t.Fatalf("GPUs %v: %v", gpus, err)
	}
	var addresses []string
	for _, g := range gpus {
		addresses = append(addresses, g.Address)
		for _, way := range []ResetWay{ResetByNVIDIA, ResetByFunction, ResetByRescan} {
			t.Logf("%s can be reset by %s: %v", g.Address, way, h.CanReset(ctx, g.Address, way))
		}
	}
	find := func() []Holder {
		t.Helper()
		began := time.Now()
		holders, err := h.Holders(ctx, addresses)
		if err != nil && (strings.Contains(err.Error(), "PID namespace") || errors.Is(err, fs.ErrPermission)) {
			t.Skipf("the host's processes are not in sight here: %v", err)
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("in %s: %v", time.Since(began), holders)
		return holders
	}
	mine := func(h Holder) bool { return h.PID == os.Getpid() && h.Path == nodes[0] }
	if slices.ContainsFunc(find(), mine) {
		t.Error("this process is named before it has opened anything")
	}
	f, err := os.OpenFile(nodes[0], os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(find(), mine) {
		t.Errorf("pid %d has %s open and is not named", os.Getpid(), nodes[0])
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if slices.ContainsFunc(find(), mine) {
		t.Error("this process is still named after it has closed it")
	}
	smi, err := exec.LookPath("nvidia-smi")
	if err != nil {
		t.Logf("no nvidia-smi to look for as another process: %v", err)
		return
	}
	other := exec.CommandContext(ctx, smi, "--loop=1", "--query-gpu=uuid", "--format=csv")
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := other.Process.Kill(); err != nil {
			t.Error(err)
		}
		_ = other.Wait() // killed.
	}()
	time.Sleep(3 * time.Second)
	if !slices.ContainsFunc(find(), func(h Holder) bool { return h.PID == other.Process.Pid }) {
		t.Errorf("nvidia-smi, pid %d, asks for ever and is not named", other.Process.Pid)
	}
}
