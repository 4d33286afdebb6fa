package alert

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	testclock "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/metrics"
	"github.com/roundhouse-dev/roundhouse/internal/notify"
)

var now = time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)

func ago(minutes int) *metav1.Time {
	at := metav1.NewTime(now.Add(-time.Duration(minutes) * time.Minute))
	return &at
}

func incident(status v1alpha1.RemediationStatus) v1alpha1.Remediation {
	status.Reason, status.Message = "Because", "it is so"
	return v1alpha1.Remediation{
		ObjectMeta: metav1.ObjectMeta{Name: "gpu-1-abc", CreationTimestamp: *ago(60)},
		Spec: v1alpha1.RemediationSpec{
			Node: "gpu-1", Policy: "training", Group: "rack-7",
			Root: v1alpha1.RootFault{Code: "Xid79", Device: "GPU-1"},
		},
		Status: status,
	}
}

func entry(minutes int, phase v1alpha1.Phase) v1alpha1.TimelineEntry {
	return v1alpha1.TimelineEntry{At: *ago(minutes), Phase: phase, Reason: "R"}
}

// on is an alert by its name and its times, in minutes before now; an end before now is one that has come.
type on struct {
	name         string
	start, until int
}

func TestAlerts(t *testing.T) {
	cases := map[string]struct {
		status v1alpha1.RemediationStatus
		want   []on
	}{
		"an incident that waits is nobody's alarm": {status: v1alpha1.RemediationStatus{Phase: v1alpha1.PhasePending}},
		"one that acts":                        {status: v1alpha1.RemediationStatus{Phase: v1alpha1.PhaseRepairing, ActingSince: ago(5)}, want: []on{{Remediating, 5, -4}}},
		"one in probation is still watched":    {status: v1alpha1.RemediationStatus{Phase: v1alpha1.PhaseProbation, ActingSince: ago(5), Since: ago(1)}, want: []on{{Remediating, 5, -4}}},
		"one that has succeeded is resolved":   {status: v1alpha1.RemediationStatus{Phase: v1alpha1.PhaseSucceeded, ActingSince: ago(5), Since: ago(1)}, want: []on{{Remediating, 5, 1}}},
		"one that ended long ago is not sent":  {status: v1alpha1.RemediationStatus{Phase: v1alpha1.PhaseSucceeded, ActingSince: ago(50), Since: ago(11)}},
		"one that never acted and is over":     {status: v1alpha1.RemediationStatus{Phase: v1alpha1.PhaseCancelled, Since: ago(1)}},
		"one that is escalated without an act": {status: v1alpha1.RemediationStatus{Phase: v1alpha1.PhaseEscalated, Since: ago(3)}, want: []on{{Escalated, 3, -4}}},
		"one that is escalated after acts":     {status: v1alpha1.RemediationStatus{Phase: v1alpha1.PhaseEscalated, ActingSince: ago(5), Since: ago(3)}, want: []on{{Escalated, 3, -4}, {Remediating, 5, -4}}},
		"one that a human has taken on again": {
			status: v1alpha1.RemediationStatus{Phase: v1alpha1.PhaseProbation, ActingSince: ago(30), Since: ago(1), Timeline: []v1alpha1.TimelineEntry{
				entry(30, v1alpha1.PhaseRepairing), entry(20, v1alpha1.PhaseEscalated), entry(19, v1alpha1.PhaseEscalated), entry(2, v1alpha1.PhaseVerifying),
				entry(1, v1alpha1.PhaseProbation),
			}},
			want: []on{{Escalated, 20, 2}, {Remediating, 30, -4}},
		},
		"one whose escalation ended long ago": {
			status: v1alpha1.RemediationStatus{Phase: v1alpha1.PhaseVerifying, ActingSince: ago(60), Timeline: []v1alpha1.TimelineEntry{
				entry(50, v1alpha1.PhaseEscalated), entry(40, v1alpha1.PhaseVerifying),
			}},
			want: []on{{Remediating, 60, -4}},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			var got []on
			for _, alert := range Alerts([]v1alpha1.Remediation{incident(c.status)}, now, 4*time.Minute) {
				got = append(got, on{alert.Labels["alertname"], int(now.Sub(alert.StartsAt).Minutes()), int(now.Sub(alert.EndsAt).Minutes())})
			}
			if diff := cmp.Diff(c.want, got, cmp.AllowUnexported(on{})); diff != "" {
				t.Errorf("alerts (-want +got):\n%s", diff)
			}
		})
	}
}

