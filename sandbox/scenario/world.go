package scenario

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

// Change is one change of one object, as a watch delivers it.
type Change struct {
	// At is when it arrived, since the scenario began.
	At time.Duration
	// Type is Added, Modified or Deleted.
	Type watch.EventType
	// Object is one of the kinds that Watched lists.
	Object metav1.Object
	// Initial says that the object was there before the scenario: it changes the world and is no fact.
	Initial bool
}

// World is the cluster as the changes so far left it. It is not safe for concurrent use.
type World struct {
	nodes     map[string]*corev1.Node
	pods      map[types.UID]*corev1.Pod
	going     map[types.UID]bool // pods whose eviction is a fact already
	incidents map[string]*v1alpha1.Remediation
	health    map[string]*v1alpha1.NodeHealth
	rules     map[string]*resourcev1.DeviceTaintRule
	budgets   map[string]*v1alpha1.NodeDisruptionBudget
	policies  map[string]*v1alpha1.RemediationPolicy
	holds     map[string]*v1alpha1.RemediationHold
	leader    string
	touched   map[string]bool // object and field that are a fact already
}

// NewWorld is a world in which nothing was seen yet.
func NewWorld() *World {
	return &World{
		nodes: map[string]*corev1.Node{}, pods: map[types.UID]*corev1.Pod{}, going: map[types.UID]bool{},
		incidents: map[string]*v1alpha1.Remediation{}, health: map[string]*v1alpha1.NodeHealth{},
		rules: map[string]*resourcev1.DeviceTaintRule{}, budgets: map[string]*v1alpha1.NodeDisruptionBudget{},
		policies: map[string]*v1alpha1.RemediationPolicy{}, holds: map[string]*v1alpha1.RemediationHold{},
		touched: map[string]bool{},
	}
}

// Observe takes one change in and returns the facts that it is.
func (w *World) Observe(c Change) []Fact {
	gone := c.Type == watch.Deleted
	var facts []Fact
	switch o := c.Object.(type) {
	case *corev1.Node:
		facts = w.node(swap(w.nodes, o.Name, o, gone), o, gone)
	case *corev1.Pod:
		facts = w.pod(swap(w.pods, o.UID, o, gone), o, gone)
	case *v1alpha1.Remediation:
		facts = w.remediation(swap(w.incidents, o.Name, o, gone), o, gone)
	case *v1alpha1.NodeHealth:
		facts = w.nodeHealth(swap(w.health, o.Name, o, gone), o, gone)
	case *resourcev1.DeviceTaintRule:
		facts = w.rule(swap(w.rules, o.Name, o, gone), o, gone)
	case *v1alpha1.RemediationPolicy:
		facts = w.policy(swap(w.policies, o.Name, o, gone), o, gone)
	case *v1alpha1.RemediationHold:
		facts = w.hold(swap(w.holds, o.Name, o, gone), o, gone)
	case *v1alpha1.NodeDisruptionBudget:
		facts = budget(swap(w.budgets, o.Name, o, gone), o, gone)
	case *coordinationv1.Lease:
		facts = w.lease(o)
	case *eventsv1.Event:
		facts = event(o, c.Type)
	}
	if c.Initial {
		return nil
	}
	source := fmt.Sprintf("%s %s@%s", kindOf(c.Object), strings.TrimPrefix(c.Object.GetNamespace()+"/"+c.Object.GetName(), "/"), c.Object.GetResourceVersion())
	for i := range facts {
		facts[i].At, facts[i].Seconds, facts[i].Source = c.At, seconds(c.At), source
	}
	return facts
}

// seconds rounds to milliseconds: what a report needs, and no more.
func seconds(d time.Duration) float64 {
	return float64(d.Round(time.Millisecond).Milliseconds()) / 1000
}

func kindOf(o metav1.Object) string {
	name := fmt.Sprintf("%T", o)
	return name[strings.LastIndex(name, ".")+1:]
}

// swap puts an object in the place of its last version, which it returns; nil where there was none.
func swap[K comparable, O any](m map[K]*O, key K, o *O, gone bool) *O {
	before := m[key]
	if gone {
		delete(m, key)
	} else {
		m[key] = o
	}
	return before
}

func fact(kind Kind, pairs ...string) Fact {
	f := Fact{Kind: kind, Fields: make(map[string]string, len(pairs)/2)}
	for i := 0; i+1 < len(pairs); i += 2 {
		f.Fields[pairs[i]] = pairs[i+1]
	}
	return f
}

// Count counts what a state says, and gives an example of it, or of what it lacks.
func (w *World) Count(s State) (int, string) {
	switch s.Kind {
	case StatePods:
		return w.countPods(s.Where)
	case StateIncidents:
		return w.countIncidents(s.Where)
	case StateHealthy:
		return w.countHealthy(s.Where)
	case StatePolicies:
		return w.countPolicies(s.Where)
	case StateOccurrences:
		return w.countOccurrences(s.Where)
	case StateLeftovers:
		found := w.leftovers(s.Where)
		return len(found), strings.Join(found[:min(len(found), 5)], "; ")
	}
	return 0, ""
}

func matchesAll(where, fields map[string]string) bool {
	for name, want := range where {
		if !valueMatches(want, fields[name]) {
			return false
		}
	}
	return true
}

