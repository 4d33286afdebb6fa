package machine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// smiTimeout bounds one run of nvidia-smi: a reset of a GPU on a board with NVLink takes some ten seconds.
	smiTimeout = 2 * time.Minute
	// smiOutput is how much is kept of what it says.
	smiOutput = 4 << 10
	// putBackTimeout bounds what is done to get a device back, also when the caller has gone meanwhile.
	putBackTimeout = 40 * time.Second
	// busPoll is the time between two looks at whether a device is on the bus.
	busPoll = 50 * time.Millisecond
	// goneTimeout is how long a device that was removed may stay.
	goneTimeout = 10 * time.Second
)

var _ DeviceResetter = (*Host)(nil)

// smiPlaces are where nvidia-smi is installed, with the libraries it needs where the loader does not know of them (GKE's
// nodes).
var smiPlaces = []struct{ path, libraries string }{
	{"/usr/bin/nvidia-smi", ""},
	{"/usr/local/bin/nvidia-smi", ""},
	{"/usr/local/nvidia/bin/nvidia-smi", "/usr/local/nvidia/lib64"},
	{"/home/kubernetes/bin/nvidia/bin/nvidia-smi", "/home/kubernetes/bin/nvidia/lib64"},
	{"/run/current-system/sw/bin/nvidia-smi", ""},
}

// Quiesce waits for the helper that asks NVML, and lets no other start: it would hold every GPU open.
func (h *Host) Quiesce(ctx context.Context) (func(), error) {
	select {
	case h.nvml.turn <- struct{}{}:
		return sync.OnceFunc(func() { <-h.nvml.turn }), nil
	case <-ctx.Done():
		return nil, fmt.Errorf("waiting for our own question to NVML to end: %w: %w", ErrStuck, context.Cause(ctx))
	}
}

// CanReset says whether the device can be reset in that way.
func (h *Host) CanReset(ctx context.Context, address string, way ResetWay) error {
	switch way {
	case ResetByNVIDIA:
		_, err := h.findSMI(ctx)
		return err
	case ResetByFunction:
		return h.writable(address, "reset")
	case ResetByRescan:
		return h.writable(address, "remove")
	}
	return fmt.Errorf("%q: %w", way, ErrNoSuchWay)
}

// writable says whether the device has the attribute and we may write it. A GPU that amdgpu has in a hive is left alone: a
// reset of one can interrupt the others (AMD SMI documentation, "GPU reset behavior on XGMI systems").
func (h *Host) writable(address, attribute string) error {
	dir := filepath.Join(h.sysfs(), "bus/pci/devices", address)
	if _, err := os.Lstat(filepath.Join(dir, "xgmi_hive_info")); err == nil {
		return fmt.Errorf("it is in an XGMI hive, whose other GPUs a reset can interrupt: %w", ErrNoSuchWay)
	}
	path := filepath.Join(dir, attribute)
	switch err := unix.Access(path, unix.W_OK); {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("the kernel offers no %s for it: %w", attribute, ErrNoSuchWay)
	case err != nil:
		return fmt.Errorf("%s cannot be written (%w): %w", path, err, ErrNoSuchWay)
	}
	return nil
}

// sysfs is where the kernel's sysfs can be written: below the root, or else the agent's own, which is the same one. What
// merely lies where sysfs should, in a test, has no other.
func (h *Host) sysfs() string {
	ofRoot := h.path("sys")
	var st unix.Statfs_t
	if unix.Access(filepath.Join(ofRoot, "bus/pci/rescan"), unix.W_OK) == nil ||
		unix.Statfs(ofRoot, &st) != nil || st.Type != unix.SYSFS_MAGIC {
		return ofRoot
	}
	return "/sys"
}

// ResetDevices resets the devices at the addresses.
func (h *Host) ResetDevices(ctx context.Context, addresses []string, way ResetWay) (string, error) {
	if len(addresses) == 0 || len(addresses) > 1 && way != ResetByNVIDIA {
		return "", fmt.Errorf("%d devices by %q in one command: %w", len(addresses), way, ErrNoSuchWay)
	}
	for _, address := range addresses {
		if normal, err := ParsePCIAddress(address); err != nil || normal != address {
			return "", fmt.Errorf("resetting %q: want a PCI address, domain:bus:device.function", clip(address))
		}
		if err := h.CanReset(ctx, address, way); err != nil {
			return "", err
		}
	}
	switch way {
	case ResetByNVIDIA:
		smi, err := h.findSMI(ctx)
		if err != nil {
			return "", err
		}
		return h.resetBySMI(ctx, smi, addresses)
	case ResetByFunction:
		return h.resetFunction(ctx, addresses[0])
	case ResetByRescan:
		return h.rescan(ctx, addresses[0])
	}
	return "", fmt.Errorf("%q: %w", way, ErrNoSuchWay)
}

