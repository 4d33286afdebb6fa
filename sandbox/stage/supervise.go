package stage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/roundhouse-dev/roundhouse/sandbox/sandbox"
)

// ErrEnded says that a process of the cluster ended and could not be replaced.
var ErrEnded = errors.New("a process of the cluster ended")

// restartTimeout bounds the start of a controller in place of one that ended.
const restartTimeout = 30 * time.Second

// Supervise starts a controller where none is left although nobody killed it, as its Deployment would: one that loses its
// lease because the machine is too busy ends itself. What else ends ends the returned context. The notes say what was
// restarted; what cannot be written is not said.
func (s *Stage) Supervise(ctx context.Context, notes io.Writer) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case died := <-s.sandbox.Exited():
				if err := s.replace(ctx, died, notes); err != nil {
					cancel(err)
				}
			}
		}
	}()
	return ctx, func() { cancel(context.Canceled) }
}

// replace starts a controller in place of one that ended.
func (s *Stage) replace(ctx context.Context, died error, notes io.Writer) error {
	if ctx.Err() != nil {
		return nil // the end of everything.
	}
	if len(s.sandbox.Controllers()) > 0 {
		return fmt.Errorf("%w: %w", ErrEnded, died)
	}
	_, _ = fmt.Fprintln(notes, "the controller ended by itself and is started again, as its Deployment would: the machine is too busy for its lease")
	ctx, cancel := context.WithTimeout(ctx, restartTimeout)
	defer cancel()
	if _, err := s.sandbox.StartController(ctx); err != nil {
		return fmt.Errorf("%w: %w (starting it again: %w)", ErrEnded, died, err)
	}
	return nil
}

// leader waits for the controller that leads.
func (s *Stage) leader(ctx context.Context) (*sandbox.Controller, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, restartTimeout, fmt.Errorf("no controller leads after %s", restartTimeout))
	defer cancel()
	return s.sandbox.WaitLeader(ctx)
}
