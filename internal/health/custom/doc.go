// Package custom runs checks that are not part of this project: programs, also such that live in a container image's root
// file system, and expressions in CEL over what the agent knows. One small file describes one check, and none needs a fork.
//
// CEL is evaluated in a process of its own, cmd/roundhouse-cel: linking it costs the agent more than 3 MiB of memory even
// where nobody uses it. Package custom/cel is what that process does; this package must not import it.
package custom
