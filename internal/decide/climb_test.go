package decide

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

// recited is a climb as a reader would say it.
func recited(c Climb) string {
	var out []string
	for _, a := range c.Rungs {
		said := a.Name + " " + string(a.Scope)
		switch {
		case a.Next:
			said += " next"
		case a.Why != "":
			said += ": " + a.Why
		}
		out = append(out, said)
	}
	return strings.Join(out, "\n")
}

func TestALadderIsRecitedAsItWouldBeClimbed(t *testing.T) {
	tried := func(w *world, rung string, index int32, result v1alpha1.AttemptResult) {
		w.rem.Status.Attempts = append(w.rem.Status.Attempts, v1alpha1.Attempt{Rung: rung, Index: index, At: metav1.NewTime(w.now), Result: result, Devices: []string{bad}})
	}
	for name, tc := range map[string]struct {
		change func(*world)
		want   []string
	}{
		"from the gentlest rung": {func(w *world) { w.recommend(v1alpha1.RecommendNone) },
			[]string{"restart-driver Nothing next", "reset-device Device", "reboot Node", "power-cycle Node", "send-back Nothing"}},
		"from what the fault recommends": {func(*world) {},
			[]string{"restart-driver Nothing: it is gentler than what the fault recommends", "reset-device Device next", "reboot Node", "power-cycle Node", "send-back Nothing"}},
		"past what the agent cannot do": {func(w *world) { w.health.Status.SupportedActions = nil },
			[]string{"restart-driver Nothing: it is gentler than what the fault recommends", "reset-device Device: the agent does not support it",
				"reboot Node: the agent does not support it", "power-cycle Node next", "send-back Nothing"}},
		"past what did not repair": {func(w *world) { tried(w, "reset-device", 1, v1alpha1.AttemptNotRepaired) },
			[]string{"restart-driver Nothing: the ladder has been climbed past it", "reset-device Device: tried 1 of 1 times", "reboot Node next", "power-cycle Node", "send-back Nothing"}},
		"past what did not last": {func(w *world) { tried(w, "reboot", 2, v1alpha1.AttemptRelapsed) },
			[]string{"restart-driver Nothing: the ladder has been climbed past it", "reset-device Device: the ladder has been climbed past it",
				"reboot Node: the ladder has been climbed past it", "power-cycle Node next", "send-back Nothing"}},
		"to the human": {func(w *world) { tried(w, "power-cycle", 3, v1alpha1.AttemptRelapsed) },
			[]string{"restart-driver Nothing: the ladder has been climbed past it", "reset-device Device: the ladder has been climbed past it",
				"reboot Node: the ladder has been climbed past it", "power-cycle Node: the ladder has been climbed past it", "send-back Nothing next"}},
		"where a rung is not defined": {func(w *world) { w.policy.Spec.Rules[1].Ladder = []string{"mend", "reboot"} },
			[]string{"mend Nothing: the policy has no rung of this name", "reboot Node next"}},
		"to no rung": {func(w *world) {
			for range maxAttempts {
				tried(w, "reboot", 2, v1alpha1.AttemptWithdrawn)
			}
		}, []string{"restart-driver Nothing: it is gentler than what the fault recommends", "reset-device Device: the incident has had all its 24 attempts",
			"reboot Node: the incident has had all its 24 attempts", "power-cycle Node: the incident has had all its 24 attempts", "send-back Nothing"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.ladderOf("restart-driver", "reset-device", "reboot", "power-cycle", "send-back")
			w.fault("Xid48", bad)
			w.recommend(v1alpha1.RecommendResetDevice)
			w.run()
			w.rem.Status.Attempts = nil
			tc.change(w)
			s := w.snapshot()
			c := Ladder(s)
			if diff := cmp.Diff(strings.Join(tc.want, "\n"), recited(c)); diff != "" {
				t.Error(diff)
			}
			if c.Rule == nil || c.Rule.Name != w.policy.Spec.Rules[1].Name || c.Lead.Device != bad {
				t.Errorf("rule %+v, fault %+v", c.Rule, c.Lead)
			}
		})
	}
}

func TestALadderSaysWhatNextWouldSayAboutTheLimit(t *testing.T) {
	w := newWorld(t)
	w.fault("Xid79", bad)
	w.run()
	if c := Ladder(w.snapshot()); c.Limit != "" {
		t.Errorf("limit %q without a repair", c.Limit)
	}
	w.policy.Spec.Loop = &v1alpha1.Loop{MaxBoots: ptr.To(int32(1))}
	w.health.Status.Boots = []v1alpha1.Boot{{ID: "b0", At: metav1.NewTime(w.now)}}
	s := w.snapshot()
	want := askHuman(s)
	if got := Ladder(s).Limit; want == nil || want.Reason != ReasonBootLimit || got != want.Message {
		t.Errorf("%q, while the decision is %+v", got, want)
	}
}

func TestWithoutARuleThereIsNoLadder(t *testing.T) {
	w := newWorld(t)
	w.fault("Xid79", bad)
	w.run()
	s := w.snapshot()
	s.Faults, s.Policy = nil, Governing{}
	if c := Ladder(s); c.Rule != nil || len(c.Rungs) > 0 {
		t.Errorf("%+v", c)
	}
}
