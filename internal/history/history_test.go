package history

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

var now = time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)

func TestATimelineKeepsItsBeginningAndEveryChangeOfPhase(t *testing.T) {
	st := &v1alpha1.RemediationStatus{}
	for i := range 200 {
		phase := v1alpha1.PhasePending
		if i == 100 {
			phase = v1alpha1.PhaseDraining
		}
		Happened(st, v1alpha1.TimelineEntry{At: metav1.NewTime(now.Add(time.Duration(i))), Phase: phase, Reason: fmt.Sprint(i)})
	}
	if len(st.Timeline) != 64 || st.TimelineDropped != 136 {
		t.Fatalf("%d entries, %d dropped", len(st.Timeline), st.TimelineDropped)
	}
	var reasons []string
	for _, e := range st.Timeline {
		reasons = append(reasons, e.Reason)
	}
	text := " " + strings.Join(reasons, " ") + " "
	for _, want := range []string{" 0 1 2 3 4 5 6 7 ", " 100 101 ", " 199 "} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is lost: %s", want, text)
		}
	}
}

func TestARelapseIsTheSameAttempt(t *testing.T) {
	st := &v1alpha1.RemediationStatus{}
	Tried(st, v1alpha1.Attempt{ActionID: "a-1", Result: v1alpha1.AttemptRepaired})
	Tried(st, v1alpha1.Attempt{ActionID: "a-1", Result: v1alpha1.AttemptRelapsed})
	Tried(st, v1alpha1.Attempt{ActionID: "a-2", Result: v1alpha1.AttemptRepaired})
	if len(st.Attempts) != 2 || st.Attempts[0].Result != v1alpha1.AttemptRelapsed {
		t.Errorf("%v", st.Attempts)
	}
	for i := range 100 {
		Tried(st, v1alpha1.Attempt{ActionID: fmt.Sprint(i)})
	}
	if len(st.Attempts) != maxAttempts {
		t.Errorf("%d attempts kept", len(st.Attempts))
	}
}

func incident(name string, ago time.Duration, results ...v1alpha1.AttemptResult) *v1alpha1.Remediation {
	ended := metav1.NewTime(now.Add(-ago + time.Hour))
	rem := &v1alpha1.Remediation{ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:   v1alpha1.RemediationSpec{Node: "gpu-17", Root: v1alpha1.RootFault{Code: "Xid79", FirstSeen: metav1.NewTime(now.Add(-ago))}},
		Status: v1alpha1.RemediationStatus{Phase: v1alpha1.PhaseSucceeded, Since: &ended}}
	for i, r := range results {
		rem.Status.Attempts = append(rem.Status.Attempts, v1alpha1.Attempt{ActionID: fmt.Sprint(name, i), Rung: "reboot", Result: r})
	}
	return rem
}

func TestFoldingTwiceCountsOnce(t *testing.T) {
	st := &v1alpha1.DeviceRecordStatus{}
	d := v1alpha1.Device{ID: "GPU-6a1f", Slot: "3", Model: "H200", Serial: "1324"}
	one := incident("one", 48*time.Hour, v1alpha1.AttemptRelapsed, v1alpha1.AttemptRepaired)
	Fold(st, one, d, now)
	Fold(st, one, d, now)
	want := v1alpha1.DeviceTotals{Incidents: 1, Repairs: 2, Relapses: 1, OutHours: "1.00"}
	if diff := cmp.Diff(want, st.Totals); diff != "" {
		t.Error(diff)
	}
	if got := Repairs(*st, now.Add(-24*time.Hour), ""); got != 0 {
		t.Errorf("%d repairs within a day, want 0", got)
	}
	if got := Repairs(*st, now.Add(-72*time.Hour), ""); got != 2 {
		t.Errorf("%d repairs within three days, want 2", got)
	}
	if got := Repairs(*st, now.Add(-72*time.Hour), "one"); got != 0 {
		t.Errorf("the incident itself is not among the past: %d", got)
	}
}

func TestARecordIsBoundedAndItsTotalsAreNot(t *testing.T) {
	st := &v1alpha1.DeviceRecordStatus{}
	for i := range 80 {
		Fold(st, incident(fmt.Sprint("in-", i), time.Duration(80-i)*24*time.Hour, v1alpha1.AttemptRepaired),
			v1alpha1.Device{ID: "GPU-1", Slot: fmt.Sprint(i)}, now)
	}
	if len(st.Incidents) != 50 || len(st.Places) != 16 || st.Totals.Incidents != 80 || st.Totals.Repairs != 80 {
		t.Errorf("%d incidents, %d places, %+v", len(st.Incidents), len(st.Places), st.Totals)
	}
	if st.Suspicion.Level != "Lemon" {
		t.Errorf("%+v", st.Suspicion)
	}
}

func TestSuspicionSaysWhy(t *testing.T) {
	for name, tc := range map[string]struct {
		incidents []*v1alpha1.Remediation
		want      string
	}{
		"one incident is nothing":                 {[]*v1alpha1.Remediation{incident("a", time.Hour, v1alpha1.AttemptRepaired)}, "None"},
		"two in 28 days are watched":              {[]*v1alpha1.Remediation{incident("a", time.Hour), incident("b", 600*time.Hour)}, "Watch"},
		"two, one of them long ago, are nothing":  {[]*v1alpha1.Remediation{incident("a", time.Hour), incident("b", 700*time.Hour)}, "None"},
		"two repairs that did not last are lemon": {[]*v1alpha1.Remediation{incident("a", time.Hour, v1alpha1.AttemptRelapsed, v1alpha1.AttemptRelapsed)}, "Lemon"},
	} {
		t.Run(name, func(t *testing.T) {
			st := &v1alpha1.DeviceRecordStatus{}
			for _, in := range tc.incidents {
				Fold(st, in, v1alpha1.Device{ID: "GPU-1"}, now)
			}
			if st.Suspicion.Level != tc.want || (tc.want != "None" && len(st.Suspicion.Because) == 0) {
				t.Errorf("%+v, want %s", st.Suspicion, tc.want)
			}
		})
	}
}

func TestRecordNames(t *testing.T) {
	for id, want := range map[string]string{
		"GPU-6A1F-b":        "gpu-6a1f-b",
		"1324":              "1324",
		"10de-2335-slot-3":  "device-",
		"pci-0000:18:00.0":  "device-",
		"":                  "device-",
		"a..b":              "device-",
		"ends-with-hyphen-": "device-",
	} {
		if got := RecordName("gpu-17", id); !strings.HasPrefix(got, want) || !dnsName.MatchString(got) {
			t.Errorf("%q: %q, want %q...", id, got, want)
		}
	}
	if RecordName("gpu-17", "10de-2335-slot-3") == RecordName("gpu-18", "10de-2335-slot-3") {
		t.Error("the same slot of two nodes is two devices")
	}
	if RecordName("gpu-17", "GPU-1") != RecordName("gpu-18", "GPU-1") {
		t.Error("a device that moves keeps its record")
	}
}

// Proofs without an action of ours have no ID: two are one only where nothing came between.
func TestProofsWithoutAnActionAreAttemptsOfTheirOwn(t *testing.T) {
	var st v1alpha1.RemediationStatus
	for _, a := range []v1alpha1.Attempt{{ActionID: "a-1"}, {Message: "1"}, {Message: "2"}, {ActionID: "a-3"}, {Message: "3"}, {Message: "4"}, {ActionID: "a-1", Message: "again"}} {
		Tried(&st, a)
	}
	var got []string
	for _, a := range st.Attempts {
		got = append(got, a.ActionID+a.Message)
	}
	if want := []string{"a-1again", "2", "a-3", "4"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
