package kernellog

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/roundhouse-dev/roundhouse/internal/health"
	"github.com/roundhouse-dev/roundhouse/internal/machine"
	"github.com/roundhouse-dev/roundhouse/internal/machine/fake"
)

const (
	offTheBus  = "NVRM: Xid (PCI:0000:18:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus."
	contained  = "NVRM: Xid (PCI:0000:18:00): 95, pid='<unknown>', name=<unknown>, Uncontained ECC error"
	appError   = "NVRM: Xid (PCI:0000:18:00): 13, pid=4711, name=python, Graphics Exception"
	uninvolved = "eth0: link becomes ready"
)

// clock is a time that a test sets.
type clock struct{ ns atomic.Int64 }

func newClock() *clock {
	c := &clock{}
	c.ns.Store(t0.UnixNano())
	return c
}

func (c *clock) now() time.Time          { return time.Unix(0, c.ns.Load()).UTC() }
func (c *clock) advance(d time.Duration) { c.ns.Add(int64(d)) }

// rig is a machine, its clock, and a check on it.
type rig struct {
	*testing.T
	clock *clock
	m     *fake.Machine
	check *Check
}

func newRig(t *testing.T) *rig {
	c := newClock()
	r := &rig{T: t, clock: c, m: fake.New(fake.Options{
		Devices: fake.H200s(2, 7), Now: c.now, BootID: "0fc70fad-6980-4f05-acf8-5f6c56122bb4", RebootTakes: time.Minute,
	})}
	r.restart()
	return r
}

// restart is a new agent on the same machine; the old one just stops, as in a crash.
func (r *rig) restart() { r.check = New(Options{Machine: r.m, Now: r.clock.now}) }

func (r *rig) look() health.Result {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.Context(), 10*time.Second)
	defer cancel()
	return r.check.Look(ctx)
}

// wait is what the runner does between looks, for as long as nothing comes.
func (r *rig) wait() {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.Context(), time.Millisecond)
	defer cancel()
	if err := r.check.Wait(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		r.Errorf("Wait: %v", err)
	}
}

// expect looks and compares the outcome and the codes with their counts.
func (r *rig) expect(when string, outcome health.Outcome, reason string, codes ...string) health.Result {
	r.Helper()
	res := r.look()
	var got []string
	for _, f := range res.Findings {
		got = append(got, fmt.Sprintf("%s x%d", f.Fault.Code, f.Fault.Count))
	}
	if res.Outcome != outcome || res.Reason != reason {
		r.Errorf("%s: %s %s (%s), want %s %s", when, res.Outcome, res.Reason, res.Message, outcome, reason)
	}
	if diff := cmp.Diff(codes, got); diff != "" {
		r.Errorf("%s: findings (-want +got):\n%s", when, diff)
	}
	return res
}

func TestALineBecomesAFinding(t *testing.T) {
	r := newRig(t)
	r.expect("at the start", health.Passing, "")
	r.clock.advance(90 * time.Second)
	r.m.Kernel(uninvolved, offTheBus)
	res := r.expect("after the line", health.Failing, "", "Xid79 x1")
	f := res.Findings[0]
	if !f.Fault.FirstSeen.Equal(ptr(f.Fault.LastSeen)) || !f.Fault.FirstSeen.Time.Equal(t0.Add(90*time.Second)) {
		t.Errorf("seen %v to %v", f.Fault.FirstSeen, f.Fault.LastSeen)
	}
	if f.Fault.Evidence != offTheBus || f.PCI != "0000:18:00.0" || !f.Fault.Root || f.ClearedBy != health.ClearedByBoot {
		t.Errorf("%+v", f)
	}
	if got := r.check.UUID("0000:18:00.0"); got != "GPU-00000007-0000-4000-8000-000000000000" {
		t.Errorf("UUID %q", got)
	}
}

func ptr[T any](v T) *T { return &v }

func TestApplicationErrorsPass(t *testing.T) {
	r := newRig(t)
	for range 100 {
		r.m.Kernel(appError)
	}
	r.expect("a storm of an application", health.Passing, "", "Xid13 x100")
	r.clock.advance(11 * time.Minute)
	r.expect("after it", health.Passing, "")
}

