package nvidia

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"time"

	"github.com/roundhouse-dev/roundhouse/internal/health/track"
)

const (
	// loadAttempts is how many looks a state that cannot be read is waited for, before the check works without it: a
	// detector must not die of a broken disk.
	loadAttempts = 3
	// saveTimeout bounds one save.
	saveTimeout = 2 * time.Second
)

// state is what survives a restart of the agent, within one boot.
type state struct {
	BootID  string          `json:"bootID"`
	Tracked []track.Tracked `json:"tracked,omitempty"`
	Counts  counts          `json:"counts,omitempty"`
}

// keeper is a judge whose counters are worth keeping.
type keeper interface {
	judge
	counts() counts
	recall(c counts)
}

// saving is how keeping the state goes.
type saving struct {
	loaded bool
	loads  int
	err    error
}

func (s saving) note() []string {
	if s.err == nil {
		return nil
	}
	return []string{"state is not kept: " + s.err.Error()}
}

func (c *check) file() string { return "nvidia-" + c.Name() + ".json" }

// begin takes up the saved state, once. What is of another boot is over.
func (c *check) begin(ctx context.Context) error {
	boot, err := c.source.o.Machine.BootID(ctx)
	if err != nil {
		return err
	}
	if !c.save.loaded {
		if err := c.load(ctx); err != nil {
			if c.save.loads++; c.save.loads < loadAttempts {
				return err
			}
			c.save.err = err
		}
	}
	if c.state.BootID != boot {
		c.state = state{BootID: boot}
		c.recall()
	}
	return nil
}

// load replaces what is known by what was saved. Until it could be read, nothing is saved over it.
func (c *check) load(ctx context.Context) error {
	if c.source.o.Store == nil {
		c.save.loaded = true
		return nil
	}
	data, err := c.source.o.Store.Load(ctx, c.file())
	if errors.Is(err, fs.ErrNotExist) {
		c.save.loaded = true
		return nil
	}
	if err != nil {
		return err
	}
	c.save.loaded, c.save.err = true, nil
	var s state
	if err := json.Unmarshal(data, &s); err != nil {
		c.save.err = fmt.Errorf("reading %s, which starts anew: %w", c.file(), err)
		return nil
	}
	// What was pending is measured anew: nobody looked meanwhile.
	s.Tracked = slices.DeleteFunc(s.Tracked, func(k track.Tracked) bool { return !k.Open })
	c.state = s
	c.recall()
	return nil
}

func (c *check) recall() {
	if k, ok := c.judge.(keeper); ok {
		k.recall(maps.Clone(c.state.Counts))
	}
}

// counted says that counters worth keeping are not what was kept of them.
func (c *check) counted() bool {
	k, ok := c.judge.(keeper)
	return ok && !maps.Equal(k.counts(), c.state.Counts)
}

// keepState saves what survives a restart.
func (c *check) keepState(ctx context.Context) {
	if c.source.o.Store == nil || !c.save.loaded {
		return
	}
	if k, ok := c.judge.(keeper); ok {
		c.state.Counts = maps.Clone(k.counts())
	}
	ctx, cancel := context.WithTimeout(ctx, saveTimeout)
	defer cancel()
	data, err := json.Marshal(c.state)
	if err == nil {
		err = c.source.o.Store.Save(ctx, c.file(), data)
	}
	c.save.err = err
}
