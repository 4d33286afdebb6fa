package plan

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/cli/explain"
	"github.com/roundhouse-dev/roundhouse/internal/cli/text"
	"github.com/roundhouse-dev/roundhouse/internal/occupancy"
)

// Asked at 10:14 in Tokyo.
var (
	now  = time.Date(2026, 11, 23, 1, 14, 0, 0, time.UTC)
	zone = time.FixedZone("JST", 9*60*60)
)

const driver = "gpu.example.com"

func id(slot int) string { return fmt.Sprintf("GPU-%d", slot) }

// node is one of eight devices that DRA offers, in service, under a policy with every kind of rung. A job holds device 3, a
// gang's pod devices 4 and 5, a service's pod device 6; a bare pod and a DaemonSet's hold none.
func node() Snapshot {
	s := Snapshot{Snapshot: explain.Snapshot{Now: now, Name: "gpu-17",
		Node: &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "gpu-17", UID: "node-uid"}, Status: corev1.NodeStatus{
			Conditions: []corev1.NodeCondition{{Type: v1alpha1.ConditionReporting, Status: corev1.ConditionTrue}}}},
		Health: &v1alpha1.NodeHealth{Spec: v1alpha1.NodeHealthSpec{NodeUID: "node-uid"}, Status: v1alpha1.NodeHealthStatus{Summary: v1alpha1.SummaryHealthy,
			BootID: "b1", SupportedActions: []v1alpha1.ActionType{v1alpha1.ActionReboot, v1alpha1.ActionResetDevice}}},
		Policies: []v1alpha1.RemediationPolicy{*thePolicy()}, Claims: occupancy.Claims{}}}
	slice := resourcev1.ResourceSlice{Spec: resourcev1.ResourceSliceSpec{Driver: driver, Pool: resourcev1.ResourcePool{Name: "gpu-17", Generation: 1}}}
	for i := range 8 {
		s.Health.Status.Devices = append(s.Health.Status.Devices, v1alpha1.Device{ID: id(i), Slot: fmt.Sprint(i), Model: "H200", Health: v1alpha1.DeviceHealthy})
		slice.Spec.Devices = append(slice.Spec.Devices, resourcev1.Device{Name: fmt.Sprintf("gpu-%d", i),
			Attributes: map[resourcev1.QualifiedName]resourcev1.DeviceAttribute{"uuid": {StringValue: ptr.To(id(i))}}})
	}
	s.Slices = []resourcev1.ResourceSlice{slice}
	s.pod("train-a", "Job", 2*time.Hour, 3)
	s.pod("gang-0", "Job", 5*time.Hour, 4, 5)
	s.pod("infer-0", "ReplicaSet", time.Hour, 6)
	s.pod("exporter", "DaemonSet", time.Hour)
	s.pod("bare", "", time.Hour)
	return s
}

// pod puts a pod on the node that has run for so long, and holds devices.
func (s *Snapshot) pod(name, owner string, ran time.Duration, devices ...int) {
	p := corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ml", Name: name, UID: types.UID(name)},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, StartTime: &metav1.Time{Time: now.Add(-ran)}}}
	if owner != "" {
		p.OwnerReferences = []metav1.OwnerReference{{Kind: owner, Name: name, Controller: ptr.To(true)}}
	}
	for _, d := range devices {
		s.Claims[p.UID] = append(s.Claims[p.UID], resourcev1.DeviceRequestAllocationResult{Driver: driver, Pool: "gpu-17", Device: fmt.Sprintf("gpu-%d", d)})
	}
	s.Pods = append(s.Pods, p)
}

