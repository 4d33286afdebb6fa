package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"syscall"
)

// logTail is how much of a log goes into an error.
const logTail = 2 << 10

// process is a child of this one that does not outlive it.
type process struct {
	name    string
	logPath string
	pid     int
	signal  func(os.Signal) error
	exited  chan struct{} // closed once it has been waited for
	err     error         // how it ended; read it only after exited is closed
}

// launch starts a program with its output in logPath.
func launch(name, binary string, args []string, logPath string) (*process, error) {
	log, err := os.OpenFile(logPath, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the log of %s: %w", name, err)
	}
	cmd := exec.Command(binary, args...) // without a context: Stop ends it
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = childAttributes()
	p := &process{name: name, logPath: logPath, exited: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		defer log.Close()
		// The parent-death signal comes when the thread that forked ends (prctl(2), PR_SET_PDEATHSIG), so it has to stay.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := cmd.Start(); err != nil {
			started <- fmt.Errorf("starting %s: %w", name, err)
			return
		}
		p.pid, p.signal = cmd.Process.Pid, cmd.Process.Signal
		started <- nil
		p.err = cmd.Wait()
		close(p.exited)
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

// alive says whether it has not ended yet; a frozen one has not.
func (p *process) alive() bool {
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// send sends a signal; one that is gone gets none, and that is no error.
func (p *process) send(s syscall.Signal) error {
	if err := p.signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("sending %s to %s: %w", s, p.name, err)
	}
	return nil
}

// kill ends it at once, and returns when it is gone.
func (p *process) kill(ctx context.Context) error {
	if err := p.send(syscall.SIGKILL); err != nil {
		return err
	}
	select {
	case <-p.exited:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("killing %s: %w", p.name, context.Cause(ctx))
	}
}

// failure is how it ended, with the end of its log.
func (p *process) failure() error {
	err := p.err
	if err == nil {
		err = errors.New("exit status 0")
	}
	return fmt.Errorf("%s ended: %w\nits log ends with:\n%s", p.name, err, tail(p.logPath))
}

// tail reads the last part of a log; when it cannot, it says so in its place, because it is part of another error.
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
	return string(text)
}
