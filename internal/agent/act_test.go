package agent

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/machine/fake"
	"github.com/roundhouse-dev/roundhouse/internal/remedy"
)

// askReboot is the controller asking for a reboot.
func (b *bench) askReboot(id string) {
	b.t.Helper()
	h := b.server.ask(func(s *v1alpha1.NodeHealthSpec) {
		s.Action = &v1alpha1.Action{
			ID: id, Type: v1alpha1.ActionReboot, BootID: b.server.load().Status.BootID,
			NotAfter: metav1.NewTime(b.clock.Now().Add(30 * time.Minute)),
		}
	})
	b.node.Observe(h)
}

// wantAnswer asserts how the last action ended.
func (b *bench) wantAnswer(id string, result v1alpha1.ActionResult, reason string) {
	b.t.Helper()
	a := b.server.get().Status.Action
	if a == nil {
		b.t.Fatal("no answer")
	}
	got := fmt.Sprint(a.ID, " ", a.State, " ", a.Result, " ", a.Reason)
	want := fmt.Sprint(id, " Done ", result, " ", reason)
	if got != want {
		b.t.Errorf("answer is %s (%s), want %s", got, a.Message, want)
	}
}

func (b *bench) wantReboots(want int) {
	b.t.Helper()
	if got := b.machine.Reboots(); got != want {
		b.t.Errorf("got %d reboots, want %d", got, want)
	}
}

func TestRebootIsDoneOnceAndSaid(t *testing.T) {
	b := newBench(t)
	b.step(time.Minute)
	b.askReboot("a-1")
	states := []string{}
	b.server.after = func(string) error {
		if a := b.server.get().Status.Action; a != nil {
			s := string(a.State)
			if len(states) == 0 || states[len(states)-1] != s {
				states = append(states, s)
			}
		}
		return nil
	}
	b.step(time.Minute)
	if diff := cmp.Diff([]string{"Accepted", "Started", "Done"}, states); diff != "" {
		t.Errorf("states (-want +got):\n%s", diff)
	}
	if got := b.server.count("put status"); got != 4 {
		t.Errorf("got %d writes of the status, want the first, Accepted, Started and Done: %v", got, b.server.calls)
	}
	b.wantReboots(1)
	b.wantAnswer("a-1", v1alpha1.ResultSucceeded, v1alpha1.ActionReasonRebooted)
	status := b.server.get().Status
	if status.BootID == bootID {
		t.Error("the boot ID published is the old one")
	}
	if r := status.CompletedRound; r == nil || r.BootID != status.BootID || r.AfterAction != "a-1" {
		t.Errorf("completed round is %+v", r)
	}
	last := status.Boots[len(status.Boots)-1]
	if last.Cause != v1alpha1.BootByRoundhouse || last.Action != "a-1" {
		t.Errorf("last boot is %+v", last)
	}
	b.wantSummary(v1alpha1.SummaryHealthy)
	b.step(time.Hour)
	b.wantReboots(1)
}

