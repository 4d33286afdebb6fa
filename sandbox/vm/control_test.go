package vm

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/roundhouse-dev/roundhouse/sandbox/vm/wire"
)

// guest is the other end of a control channel, played by a test.
type guest struct {
	t     *testing.T
	conn  net.Conn
	lines *bufio.Scanner
}

// newGuest returns a control channel and its other end.
func newGuest(t *testing.T) (*control, *guest) {
	t.Helper()
	ours, theirs := net.Pipe()
	t.Cleanup(func() { ours.Close(); theirs.Close() })
	return newControl(ours), &guest{t: t, conn: theirs, lines: bufio.NewScanner(theirs)}
}

func (g *guest) say(text string) {
	g.t.Helper()
	if _, err := io.WriteString(g.conn, text); err != nil {
		g.t.Error(err)
	}
}

func (g *guest) hello(bootID string) {
	g.t.Helper()
	raw, err := json.Marshal(wire.Reply{Op: wire.OpHello, Data: []byte(bootID)})
	if err != nil {
		g.t.Error(err)
	}
	g.say("\n" + string(raw) + "\n")
}

// hear returns the next request.
func (g *guest) hear() wire.Request {
	g.t.Helper()
	var req wire.Request
	if !g.lines.Scan() {
		g.t.Errorf("no request: %v", g.lines.Err())
	} else if err := json.Unmarshal(g.lines.Bytes(), &req); err != nil {
		g.t.Error(err)
	}
	return req
}

func (g *guest) reply(req wire.Request, data string) {
	g.t.Helper()
	raw, err := json.Marshal(wire.Reply{ID: req.ID, Op: req.Op, Data: []byte(data)})
	if err != nil {
		g.t.Error(err)
	}
	g.say("\n" + string(raw) + "\n")
}

func deadline(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestWhatFirmwareLeavesOnTheLineIsPassedOver(t *testing.T) {
	c, g := newGuest(t)
	go func() {
		g.say("\x1bc\x00SeaBIOS\n{\"half\": ")
		g.hello("one")
		g.reply(g.hear(), "yes")
	}()
	reply, err := c.ask(deadline(t), wire.Request{Op: wire.OpRead})
	if err != nil || string(reply.Data) != "yes" {
		t.Errorf("reply %q, error %v", reply.Data, err)
	}
}

func TestAskIsRepeatedAfterAResetAndCallIsNot(t *testing.T) {
	c, g := newGuest(t)
	go func() {
		g.hello("one")
		g.hear()
		c.reset()
		g.hello("two")
		g.reply(g.hear(), "after the reset")
		g.hear()
		c.reset()
	}()
	reply, err := c.ask(deadline(t), wire.Request{Op: wire.OpRead})
	if err != nil || string(reply.Data) != "after the reset" {
		t.Errorf("asked: reply %q, error %v", reply.Data, err)
	}
	if _, err := c.call(deadline(t), wire.Request{Op: wire.OpKmsg}); !errors.Is(err, errReset) {
		t.Errorf("called: error %v, want %v", err, errReset)
	}
}

func TestAwaitWantsAnotherBoot(t *testing.T) {
	c, g := newGuest(t)
	go func() {
		g.hello("one")
		time.Sleep(20 * time.Millisecond) // long enough for a wait that takes the old boot to return it
		c.reset()
		g.hello("two")
	}()
	b, err := c.await(deadline(t), "one")
	if err != nil || b.id != "two" {
		t.Errorf("boot %+v, error %v", b, err)
	}
}

func TestABootThatFailedIsAnError(t *testing.T) {
	c, g := newGuest(t)
	go g.say(fmt.Sprintf("{\"op\":%q,\"error\":\"no disk\"}\n", wire.OpHello))
	if _, err := c.await(deadline(t), ""); err == nil || !strings.Contains(err.Error(), "no disk") {
		t.Errorf("error = %v, want the guest's", err)
	}
}

func TestAGuestThatIsGoneIsAnError(t *testing.T) {
	c, g := newGuest(t)
	go func() {
		g.hello("one")
		g.hear()
		g.conn.Close()
	}()
	if _, err := c.ask(deadline(t), wire.Request{Op: wire.OpRead}); !errors.Is(err, errQEMUGone) {
		t.Errorf("error = %v, want %v", err, errQEMUGone)
	}
}

func TestMonitorTellsEventsFromAnswers(t *testing.T) {
	ours, theirs := net.Pipe()
	t.Cleanup(func() { ours.Close(); theirs.Close() })
	events := make(chan event, 4)
	go func() {
		g := &guest{t: t, conn: theirs, lines: bufio.NewScanner(theirs)}
		g.say("{\"QMP\": {\"version\": {}}}\n")
		fmt.Fprintf(theirs, "{\"return\": {}, \"id\": %d}\n", g.hear().ID)
		id := g.hear().ID
		g.say("{\"event\": \"RESET\", \"data\": {\"guest\": true}}\nnot JSON\n")
		fmt.Fprintf(theirs, "{\"error\": {\"class\": \"DeviceNotFound\", \"desc\": \"no gpu9\"}, \"id\": %d}\n", id)
		g.hear()
		theirs.Close()
	}()
	m, err := newMonitor(deadline(t), ours, func(e event) { events <- e })
	if err != nil {
		t.Fatal(err)
	}
	err = m.execute(deadline(t), "device_del", map[string]any{"id": "gpu9"}, nil)
	if err == nil || !strings.Contains(err.Error(), "DeviceNotFound: no gpu9") {
		t.Errorf("error = %v, want QEMU's", err)
	}
	if e := <-events; e.Name != "RESET" {
		t.Errorf("event %q, want RESET", e.Name)
	}
	if err := m.execute(deadline(t), "quit", nil, nil); !errors.Is(err, errQEMUGone) {
		t.Errorf("error = %v, want %v", err, errQEMUGone)
	}
}

func FuzzControlLine(f *testing.F) {
	f.Add([]byte("\n{\"id\":0,\"op\":\"hello\",\"data\":\"b25l\"}\n"))
	f.Add([]byte("{\"op\":\"hello\"}\n{\"op\":\"hello\"}\n{\"id\":7}\n\xff\n"))
	f.Fuzz(func(t *testing.T, line []byte) {
		ours, theirs := net.Pipe()
		c := newControl(ours)
		if _, err := theirs.Write(line); err != nil {
			t.Skip("the reader ended first: a line was longer than it takes")
		}
		theirs.Close()
		<-c.done
	})
}
