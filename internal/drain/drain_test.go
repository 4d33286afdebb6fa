package drain

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

var now = time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)

type change func(*corev1.Pod)

func pod(name, owner string, changes ...change) corev1.Pod {
	p := corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ml", Name: name, UID: types.UID(name), Labels: map[string]string{}, Annotations: map[string]string{}},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, StartTime: &metav1.Time{Time: now.Add(-2 * time.Hour)}}}
	if owner != "" {
		p.OwnerReferences = []metav1.OwnerReference{{Kind: owner, Name: owner, Controller: ptr.To(true)}}
	}
	for _, c := range changes {
		c(&p)
	}
	return p
}

func gpus(n int64) change {
	return func(p *corev1.Pod) {
		p.Spec.Containers = []corev1.Container{{Resources: corev1.ResourceRequirements{
			Requests: corev1.ResourceList{"nvidia.com/gpu": *resource.NewQuantity(n, resource.DecimalSI)}}}}
	}
}

func annotated(key, value string) change { return func(p *corev1.Pod) { p.Annotations[key] = value } }
func labelled(key, value string) change  { return func(p *corev1.Pod) { p.Labels[key] = value } }
func going(p *corev1.Pod)                { p.DeletionTimestamp = &metav1.Time{Time: now} }
func ended(p *corev1.Pod)                { p.Status.Phase = corev1.PodSucceeded }

func names(moves []Move) []string {
	var out []string
	for _, m := range moves {
		out = append(out, m.Pod.Name)
	}
	return out
}

func TestFreeWorkGoesFirst(t *testing.T) {
	prewarmed := v1alpha1.WorkloadClass{Name: "prewarmed", Cost: v1alpha1.CostFree, Match: v1alpha1.WorkloadMatch{
		PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"session": "prewarmed"}}}}
	p := Make(Input{Now: now, Scope: ScopeNode, Classes: []v1alpha1.WorkloadClass{prewarmed}, Pods: []corev1.Pod{
		pod("long-job", "Job", gpus(8)), pod("job", "Job", gpus(1)), pod("web", "ReplicaSet"), pod("idle", "ReplicaSet", labelled("session", "prewarmed")),
	}})
	if diff := cmp.Diff([]string{"idle", "web", "job", "long-job"}, names(p.Move)); diff != "" {
		t.Error(diff)
	}
	if p.Jobs != 2 || p.AtRisk != 18 || p.Idle() {
		t.Errorf("jobs %d, at risk %v", p.Jobs, p.AtRisk)
	}
}

func TestWhatStays(t *testing.T) {
	p := Make(Input{Now: now, Scope: ScopeNode, Pods: []corev1.Pod{
		pod("driver", "DaemonSet"), pod("static", "", annotated(corev1.MirrorPodAnnotationKey, "x")), pod("done", "Job", ended), pod("leaving", "Job", going),
	}})
	got := map[string]string{}
	for _, l := range p.Left {
		got[l.Pod.Name] = l.Reason
	}
	if diff := cmp.Diff(map[string]string{"driver": ReasonDaemonSet, "static": ReasonMirror, "done": ReasonFinished}, got); diff != "" {
		t.Error(diff)
	}
	if len(p.Move) != 0 || len(p.Terminating) != 1 || p.Empty() || !p.Idle() {
		t.Errorf("%+v", p)
	}
}

