package loop

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
)

// errKilled is what a process that was killed would never have lived to see.
var errKilled = errors.New("killed")

// write is a request that changes something.
type write struct{ Method, Path string }

func (w write) String() string { return w.Method + " " + w.Path }

// gate stands between a process and the API server. It counts the writes that matter, and can do something before or
// after one of them. Leases and Events are not counted: they are not part of the loop.
type gate struct {
	next http.RoundTripper

	mu     sync.Mutex
	writes []write
	closed bool
	// before and after are called around each counted write with its number, from 1; what before returns is the answer.
	before func(n int, w write) error
	after  func(n int, w write, resp *http.Response) error
}

// wrap is for rest.Config.Wrap.
func (g *gate) wrap(next http.RoundTripper) http.RoundTripper {
	return &gated{gate: g, next: next}
}

// gated is one of a client's transports; a client may have several, and the gate counts across them.
type gated struct {
	gate *gate
	next http.RoundTripper
}

// RoundTrip lets a request pass, or not.
func (t *gated) RoundTrip(req *http.Request) (*http.Response, error) {
	g := t.gate
	g.mu.Lock()
	if g.closed {
		g.mu.Unlock()
		return nil, fmt.Errorf("%s %s: %w", req.Method, req.URL.Path, errKilled)
	}
	counts := req.Method != http.MethodGet && !strings.Contains(req.URL.Path, "/leases") && !strings.Contains(req.URL.Path, "/events")
	if !counts {
		g.mu.Unlock()
		return t.next.RoundTrip(req)
	}
	w := write{Method: req.Method, Path: req.URL.Path}
	g.writes = append(g.writes, w)
	n, before, after := len(g.writes), g.before, g.after
	g.mu.Unlock()
	if before != nil {
		if err := before(n, w); err != nil {
			return nil, err
		}
	}
	resp, err := t.next.RoundTrip(req)
	if err == nil && after != nil {
		if failed := after(n, w, resp); failed != nil {
			resp.Body.Close()
			return nil, failed
		}
	}
	return resp, err
}

// kill closes the gate: nothing passes any more, as after SIGKILL.
func (g *gate) kill() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
}

// made lists the writes so far.
func (g *gate) made() []write {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([]write(nil), g.writes...)
}
