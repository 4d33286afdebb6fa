package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

// Set is all policies, compiled. It does not change once made, and may be used by many at once.
type Set struct {
	// policies are in the order in which they govern: highest priority first, then by name.
	policies []*compiled
	byName   map[string]*compiled
}

// compiled is one policy. Where problems is not empty nothing else of it may be followed.
type compiled struct {
	policy   *v1alpha1.RemediationPolicy
	selector labels.Selector
	rules    []rule
	// classes are the expressions of the drain's classes, by their index.
	classes  []*expression
	problems []string
}

// rule is one rule, with its expression compiled.
type rule struct {
	spec       *v1alpha1.Rule
	expression *expression
}

// Compile reads policies. What cannot be read makes that policy Invalid; the others are not touched by it.
func Compile(policies []v1alpha1.RemediationPolicy) *Set {
	return compileReusing(policies, nil)
}

// compileReusing compiles what is not in before with the same text.
func compileReusing(policies []v1alpha1.RemediationPolicy, before *Set) *Set {
	set := &Set{byName: make(map[string]*compiled, len(policies))}
	for i := range policies {
		c := before.reuse(policies[i].DeepCopy())
		set.policies = append(set.policies, c)
		set.byName[c.policy.Name] = c
	}
	slices.SortFunc(set.policies, func(a, b *compiled) int {
		return cmp.Or(cmp.Compare(b.policy.Spec.Priority, a.policy.Spec.Priority), cmp.Compare(a.policy.Name, b.policy.Name))
	})
	return set
}

// reuse gives a policy compiled: where its text is the one compiled before, only the object is another. The rules point
// into the earlier object, whose text is the same.
func (s *Set) reuse(policy *v1alpha1.RemediationPolicy) *compiled {
	if s != nil && policy.Generation != 0 {
		if known, ok := s.byName[policy.Name]; ok && known.policy.UID == policy.UID && known.policy.Generation == policy.Generation {
			again := *known
			again.policy = policy
			return &again
		}
	}
	return compilePolicy(policy)
}

func compilePolicy(policy *v1alpha1.RemediationPolicy) *compiled {
	c := &compiled{policy: policy}
	selector, err := metav1.LabelSelectorAsSelector(&policy.Spec.NodeSelector)
	if err != nil {
		// Nobody can say which nodes it means, so it means every one: acting on a node that its author wanted to
		// govern otherwise would be worse than acting on none.
		selector = labels.Everything()
		c.problem("spec.nodeSelector", fmt.Sprintf("%v; until it is corrected every node it outranks is in Observe", err))
	}
	c.selector = selector
	c.compileRules()
	c.compileClasses()
	c.checkDurations()
	c.checkWindows()
	return c
}

func (c *compiled) problem(path, message string) {
	c.problems = append(c.problems, path+": "+message)
}

func (c *compiled) compileRules() {
	for i := range c.policy.Spec.Rules {
		spec := &c.policy.Spec.Rules[i]
		path := fmt.Sprintf("spec.rules[%d](%s)", i, spec.Name)
		compiledRule := rule{spec: spec}
		if spec.Match.Expression != "" {
			var err error
			if compiledRule.expression, err = compileExpression(spec.Match.Expression); err != nil {
				c.problem(path+".match.expression", err.Error())
			}
		}
		c.checkNodeConditions(path+".match", spec.Match)
		c.checkDeviceTaints(path+".match", spec.Match)
		if spec.When == v1alpha1.WhenWindow && len(c.policy.Spec.Windows) == 0 {
			c.problem(path+".when", "Window, but spec.windows is empty, so it would never be open; add a window")
		}
		c.rules = append(c.rules, compiledRule)
	}
}

