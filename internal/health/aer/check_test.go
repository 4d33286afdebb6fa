package aer

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/health"
	"github.com/roundhouse-dev/roundhouse/internal/machine"
	"github.com/roundhouse-dev/roundhouse/internal/machine/fake"
)

// Two GPUs, each behind a port of its own, behind one switch in a root port.
const (
	gpu0  = "0000:18:00.0"
	port0 = "0000:17:01.0"
	gpu1  = "0000:28:00.0"
	port1 = "0000:17:02.0"
	up    = "0000:16:00.0"
	root  = "0000:15:01.0"
)

var t0 = time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)

type rig struct {
	*testing.T
	ns    atomic.Int64
	m     *fake.Machine
	at    map[string]machine.AERDevice
	check *Check
}

func newRig(t *testing.T) *rig {
	r := &rig{T: t, at: map[string]machine.AERDevice{}}
	r.ns.Store(t0.UnixNano())
	r.m = fake.New(fake.Options{Devices: fake.H200s(2, 7), Now: r.now, BootID: "0fc70fad-6980-4f05-acf8-5f6c56122bb4"})
	for address, parent := range map[string]string{gpu0: port0, port0: up, gpu1: port1, port1: up, up: root, root: ""} {
		d := machine.AERDevice{Address: address, Parent: parent, Reports: true}
		if address == root {
			d.Root = &machine.AERRoot{}
		}
		r.set(d)
	}
	r.restart()
	return r
}

func (r *rig) now() time.Time          { return time.Unix(0, r.ns.Load()).UTC() }
func (r *rig) advance(d time.Duration) { r.ns.Add(int64(d)) }

// restart is a new agent on the same machine.
func (r *rig) restart() { r.check = New(Options{Machine: r.m, Now: r.now}) }

func (r *rig) set(d machine.AERDevice) {
	r.at[d.Address] = d
	r.m.SetAER(d)
}

// count counts errors of a kind at a station, and a message of each at the root port.
func (r *rig) count(address, severity, kind string, n uint64) {
	r.Helper()
	d, top := r.at[address], r.at[root]
	told := *top.Root
	switch severity {
	case "correctable":
		d.Correctable = more(d.Correctable, kind, n)
		told.Correctable += n
	case "nonfatal":
		d.Nonfatal = more(d.Nonfatal, kind, n)
		told.Nonfatal += n
	case "fatal":
		d.Fatal = more(d.Fatal, kind, n)
		told.Fatal += n
	default:
		r.Fatal(severity)
	}
	r.set(d)
	top = r.at[root]
	top.Root = &told
	r.set(top)
}

func more(c machine.AERCount, kind string, n uint64) machine.AERCount {
	out := machine.AERCount{Total: c.Total + n}
	found := false
	for _, k := range c.Kinds {
		if k.Name == kind {
			k.N, found = k.N+n, true
		}
		out.Kinds = append(out.Kinds, k)
	}
	if !found {
		out.Kinds = append(out.Kinds, machine.AERKind{Name: kind, N: n})
	}
	return out
}

func (r *rig) look() health.Result {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.Context(), 10*time.Second)
	defer cancel()
	return r.check.Look(ctx)
}

// expect looks, and compares the outcome and the findings.
func (r *rig) expect(when string, outcome health.Outcome, want ...string) health.Result {
	r.Helper()
	res := r.look()
	if diff := cmp.Diff(want, show(res.Findings)); diff != "" {
		r.Errorf("%s (-want +got):\n%s", when, diff)
	}
	if res.Outcome != outcome || (outcome == health.Unknown) != (res.Reason != "") {
		r.Errorf("%s: %s %s (%s), want %s", when, res.Outcome, res.Reason, res.Message, outcome)
	}
	return res
}

func show(findings []health.Finding) []string {
	var out []string
	for _, f := range findings {
		place := f.PCI
		if place == "" {
			place = "node"
		}
		out = append(out, fmt.Sprintf("%s %s %s %s x%d", f.Fault.Code, place, f.Fault.Severity, f.Fault.Recommended, f.Fault.Count))
	}
	return out
}

