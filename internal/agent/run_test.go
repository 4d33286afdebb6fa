package agent

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/utils/clock"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/health"
	"github.com/roundhouse-dev/roundhouse/internal/metrics/plain"
)

// hurried is a check that is woken by what it waits for, as kernel-log is by a line.
type hurried struct {
	scripted
	lines chan struct{}
}

func (c *hurried) Wait(ctx context.Context) error {
	select {
	case <-c.lines:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// runBench runs an agent on the real clock until the test ends.
func runBench(t *testing.T, checks ...health.Check) *bench {
	t.Helper()
	return runBenchWith(t, func(*Options) {}, checks...)
}

func runBenchWith(t *testing.T, change func(*Options), checks ...health.Check) *bench {
	t.Helper()
	b := newBench(t, change, func(o *Options) {
		o.Clock = clock.RealClock{}
		o.Checks = func() []Scheduled {
			var out []Scheduled
			for _, c := range checks {
				out = append(out, Scheduled{Check: c, Timeout: 50 * time.Millisecond})
			}
			return out
		}
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.node.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(10 * time.Second):
			t.Error("Run did not end")
		}
	})
	return b
}

// soon waits for what should come by itself, and says how long it took.
func soon(t *testing.T, what string, is func() bool) time.Duration {
	t.Helper()
	from := time.Now()
	for !is() {
		if time.Since(from) > 5*time.Second {
			t.Fatalf("not within 5s: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
	return time.Since(from)
}

func (b *bench) is(s v1alpha1.Summary) func() bool {
	return func() bool { return b.server.get().Status.Summary == s }
}

func TestRunPublishesALineInMilliseconds(t *testing.T) {
	check := &hurried{scripted: scripted{name: "a"}, lines: make(chan struct{}, 1)}
	check.finds()
	b := runBench(t, check)
	soon(t, "healthy", b.is(v1alpha1.SummaryHealthy))
	soon(t, "ready", func() bool { return b.node.Ready() == nil })
	check.finds(offTheBus)
	check.lines <- struct{}{}
	if took := soon(t, "faulty", b.is(v1alpha1.SummaryFaulty)); took > time.Second {
		t.Errorf("a line took %s", took)
	}
}

func TestRunIsNotHeldUpByAHangingCheck(t *testing.T) {
	check := &hurried{scripted: scripted{name: "a"}, lines: make(chan struct{}, 1)}
	check.finds()
	hanging := &scripted{name: "b"}
	release := make(chan struct{})
	hanging.does(func(context.Context) health.Result { <-release; return health.Result{Outcome: health.Passing} })
	b := runBench(t, check, hanging)
	soon(t, "the first look", func() bool { return check.looked() > 0 })
	time.Sleep(20 * time.Millisecond)
	if got := b.server.writes(); got != 0 {
		t.Errorf("%d writes before every check had its chance", got)
	}
	soon(t, "unknown", b.is(v1alpha1.SummaryUnknown))
	check.finds(offTheBus)
	check.lines <- struct{}{}
	soon(t, "faulty", b.is(v1alpha1.SummaryFaulty))
	if got := b.server.get().Status.CompletedRound; got != nil {
		t.Errorf("a round was completed while a check hangs: %+v", got)
	}
	check.finds()
	close(release)
	soon(t, "the check is back", func() bool { return b.server.get().Status.CompletedRound != nil })
	if got := hanging.looked(); got > 2 {
		t.Errorf("the hanging check was started %d times", got)
	}
}

func TestReady(t *testing.T) {
	b := newBench(t)
	notReady := func(want string) {
		t.Helper()
		if err := b.node.Ready(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ready is %v, want %q", err, want)
		}
	}
	ready := func() {
		t.Helper()
		if err := b.node.Ready(); err != nil {
			t.Error(err)
		}
	}
	notReady("not answered yet")
	b.node.Observe(b.server.get())
	b.step(time.Second)
	ready()
	b.clock.Step(maxSilence)
	notReady("silent")
	if err := b.node.event(watch.Event{Type: watch.Bookmark, Object: &v1alpha1.NodeHealth{}}); err != nil {
		t.Fatal(err)
	}
	ready()

	b.server.before = func(call string) error {
		if call == "put status" {
			return errors.New("connection refused")
		}
		return nil
	}
	b.check.finds(offTheBus)
	b.node.Wake()
	for range 20 {
		b.node.Step(t.Context())
		b.clock.Step(2 * time.Second)
		b.node.signOfLife()
	}
	notReady("stuck")
	b.server.before = nil
	b.step(time.Minute)
	b.node.signOfLife()
	ready()
}

func TestSilentWatchIsOpenedAnew(t *testing.T) {
	b := newBench(t)
	ended := make(chan error, 1)
	go func() { ended <- b.node.watchOnce(t.Context()) }()
	soon(t, "the first event", func() bool {
		b.node.mu.Lock()
		defer b.node.mu.Unlock()
		return b.node.health != nil
	})
	for range 100 {
		b.clock.Step(time.Second)
		select {
		case err := <-ended:
			if !errors.Is(err, errSilent) {
				t.Errorf("ended with %v", err)
			}
			return
		case <-time.After(time.Millisecond):
		}
	}
	t.Errorf("a watch may be silent for %s", 100*time.Second)
}

func TestWatchThatNeverOpensIsGivenUp(t *testing.T) {
	b := newBench(t)
	b.node.o.API = hangingWatch{b.server}
	ended := make(chan error, 1)
	go func() { ended <- b.node.watchOnce(t.Context()) }()
	for range 100 {
		b.clock.Step(time.Second)
		select {
		case err := <-ended:
			if err == nil {
				t.Error("a watch that never opened ended well")
			}
			if b.node.Ready() == nil {
				t.Error("ready without an answer")
			}
			return
		case <-time.After(time.Millisecond):
		}
	}
	t.Error("still opening")
}

type hangingWatch struct{ *server }

func (hangingWatch) Watch(ctx context.Context) (watch.Interface, error) {
	<-ctx.Done()
	return nil, context.Cause(ctx)
}

func TestHandler(t *testing.T) {
	registry := &plain.Registry{}
	b := newBench(t, func(o *Options) { o.Metrics = NewMetrics(registry, "v0.1.0", true) })
	b.check.finds(offTheBus)
	handler := b.node.Handler(registry)
	get := func(path string) (int, string) {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		return w.Code, w.Body.String()
	}
	if code, body := get("/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(body, "not answered") {
		t.Errorf("/readyz before the first answer: %d %s", code, body)
	}
	b.step(time.Second)
	b.node.signOfLife()
	if code, body := get("/readyz"); code != http.StatusOK {
		t.Errorf("/readyz: %d %s", code, body)
	}
	if code, body := get("/healthz"); code != http.StatusOK {
		t.Errorf("/healthz: %d %s", code, body)
	}
	_, body := get("/metrics")
	for _, want := range []string{
		`roundhouse_agent_accepts_injected_kernel_lines 1`,
		`roundhouse_agent_faults{class="Hardware"} 1`,
		`roundhouse_agent_looks_total{check="a",outcome="Failing"} 1`,
		`roundhouse_agent_writes_total{object="nodehealths/status",result="ok"} 1`,
		`roundhouse_agent_ready 1`,
	} {
		if !strings.Contains(body, want) {
			t.Errorf("metrics lack %s:\n%s", want, body)
		}
	}
	b.node.turned()
	b.clock.Step(maxStandstill)
	if code, _ := get("/healthz"); code != http.StatusServiceUnavailable {
		t.Errorf("/healthz of an agent that stands still: %d", code)
	}
}
