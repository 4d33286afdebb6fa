package npd

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/roundhouse-dev/roundhouse/internal/health/kernellog"
	"github.com/roundhouse-dev/roundhouse/internal/machine"
	config "github.com/roundhouse-dev/roundhouse/internal/npd"
)

const (
	// maxRead bounds the lines of one look, so that a storm cannot keep it from answering.
	maxRead = 2048
	// maxLine is what is kept of one line of a file, in bytes.
	maxLine = 16 << 10
	// readSize is how much of a file is read at once.
	readSize = 64 << 10
)

// source is where a monitor's lines come from. It keeps its place in the monitor's state.
type source interface {
	// open opens the log where the state stands; it is called before every read and costs nothing when it is open.
	open(ctx context.Context) error
	// read hands lines to the monitor until there are none; more says that its bound came first.
	read(ctx context.Context) (more bool, err error)
	// wait returns nil when there may be more, or the context's error.
	wait(ctx context.Context) error
	close() error
}

// kmsgSource reads the kernel log.
type kmsgSource struct {
	m      *LogMonitor
	reader machine.LogReader
	boot   time.Time
	// gap says that the next record may follow lost ones: after opening, or after an overrun.
	gap bool
}

var recordBuffers = sync.Pool{New: func() any { return new([machine.MaxLogRecord]byte) }}

func (s *kmsgSource) open(ctx context.Context) error {
	if s.reader != nil {
		return nil
	}
	boot, err := s.m.o.Machine.BootTime(ctx)
	if err != nil {
		return err
	}
	reader, err := s.m.o.Machine.OpenLog(ctx)
	if err != nil {
		return err
	}
	s.reader, s.boot, s.gap = reader, boot, true
	return nil
}

func (s *kmsgSource) read(ctx context.Context) (more bool, err error) {
	buf := recordBuffers.Get().(*[machine.MaxLogRecord]byte)
	defer recordBuffers.Put(buf)
	for i := range maxRead {
		if i%128 == 127 && ctx.Err() != nil {
			return true, nil
		}
		n, err := s.reader.TryRead(buf[:])
		switch {
		case errors.Is(err, machine.ErrLogDrained):
			if !s.m.state.Live {
				s.m.state.Live = true
				s.m.note(moved)
			}
			return false, nil
		case errors.Is(err, machine.ErrLogOverrun):
			s.gap = true
			s.m.lost()
			continue
		case err != nil:
			return false, err
		}
		s.take(buf[:n])
	}
	return true, nil
}

// take takes in one record. Continuation lines (properties of the device) are not part of the text, unlike in NPD.
func (s *kmsgSource) take(b []byte) {
	st := &s.m.state
	rec, err := kernellog.ParseRecord(b)
	if err != nil {
		s.m.stats.Unread++
		return
	}
	if rec.Seq < st.Next {
		return
	}
	if s.gap && st.Next > 0 && rec.Seq > st.Next {
		s.m.lost()
	}
	s.gap = false
	st.Next = rec.Seq + 1
	s.m.note(moved)
	since := time.Duration(min(rec.Usec, 1<<52)) * time.Microsecond
	at := s.boot.Add(since)
	if now := s.m.o.Now(); at.After(now) {
		at = now
	}
	// The kernel's clock drifts from the wall's, so it decides about history only, and about the delay by itself.
	if text := strings.TrimSpace(string(rec.Text)); text != "" && since >= s.m.o.Config.Delay && (st.Live || !at.Before(st.Start)) {
		s.m.take(config.Line{Text: text, Untrusted: rec.Facility() != 0 && !s.m.o.AcceptInjected}, at)
	}
}

func (s *kmsgSource) wait(ctx context.Context) error {
	if s.reader == nil {
		return sleep(ctx, retryAfter)
	}
	err := s.reader.Wait(ctx)
	if err != nil && ctx.Err() == nil {
		return sleep(ctx, retryAfter)
	}
	return err
}