func TestRefusals(t *testing.T) {
	tests := map[string]struct {
		setUp  func(*bench)
		change func(*v1alpha1.NodeHealthSpec)
		result v1alpha1.ActionResult
		reason string
	}{
		"another boot than the one decided on": {
			change: func(s *v1alpha1.NodeHealthSpec) { s.Action.BootID = "other" },
			reason: v1alpha1.ActionReasonOtherBoot,
		},
		"the deadline has passed": {
			change: func(s *v1alpha1.NodeHealthSpec) { s.Action.NotAfter = metav1.NewTime(began) },
			reason: v1alpha1.ActionReasonExpired,
		},
		"a type that nobody here can do": {
			change: func(s *v1alpha1.NodeHealthSpec) { s.Action.Type = v1alpha1.ActionResetDevice },
			result: v1alpha1.ResultUnsupported, reason: v1alpha1.ActionReasonUnsupportedType,
		},
		"a hold by name": {
			setUp:  func(b *bench) { b.hold(v1alpha1.RemediationHoldSpec{Nodes: []string{"x", "gpu-1"}}) },
			reason: v1alpha1.ActionReasonHeld,
		},
		"a hold by the label that the Node has now": {
			setUp: func(b *bench) {
				b.hold(v1alpha1.RemediationHoldSpec{NodeSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"pool": "b"}}})
				b.server.node.Labels = map[string]string{"pool": "b"}
			},
			reason: v1alpha1.ActionReasonHeld,
		},
		"a stop of everything": {
			setUp:  func(b *bench) { b.hold(v1alpha1.RemediationHoldSpec{NodeSelector: &metav1.LabelSelector{}}) },
			reason: v1alpha1.ActionReasonHeld,
		},
		"a hold whose selector nobody can read": {
			setUp: func(b *bench) {
				b.hold(v1alpha1.RemediationHoldSpec{NodeSelector: &metav1.LabelSelector{
					MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "pool", Operator: "Sometimes"}},
				}})
			},
			reason: v1alpha1.ActionReasonHeld,
		},
		"the journal cannot be written": {
			setUp:  func(b *bench) { b.machine.Fail(fake.DoorStore, errors.New("read-only file system")) },
			reason: v1alpha1.ActionReasonJournalUnavailable,
		},
		"this host's limit is spent": {
			setUp: func(b *bench) {
				for i := range defaultDailyLimit {
					b.node.journal.open(v1alpha1.Action{ID: fmt.Sprint("past-", i)}, b.clock.Now())
					b.node.journal.finish(v1alpha1.ActionStatus{ID: fmt.Sprint("past-", i), Result: v1alpha1.ResultSucceeded})
				}
			},
			reason: v1alpha1.ActionReasonLocalLimit,
		},
		"a fence lower than one seen": {
			setUp:  func(b *bench) { b.node.fence = 99 },
			reason: v1alpha1.ActionReasonStaleFence,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.step(time.Minute)
			if tt.setUp != nil {
				tt.setUp(b)
			}
			b.askReboot("a-1")
			if tt.change != nil {
				b.node.Observe(b.server.ask(tt.change))
			}
			b.step(time.Minute)
			if tt.result == "" {
				tt.result = v1alpha1.ResultRefused
			}
			b.wantAnswer("a-1", tt.result, tt.reason)
			b.wantReboots(0)
			b.machine.Fail(fake.DoorStore, nil)
			b.step(time.Hour)
			b.wantReboots(0)
		})
	}
}

// hold puts a hold on.
func (b *bench) hold(spec v1alpha1.RemediationHoldSpec) {
	spec.Reason, spec.RequestedBy = "demo on Monday", "y.sato"
	b.server.mu.Lock()
	defer b.server.mu.Unlock()
	b.server.holds = append(b.server.holds, v1alpha1.RemediationHold{ObjectMeta: metav1.ObjectMeta{Name: "h"}, Spec: spec})
}

func TestHoldsThatDoNotHold(t *testing.T) {
	past := metav1.NewTime(began)
	tests := map[string]v1alpha1.RemediationHoldSpec{
		"another node's":        {Nodes: []string{"gpu-2"}},
		"another pool's":        {NodeSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"pool": "b"}}},
		"one that has lapsed":   {Nodes: []string{"gpu-1"}, Until: &past},
		"one that holds nobody": {},
	}
	for name, spec := range tests {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.step(time.Minute)
			b.hold(spec)
			b.askReboot("a-1")
			b.step(time.Minute)
			b.wantReboots(1)
		})
	}
}

func TestUnreadableHoldsMakeTheActionWaitUntilItLapses(t *testing.T) {
	b := newBench(t)
	b.step(time.Minute)
	unreadable := true
	b.server.before = func(call string) error {
		if unreadable && call == "list holds" {
			return apierrors.NewInternalError(errors.New("etcd"))
		}
		return nil
	}
	b.askReboot("a-1")
	b.step(10 * time.Second)
	a := b.server.get().Status.Action
	if a.State != v1alpha1.ActionAccepted || a.Reason != v1alpha1.ActionReasonCannotReadHolds {
		t.Errorf("answer is %+v", a)
	}
	b.wantSummary(v1alpha1.SummaryActing)
	writes := b.server.writes()
	b.step(time.Minute)
	if got := b.server.writes() - writes; got != 0 {
		t.Errorf("waiting was %d writes", got)
	}
	b.wantReboots(0)
	t.Run("and then it begins", func(t *testing.T) {
		unreadable = false
		b.step(time.Minute)
		b.wantAnswer("a-1", v1alpha1.ResultSucceeded, v1alpha1.ActionReasonRebooted)
	})
	t.Run("or is refused", func(t *testing.T) {
		unreadable = true
		b.askReboot("a-2")
		b.step(31 * time.Minute)
		b.wantAnswer("a-2", v1alpha1.ResultRefused, v1alpha1.ActionReasonExpired)
		b.wantReboots(1)
	})
}

