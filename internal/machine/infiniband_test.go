package machine

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestHostReadsInfiniBandPorts(t *testing.T) {
	root := unpack(t, "infiniband.sysfs")
	h := NewHost(Options{Root: root})
	got, err := h.InfiniBandPorts(testContext(t, 10*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	want := []InfiniBandPort{
		{
			Device: "mlx5_0", Number: 1, PCI: "0000:1a:00.0", GUID: "a088:c203:0012:3456", Model: "MT4129 MT_0000000838",
			State: PortActive, Phys: PhysLinkUp, Mbps: 400000, Lanes: 4, Layer: LayerInfiniBand,
			Counters: map[string]uint64{
				"symbol_error": 3, "link_error_recovery": 0, "link_downed": 255, "port_rcv_errors": 1, "port_xmit_discards": 12,
				"local_link_integrity_errors": 0, "excessive_buffer_overrun_errors": 0,
			},
		},
		{
			Device: "mlx5_1", Number: 1, PCI: "0000:3c:00.0", GUID: "a088:c203:0012:4567", Model: "MT4129 MT_0000000838",
			State: PortDown, Phys: PhysPolling, Mbps: 10000, Lanes: 4, Layer: LayerInfiniBand, Counters: map[string]uint64{},
		},
		{
			Device: "mlx5_2", Number: 1, PCI: "0000:51:00.2", Virtual: true, GUID: "0000:0000:0000:0000", Model: "MT4126",
			Phys: PhysLinkUp, Mbps: 100000, Lanes: 4, Layer: LayerEthernet, Counters: map[string]uint64{}, Unread: "state",
		},
		{
			Device: "rxe0", Number: 1, State: PortActive, Phys: PhysLinkUp, Mbps: 2500, Lanes: 1, Layer: LayerEthernet,
			Counters: map[string]uint64{},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got, err := NewHost(Options{Root: t.TempDir()}).InfiniBandPorts(testContext(t, time.Second)); err != nil || len(got) != 0 {
		t.Errorf("no driver is no ports: %v, %v", got, err)
	}

	// An adapter whose firmware does not answer holds up the read of its state.
	path := filepath.Join(root, "sys/class/infiniband/mlx5_0/ports/1/state")
	if err := errors.Join(os.Remove(path), syscall.Mkfifo(path, 0o644)); err != nil {
		t.Fatal(err)
	}
	if _, err := h.InfiniBandPorts(testContext(t, 20*time.Millisecond)); !errors.Is(err, ErrStuck) {
		t.Errorf("want ErrStuck, got %v", err)
	}
	if err := os.WriteFile(path, []byte("4: ACTIVE\n"), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestParsePortState(t *testing.T) {
	tests := map[string]struct {
		in   string
		want uint8
		bad  bool
	}{
		"active":                        {in: "4: ACTIVE\n", want: 4},
		"a physical state":              {in: "2: Polling", want: 2},
		"a state the kernel cannot say": {in: "0: <unknown>\n", want: 0},
		"no number is an error":         {in: "ACTIVE", bad: true},
		"a name before the colon":       {in: "ACTIVE: 4", bad: true},
		"a number too large":            {in: "256: ACTIVE", bad: true},
		"nothing is an error":           {in: "", bad: true},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := ParsePortState(tc.in)
			if got != tc.want || (err != nil) != tc.bad {
				t.Errorf("ParsePortState(%q) = %d, %v", tc.in, got, err)
			}
		})
	}
}

func TestParseInfiniBandRate(t *testing.T) {
	tests := map[string]struct {
		in    string
		mbps  uint32
		lanes uint8
		bad   bool
	}{
		"four lanes of HDR":         {in: "200 Gb/sec (4X HDR)\n", mbps: 200000, lanes: 4},
		"one lane of SDR":           {in: "2.5 Gb/sec (1X)", mbps: 2500, lanes: 1},
		"twelve lanes":              {in: "1200 Gb/sec (12X NDR)", mbps: 1200000, lanes: 12},
		"no lanes are unknown":      {in: "100 Gb/sec", mbps: 100000},
		"another unit is an error":  {in: "200 GT/s", bad: true},
		"two decimals are an error": {in: "2.55 Gb/sec (1X)", bad: true},
		"a negative rate":           {in: "-200 Gb/sec (4X HDR)", bad: true},
		"lanes that are no number":  {in: "200 Gb/sec (fourX HDR)", bad: true},
		"nothing is an error":       {in: "", bad: true},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			mbps, lanes, err := ParseInfiniBandRate(tc.in)
			if mbps != tc.mbps || lanes != tc.lanes || (err != nil) != tc.bad {
				t.Errorf("ParseInfiniBandRate(%q) = %d, %d, %v", tc.in, mbps, lanes, err)
			}
		})
	}
}

func TestParsePortCounter(t *testing.T) {
	if n, known, err := ParsePortCounter([]byte("12\n")); n != 12 || !known || err != nil {
		t.Errorf("%d, %v, %v", n, known, err)
	}
	if n, known, err := ParsePortCounter([]byte("N/A (no PMA)\n")); n != 0 || known || err != nil {
		t.Errorf("a port without the counter: %d, %v, %v", n, known, err)
	}
	if _, known, err := ParsePortCounter([]byte("\n")); known || err == nil {
		t.Errorf("an empty file: %v, %v", known, err)
	}
}

func TestPortStateString(t *testing.T) {
	for s, want := range map[PortState]string{PortDown: "DOWN", PortActiveDefer: "ACTIVE_DEFER", 77: "UNKNOWN"} {
		if got := s.String(); got != want {
			t.Errorf("%d is %q, want %q", s, got, want)
		}
	}
}

func FuzzParsePortState(f *testing.F) {
	f.Add("4: ACTIVE\n")
	f.Add("0: <unknown>")
	f.Fuzz(func(t *testing.T, s string) {
		if n, err := ParsePortState(s); err != nil && n != 0 {
			t.Errorf("%q is %d and %v", s, n, err)
		}
	})
}

func FuzzParseInfiniBandRate(f *testing.F) {
	for _, s := range []string{"200 Gb/sec (4X HDR)\n", "2.5 Gb/sec (1X)", "100 Gb/sec", "Gb/sec (X"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		mbps, lanes, err := ParseInfiniBandRate(s)
		if err != nil && (mbps != 0 || lanes != 0) {
			t.Errorf("%q is %d, %d and %v", s, mbps, lanes, err)
		}
		if mbps > 65535*1000+900 {
			t.Errorf("%q is %d", s, mbps)
		}
	})
}

func FuzzParsePortCounter(f *testing.F) {
	f.Add([]byte("12\n"))
	f.Add([]byte("N/A (no PMA)\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if n, known, err := ParsePortCounter(b); !known && n != 0 || known && err != nil {
			t.Errorf("%q is %d, %v, %v", b, n, known, err)
		}
	})
}
