package scenario

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Kind is what a fact is about.
type Kind string

// The kinds of fact; kinds lists the fields of each.
const (
	// KindRemediation is an incident that began, or whose phase, reason, message or number of devices changed.
	KindRemediation Kind = "remediation"
	// KindQuarantine is a DeviceTaintRule or a node taint of Roundhouse's that was put on or taken off.
	KindQuarantine Kind = "quarantine"
	// KindClaim is a claim that was put on a Node or taken off.
	KindClaim Kind = "claim"
	// KindEviction is a pod that was running and is told to go, whoever told it.
	KindEviction Kind = "eviction"
	// KindPlaced is a pod that was bound to a node.
	KindPlaced Kind = "placed"
	// KindRunning is a pod that began to run.
	KindRunning Kind = "running"
	// KindFinished is a pod that ended by itself.
	KindFinished Kind = "finished"
	// KindFault is a fault that a node's agent reports, or reports no longer.
	KindFault Kind = "fault"
	// KindHealth is a change of a NodeHealth's summary.
	KindHealth Kind = "health"
	// KindPublished is a write of a node's agent to its NodeHealth.
	KindPublished Kind = "published"
	// KindAction is a step of an action: asked, withdrawn, or the agent's answer.
	KindAction Kind = "action"
	// KindReboot is a node whose boot ID changed.
	KindReboot Kind = "reboot"
	// KindCondition is a change of a Node condition's status.
	KindCondition Kind = "condition"
	// KindOffered is a device plugin's resource on a Node, of which the kubelet offers more or fewer than before.
	KindOffered Kind = "offered"
	// KindTouched is a field outside Roundhouse's own objects that came to be owned by one of its writers.
	KindTouched Kind = "touched"
	// KindBudget is a slot of a NodeDisruptionBudget that was taken for a node, or given back.
	KindBudget Kind = "budget"
	// KindPolicy is a policy whose mode or acceptance changed.
	KindPolicy Kind = "policy"
	// KindHold is a hold that began or ended.
	KindHold Kind = "hold"
	// KindLeader is a change of the controller's leader.
	KindLeader Kind = "leader"
	// KindEvent is an Event.
	KindEvent Kind = "event"
	// KindAlert is an alert that began to fire or was resolved.
	KindAlert Kind = "alert"
)

// kinds are the fields that facts of each kind have.
var kinds = map[Kind][]string{
	KindRemediation: {"name", "node", "phase", "reason", "message", "code", "rung", "attempts", "rule", "evidence", "devices", "opened"},
	KindQuarantine:  {"name", "node", "how", "device", "state"},
	KindClaim:       {"node", "state", "by"},
	KindEviction:    {"node", "pod", "uid", "app", "namespace", "owner", "by", "left"},
	KindPlaced:      {"node", "pod", "uid", "app", "namespace", "owner"},
	KindRunning:     {"node", "pod", "uid", "app", "namespace", "owner"},
	KindFinished:    {"node", "pod", "uid", "app", "namespace", "owner"},
	KindFault:       {"node", "code", "device", "slot", "class", "check", "evidence", "state"},
	KindHealth:      {"node", "summary"},
	KindPublished:   {"node"},
	KindAction:      {"node", "type", "id", "state", "result", "reason", "message"},
	KindReboot:      {"node", "boot", "cause"},
	KindCondition:   {"node", "type", "status", "reason"},
	KindOffered:     {"node", "resource", "count", "of"},
	KindTouched:     {"node", "object", "by", "field"},
	KindBudget:      {"name", "node", "state", "held", "of", "domain"},
	KindPolicy:      {"name", "mode", "accepted", "message"},
	KindHold:        {"name", "state", "reason", "by"},
	KindLeader:      {"holder"},
	KindEvent:       {"node", "type", "reason", "message"},
	KindAlert:       {"name", "node", "state", "message"},
}

// Fact is one thing that happened, read from one change of one object.
type Fact struct {
	// Seq numbers the facts of a scenario from 1.
	Seq int `json:"seq"`
	// At is when it was seen, since the scenario began.
	At time.Duration `json:"-"`
	// Seconds is At for readers of the report.
	Seconds float64 `json:"at"`
	// Kind is what it is about, Fields say the rest.
	Kind   Kind              `json:"kind"`
	Fields map[string]string `json:"fields"`
	// Source is the object and its resourceVersion.
	Source string `json:"source"`
}

// String is the fact on one line, fields in their order.
func (f Fact) String() string {
	parts := []string{string(f.Kind)}
	for _, name := range kinds[f.Kind] {
		if v := f.Fields[name]; v != "" {
			parts = append(parts, name+"="+quoteIfNeeded(v))
		}
	}
	return strings.Join(parts, " ")
}

func quoteIfNeeded(v string) string {
	if strings.ContainsAny(v, " \"\n") {
		return fmt.Sprintf("%q", v)
	}
	return v
}

// Pattern says which facts are meant: a kind, and for some of its fields a value, several values of which one must be
// met ("a,b"), or a regular expression ("~^Xid").
type Pattern struct {
	Kind  Kind
	Where map[string]string
}

// Validate says what is wrong with a pattern, and what would be right.
func (p Pattern) Validate() error {
	fields, ok := kinds[p.Kind]
	if !ok {
		return fmt.Errorf("kind: %q is not a kind of fact; use one of %s", p.Kind, strings.Join(kindNames(), ", "))
	}
	for name, want := range p.Where {
		if !slices.Contains(fields, name) {
			return fmt.Errorf("%s: facts of kind %s have no such field; use one of %s", name, p.Kind, strings.Join(fields, ", "))
		}
		if expr, isExpr := strings.CutPrefix(want, "~"); isExpr {
			if _, err := regexp.Compile(expr); err != nil {
				return fmt.Errorf("%s: %q is no regular expression: %w", name, expr, err)
			}
		}
	}
	return nil
}

func kindNames() []string {
	var names []string
	for k := range kinds {
		names = append(names, string(k))
	}
	slices.Sort(names)
	return names
}

// Matches says whether a fact is one of those meant. A pattern that cannot be read matches nothing; Validate says so
// before it is used.
func (p Pattern) Matches(f Fact) bool {
	if p.Kind != f.Kind {
		return false
	}
	for name, want := range p.Where {
		if !valueMatches(want, f.Fields[name]) {
			return false
		}
	}
	return true
}

func valueMatches(want, got string) bool {
	if expr, isExpr := strings.CutPrefix(want, "~"); isExpr {
		re, err := regexp.Compile(expr)
		return err == nil && re.MatchString(got)
	}
	return slices.Contains(strings.Split(want, ","), got)
}

// String is the pattern on one line, fields in their order.
func (p Pattern) String() string {
	parts := []string{string(p.Kind)}
	for _, name := range kinds[p.Kind] {
		if v, ok := p.Where[name]; ok {
			parts = append(parts, name+"="+quoteIfNeeded(v))
		}
	}
	return strings.Join(parts, " ")
}
