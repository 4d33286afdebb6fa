package nvidia

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/roundhouse-dev/roundhouse/internal/health"
	"github.com/roundhouse-dev/roundhouse/internal/machine"
	"github.com/roundhouse-dev/roundhouse/internal/machine/fake"
)

var t0 = time.Date(2026, 11, 26, 10, 0, 0, 0, time.UTC)

// fixture reads a report of testdata. They have the shape of what the NVML helper gives: the values and the errors of the
// calls that failed, by the names of nvml.h. h100x8 is an HGX board of eight at full work, v100x4 a board of before A100,
// a100x2-mig two cards of which one is split. Those captured were printed by roundhouse-nvml -pretty on virtual machines with one
// H100 and one H200, driver 580.159.04, idle and multiplying matrices; identities were replaced.
func fixture(t testing.TB, name string) machine.NVMLReport {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	var r machine.NVMLReport
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return r
}

// copyOf is a report that shares nothing with the other.
func copyOf(t testing.TB, r machine.NVMLReport) machine.NVMLReport {
	t.Helper()
	data, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var out machine.NVMLReport
	if err := json.Unmarshal(data, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// host is a machine whose NVML answers what the test says.
type host struct {
	*fake.Machine
	rig *rig
}

func (h host) NVML(ctx context.Context) (machine.NVMLReport, error) {
	r := h.rig
	r.asked.Add(1)
	if r.hold != nil {
		select {
		case <-r.hold:
		case <-ctx.Done():
			return machine.NVMLReport{}, fmt.Errorf("nvmlDeviceGetUUID of GPU 2: %w: %w", machine.ErrStuck, context.Cause(ctx))
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.report, r.err
}

// rig is a node: its bus, what NVML answers, its labels and clock, and the checks on it.
type rig struct {
	testing.TB
	ns    atomic.Int64
	asked atomic.Int64
	hold  chan struct{}
	m     *fake.Machine
	o     Options

	mu     sync.Mutex
	report machine.NVMLReport
	err    error
	labels map[string]string

	source *Source
	checks map[string]health.Check
}

func newRig(t testing.TB, name string) *rig {
	r := &rig{TB: t, report: fixture(t, name), labels: map[string]string{}}
	r.ns.Store(t0.UnixNano())
	r.m = fake.New(fake.Options{Now: r.now, BootID: "0fc70fad-6980-4f05-acf8-5f6c56122bb4"})
	for _, g := range r.report.GPUs {
		if g.Address != "" {
			r.m.AddDevice(onBus(g.Address, boundNVIDIA))
		}
	}
	r.o = Options{
		Machine: host{r.m, r}, Store: r.m, Now: r.now,
		NodeLabels: func(time.Duration) (map[string]string, bool) { return r.labels, r.labels != nil },
	}
	r.restart()
	return r
}

func onBus(address, driver string) fake.Device {
	return fake.Device{PCIDevice: machine.PCIDevice{
		PCIID:   machine.PCIID{Vendor: 0x10de, Device: 0x2330, Class: 0x030200, Driver: driver},
		Address: address, Config: machine.ConfigAnswers, DriverVersion: "570.133.20",
	}}
}

func (r *rig) now() time.Time          { return time.Unix(0, r.ns.Load()).UTC() }
func (r *rig) advance(d time.Duration) { r.ns.Add(int64(d)) }

// restart is a new agent on the same machine.
func (r *rig) restart() {
	r.source = New(r.o)
	r.checks = make(map[string]health.Check)
	for _, c := range r.source.Checks() {
		r.checks[c.Name()] = c
	}
}

func (r *rig) look(check string) health.Result {
	r.Helper()
	c := r.checks[check]
	if c == nil {
		r.Fatalf("there is no check %q", check)
	}
	ctx, cancel := context.WithTimeout(r.Context(), 10*time.Second)
	defer cancel()
	return c.Look(ctx)
}

// gpu is the report's GPU of an index.
func (r *rig) gpu(i int) *machine.NVMLGPU { return &r.report.GPUs[i] }

// show is a result in a line: the outcome, why it is Unknown, and each finding.
func show(res health.Result) string {
	s := string(res.Outcome)
	if res.Reason != "" {
		s += " " + res.Reason
	}
	for _, f := range res.Findings {
		where := f.PCI
		if where == "" {
			where = "node"
		}
		s += fmt.Sprintf("; %s on %s, %s, %s, x%d", f.Fault.Code, where, f.Fault.Severity, f.Fault.Recommended, f.Fault.Count)
	}
	return s
}

// step is what happens and what a check then says.
type step struct {
	// do happens first, and then times looks come, each after the time; one after 30 s when zero.
	do    func(r *rig)
	after time.Duration
	times int
	want  string
}

// run takes the steps. Every look before the last of a step is looked, not compared.
func (r *rig) run(check string, steps ...step) {
	r.Helper()
	for i, s := range steps {
		if s.do != nil {
			s.do(r)
		}
		if s.after == 0 {
			s.after = 30 * time.Second
		}
		var res health.Result
		for range max(1, s.times) {
			r.advance(s.after)
			res = r.look(check)
		}
		if diff := cmp.Diff(s.want, show(res)); diff != "" {
			r.Errorf("step %d (-want +got), message %q:\n%s", i+1, res.Message, diff)
		}
		for _, f := range res.Findings {
			if f.Fault.Device != "" || f.Fault.Check != check || f.Fault.Class == "" || f.ClearedBy == "" || f.Fault.Evidence == "" {
				r.Errorf("step %d: an incomplete finding: %+v", i+1, f)
			}
		}
		if (res.Outcome == health.Unknown) != (res.Reason != "") || res.Reason != "" && res.Message == "" {
			r.Errorf("step %d: %s, reason %q, message %q", i+1, res.Outcome, res.Reason, res.Message)
		}
	}
}

func ptr[T any](v T) *T { return &v }

// names are the checks in order.
func (r *rig) names() []string {
	var out []string
	for _, c := range r.source.Checks() {
		out = append(out, c.Name())
	}
	return out
}

// all looks with every check and gives what each says, where that is not the wanted.
func (r *rig) all(want string) {
	r.Helper()
	r.advance(30 * time.Second)
	for _, name := range r.names() {
		if res := r.look(name); show(res) != want {
			r.Errorf("%s: %s (%s), want %s", name, show(res), res.Message, want)
		}
	}
}

// hasMessage checks that a check's message has the words.
func (r *rig) hasMessage(check string, words ...string) {
	r.Helper()
	res := r.look(check)
	for _, w := range words {
		if !strings.Contains(res.Message, w) {
			r.Errorf("%s: the message %q does not say %q", check, res.Message, w)
		}
	}
}
