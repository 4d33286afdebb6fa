package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/deviceid"
	"github.com/roundhouse-dev/roundhouse/internal/health"
	"github.com/roundhouse-dev/roundhouse/internal/podresources"
)

const (
	// holdersEvery is how often the kubelet is asked who holds a bad device, holdersRetry how soon after it gave no answer.
	holdersEvery = 30 * time.Second
	holdersRetry = 10 * time.Second
	// holdersTimeout bounds one question, whoever carries it out.
	holdersTimeout = podresources.DefaultTimeout + time.Second
	// holdersFresh is for how long the same answer is not published again.
	holdersFresh = 5 * time.Minute
	// MaxHolders is the bound of status.holders.
	MaxHolders = 64
	// maxUntold is how many containers are named of which it cannot be told what they hold.
	maxUntold = 2
)

// What status.holdersUnknown says before there is an answer, and where there will be none.
const (
	holdersNotAsked = "the kubelet has not been asked yet"
	holdersNobody   = "this agent does not ask the kubelet: it was started without -pod-resources"
)

// holding is what is known of who holds what. It is asked for while a device is bad and the node has a device plugin: a
// node whose devices are well starts no process and writes nothing because pods come and go.
type holding struct {
	// plugin says that the Node offers something by device plugin that may be accelerators.
	plugin bool
	// pruned says that the API server keeps nothing of it: its CRD is older than this agent.
	pruned bool
	// want are the devices that are bad; due is when to ask next.
	want []string
	due  time.Time
	// said is the last answer.
	said word
	// wake ends the pause between two questions.
	wake chan struct{}
}

// word is what the kubelet said, or why it said nothing.
type word struct {
	list []podresources.Holding
	err  error
	// at is when it was asked; zero where it was not.
	at time.Time
	// parts are MIG devices by UUID, and the UUID of the GPU that each is a part of.
	parts map[string]string
}

// wantLocked notes which devices are bad now, and asks at once where one is new.
func (n *Node) wantLocked(status v1alpha1.NodeHealthStatus, now time.Time) {
	h := &n.held
	bad := badDevices(status)
	if len(bad) > 0 {
		n.askLocked(offeredAge) // a device plugin may have come since.
	}
	if !h.plugin || h.pruned || n.o.Holdings == nil {
		bad = nil
	}
	if len(bad) == 0 || len(h.want) == 0 {
		h.said = word{} // what was said of an earlier fault is no word of this one.
	}
	if !subset(bad, h.want) {
		h.due = now
		select {
		case h.wake <- struct{}{}:
		default:
		}
	}
	h.want = bad
}

// wordLocked is what is published from; nil where there is no device plugin, and so nothing to ask.
func (n *Node) wordLocked() *word {
	switch {
	case !n.held.plugin || n.held.pruned:
		return nil
	case n.o.Holdings == nil:
		return &word{err: errNoLister}
	}
	w := n.held.said
	return &w
}

// keptHolders notes when the API server has kept nothing of what was written about holders. To write it again and again would
// change nothing: Helm leaves the CRDs of an earlier release as they are, and so the agent may be newer than they are.
func (n *Node) keptHolders(ctx context.Context, sent, kept v1alpha1.NodeHealthStatus) {
	told := func(s v1alpha1.NodeHealthStatus) bool { return s.HoldersAt != nil || s.HoldersUnknown != "" }
	if !told(sent) || told(kept) {
		return
	}
	n.mu.Lock()
	n.held.pruned = true
	n.mu.Unlock()
	logr.FromContextOrDiscard(ctx).Info("The API server does not keep who holds the bad devices: install the CRDs of this release", "node", n.o.Name)
}

// errNoLister is why an agent that cannot ask says nothing.
var errNoLister = errors.New(holdersNobody)

// offersByPlugin says whether a Node has a resource of a device plugin that may be of accelerators. One that is offered no
// more stays listed, with nothing to give.
func offersByPlugin(allocatable corev1.ResourceList) bool {
	for name := range allocatable {
		if deviceid.MayBeAccelerator(string(name)) {
			return true
		}
	}
	return false
}

// holdersDue says when the kubelet is asked next; false where it need not be.
func (n *Node) holdersDue() (time.Time, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.held.due, len(n.held.want) > 0
}

// askHolders asks once.
func (n *Node) askHolders(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, holdersTimeout)
	defer cancel()
	n.mu.Lock()
	boot := n.boot.ID
	n.mu.Unlock()
	w := word{at: n.clock.Now()}
	w.list, w.err = n.o.Holdings.Holdings(ctx)
	if n.o.Parts != nil {
		w.parts = n.o.Parts()
	}
	n.mu.Lock()
	if n.boot.ID == boot && len(n.held.want) > 0 {
		n.held.said = w
	}
	n.held.due = n.clock.Now().Add(holdersEvery)
	if w.err != nil {
		n.held.due = n.clock.Now().Add(holdersRetry)
	}
	n.mu.Unlock()
	n.nudge()
	if w.err != nil {
		logr.FromContextOrDiscard(ctx).V(1).Info("The kubelet could not be asked who holds the bad devices", "node", n.o.Name, "error", w.err.Error())
	}
}

