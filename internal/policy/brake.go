package policy

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

// What sameSignature means where it is silent.
const (
	defaultBrakeMinNodes = 3
	defaultBrakeWindow   = 10 * time.Minute
)

// Brake says whether a policy's brake holds: whether at least sameSignature.nodes nodes (and minNodes) show one fault
// code that began within one window. It follows from the Remediations alone, so that it survives restarts, and it lets
// go by itself when fewer nodes show the fault: when faults clear, or when incidents end.
//
// Those that are over, and those in Probation, no longer show their fault. matched is how many nodes the policy
// governs; before is the last status, for since.
func Brake(policy *v1alpha1.RemediationPolicy, remediations []v1alpha1.Remediation, matched int32, before *v1alpha1.BrakeStatus, now time.Time) v1alpha1.BrakeStatus {
	if policy.Spec.Brake == nil || policy.Spec.Brake.SameSignature == nil {
		return v1alpha1.BrakeStatus{State: v1alpha1.BrakeReleased}
	}
	same := policy.Spec.Brake.SameSignature
	threshold, err := brakeThreshold(same, matched)
	if err != nil {
		// The schema refuses such a text; if one comes past it, the brake holds.
		return hold(before, v1alpha1.BrakeStatus{ReleaseWhen: "brake.sameSignature.nodes can be read: " + err.Error()}, now)
	}
	window := defaultBrakeWindow
	if same.Window != nil {
		window = same.Window.Duration
	}
	code, nodes := busiest(onset(policy.Name, remediations), window)
	if nodes < threshold {
		return v1alpha1.BrakeStatus{State: v1alpha1.BrakeReleased}
	}
	return hold(before, v1alpha1.BrakeStatus{
		Signature:   cut(code, maxCode),
		Nodes:       int32(nodes),
		ReleaseWhen: fmt.Sprintf("fewer than %d nodes show %s that began within %s of each other", threshold, code, window),
	}, now)
}

// hold makes status a holding one, with the time at which this brake began to hold.
func hold(before *v1alpha1.BrakeStatus, status v1alpha1.BrakeStatus, now time.Time) v1alpha1.BrakeStatus {
	status.State = v1alpha1.BrakeHolding
	since := metav1.NewTime(now)
	status.Since = &since
	if before != nil && before.State == v1alpha1.BrakeHolding && before.Signature == status.Signature && before.Since != nil {
		status.Since = before.Since
	}
	return status
}

// brakeThreshold is how many nodes it takes: the number or the percentage rounded down, but at least minNodes.
func brakeThreshold(same *v1alpha1.SameSignature, matched int32) (int, error) {
	nodes, err := intstr.GetScaledValueFromIntOrPercent(&same.Nodes, int(matched), false)
	if err != nil {
		return 0, fmt.Errorf("reading %q: %w", same.Nodes.String(), err)
	}
	least := int32(defaultBrakeMinNodes)
	if same.MinNodes != nil {
		least = *same.MinNodes
	}
	return max(nodes, int(least)), nil
}

// onset gives, for each code, when it began on each node that shows it.
func onset(policy string, remediations []v1alpha1.Remediation) map[string]map[string]time.Time {
	began := map[string]map[string]time.Time{}
	for i := range remediations {
		r := &remediations[i]
		if r.Spec.Policy != policy || r.Spec.Cause == v1alpha1.CauseMaintenance ||
			r.Status.Phase.Over() || r.Status.Phase == v1alpha1.PhaseProbation {
			continue
		}
		if began[r.Spec.Root.Code] == nil {
			began[r.Spec.Root.Code] = map[string]time.Time{}
		}
		began[r.Spec.Root.Code][r.Spec.Node] = r.Spec.Root.FirstSeen.Time
	}
	return began
}

// busiest gives the code that the most nodes began to show within one window, and how many. Of two, the first by name.
func busiest(began map[string]map[string]time.Time, window time.Duration) (code string, nodes int) {
	for _, candidate := range slices.Sorted(maps.Keys(began)) {
		times := slices.SortedFunc(maps.Values(began[candidate]), time.Time.Compare)
		first := 0
		for last := range times {
			for times[last].Sub(times[first]) > window {
				first++
			}
			if count := last - first + 1; cmp.Compare(count, nodes) > 0 {
				code, nodes = candidate, count
			}
		}
	}
	return code, nodes
}
