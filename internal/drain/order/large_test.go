package order

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/drain"
)

const (
	// podsOfNode is how many pods run on each node of a large fleet, and gangNodes over how many nodes a gang spreads.
	podsOfNode = 20
	gangNodes  = 8
)

// largeFleet is a fleet of which every node waits, pod by pod: on each eight one-GPU pods of gangs, four Jobs, four pre-warmed
// sessions, two replicas of a service and two of DaemonSets.
type largeFleet struct {
	nodes   []string
	pods    [][]corev1.Pod
	since   []time.Time
	classes []v1alpha1.WorkloadClass
}

func newLargeFleet(size int) *largeFleet {
	r := rand.New(rand.NewPCG(7, uint64(size)))
	f := &largeFleet{classes: []v1alpha1.WorkloadClass{{Name: "prewarmed", Cost: v1alpha1.CostFree, Match: v1alpha1.WorkloadMatch{
		PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"session": "prewarmed"}}}}}}
	for i := range size {
		f.nodes = append(f.nodes, fmt.Sprintf("gpu-%05d", i))
		f.since = append(f.since, now.Add(-time.Duration(r.IntN(400))*time.Minute))
		var pods []corev1.Pod
		for j := range podsOfNode {
			pods = append(pods, podOf(i, j, r))
		}
		f.pods = append(f.pods, pods)
	}
	return f
}

// podOf is one of a node's pods.
func podOf(node, i int, r *rand.Rand) corev1.Pod {
	name := fmt.Sprintf("pod-%d-%d", node, i)
	started := metav1.NewTime(now.Add(-time.Duration(r.IntN(600)) * time.Minute))
	pod := corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ml", Name: name, UID: types.UID(name), Labels: map[string]string{}},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Resources: corev1.ResourceRequirements{
			Requests: corev1.ResourceList{"nvidia.com/gpu": *resource.NewQuantity(1, resource.DecimalSI)}}}}},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, StartTime: &started}}
	kind := "ReplicaSet"
	switch {
	case i < 8:
		kind = "Job"
		pod.Labels["jobset.sigs.k8s.io/jobset-name"] = fmt.Sprintf("train-%d", node/gangNodes)
	case i < 12:
		kind = "Job"
	case i < 16:
		pod.Labels["session"] = "prewarmed"
	case i >= 18:
		kind = "DaemonSet"
	}
	pod.OwnerReferences = []metav1.OwnerReference{{APIVersion: "batch/v1", Kind: kind, Name: "o", UID: "o", Controller: ptr.To(true)}}
	return pod
}

// plan orders the fleet from its pods: each node's drain, what it would stop, what each gang would lose, and the order. The
// controller does the first two when a node comes into the line, and the rest each time it plans.
func (f *largeFleet) plan(slots int) []Place {
	in := Input{Now: now, Patience: 6 * time.Hour}
	members := map[drain.GangRef][]*corev1.Pod{}
	each := map[drain.GangRef]int64{}
	for i, name := range f.nodes {
		p := drain.Make(drain.Input{Now: now, Pods: f.pods[i], Scope: drain.ScopeNode, Classes: f.classes})
		n := Node{Name: name, Since: f.since[i], Devices: 1}
		var gangs map[drain.GangRef]int64
		n.AtRisk, gangs = Work(&p)
		n.Gangs = IDs(gangs)
		for ref, devices := range gangs {
			each[ref] = max(each[ref], devices)
		}
		for j := range f.pods[i] {
			if ref, ok := drain.GangOf(&f.pods[i][j]); ok {
				members[ref] = append(members[ref], &f.pods[i][j])
			}
		}
		in.Nodes = append(in.Nodes, n)
	}
	for ref, pods := range members {
		loss := drain.WeighGang(now, pods, each[ref])
		in.Gangs = append(in.Gangs, Gang{ID: ref.String(), AtRisk: loss.DeviceHours, Down: loss.Down})
	}
	return Make(through(slots, slots, in))
}