func TestWhatEachErrorMeans(t *testing.T) {
	tests := map[string]struct {
		errs    func(r *rig)
		outcome health.Outcome
		want    []string
	}{
		"nothing is counted": {func(*rig) {}, health.Passing, nil},
		"a nonfatal error of a GPU": {
			func(r *rig) { r.count(gpu0, "nonfatal", "CmpltTO", 1) }, health.Failing, []string{"PCINonfatalError 0000:18:00.0 Warning None x1"},
		},
		"a fatal error seen by the port above the GPU": {
			func(r *rig) { r.count(port0, "fatal", "SDES", 1) }, health.Failing, []string{"PCIFatalError 0000:18:00.0 Warning ResetDevice x1"},
		},
		"both ends of a link saw it: one fault": {
			func(r *rig) { r.count(port0, "fatal", "DLP", 1); r.count(gpu0, "fatal", "DLP", 2) },
			health.Failing, []string{"PCIFatalError 0000:18:00.0 Warning ResetDevice x3"},
		},
		"a fatal error, and the GPU does not answer": {
			func(r *rig) { r.count(port0, "fatal", "SDES", 1); r.m.Break(gpu0, fake.Break{Kind: fake.Dead}) },
			health.Failing, []string{"PCIFatalError 0000:18:00.0 Critical Reboot x1"},
		},
		"a fatal error of the link that both GPUs share is the node's": {
			func(r *rig) { r.count(up, "fatal", "MalfTLP", 1) }, health.Failing, []string{"PCIFatalError node Warning Reboot x1"},
		},
		"a request that the GPU does not know is its driver's doing": {
			func(r *rig) { r.count(gpu0, "nonfatal", "UnsupReq", 1) }, health.Passing, []string{"PCIRequestRefused 0000:18:00.0 Info None x1"},
		},
		"a refused request beside a lost one is not only refused": {
			func(r *rig) { r.count(gpu0, "nonfatal", "UnsupReq", 1); r.count(gpu0, "nonfatal", "TLP", 1) },
			health.Failing, []string{"PCINonfatalError 0000:18:00.0 Warning None x2"},
		},
		"a few correctable errors are what links have": {func(r *rig) { r.count(port0, "correctable", "BadTLP", 479) }, health.Passing, nil},
		"too many in an hour": {
			func(r *rig) { r.count(port0, "correctable", "BadTLP", 480) },
			health.Failing, []string{"PCICorrectableErrors 0000:18:00.0 Warning None x480"},
		},
		"an advisory one is not the link's": {func(r *rig) { r.count(gpu0, "correctable", "NonFatalErr", 5000) }, health.Passing, nil},
		"a root port is told of an error by a disk": {
			func(r *rig) {
				d := r.at[root]
				told := *d.Root
				told.Nonfatal += 2
				d.Root = &told
				r.set(d)
				r.count(gpu0, "nonfatal", "CmpltTO", 1)
			},
			health.Failing, []string{"PCIErrorElsewhere node Info None x3", "PCINonfatalError 0000:18:00.0 Warning None x1"},
		},
		"passed through to a virtual machine: from the bus alone, and its guest may lose what it likes": {
			func(r *rig) {
				r.m.SetDriver(gpu0, "vfio-pci")
				r.count(gpu0, "nonfatal", "CmpltTO", 1)
				r.count(port0, "fatal", "SDES", 1)
			},
			health.Failing, []string{"PCIFatalError 0000:18:00.0 Warning ResetDevice x1", "PCINonfatalError 0000:18:00.0 Info None x1"},
		},
		"counters that fall were set to zero in between": {
			func(r *rig) {
				r.set(machine.AERDevice{
					Address: gpu1, Parent: port1, Reports: true,
					Fatal: more(machine.AERCount{}, "DLP", 1), Correctable: more(machine.AERCount{}, "RxErr", 480),
				})
			},
			health.Failing, []string{
				"PCICorrectableErrors 0000:28:00.0 Warning None x480", "PCIFatalError 0000:28:00.0 Warning ResetDevice x1",
			},
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.count(gpu1, "fatal", "DLP", 3)
			r.count(gpu1, "correctable", "RxErr", 9000)
			r.expect("what was counted before the first look of a boot is where it starts", health.Passing)
			r.advance(30 * time.Second)
			tc.errs(r)
			res := r.expect("then", tc.outcome, tc.want...)
			for _, f := range res.Findings {
				if f.Fault.Check != Name || f.Fault.Class != v1alpha1.ClassHardware || f.ClearedBy != health.ClearedByLook ||
					f.Fault.Evidence == "" || !f.Fault.FirstSeen.Time.Equal(r.now()) {
					t.Errorf("%+v", f)
				}
			}
		})
	}
}

