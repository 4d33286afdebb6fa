package machine

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Options say where the host's files are.
type Options struct {
	// Root is where the host's root file system is seen: "/" on the host, usually "/host" in a container. /sys and /proc
	// are read below it.
	Root string
	// LogPath is the kernel log; /dev/kmsg when empty. A container gets it as a device, not below Root.
	LogPath string
	// StateDir is where Load and Save keep their files: a directory of the host, seen from here.
	StateDir string
	// RebootGrace is how long a reboot asked of systemd may take before the kernel is asked; five minutes when zero.
	RebootGrace time.Duration
	// NVMLHelper is the program that asks NVML; roundhouse-nvml beside the running program when empty.
	NVMLHelper string
}

// Host is the Linux machine that the process runs on.
type Host struct {
	*DirStore
	root        string
	logPath     string
	rebootGrace time.Duration
	pci         *door
	nvidia      *door
	nvml        *nvmlHelper
	aer         *door
	infiniband  *door
	amdgpu      *door
	holders     *door
	resets      *door
	// poke writes to a file of sysfs; a test's may stand for the kernel.
	poke   func(path, word string) error
	system system
}

var _ Machine = (*Host)(nil)

// NewHost returns the machine that the process runs on. It reads nothing yet.
func NewHost(o Options) *Host {
	h := &Host{
		DirStore:    NewDirStore(o.StateDir),
		root:        o.Root,
		logPath:     o.LogPath,
		rebootGrace: o.RebootGrace,
		pci:         newDoor("PCI bus"),
		nvidia:      newDoor("NVIDIA driver"),
		aer:         newDoor("PCI error counters"),
		infiniband:  newDoor("InfiniBand ports"),
		amdgpu:      newDoor("amdgpu driver"),
		holders:     newDoor("holders of devices"),
		resets:      newDoor("reset of a device"),
		poke:        pokeFile,
		system:      realSystem{},
	}
	if h.root == "" {
		h.root = "/"
	}
	if h.logPath == "" {
		h.logPath = "/dev/kmsg"
	}
	if h.rebootGrace == 0 {
		h.rebootGrace = 5 * time.Minute
	}
	h.nvml = newNVMLHelper(o.NVMLHelper, h.root)
	return h
}

// BootID is the kernel's boot ID.
func (h *Host) BootID(context.Context) (string, error) {
	data, err := os.ReadFile(h.path("proc/sys/kernel/random/boot_id"))
	if err != nil {
		return "", fmt.Errorf("reading boot ID: %w", err)
	}
	id := strings.TrimSpace(string(data))
	if id == "" || len(id) > 64 {
		return "", fmt.Errorf("reading boot ID: %q is none", clip(id))
	}
	return id, nil
}

// BootTime is when the kernel started: btime of /proc/stat, seconds since the epoch.
func (h *Host) BootTime(context.Context) (time.Time, error) {
	data, err := os.ReadFile(h.path("proc/stat"))
	if err != nil {
		return time.Time{}, fmt.Errorf("reading boot time: %w", err)
	}
	return parseBootTime(string(data))
}

func parseBootTime(stat string) (time.Time, error) {
	for line := range strings.Lines(stat) {
		if value, ok := strings.CutPrefix(line, "btime "); ok {
			seconds, err := strconv.ParseInt(strings.TrimSpace(value), 10, 64)
			if err != nil {
				return time.Time{}, fmt.Errorf("reading boot time: %w", err)
			}
			return time.Unix(seconds, 0), nil
		}
	}
	return time.Time{}, fmt.Errorf("reading boot time: no btime: %w", fs.ErrNotExist)
}

// Hostname is the host's name: its /etc/hostname, since a container has a name of its own, else the kernel's.
func (h *Host) Hostname(context.Context) (string, error) {
	if data, err := os.ReadFile(h.path("etc/hostname")); err == nil {
		if name := strings.TrimSpace(string(data)); name != "" {
			return name, nil
		}
	}
	name, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("reading host name: %w", err)
	}
	return name, nil
}

func (h *Host) path(elem ...string) string {
	return filepath.Join(append([]string{h.root}, elem...)...)
}
