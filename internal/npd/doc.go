// Package npd reads the configurations of node-problem-detector (NPD): those of its system log monitor and those of its
// custom plugin monitor, unmodified. It reads no file and starts nothing; what the configurations mean when they run is in
// package internal/health/npd, and docs/checks/npd.md lists every difference from NPD.
//
// What NPD refuses at start is refused here, with the file, the field and the fix. What NPD ignores in silence (an unknown
// key, a rule that can never do anything) is a warning. The defaults are those of NPD's pkg/systemlogmonitor/config.go and
// pkg/custompluginmonitor/types/config.go as of August 2026.
//
// What NPD has no words for stands in a block "roundhouse" of a rule or of a condition. NPD ignores it, so that one file
// serves both.
package npd
