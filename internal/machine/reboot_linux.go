package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// syncTimeout bounds sync(2), which never returns when a file system's device is gone.
const syncTimeout = 15 * time.Second

// initPIDNamespace is the name of the first PID namespace: PROC_PID_INIT_INO, 0xEFFFFFFC, of include/linux/proc_ns.h.
const initPIDNamespace = "pid:[4026531836]"

// system is what Reboot does to the machine, so that a test can watch instead.
type system interface {
	sync()
	// systemctlReboot runs systemctl in the host's root.
	systemctlReboot(ctx context.Context, root string) error
	// restart is reboot(2).
	restart() error
	// pidNamespace names the PID namespace of the process.
	pidNamespace() (string, error)
}

// Reboot restarts the machine. It syncs, asks the host's systemd when there is one, so that services stop in order, and
// asks the kernel when systemd refuses or has not done it within the grace. It returns only when no restart came.
//
// In a container: systemctl runs in the root of process 1 (host PID namespace) or else in Options.Root, and reboot(2) is
// tried only in the first PID namespace with CAP_SYS_BOOT, because in any other it kills that namespace and nothing else
// (reboot(2), "Behavior inside PID namespaces"). During an orderly shutdown the agent itself is stopped, which ends the
// wait: a shutdown that then hangs is what the controller's time-out and the next rung are for.
func (h *Host) Reboot(ctx context.Context) error {
	h.syncBounded(ctx)
	orderly := h.orderlyReboot(ctx)
	if ctx.Err() != nil {
		return fmt.Errorf("rebooting: %w", errors.Join(orderly, context.Cause(ctx)))
	}
	ns, err := h.system.pidNamespace()
	if err == nil && ns != initPIDNamespace {
		err = fmt.Errorf("reboot(2) in PID namespace %s would not reach the machine", ns)
	}
	if err == nil {
		err = h.system.restart()
	}
	if err != nil {
		return fmt.Errorf("rebooting: %w", errors.Join(orderly, err))
	}
	return nil
}

// orderlyReboot asks systemd and waits for the machine to go; it returns why it did not.
func (h *Host) orderlyReboot(ctx context.Context) error {
	root := h.hostRoot()
	// The directory exists exactly when systemd is process 1: sd_booted(3).
	if _, err := os.Stat(filepath.Join(root, "run/systemd/system")); err != nil {
		return fmt.Errorf("no systemd on the host: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, h.rebootGrace)
	defer cancel()
	if err := h.system.systemctlReboot(ctx, root); err != nil {
		return fmt.Errorf("asking systemd: %w", err)
	}
	<-ctx.Done()
	return fmt.Errorf("systemd took the request and the machine is still up: %w", ctx.Err())
}

// hostRoot is a directory that is the host's root as process 1 sees it, where /run and its sockets are.
func (h *Host) hostRoot() string {
	ofInit := h.path("proc/1/root")
	if _, err := os.Stat(filepath.Join(ofInit, "run/systemd/system")); err == nil {
		return ofInit
	}
	return h.root
}

// syncBounded writes out what is dirty, and goes on without it when that takes too long.
func (h *Host) syncBounded(ctx context.Context) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		h.system.sync()
	}()
	timer := time.NewTimer(syncTimeout)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	case <-ctx.Done():
	}
}

type realSystem struct{}

func (realSystem) sync() { unix.Sync() }

func (realSystem) systemctlReboot(ctx context.Context, root string) error {
	cmd := exec.CommandContext(ctx, "/bin/systemctl", "--no-block", "reboot")
	// Found inside the new root, so not looked up here; systemctl refuses in what it takes for a chroot unless told.
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "SYSTEMD_IGNORE_CHROOT=1"}
	cmd.Dir = "/"
	cmd.WaitDelay = 5 * time.Second
	if root != "/" {
		cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root}
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("systemctl reboot: %w: %s", err, bound(string(out), 200))
	}
	return nil
}

func (realSystem) restart() error {
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART); err != nil {
		return fmt.Errorf("reboot(2): %w", err)
	}
	return nil
}

func (realSystem) pidNamespace() (string, error) {
	ns, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return "", fmt.Errorf("reading PID namespace: %w", err)
	}
	return ns, nil
}
