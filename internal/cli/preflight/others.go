package preflight

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/roundhouse-dev/roundhouse/internal/cli/text"
)

// system is another program that acts on nodes, and how it shows: by the API group it brings, or by a word in the name
// or the image of its workload.
type system struct {
	name, group, word string
	advice            string
}

// systems are those that remediate, reboot, drain or remove nodes, or write conditions that make others do so.
var systems = []system{
	{name: "draino", word: "draino", advice: "two that drain on conditions drain twice: turn draino off for these nodes, or leave Roundhouse in mode Observe"},
	{name: "medik8s NodeHealthCheck", group: "remediation.medik8s.io", advice: "its Lease node-<name> is honoured; see that no NodeHealthCheck selects these nodes with RoundhouseHealthy or Ready at the same time"},
	{name: "kured", word: "kured", advice: "its lock is honoured: a node that it reboots is left alone, and counts in the budgets"},
	{name: "node-problem-detector", word: "node-problem-detector", advice: "its conditions can be used: match.nodeConditions in a policy's rule"},
	{name: "Karpenter", group: "karpenter.sh", advice: "its taints are honoured, and a claimed node is marked karpenter.sh/do-not-disrupt; turn off its node repair for these nodes, or let it act and leave Roundhouse in Observe"},
	{name: "Cluster Autoscaler", word: "cluster-autoscaler", advice: "its taint is honoured; start it with --status-taint=roundhouse.dev/quarantined, so that a quarantined node is not taken for a template"},
	{name: "NVIDIA GPU operator", group: "nvidia.com", advice: "its driver upgrades are honoured by node label; see above for its DaemonSets' tolerations"},
	{name: "NVSentinel", word: "nvsentinel", advice: "two that quarantine and reboot fight: keep one of them in a mode that only observes"},
	{name: "Node Readiness Controller", group: "readiness.node.x-k8s.io", advice: "its taints are its own; a rule of it can read condition RoundhouseHealthy"},
	{name: "Cluster API", group: "cluster.x-k8s.io", advice: "a Machine that is to be remediated is left alone; see that no MachineHealthCheck replaces nodes that Roundhouse repairs"},
	{name: "sciuro", word: "sciuro", advice: "it replaces whole lists of Node conditions: see that it leaves RoundhouseHealthy and RoundhouseReporting alone"},
}

// others says who else works on nodes.
func others(s *Snapshot) []Finding {
	var out []Finding
	for _, sys := range systems {
		if where := sys.find(s); where != "" {
			out = append(out, Finding{Severity: Note, What: sys.name + " is here (" + where + ")", Fix: []string{sys.advice}})
		}
	}
	by := map[string][]string{}
	for _, n := range s.accelerated() {
		if n.Out != "" && n.Out != "cordoned" && n.Out != "not Ready" {
			by[n.Out] = append(by[n.Out], n.Name)
		}
	}
	for who, nodes := range by {
		out = append(out, Finding{Severity: Note, What: fmt.Sprintf("%s works on %s now: %s", who, text.Count(len(nodes), "node", "nodes"), text.Bounded(nodes, namesShown)),
			Fix: []string{"they are left alone meanwhile, and count as out in the budgets"}})
	}
	slices.SortStableFunc(out[len(out)-len(by):], func(a, b Finding) int { return cmp.Compare(a.What, b.What) })
	return out
}

// find says where a system shows.
func (sys system) find(s *Snapshot) string {
	if sys.group != "" && slices.Contains(s.Groups, sys.group) {
		return "API group " + sys.group
	}
	if sys.word == "" {
		return ""
	}
	for i := range s.DaemonSets {
		if d := &s.DaemonSets[i]; sys.is(d.Name, d.Spec.Template.Spec.Containers) {
			return "DaemonSet " + d.Namespace + "/" + d.Name
		}
	}
	for i := range s.Deployments {
		if d := &s.Deployments[i]; sys.is(d.Name, d.Spec.Template.Spec.Containers) {
			return "Deployment " + d.Namespace + "/" + d.Name
		}
	}
	return ""
}

func (sys system) is(name string, containers []corev1.Container) bool {
	return strings.Contains(name, sys.word) || slices.ContainsFunc(containers, func(c corev1.Container) bool {
		return strings.Contains(c.Image, sys.word)
	})
}
