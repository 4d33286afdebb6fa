package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/roundhouse-dev/roundhouse/sandbox/vm/wire"
)

const (
	// restartDelay is shorter than a kubelet's back-off, because the tests that kill the agent wait for it.
	restartDelay = 500 * time.Millisecond
	// logKept bounds what is kept of the agent's output.
	logKept = 128 << 10
)

// supervisor keeps one process running, and reaps whatever else process 1 inherits.
type supervisor struct {
	process wire.Process
	console io.Writer

	mu     sync.Mutex
	status wire.AgentStatus
	log    []byte
}

// keepRunning starts the process, and again whenever it ends, until the machine goes down.
func (s *supervisor) keepRunning() {
	for {
		if err := s.start(); err != nil {
			s.note(fmt.Sprintf("could not start: %v", err))
			time.Sleep(restartDelay)
			continue
		}
		s.reapUntilEnd()
		time.Sleep(restartDelay)
	}
}

// start forks the process. It uses ForkExec rather than os/exec, whose Wait would compete with our reaping of orphans.
func (s *supervisor) start() error {
	read, write, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("making a pipe for the output: %w", err)
	}
	defer write.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		read.Close()
		return fmt.Errorf("opening the null device: %w", err)
	}
	defer null.Close()
	pid, err := syscall.ForkExec(s.process.Path, append([]string{s.process.Path}, s.process.Args...), &syscall.ProcAttr{
		Dir:   "/",
		Env:   append([]string{"PATH=" + os.Getenv("PATH"), "HOME=/"}, s.process.Env...),
		Files: []uintptr{null.Fd(), write.Fd(), write.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		read.Close()
		return fmt.Errorf("starting %s: %w", s.process.Path, err)
	}
	s.mu.Lock()
	s.status.PID = pid
	s.status.Starts++
	s.mu.Unlock()
	go s.copyLog(read)
	return nil
}

// reapUntilEnd waits for children until the supervised one has ended.
func (s *supervisor) reapUntilEnd() {
	for {
		var ws unix.WaitStatus
		pid, err := unix.Wait4(-1, &ws, 0, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			s.note(fmt.Sprintf("lost: %v", err))
			return
		}
		s.mu.Lock()
		ended := pid == s.status.PID
		s.mu.Unlock()
		if ended {
			s.note(describe(ws))
			return
		}
	}
}

// note records that the process is not running, and why.
func (s *supervisor) note(exit string) {
	fmt.Fprintf(s.console, "init: agent: %s\n", exit)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.PID = 0
	s.status.LastExit = exit
}

// describe says in words how a process ended.
func describe(ws unix.WaitStatus) string {
	if ws.Signaled() {
		return "killed by signal " + unix.SignalName(ws.Signal())
	}
	return fmt.Sprintf("exit status %d", ws.ExitStatus())
}

// copyLog shows the process's output on the console and keeps its end for the test to ask.
func (s *supervisor) copyLog(r io.ReadCloser) {
	defer r.Close()
	lines := bufio.NewReaderSize(r, 64<<10)
	for {
		line, err := lines.ReadSlice('\n')
		if len(line) > 0 {
			fmt.Fprintf(s.console, "agent: %s", line)
			s.keep(line)
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return
		}
	}
}

// keep appends to the kept log, dropping its older half when it is full.
func (s *supervisor) keep(line []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.log)+len(line) > logKept {
		s.log = append([]byte(nil), s.log[len(s.log)/2:]...)
	}
	s.log = append(s.log, line...)
}

// snapshot returns what is known of the process now.
func (s *supervisor) snapshot() wire.AgentStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status
}

// tail returns a copy of the kept log.
func (s *supervisor) tail() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return bytes.Clone(s.log)
}

// signal sends sig to the process, and refuses when it is not running: PID 0 would be our own process group.
func (s *supervisor) signal(sig int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.status.PID == 0 {
		return errors.New("the agent is not running")
	}
	return unix.Kill(s.status.PID, unix.Signal(sig))
}
