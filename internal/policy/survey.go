package policy

import (
	"fmt"
	"iter"

	corev1 "k8s.io/api/core/v1"
)

// Survey is what only the nodes show: how many each policy governs, and where policies tie.
type Survey struct {
	set *Set
	// Matched counts the nodes that each policy governs, or would if it were accepted, by its name.
	Matched map[string]int32
	ties    map[string]tieSeen
}

// tieSeen is where a policy ties: the first node by name, how many, and with whom.
type tieSeen struct {
	nodes   int
	example string
	message string
}

// Survey asks every node which policy governs it.
func (s *Set) Survey(nodes iter.Seq[*corev1.Node]) Survey {
	survey := Survey{set: s, Matched: map[string]int32{}, ties: map[string]tieSeen{}}
	for node := range nodes {
		top := s.selecting(node)
		for _, c := range top {
			survey.Matched[c.policy.Name]++
			if len(top) == 1 {
				continue
			}
			seen := survey.ties[c.policy.Name]
			// The first by name, not by iteration: the message must not change while nothing does.
			if seen.nodes == 0 || node.Name < seen.example {
				seen.example, seen.message = node.Name, tie(top)
			}
			seen.nodes++
			survey.ties[c.policy.Name] = seen
		}
	}
	return survey
}

// Status gives the verdict on the policy of this name: Invalid, Conflicted or Valid, and what to change.
func (v Survey) Status(name string) (reason, message string) {
	reason, message = v.set.Status(name)
	seen, tied := v.ties[name]
	if reason != ReasonValid || !tied {
		return reason, message
	}
	return ReasonConflicted, fmt.Sprintf("%s select the same %d node(s), such as %s; these are in Observe until one has another priority",
		seen.message, seen.nodes, seen.example)
}
