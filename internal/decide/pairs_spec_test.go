package decide

import (
	"slices"
	"strings"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

// This file says how two faults are to end. It knows a fault's repair and what has been done, nothing of how the code decides.

// actionClasses are what a catalogue may recommend, from nothing to a human.
var actionClasses = []v1alpha1.Recommendation{
	v1alpha1.RecommendNone, v1alpha1.RecommendRestartApplication, v1alpha1.RecommendRestartDriver, v1alpha1.RecommendResetDevice,
	v1alpha1.RecommendReboot, v1alpha1.RecommendPowerCycle, v1alpha1.RecommendReplace, v1alpha1.RecommendHuman,
}

// places are where two faults are; an empty device is the node.
var places = []struct {
	name          string
	first, second string
}{
	{"a device, then the same device", bad, bad},
	{"a device, then another", bad, second},
	{"a device, then the node", bad, ""},
	{"the node, then a device", "", bad},
	{"the node, then the node", "", ""},
}

// pair is two faults, one of which is there first.
type pair struct {
	first, second v1alpha1.Recommendation
	on, then      string
}

// stage is how far the first fault's incident has come when the second arrives, as far as it matters.
type stage string

const (
	stageBefore    stage = "before"    // Pending, Quarantined, Draining
	stageRule      stage = "rule"      // Quarantined, since the first fault's rule says so
	stageAsked     stage = "asked"     // Repairing, and nothing has begun
	stageRunning   stage = "running"   // Repairing
	stageVerifying stage = "verifying" // Verifying
	stageProbation stage = "probation" // Probation
	stageHuman     stage = "human"     // Escalated
	stageReplaced  stage = "replaced"  // Escalated, and a human has just replaced the part
	stageGone      stage = "gone"      // Quarantined by rule, Verifying, Probation: the first has gone without a repair of ours
)

// outcome is what is done for two faults, and how it ends by itself: Escalated where a human ends it.
type outcome struct {
	acts string
	end  v1alpha1.Phase
}

// repairOf is the gentlest rung that repairs a fault, by its place in the ladder; -1 where nothing is to be done. A reset is
// of a device: what asks for one on the node takes a reboot.
func repairOf(class v1alpha1.Recommendation, device string) int {
	switch class {
	case v1alpha1.RecommendRestartApplication:
		return -1
	case v1alpha1.RecommendNone, v1alpha1.RecommendRestartDriver:
		return 0
	case v1alpha1.RecommendResetDevice:
		if device == "" {
			return 2
		}
		return 1
	default:
		return slices.Index([]v1alpha1.Recommendation{v1alpha1.RecommendReboot, v1alpha1.RecommendPowerCycle,
			v1alpha1.RecommendReplace, v1alpha1.RecommendHuman}, class) + 2
	}
}

const specReset, specReplace, specHuman = 1, 4, 5

// specified is how a pair ends whose second fault arrives at a stage.
func specified(p pair, at stage) outcome {
	one, two := repairOf(p.first, p.on), repairOf(p.second, p.then)
	if at == stageAsked { // it is taken back only for a greater one.
		if at = stageRunning; two > one {
			at = stageBefore
		}
	}
	switch {
	case at == stageHuman:
		return outcome{"", v1alpha1.PhaseEscalated}
	case at == stageReplaced && two >= 0: // the human has more to do.
		return outcome{"", v1alpha1.PhaseEscalated}
	case at == stageReplaced || at == stageGone:
		return climbed(two)
	case at == stageRule && two < 0, one < 0 && two < 0:
		return outcome{"", v1alpha1.PhaseSucceeded}
	case one < 0:
		return climbed(two)
	case two < 0:
		return climbed(one)
	case at == stageRule && p.on == "" && two == specReset: // the reset leaves the node's fault, which is kept out only.
		return climbed(max(one, two))
	case at == stageBefore || at == stageRule:
		return together(p, one, two)
	case one == specReplace:
		return climbed(one)
	case at == stageRunning:
		if two <= one && (one != specReset || p.on == p.then) {
			return climbed(one)
		}
		return climbed(one, two)
	}
	// What was repaired fails again: one rung higher. While a repair of the node is not proved, all of it is what was repaired.
	if p.on == p.then || p.on == "" && at == stageVerifying {
		two = max(two, one+1)
		if two == specReset && p.then == "" {
			two++
		}
	}
	return climbed(one, two)
}

// together repairs two faults at once by the greater repair. A reset leaves what is of the node, which has its own.
func together(p pair, one, two int) outcome {
	most := max(one, two)
	switch {
	case most == specReset && p.on == "":
		return climbed(most, one)
	case most == specReset && p.then == "":
		return climbed(most, two)
	}
	return climbed(most)
}

// climbed ends with the last of these rungs.
func climbed(rungs ...int) outcome {
	o := outcome{end: v1alpha1.PhaseSucceeded}
	var acts []string
	for _, r := range rungs {
		switch {
		case r < 0:
		case r == specHuman:
			o.end = v1alpha1.PhaseEscalated
		default:
			acts = append(acts, wholeLadder[r])
			if r == specReplace {
				o.end = v1alpha1.PhaseNodeGone
			}
		}
	}
	o.acts = strings.Join(acts, ", ")
	return o
}
