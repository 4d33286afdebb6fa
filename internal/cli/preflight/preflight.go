// Package preflight answers "check --cluster": what on a cluster would keep Roundhouse from working, or would work
// against it. It is pure: the findings are a function of a Snapshot.
package preflight

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/cli/explain"
	"github.com/roundhouse-dev/roundhouse/internal/cli/fleet"
	"github.com/roundhouse-dev/roundhouse/internal/cli/text"
)

// Severity says how much a finding matters.
type Severity string

// The severities. What Must be fixed makes the exit code 1.
const (
	Must   Severity = "Must"
	Should Severity = "Should"
	Note   Severity = "Note"
)

// Finding is something to know before Roundhouse acts on a cluster.
type Finding struct {
	Severity Severity `json:"severity"`
	// Check names the check that found it.
	Check string `json:"check"`
	What  string `json:"what"`
	// Fix says what to do, a line a step.
	Fix []string `json:"fix,omitempty"`
}

// Report is the answer.
type Report struct {
	APIVersion string      `json:"apiVersion"`
	Kind       string      `json:"kind"`
	At         metav1.Time `json:"at"`
	// Server is the API server's version.
	Server   string    `json:"server"`
	Findings []Finding `json:"findings"`
	// Passed names the checks that found nothing.
	Passed []string `json:"passed,omitempty"`
}

// Snapshot is everything that a Report depends on.
type Snapshot struct {
	At metav1.Time
	// Server is the API server's version, such as v1.37.2; Minor its minor number, 0 where it cannot be read.
	Server string
	Minor  int
	// Groups are the API groups served; Kinds are the resources of resource.k8s.io/v1.
	Groups           []string
	DeviceTaintRules bool
	Nodes            []fleet.Node
	Healths          []fleet.Health
	// SliceDevices counts the devices in ResourceSlices, by node.
	SliceDevices map[string]int
	DaemonSets   []appsv1.DaemonSet
	Deployments  []appsv1.Deployment
	Policies     []v1alpha1.RemediationPolicy
	Budgets      []v1alpha1.NodeDisruptionBudget
}

// named is one check.
type named struct {
	name string
	run  func(*Snapshot) []Finding
}

// checks are in the order in which a reader would fix what they find.
var checks = []named{
	{"server", server},
	{"kinds", kinds},
	{"agents", agents},
	{"tolerations", tolerations},
	{"policies", policies},
	{"budgets", budgets},
	{"others", others},
	{"device-taints", deviceTaints},
}

// Check runs every check.
func Check(s Snapshot) Report {
	r := Report{APIVersion: explain.Version, Kind: "Preflight", At: s.At, Server: s.Server, Findings: []Finding{}}
	for _, c := range checks {
		found := c.run(&s)
		for i := range found {
			found[i].Check = c.name
		}
		if len(found) == 0 {
			r.Passed = append(r.Passed, c.name)
		}
		r.Findings = append(r.Findings, found...)
	}
	rank := []Severity{Must, Should, Note}
	slices.SortStableFunc(r.Findings, func(a, b Finding) int {
		return cmp.Compare(slices.Index(rank, a.Severity), slices.Index(rank, b.Severity))
	})
	return r
}

// Count counts the findings of a severity.
func (r *Report) Count(s Severity) int {
	n := 0
	for _, f := range r.Findings {
		if f.Severity == s {
			n++
		}
	}
	return n
}

// Bounds of what is named in a finding.
const namesShown = 5

// minMinor is the oldest Kubernetes that docs/scope.md supports.
const minMinor = 32

func server(s *Snapshot) []Finding {
	if s.Minor == 0 || s.Minor >= minMinor {
		return nil
	}
	return []Finding{{Severity: Must, What: fmt.Sprintf("Kubernetes %s is older than 1.%d", s.Server, minMinor),
		Fix: []string{"upgrade the cluster: CEL validation, selectable fields and node-bound tokens are part of the safety case"}}}
}

func kinds(s *Snapshot) []Finding {
	if slices.Contains(s.Groups, v1alpha1.GroupVersion.Group) {
		return nil
	}
	return []Finding{{Severity: Must, What: "the kinds of roundhouse.dev are not served", Fix: []string{"install the CRDs: kubectl apply -f config/crd, or the Helm chart"}}}
}

// accelerated are the nodes with accelerators: by what the kubelet offers, ResourceSlices, labels, or an agent.
func (s *Snapshot) accelerated() []fleet.Node {
	known := map[string]bool{}
	for _, h := range s.Healths {
		known[h.Name] = h.Devices.Total > 0
	}
	var out []fleet.Node
	for _, n := range s.Nodes {
		if n.Accelerators > 0 || n.Labelled || n.Reporting != "" || known[n.Name] || s.SliceDevices[n.Name] > 0 {
			out = append(out, n)
		}
	}
	return out
}