func TestLabelsDoNotChangeWhileTheIncidentLives(t *testing.T) {
	phases := []v1alpha1.RemediationStatus{
		{Phase: v1alpha1.PhaseDraining, ActingSince: ago(5)}, {Phase: v1alpha1.PhaseRepairing, ActingSince: ago(5), Since: ago(3)},
		{Phase: v1alpha1.PhaseSucceeded, ActingSince: ago(5), Since: ago(1)},
	}
	want := map[string]string{
		"alertname": Remediating, "severity": "info", "node": "gpu-1", "remediation": "gpu-1-abc", "policy": "training",
		"code": "Xid79", "device": "GPU-1", "group": "rack-7",
	}
	for i, status := range phases {
		status.WouldChange = "x"
		alerts := Alerts([]v1alpha1.Remediation{incident(status)}, now.Add(time.Duration(i)*time.Minute), time.Minute)
		if diff := cmp.Diff(want, alerts[0].Labels); diff != "" {
			t.Errorf("labels in %s (-want +got):\n%s", status.Phase, diff)
		}
		if !alerts[0].StartsAt.Equal(ago(5).Time) {
			t.Errorf("in %s it starts at %v", status.Phase, alerts[0].StartsAt)
		}
	}
}

func TestAnnotationsAreBounded(t *testing.T) {
	rem := incident(v1alpha1.RemediationStatus{Phase: v1alpha1.PhaseEscalated, Since: ago(1)})
	rem.Status.Message = strings.Repeat("é", maxAnnotation)
	alert := Alerts([]v1alpha1.Remediation{rem}, now, time.Minute)[0]
	if got := alert.Annotations["message"]; len(got) > maxAnnotation || !strings.HasPrefix(got, "é") || strings.ContainsRune(got, '\uFFFD') {
		t.Errorf("message has %d bytes: %q", len(got), got[len(got)-4:])
	}
	if got := alert.Annotations["runbook"]; got != "kubectl roundhouse why gpu-1" {
		t.Errorf("runbook is %q", got)
	}
}

// sink keeps what it is sent, or fails.
type sink struct {
	sent []notify.Alert
	err  error
}

func (s *sink) Send(_ context.Context, alerts []notify.Alert) error {
	s.sent = alerts
	return s.err
}

func TestReconcileSendsAgainAndComesBack(t *testing.T) {
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	rem := incident(v1alpha1.RemediationStatus{Phase: v1alpha1.PhaseDraining, ActingSince: ago(1)})
	counts, err := metrics.NewController(prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	s := &sink{}
	l := &loop{
		Options: Options{Sender: s, Every: time.Minute, Clock: testclock.NewFakePassiveClock(now), Metrics: counts},
		client:  fake.NewClientBuilder().WithScheme(scheme).WithObjects(&rem).Build(),
	}
	for range 2 {
		result, err := l.Reconcile(t.Context(), reconcile.Request{})
		if err != nil || result.RequeueAfter != time.Minute || len(s.sent) != 1 {
			t.Fatalf("got %+v, %v after %d alerts", result, err, len(s.sent))
		}
	}
	s.err = errors.New("no route to host")
	if _, err := l.Reconcile(t.Context(), reconcile.Request{}); !errors.Is(err, s.err) {
		t.Errorf("error is %v", err)
	}
}