func thePolicy() *v1alpha1.RemediationPolicy {
	return &v1alpha1.RemediationPolicy{ObjectMeta: metav1.ObjectMeta{Name: "training", UID: "p"}, Spec: v1alpha1.RemediationPolicySpec{
		Mode: v1alpha1.ModeRemediate,
		Rules: []v1alpha1.Rule{
			{Name: "application", Match: v1alpha1.RuleMatch{Classes: []v1alpha1.FaultClass{v1alpha1.ClassApplication}}, Response: v1alpha1.ResponseIgnore},
			{Name: "warnings", Match: v1alpha1.RuleMatch{Severities: []v1alpha1.Severity{v1alpha1.SeverityWarning}}, Response: v1alpha1.ResponseQuarantine},
			{Name: "one-bad-device", Match: v1alpha1.RuleMatch{Scope: v1alpha1.ScopeDevice}, Response: v1alpha1.ResponseRepair,
				Ladder: []string{"driver", "reset", "reboot", "power", "mend", "send-back"}},
			{Name: "node", Match: v1alpha1.RuleMatch{Any: true}, Response: v1alpha1.ResponseRepair, Ladder: []string{"reboot", "send-back"}},
		},
		Rungs: []v1alpha1.Rung{
			{Name: "driver", Action: v1alpha1.RungRestartDriver, Drain: v1alpha1.DrainNothing},
			{Name: "reset", Action: v1alpha1.RungResetDevice},
			{Name: "reboot", Action: v1alpha1.RungReboot, Attempts: ptr.To(int32(2))},
			{Name: "power", Action: v1alpha1.RungPowerCycle},
			{Name: "mend", Action: v1alpha1.RungRunJob},
			{Name: "send-back", Action: v1alpha1.RungEscalate, Message: "replace it"},
		}}}
}

// fault is a fault that the agent reports.
func (s *Snapshot) fault(code string, slot int, severity v1alpha1.Severity, recommended v1alpha1.Recommendation) {
	f := v1alpha1.Fault{Code: code, Check: "kernel-log", Class: v1alpha1.ClassHardware, Severity: severity, Recommended: recommended,
		FirstSeen: metav1.NewTime(now.Add(-time.Hour)), Root: true}
	if slot >= 0 {
		f.Device = id(slot)
		s.Health.Status.Devices[slot].Health = v1alpha1.DeviceUnhealthy
	}
	s.Health.Status.Faults = append(s.Health.Status.Faults, f)
}

// incident opens one about device 3.
func (s *Snapshot) incident(attempts ...v1alpha1.Attempt) *v1alpha1.Remediation {
	s.fault("Xid79", 3, v1alpha1.SeverityCritical, v1alpha1.RecommendResetDevice)
	s.Remediations = append(s.Remediations, v1alpha1.Remediation{ObjectMeta: metav1.ObjectMeta{Name: "gpu-17-abc"},
		Spec: v1alpha1.RemediationSpec{Node: "gpu-17", NodeUID: "node-uid", Devices: []string{id(3)},
			Root: v1alpha1.RootFault{Code: "Xid79", Device: id(3), FirstSeen: metav1.NewTime(now.Add(-time.Hour))}},
		Status: v1alpha1.RemediationStatus{Phase: v1alpha1.PhasePending, Reason: "BudgetExhausted", Message: "per-rack: 1 of 1 nodes are out", Attempts: attempts}})
	return &s.Remediations[len(s.Remediations)-1]
}

func tried(rung string, index int32, result v1alpha1.AttemptResult) v1alpha1.Attempt {
	return v1alpha1.Attempt{Rung: rung, Index: index, At: metav1.NewTime(now.Add(-time.Minute)), Result: result}
}

