// Package replay feeds recorded kernel logs and streams of facts through the very checks that the agent runs, in recorded
// time, and says what would have been found and when.
//
// A Source gives events in the order they were recorded: a Reader reads them from a file, package corpus makes them up. Run
// plays them to a Machine, which the checks read as they read a real one, and drives the checks as the agent's runner does:
// a line wakes the checks that wait for lines, everything else has its turn every 30 seconds of recorded time. What stands
// is settled by the agent's own hysteresis, and folded into incidents.
//
//	event.go      what a recording tells
//	read.go       a file as a Source; format.go tells what kind of file it is
//	kmsg.go, dmesg.go, journal.go, facts.go   one line at a time (pure)
//	place.go      when a line was written, and in which boot
//	machine.go    the recorded machine; ring.go is its kernel log
//	run.go        the schedule
//	incidents.go  findings to incidents
//	print.go      tables and JSON
//
// docs/replay.md is for those who use it.
package replay
