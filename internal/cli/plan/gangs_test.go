package plan

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/cli/text"
	"github.com/roundhouse-dev/roundhouse/internal/drain"
)

const jobset = "jobset.sigs.k8s.io/jobset-name"

// gang makes the pod with this name one of a gang's.
func (s *Snapshot) gang(pod, name string) *corev1.Pod {
	for i := range s.Pods {
		if s.Pods[i].Name == pod {
			s.Pods[i].Labels = map[string]string{jobset: name}
			return &s.Pods[i]
		}
	}
	return nil
}

// member is a pod of a gang elsewhere, that has run for so long, and kept its work so long ago, where it ever did.
func member(gang, node string, devices int64, ran, kept time.Duration) corev1.Pod {
	p := corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ml", Name: "m", Labels: map[string]string{jobset: gang}},
		Spec:   corev1.PodSpec{NodeName: node},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, StartTime: &metav1.Time{Time: now.Add(-ran)}}}
	if devices > 0 {
		p.Spec.Containers = []corev1.Container{{Resources: corev1.ResourceRequirements{
			Requests: corev1.ResourceList{"nvidia.com/gpu": *resource.NewQuantity(devices, resource.DecimalSI)}}}}
	}
	if kept > 0 {
		p.Annotations = map[string]string{v1alpha1.AnnotationCheckpoint: now.Add(-kept).Format(time.RFC3339)}
	}
	return p
}

func TestWhichGangsAPlanWouldStop(t *testing.T) {
	ref := func(name string) drain.GangRef { return drain.GangRef{Namespace: "ml", Label: jobset, Name: name} }
	both, onNode := []Empties{EmptiesDevices, EmptiesNode}, []Empties{EmptiesNode}
	for name, tc := range map[string]struct {
		change func(*Snapshot)
		want   []Hit
	}{
		"none, where no pod is of one":                    {func(*Snapshot) {}, []Hit{}},
		"one that holds the bad device, for either drain": {func(s *Snapshot) { s.gang("gang-0", "train") }, []Hit{{ref("train"), both, 2}}},
		"one beside it, for the drain of the node":        {func(s *Snapshot) { s.gang("train-a", "train") }, []Hit{{ref("train"), onNode, 1}}},
		"two, by name": {func(s *Snapshot) { s.gang("gang-0", "z"); s.gang("train-a", "a") }, []Hit{{ref("a"), onNode, 1}, {ref("z"), both, 2}}},
		"two pods of one, by the more that one of them has": {func(s *Snapshot) { s.gang("gang-0", "z"); s.gang("train-a", "z") }, []Hit{{ref("z"), both, 2}}},
		"one that is going already":                         {func(s *Snapshot) { s.gang("train-a", "z").DeletionTimestamp = &metav1.Time{Time: now} }, []Hit{{ref("z"), onNode, 0}}},
		"none that a class makes cheap": {func(s *Snapshot) {
			s.gang("gang-0", "z")
			s.Policies[0].Spec.Drain = &v1alpha1.Drain{Classes: []v1alpha1.WorkloadClass{{Name: "c", Cost: v1alpha1.CostCheap, Match: v1alpha1.WorkloadMatch{Gang: ptr.To(true)}}}}
		}, []Hit{}},
		"none that only a human stops": {func(s *Snapshot) {
			s.gang("gang-0", "z")
			s.Policies[0].Spec.Drain = &v1alpha1.Drain{Classes: []v1alpha1.WorkloadClass{{Name: "c", Cost: v1alpha1.CostNever, Match: v1alpha1.WorkloadMatch{Gang: ptr.To(true)}}}}
		}, []Hit{}},
		"none without a name": {func(s *Snapshot) { s.gang("gang-0", "").Spec.SchedulingGroup = &corev1.PodSchedulingGroup{} }, []Hit{}},
		"none without a rung": {func(s *Snapshot) { s.gang("gang-0", "z"); s.Policies = nil }, []Hit{}},
	} {
		t.Run(name, func(t *testing.T) {
			s := node()
			s.Assume = []string{id(4)}
			tc.change(&s)
			p, err := Make(s)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, p.Hits(), cmp.AllowUnexported(Hit{})); diff != "" {
				t.Errorf("hits (-want +got):\n%s", diff)
			}
		})
	}
}

