package machine

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// markBytes is how many bytes before a position its mark is of.
	markBytes = 64
	// maxSiblings bounds the search for a file that was renamed.
	maxSiblings = 1000
)

// tailDoors has a door for each path that is followed, so that opening a file again does not leave a second thread behind
// on a file system that hangs.
var tailDoors sync.Map

// TailFile opens a file of the host and stands where an earlier reader stood.
func (h *Host) TailFile(ctx context.Context, path string, from FilePosition) (FileTail, error) {
	if !filepath.IsAbs(path) {
		return nil, fmt.Errorf("following %q: want a path that begins with /: %w", clip(path), fs.ErrInvalid)
	}
	d, _ := tailDoors.LoadOrStore(h.path(path), newDoor("log file "+path))
	t := &fileTail{root: h.root, path: path, door: d.(*door)}
	_, err := through(ctx, t.door, func() (struct{}, error) { return struct{}{}, t.start(from) })
	if err != nil {
		return nil, fmt.Errorf("following %s: %w", path, err)
	}
	return t, nil
}

// fileTail is not safe for two at the same time, except that a call that was given up may still be in the door; it then
// keeps its hands off what belongs to the caller, and the tail is broken.
type fileTail struct {
	root, path string
	door       *door

	file *os.File
	at   FilePosition
	// pending is told by the next Read: that the reader begins another file.
	pending error
	own     []byte
	broken  bool
}

// start opens the file that the position is in: the one at the path, or one beside it that it was renamed to.
func (t *fileTail) start(from FilePosition) error {
	f, at, err := t.open(t.path)
	if err != nil {
		return err
	}
	t.file, t.at = f, at
	if from.Inode == 0 {
		return nil
	}
	if sameFile(from, at) && t.holds(f, from) {
		t.at = from
		return nil
	}
	old := t.renamed(from)
	if old == nil {
		// Gone, or written anew in place: what it had beyond the position is lost.
		t.pending = ErrLogOverrun
		return nil
	}
	t.file, t.at = old, from
	return f.Close()
}

// open opens a regular file. A pipe or a device would hang.
func (t *fileTail) open(path string) (*os.File, FilePosition, error) {
	f, err := openIn(t.root, path, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return nil, FilePosition{}, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is %s, not a regular file: %w", path, info.Mode().Type(), fs.ErrInvalid)
	}
	if err != nil {
		return nil, FilePosition{}, errors.Join(err, f.Close())
	}
	return f, identity(info), nil
}

func identity(info fs.FileInfo) FilePosition {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return FilePosition{}
	}
	return FilePosition{Device: stat.Dev, Inode: stat.Ino}
}

func sameFile(a, b FilePosition) bool { return a.Device == b.Device && a.Inode == b.Inode }

// holds says that the file still has, before the position, what was there.
func (t *fileTail) holds(f *os.File, p FilePosition) bool {
	mark, err := markOf(f, p.Offset)
	return err == nil && mark == p.Mark
}

// markOf is a checksum of the bytes before the offset; an error when the file is shorter.
func markOf(f *os.File, offset int64) (uint64, error) {
	b := make([]byte, min(offset, markBytes))
	if _, err := f.ReadAt(b, offset-int64(len(b))); err != nil && (len(b) > 0 || !errors.Is(err, io.EOF)) {
		return 0, err
	}
	h := fnv.New64a()
	_, _ = h.Write(b) // A hash never fails.
	return h.Sum64(), nil
}

// renamed looks for the file beside the path: logrotate keeps old files in the same directory, under the same beginning. A
// file that cannot be looked at is not the one.
func (t *fileTail) renamed(p FilePosition) *os.File {
	dir, err := openIn(t.root, filepath.Dir(t.path), unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil
	}
	defer func() { _ = dir.Close() }()
	// Of an error the names before it are as good as any.
	names, _ := dir.Readdirnames(maxSiblings)
	base := filepath.Base(t.path)
	for _, name := range names {
		if name == base || !strings.HasPrefix(name, base) && !strings.HasPrefix(name, strings.TrimSuffix(base, filepath.Ext(base))) {
			continue
		}
		f, at, err := t.open(filepath.Join(filepath.Dir(t.path), name))
		if err != nil {
			continue
		}
		if sameFile(at, p) && t.holds(f, p) {
			return f
		}
		_ = f.Close()
	}
	return nil
}

