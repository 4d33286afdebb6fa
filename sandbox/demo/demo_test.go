package demo

import (
	"bytes"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/utils/ptr"

	"github.com/roundhouse-dev/roundhouse/sandbox/scenario"
)

func fact(seconds float64, kind scenario.Kind, pairs ...string) scenario.Fact {
	f := scenario.Fact{At: time.Duration(seconds * float64(time.Second)), Kind: kind, Fields: map[string]string{}}
	for i := 0; i+1 < len(pairs); i += 2 {
		f.Fields[pairs[i]] = pairs[i+1]
	}
	return f
}

// told tells facts of an act about node gpu-17, of which nothing is left over, and returns the lines.
func told(facts ...scenario.Fact) string {
	var out bytes.Buffer
	teller := NewTeller(NewPage(&out), 1, 10*time.Second)
	count := func(s scenario.State) (int, string) {
		if s.Kind == scenario.StatePods {
			return 7, ""
		}
		return 0, ""
	}
	s := &scenario.Scenario{Title: "One GPU", Steps: []scenario.Step{{Apply: []scenario.Object{{"kind": "RemediationPolicy", "spec": map[string]any{"mode": "Observe"}}}}}}
	teller.Began(s, map[string]string{"broken": "gpu-17"}, count)
	out.Reset()
	for _, f := range facts {
		teller.Fact(f)
	}
	return out.String()
}

func TestWhatIsToldOfFacts(t *testing.T) {
	const node = "gpu-17"
	for name, test := range map[string]struct {
		facts []scenario.Fact
		want  string
	}{
		"a fault once, with its line, and another check that agrees": {
			facts: []scenario.Fact{
				fact(0.2, scenario.KindFault, "node", node, "slot", "3", "check", "kernel-log", "state", "reported", "evidence", "NVRM: Xid: 79, pid='<unknown>', name=<unknown>, off the bus."),
				fact(0.2, scenario.KindFault, "node", node, "slot", "3", "check", "kernel-log", "code", "B", "state", "reported", "evidence", "NVRM: again"),
				fact(0.3, scenario.KindFault, "node", node, "slot", "3", "check", "pci", "code", "C", "state", "reported", "evidence", "reads all ones"),
			},
			want: " 10.20s fault       gpu-17 slot 3 \"NVRM: Xid: 79, off the bus.\"\n 10.30s seen        pci agrees: reads all ones\n",
		},
		"in Observe, what would be done and that nothing was": {
			facts: []scenario.Fact{fact(1, scenario.KindRemediation, "node", node, "phase", "Pending", "reason", "ModeObserve", "message", "observing only; would quarantine 1 device")},
			want:  " 11.00s would do    quarantine 1 device. Touched: nothing.\n",
		},
		"in Observe, what was touched all the same is not hidden": {
			facts: []scenario.Fact{
				fact(1, scenario.KindTouched, "node", node),
				fact(1, scenario.KindRemediation, "node", node, "phase", "Pending", "reason", "ModeObserve", "message", "observing only; would quarantine 1 device"),
			},
			want: " 11.00s would do    quarantine 1 device. Touched: 1 things.\n",
		},
		"a change of mode, and not the first mode": {
			facts: []scenario.Fact{fact(0, scenario.KindPolicy, "name", "training", "mode", "Observe"), fact(3, scenario.KindPolicy, "name", "training", "mode", "Remediate")},
			want:  " 13.00s you         policy/training: Observe to Remediate\n",
		},
		"a pod that moves, and how many do not": {
			facts: []scenario.Fact{
				fact(3, scenario.KindEviction, "node", node, "namespace", "ml", "app", "infer", "pod", "ml/infer-3"),
				fact(3.5, scenario.KindRunning, "node", "gpu-22", "namespace", "ml", "app", "infer", "pod", "ml/infer-9"),
			},
			want: " 13.50s moved       ml/infer-3 to gpu-22, through the Eviction API; 7 other pods untouched\n",
		},
		"a repair, proved": {
			facts: []scenario.Fact{
				fact(9, scenario.KindAction, "node", node, "state", "Asked", "id", "gpu-17-x-1"),
				fact(15, scenario.KindRemediation, "node", node, "phase", "Probation", "reason", "Verified", "message", "boot 00000012-5b6f-4d2a-9c3e-e764c2040001, 8 of 8 devices healthy"),
				fact(23, scenario.KindRemediation, "node", node, "phase", "Succeeded", "reason", "ProbationClean", "message", "no relapse within 8s"),
			},
			want: " 19.00s reboot      asked of the agent: gpu-17-x-1\n" +
				" 25.00s verified    repair 1: boot 00000012-5b6f...0001, 8 of 8 devices healthy\n" +
				" 33.00s returned    no relapse within 8s; 0 taints, rules or claims left\n",
		},
		"nothing of another node": {
			facts: []scenario.Fact{fact(1, scenario.KindRemediation, "node", "gpu-99", "phase", "Pending", "reason", "ModeObserve")},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, told(test.facts...)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestWhatIsToldOfExpectations(t *testing.T) {
	var out bytes.Buffer
	teller := NewTeller(NewPage(&out), 1, 0)
	teller.Outcome(scenario.Outcome{Name: "it reboots", Part: "step 3", Seen: true, At: 1})
	teller.Outcome(scenario.Outcome{Name: "it returns", Part: "step 4", At: 2, Why: "none of its kind within 5s"})
	teller.Outcome(scenario.Outcome{Name: "no second reboot", Part: "never", Seen: true, At: 3, Evidence: "1 seen, 1 allowed"})
	teller.Outcome(scenario.Outcome{Name: "no pod disturbed", Part: "never", Seen: true, At: 3, Evidence: "not once"})
	want := "  2.00s NOT SEEN    it returns\n" +
		"                    none of its kind within 5s\n" +
		"  3.00s never       no second reboot: 1 seen, 1 allowed\n" +
		"                    no pod disturbed: not once\n"
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
}

func TestTableSaysWhetherAllWasSeen(t *testing.T) {
	good := &scenario.Report{Passed: true, Seen: 3, Expected: 3, Nodes: []scenario.NodeTimes{
		{Node: "gpu-17", Quarantined: ptr.To(0.11), Drained: ptr.To(6.8), Repaired: ptr.To(12.2), Returned: ptr.To(20.3), Reboots: 1, Disturbed: 1},
		{Node: "gpu-40", Quarantined: ptr.To(0.10), Reboots: 3},
	}}
	var out bytes.Buffer
	if !Table(NewPage(&out), []*scenario.Report{good}) {
		t.Error("all was seen, and the table says no")
	}
	want := `
             quarantined  drained  repaired  returned  reboots  pods disturbed
gpu-17             0.11s    6.80s    12.20s    20.30s        1               1
gpu-40             0.10s        -         -         -        3               0
Times are since the fault, or since the policy was told to act. Repaired: the first proof.
3 of 3 expectations seen in the API
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
	if Table(NewPage(&out), []*scenario.Report{good, {Seen: 1, Expected: 2}}) {
		t.Error("one was not seen, and the table says that all were")
	}
}
