package budget

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/claim"
)

// snapshot is what a decision about one budget is made on.
type snapshot struct {
	budget *v1alpha1.NodeDisruptionBudget
	// key stands for what selects depends on, so that a view counts once for it.
	key     string
	selects func(*corev1.Node) bool
	seen    *view
	node    *corev1.Node
	holder  holder
	devices int32
}

// outage is a node of the domain that is out, and why.
type outage struct {
	node    string
	why     string
	devices int32
}

// decide says whether the budget has a slot for the node. It is a pure function of the snapshot.
func decide(s snapshot) Verdict {
	if slices.ContainsFunc(s.budget.Status.Reservations, s.holder.holds) {
		return Verdict{Granted: true, Reason: ReasonGranted, Message: s.budget.Name + ": held already"}
	}
	domain := domainOf(s.budget, s.node)
	out, size := s.outages(domain)
	if s.budget.Spec.MaxUnavailable != nil {
		if verdict := s.nodesLeft(domain, out, size); !verdict.Granted {
			return verdict
		}
	}
	if s.budget.Spec.MaxUnavailableDevices != nil {
		if verdict := s.devicesLeft(domain, out); !verdict.Granted {
			return verdict
		}
	}
	if s.budget.Spec.MaxUnavailable == nil && s.budget.Spec.MaxUnavailableDevices == nil {
		// The schema refuses this; if one comes past it, it allows nothing.
		return Verdict{Reason: ReasonInvalid, Budget: s.budget.Name, Message: s.budget.Name + " sets no maximum",
			WouldChange: s.budget.Name + " sets maxUnavailable or maxUnavailableDevices"}
	}
	if len(s.budget.Status.Reservations) >= maxReservations {
		return Verdict{Reason: ReasonExhausted, Budget: s.budget.Name,
			Message:     fmt.Sprintf("%s: its status holds the most reservations it can, %d", s.budget.Name, maxReservations),
			WouldChange: "a slot of " + s.budget.Name + " is freed"}
	}
	return Verdict{Granted: true, Reason: ReasonGranted}
}

// maxReservations is the bound of the schema.
const maxReservations = 2048

// nodesLeft compares the nodes that are out with maxUnavailable.
func (s snapshot) nodesLeft(domain string, out []outage, size int) Verdict {
	allowed, err := allowedNodes(*s.budget.Spec.MaxUnavailable, size)
	if err != nil {
		return Verdict{Reason: ReasonInvalid, Budget: s.budget.Name,
			Message:     fmt.Sprintf("%s: maxUnavailable cannot be read: %v", s.budget.Name, err),
			WouldChange: s.budget.Name + " is corrected"}
	}
	if len(out) < allowed {
		return Verdict{Granted: true}
	}
	where := s.where(domain)
	is := fmt.Sprintf("%d of %d nodes%s %s out", len(out), allowed, where, areOrIs(allowed))
	switch {
	case allowed == 0 && s.budget.Spec.MaxUnavailable.Type == intstr.String:
		is = fmt.Sprintf("%s of the %d nodes%s rounds down to none", s.budget.Spec.MaxUnavailable.StrVal, size, where)
	case allowed == 0:
		is = "it allows no node to be out" + where
	}
	return s.exhausted(is, out, fmt.Sprintf("%s allows %d", s.budget.Name, len(out)+1))
}

// devicesLeft compares the devices that are out with maxUnavailableDevices.
func (s snapshot) devicesLeft(domain string, out []outage) Verdict {
	// A node is out with one device at least, or the device budget would not see it.
	asked := int64(max(s.devices, 1))
	var used int64
	for _, o := range out {
		used += int64(o.devices)
	}
	allowed := int64(*s.budget.Spec.MaxUnavailableDevices)
	if used+asked <= allowed {
		return Verdict{Granted: true}
	}
	is := fmt.Sprintf("%d of %d devices%s are out, and this node takes %d more", used, allowed, s.where(domain), asked)
	return s.exhausted(is, out, fmt.Sprintf("%s allows %d devices", s.budget.Name, used+asked))
}

// maxNamed bounds how many nodes a message names.
const maxNamed = 3

// where says in which domain, for a budget that has several.
func (s snapshot) where(domain string) string {
	if s.budget.Spec.TopologyKey == "" {
		return ""
	}
	// People say "rack r26", not "topology.example.com/rack r26".
	key := s.budget.Spec.TopologyKey[strings.LastIndex(s.budget.Spec.TopologyKey, "/")+1:]
	return " of " + key + " " + describeDomain(domain)
}

func areOrIs(n int) string {
	if n == 1 {
		return "is"
	}
	return "are"
}

