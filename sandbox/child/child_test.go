package child

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// run starts a shell script.
func run(t *testing.T, script string) *Process {
	t.Helper()
	p, err := Start(Program{
		Name: "the script", Path: "/bin/sh", Args: []string{"-c", script}, Env: []string{"GREETING=hello"},
		LogPath: filepath.Join(t.TempDir(), "log"),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Send(syscall.SIGKILL) })
	return p
}

func TestAProgramThatEndsIsAnErrorWithTheEndOfItsLog(t *testing.T) {
	for name, test := range map[string]struct{ script, want string }{
		"badly": {`echo "$GREETING"; exit 3`, "it exited: exit status 3"},
		"well":  {`echo "$GREETING"`, "it exited: exit status 0"},
	} {
		t.Run(name, func(t *testing.T) {
			p := run(t, test.script)
			err := p.WaitReady(t.Context(), http.DefaultClient, "http://127.0.0.1:1/")
			var failed *FailedError
			if !errors.As(err, &failed) || failed.Cause.Error() != test.want || failed.Tail != "hello" {
				t.Errorf("got %v, want %s and the log", err, test.want)
			}
			if p.Alive() {
				t.Error("it is alive")
			}
			if err := p.Send(syscall.SIGTERM); err != nil {
				t.Errorf("telling one that is gone to go: %v", err)
			}
		})
	}
}

func TestAProgramIsReadyWhenItsAddressSaysSo(t *testing.T) {
	asked := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if asked++; asked < 3 {
			http.Error(w, "not yet", http.StatusServiceUnavailable)
		}
	}))
	t.Cleanup(server.Close)
	p := run(t, "exec sleep 60")
	if err := p.WaitReady(t.Context(), server.Client(), server.URL); err != nil {
		t.Fatal(err)
	}
	if asked != 3 || !p.Alive() || p.PID == 0 {
		t.Errorf("asked %d times; alive: %t; process %d", asked, p.Alive(), p.PID)
	}
}

func TestAFrozenProgramCanBeKilled(t *testing.T) {
	p := run(t, "exec sleep 60")
	if err := p.Send(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if !p.Alive() {
		t.Error("a frozen one is not alive")
	}
	began := time.Now()
	if err := p.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	if p.Alive() || time.Since(began) > 30*time.Second || !strings.Contains(p.Ending().Error(), "killed") {
		t.Errorf("alive: %t after %s: %v", p.Alive(), time.Since(began), p.Ending())
	}
}

func TestAProgramThatIsNotThereIsAnError(t *testing.T) {
	dir := t.TempDir()
	if _, err := Start(Program{Name: "it", Path: filepath.Join(dir, "none"), LogPath: filepath.Join(dir, "log")}); err == nil || !strings.HasPrefix(err.Error(), "starting it: ") {
		t.Errorf("got %v", err)
	}
}