// A label is anybody's to put on: it keeps a pod where it is only beside what a tenant cannot have.
func TestThePodsOfTheRepairStay(t *testing.T) {
	const home = "roundhouse-system"
	own := func(changes ...change) corev1.Pod {
		p := pod("p", "Job", labelled(v1alpha1.LabelRemediation, "inc"), gpus(1))
		p.Namespace, p.OwnerReferences[0].APIVersion = home, "batch/v1"
		for _, c := range changes {
			c(&p)
		}
		return p
	}
	is := func(p Plan, n int) bool { return len(p.Move)+len(p.Terminating)+len(p.Blockers) == n }
	for name, tc := range map[string]struct {
		pod            corev1.Pod
		incident, home string
		stays          bool
	}{
		"a Job of this incident's":         {own(), "inc", home, true},
		"a tenant's pod with our label":    {own(func(p *corev1.Pod) { p.Namespace = "ml" }), "inc", home, false},
		"a Job of another incident's":      {own(labelled(v1alpha1.LabelRemediation, "other")), "inc", home, false},
		"no label":                         {own(func(p *corev1.Pod) { p.Labels = nil }), "inc", home, false},
		"a bare pod with our label":        {own(func(p *corev1.Pod) { p.OwnerReferences = nil }), "inc", home, false},
		"a ReplicaSet's":                   {own(func(p *corev1.Pod) { p.OwnerReferences[0].Kind = "ReplicaSet" }), "inc", home, false},
		"a Job of another group's":         {own(func(p *corev1.Pod) { p.OwnerReferences[0].APIVersion = "volcano.sh/v1" }), "inc", home, false},
		"one that goes is waited for":      {own(going), "inc", home, false},
		"where we live is not known":       {own(func(p *corev1.Pod) { p.Namespace = "" }), "inc", "", false},
		"no incident, and an empty label":  {own(labelled(v1alpha1.LabelRemediation, "")), "", home, false},
		"with a class that says it may go": {own(labelled("any", "thing")), "inc", home, true},
	} {
		t.Run(name, func(t *testing.T) {
			in := Input{Now: now, Pods: []corev1.Pod{tc.pod}, Incident: tc.incident, Home: tc.home, Holding: map[types.UID][]string{"p": {"GPU-0"}},
				BadDevices: []string{"GPU-0"}, Classes: []v1alpha1.WorkloadClass{{Name: "free", Cost: v1alpha1.CostFree, Match: v1alpha1.WorkloadMatch{
					PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"any": "thing"}}}}}}
			for _, scope := range []Scope{ScopeDevice, ScopeNode} {
				in.Scope = scope
				p := Make(in)
				if tc.stays != (p.LeftFor(ReasonOfThisRepair) == 1) || tc.stays != is(p, 0) || tc.stays != p.Empty() {
					t.Errorf("scope %s: %+v", scope, p)
				}
			}
		})
	}
}

func TestADeviceDrainTouchesOnlyTheDevicesPods(t *testing.T) {
	p := Make(Input{Now: now, Scope: ScopeDevice, BadDevices: []string{"GPU-3"},
		Holding: map[types.UID][]string{"hit": {"GPU-3"}, "both": {"GPU-3", "GPU-3"}, "spared": {"GPU-4"}},
		Pods:    []corev1.Pod{pod("hit", "Job"), pod("both", "Job"), pod("spared", "Job"), pod("none", "ReplicaSet")}})
	if diff := cmp.Diff([]string{"hit", "both"}, names(p.Move)); diff != "" {
		t.Error(diff)
	}
	if p.Move[1].AtRisk != 4 {
		t.Errorf("two devices for two hours: %v", p.Move[1].AtRisk)
	}
}

func TestWorkOnGoodDevicesWaitsForTheMoment(t *testing.T) {
	in := Input{Now: now, BadDevices: []string{"GPU-2", "GPU-3"},
		Holding: map[types.UID][]string{"whole": {"GPU-1", "GPU-3"}, "bad": {"GPU-2", "GPU-3"}, "web": {"GPU-1", "GPU-3"}},
		Pods:    []corev1.Pod{pod("whole", "Job"), pod("bad", "Job"), pod("web", "ReplicaSet")}}
	for name, tc := range map[string]struct {
		scope   Scope
		classes []v1alpha1.WorkloadClass
		want    []string
		left    int
	}{
		"what would be lost on a good device is not":      {ScopeDevice, nil, []string{"web", "bad"}, 1},
		"a class may say that it loses nothing":           {ScopeDevice, []v1alpha1.WorkloadClass{{Name: "checkpointed", Cost: v1alpha1.CostCheap}}, []string{"bad", "web", "whole"}, 0},
		"at the moment of the repair nothing of it stays": {ScopeNode, nil, []string{"web", "bad", "whole"}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			in.Scope, in.Classes = tc.scope, tc.classes
			p := Make(in)
			if diff := cmp.Diff(tc.want, names(p.Move)); diff != "" {
				t.Error(diff)
			}
			if n := p.LeftFor(ReasonGoodDevices); n != tc.left {
				t.Errorf("%d left, want %d", n, tc.left)
			}
		})
	}
}

