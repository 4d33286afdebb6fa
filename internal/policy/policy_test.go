package policy

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

var now = time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)

func newNode(name string, labels map[string]string, conditions ...corev1.NodeCondition) *corev1.Node {
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels},
		Status:     corev1.NodeStatus{Conditions: conditions},
	}
}

func newPolicy(name string, change ...func(*v1alpha1.RemediationPolicy)) v1alpha1.RemediationPolicy {
	policy := v1alpha1.RemediationPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID("uid-" + name), Generation: 1, ResourceVersion: "1"},
		Spec:       v1alpha1.RemediationPolicySpec{Mode: v1alpha1.ModeRemediate},
	}
	for _, c := range change {
		c(&policy)
	}
	return policy
}

func priority(n int32) func(*v1alpha1.RemediationPolicy) {
	return func(p *v1alpha1.RemediationPolicy) { p.Spec.Priority = n }
}

func onPool(value string) func(*v1alpha1.RemediationPolicy) {
	return func(p *v1alpha1.RemediationPolicy) {
		p.Spec.NodeSelector.MatchLabels = map[string]string{"pool": value}
	}
}

func rules(rules ...v1alpha1.Rule) func(*v1alpha1.RemediationPolicy) {
	return func(p *v1alpha1.RemediationPolicy) { p.Spec.Rules = rules }
}

func when(name string, match v1alpha1.RuleMatch) v1alpha1.Rule {
	return v1alpha1.Rule{Name: name, Match: match, Response: v1alpha1.ResponseQuarantine}
}

func invalid(p *v1alpha1.RemediationPolicy) {
	p.Spec.Rules = append(p.Spec.Rules, when("bad", v1alpha1.RuleMatch{Expression: "fault.sevrity == 'Critical'"}))
}

