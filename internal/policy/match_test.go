package policy

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

func xid79() v1alpha1.Fault {
	return v1alpha1.Fault{
		Code: "Xid79", Check: "kernel-log", Device: "GPU-1", Class: v1alpha1.ClassHardware, Severity: v1alpha1.SeverityCritical,
		Recommended: v1alpha1.RecommendReboot, Count: 1, FirstSeen: metav1.NewTime(now.Add(-time.Minute)),
	}
}

func condition(kind string, status corev1.ConditionStatus, ago time.Duration) corev1.NodeCondition {
	return corev1.NodeCondition{
		Type: corev1.NodeConditionType(kind), Status: status, Reason: "Because", Message: "it is so",
		LastTransitionTime: metav1.NewTime(now.Add(-ago)), LastHeartbeatTime: metav1.NewTime(now),
	}
}

func TestMatch(t *testing.T) {
	deadlock := conditionFault(condition("KernelDeadlock", "True", 5*time.Minute))
	cases := map[string]struct {
		match v1alpha1.RuleMatch
		fault v1alpha1.Fault
		want  bool
	}{
		"any matches every fault of the agent":      {match: v1alpha1.RuleMatch{Any: true}, fault: xid79(), want: true},
		"any does not match a Node condition":       {match: v1alpha1.RuleMatch{Any: true}, fault: deadlock},
		"one of the codes":                          {match: v1alpha1.RuleMatch{Codes: []string{"Xid48", "Xid79"}}, fault: xid79(), want: true},
		"none of the codes":                         {match: v1alpha1.RuleMatch{Codes: []string{"Xid48"}}, fault: xid79()},
		"the class":                                 {match: v1alpha1.RuleMatch{Classes: []v1alpha1.FaultClass{v1alpha1.ClassHardware}}, fault: xid79(), want: true},
		"another class":                             {match: v1alpha1.RuleMatch{Classes: []v1alpha1.FaultClass{v1alpha1.ClassApplication}}, fault: xid79()},
		"the severity":                              {match: v1alpha1.RuleMatch{Severities: []v1alpha1.Severity{v1alpha1.SeverityCritical}}, fault: xid79(), want: true},
		"scope Device":                              {match: v1alpha1.RuleMatch{Scope: v1alpha1.ScopeDevice}, fault: xid79(), want: true},
		"scope Node":                                {match: v1alpha1.RuleMatch{Scope: v1alpha1.ScopeNode}, fault: xid79()},
		"every field must match, and one does not":  {match: v1alpha1.RuleMatch{Codes: []string{"Xid79"}, Scope: v1alpha1.ScopeNode}, fault: xid79()},
		"an empty match that came past the schema":  {fault: xid79()},
		"an expression over the fault":              {match: v1alpha1.RuleMatch{Expression: "fault.severity == 'Critical' && fault.ageSeconds >= 60"}, fault: xid79(), want: true},
		"an expression over the node":               {match: v1alpha1.RuleMatch{Expression: "node.name == 'n' && node.labels['pool'] == 'gpu'"}, fault: xid79(), want: true},
		"an expression that says no":                {match: v1alpha1.RuleMatch{Expression: "fault.count >= 3"}, fault: xid79()},
		"an expression after a field that says no":  {match: v1alpha1.RuleMatch{Codes: []string{"X"}, Expression: "true"}, fault: xid79()},
		"a Node condition":                          {match: conditions("KernelDeadlock", "True", 2*time.Minute), fault: deadlock, want: true},
		"a Node condition with another status":      {match: conditions("KernelDeadlock", "Unknown", 0), fault: deadlock},
		"a Node condition that is too young":        {match: conditions("KernelDeadlock", "True", 10*time.Minute), fault: deadlock},
		"a Node condition does not match a fault":   {match: conditions("KernelDeadlock", "True", 0), fault: xid79()},
		"a fault rebuilt from a Remediation's root": {match: conditions("KernelDeadlock", "True", 0), want: true, fault: v1alpha1.Fault{Code: "NodeCondition/KernelDeadlock", Check: v1alpha1.CheckNodeCondition}},
	}
	node := newNode("n", map[string]string{"pool": "gpu"})
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			policies := []v1alpha1.RemediationPolicy{newPolicy("p", rules(when("only", c.match)))}
			got, err := Compile(policies).For(node).Match(c.fault, node, now)
			if err != nil {
				t.Fatal(err)
			}
			if (got != nil) != c.want {
				t.Errorf("matched is %v, want %v", got != nil, c.want)
			}
		})
	}
}

func conditions(kind string, status corev1.ConditionStatus, lasting time.Duration) v1alpha1.RuleMatch {
	return v1alpha1.RuleMatch{NodeConditions: []v1alpha1.NodeConditionMatch{
		{Type: kind, Status: status, For: metav1.Duration{Duration: lasting}},
	}}
}

