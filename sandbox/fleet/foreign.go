package fleet

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// What the foreign writers of StartForeign put on Nodes. The taint keeps nobody off.
const (
	foreignWatchTaint                              = "inventory.example.com/seen"
	foreignWatchCondition corev1.NodeConditionType = "InventoryChecked"
)

// maxLost bounds what is remembered of losses; more are counted in the last line.
const maxLost = 100

// Foreign is a third party at work on Nodes: it puts its own taint and condition on, changes them and looks whether they
// are still as it left them.
type Foreign struct {
	fleet  *Fleet
	nodes  []*node
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu     sync.Mutex
	writes int
	lost   []string
	more   int
	errs   int
	err    error
}

// StartForeign starts a foreign tainter and a foreign condition writer on nodes, each with a write a node every so often.
func (f *Fleet) StartForeign(ctx context.Context, every time.Duration, names ...string) (*Foreign, error) {
	x := &Foreign{fleet: f}
	for _, name := range names {
		n, err := f.node(name)
		if err != nil {
			return nil, err
		}
		x.nodes = append(x.nodes, n)
	}
	ctx, x.cancel = context.WithCancel(ctx)
	for _, n := range x.nodes {
		x.wg.Go(func() { x.loop(ctx, n, every, x.taint) })
		x.wg.Go(func() { x.loop(ctx, n, every, x.condition) })
	}
	return x, nil
}

// loop looks and writes until ctx ends. turn is the number of the next write; what was left is of the one before.
func (x *Foreign) loop(ctx context.Context, n *node, every time.Duration, write func(ctx context.Context, n *node, left, next string) (string, error)) {
	left := ""
	for turn := 1; ctx.Err() == nil; turn++ {
		one, cancel := context.WithTimeout(ctx, requestTimeout)
		next := strconv.Itoa(turn)
		lost, err := write(one, n, left, next)
		cancel()
		x.note(ctx, lost, err)
		if left = next; err != nil {
			left = "" // it may have been written or not
		}
		pause(ctx, every)
	}
}

func (x *Foreign) note(ctx context.Context, lost string, err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	switch {
	case err != nil && ctx.Err() != nil:
	case err != nil:
		x.errs++
		x.err = err
	default:
		x.writes++
	}
	switch {
	case lost == "":
	case len(x.lost) < maxLost:
		x.lost = append(x.lost, lost)
	default:
		x.more++
	}
}

// taint looks for the taint as it was left and writes the next value.
func (x *Foreign) taint(ctx context.Context, n *node, left, next string) (lost string, err error) {
	node, err := x.fleet.kube.CoreV1().Nodes().Get(ctx, n.name, metav1.GetOptions{})
	if err != nil {
		return "", fmt.Errorf("looking for a taint on node %s: %w", n.name, err)
	}
	found := ""
	for _, t := range node.Spec.Taints {
		if t.Key == foreignWatchTaint {
			found = t.Value
		}
	}
	if left != "" && found != left {
		lost = fmt.Sprintf("node %s: taint %s is %q, was left as %q", n.name, foreignWatchTaint, found, left)
	}
	return lost, x.fleet.setTaint(ctx, n, foreignWatchTaint, next, corev1.TaintEffectPreferNoSchedule, true)
}

// condition does the same with a condition, whose message is the value.
func (x *Foreign) condition(ctx context.Context, n *node, left, next string) (lost string, err error) {
	node, err := x.fleet.kube.CoreV1().Nodes().Get(ctx, n.name, metav1.GetOptions{})
	if err != nil {
		return "", fmt.Errorf("looking for a condition of node %s: %w", n.name, err)
	}
	found := ""
	for _, c := range node.Status.Conditions {
		if c.Type == foreignWatchCondition {
			found = c.Message
		}
	}
	if left != "" && found != left {
		lost = fmt.Sprintf("node %s: condition %s is %q, was left as %q", n.name, foreignWatchCondition, found, left)
	}
	return lost, x.fleet.setCondition(ctx, n, foreignWatchCondition, corev1.ConditionFalse, "Seen", next)
}

// Stop ends the work, takes its taints off and returns how much was written and what was lost in between: one line for
// each taint or condition that was not found as it had been left. The error is of a write that failed for good.
func (x *Foreign) Stop(ctx context.Context) (writes int, lost []string, err error) {
	x.cancel()
	x.wg.Wait()
	for _, n := range x.nodes {
		if err := x.fleet.setTaint(ctx, n, foreignWatchTaint, "", "", false); err != nil {
			return x.writes, x.lost, err
		}
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	lost = x.lost
	if x.more > 0 {
		lost = append(lost, fmt.Sprintf("and %d more", x.more))
	}
	if x.errs > 0 {
		err = fmt.Errorf("%d foreign writes failed, the last: %w", x.errs, x.err)
	}
	return x.writes, lost, err
}
