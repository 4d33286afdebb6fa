package drain

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

func scheduledWith(group *string) change {
	return func(p *corev1.Pod) { p.Spec.SchedulingGroup = &corev1.PodSchedulingGroup{PodGroupName: group} }
}

func TestHowGangsAreKnown(t *testing.T) {
	tests := map[string]struct {
		pod  corev1.Pod
		want string
		is   bool
	}{
		"by their PodGroup":                     {pod("a", "Job", scheduledWith(ptr.To("train"))), "ml/train", true},
		"a PodGroup goes before a label":        {pod("a", "Job", scheduledWith(ptr.To("train")), labelled("volcano.sh/job-name", "v")), "ml/train", true},
		"without a name it is one all the same": {pod("a", "Job", scheduledWith(nil)), "", true},
		"by JobSet's label":                     {pod("a", "Job", labelled("jobset.sigs.k8s.io/jobset-name", "js")), "ml/js", true},
		"by LeaderWorkerSet's":                  {pod("a", "StatefulSet", labelled("leaderworkerset.sigs.k8s.io/name", "lws")), "ml/lws", true},
		"by Kueue's":                            {pod("a", "Job", labelled("kueue.x-k8s.io/pod-group-name", "k")), "ml/k", true},
		"by the co-scheduling plugin's":         {pod("a", "Job", labelled("scheduling.x-k8s.io/pod-group", "c")), "ml/c", true},
		"by Volcano's":                          {pod("a", "Job", labelled("volcano.sh/job-name", "v")), "ml/v", true},
		"an empty label is none":                {pod("a", "Job", labelled("volcano.sh/job-name", "")), "", false},
		"a Job alone is none":                   {pod("a", "Job"), "", false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			ref, named := GangOf(&tt.pod)
			if named != (tt.want != "") || named && ref.String() != tt.want || Gang(&tt.pod) != tt.is {
				t.Errorf("got %s, %t; a gang %t", ref, named, Gang(&tt.pod))
			}
			if named && !ref.Has(&tt.pod) {
				t.Error("its own pod is not of it")
			}
		})
	}
	one, other := pod("a", "Job", labelled("volcano.sh/job-name", "v")), pod("b", "Job", labelled("jobset.sigs.k8s.io/jobset-name", "v"))
	if ref, _ := GangOf(&one); ref.Has(&other) {
		t.Error("two systems may call their gangs the same")
	}
}

func TestWhatAGangWouldLose(t *testing.T) {
	member := func(changes ...change) corev1.Pod { return pod("m", "Job", changes...) }
	ran := func(h float64) change {
		return func(p *corev1.Pod) {
			p.Status.StartTime = &metav1.Time{Time: now.Add(-time.Duration(h * float64(time.Hour)))}
		}
	}
	tests := map[string]struct {
		pods []corev1.Pod
		want float64
		down bool
	}{
		"nothing, where there is none":                      {nil, 0, false},
		"its devices times how long it ran":                 {[]corev1.Pod{member(gpus(8), ran(3)), member(gpus(8), ran(3))}, 48, false},
		"as many devices a pod as another was seen to hold": {[]corev1.Pod{member(ran(3))}, 12, false},
		"since its last checkpoint":                         {[]corev1.Pod{member(gpus(8), ran(3), annotated(v1alpha1.AnnotationCheckpoint, now.Add(-time.Hour).Format(time.RFC3339)))}, 8, false},
		"but not since one that is still to come":           {[]corev1.Pod{member(gpus(8), ran(3), annotated(v1alpha1.AnnotationCheckpoint, now.Add(time.Hour).Format(time.RFC3339)))}, 24, false},
		"nothing, where one of its pods is going":           {[]corev1.Pod{member(gpus(8), ran(3)), member(going)}, 0, true},
		"nothing, where one has not started":                {[]corev1.Pod{member(gpus(8), ran(3)), member(func(p *corev1.Pod) { p.Status.Phase = corev1.PodPending })}, 0, true},
		"one that has succeeded is done":                    {[]corev1.Pod{member(gpus(8), ran(3)), member(gpus(8), ran(9), func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded })}, 24, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := WeighGang(now, pointers(tt.pods), 4); got.DeviceHours != tt.want || got.Down != tt.down {
				t.Errorf("got %+v", got)
			}
		})
	}
}

func pointers(pods []corev1.Pod) []*corev1.Pod {
	var out []*corev1.Pod
	for i := range pods {
		out = append(out, &pods[i])
	}
	return out
}

func TestHowAGangsLossComesAbout(t *testing.T) {
	member := func(node string, ran float64, changes ...change) corev1.Pod {
		began := func(p *corev1.Pod) {
			p.Spec.NodeName, p.Status.StartTime = node, &metav1.Time{Time: now.Add(-time.Duration(ran * float64(time.Hour)))}
		}
		return pod("m", "Job", append([]change{began}, changes...)...)
	}
	kept := func(ago time.Duration) change {
		return annotated(v1alpha1.AnnotationCheckpoint, now.Add(-ago).Format(time.RFC3339))
	}
	for name, tc := range map[string]struct {
		pods []corev1.Pod
		want GangLoss
	}{
		"nothing of nothing": {nil, GangLoss{}},
		"all since the same checkpoint": {[]corev1.Pod{member("a", 9, gpus(8), kept(2*time.Hour)), member("b", 9, gpus(8), kept(2*time.Hour))},
			GangLoss{Pods: 2, Nodes: 2, Checkpointed: 2, Devices: 16, Shortest: 2, Longest: 2, DeviceHours: 32}},
		"two pods of one node, of which one is not known": {[]corev1.Pod{member("a", 1, gpus(8)), member("a", 3)},
			GangLoss{Pods: 2, Nodes: 1, Devices: 12, Shortest: 1, Longest: 3, DeviceHours: 20}},
		"one with a checkpoint, one without": {[]corev1.Pod{member("a", 3, gpus(2), kept(30*time.Minute)), member("b", 3, gpus(2))},
			GangLoss{Pods: 2, Nodes: 2, Checkpointed: 1, Devices: 4, Shortest: 0.5, Longest: 3, DeviceHours: 7}},
		"what has succeeded is not of it": {[]corev1.Pod{member("a", 3, gpus(2)), member("b", 9, gpus(2), ended)},
			GangLoss{Pods: 1, Nodes: 1, Devices: 2, Shortest: 3, Longest: 3, DeviceHours: 6}},
		"one that is down counts nothing": {[]corev1.Pod{member("a", 3, gpus(2)), member("b", 9, gpus(2), going)}, GangLoss{Down: true}},
		"one that has no start yet has lost nothing": {[]corev1.Pod{member("a", 3, gpus(2), func(p *corev1.Pod) { p.Status.StartTime = nil })},
			GangLoss{Pods: 1, Nodes: 1, Devices: 2}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, WeighGang(now, pointers(tc.pods), 4)); diff != "" {
				t.Errorf("loss (-want +got):\n%s", diff)
			}
		})
	}
}
