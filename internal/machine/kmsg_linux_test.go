package machine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// packets is a socket pair that gives one record a read, as /dev/kmsg does.
func packets(t *testing.T) (*kmsgReader, *os.File) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	r, err := newKmsgReader(os.NewFile(uintptr(fds[0]), "kmsg"))
	if err != nil {
		t.Fatal(err)
	}
	w := os.NewFile(uintptr(fds[1]), "writer")
	t.Cleanup(func() { _ = errors.Join(r.Close(), w.Close()) })
	return r, w
}

func TestKmsgReaderReadsRecordByRecord(t *testing.T) {
	r, w := packets(t)
	buf := make([]byte, MaxLogRecord)
	if _, err := r.TryRead(buf); !errors.Is(err, ErrLogDrained) {
		t.Fatalf("nothing waits: want ErrLogDrained, got %v", err)
	}
	for _, s := range []string{"4,1,2,-;one\n", "4,2,3,-;two\n"} {
		if _, err := w.WriteString(s); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{"4,1,2,-;one\n", "4,2,3,-;two\n"} {
		if err := r.Wait(testContext(t, 10*time.Second)); err != nil {
			t.Fatal(err)
		}
		n, err := r.TryRead(buf)
		if err != nil || string(buf[:n]) != want {
			t.Fatalf("TryRead = %q, %v; want %q", buf[:n], err, want)
		}
	}
}

func TestKmsgReaderWaitEnds(t *testing.T) {
	r, w := packets(t)
	if err := r.Wait(testContext(t, 20*time.Millisecond)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("at its deadline: %v", err)
	}
	// A deadline that has passed must not end the next wait.
	go func() {
		time.Sleep(20 * time.Millisecond)
		_, _ = w.WriteString("4,1,2,-;late\n")
	}()
	if err := r.Wait(testContext(t, 10*time.Second)); err != nil {
		t.Errorf("when a record comes: %v", err)
	}
}

// The real device, where the test may write to it; lines of a process have facility 1.
func TestRealKernelLog(t *testing.T) {
	out, err := os.OpenFile("/dev/kmsg", os.O_WRONLY, 0)
	if err != nil {
		t.Skipf("this needs to write to /dev/kmsg: %v", err)
	}
	defer func() { _ = out.Close() }()
	ctx := testContext(t, 20*time.Second)
	r, err := NewHost(Options{}).OpenLog(ctx)
	if err != nil {
		t.Skipf("this needs to read /dev/kmsg: %v", err)
	}
	defer func() { _ = r.Close() }()
	buf := make([]byte, MaxLogRecord)
	for err == nil || errors.Is(err, ErrLogOverrun) {
		_, err = r.TryRead(buf)
	}
	if !errors.Is(err, ErrLogDrained) {
		t.Fatal(err)
	}
	mark := fmt.Appendf(nil, "roundhouse test %d", time.Now().UnixNano())
	// Without a newline the kernel keeps the record open for a continuation, and shows it only when the next one comes.
	if _, err := out.Write(append(mark, '\n')); err != nil {
		t.Fatal(err)
	}
	for {
		n, err := r.TryRead(buf)
		switch {
		case errors.Is(err, ErrLogDrained):
			if err := r.Wait(ctx); err != nil {
				t.Fatalf("the line never came: %v", err)
			}
		case err != nil && !errors.Is(err, ErrLogOverrun):
			t.Fatal(err)
		case bytes.Contains(buf[:n], mark):
			if !bytes.HasPrefix(buf[:n], []byte("12,")) {
				t.Errorf("facility 1, level 4 was expected: %q", buf[:n])
			}
			return
		}
	}
}

func TestOpenLogOfAFileThatIsNoLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kmsg")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := NewHost(Options{LogPath: path}).OpenLog(t.Context())
	if err == nil {
		defer func() { _ = r.Close() }()
		_, err = r.TryRead(make([]byte, 64))
	}
	if err == nil || errors.Is(err, ErrLogDrained) {
		t.Errorf("an empty file must not look like a log without news: %v", err)
	}
	if _, err := NewHost(Options{LogPath: path + "-not"}).OpenLog(t.Context()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no log: %v", err)
	}
}

// logError is what TryRead makes of read(2)'s answers; overrun cannot be provoked without flooding the machine's log.
func TestLogError(t *testing.T) {
	for errno, want := range map[unix.Errno]error{unix.EAGAIN: ErrLogDrained, unix.EPIPE: ErrLogOverrun, unix.EINVAL: unix.EINVAL} {
		if err := logError(0, errno); !errors.Is(err, want) {
			t.Errorf("%v gives %v", errno, err)
		}
	}
	if err := logError(5, nil); err != nil {
		t.Errorf("a record gives %v", err)
	}
}
