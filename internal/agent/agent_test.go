package agent

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/health"
	"github.com/roundhouse-dev/roundhouse/internal/machine/fake"
	"github.com/roundhouse-dev/roundhouse/internal/remedy/reboot"
)

// began is when every test begins.
var began = time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)

const bootID = "0fc70fad-6980-4f05-acf8-5f6c56122bb4"

// scripted is a check that finds what it is told.
type scripted struct {
	mu     sync.Mutex
	name   string
	result health.Result
	looks  int
	look   func(ctx context.Context) health.Result
}

func (c *scripted) Name() string { return c.name }

func (c *scripted) Look(ctx context.Context) health.Result {
	c.mu.Lock()
	c.looks++
	look, result := c.look, c.result
	c.mu.Unlock()
	if look != nil {
		return look(ctx)
	}
	return result
}

func (c *scripted) finds(findings ...health.Finding) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.result = health.Result{Outcome: health.OutcomeOf(findings), Findings: findings}
}

func (c *scripted) does(look func(ctx context.Context) health.Result) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.look = look
}

func (c *scripted) looked() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.looks
}

// finding is a fault on a device, as a check would report it.
func finding(code string, class v1alpha1.FaultClass, severity v1alpha1.Severity, count int64) health.Finding {
	return health.Finding{
		Fault: v1alpha1.Fault{
			Code: code, Check: "a", Device: "GPU-1", Class: class, Severity: severity, Count: count, Root: true,
			FirstSeen: metav1.NewTime(began), LastSeen: metav1.NewTime(began), Evidence: fmt.Sprintf("seen %d times", count),
		},
		ClearedBy: health.ClearedByLook,
	}
}

var offTheBus = finding("Xid79", v1alpha1.ClassHardware, v1alpha1.SeverityCritical, 1)

// bench is an agent with all that is around it.
type bench struct {
	t       *testing.T
	clock   *clocktesting.FakeClock
	machine *fake.Machine
	server  *server
	check   *scripted
	node    *Node
	options Options
}

func newBench(t *testing.T, change ...func(*Options)) *bench {
	t.Helper()
	b := &bench{t: t, clock: clocktesting.NewFakeClock(began), server: newServer("uid-1"), check: &scripted{name: "a"}}
	b.check.finds()
	b.machine = fake.New(fake.Options{
		BootID: bootID, Now: b.clock.Now, BootTime: began.Add(-time.Hour), RebootTakes: 5 * time.Second,
	})
	b.options = Options{
		Name: "gpu-1", Version: "v0.1.0", Machine: b.machine, API: b.server, Clock: b.clock,
		Checks:    func() []Scheduled { return []Scheduled{{Check: b.check}} },
		Executors: map[v1alpha1.ActionType]Executor{v1alpha1.ActionReboot: reboot.New(b.machine)},
	}
	for _, c := range change {
		c(&b.options)
	}
	b.restart()
	return b
}

// restart is a new process of the agent on the same machine.
func (b *bench) restart() {
	b.t.Helper()
	node, err := New(b.options)
	if err != nil {
		b.t.Fatal(err)
	}
	b.node = node
}

// step makes the agent step as often as it asks to, for that long.
func (b *bench) step(d time.Duration) {
	b.t.Helper()
	end := b.clock.Now().Add(d)
	for range 1000 {
		next := b.node.Step(b.t.Context())
		b.settle()
		if b.server.healthExists() {
			b.node.Observe(b.server.get())
		}
		now := b.clock.Now()
		if next.After(end) {
			if end.After(now) {
				b.clock.SetTime(end)
			}
			return
		}
		if next.After(now) {
			b.clock.SetTime(next)
		}
	}
	b.t.Fatalf("1000 steps in %s", d)
}

// settle waits for an executor that is at work; a fake machine's reboot returns at once.
func (b *bench) settle() {
	b.t.Helper()
	for range 1000 {
		b.node.mu.Lock()
		running := b.node.act.running
		b.node.mu.Unlock()
		if running == "" {
			return
		}
		time.Sleep(time.Millisecond)
	}
	b.t.Fatal("the executor did not come back")
}

func (s *server) healthExists() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.health != nil
}

func (b *bench) wantSummary(want v1alpha1.Summary) {
	b.t.Helper()
	if got := b.server.get().Status.Summary; got != want {
		b.t.Errorf("summary is %q, want %q", got, want)
	}
}

