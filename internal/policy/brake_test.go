package policy

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

func incident(node, code string, began time.Duration, phase v1alpha1.Phase) v1alpha1.Remediation {
	return v1alpha1.Remediation{
		Spec: v1alpha1.RemediationSpec{
			Node: node, Policy: "p", Cause: v1alpha1.CauseFaults,
			Root: v1alpha1.RootFault{Code: code, FirstSeen: metav1.NewTime(now.Add(began))},
		},
		Status: v1alpha1.RemediationStatus{Phase: phase},
	}
}

// burst is n nodes that show a code, each a minute after the one before.
func burst(n int, code string, phase v1alpha1.Phase) []v1alpha1.Remediation {
	var incidents []v1alpha1.Remediation
	for i := range n {
		incidents = append(incidents, incident(fmt.Sprintf("%s-%d", code, i), code, time.Duration(i)*time.Minute, phase))
	}
	return incidents
}

func TestBrake(t *testing.T) {
	since := metav1.NewTime(now)
	earlier := metav1.NewTime(now.Add(-time.Hour))
	released := v1alpha1.BrakeStatus{State: v1alpha1.BrakeReleased}
	holding := func(code string, nodes int32, since metav1.Time) v1alpha1.BrakeStatus {
		return v1alpha1.BrakeStatus{
			State: v1alpha1.BrakeHolding, Signature: code, Nodes: nodes, Since: &since,
			ReleaseWhen: fmt.Sprintf("fewer than 3 nodes show %s that began within 10m0s of each other", code),
		}
	}
	maintenance := burst(5, "Xid79", v1alpha1.PhasePending)
	for i := range maintenance {
		maintenance[i].Spec.Cause = v1alpha1.CauseMaintenance
	}
	others := burst(5, "Xid79", v1alpha1.PhasePending)
	for i := range others {
		others[i].Spec.Policy = "other"
	}
	minimum := int32(3)
	cases := map[string]struct {
		nodes     intstr.IntOrString
		none      bool
		incidents []v1alpha1.Remediation
		before    *v1alpha1.BrakeStatus
		want      v1alpha1.BrakeStatus
	}{
		"a policy without a brake":                           {none: true, incidents: burst(50, "Xid79", v1alpha1.PhasePending), want: released},
		"fewer nodes than minNodes, whatever the percentage": {incidents: burst(2, "Xid79", v1alpha1.PhasePending), want: released},
		"as many nodes as it takes":                          {incidents: burst(3, "Xid79", v1alpha1.PhaseDraining), want: holding("Xid79", 3, since)},
		"of several codes, each counts by itself":            {incidents: append(burst(2, "Xid79", v1alpha1.PhasePending), burst(2, "Xid48", v1alpha1.PhasePending)...), want: released},
		"the code with the most nodes is named":              {incidents: append(burst(3, "Xid79", v1alpha1.PhasePending), burst(4, "Xid48", v1alpha1.PhasePending)...), want: holding("Xid48", 4, since)},
		"one node with several incidents is one node": {incidents: []v1alpha1.Remediation{
			incident("n", "Xid79", 0, v1alpha1.PhasePending), incident("n", "Xid79", time.Minute, v1alpha1.PhasePending), incident("n", "Xid79", 2*time.Minute, v1alpha1.PhasePending),
		}, want: released},
		"faults too far apart": {incidents: []v1alpha1.Remediation{
			incident("a", "Xid79", 0, v1alpha1.PhasePending), incident("b", "Xid79", 9*time.Minute, v1alpha1.PhasePending), incident("c", "Xid79", 18*time.Minute, v1alpha1.PhasePending),
		}, want: released},
		"faults just close enough": {incidents: []v1alpha1.Remediation{
			incident("a", "Xid79", 0, v1alpha1.PhasePending), incident("b", "Xid79", 5*time.Minute, v1alpha1.PhasePending), incident("c", "Xid79", 10*time.Minute, v1alpha1.PhasePending),
		}, want: holding("Xid79", 3, since)},
		"incidents that are over":                           {incidents: burst(5, "Xid79", v1alpha1.PhaseSucceeded), want: released},
		"incidents in probation show their fault no longer": {incidents: burst(5, "Xid79", v1alpha1.PhaseProbation), want: released},
		"escalated ones still do":                           {incidents: burst(3, "Xid79", v1alpha1.PhaseEscalated), want: holding("Xid79", 3, since)},
		"maintenance is nobody's fault":                     {incidents: maintenance, want: released},
		"incidents of another policy":                       {incidents: others, want: released},
		"a percentage of the nodes that the policy governs": {nodes: intstr.FromString("50%"), incidents: burst(4, "Xid79", v1alpha1.PhasePending), want: released},
		"since stays while the same brake holds":            {incidents: burst(3, "Xid79", v1alpha1.PhasePending), before: ptr(holding("Xid79", 9, earlier)), want: holding("Xid79", 3, earlier)},
		"since moves when another code makes it hold":       {incidents: burst(3, "Xid79", v1alpha1.PhasePending), before: ptr(holding("Xid48", 9, earlier)), want: holding("Xid79", 3, since)},
		"a number that cannot be read holds, and says so": {nodes: intstr.FromString("many"), want: v1alpha1.BrakeStatus{
			State: v1alpha1.BrakeHolding, Since: &since,
			ReleaseWhen: `brake.sameSignature.nodes can be read: reading "many": invalid value for IntOrString: invalid type: string is not a percentage`,
		}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			nodes := c.nodes
			if nodes == (intstr.IntOrString{}) {
				nodes = intstr.FromString("1%")
			}
			policy := newPolicy("p", func(p *v1alpha1.RemediationPolicy) {
				if !c.none {
					p.Spec.Brake = &v1alpha1.Brake{SameSignature: &v1alpha1.SameSignature{Nodes: nodes, MinNodes: &minimum}}
				}
			})
			got := Brake(&policy, c.incidents, 10, c.before, now)
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("brake (-want +got):\n%s", diff)
			}
		})
	}
}

func ptr[T any](value T) *T { return &value }
