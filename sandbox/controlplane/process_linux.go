package controlplane

import "syscall"

// childAttributes puts a child into its own process group, so that Ctrl-C reaches
// the parent alone and the parent stops things in order, and has the kernel end the
// child should the parent die without doing so.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
