// Package receiver takes alerts as Alertmanager does, so that a scenario can see them: POST /api/v2/alerts with the checks
// that Alertmanager's published schema and its API make (alertmanager, api/v2/openapi.yaml and api/v2/api.go).
//
// It is not Alertmanager: it routes, groups and sends nothing, and knows no silences. Alertmanager's own command cannot be
// built from its Go module, which lacks the files of its web interface; the tests run Debian's, and hold this one to it.
package receiver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// maxBody bounds one request, maxAlerts what is remembered.
	maxBody   = 4 << 20
	maxAlerts = 10_000
	// resolveTimeout is Alertmanager's for alerts that do not say when they end.
	resolveTimeout = 5 * time.Minute
	// closeTimeout bounds the end.
	closeTimeout = 2 * time.Second
)

// Alert is the state of one alert; two with the same labels are the same.
type Alert struct {
	Labels, Annotations map[string]string
	StartsAt, EndsAt    time.Time
	// Resolved says that it has ended.
	Resolved bool
}

// Receiver is a server of the v2 API.
type Receiver struct {
	server *http.Server
	url    string
	now    func() time.Time

	mu      sync.Mutex
	alerts  map[string]Alert
	refused int
	follow  func(Alert)
}

// Start listens on a free port of the loopback.
func Start(ctx context.Context) (*Receiver, error) {
	var listen net.ListenConfig
	listener, err := listen.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listening for alerts: %w", err)
	}
	r := newReceiver(time.Now)
	r.url = "http://" + listener.Addr().String()
	r.server = &http.Server{Handler: r.handler(), ReadHeaderTimeout: closeTimeout}
	go func() { _ = r.server.Serve(listener) }() // it ends by Stop, and says so
	return r, nil
}

func newReceiver(now func() time.Time) *Receiver {
	return &Receiver{now: now, alerts: map[string]Alert{}}
}

// Stop ends the server.
func (r *Receiver) Stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, closeTimeout)
	defer cancel()
	if err := r.server.Shutdown(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("stopping the receiver of alerts: %w", err)
	}
	return nil
}

// URL is where it is, as a controller's --alertmanager-url takes it.
func (r *Receiver) URL() string { return r.url }

// Follow calls f for each alert that begins to fire or is resolved, one at a time, until the returned function is called.
func (r *Receiver) Follow(f func(Alert)) (stop func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.follow = f
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.follow = nil
	}
}

// Refused is how many requests were refused.
func (r *Receiver) Refused() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.refused
}

func (r *Receiver) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /api/v2/alerts", func(w http.ResponseWriter, request *http.Request) {
		if err := r.post(request); err != nil {
			r.mu.Lock()
			r.refused++
			r.mu.Unlock()
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusBadRequest)
			_ = json.NewEncoder(w).Encode(err.Error()) // a client that has gone needs no answer
		}
	})
	return mux
}

// postable is the schema's postableAlert.
type postable struct {
	Labels       map[string]string `json:"labels"`
	Annotations  map[string]string `json:"annotations"`
	StartsAt     *time.Time        `json:"startsAt"`
	EndsAt       *time.Time        `json:"endsAt"`
	GeneratorURL string            `json:"generatorURL"`
}

func (r *Receiver) post(request *http.Request) error {
	if kind := request.Header.Get("Content-Type"); !strings.HasPrefix(kind, "application/json") {
		return fmt.Errorf("content type %q, want application/json", kind)
	}
	data, err := io.ReadAll(io.LimitReader(request.Body, maxBody+1))
	if err != nil {
		return fmt.Errorf("reading alerts: %w", err)
	}
	if len(data) > maxBody {
		return fmt.Errorf("reading alerts: more than %d bytes", maxBody)
	}
	alerts, err := parse(data, r.now())
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, a := range alerts {
		r.takeLocked(a)
	}
	return nil
}

// parse reads and checks the body of a request.
func parse(data []byte, now time.Time) ([]Alert, error) {
	decoder := json.NewDecoder(strings.NewReader(string(data)))
	var list []postable
	if err := decoder.Decode(&list); err != nil {
		return nil, fmt.Errorf("reading alerts: %w", err)
	}
	if list == nil {
		return nil, errors.New("reading alerts: a list is needed")
	}
	var out []Alert
	for i, p := range list {
		a, err := p.alert(now)
		if err != nil {
			return nil, fmt.Errorf("alert %d: %w", i, err)
		}
		out = append(out, a)
	}
	return out, nil
}

// alert checks one alert as Alertmanager does: a label at least, valid names, no end before its start.
func (p postable) alert(now time.Time) (Alert, error) {
	a := Alert{Labels: maps.Clone(p.Labels), Annotations: p.Annotations, StartsAt: now, EndsAt: now.Add(resolveTimeout)}
	maps.DeleteFunc(a.Labels, func(_, value string) bool { return value == "" })
	if p.StartsAt != nil {
		a.StartsAt = *p.StartsAt
	}
	if p.EndsAt != nil && !p.EndsAt.IsZero() {
		a.EndsAt = *p.EndsAt
	}
	if p.StartsAt == nil && a.EndsAt.Before(a.StartsAt) {
		a.StartsAt = a.EndsAt
	}
	if len(a.Labels) == 0 {
		return a, errors.New("at least one label pair required")
	}
	for _, set := range []map[string]string{a.Labels, a.Annotations} {
		for name := range set {
			if !validName(name) {
				return a, fmt.Errorf("invalid name %q", name)
			}
		}
	}
	if a.EndsAt.Before(a.StartsAt) {
		return a, errors.New("start time must be before end time")
	}
	a.Resolved = !a.EndsAt.After(now)
	return a, nil
}

// validName is Prometheus' classic rule for label names.
func validName(name string) bool {
	for i, c := range []byte(name) {
		letter := c == '_' || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return name != ""
}

// takeLocked remembers an alert, and tells of it when it begins to fire or is resolved. One that was over before anybody
// heard of it is not told.
func (r *Receiver) takeLocked(a Alert) {
	key := fingerprint(a.Labels)
	before, known := r.alerts[key]
	if !known && (a.Resolved || len(r.alerts) >= maxAlerts) {
		return
	}
	r.alerts[key] = a
	if r.follow != nil && (!known || before.Resolved != a.Resolved) {
		r.follow(a)
	}
}

func fingerprint(labels map[string]string) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		parts = append(parts, name+"\xff"+labels[name])
	}
	return strings.Join(parts, "\xfe")
}
