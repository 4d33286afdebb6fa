package fake

import (
	"context"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/roundhouse-dev/roundhouse/internal/machine"
)

// Files are log files in memory that can be appended to, rotated and lost.
type Files struct {
	mu   sync.Mutex
	next uint64
	at   map[string]*memFile
	all  []*memFile
	err  error
}

type memFile struct {
	inode uint64
	data  []byte
	gone  bool
}

var _ machine.FileTailer = (*Files)(nil)

// Append adds to the file at the path and creates it when it is not there.
func (f *Files) Append(path, text string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.at == nil {
		f.at = make(map[string]*memFile)
	}
	if f.at[path] == nil {
		f.next++
		f.at[path] = &memFile{inode: f.next}
		f.all = append(f.all, f.at[path])
	}
	f.at[path].data = append(f.at[path].data, text...)
}

// Rotate takes the file away from the path; it is still found by its inode unless it is deleted.
func (f *Files) Rotate(path string, deleted bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if old := f.at[path]; old != nil {
		old.gone = deleted
		delete(f.at, path)
	}
}

// Fail makes every call fail with the error; nil ends that.
func (f *Files) Fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

// TailFile opens the file at the path or the one of the position.
func (f *Files) TailFile(_ context.Context, path string, from machine.FilePosition) (machine.FileTail, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return nil, f.err
	}
	t := &memTail{files: f, path: path}
	if i := slices.IndexFunc(f.all, func(m *memFile) bool { return m.inode == from.Inode && !m.gone }); from.Inode != 0 && i >= 0 {
		t.file, t.offset = f.all[i], from.Offset
		return t, nil
	}
	if t.file = f.at[path]; t.file == nil {
		return nil, fmt.Errorf("following %s: %w", path, fs.ErrNotExist)
	}
	t.lost = from.Inode != 0
	return t, nil
}

type memTail struct {
	files  *Files
	path   string
	file   *memFile
	offset int64
	lost   bool
}

func (t *memTail) Read(_ context.Context, buf []byte) (int, error) {
	t.files.mu.Lock()
	defer t.files.mu.Unlock()
	if t.files.err != nil {
		return 0, t.files.err
	}
	if t.lost {
		t.lost = false
		return 0, machine.ErrLogOverrun
	}
	if n := copy(buf, t.file.data[t.offset:]); n > 0 {
		t.offset += int64(n)
		return n, nil
	}
	if now := t.files.at[t.path]; now != nil && now != t.file {
		t.file, t.offset = now, 0
		return 0, machine.ErrFileRotated
	}
	return 0, machine.ErrLogDrained
}

func (t *memTail) Position() machine.FilePosition {
	return machine.FilePosition{Inode: t.file.inode, Offset: t.offset}
}

func (t *memTail) Close() error { return nil }

// Journal is a journal in memory.
type Journal struct {
	mu      sync.Mutex
	entries []journalEntry
	err     error
	// Queries are counted.
	queries int
}

type journalEntry struct {
	identifier string
	machine.JournalEntry
}

var _ machine.JournalReader = (*Journal)(nil)

// Add adds an entry of a process of root.
func (j *Journal) Add(identifier string, at time.Time, message string) {
	j.AddEntry(identifier, machine.JournalEntry{Time: at, Message: message, Root: true})
}

// AddEntry adds an entry and gives it its cursor.
func (j *Journal) AddEntry(identifier string, e machine.JournalEntry) {
	j.mu.Lock()
	defer j.mu.Unlock()
	e.Cursor = "s=fake;i=" + strconv.Itoa(len(j.entries)+1)
	j.entries = append(j.entries, journalEntry{identifier, e})
}

// Fail makes every call fail with the error; nil ends that.
func (j *Journal) Fail(err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.err = err
}

// Queries is how often the journal was asked.
func (j *Journal) Queries() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.queries
}

// Journal gives what matches.
func (j *Journal) Journal(_ context.Context, q machine.JournalQuery) (out []machine.JournalEntry, more bool, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.queries++
	if j.err != nil {
		return nil, false, j.err
	}
	after := q.After == ""
	for _, e := range j.entries {
		switch {
		case !after:
			after = e.Cursor == q.After
		case e.identifier != q.Identifier || q.After == "" && e.Time.Before(q.Since.Truncate(time.Second)):
		case q.Max > 0 && len(out) == q.Max:
			return out, true, nil
		default:
			out = append(out, e.JournalEntry)
		}
	}
	return out, false, nil
}