func TestAFleetIsOrderedFromItsPods(t *testing.T) {
	f := newLargeFleet(3 * gangNodes)
	// One gang has just saved its work, and of another a pod no longer runs.
	for i := range gangNodes {
		for j := range 8 {
			metav1.SetMetaDataAnnotation(&f.pods[i][j].ObjectMeta, v1alpha1.AnnotationCheckpoint, now.Add(-time.Minute).Format(time.RFC3339))
		}
	}
	f.pods[2*gangNodes][0].Status.Phase = corev1.PodPending
	f.since = make([]time.Time, len(f.nodes))
	for i := range f.since {
		f.since[i] = now
	}
	// Only gangs differ: what else runs there ended a moment ago.
	for i := range f.pods {
		f.pods[i] = append(f.pods[i][:8:8], f.pods[i][12:]...)
	}
	places := f.plan(gangNodes)
	want := map[int]struct {
		nodes  string
		reason Reason
	}{0: {"gpu-00016 to gpu-00023", GangIsDown}, 1: {"gpu-00000 to gpu-00007", LeastWorkLost}, 2: {"gpu-00008 to gpu-00015", LeastWorkLost}}
	for i, w := range want {
		part := places[i*gangNodes : (i+1)*gangNodes]
		got := part[0].Node + " to " + part[gangNodes-1].Node
		if got != w.nodes || part[0].Reason != w.reason || part[0].Now != (i == 0) {
			t.Errorf("in turn %d go %s (%s, now %t), want %s (%s): %s", i, got, part[0].Reason, part[0].Now, w.nodes, w.reason, strings.Join(part[0].Gangs, " "))
		}
	}
	if risk := places[gangNodes].AtRisk; risk < 1 || risk > 1.2 {
		t.Errorf("64 devices that worked for a minute are %.2f device-hours", risk)
	}
}

// BenchmarkPlan orders a fleet from its pods, twenty a node; BenchmarkMake does so from rows that are ready, which is what the
// controller does each time it plans.
func BenchmarkPlan(b *testing.B) {
	for _, size := range []int{1250, 2500, 5000} {
		b.Run(fmt.Sprintf("nodes=%d/pods=%d", size, size*podsOfNode), func(b *testing.B) {
			f := newLargeFleet(size)
			b.ReportAllocs()
			for b.Loop() {
				if got := f.plan(size / 50); len(got) != size {
					b.Fatal(len(got))
				}
			}
		})
	}
}

func BenchmarkMake(b *testing.B) {
	for _, size := range []int{1250, 2500, 5000} {
		b.Run(fmt.Sprintf("nodes=%d", size), func(b *testing.B) {
			in := large(size)
			b.ReportAllocs()
			for b.Loop() {
				if got := Make(in); len(got) != size {
					b.Fatal(len(got))
				}
			}
		})
	}
}

// large are rows of a fleet of which every node waits.
func large(size int) Input {
	r := rand.New(rand.NewPCG(7, uint64(size)))
	in := Input{Now: now, Patience: 6 * time.Hour}
	for g := range size / gangNodes {
		in.Gangs = append(in.Gangs, Gang{ID: fmt.Sprint("ml/train-", g), AtRisk: r.Float64() * 512, Down: r.IntN(10) == 0})
	}
	for i := range size {
		n := node(fmt.Sprint("gpu-", i), devices(1+r.IntN(8)), atRisk(r.Float64()*20), waited(time.Duration(r.IntN(400))*time.Minute))
		for range 10 {
			// Most of a node's pods are of the same gang.
			n.Gangs = append(n.Gangs, in.Gangs[(i/gangNodes+r.IntN(2)*r.IntN(2))%len(in.Gangs)].ID)
		}
		in.Nodes = append(in.Nodes, n)
	}
	return through(size/50, size/50, in)
}
