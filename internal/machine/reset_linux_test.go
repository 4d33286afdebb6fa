package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const (
	gpuAt   = "0000:18:00.0"
	portAt  = "0000:17:01.0"
	otherAt = "0000:28:00.0"
)

// machineTree is a host's root with one device behind a port. Its file is /dev/null, 1:3, which every test may open.
type machineTree struct {
	*testing.T
	root string
	host *Host
}

func newMachineTree(t *testing.T, driver string) *machineTree {
	m := &machineTree{T: t, root: t.TempDir()}
	m.host = NewHost(Options{Root: m.root, StateDir: t.TempDir()})
	m.file("sys/bus/pci/rescan", "")
	m.link("sys/bus/pci/devices/"+portAt, "../../../devices/pci0000:17/"+portAt)
	m.link("sys/bus/pci/devices/"+gpuAt, "../../../devices/pci0000:17/"+portAt+"/"+gpuAt)
	m.file(m.dev("uevent"), "")
	for _, name := range []string{"unbind", "bind"} {
		m.file("sys/bus/pci/drivers/"+driver+"/"+name, "")
	}
	if driver != "" {
		m.link(m.dev("driver"), m.root+"/sys/bus/pci/drivers/"+driver)
	}
	m.link("proc/1/ns/pid", initPIDNamespace)
	m.file("proc/1/mountinfo", "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n")
	return m
}

// dev is a file of the device's directory.
func (m *machineTree) dev(name string) string {
	return filepath.Join("sys/devices/pci0000:17", portAt, gpuAt, name)
}

func (m *machineTree) file(path, content string) {
	m.Helper()
	path = filepath.Join(m.root, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		m.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		m.Fatal(err)
	}
}

func (m *machineTree) link(path, target string) {
	m.Helper()
	path = filepath.Join(m.root, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		m.Fatal(err)
	}
	if err := os.Symlink(target, path); err != nil {
		m.Fatal(err)
	}
}

// process adds one with open files.
func (m *machineTree) process(pid int, name string, open ...string) {
	m.Helper()
	dir := fmt.Sprintf("proc/%d/", pid)
	m.file(dir+"comm", name+"\n")
	m.file(dir+"stat", fmt.Sprintf("%d (%s) S %d 1 1", pid, name, os.Getpid()))
	m.file(dir+"maps", "")
	m.file(dir+"task/"+fmt.Sprint(pid)+"/comm", name+"\n")
	for i, path := range open {
		m.link(fmt.Sprintf("%sfd/%d", dir, i), path)
	}
	if open == nil {
		m.file(dir+"fd/.none", "")
		if err := os.Remove(filepath.Join(m.root, dir, "fd/.none")); err != nil {
			m.Fatal(err)
		}
	}
}

func (m *machineTree) holders() []string {
	m.Helper()
	holders, err := m.host.Holders(m.Context(), []string{gpuAt})
	if err != nil {
		return []string{"error: " + err.Error()}
	}
	var out []string
	for _, h := range holders {
		out = append(out, string(h.Kind)+": "+h.String())
	}
	return out
}

