package controlplane

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

// pollEvery is how often a starting component is asked whether it is ready.
const pollEvery = 20 * time.Millisecond

// logTail is how much of a log goes into an error: the reason for a failed start is
// near the end, and the path of the whole log stands beside it.
const logTail = 3 << 10

// process is one running component.
type process struct {
	component Component
	logPath   string
	launched  time.Time
	pid       int
	signal    func(os.Signal) error
	exited    chan struct{} // closed once the process has been waited for
	err       error         // how it exited; read it only after exited is closed
}

// launch starts a component with its output in logPath.
func launch(binary string, component Component, args, env []string, logPath string) (*process, error) {
	log, err := os.OpenFile(logPath, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the log of %s: %w", component, err)
	}
	cmd := exec.Command(binary, append([]string{string(component)}, args...)...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), env...)
	cmd.SysProcAttr = childAttributes()

	p := &process{component: component, logPath: logPath, exited: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		defer log.Close()
		// The kernel sends the parent-death signal when the *thread* that forked ends
		// (prctl(2), PR_SET_PDEATHSIG), so that thread has to stay as long as the child.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := cmd.Start(); err != nil {
			started <- fmt.Errorf("starting %s: %w", component, err)
			return
		}
		p.launched, p.pid, p.signal = time.Now(), cmd.Process.Pid, cmd.Process.Signal
		started <- nil
		p.err = cmd.Wait()
		close(p.exited)
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

// waitReady polls url until it answers 200. It gives up when ctx ends or the process
// does, and then the error carries the end of the log.
func (p *process) waitReady(ctx context.Context, client *http.Client, url string) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	last := errors.New("not asked yet")
	for {
		select {
		case <-p.exited:
			return p.failure(fmt.Errorf("it exited: %w", exitReason(p.err)))
		case <-ctx.Done():
			return p.failure(fmt.Errorf("%w; last answer: %w", context.Cause(ctx), last))
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
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
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

// terminate asks the process to end by itself.
func (p *process) terminate() error {
	if err := p.signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("asking %s to end: %w", p.component, err)
	}
	return nil
}

// kill ends the process and returns once it is gone.
func (p *process) kill() error {
	if err := p.signal(syscall.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("killing %s: %w", p.component, err)
	}
	<-p.exited // bounded: nothing survives SIGKILL, and Wait holds no pipe open
	return nil
}

// failedError is a component that did not become ready or ended by itself, with the
// end of its log: the log itself may be gone by the time somebody reads the error.
type failedError struct {
	component Component
	cause     error
	tail      string
}

func (e *failedError) Error() string {
	return fmt.Sprintf("%s failed: %v\nits log ends with:\n%s", e.component, e.cause, e.tail)
}

func (e *failedError) Unwrap() error { return e.cause }

func (p *process) failure(cause error) error {
	return &failedError{component: p.component, cause: cause, tail: tailOf(p.logPath)}
}

// tailOf reads the last part of a log; when it cannot, it says so in its place,
// because it is only ever part of another error.
func tailOf(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Sprintf("(cannot be read: %v)", err)
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return fmt.Sprintf("(cannot be read: %v)", err)
	}
	tail, err := io.ReadAll(io.NewSectionReader(f, max(0, size-logTail), logTail))
	if err != nil {
		return fmt.Sprintf("(cannot be read: %v)", err)
	}
	return string(bytes.TrimSpace(tail))
}

// exitReason makes an exit with status 0 an error too: a component that ends by
// itself is one that failed.
func exitReason(err error) error {
	if err == nil {
		return errors.New("exit status 0")
	}
	return err
}
