package agent

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/health"
)

func opinionOf(findings ...health.Finding) opinion {
	return opinion{name: "a", since: began, result: health.Result{Outcome: health.OutcomeOf(findings), Findings: findings}}
}

func blindOpinion(name string) opinion {
	return opinion{name: name, since: began, result: health.Result{Outcome: health.Unknown, Reason: health.ReasonTimedOut}}
}

func TestSummary(t *testing.T) {
	application := finding("Xid13", v1alpha1.ClassApplication, v1alpha1.SeverityCritical, 9)
	remark := finding("Xid63", v1alpha1.ClassHardware, v1alpha1.SeverityInfo, 1)
	unknown := finding("Xid999", v1alpha1.ClassUnknown, v1alpha1.SeverityWarning, 1)
	tests := map[string]struct {
		opinions []opinion
		action   *v1alpha1.ActionStatus
		want     v1alpha1.Summary
		status   corev1.ConditionStatus
		reason   string
	}{
		"nothing is wrong":                       {want: v1alpha1.SummaryHealthy, status: "True", reason: "AllChecksPass"},
		"an application's errors are shown only": {opinions: []opinion{opinionOf(application)}, want: v1alpha1.SummaryHealthy, status: "True", reason: "AllChecksPass"},
		"a remark is shown only":                 {opinions: []opinion{opinionOf(remark)}, want: v1alpha1.SummaryHealthy, status: "True", reason: "AllChecksPass"},
		"an unknown code is a fault":             {opinions: []opinion{opinionOf(unknown)}, want: v1alpha1.SummaryFaulty, status: "False", reason: "Xid999"},
		"the worst fault is named, not the application's before it": {
			opinions: []opinion{opinionOf(application, offTheBus)}, want: v1alpha1.SummaryFaulty, status: "False", reason: "Xid79"},
		"blind is neither healthy nor broken": {opinions: []opinion{blindOpinion("a")}, want: v1alpha1.SummaryUnknown, status: "Unknown", reason: "CannotLook"},
		"what is seen goes before what is not": {
			opinions: []opinion{opinionOf(offTheBus), blindOpinion("b")}, want: v1alpha1.SummaryFaulty, status: "False", reason: "Xid79"},
		"an act that runs goes before all, except in the condition": {
			opinions: []opinion{opinionOf(offTheBus)}, action: &v1alpha1.ActionStatus{State: v1alpha1.ActionStarted},
			want: v1alpha1.SummaryActing, status: "False", reason: "Xid79"},
		"an act that is over says nothing": {
			action: &v1alpha1.ActionStatus{State: v1alpha1.ActionDone}, want: v1alpha1.SummaryHealthy, status: "True", reason: "AllChecksPass"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			status := judge(view{opinions: tt.opinions, action: tt.action})
			if status.Summary != tt.want {
				t.Errorf("summary is %s, want %s", status.Summary, tt.want)
			}
			c, changed := condition(status, nil, began)
			if c.Status != tt.status || c.Reason != tt.reason || !changed {
				t.Errorf("condition is %s %s, want %s %s", c.Status, c.Reason, tt.status, tt.reason)
			}
			if _, changed := condition(status, &c, began.Add(time.Hour)); changed {
				t.Error("the same condition would be written again")
			}
		})
	}
}

func TestConditionKeepsItsTransition(t *testing.T) {
	faulty := judge(view{opinions: []opinion{opinionOf(offTheBus)}})
	first, _ := condition(faulty, nil, began)
	other := finding("PCIDeviceMissing", v1alpha1.ClassHardware, v1alpha1.SeverityCritical, 1)
	second, changed := condition(judge(view{opinions: []opinion{opinionOf(other)}}), &first, began.Add(time.Hour))
	if !changed || !second.LastTransitionTime.Equal(&first.LastTransitionTime) {
		t.Errorf("changed %t, transition %s to %s", changed, first.LastTransitionTime, second.LastTransitionTime)
	}
	third, _ := condition(judge(view{}), &second, began.Add(2*time.Hour))
	if !third.LastTransitionTime.Time.Equal(began.Add(2 * time.Hour)) {
		t.Errorf("transition of another status is %s", third.LastTransitionTime)
	}
}

