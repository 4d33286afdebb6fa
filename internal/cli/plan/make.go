package plan

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/cli/explain"
	"github.com/roundhouse-dev/roundhouse/internal/cli/text"
	"github.com/roundhouse-dev/roundhouse/internal/decide"
	"github.com/roundhouse-dev/roundhouse/internal/drain"
	"github.com/roundhouse-dev/roundhouse/internal/maintenance"
	"github.com/roundhouse-dev/roundhouse/internal/occupancy"
	"github.com/roundhouse-dev/roundhouse/internal/policy"
)

// Snapshot is everything that a plan depends on.
type Snapshot struct {
	// Snapshot is what why asks for; its Node is there, and so are the node's Pods and their Claims.
	explain.Snapshot
	// Namespaces are the labels of the pods' namespaces, where the policy asks for them and they may be read.
	Namespaces map[string]map[string]string
	// Assume are devices, by ID or slot, that the plan takes to be bad too.
	Assume []string
}

// UnknownDeviceError is a device that the node does not have.
type UnknownDeviceError struct {
	Node, Device string
	Has          []string
}

// Error names the devices that there are.
func (e *UnknownDeviceError) Error() string {
	if len(e.Has) == 0 {
		return fmt.Sprintf("--device %s: no device of node %s is known", e.Device, e.Node)
	}
	return fmt.Sprintf("--device %s: node %s has no such device; it has %s", e.Device, e.Node, text.Bounded(e.Has, maxNamed))
}

// Make plans for one node.
func Make(s Snapshot) (*Plan, error) {
	p := &Plan{APIVersion: explain.Version, Kind: "Plan", Node: s.Name, At: metav1.NewTime(s.Now), ByDriver: s.ByDriver()}
	governing := policy.Compile(s.Policies).For(s.Node)
	d := s.draft(governing)
	p.draft = d
	assumed, err := s.assumed(d)
	if err != nil {
		return nil, err
	}
	p.govern(governing)
	p.suppose(d, governing, assumed)
	if d.Remediation == nil {
		return p, nil
	}
	d.PastRepairs = s.PastRepairs(d.Remediation, s.Now.Add(-d.LoopWindow()))
	occupancy.Plan(d, occupancy.Seen{Pods: s.Pods, Claims: s.Claims, Namespaces: s.Namespaces, Home: s.home()})
	for _, id := range d.RepairDevices() {
		p.Devices = append(p.Devices, device(d, id))
	}
	p.climb(d)
	p.claims = s.held(d)
	return p, nil
}

// agentName is the value of the label app.kubernetes.io/name on the pod of the node's agent.
const agentName = "roundhouse-agent"

// home is the namespace that Roundhouse is installed in: that of the node's agent. It is empty where none runs on it.
func (s *Snapshot) home() string {
	for i := range s.Pods {
		pod := &s.Pods[i]
		owner := metav1.GetControllerOf(pod)
		if pod.Labels["app.kubernetes.io/name"] == agentName && owner != nil && owner.Kind == "DaemonSet" {
			return pod.Namespace
		}
	}
	return ""
}

// draft is what internal/decide would see now, with the open incident, if there is one.
func (s *Snapshot) draft(governing policy.Governing) *decide.Snapshot {
	d := &decide.Snapshot{Now: s.Now, Node: s.Node, Handles: occupancy.Resolve(s.Slices), Otherwise: decide.OfferedByPlugin,
		Policy: governing.Decided()}
	if len(s.Slices) > 0 {
		d.Otherwise = decide.NotOffered
	}
	if s.Health != nil && s.Health.Spec.NodeUID == string(s.Node.UID) {
		d.Health = s.Health
	}
	for _, c := range s.Node.Status.Conditions {
		if c.Type == v1alpha1.ConditionReporting {
			d.Reporting, d.NotReportingWhy = c.Status == corev1.ConditionTrue, c.Message
		}
	}
	for i := range s.Remediations {
		r := &s.Remediations[i]
		switch {
		case r.Spec.NodeUID != string(s.Node.UID):
		case r.Status.Phase.Over():
			d.Over = append(d.Over, r)
		case d.Remediation == nil:
			d.Remediation = r.DeepCopy()
		}
	}
	var faults []v1alpha1.Fault
	if d.Health != nil {
		faults = append(faults, d.Health.Status.Faults...)
	}
	conditions, _ := governing.ConditionFaults(s.Node, s.Now)
	d.DriverTaints = occupancy.DriverTaints(s.Slices)
	var root *v1alpha1.RootFault
	if d.Remediation != nil {
		root = &d.Remediation.Spec.Root
	}
	taints, _ := governing.TaintFaults(d.DriverTaints, root, s.Now)
	for _, f := range slices.Concat(faults, conditions, taints) {
		rule, err := governing.Match(f, s.Node, s.Now)
		if err != nil {
			rule = nil // nothing is done about it until a human has seen to the rule.
		}
		d.Faults = append(d.Faults, decide.Matched{Fault: f, Rule: rule})
	}
	d.Maintenance, _ = maintenance.Of(s.Node) // nothing is done about one that cannot be read.
	decide.Plan(d)
	return d
}

