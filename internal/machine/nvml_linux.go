package machine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// nvmlTimeout is how long a helper may take when its caller sets no deadline.
	nvmlTimeout = 20 * time.Second
	// nvmlExit is how long a helper that has told all may take to end; the driver closes its devices then.
	nvmlExit = time.Second
	// nvmlDying is how long after its killing a helper is not yet taken for one that does not end.
	nvmlDying = 300 * time.Millisecond
	// nvmlSelfEnd is how much later than we would the helper ends itself.
	nvmlSelfEnd = 5 * time.Second
	// nvmlDeadline is the exit status of a helper that ended itself at its deadline: ExitDeadline of package nvml.
	nvmlDeadline = 124
)

// NVML starts the helper, reads what it says and sees to it that it ends. It returns by the context's deadline whatever
// the helper does. A helper that not even SIGKILL ends, because it waits in the kernel, is left behind: until it has gone,
// NVML answers ErrStuck at once and starts no other.
func (h *Host) NVML(ctx context.Context) (NVMLReport, error) {
	report, err := h.nvml.ask(ctx)
	if err != nil {
		return report, fmt.Errorf("NVML: %w", err)
	}
	return report, nil
}

// nvmlHelper starts helpers, one at a time.
type nvmlHelper struct {
	path, root string
	// kill ends a process; a test's may fail to.
	kill func(*os.Process) error
	// turn is held while a helper is asked.
	turn chan struct{}
	// left is the helper that did not end when it was killed; nil for none. Only who has the turn looks at it.
	left *nvmlRun
}

func newNVMLHelper(path, root string) *nvmlHelper {
	return &nvmlHelper{path: path, root: root, kill: (*os.Process).Kill, turn: make(chan struct{}, 1)}
}

func (n *nvmlHelper) ask(ctx context.Context) (NVMLReport, error) {
	ctx, cancel := context.WithTimeout(ctx, nvmlTimeout)
	defer cancel()
	select {
	case n.turn <- struct{}{}:
		defer func() { <-n.turn }()
	case <-ctx.Done():
		return NVMLReport{}, fmt.Errorf("an earlier call is still out: %w: %w", ErrStuck, context.Cause(ctx))
	}
	if n.left != nil {
		// One that was killed just now may need this moment on a busy machine.
		await(ctx, n.left.ended, nvmlDying-time.Since(n.left.killed))
		select {
		case <-n.left.ended:
			n.left.forget()
			n.left = nil
		default:
			return NVMLReport{}, fmt.Errorf("a helper that was killed %s ago has not ended: %w",
				time.Since(n.left.killed).Round(time.Second), n.left.at(ErrStuck))
		}
	}
	run, err := n.start(ctx)
	if err != nil {
		return NVMLReport{}, err
	}
	report, err := run.follow(ctx)
	select {
	case <-run.ended:
		run.forget()
	default:
		n.left = run
	}
	return report, err
}

// start starts a helper that is killed a little before the context's deadline, so that it has gone by then.
func (n *nvmlHelper) start(ctx context.Context) (*nvmlRun, error) {
	path, err := n.helper()
	if err != nil {
		return nil, err
	}
	deadline, _ := ctx.Deadline()
	left := time.Until(deadline)
	left -= min(max(left/10, 20*time.Millisecond), 500*time.Millisecond)
	if left <= 0 {
		return nil, fmt.Errorf("no time is left: %w: %w", ErrStuck, context.DeadlineExceeded)
	}
	// It ends by its own cancellation: a caller that goes away is seen in follow, which has to say how it ended.
	own, kill := context.WithTimeout(context.WithoutCancel(ctx), left)
	run, err := newNVMLRun(own, kill)
	if err != nil {
		kill()
		return nil, fmt.Errorf("starting the helper: %w", err)
	}
	cmd := exec.CommandContext(own, path, "-root", n.root, "-note", "3", "-deadline", (left + nvmlSelfEnd).String())
	// The runtime reads the last two before main: one round needs neither threads nor a collection of garbage.
	cmd.Env = []string{"LC_ALL=C", "GOMAXPROCS=2", "GOGC=off"}
	cmd.Stdout, cmd.Stderr = run.theirs[0], run.theirs[1]
	cmd.ExtraFiles = []*os.File{run.note}
	cmd.Cancel = func() error { return n.kill(cmd.Process) }
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	run.cmd = cmd
	go run.reap()
	go run.decode()
	go run.listen()
	return run, nil
}

