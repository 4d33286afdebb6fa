//go:build unix && !linux

package child

import "syscall"

// childAttributes puts a child into its own process group, so that Ctrl-C reaches this process alone. Only Linux can end
// a child when its parent dies.
func childAttributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
