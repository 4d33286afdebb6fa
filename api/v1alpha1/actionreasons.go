package v1alpha1

// Reasons of status.action of a NodeHealth. With result Refused nothing was done.
const (
	// ActionReasonOtherBoot means that the node is in another boot than the one the action was decided on.
	ActionReasonOtherBoot = "OtherBoot"
	// ActionReasonOtherNode means that the Node of this name is another one now: its UID differs.
	ActionReasonOtherNode = "OtherNode"
	// ActionReasonExpired means that spec.action.notAfter had passed.
	ActionReasonExpired = "Expired"
	// ActionReasonUnsupportedType means that this agent cannot do that on this node; see status.supportedActions.
	ActionReasonUnsupportedType = "UnsupportedType"
	// ActionReasonHeld means that a RemediationHold selects the node.
	ActionReasonHeld = "Held"
	// ActionReasonLocalLimit means that the host's own limit of disruptive acts a day is spent. The API cannot raise it.
	ActionReasonLocalLimit = "LocalLimit"
	// ActionReasonJournalUnavailable means that the host's journal could not be read or written.
	ActionReasonJournalUnavailable = "JournalUnavailable"
	// ActionReasonStaleFence means that the object carries a lower fence than one this node has acted on.
	ActionReasonStaleFence = "StaleFence"
	// ActionReasonWithdrawn means that the action was taken back before it began.
	ActionReasonWithdrawn = "Withdrawn"
	// ActionReasonCannotReadHolds means, in state Accepted, that holds cannot be read; the agent asks again until notAfter.
	ActionReasonCannotReadHolds = "CannotReadHolds"
	// ActionReasonCannotReadNode means, in state Accepted, that the Node cannot be read; the agent asks again until notAfter.
	ActionReasonCannotReadNode = "CannotReadNode"
	// ActionReasonRebooted means that the node is in a new boot.
	ActionReasonRebooted = "Rebooted"
	// ActionReasonActFailed means that the act itself returned an error, which the message has.
	ActionReasonActFailed = "ActFailed"
	// ActionReasonStillUp means that a reboot was asked for and the node never went down.
	ActionReasonStillUp = "StillUp"
	// ActionReasonAgentRestarted means, with result Interrupted, that the agent ended after Started and cannot know how far
	// the act came.
	ActionReasonAgentRestarted = "AgentRestarted"
)
