package vm

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/roundhouse-dev/roundhouse/sandbox/vm/wire"
)

// patience bounds everything that one test asks of its machine.
const patience = 3 * time.Minute

// start boots a machine for one test and stops it at the test's end.
func start(t *testing.T, o Options) (context.Context, *VM) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	began := time.Now()
	v, err := Start(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("up after %v", time.Since(began).Round(10*time.Millisecond))
	t.Cleanup(func() {
		if t.Failed() { // Stop may remove what the console wrote
			t.Logf("console:\n%s", v.Console())
		}
		if err := v.Stop(context.WithoutCancel(ctx)); err != nil {
			t.Errorf("stopping: %v", err)
		}
	})
	return ctx, v
}

// must returns the value of a call that must not fail.
func must[T any](t *testing.T) func(T, error) T {
	return func(value T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
}

func TestMachineLivesAsARealNodeDoes(t *testing.T) {
	ctx, v := start(t, Options{
		Dir:     t.TempDir(),
		Files:   map[string][]byte{"/etc/roundhouse/config": []byte("from the host")},
		Devices: []Device{{ID: "gpu0"}, {ID: "gpu1", PortSpeed: "8", PortWidth: 4}},
	})
	for _, step := range []struct {
		name string
		test func(*testing.T, context.Context, *VM)
	}{
		{"a file of the options is there", fileIsThere},
		{"each device is on the bus with a real link", linksAreReal},
		{"the guest reaches a TLS server on the host's loopback", reachesHost},
		{"the kernel log tells the kernel's lines from injected ones", facilitiesDiffer},
		{"much data survives the way to the guest and back", serialKeepsData},
		{"a device that is taken away is gone from sysfs and comes back", deviceGoesAndComes},
		{"a reboot is the machine's own and the disk outlives it", rebootIsReal},
		{"what does not exist is an error", missingIsError},
	} {
		if !t.Run(step.name, func(t *testing.T) {
			began := time.Now()
			step.test(t, ctx, v)
			t.Logf("took %v", time.Since(began).Round(10*time.Millisecond))
		}) {
			t.Fatal("the steps share one machine: those after a failed one would tell nothing")
		}
	}
}

func fileIsThere(t *testing.T, ctx context.Context, v *VM) {
	got := must[[]byte](t)(v.ReadFile(ctx, "/etc/roundhouse/config"))
	if string(got) != "from the host" {
		t.Errorf("content = %q", got)
	}
	host := must[[]byte](t)(v.ReadFile(ctx, "/proc/sys/kernel/hostname"))
	if string(host) != "gpu-vm\n" {
		t.Errorf("host name = %q", host)
	}
}

func linksAreReal(t *testing.T, ctx context.Context, v *VM) {
	seen := map[string]bool{}
	for _, d := range v.options.Devices {
		address := must[string](t)(v.PCIAddress(ctx, d.ID))
		if seen[address] {
			t.Errorf("%s: address %s is another's, too", d.ID, address)
		}
		seen[address] = true
		for attribute, want := range map[string]string{
			"current_link_speed": "2.5 GT/s PCIe", "max_link_speed": "2.5 GT/s PCIe",
			"current_link_width": "1", "max_link_width": "1",
			"vendor": "0x1b36", "device": "0x0010", "class": "0x010802",
		} {
			raw := must[[]byte](t)(v.ReadFile(ctx, path.Join("/sys/bus/pci/devices", address, attribute)))
			if got := strings.TrimSpace(string(raw)); got != want {
				t.Errorf("%s: %s = %q, want %q", d.ID, attribute, got, want)
			}
		}
		driver := must[string](t)(v.ReadLink(ctx, path.Join("/sys/bus/pci/devices", address, "driver")))
		if path.Base(driver) != "nvme" {
			t.Errorf("%s: driver = %s, want nvme", d.ID, driver)
		}
		link := must[string](t)(v.ReadLink(ctx, path.Join("/sys/bus/pci/devices", address)))
		port := path.Join("/sys/bus/pci/devices", path.Base(path.Dir(link)))
		want := map[string]string{"gpu0": "16.0 GT/s PCIe", "gpu1": "8.0 GT/s PCIe"}[d.ID]
		speed := must[[]byte](t)(v.ReadFile(ctx, path.Join(port, "max_link_speed")))
		width := must[[]byte](t)(v.ReadFile(ctx, path.Join(port, "max_link_width")))
		if got := strings.TrimSpace(string(speed)); got != want {
			t.Errorf("%s: its port's max_link_speed = %q, want %q", d.ID, got, want)
		}
		if got := strings.TrimSpace(string(width)); got != strconv.Itoa(d.PortWidth) {
			t.Errorf("%s: its port's max_link_width = %q, want %d", d.ID, got, d.PortWidth)
		}
	}
}

func reachesHost(t *testing.T, ctx context.Context, v *VM) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "hello to %s", r.URL.Path)
	}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // it would tell of the guest that refuses its certificate
	server.StartTLS()
	defer server.Close()
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	roots := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	// httptest's certificate is for 127.0.0.1, ::1 and example.com, and HostIP is none of them, so a guest that
	// verifies must refuse. That it gets as far as the certificate shows that it reached the server.
	_, err = v.Fetch(ctx, "https://"+net.JoinHostPort(HostIP, port)+"/", "", roots)
	if err == nil || !strings.Contains(err.Error(), "x509") {
		t.Errorf("a certificate for another name: error = %v, want one of x509", err)
	}
	body, err := v.Fetch(ctx, "https://"+net.JoinHostPort(HostIP, port)+"/readyz", "example.com", roots)
	if err != nil {
		t.Fatal(err)
	}
	if string(body) != "hello to /readyz" {
		t.Errorf("body = %q", body)
	}
}

