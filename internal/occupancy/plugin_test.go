package occupancy

import (
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
	"github.com/roundhouse-dev/roundhouse/internal/decide"
)

const bad = "GPU-bad"

// seen is when the fault was seen.
var seen = time.Date(2026, 11, 23, 1, 14, 0, 0, time.UTC)

const gpuResource = "nvidia.com/gpu"

// onPlugin is a running pod of a Job that asked a device plugin for so many.
func onPlugin(name string, count string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ml", Name: name, UID: types.UID(name),
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "batch/v1", Kind: "Job", Name: name, UID: types.UID("job-" + name), Controller: ptr.To(true)}}},
		Spec: corev1.PodSpec{NodeName: "n", Containers: []corev1.Container{{Name: "main", Resources: corev1.ResourceRequirements{
			Requests: corev1.ResourceList{gpuResource: resource.MustParse(count)}}}}},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, StartTime: &metav1.Time{Time: seen.Add(-time.Hour)}},
	}
}

// tells gives a pod's status the devices that its container was given.
func tells(pod *corev1.Pod, name corev1.ResourceName, ids ...string) *corev1.Pod {
	r := corev1.ResourceStatus{Name: name}
	for _, id := range ids {
		r.Resources = append(r.Resources, corev1.ResourceHealth{ResourceID: corev1.ResourceID(id), Health: corev1.ResourceHealthStatusUnhealthy})
	}
	if len(pod.Status.ContainerStatuses) == 0 {
		pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "main"}}
	}
	st := &pod.Status.ContainerStatuses[0]
	st.AllocatedResourcesStatus = append(st.AllocatedResourcesStatus, r)
	return pod
}

func changed(pod *corev1.Pod, change func(*corev1.Pod)) corev1.Pod {
	change(pod)
	return *pod
}

// told is a snapshot of a plugin's node whose agent has told that nobody but "a" holds the bad device.
func told() *decide.Snapshot {
	s := &decide.Snapshot{Now: seen, Node: &corev1.Node{}, Health: &v1alpha1.NodeHealth{}, Reporting: true,
		Remediation: &v1alpha1.Remediation{Spec: v1alpha1.RemediationSpec{Devices: []string{bad}}}}
	s.Health.Status = v1alpha1.NodeHealthStatus{BootID: "b1", Devices: []v1alpha1.Device{{ID: bad}, {ID: "GPU-1"}},
		Faults: []v1alpha1.Fault{{Code: "Xid79", Device: bad, Class: v1alpha1.ClassHardware, Severity: v1alpha1.SeverityCritical}}}
	s.Node.Status.NodeInfo.BootID = "b1"
	s.Health.Status.HoldersAt = &metav1.Time{Time: seen}
	s.Health.Status.Holders = []v1alpha1.Holder{{Device: bad, Namespace: "ml", Pod: "a", Container: "main"}, {Device: bad, Namespace: "ml", Pod: "a", Container: "side"}}
	return s
}

