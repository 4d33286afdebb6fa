package policy

import (
	"fmt"
	"slices"
	"strings"
	"time"

	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/decide"
)

const taintPrefix = "DeviceTaint/"

// TaintCode is the fault code of a driver's taint: DeviceTaint/<key>=<value>, cut and hashed where that is too long.
func TaintCode(key, value string) string {
	text := key
	if value != "" {
		text += "=" + value
	}
	return code(taintPrefix, text)
}

// taintFaults makes faults of the taints that a rule names and, so that it is known whether it has gone, of the one that an
// open incident began with. Two rules may name one with different times: then the fault exists from the shorter on.
func taintFaults(policy *v1alpha1.RemediationPolicy, taints []decide.DriverTaint, root *v1alpha1.RootFault, now time.Time) (faults []v1alpha1.Fault, next time.Duration) {
	for _, taint := range taints {
		if taint.DeviceID == "" {
			continue // nobody can say which device that is.
		}
		fault := taintFault(taint)
		same := func(f v1alpha1.Fault) bool { return f.Code == fault.Code && f.Device == fault.Device }
		if slices.ContainsFunc(faults, same) {
			continue
		}
		left, named := wait(policy, taint, now)
		began := root != nil && root.Check == v1alpha1.CheckDeviceTaint && root.Code == fault.Code && root.Device == fault.Device
		switch {
		case began || named && left <= 0:
			faults = append(faults, fault)
		case named && (next == 0 || left < next):
			next = left
		}
	}
	return faults, next
}

// wait is how long until the first rule that names a taint has waited for long enough; named says whether one does.
func wait(policy *v1alpha1.RemediationPolicy, taint decide.DriverTaint, now time.Time) (left time.Duration, named bool) {
	if policy == nil {
		return 0, false
	}
	for i := range policy.Spec.Rules {
		for _, match := range policy.Spec.Rules[i].Match.DeviceTaints {
			if !names(match, taint.Key, taint.Value, taint.Effect) {
				continue
			}
			if l := match.For.Duration - now.Sub(taint.Since); !named || l < left {
				left = l
			}
			named = true
		}
	}
	return left, named
}

// names says whether a match names a taint, whenever it was put on.
func names(match v1alpha1.DeviceTaintMatch, key, value string, effect resourcev1.DeviceTaintEffect) bool {
	return match.Key == key && (len(match.Values) == 0 || slices.Contains(match.Values, value)) && slices.Contains(effects(match), effect)
}

// effects are those that a match names: without a word, those that keep pods out.
func effects(match v1alpha1.DeviceTaintMatch) []resourcev1.DeviceTaintEffect {
	if len(match.Effects) == 0 {
		return []resourcev1.DeviceTaintEffect{resourcev1.DeviceTaintEffectNoSchedule, resourcev1.DeviceTaintEffectNoExecute}
	}
	return match.Effects
}

// taintFault says what a taint says. It recommends nothing: its rule's ladder is begun at the first rung. Whose fault it is no
// taint says.
func taintFault(taint decide.DriverTaint) v1alpha1.Fault {
	severity := v1alpha1.SeverityInfo
	if taint.KeepsOut() {
		severity = v1alpha1.SeverityCritical
	}
	since := metav1.NewTime(taint.Since)
	return v1alpha1.Fault{
		Code:        TaintCode(taint.Key, taint.Value),
		Check:       v1alpha1.CheckDeviceTaint,
		Device:      taint.DeviceID,
		Class:       v1alpha1.ClassUnknown,
		Severity:    severity,
		Recommended: v1alpha1.RecommendNone,
		FirstSeen:   since,
		LastSeen:    since,
		Count:       1,
		Root:        true,
		Evidence:    cut(fmt.Sprintf("%s of the DRA driver %s on %s", taint, taint.Driver, taint.Device), maxEvidence),
	}
}

// matchesTaint says whether a fault is of one of these taints and has lasted for long enough. A fault without evidence, such
// as one rebuilt from a Remediation's root, is matched by its code alone.
func matchesTaint(matches []v1alpha1.DeviceTaintMatch, fault v1alpha1.Fault, now time.Time) bool {
	if fault.Check != v1alpha1.CheckDeviceTaint {
		return false
	}
	return slices.ContainsFunc(matches, func(match v1alpha1.DeviceTaintMatch) bool {
		return namesFault(match, fault) && now.Sub(fault.FirstSeen.Time) >= match.For.Duration
	})
}

func namesFault(match v1alpha1.DeviceTaintMatch, fault v1alpha1.Fault) bool {
	if fault.Evidence != "" {
		key, value, effect := readTaint(fault.Evidence)
		return names(match, key, value, effect)
	}
	if len(match.Values) > 0 {
		return slices.ContainsFunc(match.Values, func(value string) bool { return fault.Code == TaintCode(match.Key, value) })
	}
	// A code that was cut begins as the whole one did.
	begins := taintPrefix + match.Key + "="
	return fault.Code == TaintCode(match.Key, "") || strings.HasPrefix(fault.Code, begins[:min(len(begins), maxCode-hashLength-1)])
}

// readTaint reads what begins the evidence, key=value:effect; neither = nor : can be in a key or a value.
func readTaint(evidence string) (key, value string, effect resourcev1.DeviceTaintEffect) {
	said, _, _ := strings.Cut(evidence, " ")
	said, after, _ := strings.Cut(said, ":")
	key, value, _ = strings.Cut(said, "=")
	return key, value, resourcev1.DeviceTaintEffect(after)
}

// checkDeviceTaints refuses what could never match, and what would make us react to our own word.
func (c *compiled) checkDeviceTaints(path string, match v1alpha1.RuleMatch) {
	if len(match.DeviceTaints) == 0 {
		return
	}
	possible := false
	for i, taint := range match.DeviceTaints {
		if strings.HasPrefix(taint.Key, v1alpha1.OwnDomain+"/") {
			c.problem(fmt.Sprintf("%s.deviceTaints[%d].key", path, i),
				taint.Key+" is Roundhouse's own; match the faults themselves with codes or classes")
		}
		severities := map[v1alpha1.Severity]bool{}
		for _, effect := range effects(taint) {
			severities[taintFault(decide.DriverTaint{Effect: effect}).Severity] = true
		}
		possible = possible || len(match.Severities) == 0 ||
			slices.ContainsFunc(match.Severities, func(s v1alpha1.Severity) bool { return severities[s] })
	}
	if !possible || len(match.NodeConditions) > 0 || len(match.Classes) > 0 && !slices.Contains(match.Classes, v1alpha1.ClassUnknown) ||
		match.Scope == v1alpha1.ScopeNode {
		c.problem(path, "deviceTaints never match together with these nodeConditions, classes, severities or scope (a driver's taint "+
			"is a fault of class Unknown and scope Device, Critical where it keeps pods out, else Info); make two rules of it")
	}
}

// AsksForTaints says whether any policy that may be followed names a taint of a driver's.
func (s *Set) AsksForTaints() bool {
	return slices.ContainsFunc(s.policies, func(c *compiled) bool { return len(c.problems) == 0 && asksForTaints(c.policy) })
}

func asksForTaints(policy *v1alpha1.RemediationPolicy) bool {
	return slices.ContainsFunc(policy.Spec.Rules, func(r v1alpha1.Rule) bool { return len(r.Match.DeviceTaints) > 0 })
}
