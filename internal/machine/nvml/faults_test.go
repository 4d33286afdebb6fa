//go:build cgo && linux

package nvml_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/roundhouse-dev/roundhouse/internal/machine"
	"github.com/roundhouse-dev/roundhouse/internal/machine/nvml/nvmltest"
)

// small is a machine on which every call is made at least once, and few are made more often.
var small = []string{"value -1 gpus 1", "value 0 links 1", "value 0 mig 1", "value 0 max-mig 1", "value 0 mig-devices 1"}

// everyCall are the calls that the helper makes on the small machine, in order, and the functions behind them.
func everyCall(t *testing.T) []string {
	t.Helper()
	h, library := host(t, append(slices.Clone(small), "log"))
	ask(t, h)
	all := calls(t, library)
	if len(all) < 35 {
		t.Fatalf("only %d calls: %q", len(all), all)
	}
	return all
}

// is says whether the call that an error names is that of a line of the library's log.
func is(at machine.NVMLCall, logged string) bool {
	name, gpu, _ := strings.Cut(logged, " ")
	function, _, _ := strings.Cut(at.Name, "(")
	return function == "nvml"+name && strconv.Itoa(at.GPU) == gpu
}

func TestAHangInEveryCall(t *testing.T) {
	for i, call := range everyCall(t) {
		t.Run(fmt.Sprintf("%d %s", i+1, call), func(t *testing.T) {
			t.Parallel()
			h, library := host(t, append(slices.Clone(small), "log", fmt.Sprintf("hang-nth %d", i+1)))
			report, err := stuck(t, h, 400*time.Millisecond)
			if len(calls(t, library)) < i+1 {
				// The machine is so busy that the helper did not get there.
				report, err = stuck(t, h, 5*time.Second)
			}
			var at *machine.NVMLCallError
			if !errors.As(err, &at) || !is(at.Call, call) {
				t.Errorf("got %v, want it in %s", err, call)
			}
			partial(t, report, call)
			recovers(t, h, library)
		})
	}
}

// stuck asks a machine that hangs, and checks that the answer comes in time.
func stuck(t *testing.T, h *machine.Host, deadline time.Duration) (machine.NVMLReport, error) {
	t.Helper()
	began := time.Now()
	report, err := h.NVML(within(t, deadline))
	if took := time.Since(began); took > deadline+time.Second {
		t.Errorf("answered after %s, the deadline was %s", took, deadline)
	}
	if !errors.Is(err, machine.ErrStuck) || errors.Is(err, machine.ErrNVMLCrashed) {
		t.Errorf("got %v, want ErrStuck", err)
	}
	return report, err
}

func TestACrashInEveryCall(t *testing.T) {
	for i, call := range everyCall(t) {
		t.Run(fmt.Sprintf("%d %s", i+1, call), func(t *testing.T) {
			t.Parallel()
			h, library := host(t, append(slices.Clone(small), fmt.Sprintf("crash-nth %d", i+1)))
			report, err := h.NVML(within(t, 10*time.Second))
			var at *machine.NVMLCallError
			if !errors.Is(err, machine.ErrNVMLCrashed) || !errors.As(err, &at) || !is(at.Call, call) || !strings.HasSuffix(err.Error(), "SIGSEGV") {
				t.Errorf("got %v, want ErrNVMLCrashed in %s by SIGSEGV", err, call)
			}
			partial(t, report, call)
			recovers(t, h, library)
		})
	}
}

// partial checks that what was read before a call is in the report.
func partial(t *testing.T, report machine.NVMLReport, call string) {
	t.Helper()
	if strings.HasSuffix(call, " 0") && (report.Count != 1 || report.Driver == "") {
		t.Errorf("in %s: the machine's part is missing in %+v", call, report)
	}
	if call == "DeviceGetMigMode 0" && (len(report.GPUs) != 1 || report.GPUs[0].UUID == "" || report.GPUs[0].Recovery == nil) {
		t.Errorf("in %s: the GPU's identity is missing in %+v", call, report)
	}
}

// recovers checks that the next round is whole once what was wrong has gone.
func recovers(t *testing.T, h *machine.Host, library string) {
	t.Helper()
	if err := nvmltest.Answers(library, small...); err != nil {
		t.Fatal(err)
	}
	if report := ask(t, h); len(report.GPUs) != 1 || report.GPUs[0].UUID == "" || len(report.GPUs[0].Instances) != 1 {
		t.Errorf("the next round: %+v", report)
	}
}

