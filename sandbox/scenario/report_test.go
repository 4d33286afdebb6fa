package scenario

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/utils/ptr"
)

func at(s float64, f Fact) Fact {
	f.At, f.Seconds = time.Duration(s*float64(time.Second)), s
	return f
}

// story is a repair as the facts tell it.
func story() []Fact {
	return []Fact{
		at(1, fact(KindFault, "node", "gpu-01", "code", "Xid79", "state", "reported")),
		at(1.1, fact(KindRemediation, "node", "gpu-01", "phase", "Pending", "reason", "ModeObserve")),
		at(4, fact(KindPolicy, "name", "training", "mode", "Remediate")),
		at(4.1, fact(KindQuarantine, "node", "gpu-01", "state", "on")),
		at(4.2, fact(KindEviction, "node", "gpu-01", "pod", "ml/a")),
		at(4.3, fact(KindEviction, "node", "gpu-02", "pod", "ml/b")),
		at(5, fact(KindRemediation, "node", "gpu-01", "phase", "Repairing")),
		at(9, fact(KindReboot, "node", "gpu-01")),
		at(10, fact(KindRemediation, "node", "gpu-01", "phase", "Probation")),
		at(18, fact(KindRemediation, "node", "gpu-01", "phase", "Succeeded")),
	}
}

func TestTimesOfANode(t *testing.T) {
	got := times(story(), map[string]time.Duration{"gpu-01": time.Second, "gpu-03": time.Second})
	want := []NodeTimes{{Node: "gpu-01", Fault: 1, Acting: 4, Quarantined: ptr.To(0.1), Drained: ptr.To(1.0), Repaired: ptr.To(6.0), Returned: ptr.To(14.0), Reboots: 1, Disturbed: 1}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestReportIsPassedOnlyIfAllWasSeen(t *testing.T) {
	for name, test := range map[string]struct {
		report Report
		want   bool
	}{
		"all seen":           {report: Report{Expectations: []Outcome{{Seen: true}, {Seen: true}}}, want: true},
		"one not seen":       {report: Report{Expectations: []Outcome{{Seen: true}, {}}}},
		"all seen, an error": {report: Report{Expectations: []Outcome{{Seen: true}}, Error: "the watch of pods ended"}},
	} {
		t.Run(name, func(t *testing.T) {
			test.report.sum(nil)
			if test.report.Passed != test.want {
				t.Errorf("passed %t, want %t", test.report.Passed, test.want)
			}
		})
	}
}

func TestReportKeepsTheEarliestAndTheLatestFacts(t *testing.T) {
	var facts []Fact
	for i := range maxReported + 10 {
		facts = append(facts, Fact{Seq: i + 1})
	}
	r := Report{}
	r.sum(facts)
	if len(r.Facts) != maxReported || r.FactsDropped != 10 || r.Facts[0].Seq != 1 || r.Facts[maxReported-1].Seq != maxReported+10 {
		t.Errorf("%d facts from %d to %d, %d dropped", len(r.Facts), r.Facts[0].Seq, r.Facts[len(r.Facts)-1].Seq, r.FactsDropped)
	}
}

func TestReportsAreWrittenAsAList(t *testing.T) {
	path := filepath.Join(t.TempDir(), "report.json")
	if err := WriteReports(path, []*Report{{Scenario: "a", Expectations: []Outcome{{Name: "x", Seen: true, At: 1.5}}, Facts: story()}}); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var got []Report
	if err := json.Unmarshal(data, &got); err != nil {
		t.Fatal(err)
	}
	if len(got) != 1 || got[0].Expectations[0].At != 1.5 || got[0].Facts[3].Seconds != 4.1 {
		t.Errorf("read back as %+v", got)
	}
}