func TestListsAreBoundedAndOrdered(t *testing.T) {
	var findings []health.Finding
	for i := range 100 {
		f := finding(fmt.Sprintf("Xid%d", 100+i), v1alpha1.ClassHardware, v1alpha1.SeverityWarning, 1)
		f.Fault.Evidence = strings.Repeat("é", 1000)
		findings = append(findings, f)
	}
	findings = append(findings, offTheBus)
	want := judge(view{opinions: []opinion{opinionOf(findings...)}})
	if len(want.Faults) != 64 || want.FaultsDropped != 37 || want.Faults[0].Code != "Xid79" {
		t.Errorf("%d faults, %d dropped, first %s", len(want.Faults), want.FaultsDropped, want.Faults[0].Code)
	}
	if got := len(want.Faults[1].Evidence); got > 512 {
		t.Errorf("evidence is %d bytes", got)
	}
	for range 20 {
		rand.Shuffle(len(findings), func(i, j int) { findings[i], findings[j] = findings[j], findings[i] })
		if diff := cmp.Diff(want, judge(view{opinions: []opinion{opinionOf(findings...)}})); diff != "" {
			t.Fatalf("another order of findings is another status:\n%s", diff)
		}
	}
}

func TestCountsAreRepublishedAtPowersOfTwo(t *testing.T) {
	published := v1alpha1.NodeHealthStatus{}
	var written []int64
	for count := int64(1); count <= 1000; count++ {
		f := finding("Xid13", v1alpha1.ClassApplication, v1alpha1.SeverityWarning, count)
		f.Fault.LastSeen = metav1.NewTime(began.Add(time.Duration(count) * time.Second))
		next := settled(published, judge(view{opinions: []opinion{opinionOf(f)}}))
		if significant(published, next) {
			published = next
			written = append(written, next.Faults[0].Count)
		}
	}
	want := []int64{1, 2, 4, 8, 16, 32, 64, 128, 256, 512}
	if diff := cmp.Diff(want, written); diff != "" {
		t.Errorf("counts written (-want +got):\n%s", diff)
	}
}

func TestWhatIsNoReasonToWrite(t *testing.T) {
	base := v1alpha1.NodeHealthStatus{
		Summary:        v1alpha1.SummaryUnknown,
		CompletedRound: &v1alpha1.Round{BootID: "b", At: metav1.NewTime(began)},
		Checks:         []v1alpha1.CheckStatus{{Name: "a", Result: "Unknown", Message: "1 s late"}},
		Devices:        []v1alpha1.Device{{ID: "GPU-1", Link: &v1alpha1.Link{Width: 16, GTs: "32"}}},
	}
	tests := map[string]struct {
		change func(*v1alpha1.NodeHealthStatus)
		want   bool
	}{
		"nothing changed":              {func(*v1alpha1.NodeHealthStatus) {}, false},
		"a later round":                {func(s *v1alpha1.NodeHealthStatus) { s.CompletedRound.At = metav1.NewTime(began.Add(time.Hour)) }, false},
		"another message":              {func(s *v1alpha1.NodeHealthStatus) { s.Checks[0].Message = "2 s late" }, false},
		"a link that saves power":      {func(s *v1alpha1.NodeHealthStatus) { s.Devices[0].Link.GTs = "2.5" }, false},
		"an empty list for none":       {func(s *v1alpha1.NodeHealthStatus) { s.Faults = []v1alpha1.Fault{} }, false},
		"a narrower link":              {func(s *v1alpha1.NodeHealthStatus) { s.Devices[0].Link.Width = 8 }, true},
		"another reason":               {func(s *v1alpha1.NodeHealthStatus) { s.Checks[0].Reason = "Panicked" }, true},
		"a round after another act":    {func(s *v1alpha1.NodeHealthStatus) { s.CompletedRound.AfterAction = "a-1" }, true},
		"a round in another boot":      {func(s *v1alpha1.NodeHealthStatus) { s.CompletedRound.BootID = "c" }, true},
		"another version of the agent": {func(s *v1alpha1.NodeHealthStatus) { s.AgentVersion = "v2" }, true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			next := *base.DeepCopy()
			tt.change(&next)
			if got := significant(base, next); got != tt.want {
				t.Errorf("significant is %t", got)
			}
			if !base.CompletedRound.At.Time.Equal(began) || base.Checks[0].Message != "1 s late" || base.Devices[0].Link.GTs != "32" {
				t.Error("comparing changed what was compared")
			}
		})
	}
}
