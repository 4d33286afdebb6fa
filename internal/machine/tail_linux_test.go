package machine

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// logFile is a log file of a host in a temporary directory, with a reader.
type logFile struct {
	*testing.T
	root string
	tail FileTail
}

func newLogFile(t *testing.T) *logFile { return &logFile{T: t, root: t.TempDir()} }

func (l *logFile) path(name string) string { return filepath.Join(l.root, "var/log", name) }

func (l *logFile) append(name, text string) {
	l.Helper()
	if err := os.MkdirAll(l.path(""), 0o755); err != nil {
		l.Fatal(err)
	}
	f, err := os.OpenFile(l.path(name), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = f.WriteString(text)
	}
	if err := errors.Join(err, f.Close()); err != nil {
		l.Fatal(err)
	}
}

func (l *logFile) rename(from, to string) {
	l.Helper()
	if err := os.Rename(l.path(from), l.path(to)); err != nil {
		l.Fatal(err)
	}
}

func (l *logFile) open(from FilePosition) {
	l.Helper()
	var err error
	if l.tail, err = NewHost(Options{Root: l.root}).TailFile(l.Context(), "/var/log/messages", from); err != nil {
		l.Fatal(err)
	}
}

// read is all that Read gives until it is drained, with the errors in between as words.
func (l *logFile) read() string {
	l.Helper()
	var out strings.Builder
	buf := make([]byte, 7)
	for range 1000 {
		n, err := l.tail.Read(l.Context(), buf)
		out.Write(buf[:n])
		switch {
		case err == nil:
		case errors.Is(err, ErrFileRotated):
			out.WriteString("<rotated>")
		case errors.Is(err, ErrLogOverrun):
			out.WriteString("<lost>")
		case errors.Is(err, ErrLogDrained):
			return out.String()
		default:
			l.Fatal(err)
		}
	}
	l.Fatal("it never ends")
	return ""
}

func (l *logFile) want(want string) {
	l.Helper()
	if got := l.read(); got != want {
		l.Errorf("read %q, want %q", got, want)
	}
}

// restart closes the reader and opens another where it stood.
func (l *logFile) restart() { l.stop()() }

func (l *logFile) stop() (start func()) {
	l.Helper()
	at := l.tail.Position()
	if err := l.tail.Close(); err != nil {
		l.Fatal(err)
	}
	return func() { l.open(at) }
}

func TestTailFollowsAFile(t *testing.T) {
	l := newLogFile(t)
	l.append("messages", "one\n")
	l.open(FilePosition{})
	l.want("one\n")
	l.want("")
	l.append("messages", "two\nthr")
	l.want("two\nthr")
	l.restart()
	l.want("")
	l.append("messages", "ee\n")
	l.want("ee\n")
}

func TestTailReadsARotatedFileToItsEnd(t *testing.T) {
	l := newLogFile(t)
	l.append("messages", "one\n")
	l.open(FilePosition{})
	l.want("one\n")
	l.rename("messages", "messages.1")
	l.append("messages.1", "two\n")
	l.want("two\n")
	l.append("messages", "")
	l.append("messages.1", "three\n")
	l.want("three\n")
	l.append("messages", "four\n")
	l.want("<rotated>four\n")
}

func TestTailReadsARotatedFileToItsEndEvenWhenItIsDeleted(t *testing.T) {
	l := newLogFile(t)
	l.append("messages", "one\n")
	l.open(FilePosition{})
	l.want("one\n")
	l.append("messages", "two\n")
	if err := os.Remove(l.path("messages")); err != nil {
		t.Fatal(err)
	}
	l.append("messages", "three\n")
	l.want("two\n<rotated>three\n")
}

func TestTailFindsARotatedFileAfterARestart(t *testing.T) {
	for name, old := range map[string]string{"by number": "messages.1", "by date": "messages-20261126"} {
		t.Run(name, func(t *testing.T) {
			l := newLogFile(t)
			l.append("messages", "one\n")
			l.open(FilePosition{})
			l.want("one\n")
			start := l.stop()
			l.append("messages", "two\n")
			l.rename("messages", old)
			l.append("messages", "three\n")
			start()
			l.want("two\n<rotated>three\n")
		})
	}
}

func TestTailSaysThatLinesAreLost(t *testing.T) {
	tests := map[string]func(l *logFile){
		"when the file is gone": func(l *logFile) {
			l.rename("messages", "elsewhere")
			l.append("messages", "three\n")
		},
		"when it was written anew in place": func(l *logFile) {
			if err := os.WriteFile(l.path("messages"), []byte("three\n"), 0o600); err != nil {
				l.Fatal(err)
			}
		},
	}
	for name, lose := range tests {
		t.Run(name, func(t *testing.T) {
			l := newLogFile(t)
			l.append("messages", "one\n")
			l.open(FilePosition{})
			l.want("one\n")
			start := l.stop()
			lose(l)
			start()
			l.want("<lost>three\n")
		})
	}
}

func TestTailBeginsAnewInATruncatedFile(t *testing.T) {
	l := newLogFile(t)
	l.append("messages", "one\ntwo\n")
	l.open(FilePosition{})
	l.want("one\ntwo\n")
	if err := os.Truncate(l.path("messages"), 0); err != nil {
		t.Fatal(err)
	}
	l.want("<rotated>")
	l.append("messages", "x\n")
	l.want("x\n")
}

func TestTailCannotLook(t *testing.T) {
	l := newLogFile(t)
	h := NewHost(Options{Root: l.root})
	l.append("other", "")
	if _, err := h.TailFile(t.Context(), "/var/log/messages", FilePosition{}); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if _, err := h.TailFile(t.Context(), "messages", FilePosition{}); !errors.Is(err, fs.ErrInvalid) {
		t.Error(err)
	}
	if err := unix.Mkfifo(l.path("pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := h.TailFile(t.Context(), "/var/log/pipe", FilePosition{}); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("a pipe: %v", err)
	}
}

func TestTailFollowsALinkWithinTheHostsRoot(t *testing.T) {
	l := newLogFile(t)
	l.append("syslog", "one\n")
	if err := os.Symlink("/var/log/syslog", l.path("messages")); err != nil {
		t.Fatal(err)
	}
	l.open(FilePosition{})
	l.want("one\n")
}
