//go:build cgo && linux

package nvml

/*
#include <signal.h>
#include <string.h>

// roundhouse_default_signals makes what a crash raises end the process, as it does in a C program. Go's own handlers would
// print all stacks and exit with status 2, and who looks on would have to guess the signal.
static int roundhouse_default_signals(void) {
	static const int crashes[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGTRAP, SIGSYS};
	struct sigaction action;
	memset(&action, 0, sizeof action);
	action.sa_handler = SIG_DFL;
	for (unsigned i = 0; i < sizeof crashes / sizeof crashes[0]; i++)
		if (sigaction(crashes[i], &action, NULL) != 0)
			return -1;
	return 0;
}
*/
import "C"

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ExitDeadline is the exit status of a helper that ended itself at its deadline.
const ExitDeadline = 124

// maxData bounds the process's private memory, in bytes: the library takes some tens of MiB, and a loop in it must not
// take the agent's pod along.
const maxData = 1 << 30

// Guard makes the process safe to let the library loose in: it is ended at the deadline, whatever the library is in, dumps
// no core, is the first to go when memory is short, and dies of a crash by its signal.
func Guard(deadline time.Duration, exit func(status int)) error {
	time.AfterFunc(deadline, func() { exit(ExitDeadline) })
	if failed, err := C.roundhouse_default_signals(); failed != 0 {
		return fmt.Errorf("setting signals: %w", err)
	}
	err := errors.Join(
		// One, and not zero, is what also keeps the kernel from starting a program for the dump (core(5)).
		unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{Cur: 1, Max: 1}),
		unix.Setrlimit(unix.RLIMIT_DATA, &unix.Rlimit{Cur: maxData, Max: maxData}),
	)
	if err != nil {
		return fmt.Errorf("setting limits: %w", err)
	}
	// Not everywhere is /proc writable; then the kernel chooses by size alone.
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("1000"), 0)
	return nil
}

// ForbidPrograms takes from the process the right to start programs, for ever. NVML runs nvidia-modprobe when the
// driver's module or a device node is missing, and so would load the module that a driver container has just unloaded:
// who only looks must not.
func ForbidPrograms() error {
	arch := map[string]uint32{"amd64": unix.AUDIT_ARCH_X86_64, "arm64": unix.AUDIT_ARCH_AARCH64}[runtime.GOARCH]
	if arch == 0 {
		return fmt.Errorf("forbidding programs: not known how on %s", runtime.GOARCH)
	}
	const load, equal, answer = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, unix.BPF_RET | unix.BPF_K
	// struct seccomp_data of linux/seccomp.h: the call's number at 0, the architecture at 4. Another architecture's calls
	// have other numbers, so none is let through.
	filter := []unix.SockFilter{
		{Code: load, K: 4},
		{Code: equal, K: arch, Jt: 0, Jf: 3},
		{Code: load, K: 0},
		{Code: equal, K: unix.SYS_EXECVE, Jt: 1, Jf: 0},
		{Code: equal, K: unix.SYS_EXECVEAT, Jt: 0, Jf: 1},
		{Code: answer, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)},
		{Code: answer, K: unix.SECCOMP_RET_ALLOW},
	}
	// The kernel wants the first from the thread that does the second.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("forbidding programs: %w", err)
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	// TSYNC: for every thread of the process, not only the one that asks.
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC,
		uintptr(unsafe.Pointer(&program)))
	runtime.KeepAlive(filter)
	if errno != 0 {
		return fmt.Errorf("forbidding programs: %w", errno)
	}
	return nil
}
