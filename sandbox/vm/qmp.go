package vm

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// commandDeadline bounds QEMU's answer to one command; it answers in milliseconds unless the machine is overloaded.
const commandDeadline = 30 * time.Second

// errQEMUGone says that QEMU ended, or closed its monitor.
var errQEMUGone = errors.New("QEMU is gone")

// event is one asynchronous message of QEMU.
type event struct {
	Name string          `json:"event"`
	Data json.RawMessage `json:"data"`
}

// message is anything QEMU sends: a greeting, an event, or an answer.
type message struct {
	event
	ID     int64           `json:"id"`
	Return json.RawMessage `json:"return"`
	Error  *struct {
		Class string `json:"class"`
		Desc  string `json:"desc"`
	} `json:"error"`
}

// monitor speaks the QEMU Machine Protocol (docs/interop/qmp-spec.txt of QEMU's source) over one connection.
type monitor struct {
	conn    net.Conn
	onEvent func(event)
	done    chan struct{}

	mu      sync.Mutex
	next    int64
	waiting map[int64]chan message
}

// newMonitor starts reading from conn and leaves the protocol's negotiation mode. onEvent is called from the reading
// goroutine and must not wait for a command.
func newMonitor(ctx context.Context, conn net.Conn, onEvent func(event)) (*monitor, error) {
	m := &monitor{conn: conn, onEvent: onEvent, done: make(chan struct{}), waiting: map[int64]chan message{}}
	go m.read()
	if err := m.execute(ctx, "qmp_capabilities", nil, nil); err != nil {
		return nil, err
	}
	return m, nil
}

// read dispatches what QEMU sends until the connection ends.
func (m *monitor) read() {
	defer close(m.done)
	lines := bufio.NewScanner(m.conn)
	lines.Buffer(nil, 4<<20)
	for lines.Scan() {
		var msg message
		if json.Unmarshal(lines.Bytes(), &msg) != nil {
			continue // QMP promises JSON; what is not cannot be answered or acted on
		}
		if msg.Name != "" {
			m.onEvent(msg.event)
			continue
		}
		m.mu.Lock()
		ch := m.waiting[msg.ID]
		delete(m.waiting, msg.ID)
		m.mu.Unlock()
		if ch != nil {
			ch <- msg
		}
	}
}

// execute runs one command and decodes its answer into out, if out is not nil.
func (m *monitor) execute(ctx context.Context, command string, args map[string]any, out any) error {
	ctx, cancel := context.WithTimeout(ctx, commandDeadline)
	defer cancel()
	id, ch, err := m.send(command, args)
	if err != nil {
		return fmt.Errorf("asking QEMU to %s: %w", command, err)
	}
	defer func() {
		m.mu.Lock()
		delete(m.waiting, id)
		m.mu.Unlock()
	}()
	select {
	case msg := <-ch:
		if msg.Error != nil {
			return fmt.Errorf("asking QEMU to %s: %s: %s", command, msg.Error.Class, msg.Error.Desc)
		}
		if out == nil {
			return nil
		}
		if err := json.Unmarshal(msg.Return, out); err != nil {
			return fmt.Errorf("reading QEMU's answer to %s: %w", command, err)
		}
		return nil
	case <-m.done:
		return fmt.Errorf("asking QEMU to %s: %w", command, errQEMUGone)
	case <-ctx.Done():
		return fmt.Errorf("asking QEMU to %s: %w", command, ctx.Err())
	}
}

// send writes one command and registers who waits for its answer.
func (m *monitor) send(command string, args map[string]any) (int64, chan message, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.next++
	raw, err := json.Marshal(struct {
		Execute   string         `json:"execute"`
		Arguments map[string]any `json:"arguments,omitempty"`
		ID        int64          `json:"id"`
	}{command, args, m.next})
	if err != nil {
		return 0, nil, fmt.Errorf("encoding: %w", err)
	}
	if err := m.conn.SetWriteDeadline(time.Now().Add(commandDeadline)); err != nil {
		return 0, nil, fmt.Errorf("writing: %w", err)
	}
	if _, err := m.conn.Write(append(raw, '\n')); err != nil {
		return 0, nil, fmt.Errorf("writing: %w", err)
	}
	ch := make(chan message, 1)
	m.waiting[m.next] = ch
	return m.next, ch, nil
}