func TestPlans(t *testing.T) {
	for name, change := range map[string]func(*Snapshot){
		"healthy":                      func(*Snapshot) {},
		"healthy, one device assumed":  func(s *Snapshot) { s.Assume = []string{"3"} },
		"healthy, a gang's device":     func(s *Snapshot) { s.Assume = []string{id(4)} },
		"healthy, two devices assumed": func(s *Snapshot) { s.Assume = []string{"3", id(6), "3"} },
		"an incident":                  func(s *Snapshot) { s.incident() },
		"an incident, and one more":    func(s *Snapshot) { s.incident(); s.Assume = []string{"3", "6"} },
		"an incident that climbed": func(s *Snapshot) {
			s.incident(tried("reset", 1, v1alpha1.AttemptNotRepaired), tried("reboot", 2, v1alpha1.AttemptNotRepaired))
		},
		"an incident that relapsed": func(s *Snapshot) { s.incident(tried("reset", 1, v1alpha1.AttemptRelapsed)) },
		"an incident at the limit": func(s *Snapshot) {
			s.incident(tried("reset", 1, v1alpha1.AttemptNotRepaired))
			s.Policies[0].Spec.Loop = &v1alpha1.Loop{MaxRepairs: ptr.To(int32(1))}
		},
		"an agent that cannot reset": func(s *Snapshot) {
			s.incident()
			s.Health.Status.SupportedActions = []v1alpha1.ActionType{v1alpha1.ActionReboot}
		},
		"no agent": func(s *Snapshot) { s.incident(); s.Health = nil },
		"devices that reset together": func(s *Snapshot) {
			s.incident()
			s.Health.Status.Devices[3].ResetDomain, s.Health.Status.Devices[6].ResetDomain = "sw", "sw"
		},
		"more bad than is worth keeping": func(s *Snapshot) {
			s.incident()
			s.Policies[0].Spec.Devices = &v1alpha1.DeviceRatio{KeepServing: &v1alpha1.KeepServing{UpTo: intstr.FromInt32(1)}}
			s.Assume = []string{"6"}
		},
		"a fault without an incident":   func(s *Snapshot) { s.fault("Xid48", 4, v1alpha1.SeverityCritical, v1alpha1.RecommendReboot) },
		"a fault of the node":           func(s *Snapshot) { s.fault("KernelDeadlock", -1, v1alpha1.SeverityCritical, v1alpha1.RecommendReboot) },
		"a rule that quarantines":       func(s *Snapshot) { s.fault("Slow", 4, v1alpha1.SeverityWarning, v1alpha1.RecommendNone) },
		"in Observe":                    func(s *Snapshot) { s.incident(); s.Policies[0].Spec.Mode = v1alpha1.ModeObserve },
		"no policy":                     func(s *Snapshot) { s.Policies = nil },
		"no policy, one device assumed": func(s *Snapshot) { s.Policies = nil; s.Assume = []string{"3"} },
		"policies that tie": func(s *Snapshot) {
			other := thePolicy()
			other.Name, other.UID = "other", "o"
			s.Policies = append(s.Policies, *other)
		},
		"rules that match other faults": func(s *Snapshot) {
			s.Policies[0].Spec.Rules = s.Policies[0].Spec.Rules[2:3]
			s.Policies[0].Spec.Rules[0].Match.Codes = []string{"Xid79"}
			s.Assume = []string{"3"}
		},
		"rules that repair nothing": func(s *Snapshot) { s.Policies[0].Spec.Rules = s.Policies[0].Spec.Rules[:2]; s.Assume = []string{"3"} },
		"a device plugin's pods": func(s *Snapshot) {
			s.incident()
			s.Slices, s.Claims = nil, occupancy.Claims{}
			s.Pods[0].Spec.Containers = []corev1.Container{{Name: "main", Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{"nvidia.com/gpu": resource.MustParse("1")}}}}
		},
		"a pod that goes already": func(s *Snapshot) { s.incident(); s.Pods[0].DeletionTimestamp = &metav1.Time{Time: now} },
	} {
		t.Run(name, func(t *testing.T) {
			s := node()
			change(&s)
			p, err := Make(s)
			if err != nil {
				t.Fatal(err)
			}
			p.Server = p.Asked()
			page := &text.Page{Clock: text.Clock{Now: now, Zone: zone}}
			p.Render(page, false)
			golden(t, name, page.String())
			if _, err := json.Marshal(p); err != nil {
				t.Error(err)
			}
		})
	}
}

// golden compares with a file; UPDATE_GOLDEN=1 writes it.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", strings.NewReplacer(" ", "-", ",", "", "'", "").Replace(name)+".txt")
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("UPDATE_GOLDEN=1 writes %s (-want +got):\n%s", file, diff)
	}
}