func TestWaitReturnsAtOnceWhenALineComes(t *testing.T) {
	r := newRig(t)
	r.look()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	woken := make(chan error, 1)
	go func() { woken <- r.check.Wait(ctx) }()
	time.Sleep(5 * time.Millisecond)
	r.m.Kernel(offTheBus)
	if err := <-woken; err != nil {
		t.Fatal(err)
	}
	r.expect("woken", health.Failing, "", "Xid79 x1")
}

func TestWhatAProcessWroteIsNotBelieved(t *testing.T) {
	r := newRig(t)
	r.m.Inject(offTheBus)
	r.m.Log(31<<3|4, offTheBus)
	r.expect("injected", health.Passing, "")
	if s := r.check.Stats(); s.Refused != 2 || s.Matched != 0+2 || s.AcceptsInjected {
		t.Errorf("%+v", s) // the two matched are the driver's UUID lines
	}

	r.check = New(Options{Machine: r.m, Now: r.clock.now, AcceptInjected: true})
	r.expect("with the flag of tests", health.Failing, "", "Xid79 x2")
	if s := r.check.Stats(); !s.AcceptsInjected {
		t.Error("the flag does not show")
	}
}

func TestARestartNeitherRepeatsNorMissesALine(t *testing.T) {
	for name, stop := range map[string]func(*rig){
		"a crash after the state was saved":  func(r *rig) { r.wait() },
		"a crash before the state was saved": func(*rig) {},
		"an orderly end": func(r *rig) {
			if err := r.check.Close(r.Context()); err != nil {
				r.Error(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.m.Kernel(contained, appError)
			first := r.expect("before", health.Failing, "", "Xid95 x1", "Xid13 x1")
			stop(r)
			r.m.Kernel(appError)
			r.clock.advance(time.Second)
			r.restart()
			second := r.expect("after", health.Failing, "", "Xid95 x1", "Xid13 x2")
			if !first.Findings[0].Fault.FirstSeen.Equal(ptr(second.Findings[0].Fault.FirstSeen)) {
				t.Error("first seen has changed")
			}
			if s := r.check.Stats(); s.Lost != 0 {
				t.Errorf("%d lines lost", s.Lost)
			}
		})
	}
}

func TestAFaultOutlivesTheLinesThatToldOfIt(t *testing.T) {
	r := newRig(t)
	r.m.Kernel(contained)
	r.look()
	r.wait()
	r.m.Storm(1000, uninvolved)
	r.restart()
	r.expect("the log has wrapped while nobody read", health.Failing, "", "Xid95 x1")
	if s := r.check.Stats(); s.Lost == 0 {
		t.Error("the loss was not noticed")
	}
}

func TestANewBootStartsClean(t *testing.T) {
	r := newRig(t)
	r.m.Kernel(contained, offTheBus)
	r.expect("before", health.Failing, "", "Xid95 x1", "Xid79 x1")
	r.wait()
	r.m.GoDown(time.Minute)
	r.expect("down", health.Unknown, health.ReasonCannotRead, "Xid95 x1", "Xid79 x1")
	r.clock.advance(2 * time.Minute)
	r.expect("up again, same agent object", health.Passing, "")
	r.m.Kernel(contained)
	r.expect("and again", health.Failing, "", "Xid95 x1")
	r.m.GoDown(0)
	r.restart()
	r.expect("after a boot, new agent", health.Passing, "")
}

func TestOldLinesAreHistoryToAnAgentThatIsNew(t *testing.T) {
	r := newRig(t)
	r.m.Kernel(contained, appError, offTheBus)
	r.clock.advance(2 * time.Hour)
	r.m.Kernel(strings.Replace(contained, "18:00", "28:00", 1))
	res := r.expect("first look of this boot", health.Failing, "", "Xid79 x1", "Xid95 x1")
	if res.Findings[1].PCI != "0000:28:00.0" {
		t.Errorf("the old one counts: %+v", res.Findings[1])
	}
}

func TestLostLinesAreUnknownNotHealthy(t *testing.T) {
	r := newRig(t)
	r.look()
	r.m.Storm(1000, uninvolved)
	r.expect("after an overrun", health.Unknown, ReasonLinesLost)
	if s := r.check.Stats(); s.Overruns != 1 || s.Lost == 0 || s.Lost+s.Records != 1002 {
		t.Errorf("%+v", s)
	}
	r.clock.advance(2 * time.Minute)
	r.expect("a while later", health.Passing, "")
	r.m.Storm(1000, contained)
	if res := r.look(); res.Outcome != health.Failing || res.Message == "" {
		t.Errorf("a fault that was seen is said, and the loss with it: %s %q", res.Outcome, res.Message)
	}
}

func TestCannotLook(t *testing.T) {
	tests := map[string]struct {
		arrange func(*fake.Machine)
		reason  string
	}{
		"the log cannot be opened": {func(m *fake.Machine) { m.Fail(fake.DoorLog, errors.New("permission denied")) }, health.ReasonCannotRead},
		"the machine hangs":        {func(m *fake.Machine) { m.Hang(fake.DoorBoot, true) }, health.ReasonTimedOut},
		"there is no boot ID":      {func(m *fake.Machine) { m.Fail(fake.DoorBoot, errors.New("gone")) }, health.ReasonCannotRead},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.m.Kernel(contained)
			tc.arrange(r.m)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			defer cancel()
			res := r.check.Look(ctx)
			if res.Outcome != health.Unknown || res.Reason != tc.reason || res.Message == "" || res.Again == 0 {
				t.Errorf("%+v", res)
			}
		})
	}
}

