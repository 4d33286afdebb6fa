// Package npd runs the configurations of node-problem-detector as health checks: LogMonitor for those of its system log
// monitor, PluginMonitor for those of its custom plugin monitor. Package internal/npd reads the files;
// docs/checks/npd.md has the semantics and every difference from NPD.
package npd