func TestTheFirstRuleThatMatchesCounts(t *testing.T) {
	p := newPolicy("p", rules(
		when("applications", v1alpha1.RuleMatch{Classes: []v1alpha1.FaultClass{v1alpha1.ClassApplication}}),
		when("fell-off", v1alpha1.RuleMatch{Codes: []string{"Xid79"}}),
		when("rest", v1alpha1.RuleMatch{Any: true}),
	))
	node := newNode("n", nil)
	governing := Compile([]v1alpha1.RemediationPolicy{p}).For(node)
	application := xid79()
	application.Class = v1alpha1.ClassApplication
	other := xid79()
	other.Code = "Xid48"
	for want, fault := range map[string]v1alpha1.Fault{"applications": application, "fell-off": xid79(), "rest": other} {
		rule, err := governing.Match(fault, node, now)
		if err != nil || rule == nil || rule.Name != want {
			t.Errorf("got %v, %v; want %s", rule, err, want)
		}
	}
}

func TestNoRuleIsTriedAfterOneWhoseExpressionFailed(t *testing.T) {
	p := newPolicy("p", rules(
		when("spare", v1alpha1.RuleMatch{Expression: "node.labels['not-there'] == 'x'"}),
		when("rest", v1alpha1.RuleMatch{Any: true}),
	))
	node := newNode("n", nil)
	rule, err := Compile([]v1alpha1.RemediationPolicy{p}).For(node).Match(xid79(), node, now)
	if rule != nil || err == nil || !strings.Contains(err.Error(), "rule spare of policy p") {
		t.Errorf("got %v, %v; want no rule, and an error that names spare", rule, err)
	}
}

func TestConditionFaults(t *testing.T) {
	watched := []v1alpha1.RemediationPolicy{newPolicy("p", rules(
		when("quick", conditions("KernelDeadlock", "True", 2*time.Minute)),
		when("slow", conditions("KernelDeadlock", "True", time.Hour)),
		when("blind", conditions("Ready", "Unknown", 10*time.Minute)),
	))}
	cases := map[string]struct {
		conditions []corev1.NodeCondition
		codes      []string
		next       time.Duration
	}{
		"nothing is wrong":                         {conditions: []corev1.NodeCondition{condition("Ready", "True", time.Hour)}},
		"one holds for long enough for one rule":   {conditions: []corev1.NodeCondition{condition("KernelDeadlock", "True", 3*time.Minute)}, codes: []string{"NodeCondition/KernelDeadlock"}, next: 57 * time.Minute},
		"one holds, but not for long enough yet":   {conditions: []corev1.NodeCondition{condition("KernelDeadlock", "True", time.Minute)}, next: time.Minute},
		"one has another status":                   {conditions: []corev1.NodeCondition{condition("KernelDeadlock", "False", time.Hour)}},
		"two rules name it: it is one fault":       {conditions: []corev1.NodeCondition{condition("KernelDeadlock", "True", 2*time.Hour)}, codes: []string{"NodeCondition/KernelDeadlock"}},
		"two conditions: the next to be looked at": {conditions: []corev1.NodeCondition{condition("KernelDeadlock", "True", time.Minute), condition("Ready", "Unknown", 9*time.Minute+30*time.Second)}, next: 30 * time.Second},
		"it has just reached its time":             {conditions: []corev1.NodeCondition{condition("Ready", "Unknown", 10*time.Minute)}, codes: []string{"NodeCondition/Ready"}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			node := newNode("n", nil, c.conditions...)
			faults, next := Compile(watched).For(node).ConditionFaults(node, now)
			var codes []string
			for _, fault := range faults {
				codes = append(codes, fault.Code)
			}
			if diff := cmp.Diff(c.codes, codes); diff != "" {
				t.Errorf("codes (-want +got):\n%s", diff)
			}
			if next != c.next {
				t.Errorf("next is %v, want %v", next, c.next)
			}
		})
	}
}

func TestAHeartbeatDoesNotChangeTheFault(t *testing.T) {
	before := condition("KernelDeadlock", "True", time.Hour)
	after := before
	after.LastHeartbeatTime = metav1.NewTime(now.Add(time.Hour))
	if diff := cmp.Diff(conditionFault(before), conditionFault(after)); diff != "" {
		t.Errorf("fault (-before +after):\n%s", diff)
	}
	if got := conditionFault(before); got.Evidence != "KernelDeadlock=True Because: it is so" || got.Class != v1alpha1.ClassHost {
		t.Errorf("got %+v", got)
	}
}

func TestALongConditionTypeFitsACodeAndStaysItself(t *testing.T) {
	long := strings.Repeat("a", 300)
	one, other := ConditionCode(long+"/X"), ConditionCode(long+"/Y")
	if len(one) > maxCode || one == other {
		t.Errorf("codes are %q and %q", one, other)
	}
	if got := conditionFault(condition(long, "True", time.Hour)); len(got.Evidence) > maxEvidence {
		t.Errorf("evidence has %d bytes", len(got.Evidence))
	}
}