func TestALogThatBreaksIsOpenedAgainWhereItWas(t *testing.T) {
	r := newRig(t)
	r.m.Kernel(contained)
	r.expect("before", health.Failing, "", "Xid95 x1")
	r.m.Fail(fake.DoorLog, errors.New("input/output error"))
	r.expect("broken: what stood stands", health.Unknown, health.ReasonCannotRead, "Xid95 x1")
	r.m.Kernel(contained)
	r.m.Fail(fake.DoorLog, nil)
	r.expect("mended", health.Failing, "", "Xid95 x2")
}

func TestADiskThatFailsDoesNotBlindTheCheck(t *testing.T) {
	r := newRig(t)
	r.m.Fail(fake.DoorStore, errors.New("read-only file system"))
	r.m.Kernel(contained)
	r.expect("the state may still come", health.Unknown, health.ReasonCannotRead)
	r.look()
	r.expect("it does not", health.Failing, "", "Xid95 x1")
	r.wait()
	if res := r.look(); !strings.Contains(res.Message, "state is not kept") {
		t.Errorf("message %q", res.Message)
	}
	if s := r.check.Stats(); s.SaveErrors == 0 {
		t.Error("no save error is counted")
	}
}

func TestABrokenStateFileIsStartedAnew(t *testing.T) {
	r := newRig(t)
	if err := r.m.Save(t.Context(), stateFile, []byte("{")); err != nil {
		t.Fatal(err)
	}
	r.m.Kernel(contained)
	if res := r.expect("", health.Failing, "", "Xid95 x1"); !strings.Contains(res.Message, stateFile) {
		t.Errorf("message %q", res.Message)
	}
}

func TestDeviceResetClearsAndIsKept(t *testing.T) {
	r := newRig(t)
	r.m.Kernel(contained)
	r.look()
	if err := r.check.DeviceReset(t.Context(), "0000:18:00.0"); err != nil {
		t.Fatal(err)
	}
	r.expect("after the reset", health.Passing, "")
	r.restart()
	r.expect("after a restart", health.Passing, "")
}

func TestWhatAResetItselfLogsIsOverWithIt(t *testing.T) {
	r := newRig(t)
	r.m.Kernel(contained, strings.Replace(offTheBus, "0000:18:00", "0000:28:00", 1))
	r.look()
	// Nobody looks while the device is reset.
	r.m.Kernel(offTheBus, strings.Replace(contained, "0000:18:00", "0000:38:00", 1))
	if err := r.check.DeviceReset(t.Context(), "0000:18:00.0"); err != nil {
		t.Fatal(err)
	}
	want := []string{"Xid79 x1", "Xid95 x1"} // of the two others
	r.expect("after the reset", health.Failing, "", want...)
	r.restart()
	r.expect("after a restart", health.Failing, "", want...)
	r.m.Kernel(offTheBus)
	r.expect("when it falls off the bus later", health.Failing, "", "Xid79 x1", "Xid95 x1", "Xid79 x1")
}

