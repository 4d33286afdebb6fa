// Package kept keeps what a check remembers in a file of the host: at once what a fault comes of, and now and then what
// merely rises.
package kept

import (
	"context"
	"encoding/json"
	"time"

	"github.com/roundhouse-dev/roundhouse/internal/machine"
)

const (
	// every bounds how often counts that merely rise are written.
	every = time.Minute
	// timeout bounds one save.
	timeout = 2 * time.Second
)

// File is where a check's state is kept.
type File struct {
	Name string
	// Dirty is that something is not saved, Urgent that it should be at once.
	Dirty, Urgent bool
	// Err is why the last save failed.
	Err error

	saved time.Time
}

// Load reads what was kept into a state; an error that is fs.ErrNotExist means that nothing was.
func (f *File) Load(ctx context.Context, store machine.Store, into any) error {
	data, err := store.Load(ctx, f.Name)
	if err != nil {
		return err
	}
	return json.Unmarshal(data, into)
}

// Keep saves a state when something in it is new.
func (f *File) Keep(ctx context.Context, store machine.Store, state any, now time.Time) {
	if !f.Dirty || !f.Urgent && now.Sub(f.saved) < every {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	data, err := json.Marshal(state)
	if err == nil {
		err = store.Save(ctx, f.Name, data)
	}
	f.Err, f.Dirty, f.Urgent = err, err != nil, err != nil
	f.saved = now
}