func TestAFatalErrorThatComesAgain(t *testing.T) {
	r := newRig(t)
	r.look()
	r.count(gpu0, "fatal", "DLP", 1)
	res := r.expect("once", health.Failing, "PCIFatalError 0000:18:00.0 Warning ResetDevice x1")
	if want := "0000:18:00.0: 1 fatal PCI errors in the last hour, last DLP 1"; res.Findings[0].Fault.Evidence != want {
		t.Errorf("evidence %q", res.Findings[0].Fault.Evidence)
	}
	r.advance(4 * time.Minute)
	r.count(gpu0, "fatal", "DLP", 1)
	r.expect("within the same minutes: the same event", health.Failing, "PCIFatalError 0000:18:00.0 Warning ResetDevice x2")
	r.advance(6 * time.Minute)
	r.count(gpu0, "fatal", "FCP", 1)
	r.restart()
	res = r.expect("again, while the agent was away", health.Failing, "PCIFatalError 0000:18:00.0 Critical Reboot x3")
	if !res.Findings[0].Fault.FirstSeen.Time.Equal(t0) {
		t.Errorf("first seen %v", res.Findings[0].Fault.FirstSeen)
	}
	r.advance(59 * time.Minute)
	r.expect("an hour after the first, the last still stands", health.Failing, "PCIFatalError 0000:18:00.0 Warning ResetDevice x3")
	r.advance(time.Minute)
	r.expect("an hour after the last", health.Passing)
	r.advance(time.Hour)
	r.count(gpu0, "fatal", "DLP", 1)
	r.expect("and the next is a new one", health.Failing, "PCIFatalError 0000:18:00.0 Warning ResetDevice x1")
}

func TestANoisyLinkHasHysteresis(t *testing.T) {
	r := newRig(t)
	r.look()
	for range 10 {
		r.advance(6 * time.Minute)
		r.count(port0, "correctable", "RxErr", 48)
		r.look()
	}
	r.expect("480 in an hour", health.Failing, "PCICorrectableErrors 0000:18:00.0 Warning None x480")
	r.advance(24 * time.Minute)
	r.expect("288 in the last hour: too few to begin, too many to end", health.Failing, "PCICorrectableErrors 0000:18:00.0 Warning None x480")
	r.advance(6 * time.Minute)
	r.expect("240: not yet", health.Failing, "PCICorrectableErrors 0000:18:00.0 Warning None x480")
	r.advance(6 * time.Minute)
	r.expect("under half", health.Passing)
}

func TestARebootStartsAnew(t *testing.T) {
	r := newRig(t)
	r.look()
	r.count(gpu0, "fatal", "DLP", 1)
	r.expect("before", health.Failing, "PCIFatalError 0000:18:00.0 Warning ResetDevice x1")
	r.m.GoDown(0)
	r.expect("after", health.Passing)
}

func TestAResetIsTheCureAndMayCauseErrors(t *testing.T) {
	r := newRig(t)
	r.look()
	r.count(gpu0, "fatal", "DLP", 1)
	r.count(gpu1, "nonfatal", "CmpltTO", 1)
	r.expect("before", health.Failing, "PCIFatalError 0000:18:00.0 Warning ResetDevice x1", "PCINonfatalError 0000:28:00.0 Warning None x1")
	if err := r.check.DeviceReset(t.Context(), gpu0); err != nil {
		t.Fatal(err)
	}
	r.count(port0, "fatal", "SDES", 1)
	r.restart()
	r.expect("the link went down for it", health.Failing, "PCINonfatalError 0000:28:00.0 Warning None x1")
	r.count(port0, "fatal", "SDES", 1)
	r.expect("and once more: that is not the reset's", health.Failing,
		"PCIFatalError 0000:18:00.0 Warning ResetDevice x1", "PCINonfatalError 0000:28:00.0 Warning None x1")
}

func TestADeviceThatLeavesTheBusKeepsItsFault(t *testing.T) {
	r := newRig(t)
	r.look()
	r.count(port0, "fatal", "SDES", 1)
	r.look()
	r.m.Break(gpu0, fake.Break{Kind: fake.Gone})
	r.expect("gone", health.Failing, "PCIFatalError 0000:18:00.0 Warning ResetDevice x1")
	r.advance(time.Hour)
	r.expect("an hour later", health.Passing)
	if n := len(r.check.state.Stations); n != 4 {
		t.Errorf("%d stations are kept, want those above the GPU that is left", n)
	}
}

