package track

import (
	"testing"
	"time"
)

func TestTheWindow(t *testing.T) {
	var w Window
	for i := range 1000 {
		w.Add(t0.Add(time.Duration(i)*time.Second), 1, "x")
	}
	if len(w.Ticks) != 4 || w.Sum() != 1000 {
		t.Errorf("%d ticks, sum %d", len(w.Ticks), w.Sum())
	}
	w.Add(t0.Add(-time.Hour), 1, "x")
	if w.Sum() != 1 || w.Count != 1 {
		t.Errorf("after the clock was set back: sum %d, count %d", w.Sum(), w.Count)
	}
	for i := range 1000 {
		w.Add(t0.Add(time.Duration(i)*7*time.Minute), 1, "x")
	}
	if len(w.Ticks) > 13 {
		t.Errorf("%d ticks", len(w.Ticks))
	}
}
