package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxTimeout bounds one run, whatever it is asked for.
	maxTimeout = time.Hour
	// maxOutput bounds what is kept of one run's output.
	maxOutput = 4 << 20
	// killGrace is how long a killed program may take to go. One that hangs in a driver never goes.
	killGrace = 2 * time.Second
	// maxUnkillable is how many programs that did not go may be left behind before no other is started.
	maxUnkillable = 16
)

// unkillable counts the programs that were killed and are still there, in the whole process.
var unkillable atomic.Int64

// RunProgram runs a program once. It gets a process group of its own, which is killed whole at the time-out, and also when
// the program has ended: what it left behind in the background would hold the output open and outlive every deadline.
func (h *Host) RunProgram(ctx context.Context, p Program) (Ran, error) {
	if unkillable.Load() >= maxUnkillable {
		return Ran{}, fmt.Errorf("running %s: %d programs could not be killed: %w", clip(p.Path), maxUnkillable, ErrStuck)
	}
	if p.Timeout <= 0 || p.Timeout > maxTimeout {
		return Ran{}, fmt.Errorf("running %s: a time-out of %s: want more than 0 and at most %s", clip(p.Path), p.Timeout, maxTimeout)
	}
	timed, cancel := context.WithTimeout(ctx, p.Timeout)
	defer cancel()
	most := min(p.MaxOutput, maxOutput)
	r := &run{cmd: command(p), stdout: capped{most: most, end: p.EndWhenFull}, stderr: capped{most: most}}
	r.cmd.Stdout, r.cmd.Stderr = &r.stdout, &r.stderr
	began := time.Now()
	if err := r.cmd.Start(); err != nil {
		// The path is named already.
		var file *os.PathError
		if errors.As(err, &file) {
			err = file.Err
		}
		return Ran{}, fmt.Errorf("starting %s: %w", clip(p.Path), err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.reap()
	}()
	killed := false
	select {
	case <-done:
	case <-timed.Done():
		killed = true
		r.killGroup()
		grace := time.NewTimer(killGrace)
		defer grace.Stop()
		select {
		case <-done:
		case <-grace.C:
			unkillable.Add(1)
			go func() {
				<-done
				unkillable.Add(-1)
			}()
			return Ran{TimedOut: true, Exit: -1, Took: time.Since(began)}, fmt.Errorf("running %s: killed and still there: %w", clip(p.Path), ErrStuck)
		}
	}
	if killed && ctx.Err() != nil {
		return Ran{}, fmt.Errorf("running %s: %w", clip(p.Path), context.Cause(ctx))
	}
	return r.result(killed, time.Since(began))
}

// run is a program that was started.
type run struct {
	cmd            *exec.Cmd
	stdout, stderr capped
	err            error
}

// reap waits for the program, kills what is left of its group while the group's number cannot be another's yet, and
// collects the output.
func (r *run) reap() {
	pid := r.cmd.Process.Pid
	for {
		// WNOWAIT leaves the zombie, and with it the number.
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	r.killGroup()
	r.err = r.cmd.Wait()
}

func (r *run) killGroup() {
	// An error means that nobody is left.
	_ = unix.Kill(-r.cmd.Process.Pid, unix.SIGKILL)
}

func (r *run) result(killed bool, took time.Duration) (Ran, error) {
	state := r.cmd.ProcessState
	var exit *exec.ExitError
	// ErrWaitDelay: something outside the group holds the output open; what came until then counts.
	expected := r.err == nil || errors.As(r.err, &exit) || errors.Is(r.err, exec.ErrWaitDelay) || errors.Is(r.err, errFull)
	if state == nil || !expected {
		return Ran{}, fmt.Errorf("running %s: %w", clip(r.cmd.Path), r.err)
	}
	return Ran{
		Exit: state.ExitCode(), State: state.String(), TimedOut: killed, Stdout: r.stdout.bytes, Stderr: r.stderr.bytes,
		Cut: r.stdout.cut, Took: took,
	}, nil
}

// command makes the command without starting it.
func command(p Program) *exec.Cmd {
	dir := p.Dir
	if dir == "" {
		dir = "/"
	}
	path := p.Path
	if !filepath.IsAbs(path) {
		path = filepath.Join(dir, path)
	}
	// Not exec.Command: that looks the program up here, and it may be below another root.
	cmd := &exec.Cmd{
		Path: path, Args: append([]string{p.Path}, p.Args...), Dir: dir, Env: environment(p.Env),
		SysProcAttr: &syscall.SysProcAttr{Setpgid: true}, WaitDelay: killGrace / 2,
	}
	if len(p.Stdin) > 0 {
		cmd.Stdin = strings.NewReader(string(p.Stdin))
	}
	if p.Root != "" && p.Root != "/" {
		cmd.SysProcAttr.Chroot = p.Root
	}
	return cmd
}

// environment adds what every program may count on.
func environment(env []string) []string {
	out := slices.Clone(env)
	for _, e := range []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/", "LC_ALL=C",
	} {
		name, _, _ := strings.Cut(e, "=")
		if !slices.ContainsFunc(env, func(s string) bool { return strings.HasPrefix(s, name+"=") }) {
			out = append(out, e)
		}
	}
	return out
}

// errFull ends the reading of a program's output.
var errFull = errors.New("the output is longer than is wanted")

// capped keeps the first bytes that are written to it.
type capped struct {
	most  int
	end   bool
	bytes []byte
	cut   bool
}

func (c *capped) Write(b []byte) (int, error) {
	room := max(c.most-len(c.bytes), 0)
	if len(b) > room {
		c.cut = true
	}
	c.bytes = append(c.bytes, b[:min(len(b), room)]...)
	if c.cut && c.end {
		return 0, errFull
	}
	return len(b), nil
}

// FindProgram says whether the program's file is there.
func (h *Host) FindProgram(ctx context.Context, p Program) error {
	path := command(p).Path
	_, err := through(ctx, newDoor("a program's file"), func() (struct{}, error) {
		f, err := openIn(p.Root, path, unix.O_PATH)
		if err != nil {
			return struct{}{}, err
		}
		return struct{}{}, f.Close()
	})
	if err != nil {
		return fmt.Errorf("looking for %s: %w", clip(p.Path), err)
	}
	return nil
}

// openIn opens a file as a process whose root is the directory would: absolute links stay below it.
func openIn(root, path string, flags int) (*os.File, error) {
	flags |= unix.O_CLOEXEC
	if root == "" || root == "/" {
		return os.OpenFile(path, flags, 0)
	}
	dir, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: root, Err: err}
	}
	defer func() { _ = unix.Close(dir) }()
	fd, err := unix.Openat2(dir, path, &unix.OpenHow{Flags: uint64(flags), Resolve: unix.RESOLVE_IN_ROOT})
	if errors.Is(err, unix.ENOSYS) {
		// Before Linux 5.6: links that are relative still work.
		return os.OpenFile(filepath.Join(root, path), flags, 0)
	}
	if err != nil {
		return nil, &os.PathError{Op: "openat2", Path: filepath.Join(root, path), Err: err}
	}
	return os.NewFile(uintptr(fd), filepath.Join(root, path)), nil
}
