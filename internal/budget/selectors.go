package budget

import (
	"cmp"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

// guard is a budget with its selector read. One that cannot be read selects every node, and its budget grants nothing:
// nobody can say which nodes its author meant to guard.
type guard struct {
	budget   *v1alpha1.NodeDisruptionBudget
	selector labels.Selector
	broken   error
}

// guards is every budget, in the order of their names; the implicit one is apart, as it selects what no other does.
type guards struct {
	named    []guard
	implicit *v1alpha1.NodeDisruptionBudget
}

func readGuards(budgets []v1alpha1.NodeDisruptionBudget) guards {
	var g guards
	for i := range budgets {
		if budgets[i].Name == v1alpha1.ImplicitBudget {
			g.implicit = &budgets[i]
			continue
		}
		selector, err := metav1.LabelSelectorAsSelector(&budgets[i].Spec.NodeSelector)
		if err != nil {
			selector = labels.Everything()
		}
		g.named = append(g.named, guard{budget: &budgets[i], selector: selector, broken: err})
	}
	slices.SortFunc(g.named, func(a, b guard) int { return cmp.Compare(a.budget.Name, b.budget.Name) })
	return g
}

// selecting lists the budgets that a node falls under, in the order of their names. An empty list means that the
// implicit budget is to be created first.
func (g guards) selecting(nodeLabels map[string]string) []*v1alpha1.NodeDisruptionBudget {
	var selecting []*v1alpha1.NodeDisruptionBudget
	for _, named := range g.named {
		if named.selector.Matches(labels.Set(nodeLabels)) {
			selecting = append(selecting, named.budget)
		}
	}
	if len(selecting) == 0 && g.implicit != nil {
		selecting = append(selecting, g.implicit)
	}
	return selecting
}

// missing is a budget that a node falls under and that is not there: of control-plane nodes one at a time, whatever other budgets
// allow, and of those that none selects one in the whole cluster.
func (g guards) missing(node *corev1.Node) *v1alpha1.NodeDisruptionBudget {
	one := intstr.FromInt32(1)
	budget := &v1alpha1.NodeDisruptionBudget{Spec: v1alpha1.NodeDisruptionBudgetSpec{MaxUnavailable: &one}}
	_, controlPlane := node.Labels[v1alpha1.LabelControlPlane]
	switch {
	case controlPlane && !slices.ContainsFunc(g.named, func(named guard) bool { return named.budget.Name == v1alpha1.ControlPlaneBudget }):
		budget.Name = v1alpha1.ControlPlaneBudget
		budget.Spec.NodeSelector.MatchExpressions = []metav1.LabelSelectorRequirement{{Key: v1alpha1.LabelControlPlane, Operator: metav1.LabelSelectorOpExists}}
	case len(g.selecting(node.Labels)) == 0:
		budget.Name = v1alpha1.ImplicitBudget
	default:
		return nil
	}
	return budget
}

// selects says whether the budget of this name selects a node with these labels.
func (g guards) selects(name string, nodeLabels map[string]string) bool {
	if name != v1alpha1.ImplicitBudget {
		return slices.ContainsFunc(g.named, func(named guard) bool {
			return named.budget.Name == name && named.selector.Matches(labels.Set(nodeLabels))
		})
	}
	return !slices.ContainsFunc(g.named, func(named guard) bool {
		return named.selector.Matches(labels.Set(nodeLabels))
	})
}

// unreadable gives a refusal where one of the budgets cannot be read.
func (g guards) unreadable() (Verdict, bool) {
	for _, named := range g.named {
		if named.broken != nil {
			return Verdict{
				Reason: ReasonInvalid, Budget: named.budget.Name,
				Message:     fmt.Sprintf("%s: nodeSelector cannot be read, so it guards every node and allows nothing: %v", named.budget.Name, named.broken),
				WouldChange: named.budget.Name + " is corrected",
			}, true
		}
	}
	return Verdict{}, false
}

// Problem says what is wrong with a budget, in a sentence; empty where nothing is.
func Problem(budget *v1alpha1.NodeDisruptionBudget) string {
	if _, err := metav1.LabelSelectorAsSelector(&budget.Spec.NodeSelector); err != nil {
		return fmt.Sprintf("spec.nodeSelector: %v; until it is corrected no node is disrupted", err)
	}
	if budget.Spec.MaxUnavailable != nil {
		if _, err := allowedNodes(*budget.Spec.MaxUnavailable, 1); err != nil {
			return fmt.Sprintf("spec.maxUnavailable: %v", err)
		}
	}
	if budget.Spec.MaxUnavailable == nil && budget.Spec.MaxUnavailableDevices == nil {
		return "set spec.maxUnavailable, spec.maxUnavailableDevices or both"
	}
	return ""
}

// nodeLabels is a shorthand for selecting by a Node.
func (g guards) selectsNode(name string) func(*corev1.Node) bool {
	return func(node *corev1.Node) bool { return g.selects(name, node.Labels) }
}
