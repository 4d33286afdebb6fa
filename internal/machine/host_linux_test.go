package machine

import (
	"context"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// unpack lays out a captured tree of files, whose names a Go module could not hold, and returns its root.
func unpack(t *testing.T, capture string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", capture))
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSuffix(line, "\n")
		if line == "" || line[0] == '#' {
			continue
		}
		if err := unpackLine(root, line); err != nil {
			t.Fatalf("%s: %q: %v", capture, line, err)
		}
	}
	return root
}

func unpackLine(root, line string) error {
	path, content, sep := line, "", ""
	for _, s := range []string{" -> ", " = ", ": "} {
		if p, c, ok := strings.Cut(line, s); ok {
			path, content, sep = filepath.Join(root, p), c, s
			break
		}
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	switch sep {
	case " -> ":
		return os.Symlink(content, path)
	case " = ":
		b, err := hex.DecodeString(content)
		return errors.Join(err, os.WriteFile(path, b, 0o644))
	case ": ":
		return os.WriteFile(path, []byte(strings.NewReplacer(`\n`, "\n", `\t`, "\t").Replace(content)), 0o644)
	}
	return errors.New("no separator")
}

func testContext(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func TestHostReadsACapturedNode(t *testing.T) {
	h := NewHost(Options{Root: unpack(t, "node.sysfs")})
	ctx := testContext(t, 10*time.Second)

	boot, err := h.BootID(ctx)
	if err != nil || boot != "0fc70fad-6980-4f05-acf8-5f6c56122bb4" {
		t.Errorf("boot ID %q, %v", boot, err)
	}
	at, err := h.BootTime(ctx)
	if err != nil || !at.Equal(time.Unix(1790000000, 0)) {
		t.Errorf("boot time %v, %v", at, err)
	}
	name, err := h.Hostname(ctx)
	if err != nil || name != "gpu-0417" {
		t.Errorf("host name %q, %v", name, err)
	}

	got, err := h.PCIDevices(ctx, func(id PCIID) bool { return id.Vendor == 0x10de || id.Vendor == 0x144d })
	if err != nil {
		t.Fatal(err)
	}
	gpu := PCIID{Vendor: 0x10de, Device: 0x2335, SubVendor: 0x10de, SubDevice: 0x18be, Class: 0x030200, Driver: "nvidia"}
	want := []PCIDevice{
		{
			PCIID:   PCIID{Vendor: 0x10de, Device: 0x22a3, SubVendor: 0x10de, SubDevice: 0x1796, Class: 0x068000, Driver: "nvidia-nvswitch"},
			Address: "0000:05:00.0", Config: ConfigAnswers,
		},
		{
			PCIID: gpu, Address: "0000:18:00.0", Parent: "0000:17:01.0", DriverVersion: "595.45.04", Slot: "3",
			Label: "GPU SXM 1", Power: "D0", Config: ConfigAnswers,
			Link:       Link{Width: 16, MaxWidth: 16, MTs: 2500, MaxMTs: 32000},
			ParentLink: Link{Width: 16, MaxWidth: 16, MTs: 32000, MaxMTs: 32000},
		},
		{
			PCIID: PCIID{
				Vendor: 0x10de, Device: 0x2335, SubVendor: 0x10de, Class: 0x030200, Virtual: true,
			},
			Address: "0000:18:00.4", Parent: "0000:17:01.0", Slot: "3",
			ParentLink: Link{Width: 16, MaxWidth: 16, MTs: 32000, MaxMTs: 32000},
		},
		{
			PCIID: gpu, Address: "0000:2a:00.0", Parent: "0000:29:01.0", Slot: "7-1", Power: "D3cold", Config: ConfigAllOnes,
		},
		{
			PCIID:   PCIID{Vendor: 0x144d, Device: 0xa80a, SubVendor: 0x144d, SubDevice: 0xa801, Class: 0x010802, Driver: "nvme"},
			Address: "0000:e1:00.0", Parent: "0000:e0:03.0", Suspended: true, Config: ConfigUnread,
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("PCI devices (-want +got):\n%s", diff)
	}

	gpus, err := h.NVIDIAGPUs(ctx)
	if err != nil {
		t.Fatal(err)
	}
	wantGPUs := []NVIDIAGPU{
		{
			Address: "0000:18:00.0", Model: "NVIDIA H200", UUID: "GPU-6a1f0b1c-1111-2222-3333-444455556666",
			VideoBIOS: "96.00.bc.00.01", Firmware: "595.45.04",
		},
		{Address: "0000:2a:00.0", Model: "NVIDIA H200", Firmware: "N/A"},
	}
	if diff := cmp.Diff(wantGPUs, gpus); diff != "" {
		t.Errorf("NVIDIA GPUs (-want +got):\n%s", diff)
	}
}

func TestHostWithoutADriverOrABus(t *testing.T) {
	h := NewHost(Options{Root: t.TempDir()})
	ctx := testContext(t, 10*time.Second)
	if gpus, err := h.NVIDIAGPUs(ctx); err != nil || len(gpus) != 0 {
		t.Errorf("no driver is no GPUs: %v, %v", gpus, err)
	}
	if _, err := h.PCIDevices(ctx, nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no bus is an error, since it cannot be looked at: %v", err)
	}
	if _, err := h.BootID(ctx); err == nil {
		t.Error("no boot ID is an error")
	}
	if _, err := h.BootTime(ctx); err == nil {
		t.Error("no boot time is an error")
	}
	if name, err := h.Hostname(ctx); err != nil || name == "" {
		t.Errorf("the kernel's own host name is left: %q, %v", name, err)
	}
}

// A read that never comes back must not take the agent with it: the deadline ends the wait, the door stays shut, and it
// opens when the read returns.
func TestAReadThatHangsEndsWithItsDeadline(t *testing.T) {
	root := unpack(t, "node.sysfs")
	h := NewHost(Options{Root: root})
	path := filepath.Join(root, "proc/driver/nvidia/gpus/0000:18:00.0/information")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Remove(path), syscall.Mkfifo(path, 0o644)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := h.NVIDIAGPUs(testContext(t, 20*time.Millisecond)); !errors.Is(err, ErrStuck) || !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("want ErrStuck and the deadline, got %v", err)
		}
	}
	if _, err := h.PCIDevices(testContext(t, 10*time.Second), nil); err != nil {
		t.Errorf("another door is open: %v", err)
	}
	if err := os.WriteFile(path, whole, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Remove(path), os.WriteFile(path, whole, 0o644)); err != nil {
		t.Fatal(err)
	}
	gpus, err := h.NVIDIAGPUs(testContext(t, 10*time.Second))
	if err != nil || len(gpus) != 2 {
		t.Errorf("after the hang: %d GPUs, %v", len(gpus), err)
	}
}
