package policy

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

const (
	conditionPrefix = "NodeCondition/"
	// maxCode is the bound of Fault.code in the schema; a condition's type may be longer.
	maxCode = 64
	// maxEvidence is the bound of Fault.evidence.
	maxEvidence = 512
	// hashLength keeps two long types apart after they are cut; eight hex digits among one node's conditions.
	hashLength = 8
)

// ConditionCode is the fault code of a Node condition: NodeCondition/<type>, cut and hashed where that is too long.
func ConditionCode(conditionType string) string { return code(conditionPrefix, conditionType) }

// code puts a text after a prefix, cut and hashed where that is too long for a fault's code.
func code(prefix, text string) string {
	whole := prefix + text
	if len(whole) <= maxCode {
		return whole
	}
	sum := sha256.Sum256([]byte(text))
	return whole[:maxCode-hashLength-1] + "-" + hex.EncodeToString(sum[:])[:hashLength]
}

// conditionFaults looks for each condition that a rule names. Two rules may name one condition with different times:
// then the fault exists from the shorter on, and each rule waits for its own time when it is matched.
func conditionFaults(policy *v1alpha1.RemediationPolicy, node *corev1.Node, now time.Time) (faults []v1alpha1.Fault, next time.Duration) {
	found := map[string]bool{}
	for i := range policy.Spec.Rules {
		for _, match := range policy.Spec.Rules[i].Match.NodeConditions {
			condition, ok := holding(node, match)
			if !ok {
				continue
			}
			left := match.For.Duration - now.Sub(condition.LastTransitionTime.Time)
			if left > 0 {
				if next == 0 || left < next {
					next = left
				}
				continue
			}
			if code := ConditionCode(match.Type); !found[code] {
				found[code] = true
				faults = append(faults, conditionFault(condition))
			}
		}
	}
	return faults, next
}

// holding gives the condition that a match names, where it has the status.
func holding(node *corev1.Node, match v1alpha1.NodeConditionMatch) (corev1.NodeCondition, bool) {
	for _, condition := range node.Status.Conditions {
		if string(condition.Type) == match.Type && condition.Status == match.Status {
			return condition, true
		}
	}
	return corev1.NodeCondition{}, false
}

// conditionFault says what a condition says. Nothing in it moves with a heartbeat, so that the same condition stays the
// same fault. It recommends nothing: its rule's ladder is begun at the first rung.
func conditionFault(condition corev1.NodeCondition) v1alpha1.Fault {
	evidence := evidencePrefix(string(condition.Type), condition.Status) + condition.Reason + ": " + condition.Message
	return v1alpha1.Fault{
		Code:        ConditionCode(string(condition.Type)),
		Check:       v1alpha1.CheckNodeCondition,
		Class:       v1alpha1.ClassHost,
		Severity:    v1alpha1.SeverityCritical,
		Recommended: v1alpha1.RecommendNone,
		FirstSeen:   condition.LastTransitionTime,
		LastSeen:    condition.LastTransitionTime,
		Count:       1,
		Root:        true,
		Evidence:    cut(evidence, maxEvidence),
	}
}

// evidencePrefix begins the evidence of a condition's fault, and tells Ready=False from Ready=Unknown.
func evidencePrefix(conditionType string, status corev1.ConditionStatus) string {
	return fmt.Sprintf("%s=%s ", conditionType, status)
}

// matchesCondition says whether a fault is of one of these conditions and has lasted for long enough. A fault without
// evidence, such as one rebuilt from a Remediation's root, is matched by its code alone.
func matchesCondition(matches []v1alpha1.NodeConditionMatch, fault v1alpha1.Fault, now time.Time) bool {
	if fault.Check != v1alpha1.CheckNodeCondition {
		return false
	}
	for _, match := range matches {
		sameStatus := fault.Evidence == "" || strings.HasPrefix(fault.Evidence, evidencePrefix(match.Type, match.Status))
		if fault.Code == ConditionCode(match.Type) && sameStatus && now.Sub(fault.FirstSeen.Time) >= match.For.Duration {
			return true
		}
	}
	return false
}
