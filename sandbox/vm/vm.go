// Package vm boots a real Linux machine under QEMU for tests of the agent: real PCI Express devices with real links in
// sysfs, a real kernel log, real boot IDs, and reboots that are the machine's own. It emulates the processor, so it
// needs neither KVM nor any right beyond running a program, and takes some seconds to boot. The guest reaches what
// listens on the host's 127.0.0.1 at HostIP. What it boots is fetched once by hack/test-setup.sh.
package vm

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/roundhouse-dev/roundhouse/sandbox/vm/wire"
)

const (
	// HostIP is the address at which the guest finds the host's 127.0.0.1, on every port.
	HostIP = wire.HostIP
	// StateDir is the guest's directory that outlives its reboots.
	StateDir = wire.StateDir
	// consoleKept bounds what Console returns.
	consoleKept = 64 << 10
)

// Agent is the program that the guest keeps running, restarting it half a second after it ends.
type Agent struct {
	// Binary is its path on the host. It must be static: the guest has no libraries.
	Binary string
	// Args and Env are its arguments and environment in the guest.
	Args, Env []string
}

// Options say what machine to boot.
type Options struct {
	// Hostname is the guest's. Default gpu-vm.
	Hostname string
	// Agent is kept running; none if its Binary is empty.
	Agent Agent
	// Files are put into the guest at each boot, by their absolute paths, with mode 0600. They lie in memory: what the
	// guest changes is back at its next boot. None may lie below StateDir, where the disk would hide it.
	Files map[string][]byte
	// Devices stand for GPUs. Default one, named gpu0.
	Devices []Device
	// Dir holds the machine's files, its disk among them, so that a second machine started there finds the first one's
	// disk. Default a directory that Stop removes.
	Dir string
	// MemoryMiB is the guest's memory. Default 512.
	MemoryMiB int
	// CPUs is the number of the guest's processors. Default 1.
	CPUs int
}

// VM is one running machine.
type VM struct {
	options Options
	dir     string
	ownDir  bool
	qemu    *qemu
	monitor *monitor
	control *control
	life    context.Context
	endLife context.CancelFunc

	stopOnce sync.Once
	stopped  error // what Stop returned

	mu         sync.Mutex
	away       map[string]bool          // devices that are off the bus
	returning  map[string]bool          // devices that come back at the next reset
	unplugging map[string]chan struct{} // closed when the device is gone
	failure    error                    // what went wrong where nobody waited
}

// defaulted returns o with its defaults filled in.
func (o Options) defaulted() (Options, error) {
	if o.Hostname == "" {
		o.Hostname = "gpu-vm"
	}
	if o.MemoryMiB == 0 {
		o.MemoryMiB = 512
	}
	if o.CPUs == 0 {
		o.CPUs = 1
	}
	if o.Devices == nil {
		o.Devices = []Device{{ID: "gpu0"}}
	}
	if len(o.Devices) > maxDevices {
		return o, fmt.Errorf("%d devices: the board has room for %d", len(o.Devices), maxDevices)
	}
	for name := range o.Files {
		switch {
		case !strings.HasPrefix(name, "/"):
			return o, fmt.Errorf("file %q: want an absolute path in the guest", name)
		case strings.HasPrefix(path.Clean(name), StateDir+"/"):
			return o, fmt.Errorf("file %q: it would be hidden by the disk; write it with WriteFile once the guest is up", name)
		}
	}
	var err error
	if o.Devices, err = defaultedDevices(o.Devices); err != nil {
		return o, err
	}
	return o, o.Agent.check()
}

// check refuses a binary that could not run in the guest, where it would fail with a puzzling "no such file".
func (a Agent) check() error {
	if a.Binary == "" {
		return nil
	}
	f, err := elf.Open(a.Binary)
	if err != nil {
		return fmt.Errorf("looking at the agent: %w", err)
	}
	defer f.Close()
	if slices.ContainsFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }) {
		return fmt.Errorf("the agent %s needs libraries: build it static, CGO_ENABLED=0", a.Binary)
	}
	return nil
}

