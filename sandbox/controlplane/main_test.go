package controlplane

import (
	"fmt"
	"os"
	"testing"
)

// shared is the control plane that the tests use which do not stop it.
var shared *ControlPlane

func TestMain(m *testing.M) {
	if os.Getenv(orphanEnv) != "" {
		orphanMain() // this process is the parent that one test kills
		return
	}
	options := Options{
		WithScheduler: true, WithControllerManager: true,
		Progress: func(p Progress) {
			fmt.Printf("%d of %d  %-23s %4d ms after the start\n", p.Ready, p.Of, p.Component, p.SinceStart.Milliseconds())
		},
	}
	os.Exit(RunTests(m, options, func(cp *ControlPlane) error { shared = cp; return nil }))
}