// findSMI finds the nvidia-smi of the driver that runs: that of a driver container where there is one with devices of its
// own, else the host's.
func (h *Host) findSMI(ctx context.Context) (Program, error) {
	container := h.path("run/nvidia/driver")
	roots := []string{h.root, container}
	if _, err := os.Stat(filepath.Join(container, "dev/nvidiactl")); err == nil {
		roots = []string{container}
	}
	for _, root := range roots {
		for _, place := range smiPlaces {
			p := Program{Root: root, Path: place.path, Timeout: smiTimeout, MaxOutput: smiOutput}
			if place.libraries != "" {
				p.Env = []string{"LD_LIBRARY_PATH=" + place.libraries}
			}
			err := h.FindProgram(ctx, p)
			if err == nil {
				return p, nil
			}
			if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) {
				return Program{}, err
			}
		}
	}
	return Program{}, fmt.Errorf("nvidia-smi is neither on the host nor in a driver container at /run/nvidia/driver: %w", ErrNoSuchWay)
}

// resetBySMI has nvidia-smi reset GPUs, all by one command. Persistence mode keeps a GPU open: it is switched off before, and
// on again after where it was on, whatever came of the reset.
func (h *Host) resetBySMI(ctx context.Context, smi Program, addresses []string) (said string, err error) {
	var persistent []string
	defer func() {
		for _, address := range persistent {
			back, cancel := context.WithTimeout(context.WithoutCancel(ctx), putBackTimeout)
			if _, e := h.smi(back, smi, "-pm", "1", "-i", address); e != nil {
				err = and(err, fmt.Errorf("switching persistence mode on again: %w", e))
			}
			cancel()
		}
	}()
	for _, address := range addresses {
		// A GPU that is lost does not tell, and then has no persistence mode to be switched off either.
		mode, err := h.smi(ctx, smi, "--query-gpu=persistence_mode", "--format=csv,noheader", "-i", address)
		if err != nil || !IsPersistent([]byte(mode)) {
			continue
		}
		if _, err := h.smi(ctx, smi, "-pm", "0", "-i", address); err != nil {
			return "", fmt.Errorf("switching persistence mode off: %w", err)
		}
		persistent = append(persistent, address)
	}
	return h.smi(ctx, smi, "--gpu-reset", "-i", strings.Join(addresses, ","))
}

// and is both errors in one line.
func and(err, more error) error {
	if err == nil {
		return more
	}
	return fmt.Errorf("%w; %w", err, more)
}

// smi runs nvidia-smi and returns what it says in one line.
func (h *Host) smi(ctx context.Context, p Program, args ...string) (string, error) {
	p.Args = args
	ran, err := h.RunProgram(ctx, p)
	if err != nil {
		return "", err
	}
	said := bound(commandOutput(append(ran.Stdout, ran.Stderr...)), 300)
	switch {
	case ran.TimedOut:
		return "", fmt.Errorf("nvidia-smi %s: no end within %s: %w", args[0], p.Timeout, ErrStuck)
	case ran.Exit != 0:
		return "", fmt.Errorf("nvidia-smi %s: %s: %s", args[0], ran.State, said)
	}
	return said, nil
}