func TestAHangAtTheSixthOfEightGPUs(t *testing.T) {
	h, _ := host(t, []string{"hang DeviceGetPowerUsage 5"})
	report, err := h.NVML(within(t, time.Second))
	var at *machine.NVMLCallError
	if !errors.Is(err, machine.ErrStuck) || !errors.As(err, &at) || at.Call != (machine.NVMLCall{Name: "nvmlDeviceGetPowerUsage", GPU: 5}) {
		t.Errorf("got %v", err)
	}
	if len(report.GPUs) != 6 || report.GPUs[4].Fabric == nil || report.GPUs[5].UUID == "" || report.GPUs[5].Fabric != nil {
		t.Errorf("got %+v", report.GPUs)
	}
}

func TestLoadingHangsOrCrashes(t *testing.T) {
	for what, want := range map[string]error{"hang-load": machine.ErrStuck, "crash-load": machine.ErrNVMLCrashed} {
		h, _ := host(t, []string{what})
		_, err := h.NVML(within(t, 500*time.Millisecond))
		if !errors.Is(err, want) || !strings.Contains(err.Error(), "dlopen: ") {
			t.Errorf("%s: got %v", what, err)
		}
	}
}

func TestAnAbortIsToldByItsSignal(t *testing.T) {
	for signal, name := range map[syscall.Signal]string{syscall.SIGABRT: "SIGABRT", syscall.SIGBUS: "SIGBUS", syscall.SIGFPE: "SIGFPE", syscall.SIGKILL: "SIGKILL"} {
		h, _ := host(t, []string{fmt.Sprintf("crash DeviceGetName 3 %d", signal)})
		_, err := h.NVML(within(t, 10*time.Second))
		if !errors.Is(err, machine.ErrNVMLCrashed) || !strings.HasSuffix(err.Error(), "nvmlDeviceGetName of GPU 3: "+machine.ErrNVMLCrashed.Error()+": "+name) {
			t.Errorf("got %v, want %s", err, name)
		}
	}
}

// Each function in turn is one that the driver is too old, or too new, to have. A call of it would end the process.
func TestEveryFunctionMayBeAbsent(t *testing.T) {
	seen := map[string]bool{}
	for _, call := range everyCall(t) {
		name, _, _ := strings.Cut(call, " ")
		if seen[name] {
			continue
		}
		seen[name] = true
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h, _ := host(t, small, versions("nvml"+name)...)
			report := ask(t, h)
			if !says(report, "nvml"+name) {
				t.Errorf("nothing says that nvml%s is not there: %+v", name, report)
			}
		})
	}
}

// versions are the names under which the test's library has a function.
func versions(function string) []string {
	return []string{function, function + "_v2", function + "_v3"}
}

func says(r machine.NVMLReport, function string) bool {
	const absent = "FUNCTION_NOT_FOUND"
	found := func(unread map[string]string) bool {
		for call, name := range unread {
			f, _, _ := strings.Cut(call, "(")
			if f == function && name == absent {
				return true
			}
		}
		return false
	}
	switch function {
	case "nvmlInit":
		return r.Init == absent
	case "nvmlDeviceGetHandleByIndex":
		return len(r.GPUs) == 1 && r.GPUs[0].Handle == absent
	case "nvmlDeviceGetGpuFabricInfoV", "nvmlDeviceGetCurrentClocksEventReasons":
		// These have an older name to fall back on.
		return len(r.GPUs) == 1 && r.GPUs[0].Fabric != nil && r.GPUs[0].Clocks.Reasons != nil
	}
	return found(r.Unread) || len(r.GPUs) == 1 && found(r.GPUs[0].Unread)
}

// Drivers of the R470 branch have none of these.
func TestAnOldDriver(t *testing.T) {
	h, _ := host(t, append(slices.Clone(small), "value 0 recovery -1"),
		"nvmlDeviceGetSramEccErrorStatus", "nvmlDeviceGetGpuFabricInfoV", "nvmlDeviceGetGpuFabricInfo", "nvmlDeviceGetModuleId",
		"nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetRemappedRows")
	report := ask(t, h)
	if len(report.GPUs) != 1 {
		t.Fatalf("got %+v", report)
	}
	g := report.GPUs[0]
	want := map[string]string{
		"nvmlDeviceGetSramEccErrorStatus": "FUNCTION_NOT_FOUND", "nvmlDeviceGetGpuFabricInfo": "FUNCTION_NOT_FOUND",
		"nvmlDeviceGetModuleId": "FUNCTION_NOT_FOUND", "nvmlDeviceGetRemappedRows": "FUNCTION_NOT_FOUND",
		"GET_GPU_RECOVERY_ACTION": "NOT_SUPPORTED", "RETIRED_SBE": "NOT_SUPPORTED", "RETIRED_DBE": "NOT_SUPPORTED",
		"RETIRED_PENDING": "NOT_SUPPORTED",
	}
	for call, name := range want {
		if g.Unread[call] != name {
			t.Errorf("%s: got %q, want %s", call, g.Unread[call], name)
		}
	}
	if len(g.Unread) != len(want) {
		t.Errorf("unread: %v", g.Unread)
	}
	if g.Clocks == nil || g.Clocks.Reasons == nil || g.Recovery != nil || g.Fabric != nil || g.Remap != nil || g.Retire != nil {
		t.Errorf("got %+v", g)
	}
}

