package explain

import (
	"fmt"
	"strings"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/cli/text"
)

// Recite says a rule in a sentence.
func Recite(rule *v1alpha1.Rule) string {
	out := "where " + reciteMatch(&rule.Match) + ": "
	switch rule.Response {
	case v1alpha1.ResponseIgnore:
		return out + "count and show it, never act"
	case v1alpha1.ResponseQuarantine:
		return out + "keep new work off, repair nothing"
	case v1alpha1.ResponseRepair:
	}
	out += "keep new work off, then " + strings.Join(rule.Ladder, ", then ") + "; " + reciteWhen(rule)
	return out
}

func reciteMatch(m *v1alpha1.RuleMatch) string {
	if m.Any {
		return "there is any fault"
	}
	var parts []string
	if len(m.Codes) > 0 {
		parts = append(parts, "the code is "+oneOf(m.Codes))
	}
	if len(m.Classes) > 0 {
		parts = append(parts, "the class is "+oneOf(m.Classes))
	}
	if len(m.Severities) > 0 {
		parts = append(parts, "the severity is "+oneOf(m.Severities))
	}
	switch m.Scope {
	case v1alpha1.ScopeDevice:
		parts = append(parts, "the fault is one device's")
	case v1alpha1.ScopeNode:
		parts = append(parts, "the fault is the whole node's")
	}
	var conditions []string
	for _, c := range m.NodeConditions {
		said := fmt.Sprintf("%s=%s", c.Type, c.Status)
		if c.For.Duration > 0 {
			said += " for " + text.Duration(c.For.Duration)
		}
		conditions = append(conditions, said)
	}
	if len(conditions) > 0 {
		parts = append(parts, "the Node's condition is "+oneOf(conditions))
	}
	if m.Expression != "" {
		parts = append(parts, "CEL says "+text.Clean(m.Expression))
	}
	return strings.Join(parts, " and ")
}

func oneOf[S ~string](words []S) string {
	out := make([]string, len(words))
	for i, w := range words {
		out[i] = string(w)
	}
	if len(out) == 1 {
		return out[0]
	}
	return strings.Join(out[:len(out)-1], ", ") + " or " + out[len(out)-1]
}

func reciteWhen(rule *v1alpha1.Rule) string {
	var out string
	switch rule.When {
	case v1alpha1.WhenIdle:
		out = "begin when no work would be lost"
	case v1alpha1.WhenWindow:
		out = "begin in a window of the policy"
	default:
		return "begin at once"
	}
	if rule.Deadline != nil {
		out += ", at most " + text.Duration(rule.Deadline.Duration) + " later " + atDeadline(rule)
	}
	return out
}

// atDeadline says what a rule does when waiting has lasted too long.
func atDeadline(rule *v1alpha1.Rule) string {
	if rule != nil && rule.AtDeadline == v1alpha1.DeadlineForce {
		return "begin anyway, through the Eviction API"
	}
	return "ask a human, never force"
}