func TestHolders(t *testing.T) {
	drm := func(m *machineTree) {
		m.file(m.dev("drm/renderD128/dev"), "1:3\n")
		m.file(m.dev("drm/renderD128/uevent"), "DEVNAME=dri/renderD128\n")
	}
	tests := map[string]struct {
		driver string
		setUp  func(*machineTree)
		want   []string
	}{
		"nobody": {setUp: func(m *machineTree) { drm(m); m.process(7, "sh", "/dev/zero", "/etc/hosts") }},
		"an open file, by its number whatever its name": {
			setUp: func(m *machineTree) {
				drm(m)
				m.process(7, "sh", "/dev/zero")
				m.process(4711, "train.py", "/dev/zero", "/proc/self/root/dev/null")
			},
			want: []string{"process: train.py (pid 4711, /dev/dri/renderD128)"},
		},
		"several, each once": {
			setUp: func(m *machineTree) {
				drm(m)
				m.process(7, "a", "/dev/null", "/dev/null")
				m.process(8, "b", "/dev/null")
			},
			want: []string{"process: a (pid 7, /dev/dri/renderD128)", "process: b (pid 8, /dev/dri/renderD128)"},
		},
		"a thread that outlives its process": {
			setUp: func(m *machineTree) {
				drm(m)
				m.process(7, "train.py")
				m.link("proc/7/task/9/fd/3", "/dev/null")
			},
			want: []string{"process: train.py (pid 7, /dev/dri/renderD128)"},
		},
		"a mapping whose file is closed": {
			setUp: func(m *machineTree) {
				drm(m)
				m.process(7, "train.py", "/dev/zero")
				m.file("proc/7/maps", "7f00-7f01 r-xp 00000000 fe:01 131 /usr/lib/libc.so.6\n7f10-7f11 rw-s 00000000 00:31 12 /elsewhere\n")
				m.link("proc/7/map_files/7f10-7f11", "/dev/null")
			},
			want: []string{"process: train.py (pid 7, /dev/dri/renderD128, mapped)"},
		},
		"a mapping that only its name tells": {
			setUp: func(m *machineTree) {
				drm(m)
				m.process(7, "train.py", "/dev/zero")
				m.file("proc/7/maps", "7f10-7f11 rw-s 00000000 00:31 12 /dev/dri/renderD128 (deleted)\n")
			},
			want: []string{"process: train.py (pid 7, /dev/dri/renderD128, mapped)"},
		},
		"our own helper, the persistence daemon, and another's helper": {
			setUp: func(m *machineTree) {
				drm(m)
				m.process(7, helperName, "/dev/null")
				m.process(8, persistenceName, "/dev/null")
				m.process(9, helperName, "/dev/null")
				m.file("proc/9/stat", "9 (roundhouse-nvml) S 1 1 1")
			},
			want: []string{
				"helper: this agent's own roundhouse-nvml (pid 7, /dev/dri/renderD128)",
				"persistence daemon: nvidia-persistenced (pid 8, /dev/dri/renderD128)",
				"process: roundhouse-nvml (pid 9, /dev/dri/renderD128)",
			},
		},
		"a vfio group": {
			driver: "vfio-pci",
			setUp: func(m *machineTree) {
				m.link(m.dev("iommu_group"), "/sys/kernel/iommu_groups/42")
				m.file("sys/class/vfio/42/dev", "1:3\n")
				m.process(7, "qemu-system-x86", "/dev/null")
			},
			want: []string{"process: qemu-system-x86 (pid 7, /dev/vfio/42)"},
		},
		"a file system, on a partition": {
			driver: "nvme",
			setUp: func(m *machineTree) {
				m.file(m.dev("nvme/nvme0/nvme0n1/nvme0n1p1/dev"), "259:1\n")
				m.link(m.dev("nvme/nvme0/nvme0n1/nvme0n1p1/subsystem"), "/sys/class/block")
				m.file("proc/1/mountinfo", "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n36 1 259:1 / /mnt rw - ext4 /dev/nvme0n1p1 rw\n")
			},
			want: []string{"kernel: mounted on /mnt (/dev/nvme0n1p1)"},
		},
		"a volume that is made of it": {
			driver: "nvme",
			setUp: func(m *machineTree) {
				m.link(m.dev("nvme/nvme0/nvme0n1/holders/dm-0"), "/sys/block/dm-0")
				m.file(m.dev("nvme/nvme0/nvme0n1/holders/x"), "")
			},
			want: []string{"kernel: volume dm-0 (nvme0n1)", "kernel: volume x (nvme0n1)"},
		},
		"virtual functions": {
			setUp: func(m *machineTree) { m.file(m.dev("sriov_numvfs"), "2\n") },
			want:  []string{"kernel: virtual functions (2)"},
		},
		"none of the virtual functions that there could be": {setUp: func(m *machineTree) { m.file(m.dev("sriov_numvfs"), "0\n") }},
		"a bridge's other devices are not its own": {
			setUp: func(m *machineTree) {
				m.file(m.dev("0000:19:00.0/drm/card0/dev"), "1:3\n")
				m.process(7, "train.py", "/dev/null")
			},
		},
		"what NVIDIA's driver does not tell": {
			driver: "nvidia", setUp: func(*machineTree) {}, want: []string{"error: "},
		},
		"a view of one container's processes only": {
			setUp: func(m *machineTree) {
				drm(m)
				if err := os.Remove(filepath.Join(m.root, "proc/1/ns/pid")); err != nil {
					m.Fatal(err)
				}
				m.link("proc/1/ns/pid", "pid:[4026532000]")
			},
			want: []string{"error: "},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if tt.driver == "" {
				tt.driver = "amdgpu"
			}
			m := newMachineTree(t, tt.driver)
			tt.setUp(m)
			got := m.holders()
			for i, w := range tt.want {
				if w == "error: " && i < len(got) && strings.HasPrefix(got[i], w) {
					got[i] = w
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestWhatAllGPUsShareHoldsNone(t *testing.T) {
	m := newMachineTree(t, "nvidia")
	m.file("proc/driver/nvidia/gpus/"+gpuAt+"/information", "Device Minor: \t 3\n")
	s := &holderSearch{h: m.host, ctx: t.Context(), nodes: map[deviceNumber]deviceNode{}}
	if err := s.addNodes(gpuAt); err != nil {
		t.Fatal(err)
	}
	want := map[deviceNumber]deviceNode{{major: 195, minor: 3}: {gpuAt, "/dev/nvidia3"}}
	if diff := cmp.Diff(want, s.nodes, cmp.AllowUnexported(deviceNumber{}, deviceNode{})); diff != "" {
		t.Errorf("files of the device (-want +got):\n%s", diff)
	}
}

func TestHoldersOfTheRealProc(t *testing.T) {
	f, err := os.Open("/dev/full")
	if err != nil {
		t.Skip(err)
	}
	defer f.Close()
	s := &holderSearch{h: NewHost(Options{StateDir: t.TempDir()}), ctx: t.Context(), nodes: map[deviceNumber]deviceNode{
		{major: 1, minor: 7}: {gpuAt, "/dev/full"},
	}}
	if err := s.openFiles(); err != nil && !errors.Is(err, os.ErrPermission) {
		t.Fatal(err)
	}
	for _, h := range s.found {
		if h.PID == os.Getpid() {
			return
		}
	}
	t.Errorf("this process was not found among %v", s.found)
}

// kernel stands for what a write to sysfs does.
func (m *machineTree) kernel(does func(path, word string) error) *[]string {
	var writes []string
	m.host.poke = func(path, word string) error {
		rel, err := filepath.Rel(filepath.Join(m.root, "sys/bus/pci"), path)
		if err != nil {
			return err
		}
		writes = append(writes, rel+" "+word)
		return does(rel, word)
	}
	return &writes
}

func TestResetByFunction(t *testing.T) {
	broken := errors.New("inappropriate ioctl")
	tests := map[string]struct {
		driver string
		fails  string // the file whose write fails
		want   string // of what is said, or of the error
		writes []string
	}{
		"the driver is off while the function is reset": {
			driver: "amdgpu", want: "function reset (flr, bus), driver amdgpu bound anew",
			writes: []string{"devices/" + gpuAt + "/driver/unbind " + gpuAt, "devices/" + gpuAt + "/reset 1", "drivers/amdgpu/bind " + gpuAt},
		},
		"no driver": {want: "function reset (flr, bus)", writes: []string{"devices/" + gpuAt + "/reset 1"}},
		"a driver that does not let go": {
			driver: "amdgpu", fails: "unbind", want: "taking driver amdgpu off: inappropriate ioctl",
			writes: []string{"devices/" + gpuAt + "/driver/unbind " + gpuAt},
		},
		"a reset that fails, and the driver gets it back": {
			driver: "amdgpu", fails: "reset", want: "resetting the function: inappropriate ioctl",
			writes: []string{"devices/" + gpuAt + "/driver/unbind " + gpuAt, "devices/" + gpuAt + "/reset 1", "drivers/amdgpu/bind " + gpuAt},
		},
		"a driver that does not take it back": {
			driver: "amdgpu", fails: "bind", want: "giving it back to driver amdgpu: inappropriate ioctl",
			writes: []string{"devices/" + gpuAt + "/driver/unbind " + gpuAt, "devices/" + gpuAt + "/reset 1", "drivers/amdgpu/bind " + gpuAt},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			m := newMachineTree(t, tt.driver)
			m.file(m.dev("reset"), "")
			m.file(m.dev("reset_method"), "flr bus\n")
			writes := m.kernel(func(path, _ string) error {
				if filepath.Base(path) == tt.fails {
					return broken
				}
				return nil
			})
			said, err := m.host.ResetDevices(t.Context(), []string{gpuAt}, ResetByFunction)
			if err != nil {
				said = err.Error()
			}
			if said != tt.want || (err != nil) != (tt.fails != "") {
				t.Errorf("said %q (%v), want %q", said, err, tt.want)
			}
			if diff := cmp.Diff(tt.writes, *writes); diff != "" {
				t.Errorf("writes (-want +got):\n%s", diff)
			}
		})
	}
}

func TestResetByRescan(t *testing.T) {
	link := "sys/bus/pci/devices/" + gpuAt
	m := newMachineTree(t, "amdgpu")
	m.file(m.dev("remove"), "")
	m.file("sys/devices/pci0000:17/"+portAt+"/rescan", "")
	ctx, cancel := context.WithCancel(t.Context())
	writes := m.kernel(func(path, _ string) error {
		switch filepath.Base(path) {
		case "remove":
			cancel() // whoever asked for it goes away in the middle
			return os.Remove(filepath.Join(m.root, link))
		case "rescan":
			go func() {
				time.Sleep(2 * busPoll)
				m.link(link, "../../../devices/pci0000:17/"+portAt+"/"+gpuAt)
			}()
		}
		return nil
	})
	said, err := m.host.ResetDevices(ctx, []string{gpuAt}, ResetByRescan)
	if err != nil || said != "removed and found anew" {
		t.Errorf("said %q, %v", said, err)
	}
	want := []string{"devices/" + gpuAt + "/remove 1", "devices/" + portAt + "/rescan 1"}
	if diff := cmp.Diff(want, *writes); diff != "" {
		t.Errorf("writes (-want +got):\n%s", diff)
	}
}

func TestWaysThatThereAreNot(t *testing.T) {
	m := newMachineTree(t, "nvidia")
	for _, way := range []ResetWay{ResetByNVIDIA, ResetByFunction, ResetByRescan, "prayer"} {
		if err := m.host.CanReset(t.Context(), gpuAt, way); !errors.Is(err, ErrNoSuchWay) {
			t.Errorf("%s: %v", way, err)
		}
		if _, err := m.host.ResetDevices(t.Context(), []string{gpuAt}, way); !errors.Is(err, ErrNoSuchWay) {
			t.Errorf("%s: %v", way, err)
		}
	}
	for _, attribute := range []string{"reset", "remove"} {
		m.file(m.dev(attribute), "")
	}
	for _, way := range []ResetWay{ResetByFunction, ResetByRescan} {
		if err := m.host.CanReset(t.Context(), gpuAt, way); err != nil {
			t.Errorf("%s: %v", way, err)
		}
	}
	m.file(m.dev("xgmi_hive_info/device"), "")
	for _, way := range []ResetWay{ResetByFunction, ResetByRescan} {
		if err := m.host.CanReset(t.Context(), gpuAt, way); !errors.Is(err, ErrNoSuchWay) {
			t.Errorf("%s in a hive: %v", way, err)
		}
	}
	for name, addresses := range map[string][]string{"none": nil, "two by a rescan": {gpuAt, gpuAt}} {
		if _, err := m.host.ResetDevices(t.Context(), addresses, ResetByRescan); !errors.Is(err, ErrNoSuchWay) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, address := range []string{"", "../../../x", "18:00.0", "0000:18:00.0/.."} {
		if _, err := m.host.ResetDevices(t.Context(), []string{address}, ResetByRescan); err == nil {
			t.Errorf("reset %q", address)
		}
	}
}

func TestResetThatHangsIsLeftBehind(t *testing.T) {
	m := newMachineTree(t, "")
	m.file(m.dev("reset"), "")
	release := make(chan struct{})
	defer close(release)
	m.kernel(func(string, string) error { <-release; return nil })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := m.host.ResetDevices(ctx, []string{gpuAt}, ResetByFunction); !errors.Is(err, ErrStuck) {
		t.Errorf("got %v", err)
	}
}

// TestResetBySMI runs a script in place of nvidia-smi.
func TestResetBySMI(t *testing.T) {
	tests := map[string]struct {
		persistence string
		resets      string // what the reset says and how it ends
		want        string
		runs        []string
		fails       bool
		on          string // what switching persistence mode on again does
		also        bool   // a second GPU is to be reset with the first
	}{
		"as it is": {
			persistence: "echo Disabled", resets: "echo GPU was successfully reset.", want: "GPU was successfully reset.",
			runs: []string{"--query-gpu=persistence_mode --format=csv,noheader -i " + gpuAt, "--gpu-reset -i " + gpuAt},
		},
		"persistence mode is switched off and on": {
			persistence: "echo Enabled", resets: "echo GPU was successfully reset.", want: "GPU was successfully reset.",
			runs: []string{
				"--query-gpu=persistence_mode --format=csv,noheader -i " + gpuAt, "-pm 0 -i " + gpuAt, "--gpu-reset -i " + gpuAt, "-pm 1 -i " + gpuAt,
			},
		},
		"and on when the reset fails": {
			persistence: "echo Enabled", resets: "echo In use by another client; exit 255", fails: true,
			want: "nvidia-smi --gpu-reset: exit status 255: In use by another client",
			runs: []string{
				"--query-gpu=persistence_mode --format=csv,noheader -i " + gpuAt, "-pm 0 -i " + gpuAt, "--gpu-reset -i " + gpuAt, "-pm 1 -i " + gpuAt,
			},
		},
		"both that the reset fails and that persistence mode stays off are told": {
			persistence: "echo Enabled", resets: "echo In use by another client; exit 255", on: "echo no; exit 3", fails: true,
			want: "nvidia-smi --gpu-reset: exit status 255: In use by another client; " +
				"switching persistence mode on again: nvidia-smi -pm: exit status 3: no",
			runs: []string{
				"--query-gpu=persistence_mode --format=csv,noheader -i " + gpuAt, "-pm 0 -i " + gpuAt, "--gpu-reset -i " + gpuAt, "-pm 1 -i " + gpuAt,
			},
		},
		"two that NVLink joins, by one command": {
			also: true, persistence: `[ "$4" = ` + gpuAt + ` ] && echo Enabled || echo Disabled`, resets: "echo All done.", want: "All done.",
			runs: []string{
				"--query-gpu=persistence_mode --format=csv,noheader -i " + gpuAt, "-pm 0 -i " + gpuAt,
				"--query-gpu=persistence_mode --format=csv,noheader -i " + otherAt, "--gpu-reset -i " + gpuAt + "," + otherAt, "-pm 1 -i " + gpuAt,
			},
		},
		"a GPU that tells nothing is reset all the same": {
			persistence: "exit 15", resets: "echo GPU was successfully reset.", want: "GPU was successfully reset.",
			runs: []string{"--query-gpu=persistence_mode --format=csv,noheader -i " + gpuAt, "--gpu-reset -i " + gpuAt},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			m := newMachineTree(t, "nvidia")
			log := filepath.Join(t.TempDir(), "runs")
			script := fmt.Sprintf("#!/bin/sh\necho \"$@\" >>%s\ncase \"$1\" in\n--query*) %s ;;\n--gpu-reset) %s ;;\n-pm) if [ \"$2\" = 1 ]; then :; %s\n fi ;;\nesac\n",
				log, tt.persistence, tt.resets, tt.on)
			path := filepath.Join(t.TempDir(), "nvidia-smi")
			if err := os.WriteFile(path, []byte(script), 0o755); err != nil {
				t.Fatal(err)
			}
			addresses := []string{gpuAt}
			if tt.also {
				addresses = append(addresses, otherAt)
			}
			said, err := m.host.resetBySMI(t.Context(), Program{Path: path, Timeout: 10 * time.Second, MaxOutput: smiOutput}, addresses)
			if err != nil {
				said = err.Error()
			}
			if said != tt.want || (err != nil) != tt.fails {
				t.Errorf("said %q (%v), want %q", said, err, tt.want)
			}
			raw, err := os.ReadFile(log)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.runs, strings.Split(strings.TrimSpace(string(raw)), "\n")); diff != "" {
				t.Errorf("runs (-want +got):\n%s", diff)
			}
		})
	}
}

func TestFindSMI(t *testing.T) {
	m := newMachineTree(t, "nvidia")
	m.file("usr/bin/nvidia-smi", "")
	if p, err := m.host.findSMI(t.Context()); err != nil || p.Root != m.root || p.Path != "/usr/bin/nvidia-smi" {
		t.Errorf("got %+v, %v", p, err)
	}
	// What is left of another driver on the host is not the one that runs.
	m.file("run/nvidia/driver/dev/nvidiactl", "")
	if p, err := m.host.findSMI(t.Context()); !errors.Is(err, ErrNoSuchWay) {
		t.Errorf("got %+v, %v", p, err)
	}
	m.file("run/nvidia/driver/usr/bin/nvidia-smi", "")
	if p, err := m.host.findSMI(t.Context()); err != nil || p.Root != filepath.Join(m.root, "run/nvidia/driver") {
		t.Errorf("got %+v, %v", p, err)
	}
}

func TestQuiesceKeepsTheHelperAway(t *testing.T) {
	h := NewHost(Options{Root: t.TempDir(), StateDir: t.TempDir(), NVMLHelper: "/bin/false"})
	resume, err := h.Quiesce(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := h.Quiesce(ctx); !errors.Is(err, ErrStuck) {
		t.Errorf("a second one got in: %v", err)
	}
	if _, err := h.NVML(ctx); !errors.Is(err, ErrStuck) {
		t.Errorf("NVML was asked: %v", err)
	}
	resume()
	resume() // twice is once
	again, err := h.Quiesce(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	again()
}