func TestFor(t *testing.T) {
	cases := map[string]struct {
		policies []v1alpha1.RemediationPolicy
		want     Governing
		mode     v1alpha1.Mode
	}{
		"no policy selects the node": {
			policies: []v1alpha1.RemediationPolicy{newPolicy("other", onPool("other"))},
			want:     Governing{Reason: ReasonNoPolicy, Message: "no RemediationPolicy selects this node: it is in Observe"},
			mode:     v1alpha1.ModeObserve,
		},
		"one policy governs": {
			policies: []v1alpha1.RemediationPolicy{newPolicy("training", onPool("gpu"))},
			want:     Governing{Accepted: true, Reason: ReasonValid, Message: "policy training, generation 1"},
			mode:     v1alpha1.ModeRemediate,
		},
		"the highest priority governs, wherever it is in the list": {
			policies: []v1alpha1.RemediationPolicy{newPolicy("low", priority(1)), newPolicy("high", priority(2)), newPolicy("none")},
			want:     Governing{Accepted: true, Reason: ReasonValid, Message: "policy high, generation 1"},
			mode:     v1alpha1.ModeRemediate,
		},
		"a tie puts the node in Observe and names both": {
			policies: []v1alpha1.RemediationPolicy{newPolicy("b", priority(5)), newPolicy("a", priority(5), onPool("gpu")), newPolicy("low")},
			want: Governing{Reason: ReasonConflicted, Message: "policies a and b of priority 5 select this node: it is in " +
				"Observe until one has another priority"},
			mode: v1alpha1.ModeObserve,
		},
		"a tie below the one that governs does not matter": {
			policies: []v1alpha1.RemediationPolicy{newPolicy("a"), newPolicy("b"), newPolicy("high", priority(1))},
			want:     Governing{Accepted: true, Reason: ReasonValid, Message: "policy high, generation 1"},
			mode:     v1alpha1.ModeRemediate,
		},
		"an invalid policy keeps its nodes from those below it": {
			policies: []v1alpha1.RemediationPolicy{newPolicy("bad", priority(2), invalid), newPolicy("good", priority(1))},
			want: Governing{Reason: ReasonInvalid, Message: "policy bad is invalid, so this node is in Observe: " +
				"spec.rules[0](bad).match.expression: is not valid CEL: at character 6: undefined field 'sevrity'"},
			mode: v1alpha1.ModeObserve,
		},
		"an invalid policy below does not matter": {
			policies: []v1alpha1.RemediationPolicy{newPolicy("bad", invalid), newPolicy("good", priority(1))},
			want:     Governing{Accepted: true, Reason: ReasonValid, Message: "policy good, generation 1"},
			mode:     v1alpha1.ModeRemediate,
		},
		"a selector that cannot be read might mean this node": {
			policies: []v1alpha1.RemediationPolicy{newPolicy("good"), newPolicy("odd", priority(1), func(p *v1alpha1.RemediationPolicy) {
				p.Spec.NodeSelector.MatchExpressions = []metav1.LabelSelectorRequirement{{Key: "a", Operator: "Near"}}
			})},
			want: Governing{Reason: ReasonInvalid, Message: "policy odd is invalid, so this node is in Observe: spec.nodeSelector: " +
				`"Near" is not a valid label selector operator; until it is corrected every node it outranks is in Observe`},
			mode: v1alpha1.ModeObserve,
		},
		"a mode that is not set is Observe": {
			policies: []v1alpha1.RemediationPolicy{newPolicy("quiet", func(p *v1alpha1.RemediationPolicy) { p.Spec.Mode = "" })},
			want:     Governing{Accepted: true, Reason: ReasonValid, Message: "policy quiet, generation 1"},
			mode:     v1alpha1.ModeObserve,
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			got := Compile(c.policies).For(newNode("n", map[string]string{"pool": "gpu"}))
			if diff := cmp.Diff(c.mode, got.Mode()); diff != "" {
				t.Errorf("mode (-want +got):\n%s", diff)
			}
			got.Policy, got.compiled = nil, nil
			if diff := cmp.Diff(c.want, got, cmp.AllowUnexported(Governing{})); diff != "" {
				t.Errorf("governing (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAnUnacceptedPolicyMatchesNothing(t *testing.T) {
	everything := when("all", v1alpha1.RuleMatch{Any: true})
	set := Compile([]v1alpha1.RemediationPolicy{newPolicy("a", rules(everything)), newPolicy("b", rules(everything))})
	governing := set.For(newNode("n", nil))
	rule, err := governing.Match(v1alpha1.Fault{Code: "Xid79"}, newNode("n", nil), now)
	if rule != nil || err != nil {
		t.Errorf("got %v, %v; want no rule", rule, err)
	}
	if faults, next := governing.ConditionFaults(newNode("n", nil), now); faults != nil || next != 0 {
		t.Errorf("got %v, %v; want no faults", faults, next)
	}
}

func TestStatusNamesThePathAndTheFix(t *testing.T) {
	day := func(d time.Duration) *metav1.Duration { return &metav1.Duration{Duration: d} }
	cases := map[string]struct {
		change func(*v1alpha1.RemediationPolicy)
		want   []string
	}{
		"a misspelt field in CEL": {change: invalid, want: []string{"spec.rules[0](bad).match.expression", "undefined field 'sevrity'"}},
		"CEL that gives no bool":  {change: rules(when("x", v1alpha1.RuleMatch{Expression: "fault.count"})), want: []string{"gives int, but must give a bool"}},
		"CEL that does not parse": {change: rules(when("x", v1alpha1.RuleMatch{Expression: "fault.code =="})), want: []string{"is not valid CEL: at character 14"}},
		"CEL that could cost too much": {
			change: rules(when("x", v1alpha1.RuleMatch{Expression: "node.labels.all(a, node.labels.all(b, node.labels.all(c, a == b || b == c)))"})),
			want:   []string{"may cost", "avoid nested loops over node.labels"},
		},
		"a condition of our own": {
			change: rules(when("x", v1alpha1.RuleMatch{NodeConditions: []v1alpha1.NodeConditionMatch{{Type: v1alpha1.ConditionHealthy, Status: "False"}}})),
			want:   []string{"spec.rules[0](x).match.nodeConditions[0].type: RoundhouseHealthy is Roundhouse's own"},
		},
		"conditions with codes that are not theirs": {
			change: rules(when("x", v1alpha1.RuleMatch{Codes: []string{"Xid79"}, NodeConditions: []v1alpha1.NodeConditionMatch{{Type: "KernelDeadlock", Status: "True"}}})),
			want:   []string{"spec.rules[0](x).match: nodeConditions never match together with these codes", "make two rules of it"},
		},
		"a window that is never open": {
			change: func(p *v1alpha1.RemediationPolicy) {
				p.Spec.Rules = []v1alpha1.Rule{{Name: "x", Match: v1alpha1.RuleMatch{Any: true}, Response: v1alpha1.ResponseRepair, When: v1alpha1.WhenWindow}}
			},
			want: []string{"spec.rules[0](x).when: Window, but spec.windows is empty", "add a window"},
		},
		"a time zone that does not exist": {
			change: func(p *v1alpha1.RemediationPolicy) {
				p.Spec.Windows = []v1alpha1.Window{{Days: []string{"Mon"}, Start: "22:00", End: "06:00", TimeZone: "Asia/Tokio"}}
			},
			want: []string{`spec.windows[0]: timeZone: "Asia/Tokio" is not an IANA name such as Asia/Tokyo`},
		},
		"a negative duration": {
			change: func(p *v1alpha1.RemediationPolicy) { p.Spec.Probation = day(-time.Hour) },
			want:   []string{"spec.probation: -1h0m0s is negative"},
		},
		"a duration in the wrong unit": {
			change: func(p *v1alpha1.RemediationPolicy) { p.Spec.Verify = &v1alpha1.Verify{Settle: day(10000 * time.Hour)} },
			want:   []string{"spec.verify.settle: 10000h0m0s is over a year"},
		},
		"all problems at once": {
			change: func(p *v1alpha1.RemediationPolicy) { invalid(p); p.Spec.Probation = day(-time.Hour) },
			want:   []string{"undefined field", "; spec.probation"},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			reason, message := Compile([]v1alpha1.RemediationPolicy{newPolicy("p", c.change)}).Status("p")
			if reason != ReasonInvalid {
				t.Errorf("reason is %s, want %s", reason, ReasonInvalid)
			}
			for _, want := range c.want {
				if !strings.Contains(message, want) {
					t.Errorf("message is %q, want %q in it", message, want)
				}
			}
			if strings.Contains(message, "\n") {
				t.Errorf("message has several lines: %q", message)
			}
		})
	}
}

func TestSurvey(t *testing.T) {
	set := Compile([]v1alpha1.RemediationPolicy{
		newPolicy("a", priority(1), onPool("gpu")), newPolicy("b", priority(1), onPool("gpu")),
		newPolicy("rest"), newPolicy("bad", priority(9), onPool("bad"), invalid),
	})
	nodes := []*corev1.Node{
		newNode("n2", map[string]string{"pool": "gpu"}), newNode("n1", map[string]string{"pool": "gpu"}),
		newNode("n3", map[string]string{"pool": "bad"}), newNode("n4", nil),
	}
	survey := set.Survey(slices.Values(nodes))
	if diff := cmp.Diff(map[string]int32{"a": 2, "b": 2, "bad": 1, "rest": 1}, survey.Matched); diff != "" {
		t.Errorf("matched (-want +got):\n%s", diff)
	}
	for name, want := range map[string][2]string{
		"a":    {ReasonConflicted, "policies a and b of priority 1 select the same 2 node(s), such as n1; these are in Observe until one has another priority"},
		"rest": {ReasonValid, "every rule can be followed"},
		"gone": {ReasonNoPolicy, "there is no policy of this name"},
	} {
		reason, message := survey.Status(name)
		if diff := cmp.Diff(want, [2]string{reason, message}); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	if reason, _ := survey.Status("bad"); reason != ReasonInvalid {
		t.Errorf("bad is %s, want %s", reason, ReasonInvalid)
	}
}

func TestCacheCompilesAgainOnlyWhatChanged(t *testing.T) {
	cache := &Cache{}
	a, b := newPolicy("a", rules(when("x", v1alpha1.RuleMatch{Expression: "fault.count > 1"}))), newPolicy("b", priority(1))
	first := cache.Get([]v1alpha1.RemediationPolicy{a, b})
	if again := cache.Get([]v1alpha1.RemediationPolicy{b, a}); again != first {
		t.Error("the same policies in another order were compiled again")
	}
	a.ResourceVersion = "2"
	a.Status.Brake = &v1alpha1.BrakeStatus{State: v1alpha1.BrakeHolding}
	second := cache.Get([]v1alpha1.RemediationPolicy{a, b})
	if second.byName["a"].rules[0].expression != first.byName["a"].rules[0].expression {
		t.Error("a status was written, and the text was compiled again")
	}
	if second.byName["a"].policy.Status.Brake == nil {
		t.Error("the brake of an older state is given")
	}
	a.Generation, a.ResourceVersion = 2, "3"
	if third := cache.Get([]v1alpha1.RemediationPolicy{a, b}); third.byName["a"].rules[0].expression == first.byName["a"].rules[0].expression {
		t.Error("the text changed, and was not compiled again")
	}
}
