package policy

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

// match gives the first rule that matches.
func (c *compiled) match(fault v1alpha1.Fault, node *corev1.Node, now time.Time) (*v1alpha1.Rule, error) {
	for i := range c.rules {
		matches, err := c.rules[i].matches(fault, node, now)
		if err != nil {
			return nil, fmt.Errorf("rule %s of policy %s: %w", c.rules[i].spec.Name, c.policy.Name, err)
		}
		if matches {
			return c.rules[i].spec, nil
		}
	}
	return nil, nil
}

// matches says whether every field that is set matches. The expression comes last: it costs most, and may count on the
// fields before it.
func (r rule) matches(fault v1alpha1.Fault, node *corev1.Node, now time.Time) (bool, error) {
	match := r.spec.Match
	if match.Any {
		return fault.Check != v1alpha1.CheckNodeCondition && fault.Check != v1alpha1.CheckDeviceTaint, nil
	}
	switch {
	case fault.Check == v1alpha1.CheckDeviceTaint && len(match.DeviceTaints) == 0, // only a rule that names it means it.
		len(match.Classes) > 0 && !slices.Contains(match.Classes, fault.Class),
		len(match.Codes) > 0 && !slices.Contains(match.Codes, fault.Code),
		len(match.Severities) > 0 && !slices.Contains(match.Severities, fault.Severity),
		match.Scope != "" && match.Scope != scope(fault),
		len(match.NodeConditions) > 0 && !matchesCondition(match.NodeConditions, fault, now),
		len(match.DeviceTaints) > 0 && !matchesTaint(match.DeviceTaints, fault, now):
		return false, nil
	case r.expression == nil:
		return len(match.Classes)+len(match.Codes)+len(match.Severities)+len(match.NodeConditions)+len(match.DeviceTaints) > 0 || match.Scope != "", nil
	}
	return r.expression.matches(fault, node, now)
}

func scope(fault v1alpha1.Fault) v1alpha1.FaultScope {
	if fault.Device == "" {
		return v1alpha1.ScopeNode
	}
	return v1alpha1.ScopeDevice
}
