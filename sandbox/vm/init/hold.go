package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/roundhouse-dev/roundhouse/sandbox/vm/wire"
)

// heldFD is where a holder says that it holds, after its standard files.
const heldFD = 3

// holdDeadline bounds the start of a holder.
const holdDeadline = 10 * time.Second

// hold opens a file, says so, and keeps it open until it is ended.
func hold(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := os.NewFile(heldFD, "held").WriteString("held\n"); err != nil {
		return err
	}
	for {
		time.Sleep(time.Hour)
	}
}

// holder is the process that holds a file of the guest.
type holder struct{ pid int }

// start starts a process that opens the file, and returns its ID once it has. It is forked as the agent is, since the
// supervisor reaps every child.
func (h *holder) start(path string) ([]byte, error) {
	if h.pid != 0 {
		return nil, errors.New("a file is held already")
	}
	read, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer read.Close()
	console, err := os.OpenFile("/dev/console", os.O_RDWR, 0)
	if err != nil {
		write.Close()
		return nil, err
	}
	defer console.Close()
	pid, err := syscall.ForkExec("/init", []string{"/init", wire.HoldCommand, path}, &syscall.ProcAttr{
		Dir: "/", Files: []uintptr{console.Fd(), console.Fd(), console.Fd(), write.Fd()}, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	write.Close()
	if err != nil {
		return nil, fmt.Errorf("starting a holder of %s: %w", path, err)
	}
	if err := read.SetReadDeadline(time.Now().Add(holdDeadline)); err != nil {
		return nil, err
	}
	said := make([]byte, 16)
	if _, err := read.Read(said); err != nil {
		return nil, errors.Join(fmt.Errorf("the holder of %s did not say that it holds: %w", path, err), unix.Kill(pid, unix.SIGKILL))
	}
	h.pid = pid
	return []byte(strconv.Itoa(pid)), nil
}

// free ends the process and waits until it has let go.
func (h *holder) free() error {
	if h.pid == 0 {
		return errors.New("no file is held")
	}
	if err := unix.Kill(h.pid, unix.SIGKILL); err != nil {
		return err
	}
	for deadline := time.Now().Add(holdDeadline); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		// Reaped by the supervisor, or a zombie that has closed its files.
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", h.pid))
		if err != nil || isZombie(stat) {
			h.pid = 0
			return nil //nolint:nilerr // what cannot be read has gone.
		}
	}
	return fmt.Errorf("process %d does not end", h.pid)
}

// isZombie reads the state behind the name in /proc/PID/stat.
func isZombie(stat []byte) bool {
	for i := len(stat) - 1; i >= 0; i-- {
		if stat[i] == ')' {
			return i+2 < len(stat) && stat[i+2] == 'Z'
		}
	}
	return false
}
