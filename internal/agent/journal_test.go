package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/machine"
	"github.com/roundhouse-dev/roundhouse/internal/machine/fake"
)

func TestJournalSurvivesARoundTrip(t *testing.T) {
	m := fake.New(fake.Options{})
	var j journal
	j.Version = journalVersion
	j.booted("boot-1", began)
	j.open(v1alpha1.Action{ID: "a-1", Type: v1alpha1.ActionReboot, BootID: "boot-1"}, began)
	j.Fence, j.FenceOf = 3, "nh-1"
	if err := j.save(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	got, err := loadJournal(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	equalTimes := cmp.Comparer(func(a, b metav1.Time) bool { return a.Equal(&b) })
	if diff := cmp.Diff(j, got, equalTimes); diff != "" {
		t.Errorf("journal (-want +got):\n%s", diff)
	}
}

func TestJournalThatCannotBeUnderstoodIsAnError(t *testing.T) {
	for name, data := range map[string]string{
		"cut short":              `{"version":1,"acts":[{"id"`,
		"empty":                  ``,
		"of a later version":     `{"version":2}`,
		"of no version":          `{}`,
		"with an act of no time": `{"version":1,"acts":[{"began":"noon"}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			m := fake.New(fake.Options{})
			if err := m.Save(t.Context(), journalName, []byte(data)); err != nil {
				t.Fatal(err)
			}
			if j, err := loadJournal(t.Context(), m); err == nil {
				t.Errorf("read as %+v", j)
			}
		})
	}
}

func TestDailyLimitWindow(t *testing.T) {
	var j journal
	for i := range 3 {
		j.open(v1alpha1.Action{ID: fmt.Sprint(i)}, began.Add(time.Duration(i)*8*time.Hour))
	}
	tests := map[string]struct {
		at   time.Duration
		want int
	}{
		"all of one day":         {at: 16 * time.Hour, want: 3},
		"the first is a day old": {at: 24 * time.Hour, want: 2},
		"all are old":            {at: 40 * time.Hour, want: 0},
		"a clock that was set back gives nothing back": {at: -time.Hour, want: 3},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := j.spent(began.Add(tt.at)); got != tt.want {
				t.Errorf("got %d, want %d", got, tt.want)
			}
		})
	}
}

func TestBootedEndsWhatTheLastBootLeftOpen(t *testing.T) {
	var j journal
	j.booted("boot-1", began)
	j.open(v1alpha1.Action{ID: "reset", Type: v1alpha1.ActionResetDevice, BootID: "boot-1"}, began)
	j.open(v1alpha1.Action{ID: "reboot", Type: v1alpha1.ActionReboot, BootID: "boot-1"}, began)
	j.booted("boot-1", began)
	if e, _ := j.find("reboot"); e.Result != "" {
		t.Errorf("over in the same boot: %+v", e)
	}
	j.booted("boot-2", began.Add(time.Minute))
	got := []string{}
	for _, e := range j.Acts {
		got = append(got, fmt.Sprint(e.ID, " ", e.Result, " ", e.Reason))
	}
	want := []string{"reset Interrupted AgentRestarted", "reboot Succeeded Rebooted"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("acts (-want +got):\n%s", diff)
	}
	if b := j.Boots[1]; b.Cause != v1alpha1.BootByRoundhouse || b.Action != "reboot" {
		t.Errorf("second boot is %+v", b)
	}
}

func TestUnwritableJournalRecovers(t *testing.T) {
	b := newBench(t)
	b.machine.Fail(fake.DoorStore, errors.New("no space left on device"))
	b.step(time.Minute)
	b.wantSummary(v1alpha1.SummaryHealthy)
	b.askReboot("a-1")
	b.step(time.Minute)
	b.wantAnswer("a-1", v1alpha1.ResultRefused, v1alpha1.ActionReasonJournalUnavailable)
	b.machine.Fail(fake.DoorStore, nil)
	b.askReboot("a-2")
	b.step(time.Minute)
	b.wantAnswer("a-2", v1alpha1.ResultSucceeded, v1alpha1.ActionReasonRebooted)
}

func FuzzJournal(f *testing.F) {
	f.Add([]byte(`{"version":1}`))
	f.Add([]byte(`{"version":1,"boots":[{"id":"b","at":"2026-11-23T10:00:00Z","cause":"Other"}],"acts":[{"id":"a","type":"Reboot","bootID":"b","began":"2026-11-23T10:00:00Z"}],"spent":["2026-11-23T10:00:00Z"],"fence":3,"fenceOf":"u"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		j, err := parseJournal(data)
		if err != nil {
			return
		}
		if len(j.Acts) > maxActs || len(j.Spent) > maxSpent || len(j.Boots) > machine.MaxBoots {
			t.Errorf("unbounded: %d acts, %d spent, %d boots", len(j.Acts), len(j.Spent), len(j.Boots))
		}
		j.booted("next", began)
		j.open(v1alpha1.Action{ID: "a"}, began)
		if _, ok := j.find("a"); !ok {
			t.Error("an act that was opened is not there")
		}
		if _, err := json.Marshal(j); err != nil {
			t.Errorf("read and not writable: %v", err)
		}
	})
}