// helper is the program's path: beside our own where nothing else is said, since the two belong to one build.
func (n *nvmlHelper) helper() (string, error) {
	if n.path != "" {
		return n.path, nil
	}
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("finding the helper: %w", err)
	}
	return filepath.Join(filepath.Dir(self), "roundhouse-nvml"), nil
}

// nvmlRun is one helper.
type nvmlRun struct {
	cmd *exec.Cmd
	// note is a file in memory for the call that is being made.
	note           *os.File
	stdout, stderr *os.File
	theirs         [2]*os.File
	// own ends when the helper has to; kill ends it now.
	own  context.Context
	kill context.CancelFunc
	// killed is when we gave up on it.
	killed time.Time

	// ended is closed when the process has gone and is reaped; err is how, and may be read after it.
	ended chan struct{}
	err   error

	// decoded is closed when nothing more will be read; report, end and decodeErr may be read after it.
	decoded   chan struct{}
	report    NVMLReport
	end       *NVMLEnd
	decodeErr error

	// heard is closed when nothing more will be heard from standard error; said may be read after it.
	heard chan struct{}
	said  []byte
}

// newNVMLRun makes what a helper needs before it can be started.
func newNVMLRun(own context.Context, kill context.CancelFunc) (r *nvmlRun, err error) {
	r = &nvmlRun{own: own, kill: kill, ended: make(chan struct{}), decoded: make(chan struct{}), heard: make(chan struct{})}
	fd, err := unix.MemfdCreate("nvml-note", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("making a file for its notes: %w", err)
	}
	r.note = os.NewFile(uintptr(fd), "nvml-note")
	if r.stdout, r.theirs[0], err = os.Pipe(); err == nil {
		r.stderr, r.theirs[1], err = os.Pipe()
	}
	if err != nil {
		return nil, errors.Join(err, r.note.Close(), r.stdout.Close(), r.theirs[0].Close())
	}
	return r, nil
}

// forget closes what is kept for telling what a helper did.
func (r *nvmlRun) forget() { _ = r.note.Close() }

// reap starts the process and waits for it, however long that takes.
func (r *nvmlRun) reap() {
	defer close(r.ended)
	// PR_SET_PDEATHSIG means the thread that started the process, not the process that the thread belongs to (prctl(2)).
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	r.err = r.cmd.Start()
	_, _ = r.theirs[0].Close(), r.theirs[1].Close()
	if r.err == nil {
		r.endGroup()
		r.err = r.cmd.Wait()
	}
}

// endGroup waits for the process to end and, before it is reaped and its number free for others, kills what it may have
// started.
func (r *nvmlRun) endGroup() {
	pid := r.cmd.Process.Pid
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	// None is left, usually.
	_ = unix.Kill(-pid, unix.SIGKILL)
}

// decode reads the helper's standard output.
func (r *nvmlRun) decode() {
	defer close(r.decoded)
	r.report, r.end, r.decodeErr = DecodeNVML(r.stdout)
}

// listen keeps the beginning of what the helper writes to its standard error, and takes the rest from it.
func (r *nvmlRun) listen() {
	defer close(r.heard)
	said, err := io.ReadAll(io.LimitReader(r.stderr, 1024))
	r.said = said
	if err == nil {
		// Until the pipe is closed at either end; nothing is to be done about anything else.
		_, _ = io.Copy(io.Discard, r.stderr)
	}
}

