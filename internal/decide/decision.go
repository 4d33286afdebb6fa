package decide

import (
	"time"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/drain"
)

// Do is what the controller does for a Decision, besides writing down its phase and reason.
type Do string

// The things a Decision can ask for, each one step.
const (
	// Wait does nothing until something changes or Requeue has passed.
	Wait Do = "Wait"
	// Move only changes the phase, or records what was observed.
	Move Do = "Move"
	// Amend adds Decision.Devices and Decision.Intents to the spec, and takes the intents in Decision.Drop from it: another
	// fault has joined, or one of several has gone.
	Amend Do = "Amend"
	// Quarantine takes off Decision.TakeOff and Decision.Release, and puts on what Decision.Intents has and status.quarantined lacks.
	Quarantine Do = "Quarantine"
	// Unquarantine takes off what status.quarantined lists, and the claim, if any.
	Unquarantine Do = "Unquarantine"
	// Reserve takes a slot of every budget that selects the node.
	Reserve Do = "Reserve"
	// ClaimNode puts the claim on the node, and the node taint with it where Decision.TaintNode says so.
	ClaimNode Do = "ClaimNode"
	// Unclaim takes the claim off the node, and the node taint unless the quarantine intends it.
	Unclaim Do = "Unclaim"
	// Free gives the budget slots back.
	Free Do = "Free"
	// Evict evicts Decision.Evict.
	Evict Do = "Evict"
	// Ask writes Decision.Action into the NodeHealth.
	Ask Do = "Ask"
	// BeginRemedy begins the attempt of status.step, of a rung that the controller climbs itself.
	BeginRemedy Do = "BeginRemedy"
	// LookRemedy looks how far it has come.
	LookRemedy Do = "LookRemedy"
	// BeginBurnIn runs Decision.BurnIn.
	BeginBurnIn Do = "BeginBurnIn"
	// LookBurnIn looks how far the burn-in of status.step has come.
	LookBurnIn Do = "LookBurnIn"
	// Withdraw takes the action back, raising the fence.
	Withdraw Do = "Withdraw"
	// Record folds the incident into the devices' records and lets go of it.
	Record Do = "Record"
)

// Decision is one step, and why.
type Decision struct {
	Do Do
	// Phase is the phase after the step.
	Phase v1alpha1.Phase
	// Reason, Message and WouldChange explain it.
	Reason, Message, WouldChange string
	// Requeue is when to look again if nothing changes; 0 is for steps that are followed by another at once.
	Requeue time.Duration
	// Empties is what is to be moved once there is a slot, with Do Reserve.
	Empties *drain.Plan
	// Evict lists the pods to evict, with Do Evict, and Means says how.
	Evict []drain.Move
	Means drain.Means
	// Action is what to ask of the agent, with Do Ask.
	Action *v1alpha1.Action
	// Step replaces status.step where it is set.
	Step *v1alpha1.Step
	// Attempt is added to status.attempts where it is set.
	Attempt *v1alpha1.Attempt
	// BurnIn is what to run, with Do BeginBurnIn.
	BurnIn *v1alpha1.BurnInRun
	// Drain replaces status.drain where it is set.
	Drain *v1alpha1.DrainStatus
	// TaintNode asks ClaimNode to keep new pods off the whole node too.
	TaintNode bool
	// KeepTaint asks Unclaim to leave the node taint on: the node is not proved fit for work.
	KeepTaint bool
	// Devices and Intents are added to the spec's, with Do Amend; Intents are what is to be on, with Do Quarantine.
	Devices []string
	Intents []v1alpha1.QuarantineIntent
	// Drop names intents that the spec is to lose, with Do Amend.
	Drop []string
	// TakeOff names the rules that are on no device or on another one, to be taken off before Do Quarantine puts on anew
	// what is missing then.
	TakeOff []string
	// Release names the rules that are on a device whose fault has ended, to be taken off as well.
	Release []string
	// Placed says that after Do Quarantine every rule is known to be where it belongs.
	Placed bool
	// Restart is recorded where a human let the ladder begin anew.
	Restart *v1alpha1.Restart
	// Evidence asks that what the repair erases be saved with this step.
	Evidence bool
	// Deadline replaces status.deadline where it is set.
	Deadline *time.Time
	// Progress says that the decision only tells how far something under way has come, which may be written down a little
	// later.
	Progress bool
	// Rule is the name of the rule that was followed.
	Rule string
}

func wait(phase v1alpha1.Phase, requeue time.Duration, reason, message, wouldChange string) *Decision {
	return &Decision{Do: Wait, Phase: phase, Requeue: requeue, Reason: reason, Message: message, WouldChange: wouldChange}
}

func move(phase v1alpha1.Phase, reason, message string) *Decision {
	return &Decision{Do: Move, Phase: phase, Reason: reason, Message: message}
}