// resetFunction resets a function while no driver has it: a driver that is not told of a reset goes on with a device that
// has forgotten everything, and few have a callback for it (reset_prepare and reset_done, Documentation/PCI/pci-error-
// recovery.rst). The driver gets it back in any case.
func (h *Host) resetFunction(ctx context.Context, address string) (string, error) {
	dir := filepath.Join(h.sysfs(), "bus/pci/devices", address)
	methods, err := os.ReadFile(filepath.Join(dir, "reset_method"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // new in Linux 5.15
		return "", fmt.Errorf("reading how it can be reset: %w", err)
	}
	ctx, cancel, err := inOneGo(ctx)
	if err != nil {
		return "", err
	}
	defer cancel()
	driver, bind := h.driverOf(dir)
	if driver != "" {
		if err := h.write(ctx, filepath.Join(dir, "driver/unbind"), address); err != nil {
			return "", fmt.Errorf("taking driver %s off: %w", driver, err)
		}
	}
	err = h.write(ctx, filepath.Join(dir, "reset"), "1")
	if err != nil {
		err = fmt.Errorf("resetting the function: %w", err)
	}
	said := "function reset"
	if m := ParseResetMethods(methods); len(m) > 0 {
		said += " (" + strings.Join(m, ", ") + ")"
	}
	if driver == "" {
		return said, err
	}
	back, cancelBack := context.WithTimeout(context.WithoutCancel(ctx), putBackTimeout)
	defer cancelBack()
	if e := h.write(back, bind, address); e != nil {
		return said, and(err, fmt.Errorf("giving it back to driver %s: %w", driver, e))
	}
	return said + ", driver " + driver + " bound anew", err
}

// inOneGo is the context for what must not be left half done: it ends at the deadline, and not when the caller goes away.
func inOneGo(ctx context.Context) (context.Context, context.CancelFunc, error) {
	if ctx.Err() != nil {
		return nil, nil, context.Cause(ctx)
	}
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(putBackTimeout)
	}
	ctx, cancel := context.WithDeadline(context.WithoutCancel(ctx), deadline)
	return ctx, cancel, nil
}

// driverOf is the driver of a device, and the file that binds one to it.
func (h *Host) driverOf(dir string) (name, bind string) {
	target, err := os.Readlink(filepath.Join(dir, "driver"))
	if err != nil {
		return "", ""
	}
	name = filepath.Base(target)
	return name, filepath.Join(h.sysfs(), "bus/pci/drivers", name, "bind")
}

// rescan takes a device off the bus, which ends its driver's work with it, and has the kernel look at the bus above it
// anew. Once begun, it is done to its end even where the caller has gone.
func (h *Host) rescan(ctx context.Context, address string) (string, error) {
	bus := filepath.Join(h.sysfs(), "bus/pci")
	dir := filepath.Join(bus, "devices", address)
	again := filepath.Join(bus, "rescan")
	if parent := upstream(dir); parent != "" {
		again = filepath.Join(bus, "devices", parent, "rescan")
	}
	driver, _ := h.driverOf(dir)
	ctx, cancelOne, err := inOneGo(ctx)
	if err != nil {
		return "", err
	}
	defer cancelOne()
	if err := h.write(ctx, filepath.Join(dir, "remove"), "1"); err != nil {
		return "", fmt.Errorf("taking it off the bus: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), putBackTimeout)
	defer cancel()
	off, cancelOff := context.WithTimeout(ctx, goneTimeout)
	defer cancelOff()
	if err := awaitBus(off, func() bool { _, err := os.Lstat(dir); return errors.Is(err, fs.ErrNotExist) }); err != nil {
		return "", fmt.Errorf("it is still on the bus %s after it was taken off", goneTimeout)
	}
	if err := h.write(ctx, again, "1"); err != nil {
		return "", fmt.Errorf("looking at the bus anew: %w", err)
	}
	back := func() bool {
		now, _ := h.driverOf(dir)
		_, err := os.Lstat(dir)
		return err == nil && now == driver
	}
	if err := awaitBus(ctx, back); err != nil {
		return "", fmt.Errorf("taken off the bus, and not back with its driver within %s", putBackTimeout)
	}
	return "removed and found anew", nil
}

// awaitBus waits until something is so.
func awaitBus(ctx context.Context, is func() bool) error {
	tick := time.NewTicker(busPoll)
	defer tick.Stop()
	for !is() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// write writes a word to a file of sysfs. The kernel does what it asks for before the call returns, and a driver may take
// for ever over it.
func (h *Host) write(ctx context.Context, path, word string) error {
	_, err := through(ctx, h.resets, func() (struct{}, error) {
		return struct{}{}, h.poke(path, word)
	})
	return err
}

// pokeFile writes a word to a file that is there.
func pokeFile(path, word string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(word)
	return errors.Join(err, f.Close())
}
