package child

import "syscall"

// childAttributes puts a child into its own process group, so that Ctrl-C reaches this process alone, which then ends
// things in order; and has the kernel end the child should this process die without doing so.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
