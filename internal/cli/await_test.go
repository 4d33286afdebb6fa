package cli

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/decide"
	"github.com/roundhouse-dev/roundhouse/internal/maintenance"
)

func rem(name string, phase v1alpha1.Phase, reason string, created time.Duration) v1alpha1.Remediation {
	return v1alpha1.Remediation{ObjectMeta: metav1.ObjectMeta{Name: name, CreationTimestamp: metav1.NewTime(now.Add(created))},
		Status: v1alpha1.RemediationStatus{Phase: phase, Reason: reason}}
}

func TestWhichIncidentServesARequest(t *testing.T) {
	request := &maintenance.Request{At: metav1.NewTime(now)}
	old := rem("old", v1alpha1.PhaseSucceeded, "", -time.Hour)
	open := rem("open", v1alpha1.PhaseDraining, "", -time.Minute)
	made := rem("made", v1alpha1.PhasePending, "", time.Second)
	for name, tc := range map[string]struct {
		rems []v1alpha1.Remediation
		want string
	}{
		"none before it is opened":         {[]v1alpha1.Remediation{old}, ""},
		"one that was open already":        {[]v1alpha1.Remediation{old, open}, "open"},
		"the one that was opened after it": {[]v1alpha1.Remediation{made, old}, "made"},
	} {
		t.Run(name, func(t *testing.T) {
			got := ""
			if r := newest(tc.rems, request); r != nil {
				got = r.Name
			}
			if got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func TestHowFarPlannedWorkHasCome(t *testing.T) {
	draining := rem("d", v1alpha1.PhaseDraining, decide.ReasonEvictionStuck, 0)
	draining.Status.Drain = &v1alpha1.DrainStatus{PodsMoved: 3, PodsLeft: 1, Blockers: []v1alpha1.Blocker{{Pod: "ml/a", Reason: decide.ReasonEvictionStuck}, {Pod: "ml/b"}}}
	handed, human := rem("h", v1alpha1.PhaseEscalated, decide.ReasonHandedOver, 0), rem("e", v1alpha1.PhaseEscalated, decide.ReasonWaitDeadline, 0)
	done, cancelled := rem("s", v1alpha1.PhaseSucceeded, decide.ReasonMaintenanceDone, 0), rem("c", v1alpha1.PhaseCancelled, decide.ReasonCancelled, 0)
	for name, tc := range map[string]struct {
		rem         *v1alpha1.Remediation
		line        string
		ended, well bool
	}{
		"nobody has begun":      {nil, "gpu-1            asked for", false, false},
		"pods are moved":        {&draining, "gpu-1            Draining   EvictionStuck [###############-----] 1 pod left; ml/a: EvictionStuck", false, false},
		"it is handed over":     {&handed, "gpu-1            Escalated  HandedOver", true, true},
		"a human is asked":      {&human, "gpu-1            Escalated  WaitDeadline", true, false},
		"it is done":            {&done, "gpu-1            Succeeded  MaintenanceDone", true, true},
		"somebody cancelled it": {&cancelled, "gpu-1            Cancelled  Cancelled", true, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := progressLine("gpu-1", tc.rem); got != tc.line {
				t.Errorf("got  %q\nwant %q", got, tc.line)
			}
			if ended, well := settled(tc.rem); ended != tc.ended || well != tc.well {
				t.Errorf("ended %t, well %t", ended, well)
			}
		})
	}
}
