package sandbox

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

func TestABarOnlyMovesForward(t *testing.T) {
	for name, many := range map[string]bool{"a small fleet": false, "a large one": true} {
		t.Run(name, func(t *testing.T) {
			last := 0.0
			for _, s := range shares(many) {
				for done := range 11 {
					now := fraction(many, s.stage, done, 10)
					if now < last || now > 1.000001 {
						t.Fatalf("%s, %d of 10: %f after %f", s.stage, done, now, last)
					}
					last = now
				}
			}
			if last < 0.999 {
				t.Errorf("the last stage ends at %f", last)
			}
		})
	}
}

func TestABarWithoutATerminalIsALineAStage(t *testing.T) {
	var out bytes.Buffer
	b := NewBar(&out)
	for done := range 1000 {
		b.Show(Progress{Stage: stageNodes, Done: done, Of: 1000, SinceStart: time.Second})
	}
	b.Show(Progress{Stage: stageAgents, Done: 0, Of: 8, SinceStart: 2 * time.Second})
	b.Done(3100*time.Millisecond, "8 nodes")
	b.Show(Progress{Stage: stageAgents, Done: 8, Of: 8}) // comes too late
	want := "  1.0s nodes 0 of 1000\n  2.0s agents 0 of 8\n[" + strings.Repeat("#", barWidth) + "] ready 3.1s   8 nodes\n"
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
}

func TestBars(t *testing.T) {
	for fraction, want := range map[float64]string{-1: "....................", 0: "....................", 0.5: "##########..........", 2: "####################"} {
		if got := bar(fraction); got != want {
			t.Errorf("bar(%g) = %q, want %q", fraction, got, want)
		}
	}
}