// checkNodeConditions refuses what could never match, and what would make us react to our own word.
func (c *compiled) checkNodeConditions(path string, match v1alpha1.RuleMatch) {
	for i, condition := range match.NodeConditions {
		if condition.Type == v1alpha1.ConditionHealthy || condition.Type == v1alpha1.ConditionReporting {
			c.problem(fmt.Sprintf("%s.nodeConditions[%d].type", path, i),
				condition.Type+" is Roundhouse's own; match the faults themselves with codes or classes")
		}
	}
	if len(match.NodeConditions) == 0 {
		return
	}
	possible := slices.ContainsFunc(match.NodeConditions, func(condition v1alpha1.NodeConditionMatch) bool {
		return (len(match.Codes) == 0 || slices.Contains(match.Codes, ConditionCode(condition.Type))) &&
			(len(match.Classes) == 0 || slices.Contains(match.Classes, v1alpha1.ClassHost)) &&
			(len(match.Severities) == 0 || slices.Contains(match.Severities, v1alpha1.SeverityCritical)) &&
			(match.Scope == "" || match.Scope == v1alpha1.ScopeNode)
	})
	if !possible {
		c.problem(path, "nodeConditions never match together with these codes, classes, severities or scope (a Node "+
			"condition is a Critical fault of class Host and scope Node); make two rules of it")
	}
}

// Governs says whether the policy of this name selects the node, whoever else does.
func (s *Set) selecting(node *corev1.Node) []*compiled {
	var selecting []*compiled
	for _, c := range s.policies {
		if !c.selector.Matches(labels.Set(node.Labels)) {
			continue
		}
		if len(selecting) > 0 && selecting[0].policy.Spec.Priority != c.policy.Spec.Priority {
			break
		}
		selecting = append(selecting, c)
	}
	return selecting
}

// For says what governs a node: the policy of the highest priority that selects it. A tie is Conflicted and an Invalid
// policy governs nothing; in both cases, and where no policy selects it, the node is in Observe.
func (s *Set) For(node *corev1.Node) Governing {
	top := s.selecting(node)
	switch {
	case len(top) == 0:
		return Governing{Reason: ReasonNoPolicy, Message: "no RemediationPolicy selects this node: it is in Observe"}
	case len(top) > 1:
		return Governing{Policy: top[0].policy, Reason: ReasonConflicted, Message: tie(top) +
			" select this node: it is in Observe until one has another priority"}
	case len(top[0].problems) > 0:
		return Governing{Policy: top[0].policy, Reason: ReasonInvalid, Message: fmt.Sprintf(
			"policy %s is invalid, so this node is in Observe: %s", top[0].policy.Name, top[0].verdict())}
	}
	return Governing{
		Policy: top[0].policy, Accepted: true, Reason: ReasonValid, compiled: top[0],
		Message: fmt.Sprintf("policy %s, generation %d", top[0].policy.Name, top[0].policy.Generation),
	}
}

// tie says "policies a and b of priority 100".
func tie(top []*compiled) string {
	names := make([]string, 0, len(top))
	for _, c := range top {
		names = append(names, c.policy.Name)
	}
	return fmt.Sprintf("policies %s of priority %d", strings.Join(names, " and "), top[0].policy.Spec.Priority)
}

// maxVerdict bounds a message that goes into a status.
const maxVerdict = 2048

// verdict joins the problems, so that all of them can be corrected at once.
func (c *compiled) verdict() string {
	return cut(strings.Join(c.problems, "; "), maxVerdict)
}

// Status gives the verdict on the policy of this name by itself; Survey adds the ties, which need nodes.
func (s *Set) Status(name string) (reason, message string) {
	c, ok := s.byName[name]
	switch {
	case !ok:
		return ReasonNoPolicy, "there is no policy of this name"
	case len(c.problems) > 0:
		return ReasonInvalid, c.verdict()
	}
	return ReasonValid, "every rule can be followed"
}

// cut shortens text to at most limit bytes, at a rune boundary, and shows that it did.
func cut(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	const mark = "..."
	end := limit - len(mark)
	for end > 0 && text[end]&0xC0 == 0x80 {
		end--
	}
	return text[:end] + mark
}
