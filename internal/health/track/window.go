package track

import (
	"slices"
	"time"
)

const (
	// windowSpan is how long an error is held against a device.
	windowSpan = time.Hour
	// tickSpan is what one entry of a window holds, so that a window has at most some dozen.
	tickSpan = 5 * time.Minute
)

// Window counts what happened in the last hour. The zero value is ready.
type Window struct {
	// Ticks are the oldest first.
	Ticks []tick `json:"ticks,omitempty"`
	// Since is when the window was last empty, Count what came since then, and Last the time of the newest.
	Since time.Time `json:"since,omitzero"`
	Last  time.Time `json:"last,omitzero"`
	Count uint64    `json:"count,omitempty"`
	// Evidence says what the newest was.
	Evidence string `json:"evidence,omitempty"`
}

// tick is what came in a while.
type tick struct {
	At time.Time `json:"at"`
	N  uint64    `json:"n"`
}

// Add counts n more, and lets go of what is older than the window. A time ahead of now is a clock that was set back.
func (w *Window) Add(now time.Time, n uint64, evidence string) {
	w.Ticks = slices.DeleteFunc(w.Ticks, func(t tick) bool {
		age := now.Sub(t.At)
		return age < 0 || age >= windowSpan
	})
	if len(w.Ticks) == 0 {
		*w = Window{}
	}
	if n == 0 {
		return
	}
	if len(w.Ticks) == 0 {
		w.Since = now
	}
	if last := len(w.Ticks) - 1; last >= 0 && now.Sub(w.Ticks[last].At) < tickSpan {
		w.Ticks[last].N += n
	} else {
		w.Ticks = append(w.Ticks, tick{now, n})
	}
	w.Last, w.Evidence = now, evidence
	w.Count += n
}

// Sum is what came in the last hour, as of the last Add.
func (w *Window) Sum() uint64 {
	var n uint64
	for _, t := range w.Ticks {
		n += t.N
	}
	return n
}
