package machine

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// watched is a system that does nothing to the machine and remembers what it was asked for.
type watched struct {
	calls   []string
	ns      string
	orderly error
	restart error
	syncs   chan struct{} // when set, sync waits for it
}

func (w *watched) sync() {
	if w.syncs != nil {
		<-w.syncs
	}
}

func (w *watched) systemctlReboot(_ context.Context, root string) error {
	w.calls = append(w.calls, "systemctl in "+filepath.Base(root))
	return w.orderly
}

func (w *watched) restartNow() error { w.calls = append(w.calls, "reboot(2)"); return w.restart }

func (w *watched) pidNamespace() (string, error) { return w.ns, nil }

// asSystem gives the watched its method of the same name as a field.
type asSystem struct{ *watched }

func (a asSystem) restart() error { return a.restartNow() }

func TestReboot(t *testing.T) {
	const container = "pid:[4026532199]"
	refused := errors.New("refused")
	tests := map[string]struct {
		systemd bool
		w       watched
		want    []string
		says    string // in the error; empty for none
	}{
		"systemd is asked, and the kernel when the machine is still up after the grace": {
			systemd: true, w: watched{ns: initPIDNamespace}, want: []string{"systemctl in root", "reboot(2)"},
		},
		"the kernel is asked at once when systemd refuses": {
			systemd: true, w: watched{ns: initPIDNamespace, orderly: refused}, want: []string{"systemctl in root", "reboot(2)"},
		},
		"the kernel is asked where there is no systemd": {
			w: watched{ns: initPIDNamespace}, want: []string{"reboot(2)"},
		},
		"in a PID namespace of its own the kernel is never asked: it would kill the container and call that a reboot": {
			w: watched{ns: container}, says: "would not reach the machine",
		},
		"both refuse, and both reasons are told": {
			systemd: true, w: watched{ns: initPIDNamespace, orderly: refused, restart: errors.New("not permitted")},
			want: []string{"systemctl in root", "reboot(2)"}, says: "refused",
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			if tc.systemd {
				if err := os.MkdirAll(filepath.Join(root, "proc/1/root/run/systemd/system"), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			h := NewHost(Options{Root: root, RebootGrace: 20 * time.Millisecond})
			h.system = asSystem{&tc.w}
			err := h.Reboot(testContext(t, 10*time.Second))
			if diff := cmp.Diff(tc.want, tc.w.calls); diff != "" {
				t.Errorf("calls (-want +got):\n%s", diff)
			}
			if (err != nil) != (tc.says != "") || err != nil && !strings.Contains(err.Error(), tc.says) {
				t.Errorf("error %v, want %q in it", err, tc.says)
			}
		})
	}
}

func TestRebootDoesNotWaitForASyncThatHangs(t *testing.T) {
	w := watched{ns: initPIDNamespace, syncs: make(chan struct{})}
	defer close(w.syncs)
	h := NewHost(Options{Root: t.TempDir(), RebootGrace: time.Millisecond})
	h.system = asSystem{&w}
	if err := h.Reboot(testContext(t, 20*time.Millisecond)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("want the deadline, got %v", err)
	}
	if len(w.calls) > 0 {
		t.Errorf("past its deadline it still did %v", w.calls)
	}
}
