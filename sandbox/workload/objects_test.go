package workload

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/roundhouse-dev/roundhouse/internal/drain"
	"github.com/roundhouse-dev/roundhouse/sandbox/fleet"
)

// kindsOf names what a workload is made of.
func kindsOf(objects []client.Object) string {
	var out []string
	for _, o := range objects {
		out = append(out, strings.TrimPrefix(fmt.Sprintf("%T", o), "*")+" "+o.GetName())
	}
	return strings.Join(out, ", ")
}

func TestWhatAWorkloadIsMadeOf(t *testing.T) {
	tests := map[string]struct {
		workload    Workload
		first, rest string
	}{
		"one Job has the workload's name": {
			Workload{Kind: Jobs, Name: "one"}, "v1.Namespace ml, v1.ResourceClaimTemplate one", "v1.Job one",
		},
		"several Jobs are numbered": {
			Workload{Kind: Jobs, Name: "some", Count: 2}, "v1.Namespace ml, v1.ResourceClaimTemplate some", "v1.Job some-0, v1.Job some-1",
		},
		"a gang is one Job": {
			Workload{Kind: Gang, Name: "train"}, "v1.Namespace ml, v1.ResourceClaimTemplate train", "v1.Job train",
		},
		"a service has a disruption budget": {
			Workload{Kind: Service, Name: "infer", Count: 3}, "v1.Namespace ml, v1.ResourceClaimTemplate infer",
			"v1.Deployment infer, v1.PodDisruptionBudget infer",
		},
		"without GPUs there is nothing to claim": {
			Workload{Kind: Prewarmed, Name: "warm", GPUs: -1, Namespace: "idle"}, "v1.Namespace idle", "v1.Deployment warm",
		},
		"a device plugin needs no claim": {
			Workload{Kind: Jobs, Name: "old", DevicePlugin: true}, "v1.Namespace ml", "v1.Job old",
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			w := tc.workload.withDefaults()
			if err := w.validate(); err != nil {
				t.Fatal(err)
			}
			first, rest := objects(w)
			if diff := cmp.Diff([]string{tc.first, tc.rest}, []string{kindsOf(first), kindsOf(rest)}); diff != "" {
				t.Errorf("objects (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAWorkloadPrefersANodeAndIsNotBoundToIt(t *testing.T) {
	w := Workload{Kind: Jobs, Name: "one", Prefer: "gpu-17"}.withDefaults()
	pod := template(w).Spec
	if len(pod.NodeSelector) > 0 || pod.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution != nil {
		t.Errorf("it could not go elsewhere: %+v", pod)
	}
	term := pod.Affinity.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution[0]
	if on := term.Preference.MatchExpressions[0]; on.Key != corev1.LabelHostname || on.Values[0] != "gpu-17" || term.Weight != 100 {
		t.Errorf("prefers %+v", term)
	}
}

func TestAGangHoldsWholeNodesAndIsKnownAsOne(t *testing.T) {
	w := Workload{Kind: Gang, Name: "train", RunFor: time.Minute}.withDefaults()
	first, rest := objects(w)
	template, ok := first[1].(*resourcev1.ResourceClaimTemplate)
	if !ok || template.Spec.Spec.Devices.Requests[0].Exactly.Count != 8 {
		t.Errorf("claim %+v, want eight devices", first[1])
	}
	job, ok := rest[0].(*batchv1.Job)
	if !ok || *job.Spec.Parallelism != 8 || *job.Spec.Completions != 8 || *job.Spec.CompletionMode != batchv1.IndexedCompletion {
		t.Fatalf("job %+v, want eight indexed pods at once", rest[0])
	}
	pod := corev1.Pod{ObjectMeta: job.Spec.Template.ObjectMeta, Spec: job.Spec.Template.Spec}
	if !drain.Gang(&pod) {
		t.Errorf("Roundhouse does not know pods with labels %v for a gang's", pod.Labels)
	}
	if got := pod.Annotations[fleet.AnnotationRunFor]; got != "1m0s" {
		t.Errorf("runs for %q", got)
	}
}

func TestWorkloadsThatCannotWorkAreRefused(t *testing.T) {
	tests := map[string]Workload{
		"no name":               {Kind: Jobs},
		"no kind":               {Name: "w"},
		"a kind that is none":   {Kind: "Pods", Name: "w"},
		"too many":              {Kind: Jobs, Name: "w", Count: maxCount + 1},
		"a service that ends":   {Kind: Service, Name: "w", RunFor: time.Second},
		"less than none of it ": {Kind: Jobs, Name: "w", Count: -1},
	}
	for name, w := range tests {
		t.Run(name, func(t *testing.T) {
			if err := w.withDefaults().validate(); err == nil {
				t.Error("no error")
			}
		})
	}
}
