package agent

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/health"
	"github.com/roundhouse-dev/roundhouse/internal/machine/fake"
	"github.com/roundhouse-dev/roundhouse/internal/remedy"
)

// resetting is an executor that does what it is told.
type resetting func(ctx context.Context, action v1alpha1.Action) (remedy.Report, error)

func (r resetting) Do(ctx context.Context, action v1alpha1.Action) (remedy.Report, error) {
	return r(ctx, action)
}

// newResetBench is an agent that resets devices by do.
func newResetBench(t *testing.T, do resetting) *bench {
	t.Helper()
	b := newBench(t, func(o *Options) { o.Executors[v1alpha1.ActionResetDevice] = do })
	b.step(time.Minute)
	return b
}

// askReset is the controller asking for a reset.
func (b *bench) askReset(id string) {
	b.t.Helper()
	b.node.Observe(b.server.ask(func(s *v1alpha1.NodeHealthSpec) {
		s.Action = &v1alpha1.Action{
			ID: id, Type: v1alpha1.ActionResetDevice, Devices: []string{"GPU-1"}, BootID: b.server.load().Status.BootID,
			NotAfter: metav1.NewTime(b.clock.Now().Add(30 * time.Minute)),
		}
	}))
}

func TestHowAResetEnds(t *testing.T) {
	tests := map[string]struct {
		report remedy.Report
		err    error
		result v1alpha1.ActionResult
		reason string
		says   string
		spent  int
	}{
		"done": {
			report: remedy.Report{Message: "GPU-1 reset by nvidia-smi", Reset: []string{"0000:18:00.0"}},
			result: v1alpha1.ResultSucceeded, reason: remedy.ReasonDeviceReset, says: "GPU-1 reset by nvidia-smi", spent: 1,
		},
		"refused, which costs nothing": {
			err:    remedy.Refuse(remedy.ReasonDeviceInUse, "GPU-1 is held by train.py (pid 4711, /dev/nvidia0)"),
			result: v1alpha1.ResultRefused, reason: remedy.ReasonDeviceInUse, says: "train.py (pid 4711, /dev/nvidia0)",
		},
		"failed": {
			err: errors.New("GPU is lost"), result: v1alpha1.ResultFailed, reason: v1alpha1.ActionReasonActFailed, says: "GPU is lost", spent: 1,
		},
		"no refusal is believed of one that has reset something": {
			report: remedy.Report{Reset: []string{"0000:18:00.0"}}, err: remedy.Refuse(remedy.ReasonDeviceInUse, "GPU-2 is held"),
			result: v1alpha1.ResultFailed, reason: v1alpha1.ActionReasonActFailed, says: "GPU-2 is held", spent: 1,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			did := 0
			b := newResetBench(t, func(context.Context, v1alpha1.Action) (remedy.Report, error) { did++; return tt.report, tt.err })
			b.askReset("a-1")
			b.step(time.Minute)
			b.wantAnswer("a-1", tt.result, tt.reason)
			status := b.server.get().Status
			if !strings.Contains(status.Action.Message, tt.says) {
				t.Errorf("message %q, want %q in it", status.Action.Message, tt.says)
			}
			if r := status.CompletedRound; r == nil || r.AfterAction != "a-1" || r.BootID != bootID {
				t.Errorf("completed round is %+v, want one after the act", r)
			}
			if got := b.node.journal.spent(b.clock.Now()); got != tt.spent {
				t.Errorf("counted as %d acts against the limit, want %d", got, tt.spent)
			}
			b.step(20 * time.Minute)
			b.restart()
			b.step(20 * time.Minute)
			if did != 1 {
				t.Errorf("done %d times", did)
			}
			b.wantAnswer("a-1", tt.result, tt.reason)
			b.wantReboots(0)
		})
	}
}

func TestSupportedActionsAreSaid(t *testing.T) {
	b := newResetBench(t, nil)
	want := []v1alpha1.ActionType{v1alpha1.ActionReboot, v1alpha1.ActionResetDevice}
	if diff := cmp.Diff(want, b.server.get().Status.SupportedActions); diff != "" {
		t.Error(diff)
	}
}

// resettable is a check that is told of resets.
type resettable struct {
	*scripted
	mu   sync.Mutex
	told []string
	err  error
}

func (r *resettable) DeviceReset(_ context.Context, pci string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.told = append(r.told, pci)
	if r.err == nil {
		r.finds()
	}
	return r.err
}

