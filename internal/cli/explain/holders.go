package explain

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/cli/text"
	"github.com/roundhouse-dev/roundhouse/internal/decide"
	"github.com/roundhouse-dev/roundhouse/internal/occupancy"
)

// Holder is a pod that holds bad devices.
type Holder struct {
	// Pod is namespace/name.
	Pod string `json:"pod"`
	// Devices are the IDs of the bad devices among those that it holds.
	Devices []string `json:"devices"`
}

// AsksClaims says whether pods and their claims tell who holds a bad device of the node: where an incident keeps one that DRA
// offers from new work. Otherwise nobody need read them.
func (s *Snapshot) AsksClaims() bool {
	r := s.current()
	return r != nil && !r.Status.Phase.Over() && slices.ContainsFunc(r.Status.Quarantined, func(q v1alpha1.Quarantined) bool {
		return q.Kind == v1alpha1.QuarantineDeviceTaintRule
	})
}

// holders are the pods that hold the bad devices, by name: by their claims, and by the agent's word where that is fresh and of
// this boot.
func (s *Snapshot) holders(r *v1alpha1.Remediation) []Holder {
	bad := s.badDevices(r)
	held := map[string]map[string]bool{}
	add := func(pod, device string) {
		if !bad[device] {
			return
		}
		if held[pod] == nil {
			held[pod] = map[string]bool{}
		}
		held[pod][device] = true
	}
	if r != nil {
		byClaim := occupancy.Holding(s.Claims, &decide.Snapshot{Remediation: r})
		for i := range s.Pods {
			pod := &s.Pods[i]
			if pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
				continue
			}
			for _, device := range byClaim[pod.UID] {
				add(pod.Namespace+"/"+pod.Name, device)
			}
		}
	}
	if fresh, _ := s.reporting(); fresh && s.Health != nil && s.thisBoot() {
		for _, h := range s.Health.Status.Holders {
			add(text.Clean(h.Namespace)+"/"+text.Clean(h.Pod), h.Device)
		}
	}
	var out []Holder
	for pod, devices := range held {
		out = append(out, Holder{Pod: pod, Devices: slices.Sorted(maps.Keys(devices))})
	}
	slices.SortFunc(out, func(a, b Holder) int { return cmp.Compare(a.Pod, b.Pod) })
	return out
}

// badDevices are those of the incident, else those that have a fault.
func (s *Snapshot) badDevices(r *v1alpha1.Remediation) map[string]bool {
	bad := map[string]bool{}
	if r != nil {
		for _, id := range r.Spec.Devices {
			bad[id] = true
		}
		return bad
	}
	for _, f := range s.faults(nil) {
		bad[f.Device] = f.Device != ""
	}
	return bad
}

// thisBoot says whether the agent speaks of the boot that the kubelet runs in, as far as the kubelet says.
func (s *Snapshot) thisBoot() bool {
	kubelets := ""
	if s.Node != nil {
		kubelets = s.Node.Status.NodeInfo.BootID
	}
	return kubelets == "" || strings.EqualFold(kubelets, s.Health.Status.BootID)
}

// heldBy says who holds the bad devices, in one line.
func heldBy(holders []Holder) []Fact {
	if len(holders) == 0 {
		return nil
	}
	said := make([]string, 0, len(holders))
	for _, h := range holders {
		said = append(said, h.Pod+" ("+text.Count(len(h.Devices), "device", "devices")+")")
	}
	return []Fact{{Text: "held by " + text.Bounded(said, maxHolders)}}
}

// holdersUntold says why it cannot be told who holds a bad device, beside whom heldBy names.
func (s *Snapshot) holdersUntold() []Fact {
	var out []Fact
	if s.Health != nil && s.Health.Status.HoldersUnknown != "" {
		out = append(out, Fact{Text: "who holds the bad devices: " + text.Clean(s.Health.Status.HoldersUnknown)})
	}
	if s.ClaimsUntold != "" {
		out = append(out, Fact{Text: "who holds the bad devices by a claim: " + s.ClaimsUntold})
	}
	return out
}
