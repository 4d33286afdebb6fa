package order

import (
	"cmp"
	"maps"
	"math"
	"slices"

	"github.com/roundhouse-dev/roundhouse/internal/drain"
)

// Work is what a drain of a node would stop: the work of its own that it would lose, and the devices that each pod has of the
// gangs that run on it. What is not known is NaN, the dearest.
func Work(plan *drain.Plan) (atRisk float64, gangs map[drain.GangRef]int64) {
	gangs = map[drain.GangRef]int64{}
	if plan == nil {
		return math.NaN(), gangs
	}
	for i := range plan.Move {
		m := &plan.Move[i]
		ref, ok := drain.GangOf(&m.Pod)
		if !ok || !m.LosesWork() {
			atRisk += m.AtRisk
			continue
		}
		gangs[ref] = max(gangs[ref], m.Devices)
	}
	for i := range plan.Terminating {
		if ref, ok := drain.GangOf(&plan.Terminating[i]); ok {
			gangs[ref] = max(gangs[ref], 0)
		}
	}
	return atRisk, gangs
}

// IDs are the gangs' names, in order.
func IDs(gangs map[drain.GangRef]int64) []string {
	var ids []string
	for _, ref := range slices.SortedFunc(maps.Keys(gangs), ByName) {
		ids = append(ids, ref.String())
	}
	return ids
}

// ByName orders gangs.
func ByName(a, b drain.GangRef) int { return cmp.Compare(a.String(), b.String()) }
