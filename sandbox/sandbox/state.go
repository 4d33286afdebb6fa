package sandbox

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/roundhouse-dev/roundhouse/sandbox/fleet"
)

const (
	// stateFile and socketFile are the names in Options.StateDir.
	stateFile  = "state.json"
	socketFile = "control.sock"
	// maxSocketPath is what a Unix socket's address holds (unix(7), sun_path).
	maxSocketPath = 107
	// maxRequest bounds a request through the door, and its answer.
	maxRequest = 64 << 10
	// askTimeout bounds the question whether another sandbox is there.
	askTimeout = 2 * time.Second
)

// ErrNone means that no sandbox is running.
var ErrNone = errors.New("no sandbox is running: start one with roundhouse-sandbox up")

// Running is what a running sandbox says of itself to other programs.
type Running struct {
	PID        int    `json:"pid"`
	Kubeconfig string `json:"kubeconfig"`
	Socket     string `json:"socket"`
	Nodes      int    `json:"nodes"`
}

// DefaultStateDir is .cache/sandbox beside the bin/ that holds the running program, else the user's own cache.
func DefaultStateDir() (string, error) {
	if self, err := os.Executable(); err == nil && filepath.Base(filepath.Dir(self)) == "bin" {
		return filepath.Join(filepath.Dir(filepath.Dir(self)), ".cache", "sandbox"), nil
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("finding a place for the sandbox's state: %w", err)
	}
	return filepath.Join(cache, "roundhouse", "sandbox"), nil
}

// Find finds the sandbox that announced itself in a directory.
func Find(ctx context.Context, stateDir string) (*Running, error) {
	data, err := os.ReadFile(filepath.Join(stateDir, stateFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNone
	}
	if err != nil {
		return nil, fmt.Errorf("looking for a sandbox: %w", err)
	}
	r := &Running{}
	if err := json.Unmarshal(data, r); err != nil {
		return nil, fmt.Errorf("reading %s: %w", filepath.Join(stateDir, stateFile), err)
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	if err := r.ask(ctx, http.MethodGet, "/state", nil); err != nil {
		return nil, ErrNone // One that was killed leaves its state behind.
	}
	return r, nil
}

// Inject has the running sandbox inject a fault.
func (r *Running) Inject(ctx context.Context, in fleet.Injection) error {
	body, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("encoding a fault: %w", err)
	}
	return r.ask(ctx, http.MethodPost, "/inject", body)
}

// ask sends one request through the socket.
func (r *Running) ask(ctx context.Context, method, path string, body []byte) error {
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", r.Socket)
	}}
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, method, "http://sandbox"+path, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("asking the sandbox: %w", err)
	}
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return fmt.Errorf("asking the sandbox: %w", err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, maxRequest))
	if err != nil {
		return fmt.Errorf("reading the sandbox's answer: %w", err)
	}
	if response.StatusCode != http.StatusOK {
		return errors.New(string(bytes.TrimSpace(answer)))
	}
	return nil
}

// door is where other programs of the same user reach a running sandbox.
type door struct {
	server *http.Server
	files  []string
	ended  chan struct{}
}

// announce opens the door and writes where it is.
func (s *Sandbox) announce(ctx context.Context) error {
	dir := s.o.StateDir
	if dir == "" {
		return nil
	}
	if other, err := Find(ctx, dir); err == nil {
		return fmt.Errorf("another sandbox is running as process %d: stop it first, or give this one another --state-dir", other.PID)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("making the state directory: %w", err)
	}
	socket := filepath.Join(dir, socketFile)
	if len(socket) > maxSocketPath {
		socket = filepath.Join(s.dir, socketFile)
	}
	if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing an old socket: %w", err)
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "unix", socket)
	if err != nil {
		return fmt.Errorf("opening the control socket: %w", err)
	}
	// Only the user who started it may break things.
	if err := os.Chmod(socket, 0o600); err != nil {
		return errors.Join(fmt.Errorf("closing the control socket to others: %w", err), listener.Close())
	}
	running := Running{PID: os.Getpid(), Kubeconfig: s.Kubeconfig(), Socket: socket, Nodes: s.fleet.Options().Nodes}
	data, err := json.MarshalIndent(running, "", "  ")
	if err != nil {
		return errors.Join(fmt.Errorf("encoding the state: %w", err), listener.Close())
	}
	path := filepath.Join(dir, stateFile)
	if err := os.WriteFile(path, append(data, '\n'), 0o600); err != nil {
		return errors.Join(fmt.Errorf("writing the state: %w", err), listener.Close())
	}
	s.door = &door{
		server: &http.Server{Handler: s.handler(data), ReadHeaderTimeout: askTimeout},
		files:  []string{path, socket}, ended: make(chan struct{}),
	}
	go func() {
		defer close(s.door.ended)
		_ = s.door.server.Serve(listener) // It ends when the server is closed; before that nobody could be told.
	}()
	return nil
}

// handler answers other programs.
func (s *Sandbox) handler(state []byte) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /state", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(state) // a reader that has gone needs none
	})
	mux.HandleFunc("POST /inject", func(w http.ResponseWriter, r *http.Request) {
		var in fleet.Injection
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequest)).Decode(&in); err != nil {
			http.Error(w, "reading the fault: "+err.Error(), http.StatusBadRequest)
			return
		}
		if err := s.fleet.Inject(r.Context(), in); err != nil {
			http.Error(w, err.Error(), http.StatusUnprocessableEntity)
		}
	})
	return mux
}

// close closes the door and takes the announcement away.
func (d *door) close() error {
	errs := []error{d.server.Close()}
	<-d.ended // bounded: Close ends Serve
	for _, path := range d.files {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("removing the sandbox's state: %w", err))
		}
	}
	return errors.Join(errs...)
}
