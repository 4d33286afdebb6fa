package agent

import (
	"fmt"
	"net/http"
	"time"

	"github.com/roundhouse-dev/roundhouse/internal/metrics/plain"
)

const (
	// maxSilence is how long the watch may be silent before the agent is not ready.
	maxSilence = 3 * time.Minute
	// maxPending is how long a publish may be stuck before the agent is not ready.
	maxPending = 30 * time.Second
	// maxStandstill is how long the loop that writes may stand still before the agent is not alive. It turns at least
	// twice a minute, and each request in a turn has a deadline.
	maxStandstill = 5 * time.Minute
)

// Ready returns nil, or why the agent's word should not be relied on: its watch has been silent, or what it wants to say
// does not get through.
func (n *Node) Ready() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	now := n.clock.Now()
	switch {
	case n.seen.IsZero():
		return fmt.Errorf("the API server has not answered yet")
	case now.Sub(n.seen) >= maxSilence:
		return fmt.Errorf("the watch has been silent since %s", n.seen.UTC().Format(time.RFC3339))
	case !n.pub.pending.IsZero() && now.Sub(n.pub.pending) >= maxPending:
		return fmt.Errorf("a publish has been stuck since %s", n.pub.pending.UTC().Format(time.RFC3339))
	}
	return nil
}

// Alive returns nil, or why the process should be started anew.
func (n *Node) Alive() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.turnedAt.IsZero() && n.clock.Since(n.turnedAt) >= maxStandstill {
		return fmt.Errorf("the agent has stood still since %s", n.turnedAt.UTC().Format(time.RFC3339))
	}
	return nil
}

// turned notes that the loop that writes goes round.
func (n *Node) turned() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.turnedAt = n.clock.Now()
}

// silence is how long the watch has been silent, in seconds.
func (n *Node) silence() float64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.seen.IsZero() {
		return 0
	}
	return n.clock.Since(n.seen).Seconds()
}

// Handler serves /healthz, /readyz and /metrics.
func (n *Node) Handler(registry *plain.Registry) http.Handler {
	registry.GaugeFunc("roundhouse_agent_watch_silence_seconds", "How long the watch has been silent.", n.silence)
	registry.GaugeFunc("roundhouse_agent_ready", "1 where /readyz would say yes.", func() float64 {
		if n.Ready() != nil {
			return 0
		}
		return 1
	})
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", registry)
	mux.HandleFunc("GET /healthz", probe(n.Alive))
	mux.HandleFunc("GET /readyz", probe(n.Ready))
	return mux
}

// probe answers with 503 and the reason, or with ok.
func probe(ask func() error) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if err := ask(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		_, _ = fmt.Fprintln(w, "ok")
	}
}
