package nvidia

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/roundhouse-dev/roundhouse/internal/health"
	"github.com/roundhouse-dev/roundhouse/internal/machine"
	"github.com/roundhouse-dev/roundhouse/internal/machine/nvml/nvmltest"
)

// helped is a machine of eight GPUs whose NVML the real helper asks, with a library whose answers the test writes.
type helped struct {
	*testing.T
	library string
	source  *Source
	checks  []health.Check
}

func newHelped(t *testing.T, kit *nvmltest.Kit) *helped {
	root := t.TempDir()
	library, err := kit.Library(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 8 {
		address := fmt.Sprintf("0000:%02x:00.0", 0x18+i*0x10)
		for file, text := range map[string]string{
			"uevent": "DRIVER=nvidia\nPCI_CLASS=30200\nPCI_ID=10DE:2330\nPCI_SUBSYS_ID=10DE:16C1\nPCI_SLOT_NAME=" + address + "\n",
			"config": "\xde\x10\x30\x23" + string(make([]byte, 60)),
		} {
			write(t, filepath.Join(root, "sys/bus/pci/devices", address, file), text)
		}
	}
	write(t, filepath.Join(root, "proc/sys/kernel/random/boot_id"), "6b1f0c0e-2d0a-4a53-9f0b-0f6d6a4f3c11\n")
	write(t, filepath.Join(root, "proc/stat"), "btime 1790000000\n")
	m := machine.NewHost(machine.Options{Root: root, StateDir: filepath.Join(root, "state"), NVMLHelper: kit.Helper})
	s := New(Options{Machine: m, Store: m, Timeout: 2 * time.Second})
	return &helped{t, library, s, s.Checks()}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// all looks with every check and wants the same outcome and reason of each.
func (h *helped) all(when, want, message string) {
	h.Helper()
	for _, c := range h.checks {
		began := time.Now()
		ctx, cancel := context.WithTimeout(h.Context(), 10*time.Second)
		r := c.Look(ctx)
		cancel()
		if show(r) != want || !strings.Contains(r.Message, message) {
			h.Errorf("%s, %s: %s (%s); want %s (%s)", when, c.Name(), show(r), r.Message, want, message)
		}
		if took := time.Since(began); took > 9*time.Second {
			h.Errorf("%s, %s took %s", when, c.Name(), took)
		}
	}
}

// answers sets what the library answers, and has it asked anew.
func (h *helped) answers(lines ...string) {
	h.Helper()
	if err := nvmltest.Answers(h.library, lines...); err != nil {
		h.Fatal(err)
	}
	h.source.forget()
}

func TestWhateverTheHelperDoesTheChecksSayItAndRecover(t *testing.T) {
	kit, err := nvmltest.NewKit(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct{ line, want, message string }{
		"it hangs at the start":          {"hang Init -1", "Unknown TimedOut", "nvmlInit"},
		"it hangs at a GPU":              {"hang DeviceGetUUID 3", "Unknown TimedOut", "nvmlDeviceGetUUID of GPU 3"},
		"it crashes at a GPU":            {"crash DeviceGetRemappedRows 5", "Unknown HelperCrashed", "nvmlDeviceGetRemappedRows of GPU 5"},
		"it is killed":                   {"crash DeviceGetUUID 0 9", "Unknown HelperCrashed", "SIGKILL"},
		"the driver does not answer yet": {"fail Init -1 9", "Unknown DriverNotLoaded", ""},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHelped(t, kit)
			h.all("before", "Passing", "")
			h.answers(tc.line)
			if strings.Contains(tc.line, "fail Init") {
				h.checks = h.checks[:1] // the driver check itself says more
			}
			h.all("with "+tc.line, tc.want, tc.message)
			h.answers()
			h.all("after", "Passing", "")
		})
	}
}
