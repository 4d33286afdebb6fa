package vm

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// parentVariable makes this test's binary a process that starts QEMU in the directory it names and then hangs.
const parentVariable = "ROUNDHOUSE_VM_TEST_PARENT"

// TestQEMUEndsWithItsParent kills a process that has started QEMU, as a test's time-out or a person does, and looks
// whether QEMU is gone too.
func TestQEMUEndsWithItsParent(t *testing.T) {
	if dir := os.Getenv(parentVariable); dir != "" {
		hangAsParent(t, dir)
		return
	}
	dir := t.TempDir()
	for _, name := range []string{initramfsFile, diskFile} { // the guest need not come up
		if err := os.WriteFile(filepath.Join(dir, name), make([]byte, 1<<20), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	parent := exec.Command(os.Args[0], "-test.run=^TestQEMUEndsWithItsParent$")
	parent.Env = append(os.Environ(), parentVariable+"="+dir)
	parent.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("the parent said %q: %v", line, err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatalf("the parent said %q, not QEMU's process ID", line)
	}
	if !running(pid) {
		t.Fatal("QEMU did not run to begin with")
	}
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = parent.Wait() // it was killed, and says so
	eventually(t, "QEMU to end", func() bool { return !running(pid) })
}

// running tells whether a process runs. One that has ended may still be a zombie, if nobody reaps orphans here.
func running(pid int) bool {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, after, _ := strings.Cut(string(raw), ") ")
	return !strings.HasPrefix(after, "Z")
}

// hangAsParent starts QEMU, tells its process ID, and waits to be killed.
func hangAsParent(t *testing.T, dir string) {
	k, err := findKernel()
	if err != nil {
		t.Fatal(err)
	}
	o, err := Options{}.defaulted()
	if err != nil {
		t.Fatal(err)
	}
	q, err := startQEMU(dir, k.image, o)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println(q.cmd.Process.Pid)
	time.Sleep(time.Minute)
	t.Error("nobody killed this process")
}
