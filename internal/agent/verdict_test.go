package agent

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

// willing is a snapshot in which nothing speaks against the action.
func willing() snapshot {
	action := v1alpha1.Action{
		ID: "a-1", Type: v1alpha1.ActionReboot, BootID: bootID, NotAfter: metav1.NewTime(began.Add(time.Hour)),
	}
	return snapshot{
		now:    began,
		action: action,
		bootID: bootID,
		live: &v1alpha1.NodeHealth{
			ObjectMeta: metav1.ObjectMeta{Name: "gpu-1", UID: "nh-1"},
			Spec:       v1alpha1.NodeHealthSpec{NodeUID: "uid-1", Fence: 7, Action: &action},
		},
		node:      &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "gpu-1", UID: "uid-1"}},
		supported: []v1alpha1.ActionType{v1alpha1.ActionReboot},
		fence:     7,
		limit:     4,
	}
}

// objections are what can speak against an action, in the order in which they are named. Each breaks a willing snapshot.
var objections = []struct {
	name  string
	spoil func(*snapshot)
	want  verdict
}{
	{"the journal says that it is over", func(s *snapshot) {
		s.journal.Acts = []entry{{ID: "a-1", Result: v1alpha1.ResultFailed, Reason: "X"}}
	}, verdict{step: stepEnd, result: v1alpha1.ResultFailed, reason: "X"}},
	{"nobody here can do it", func(s *snapshot) { s.supported = nil },
		verdict{step: stepEnd, result: v1alpha1.ResultUnsupported, reason: v1alpha1.ActionReasonUnsupportedType}},
	{"another boot", func(s *snapshot) { s.bootID = "other" },
		verdict{step: stepEnd, result: v1alpha1.ResultRefused, reason: v1alpha1.ActionReasonOtherBoot}},
	{"another Node", func(s *snapshot) { s.live.Spec.NodeUID = "uid-0" },
		verdict{step: stepEnd, result: v1alpha1.ResultRefused, reason: v1alpha1.ActionReasonOtherNode}},
	{"a lower fence than was seen", func(s *snapshot) { s.fence = 8 },
		verdict{step: stepEnd, result: v1alpha1.ResultRefused, reason: v1alpha1.ActionReasonStaleFence}},
	{"the deadline is now", func(s *snapshot) { s.action.NotAfter = metav1.NewTime(began) },
		verdict{step: stepEnd, result: v1alpha1.ResultRefused, reason: v1alpha1.ActionReasonExpired}},
	{"no journal", func(s *snapshot) { s.journalErr = errors.New("disk") },
		verdict{step: stepEnd, result: v1alpha1.ResultRefused, reason: v1alpha1.ActionReasonJournalUnavailable}},
	{"the limit is spent", func(s *snapshot) { s.limit = 0 },
		verdict{step: stepEnd, result: v1alpha1.ResultRefused, reason: v1alpha1.ActionReasonLocalLimit}},
	{"the holds cannot be read", func(s *snapshot) { s.holdsErr = errors.New("etcd") },
		verdict{step: stepWait, reason: v1alpha1.ActionReasonCannotReadHolds}},
	{"a hold", func(s *snapshot) {
		s.holds = []v1alpha1.RemediationHold{{Spec: v1alpha1.RemediationHoldSpec{Nodes: []string{"gpu-1"}}}}
	}, verdict{step: stepEnd, result: v1alpha1.ResultRefused, reason: v1alpha1.ActionReasonHeld}},
}

var withoutMessage = cmp.FilterPath(func(p cmp.Path) bool { return p.Last().String() == ".message" }, cmp.Ignore())

func TestDecideStartsWhatNothingSpeaksAgainst(t *testing.T) {
	if got := decide(willing()); got.step != stepStart {
		t.Errorf("got %+v", got)
	}
}

func TestDecideNamesTheFirstObjection(t *testing.T) {
	for i, first := range objections {
		t.Run(first.name, func(t *testing.T) {
			// Alone, and together with every later one.
			for j := i; j < len(objections); j++ {
				s := willing()
				first.spoil(&s)
				objections[j].spoil(&s)
				if diff := cmp.Diff(first.want, decide(s), cmp.AllowUnexported(verdict{}), withoutMessage); diff != "" {
					t.Errorf("with %q (-want +got):\n%s", objections[j].name, diff)
				}
			}
		})
	}
}

// mayHaveBegun makes a snapshot of an agent that finds Started written by a former process.
func mayHaveBegun() snapshot {
	s := willing()
	s.live.Status.Action = &v1alpha1.ActionStatus{ID: "a-1", State: v1alpha1.ActionStarted}
	s.journal.Acts = []entry{{ID: "a-1", Type: v1alpha1.ActionReboot, BootID: bootID}}
	return s
}

func TestDecideAfterARestart(t *testing.T) {
	tests := map[string]struct {
		change func(*snapshot)
		want   verdict
	}{
		"a reboot in the same boot is asked for again": {func(*snapshot) {}, verdict{step: stepStart}},
		"a reboot is not counted twice against the limit": {func(s *snapshot) {
			s.limit, s.journal.Spent = 1, []metav1.Time{metav1.NewTime(began)}
		}, verdict{step: stepStart}},
		"a reboot in another boot has been done, with a journal or without": {func(s *snapshot) {
			s.bootID, s.journal = "next", journal{}
		}, verdict{step: stepEnd, result: v1alpha1.ResultSucceeded, reason: v1alpha1.ActionReasonRebooted}},
		"a reboot whose journal is lost is not asked for again": {func(s *snapshot) { s.journal = journal{} },
			verdict{step: stepEnd, result: v1alpha1.ResultInterrupted, reason: v1alpha1.ActionReasonAgentRestarted}},
		"a reset is never repeated": {func(s *snapshot) {
			s.action.Type, s.supported = v1alpha1.ActionResetDevice, []v1alpha1.ActionType{v1alpha1.ActionResetDevice}
		}, verdict{step: stepEnd, result: v1alpha1.ResultInterrupted, reason: v1alpha1.ActionReasonAgentRestarted}},
		"a reset in another boot is not called done": {func(s *snapshot) {
			s.action.Type, s.supported = v1alpha1.ActionResetDevice, []v1alpha1.ActionType{v1alpha1.ActionResetDevice}
			s.bootID = "next"
		}, verdict{step: stepEnd, result: v1alpha1.ResultInterrupted, reason: v1alpha1.ActionReasonOtherBoot}},
		"what is held now is not said never to have begun": {func(s *snapshot) {
			s.holds = []v1alpha1.RemediationHold{{Spec: v1alpha1.RemediationHoldSpec{Nodes: []string{"gpu-1"}}}}
		}, verdict{step: stepEnd, result: v1alpha1.ResultInterrupted, reason: v1alpha1.ActionReasonHeld}},
		"the process that wrote Started itself knows that nothing was done": {func(s *snapshot) {
			s.begun = true
			s.action.NotAfter = metav1.NewTime(began)
		}, verdict{step: stepEnd, result: v1alpha1.ResultRefused, reason: v1alpha1.ActionReasonExpired}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := mayHaveBegun()
			tt.change(&s)
			if diff := cmp.Diff(tt.want, decide(s), cmp.AllowUnexported(verdict{}), withoutMessage); diff != "" {
				t.Errorf("verdict (-want +got):\n%s", diff)
			}
		})
	}
}