func TestWhatAPodCosts(t *testing.T) {
	for name, tc := range map[string]struct {
		pod  corev1.Pod
		want v1alpha1.InterruptionCost
	}{
		"a pod behind a ReplicaSet is replaced at once":       {pod("p", "ReplicaSet"), v1alpha1.CostCheap},
		"a Job's pod loses its work":                          {pod("p", "Job"), v1alpha1.CostDear},
		"a gang's pod loses the gang's work":                  {pod("p", "ReplicaSet", labelled("leaderworkerset.sigs.k8s.io/name", "l")), v1alpha1.CostDear},
		"a scheduling group is a gang":                        {pod("p", "ReplicaSet", func(p *corev1.Pod) { p.Spec.SchedulingGroup = &corev1.PodSchedulingGroup{} }), v1alpha1.CostDear},
		"nothing creates a bare pod again":                    {pod("p", ""), v1alpha1.CostNever},
		"negative priority means that others may displace it": {pod("p", "Job", func(p *corev1.Pod) { p.Spec.Priority = ptr.To(int32(-1)) }), v1alpha1.CostFree},
		"an owner that asks not to be evicted is made dear":   {pod("p", "ReplicaSet", annotated(annotationSafeToEvict, "false")), v1alpha1.CostDear},
		"a virtual machine with a GPU cannot be migrated":     {launcher("nvidia.com/GA102GL_A10"), v1alpha1.CostNever},
		"nor one that was given a device by a claim": {pod("p", "VirtualMachineInstance", labelled("kubevirt.io", "virt-launcher"), func(p *corev1.Pod) {
			p.Spec.ResourceClaims = []corev1.PodResourceClaim{{Name: "gpu"}}
		}), v1alpha1.CostNever},
		"one without is KubeVirt's to migrate":         {launcher("devices.kubevirt.io/kvm"), v1alpha1.CostCheap},
		"memory in huge pages is no device":            {launcher("hugepages-2Mi"), v1alpha1.CostCheap},
		"what is not KubeVirt's is no virtual machine": {pod("p", "ReplicaSet", requesting("nvidia.com/gpu")), v1alpha1.CostCheap},
	} {
		t.Run(name, func(t *testing.T) {
			if got, class, err := costOf(&tc.pod, nil); got != tc.want || err != nil {
				t.Errorf("%s (%s), want %s", got, class, tc.want)
			}
		})
	}
}

// launcher is the pod of a virtual machine that has a resource.
func launcher(resource corev1.ResourceName) corev1.Pod {
	return pod("p", "VirtualMachineInstance", labelled("kubevirt.io", "virt-launcher"), requesting(resource))
}

func requesting(name corev1.ResourceName) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Containers = []corev1.Container{{Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{
			corev1.ResourceMemory: resource.MustParse("1Gi"), name: resource.MustParse("1")}}}}
	}
}

func TestAVirtualMachineThatCannotBeMigratedIsNamedAtOnce(t *testing.T) {
	in := Input{Now: now, Scope: ScopeNode, Pods: []corev1.Pod{launcher("nvidia.com/gpu")}}
	p := Make(in)
	if len(p.Move) > 0 || len(p.Blockers) != 1 || p.Blockers[0].Reason != ReasonCannotMigrate || !strings.Contains(p.Blockers[0].Message, "drain.classes") {
		t.Errorf("%+v", p)
	}
	in.Classes = []v1alpha1.WorkloadClass{{Name: "games", Cost: v1alpha1.CostFree, Match: v1alpha1.WorkloadMatch{OwnerKinds: []string{"VirtualMachineInstance"}}}}
	if p := Make(in); len(p.Move) != 1 || p.Move[0].Class != "games" {
		t.Errorf("%+v", p)
	}
}

func TestOfTheSameCostTheLowerPriorityGoesFirstThenTheCheaperToDelete(t *testing.T) {
	priority := func(n int32) func(*corev1.Pod) { return func(p *corev1.Pod) { p.Spec.Priority = &n } }
	deletion := func(cost string) func(*corev1.Pod) { return annotated(corev1.PodDeletionCost, cost) }
	in := Input{Now: now, Scope: ScopeNode, Pods: []corev1.Pod{
		pod("a", "ReplicaSet", priority(1000)), pod("b", "ReplicaSet", deletion("7")), pod("c", "ReplicaSet"),
		pod("d", "ReplicaSet", deletion("-3")), pod("e", "ReplicaSet", deletion("cheap")), pod("f", "ReplicaSet", deletion("99999999999")),
	}}
	if diff := cmp.Diff([]string{"d", "c", "e", "f", "b", "a"}, names(Make(in).Move)); diff != "" {
		t.Error(diff)
	}
}

