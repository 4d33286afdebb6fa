package machine

import (
	"context"
	"errors"
	"sync"
)

// ReadOnly is the machine as somebody sees it who must not leave a trace: what is saved is kept in memory, in front of what
// is there, and a reboot is refused.
func ReadOnly(m Machine) Machine { return &readOnly{Machine: m, saved: map[string][]byte{}} }

type readOnly struct {
	Machine

	mu    sync.Mutex
	saved map[string][]byte
}

func (r *readOnly) Load(ctx context.Context, name string) ([]byte, error) {
	r.mu.Lock()
	data, ok := r.saved[name]
	r.mu.Unlock()
	if ok {
		return append([]byte(nil), data...), nil
	}
	return r.Machine.Load(ctx, name)
}

func (r *readOnly) Save(_ context.Context, name string, data []byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.saved[name] = append([]byte(nil), data...)
	return nil
}

func (r *readOnly) Reboot(context.Context) error {
	return errors.New("rebooting: this is a look that changes nothing")
}
