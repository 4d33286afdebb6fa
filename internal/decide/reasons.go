package decide

// Reasons of a Decision. They appear in a Remediation's status and timeline, in Events and in metrics.
const (
	// ReasonModeObserve: the policy observes only; the message says what would be done.
	ReasonModeObserve = "ModeObserve"
	// ReasonNoPolicy: no policy governs the node, so it is observed.
	ReasonNoPolicy = "NoPolicy"
	// ReasonPolicyNotAccepted: the node's policy is Invalid or Conflicted, so it is observed.
	ReasonPolicyNotAccepted = "PolicyNotAccepted"
	// ReasonPolicyMovedOn: the policy no longer asks for anything about this fault.
	ReasonPolicyMovedOn = "PolicyMovedOn"
	// ReasonPolicyLowered: the policy's mode no longer allows what was under way.
	ReasonPolicyLowered = "PolicyLowered"
	// ReasonDeviceQuarantined: new work is kept off the bad devices; the others serve on.
	ReasonDeviceQuarantined = "DeviceQuarantined"
	// ReasonNodeQuarantined: new work is kept off the node.
	ReasonNodeQuarantined = "NodeQuarantined"
	// ReasonQuarantineMoved: a rule was not on its device any more, and was taken off to be put on anew.
	ReasonQuarantineMoved = "QuarantineMoved"
	// ReasonQuarantineOnly: the policy quarantines and does not repair.
	ReasonQuarantineOnly = "QuarantineOnly"
	// ReasonHeld: a RemediationHold selects the node.
	ReasonHeld = "Held"
	// ReasonBrakeHolding: too many nodes of the policy show the same fault at once.
	ReasonBrakeHolding = "BrakeHolding"
	// ReasonForeignClaim: somebody else is working on the node.
	ReasonForeignClaim = "ForeignClaim"
	// ReasonNotReporting: the agent's word is not fresh, and nothing disruptive follows from blindness.
	ReasonNotReporting = "NotReporting"
	// ReasonWaitingForIdle: a repair would lose work, and the rule waits until none would be lost.
	ReasonWaitingForIdle = "WaitingForIdle"
	// ReasonWaitingForWindow: the rule waits for one of the policy's windows.
	ReasonWaitingForWindow = "WaitingForWindow"
	// ReasonWaitDeadline: the wait for idle or a window lasted as long as the rule allows.
	ReasonWaitDeadline = "WaitDeadline"
	// ReasonScheduled: the planned work may not begin yet.
	ReasonScheduled = "MaintenanceScheduled"
	// ReasonHandedOver: the node is empty, and its human does the planned work.
	ReasonHandedOver = "HandedOver"
	// ReasonMaintenanceDone: the planned work is done and proved.
	ReasonMaintenanceDone = "MaintenanceDone"
	// ReasonBudgetExhausted: a NodeDisruptionBudget has no slot left.
	ReasonBudgetExhausted = "BudgetExhausted"
	// ReasonNotNext: a budget has a slot left, and other nodes go first.
	ReasonNotNext = "NotNext"
	// ReasonBudgetTaken: every budget that selects the node gave a slot.
	ReasonBudgetTaken = "BudgetTaken"
	// ReasonClaimed: the claim is on the node.
	ReasonClaimed = "Claimed"
	// ReasonDrainStarted: pods are being moved.
	ReasonDrainStarted = "DrainStarted"
	// ReasonEvicting: pods are being evicted.
	ReasonEvicting = "Evicting"
	// ReasonEvictionBlocked: a PodDisruptionBudget refuses for now.
	ReasonEvictionBlocked = "EvictionBlocked"
	// ReasonEvictionStuck: a PodDisruptionBudget refuses for as long as nobody changes something.
	ReasonEvictionStuck = "EvictionStuck"
	// ReasonWaitingForWork: what is left on the node would lose work, and may end it, or keep it, for a while.
	ReasonWaitingForWork = "WaitingForWork"
	// ReasonGateClosed: another system has not said yet that its work on the node has ended.
	ReasonGateClosed = "GateClosed"
	// ReasonEvictionRequested: the responders that pods name have been asked to end them, and have time.
	ReasonEvictionRequested = "EvictionRequested"
	// ReasonWaitingForPods: evicted pods have not ended yet.
	ReasonWaitingForPods = "WaitingForPods"
	// ReasonDeviceDrained: no pod holds a bad device any more.
	ReasonDeviceDrained = "DeviceDrained"
	// ReasonDrained: nothing is left on the node that a reboot would kill.
	ReasonDrained = "Drained"
	// ReasonDrainDeadline: the drain lasted as long as the policy allows.
	ReasonDrainDeadline = "DrainDeadline"
	// ReasonRungSkipped: a rung of the ladder cannot be done here; the message says why.
	ReasonRungSkipped = "RungSkipped"
	// ReasonActionAsked: the agent has been asked to act.
	ReasonActionAsked = "ActionAsked"
	// ReasonActionBegun: the controller has begun to act itself.
	ReasonActionBegun = "ActionBegun"
	// ReasonActionDone: the agent's action succeeded; its effect is to be proved.
	ReasonActionDone = "ActionDone"
	// ReasonActionRefused: the agent refused, and nothing was done.
	ReasonActionRefused = "ActionRefused"
	// ReasonActionWithdrawn: what the agent was asked has been taken back.
	ReasonActionWithdrawn = "ActionWithdrawn"
	// ReasonActionFailed: the agent's action failed, was interrupted, or did not end in time.
	ReasonActionFailed = "ActionFailed"
	// ReasonRebootedAnyway: the node started anew without our asking.
	ReasonRebootedAnyway = "RebootedAnyway"
	// ReasonVerifying: the proof is not complete yet; the message says what is missing.
	ReasonVerifying = "Verifying"
	// ReasonBurningIn: everything else is proved, and the repaired devices are run under load.
	ReasonBurningIn = "BurningIn"
	// ReasonBurnInNotRun: the burn-in never ran, so that it says nothing about the devices.
	ReasonBurnInNotRun = "BurnInNotRun"
	// ReasonNotRepaired: the fault is still there, or the proof did not come in time.
	ReasonNotRepaired = "NotRepaired"
	// ReasonVerified: the fault is gone and every device is back.
	ReasonVerified = "Verified"
	// ReasonProbation: the node is in service and watched.
	ReasonProbation = "Probation"
	// ReasonRelapsed: the fault came back within probation.
	ReasonRelapsed = "RelapsedInProbation"
	// ReasonProbationClean: probation ended without a relapse.
	ReasonProbationClean = "ProbationClean"
	// ReasonFaultCleared: the fault went away by itself.
	ReasonFaultCleared = "FaultCleared"
	// ReasonAttemptsSpent: no rung of the ladder is left but the human.
	ReasonAttemptsSpent = "AttemptsSpent"
	// ReasonRepairLimit: the same hardware was repaired as often as the policy allows.
	ReasonRepairLimit = "RepairLimit"
	// ReasonBootLimit: the node started as often as the policy allows.
	ReasonBootLimit = "BootLimit"
	// ReasonHumanAsked: the fault or the ladder asks for a human at once.
	ReasonHumanAsked = "HumanAsked"
	// ReasonRetryApproved: a human let an escalated incident try once more.
	ReasonRetryApproved = "RetryApproved"
	// ReasonCancelled: a human cancelled it.
	ReasonCancelled = "Cancelled"
	// ReasonNodeGone: the Node was deleted, or is another one of the same name.
	ReasonNodeGone = "NodeGone"
	// ReasonReleased: what was put on is off again.
	ReasonReleased = "Released"
	// ReasonFaultsReported: the incident began.
	ReasonFaultsReported = "FaultsReported"
	// ReasonAdopted: something of ours was found that no Remediation knew of.
	ReasonAdopted = "Adopted"
	// ReasonFaultJoined: another fault of the node joined the incident.
	ReasonFaultJoined = "FaultJoined"
	// ReasonFaultLeft: one of several bad devices is well again, and serves.
	ReasonFaultLeft = "FaultLeft"
)
