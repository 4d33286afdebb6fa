package fleet

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/cli/text"
)

var now = time.Date(2026, 11, 23, 1, 14, 0, 0, time.UTC)

func golden(t *testing.T, name string, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v; UPDATE_GOLDEN=1 go test writes it", err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got; UPDATE_GOLDEN=1 go test accepts it):\n%s", file, diff)
	}
}

func node(name, pool, rack string) Node {
	return Node{Name: name, Labels: map[string]string{"pool": pool, "rack": rack}, Accelerators: 8, Reporting: corev1.ConditionTrue}
}

func policy(name string, priority int32, mode v1alpha1.Mode, pool string) v1alpha1.RemediationPolicy {
	return v1alpha1.RemediationPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: name, Generation: 1},
		Spec:       v1alpha1.RemediationPolicySpec{Mode: mode, Priority: priority, NodeSelector: metav1.LabelSelector{MatchLabels: map[string]string{"pool": pool}}},
		Status: v1alpha1.RemediationPolicyStatus{
			MatchedNodes: 16, Conditions: []metav1.Condition{{Type: v1alpha1.ConditionAccepted, Status: metav1.ConditionTrue, Reason: "Valid"}},
		},
	}
}

func open(name string, phase v1alpha1.Phase, ago time.Duration, message string) v1alpha1.Remediation {
	since := metav1.NewTime(now.Add(-ago))
	return v1alpha1.Remediation{
		ObjectMeta: metav1.ObjectMeta{Name: name + "-abc"},
		Spec:       v1alpha1.RemediationSpec{Node: name, Root: v1alpha1.RootFault{Code: "Xid79"}, Devices: []string{"a"}},
		Status:     v1alpha1.RemediationStatus{Phase: phase, Reason: "R", Message: message, Since: &since},
	}
}

// busy is a fleet with something of everything.
func busy() Snapshot {
	s := Snapshot{Now: now}
	for i := range 20 {
		n := node(fmt.Sprintf("gpu-%02d", i), "training", fmt.Sprintf("r%d", i/8))
		h := Health{Name: n.Name, Summary: v1alpha1.SummaryHealthy, Devices: Devices{Total: 8, Healthy: 8}}
		switch {
		case i < 9:
			h.Summary, h.Devices = v1alpha1.SummaryFaulty, Devices{Total: 8, Healthy: 6, Unhealthy: 1, Missing: 1}
			s.Remediations = append(s.Remediations, open(n.Name, v1alpha1.PhasePending, time.Duration(i)*time.Minute, "per-rack: 1 of 1 nodes in rack r0 are out (gpu-00)"))
		case i == 9:
			h.Summary, n.Out = v1alpha1.SummaryActing, "not Ready" // it reboots, and is out once all the same
			s.Remediations = append(s.Remediations, open(n.Name, v1alpha1.PhaseRepairing, time.Minute, ""))
		case i == 10:
			n.Reporting = corev1.ConditionUnknown
		case i == 11:
			h.Summary = ""
		case i == 12:
			n.Out = "cordoned"
		case i == 13:
			n.Taints = []corev1.Taint{{Key: "maintenance.example.com/down"}}
		}
		s.Nodes, s.Healths = append(s.Nodes, n), append(s.Healths, h)
	}
	// The controller gives every node a NodeHealth, those without accelerators too.
	s.Nodes, s.Healths = append(s.Nodes, Node{Name: "cpu-0"}, node("lone", "lab", "")), append(s.Healths, Health{Name: "cpu-0"})
	s.Remediations = append(s.Remediations, open("over", v1alpha1.PhaseSucceeded, time.Hour, ""), open("lone", v1alpha1.PhaseEscalated, 50*time.Hour, "replace the device and send the old one back; the proof is in the incident, and the ticket is with the vendor"))
	s.Policies = []v1alpha1.RemediationPolicy{policy("lab", 0, v1alpha1.ModeObserve, "nowhere"), policy("training", 100, v1alpha1.ModeRemediate, "training")}
	s.Policies[0].Status.Conditions[0] = metav1.Condition{Type: v1alpha1.ConditionAccepted, Status: metav1.ConditionFalse, Reason: "Invalid", Message: "spec.rules[0]: no"}
	since := metav1.NewTime(now.Add(-5 * time.Minute))
	s.Policies[1].Status.Brake = &v1alpha1.BrakeStatus{State: v1alpha1.BrakeHolding, Signature: "Xid79", Nodes: 9, Since: &since, ReleaseWhen: "fewer than 3 nodes show it"}
	most, none := intstr.FromString("25%"), intstr.FromInt32(1)
	s.Budgets = []v1alpha1.NodeDisruptionBudget{
		{
			ObjectMeta: metav1.ObjectMeta{Name: "per-rack"},
			Spec: v1alpha1.NodeDisruptionBudgetSpec{
				NodeSelector: metav1.LabelSelector{MatchLabels: map[string]string{"pool": "training"}}, TopologyKey: "rack", MaxUnavailable: &most,
				CountTaints: []v1alpha1.TaintMatch{{Key: "maintenance.example.com/down", Operator: corev1.TolerationOpExists}},
			},
			Status: v1alpha1.NodeDisruptionBudgetStatus{Reservations: []v1alpha1.Reservation{{Node: "gpu-09", Domain: "r1", Devices: 1}}},
		},
		{ObjectMeta: metav1.ObjectMeta{Name: "typo"}, Spec: v1alpha1.NodeDisruptionBudgetSpec{NodeSelector: metav1.LabelSelector{MatchLabels: map[string]string{"pol": "x"}}, MaxUnavailable: &none}},
		{ObjectMeta: metav1.ObjectMeta{Name: v1alpha1.ImplicitBudget}, Spec: v1alpha1.NodeDisruptionBudgetSpec{MaxUnavailable: &none}},
	}
	s.Holds = []v1alpha1.RemediationHold{
		{ObjectMeta: metav1.ObjectMeta{Name: "lapsed"}, Spec: v1alpha1.RemediationHoldSpec{Nodes: []string{"gpu-00"}, Until: &since}},
		{ObjectMeta: metav1.ObjectMeta{Name: "night-run"}, Spec: v1alpha1.RemediationHoldSpec{
			NodeSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"rack": "r0"}}, Holds: v1alpha1.HoldEverything, RequestedBy: "y.sato", Reason: "demo on Monday",
			Until: &metav1.Time{Time: now.Add(12 * time.Hour)},
		}},
	}
	return s
}