func TestCannotLook(t *testing.T) {
	unreadable := func(r *rig) {
		d := r.at[port1]
		d.Unread = "aer_dev_fatal"
		r.set(d)
	}
	tests := map[string]struct {
		arrange         func(*rig)
		reason, message string
	}{
		"the bus cannot be listed":      {func(r *rig) { r.m.Fail(fake.DoorPCI, errors.New("permission denied")) }, health.ReasonCannotRead, "permission denied"},
		"the counters cannot be read":   {func(r *rig) { r.m.Fail(fake.DoorAER, errors.New("input/output error")) }, health.ReasonCannotRead, "input/output"},
		"reading them hangs":            {func(r *rig) { r.m.Hang(fake.DoorAER, true) }, health.ReasonTimedOut, "in time"},
		"one of them cannot be read":    {unreadable, health.ReasonCannotRead, "aer_dev_fatal"},
		"the boot ID cannot be read":    {func(r *rig) { r.m.Fail(fake.DoorBoot, errors.New("no such file")) }, health.ReasonCannotRead, "no such file"},
		"the machine is between boots":  {func(r *rig) { r.m.GoDown(time.Hour) }, health.ReasonCannotRead, "down"},
		"the counters hang, and so on ": {func(r *rig) { r.m.Hang(fake.DoorPCI, true) }, health.ReasonTimedOut, "in time"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.look()
			r.count(gpu0, "fatal", "DLP", 1)
			r.look()
			tc.arrange(r)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			defer cancel()
			res := r.check.Look(ctx)
			// With a fault standing, a look that saw all but one station fails; one that saw nothing is Unknown.
			if name != "one of them cannot be read" && res.Outcome != health.Unknown || res.Reason != tc.reason || !strings.Contains(res.Message, tc.message) {
				t.Errorf("%s %s %q", res.Outcome, res.Reason, res.Message)
			}
			if diff := cmp.Diff([]string{"PCIFatalError 0000:18:00.0 Warning ResetDevice x1"}, show(res.Findings)); diff != "" {
				t.Errorf("what stood is gone (-want +got):\n%s", diff)
			}
		})
	}
	r := newRig(t)
	r.look()
	r.count(port1, "nonfatal", "UnsupReq", 1)
	r.look()
	whole := r.at[port1]
	r.set(machine.AERDevice{Address: port1, Parent: up, Reports: true, Unread: "aer_dev_nonfatal"})
	r.expect("nothing else is wrong, and one station is blind", health.Unknown, "PCIRequestRefused 0000:28:00.0 Info None x1")
	r.set(whole)
	r.expect("what could not be read did not fall to zero", health.Passing, "PCIRequestRefused 0000:28:00.0 Info None x1")
}

func TestNothingThatCounts(t *testing.T) {
	r := newRig(t)
	r.m = fake.New(fake.Options{Now: r.now})
	r.restart()
	r.expect("no accelerator", health.Passing)
	r.m = fake.New(fake.Options{Now: r.now, Devices: fake.H200s(1, 1)})
	r.m.SetAER(machine.AERDevice{Address: gpu0, Parent: port0})
	r.restart()
	if res := r.expect("a virtual machine's bus has no counters", health.Passing); !strings.Contains(res.Message, "neither it nor the port") {
		t.Errorf("%q", res.Message)
	}
}

func TestStateThatCannotBeRead(t *testing.T) {
	r := newRig(t)
	if err := r.m.Save(t.Context(), stateFile, []byte("{")); err != nil {
		t.Fatal(err)
	}
	if res := r.expect("a broken file starts anew", health.Passing); !strings.Contains(res.Message, "not known") {
		t.Errorf("%q", res.Message)
	}
	r.m.Fail(fake.DoorStore, errors.New("read-only file system"))
	r.count(gpu0, "fatal", "DLP", 1)
	res := r.expect("a disk that fails does not hide a fault", health.Failing, "PCIFatalError 0000:18:00.0 Warning ResetDevice x1")
	if !strings.Contains(res.Message, "not kept") {
		t.Errorf("%q", res.Message)
	}
	if err := r.check.Close(t.Context()); err == nil {
		t.Error("the last save failed, and nobody was told")
	}
}

// What rises slowly is written once a minute, not at each look; what a fault comes of at once.
func TestHowOftenTheStateIsWritten(t *testing.T) {
	r := newRig(t)
	writes := 0
	r.check = New(Options{Machine: counting{r.m, &writes}, Now: r.now})
	r.look()
	for range 10 {
		r.advance(30 * time.Second)
		r.count(port0, "correctable", "RxErr", 1)
		r.look()
	}
	if writes != 6 {
		t.Errorf("%d writes in five minutes", writes)
	}
	r.count(gpu0, "nonfatal", "CmpltTO", 1)
	r.look()
	if writes != 7 {
		t.Errorf("%d writes", writes)
	}
	for range 10 {
		r.look()
	}
	if writes != 7 {
		t.Errorf("%d writes while nothing happens", writes)
	}
}

type counting struct {
	*fake.Machine
	n *int
}

func (c counting) Save(ctx context.Context, name string, data []byte) error {
	*c.n++
	return c.Machine.Save(ctx, name, data)
}
