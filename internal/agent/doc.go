// Package agent is the part of Roundhouse that runs on a node. It runs the health checks, publishes what they saw, and
// carries out the one action that is asked of its node. It decides nothing.
//
// A Node is one node's agent: a cheap object without goroutines or global state. Run drives it for a real machine; Step
// drives it by hand, so that a few workers of one process can play thousands of nodes through the same code.
//
//	runner.go   when a check looks, for how long, and what is believed when it does not come back
//	            (internal/health/steady has the hysteresis: a flapping signal neither hides nor starts anew)
//	judge.go    results to NodeHealthStatus (pure)
//	publish.go  one write in flight, on change only, storms folded
//	watch.go    what is asked of this node
//	act.go      the action protocol; verdict.go is its pure part, journal.go its memory
//	client.go   the requests to the API server
package agent