func (w *World) countPods(where map[string]string) (int, string) {
	var names []string
	for _, p := range w.pods {
		phase := string(p.Status.Phase)
		if p.DeletionTimestamp != nil {
			phase = "Terminating"
		}
		if matchesAll(where, map[string]string{"node": p.Spec.NodeName, "namespace": p.Namespace, "app": app(p), "phase": phase}) {
			names = append(names, p.Namespace+"/"+p.Name+" on "+p.Spec.NodeName)
		}
	}
	return some(names)
}

func (w *World) countIncidents(where map[string]string) (int, string) {
	var names []string
	for _, r := range w.incidents {
		if matchesAll(where, map[string]string{"node": r.Spec.Node, "phase": string(r.Status.Phase)}) {
			names = append(names, fmt.Sprintf("%s %s/%s", r.Name, r.Status.Phase, r.Status.Reason))
		}
	}
	return some(names)
}

// countHealthy counts nodes whose agent says Healthy, all devices included.
func (w *World) countHealthy(where map[string]string) (int, string) {
	var names []string
	for _, h := range w.health {
		sick := slices.ContainsFunc(h.Status.Devices, func(d v1alpha1.Device) bool { return d.Health != v1alpha1.DeviceHealthy })
		if h.Status.Summary == v1alpha1.SummaryHealthy && !sick && matchesAll(where, map[string]string{"node": h.Name}) {
			names = append(names, fmt.Sprintf("%s: %d of %d devices", h.Name, len(h.Status.Devices), len(h.Status.Devices)))
		}
	}
	return some(names)
}

// countPolicies counts policies by what the controller says of their present generation.
func (w *World) countPolicies(where map[string]string) (int, string) {
	var names []string
	for _, p := range w.policies {
		accepted := ""
		if c := meta.FindStatusCondition(p.Status.Conditions, v1alpha1.ConditionAccepted); c != nil && c.ObservedGeneration == p.Generation {
			accepted = string(c.Status)
		}
		if matchesAll(where, map[string]string{"name": p.Name, "mode": string(p.Spec.Mode), "accepted": accepted}) {
			names = append(names, fmt.Sprintf("%s in %s, generation %d", p.Name, p.Spec.Mode, p.Generation))
		}
	}
	return some(names)
}

// countOccurrences adds up how often the agents say that their faults were seen.
func (w *World) countOccurrences(where map[string]string) (int, string) {
	sum := map[string]int64{}
	total := int64(0)
	for _, h := range w.health {
		for _, f := range h.Status.Faults {
			if matchesAll(where, map[string]string{"node": h.Name, "code": f.Code, "class": string(f.Class)}) {
				sum[f.Code] += f.Count
				total += f.Count
			}
		}
	}
	var text []string
	for _, code := range slices.Sorted(maps.Keys(sum)) {
		text = append(text, fmt.Sprintf("%s %d", code, sum[code]))
	}
	return int(total), strings.Join(text, ", ")
}

// some is how many there are, and the first few.
func some(names []string) (int, string) {
	slices.Sort(names)
	text := strings.Join(names[:min(len(names), 3)], ", ")
	if len(names) > 3 {
		text += fmt.Sprintf(" and %d more", len(names)-3)
	}
	return len(names), text
}

// leftovers lists what Roundhouse has put on and not taken off.
func (w *World) leftovers(where map[string]string) []string {
	var found []string
	on := func(node string) bool { return matchesAll(where, map[string]string{"node": node}) }
	for name, n := range w.nodes {
		if on(name) {
			found = append(found, leftOnNode(n)...)
		}
	}
	for _, r := range w.rules {
		if node := w.nodeOfRule(r); isOurs(r) && on(node) {
			found = append(found, fmt.Sprintf("node %s: DeviceTaintRule %s", node, r.Name))
		}
	}
	for _, b := range w.budgets {
		for _, r := range b.Status.Reservations {
			if on(r.Node) {
				found = append(found, fmt.Sprintf("node %s: slot of budget %s held by %s", r.Node, b.Name, r.Remediation))
			}
		}
	}
	for _, h := range w.health {
		if h.Spec.Action != nil && on(h.Name) && !actionOver(h) {
			found = append(found, fmt.Sprintf("node %s: action %s still asked for", h.Name, h.Spec.Action.ID))
		}
	}
	slices.Sort(found)
	return found
}

func leftOnNode(n *corev1.Node) []string {
	var found []string
	for _, t := range n.Spec.Taints {
		if t.Key == v1alpha1.TaintQuarantined {
			found = append(found, fmt.Sprintf("node %s: taint %s=%s", n.Name, t.Key, t.Value))
		}
	}
	for _, key := range []string{v1alpha1.AnnotationClaim, v1alpha1.AnnotationPrior, v1alpha1.AnnotationMaintenance} {
		if v, ok := n.Annotations[key]; ok {
			found = append(found, fmt.Sprintf("node %s: annotation %s=%s", n.Name, key, v))
		}
	}
	return found
}

func actionOver(h *v1alpha1.NodeHealth) bool {
	a := h.Status.Action
	return a != nil && a.ID == h.Spec.Action.ID && a.State == v1alpha1.ActionDone
}

// labelWorkload is how package workload labels what it starts.
const labelWorkload = "sandbox.roundhouse.dev/workload"

// app is what a pod is called by: its label app, else the workload or Job it belongs to.
func app(p *corev1.Pod) string {
	return cmp.Or(p.Labels["app"], p.Labels["app.kubernetes.io/name"], p.Labels[labelWorkload], p.Labels["batch.kubernetes.io/job-name"])
}
