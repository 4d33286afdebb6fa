package policy

import (
	"errors"
	"fmt"
	"reflect"
	"slices"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/checker"
	"github.com/google/cel-go/common/ast"
	"github.com/google/cel-go/ext"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// maxKeys bounds what the estimate assumes of a pod's maps and lists, and maxValue of an annotation's value. A pod may have
	// more; then the count at run time is what bounds an evaluation, and its failure is told.
	maxKeys  = 128
	maxValue = 1024
)

// variableNamespace is the name of the variable of which a part has to be read first.
const variableNamespace = "namespaceObject"

// PodVariables is the variable pod of a workload class's expression: what its owner and its administrator say about it. Its
// status is left out, since a pod's class must not change by itself under a drain.
type PodVariables struct {
	Name               string            `cel:"name"`
	Namespace          string            `cel:"namespace"`
	Labels             map[string]string `cel:"labels"`
	Annotations        map[string]string `cel:"annotations"`
	OwnerReferences    []OwnerVariables  `cel:"ownerReferences"`
	Priority           int64             `cel:"priority"`
	PriorityClassName  string            `cel:"priorityClassName"`
	SchedulerName      string            `cel:"schedulerName"`
	RuntimeClassName   string            `cel:"runtimeClassName"`
	ServiceAccountName string            `cel:"serviceAccountName"`
	NodeSelector       map[string]string `cel:"nodeSelector"`
}

// OwnerVariables is the variable owner: the pod's controller, with empty texts where it has none.
type OwnerVariables struct {
	APIVersion string `cel:"apiVersion"`
	Kind       string `cel:"kind"`
	Name       string `cel:"name"`
}

// NamespaceVariables is the variable namespaceObject, named as admission policies name it, because CEL reserves the word
// namespace. Its labels are read only for a policy that asks for them, those of the namespaces that have pods on the node.
type NamespaceVariables struct {
	Name   string            `cel:"name"`
	Labels map[string]string `cel:"labels"`
}

// newWorkloadEnvironment declares the three variables with their fields, so that a misspelt one is found when the policy is
// read.
func newWorkloadEnvironment() (*cel.Env, error) {
	return newEnvironmentOf(
		ext.NativeTypes(reflect.TypeFor[PodVariables](), reflect.TypeFor[OwnerVariables](), reflect.TypeFor[NamespaceVariables](), ext.ParseStructTags(true)),
		cel.Variable("pod", cel.ObjectType("policy.PodVariables")),
		cel.Variable("owner", cel.ObjectType("policy.OwnerVariables")),
		cel.Variable(variableNamespace, cel.ObjectType("policy.NamespaceVariables")),
	)
}

// compileClasses compiles the expressions of the policy's workload classes, each at its class's index; nil where a class has
// none.
func (c *compiled) compileClasses() {
	if c.policy.Spec.Drain == nil {
		return
	}
	classes := c.policy.Spec.Drain.Classes
	c.classes = make([]*expression, len(classes))
	for i := range classes {
		text := classes[i].Match.Expression
		if text == "" {
			continue
		}
		var err error
		if c.classes[i], err = compileText(text, newWorkloadEnvironment, workloadSizes{}, "split the class", "avoid nested loops"); err != nil {
			c.problem(fmt.Sprintf("spec.drain.classes[%d](%s).match.expression", i, classes[i].Name), err.Error())
		}
	}
}

// asksForNamespaces says whether an expression looks at more of a namespace than its name.
func asksForNamespaces(root ast.Expr) bool {
	asks := 0
	ast.PostOrderVisit(root, ast.NewExprVisitor(func(e ast.Expr) {
		switch e.Kind() {
		case ast.IdentKind:
			if e.AsIdent() == variableNamespace {
				asks++
			}
		case ast.SelectKind:
			of := e.AsSelect()
			if of.FieldName() == "name" && of.Operand().Kind() == ast.IdentKind && of.Operand().AsIdent() == variableNamespace {
				asks--
			}
		default:
		}
	}))
	return asks > 0
}

// AsksForNamespaces says whether an expression of the policy's workload classes asks for the labels of a namespace.
func (g Governing) AsksForNamespaces() bool {
	return g.compiled != nil && slices.ContainsFunc(g.compiled.classes, func(e *expression) bool { return e != nil && e.namespaces })
}

// errNotCompiled is for an expression of a policy that is not accepted.
var errNotCompiled = errors.New("the policy is not accepted, so its expressions are not followed")

// MatchesClass evaluates the expression of the workload class at this index of the policy's drain.classes on a pod, whose
// namespace has these labels; nil where they are not known, which is an error where the expression asks for them.
func (g Governing) MatchesClass(class int, pod *corev1.Pod, namespace map[string]string) (bool, error) {
	if g.compiled == nil || class < 0 || class >= len(g.compiled.classes) || g.compiled.classes[class] == nil {
		return false, errNotCompiled
	}
	e := g.compiled.classes[class]
	if e.namespaces && namespace == nil {
		return false, fmt.Errorf("the labels of namespace %s could not be read", pod.Namespace)
	}
	return e.gives(workloadVariables(pod, namespace))
}

// workloadVariables shows a pod to an expression.
func workloadVariables(pod *corev1.Pod, namespace map[string]string) map[string]any {
	v := PodVariables{
		Name: pod.Name, Namespace: pod.Namespace, Labels: pod.Labels, Annotations: pod.Annotations,
		PriorityClassName: pod.Spec.PriorityClassName, SchedulerName: pod.Spec.SchedulerName,
		ServiceAccountName: pod.Spec.ServiceAccountName, NodeSelector: pod.Spec.NodeSelector,
	}
	for i := range pod.OwnerReferences {
		v.OwnerReferences = append(v.OwnerReferences, ownerVariables(&pod.OwnerReferences[i]))
	}
	if pod.Spec.Priority != nil {
		v.Priority = int64(*pod.Spec.Priority)
	}
	if pod.Spec.RuntimeClassName != nil {
		v.RuntimeClassName = *pod.Spec.RuntimeClassName
	}
	return map[string]any{"pod": v, "owner": ownerVariables(metav1.GetControllerOf(pod)),
		variableNamespace: NamespaceVariables{Name: pod.Namespace, Labels: namespace}}
}

func ownerVariables(owner *metav1.OwnerReference) OwnerVariables {
	if owner == nil {
		return OwnerVariables{}
	}
	return OwnerVariables{APIVersion: owner.APIVersion, Kind: owner.Kind, Name: owner.Name}
}

// workloadSizes tells the estimate how large the variables are taken to be.
type workloadSizes struct{}

// EstimateSize gives the bounds of what is a text, a list or a map of the variables.
func (workloadSizes) EstimateSize(element checker.AstNode) *checker.SizeEstimate {
	path := element.Path()
	switch {
	case len(path) == 0:
		return nil
	case len(path) == 2 && slices.Contains([]string{"labels", "annotations", "nodeSelector", "ownerReferences"}, path[1]):
		return &checker.SizeEstimate{Max: maxKeys}
	case len(path) > 2 && path[1] == "annotations":
		return &checker.SizeEstimate{Max: maxValue}
	}
	return &checker.SizeEstimate{Max: maxLabel}
}

// EstimateCallCost leaves the cost of calls to CEL.
func (workloadSizes) EstimateCallCost(string, string, *checker.AstNode, []checker.AstNode) *checker.CallEstimate {
	return nil
}
