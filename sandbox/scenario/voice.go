package scenario

import (
	"context"
	"sync"
)

// voice calls a narrator from one goroutine at a time: facts as they come, and steps and outcomes between them, after the
// facts that came before.
type voice struct {
	narrator Narrator
	tape     *Tape
	end      context.CancelFunc
	over     chan struct{}

	mu   sync.Mutex
	told int
}

// newVoice begins to tell the facts of a tape. A nil narrator is told nothing.
func newVoice(ctx context.Context, n Narrator, t *Tape) *voice {
	v := &voice{narrator: n, tape: t, over: make(chan struct{})}
	ctx, end := context.WithCancel(ctx)
	v.end = end
	go func() {
		defer close(v.over)
		for ctx.Err() == nil {
			told := v.say(nil)
			// The wait ends with ctx; there is nothing to do about a tape that failed but to go on telling.
			_, _ = t.Until(ctx, func(facts []Fact, _ *World) bool { return len(facts) > told })
			if t.Err() != nil {
				return
			}
		}
	}()
	return v
}

// say tells the facts that are not told yet, and then calls f, if there is one.
func (v *voice) say(f func(Narrator)) int {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, fact := range v.tape.Facts(v.told) {
		v.told++
		if v.narrator != nil {
			v.narrator.Fact(fact)
		}
	}
	if f != nil && v.narrator != nil {
		f(v.narrator)
	}
	return v.told
}

// stop tells what is left and ends.
func (v *voice) stop() {
	v.end()
	<-v.over
	v.say(nil)
}
