package fake

import (
	"context"
	"fmt"
	"strconv"

	"github.com/roundhouse-dev/roundhouse/internal/machine"
)

// Kernel logs lines as the kernel itself: facility 0, level 4.
func (m *Machine) Kernel(lines ...string) { m.Log(machine.KernelPriority, lines...) }

// Inject logs lines as a process that writes to /dev/kmsg does: facility 1, level 4.
func (m *Machine) Inject(lines ...string) { m.Log(machine.InjectedPriority, lines...) }

// Log logs lines under a priority, which is facility times 8 plus level.
func (m *Machine) Log(prio uint16, lines ...string) {
	m.mu.Lock()
	m.advanceLocked()
	if m.downUntil.IsZero() {
		for _, line := range lines {
			m.appendLocked(prio, line)
		}
		m.wakeLocked()
	}
	m.mu.Unlock()
	m.changed()
}

// Storm logs the same kernel line n times. The log keeps its newest records only, so a reader sees an overrun when n is
// above what it holds.
func (m *Machine) Storm(n int, line string) {
	m.mu.Lock()
	m.advanceLocked()
	for range n {
		m.appendLocked(machine.KernelPriority, line)
	}
	m.wakeLocked()
	m.mu.Unlock()
	m.changed()
}

func (m *Machine) appendLocked(prio uint16, text string) {
	if len(m.log) == maxLog {
		// Dropping half at once keeps the cost of a storm linear.
		m.log = append(m.log[:0], m.log[maxLog/2:]...)
		m.firstSeq += maxLog / 2
	}
	usec := m.o.Now().Sub(m.bootTime).Microseconds()
	m.log = append(m.log, record{prio: prio, usec: uint64(max(usec, 0)), text: text})
}

// wakeLocked ends every Wait.
func (m *Machine) wakeLocked() {
	if m.wake != nil {
		close(m.wake)
		m.wake = nil
	}
}

// OpenLog opens the kernel log at its oldest record.
func (m *Machine) OpenLog(ctx context.Context) (machine.LogReader, error) {
	if err := m.enter(ctx, DoorLog); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	return &logReader{m: m, boot: m.boots, next: m.firstSeq}, nil
}

type logReader struct {
	m    *Machine
	boot int
	next uint64
}

// TryRead formats the next record. After a reboot it fails: an open file does not survive one.
func (r *logReader) TryRead(buf []byte) (int, error) {
	m := r.m
	m.mu.Lock()
	defer m.mu.Unlock()
	m.advanceLocked()
	switch {
	case !m.downUntil.IsZero() || r.boot != m.boots:
		return 0, machine.ErrDown
	case m.errs[DoorLog] != nil:
		return 0, fmt.Errorf("%s: %w", DoorLog, m.errs[DoorLog])
	case m.hung[DoorLog] || r.next >= m.firstSeq+uint64(len(m.log)):
		return 0, machine.ErrLogDrained
	case r.next < m.firstSeq:
		r.next = m.firstSeq
		return 0, machine.ErrLogOverrun
	}
	rec := m.log[r.next-m.firstSeq]
	b := formatRecord(buf[:0], rec, r.next)
	if len(b) > len(buf) {
		return 0, fmt.Errorf("reading kernel log: a buffer of %d bytes is too small", len(buf))
	}
	r.next++
	return len(b), nil
}

// formatRecord writes a record as the kernel does, escapes included (msg_add_ext_text in kernel/printk/printk.c).
func formatRecord(b []byte, rec record, seq uint64) []byte {
	b = strconv.AppendUint(b, uint64(rec.prio), 10)
	b = append(b, ',')
	b = strconv.AppendUint(b, seq, 10)
	b = append(b, ',')
	b = strconv.AppendUint(b, rec.usec, 10)
	b = append(b, ",-;"...)
	for i := range len(rec.text) {
		c := rec.text[i]
		if c < ' ' || c >= 0x7f || c == '\\' {
			b = fmt.Appendf(b, `\x%02x`, c)
			continue
		}
		b = append(b, c)
	}
	return append(b, '\n')
}

// Wait returns when a record is waiting, when the machine is down, or when the context ends.
func (r *logReader) Wait(ctx context.Context) error {
	m := r.m
	m.mu.Lock()
	ready := !m.hung[DoorLog] &&
		(r.boot != m.boots || !m.downUntil.IsZero() || r.next < m.firstSeq+uint64(len(m.log)))
	if ready {
		m.mu.Unlock()
		return nil
	}
	if m.wake == nil {
		m.wake = make(chan struct{})
	}
	wake := m.wake
	m.mu.Unlock()
	select {
	case <-wake:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Close does nothing: a reader holds nothing.
func (r *logReader) Close() error { return nil }
