package vm

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/roundhouse-dev/roundhouse/sandbox/vm/wire"
)

// callDeadline bounds one request to the guest, its waiting for a reboot to end included. On an emulated processor that
// shares two cores with a control plane, a boot takes seconds.
const callDeadline = 90 * time.Second

// errReset says that the guest was reset before it answered.
var errReset = errors.New("the guest was reset before it answered")

// boot is one life of the guest, from its reset to the next.
type boot struct {
	up   chan struct{} // closed when init said hello
	gone chan struct{} // closed at the reset that ends it
	id   string        // the kernel's boot ID, once up
	err  error         // why init could not bring the machine up, once up
}

// control asks the guest's init over its second serial port.
type control struct {
	conn net.Conn
	done chan struct{}

	mu      sync.Mutex
	next    int64
	waiting map[int64]chan wire.Reply
	boot    *boot
	boots   int // how often the guest came up
}

// newControl starts listening to the guest, which will say hello when it is up.
func newControl(conn net.Conn) *control {
	c := &control{conn: conn, done: make(chan struct{}), waiting: map[int64]chan wire.Reply{}, boot: newBoot()}
	go c.read()
	return c
}

func newBoot() *boot {
	return &boot{up: make(chan struct{}), gone: make(chan struct{})}
}

// read dispatches the guest's replies until the port is closed. Firmware and kernel may put bytes of their own on the
// line while they probe it, so what is not a reply is passed over.
func (c *control) read() {
	defer close(c.done)
	lines := bufio.NewScanner(c.conn)
	lines.Buffer(nil, wire.MaxLine)
	for lines.Scan() {
		var reply wire.Reply
		if json.Unmarshal(lines.Bytes(), &reply) != nil {
			continue
		}
		if reply.Op == wire.OpHello {
			c.hello(reply)
			continue
		}
		c.mu.Lock()
		ch := c.waiting[reply.ID]
		delete(c.waiting, reply.ID)
		c.mu.Unlock()
		if ch != nil {
			ch <- reply
		}
	}
}

// hello marks the current boot as up.
func (c *control) hello(reply wire.Reply) {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.boot.up:
		return // a second hello within one boot would be a second init
	default:
	}
	c.boot.id = strings.TrimSpace(string(reply.Data))
	c.boot.err = reply.Err()
	c.boots++
	close(c.boot.up)
}

// reset ends the current boot: QEMU has told of a reset.
func (c *control) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.boot.gone)
	c.boot = newBoot()
}

// count returns how often the guest came up.
func (c *control) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.boots
}

// current returns the boot that is going on.
func (c *control) current() *boot {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.boot
}

// await returns the first boot that is up and is not the one named, waiting for it as long as ctx allows.
func (c *control) await(ctx context.Context, not string) (*boot, error) {
	for {
		b := c.current()
		select {
		case <-b.up:
			if b.err != nil {
				return nil, b.err
			}
			if b.id != not {
				return b, nil
			}
		case <-b.gone:
			continue
		case <-c.done:
			return nil, errQEMUGone
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for the guest to be up: %w", ctx.Err())
		}
		select {
		case <-b.gone:
		case <-c.done:
			return nil, errQEMUGone
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for the guest's next boot: %w", ctx.Err())
		}
	}
}

// call asks once and waits for the answer. It fails with errReset if the guest was reset meanwhile, in which case
// the guest may or may not have done what was asked.
func (c *control) call(ctx context.Context, req wire.Request) (wire.Reply, error) {
	ctx, cancel := context.WithTimeout(ctx, callDeadline)
	defer cancel()
	b, err := c.await(ctx, "")
	if err != nil {
		return wire.Reply{}, err
	}
	id, ch, err := c.send(req)
	if err != nil {
		return wire.Reply{}, err
	}
	defer func() {
		c.mu.Lock()
		delete(c.waiting, id)
		c.mu.Unlock()
	}()
	select {
	case reply := <-ch:
		return reply, reply.Err()
	case <-b.gone:
		return wire.Reply{}, errReset
	case <-c.done:
		return wire.Reply{}, errQEMUGone
	case <-ctx.Done():
		return wire.Reply{}, fmt.Errorf("waiting for the guest's answer: %w", ctx.Err())
	}
}

// ask is call for requests that change nothing: it asks again after a reset.
func (c *control) ask(ctx context.Context, req wire.Request) (wire.Reply, error) {
	for {
		reply, err := c.call(ctx, req)
		if !errors.Is(err, errReset) {
			return reply, err
		}
	}
}

// send writes one request and registers who waits for its answer.
func (c *control) send(req wire.Request) (int64, chan wire.Reply, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.next++
	req.ID = c.next
	raw, err := json.Marshal(req)
	if err != nil {
		return 0, nil, fmt.Errorf("encoding a request to the guest: %w", err)
	}
	if err := c.conn.SetWriteDeadline(time.Now().Add(commandDeadline)); err != nil {
		return 0, nil, fmt.Errorf("writing to the guest: %w", err)
	}
	if _, err := c.conn.Write(append(raw, '\n')); err != nil {
		return 0, nil, fmt.Errorf("writing to the guest: %w", err)
	}
	ch := make(chan wire.Reply, 1)
	c.waiting[req.ID] = ch
	return req.ID, ch, nil
}
