//go:build cgo && linux

package nvml_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/roundhouse-dev/roundhouse/internal/machine"
	"github.com/roundhouse-dev/roundhouse/internal/machine/nvml/nvmltest"
)

// kit is the helper and the library that all tests here use.
var kit *nvmltest.Kit

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if beParent() {
		return 0
	}
	dir, err := os.MkdirTemp("", "nvml")
	if err == nil {
		defer func() { _ = os.RemoveAll(dir) }()
		kit, err = nvmltest.NewKit(context.Background(), dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// host is a machine with a library that answers so; library is its path.
func host(t *testing.T, answers []string, absent ...string) (h *machine.Host, library string) {
	t.Helper()
	root := t.TempDir()
	library, err := kit.Library(t.Context(), root, absent...)
	if err == nil {
		err = nvmltest.Answers(library, answers...)
	}
	if err != nil {
		t.Fatal(err)
	}
	return machine.NewHost(machine.Options{Root: root, NVMLHelper: kit.Helper}), library
}

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func ask(t *testing.T, h *machine.Host) machine.NVMLReport {
	t.Helper()
	report, err := h.NVML(within(t, 10*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	return report
}

// healthy is the GPU of an index as the library has it when no file says otherwise.
func healthy(i int) machine.NVMLGPU {
	zero := func() *uint64 { return new(uint64(0)) }
	g := machine.NVMLGPU{
		Index: i, Address: fmt.Sprintf("0000:%02x:00.0", 0x18+i*0x10), UUID: fmt.Sprintf("GPU-00000001-0000-4000-8000-%012x", i),
		Serial: "1652923000001", Model: "NVIDIA H100 80GB HBM3", VBIOS: "96.00.A5.00.01", Architecture: new(uint32(9)), Module: new(uint32(i + 1)),
		Recovery: new(uint32(0)), Persistence: new(true), MIG: new(false), MIGPending: new(false),
		ECC: &machine.NVMLECC{
			Enabled: new(true), VolatileUncorrected: zero(), VolatileCorrected: zero(), AggregateUncorrected: zero(),
			AggregateCorrected: zero(), SRAMThresholdExceeded: new(false), SRAMVolatileUncorrected: zero(),
			SRAMAggregateUncorrected: zero(),
		},
		Remap: &machine.NVMLRemap{},
		PCIe: &machine.NVMLPCIe{
			Width: new(uint32(16)), MaxWidth: new(uint32(16)), Generation: new(uint32(5)),
			MaxGeneration: new(uint32(5)), Replays: new(uint32(0)),
		},
		Clocks: &machine.NVMLClocks{
			Reasons: new(uint64(1)), PState: new(uint32(0)), Utilization: new(uint32(0)),
			Temperature: new(uint32(32)), Slowdown: new(uint32(87)), Shutdown: new(uint32(92)),
			PowerMilliwatts: new(uint32(70000)), LimitMilliwatts: new(uint32(700000)), Processes: new(0),
		},
		Fabric: &machine.NVMLFabric{State: 3, Health: new(uint32(0))},
	}
	for link := range 18 {
		g.Links = append(g.Links, machine.NVMLLink{
			Link: link, Active: true, RemoteType: "Switch", Remote: fmt.Sprintf("0000:%02x:00.0", 5+link%4),
			Replays: zero(), Recoveries: zero(), CRC: zero(),
		})
	}
	return g
}

func TestEightHealthyGPUs(t *testing.T) {
	h, _ := host(t, nil)
	got := ask(t, h)
	if got.CPU == 0 || !strings.HasSuffix(got.Library, "/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1") {
		t.Errorf("library %q, %d us of processor", got.Library, got.CPU)
	}
	t.Logf("a round of eight GPUs took %d ms and %d us of processor", got.Took, got.CPU)
	got.CPU, got.Took, got.Library = 0, 0, ""
	want := machine.NVMLReport{Driver: "570.133.20", NVML: "12.570.133.20", Count: 8}
	for i := range 8 {
		want.GPUs = append(want.GPUs, healthy(i))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestWhatIsWrongWithAGPU(t *testing.T) {
	tests := map[string]struct {
		answers []string
		absent  []string
		want    func(*machine.NVMLGPU)
	}{
		"it wants a reset": {
			answers: []string{"value 0 recovery 1"},
			want:    func(g *machine.NVMLGPU) { g.Recovery = new(uint32(1)) },
		},
		"it has counted errors": {
			answers: []string{
				"value 0 ecc-vol-unc 1", "value 0 ecc-vol-corr 2", "value 0 ecc-agg-unc 3", "value 0 ecc-agg-corr 4",
				"value 0 sram-threshold 1", "value 0 sram-vol-parity 5", "value 0 sram-vol-secded 6", "value 0 sram-agg-parity 7",
				"value 0 sram-agg-secded 80000000000",
			},
			want: func(g *machine.NVMLGPU) {
				g.ECC = &machine.NVMLECC{
					Enabled: new(true), VolatileUncorrected: new(uint64(1)), VolatileCorrected: new(uint64(2)),
					AggregateUncorrected: new(uint64(3)), AggregateCorrected: new(uint64(4)),
					SRAMThresholdExceeded: new(true), SRAMVolatileUncorrected: new(uint64(11)),
					SRAMAggregateUncorrected: new(uint64(80000000007)),
				}
			},
		},
		"it could not remap a row": {
			answers: []string{"value 0 remap-corr 1", "value 0 remap-unc 2", "value 0 remap-pending 1", "value 0 remap-failed 1"},
			want: func(g *machine.NVMLGPU) {
				g.Remap = &machine.NVMLRemap{Correctable: 1, Uncorrectable: 2, Pending: true, Failed: true}
			},
		},
		"it retires pages, as GPUs before A100 do": {
			answers: []string{
				"fail DeviceGetRemappedRows 0 3", "value 0 retired-sbe 2", "value 0 retired-dbe 1", "value 0 retired-pending 1",
			},
			want: func(g *machine.NVMLGPU) {
				g.Remap, g.Retire = nil, &machine.NVMLRetire{SingleBit: 2, DoubleBit: 1, Pending: true}
				g.Unread = map[string]string{"nvmlDeviceGetRemappedRows": "NOT_SUPPORTED"}
			},
		},
		"one of the counts of retired pages is not known": {
			answers: []string{"fail DeviceGetRemappedRows 0 3", "value 0 retired-sbe 2", "value 0 retired-dbe 1"},
			want: func(g *machine.NVMLGPU) {
				g.Remap = nil
				g.Unread = map[string]string{"nvmlDeviceGetRemappedRows": "NOT_SUPPORTED", "RETIRED_PENDING": "NOT_SUPPORTED"}
			},
		},
		"its PCIe link is narrow and slow": {
			answers: []string{"value 0 width 8", "value 0 generation 1", "value 0 pcie-replays 77"},
			want: func(g *machine.NVMLGPU) {
				g.PCIe.Width, g.PCIe.Generation, g.PCIe.Replays = new(uint32(8)), new(uint32(1)), new(uint32(77))
			},
		},
		"it is hot and busy": {
			answers: []string{
				"value 0 reasons 0x40", "value 0 temperature 88", "value 0 utilization 100", "value 0 pstate 2", "value 0 power 650000",
				"value 0 processes 5",
			},
			want: func(g *machine.NVMLGPU) {
				g.Clocks.Reasons, g.Clocks.Temperature, g.Clocks.Utilization = new(uint64(0x40)), new(uint32(88)), new(uint32(100))
				g.Clocks.PState, g.Clocks.PowerMilliwatts, g.Clocks.Processes = new(uint32(2)), new(uint32(650000)), new(5)
			},
		},
		"an NVLink is down, one replays, and one is not there": {
			answers: []string{
				"value 0 link-active.3 0", "value 0 link-replays.4 9", "value 0 link-crc.4 5000000000", "value 0 link-recoveries.4 1",
				"value 0 link-active.5 -1", "value 0 link-remote-type.6 0", "value 0 link-remote-bus.6 0xf1",
			},
			want: func(g *machine.NVMLGPU) {
				g.Links[3].Active, g.Links[3].RemoteType, g.Links[3].Remote = false, "", ""
				g.Links[4].Replays, g.Links[4].CRC, g.Links[4].Recoveries = new(uint64(9)), new(uint64(5000000000)), new(uint64(1))
				g.Links[6].RemoteType, g.Links[6].Remote = "GPU", "0000:f1:00.0"
				g.Links = slices.Delete(g.Links, 5, 6)
				g.Unread = map[string]string{"nvmlDeviceGetNvLinkState(link 5)": "NOT_SUPPORTED"}
			},
		},
		"it has no NVLinks": {
			answers: []string{"value 0 links 0"},
			want:    func(g *machine.NVMLGPU) { g.Links = nil },
		},
		"its links have no such counters, as on Blackwell": {
			answers: []string{"value 0 link-replays -1", "value 0 link-crc -1", "value 0 link-recoveries -1"},
			want: func(g *machine.NVMLGPU) {
				for i := range g.Links {
					g.Links[i].Replays, g.Links[i].CRC, g.Links[i].Recoveries = nil, nil, nil
				}
				g.Unread = map[string]string{
					"NVLINK_ERROR_DL_REPLAY": "NOT_SUPPORTED", "NVLINK_ERROR_DL_RECOVERY": "NOT_SUPPORTED", "NVLINK_ERROR_DL_CRC": "NOT_SUPPORTED",
				}
			},
		},
		"the fabric manager refused it": {
			answers: []string{
				"value 0 fabric-status 999", "value 0 fabric-health 0x155", "value 0 fabric-clique 7", "value 0 fabric-cluster 0xab",
			},
			want: func(g *machine.NVMLGPU) {
				g.Fabric = &machine.NVMLFabric{
					State: 3, Status: "UNKNOWN", Health: new(uint32(0x155)), Clique: 7, Cluster: "abababab-abab-abab-abab-abababababab",
				}
			},
		},
		"it is registering, and so has no status": {
			answers: []string{"value 0 fabric-status 999", "value 0 fabric-state 2"},
			want:    func(g *machine.NVMLGPU) { g.Fabric.State = 2 },
		},
		"the driver knows the fabric's first version only": {
			answers: []string{"value 0 fabric-clique 7"},
			absent:  []string{"nvmlDeviceGetGpuFabricInfoV"},
			want:    func(g *machine.NVMLGPU) { g.Fabric.Health, g.Fabric.Clique = nil, 7 },
		},
		"it is cut into MIG devices": {
			answers: []string{"value 0 mig 1", "value 0 mig-devices 2"},
			want: func(g *machine.NVMLGPU) {
				g.MIG, g.MIGPending = new(true), new(true)
				g.Instances = []machine.MIGPart{
					{UUID: "MIG-00000000-0000-4000-8000-000000000001", GPUInstance: 7},
					{UUID: "MIG-00000000-0000-4000-8000-000000000002", GPUInstance: 8},
				}
			},
		},
		"MIG waits for a reset": {
			answers: []string{"value 0 mig-pending 1"},
			want:    func(g *machine.NVMLGPU) { g.MIGPending = new(true) },
		},
		"it needs a reset, which one call says": {
			answers: []string{"fail DeviceGetTemperature 0 16"},
			want: func(g *machine.NVMLGPU) {
				g.Lost, g.Clocks.Temperature = "RESET_REQUIRED", nil
				g.Unread = map[string]string{"nvmlDeviceGetTemperature": "RESET_REQUIRED"}
			},
		},
		"it does not open": {
			answers: []string{"fail DeviceGetHandleByIndex 0 4"},
			want:    func(g *machine.NVMLGPU) { *g = machine.NVMLGPU{Handle: "NO_PERMISSION"} },
		},
		"an error that has no name yet": {
			answers: []string{"fail DeviceGetSerial 0 77"},
			want: func(g *machine.NVMLGPU) {
				g.Serial, g.Unread = "", map[string]string{"nvmlDeviceGetSerial": "ERROR_77"}
			},
		},
		"a field of a type that nobody knows": {
			answers: []string{"value 0 field-type 99", "value 0 links 0"},
			want: func(g *machine.NVMLGPU) {
				g.Recovery, g.Links = nil, nil
				g.Unread = map[string]string{
					"GET_GPU_RECOVERY_ACTION": "ARGUMENT_VERSION_MISMATCH", "NVLINK_LINK_COUNT": "ARGUMENT_VERSION_MISMATCH",
				}
			},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h, _ := host(t, append([]string{"value -1 gpus 1"}, tt.answers...), tt.absent...)
			want := healthy(0)
			tt.want(&want)
			if diff := cmp.Diff([]machine.NVMLGPU{want}, ask(t, h).GPUs); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestOneLostGPUOfEight(t *testing.T) {
	tests := map[string]struct {
		answers []string
		want    func(*machine.NVMLGPU)
	}{
		"does not open": {
			answers: []string{"fail DeviceGetHandleByIndex 5 15"},
			want:    func(g *machine.NVMLGPU) { *g = machine.NVMLGPU{Index: 5, Handle: "GPU_IS_LOST", Lost: "GPU_IS_LOST"} },
		},
		"is lost while it is asked, and then is not asked any more": {
			answers: []string{"fail DeviceGetSramEccErrorStatus 5 15", "crash DeviceGetPowerUsage 5"},
			want: func(g *machine.NVMLGPU) {
				g.Lost, g.Unread = "GPU_IS_LOST", map[string]string{"nvmlDeviceGetSramEccErrorStatus": "GPU_IS_LOST"}
				g.ECC.SRAMThresholdExceeded, g.ECC.SRAMVolatileUncorrected, g.ECC.SRAMAggregateUncorrected = nil, nil, nil
				g.Remap, g.PCIe, g.Clocks, g.Links, g.Fabric, g.MIG, g.MIGPending = nil, nil, nil, nil, nil, nil, nil
			},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h, _ := host(t, tt.answers)
			got := ask(t, h)
			var want []machine.NVMLGPU
			for i := range 8 {
				want = append(want, healthy(i))
			}
			tt.want(&want[5])
			if diff := cmp.Diff(want, got.GPUs); diff != "" || got.Count != 8 {
				t.Errorf("count %d (-want +got):\n%s", got.Count, diff)
			}
		})
	}
}

// The test's library, as the real one, crashes in a call that follows a failed nvmlInit: that none is made is what shows.
func TestInitFails(t *testing.T) {
	for number, want := range map[int]string{9: "DRIVER_NOT_LOADED", 18: "LIB_RM_VERSION_MISMATCH", 999: "UNKNOWN"} {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			h, library := host(t, []string{fmt.Sprintf("fail Init -1 %d", number), "log"})
			got := ask(t, h)
			got.Took, got.CPU, got.Library = 0, 0, ""
			if diff := cmp.Diff(machine.NVMLReport{Init: want}, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if diff := cmp.Diff([]string{"Init -1"}, calls(t, library)); diff != "" {
				t.Errorf("calls (-want +got):\n%s", diff)
			}
		})
	}
}

func calls(t *testing.T, library string) []string {
	t.Helper()
	data, err := os.ReadFile(library + ".log")
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(data)), "\n")
}

func TestNoLibrary(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can look into a root without seeing what this machine has")
	}
	root := t.TempDir()
	_, err := machine.NewHost(machine.Options{Root: root, NVMLHelper: kit.Helper}).NVML(within(t, 10*time.Second))
	if !errors.Is(err, machine.ErrNoNVML) || !strings.Contains(err.Error(), filepath.Join(root, "run/nvidia/driver")) {
		t.Errorf("got %v", err)
	}
}

func TestALibraryThatDoesNotLoad(t *testing.T) {
	h, library := host(t, nil)
	if err := os.WriteFile(library, []byte("not a library"), 0o755); err != nil {
		t.Fatal(err)
	}
	_, err := h.NVML(within(t, 10*time.Second))
	if err == nil || errors.Is(err, machine.ErrNoNVML) || errors.Is(err, machine.ErrNVMLCrashed) || !strings.Contains(err.Error(), "libnvidia-ml.so.1") {
		t.Errorf("got %v", err)
	}
}

func TestTheLibraryOfADriverContainer(t *testing.T) {
	tests := map[string]func(t *testing.T, root string){
		"alone": func(*testing.T, string) {},
		"beside one of the host that is broken": func(t *testing.T, root string) {
			t.Helper()
			dir := filepath.Join(root, "usr/lib64")
			if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, "libnvidia-ml.so.1"), []byte("x"), 0o755)); err != nil {
				t.Fatal(err)
			}
		},
	}
	for name, prepare := range tests {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			if _, err := kit.Library(t.Context(), filepath.Join(root, "run/nvidia/driver")); err != nil {
				t.Fatal(err)
			}
			prepare(t, root)
			report := ask(t, machine.NewHost(machine.Options{Root: root, NVMLHelper: kit.Helper}))
			if report.Count != 8 || len(report.GPUs) != 8 {
				t.Errorf("got %+v", report)
			}
		})
	}
}

