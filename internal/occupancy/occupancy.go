// Package occupancy says which pods hold which devices of a node, from what the API server shows of its pods, their claims,
// its ResourceSlices and the agent's word, and what a drain would move for that. It is pure: the controller drains by it, and
// kubectl roundhouse plan prints it.
package occupancy

import (
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/roundhouse-dev/roundhouse/internal/decide"
	"github.com/roundhouse-dev/roundhouse/internal/drain"
)

// holders says who holds which device, and names one pod of which that cannot be told. Pods that have ended hold nothing, and
// the incident's own are there for it.
func holders(in drain.Input) (of map[string]string, may string) {
	of = map[string]string{}
	for i := range in.Pods {
		pod := &in.Pods[i]
		if pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed || drain.OfThisRepair(in, pod) {
			continue
		}
		name := pod.Namespace + "/" + pod.Name
		for _, id := range in.Holding[pod.UID] {
			of[id] = name
		}
		if in.Untold[pod.UID] {
			may = name
		}
	}
	return of, may
}

// Seen is what one look at a node showed.
type Seen struct {
	// Pods are those bound to the node, and Claims the devices that each was given.
	Pods   []corev1.Pod
	Claims Claims
	// Namespaces are the labels of the pods' namespaces, where the policy asks for them and they could be read.
	Namespaces map[string]map[string]string
	// Home is the controller's namespace, in which the incident's own Jobs run; empty where that is not known.
	Home string
}

// NamespacesOf are the namespaces of pods, each once, in order.
func NamespacesOf(pods []corev1.Pod) []string {
	var names []string
	for i := range pods {
		names = append(names, pods[i].Namespace)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Plan plans the drains of what runs on the node, and puts them into the snapshot.
func Plan(s *decide.Snapshot, seen Seen) {
	in := drain.Input{Now: s.Now, Pods: seen.Pods, Scope: drain.ScopeNode, BadDevices: s.RepairDevices(), Holding: Holding(seen.Claims, s),
		Incident: s.Remediation.Name, Home: seen.Home, Namespaces: seen.Namespaces}
	if s.Node != nil {
		in.Conditions = s.Node.Status.Conditions
	}
	in.Untold, in.UntoldWhy = byPlugin(in.Pods, s, in.Holding)
	if p := s.Policy.Policy; p != nil && p.Spec.Drain != nil {
		in.Classes, in.Says = p.Spec.Drain.Classes, s.Policy.Says
	}
	s.Holders, s.MayHold = holders(in)
	node := drain.Make(in)
	in.Scope = drain.ScopeDevice
	device := drain.Make(in)
	in.Whole = true
	repair := drain.Make(in)
	s.NodePlan, s.DevicePlan, s.RepairPlan = &node, &device, &repair
}
