package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/go-logr/logr"
)

// serve answers probes and scrapes until stop is called.
func serve(ctx context.Context, bind string, handler http.Handler) (stop func(), err error) {
	if bind == "" {
		return func() {}, nil
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", bind)
	if err != nil {
		return nil, fmt.Errorf("serving metrics: %w", err)
	}
	logr.FromContextOrDiscard(ctx).Info("Serving /healthz, /readyz and /metrics", "address", listener.Addr().String())
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second, WriteTimeout: 10 * time.Second, IdleTimeout: time.Minute}
	go func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			logr.FromContextOrDiscard(ctx).Error(err, "Serving ended")
		}
	}()
	return func() { _ = server.Close() }, nil
}