func TestHealthyNodeIsPublishedOnceAndThenNothing(t *testing.T) {
	b := newBench(t)
	b.step(time.Second)
	b.wantSummary(v1alpha1.SummaryHealthy)
	status := b.server.get().Status
	want := v1alpha1.NodeHealthStatus{
		Summary: v1alpha1.SummaryHealthy, BootID: bootID, AgentVersion: "v0.1.0",
		Boots:            []v1alpha1.Boot{{ID: bootID, At: metav1.NewTime(began.Add(-time.Hour)), Cause: v1alpha1.BootByOther}},
		SupportedActions: []v1alpha1.ActionType{v1alpha1.ActionReboot},
		CompletedRound:   &v1alpha1.Round{BootID: bootID, At: metav1.NewTime(began)},
	}
	if diff := cmp.Diff(want, status); diff != "" {
		t.Errorf("status (-want +got):\n%s", diff)
	}
	if c := b.server.condition(); c.Status != corev1.ConditionTrue || c.Reason != conditionPassing {
		t.Errorf("condition is %s %s", c.Status, c.Reason)
	}
	if got := b.server.writes(); got != 2 {
		t.Errorf("got %d writes at the start, want 2: %v", got, b.server.calls)
	}
	before := len(b.server.calls)
	b.step(time.Hour)
	if got := b.server.calls[before:]; len(got) != 0 {
		t.Errorf("an idle agent asked the API server for %v", got)
	}
	if b.check.looked() < 100 {
		t.Errorf("the check looked %d times in an hour", b.check.looked())
	}
}

func TestFaultIsPublishedAndClearsWithHysteresis(t *testing.T) {
	b := newBench(t)
	b.step(time.Minute)
	b.check.finds(offTheBus)
	b.node.Wake()
	b.step(time.Second)
	b.wantSummary(v1alpha1.SummaryFaulty)
	if c := b.server.condition(); c.Status != corev1.ConditionFalse || c.Reason != "Xid79" {
		t.Errorf("condition is %s %s", c.Status, c.Reason)
	}
	moved := b.server.condition().LastTransitionTime

	b.check.finds() // it flaps: gone for one look
	b.node.Wake()
	b.step(10 * time.Second)
	b.wantSummary(v1alpha1.SummaryFaulty)
	back := offTheBus
	back.Fault.FirstSeen = metav1.NewTime(b.clock.Now())
	b.check.finds(back)
	b.node.Wake()
	b.step(time.Minute)
	if got := b.server.get().Status.Faults; len(got) != 1 || !got[0].FirstSeen.Time.Equal(began) {
		t.Errorf("a flapping fault began anew: %+v", got)
	}
	if got := b.server.condition().LastTransitionTime; !got.Equal(&moved) {
		t.Errorf("lastTransitionTime moved from %s to %s", moved, got)
	}

	b.check.finds()
	b.step(2 * time.Minute)
	b.wantSummary(v1alpha1.SummaryHealthy)
	if c := b.server.condition(); c.Status != corev1.ConditionTrue || c.LastTransitionTime.Equal(&moved) {
		t.Errorf("condition is %s since %s", c.Status, c.LastTransitionTime)
	}
}

// A reboot may follow a fault within the gap between two writes; the Node has to say before it what it is for.
func TestAFaultIsOnTheNodeAtOnce(t *testing.T) {
	b := newBench(t)
	b.node.Step(t.Context())
	if c := b.server.condition(); c.Status != corev1.ConditionTrue {
		t.Fatalf("condition is %s %s before the fault", c.Status, c.Reason)
	}
	b.check.finds(offTheBus)
	b.node.Wake()
	b.node.Step(t.Context()) // and no time has passed
	if c := b.server.condition(); c.Status != corev1.ConditionFalse || c.Reason != "Xid79" {
		t.Errorf("condition is %s %s", c.Status, c.Reason)
	}
}

func TestAFlappingFaultIsNotAStormOfConditions(t *testing.T) {
	b := newBench(t)
	b.step(time.Minute)
	before := b.server.count("patch condition")
	for range 10000 {
		b.node.mu.Lock()
		b.node.node.condition = &corev1.NodeCondition{Type: v1alpha1.ConditionHealthy, Status: corev1.ConditionTrue}
		b.node.mu.Unlock()
		b.check.finds(offTheBus)
		b.node.Wake()
		b.node.Step(t.Context())
		b.clock.Step(time.Millisecond)
	}
	if got := b.server.count("patch condition") - before; got > 30 {
		t.Errorf("10 s of flapping were %d writes of the condition", got)
	}
}

