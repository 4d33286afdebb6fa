package vm

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"syscall"

	"github.com/roundhouse-dev/roundhouse/sandbox/vm/wire"
)

// bootIDFile is where Linux tells its boot ID.
const bootIDFile = "/proc/sys/kernel/random/boot_id"

// AgentStatus is what the guest's init knows of the agent's process.
type AgentStatus = wire.AgentStatus

// BootID returns the guest's boot ID, as the agent reads it.
func (v *VM) BootID(ctx context.Context) (string, error) {
	raw, err := v.ReadFile(ctx, bootIDFile)
	return strings.TrimSpace(string(raw)), err
}

// AwaitBoot waits until the guest is up with another boot ID than the one named, and returns it.
func (v *VM) AwaitBoot(ctx context.Context, not string) (string, error) {
	b, err := v.control.await(ctx, not)
	if err != nil {
		return "", err
	}
	return b.id, nil
}

// Boots returns how often the guest has come up, its first boot included. It is what the guest's init and QEMU's resets
// say, not what an agent makes of it.
func (v *VM) Boots() int { return v.control.count() }

// Kmsg writes one line into the guest's own /dev/kmsg. The kernel records it with facility 1, as it does whatever does
// not come from itself. A priority may lead it, such as <3>.
func (v *VM) Kmsg(ctx context.Context, line string) error {
	_, err := v.control.call(ctx, wire.Request{Op: wire.OpKmsg, Data: []byte(line)})
	return err
}

// KernelLog returns the records of the guest's /dev/kmsg in its own format, oldest first: a record a line, and the lines
// that begin with a space belong to the record before them.
func (v *VM) KernelLog(ctx context.Context) (string, error) {
	reply, err := v.control.ask(ctx, wire.Request{Op: wire.OpKernel})
	return string(reply.Data), err
}

// ReadFile returns the content of a file of the guest, of /proc and /sys too. A file that does not exist is an error.
func (v *VM) ReadFile(ctx context.Context, path string) ([]byte, error) {
	reply, err := v.control.ask(ctx, wire.Request{Op: wire.OpRead, Path: path})
	return reply.Data, err
}

// ReadDir returns the names in a directory of the guest, sorted.
func (v *VM) ReadDir(ctx context.Context, path string) ([]string, error) {
	reply, err := v.control.ask(ctx, wire.Request{Op: wire.OpList, Path: path})
	if err != nil || len(reply.Data) == 0 {
		return nil, err
	}
	return strings.Split(string(reply.Data), "\n"), nil
}

// ReadLink returns what a symbolic link of the guest points to.
func (v *VM) ReadLink(ctx context.Context, path string) (string, error) {
	reply, err := v.control.ask(ctx, wire.Request{Op: wire.OpLink, Path: path})
	return string(reply.Data), err
}

// WriteFile writes and syncs a file of the guest, making its directory. It replaces a file in place. The way there is a
// serial port, good for some tens of kilobytes a second.
func (v *VM) WriteFile(ctx context.Context, path string, data []byte) error {
	_, err := v.control.call(ctx, wire.Request{Op: wire.OpWrite, Path: path, Data: data})
	return err
}

// AgentStatus tells whether the agent runs, how often it was started in this boot, and how it last ended.
func (v *VM) AgentStatus(ctx context.Context) (AgentStatus, error) {
	reply, err := v.control.ask(ctx, wire.Request{Op: wire.OpAgent})
	if err != nil || reply.Agent == nil {
		return AgentStatus{}, err
	}
	return *reply.Agent, nil
}

// AgentLog returns the end of what the agent wrote to its standard output and error since the guest's last boot. Console
// has that of earlier boots.
func (v *VM) AgentLog(ctx context.Context) (string, error) {
	reply, err := v.control.ask(ctx, wire.Request{Op: wire.OpLog})
	return string(reply.Data), err
}

// SignalAgent sends a signal to the agent, SIGKILL for a crash. Init will start it again.
func (v *VM) SignalAgent(ctx context.Context, sig syscall.Signal) error {
	_, err := v.control.call(ctx, wire.Request{Op: wire.OpSignal, Signal: int(sig)})
	return err
}

// Fetch makes the guest request an http or https URL and returns the body, whatever the status. For https it trusts the
// certificates in roots (PEM), and wants one for serverName, or for the URL's host if that is empty.
func (v *VM) Fetch(ctx context.Context, url, serverName string, roots []byte) ([]byte, error) {
	reply, err := v.control.ask(ctx, wire.Request{Op: wire.OpFetch, Path: url, ServerName: serverName, Data: roots})
	return reply.Data, err
}

// Hold makes a process of the guest open a file, such as a device's, and keep it open until Free or a reboot. It returns the
// process's ID there, whose name is the guest's init's.
func (v *VM) Hold(ctx context.Context, path string) (int, error) {
	reply, err := v.control.call(ctx, wire.Request{Op: wire.OpHold, Path: path})
	if err != nil {
		return 0, err
	}
	pid, err := strconv.Atoi(string(reply.Data))
	if err != nil {
		return 0, fmt.Errorf("reading who holds %s: %w", path, err)
	}
	return pid, nil
}

// Free ends the process that Hold started.
func (v *VM) Free(ctx context.Context) error {
	_, err := v.control.call(ctx, wire.Request{Op: wire.OpFree})
	return err
}

// Reboot makes the guest restart by reboot(2), without syncing its disk first, and returns when it has been reset.
// AwaitBoot waits for its next boot.
func (v *VM) Reboot(ctx context.Context) error {
	_, err := v.control.call(ctx, wire.Request{Op: wire.OpReboot})
	if errors.Is(err, errReset) {
		return nil
	}
	if err == nil {
		err = errors.New("the guest answered instead of rebooting")
	}
	return err
}