// Start boots a machine and returns when its init is up. ctx bounds the boot only: the machine runs until Stop, or until
// the process that started it ends, however it ends.
func Start(ctx context.Context, o Options) (*VM, error) {
	o, err := o.defaulted()
	if err != nil {
		return nil, err
	}
	v := &VM{
		options: o, dir: o.Dir,
		away: map[string]bool{}, returning: map[string]bool{}, unplugging: map[string]chan struct{}{},
	}
	v.life, v.endLife = context.WithCancel(context.WithoutCancel(ctx))
	if err := v.start(ctx); err != nil {
		return nil, errors.Join(v.explain(err), v.Stop(context.WithoutCancel(ctx)))
	}
	return v, nil
}

// start builds the image, starts QEMU and waits for the guest.
func (v *VM) start(ctx context.Context) error {
	k, err := findKernel()
	if err != nil {
		return err
	}
	if v.dir == "" {
		if v.dir, err = os.MkdirTemp("", "roundhouse-vm-"); err != nil {
			return fmt.Errorf("making the machine's directory: %w", err)
		}
		v.ownDir = true
	}
	if err := v.writeImages(ctx, k); err != nil {
		return err
	}
	if v.qemu, err = startQEMU(v.dir, k.image, v.options); err != nil {
		return err
	}
	v.control = newControl(v.qemu.control)
	if v.monitor, err = newMonitor(ctx, v.qemu.monitor, v.onEvent); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, callDeadline)
	defer cancel()
	_, err = v.control.await(ctx, "")
	return err
}

// writeImages writes what QEMU boots into the machine's directory.
func (v *VM) writeImages(ctx context.Context, k kernel) error {
	initBinary := filepath.Join(v.dir, "init")
	if err := BuildStatic(ctx, initBinary, initPackage); err != nil {
		return err
	}
	if err := writeInitramfs(filepath.Join(v.dir, initramfsFile), k, initBinary, v.options); err != nil {
		return err
	}
	return makeDisk(ctx, filepath.Join(v.dir, diskFile))
}

// explain adds to an error what the machine said last.
func (v *VM) explain(err error) error {
	err = fmt.Errorf("booting a machine: %w", err)
	if v.qemu == nil {
		return err
	}
	select {
	case <-v.qemu.exited: // its output is complete only then
		err = fmt.Errorf("%w; QEMU said: %s", err, v.qemu.stderr.String())
	case <-time.After(100 * time.Millisecond):
	}
	return fmt.Errorf("%w; the console said: %s", err, v.Console())
}

// Stop ends the machine as if its power were cut, and removes its files if Start chose their place. It returns what went
// wrong behind the test's back, too. Stopping again changes nothing and returns the same.
func (v *VM) Stop(ctx context.Context) error {
	v.stopOnce.Do(func() { v.stopped = v.stop(ctx) })
	return v.stopped
}

// stop is Stop, once.
func (v *VM) stop(ctx context.Context) error {
	v.endLife()
	v.mu.Lock()
	errs := []error{v.failure}
	v.mu.Unlock()
	if v.monitor != nil {
		// QEMU may close the monitor before it has answered; end looks whether it ended.
		if err := v.monitor.execute(ctx, "quit", nil, nil); err != nil && !errors.Is(err, errQEMUGone) {
			errs = append(errs, err)
		}
	}
	if v.qemu != nil {
		errs = append(errs, v.qemu.end(ctx))
	}
	if v.ownDir {
		errs = append(errs, os.RemoveAll(v.dir))
	}
	return errors.Join(errs...)
}

// Console returns the end of what the guest's kernel, init and agent wrote to its serial console, over all its boots.
func (v *VM) Console() string {
	raw, err := os.ReadFile(filepath.Join(v.dir, consoleFile))
	if err != nil {
		return fmt.Sprintf("(no console: %v)", err)
	}
	if len(raw) > consoleKept {
		raw = raw[len(raw)-consoleKept:]
	}
	return strings.ReplaceAll(string(raw), "\r", "")
}
