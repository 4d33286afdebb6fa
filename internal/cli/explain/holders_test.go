package explain

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/decide"
	"github.com/roundhouse-dev/roundhouse/internal/occupancy"
)

const other = "GPU-4"

// claiming puts a pod on the node that was given devices by claims.
func (s *Snapshot) claiming(name string, phase corev1.PodPhase, devices ...string) {
	pod := corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ml", Name: name, UID: types.UID(name)}, Status: corev1.PodStatus{Phase: phase}}
	if s.Claims == nil {
		s.Claims = occupancy.Claims{}
	}
	for _, d := range devices {
		s.Claims[pod.UID] = append(s.Claims[pod.UID], resourcev1.DeviceRequestAllocationResult{Driver: "gpu.nvidia.com", Pool: "gpu-0417", Device: d})
	}
	s.Pods = append(s.Pods, pod)
}

// told is the agent's word of who holds bad devices of a plugin.
func told(s *Snapshot, holders ...v1alpha1.Holder) {
	at := ago(time.Minute)
	s.Health.Status.HoldersAt, s.Health.Status.Holders = &at, holders
}

func holds(device, pod, container string) v1alpha1.Holder {
	return v1alpha1.Holder{Device: device, Namespace: "ml", Pod: pod, Container: container}
}

// twoBad is an incident about two devices that DRA offers.
func twoBad(change ...func(*Snapshot, *v1alpha1.Remediation)) Snapshot {
	change = append([]func(*Snapshot, *v1alpha1.Remediation){until(12 * time.Hour), func(_ *Snapshot, r *v1alpha1.Remediation) {
		r.Spec.Devices = append(r.Spec.Devices, other)
		q := r.Status.Quarantined[0]
		q.Name, q.DeviceID, q.Device = q.Name[:len(q.Name)-1]+"1", other, "gpu-4"
		r.Status.Quarantined = append(r.Status.Quarantined, q)
	}}, change...)
	return incident(v1alpha1.PhasePending, decide.ReasonBudgetExhausted, "per-rack: 1 of 1 nodes are out", "gpu-0419 returns", change...)
}

func heldCases() map[string]Snapshot {
	plugin := faulty()
	told(&plugin, holds(bad, "train-17", "main"), holds(bad, "train-17", "side"))
	blind := faulty()
	blind.Health.Status.HoldersUnknown = "the kubelet's socket /var/lib/kubelet/pod-resources/kubelet.sock is not there"
	return map[string]Snapshot{
		"faulty-held-by-a-plugins-pod": plugin,
		"faulty-held-by-nobody-knows":  blind,
		"pending-held-by-claims": twoBad(func(s *Snapshot, _ *v1alpha1.Remediation) {
			s.claiming("train-17", corev1.PodRunning, "gpu-4", "gpu-3", "gpu-5")
			s.claiming("infer-0", corev1.PodRunning, "gpu-3")
		}),
	}
}

func TestWhoHoldsTheBadDevices(t *testing.T) {
	type change = func(*Snapshot, *v1alpha1.Remediation)
	trains := []Holder{{Pod: "ml/train-17", Devices: []string{bad}}}
	for name, tc := range map[string]struct {
		change change
		want   []Holder
	}{
		"by its claim":            {func(s *Snapshot, _ *v1alpha1.Remediation) { s.claiming("train-17", corev1.PodRunning, "gpu-3") }, trains},
		"not one that has ended":  {func(s *Snapshot, _ *v1alpha1.Remediation) { s.claiming("train-17", corev1.PodSucceeded, "gpu-3") }, nil},
		"not one on good devices": {func(s *Snapshot, _ *v1alpha1.Remediation) { s.claiming("train-17", corev1.PodRunning, "gpu-5") }, nil},
		"by the agent's word":     {func(s *Snapshot, _ *v1alpha1.Remediation) { told(s, holds(bad, "train-17", "main")) }, trains},
		"two containers are one pod": {func(s *Snapshot, _ *v1alpha1.Remediation) {
			told(s, holds(bad, "train-17", "a"), holds(bad, "train-17", "b"))
		}, trains},
		"not of a device that is not bad": {func(s *Snapshot, _ *v1alpha1.Remediation) { told(s, holds("GPU-7", "train-17", "main")) }, nil},
		"not by a word that is not fresh": {func(s *Snapshot, r *v1alpha1.Remediation) { told(s, holds(bad, "train-17", "main")); silent(s, r) }, nil},
		"not by a word of another boot": {func(s *Snapshot, _ *v1alpha1.Remediation) {
			told(s, holds(bad, "train-17", "main"))
			s.Node.Status.NodeInfo.BootID = "b9"
		}, nil},
		"by both, in the order of names": {func(s *Snapshot, _ *v1alpha1.Remediation) {
			s.claiming("a", corev1.PodRunning, "gpu-4")
			told(s, holds(bad, "train-17", "main"))
		}, append([]Holder{{"ml/a", []string{other}}}, trains...)},
		"each device of a pod counts once": {func(s *Snapshot, _ *v1alpha1.Remediation) {
			s.claiming("a", corev1.PodRunning, "gpu-4", "gpu-3", "gpu-3")
		}, []Holder{{"ml/a", []string{other, bad}}}},
	} {
		t.Run(name, func(t *testing.T) {
			w := Explain(twoBad(tc.change))
			data, err := json.Marshal(w)
			if err != nil || strings.Contains(string(data), `"holders":[{"pod":"ml/`) != (tc.want != nil) {
				t.Errorf("as JSON: %s, %v", data, err)
			}
			if diff := cmp.Diff(tc.want, w.Devices.Holders); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestWhoIsAskedForHolders(t *testing.T) {
	off := healthy()
	dra := twoBad()
	over := incident(v1alpha1.PhaseSucceeded, decide.ReasonProbationClean, "", "")
	node := incident(v1alpha1.PhaseDraining, decide.ReasonFaultsReported, "", "", func(_ *Snapshot, r *v1alpha1.Remediation) {
		r.Status.Quarantined[0].Kind = v1alpha1.QuarantineNodeTaint
	})
	if off.AsksClaims() || over.AsksClaims() || node.AsksClaims() || !dra.AsksClaims() {
		t.Error("claims are read where an open incident has a DeviceTaintRule, and nowhere else")
	}
	dra.ClaimsUntold = "you may not read pods"
	if w := Explain(dra); !slices.ContainsFunc(w.NotSeen, func(f Fact) bool { return strings.Contains(f.Text, "by a claim: you may not read pods") }) {
		t.Errorf("not seen: %v", w.NotSeen)
	}
}
