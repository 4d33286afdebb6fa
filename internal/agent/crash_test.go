package agent

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/machine/fake"
	"github.com/roundhouse-dev/roundhouse/internal/remedy"
	"github.com/roundhouse-dev/roundhouse/internal/remedy/reboot"
)

// mortal is a process of the agent that dies at its nth effect: what it does after that reaches nobody.
type mortal struct {
	*server
	*fake.Machine
	left   int
	before bool // dies before the effect rather than after it
	dead   bool
}

var errDead = errors.New("this process is dead")

func (m *mortal) effect(do func() error) error {
	if m.dead {
		return errDead
	}
	m.left--
	if m.left == 0 && m.before {
		m.dead = true
		return errDead
	}
	err := do()
	if m.left == 0 {
		m.dead = true
		return errDead
	}
	return err
}

func (m *mortal) PutStatus(ctx context.Context, h *v1alpha1.NodeHealth) (out *v1alpha1.NodeHealth, err error) {
	err = m.effect(func() error { out, err = m.server.PutStatus(ctx, h); return err })
	return out, err
}

func (m *mortal) Save(ctx context.Context, name string, data []byte) error {
	return m.effect(func() error { return m.Machine.Save(ctx, name, data) })
}

func (m *mortal) Reboot(ctx context.Context) error {
	return m.effect(func() error { return m.Machine.Reboot(ctx) })
}

// become makes a new process of the agent.
func (b *bench) become(m *mortal) {
	m.server, m.Machine = b.server, b.machine
	b.options.Machine, b.options.API = m, m
	b.options.Executors = map[v1alpha1.ActionType]Executor{v1alpha1.ActionReboot: reboot.New(m)}
	b.restart()
}

func TestAgentKilledAtAnyEffectRebootsOnce(t *testing.T) {
	const forever = 1 << 30
	died := 0
	for _, before := range []bool{false, true} {
		for k := 1; k <= 20; k++ {
			t.Run(fmt.Sprintf("killed before=%t effect %d", before, k), func(t *testing.T) {
				b := newBench(t)
				b.step(time.Minute)
				first := &mortal{left: k, before: before}
				b.become(first)
				b.askReboot("a-1")
				b.step(2 * time.Second)
				if first.dead {
					died++
				}
				b.become(&mortal{left: forever})
				b.step(time.Minute)
				b.wantReboots(1)
				b.wantAnswer("a-1", v1alpha1.ResultSucceeded, v1alpha1.ActionReasonRebooted)
				if r := b.server.get().Status.CompletedRound; r == nil || r.AfterAction != "a-1" || r.BootID == bootID {
					t.Errorf("completed round is %+v", r)
				}
				if got := b.node.journal.spent(b.clock.Now()); got != 1 {
					t.Errorf("counted as %d acts against the limit", got)
				}
			})
		}
	}
	if died < 8 {
		t.Errorf("only %d runs died: the test kills too little", died)
	}
}

func TestStartedByAnAgentThatDiedIsNotBegunAgainWhenHeld(t *testing.T) {
	b := newBench(t)
	b.step(time.Minute)
	b.become(&mortal{left: 3}) // Accepted, journal, Started, dead
	b.askReboot("a-1")
	b.step(2 * time.Second)
	if got := b.server.get().Status.Action.State; got != v1alpha1.ActionStarted {
		t.Fatalf("state is %s", got)
	}
	b.hold(v1alpha1.RemediationHoldSpec{Nodes: []string{"gpu-1"}})
	b.become(&mortal{left: 1 << 30})
	b.step(time.Minute)
	b.wantReboots(0)
	b.wantAnswer("a-1", v1alpha1.ResultInterrupted, v1alpha1.ActionReasonHeld)
}

