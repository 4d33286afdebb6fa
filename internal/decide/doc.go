// Package decide says what happens next to an incident. It is pure: a Decision is a function of a Snapshot, which
// names everything it depends on, the time included. One Decision is one step; after it, the world is looked at anew.
//
// Each phase has an ordered list of rules; the first that speaks decides. The order is part of the policy, so read the
// lists in phases.go first. Where something needed is not known, the rule waits: safety fails closed.
package decide
