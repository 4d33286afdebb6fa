// Package scenario plays a timeline of faults, workloads and policies on a running sandbox and says whether what was
// expected was seen in the API.
//
// A [Scenario] is a YAML file ([Parse] reads it strictly). While it plays, a [Recorder] follows the API server's watches
// and a [World] turns each change of an object into [Fact]s: a pod evicted, a device kept out, a node started anew. Facts
// come from single changes and not from looking now and then, so what was done and undone between two looks is a fact all
// the same. Expectations are matched against facts, or against the state that the facts led to, and a [Report] says of each
// one whether, when and by which object it was seen.
package scenario