// assumed are the IDs of the devices to be taken for bad.
func (s *Snapshot) assumed(d *decide.Snapshot) ([]string, error) {
	var has []string
	slots := map[string]string{}
	if d.Health != nil {
		for _, known := range d.Health.Status.Devices {
			has, slots[known.Slot] = append(has, known.ID), known.ID
		}
	}
	for id := range d.Handles {
		if !slices.Contains(has, id) {
			has = append(has, id)
		}
	}
	slices.Sort(has)
	var out []string
	for _, name := range s.Assume {
		id := name
		if !slices.Contains(has, id) {
			id = slots[name]
		}
		if id == "" {
			return nil, &UnknownDeviceError{Node: s.Name, Device: name, Has: has}
		}
		if !slices.Contains(out, id) {
			out = append(out, id)
		}
	}
	return out, nil
}

func (p *Plan) govern(g policy.Governing) {
	if g.Policy == nil {
		return
	}
	p.Policy = &Governing{Name: g.Policy.Name, Mode: g.Mode(), Accepted: g.Accepted, Why: text.Clean(g.Message)}
	if g.Accepted {
		p.Policy.Why = ""
	}
}

// suppose says of which incident the plan is: the open one, the one that would be opened, or one that is imagined.
func (p *Plan) suppose(d *decide.Snapshot, governing policy.Governing, assumed []string) {
	switch {
	case d.Policy.Policy == nil:
		p.NoRungs = "no policy governs this node"
	case !d.Policy.Accepted:
		p.NoRungs = "the policy is not accepted, so its rules are not followed"
	}
	if r := d.Remediation; r != nil {
		p.Remediation, p.Phase, p.Reason, p.Message = r.Name, r.Status.Phase, r.Status.Reason, text.Clean(r.Status.Message)
		p.Assuming = "the open incident goes on as it is"
		if news := without(assumed, r.Spec.Devices); len(news) > 0 {
			imagineFaults(d, governing, news)
			p.Assuming = "the open incident, and that " + text.Bounded(news, maxNamed) + " joins it as bad"
		}
		return
	}
	if p.NoRungs != "" {
		p.Assuming = "nothing: there is no rule to plan by"
		if len(assumed) > 0 {
			p.Assuming = "that " + text.Bounded(assumed, maxNamed) + " had a critical hardware fault; there is no rule to plan by"
			d.Remediation = unruled(d, assumed)
		}
		return
	}
	if rem, ok := decide.Open(d); ok {
		news := without(assumed, rem.Spec.Devices)
		imagineFaults(d, governing, news)
		d.Remediation, _ = decide.Open(d)
		p.Assuming = "the incident that the controller would open about " + text.Clean(rem.Spec.Root.Code)
		if len(news) > 0 {
			p.Assuming += ", and that " + text.Bounded(news, maxNamed) + " is bad too"
		}
		return
	}
	d.Faults = nil // what no rule asks anything about would only blur what is imagined.
	p.imagine(d, governing, assumed)
}