func TestCancelBetweenLiveReadAndStarted(t *testing.T) {
	b := newBench(t)
	b.step(time.Minute)
	b.askReboot("a-1")
	puts := 0
	b.server.before = func(call string) error {
		if call != "put status" {
			return nil
		}
		if puts++; puts == 2 { // Accepted was the first
			b.server.ask(func(s *v1alpha1.NodeHealthSpec) { s.Action = nil })
		}
		return nil
	}
	b.step(time.Minute)
	b.wantReboots(0)
	b.wantAnswer("a-1", v1alpha1.ResultRefused, v1alpha1.ActionReasonWithdrawn)
}

func TestFrozenAfterStartedReadsAgain(t *testing.T) {
	b := newBench(t)
	b.step(time.Minute)
	b.askReboot("a-1")
	puts := 0
	b.server.after = func(call string) error {
		if call != "put status" {
			return nil
		}
		if puts++; puts == 2 { // Started is written, and the process freezes for a minute
			b.clock.Step(time.Minute)
			b.hold(v1alpha1.RemediationHoldSpec{Nodes: []string{"gpu-1"}})
		}
		return nil
	}
	b.step(time.Minute)
	b.wantReboots(0)
	b.wantAnswer("a-1", v1alpha1.ResultRefused, v1alpha1.ActionReasonHeld)
}

func TestDeadlineThatPassesWhileStartedIsWritten(t *testing.T) {
	b := newBench(t)
	b.step(time.Minute)
	b.askReboot("a-1")
	b.node.Observe(b.server.ask(func(s *v1alpha1.NodeHealthSpec) {
		s.Action.NotAfter = metav1.NewTime(b.clock.Now().Add(5 * time.Second))
	}))
	puts := 0
	b.server.after = func(call string) error {
		if call == "put status" {
			if puts++; puts == 2 {
				b.clock.Step(10 * time.Second)
			}
		}
		return nil
	}
	b.step(time.Minute)
	b.wantReboots(0)
	b.wantAnswer("a-1", v1alpha1.ResultRefused, v1alpha1.ActionReasonExpired)
}

func TestWatchThatIsQuickerThanTheLiveReadDoesNotLetACancelledActThrough(t *testing.T) {
	b := newBench(t)
	b.step(time.Minute)
	b.askReboot("a-1")
	b.options.Machine = saving{b.machine, func() { // between the decision and Started
		b.node.Observe(b.server.ask(func(s *v1alpha1.NodeHealthSpec) { s.Action = nil }))
	}}
	b.node.o.Machine = b.options.Machine
	b.step(time.Minute)
	b.wantReboots(0)
	b.wantAnswer("a-1", v1alpha1.ResultRefused, v1alpha1.ActionReasonWithdrawn)
}

// saving is a machine on which something happens while the journal is written.
type saving struct {
	*fake.Machine
	meanwhile func()
}

func (m saving) Save(ctx context.Context, name string, data []byte) error {
	m.meanwhile()
	return m.Machine.Save(ctx, name, data)
}

func TestFenceIsRememberedAcrossRestarts(t *testing.T) {
	b := newBench(t)
	b.step(time.Minute)
	for range 5 {
		b.server.ask(func(*v1alpha1.NodeHealthSpec) {})
	}
	b.askReboot("a-1")
	b.step(time.Minute)
	b.wantReboots(1)
	// The API server is restored from a backup: the fence and the versions are those of before.
	b.server.mu.Lock()
	h := b.server.load()
	h.Spec.Fence, h.Spec.Action, b.server.version = 1, nil, 10
	b.server.store(h)
	b.server.mu.Unlock()
	b.restart()
	b.askReboot("a-2")
	b.step(time.Minute)
	b.wantReboots(1)
	b.wantAnswer("a-2", v1alpha1.ResultRefused, v1alpha1.ActionReasonStaleFence)
}