// Read reads what follows.
func (t *fileTail) Read(ctx context.Context, buf []byte) (int, error) {
	if t.broken {
		return 0, fmt.Errorf("reading %s: %w", t.path, ErrStuck)
	}
	type answer struct {
		data []byte
		err  error
	}
	// Into memory of its own: the caller's is the caller's again when it gives up.
	if len(t.own) < len(buf) {
		t.own = make([]byte, len(buf))
	}
	own := t.own[:len(buf)]
	a, err := through(ctx, t.door, func() (answer, error) {
		n, err := t.next(own)
		return answer{own[:n], err}, nil
	})
	switch {
	case err != nil:
		t.broken = true
		return 0, fmt.Errorf("reading %s: %w", t.path, err)
	case a.err != nil && (errors.Is(a.err, ErrLogDrained) || errors.Is(a.err, ErrFileRotated) || errors.Is(a.err, ErrLogOverrun)):
		return 0, a.err
	case a.err != nil:
		return 0, fmt.Errorf("reading %s: %w", t.path, a.err)
	}
	return copy(buf, a.data), nil
}

// next reads from where it stands, and goes on to the next file once that has begun and the old one is read out.
func (t *fileTail) next(buf []byte) (int, error) {
	if err := t.pending; err != nil {
		t.pending = nil
		return 0, err
	}
	n, err := t.readHere(buf)
	if n > 0 || err != nil {
		return n, err
	}
	f, at, err := t.open(t.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		// In the middle of a rotation. Who writes may still have the old file open.
		return 0, ErrLogDrained
	case err != nil:
		return 0, err
	case sameFile(at, t.at):
		return 0, errors.Join(ErrLogDrained, f.Close())
	}
	return t.switchTo(f, at, buf)
}

// switchTo goes on to the file that is now at the path. Until something is in it, who writes may still have the old one
// open; after that one last look at the old one finds the rest.
func (t *fileTail) switchTo(f *os.File, at FilePosition, buf []byte) (int, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, errors.Join(err, f.Close())
	}
	if info.Size() == 0 {
		return 0, errors.Join(ErrLogDrained, f.Close())
	}
	n, err := t.readHere(buf)
	if n > 0 || err != nil {
		return n, errors.Join(err, f.Close())
	}
	err = t.file.Close()
	t.file, t.at = f, at
	if err != nil {
		return 0, err
	}
	return 0, ErrFileRotated
}

// readHere reads the file that it stands in. One that is shorter than what was read of it was cut and begins anew.
func (t *fileTail) readHere(buf []byte) (int, error) {
	info, err := t.file.Stat()
	if err != nil {
		return 0, err
	}
	if info.Size() < t.at.Offset {
		t.at = FilePosition{Device: t.at.Device, Inode: t.at.Inode}
		return 0, ErrFileRotated
	}
	n, err := t.file.ReadAt(buf, t.at.Offset)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	if n == 0 {
		return 0, nil
	}
	t.at.Offset += int64(n)
	if t.at.Mark, err = markOf(t.file, t.at.Offset); err != nil {
		return 0, err
	}
	return n, nil
}

// Position is after what was read so far.
func (t *fileTail) Position() FilePosition { return t.at }

// Close closes the file. One that hangs is left to the door.
func (t *fileTail) Close() error {
	if t.broken {
		return nil
	}
	if err := t.file.Close(); err != nil {
		return fmt.Errorf("closing %s: %w", t.path, err)
	}
	return nil
}