// unruled drafts an incident that no rule is about, so that what holds its devices can be told.
func unruled(d *decide.Snapshot, devices []string) *v1alpha1.Remediation {
	rule := &v1alpha1.Rule{Response: v1alpha1.ResponseRepair}
	for _, id := range devices {
		d.Faults = append(d.Faults, decide.Matched{Fault: v1alpha1.Fault{Code: imagined, Device: id}, Rule: rule})
	}
	return &v1alpha1.Remediation{Spec: v1alpha1.RemediationSpec{Node: d.Node.Name, NodeUID: string(d.Node.UID), Devices: devices,
		Root: v1alpha1.RootFault{Code: imagined, Device: devices[0]}}}
}

// imagined is the code of a fault that nobody has seen.
const imagined = "Imagined"

// imagine drafts an incident where nothing is wrong that a rule asks anything about.
func (p *Plan) imagine(d *decide.Snapshot, governing policy.Governing, assumed []string) {
	what := "no incident is open: that the node as a whole had a critical hardware fault (--device asks about one device)"
	about := []string{""}
	if len(assumed) > 0 {
		about = assumed
		what = "no incident is open: that " + text.Bounded(assumed, maxNamed) + " had a critical hardware fault"
	}
	p.Assuming = what
	matched := imagineFaults(d, governing, about)
	rem, ok := decide.Open(d)
	if !ok {
		p.NoRungs = "no rule of the policy asks for a repair of such a fault"
		return
	}
	d.Remediation = rem
	if !matched {
		p.Assuming += "; no rule matches one of which nothing else is known, so by the first that repairs"
	}
}

// imagineFaults puts a critical hardware fault on each device, under the rule that matches it, else under the first that
// repairs; matched is false where that was needed. The NodeHealth stays as it is: the agent has said nothing about such a
// fault, nor asked who holds the device.
func imagineFaults(d *decide.Snapshot, governing policy.Governing, devices []string) (matched bool) {
	matched = true
	for _, id := range devices {
		f := v1alpha1.Fault{Code: imagined, Device: id, Class: v1alpha1.ClassHardware, Severity: v1alpha1.SeverityCritical,
			Recommended: v1alpha1.RecommendNone, FirstSeen: metav1.NewTime(d.Now), LastSeen: metav1.NewTime(d.Now), Count: 1, Root: true}
		rule, err := governing.Match(f, d.Node, d.Now)
		if err != nil || rule == nil || rule.Response != v1alpha1.ResponseRepair {
			rule, matched = firstRepair(governing.Policy, id), false
		}
		d.Faults = append(d.Faults, decide.Matched{Fault: f, Rule: rule})
		if d.Remediation != nil && id != "" {
			d.Remediation.Spec.Devices = append(d.Remediation.Spec.Devices, id)
		}
	}
	return matched
}

// firstRepair is the first rule that repairs, of faults of a device or of the node.
func firstRepair(p *v1alpha1.RemediationPolicy, device string) *v1alpha1.Rule {
	if p == nil {
		return nil
	}
	scope := v1alpha1.ScopeNode
	if device != "" {
		scope = v1alpha1.ScopeDevice
	}
	for i := range p.Spec.Rules {
		r := &p.Spec.Rules[i]
		if r.Response == v1alpha1.ResponseRepair && (r.Match.Scope == "" || r.Match.Scope == scope) {
			return r
		}
	}
	return nil
}

func without(all, known []string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(id string) bool { return slices.Contains(known, id) })
}

func device(d *decide.Snapshot, id string) explain.Device {
	if d.Health != nil {
		for _, known := range d.Health.Status.Devices {
			if known.ID == id {
				return explain.Device{ID: id, Slot: known.Slot, Model: known.Model, Serial: known.Serial, Health: known.Health}
			}
		}
	}
	return explain.Device{ID: id}
}

// climb says what each rung moves.
func (p *Plan) climb(d *decide.Snapshot) {
	if p.NoRungs != "" {
		return
	}
	c := decide.Ladder(d)
	if c.Rule == nil {
		p.NoRungs = "no rule matches what is wrong"
		return
	}
	p.Policy.Rule, p.Policy.RuleSays = c.Rule.Name, explain.Recite(c.Rule)
	if c.Rule.Response != v1alpha1.ResponseRepair {
		p.NoRungs = "the rule asks for no repair: " + string(c.Rule.Response)
		return
	}
	p.Limit = c.Limit
	for _, a := range c.Rungs {
		p.Rungs = append(p.Rungs, rungOf(d, a))
	}
}

