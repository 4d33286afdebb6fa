package replay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/health"
	"github.com/roundhouse-dev/roundhouse/internal/machine"
)

var t0 = time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)

const (
	gpu       = "0000:18:00.0"
	offTheBus = "NVRM: Xid (PCI:0000:18:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus."
	unmapped  = "NVRM: Xid (PCI:0000:18:00): 64, Row Remapper: Failed to write remapping"
	cleanUp   = "NVRM: Xid (PCI:0000:18:00): 45, pid=4711, name=python, Ch 00000008"
	needs     = "NVRM: Xid (PCI:0000:18:00): 154, GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset Required)"
	needsNone = "NVRM: Xid (PCI:0000:18:00): 154, GPU recovery action changed from 0x1 (GPU Reset Required) to 0x0 (None)"
	contextTO = "NVRM: Xid (PCI:0000:18:00): 109, pid=4711, name=python, errorString CTX SWITCH TIMEOUT"
	chatter   = "eth0: link becomes ready"
)

// script is a Source made by hand.
type script struct{ events []Event }

func (s *script) Next(e *Event) error {
	if len(s.events) == 0 {
		return io.EOF
	}
	*e, s.events = s.events[0], s.events[1:]
	return nil
}

func after(d time.Duration, text string) Event {
	return Event{Kind: Line, At: t0.Add(d), Priority: 4, Text: []byte(text)}
}

func event(d time.Duration, k Kind) Event { return Event{Kind: k, At: t0.Add(d)} }

func boot(d time.Duration, id string) Event { return Event{Kind: Boot, At: t0.Add(d), BootID: id} }

