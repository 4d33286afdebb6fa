package drain

import (
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

// Patience is how long a drain leaves pods that would lose work. It is for those of cost Dear: others lose none, or only a human
// stops them. The zero value has none.
type Patience struct {
	// Until is until when they may end by themselves; zero where they may not.
	Until time.Time
	// From is when pods begin to be asked for a checkpoint, and Checkpoint how long each is left from then on to keep one that is
	// later. A pod that never said that it had kept its work is not waited for.
	From       time.Time
	Checkpoint time.Duration
	// Except are pods that are moved all the same.
	Except map[types.UID]bool
}

// Spared is a pod that is left for now.
type Spared struct {
	Move
	// Until is when it goes at the latest, and Kept when it last kept its work, where that is what is waited for.
	Until, Kept time.Time
}

// Spare divides what a plan moves into what goes now and what is left for now.
func (p *Plan) Spare(patience Patience, now time.Time) (move []Move, spared []Spared) {
	for i := range p.Move {
		if s := patience.spares(&p.Move[i], now); s != nil {
			spared = append(spared, *s)
			continue
		}
		move = append(move, p.Move[i])
	}
	return move, spared
}

func (p *Patience) spares(m *Move, now time.Time) *Spared {
	if m.Cost != v1alpha1.CostDear || p.Except[m.Pod.UID] {
		return nil
	}
	if now.Before(p.Until) {
		return &Spared{Move: *m, Until: p.Until}
	}
	until := p.From.Add(p.Checkpoint)
	if kept, ever := lastKept(now, &m.Pod); ever && !kept.After(p.From) && now.Before(until) {
		return &Spared{Move: *m, Until: until, Kept: kept}
	}
	return nil
}
