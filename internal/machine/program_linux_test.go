package machine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// script writes an executable shell script and returns its path.
func script(t *testing.T, dir, name, body string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+body), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestRunProgram(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
	dir := t.TempDir()
	tests := map[string]struct {
		body string
		p    Program
		exit int
		out  string
	}{
		"exit 0":                       {"echo fine", Program{}, 0, "fine\n"},
		"exit 1 is no error":           {"echo broken; exit 1", Program{}, 1, "broken\n"},
		"any other code too":           {"exit 42", Program{}, 42, ""},
		"a signal is -1":               {"kill -9 $$", Program{}, -1, ""},
		"arguments are handed on":      {`echo "$#: $1 $2"`, Program{Args: []string{"a b", "c"}}, 0, "2: a b c\n"},
		"stdin too":                    {"cat", Program{Stdin: []byte("hello")}, 0, "hello"},
		"without one it is empty":      {"cat", Program{}, 0, ""},
		"the working directory is /":   {"pwd", Program{}, 0, "/\n"},
		"or the one given":             {"pwd", Program{Dir: dir}, 0, dir + "\n"},
		"output is cut":                {"printf 0123456789", Program{MaxOutput: 4}, 0, "0123"},
		"the environment is not ours":  {`echo "$KUBERNETES_SERVICE_HOST,$HOME,$LC_ALL"`, Program{}, 0, ",/,C\n"},
		"but what is given":            {`echo "$NODE_NAME,$HOME"`, Program{Env: []string{"NODE_NAME=n1", "HOME=/x"}}, 0, "n1,/x\n"},
		"binary output comes as it is": {`printf '\377\000\001'`, Program{}, 0, "\xff\x00\x01"},
	}
	h := NewHost(Options{Root: t.TempDir()})
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			p := tc.p
			p.Path, p.Timeout = script(t, t.TempDir(), "s.sh", tc.body), 10*time.Second
			if p.MaxOutput == 0 {
				p.MaxOutput = 1000
			}
			ran, err := h.RunProgram(t.Context(), p)
			if err != nil || ran.Exit != tc.exit || string(ran.Stdout) != tc.out || ran.TimedOut {
				t.Errorf("%+v %q, %v", ran, ran.Stdout, err)
			}
			if want := len(tc.out) == 4 && p.MaxOutput == 4; ran.Cut != want {
				t.Errorf("cut is %v", ran.Cut)
			}
		})
	}
}

func TestARelativePathIsBelowTheWorkingDirectory(t *testing.T) {
	dir := t.TempDir()
	script(t, dir, "s.sh", "echo $0")
	ran, err := NewHost(Options{}).RunProgram(t.Context(), Program{Path: "./s.sh", Dir: dir, Timeout: time.Minute, MaxOutput: 100})
	if err != nil || !strings.Contains(string(ran.Stdout), "s.sh") {
		t.Errorf("%q, %v", ran.Stdout, err)
	}
}

func TestAFloodIsReadAndThrownAway(t *testing.T) {
	p := Program{
		Path: script(t, t.TempDir(), "s.sh", "head -c 50000000 /dev/zero; head -c 50000000 /dev/zero >&2; exit 1"), Timeout: time.Minute, MaxOutput: 4096,
	}
	ran, err := NewHost(Options{}).RunProgram(t.Context(), p)
	if err != nil || ran.Exit != 1 || len(ran.Stdout) != 4096 || len(ran.Stderr) != 4096 || cap(ran.Stdout) > 100000 || !ran.Cut {
		t.Errorf("%d %d %d, %v", ran.Exit, len(ran.Stdout), len(ran.Stderr), err)
	}
}

func TestAnEndlessProgramEndsWhenEnoughIsRead(t *testing.T) {
	p := Program{Path: script(t, t.TempDir(), "s.sh", "exec cat /dev/zero"), Timeout: time.Minute, MaxOutput: 4096, EndWhenFull: true}
	ran, err := NewHost(Options{}).RunProgram(t.Context(), p)
	if err != nil || ran.TimedOut || !ran.Cut || len(ran.Stdout) != 4096 || ran.Took > 10*time.Second {
		t.Errorf("%d bytes, %s, %v", len(ran.Stdout), ran.State, err)
	}
}

// alive says whether a process is there and no zombie.
// waitGonePID waits until the process whose number is in a file has gone.
func waitGonePID(t *testing.T, pidFile string) {
	t.Helper()
	data, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		t.Fatal(err)
	}
	waitGone(t, pid)
}