// record is one record of /dev/kmsg.
type record struct {
	facility, priority int
	text               string
}

// records parses the kernel's format: "priority,sequence,microseconds,flags;text", the facility above three bits of
// priority (Documentation/ABI/testing/dev-kmsg of the kernel's source).
func records(t *testing.T, log string) []record {
	t.Helper()
	var out []record
	for line := range strings.Lines(log) {
		head, text, ok := strings.Cut(strings.TrimSuffix(line, "\n"), ";")
		if !ok || strings.HasPrefix(line, " ") {
			continue
		}
		first, _, _ := strings.Cut(head, ",")
		n, err := strconv.Atoi(first)
		if err != nil {
			t.Fatalf("record %q: %v", line, err)
		}
		out = append(out, record{facility: n >> 3, priority: n & 7, text: text})
	}
	return out
}

func facilitiesDiffer(t *testing.T, ctx context.Context, v *VM) {
	const line = "NVRM: Xid (PCI:0000:01:00): 79, GPU has fallen off the bus."
	if err := v.Kmsg(ctx, "<3>"+line); err != nil {
		t.Fatal(err)
	}
	all := records(t, must[string](t)(v.KernelLog(ctx)))
	if want := (record{facility: 1, priority: 3, text: line}); !slices.Contains(all, want) {
		t.Errorf("no record %+v among the last of %d: %+v", want, len(all), all[max(0, len(all)-3):])
	}
	i := slices.IndexFunc(all, func(r record) bool { return strings.HasPrefix(r.text, "Linux version ") })
	if i < 0 || all[i].facility != 0 {
		t.Errorf("the kernel's own first line: index %d of %d, want one with facility 0", i, len(all))
	}
}

func serialKeepsData(t *testing.T, ctx context.Context, v *VM) {
	want := make([]byte, 32<<10)
	if _, err := rand.Read(want); err != nil {
		t.Fatal(err)
	}
	if err := v.WriteFile(ctx, "/run/data", want); err != nil {
		t.Fatal(err)
	}
	if got := must[[]byte](t)(v.ReadFile(ctx, "/run/data")); !bytes.Equal(got, want) {
		t.Errorf("%d bytes came back, not the %d that were sent", len(got), len(want))
	}
}

// onBus tells whether a PCI address is in the guest's sysfs.
func onBus(t *testing.T, ctx context.Context, v *VM, address string) bool {
	t.Helper()
	return slices.Contains(must[[]string](t)(v.ReadDir(ctx, "/sys/bus/pci/devices")), address)
}

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited 30 s for: %s", what)
		}
	}
}

