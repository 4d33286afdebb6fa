package agent

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

// snapshot is all that it takes to decide whether an action may begin. Everything in it was read after the action was
// seen: nothing comes from a cache.
type snapshot struct {
	now    time.Time
	live   *v1alpha1.NodeHealth
	action v1alpha1.Action
	bootID string
	node   *corev1.Node // nil when it could not be read: nodeErr
	holds  []v1alpha1.RemediationHold

	nodeErr, holdsErr, journalErr error

	journal   journal
	fence     int64 // the highest seen of this object
	supported []v1alpha1.ActionType
	limit     int
	// begun says that this process wrote Started for the action itself, and so knows that the act has not begun.
	begun bool
}

// step is what a verdict says to do.
type step string

const (
	stepStart step = "Start"
	stepWait  step = "Wait"
	stepEnd   step = "End"
)

// verdict is what to do about an action, and why.
type verdict struct {
	step    step
	result  v1alpha1.ActionResult
	reason  string
	message string
}

func refuse(reason, format string, args ...any) *verdict {
	return &verdict{step: stepEnd, result: v1alpha1.ResultRefused, reason: reason, message: fmt.Sprintf(format, args...)}
}

func waitFor(reason string, err error) *verdict {
	return &verdict{step: stepWait, reason: reason, message: err.Error()}
}

// rules are asked in order, and the first that answers decides. What was done goes before what may be done; what cannot
// change goes before what can; and what cannot be known keeps an act from beginning.
var rules = []func(snapshot) *verdict{
	isOver, isUnsupported, isOtherBoot, isOtherNode, isStale, isExpired, hasNoJournal, isLost, isSpent, isBlind, isHeld,
}

// decide says what to do about an action. An action that a former process of the agent may have begun is never called
// Refused, which means that nothing was done.
func decide(s snapshot) verdict {
	for _, rule := range rules {
		v := rule(s)
		if v == nil {
			continue
		}
		if v.result == v1alpha1.ResultRefused && s.mayHaveBegun() {
			v.result = v1alpha1.ResultInterrupted
			v.message = "begun before the agent restarted, and not begun again: " + v.message
		}
		return *v
	}
	return verdict{step: stepStart}
}

// mayHaveBegun says whether the act may have begun, by what is written and by whom.
func (s snapshot) mayHaveBegun() bool {
	a := s.live.Status.Action
	return !s.begun && a != nil && a.ID == s.action.ID && a.State == v1alpha1.ActionStarted
}

func isOver(s snapshot) *verdict {
	if e, ok := s.journal.find(s.action.ID); ok && e.Result != "" {
		return &verdict{step: stepEnd, result: e.Result, reason: e.Reason, message: e.Message}
	}
	return nil
}

func isUnsupported(s snapshot) *verdict {
	if slices.Contains(s.supported, s.action.Type) {
		return nil
	}
	return &verdict{
		step: stepEnd, result: v1alpha1.ResultUnsupported, reason: v1alpha1.ActionReasonUnsupportedType,
		message: fmt.Sprintf("%s is not among the actions that this agent supports: %v", s.action.Type, s.supported),
	}
}

// isOtherBoot: a reboot that was begun and is followed by another boot has been done, even if the host has lost its
// journal since.
func isOtherBoot(s snapshot) *verdict {
	if s.bootID == s.action.BootID {
		return nil
	}
	if s.mayHaveBegun() && s.action.Type == v1alpha1.ActionReboot {
		return &verdict{
			step: stepEnd, result: v1alpha1.ResultSucceeded, reason: v1alpha1.ActionReasonRebooted,
			message: "boot " + s.bootID + " follows boot " + s.action.BootID,
		}
	}
	return refuse(v1alpha1.ActionReasonOtherBoot, "decided on boot %s; this is boot %s", s.action.BootID, s.bootID)
}

func isOtherNode(s snapshot) *verdict {
	if s.node == nil || string(s.node.UID) == s.live.Spec.NodeUID {
		return nil
	}
	return refuse(v1alpha1.ActionReasonOtherNode, "decided on Node UID %s; the Node has UID %s", s.live.Spec.NodeUID, s.node.UID)
}

func isStale(s snapshot) *verdict {
	if s.live.Spec.Fence >= s.fence {
		return nil
	}
	return refuse(v1alpha1.ActionReasonStaleFence, "fence is %d; %d was seen before", s.live.Spec.Fence, s.fence)
}

func isExpired(s snapshot) *verdict {
	if s.now.Before(s.action.NotAfter.Time) {
		return nil
	}
	return refuse(v1alpha1.ActionReasonExpired, "to be begun before %s", s.action.NotAfter.UTC().Format(time.RFC3339))
}

func hasNoJournal(s snapshot) *verdict {
	if s.journalErr == nil {
		return nil
	}
	return refuse(v1alpha1.ActionReasonJournalUnavailable, "%v", s.journalErr)
}

// isLost: what may have begun is begun again only where that is harmless. A reboot is, in the same boot and with its own
// entry in the journal; without the entry the host has forgotten something, and so nothing more is done.
func isLost(s snapshot) *verdict {
	if !s.mayHaveBegun() {
		return nil
	}
	if _, ok := s.journal.find(s.action.ID); ok && s.action.Type == v1alpha1.ActionReboot {
		return nil
	}
	return &verdict{
		step: stepEnd, result: v1alpha1.ResultInterrupted, reason: v1alpha1.ActionReasonAgentRestarted,
		message: "the agent restarted after the act began and cannot know how far it came",
	}
}

func isSpent(s snapshot) *verdict {
	if _, counted := s.journal.find(s.action.ID); counted {
		return nil
	}
	spent := s.journal.spent(s.now)
	if spent < s.limit {
		return nil
	}
	return refuse(v1alpha1.ActionReasonLocalLimit,
		"%d disruptive acts in the last 24 hours; this host allows %d", spent, max(s.limit, 0))
}

// isBlind: what cannot be read may be a hold. The action stays accepted and is asked about again until it lapses.
func isBlind(s snapshot) *verdict {
	if s.nodeErr != nil {
		return waitFor(v1alpha1.ActionReasonCannotReadNode, s.nodeErr)
	}
	if s.holdsErr != nil {
		return waitFor(v1alpha1.ActionReasonCannotReadHolds, s.holdsErr)
	}
	return nil
}

func isHeld(s snapshot) *verdict {
	for i := range s.holds {
		h := &s.holds[i]
		if holds(h, s.node.Name, s.node.Labels, s.now) {
			return refuse(v1alpha1.ActionReasonHeld, "hold %s by %s: %s", h.Name, h.Spec.RequestedBy, h.Spec.Reason)
		}
	}
	return nil
}

// holds says whether a hold keeps disruption from a node now; both kinds of hold do. A selector that cannot be read holds:
// somebody meant to stop something.
func holds(h *v1alpha1.RemediationHold, node string, nodeLabels map[string]string, now time.Time) bool {
	if h.Spec.Until != nil && !now.Before(h.Spec.Until.Time) {
		return false
	}
	if slices.Contains(h.Spec.Nodes, node) {
		return true
	}
	if h.Spec.NodeSelector == nil {
		return false
	}
	selector, err := metav1.LabelSelectorAsSelector(h.Spec.NodeSelector)
	return err != nil || selector.Matches(labels.Set(nodeLabels))
}
