package agent

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/resourceversion"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/machine"
)

const (
	// idle is the longest time between two steps.
	idle = time.Minute
	// beginRetry is how soon a machine that does not answer is asked again.
	beginRetry = time.Second
	// requestTimeout bounds one request.
	requestTimeout = 15 * time.Second
	// urgentBurst is how many urgent writes may follow each other without a gap.
	urgentBurst = 8
	// minBackoff and maxBackoff bound the pause after an error of the API server.
	minBackoff = 200 * time.Millisecond
	maxBackoff = 15 * time.Second
	// absentRetry is how often a NodeHealth that is not there is asked for, should the watch miss its creation.
	absentRetry = time.Minute
	// nodeRetry is how often the Node is read while the NodeHealth is another Node's.
	nodeRetry = 10 * time.Second
)

// What keeps an agent from publishing; values of the metric roundhouse_agent_blocked.
const (
	// BlockedNoNodeHealth means that the controller has not created this node's NodeHealth yet.
	BlockedNoNodeHealth = "NoNodeHealth"
	// BlockedOtherNode means that the NodeHealth is of another Node of the same name.
	BlockedOtherNode = "OtherNode"
)

// Observe takes what a watch saw of the node's NodeHealth; nil when it was deleted. It may be called at any time, and
// never changes what it is given.
func (n *Node) Observe(h *v1alpha1.NodeHealth) {
	n.mu.Lock()
	n.seen = n.clock.Now()
	n.askAt = n.seen.Add(absentRetry)
	changed := n.adoptLocked(h)
	n.mu.Unlock()
	if changed {
		n.nudge()
	}
}

// adoptLocked keeps the newer of what is known and h. A watch may lag behind the answer to our own write; taking the
// older one would only earn a conflict.
func (n *Node) adoptLocked(h *v1alpha1.NodeHealth) bool {
	old := n.health
	if h != nil && old != nil && h.UID == old.UID {
		if order, err := resourceversion.CompareResourceVersion(h.ResourceVersion, old.ResourceVersion); err == nil && order <= 0 {
			return false
		}
	}
	n.replaceLocked(h)
	return true
}

// replaceLocked takes h for the present state, whatever was known.
func (n *Node) replaceLocked(h *v1alpha1.NodeHealth) {
	if h != nil && (n.health == nil || n.health.UID != h.UID) {
		n.act.inherited = false
	}
	n.health = nil
	if h == nil {
		return
	}
	// A copy, because what a watch shares is not ours; without the record of who wrote what, which is half of it.
	kept := *h
	kept.ManagedFields = nil
	n.health = &kept
	if uid := string(h.UID); n.fenceOf != uid {
		n.fenceOf, n.fence = uid, 0
	}
	n.fence = max(n.fence, h.Spec.Fence)
}

// sync talks to the API server: it takes the action a step further and publishes what changed. It returns when to sync
// again at the latest.
func (n *Node) sync(ctx context.Context) time.Time {
	n.mu.Lock()
	now, retryAt := n.clock.Now(), n.pub.retryAt
	n.mu.Unlock()
	if now.Before(retryAt) {
		return retryAt
	}
	next, err := n.syncOnce(ctx)
	n.mu.Lock()
	defer n.mu.Unlock()
	now = n.clock.Now()
	if err == nil {
		n.pub.failures = 0
		return earlier(next, now.Add(idle))
	}
	if ctx.Err() != nil {
		return now.Add(idle)
	}
	logger := logr.FromContextOrDiscard(ctx).WithValues("node", n.o.Name)
	if apierrors.IsConflict(err) && n.pub.failures == 0 {
		// Somebody wrote in between: decide again at once, on what is there now.
		n.pub.failures++
		logger.V(1).Info("Deciding again", "error", err.Error())
		return now
	}
	n.pub.retryAt = now.Add(backoff(n.pub.failures, err))
	n.pub.failures++
	logger.Error(err, "The API server was asked in vain", "retryIn", n.pub.retryAt.Sub(now).String())
	return n.pub.retryAt
}

// backoff doubles with each failure, with jitter, so that a fleet does not come back at once; the server's own word goes
// before ours.
func backoff(failures int, err error) time.Duration {
	d := min(minBackoff<<min(failures, 10), maxBackoff)
	d += time.Duration(rand.Int64N(int64(d)/2 + 1))
	if seconds, ok := apierrors.SuggestsClientDelay(err); ok {
		d = max(d, min(time.Duration(seconds)*time.Second, 4*maxBackoff))
	}
	return d
}

func (n *Node) syncOnce(ctx context.Context) (time.Time, error) {
	next, ready, err := n.known(ctx)
	if err != nil || !ready {
		return next, err
	}
	next, err = n.advance(ctx)
	if err != nil {
		return next, err
	}
	after, err := n.publish(ctx)
	return earlier(next, after), err
}

