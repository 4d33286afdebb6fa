package machine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// helperSaying is a helper that a shell plays, which says what it is told to.
func helperSaying(t *testing.T, lines string) *Host {
	t.Helper()
	path := filepath.Join(t.TempDir(), "helper")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+lines+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return NewHost(Options{NVMLHelper: path})
}

const (
	saysHello   = `echo '{"hello":{"protocol":1,"version":"v1"}}'` + "\n"
	saysMachine = `echo '{"machine":{"driver":"570.133.20","count":2}}'` + "\n"
	saysGPU     = `echo '{"gpu":{"index":1,"uuid":"GPU-1"}}'` + "\n"
	saysEnd     = `echo '{"end":{"tookMs":5}}'` + "\n"
	notes       = `echo '{"call":"nvmlDeviceGetName","gpu":1}' >&3` + "\n"
)

func TestWhatBecomesOfAHelper(t *testing.T) {
	tests := map[string]struct {
		script string
		is     error  // that errors.Is finds
		says   string // that the error's text has
		gpus   int
	}{
		"one that tells all": {script: saysHello + saysMachine + saysGPU + saysEnd, gpus: 1},
		"one that ends before its report": {
			script: saysHello + saysMachine + saysGPU + notes,
			is:     ErrNVMLCrashed, says: "nvmlDeviceGetName of GPU 1: the NVML helper crashed: it ended before its report did", gpus: 1,
		},
		"one that fails with a reason": {
			script: "echo 'cannot set limits' >&2; exit 1", is: ErrNVMLCrashed, says: "exit status 1: cannot set limits",
		},
		"one that dies of a signal": {
			script: saysHello + notes + "kill -SEGV $$", is: ErrNVMLCrashed,
			says: "nvmlDeviceGetName of GPU 1: the NVML helper crashed: SIGSEGV",
		},
		"one that ended itself at its deadline": {
			script: saysHello + notes + "exit 124", is: ErrStuck, says: "nvmlDeviceGetName of GPU 1",
		},
		"one without a library": {
			script: saysHello + `echo '{"end":{"missing":"neither here nor there"}}'`, is: ErrNoNVML, says: "neither here nor there",
		},
		"one whose library does not load": {
			script: saysHello + `echo '{"end":{"failed":"wrong ELF class"}}'`, says: "NVML: wrong ELF class",
		},
		"one of another version": {
			script: `echo '{"hello":{"protocol":2,"version":"v9"}}'`, is: errNVMLProtocol, says: "helper v9 speaks protocol 2, want 1",
		},
		"one that never stops talking": {
			script: saysHello + "while :; do echo '{\"gpu\":{\"index\":1}}'; done", is: errNVMLProtocol, says: "more than", gpus: 1,
		},
		"one that talks without a line's end": {
			script: saysHello + "cat /dev/zero", is: errNVMLProtocol, says: "a line of more than 65536 bytes",
		},
		"one that floods its standard error": {
			script: saysHello + saysMachine + "head -c 1000000 /dev/zero >&2\n" + saysEnd,
		},
		"one that ignores SIGTERM and hangs": {
			script: "trap '' TERM\n" + saysHello + saysMachine + saysGPU + notes + "while :; do sleep 1; done",
			is:     ErrStuck, says: "nvmlDeviceGetName of GPU 1: the machine did not answer in time", gpus: 1,
		},
		"one that tells all and then hangs": {
			script: saysHello + saysMachine + saysGPU + saysEnd + "while :; do sleep 1; done", gpus: 1,
		},
		"one that closes its standard output and hangs": {
			script: saysHello + notes + "exec >&-; while :; do sleep 1; done", is: ErrNVMLCrashed, says: "SIGKILL",
		},
		"one that leaves a child behind, which keeps its pipes": {
			script: saysHello + saysMachine + saysGPU + "sleep 60 &\n" + saysEnd, gpus: 1,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			// A program that is being written cannot be started, nor one that a child just forked still has open: all are
			// written before the first starts.
			h := helperSaying(t, tt.script)
			t.Parallel()
			began := time.Now()
			report, err := h.NVML(testContext(t, 2*time.Second))
			if took := time.Since(began); took > 2*time.Second {
				t.Errorf("took %s, longer than its deadline", took)
			}
			switch {
			case tt.is == nil && tt.says == "" && err != nil:
				t.Errorf("got %v", err)
			case tt.is != nil && !errors.Is(err, tt.is):
				t.Errorf("got %v, want %v", err, tt.is)
			case tt.says != "" && (err == nil || !strings.Contains(err.Error(), tt.says)):
				t.Errorf("got %v, want %q in it", err, tt.says)
			}
			if len(report.GPUs) != tt.gpus {
				t.Errorf("got %d GPUs, want %d", len(report.GPUs), tt.gpus)
			}
		})
	}
}

func TestNoHelper(t *testing.T) {
	h := NewHost(Options{NVMLHelper: filepath.Join(t.TempDir(), "roundhouse-nvml")})
	_, err := h.NVML(t.Context())
	if !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "roundhouse-nvml belongs beside the agent") {
		t.Errorf("got %v", err)
	}
	if errors.Is(err, ErrNVMLCrashed) || errors.Is(err, ErrNoNVML) || errors.Is(err, ErrStuck) {
		t.Errorf("%v is taken for something else", err)
	}
}