func TestWhatWasOffTheBusBeforeIsNotOverWithAReset(t *testing.T) {
	r := newRig(t)
	r.m.Kernel(offTheBus)
	r.look()
	r.m.Kernel(offTheBus)
	if err := r.check.DeviceReset(t.Context(), "0000:18:00.0"); err != nil {
		t.Fatal(err)
	}
	r.expect("after the reset", health.Failing, "", "Xid79 x2")
}

func TestOneLookIsBounded(t *testing.T) {
	r := newRig(t)
	r.look()
	flood := &floodReader{}
	r.check.reader = flood
	res := r.look()
	if res.Again == 0 || flood.n != maxRecords {
		t.Errorf("again %v after %d records", res.Again, flood.n)
	}
}

type floodReader struct{ n int }

func (f *floodReader) TryRead(buf []byte) (int, error) {
	f.n++
	return len(fmt.Appendf(buf[:0], "4,%d,1,-;%s\n", f.n+100, appError)), nil
}
func (f *floodReader) Wait(context.Context) error { return nil }
func (f *floodReader) Close() error               { return nil }

func TestAStormIsFewWritesToTheDisk(t *testing.T) {
	r := newRig(t)
	c := &countingStore{Machine: r.m}
	r.check = New(Options{Machine: c, Now: r.clock.now})
	for range 1000 {
		r.m.Kernel(appError)
		r.look()
		r.wait()
		r.clock.advance(10 * time.Millisecond)
	}
	if c.saves > 5 {
		t.Errorf("%d saves in ten seconds of storm", c.saves)
	}
	c.saves = 0
	for range 360 {
		r.look()
		r.wait()
		r.clock.advance(10 * time.Second)
	}
	if c.saves > 3 {
		t.Errorf("%d saves in an idle hour", c.saves)
	}
}

type countingStore struct {
	*fake.Machine
	saves int
}

func (c *countingStore) Save(ctx context.Context, name string, data []byte) error {
	c.saves++
	return c.Machine.Save(ctx, name, data)
}

var _ machine.Store = (*countingStore)(nil)

func TestADriverThatIsLoadedAnewStartsClean(t *testing.T) {
	const loading = "NVRM: loading NVIDIA UNIX x86_64 Kernel Module  580.105.08  Fri Oct 31 15:01:23 UTC 2025"
	r := newRig(t)
	r.m.Kernel(
		"NVRM: GPU 0000:18:00.0: RmInitAdapter failed! (0x25:0x65:1457)",
		"NVRM: Xid (PCI:0000:18:00): 119, Timeout after 45s of waiting for RPC response from GPU0 GSP! Expected function 76",
		"NVRM: Xid (PCI:0000:28:00): 79, GPU has fallen off the bus.",
	)
	r.expect("before", health.Failing, "", "NVIDIAInitFailed x1", "Xid119 x1", "Xid79 x1")
	r.m.Inject(loading)
	r.expect("a process says so", health.Failing, "", "NVIDIAInitFailed x1", "Xid119 x1", "Xid79 x1")
	r.m.Kernel(loading)
	r.expect("loaded anew, what only a boot clears stands", health.Failing, "", "Xid79 x1")
	r.m.Kernel("NVRM: GPU 0000:18:00.0: RmInitAdapter failed! (0x25:0x65:1457)")
	r.expect("what still is wrong is said again", health.Failing, "", "Xid79 x1", "NVIDIAInitFailed x1")
}

func TestWhatAFirewallLogsIsNotBelieved(t *testing.T) {
	r := newRig(t)
	r.m.Kernel("NVRM: Xid (PCI:0000:18:00): 79, IN=eth0 OUT= MAC=00:00:5e:00:53:01 SRC=192.0.2.1 DST=192.0.2.2 LEN=60")
	r.expect("a rule's prefix", health.Passing, "")
	if s := r.check.Stats(); s.Refused != 1 {
		t.Errorf("%d refused, want 1", s.Refused)
	}
}
