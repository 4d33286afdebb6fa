package fleet

import (
	"cmp"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/cli/explain"
	"github.com/roundhouse-dev/roundhouse/internal/cli/text"
)

// Snapshot is everything that a Status depends on.
type Snapshot struct {
	Now          time.Time
	Nodes        []Node
	Healths      []Health
	Remediations []v1alpha1.Remediation
	Policies     []v1alpha1.RemediationPolicy
	Budgets      []v1alpha1.NodeDisruptionBudget
	Holds        []v1alpha1.RemediationHold
}

// order is how phases are listed: what needs a human first, then what is being done, then what waits.
var order = []v1alpha1.Phase{
	v1alpha1.PhaseEscalated, v1alpha1.PhaseDraining, v1alpha1.PhaseRepairing, v1alpha1.PhaseVerifying,
	v1alpha1.PhasePending, v1alpha1.PhaseQuarantined, v1alpha1.PhaseProbation,
}

// Summarize makes the answer.
func Summarize(s Snapshot) Status {
	st := Status{APIVersion: explain.Version, Kind: "Status", At: metav1.NewTime(s.Now)}
	s.count(&st)
	for i := range s.Policies {
		st.Policies = append(st.Policies, policyOf(&s.Policies[i]))
	}
	slices.SortFunc(st.Policies, func(a, b Policy) int {
		return cmp.Or(cmp.Compare(b.Priority, a.Priority), cmp.Compare(a.Name, b.Name))
	})
	s.incidents(&st)
	for i := range s.Budgets {
		st.Budgets = append(st.Budgets, s.budget(&s.Budgets[i])...)
	}
	s.holds(&st)
	return st
}

// count counts nodes and devices, and finds who is silent.
func (s *Snapshot) count(st *Status) {
	healths := make(map[string]*Health, len(s.Healths))
	for i := range s.Healths {
		healths[s.Healths[i].Name] = &s.Healths[i]
	}
	for i := range s.Nodes {
		node := &s.Nodes[i]
		health := healths[node.Name]
		if !node.accelerated(health) {
			continue
		}
		st.Nodes.Total++
		if governor, _ := explain.Governor(s.Policies, node.Labels); governor == nil {
			st.Ungoverned++
		}
		if s.silent(node, health) {
			st.Coverage.Silent = append(st.Coverage.Silent, node.Name)
			st.Nodes.Unknown++
			if health != nil {
				// What a silent agent said last is not what is.
				st.Devices.Total += health.Devices.Total
				st.Devices.Unknown += health.Devices.Total
			}
			continue
		}
		st.Coverage.Reporting++
		st.add(health)
	}
	st.Coverage.Of = st.Nodes.Total
	slices.Sort(st.Coverage.Silent)
}

// accelerated says whether a node has accelerators, or an agent that could know. The controller gives every node a
// NodeHealth; one that no agent has ever written says nothing.
func (n *Node) accelerated(health *Health) bool {
	return n.Accelerators > 0 || n.Labelled || n.Reporting != "" || health != nil && (health.Summary != "" || health.Devices.Total > 0)
}

// silent says whether an agent's word cannot be taken: it never spoke, or nobody vouches that its word is fresh.
func (s *Snapshot) silent(node *Node, health *Health) bool {
	return health == nil || health.Summary == "" || node.Reporting != corev1.ConditionTrue
}

func (st *Status) add(health *Health) {
	switch health.Summary {
	case v1alpha1.SummaryHealthy:
		st.Nodes.Healthy++
	case v1alpha1.SummaryFaulty:
		st.Nodes.Faulty++
	case v1alpha1.SummaryActing:
		st.Nodes.Acting++
	case v1alpha1.SummaryUnknown:
		st.Nodes.Unknown++
	}
	d := health.Devices
	st.Devices.Total += d.Total
	st.Devices.Healthy += d.Healthy
	st.Devices.Unhealthy += d.Unhealthy
	st.Devices.Missing += d.Missing
	st.Devices.Unknown += d.Unknown
}

func policyOf(p *v1alpha1.RemediationPolicy) Policy {
	out := Policy{Name: p.Name, Mode: p.Spec.Mode, Priority: p.Spec.Priority, Generation: p.Generation, Nodes: int(p.Status.MatchedNodes), Brake: p.Status.Brake}
	out.Accepted, out.Why = explain.Accepted(p)
	return out
}

func (s *Snapshot) incidents(st *Status) {
	groups := map[v1alpha1.Phase][]Incident{}
	for i := range s.Remediations {
		r := &s.Remediations[i]
		if r.Status.Phase.Over() {
			continue
		}
		in := incidentOf(r)
		st.Open++
		groups[in.Phase] = append(groups[in.Phase], in)
	}
	for _, phase := range order {
		list := groups[phase]
		if len(list) == 0 {
			continue
		}
		slices.SortFunc(list, func(a, b Incident) int {
			return cmp.Or(since(a).Compare(since(b)), cmp.Compare(a.Node, b.Node))
		})
		st.Incidents = append(st.Incidents, Phase{Phase: phase, Incidents: list})
	}
}

