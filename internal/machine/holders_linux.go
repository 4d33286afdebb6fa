package machine

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// nvidiaMajor is the major number of /dev/nvidia0 and on: NV_MAJOR_DEVICE_NUMBER of NVIDIA's nv-linux.h. Of its minor
	// numbers 254 and 255 are nvidia-modeset and nvidiactl, which hold no single GPU.
	nvidiaMajor = 195
	// maxNodes bounds the files of one device, nodeDepth how deep below its directory in sysfs they are looked for: a
	// partition of an NVMe drive is four down.
	maxNodes, nodeDepth = 512, 5
	// maxOpenFiles and maxMappings bound what is looked at in all processes together.
	maxOpenFiles, maxMappings = 4 << 20, 4 << 20
	// maxLine bounds one line: that of an overlay's mount lists all its layers.
	maxLine = 1 << 20
)

// deviceNode is a file by which a device can be opened.
type deviceNode struct{ address, path string }

// Holders lists who has the devices open. Files are compared by device number and not by name, since a container may have
// the device under another. A process that is gone while it is looked at holds nothing; one that may not be looked at is
// an error.
func (h *Host) Holders(ctx context.Context, addresses []string) ([]Holder, error) {
	return through(ctx, h.holders, func() ([]Holder, error) {
		holders, err := h.findHolders(ctx, addresses)
		if err != nil {
			return nil, fmt.Errorf("looking for who holds %s: %w", strings.Join(addresses, ", "), err)
		}
		return holders, nil
	})
}

func (h *Host) findHolders(ctx context.Context, addresses []string) ([]Holder, error) {
	s := &holderSearch{h: h, ctx: ctx, nodes: map[deviceNumber]deviceNode{}}
	for _, address := range addresses {
		if err := s.addNodes(address); err != nil {
			return nil, fmt.Errorf("%s: %w", address, err)
		}
	}
	if len(s.nodes) == 0 {
		return s.found, nil
	}
	// In another PID namespace than the first, the processes of containers and of the host are not seen.
	ns, err := os.Readlink(h.path("proc/1/ns/pid"))
	if err != nil {
		return nil, fmt.Errorf("reading which processes can be seen: %w", err)
	}
	if ns != initPIDNamespace {
		return nil, fmt.Errorf("%s shows the processes of %s only: the agent needs the host's PID namespace", h.path("proc"), ns)
	}
	for _, look := range []func() error{s.mounts, s.openFiles, s.mappings} {
		if err := look(); err != nil {
			return nil, err
		}
		// Memory maps are read only where nothing else answers: they are many, and a process that hangs can hold them up.
		if len(s.found) > 0 {
			return s.found, nil
		}
	}
	return s.found, nil
}

// holderSearch is one search.
type holderSearch struct {
	h           *Host
	ctx         context.Context
	nodes       map[deviceNumber]deviceNode
	found       []Holder
	files, maps int
}

func (s *holderSearch) add(h Holder) {
	same := func(o Holder) bool { return o.PID == h.PID && o.Address == h.Address && o.Name == h.Name }
	if len(s.found) < MaxHolders && !slices.ContainsFunc(s.found, same) {
		s.found = append(s.found, h)
	}
}

// addNodes finds the files of one device: every dev below its directory in sysfs (dri, accel, nvme, infiniband and so
// on), its vfio group, and NVIDIA's, of which sysfs knows nothing.
func (s *holderSearch) addNodes(address string) error {
	dir := s.h.path("sys/bus/pci/devices", address)
	resolved, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return fmt.Errorf("finding its files: %w", err)
	}
	if err := s.walk(address, resolved, nodeDepth); err != nil {
		return fmt.Errorf("finding its files: %w", err)
	}
	if n, err := os.ReadFile(filepath.Join(dir, "sriov_numvfs")); err == nil && strings.TrimSpace(string(n)) != "0" {
		// They are reset with it, whoever has them.
		s.add(Holder{Address: address, Kind: HolderKernel, Name: "virtual functions", Path: bound(strings.TrimSpace(string(n)), 8)})
	}
	if group, err := os.Readlink(filepath.Join(dir, "iommu_group")); err == nil {
		name := filepath.Base(group)
		if err := s.addNode(address, s.h.path("sys/class/vfio", name), "vfio/"+name); err != nil {
			return fmt.Errorf("finding its vfio group: %w", err)
		}
	}
	if driver, err := os.Readlink(filepath.Join(dir, "driver")); err == nil && filepath.Base(driver) == "nvidia" {
		return s.addNVIDIA(address)
	}
	return nil
}