func (s *kmsgSource) close() error {
	if s.reader == nil {
		return nil
	}
	r := s.reader
	s.reader = nil
	return r.Close()
}

// fileSource follows a file.
type fileSource struct {
	m    *LogMonitor
	tail machine.FileTail
	buf  []byte
}

func (s *fileSource) open(ctx context.Context) error {
	if s.tail != nil {
		return nil
	}
	tail, err := s.m.o.Files.TailFile(ctx, s.m.o.Config.Path, s.m.state.File)
	if err != nil {
		return err
	}
	if s.buf == nil {
		s.buf = make([]byte, readSize)
	}
	s.tail = tail
	return nil
}

func (s *fileSource) read(ctx context.Context) (more bool, err error) {
	for read := 0; read < maxRead && ctx.Err() == nil; {
		n, err := s.tail.Read(ctx, s.buf)
		switch {
		case errors.Is(err, machine.ErrLogDrained):
			return false, nil
		case errors.Is(err, machine.ErrLogOverrun), errors.Is(err, machine.ErrFileRotated):
			if errors.Is(err, machine.ErrLogOverrun) {
				s.m.lost()
			}
			s.endLine()
		case err != nil:
			return false, err
		}
		read += 1 + s.split(s.buf[:n])
		s.m.state.File = s.tail.Position()
		s.m.note(moved)
	}
	return true, nil
}

// split takes lines off what was read, and keeps the beginning of the last one.
func (s *fileSource) split(b []byte) (lines int) {
	st := &s.m.state
	for len(b) > 0 {
		head, rest, whole := bytes.Cut(b, []byte("\n"))
		if room := max(maxLine-len(st.Partial), 0); !st.Cut {
			if len(head) > room {
				head, st.Cut = head[:room], true
			}
			st.Partial += string(head)
		}
		if whole {
			s.endLine()
			lines++
		}
		b = rest
	}
	return lines
}

func (s *fileSource) endLine() {
	st := &s.m.state
	line := strings.ToValidUTF8(st.Partial, "\ufffd")
	st.Partial, st.Cut = "", false
	if line != "" {
		s.m.takeFileLine(line)
	}
}

// wait polls: file systems that are mounted into containers do not all tell of changes.
func (s *fileSource) wait(ctx context.Context) error {
	if s.tail == nil {
		return sleep(ctx, retryAfter)
	}
	return sleep(ctx, s.m.o.FileEvery)
}

func (s *fileSource) close() error {
	if s.tail == nil {
		return nil
	}
	t := s.tail
	s.tail = nil
	return t.Close()
}

// journalSource asks the journal from time to time.
type journalSource struct {
	m    *LogMonitor
	next time.Time
}

func (s *journalSource) open(context.Context) error { return nil }

func (s *journalSource) read(ctx context.Context) (more bool, err error) {
	now := s.m.o.Now()
	if now.Before(s.next) {
		return false, nil
	}
	st := &s.m.state
	entries, more, err := s.m.o.Journal.Journal(ctx, machine.JournalQuery{
		Directory: s.m.o.Config.Path, Identifier: s.m.o.Config.Identifier, After: st.Cursor, Since: st.Start, Max: maxRead,
	})
	if err != nil {
		s.next = now.Add(s.m.o.JournalEvery)
		return false, err
	}
	for _, e := range entries {
		st.Cursor = e.Cursor
		s.m.note(moved)
		if !e.Time.Before(st.Start) {
			s.m.take(config.Line{Text: strings.TrimSpace(e.Message), Untrusted: !e.Kernel && !e.Root && !s.m.o.AcceptInjected}, e.Time)
		}
	}
	if !more {
		s.next = now.Add(s.m.o.JournalEvery)
	}
	return more, nil
}

func (s *journalSource) wait(ctx context.Context) error {
	return sleep(ctx, max(s.next.Sub(s.m.o.Now()), time.Millisecond))
}

func (s *journalSource) close() error { return nil }

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