func since(in Incident) time.Time {
	if in.Since == nil {
		return time.Time{}
	}
	return in.Since.Time
}

func incidentOf(r *v1alpha1.Remediation) Incident {
	in := Incident{
		Remediation: r.Name, Node: r.Spec.Node, Policy: r.Spec.Policy, Phase: r.Status.Phase, Fault: text.Clean(r.Spec.Root.Code),
		Devices: len(r.Spec.Devices), Reason: r.Status.Reason, Message: text.Clean(r.Status.Message), Since: r.Status.Since,
	}
	if in.Phase == "" {
		in.Phase = v1alpha1.PhasePending
	}
	if in.Since == nil && !r.CreationTimestamp.IsZero() {
		in.Since = &r.CreationTimestamp
	}
	if r.Status.Step != nil {
		in.Rung = r.Status.Step.Rung
	}
	return in
}

// budget counts what is out under a budget, a domain at a time; domains where nothing is out are left out, unless there
// is only one.
func (s *Snapshot) budget(b *v1alpha1.NodeDisruptionBudget) []Budget {
	domains := map[string]*Budget{}
	in := func(domain string) *Budget {
		if domains[domain] == nil {
			domains[domain] = &Budget{Name: b.Name, Domain: strings.TrimPrefix(domain, "="), MaxDevices: b.Spec.MaxUnavailableDevices}
		}
		return domains[domain]
	}
	reserved := map[string]bool{}
	for _, r := range b.Status.Reservations {
		reserved[r.Node] = true
		d := in(r.Domain)
		d.Reserved = append(d.Reserved, r.Node)
		d.Devices += r.Devices
	}
	for i := range s.Nodes {
		node := &s.Nodes[i]
		if !s.selects(b, node) {
			continue
		}
		d := in(domainOf(b, node))
		d.Selected++
		if why := outOf(b, node); why != "" && !reserved[node.Name] {
			d.Others = append(d.Others, node.Name+" ("+why+")")
		}
	}
	if len(domains) == 0 {
		in("")
	}
	var out []Budget
	for _, d := range domains {
		if len(domains) > 1 && len(d.Reserved)+len(d.Others) == 0 {
			continue
		}
		if b.Spec.MaxUnavailable != nil {
			if most, err := intstr.GetScaledValueFromIntOrPercent(b.Spec.MaxUnavailable, d.Selected, false); err == nil {
				d.MaxNodes = &most
			}
		}
		slices.Sort(d.Reserved)
		slices.Sort(d.Others)
		out = append(out, *d)
	}
	if len(out) == 0 {
		out = append(out, Budget{Name: b.Name, Domain: text.Count(len(domains), "domain", "domains")})
	}
	slices.SortFunc(out, func(a, b Budget) int { return cmp.Compare(a.Domain, b.Domain) })
	return out
}

// selects says whether a node falls under a budget; the implicit one is for those that no other selects.
func (s *Snapshot) selects(b *v1alpha1.NodeDisruptionBudget, node *Node) bool {
	if b.Name != v1alpha1.ImplicitBudget {
		return explain.Selects(&b.Spec.NodeSelector, node.Labels)
	}
	return !slices.ContainsFunc(s.Budgets, func(other v1alpha1.NodeDisruptionBudget) bool {
		return other.Name != v1alpha1.ImplicitBudget && explain.Selects(&other.Spec.NodeSelector, node.Labels)
	})
}

func domainOf(b *v1alpha1.NodeDisruptionBudget, node *Node) string {
	if b.Spec.TopologyKey == "" {
		return ""
	}
	if value := node.Labels[b.Spec.TopologyKey]; value != "" {
		return value
	}
	return "=" + node.Name
}

func outOf(b *v1alpha1.NodeDisruptionBudget, node *Node) string {
	for _, taint := range node.Taints {
		for _, match := range b.Spec.CountTaints {
			if taint.Key == match.Key && (match.Operator != corev1.TolerationOpEqual || taint.Value == match.Value) {
				return "taint " + taint.Key
			}
		}
	}
	return node.Out
}

func (s *Snapshot) holds(st *Status) {
	for i := range s.Holds {
		h := &s.Holds[i]
		if !explain.InForce(h, s.Now) {
			continue
		}
		held := Hold{
			Name: h.Name, Holds: h.Spec.Holds, By: text.Clean(h.Spec.RequestedBy), Reason: text.Clean(h.Spec.Reason), Until: h.Spec.Until,
		}
		for j := range s.Nodes {
			if explain.HoldsNode(h, s.Nodes[j].Name, s.Nodes[j].Labels) {
				held.Nodes++
			}
		}
		st.Holds = append(st.Holds, held)
	}
	slices.SortFunc(st.Holds, func(a, b Hold) int { return cmp.Compare(a.Name, b.Name) })
}
