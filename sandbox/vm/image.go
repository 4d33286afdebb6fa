package vm

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sort"

	"github.com/roundhouse-dev/roundhouse/sandbox/vm/wire"
)

// setupHint is what a person must run when something to boot is missing.
const setupHint = "run hack/test-setup.sh"

// diskSize is enough for a journal and a cursor; ext4 wants some megabytes for its own.
const diskSize = 32 << 20

// agentPath is where the agent lies in the guest.
const agentPath = "/usr/local/bin/roundhouse-agent"

// initPackage is the program that becomes process 1 of the guest.
const initPackage = "github.com/roundhouse-dev/roundhouse/sandbox/vm/init"

// kernel is an unpacked, not installed, kernel package.
type kernel struct {
	image   string
	modules string
}

// findKernel looks for what hack/test-setup.sh unpacked, in the clone that holds the working directory.
func findKernel() (kernel, error) {
	dir, err := os.Getwd()
	if err != nil {
		return kernel{}, fmt.Errorf("finding the clone: %w", err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "hack", "test-setup.sh")); err == nil {
			return kernelIn(filepath.Join(dir, ".cache", "vm", "kernel"))
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return kernel{}, errors.New("finding the guest's kernel: not inside a clone that has hack/test-setup.sh")
		}
		dir = parent
	}
}

// kernelIn finds the one kernel below dir.
func kernelIn(dir string) (kernel, error) {
	images, _ := filepath.Glob(filepath.Join(dir, "boot", "vmlinuz-*")) // its only error is a bad pattern
	mods, _ := filepath.Glob(filepath.Join(dir, "lib", "modules", "*"))
	if len(images) != 1 || len(mods) != 1 {
		return kernel{}, fmt.Errorf("the guest's kernel is missing from .cache/vm: %s", setupHint)
	}
	return kernel{image: images[0], modules: mods[0]}, nil
}

// BuildStatic compiles the Go program pkg to the file out as the guest needs it: static, because there is no C library
// there, and without symbols, because it lies in the guest's memory.
func BuildStatic(ctx context.Context, out, pkg string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", out, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	if msg, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building %s for the guest: %w: %s", pkg, err, msg)
	}
	return nil
}

// writeInitramfs writes everything the guest has from its first moment.
func writeInitramfs(path string, k kernel, initBinary string, o Options) (err error) {
	mods, err := findModules(k.modules)
	if err != nil {
		return err
	}
	files, err := mods.order(guestModules...)
	if err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("creating the initramfs: %w", err)
	}
	defer func() {
		if cerr := f.Close(); err == nil && cerr != nil {
			err = fmt.Errorf("writing the initramfs: %w", cerr)
		}
	}()
	buffered := bufio.NewWriterSize(f, 1<<20)
	ar := newArchive(buffered)
	if err := fill(ar, files, initBinary, o); err != nil {
		return err
	}
	if err := ar.close(); err != nil {
		return err
	}
	if err := buffered.Flush(); err != nil {
		return fmt.Errorf("writing the initramfs: %w", err)
	}
	return nil
}

// fill adds init, its configuration, the modules, the agent and the test's own files.
func fill(ar *archive, moduleFiles []string, initBinary string, o Options) error {
	cfg := wire.Config{Hostname: o.Hostname, Disk: "/dev/vda"}
	for i, file := range moduleFiles {
		// The name carries the order, so that a person who unpacks the image sees it.
		name := fmt.Sprintf("/lib/modules/%02d-%s", i, filepath.Base(file))
		if err := copyInto(ar, name, 0o644, file); err != nil {
			return err
		}
		cfg.Modules = append(cfg.Modules, name)
	}
	if err := copyInto(ar, "/init", 0o755, initBinary); err != nil {
		return err
	}
	if o.Agent.Binary != "" {
		if err := copyInto(ar, agentPath, 0o755, o.Agent.Binary); err != nil {
			return err
		}
		cfg.Agent = &wire.Process{Path: agentPath, Args: o.Agent.Args, Env: o.Agent.Env}
	}
	raw, err := json.Marshal(cfg)
	if err != nil {
		return fmt.Errorf("encoding the guest's configuration: %w", err)
	}
	ar.file(wire.ConfigPath, 0o600, raw)
	names := make([]string, 0, len(o.Files))
	for name := range o.Files {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		ar.file(name, 0o600, o.Files[name])
	}
	return nil
}

// copyInto adds a file of the host.
func copyInto(ar *archive, name string, perm uint32, source string) error {
	data, err := os.ReadFile(source)
	if err != nil {
		return fmt.Errorf("reading what goes into the initramfs: %w", err)
	}
	ar.file(name, perm, data)
	return nil
}

// makeDisk makes an empty ext4 disk, unless one is there already: it is what outlives the guest.
func makeDisk(ctx context.Context, path string) error {
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	mke2fs, err := lookPath("mke2fs")
	if err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("creating the guest's disk: %w", err)
	}
	if err := errors.Join(f.Truncate(diskSize), f.Close()); err != nil {
		return fmt.Errorf("sizing the guest's disk: %w", err)
	}
	if msg, err := exec.CommandContext(ctx, mke2fs, "-q", "-F", "-t", "ext4", path).CombinedOutput(); err != nil {
		return fmt.Errorf("formatting the guest's disk: %w: %s", err, msg)
	}
	return nil
}

// lookPath finds a program, also where distributions keep those for root and users have no PATH to.
func lookPath(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s is missing: %s", name, setupHint)
}
