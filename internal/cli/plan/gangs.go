package plan

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/cli/text"
	"github.com/roundhouse-dev/roundhouse/internal/drain"
)

// Gang is a gang that a drain would stop: one of its pods runs on the node, and without it the others stop too, wherever they
// run.
type Gang struct {
	// Gang is namespace/name; Label is the key of the label that its pods carry, empty where it is a PodGroup's.
	Gang  string `json:"gang"`
	Label string `json:"label,omitempty"`
	// Empties says for which drains it would stop.
	Empties []Empties `json:"empties"`
	// Unknown says why what follows is not known.
	Unknown string `json:"unknown,omitempty"`
	// Down says that one of its pods does not run, so that nothing more would be lost.
	Down bool `json:"down,omitempty"`
	// Pods, Nodes and Devices count what runs of it; AtLeast says that there is more, which was not looked at.
	Pods    int   `json:"pods,omitempty"`
	Nodes   int   `json:"nodes,omitempty"`
	Devices int64 `json:"devices,omitempty"`
	AtLeast bool  `json:"atLeast,omitempty"`
	// HoursMin and HoursMax are how long its pods have worked since their last checkpoint, which Checkpointed of them have, else
	// since their start.
	HoursMin     float64 `json:"hoursMin,omitempty"`
	HoursMax     float64 `json:"hoursMax,omitempty"`
	Checkpointed int     `json:"checkpointedPods,omitempty"`
	// AtRisk is what would be lost, in device-hours: each pod's devices times its hours. Absent where it is not known.
	AtRisk *float64 `json:"atRiskDeviceHours,omitempty"`
}

// Hit is a gang whose pods have to be looked at.
type Hit struct {
	Ref     drain.GangRef
	empties []Empties
	// each is how many devices one of its pods holds, as one on the node does.
	each int64
}

// Members are the pods of a gang, as the API server shows them.
type Members struct {
	Pods []corev1.Pod
	// More says that there are more than were asked for; Unknown why they could not be looked at.
	More    bool
	Unknown string
}

// Hits are the gangs that the plan's drains would stop, in order. A gang whose pods cost less than Dear, by the policy's word,
// loses nothing; one without a name cannot be asked about.
func (p *Plan) Hits() []Hit {
	found := map[drain.GangRef]*Hit{}
	for _, scope := range []Empties{EmptiesDevices, EmptiesNode} {
		if p.first(scope) == nil {
			continue
		}
		moves := p.draft.NodePlan
		if scope == EmptiesDevices {
			moves = p.draft.RepairPlan
		}
		if moves == nil {
			continue
		}
		for i := range moves.Move {
			m := &moves.Move[i]
			if m.Cost == v1alpha1.CostDear {
				note(found, &m.Pod, scope, m.Devices)
			}
		}
		for i := range moves.Terminating {
			note(found, &moves.Terminating[i], scope, 0)
		}
	}
	out := make([]Hit, 0, len(found))
	for _, h := range found {
		out = append(out, *h)
	}
	slices.SortFunc(out, func(a, b Hit) int {
		return cmp.Or(strings.Compare(a.Ref.String(), b.Ref.String()), strings.Compare(a.Ref.Label, b.Ref.Label))
	})
	return out
}

func note(found map[drain.GangRef]*Hit, pod *corev1.Pod, scope Empties, devices int64) {
	ref, ok := drain.GangOf(pod)
	if !ok {
		return
	}
	h := found[ref]
	if h == nil {
		h = &Hit{Ref: ref}
		found[ref] = h
	}
	h.each = max(h.each, devices)
	if !slices.Contains(h.empties, scope) {
		h.empties = append(h.empties, scope)
	}
}

// Weigh adds what stopping a gang would lose, as the controller weighs it.
func (p *Plan) Weigh(hit Hit, seen Members) {
	g := Gang{Gang: hit.Ref.String(), Label: hit.Ref.Label, Empties: hit.empties, Unknown: seen.Unknown}
	if g.Unknown == "" {
		var pods []*corev1.Pod
		for i := range seen.Pods {
			if hit.Ref.Has(&seen.Pods[i]) {
				pods = append(pods, &seen.Pods[i])
			}
		}
		loss := drain.WeighGang(p.At.Time, pods, hit.each)
		g.Down, g.Pods, g.Nodes, g.Devices, g.AtRisk = loss.Down, loss.Pods, loss.Nodes, loss.Devices, &loss.DeviceHours
		g.HoursMin, g.HoursMax, g.Checkpointed, g.AtLeast = loss.Shortest, loss.Longest, loss.Checkpointed, seen.More && !loss.Down
	}
	p.Gangs = append(p.Gangs, g)
}

// gangs says what each gang would lose.
func (p *Plan) gangs(limit int) []string {
	var out []string
	for i := range p.Gangs {
		if i == limit {
			return append(out, fmt.Sprintf("and %d more", len(p.Gangs)-limit))
		}
		g := &p.Gangs[i]
		var scopes []string
		for _, scope := range g.Empties {
			scopes = append(scopes, string(scope))
		}
		out = append(out, fmt.Sprintf("%s: gang %s: %s", strings.Join(scopes, ", "), text.Clean(g.Gang), g.says()))
	}
	return out
}

func (g *Gang) says() string {
	switch {
	case g.Unknown != "" || g.AtRisk == nil:
		return "what it would lose is not known: " + text.Clean(g.Unknown)
	case g.Down:
		return "one of its pods does not run, so nothing more would be lost"
	case g.Pods == 0:
		return "none of its pods is left"
	}
	lost := drain.Risk(*g.AtRisk) + " would be lost"
	if g.AtLeast {
		lost = "at least " + lost + ", since it has more pods than were looked at"
	}
	return fmt.Sprintf("%s on %s, %s %s: %s", text.Count(g.Devices, "device", "devices"), text.Count(g.Nodes, "node", "nodes"),
		g.hours(), g.since(), lost)
}

func (g *Gang) hours() string {
	least, most := fmt.Sprintf("%.1f h", g.HoursMin), fmt.Sprintf("%.1f h", g.HoursMax)
	if least == most {
		return most
	}
	return strings.TrimSuffix(least, " h") + " to " + most
}

func (g *Gang) since() string {
	switch g.Checkpointed {
	case g.Pods:
		return "since its last checkpoint"
	case 0:
		return "since it started, without a checkpoint"
	}
	return "since each pod's last checkpoint, or its start without one"
}
