//go:build unix && !linux

package controlplane

import "syscall"

// childAttributes puts a child into its own process group, so that Ctrl-C reaches
// the parent alone. Only Linux can end a child when its parent dies; elsewhere a
// killed sandbox leaves its components behind.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
