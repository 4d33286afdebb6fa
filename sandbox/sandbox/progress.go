package sandbox

import "io"

// Bar shows progress: a bar that moves on a terminal, a line a stage elsewhere.
type Bar struct{}

// NewBar writes to w.
func NewBar(w io.Writer) *Bar { panic("being written") }

// Show shows one more step; hand it to [Options].Progress.
func (b *Bar) Show(p Progress) { panic("being written") }

// Done ends the bar with a line that says how long it took, and what there is now.
func (b *Bar) Done(p Progress, text string) { panic("being written") }
