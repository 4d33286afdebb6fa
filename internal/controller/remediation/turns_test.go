package remediation

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/lru"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/decide"
	"github.com/roundhouse-dev/roundhouse/internal/drain"
	"github.com/roundhouse-dev/roundhouse/internal/evict"
)

func moves(names ...string) []drain.Move {
	var out []drain.Move
	for _, name := range names {
		out = append(out, drain.Move{Pod: corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ml", Name: name, UID: types.UID(name)}}})
	}
	return out
}

// Many pods that are refused come first in order of cost; those behind them must have their turn all the same.
func TestPodsThatWereRefusedDoNotKeepOthersFromGoing(t *testing.T) {
	r := &Reconciler{refusals: lru.New(100)}
	now := time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)
	for i, until := range []time.Duration{time.Second, 2 * time.Second} {
		name := types.UID(fmt.Sprint("refused-", i))
		r.refusals.Add(refusalOf{name, v1alpha1.DrainByEvict}, refusal{out: evict.Outcome{Kind: evict.Blocked, Message: "no"}, until: now.Add(until)})
	}
	tests := map[string]struct {
		by   v1alpha1.DrainBy
		at   time.Duration
		want []string
	}{
		"they come last, and are not asked again":         {v1alpha1.DrainByEvict, 0, []string{"a", "b", "refused-0 told", "refused-1 told"}},
		"until they may be":                               {v1alpha1.DrainByEvict, time.Second, []string{"refused-0", "a", "b", "refused-1 told"}},
		"all of them in their order after a while":        {v1alpha1.DrainByEvict, time.Minute, []string{"refused-0", "a", "refused-1", "b"}},
		"at once where the drain has come to other means": {v1alpha1.DrainByDelete, 0, []string{"refused-0", "a", "refused-1", "b"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			d := &decide.Decision{Evict: moves("refused-0", "a", "refused-1", "b"), Means: drain.Means{By: tt.by}}
			var got []string
			for _, m := range r.turns(d, now.Add(tt.at)) {
				name := m.Pod.Name
				if m.told != nil {
					name += " told"
				}
				got = append(got, name)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("turns (-want +got):\n%s", diff)
			}
		})
	}
}

func TestARefusalThatLastsIsNamedFirst(t *testing.T) {
	passing := evict.Outcome{Kind: evict.Blocked, Message: "not now", RetryAfter: 7 * time.Second}
	stuck := evict.Outcome{Kind: evict.Blocked, Message: "not now", Stuck: "budget b never allows it", RetryAfter: 10 * time.Second}
	const later = "; from 11:00 on they are deleted"
	type said struct {
		Reason, Message, WouldChange string
		Requeue                      time.Duration
		Blockers                     int
	}
	poll := 300 * time.Millisecond
	tests := map[string]struct {
		refusals []evict.Outcome
		left     int32
		next     string
		want     said
	}{
		"none":                       {nil, 2, "", said{decide.ReasonEvicting, "moving", decide.PodsEnd, poll, 0}},
		"one that may pass":          {[]evict.Outcome{passing}, 1, "", said{decide.ReasonEvictionBlocked, "ml/p0: not now", "the budget allows it, or a human changes it", 7 * time.Second, 1}},
		"one that lasts goes first":  {[]evict.Outcome{passing, stuck}, 2, "", said{decide.ReasonEvictionStuck, "ml/p1: budget b never allows it", "a human changes the budget, or stops the pod", 7 * time.Second, 2}},
		"while others go, it looks":  {[]evict.Outcome{stuck}, 2, "", said{decide.ReasonEvictionStuck, "ml/p0: budget b never allows it", "a human changes the budget, or stops the pod", poll, 1}},
		"while a step is to come":    {[]evict.Outcome{stuck}, 1, later, said{decide.ReasonEvictionStuck, "ml/p0: budget b never allows it", "a human changes the budget, or stops the pod" + later, poll, 1}},
		"a crowd is named as far as": {make([]evict.Outcome, 40), 40, "", said{decide.ReasonEvictionBlocked, "ml/p0: ", "the budget allows it, or a human changes it", evict.DefaultRetryAfter, drain.MaxBlockers}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			d := &decide.Decision{Reason: decide.ReasonEvicting, Message: "moving", WouldChange: decide.PodsEnd + tt.next, Requeue: poll,
				Drain: &v1alpha1.DrainStatus{PodsLeft: tt.left}}
			var named []v1alpha1.Blocker
			for i, out := range tt.refusals {
				named = append(named, blocker(&moves(fmt.Sprint("p", i))[0].Pod, out))
			}
			refused(d, &v1alpha1.RemediationStatus{}, began, tt.refusals, named)
			got := said{d.Reason, d.Message, d.WouldChange, d.Requeue, len(d.Drain.Blockers)}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("says (-want +got):\n%s", diff)
			}
		})
	}
}

// The clock is the loop's, not the machine's.
func TestARefusalIsAskedAgainByTheDrainsDeadline(t *testing.T) {
	for name, tt := range map[string]struct{ deadline, want time.Duration }{
		"which is far":  {time.Hour, 7 * time.Second},
		"which is near": {3 * time.Second, 3 * time.Second},
		"which is over": {-time.Second, time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			until := metav1.NewTime(began.Add(tt.deadline))
			out := evict.Outcome{Kind: evict.Blocked, Message: "not now", RetryAfter: 7 * time.Second}
			d := &decide.Decision{WouldChange: decide.PodsEnd, Drain: &v1alpha1.DrainStatus{PodsLeft: 1}}
			refused(d, &v1alpha1.RemediationStatus{Deadline: &until}, began, []evict.Outcome{out}, []v1alpha1.Blocker{blocker(&moves("p")[0].Pod, out)})
			if d.Requeue != tt.want {
				t.Errorf("asked again in %s, want %s", d.Requeue, tt.want)
			}
		})
	}
}
