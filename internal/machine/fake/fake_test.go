package fake

import (
	"context"
	"errors"
	"io/fs"
	"runtime"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/roundhouse-dev/roundhouse/internal/machine"
)

type clock struct{ t time.Time }

func (c *clock) now() time.Time { return c.t }

func newMachine(t *testing.T) (*Machine, *clock) {
	t.Helper()
	c := &clock{time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)}
	return New(Options{
		Hostname: "gpu-1", Devices: H200s(2, 1), Now: c.now, RebootTakes: time.Minute,
		BootID: "0fc70fad-6980-4f05-acf8-5f6c56120000", BootLines: []string{"Linux version"},
	}), c
}

// bus is what can be seen of each device.
func bus(t *testing.T, m *Machine) []string {
	t.Helper()
	devices, err := m.PCIDevices(t.Context(), nil)
	if err != nil {
		return []string{err.Error()}
	}
	var out []string
	for _, d := range devices {
		s := d.Address
		switch {
		case d.Config == machine.ConfigAllOnes:
			s += " dead"
		case d.Link.Width != 16 || d.Link.MTs != 32000:
			s += " degraded"
		}
		out = append(out, s)
	}
	return out
}

func TestBreaksAndWhatHealsThem(t *testing.T) {
	tests := map[string]struct {
		b             Break
		broken, after []string
	}{
		"dead, and a reboot heals it": {
			Break{Kind: Dead, HealsAfterBoots: 1}, []string{"0000:18:00.0 dead", "0000:28:00.0"}, []string{"0000:18:00.0", "0000:28:00.0"},
		},
		"gone, and no reboot heals it": {Break{Kind: Gone}, []string{"0000:28:00.0"}, []string{"0000:28:00.0"}},
		"narrow, and the second reboot heals it": {
			Break{Kind: Narrow, Width: 8, HealsAfterBoots: 2},
			[]string{"0000:18:00.0 degraded", "0000:28:00.0"}, []string{"0000:18:00.0 degraded", "0000:28:00.0"},
		},
		"slow": {
			Break{Kind: Slow, MTs: 2500, HealsAfterBoots: 1},
			[]string{"0000:18:00.0 degraded", "0000:28:00.0"}, []string{"0000:18:00.0", "0000:28:00.0"},
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			m, c := newMachine(t)
			if !m.Break("0000:18:00.0", tc.b) || m.Break("0000:99:00.0", tc.b) {
				t.Fatal("Break took the wrong device")
			}
			if diff := cmp.Diff(tc.broken, bus(t, m)); diff != "" {
				t.Errorf("broken (-want +got):\n%s", diff)
			}
			if err := m.Reboot(t.Context()); err != nil {
				t.Fatal(err)
			}
			c.t = c.t.Add(2 * time.Minute)
			if diff := cmp.Diff(tc.after, bus(t, m)); diff != "" {
				t.Errorf("after a reboot (-want +got):\n%s", diff)
			}
		})
	}
}

func TestWhatAResetHeals(t *testing.T) {
	tests := map[string]struct {
		b     Break
		after string
	}{
		"what it is said to heal": {Break{Kind: Dead, HealedByReset: true}, "0000:18:00.0"},
		"what only a reboot does": {Break{Kind: Dead, HealsAfterBoots: 1}, "0000:18:00.0 dead"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			m, _ := newMachine(t)
			m.Break("0000:18:00.0", tc.b)
			if _, err := m.ResetDevices(t.Context(), []string{"0000:18:00.0"}, machine.ResetByNVIDIA); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]string{tc.after, "0000:28:00.0"}, bus(t, m)); diff != "" {
				t.Errorf("after a reset (-want +got):\n%s", diff)
			}
		})
	}
	m, _ := newMachine(t)
	m.Break("0000:18:00.0", Break{Kind: Gone, HealedByReset: true})
	if _, err := m.ResetDevices(t.Context(), []string{"0000:18:00.0"}, machine.ResetByRescan); !errors.Is(err, machine.ErrNoSuchWay) {
		t.Errorf("a device off the bus was reset: %v", err)
	}
}

