package sandbox

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"
)

// The stages of a start, in order.
const (
	stageControlPlane = "control plane"
	stageObjects      = "objects"
	stageController   = "controller"
	stageNodes        = "nodes"
	stageSlices       = "slices"
	stageDaemons      = "daemons"
	stageAgents       = "agents"
)

// shares are how much of a start each stage is, roughly, in the order in which they come: with a small fleet it is the
// control plane that takes its time, with a large one the nodes and the agents.
func shares(many bool) []struct {
	stage string
	share float64
} {
	type list = []struct {
		stage string
		share float64
	}
	if many {
		return list{{stageControlPlane, 0.03}, {stageObjects, 0.01}, {stageNodes, 0.55}, {stageAgents, 0.40}, {stageController, 0.01}}
	}
	return list{
		{stageControlPlane, 0.50}, {stageObjects, 0.10}, {stageController, 0.10}, {stageNodes, 0.05}, {stageSlices, 0.05},
		{stageDaemons, 0.15}, {stageAgents, 0.05},
	}
}

// tell tells how far a stage has come.
func (s *Sandbox) tell(stage string, done, of int) {
	s.o.Progress(Progress{
		Stage: stage, Done: done, Of: of, SinceStart: time.Since(s.began),
		Fraction: fraction(s.o.Fleet.Many(), stage, done, of),
	})
}

// fraction is how much of the start is done. An unknown stage is the end.
func fraction(many bool, stage string, done, of int) float64 {
	before := 0.0
	for _, s := range shares(many) {
		if s.stage == stage {
			return before + s.share*float64(done)/float64(max(of, 1))
		}
		before += s.share
	}
	return 1
}

const (
	// barWidth is the number of characters of a whole bar.
	barWidth = 20
	// redrawEvery bounds how often a bar is drawn, and sayEvery how often a line is written where there is no terminal.
	redrawEvery = 50 * time.Millisecond
	sayEvery    = 5 * time.Second
)

// Bar shows progress: a bar that moves on a terminal, a line a stage elsewhere.
type Bar struct {
	w        io.Writer
	terminal bool

	mu    sync.Mutex
	stage string
	drawn time.Time
	over  bool
}

// NewBar writes to w.
func NewBar(w io.Writer) *Bar {
	file, ok := w.(*os.File)
	return &Bar{w: w, terminal: ok && term.IsTerminal(int(file.Fd()))}
}

// Show shows one more step; hand it to [Options].Progress. What cannot be written is not shown, and the start goes on.
func (b *Bar) Show(p Progress) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	every := sayEvery
	if b.terminal {
		every = redrawEvery
	}
	if b.over || p.Stage == b.stage && now.Sub(b.drawn) < every {
		return
	}
	b.stage, b.drawn = p.Stage, now
	if b.terminal {
		_, _ = fmt.Fprintf(b.w, "\r\033[K[%s] %s %d of %d", bar(p.Fraction), p.Stage, p.Done, p.Of)
		return
	}
	_, _ = fmt.Fprintf(b.w, "%5.1fs %s %d of %d\n", p.SinceStart.Seconds(), p.Stage, p.Done, p.Of)
}

// Done ends the bar with a line that says how long it took, and what there is now.
func (b *Bar) Done(took time.Duration, text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.over = true
	start := ""
	if b.terminal {
		start = "\r\033[K"
	}
	_, _ = fmt.Fprintf(b.w, "%s[%s] ready %.1fs   %s\n", start, bar(1), took.Seconds(), text)
}

// Clear takes the bar off the terminal, before an error is shown.
func (b *Bar) Clear() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.over = true; b.terminal && b.stage != "" {
		_, _ = io.WriteString(b.w, "\r\033[K")
	}
}

func bar(fraction float64) string {
	full := int(max(0, min(1, fraction)) * barWidth)
	return strings.Repeat("#", full) + strings.Repeat(".", barWidth-full)
}