func TestStoppedAgentSaysNothingOfAnActThatRuns(t *testing.T) {
	for name, stop := range map[string]bool{"stopped": true, "not stopped": false} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.step(time.Minute)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			running := make(chan struct{})
			b.node.o.Executors = map[v1alpha1.ActionType]Executor{v1alpha1.ActionReboot: doing(func(context.Context) error {
				close(running)
				if stop {
					cancel()
				}
				return errors.New("terminated")
			})}
			b.askReboot("a-1")
			for range 3 {
				b.node.Step(ctx)
			}
			<-running
			b.settle()
			if e, _ := b.node.journal.find("a-1"); (e.Result == "") != stop {
				t.Errorf("the journal says %+v", e)
			}
		})
	}
}

func TestActThatTakesLongIsDoneOnce(t *testing.T) {
	b := newBench(t)
	b.step(time.Minute)
	calls := make(chan struct{}, 100)
	b.node.o.Executors = map[v1alpha1.ActionType]Executor{v1alpha1.ActionReboot: doing(func(ctx context.Context) error {
		calls <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	})}
	b.askReboot("a-1")
	for range 50 {
		b.node.Step(t.Context())
		b.clock.Step(30 * time.Second)
	}
	<-calls
	if got := len(calls); got != 0 {
		t.Errorf("begun %d times more", got)
	}
	if got := b.server.get().Status.Action.State; got != v1alpha1.ActionStarted {
		t.Errorf("state is %s", got)
	}
}

func TestStartedByAnAgentThatDiedAndWithdrawnIsInterrupted(t *testing.T) {
	b := newBench(t)
	b.step(time.Minute)
	b.become(&mortal{left: 3})
	b.askReboot("a-1")
	b.step(2 * time.Second)
	b.server.ask(func(s *v1alpha1.NodeHealthSpec) { s.Action = nil })
	b.become(&mortal{left: 1 << 30})
	b.step(time.Minute)
	b.wantReboots(0)
	b.wantAnswer("a-1", v1alpha1.ResultInterrupted, v1alpha1.ActionReasonAgentRestarted)
}

func TestRoundAfterAFailedActIsPrompt(t *testing.T) {
	b := newBench(t, func(o *Options) {
		o.Executors = map[v1alpha1.ActionType]Executor{
			v1alpha1.ActionReboot: doing(func(context.Context) error { return errors.New("not permitted") }),
		}
	})
	b.step(time.Minute)
	b.askReboot("a-1")
	b.step(0)
	b.step(5 * time.Second)
	if r := b.server.get().Status.CompletedRound; r.AfterAction != "a-1" {
		t.Errorf("no round within 5s: %+v", r)
	}
}

func TestRebootThatNeverComes(t *testing.T) {
	tests := map[string]struct {
		do     func(ctx context.Context) error
		reason string
	}{
		"fails":                        {do: func(context.Context) error { return errors.New("not permitted") }, reason: v1alpha1.ActionReasonActFailed},
		"panics":                       {do: func(context.Context) error { panic("nil") }, reason: v1alpha1.ActionReasonActFailed},
		"was taken and then forgotten": {do: func(context.Context) error { return nil }, reason: v1alpha1.ActionReasonStillUp},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, func(o *Options) {
				o.Executors = map[v1alpha1.ActionType]Executor{v1alpha1.ActionReboot: doing(tt.do)}
			})
			b.step(time.Minute)
			b.askReboot("a-1")
			b.step(15 * time.Minute)
			b.wantAnswer("a-1", v1alpha1.ResultFailed, tt.reason)
			if r := b.server.get().Status.CompletedRound; r.AfterAction != "a-1" {
				t.Errorf("no round after the failed act: %+v", r)
			}
		})
	}
}

type doing func(ctx context.Context) error

func (d doing) Do(ctx context.Context, _ v1alpha1.Action) (remedy.Report, error) {
	return remedy.Report{}, d(ctx)
}

func TestCrashOfTheMachineIsNotOurBoot(t *testing.T) {
	b := newBench(t)
	b.step(time.Minute)
	b.machine.GoDown(5 * time.Second)
	b.step(time.Minute)
	boots := b.server.get().Status.Boots
	if len(boots) != 2 || boots[1].Cause != v1alpha1.BootByOther {
		t.Errorf("boots are %+v", boots)
	}
}
