package fleet

import (
	"context"
	"fmt"
)

// EnsureTokens asks for the tokens of the agents of these nodes, which agents of a real fleet have held since their start.
// Without it those of a fleet above ManyNodes ask when they first have something to say, and a measurement of what they
// say would measure that too.
func (f *Fleet) EnsureTokens(ctx context.Context, names ...string) error {
	var nodes []*node
	for _, name := range names {
		n, err := f.node(name)
		if err != nil {
			return err
		}
		nodes = append(nodes, n)
	}
	return each(ctx, nodes, func(ctx context.Context, n *node) error {
		n.mu.Lock()
		p := n.agent
		n.mu.Unlock()
		if p == nil {
			return fmt.Errorf("no agent runs on node %s", n.name)
		}
		_, err := p.holder.current(ctx)
		return err
	})
}
