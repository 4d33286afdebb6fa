package machine

import (
	"context"
	"fmt"
)

// door lets one caller at a time through to something that may never answer: a driver's /proc file whose lock a hung
// thread holds, a disk that has gone. A thread in such a read cannot be killed, so it is left behind, at most one a door,
// and the door stays shut until it comes back.
type door struct {
	name string
	busy chan struct{}
}

func newDoor(name string) *door {
	return &door{name: name, busy: make(chan struct{}, 1)}
}

// through runs f and gives up waiting for it when the context ends. What f returns after that is thrown away.
func through[T any](ctx context.Context, d *door, f func() (T, error)) (T, error) {
	type answer struct {
		value T
		err   error
	}
	var none T
	select {
	case d.busy <- struct{}{}:
	case <-ctx.Done():
		return none, fmt.Errorf("%s: an earlier call is still out: %w: %w", d.name, ErrStuck, context.Cause(ctx))
	}
	done := make(chan answer, 1)
	go func() {
		defer func() { <-d.busy }()
		value, err := f()
		done <- answer{value, err}
	}()
	select {
	case a := <-done:
		return a.value, a.err
	case <-ctx.Done():
		return none, fmt.Errorf("%s: %w: %w", d.name, ErrStuck, context.Cause(ctx))
	}
}
