package explain

import (
	"fmt"
	"strings"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/cli/text"
)

// Recite says a rule in a line.
func Recite(rule *v1alpha1.Rule) string {
	out := reciteMatch(&rule.Match) + ": "
	switch rule.Response {
	case v1alpha1.ResponseIgnore:
		return out + "count and show it, never act"
	case v1alpha1.ResponseQuarantine:
		return out + "quarantine, repair nothing"
	case v1alpha1.ResponseRepair:
	}
	return out + "quarantine, then " + strings.Join(rule.Ladder, ", then ") + "; " + reciteWhen(rule)
}

func reciteMatch(m *v1alpha1.RuleMatch) string {
	if m.Any {
		return "any fault"
	}
	var parts []string
	add := func(what, said string) {
		if said != "" {
			parts = append(parts, what+" "+said)
		}
	}
	add("code", oneOf(m.Codes))
	add("class", oneOf(m.Classes))
	add("severity", oneOf(m.Severities))
	add("scope", string(m.Scope))
	var conditions []string
	for _, c := range m.NodeConditions {
		said := fmt.Sprintf("%s=%s", c.Type, c.Status)
		if c.For.Duration > 0 {
			said += " for " + text.Duration(c.For.Duration)
		}
		conditions = append(conditions, said)
	}
	add("condition", oneOf(conditions))
	add("driver's taint", oneOf(reciteTaints(m.DeviceTaints)))
	add("CEL", text.Clean(m.Expression))
	return strings.Join(parts, ", ")
}

func reciteTaints(taints []v1alpha1.DeviceTaintMatch) []string {
	var out []string
	for _, t := range taints {
		said := t.Key
		if len(t.Values) > 0 {
			said += "=" + strings.Join(t.Values, "|")
		}
		if len(t.Effects) > 0 {
			said += ":" + oneOf(t.Effects)
		}
		if t.For.Duration > 0 {
			said += " for " + text.Duration(t.For.Duration)
		}
		out = append(out, said)
	}
	return out
}

// oneOf says "a, b or c".
func oneOf[S ~string](words []S) string {
	out := make([]string, len(words))
	for i, w := range words {
		out[i] = string(w)
	}
	if len(out) < 2 {
		return strings.Join(out, "")
	}
	return strings.Join(out[:len(out)-1], ", ") + " or " + out[len(out)-1]
}

func reciteWhen(rule *v1alpha1.Rule) string {
	var out string
	switch rule.When {
	case v1alpha1.WhenIdle:
		out = "when idle"
	case v1alpha1.WhenWindow:
		out = "in a window"
	default:
		return "at once"
	}
	if rule.Deadline != nil {
		if rule.RefillStop != nil {
			out += "; no new work after " + text.Duration(rule.Deadline.Duration-rule.RefillStop.Duration)
		}
		out += "; after " + text.Duration(rule.Deadline.Duration) + " " + atDeadline(rule)
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
