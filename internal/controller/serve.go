package controller

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	ctrl "sigs.k8s.io/controller-runtime"
	crmetrics "sigs.k8s.io/controller-runtime/pkg/metrics"
)

// shutdownGrace is how long a scrape in progress may go on when the controller ends.
const shutdownGrace = 5 * time.Second

// serveMetrics serves this controller's own registry, and controller-runtime's, which is a global of the process.
func serveMetrics(mgr ctrl.Manager, c Config) error {
	if c.MetricsAddress == "" {
		return nil
	}
	gatherer := prometheus.Gatherers{c.Registry, crmetrics.Registry}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(gatherer, promhttp.HandlerOpts{}))
	return mgr.Add(&webServer{address: c.MetricsAddress, handler: mux})
}

// webServer serves whether this process leads or not.
type webServer struct {
	address string
	handler http.Handler
}

// NeedLeaderElection says no.
func (*webServer) NeedLeaderElection() bool { return false }

// Start serves until ctx ends.
func (s *webServer) Start(ctx context.Context) error {
	var listen net.ListenConfig
	listener, err := listen.Listen(ctx, "tcp", s.address)
	if err != nil {
		return fmt.Errorf("listening on %s: %w", s.address, err)
	}
	server := &http.Server{Handler: s.handler, ReadHeaderTimeout: shutdownGrace}
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	select {
	case err := <-done:
		return fmt.Errorf("serving on %s: %w", s.address, err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownGrace)
	defer cancel()
	if err := server.Shutdown(grace); err != nil && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("closing the server on %s: %w", s.address, err)
	}
	return nil
}
