package podresources

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/roundhouse-dev/roundhouse/internal/machine"
)

// Holding is one device of a device plugin that a container was given.
type Holding struct {
	Namespace string `json:"namespace"`
	Pod       string `json:"pod"`
	Container string `json:"container,omitempty"`
	// Resource is the extended resource that the device was given as, such as nvidia.com/gpu.
	Resource string `json:"resource"`
	// ID is the device plugin's own name of the device.
	ID string `json:"id"`
}

// Lister says what every container of the node holds.
type Lister interface {
	Holdings(ctx context.Context) ([]Holding, error)
}

// Bounds of an answer. A kubelet runs 110 pods by default and has a few devices; names are as long as Kubernetes allows.
const (
	MaxHoldings  = 2048
	maxNamespace = 63
	maxPod       = 253
	maxContainer = 63
	maxResource  = 317
	maxID        = 128
	maxSaid      = 200
)

// Check says what is wrong with a holding that no kubelet tells.
func (h Holding) Check() error {
	for _, f := range []struct {
		name, value string
		most        int
		empty       bool
	}{
		{"namespace", h.Namespace, maxNamespace, false},
		{"pod", h.Pod, maxPod, false},
		{"container", h.Container, maxContainer, true},
		{"resource", h.Resource, maxResource, false},
		{"device ID", h.ID, maxID, false},
	} {
		switch {
		case f.value == "" && !f.empty:
			return fmt.Errorf("a %s is empty", f.name)
		case len(f.value) > f.most:
			return fmt.Errorf("a %s has %d bytes, at most %d are believed", f.name, len(f.value), f.most)
		case !utf8.ValidString(f.value) || strings.ContainsFunc(f.value, func(r rune) bool { return r < ' ' || r == 0x7f }):
			return fmt.Errorf("a %s is no text: %q", f.name, clip(f.value))
		}
	}
	return nil
}

// ShortID is a device plugin's name of a device within bounds. One that is too long, or no text, is the name of no device of
// ours, and what becomes of it here is none either.
func ShortID(id string) string {
	if h := (Holding{Namespace: "n", Pod: "p", Resource: "r", ID: id}); h.Check() == nil {
		return id
	}
	id = printable(id)
	return "?" + strings.ToValidUTF8(id[:min(len(id), maxID-1)], "")
}

// protocol is the version of Answer; helper and agent come from one build.
const protocol = 1

// answer is what the helper writes to its standard output: one JSON object.
type answer struct {
	Version int `json:"version"`
	// Error says in words why the kubelet could not be asked; Holdings are empty then.
	Error    string    `json:"error,omitempty"`
	Holdings []Holding `json:"holdings,omitempty"`
}

// Encode is what the helper says: what the kubelet answered, or why it did not.
func Encode(holdings []Holding, err error) ([]byte, error) {
	a := answer{Version: protocol, Holdings: holdings}
	if err != nil {
		a.Error, a.Holdings = err.Error(), nil
	}
	return json.Marshal(a)
}

// Decode reads what the helper said.
func Decode(data []byte) ([]Holding, error) {
	var a answer
	decoder := json.NewDecoder(bytes.NewReader(data))
	if err := decoder.Decode(&a); err != nil {
		return nil, fmt.Errorf("reading the answer of roundhouse-podresources: %w", err)
	}
	switch {
	case a.Version != protocol:
		return nil, fmt.Errorf("roundhouse-podresources speaks version %d, and this agent %d: install both from one release", a.Version, protocol)
	case a.Error != "":
		return nil, errors.New(clip(printable(a.Error)))
	case len(a.Holdings) > MaxHoldings:
		return nil, fmt.Errorf("reading the answer of roundhouse-podresources: it tells of %d devices, at most %d are believed", len(a.Holdings), MaxHoldings)
	}
	for _, h := range a.Holdings {
		if err := h.Check(); err != nil {
			return nil, fmt.Errorf("reading the answer of roundhouse-podresources: %w", err)
		}
	}
	return a.Holdings, nil
}

// Helper asks the kubelet in a process of its own, which it starts for each question.
type Helper struct {
	Programs machine.ProgramRunner
	// Path is the helper's file, Socket the kubelet's.
	Path, Socket string
	// Timeout bounds one question; the helper gives up a little sooner, so that it can say why.
	Timeout time.Duration
}

var _ Lister = Helper{}

// DefaultTimeout is how long one question may take.
const DefaultTimeout = 5 * time.Second

// maxAnswer bounds what the helper may say, in bytes: MaxHoldings whose names are as long as they may be.
const maxAnswer = MaxHoldings * (maxNamespace + maxPod + maxContainer + maxResource + maxID + 80)

// Holdings starts the helper and asks once.
func (h Helper) Holdings(ctx context.Context) ([]Holding, error) {
	timeout := h.Timeout
	if timeout <= 0 {
		timeout = DefaultTimeout
	}
	ran, err := h.Programs.RunProgram(ctx, machine.Program{
		Path: h.Path, Args: []string{"-socket", h.Socket, "-timeout", (timeout * 4 / 5).String()}, Timeout: timeout, MaxOutput: maxAnswer,
		Env: []string{"GOMEMLIMIT=64MiB", "GOMAXPROCS=1"},
	})
	switch {
	case err != nil:
		return nil, fmt.Errorf("asking the kubelet: %w", err)
	case ran.TimedOut:
		return nil, fmt.Errorf("asking the kubelet: roundhouse-podresources gave no answer within %s: %w", timeout, machine.ErrStuck)
	case ran.Exit != 0:
		return nil, fmt.Errorf("asking the kubelet: roundhouse-podresources: %s: %s", ran.State, clip(printable(string(ran.Stderr))))
	}
	return Decode(ran.Stdout)
}

// printable is a text on one line.
func printable(s string) string {
	s = strings.ToValidUTF8(s, "?")
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f }), " ")
}

func clip(s string) string {
	if len(s) <= maxSaid {
		return s
	}
	return strings.ToValidUTF8(s[:maxSaid], "") + "..."
}