// follow waits for the helper's last word, makes it end, and says how it went.
func (r *nvmlRun) follow(ctx context.Context) (NVMLReport, error) {
	select {
	case <-r.decoded:
	case <-r.own.Done():
	case <-ctx.Done():
	}
	late := cmp.Or(r.own.Err(), ctx.Err())
	// Whoever still holds the other end of the pipe must not hold us.
	_ = r.stdout.Close()
	<-r.decoded
	if r.end != nil || errors.Is(r.decodeErr, io.ErrUnexpectedEOF) {
		// It has told all, or will not tell the rest: it is about to end by itself.
		await(ctx, r.ended, nvmlExit)
	}
	r.killed = time.Now()
	r.kill()
	await(ctx, r.ended, nvmlTimeout)
	// What it said is in the pipe, which nobody holds any more unless it could not be killed.
	await(ctx, r.heard, 50*time.Millisecond)
	_ = r.stderr.Close()
	<-r.heard
	r.cost()
	if r.end != nil && r.end.Missing+r.end.Failed == "" {
		return r.report, nil
	}
	return r.report, r.wrong(late)
}

// await waits for something to be over, for the context, and no longer than told.
func await(ctx context.Context, over <-chan struct{}, most time.Duration) {
	patience := time.NewTimer(most)
	defer patience.Stop()
	select {
	case <-over:
	case <-ctx.Done():
	case <-patience.C:
	}
}

// cost adds what the process used of the processor.
func (r *nvmlRun) cost() {
	select {
	case <-r.ended:
		if state := r.cmd.ProcessState; state != nil {
			r.report.CPU = (state.UserTime() + state.SystemTime()).Microseconds()
		}
	default:
	}
}

// wrong says why there is no report; late is why it was not waited for any longer.
func (r *nvmlRun) wrong(late error) error {
	switch {
	case r.end != nil && r.end.Missing != "":
		return fmt.Errorf("%w: %s", ErrNoNVML, r.end.Missing)
	case r.end != nil:
		return errors.New(r.end.Failed)
	case errors.Is(r.decodeErr, errNVMLProtocol):
		return r.decodeErr
	}
	select {
	case <-r.ended:
	default:
		return r.at(fmt.Errorf("%w: it was killed and has not ended", ErrStuck))
	}
	var exit *exec.ExitError
	switch {
	case errors.Is(r.err, os.ErrNotExist):
		return fmt.Errorf("no helper %s: roundhouse-nvml belongs beside the agent, and needs the C library that it was built for: %w", r.cmd.Path, r.err)
	case late != nil:
		return r.at(fmt.Errorf("%w: %w", ErrStuck, late))
	case errors.As(r.err, &exit) && exit.ExitCode() == nvmlDeadline:
		return r.at(ErrStuck)
	case r.cmd.ProcessState == nil:
		return fmt.Errorf("starting the helper: %w", r.err)
	}
	return r.at(fmt.Errorf("%w: %s", ErrNVMLCrashed, r.death()))
}

// death is how the process ended, and what it had to say.
func (r *nvmlRun) death() string {
	how := "it ended before its report did"
	status, ok := r.cmd.ProcessState.Sys().(syscall.WaitStatus)
	switch {
	case ok && status.Signaled():
		how = unix.SignalName(status.Signal())
	case r.err != nil:
		how = r.err.Error()
	}
	if said, _, _ := strings.Cut(strings.TrimSpace(string(r.said)), "\n"); said != "" {
		how += ": " + bound(strings.ToValidUTF8(said, "?"), 300)
	}
	return how
}

// at is an error in the call that was made last.
func (r *nvmlRun) at(err error) error { return &NVMLCallError{Call: r.call(), Err: err} }

// call is what the helper was about to do, or did, last.
func (r *nvmlRun) call() NVMLCall {
	note := make([]byte, NVMLNoteSize)
	n, err := r.note.ReadAt(note, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return NVMLCall{Name: "an unknown call", GPU: -1}
	}
	return ParseNVMLNote(note[:n])
}