func TestAtMostOnceActIsInterruptedByARestart(t *testing.T) {
	done := 0
	executors := map[v1alpha1.ActionType]Executor{
		v1alpha1.ActionResetDevice: doing(func(context.Context) error { done++; return nil }),
	}
	b := newBench(t)
	b.step(time.Minute)
	m := &mortal{left: 3}
	b.become(m)
	b.options.Executors = executors
	b.restart()
	b.askReboot("a-1")
	b.node.Observe(b.server.ask(func(s *v1alpha1.NodeHealthSpec) { s.Action.Type = v1alpha1.ActionResetDevice }))
	b.step(2 * time.Second)
	b.become(&mortal{left: 1 << 30})
	b.options.Executors = executors
	b.restart()
	b.step(time.Minute)
	if done != 0 {
		t.Errorf("done %d times", done)
	}
	b.wantAnswer("a-1", v1alpha1.ResultInterrupted, v1alpha1.ActionReasonAgentRestarted)
}

func TestLostJournalNeverRepeatsAnAct(t *testing.T) {
	b := newBench(t)
	b.step(time.Minute)
	b.become(&mortal{left: 3})
	b.askReboot("a-1")
	b.step(2 * time.Second)
	if err := b.machine.Save(t.Context(), journalName, []byte(`{"version":1}`)); err != nil {
		t.Fatal(err)
	}
	b.become(&mortal{left: 1 << 30})
	b.step(time.Minute)
	b.wantReboots(0)
	b.wantAnswer("a-1", v1alpha1.ResultInterrupted, v1alpha1.ActionReasonAgentRestarted)
}

func TestAmbiguousWritesEndInOneReboot(t *testing.T) {
	for k := 1; k <= 6; k++ {
		for name, fail := range map[string]error{
			"timed out":  context.DeadlineExceeded,
			"500":        apierrors.NewInternalError(errors.New("etcd")),
			"throttled":  apierrors.NewTooManyRequests("later", 1),
			"conflicted": apierrors.NewConflict(resource, "gpu-1", nil),
		} {
			for _, reached := range []bool{true, false} {
				t.Run(fmt.Sprintf("write %d %s, reached %t", k, name, reached), func(t *testing.T) {
					b := newBench(t)
					b.step(time.Minute)
					left := k
					hook := func(string) error {
						if left--; left == 0 {
							return fail
						}
						return nil
					}
					if reached {
						b.server.after = hook
					} else {
						b.server.before = func(call string) error {
							if call == "put status" || call == "patch condition" {
								return hook(call)
							}
							return nil
						}
					}
					b.askReboot("a-1")
					b.step(2 * time.Minute)
					b.wantReboots(1)
					b.wantAnswer("a-1", v1alpha1.ResultSucceeded, v1alpha1.ActionReasonRebooted)
				})
			}
		}
	}
}

func TestAgentKilledAtAnyEffectResetsAtMostOnce(t *testing.T) {
	interrupted, succeeded := 0, 0
	for _, before := range []bool{false, true} {
		for k := 1; k <= 12; k++ {
			t.Run(fmt.Sprintf("killed before=%t effect %d", before, k), func(t *testing.T) {
				did := 0
				b := newBench(t)
				b.step(time.Minute)
				process := func(left int) {
					m := &mortal{left: left, before: before}
					b.become(m)
					b.options.Executors[v1alpha1.ActionResetDevice] = resetting(func(context.Context, v1alpha1.Action) (remedy.Report, error) {
						err := m.effect(func() error { did++; return nil })
						return remedy.Report{}, err
					})
					b.restart()
				}
				process(k)
				b.askReset("a-1")
				b.step(2 * time.Second)
				process(1 << 30)
				b.step(time.Minute)
				a := b.server.get().Status.Action
				switch {
				case a == nil || a.State != v1alpha1.ActionDone:
					t.Fatalf("never came to an end: %+v", a)
				case a.Result == v1alpha1.ResultInterrupted:
					interrupted++
				case a.Result == v1alpha1.ResultSucceeded:
					succeeded++
				default:
					t.Errorf("ended as %+v", a)
				}
				if did > 1 || a.Result == v1alpha1.ResultSucceeded && did != 1 {
					t.Errorf("done %d times, and said to be %s", did, a.Result)
				}
			})
		}
	}
	if interrupted < 3 || succeeded < 3 {
		t.Errorf("%d interrupted and %d succeeded: the test kills too little, or too much", interrupted, succeeded)
	}
}
