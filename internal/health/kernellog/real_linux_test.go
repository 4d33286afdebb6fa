package kernellog

import (
	"context"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/roundhouse-dev/roundhouse/internal/machine"
)

// TestRealKernelLogLatency measures from a line written to the real /dev/kmsg to the finding, through the real reader.
// The line's Xid does not exist, so that nothing else that follows this log takes it for a fault.
func TestRealKernelLogLatency(t *testing.T) {
	out, err := os.OpenFile("/dev/kmsg", os.O_WRONLY, 0)
	if err != nil {
		t.Skipf("this needs to write to /dev/kmsg: %v", err)
	}
	defer func() { _ = out.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	host := machine.NewHost(machine.Options{StateDir: t.TempDir()})
	if r, err := host.OpenLog(ctx); err != nil {
		t.Skipf("this needs to read /dev/kmsg: %v", err)
	} else if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	check := New(Options{Machine: host, AcceptInjected: true})
	for res := check.Look(ctx); res.Again > 0; res = check.Look(ctx) {
		if res.Reason != "" {
			t.Fatalf("%s: %s", res.Reason, res.Message)
		}
	}
	// The kernel lets one open file write ten lines in five seconds (printk_ratelimit of devkmsg).
	const lines = 9
	took := make([]time.Duration, 0, lines)
	mark := time.Now().UnixNano() % 1e6
	for i := range lines {
		code := 9000000 + int(mark)*9 + i
		want := fmt.Sprintf("Xid%d", code)
		began := time.Now()
		if _, err := fmt.Fprintf(out, "NVRM: Xid (PCI:00fe:1f:00): %d, a test of roundhouse\n", code); err != nil {
			t.Fatal(err)
		}
		for found := false; !found; {
			if err := check.Wait(ctx); err != nil {
				t.Fatalf("line %d never came: %v", i, err)
			}
			for _, f := range check.Look(ctx).Findings {
				found = found || f.Fault.Code == want
			}
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	t.Logf("line written to finding: median %v, worst of %d %v", took[lines/2], lines, took[lines-1])
	if took[lines/2] > 50*time.Millisecond {
		t.Errorf("median %v", took[lines/2])
	}
	if s := check.Stats(); s.SaveErrors > 0 || s.Malformed > 0 {
		t.Errorf("%+v", s)
	}
}