func TestChecksAreToldOfAResetBeforeTheyLookAgain(t *testing.T) {
	for name, report := range map[string]remedy.Report{
		"that was done":                   {Reset: []string{"0000:18:00.0"}},
		"of one, before another's failed": {Reset: []string{"0000:18:00.0"}},
	} {
		t.Run(name, func(t *testing.T) {
			check := &resettable{scripted: &scripted{name: "a"}}
			broken := &resettable{scripted: &scripted{name: "b"}, err: errors.New("disk is full")}
			var failure error
			if strings.Contains(name, "failed") {
				failure = errors.New("GPU is lost")
			}
			b := newBench(t, func(o *Options) {
				o.Checks = func() []Scheduled {
					return []Scheduled{{Check: check}, {Check: broken}, {Check: &scripted{name: "c", result: passing}}}
				}
				o.Executors[v1alpha1.ActionResetDevice] = resetting(func(context.Context, v1alpha1.Action) (remedy.Report, error) {
					return report, failure
				})
			})
			broken.finds()
			standing := finding("Xid95", v1alpha1.ClassHardware, v1alpha1.SeverityCritical, 1)
			standing.ClearedBy = health.ClearedByReset
			check.finds(standing)
			b.step(time.Minute)
			b.wantSummary(v1alpha1.SummaryFaulty)
			b.askReset("a-1")
			b.step(time.Minute)
			if diff := cmp.Diff([]string{"0000:18:00.0"}, check.told); diff != "" {
				t.Errorf("told (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff([]string{"0000:18:00.0"}, broken.told); diff != "" {
				t.Errorf("the one that cannot take it was told (-want +got):\n%s", diff)
			}
			b.wantSummary(v1alpha1.SummaryHealthy)
		})
	}
}

var passing = health.Result{Outcome: health.Passing}

func TestNoCheckLooksWhileADeviceIsReset(t *testing.T) {
	begun, release := make(chan struct{}), make(chan struct{})
	var looksAtBegin, looksAtEnd int
	var b *bench
	b = newBench(t, func(o *Options) {
		o.Checks = func() []Scheduled { return []Scheduled{{Check: b.check, Every: time.Second}} }
	})
	b.node.o.Executors[v1alpha1.ActionResetDevice] = resetting(func(context.Context, v1alpha1.Action) (remedy.Report, error) {
		looksAtBegin = b.check.looked()
		close(begun)
		<-release
		looksAtEnd = b.check.looked()
		return remedy.Report{}, nil
	})
	b.step(10 * time.Second)
	b.askReset("a-1")
	for range 10 {
		b.node.Step(t.Context())
		b.node.Observe(b.server.get())
	}
	<-begun
	for range 20 {
		b.clock.Step(time.Second)
		b.node.Step(t.Context())
	}
	b.wantSummary(v1alpha1.SummaryActing)
	close(release)
	b.step(time.Minute)
	if looksAtEnd != looksAtBegin {
		t.Errorf("looked %d times while the device was reset", looksAtEnd-looksAtBegin)
	}
	if after := b.check.looked(); after <= looksAtEnd {
		t.Error("never looked again")
	}
	b.wantAnswer("a-1", v1alpha1.ResultSucceeded, remedy.ReasonDeviceReset)
}

func TestAResetIsWrittenDownThoughTheAgentIsStopped(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	b := newResetBench(t, nil)
	b.node.o.Machine = cancellable{b.machine}
	b.node.o.Executors[v1alpha1.ActionResetDevice] = resetting(func(ctx context.Context, _ v1alpha1.Action) (remedy.Report, error) {
		stop()
		<-ctx.Done()
		return remedy.Report{Message: "reset"}, nil
	})
	b.askReset("a-1")
	for range 20 {
		b.node.Step(ctx)
		b.node.Observe(b.server.get())
	}
	b.node.awaitAct()
	b.restart()
	b.step(time.Minute)
	b.wantAnswer("a-1", v1alpha1.ResultSucceeded, remedy.ReasonDeviceReset)
}

// cancellable is a machine whose disk is not written to by who was told to stop.
type cancellable struct{ *fake.Machine }

func (c cancellable) Save(ctx context.Context, name string, data []byte) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return c.Machine.Save(ctx, name, data)
}

func TestAResetThatIsCutOffIsInterrupted(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	did := 0
	b := newResetBench(t, nil)
	do := resetting(func(ctx context.Context, _ v1alpha1.Action) (remedy.Report, error) {
		did++
		stop()
		<-ctx.Done()
		return remedy.Report{}, ctx.Err()
	})
	b.node.o.Executors[v1alpha1.ActionResetDevice], b.options.Executors[v1alpha1.ActionResetDevice] = do, do
	b.askReset("a-1")
	for range 20 {
		b.node.Step(ctx)
		b.node.Observe(b.server.get())
	}
	b.node.awaitAct()
	b.restart()
	b.step(time.Minute)
	b.wantAnswer("a-1", v1alpha1.ResultInterrupted, v1alpha1.ActionReasonAgentRestarted)
	if did != 1 {
		t.Errorf("done %d times", did)
	}
}

func TestAResetBetweenTwoBootsIsInterrupted(t *testing.T) {
	var b *bench
	b = newResetBench(t, func(context.Context, v1alpha1.Action) (remedy.Report, error) {
		b.machine.GoDown(5 * time.Second)
		return remedy.Report{}, errors.New("the machine is down")
	})
	b.askReset("a-1")
	b.step(time.Minute)
	b.wantAnswer("a-1", v1alpha1.ResultInterrupted, v1alpha1.ActionReasonAgentRestarted)
}

func TestARefusalGivesBackOnlyItsOwn(t *testing.T) {
	j := journal{Version: journalVersion}
	at := func(n int) time.Time { return began.Add(time.Duration(n) * time.Minute) }
	for i, id := range []string{"a", "b", "c"} {
		j.open(v1alpha1.Action{ID: id}, at(i))
	}
	j.finish(v1alpha1.ActionStatus{ID: "b", Result: v1alpha1.ResultRefused})
	j.finish(v1alpha1.ActionStatus{ID: "b", Result: v1alpha1.ResultRefused}) // said twice
	j.finish(v1alpha1.ActionStatus{ID: "c", Result: v1alpha1.ResultFailed})
	want := []metav1.Time{metav1.NewTime(at(0)), metav1.NewTime(at(2))}
	if !slices.EqualFunc(want, j.Spent, func(a, b metav1.Time) bool { return a.Equal(&b) }) {
		t.Errorf("spent %v, want %v", j.Spent, want)
	}
}