func rungOf(d *decide.Snapshot, a decide.Ahead) Rung {
	r := Rung{Name: a.Name, Action: a.Action, Tried: a.Tried, Attempts: a.Attempts, Next: a.Next, Why: a.Why, Empties: EmptiesNothing}
	var moves *drain.Plan
	switch a.Scope {
	case drain.ScopeDevice:
		r.Empties, moves = EmptiesDevices, d.RepairPlan
	case drain.ScopeNode:
		r.Empties, moves = EmptiesNode, d.NodePlan
	case drain.ScopeNothing:
	}
	if moves != nil {
		for i := range moves.Move {
			m := &moves.Move[i]
			r.Moves = append(r.Moves, Move{Pod: m.Pod.Namespace + "/" + m.Pod.Name, Cost: m.Cost, Class: m.Class, AtRisk: m.AtRisk})
		}
		r.Going, r.Blockers, r.Jobs, r.AtRisk = len(moves.Terminating), moves.Blockers, moves.Jobs, moves.AtRisk
	}
	r.Touches, r.TouchesSays = touches(d, a.Action)
	return r
}

// touches are the devices that an action stops or resets.
func touches(d *decide.Snapshot, action v1alpha1.RungAction) (ids []string, says string) {
	switch action {
	case v1alpha1.RungResetDevice:
		return d.RepairDevices(), ""
	case v1alpha1.RungReboot, v1alpha1.RungPowerCycle, v1alpha1.RungReplace:
		return all(d), "the whole node"
	case v1alpha1.RungRestartDriver:
		return all(d), "the driver of all of them"
	case v1alpha1.RungRunJob, v1alpha1.RungExternal:
		return nil, "what its template does"
	case v1alpha1.RungEscalate:
	}
	return nil, ""
}

func all(d *decide.Snapshot) []string {
	if d.Health == nil {
		return nil
	}
	var ids []string
	for _, known := range d.Health.Status.Devices {
		ids = append(ids, known.ID)
	}
	return ids
}

// held says which pods hold each device by a claim, and what a repair of the bad ones does with them.
func (s *Snapshot) held(d *decide.Snapshot) map[string][]Held {
	out := map[string][]Held{}
	holding := occupancy.Holding(s.Claims, d)
	for i := range s.Pods {
		pod := &s.Pods[i]
		for _, id := range slices.Compact(slices.Sorted(slices.Values(holding[pod.UID]))) {
			out[id] = append(out[id], Held{Pod: pod.Namespace + "/" + pod.Name, Does: does(d.RepairPlan, pod)})
		}
	}
	for _, held := range out {
		slices.SortFunc(held, func(a, b Held) int { return strings.Compare(a.Pod, b.Pod) })
	}
	return out
}

// does is what a plan does with a pod.
func does(p *drain.Plan, pod *corev1.Pod) string {
	name := pod.Namespace + "/" + pod.Name
	switch {
	case slices.ContainsFunc(p.Move, func(m drain.Move) bool { return m.Pod.UID == pod.UID }):
		return "moved"
	case slices.ContainsFunc(p.Terminating, func(t corev1.Pod) bool { return t.UID == pod.UID }):
		return "going already"
	case slices.ContainsFunc(p.Blockers, func(b v1alpha1.Blocker) bool { return b.Pod == name }):
		return "only a human stops it"
	}
	for i := range p.Left {
		if p.Left[i].Pod.UID == pod.UID {
			return "left: " + explain.Spell(p.Left[i].Reason)
		}
	}
	return "only a human stops it" // blockers are bounded.
}

// Asked are the devices to ask the server about: the bad ones, and where each is found in its ResourceSlice.
func (p *Plan) Asked() []DryRun {
	var out []DryRun
	for _, bad := range p.Devices {
		r := DryRun{DeviceID: bad.ID, Ours: p.claims[bad.ID]}
		h, ok := p.draft.Handles[bad.ID]
		if !ok || h.Driver == "" || h.Pool == "" || h.Device == "" {
			r.Failed = "no ResourceSlice of the node lists it, so no DeviceTaintRule can name it"
		}
		r.Driver, r.Pool, r.Device = h.Driver, h.Pool, h.Device
		out = append(out, r)
	}
	return out
}
