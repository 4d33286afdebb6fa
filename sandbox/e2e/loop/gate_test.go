package loop

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/roundhouse-dev/roundhouse/internal/machine/fake"
)

// errKilled is what a process that was killed would never have lived to see.
var errKilled = errors.New("killed")

// write is a request that changes something.
type write struct{ Method, Path string }

func (w write) String() string { return w.Method + " " + w.Path }

// gate stands between a process and the API server. It counts the writes that matter, and a test can do something before
// or after one of them. Leases and Events are not counted: they are not part of the loop.
type gate struct {
	mu     sync.Mutex
	writes []write
	closed bool
	// thawed is nil for a process that runs; a frozen one's requests wait for it to be closed.
	thawed chan struct{}
	// before sees a counted write with its number, from 1, before it is sent. A response or an error it gives is the
	// answer, and the server never sees the request.
	before func(n int, w write) (*http.Response, error)
	// after sees the answer; an error it gives is what the process gets instead.
	after func(n int, w write, resp *http.Response) error
}

// wrap is for rest.Config.Wrap. A client may have several transports; the gate counts across them.
func (g *gate) wrap(next http.RoundTripper) http.RoundTripper { return &gated{gate: g, next: next} }

type gated struct {
	gate *gate
	next http.RoundTripper
}

// RoundTrip lets a request pass, or not.
func (t *gated) RoundTrip(req *http.Request) (*http.Response, error) {
	n, w, err := t.gate.enter(req)
	if err != nil {
		return nil, err
	}
	if n > 0 && t.gate.before != nil {
		if resp, err := t.gate.before(n, w); resp != nil || err != nil {
			return resp, err
		}
	}
	req, err = t.gate.frozen(req)
	if err != nil {
		return nil, err
	}
	resp, err := t.next.RoundTrip(req)
	if err == nil && n > 0 && t.gate.after != nil {
		if failed := t.gate.after(n, w, resp); failed != nil {
			resp.Body.Close()
			return nil, failed
		}
	}
	return resp, err
}

// enter counts a request; its number is 0 where it does not count.
func (g *gate) enter(req *http.Request) (int, write, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	w := write{Method: req.Method, Path: req.URL.Path}
	if g.closed {
		return 0, w, fmt.Errorf("%s: %w", w, errKilled)
	}
	if req.Method == http.MethodGet || strings.Contains(req.URL.Path, "/leases") || strings.Contains(req.URL.Path, "/events") {
		return 0, w, nil
	}
	g.writes = append(g.writes, w)
	return len(g.writes), w, nil
}

// frozen holds a frozen process's request back until it is thawed. What a stopped process had half sent goes out when it
// runs again, whatever its own deadlines say by then: the request loses its context.
func (g *gate) frozen(req *http.Request) (*http.Request, error) {
	g.mu.Lock()
	thawed := g.thawed
	g.mu.Unlock()
	if thawed == nil {
		return req, nil
	}
	if req.Method == http.MethodGet {
		// A watch or a read that outlives its process only holds the test up.
		select {
		case <-thawed:
		case <-req.Context().Done():
			return nil, context.Cause(req.Context())
		}
		return req, nil
	}
	<-thawed
	return req.WithContext(context.WithoutCancel(req.Context())), nil
}

// kill closes the gate: nothing passes any more, as after SIGKILL.
func (g *gate) kill() {
	g.thaw()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
}

// freeze holds every request back, leases too, as after SIGSTOP; thaw lets them go.
func (g *gate) freeze() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.thawed == nil {
		g.thawed = make(chan struct{})
	}
}

func (g *gate) thaw() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.thawed != nil {
		close(g.thawed)
		g.thawed = nil
	}
}

// made lists the writes so far.
func (g *gate) made() []write {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([]write(nil), g.writes...)
}

// errReset is an answer that was lost on its way: the server has done it, and nobody knows.
var errReset = errors.New("connection reset by peer")

// misbehave makes a third of the writes fail, in ways that a seed decides: a conflict, throttling, an internal error, a
// lost request, a lost answer.
func (g *gate) misbehave(seed uint64) {
	var mu sync.Mutex
	r := rand.New(rand.NewPCG(seed, 0))
	roll := func() int {
		mu.Lock()
		defer mu.Unlock()
		return r.IntN(15)
	}
	g.before = func(_ int, w write) (*http.Response, error) {
		switch roll() {
		case 0:
			return answer(apierrors.NewConflict(schema.GroupResource{Resource: "things"}, w.Path, errReset).Status()), nil
		case 1:
			return answer(apierrors.NewTooManyRequests("slow down", 0).Status()), nil
		case 2:
			return answer(apierrors.NewInternalError(errReset).Status()), nil
		case 3:
			return nil, errReset
		}
		return nil, nil
	}
	g.after = func(int, write, *http.Response) error {
		if roll() == 4 {
			return errReset
		}
		return nil
	}
}

func answer(status metav1.Status) *http.Response {
	status.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}
	body, err := json.Marshal(status)
	if err != nil {
		body = nil
	}
	return &http.Response{StatusCode: int(status.Code), Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(bytes.NewReader(body))}
}

// gatedMachine is a fake machine whose durable writes pass a gate too: an agent may die between its journal and its next
// write to the API.
type gatedMachine struct {
	*fake.Machine
	gate *gate
}

// Save counts as a write.
func (m gatedMachine) Save(ctx context.Context, name string, data []byte) error {
	m.gate.mu.Lock()
	if m.gate.closed {
		m.gate.mu.Unlock()
		return errKilled
	}
	w := write{Method: "SAVE", Path: name}
	m.gate.writes = append(m.gate.writes, w)
	n := len(m.gate.writes)
	m.gate.mu.Unlock()
	if err := m.Machine.Save(ctx, name, data); err != nil {
		return err
	}
	if m.gate.after != nil {
		return m.gate.after(n, w, nil)
	}
	return nil
}

// Reboot does nothing for a process that is dead.
func (m gatedMachine) Reboot(ctx context.Context) error {
	m.gate.mu.Lock()
	closed := m.gate.closed
	m.gate.mu.Unlock()
	if closed {
		return errKilled
	}
	return m.Machine.Reboot(ctx)
}