func TestWhatAGangIsSaidToLose(t *testing.T) {
	eight := func(kept time.Duration) []corev1.Pod {
		var pods []corev1.Pod
		for i := range 8 {
			pods = append(pods, member("train-17", fmt.Sprint("gpu-", i), 8, 9*time.Hour, kept))
		}
		return pods
	}
	for name, tc := range map[string]struct {
		seen Members
		want string
	}{
		"its devices times its hours": {Members{Pods: eight(2 * time.Hour)}, "64 devices on 8 nodes, 2.0 h since its last checkpoint: 128.0 device-hours would be lost"},
		"since its start":             {Members{Pods: eight(0)}, "64 devices on 8 nodes, 9.0 h since it started, without a checkpoint: 576.0 device-hours would be lost"},
		"one pod of eight kept nothing": {Members{Pods: append(eight(2 * time.Hour)[1:], eight(0)[0])},
			"64 devices on 8 nodes, 2.0 to 9.0 h since each pod's last checkpoint, or its start without one: 184.0 device-hours would be lost"},
		"as many devices as its pod here":      {Members{Pods: []corev1.Pod{member("train-17", "a", 0, time.Hour, 0)}}, "2 devices on 1 node, 1.0 h since it started, without a checkpoint: 2.0 device-hours would be lost"},
		"another gang's pods are not its":      {Members{Pods: append(eight(2*time.Hour), member("other", "x", 8, time.Hour, 0))}, "64 devices on 8 nodes, 2.0 h since its last checkpoint: 128.0 device-hours would be lost"},
		"it is down":                           {Members{Pods: append(eight(2*time.Hour), corev1.Pod{ObjectMeta: eight(0)[0].ObjectMeta}), More: true}, "one of its pods does not run, so nothing more would be lost"},
		"it has gone":                          {Members{}, "none of its pods is left"},
		"it has more pods than were looked at": {Members{Pods: eight(2 * time.Hour), More: true}, "64 devices on 8 nodes, 2.0 h since its last checkpoint: at least 128.0 device-hours would be lost, since it has more pods than were looked at"},
		"its pods could not be looked at":      {Members{Pods: eight(0), Unknown: "you may not\x1b[2J"}, "what it would lose is not known: you may not?[2J"},
	} {
		t.Run(name, func(t *testing.T) {
			s := node()
			s.Assume = []string{id(4)}
			s.gang("gang-0", "train-17")
			p, err := Make(s)
			if err != nil {
				t.Fatal(err)
			}
			for _, hit := range p.Hits() {
				p.Weigh(hit, tc.seen)
			}
			page := &text.Page{Clock: text.Clock{Now: now, Zone: zone}}
			p.Render(page, false)
			if want := "Gangs     Devices, Node: gang ml/train-17: " + tc.want + "\n"; !strings.Contains(page.String(), want) {
				t.Errorf("want %q in\n%s", want, page)
			}
		})
	}
}

func TestTheGangsOfAPlanAreBounded(t *testing.T) {
	s := node()
	for i := range 6 {
		s.pod(fmt.Sprint("m-", i), "Job", time.Hour, i)
		s.gang(fmt.Sprint("m-", i), fmt.Sprint("g-", i))
	}
	p, err := Make(s)
	if err != nil {
		t.Fatal(err)
	}
	for _, hit := range p.Hits() {
		p.Weigh(hit, Members{Unknown: "x"})
	}
	if got := p.gangs(maxNamed); len(got) != maxNamed+1 || got[maxNamed] != "and 2 more" {
		t.Errorf("%q", got)
	}
	if got := p.gangs(6); len(got) != 6 || !strings.HasPrefix(got[5], "Node: gang ml/g-5: ") {
		t.Errorf("%q", got)
	}
}

// TestWhatIsNotKnownOfAGangIsNoNumber: a program must not take it for nothing.
func TestWhatIsNotKnownOfAGangIsNoNumber(t *testing.T) {
	s := node()
	s.gang("gang-0", "a")
	s.gang("train-a", "b")
	p, err := Make(s)
	if err != nil {
		t.Fatal(err)
	}
	hits := p.Hits()
	p.Weigh(hits[0], Members{Unknown: "refused"})
	p.Weigh(hits[1], Members{Pods: slices.Repeat([]corev1.Pod{member("b", "n", 4, 3*time.Hour, time.Hour)}, 2)})
	want := []Gang{{Gang: "ml/a", Label: jobset, Empties: []Empties{EmptiesNode}, Unknown: "refused"},
		{Gang: "ml/b", Label: jobset, Empties: []Empties{EmptiesNode}, Pods: 2, Nodes: 1, Devices: 8, HoursMin: 1, HoursMax: 1, Checkpointed: 2, AtRisk: ptr.To(8.0)}}
	if diff := cmp.Diff(want, p.Gangs); diff != "" {
		t.Errorf("gangs (-want +got):\n%s", diff)
	}
}
