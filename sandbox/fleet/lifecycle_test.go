package fleet

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// podWith is a ready, running pod, changed.
func podWith(changes ...func(*corev1.Pod)) *corev1.Pod {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "p", Annotations: map[string]string{}},
		Spec:       corev1.PodSpec{RestartPolicy: corev1.RestartPolicyAlways, Containers: []corev1.Container{{Name: "main"}}},
		Status: corev1.PodStatus{
			Phase:      corev1.PodRunning,
			Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}},
		},
	}
	for _, change := range changes {
		change(pod)
	}
	return pod
}

func phase(p corev1.PodPhase) func(*corev1.Pod) {
	return func(pod *corev1.Pod) { pod.Status.Phase = p }
}

func annotated(key, value string) func(*corev1.Pod) {
	return func(pod *corev1.Pod) { pod.Annotations[key] = value }
}

func never(pod *corev1.Pod) { pod.Spec.RestartPolicy = corev1.RestartPolicyNever }

// deleted at noon less ago, with that grace.
func deleted(ago, grace time.Duration) func(*corev1.Pod) {
	return func(pod *corev1.Pod) {
		over := metav1.NewTime(noon.Add(grace - ago))
		seconds := int64(grace / time.Second)
		pod.DeletionTimestamp, pod.DeletionGracePeriodSeconds = &over, &seconds
	}
}

func TestWhatAKubeletDoesToAPod(t *testing.T) {
	started := func(ago time.Duration) *run { return &run{boot: 1, started: noon.Add(-ago)} }
	tests := map[string]struct {
		pod      *corev1.Pod
		run      *run
		notReady bool
		want     step
	}{
		"one that has just been bound is started": {
			pod: podWith(phase(corev1.PodPending)), want: step{move: moveStart},
		},
		"one that runs is left alone": {
			pod: podWith(), run: started(time.Hour),
		},
		"one whose program stops answering is reported": {
			pod: podWith(), run: started(time.Hour), notReady: true, want: step{move: moveReport},
		},
		"one that works for a while is looked at when its time is up": {
			pod: podWith(annotated(AnnotationRunFor, "10s")), run: started(4 * time.Second), want: step{wait: 6 * time.Second},
		},
		"one whose time is up has succeeded": {
			pod: podWith(annotated(AnnotationRunFor, "10s")), run: started(10 * time.Second), want: step{move: moveSucceed},
		},
		"one whose program ends with an error has failed": {
			pod: podWith(annotated(AnnotationRunFor, "10s"), annotated(AnnotationExitCode, "3")), run: started(10 * time.Second),
			want: step{move: moveFail, code: 3},
		},
		"one whose program keeps its work is looked at when it does": {
			pod: podWith(annotated(AnnotationKeepsEvery, "10s")), run: started(4 * time.Second), want: step{wait: 6 * time.Second},
		},
		"it says that it has kept it": {
			pod: podWith(annotated(AnnotationKeepsEvery, "10s")), run: started(10 * time.Second), want: step{move: moveKeep},
		},
		"and again so long after the last time": {
			pod: podWith(annotated(AnnotationKeepsEvery, "10s"), annotated(v1alpha1.AnnotationCheckpoint, noon.Add(-3*time.Second).Format(time.RFC3339))),
			run: started(time.Hour), want: step{wait: 7 * time.Second},
		},
		"its end comes first, where it does": {
			pod: podWith(annotated(AnnotationKeepsEvery, "10s"), annotated(AnnotationRunFor, "6s")), run: started(4 * time.Second), want: step{wait: 2 * time.Second},
		},
		"a time that nobody can read is none": {
			pod: podWith(annotated(AnnotationRunFor, "soon")), run: started(time.Hour),
		},
		"a time below zero is none": {
			pod: podWith(annotated(AnnotationRunFor, "-1s")), run: started(time.Hour),
		},
		"after a boot a container is started anew": {
			pod: podWith(), run: &run{boot: 0, started: noon}, want: step{move: moveRestart},
		},
		"after a boot a pod that may not restart has failed": {
			pod: podWith(never), run: &run{boot: 0, started: noon}, want: step{move: moveFail, reason: "NodeRebooted"},
		},
		"work that a boot interrupted is not done, however long ago it began": {
			pod: podWith(never, annotated(AnnotationRunFor, "1s")), run: &run{boot: 0, started: noon.Add(-time.Hour)},
			want: step{move: moveFail, reason: "NodeRebooted"},
		},
		"one that is deleted ends at once": {
			pod: podWith(deleted(0, 30*time.Second)), run: started(time.Hour), want: step{move: moveFail},
		},
		"one that takes its time to end gets it": {
			pod: podWith(deleted(time.Second, 30*time.Second), annotated(AnnotationStopsIn, "5s")), run: started(time.Hour),
			want: step{wait: 4 * time.Second},
		},
		"its grace bounds the time it takes": {
			pod: podWith(deleted(2*time.Second, 2*time.Second), annotated(AnnotationStopsIn, "5s")), run: started(time.Hour),
			want: step{move: moveFail},
		},
		"one that hangs outlasts its grace": {
			pod: podWith(deleted(time.Hour, time.Second), annotated(AnnotationHangs, "true")), run: started(time.Hour),
		},
		"a boot ends one that hangs": {
			pod: podWith(deleted(time.Hour, time.Second), annotated(AnnotationHangs, "true")), run: &run{boot: 0}, want: step{move: moveFail},
		},
		"one that was to end when the node went down has ended": {
			pod: podWith(deleted(0, 30*time.Second), annotated(AnnotationStopsIn, "5s")), run: &run{boot: 0}, want: step{move: moveFail},
		},
		"one that has ended and is deleted is removed": {
			pod: podWith(phase(corev1.PodFailed), deleted(0, 0)), run: started(time.Hour), want: step{move: moveRemove},
		},
		"one that has succeeded stays until somebody deletes it": {
			pod: podWith(phase(corev1.PodSucceeded)), run: started(time.Hour),
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got := next(situation{now: noon, pod: tc.pod, run: tc.run, boot: 1, ready: !tc.notReady})
			if diff := cmp.Diff(tc.want, got, cmp.AllowUnexported(step{})); diff != "" {
				t.Errorf("step (-want +got):\n%s", diff)
			}
		})
	}
}

