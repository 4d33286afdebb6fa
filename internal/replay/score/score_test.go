package score

import (
	"testing"
	"time"

	"github.com/roundhouse-dev/roundhouse/internal/replay"
	"github.com/roundhouse-dev/roundhouse/internal/replay/corpus"
)

// fleet is the size that the project's promise is about.
func TestFleetSizedCorpus(t *testing.T) {
	if testing.Short() {
		t.Skip("plays 288 node-days")
	}
	c, err := corpus.New(corpus.Options{Seed: corpus.DefaultSeed, Nodes: corpus.DefaultNodes, Days: corpus.DefaultDays})
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	s, err := Run(t.Context(), c, replay.Options{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s for %d lines, %d faults: %+v", time.Since(began), s.Counts.Lines, c.Faults(), s.Totals)
	for _, e := range s.Examples {
		t.Error(e)
	}
	if s.Counts.Application < 170000 {
		t.Errorf("%d application lines", s.Counts.Application)
	}
	for i := range s.Rows {
		t.Logf("%+v", s.Rows[i])
	}
	t.Logf("%+v", s.Noise)
}