// holdersLoop asks whenever it is due, until the context ends. It is apart from what writes: a kubelet that hangs holds up
// no fault.
func (n *Node) holdersLoop(ctx context.Context) {
	for ctx.Err() == nil {
		due, wanted := n.holdersDue()
		left := idle
		if wanted {
			left = due.Sub(n.clock.Now())
		}
		if wanted && left <= 0 {
			n.askHolders(ctx)
			continue
		}
		timer := n.clock.NewTimer(left)
		select {
		case <-timer.C():
		case <-n.held.wake:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// badDevices are the devices with a fault that matters, each once.
func badDevices(s v1alpha1.NodeHealthStatus) []string {
	var ids []string
	for i := range s.Faults {
		if f := &s.Faults[i]; f.Device != "" && health.Matters(*f) && !slices.Contains(ids, f.Device) {
			ids = append(ids, f.Device)
		}
	}
	return ids
}

func subset(some, of []string) bool {
	return !slices.ContainsFunc(some, func(id string) bool { return !slices.Contains(of, id) })
}

// withHolders adds who holds the bad devices, by the kubelet's word, and says what that leaves open.
func withHolders(s v1alpha1.NodeHealthStatus, w *word) v1alpha1.NodeHealthStatus {
	bad := badDevices(s)
	if w == nil || len(bad) == 0 {
		return s
	}
	switch {
	case w.err != nil:
		s.HoldersUnknown = health.Bound(w.err.Error(), health.MaxMessage)
		return s
	case w.at.IsZero():
		s.HoldersUnknown = holdersNotAsked
		return s
	}
	at := seconds(w.at)
	s.HoldersAt = &at
	var untold []podresources.Holding
	s.Holders, untold = holdersOf(bad, deviceid.NewNames(s.Devices, w.parts), w.list)
	s.HoldersUnknown = health.Bound(untoldText(untold), health.MaxMessage)
	if more := len(s.Holders) - MaxHolders; more > 0 {
		s.Holders = s.Holders[:MaxHolders]
		s.HoldersUnknown = fmt.Sprintf("%d more containers hold bad devices than can be listed", more)
	}
	return s
}

// holdersOf sorts out who holds bad devices, and of whom that cannot be told.
func holdersOf(bad []string, names deviceid.Names, list []podresources.Holding) (holders []v1alpha1.Holder, untold []podresources.Holding) {
	for _, h := range list {
		device, answer := names.Find(h.Resource, h.ID)
		switch {
		case answer == deviceid.Untold:
			untold = append(untold, h)
		case answer == deviceid.Found && slices.Contains(bad, device):
			holders = append(holders, v1alpha1.Holder{Device: device, Namespace: h.Namespace, Pod: h.Pod, Container: h.Container})
		}
	}
	slices.SortFunc(holders, func(a, b v1alpha1.Holder) int {
		return cmp.Or(cmp.Compare(a.Device, b.Device), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Pod, b.Pod),
			cmp.Compare(a.Container, b.Container))
	})
	slices.SortFunc(untold, func(a, b podresources.Holding) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Pod, b.Pod), cmp.Compare(a.Container, b.Container),
			cmp.Compare(a.Resource, b.Resource), cmp.Compare(a.ID, b.ID))
	})
	return slices.Compact(holders), untold
}

// untoldText names the first of those of whom it cannot be told what they hold.
func untoldText(untold []podresources.Holding) string {
	text := ""
	for i, h := range untold {
		if i == maxUntold {
			return text + fmt.Sprintf(", and %d more", len(untold)-maxUntold)
		}
		if i > 0 {
			text += ", "
		} else {
			text = "which device is meant cannot be told: "
		}
		text += fmt.Sprintf("%q of %s, held by %s/%s", h.ID, h.Resource, h.Namespace, h.Pod)
	}
	return text
}

// settledHolders is next with the answer that is published already where it says the same and is not old, or where a new
// process has not asked yet.
func settledHolders(published, next v1alpha1.NodeHealthStatus) v1alpha1.NodeHealthStatus {
	if published.HoldersAt == nil || published.BootID != next.BootID {
		return next
	}
	same := next.HoldersAt != nil && next.HoldersUnknown == published.HoldersUnknown && slices.Equal(next.Holders, published.Holders) &&
		next.HoldersAt.Sub(published.HoldersAt.Time).Abs() < holdersFresh
	inherited := next.HoldersUnknown == holdersNotAsked && subset(badDevices(next), badDevices(published))
	if same || inherited {
		next.Holders, next.HoldersUnknown, next.HoldersAt = published.Holders, published.HoldersUnknown, published.HoldersAt
	}
	return next
}