// known makes sure that there is a NodeHealth, and that it is of our Node. It reports false where nothing may be
// published, and when to look again.
func (n *Node) known(ctx context.Context) (next time.Time, ready bool, err error) {
	h, err := n.knownHealth(ctx)
	if err != nil {
		return next, false, err
	}
	now := n.clock.Now()
	if h == nil {
		n.block(ctx, BlockedNoNodeHealth, "The controller has not created this node's NodeHealth yet")
		return now.Add(absentRetry), false, nil
	}
	n.mu.Lock()
	ours, readAt := n.node.uid == h.Spec.NodeUID, n.node.readAt
	n.mu.Unlock()
	if !ours && now.Sub(readAt) >= nodeRetry {
		if err := n.readNode(ctx); err != nil {
			return next, false, err
		}
	}
	n.mu.Lock()
	ours = n.node.uid == h.Spec.NodeUID
	if ours && !n.act.inherited && n.health == h {
		n.inheritLocked()
	}
	ours = ours && n.act.inherited
	n.mu.Unlock()
	if !ours {
		n.block(ctx, BlockedOtherNode, "This NodeHealth is of another Node of the same name; nothing is published")
		return now.Add(nodeRetry), false, nil
	}
	n.block(ctx, "", "Publishing")
	n.renewFacts(ctx)
	return next, true, nil
}

// knownHealth is the NodeHealth, read if nobody has shown it to us for a while and none is known.
func (n *Node) knownHealth(ctx context.Context) (*v1alpha1.NodeHealth, error) {
	n.mu.Lock()
	h, askAt := n.health, n.askAt
	n.mu.Unlock()
	if h != nil || n.clock.Now().Before(askAt) {
		return h, nil
	}
	return n.refresh(ctx)
}

// block notes why nothing may be published, and says so once.
func (n *Node) block(ctx context.Context, reason, message string) {
	n.mu.Lock()
	old := n.pub.blocked
	n.pub.blocked = reason
	if reason != "" {
		n.pub.pending = time.Time{}
	}
	n.mu.Unlock()
	n.o.Metrics.blockedBy(old, reason)
	if old != reason {
		logr.FromContextOrDiscard(ctx).Info(message, "node", n.o.Name, "reason", reason)
	}
}

// refresh reads the NodeHealth anew; nil when there is none. What a live read says goes before what a watch has said,
// also when its version is lower: an API server that was restored from a backup counts from there.
func (n *Node) refresh(ctx context.Context) (*v1alpha1.NodeHealth, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	h, err := n.o.API.Health(ctx)
	if err != nil && !apierrors.IsNotFound(err) {
		return nil, err
	}
	if err != nil {
		h = nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.askAt = n.clock.Now().Add(absentRetry)
	n.replaceLocked(h)
	return n.health, nil
}

// readNode reads the Node: its UID, and the condition as it stands.
func (n *Node) readNode(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	node, err := n.o.API.Node(ctx)
	if err != nil {
		return err
	}
	n.knowNode(node)
	return nil
}

func (n *Node) knowNode(node *corev1.Node) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.node = nodeFacts{uid: string(node.UID), readAt: n.clock.Now(), labels: node.Labels, offered: node.Status.Allocatable}
	n.held.plugin = offersByPlugin(node.Status.Allocatable)
	for i := range node.Status.Conditions {
		if c := node.Status.Conditions[i]; c.Type == v1alpha1.ConditionHealthy {
			n.node.condition = &c
		}
	}
}

// inheritLocked takes over what an agent of this node has published before: in the same boot its faults stand until the
// checks have looked, its boots fill a journal that was lost, and its answer to the action goes on.
func (n *Node) inheritLocked() {
	n.act.inherited = true
	status := n.health.Status
	if status.BootID == n.boot.ID {
		for _, s := range n.slots {
			s.inherit(status, n.clock.Now())
		}
	}
	if len(n.journal.Boots) == 1 && len(status.Boots) > 0 {
		present := n.journal.Boots[0]
		n.journal.Boots = machine.RecordBoot(slices.Clone(status.Boots), present.ID, present.At.Time, present.Action)
	}
	n.act.answer = status.Action
	for _, id := range openIDs(n.health) {
		if e, ok := n.journal.find(id); ok && e.Result != "" {
			n.act.answer = e.answer()
		}
	}
}

// openIDs are the ids of the actions that the object speaks of and that are not over in it, the one asked for last.
func openIDs(h *v1alpha1.NodeHealth) []string {
	var ids []string
	status, spec := h.Status.Action, h.Spec.Action
	if status != nil && status.State != v1alpha1.ActionDone {
		ids = append(ids, status.ID)
	}
	if spec != nil && (status == nil || status.ID != spec.ID) {
		ids = append(ids, spec.ID)
	}
	return ids
}

// desiredLocked is the status as it should be published now. It is false while a check has not come to its first result,
// which its deadline bounds: after a boot, one write says that the action is done and what every check found. A new
// critical fault and an action that waits for us do not wait for that.
func (n *Node) desiredLocked(now time.Time, published v1alpha1.NodeHealthStatus) (v1alpha1.NodeHealthStatus, bool) {
	status := n.statusLocked(now, published, n.act.answer)
	primed := !slices.ContainsFunc(n.slots, func(s *slot) bool { return s.looked.IsZero() })
	return status, primed || isOpen(status.Action) || newCritical(published, status)
}