// addNVIDIA adds the file of a GPU that NVIDIA's driver has.
func (s *holderSearch) addNVIDIA(address string) error {
	data, err := os.ReadFile(s.h.path("proc/driver/nvidia/gpus", address, "information"))
	if err != nil {
		return fmt.Errorf("finding the number of its file /dev/nvidiaN: %w", err)
	}
	minor, err := ParseNVIDIAMinor(data)
	if err != nil {
		return err
	}
	s.nodes[deviceNumber{major: nvidiaMajor, minor: minor}] = deviceNode{address, "/dev/nvidia" + strconv.Itoa(int(minor))}
	return nil
}

// walk adds the files of a directory of sysfs and of those below it, but for other PCI devices, which are below bridges.
func (s *holderSearch) walk(address, dir string, depth int) error {
	if len(s.nodes) > maxNodes {
		return fmt.Errorf("more than %d", maxNodes)
	}
	if err := s.addNode(address, dir, ""); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if gone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if filepath.Base(dir) == "holders" {
			// A volume of the device mapper or of md.
			s.add(Holder{Address: address, Kind: HolderKernel, Name: "volume " + bound(e.Name(), 32), Path: filepath.Base(filepath.Dir(dir))})
			continue
		}
		if _, err := ParsePCIAddress(e.Name()); !e.IsDir() || err == nil || depth == 0 {
			continue
		}
		if err := s.walk(address, filepath.Join(dir, e.Name()), depth-1); err != nil {
			return err
		}
	}
	return nil
}

// addNode adds the file that a directory of sysfs stands for, if it stands for one.
func (s *holderSearch) addNode(address, dir, name string) error {
	data, err := os.ReadFile(filepath.Join(dir, "dev"))
	if gone(err) || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	n := deviceNumber{}
	if n.major, n.minor, err = ParseDeviceNumber(string(data)); err != nil {
		return err
	}
	if uevent, err := os.ReadFile(filepath.Join(dir, "uevent")); err == nil && name == "" {
		name = ParseDeviceName(uevent)
	}
	if name == "" {
		name = filepath.Base(dir)
	}
	if subsystem, err := os.Readlink(filepath.Join(dir, "subsystem")); err == nil {
		n.block = filepath.Base(subsystem) == "block"
	}
	s.nodes[n] = deviceNode{address, "/dev/" + name}
	return nil
}

// mounts looks for what the host has mounted.
func (s *holderSearch) mounts() error {
	return eachLine(s.h.path("proc/1/mountinfo"), func(line string) error {
		major, minor, where, err := ParseMount(line)
		if err != nil {
			return err
		}
		if node, ok := s.nodes[deviceNumber{block: true, major: major, minor: minor}]; ok {
			s.add(Holder{Address: node.address, Kind: HolderKernel, Name: "mounted on " + where, Path: node.path})
		}
		return nil
	})
}

// eachProcess calls look with the directory of each process. Where that shows nothing, as of a process whose first thread
// has ended while another hangs in a driver, it is called with those of its threads.
func (s *holderSearch) eachProcess(look func(pid int, dir string) (some bool, err error)) error {
	entries, err := os.ReadDir(s.h.path("proc"))
	if err != nil {
		return err
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid <= 0 {
			continue
		}
		if err := s.ctx.Err(); err != nil {
			return context.Cause(s.ctx)
		}
		dir := s.h.path("proc", e.Name())
		some, err := look(pid, dir)
		if err != nil {
			return fmt.Errorf("process %d: %w", pid, err)
		}
		if some {
			continue
		}
		threads, err := os.ReadDir(filepath.Join(dir, "task"))
		if err != nil {
			continue // gone
		}
		for _, t := range threads {
			if t.Name() == e.Name() {
				continue
			}
			if _, err := look(pid, filepath.Join(dir, "task", t.Name())); err != nil {
				return fmt.Errorf("process %d: %w", pid, err)
			}
		}
	}
	return nil
}

