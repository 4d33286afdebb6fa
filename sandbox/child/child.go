// Package child runs programs that do not outlive this process, with their output in a file.
package child

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// logTail is how much of a log goes into an error: the reason for a failed start is near the end.
const logTail = 3 << 10

// pollEvery is how often a starting program is asked whether it is ready.
const pollEvery = 20 * time.Millisecond

// Program is what to run.
type Program struct {
	// Name is what errors call it.
	Name string
	// Path and Args are the program and what follows its name; Env is added to this process's environment.
	Path      string
	Args, Env []string
	// LogPath is the file that its output goes to; what it held is gone.
	LogPath string
}

// Process is a program that was started.
type Process struct {
	// Name and LogPath are the program's.
	Name, LogPath string
	// PID is its number, and Launched when it was started.
	PID      int
	Launched time.Time

	signal func(os.Signal) error
	exited chan struct{} // closed once it has been waited for
	err    error         // how it ended; read it only after exited is closed
}

// Start starts a program. It runs until it ends, or is killed, or this process dies.
func Start(program Program) (*Process, error) {
	log, err := os.OpenFile(program.LogPath, os.O_CREATE|os.O_WRONLY|os.O_TRUNC|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the log of %s: %w", program.Name, err)
	}
	cmd := exec.Command(program.Path, program.Args...) // without a context: Kill ends it
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), program.Env...)
	cmd.SysProcAttr = childAttributes()
	p := &Process{Name: program.Name, LogPath: program.LogPath, exited: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		defer log.Close()
		// The kernel sends the parent-death signal when the *thread* that forked ends (prctl(2), PR_SET_PDEATHSIG), so
		// that thread has to stay as long as the child.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := cmd.Start(); err != nil {
			started <- fmt.Errorf("starting %s: %w", program.Name, err)
			return
		}
		p.Launched, p.PID, p.signal = time.Now(), cmd.Process.Pid, cmd.Process.Signal
		started <- nil
		p.err = cmd.Wait()
		close(p.exited)
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

// Exited is closed once the process has ended.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// Alive says whether it has not ended yet; a frozen one has not.
func (p *Process) Alive() bool {
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// Send sends a signal; one that is gone gets none, and that is no error.
func (p *Process) Send(s syscall.Signal) error {
	if err := p.signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("sending %s to %s: %w", s, p.Name, err)
	}
	return nil
}

// Kill ends it at once, and returns when it is gone.
func (p *Process) Kill(ctx context.Context) error {
	if err := p.Send(syscall.SIGKILL); err != nil {
		return err
	}
	select {
	case <-p.exited:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("killing %s: %w", p.Name, context.Cause(ctx))
	}
}

// Ending is how a process that has ended did so. Ending well is an error too: what was to run on has failed.
func (p *Process) Ending() error {
	<-p.exited
	if p.err == nil {
		return errors.New("it exited: exit status 0")
	}
	return fmt.Errorf("it exited: %w", p.err)
}

// WaitReady polls url until it answers 200. It gives up when ctx ends or the process does, and then the error carries the
// end of the log.
func (p *Process) WaitReady(ctx context.Context, client *http.Client, url string) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	last := errors.New("not asked yet")
	for {
		select {
		case <-p.exited:
			return p.Failed(p.Ending())
		case <-ctx.Done():
			return p.Failed(fmt.Errorf("%w; last answer: %w", context.Cause(ctx), last))
		case <-tick.C:
		}
		if last = probe(ctx, client, url); last == nil {
			return nil
		}
	}
}

// probe asks url once.
func probe(ctx context.Context, client *http.Client, url string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return fmt.Errorf("building the request for %s: %w", url, err)
	}
	response, err := client.Do(request)
	if err != nil {
		return fmt.Errorf("asking %s: %w", url, err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, logTail))
	if err != nil {
		return fmt.Errorf("reading the answer of %s: %w", url, err)
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answered %s: %s", url, response.Status, bytes.TrimSpace(body))
	}
	return nil
}

// FailedError is a process that did not do as it should, with the end of its log: the log itself may be gone by the time
// somebody reads the error.
type FailedError struct {
	Name  string
	Cause error
	// Tail is the end of its log.
	Tail string
}

// Error says why, and shows the end of the log.
func (e *FailedError) Error() string {
	return fmt.Sprintf("%s failed: %v\nits log ends with:\n%s", e.Name, e.Cause, e.Tail)
}

// Unwrap gives the cause.
func (e *FailedError) Unwrap() error { return e.Cause }

// Failed makes an error of a cause and the end of the log.
func (p *Process) Failed(cause error) error {
	return &FailedError{Name: p.Name, Cause: cause, Tail: tail(p.LogPath)}
}

// tail reads the last part of a log; when it cannot, it says so in its place, because it is only ever part of another
// error.
func tail(path string) string {
	file, err := os.Open(path)
	if err != nil {
		return fmt.Sprintf("(cannot be read: %v)", err)
	}
	defer file.Close()
	size, err := file.Seek(0, io.SeekEnd)
	if err != nil {
		return fmt.Sprintf("(cannot be read: %v)", err)
	}
	text, err := io.ReadAll(io.NewSectionReader(file, max(0, size-logTail), logTail))
	if err != nil {
		return fmt.Sprintf("(cannot be read: %v)", err)
	}
	return string(bytes.TrimSpace(text))
}
