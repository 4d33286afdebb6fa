package scenario

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// maxFacts bounds a tape. A scenario that makes more is broken, and its missing facts would make every "never" a lie, so
// the tape fails instead of forgetting.
const maxFacts = 200_000

// Tape keeps the facts of a scenario in the order in which they were seen, with the world they led to.
type Tape struct {
	began time.Time
	now   func() time.Time

	mu      sync.Mutex
	world   *World
	facts   []Fact
	failed  error
	changed chan struct{} // closed at the next change
	follow  func(Fact)
}

// NewTape begins an empty tape at began. follow is called for each fact, in order, and must not block; it may be nil.
func NewTape(began time.Time, now func() time.Time, follow func(Fact)) *Tape {
	return &Tape{began: began, now: now, world: NewWorld(), changed: make(chan struct{}), follow: follow}
}

// Since is the time since the tape began.
func (t *Tape) Since() time.Duration { return t.now().Sub(t.began) }

// Record takes a change in.
func (t *Tape) Record(c Change) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c.At = t.Since()
	t.appendLocked(t.world.Observe(c))
}

// Add takes in facts that no object of the API says, such as alerts.
func (t *Tape) Add(facts ...Fact) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range facts {
		facts[i].At = t.Since()
		facts[i].Seconds = seconds(facts[i].At)
	}
	t.appendLocked(facts)
}

func (t *Tape) appendLocked(facts []Fact) {
	for _, f := range facts {
		if len(t.facts) == maxFacts {
			t.failLocked(fmt.Errorf("more than %d facts: nothing after that is known", maxFacts))
			return
		}
		f.Seq = len(t.facts) + 1
		t.facts = append(t.facts, f)
		if t.follow != nil {
			t.follow(f)
		}
	}
	t.wakeLocked()
}

// Fail says that the tape misses facts from now on, and why.
func (t *Tape) Fail(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.failLocked(err)
}

func (t *Tape) failLocked(err error) {
	if t.failed == nil {
		t.failed = err
	}
	t.wakeLocked()
}

func (t *Tape) wakeLocked() {
	close(t.changed)
	t.changed = make(chan struct{})
}

// Err is why the tape misses facts, if it does.
func (t *Tape) Err() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.failed
}

// Len is how many facts there are.
func (t *Tape) Len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.facts)
}

// Facts copies the facts after the first n.
func (t *Tape) Facts(n int) []Fact {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]Fact(nil), t.facts[min(n, len(t.facts)):]...)
}

// View calls f with the facts and the world as they are; f must not keep them.
func (t *Tape) View(f func([]Fact, *World)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f(t.facts, t.world)
}

// Count counts what a state says, now.
func (t *Tape) Count(s State) (int, string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.world.Count(s)
}

// Until calls look after each change, first at once, until it says true, or the tape fails, or ctx ends. It says whether
// look did.
func (t *Tape) Until(ctx context.Context, look func([]Fact, *World) bool) (bool, error) {
	for {
		t.mu.Lock()
		done, failed, changed := look(t.facts, t.world), t.failed, t.changed
		t.mu.Unlock()
		switch {
		case done:
			return true, nil
		case failed != nil:
			return false, failed
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false, nil
		}
	}
}
