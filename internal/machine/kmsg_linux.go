package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// OpenLog opens /dev/kmsg at the oldest record. The device keeps a position for each open file and has no seek by
// sequence number (Documentation/ABI/testing/dev-kmsg), so whoever has a cursor skips up to it.
func (h *Host) OpenLog(context.Context) (LogReader, error) {
	// The file is opened without blocking so that the runtime's poller waits for it, which is what gives Wait a deadline.
	f, err := os.OpenFile(h.logPath, os.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("opening kernel log: %w", err)
	}
	r, err := newKmsgReader(f)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return r, nil
}

// kmsgReader reads one record a read(2), the device's way.
type kmsgReader struct {
	file *os.File
	conn syscall.RawConn
}

func newKmsgReader(f *os.File) (*kmsgReader, error) {
	conn, err := f.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("opening kernel log: %w", err)
	}
	return &kmsgReader{file: f, conn: conn}, nil
}

// TryRead copies the next record into buf and never blocks.
func (r *kmsgReader) TryRead(buf []byte) (int, error) {
	var n int
	var readErr error
	err := r.conn.Control(func(fd uintptr) {
		for {
			n, readErr = unix.Read(int(fd), buf)
			if !errors.Is(readErr, unix.EINTR) {
				return
			}
		}
	})
	if err == nil {
		err = readErr
	}
	if err := logError(n, err); err != nil {
		return 0, err
	}
	return n, nil
}

// logError says what an answer of read(2) on /dev/kmsg means.
func logError(n int, err error) error {
	switch {
	case err == nil && n > 0:
		return nil
	case err == nil:
		return errors.New("reading kernel log: end of file, so it is no kernel log")
	case errors.Is(err, unix.EAGAIN):
		return ErrLogDrained
	case errors.Is(err, unix.EPIPE):
		return ErrLogOverrun
	}
	return fmt.Errorf("reading kernel log: %w", err)
}

// Wait returns nil when a record may be waiting.
func (r *kmsgReader) Wait(ctx context.Context) error {
	if err := r.file.SetReadDeadline(time.Time{}); err != nil {
		return fmt.Errorf("waiting for kernel log: %w", err)
	}
	stop := context.AfterFunc(ctx, func() {
		// An error here means that the file is closed, which ends the wait as well.
		_ = r.file.SetReadDeadline(time.Unix(1, 0))
	})
	defer stop()
	// The poller is edge-triggered and forgets an edge that came before the wait was set up, so readiness is asked for
	// again inside it.
	err := r.conn.Read(readable)
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return fmt.Errorf("waiting for kernel log: %w", err)
	}
	return nil
}

// readable says whether a read would not block; an error condition is for the read to report.
func readable(fd uintptr) bool {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	return n > 0 || err != nil && !errors.Is(err, unix.EINTR)
}

// Close ends every wait.
func (r *kmsgReader) Close() error {
	if err := r.file.Close(); err != nil {
		return fmt.Errorf("closing kernel log: %w", err)
	}
	return nil
}