// openFiles looks through the open files of all processes.
func (s *holderSearch) openFiles() error {
	return s.eachProcess(func(pid int, dir string) (bool, error) {
		entries, err := os.ReadDir(filepath.Join(dir, "fd"))
		if left(err) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		for _, e := range entries {
			if s.files++; s.files > maxOpenFiles {
				return false, fmt.Errorf("more than %d open files", maxOpenFiles)
			}
			if node, ok := s.node(filepath.Join(dir, "fd", e.Name())); ok {
				s.add(s.process(pid, node, false))
				return true, nil
			}
		}
		return len(entries) > 0, nil
	})
}

// mappings looks through the memory maps of all processes.
func (s *holderSearch) mappings() error {
	return s.eachProcess(func(pid int, dir string) (some bool, err error) {
		err = eachLine(filepath.Join(dir, "maps"), func(line string) error {
			some = true
			if s.maps++; s.maps > maxMappings {
				return fmt.Errorf("more than %d mappings", maxMappings)
			}
			m, ok := ParseMapping(line)
			if !ok {
				return nil
			}
			node, ok := s.node(filepath.Join(dir, "map_files", m.Range))
			if !ok {
				node, ok = s.named(m.Path)
			}
			if ok {
				s.add(s.process(pid, node, true))
			}
			return nil
		})
		if left(err) {
			return some, nil
		}
		return some, err
	})
}

// node is the device's file that a link in /proc leads to. The link is followed in the kernel, which asks a file system in
// the network for nothing (AT_STATX_DONT_SYNC).
func (s *holderSearch) node(link string) (deviceNode, bool) {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, link, unix.AT_STATX_DONT_SYNC, unix.STATX_TYPE, &st); err != nil {
		return deviceNode{}, false
	}
	kind := st.Mode & unix.S_IFMT
	if kind != unix.S_IFCHR && kind != unix.S_IFBLK {
		return deviceNode{}, false
	}
	node, ok := s.nodes[deviceNumber{block: kind == unix.S_IFBLK, major: st.Rdev_major, minor: st.Rdev_minor}]
	return node, ok
}

// named is the device's file of that name; it is for maps whose file cannot be looked at.
func (s *holderSearch) named(path string) (deviceNode, bool) {
	for _, node := range s.nodes {
		if node.path == strings.TrimSuffix(path, " (deleted)") {
			return node, true
		}
	}
	return deviceNode{}, false
}

// process is the holder of that number.
func (s *holderSearch) process(pid int, node deviceNode, mapped bool) Holder {
	dir := s.h.path("proc", strconv.Itoa(pid))
	h := Holder{Address: node.address, Kind: HolderProcess, PID: pid, Path: node.path, Mapped: mapped}
	comm, err := os.ReadFile(filepath.Join(dir, "comm"))
	if err != nil {
		comm = nil // it has gone meanwhile, and is told all the same
	}
	h.Name = commandName(comm)
	switch h.Name {
	case persistenceName:
		h.Kind, h.Name = HolderPersistence, "nvidia-persistenced"
	case helperName:
		if stat, err := os.ReadFile(filepath.Join(dir, "stat")); err == nil {
			if parent, err := ParseParent(stat); err == nil && parent == os.Getpid() {
				h.Kind = HolderHelper
			}
		}
	}
	return h
}

// left says that an error means that a process has ended while it was looked at.
func left(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH)
}

// eachLine calls f with each line of a file.
func eachLine(path string, f func(line string) error) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		if err := f(lines.Text()); err != nil {
			return err
		}
	}
	return lines.Err()
}