func TestARebootTakesItsTimeAndChangesTheBootID(t *testing.T) {
	m, c := newMachine(t)
	calls := 0
	m.o.Changed = func() { calls++ }
	before, err := m.BootID(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Save(t.Context(), "a", []byte("kept")); err != nil {
		t.Fatal(err)
	}
	if err := m.Reboot(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.t = c.t.Add(59 * time.Second)
	if _, err := m.BootID(t.Context()); !errors.Is(err, machine.ErrDown) {
		t.Errorf("within the reboot: %v", err)
	}
	up := m.DownUntil()
	c.t = c.t.Add(10 * time.Second)
	after, err := m.BootID(t.Context())
	if err != nil || after == before || len(after) != len(before) {
		t.Errorf("boot ID %q, then %q, %v", before, after, err)
	}
	if at, err := m.BootTime(t.Context()); err != nil || !at.Equal(up) {
		t.Errorf("boot time %v, %v", at, err)
	}
	if data, err := m.Load(t.Context(), "a"); err != nil || string(data) != "kept" {
		t.Errorf("state %q, %v", data, err)
	}
	if _, err := m.Load(t.Context(), "b"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what was never saved: %v", err)
	}
	if m.Reboots() != 1 || !m.DownUntil().IsZero() || calls != 1 {
		t.Errorf("%d reboots, down until %v, %d calls", m.Reboots(), m.DownUntil(), calls)
	}
}

func read(t *testing.T, r machine.LogReader) []string {
	t.Helper()
	var out []string
	buf := make([]byte, machine.MaxLogRecord)
	for {
		n, err := r.TryRead(buf)
		switch {
		case errors.Is(err, machine.ErrLogDrained):
			return out
		case err != nil:
			out = append(out, err.Error())
			if !errors.Is(err, machine.ErrLogOverrun) {
				return out
			}
		default:
			out = append(out, string(buf[:n]))
		}
	}
}

func TestTheKernelLogHasTheFormOfDevKmsg(t *testing.T) {
	m, c := newMachine(t)
	r, err := m.OpenLog(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c.t = c.t.Add(time.Second)
	m.Kernel("a\nb\\")
	m.Inject("c")
	want := []string{
		"4,0,0,-;Linux version\n",
		"4,1,0,-;NVRM: GPU at PCI:0000:18:00: GPU-00000001-0000-4000-8000-000000000000\n",
		"4,2,0,-;NVRM: GPU at PCI:0000:28:00: GPU-00000001-0000-4000-8000-000000000001\n",
		"4,3,1000000,-;a\\x0ab\\x5c\n", "12,4,1000000,-;c\n",
	}
	if diff := cmp.Diff(want, read(t, r)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	m.Storm(1000, "x")
	if got := read(t, r); len(got) < 2 || got[0] != machine.ErrLogOverrun.Error() || len(got) > maxLog+1 {
		t.Errorf("after a storm: %d records, first %q", len(got), got[0])
	}
	m.GoDown(0)
	if got := read(t, r); len(got) != 1 || got[0] != machine.ErrDown.Error() {
		t.Errorf("a log opened before the reboot: %q", got)
	}
}

func TestDoors(t *testing.T) {
	m, _ := newMachine(t)
	boom := errors.New("boom")
	m.Fail(DoorPCI, boom)
	if _, err := m.PCIDevices(t.Context(), nil); !errors.Is(err, boom) {
		t.Errorf("want boom, got %v", err)
	}
	m.Fail(DoorPCI, nil)
	m.Hang(DoorNVIDIA, true)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := m.NVIDIAGPUs(ctx); !errors.Is(err, machine.ErrStuck) {
		t.Errorf("want ErrStuck, got %v", err)
	}
	m.Hang(DoorNVIDIA, false)
	if gpus, err := m.NVIDIAGPUs(t.Context()); err != nil || len(gpus) != 2 {
		t.Errorf("%v, %v", gpus, err)
	}
}

// The sandbox runs tens of thousands: this holds what one may cost.
func TestAMachineIsCheap(t *testing.T) {
	const n = 2000
	var before, after runtime.MemStats
	goroutines := runtime.NumGoroutine()
	runtime.GC()
	runtime.ReadMemStats(&before)
	all := make([]*Machine, n)
	for i := range all {
		all[i] = New(Options{Devices: H200s(8, uint32(i))})
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	each := (after.HeapAlloc - before.HeapAlloc) / n
	t.Logf("%d bytes a machine of eight GPUs", each)
	if each > 8<<10 {
		t.Errorf("%d bytes", each)
	}
	if g := runtime.NumGoroutine(); g > goroutines {
		t.Errorf("%d goroutines, %d before", g, goroutines)
	}
	runtime.KeepAlive(all)
}
