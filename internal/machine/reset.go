package machine

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// ResetWay is a way to reset a device.
type ResetWay string

// The ways.
const (
	// ResetByNVIDIA asks NVIDIA's driver, through the nvidia-smi that belongs to it.
	ResetByNVIDIA ResetWay = "nvidia-smi"
	// ResetByFunction takes the driver off the device, has the kernel reset the function, and gives it back to the driver.
	ResetByFunction ResetWay = "function reset"
	// ResetByRescan takes the device off the bus and has the bus looked at again.
	ResetByRescan ResetWay = "remove and rescan"
)

// ErrNoSuchWay means that the device cannot be reset in that way; nothing was done to it.
var ErrNoSuchWay = errors.New("the device cannot be reset in that way")

// MaxHolders bounds the list of who holds devices.
const MaxHolders = 64

// persistenceName is the command name of nvidia-persistenced, which the kernel cuts to 15 bytes (TASK_COMM_LEN), and
// helperName that of the program that asks NVML.
const (
	persistenceName = "nvidia-persiste"
	helperName      = "roundhouse-nvml"
)

// HolderKind tells holders apart.
type HolderKind string

// The kinds of holders.
const (
	// HolderProcess is any process.
	HolderProcess HolderKind = "process"
	// HolderHelper is this agent's own process that asks NVML, where it did not end.
	HolderHelper HolderKind = "helper"
	// HolderPersistence is NVIDIA's persistence daemon, which nvidia-smi makes let go by itself.
	HolderPersistence HolderKind = "persistence daemon"
	// HolderKernel is something in the kernel: a file system that is mounted, a volume that is made of it.
	HolderKernel HolderKind = "kernel"
)

// Holder is somebody who has a device open.
type Holder struct {
	// Address is the device's.
	Address string
	Kind    HolderKind
	// PID is the process's in the host's own numbering; 0 for the kernel.
	PID int
	// Name is the process's command name, or what the kernel uses the device as.
	Name string
	// Path is the device file that is held, such as /dev/nvidia0.
	Path string
	// Mapped says that the file itself is closed and only mapped into memory.
	Mapped bool
}

// String is the holder as a person would say it.
func (h Holder) String() string {
	s := h.Name
	switch h.Kind {
	case HolderKernel:
		return s + " (" + h.Path + ")"
	case HolderHelper:
		s = "this agent's own " + s
	case HolderProcess, HolderPersistence:
	}
	s += " (pid " + strconv.Itoa(h.PID) + ", " + h.Path
	if h.Mapped {
		s += ", mapped"
	}
	return s + ")"
}

// deviceNumber is a character or block device as stat(2) tells it.
type deviceNumber struct {
	block        bool
	major, minor uint32
}

// ParseDeviceNumber reads "major:minor", as a file named dev in sysfs and a line of mountinfo have it.
func ParseDeviceNumber(s string) (major, minor uint32, err error) {
	a, b, ok := strings.Cut(strings.TrimSpace(s), ":")
	if !ok {
		return 0, 0, fmt.Errorf("parsing device number %q: want major:minor", clip(s))
	}
	// 12 and 20 bits: include/linux/kdev_t.h.
	ma, err := strconv.ParseUint(a, 10, 12)
	if err != nil {
		return 0, 0, fmt.Errorf("parsing device number %q: %w", clip(s), err)
	}
	mi, err := strconv.ParseUint(b, 10, 20)
	if err != nil {
		return 0, 0, fmt.Errorf("parsing device number %q: %w", clip(s), err)
	}
	return uint32(ma), uint32(mi), nil
}

// ParseDeviceName reads DEVNAME of a uevent file, the name below /dev; empty where there is none, or none that is a name.
func ParseDeviceName(uevent []byte) string {
	for line := range bytes.Lines(uevent) {
		name, ok := strings.CutPrefix(strings.TrimSpace(string(line)), "DEVNAME=")
		if ok && printable(name) && len(name) <= 64 {
			return name
		}
	}
	return ""
}