func TestADeviceThatTheNodeDoesNotHave(t *testing.T) {
	s := node()
	s.Assume = []string{"GPU-9"}
	_, err := Make(s)
	var unknown *UnknownDeviceError
	if !errors.As(err, &unknown) || !strings.Contains(err.Error(), "--device GPU-9: node gpu-17 has no such device; it has GPU-0, GPU-1, GPU-2, GPU-3 and 4 more") {
		t.Error(err)
	}
	s.Health, s.Slices = nil, nil
	if _, err := Make(s); err == nil || !strings.Contains(err.Error(), "no device of node gpu-17 is known") {
		t.Error(err)
	}
}

// TestAPlanFollowsTheExpressionsOfClasses: as the controller does, by the same compiled text.
func TestAPlanFollowsTheExpressionsOfClasses(t *testing.T) {
	s := node()
	s.Policies[0].Spec.Drain = &v1alpha1.Drain{Classes: []v1alpha1.WorkloadClass{
		{Name: "spare", Cost: v1alpha1.CostFree, Match: v1alpha1.WorkloadMatch{Expression: "owner.kind == 'Job' && pod.name.startsWith('train')"}},
		{Name: "tiers", Cost: v1alpha1.CostDear, Match: v1alpha1.WorkloadMatch{OwnerKinds: []string{"ReplicaSet"}, Expression: "pod.labels['tier'] == 'gold'"}}}}
	p, err := Make(s)
	if err != nil {
		t.Fatal(err)
	}
	r := p.first(EmptiesNode)
	if len(r.Moves) == 0 || r.Moves[0] != (Move{Pod: "ml/train-a", Cost: v1alpha1.CostFree, Class: "spare"}) {
		t.Errorf("moves %+v", r.Moves)
	}
	const failed = "class tiers may be meant for it, so only a human stops it: evaluating its expression: no such key: tier"
	if !slices.ContainsFunc(r.Blockers, func(b v1alpha1.Blocker) bool { return b.Pod == "ml/infer-0" && b.Message == failed }) {
		t.Errorf("blockers %+v", r.Blockers)
	}
}

// TestAPlanChangesNothingItWasMadeOf: an incident that is asked about is not the worse for it.
func TestAPlanChangesNothingItWasMadeOf(t *testing.T) {
	s := node()
	s.incident()
	s.Assume = []string{"6", "7"}
	before, faults := s.Remediations[0].DeepCopy(), slices.Clone(s.Health.Status.Faults)
	if _, err := Make(s); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, &s.Remediations[0]); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(faults, s.Health.Status.Faults); diff != "" {
		t.Error(diff)
	}
}

// TestWhatTheServerIsAskedAbout: where a device is, who holds it, and what happens to them.
func TestWhatTheServerIsAskedAbout(t *testing.T) {
	s := node()
	s.Assume = []string{"3", "4"}
	s.pod("metrics", "DaemonSet", time.Hour, 3)
	s.pod("notebook", "", time.Hour, 3)
	s.incident()
	s.pod("agent", "DaemonSet", time.Hour)
	s.Pods[len(s.Pods)-1].Labels = map[string]string{"app.kubernetes.io/name": "roundhouse-agent"}
	s.pod("mend", "Job", time.Hour, 3)
	own := &s.Pods[len(s.Pods)-1]
	own.Labels, own.OwnerReferences[0].APIVersion = map[string]string{v1alpha1.LabelRemediation: s.Remediations[0].Name}, "batch/v1"
	s.Slices[0].Spec.Devices = slices.Delete(s.Slices[0].Spec.Devices, 4, 5) // gpu-4 has gone from its slice
	p, err := Make(s)
	if err != nil {
		t.Fatal(err)
	}
	want := []DryRun{
		{DeviceID: "GPU-3", Driver: driver, Pool: "gpu-17", Device: "gpu-3", Ours: []Held{
			{"ml/mend", "left: of this repair"}, {"ml/metrics", "left: daemon set"}, {"ml/notebook", "only a human stops it"}, {"ml/train-a", "moved"}}},
		{DeviceID: "GPU-4", Failed: "no ResourceSlice of the node lists it, so no DeviceTaintRule can name it"},
	}
	if diff := cmp.Diff(want, p.Asked()); diff != "" {
		t.Error(diff)
	}
}
