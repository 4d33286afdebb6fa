package controlplane

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"
)

// testStart bounds the start in a test. It is long because the machine that runs the
// tests usually compiles others at the same time.
const testStart = 3 * time.Minute

// ForTest starts a control plane for one test and stops it afterwards. Without the
// binary the test fails, and says what to build: a test that skips proves nothing.
func ForTest(t testing.TB, options Options) *ControlPlane {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testStart)
	defer cancel()
	cp, err := Start(ctx, options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// t.Context is already cancelled during clean-up.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
		defer cancel()
		for {
			select {
			case err := <-cp.Exited():
				t.Errorf("during the test: %v", err)
				continue
			default:
			}
			break
		}
		if err := cp.Stop(ctx); err != nil {
			t.Errorf("stopping the control plane: %v", err)
		}
	})
	return cp
}

// RunTests is ForTest for a whole package: it starts one control plane, hands it to
// use, runs the tests and stops it. It returns the exit code for TestMain:
//
//	func TestMain(m *testing.M) {
//		os.Exit(controlplane.RunTests(m, options, func(cp *controlplane.ControlPlane) error {
//			shared = cp
//			return cp.Apply(...)
//		}))
//	}
func RunTests(m *testing.M, options Options, use func(*ControlPlane) error) int {
	ctx, cancel := context.WithTimeout(context.Background(), testStart) //nolint:forbidigo // TestMain is a main: no caller has a context to give.
	defer cancel()
	cp, err := Start(ctx, options)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := 1
	if err = use(cp); err == nil {
		code = m.Run()
	}
	select {
	case died := <-cp.Exited():
		err = errors.Join(err, died)
	default:
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	if err = errors.Join(err, cp.Stop(stop)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}