// The library must not be able to start programs: it would load the module that a driver container has just unloaded.
func TestTheLibraryStartsNoProgram(t *testing.T) {
	for name, tt := range map[string]struct {
		args []string
		want syscall.Errno
	}{
		"forbidden": {want: syscall.EPERM}, "allowed": {args: []string{"-allow-programs"}, want: syscall.ENOENT},
	} {
		t.Run(name, func(t *testing.T) {
			_, library := host(t, []string{"log", "program /nowhere"})
			root := filepath.Join(filepath.Dir(library), "../../..")
			out, err := exec.CommandContext(t.Context(), kit.Helper, append(tt.args, "-root", root)...).CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			if want := fmt.Sprintf("program %d", int(tt.want)); !slices.Contains(calls(t, library), want) {
				t.Errorf("want %q, got %q", want, calls(t, library))
			}
		})
	}
}

func TestTheLibraryFloodsStandardOutput(t *testing.T) {
	h, _ := host(t, []string{"flood 10000"})
	if _, err := h.NVML(within(t, 10*time.Second)); err == nil || !strings.Contains(err.Error(), "65536") {
		t.Errorf("got %v", err)
	}
}

// By hand, or where the agent has been stopped, nobody ends the helper but itself.
func TestTheHelperEndsItselfAtItsDeadline(t *testing.T) {
	_, library := host(t, []string{"hang DeviceGetName 0"})
	cmd := exec.CommandContext(within(t, 20*time.Second), kit.Helper, "-deadline", "200ms", "-root", filepath.Join(filepath.Dir(library), "../../.."))
	began := time.Now()
	err := cmd.Run()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 124 || time.Since(began) > 5*time.Second {
		t.Errorf("ended after %s: %v", time.Since(began), err)
	}
}

func TestAPrettyReport(t *testing.T) {
	_, library := host(t, small)
	out, err := exec.CommandContext(t.Context(), kit.Helper, "-pretty", "-root", filepath.Join(filepath.Dir(library), "../../..")).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "\n      \"index\": 0,\n") || strings.Contains(string(out), "protocol") {
		t.Errorf("%v: %s", err, out)
	}
}

// parentEnv makes the test program play an agent that starts a helper and then does nothing, so that it can be killed.
const parentEnv = "ROUNDHOUSE_TEST_NVML_PARENT"

func beParent() bool {
	root, helper, ok := strings.Cut(os.Getenv(parentEnv), ":")
	if !ok {
		return false
	}
	h := machine.NewHost(machine.Options{Root: root, NVMLHelper: helper})
	_, err := h.NVML(context.Background())
	fmt.Println("ended", err)
	return true
}

func TestTheHelperDiesWithItsParent(t *testing.T) {
	_, library := host(t, []string{"hang DeviceGetName 0", "log"})
	parent := exec.CommandContext(t.Context(), os.Args[0])
	parent.Env = append(os.Environ(), parentEnv+"="+filepath.Join(filepath.Dir(library), "../../..")+":"+kit.Helper)
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	var helpers []string
	eventually(t, "a helper that hangs", func() bool {
		helpers = childrenOf(t, parent.Process.Pid)
		log, err := os.ReadFile(library + ".log")
		return err == nil && len(helpers) == 1 && strings.Contains(string(log), "DeviceGetName 0")
	})
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = parent.Wait()
	eventually(t, "the helper's end", func() bool {
		stat, err := os.ReadFile("/proc/" + helpers[0] + "/stat")
		return err != nil || strings.Contains(string(stat), ") Z ")
	})
}

func childrenOf(t *testing.T, pid int) []string {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		t.Fatal(err)
	}
	var children []string
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err == nil {
			children = append(children, strings.Fields(string(data))...)
		}
	}
	return children
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for range 500 {
		if f() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("waited in vain for %s", what)
}