func TestTheWholeGroupIsKilledAtTheTimeout(t *testing.T) {
	dir := t.TempDir()
	p := Program{
		Path:    script(t, dir, "s.sh", "echo before; sleep 1000 & echo $! > "+dir+"/pid; wait"),
		Timeout: 300 * time.Millisecond, MaxOutput: 100,
	}
	began := time.Now()
	ran, err := NewHost(Options{}).RunProgram(t.Context(), p)
	if err != nil || !ran.TimedOut || ran.Exit != -1 || string(ran.Stdout) != "before\n" {
		t.Errorf("%+v, %v", ran, err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("took %s", took)
	}
	waitGonePID(t, filepath.Join(dir, "pid"))
}

func TestWhatAScriptLeavesBehindDoesNotHoldItUp(t *testing.T) {
	dir := t.TempDir()
	p := Program{
		Path:    script(t, dir, "s.sh", "sleep 1000 & echo $! > "+dir+"/pid; echo done; exit 1"),
		Timeout: time.Minute, MaxOutput: 100,
	}
	began := time.Now()
	ran, err := NewHost(Options{}).RunProgram(t.Context(), p)
	if err != nil || ran.TimedOut || ran.Exit != 1 || string(ran.Stdout) != "done\n" {
		t.Errorf("%+v, %v", ran, err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("took %s", took)
	}
	waitGonePID(t, filepath.Join(dir, "pid"))
}

func TestNorDoesWhatLeftItsGroup(t *testing.T) {
	if _, err := exec.LookPath("setsid"); err != nil {
		t.Skip("no setsid here")
	}
	dir := t.TempDir()
	p := Program{
		Path:    script(t, dir, "s.sh", "setsid sh -c 'echo $$ > "+dir+"/pid; exec sleep 1000' &\nwhile [ ! -s "+dir+"/pid ]; do sleep 0.01; done; echo done"),
		Timeout: 20 * time.Second, MaxOutput: 100,
	}
	began := time.Now()
	ran, err := NewHost(Options{}).RunProgram(t.Context(), p)
	if err != nil || ran.TimedOut || ran.Exit != 0 || string(ran.Stdout) != "done\n" {
		t.Errorf("%+v %q, %v", ran, ran.Stdout, err)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("took %s", took)
	}
	data, err := os.ReadFile(filepath.Join(dir, "pid"))
	if err != nil {
		t.Fatal(err)
	}
	if err := exec.Command("kill", strings.TrimSpace(string(data))).Run(); err != nil {
		t.Errorf("it should have lived on: %v", err)
	}
}

func TestACancelledContextKillsToo(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	p := Program{Path: script(t, dir, "s.sh", "echo $$ > "+dir+"/pid; exec sleep 1000"), Timeout: time.Minute}
	if _, err := NewHost(Options{}).RunProgram(ctx, p); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	waitGonePID(t, filepath.Join(dir, "pid"))
}

func TestWhatCannotStartIsAnError(t *testing.T) {
	dir := t.TempDir()
	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, []byte("#!/bin/sh\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	h := NewHost(Options{})
	tests := map[string]struct {
		p    Program
		want error
	}{
		"a missing program": {Program{Path: filepath.Join(dir, "none"), Timeout: time.Second}, fs.ErrNotExist},
		"no permission":     {Program{Path: plain, Timeout: time.Second}, fs.ErrPermission},
		"a missing root":    {Program{Root: filepath.Join(dir, "none"), Path: "/bin/sh", Timeout: time.Second}, fs.ErrNotExist},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if os.Getuid() != 0 && tc.p.Root != "" {
				t.Skip("chroot needs root")
			}
			if ran, err := h.RunProgram(t.Context(), tc.p); !errors.Is(err, tc.want) {
				t.Errorf("%+v, %v", ran, err)
			}
		})
	}
	if _, err := h.RunProgram(t.Context(), Program{Path: "/bin/true"}); err == nil || !strings.Contains(err.Error(), "time-out") {
		t.Error(err)
	}
}

func TestNothingIsStartedWhileTooManyCannotBeKilled(t *testing.T) {
	unkillable.Store(maxUnkillable)
	defer unkillable.Store(0)
	if _, err := NewHost(Options{}).RunProgram(t.Context(), Program{Path: "/bin/true", Timeout: time.Second}); !errors.Is(err, ErrStuck) {
		t.Error(err)
	}
}

// TestRunProgramInAnImagesRoot runs a program whose root is a directory with nothing but a shell and its libraries.
func TestRunProgramInAnImagesRoot(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("chroot needs root")
	}
	root := t.TempDir()
	libs, err := exec.Command("ldd", "/bin/sh").Output()
	if err != nil {
		t.Skip("no ldd here: ", err)
	}
	files := []string{"/bin/sh"}
	for _, word := range strings.Fields(string(libs)) {
		if strings.HasPrefix(word, "/") {
			files = append(files, word)
		}
	}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Join(root, filepath.Dir(f)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, f), data, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	script(t, root, "check", "echo $PWD; echo /*")
	if err := os.Symlink("/check", filepath.Join(root, "link")); err != nil {
		t.Fatal(err)
	}
	h := NewHost(Options{})
	ran, err := h.RunProgram(t.Context(), Program{Root: root, Path: "/link", Timeout: 10 * time.Second, MaxOutput: 1000})
	if out := string(ran.Stdout); err != nil || ran.Exit != 0 || !strings.HasPrefix(out, "/\n/bin /check") || strings.Contains(out, "/proc") {
		t.Errorf("%+v %q, %v", ran, out, err)
	}
	// The absolute link is the image's, not ours.
	if err := h.FindProgram(t.Context(), Program{Root: root, Path: "/link"}); err != nil {
		t.Error(err)
	}
	if err := h.FindProgram(t.Context(), Program{Root: root, Path: "/none"}); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

func TestFindProgram(t *testing.T) {
	dir := t.TempDir()
	script(t, dir, "s.sh", "")
	h := NewHost(Options{})
	if err := h.FindProgram(t.Context(), Program{Path: "./s.sh", Dir: dir}); err != nil {
		t.Error(err)
	}
	if err := h.FindProgram(t.Context(), Program{Path: "./t.sh", Dir: dir}); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

func TestManyProgramsAtOnceLeaveNothingBehind(t *testing.T) {
	h := NewHost(Options{})
	path := script(t, t.TempDir(), "s.sh", "exit 3")
	errs := make(chan error)
	for range 20 {
		go func() {
			ran, err := h.RunProgram(t.Context(), Program{Path: path, Timeout: 30 * time.Second, MaxOutput: 10})
			if err == nil && ran.Exit != 3 {
				err = fmt.Errorf("exit %d", ran.Exit)
			}
			errs <- err
		}()
	}
	for range 20 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if unkillable.Load() != 0 {
		t.Error(unkillable.Load())
	}
}