// Debian's library is a link to /etc/alternatives, which leads astray from outside the root.
func TestTheLibraryBehindAnAbsoluteLink(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can change the root")
	}
	h, library := host(t, nil)
	root := filepath.Join(filepath.Dir(library), "../../..")
	err := errors.Join(os.Mkdir(filepath.Join(root, "etc"), 0o755), os.Rename(library, filepath.Join(root, "etc/the-library")),
		os.Symlink("/etc/the-library", library))
	if err != nil {
		t.Fatal(err)
	}
	if report := ask(t, h); report.Count != 8 {
		t.Errorf("got %+v", report)
	}
}

// An agent that only observes has no right to change roots.
func TestWithoutTheRightToChangeRoots(t *testing.T) {
	root := t.TempDir()
	if _, err := kit.Library(t.Context(), root); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), kit.Helper, "-root", root, "-pretty")
	if os.Geteuid() == 0 {
		for _, dir := range []string{root, filepath.Dir(root), filepath.Dir(kit.Helper)} {
			if err := os.Chmod(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), `"library": "`+root+`/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1"`) {
		t.Errorf("%v: %s", err, out)
	}
}

// On a machine with a GPU this is what NVML really says; the log shows it whole.
func TestRealGPU(t *testing.T) {
	h := machine.NewHost(machine.Options{NVMLHelper: kit.Helper})
	ctx := within(t, 60*time.Second)
	got, err := h.NVML(ctx)
	if errors.Is(err, machine.ErrNoNVML) {
		t.Skip("no GPU here: ", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if got.Init != "" {
		t.Skip("no GPU to ask here: nvmlInit said ", got.Init)
	}
	text, err := json.MarshalIndent(got, "", "  ")
	t.Logf("%s\n%v", text, err)
	if got.Driver == "" || got.NVML == "" || len(got.GPUs) != got.Count {
		t.Errorf("driver %q, NVML %q, %d GPUs of %d", got.Driver, got.NVML, len(got.GPUs), got.Count)
	}
	known, err := h.NVIDIAGPUs(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for i := range got.GPUs {
		agrees(t, &got.GPUs[i], known)
	}
}

// agrees checks a GPU against what the kernel driver says of it under /proc.
func agrees(t *testing.T, g *machine.NVMLGPU, known []machine.NVIDIAGPU) {
	t.Helper()
	i := slices.IndexFunc(known, func(k machine.NVIDIAGPU) bool { return k.Address == g.Address })
	if i < 0 {
		t.Errorf("GPU %d at %q is not among %+v", g.Index, g.Address, known)
		return
	}
	if k := known[i]; k.UUID != g.UUID || k.Model != g.Model {
		t.Errorf("NVML has %s %s, the driver %s %s", g.Model, g.UUID, k.Model, k.UUID)
	}
	for call, name := range g.Unread {
		if name != "NOT_SUPPORTED" && name != "FUNCTION_NOT_FOUND" {
			t.Errorf("GPU %d: %s: %s", g.Index, call, name)
		}
	}
}