func TestNamesAndPlacesOfNodes(t *testing.T) {
	tests := map[string]struct {
		options          Options
		index            int
		name, rack, pool string
		offers           string
	}{
		"the first of eight": {Options{}, 0, "gpu-00", "r1", "h200-training", OfferDRA},
		"the eighteenth of 64 is in the third rack": {
			Options{Nodes: 64}, 17, "gpu-17", "r3", "h200-training", OfferDRA,
		},
		"one of 512 has four digits only where the last one has": {
			Options{Nodes: 1001}, 417, "gpu-0417", "r53", "h200-training", OfferDRA,
		},
		"one of 30,000": {Options{Nodes: 30_000}, 417, "gpu-00417", "r53", "h200-training", OfferDRA},
		"pools are dealt to racks": {
			Options{Nodes: 32, Pools: []string{"a", "b"}}, 8, "gpu-08", "r2", "b", OfferDRA,
		},
		"the last nodes have a device plugin": {
			Options{Nodes: 8, DevicePlugin: 2}, 6, "gpu-06", "r1", "h200-training", OfferPlugin,
		},
		"the last but those have DRA": {
			Options{Nodes: 8, DevicePlugin: 2}, 5, "gpu-05", "r1", "h200-training", OfferDRA,
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			o := tc.options.withDefaults()
			if err := o.validate(); err != nil {
				t.Fatal(err)
			}
			got := []string{o.NodeName(tc.index), o.Rack(tc.index), o.Pool(tc.index), o.offers(tc.index)}
			if diff := cmp.Diff([]string{tc.name, tc.rack, tc.pool, tc.offers}, got); diff != "" {
				t.Errorf("name, rack, pool, offer (-want +got):\n%s", diff)
			}
		})
	}
}

func TestOptionsThatCannotWorkAreRefused(t *testing.T) {
	tests := map[string]Options{
		"no nodes":                       {Nodes: -1},
		"more nodes than there may be":   {Nodes: maxNodes + 1},
		"more GPUs than a slice holds":   {GPUs: 65},
		"more plugins than nodes":        {Nodes: 4, DevicePlugin: 5},
		"a rack of less than no nodes":   {NodesPerRack: -1},
		"less than no device-plugin one": {DevicePlugin: -1},
	}
	for name, o := range tests {
		t.Run(name, func(t *testing.T) {
			if err := o.withDefaults().validate(); err == nil {
				t.Error("no error")
			}
		})
	}
}

func TestEveryFaultHasANameOfItsOwnAndSaysWhatItDoes(t *testing.T) {
	seen := map[string]bool{}
	for _, kind := range Faults() {
		if kind.Name == "" || kind.Summary == "" || kind.inject == nil || seen[kind.Name] {
			t.Errorf("fault %q: name, summary and deed, each once: %q", kind.Name, kind.Summary)
		}
		seen[kind.Name] = true
	}
}

func TestNamesInTheSliceStayOrShift(t *testing.T) {
	o := Options{GPUs: 4}.withDefaults()
	n := newSimulated(o, 0, func(*node) {})
	there, err := n.machine.PCIDevices(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	there = append(there[:1], there[2:]...) // the second has vanished
	tests := map[string]struct {
		shift bool
		want  []string
	}{
		"a name stays with its slot":                       {false, []string{"gpu-0 GPU 0", "gpu-2 GPU 2", "gpu-3 GPU 3"}},
		"a driver that numbers what it finds shifts names": {true, []string{"gpu-0 GPU 0", "gpu-1 GPU 2", "gpu-2 GPU 3"}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, d := range n.offered(there, tc.shift) {
				got = append(got, d.name+" GPU "+d.device.Slot)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("names (-want +got):\n%s", diff)
			}
		})
	}
}

func TestNodesDifferInWhatIdentifiesThem(t *testing.T) {
	o := Options{Nodes: 2000}.withDefaults()
	seen := map[string]string{}
	for i := range o.Nodes {
		n := newSimulated(o, i, func(*node) {})
		id, err := n.machine.BootID(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, key := range []string{id, n.devices[0].UUID, n.devices[7].UUID} {
			if other, twice := seen[key]; twice {
				t.Fatalf("%s is of %s and of %s", key, other, n.name)
			}
			seen[key] = n.name
		}
	}
}