func agents(s *Snapshot) []Finding {
	reports := map[string]bool{}
	for _, h := range s.Healths {
		reports[h.Name] = h.Summary != ""
	}
	var silent, stale []string
	for _, n := range s.accelerated() {
		switch {
		case !reports[n.Name]:
			silent = append(silent, n.Name)
		case n.Reporting != corev1.ConditionTrue:
			stale = append(stale, n.Name)
		}
	}
	var out []Finding
	if len(silent) > 0 {
		out = append(out, Finding{Severity: Must, What: fmt.Sprintf("no agent has reported on %s with accelerators: %s",
			text.Count(len(silent), "node", "nodes"), text.Bounded(silent, namesShown)),
			Fix: []string{"see that DaemonSet roundhouse-agent selects and tolerates them: kubectl get pods -A -o wide | grep roundhouse-agent"}})
	}
	if len(stale) > 0 {
		out = append(out, Finding{Severity: Must, What: fmt.Sprintf("the agent is silent, or the controller does not vouch for it, on %s: %s",
			text.Count(len(stale), "node", "nodes"), text.Bounded(stale, namesShown)),
			Fix: []string{"kubectl roundhouse why " + stale[0]}})
	}
	return out
}

func policies(s *Snapshot) []Finding {
	var out []Finding
	for i := range s.Policies {
		if ok, why := explain.Accepted(&s.Policies[i]); !ok {
			out = append(out, Finding{Severity: Must, What: fmt.Sprintf("policy %s is not accepted, so its nodes are observed only: %s", s.Policies[i].Name, why),
				Fix: []string{"correct it, or run the controller that judges it; kubectl roundhouse check FILE says what is wrong"}})
		}
	}
	var ungoverned []string
	for _, n := range s.accelerated() {
		if p, _ := explain.Governor(s.Policies, n.Labels); p == nil {
			ungoverned = append(ungoverned, n.Name)
		}
	}
	if len(ungoverned) > 0 {
		out = append(out, Finding{Severity: Should, What: fmt.Sprintf("no policy selects %s with accelerators: %s; observed only",
			text.Count(len(ungoverned), "node", "nodes"), text.Bounded(ungoverned, namesShown)),
			Fix: []string{"write a RemediationPolicy that selects them; mode: Observe is a good first one"}})
	}
	return out
}

func budgets(s *Snapshot) []Finding {
	var out []Finding
	for i := range s.Budgets {
		b := &s.Budgets[i]
		if b.Name == v1alpha1.ImplicitBudget {
			continue
		}
		n := 0
		for j := range s.Nodes {
			if explain.Selects(&b.Spec.NodeSelector, s.Nodes[j].Labels) {
				n++
			}
		}
		if n == 0 {
			out = append(out, Finding{Severity: Should, What: "budget " + b.Name + " selects no node: those it was meant for fall under the others, or the implicit one",
				Fix: []string{"compare its nodeSelector with kubectl get nodes --show-labels"}})
		}
	}
	return out
}

func deviceTaints(s *Snapshot) []Finding {
	if s.DeviceTaintRules || len(s.SliceDevices) == 0 {
		return nil
	}
	return []Finding{{Severity: Should, What: "devices are offered by dynamic resource allocation, and resource.k8s.io/v1 DeviceTaintRule is not served: one bad device then takes its whole node out",
		Fix: []string{"Kubernetes 1.37 serves it by default; before, see feature gate DRADeviceTaints"}}}
}

// Render writes the findings, the worst first.
func (r *Report) Render(p *text.Page, wide bool) {
	p.Section("Server", r.Server)
	tones := map[Severity]text.Tone{Must: text.Bad, Should: text.Waiting, Note: text.Plain}
	for _, f := range r.Findings {
		p.Toned(tones[f.Severity], strings.ToUpper(string(f.Severity)), append([]string{f.What}, indent(f.Fix)...)...)
	}
	if len(r.Passed) > 0 {
		p.Section("Passed", strings.Join(r.Passed, ", "))
	}
	verdict := "nothing must be fixed"
	if n := r.Count(Must); n > 0 {
		verdict = text.Count(n, "finding", "findings") + " must be fixed"
	}
	p.Section("Verdict", verdict+fmt.Sprintf("; %d should be, %s", r.Count(Should), text.Count(r.Count(Note), "note", "notes")))
	if wide {
		p.Section("At", p.Clock.Minute(r.At.Time))
	}
}

func indent(lines []string) []string {
	out := make([]string, len(lines))
	for i, l := range lines {
		out[i] = "  " + l
	}
	return out
}