// ParseNVIDIAMinor reads the number of a GPU's file /dev/nvidiaN from /proc/driver/nvidia/gpus/<address>/information.
func ParseNVIDIAMinor(data []byte) (uint32, error) {
	for line := range bytes.Lines(data) {
		value, ok := strings.CutPrefix(string(line), "Device Minor:")
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(strings.TrimSpace(value), 10, 20)
		if err != nil {
			return 0, fmt.Errorf("parsing NVIDIA GPU information: Device Minor: %w", err)
		}
		return uint32(n), nil
	}
	return 0, errors.New("parsing NVIDIA GPU information: no Device Minor")
}

// ParseParent reads the parent's process ID from /proc/<pid>/stat. The name before it may hold anything, brackets and
// spaces too, so it is looked for behind the name's last bracket (proc_pid_stat(5)).
func ParseParent(stat []byte) (int, error) {
	end := bytes.LastIndexByte(stat, ')')
	if end < 0 {
		return 0, fmt.Errorf("parsing a process's stat %q: no name", clip(string(stat)))
	}
	fields := strings.Fields(string(stat[end+1:]))
	if len(fields) < 2 {
		return 0, fmt.Errorf("parsing a process's stat %q: want state and parent behind the name", clip(string(stat)))
	}
	parent, err := strconv.Atoi(fields[1])
	if err != nil || parent < 0 {
		return 0, fmt.Errorf("parsing a process's stat: parent %q is no process ID", clip(fields[1]))
	}
	return parent, nil
}

// Mapping is a file mapped into a process, as far as it may be a device's.
type Mapping struct {
	// Range names it below /proc/<pid>/map_files.
	Range string
	// Path is the file's; it may be gone, or be another in the process's own root.
	Path string
}

// ParseMapping reads one line of /proc/<pid>/maps. It is false for what cannot be a device: memory without a file, and
// private mappings of files outside /dev, which are libraries.
func ParseMapping(line string) (Mapping, bool) {
	// address perms offset dev inode pathname (proc_pid_maps(5)); the path may hold spaces.
	var fields [5]string
	rest := strings.TrimRight(line, "\n")
	for i := range fields {
		rest = strings.TrimLeft(rest, " ")
		var ok bool
		if fields[i], rest, ok = strings.Cut(rest, " "); !ok {
			return Mapping{}, false
		}
	}
	path := strings.TrimLeft(rest, " ")
	from, to, ok := strings.Cut(fields[0], "-")
	if !ok || !strings.HasPrefix(path, "/") || len(fields[1]) != 4 || fields[4] == "0" {
		return Mapping{}, false
	}
	for _, s := range []string{from, to} {
		if _, err := parseHex(s, 64); err != nil {
			return Mapping{}, false
		}
	}
	if fields[1][3] != 's' && !strings.HasPrefix(path, "/dev/") {
		return Mapping{}, false
	}
	return Mapping{Range: fields[0], Path: path}, true
}

// ParseMount reads one line of /proc/<pid>/mountinfo: the device that is mounted, and where.
func ParseMount(line string) (major, minor uint32, where string, err error) {
	// ID, parent, major:minor, root, mount point (proc_pid_mountinfo(5)).
	fields := strings.Fields(line)
	if len(fields) < 5 {
		return 0, 0, "", fmt.Errorf("parsing mountinfo %q: want five fields", clip(line))
	}
	major, minor, err = ParseDeviceNumber(fields[2])
	return major, minor, bound(fields[4], 64), err
}

// ParseResetMethods reads reset_method of sysfs: the kernel's ways to reset a function, the first one it would take first.
func ParseResetMethods(data []byte) []string {
	var methods []string
	for _, m := range strings.Fields(string(data)) {
		if printable(m) && len(m) <= 32 && len(methods) < 16 {
			methods = append(methods, m)
		}
	}
	return methods
}

// IsPersistent reads nvidia-smi's answer to --query-gpu=persistence_mode.
func IsPersistent(answer []byte) bool { return strings.TrimSpace(string(answer)) == "Enabled" }

// commandOutput is what a program said, in one line.
func commandOutput(out []byte) string {
	return strings.Join(strings.Fields(strings.ToValidUTF8(string(out), "?")), " ")
}

// commandName makes a process's name fit to be shown: it is whatever the process says.
func commandName(comm []byte) string {
	name := strings.TrimSpace(string(comm))
	name = strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f {
			return '?'
		}
		return r
	}, name)
	if name == "" {
		return "?"
	}
	return bound(name, 32)
}

func printable(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f })
}
