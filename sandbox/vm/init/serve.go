package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/roundhouse-dev/roundhouse/sandbox/vm/wire"
)

const (
	// maxKernelLog bounds how much of the kernel's ring is sent to the host.
	maxKernelLog = 1 << 20
	// maxFile bounds a file that is sent: JSON makes four bytes of three.
	maxFile = wire.MaxLine / 2
	// fetchDeadline bounds one request to the host.
	fetchDeadline = 20 * time.Second
)

// server answers the host's requests, one after another.
type server struct {
	port  io.ReadWriter
	agent *supervisor
	held  holder
}

// hello tells the host that this boot is up, or why it is not.
func (s *server) hello(bootErr error) error {
	reply := wire.Reply{Op: wire.OpHello}
	if bootErr != nil {
		reply.Error = bootErr.Error()
	}
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return fmt.Errorf("reading the boot ID: %w", err)
	}
	reply.Data = id
	return s.send(reply)
}

// serve answers until the port fails.
func (s *server) serve(ctx context.Context) error {
	lines := bufio.NewScanner(s.port)
	lines.Buffer(nil, wire.MaxLine)
	for lines.Scan() {
		var req wire.Request
		if json.Unmarshal(lines.Bytes(), &req) != nil || req.ID == 0 {
			continue // half a line, written before this boot: the host asks again
		}
		reply := wire.Reply{ID: req.ID, Op: req.Op}
		if err := s.answer(ctx, req, &reply); err != nil {
			reply.Error = err.Error()
		}
		if err := s.send(reply); err != nil {
			return err
		}
	}
	return fmt.Errorf("reading the control channel: %w", lines.Err())
}

// send writes one reply. The line feed before it ends whatever the firmware or the port's probing left on the line.
func (s *server) send(reply wire.Reply) error {
	raw, err := json.Marshal(reply)
	if err != nil {
		return fmt.Errorf("encoding a reply: %w", err)
	}
	if _, err := s.port.Write([]byte("\n" + string(raw) + "\n")); err != nil {
		return fmt.Errorf("writing a reply: %w", err)
	}
	return nil
}

// answer does what one request asks for.
func (s *server) answer(ctx context.Context, req wire.Request, reply *wire.Reply) (err error) {
	switch req.Op {
	case wire.OpRead:
		reply.Data, err = readFile(req.Path)
	case wire.OpWrite:
		return writeFile(req.Path, req.Data)
	case wire.OpList:
		reply.Data, err = list(req.Path)
	case wire.OpLink:
		var target string
		target, err = os.Readlink(req.Path)
		reply.Data = []byte(target)
	case wire.OpKmsg:
		return writeKmsg(req.Data)
	case wire.OpKernel:
		reply.Data, err = readKmsg()
	case wire.OpAgent:
		status := s.agent.snapshot()
		reply.Agent = &status
	case wire.OpLog:
		reply.Data = s.agent.tail()
	case wire.OpSignal:
		return s.agent.signal(req.Signal)
	case wire.OpFetch:
		reply.Data, err = fetch(ctx, req)
	case wire.OpHold:
		reply.Data, err = s.held.start(req.Path)
	case wire.OpFree:
		return s.held.free()
	case wire.OpReboot:
		return reboot()
	default:
		return errors.New("unknown request")
	}
	return err
}

// readFile reads a file whose size sysfs and proc do not tell in advance.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxFile))
}

// writeFile writes and syncs a file, so that it is there after a reboot if its disk is.
func writeFile(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Sync(); err != nil && !errors.Is(err, unix.EINVAL) { // EINVAL: sysfs and proc cannot be synced
		return err
	}
	return nil
}

// list returns the names in a directory.
func list(path string) ([]byte, error) {
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return []byte(strings.Join(names, "\n")), nil
}

// writeKmsg writes one record into the kernel's ring. One write(2) is one record. A line feed must end it: a record
// without one stays open for continuation, and no reader sees it until another is written.
func writeKmsg(record []byte) error {
	f, err := os.OpenFile("/dev/kmsg", os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.Write(append(bytes.TrimRight(record, "\n"), '\n'))
	return err
}

// readKmsg reads every record now in the kernel's ring. Each read(2) returns one record, EPIPE says that one was
// overwritten before we came to it, and EAGAIN is the end (Documentation/ABI/testing/dev-kmsg of the kernel's source).
func readKmsg() ([]byte, error) {
	fd, err := unix.Open("/dev/kmsg", unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	var out []byte
	buf := make([]byte, 8<<10)
	for len(out) < maxKernelLog {
		n, err := unix.Read(fd, buf)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return out, nil
		case errors.Is(err, unix.EPIPE), errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return nil, err
		}
		out = append(out, buf[:n]...)
	}
	return out, nil
}

// fetch makes one request to the host over TLS, to show that an agent could.
func fetch(ctx context.Context, r wire.Request) ([]byte, error) {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(r.Data) {
		return nil, errors.New("no certificate to trust was given")
	}
	ctx, cancel := context.WithTimeout(ctx, fetchDeadline)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.Path, nil)
	if err != nil {
		return nil, err
	}
	config := &tls.Config{RootCAs: pool, ServerName: r.ServerName, MinVersion: tls.VersionTLS12}
	// Without keep-alives, as a kubelet probes: a connection kept for each request would cost the agent the memory that
	// a test then measures.
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return io.ReadAll(io.LimitReader(resp.Body, maxFile))
}
