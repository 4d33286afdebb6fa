package e2e

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/go-logr/logr"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/roundhouse-dev/roundhouse/sandbox/fleet"
	"github.com/roundhouse-dev/roundhouse/sandbox/sandbox"
	"github.com/roundhouse-dev/roundhouse/sandbox/scenario"
	"github.com/roundhouse-dev/roundhouse/sandbox/scenarios"
	"github.com/roundhouse-dev/roundhouse/sandbox/stage"
)

// TestScenarios plays every scenario that ships, one after the other on one small fleet, as `roundhouse-sandbox run` with
// all their names and --once does; those that need another feature of the API server on a fleet of their own.
func TestScenarios(t *testing.T) {
	// kubectl-roundhouse runs in this process; what its client logs is no part of the test.
	ctrllog.SetLogger(logr.Discard())
	names, err := scenarios.Names()
	if err != nil {
		t.Fatal(err)
	}
	var list []*scenario.Scenario
	for _, name := range names {
		one, err := scenarios.Get(name)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, one)
	}
	// Those that leave their traces come last.
	slices.SortStableFunc(list, func(a, b *scenario.Scenario) int {
		switch {
		case a.Leave == b.Leave:
			return 0
		case a.Leave:
			return 1
		}
		return -1
	})
	of := map[bool][]*scenario.Scenario{}
	for _, one := range list {
		of[one.Fleet.EvictionRequests] = append(of[one.Fleet.EvictionRequests], one)
	}
	for _, requests := range []bool{false, true} {
		list := of[requests]
		if requests {
			t.Run("with EvictionRequests", func(t *testing.T) { play(t, fleet.Options{Nodes: 4, EvictionRequests: true}, list) })
			continue
		}
		// So many that no scenario meets the daily limit of a host that another has used up.
		play(t, fleet.Options{Nodes: 12, DevicePlugin: 2}, list)
	}
}

// play plays scenarios on a fleet.
func play(t *testing.T, nodes fleet.Options, list []*scenario.Scenario) {
	t.Helper()
	starting, cancel := context.WithTimeoutCause(t.Context(), 5*time.Minute, fmt.Errorf("the sandbox was not ready after 5m"))
	defer cancel()
	s, err := stage.Start(starting, sandbox.Options{Fleet: nodes})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
		defer cancel()
		if err := s.Stop(ctx); err != nil {
			t.Errorf("stopping the sandbox: %v", err)
		}
	})
	ctx, stop := s.Supervise(t.Context(), t.Output())
	defer stop()
	for _, one := range list {
		t.Run(one.Name, func(t *testing.T) {
			var told bytes.Buffer
			report, err := scenario.NewRunner(one, s, scenario.NewPlainNarrator(&told)).Run(ctx)
			if err != nil || !report.Passed {
				t.Fatalf("%d of %d expectations seen: %v\n%s", report.Seen, report.Expected, err, told.String())
			}
			t.Logf("%d of %d expectations seen in %.1fs", report.Seen, report.Expected, report.Seconds)
		})
	}
}
