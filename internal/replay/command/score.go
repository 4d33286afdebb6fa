package command

import (
	"context"
	"fmt"

	"github.com/roundhouse-dev/roundhouse/internal/replay"
	"github.com/roundhouse-dev/roundhouse/internal/replay/corpus"
	"github.com/roundhouse-dev/roundhouse/internal/replay/score"
)

// score plays a corpus and prints how well it was judged.
func (c Command) score(ctx context.Context, f *flags) error {
	fleet, err := corpus.New(corpus.Options{Seed: f.seed, Nodes: f.nodes, Days: f.days})
	if err != nil {
		return fmt.Errorf("-corpus: %w", err)
	}
	if f.write != "" {
		if err := fleet.Write(f.write); err != nil {
			return err
		}
	}
	s, err := score.Run(ctx, fleet, replay.Options{Checks: c.Checks}, nil)
	if err != nil {
		return err
	}
	switch f.output {
	case "json":
		err = s.WriteJSON(c.Stdout)
	case "markdown":
		err = s.WriteMarkdown(c.Stdout)
	default:
		err = s.WriteTable(c.Stdout)
	}
	if err != nil {
		return fmt.Errorf("writing the score: %w", err)
	}
	if f.failOnDisruptive && !s.Clean() {
		return fmt.Errorf("%w: %d false, and %d faults missed", ErrDisruptive, s.FalseDisruptive, s.Missed)
	}
	return nil
}