func TestStatusReadsAsItShould(t *testing.T) {
	for name, c := range map[string]struct {
		s    Snapshot
		wide bool
	}{
		"busy.txt":      {busy(), false},
		"busy-wide.txt": {busy(), true},
		"empty.txt":     {Snapshot{Now: now}, false},
	} {
		t.Run(name, func(t *testing.T) {
			st := Summarize(c.s)
			p := &text.Page{Clock: text.Clock{Now: now}}
			st.Render(p, c.wide)
			golden(t, name, p.String())
		})
	}
}

func TestCounts(t *testing.T) {
	st := Summarize(busy())
	want := Nodes{Total: 21, Healthy: 8, Faulty: 9, Unknown: 3, Acting: 1}
	if diff := cmp.Diff(want, st.Nodes); diff != "" {
		t.Errorf("nodes: a silent agent's last word is not health, and a node without accelerators is not counted (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(Coverage{Reporting: 18, Of: 21, Silent: []string{"gpu-10", "gpu-11", "lone"}}, st.Coverage); diff != "" {
		t.Errorf("coverage (-want +got):\n%s", diff)
	}
	if st.Ungoverned != 1 || st.Open != 11 {
		t.Errorf("%d ungoverned, want 1 (lone); %d open, want 11", st.Ungoverned, st.Open)
	}
}

func TestRowOf(t *testing.T) {
	quantity := resource.MustParse("8")
	for name, c := range map[string]struct {
		node corev1.Node
		want Node
	}{
		"extended resources of whole accelerators count": {
			corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "a"}, Status: corev1.NodeStatus{Capacity: corev1.ResourceList{"nvidia.com/gpu": quantity, "cpu": quantity, "nvidia.com/mig-1g.10gb": quantity}}},
			Node{Name: "a", Accelerators: 8},
		},
		"a label is enough, unless it says no": {
			corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "a", Labels: map[string]string{"nvidia.com/gpu.present": "false"}}},
			Node{Name: "a", Labels: map[string]string{"nvidia.com/gpu.present": "false"}},
		},
		"somebody else's work is named before a cordon": {
			corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "a", Annotations: map[string]string{"weave.works/kured-reboot-in-progress": "x"}}, Spec: corev1.NodeSpec{Unschedulable: true}},
			Node{Name: "a", Out: "kured"},
		},
		"a node that is not Ready is out": {
			corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "a"}, Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionUnknown}, {Type: v1alpha1.ConditionReporting, Status: corev1.ConditionFalse}}}},
			Node{Name: "a", Out: "not Ready", Reporting: corev1.ConditionFalse},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, RowOf(&c.node)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}
