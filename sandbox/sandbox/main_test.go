package sandbox

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/roundhouse-dev/roundhouse/sandbox/fleet"
)

// shared is the sandbox that most tests use: eight nodes, of which the last two offer their GPUs by device plugin.
var shared *Sandbox

// startWithin bounds the start in a test. It is long because the machine that runs the tests usually compiles others at
// the same time.
const startWithin = 3 * time.Minute

func TestMain(m *testing.M) { os.Exit(runTests(m)) }

func runTests(m *testing.M) int {
	ctx, cancel := context.WithTimeout(context.Background(), startWithin)
	defer cancel()
	state, err := os.MkdirTemp("", "rh-state-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(state)
	shared, err = Start(ctx, Options{
		StateDir: state,
		Fleet:    fleet.Options{Nodes: 8, DevicePlugin: 2, RebootTakes: time.Second},
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Printf("8 nodes with their agents: ready after %s\n", shared.Ready().Round(time.Millisecond))
	code := m.Run()
	select {
	case err := <-shared.Exited():
		fmt.Fprintln(os.Stderr, "during the tests:", err)
		code = 1
	default:
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	if err := shared.Stop(stop); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// eventually asks until the answer is true, and returns how long that took. An error beside a false answer says what there
// is instead.
func eventually(t *testing.T, within time.Duration, what string, done func(ctx context.Context) (bool, error)) time.Duration {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	began := time.Now()
	var last error
	for {
		ok, err := done(ctx)
		if ok {
			return time.Since(began)
		}
		if err != nil && ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			t.Fatalf("after %s, still not so: %s (last error: %v)", within, what, last)
		case <-time.After(10 * time.Millisecond):
		}
	}
}