func TestStormOfLinesIsAFewWrites(t *testing.T) {
	b := newBench(t)
	b.step(time.Minute)
	before := b.server.writes()
	for i := int64(1); i <= 10000; i++ {
		b.check.finds(finding("Xid13", v1alpha1.ClassApplication, v1alpha1.SeverityWarning, i))
		b.node.Wake()
		b.node.Step(t.Context())
		b.clock.Step(time.Millisecond)
	}
	b.step(time.Minute)
	if got := b.server.writes() - before; got > 12 {
		t.Errorf("10,000 lines in 10 s were %d writes", got)
	}
	b.wantSummary(v1alpha1.SummaryHealthy)
	faults := b.server.get().Status.Faults
	if len(faults) != 1 || faults[0].Count < 8192 {
		t.Errorf("an application's errors are not shown: %+v", faults)
	}
}

func TestNewCriticalFaultIsPublishedAtOnceInAStorm(t *testing.T) {
	b := newBench(t)
	b.step(time.Minute)
	b.check.finds(finding("Xid13", v1alpha1.ClassApplication, v1alpha1.SeverityWarning, 1))
	b.node.Wake()
	b.node.Step(t.Context())
	b.check.finds(finding("Xid13", v1alpha1.ClassApplication, v1alpha1.SeverityWarning, 2), offTheBus)
	b.node.Wake()
	b.node.Step(t.Context())
	b.wantSummary(v1alpha1.SummaryFaulty)
	if got := b.server.get().Status.Faults[0].Code; got != "Xid79" {
		t.Errorf("first fault is %s", got)
	}
}

func TestOnlyOurOwnNodeIsPublished(t *testing.T) {
	b := newBench(t)
	b.server.node.UID = "uid-2"
	b.step(time.Minute)
	if got := b.server.writes(); got != 0 {
		t.Errorf("got %d writes to another Node's objects", got)
	}
	if b.node.pub.blocked != BlockedOtherNode {
		t.Errorf("blocked is %q", b.node.pub.blocked)
	}
	b.server.node.UID = "uid-1"
	b.step(time.Minute)
	b.wantSummary(v1alpha1.SummaryHealthy)
}

func TestNodeHealthIsWaitedFor(t *testing.T) {
	b := newBench(t)
	stored := b.server.health
	b.server.health = nil
	b.step(10 * time.Minute)
	if got := b.server.writes(); got != 0 {
		t.Errorf("got %d writes without a NodeHealth", got)
	}
	b.server.health = stored
	b.node.Observe(b.server.get())
	b.step(time.Second)
	b.wantSummary(v1alpha1.SummaryHealthy)
}

func TestRestartInTheSameBootTakesNothingBack(t *testing.T) {
	b := newBench(t)
	b.check.finds(offTheBus)
	b.step(time.Minute)
	writes := b.server.writes()
	again := offTheBus
	again.Fault.FirstSeen = metav1.NewTime(b.clock.Now())
	b.check.finds(again)
	b.restart()
	b.step(time.Minute)
	if got := b.server.writes() - writes; got != 0 {
		t.Errorf("a restart was %d writes:\n%+v", got, b.server.get().Status)
	}
	if got := b.server.get().Status.Faults[0].FirstSeen; !got.Time.Equal(began) {
		t.Errorf("a restart moved firstSeen to %s", got)
	}
}

func TestRestartOfABlindAgentKeepsTheCompletedRound(t *testing.T) {
	b := newBench(t)
	b.step(time.Minute)
	b.check.does(func(context.Context) health.Result {
		return health.CouldNotLook(health.ReasonCannotRead, errors.New("no such file"), nil)
	})
	b.restart()
	b.step(time.Minute)
	b.wantSummary(v1alpha1.SummaryUnknown)
	if r := b.server.get().Status.CompletedRound; r == nil || r.BootID != bootID {
		t.Errorf("completed round is %+v", r)
	}
}

func TestWatchThatLagsCostsNothing(t *testing.T) {
	b := newBench(t)
	b.step(time.Minute)
	old := b.server.get()
	b.check.finds(offTheBus)
	b.node.Wake()
	b.node.Step(t.Context())
	b.node.Observe(old)
	b.check.finds()
	reads := b.server.count("get nodehealth")
	for range 10 {
		b.clock.Step(30 * time.Second)
		b.node.Step(t.Context())
	}
	b.wantSummary(v1alpha1.SummaryHealthy)
	if got := b.server.count("get nodehealth") - reads; got != 0 {
		t.Errorf("an old event was believed, and corrected by %d reads", got)
	}
}

func TestConflictIsCuredByReading(t *testing.T) {
	b := newBench(t)
	b.step(time.Minute)
	b.server.ask(func(*v1alpha1.NodeHealthSpec) {}) // and the watch says nothing of it
	b.check.finds(offTheBus)
	b.node.Wake()
	for range 3 {
		b.node.Step(t.Context())
	}
	b.wantSummary(v1alpha1.SummaryFaulty)
}