func deviceGoesAndComes(t *testing.T, ctx context.Context, v *VM) {
	address := must[string](t)(v.PCIAddress(ctx, "gpu1"))
	if !onBus(t, ctx, v, address) {
		t.Fatalf("%s is not on the bus to begin with", address)
	}
	began := time.Now()
	if err := v.DeviceDel(ctx, "gpu1"); err != nil {
		t.Fatal(err)
	}
	t.Logf("gone after %v", time.Since(began).Round(time.Millisecond))
	if onBus(t, ctx, v, address) {
		t.Errorf("%s is still in sysfs", address)
	}
	if _, err := v.PCIAddress(ctx, "gpu1"); err == nil {
		t.Error("a device that is away still has an address")
	}
	if other := must[string](t)(v.PCIAddress(ctx, "gpu0")); !onBus(t, ctx, v, other) {
		t.Errorf("%s, which was not touched, is gone too", other)
	}
	began = time.Now()
	if err := v.DeviceAdd(ctx, "gpu1"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the device to be back in sysfs", func() bool { return onBus(t, ctx, v, address) })
	t.Logf("back after %v", time.Since(began).Round(time.Millisecond))
}

func rebootIsReal(t *testing.T, ctx context.Context, v *VM) {
	before := must[string](t)(v.BootID(ctx))
	state := path.Join(StateDir, "journal", "entry")
	if err := v.WriteFile(ctx, state, []byte("synced before the reboot")); err != nil {
		t.Fatal(err)
	}
	if err := v.WriteFile(ctx, "/run/memory", []byte("only in memory")); err != nil {
		t.Fatal(err)
	}
	address := must[string](t)(v.PCIAddress(ctx, "gpu0"))
	stays := must[string](t)(v.PCIAddress(ctx, "gpu1"))
	for _, id := range []string{"gpu0", "gpu1"} {
		if err := v.DeviceDel(ctx, id); err != nil {
			t.Fatal(err)
		}
	}
	if err := v.ReturnAtReset("gpu0"); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := v.Reboot(ctx); err != nil {
		t.Fatal(err)
	}
	after := must[string](t)(v.AwaitBoot(ctx, before))
	t.Logf("reset to up in %v", time.Since(began).Round(10*time.Millisecond))
	if n := v.Boots(); n != 2 {
		t.Errorf("%d boots, want 2", n)
	}
	if read := must[string](t)(v.BootID(ctx)); read != after || after == before || len(after) != len("0fc70fad-6980-4f05-acf8-5f6c56122bb4") {
		t.Errorf("boot ID %q before, %q after, %q read", before, after, read)
	}
	if got := must[[]byte](t)(v.ReadFile(ctx, state)); string(got) != "synced before the reboot" {
		t.Errorf("the disk's file = %q", got)
	}
	if _, err := v.ReadFile(ctx, "/run/memory"); err == nil {
		t.Error("a file in memory survived: this was no reboot")
	}
	if !onBus(t, ctx, v, address) {
		t.Errorf("%s did not come back with the reset", address)
	}
	if onBus(t, ctx, v, stays) {
		t.Errorf("%s came back, which was to stay away", stays)
	}
}

func missingIsError(t *testing.T, ctx context.Context, v *VM) {
	if _, err := v.ReadFile(ctx, "/no/such/file"); err == nil || !strings.Contains(err.Error(), fs.ErrNotExist.Error()) &&
		!strings.Contains(err.Error(), "no such file") {
		t.Errorf("reading a file that does not exist: error = %v", err)
	}
	if err := v.DeviceDel(ctx, "gpu9"); err == nil {
		t.Error("taking away a device that never was: no error")
	}
	if err := v.SignalAgent(ctx, syscall.SIGKILL); err == nil {
		t.Error("killing an agent that was never started: no error")
	}
}

func TestAgentIsKeptRunning(t *testing.T) {
	ctx, v := start(t, Options{Agent: Agent{
		Binary: buildStub(t),
		Args:   []string{"--flag=value"},
		Env:    []string{"NODE_NAME=gpu-vm"},
	}})
	first := awaitAgent(t, ctx, v, 1)
	if got, want := must[string](t)(v.AgentLog(ctx)), "stub: args [--flag=value] node gpu-vm\n"; got != want {
		t.Errorf("log = %q, want %q", got, want)
	}
	if err := v.SignalAgent(ctx, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	second := awaitAgent(t, ctx, v, 2)
	if second.LastExit != "killed by signal SIGKILL" || second.PID == first.PID {
		t.Errorf("after a kill: %+v", second)
	}
	before := must[string](t)(v.BootID(ctx))
	if err := v.SignalAgent(ctx, syscall.SIGUSR1); err != nil { // the stub then calls reboot(2), as the agent would
		t.Fatal(err)
	}
	if after := must[string](t)(v.AwaitBoot(ctx, before)); after == before {
		t.Errorf("boot ID %s is what it was", after)
	}
	if third := awaitAgent(t, ctx, v, 1); third.LastExit != "" {
		t.Errorf("after a reboot: %+v", third)
	}
	stopLeavesNothing(t, ctx, v)
}

func stopLeavesNothing(t *testing.T, ctx context.Context, v *VM) {
	t.Helper()
	pid, dir := v.qemu.cmd.Process.Pid, v.dir
	if err := v.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, 0); err == nil {
		t.Error("QEMU is still there")
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("the machine's directory is still there")
	}
	if _, err := v.BootID(ctx); err == nil {
		t.Error("a machine that is stopped still answers")
	}
}

// awaitAgent waits until the agent has been started n times in this boot and has said something.
func awaitAgent(t *testing.T, ctx context.Context, v *VM, n int) AgentStatus {
	t.Helper()
	var s AgentStatus
	eventually(t, fmt.Sprintf("start %d of the agent", n), func() bool {
		s = must[AgentStatus](t)(v.AgentStatus(ctx))
		return s.Starts == n && s.PID != 0 && strings.Count(must[string](t)(v.AgentLog(ctx)), "\n") == n
	})
	return s
}

// buildStub compiles a stand-in for the agent.
func buildStub(t *testing.T) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "stub")
	if err := BuildStatic(t.Context(), out, "./testdata/stub"); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestSecondMachineFindsTheFirstOnesDisk(t *testing.T) {
	dir := t.TempDir()
	ctx, v := start(t, Options{Dir: dir})
	if err := v.WriteFile(ctx, path.Join(StateDir, "cursor"), []byte("42")); err != nil {
		t.Fatal(err)
	}
	if err := v.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	ctx, v = start(t, Options{Dir: dir})
	if got := must[[]byte](t)(v.ReadFile(ctx, path.Join(wire.StateDir, "cursor"))); string(got) != "42" {
		t.Errorf("content = %q, want 42", got)
	}
}