func TestABarePodBlocksUntilAClassAllowsIt(t *testing.T) {
	in := Input{Now: now, Scope: ScopeNode, Pods: []corev1.Pod{pod("notebook", "")}}
	if p := Make(in); len(p.Blockers) != 1 || p.Blockers[0].Reason != ReasonUnreplicated || p.Idle() || p.Empty() {
		t.Errorf("%+v", p)
	}
	in.Classes = []v1alpha1.WorkloadClass{{Name: "notebooks", Cost: v1alpha1.CostDear, Match: v1alpha1.WorkloadMatch{Namespaces: []string{"ml"}}}}
	if p := Make(in); len(p.Move) != 1 || p.Move[0].Class != "notebooks" {
		t.Errorf("%+v", p)
	}
}

func TestACheckpointOnlyMakesWorkCheaper(t *testing.T) {
	for name, tc := range map[string]struct {
		at   string
		want float64
	}{
		"half an hour ago":                    {now.Add(-30 * time.Minute).Format(time.RFC3339), 0.5},
		"in the future counts for nothing":    {now.Add(time.Hour).Format(time.RFC3339), 2},
		"before the start counts for nothing": {now.Add(-9 * time.Hour).Format(time.RFC3339), 2},
		"not a time counts for nothing":       {"soon", 2},
	} {
		t.Run(name, func(t *testing.T) {
			p := Make(Input{Now: now, Scope: ScopeNode, Pods: []corev1.Pod{pod("job", "Job", gpus(1), annotated(v1alpha1.AnnotationCheckpoint, tc.at))}})
			if p.AtRisk != tc.want {
				t.Errorf("%v device-hours, want %v", p.AtRisk, tc.want)
			}
		})
	}
}

// Every pod has exactly one place in a plan, and the plan does not depend on the order in which pods are listed.
func TestAPlanIsAPartitionAndDeterministic(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		var pods []corev1.Pod
		owners := []string{"", "Job", "ReplicaSet", "DaemonSet"}
		for i := range r.IntN(30) {
			p := pod(fmt.Sprint("p", i), owners[r.IntN(4)], gpus(r.Int64N(9)))
			if r.IntN(5) == 0 {
				going(&p)
			}
			pods = append(pods, p)
		}
		a := Make(Input{Now: now, Scope: ScopeNode, Pods: pods})
		r.Shuffle(len(pods), func(i, j int) { pods[i], pods[j] = pods[j], pods[i] })
		b := Make(Input{Now: now, Scope: ScopeNode, Pods: pods})
		if diff := cmp.Diff(names(a.Move), names(b.Move)); diff != "" {
			t.Fatalf("seed %d: %s", seed, diff)
		}
		if n := len(a.Move) + len(a.Terminating) + len(a.Left) + len(a.Blockers); n != len(pods) && len(a.Blockers) < MaxBlockers {
			t.Fatalf("seed %d: %d of %d pods have a place", seed, n, len(pods))
		}
		if !slices.IsSortedFunc(a.Move, func(x, y Move) int { return costRank(x.Cost) - costRank(y.Cost) }) {
			t.Fatalf("seed %d: the cheapest do not go first", seed)
		}
	}
}

func TestWhoeverMayHoldABadDeviceIsLeftAloneAndCounted(t *testing.T) {
	in := Input{Now: now, Scope: ScopeDevice, BadDevices: []string{"GPU-3"}, UntoldWhy: "no kubelet socket",
		Pods: []corev1.Pod{pod("bad", "Job", gpus(8)), pod("may", "Job", gpus(1)), pod("may-and-ends", "Job", going), pod("other", "Job", gpus(1)),
			pod("may-and-ended", "Job", ended)},
		Holding: map[types.UID][]string{"bad": {"GPU-3"}, "other": {"GPU-4"}},
		Untold:  map[types.UID]bool{"bad": true, "may": true, "may-and-ends": true, "may-and-ended": true}}
	p := Make(in)
	if diff := cmp.Diff([]string{"bad"}, names(p.Move)); diff != "" {
		t.Error(diff)
	}
	if p.Untold != 1 || p.UntoldWhy != "no kubelet socket" || len(p.Terminating) != 1 || len(p.Left) != 3 {
		t.Errorf("%+v", p)
	}
	// It holds eight, of which one is known to be bad.
	if p.AtRisk != 16 {
		t.Errorf("%v device-hours, want 16", p.AtRisk)
	}
	in.Scope = ScopeNode
	if p := Make(in); p.Untold != 0 || p.UntoldWhy != "" || len(p.Move) != 3 {
		t.Errorf("whoever it is goes with the node: %+v", p)
	}
}
