package replay

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/roundhouse-dev/roundhouse/internal/machine"
)

// chunkBytes is half of what the recorded machine keeps of its log for an agent that starts anew. A kernel keeps about as
// much: CONFIG_LOG_BUF_SHIFT is 17 to 21 in what distributions ship.
const chunkBytes = 256 << 10

// ring is the kernel log of one boot. It keeps the newest records, between one chunk and two.
type ring struct {
	older, newer chunk
	// first is the number of the oldest record kept, counted from the boot on.
	first uint64
}

type chunk struct {
	data []byte
	// ends are where in data each record ends.
	ends []recordEnd
}

type recordEnd struct {
	at int
	// gap says that records were lost before this one.
	gap bool
}

func (r *ring) reset() {
	*r = ring{older: r.older.emptied(), newer: r.newer.emptied()}
}

func (c chunk) emptied() chunk { return chunk{data: c.data[:0], ends: c.ends[:0]} }

// next is the number of the record that will be appended next.
func (r *ring) next() uint64 { return r.first + uint64(len(r.older.ends)+len(r.newer.ends)) }

// append adds a record in the form of /dev/kmsg and returns its length.
func (r *ring) append(priority uint16, seq, usec uint64, fragment bool, text []byte, gap bool) int {
	if len(r.newer.data) >= chunkBytes {
		r.first += uint64(len(r.older.ends))
		r.older, r.newer = r.newer, r.older.emptied()
	}
	b := r.newer.data
	before := len(b)
	b = strconv.AppendUint(b, uint64(priority), 10)
	b = append(b, ',')
	b = strconv.AppendUint(b, seq, 10)
	b = append(b, ',')
	b = strconv.AppendUint(b, usec, 10)
	if fragment {
		b = append(b, ",c;"...)
	} else {
		b = append(b, ",-;"...)
	}
	b = append(b, text[:min(len(text), maxText)]...)
	b = append(b, '\n')
	r.newer.data = b
	r.newer.ends = append(r.newer.ends, recordEnd{at: len(b), gap: gap})
	return len(b) - before
}

// record is the record of that number, which has to be kept.
func (r *ring) record(n uint64) (b []byte, gap bool) {
	i, c := int(n-r.first), &r.older
	if i >= len(c.ends) {
		i, c = i-len(c.ends), &r.newer
	}
	from := 0
	if i > 0 {
		from = c.ends[i-1].at
	}
	return c.data[from:c.ends[i].at], c.ends[i].gap
}

// errNoBuffer never comes to a caller that gives machine.MaxLogRecord bytes.
var errNoBuffer = errors.New("reading the recorded log: the buffer is too small")

// logReader reads the recorded log as the device gives it.
type logReader struct {
	m    *Machine
	boot int
	next uint64
	// told is the number after the last gap that was reported.
	told uint64
}

// TryRead copies the next record. Like the device it tells of lost records once, before the first one after them.
func (l *logReader) TryRead(buf []byte) (int, error) {
	r := &l.m.log
	switch {
	case l.boot != l.m.boots:
		return 0, fmt.Errorf("reading the recorded log: %w", machine.ErrDown)
	case l.next < r.first:
		l.next = r.first
		l.told = l.next + 1
		return 0, machine.ErrLogOverrun
	case l.next >= r.next():
		return 0, machine.ErrLogDrained
	}
	b, gap := r.record(l.next)
	if gap && l.told != l.next+1 {
		l.told = l.next + 1
		return 0, machine.ErrLogOverrun
	}
	if len(b) > len(buf) {
		return 0, errNoBuffer
	}
	l.next++
	return copy(buf, b), nil
}

// Wait never waits: recorded time passes only between looks.
func (l *logReader) Wait(context.Context) error { return nil }

// Close does nothing: a reader holds nothing.
func (l *logReader) Close() error { return nil }