func TestWhichPodHoldsWhichDeviceOfAPlugin(t *testing.T) {
	nothing := func(*decide.Snapshot) {}
	for name, tc := range map[string]struct {
		pod  corev1.Pod
		say  func(*decide.Snapshot)
		held []string
		why  string // empty where it is known
	}{
		"the agent lists it":                  {*onPlugin("a", "1"), nothing, []string{bad}, ""},
		"the agent does not list it":          {*onPlugin("b", "1"), nothing, nil, ""},
		"another namespace's pod of the name": {changed(onPlugin("a", "1"), func(p *corev1.Pod) { p.Namespace = "x" }), nothing, nil, ""},
		"it asks for no device":               {changed(onPlugin("b", "1"), func(p *corev1.Pod) { p.Spec.Containers[0].Resources = corev1.ResourceRequirements{} }), func(s *decide.Snapshot) { s.Reporting = false }, nil, ""},
		"it asks for a network's port only": {changed(onPlugin("b", "1"), func(p *corev1.Pod) {
			p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{"rdma/hca": resource.MustParse("1")}
		}), func(s *decide.Snapshot) { s.Reporting = false }, nil, ""},
		"it has ended":                       {changed(onPlugin("b", "1"), func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }), func(s *decide.Snapshot) { s.Reporting = false }, nil, ""},
		"it was created anew under its name": {changed(onPlugin("a", "1"), func(p *corev1.Pod) { p.Status.StartTime = &metav1.Time{Time: seen.Add(time.Second)} }), nothing, nil, "since they started"},
		"it has not started":                 {changed(onPlugin("a", "1"), func(p *corev1.Pod) { p.Status.StartTime = nil }), nothing, nil, "since they started"},
		"the agent is silent":                {*onPlugin("a", "1"), func(s *decide.Snapshot) { s.Reporting = false }, nil, "not fresh"},
		"there is no word at all":            {*onPlugin("a", "1"), func(s *decide.Snapshot) { s.Health = nil }, nil, "not fresh"},
		"the node has started since":         {*onPlugin("a", "1"), func(s *decide.Snapshot) { s.Node.Status.NodeInfo.BootID = "b2" }, nil, "another boot"},
		"an agent that does not tell":        {*onPlugin("a", "1"), func(s *decide.Snapshot) { s.Health.Status.HoldersAt, s.Health.Status.Holders = nil, nil }, nil, "does not say"},
		"the kubelet could not be asked": {*onPlugin("a", "1"), func(s *decide.Snapshot) {
			s.Health.Status.HoldersAt, s.Health.Status.Holders, s.Health.Status.HoldersUnknown = nil, nil, "no kubelet socket"
		}, nil, "no kubelet socket"},
		"it holds it, whoever else may":         {*onPlugin("a", "1"), func(s *decide.Snapshot) { s.Health.Status.HoldersUnknown = `"3" of x/y` }, []string{bad}, `"3" of x/y`},
		"it may be the one":                     {*onPlugin("b", "1"), func(s *decide.Snapshot) { s.Health.Status.HoldersUnknown = `"3" of x/y` }, nil, `"3" of x/y`},
		"the bad device has no fault any more":  {*onPlugin("b", "1"), func(s *decide.Snapshot) { s.Health.Status.Faults = nil }, nil, bad + " has no fault now"},
		"the fault is an application's":         {*onPlugin("b", "1"), func(s *decide.Snapshot) { s.Health.Status.Faults[0].Class = v1alpha1.ClassApplication }, nil, "has no fault now"},
		"its own status says so, and is enough": {*tells(onPlugin("b", "1"), gpuResource, bad), func(s *decide.Snapshot) { s.Reporting = false }, []string{bad}, ""},
		"its own status says another":           {*tells(onPlugin("a", "1"), gpuResource, "GPU-1"), nothing, []string{"GPU-1"}, ""},
		"its own status tells half":             {*tells(onPlugin("b", "2"), gpuResource, bad), func(s *decide.Snapshot) { s.Reporting = false }, []string{bad}, "not fresh"},
		"its own status is not understood":      {*tells(onPlugin("a", "1"), gpuResource, "3"), nothing, []string{bad}, ""},
		"its own status is of a claim":          {*tells(onPlugin("b", "1"), "claim:gpus", "gpu.nvidia.com/n/"+bad), func(s *decide.Snapshot) { s.Reporting = false }, nil, "not fresh"},
		"a replica in its own status":           {*tells(onPlugin("b", "2"), gpuResource, bad+"::1", bad+"::2"), func(s *decide.Snapshot) { s.Reporting = false }, []string{bad}, ""},
		"a sidecar that was given one": {changed(onPlugin("b", "1"), func(p *corev1.Pod) {
			p.Spec.InitContainers, p.Spec.Containers = p.Spec.Containers, nil
			p.Status.InitContainerStatuses = tells(onPlugin("x", "1"), gpuResource, bad).Status.ContainerStatuses
		}), func(s *decide.Snapshot) { s.Reporting = false }, []string{bad}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := told()
			tc.say(s)
			held := map[types.UID][]string{}
			untold, why := byPlugin([]corev1.Pod{tc.pod}, s, held)
			if diff := cmp.Diff(tc.held, held[tc.pod.UID]); diff != "" {
				t.Errorf("held (-want +got):\n%s", diff)
			}
			if untold[tc.pod.UID] != (tc.why != "") || !strings.Contains(why, tc.why) || (tc.why == "" && why != "") {
				t.Errorf("untold %v: %q, want %q", untold, why, tc.why)
			}
		})
	}
}

// A claim and a device plugin: what each gave counts.
func TestWhatAPluginGaveIsAddedToWhatDRAGave(t *testing.T) {
	held := map[types.UID][]string{"a": {"GPU-1", bad}}
	byPlugin([]corev1.Pod{*onPlugin("a", "1")}, told(), held)
	if diff := cmp.Diff([]string{"GPU-1", bad}, held["a"]); diff != "" {
		t.Error(diff)
	}
}