// exhausted says what is out, and what would change it.
func (s snapshot) exhausted(is string, out []outage, allow string) Verdict {
	named := make([]string, 0, maxNamed)
	for _, o := range out[:min(len(out), maxNamed)] {
		named = append(named, o.node+", "+o.why)
	}
	message := s.budget.Name + ": " + is
	if len(named) > 0 {
		message += " (" + strings.Join(named, "; ")
		if more := len(out) - len(named); more > 0 {
			message += fmt.Sprintf("; and %d more", more)
		}
		message += ")"
	}
	change := allow
	if len(out) > 0 {
		change = out[0].node + " returns, or " + allow
	}
	return Verdict{Reason: ReasonExhausted, Budget: s.budget.Name, Message: message, WouldChange: change}
}

// allowedNodes is maxUnavailable as a number; a percentage is of size, and rounds down.
func allowedNodes(value intstr.IntOrString, size int) (int, error) {
	allowed, err := intstr.GetScaledValueFromIntOrPercent(&value, size, false)
	if err != nil {
		return 0, fmt.Errorf("reading %q: %w", value.String(), err)
	}
	return allowed, nil
}

// outages lists what is out in a domain, the asking node apart, sorted by name, and counts the domain's nodes. A node
// counts once: by its reservation, else by what can be seen on it.
func (s snapshot) outages(domain string) (out []outage, size int) {
	reserved := map[string]bool{s.node.Name: true}
	for _, r := range s.budget.Status.Reservations {
		// Both the domain it was taken in and the one its node is in now count: a label that moves frees nothing.
		now, known := s.seen.domainNow(s.budget, r.Node)
		if reserved[r.Node] || (r.Domain != domain && (!known || now != domain)) {
			continue
		}
		reserved[r.Node] = true
		out = append(out, outage{node: r.Node, devices: max(r.Devices, 1),
			why: fmt.Sprintf("remediation %s, since %s", r.Remediation, r.Since.UTC().Format(time.RFC3339))})
	}
	counted := s.seen.domain(s.budget, s.key, domain, s.selects)
	for _, o := range counted.out {
		if reserved[o.node] {
			continue
		}
		// Where the number is not known, it is taken for a node like the one that asks: to count it as none would let
		// a device budget be overspent.
		if o.devices == 0 {
			o.devices = max(s.devices, 1)
		}
		out = append(out, o)
	}
	slices.SortFunc(out, func(a, b outage) int { return cmp.Compare(a.node, b.node) })
	return out, counted.size
}

// whyOut says why a node is out of service; empty where it is in service.
func whyOut(node *corev1.Node, countTaints []v1alpha1.TaintMatch) string {
	if name, _, claimed := claim.Ours(node); claimed {
		return "claimed by remediation " + name + " without a slot here"
	}
	for _, foreign := range claim.Foreign(node) {
		if foreign.InProgress {
			return foreign.String()
		}
	}
	for _, taint := range node.Spec.Taints {
		for _, match := range countTaints {
			if taint.Key == match.Key && (match.Operator != corev1.TolerationOpEqual || taint.Value == match.Value) {
				return "taint " + taint.ToString()
			}
		}
	}
	if node.Spec.Unschedulable {
		return "cordoned"
	}
	return notReady(node)
}

// notReady says why a node that is not Ready is not.
func notReady(node *corev1.Node) string {
	for _, condition := range node.Status.Conditions {
		if condition.Type != corev1.NodeReady {
			continue
		}
		if condition.Status == corev1.ConditionTrue {
			return ""
		}
		return fmt.Sprintf("not Ready: %s, since %s", condition.Reason, condition.LastTransitionTime.UTC().Format(time.RFC3339))
	}
	return "not Ready: it has not reported yet"
}

// maxDomain is the bound of Reservation.domain.
const maxDomain = 63

// domainOf is the topology domain of a node. A node without the label is a domain of its own; "=" cannot begin a label's
// value, so that it never meets a labelled one.
func domainOf(budget *v1alpha1.NodeDisruptionBudget, node *corev1.Node) string {
	if budget.Spec.TopologyKey == "" {
		return ""
	}
	if value, ok := node.Labels[budget.Spec.TopologyKey]; ok && value != "" {
		return value
	}
	own := "=" + node.Name
	return own[:min(len(own), maxDomain)]
}

func describeDomain(domain string) string {
	if own, ok := strings.CutPrefix(domain, "="); ok {
		return "(no such label on " + own + ")"
	}
	return domain
}

// capacityOf counts a node's extended resources whose name ends in "gpu", such as nvidia.com/gpu.
func capacityOf(node *corev1.Node) int32 {
	var devices int64
	for name, quantity := range node.Status.Capacity {
		if domain, resource, ok := strings.Cut(string(name), "/"); ok && domain != "" && strings.HasSuffix(resource, "gpu") {
			devices += quantity.Value()
		}
	}
	return int32(min(devices, maxDevices))
}

// maxDevices is more than any node has.
const maxDevices = 1024