func TestTheHelperIsLookedForBesideTheProgram(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	_, err = NewHost(Options{}).NVML(t.Context())
	if want := filepath.Join(filepath.Dir(self), "roundhouse-nvml"); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %s in it", err, want)
	}
}

// A process that waits in the kernel does not even die of SIGKILL. Here one does not because nobody sends it.
func TestAHelperThatCannotBeKilledIsLeftBehindOnce(t *testing.T) {
	release := filepath.Join(t.TempDir(), "release")
	count := filepath.Join(t.TempDir(), "count")
	h := helperSaying(t, "echo >>"+count+"\n"+saysHello+saysMachine+notes+"while ! test -e "+release+"; do sleep 0.02; done\n"+saysEnd)
	h.nvml.kill = func(*os.Process) error { return nil }

	began := time.Now()
	_, err := h.NVML(testContext(t, 300*time.Millisecond))
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("took %s", took)
	}
	var at *NVMLCallError
	if !errors.Is(err, ErrStuck) || !errors.As(err, &at) || at.Call != (NVMLCall{Name: "nvmlDeviceGetName", GPU: 1}) {
		t.Errorf("got %v", err)
	}

	began = time.Now()
	_, err = h.NVML(testContext(t, 10*time.Second))
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("with one left behind, took %s, want at once", took)
	}
	if !errors.Is(err, ErrStuck) || !strings.Contains(err.Error(), "nvmlDeviceGetName of GPU 1") {
		t.Errorf("with one left behind: got %v", err)
	}
	if started := lines(t, count); started != 1 {
		t.Errorf("%d helpers were started, want 1", started)
	}

	if err := os.WriteFile(release, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	<-h.nvml.left.ended
	if report, err := h.NVML(testContext(t, 10*time.Second)); err != nil || report.Count != 2 {
		t.Errorf("when it has gone: %+v, %v", report, err)
	}
	if h.nvml.left != nil {
		t.Error("it is still remembered")
	}
}

func lines(t *testing.T, path string) int {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(data), "\n")
}

func TestASecondCallWaitsForTheFirst(t *testing.T) {
	h := helperSaying(t, saysHello+saysMachine+"sleep 0.3\n"+saysEnd)
	first := make(chan error, 1)
	go func() {
		_, err := h.NVML(testContext(t, 10*time.Second))
		first <- err
	}()
	for len(h.nvml.turn) == 0 {
		time.Sleep(time.Millisecond)
	}
	if _, err := h.NVML(testContext(t, 10*time.Millisecond)); !errors.Is(err, ErrStuck) {
		t.Errorf("an impatient second call: got %v", err)
	}
	if _, err := h.NVML(testContext(t, 10*time.Second)); err != nil {
		t.Errorf("a patient second call: got %v", err)
	}
	if err := <-first; err != nil {
		t.Errorf("the first call: got %v", err)
	}
}

// A child of the helper must not outlive it, and neither may be left as a zombie.
func TestNothingIsLeftOfAHelper(t *testing.T) {
	pids := filepath.Join(t.TempDir(), "pids")
	h := helperSaying(t, saysHello+"sleep 60 & echo $! $$ >"+pids+"\nwait")
	if _, err := h.NVML(testContext(t, 500*time.Millisecond)); !errors.Is(err, ErrStuck) {
		t.Fatal(err)
	}
	data, err := os.ReadFile(pids)
	if err != nil {
		t.Fatal(err)
	}
	for _, field := range strings.Fields(string(data)) {
		pid, err := strconv.Atoi(field)
		if err != nil {
			t.Fatal(err)
		}
		waitGone(t, pid)
	}
}

func waitGone(t *testing.T, pid int) {
	t.Helper()
	for range 200 {
		// A child whose parent died before it is a zombie until process 1, or who acts as one, has looked.
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if unix.Kill(pid, 0) != nil || err == nil && strings.Contains(string(stat), ") Z ") && !strings.Contains(string(stat), fmt.Sprintf(" Z %d ", os.Getpid())) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("process %d is still there", pid)
}

func TestFilesAreClosedAfterEachHelper(t *testing.T) {
	h := helperSaying(t, saysHello+saysMachine+saysEnd)
	open := func() int {
		fds, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(fds)
	}
	if _, err := h.NVML(t.Context()); err != nil {
		t.Fatal(err)
	}
	before := open()
	for range 5 {
		if _, err := h.NVML(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if after := open(); after > before {
		t.Errorf("%d files are open, %d were", after, before)
	}
}

// What the agent's environment holds, such as LD_PRELOAD or a token, is none of the library's business.
func TestTheEnvironmentOfAHelper(t *testing.T) {
	t.Setenv("ROUNDHOUSE_SECRET", "1")
	h := helperSaying(t, saysHello+`test -z "$ROUNDHOUSE_SECRET" || exit 3`+"\n"+saysMachine+saysEnd)
	if _, err := h.NVML(testContext(t, 10*time.Second)); err != nil {
		t.Error(err)
	}
}
