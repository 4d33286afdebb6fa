package vm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
	"time"
)

// The files of a machine, in its directory, which is QEMU's working directory too: no path is on its command line but
// the kernel's, so none needs QEMU's quoting of commas.
const (
	initramfsFile = "initramfs.cpio"
	diskFile      = "state.ext4"
	consoleFile   = "console.log"
	traceFile     = "trace.log"
)

// kernelArgs are the guest's command line. Everything after the console saves time on an emulated processor, and
// nothing of it changes what an agent sees. The console shows errors and worse; all the rest is in /dev/kmsg.
const kernelArgs = "console=ttyS0 loglevel=4 tsc=reliable no_timer_check mitigations=off random.trust_cpu=on"

// qemu is one running QEMU process.
type qemu struct {
	cmd    *exec.Cmd
	stderr bytes.Buffer
	exited chan struct{}
	err    error // how it ended, once exited

	monitor, control net.Conn
}

// startQEMU starts the process in dir and returns with its monitor and control sockets connected. They are socket
// pairs, which need no path, no listening and no clearing up, and which the kernel closes when either side ends.
func startQEMU(dir, kernelImage string, o Options) (*qemu, error) {
	binary, err := lookPath("qemu-system-x86_64")
	if err != nil {
		return nil, err
	}
	q := &qemu{exited: make(chan struct{})}
	var theirs [2]*os.File
	for i, ours := range []*net.Conn{&q.monitor, &q.control} {
		if *ours, theirs[i], err = socketPair(); err != nil {
			return nil, errors.Join(err, q.closeSockets())
		}
		defer theirs[i].Close()
	}
	q.cmd = exec.Command(binary, arguments(kernelImage, o)...)
	q.cmd.Dir = dir
	q.cmd.Stderr = &q.stderr
	q.cmd.ExtraFiles = theirs[:] // file descriptors 3 and 4 there
	q.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go q.run(started)
	if err := <-started; err != nil {
		return nil, errors.Join(fmt.Errorf("starting QEMU: %w", err), q.closeSockets())
	}
	return q, nil
}

// run starts the process and waits for its end on one thread: the kernel sends the parent-death signal when the thread
// that forked ends, not when its process does (prctl(2)), and Go may end a thread that nobody holds.
func (q *qemu) run(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := q.cmd.Start()
	started <- err
	if err != nil {
		return
	}
	q.err = q.cmd.Wait()
	close(q.exited)
}

// arguments are QEMU's. TCG is asked for even where /dev/kvm exists: it may exist and not work, and a test must not
// behave differently from one machine to the next.
func arguments(kernelImage string, o Options) []string {
	args := []string{
		"-accel", "tcg", "-machine", "q35", "-cpu", "max",
		"-m", strconv.Itoa(o.MemoryMiB), "-smp", strconv.Itoa(o.CPUs),
		"-trace", resetEvent, "-D", traceFile,
		"-nodefaults", "-no-user-config", "-display", "none",
		"-kernel", kernelImage, "-initrd", initramfsFile, "-append", kernelArgs,
		"-chardev", "socket,id=monitor,fd=3", "-mon", "chardev=monitor,mode=control",
		"-chardev", "file,id=console,path=" + consoleFile, "-serial", "chardev:console",
		"-chardev", "socket,id=control,fd=4", "-serial", "chardev:control",
		// The host's page cache is the disk: it outlives the guest, and the test does not pull the host's plug.
		"-drive", "if=none,id=state,format=raw,cache=unsafe,file=" + diskFile, "-device", "virtio-blk-pci,drive=state",
		"-netdev", "user,id=net,ipv6=off", "-device", "virtio-net-pci,netdev=net,romfile=",
	}
	for i, d := range o.Devices {
		// A root port a device, as on a server's board, each on its own slot number, from a fixed place on the root bus.
		port := fmt.Sprintf("pcie-root-port,id=%s,bus=pcie.0,addr=%#x,chassis=%d,slot=%d,x-speed=%s,x-width=%d",
			d.port(), firstPort+i, i+1, i+1, d.PortSpeed, d.PortWidth)
		args = append(args, "-device", port, "-device", d.device())
	}
	return args
}

// socketPair returns two connected ends: ours as a connection and the child's as a file.
func socketPair() (net.Conn, *os.File, error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("making a socket pair: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")
	defer ours.Close() // FileConn duplicates it
	conn, err := net.FileConn(ours)
	if err != nil {
		theirs.Close()
		return nil, nil, fmt.Errorf("using a socket pair: %w", err)
	}
	return conn, theirs, nil
}

// closeSockets closes our ends, which also ends who reads from them.
func (q *qemu) closeSockets() error {
	var errs []error
	for _, conn := range []net.Conn{q.monitor, q.control} {
		if conn != nil {
			errs = append(errs, conn.Close())
		}
	}
	return errors.Join(errs...)
}

// end waits for the process to end by itself as long as ctx allows, and then kills it.
func (q *qemu) end(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	select {
	case <-q.exited:
	case <-ctx.Done():
		if err := q.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("killing QEMU: %w", err)
		}
		<-q.exited // a killed process ends
		return q.closeSockets()
	}
	if q.err != nil {
		return errors.Join(fmt.Errorf("QEMU ended: %w: %s", q.err, q.stderr.String()), q.closeSockets())
	}
	return q.closeSockets()
}