func play(t *testing.T, o Options, events ...Event) Result {
	t.Helper()
	r, err := Run(t.Context(), &script{events: append([]Event{boot(-time.Minute, "0fc7")}, events...)}, o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// told shows the incidents: root, count, when found and cleared, whether disruptive, consequences.
func told(r Result) []string {
	var out []string
	for _, in := range r.Incidents {
		s := fmt.Sprintf("%s x%d found %s", in.Root.Code, in.Root.Count, in.Root.Found.Sub(t0))
		if !in.Root.Cleared.IsZero() {
			s += fmt.Sprintf(" cleared %s", in.Root.Cleared.Sub(t0))
		}
		if in.Disruptive {
			s += fmt.Sprintf(" %s", in.Root.Recommended)
		}
		for _, c := range in.Consequences {
			s += fmt.Sprintf(" >%s x%d", c.Code, c.Count)
		}
		out = append(out, s)
	}
	return out
}

func expect(t *testing.T, r Result, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, told(r)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestALineIsFoundAtOnce(t *testing.T) {
	r := play(t, Options{}, after(0, chatter), after(12345*time.Millisecond, offTheBus))
	expect(t, r, "Xid79 x1 found 12.345s Reboot")
	f := r.Incidents[0].Root
	if f.PCI != gpu || f.Device != "pci-"+gpu || f.Class != v1alpha1.ClassHardware || f.Severity != v1alpha1.SeverityCritical ||
		!f.First.Equal(t0.Add(12*time.Second)) || !f.DisruptiveFrom.Equal(f.Found) || f.Evidence != offTheBus {
		t.Errorf("%+v", f)
	}
	if r.Lines != 2 || r.Matched != 1 || r.Refused != 0 || r.Lost != 0 || r.Boots != 1 || r.AgentStarts != 1 {
		t.Errorf("%+v", r)
	}
}

func TestWhatAProcessWroteIsRefused(t *testing.T) {
	e := after(0, offTheBus)
	e.Priority = 12
	r := play(t, Options{}, e)
	expect(t, r)
	if r.Refused != 1 || r.Matched != 0 {
		t.Errorf("%+v", r)
	}
}

func TestACascadeIsOneIncident(t *testing.T) {
	r := play(t, Options{}, after(0, cleanUp), after(time.Second, cleanUp), after(2*time.Second, offTheBus), after(3*time.Second, cleanUp),
		after(time.Hour, chatter))
	expect(t, r, "Xid79 x1 found 2s Reboot >Xid45 x3")
}

func TestSilenceLetsPassWhatPassesByItself(t *testing.T) {
	// Info after ten minutes, found out at the turn after that; a disputed code, a Warning, after 24 hours.
	tests := map[string]time.Duration{"a day and a half": 36 * time.Hour, "a year": 365 * 24 * time.Hour}
	for name, silence := range tests {
		t.Run(name, func(t *testing.T) {
			looks := 0
			r := play(t, Options{Checks: counting(&looks)}, after(0, contextTO), after(time.Second, cleanUp), after(silence, chatter))
			expect(t, r, "Xid109 x1 found 0s cleared 24h0m1s >Xid45 x1")
			if cleared := r.Incidents[0].Consequences[0].Cleared.Sub(t0); cleared != 10*time.Minute+time.Second {
				t.Errorf("45 ended after %s", cleared)
			}
			if looks > 2*3600*26/30 {
				t.Errorf("%d looks", looks)
			}
		})
	}
}

// counting are the default checks, with their looks counted.
func counting(looks *int) func(m *Machine, now func() time.Time) []health.Check {
	return func(m *Machine, now func() time.Time) []health.Check {
		checks := DefaultChecks(m, now)
		return append(checks, lookFunc(func(context.Context) health.Result {
			*looks++
			return health.Result{Outcome: health.Passing}
		}))
	}
}

type lookFunc func(ctx context.Context) health.Result

func (lookFunc) Name() string                             { return "made-up" }
func (f lookFunc) Look(ctx context.Context) health.Result { return f(ctx) }

func TestADisputedCodeIsDisruptiveWhenItComesAgain(t *testing.T) {
	r := play(t, Options{}, after(0, contextTO), after(59*time.Second, contextTO), after(61*time.Second, contextTO), after(time.Hour, chatter))
	expect(t, r, "Xid109 x3 found 0s ResetDevice")
	if got := r.Incidents[0].Root.DisruptiveFrom.Sub(t0); got != 61*time.Second {
		t.Errorf("disruptive from %s", got)
	}
}

func TestWhatEndsAFault(t *testing.T) {
	reset := event(time.Minute, Reset)
	reset.Address = gpu
	other := reset
	other.Address = "0000:2a:00.0"
	tests := map[string]struct {
		events []Event
		want   []string
	}{
		"a reset by the agent":                   {[]Event{after(0, unmapped), reset}, []string{"Xid64 x1 found 0s cleared 1m0s ResetDevice"}},
		"a reset of another device does not":     {[]Event{after(0, unmapped), other}, []string{"Xid64 x1 found 0s ResetDevice"}},
		"the driver's word":                      {[]Event{after(0, needs), after(time.Minute, needsNone)}, []string{"Xid154 x1 found 0s cleared 1m0s ResetDevice"}},
		"a boot":                                 {[]Event{after(0, offTheBus), boot(time.Minute, "1fc7")}, []string{"Xid79 x1 found 0s cleared 1m0s Reboot"}},
		"the same boot told again does not":      {[]Event{after(0, offTheBus), boot(time.Minute, "0fc7")}, []string{"Xid79 x1 found 0s Reboot"}},
		"a reset does not end what needs a boot": {[]Event{after(0, offTheBus), reset}, []string{"Xid79 x1 found 0s Reboot"}},
		"a flap is an incident each time": {
			[]Event{after(0, needs), after(time.Minute, needsNone), after(2*time.Minute, needs)},
			[]string{"Xid154 x1 found 0s cleared 1m0s ResetDevice", "Xid154 x1 found 2m0s ResetDevice"},
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) { expect(t, play(t, Options{}, tc.events...), tc.want...) })
	}
}

func TestAnAgentThatIsKilledMissesAndRepeatsNothing(t *testing.T) {
	r := play(t, Options{},
		after(0, unmapped), after(time.Second, cleanUp), event(2*time.Second, AgentStop), after(3*time.Second, cleanUp),
		after(4*time.Second, strings.Replace(offTheBus, "18:00", "2a:00", 1)), event(30*time.Second, AgentStart), after(time.Minute, cleanUp))
	expect(t, r, "Xid64 x1 found 0s ResetDevice >Xid45 x3", "Xid79 x1 found 30s Reboot")
	if r.AgentStarts != 2 || r.Lost != 0 {
		t.Errorf("%+v", r)
	}
}

func TestNumbersLeftOutAreLostLines(t *testing.T) {
	numbered := func(d time.Duration, seq uint64) Event {
		e := after(d, chatter)
		e.Seq = seq
		return e
	}
	r := play(t, Options{}, numbered(0, 5), numbered(time.Second, 6), numbered(2*time.Second, 106), numbered(3*time.Second, 107))
	if r.Lost != 99 || r.Lines != 4 {
		t.Errorf("%d lost of %d", r.Lost, r.Lines)
	}
	i := slices.IndexFunc(r.Checks, func(c CheckSummary) bool { return c.Name == "kernel-log" })
	if i < 0 || r.Checks[i].Reason != "LinesLost" {
		t.Errorf("%+v", r.Checks)
	}
}

func TestAStormOfOneMomentLosesNothing(t *testing.T) {
	var events []Event
	for range 50000 {
		events = append(events, after(0, cleanUp))
	}
	r := play(t, Options{}, append(events, after(0, offTheBus), after(time.Second, chatter))...)
	// The first look was in the middle of it, and the agent leaves 20 ms to the next.
	expect(t, r, "Xid79 x1 found 20ms Reboot >Xid45 x50000")
	if r.Lost != 0 || r.Matched != 50001 {
		t.Errorf("%d matched, %d lost", r.Matched, r.Lost)
	}
}

func TestAKilledAgentLosesWhatTheLogDoesNotKeep(t *testing.T) {
	events := []Event{after(0, chatter), event(time.Second, AgentStop), after(2*time.Second, offTheBus)}
	for range 20000 {
		events = append(events, after(3*time.Second, cleanUp))
	}
	r := play(t, Options{}, append(events, event(4*time.Second, AgentStart), after(5*time.Second, chatter))...)
	if r.Lost == 0 || len(r.Incidents) != 1 || r.Incidents[0].Root.Code != "Xid45" {
		t.Errorf("%d lost: %q", r.Lost, told(r))
	}
}

func bus(d time.Duration, width uint8) Event {
	var devices []machine.PCIDevice
	for i, w := range []uint8{width, 16, 16} {
		if w == 0 {
			continue
		}
		devices = append(devices, machine.PCIDevice{
			PCIID:   machine.PCIID{Vendor: 0x10de, Device: 0x2335, Class: 0x030200},
			Address: fmt.Sprintf("0000:%02x:00.0", 0x18+i), Slot: fmt.Sprint(i + 1), Config: machine.ConfigAnswers,
			Link: machine.Link{Width: w, MaxWidth: 16, MTs: 32000, MaxMTs: 32000}, ParentLink: machine.Link{Width: w, MaxWidth: 16, MTs: 32000, MaxMTs: 32000},
		})
	}
	return Event{Kind: PCI, At: t0.Add(d), Devices: devices}
}

func TestFactsOfTheBusAreJudgedInTurn(t *testing.T) {
	// Missing for long enough at the second look of the next turn; well again from the turn after it came back, and for
	// the check's and the agent's time of grace.
	r := play(t, Options{}, bus(0, 16), bus(40*time.Second, 0), bus(10*time.Minute, 16), after(20*time.Minute, chatter))
	expect(t, r, "PCIDeviceMissing x1 found 1m2s cleared 10m42s Reboot")
	if d := r.Incidents[0].Root.Device; d != "10de-2335-slot-1" {
		t.Errorf("device %s", d)
	}
	// What the recording ends with has one turn more to settle.
	expect(t, play(t, Options{}, bus(0, 16), bus(40*time.Second, 0)), "PCIDeviceMissing x1 found 1m2s Reboot")
}

func TestAFlappingLinkIsOneIncident(t *testing.T) {
	var events []Event
	for i := range 10 {
		events = append(events, bus(time.Duration(i)*time.Minute, 16), bus(time.Duration(i)*time.Minute+40*time.Second, 4))
	}
	r := play(t, Options{}, events...)
	if len(r.Incidents) != 1 || r.Incidents[0].Root.Code != "PCILinkNarrow" {
		t.Errorf("%q", told(r))
	}
}

func TestWhatIsNotRecordedIsNotJudged(t *testing.T) {
	r := play(t, Options{}, after(0, chatter))
	i := slices.IndexFunc(r.Checks, func(c CheckSummary) bool { return c.Name == "pci" })
	if i < 0 || r.Checks[i].Looks == 0 || r.Checks[i].Unknown != r.Checks[i].Looks || r.Checks[i].Reason != health.ReasonCannotRead {
		t.Errorf("%+v", r.Checks)
	}
	if _, err := newMachine().NVML(t.Context()); !errors.Is(err, ErrNotRecorded) {
		t.Error(err)
	}
}

func TestTimeThatGoesBackIsHeldAndTold(t *testing.T) {
	r := play(t, Options{}, after(time.Hour, chatter), after(0, offTheBus), after(2*time.Hour, chatter))
	expect(t, r, "Xid79 x1 found 1h0m0s Reboot")
	if r.Backwards != 1 {
		t.Errorf("%d times", r.Backwards)
	}
}

func TestACheckThatPanicsDoesNotEndTheReplay(t *testing.T) {
	checks := func(m *Machine, now func() time.Time) []health.Check {
		return append(DefaultChecks(m, now), lookFunc(func(context.Context) health.Result { panic("index out of range") }))
	}
	r := play(t, Options{Checks: checks}, after(0, offTheBus))
	expect(t, r, "Xid79 x1 found 0s Reboot")
	if last := r.Checks[len(r.Checks)-1]; last.Reason != health.ReasonPanicked {
		t.Errorf("%+v", last)
	}
}

func TestWhatIsRememberedIsBounded(t *testing.T) {
	var events []Event
	for i := range 40 {
		events = append(events, after(time.Duration(i)*time.Second, fmt.Sprintf("NVRM: Xid (PCI:0000:18:00): %d, x", 1000+i)))
	}
	r := play(t, Options{MaxFaults: 5}, events...)
	n := 0
	for _, in := range r.Incidents {
		n += 1 + len(in.Consequences)
	}
	if n != 5 || r.Dropped != 35 {
		t.Errorf("%d kept, %d dropped", n, r.Dropped)
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("stop")
	cancel(stop)
	if _, err := Run(ctx, &script{events: []Event{after(0, chatter)}}, Options{}); !errors.Is(err, stop) {
		t.Error(err)
	}
}

func TestCausesInACircleAreRoots(t *testing.T) {
	a, b := &entry{Fault: Fault{Code: "a"}, kept: true}, &entry{Fault: Fault{Code: "b"}, kept: true}
	a.cause, b.cause = b, a
	k := newBook(10)
	k.all = []*entry{a, b}
	if got := k.incidents(); len(got) != 2 {
		t.Errorf("%+v", got)
	}
}

func TestDisruptive(t *testing.T) {
	for _, c := range []v1alpha1.FaultClass{v1alpha1.ClassHardware, v1alpha1.ClassDriver, v1alpha1.ClassFabric, v1alpha1.ClassHost, v1alpha1.ClassUnknown, v1alpha1.ClassApplication} {
		for _, s := range []v1alpha1.Severity{v1alpha1.SeverityCritical, v1alpha1.SeverityWarning, v1alpha1.SeverityInfo} {
			for _, r := range []v1alpha1.Recommendation{
				v1alpha1.RecommendNone, v1alpha1.RecommendRestartApplication, v1alpha1.RecommendRestartDriver, v1alpha1.RecommendHuman,
				v1alpha1.RecommendResetDevice, v1alpha1.RecommendReboot, v1alpha1.RecommendPowerCycle, v1alpha1.RecommendReplace,
			} {
				want := c != v1alpha1.ClassApplication && s == v1alpha1.SeverityCritical &&
					slices.Contains([]v1alpha1.Recommendation{"ResetDevice", "Reboot", "PowerCycle", "Replace"}, r)
				if got := Disruptive(&v1alpha1.Fault{Class: c, Severity: s, Recommended: r}); got != want {
					t.Errorf("%s %s %s: %t", c, s, r, got)
				}
			}
		}
	}
}