// statusLocked judges the status with this answer to the action, to follow what is published.
func (n *Node) statusLocked(now time.Time, published v1alpha1.NodeHealthStatus, answer *v1alpha1.ActionStatus) v1alpha1.NodeHealthStatus {
	v := view{
		version: n.o.Version, bootID: n.boot.ID, boots: n.journal.Boots, completed: n.completed, action: answer,
		supported: slices.Sorted(maps.Keys(n.o.Executors)), kubelet: n.wordLocked(),
	}
	if n.o.ResetDomains != nil {
		v.domains = n.o.ResetDomains()
	}
	for _, s := range n.slots {
		v.opinions = append(v.opinions, s.opinion(now))
	}
	// An agent that has just started does not take back the round that an earlier one completed.
	if r := published.CompletedRound; v.completed == nil && r != nil && (roundKey{r.BootID, r.AfterAction}) == n.roundLocked() {
		v.completed = r
	}
	return settled(published, judge(v))
}

// publish writes the status if it changed, and then the Node condition if that did.
func (n *Node) publish(ctx context.Context) (time.Time, error) {
	n.mu.Lock()
	now := n.clock.Now()
	base := n.health
	if base == nil {
		// Deleted since this step began.
		n.mu.Unlock()
		return now, nil
	}
	status, ready := n.desiredLocked(now, base.Status)
	n.wantLocked(status, now)
	if !ready {
		n.mu.Unlock()
		return now.Add(idle), nil
	}
	if significant(base.Status, status) {
		if n.pub.pending.IsZero() {
			n.pub.pending = now
		}
		if at, ok := n.mayWriteLocked(base.Status, status, now); !ok {
			n.mu.Unlock()
			return at, nil
		}
	} else {
		n.pub.pending = time.Time{}
	}
	pending := !n.pub.pending.IsZero()
	n.mu.Unlock()
	if pending {
		if err := n.put(ctx, base, status); err != nil {
			return time.Time{}, err
		}
	}
	return n.publishCondition(ctx, status)
}

// mayWriteLocked says whether a write may go now, and if not, when: at once after a pause, else once a gap. What is
// urgent goes at once too, but not without end.
func (n *Node) mayWriteLocked(old, status v1alpha1.NodeHealthStatus, now time.Time) (time.Time, bool) {
	at := n.pub.lastWrite.Add(n.o.WriteGap)
	if !now.Before(at) {
		return at, true
	}
	return at, urgent(old, status) && n.pub.urgent.AllowN(now, 1)
}

// put writes a status over exactly the object that it was judged on.
func (n *Node) put(ctx context.Context, base *v1alpha1.NodeHealth, status v1alpha1.NodeHealthStatus) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	out, err := n.o.API.PutStatus(ctx, &v1alpha1.NodeHealth{ObjectMeta: base.ObjectMeta, Spec: base.Spec, Status: status})
	n.o.Metrics.wrote("nodehealths/status", err)
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		if _, e := n.refresh(ctx); e != nil {
			return fmt.Errorf("%w; then: %w", err, e)
		}
		return err
	}
	if err != nil {
		return err
	}
	n.mu.Lock()
	n.adoptLocked(out)
	n.pub.lastWrite = n.clock.Now()
	n.pub.pending = time.Time{}
	n.mu.Unlock()
	n.keptHolders(ctx, status, out.Status)
	n.o.Metrics.stands(status.Faults)
	return nil
}

// publishCondition writes the Node condition when its status or reason changed, at most once a gap. One that turns False
// goes at once: the reboot that the fault earns may come before the gap is over, and nobody would have been told on the
// Node what it was for.
func (n *Node) publishCondition(ctx context.Context, status v1alpha1.NodeHealthStatus) (time.Time, error) {
	n.mu.Lock()
	now := n.clock.Now()
	uid := n.node.uid
	c, changed := condition(status, n.node.condition, now)
	at := n.pub.lastCondition.Add(n.o.WriteGap)
	failed := c.Status == corev1.ConditionFalse && (n.node.condition == nil || n.node.condition.Status != c.Status)
	may := !now.Before(at) || changed && failed && n.pub.urgent.AllowN(now, 1)
	n.mu.Unlock()
	if !changed {
		return now.Add(idle), nil
	}
	if !may {
		return at, nil
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	err := n.o.API.PatchCondition(ctx, uid, c)
	n.o.Metrics.wrote("nodes/status", err)
	if err != nil {
		// It may have been written, and the Node may be another one by now: read it before the next attempt.
		n.mu.Lock()
		n.node = nodeFacts{}
		n.mu.Unlock()
		return time.Time{}, err
	}
	n.mu.Lock()
	n.node.condition, n.pub.lastCondition = &c, n.clock.Now()
	n.mu.Unlock()
	return now.Add(idle), nil
}
