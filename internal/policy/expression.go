package policy

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"time"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/checker"
	"github.com/google/cel-go/ext"
	corev1 "k8s.io/api/core/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

const (
	// maxExpression is the bound of the schema; text that came past it is not compiled either.
	maxExpression = 1024
	// maxCost bounds one evaluation in CEL's cost units, at compile time by estimate and at run time by count. An
	// ordinary expression costs tens; a few thousand is still well under a millisecond.
	maxCost = 20_000
	// maxLabels and maxLabel bound what the estimate assumes of a Node's labels.
	maxLabels = 256
	maxLabel  = 317
	// maxText is the longest of the fault's own texts (device, by the schema).
	maxText = 128
)

// FaultVariables is the variable fault of an expression.
type FaultVariables struct {
	Code        string `cel:"code"`
	Check       string `cel:"check"`
	Device      string `cel:"device"`
	Class       string `cel:"class"`
	Severity    string `cel:"severity"`
	Recommended string `cel:"recommended"`
	Count       int64  `cel:"count"`
	AgeSeconds  int64  `cel:"ageSeconds"`
}

// NodeVariables is the variable node of an expression.
type NodeVariables struct {
	Name   string            `cel:"name"`
	Labels map[string]string `cel:"labels"`
}

// expression is a compiled CEL expression.
type expression struct {
	program cel.Program
	// namespaces says that it asks for the labels of a namespace.
	namespaces bool
}

// newEnvironment declares the two variables with their fields, so that a misspelt one is found when the policy is read.
func newEnvironment() (*cel.Env, error) {
	return newEnvironmentOf(
		ext.NativeTypes(reflect.TypeFor[FaultVariables](), reflect.TypeFor[NodeVariables](), ext.ParseStructTags(true)),
		cel.Variable("fault", cel.ObjectType("policy.FaultVariables")),
		cel.Variable("node", cel.ObjectType("policy.NodeVariables")),
	)
}

// newEnvironmentOf declares variables, and bounds what is parsed.
func newEnvironmentOf(declared ...cel.EnvOption) (*cel.Env, error) {
	return cel.NewEnv(append(declared, cel.ParserRecursionLimit(64), cel.ParserExpressionSizeLimit(4*maxExpression))...)
}

// compileExpression reads a rule's expression; its errors say what to change.
func compileExpression(text string) (*expression, error) {
	return compileText(text, newEnvironment, sizes{}, "split the rule", "avoid nested loops over node.labels")
}

// compileText reads an expression over the variables of an environment; ifLong and ifDear say what to do about one that is
// too long, or may cost too much.
func compileText(text string, declare func() (*cel.Env, error), sizes checker.CostEstimator, ifLong, ifDear string) (*expression, error) {
	if len(text) > maxExpression {
		return nil, fmt.Errorf("is %d bytes long, at most %d are allowed; %s", len(text), maxExpression, ifLong)
	}
	environment, err := declare()
	if err != nil {
		return nil, fmt.Errorf("preparing CEL: %w", err)
	}
	ast, issues := environment.Compile(text)
	if issues.Err() != nil {
		return nil, errors.New("is not valid CEL: " + describe(issues))
	}
	if ast.OutputType() != cel.BoolType {
		return nil, fmt.Errorf("gives %s, but must give a bool; compare it with something", ast.OutputType())
	}
	cost, err := environment.EstimateCost(ast, sizes)
	if err != nil {
		return nil, fmt.Errorf("estimating its cost: %w", err)
	}
	if cost.Max > maxCost {
		return nil, fmt.Errorf("may cost %d, at most %d is allowed; %s", cost.Max, maxCost, ifDear)
	}
	program, err := environment.Program(ast, cel.CostLimit(maxCost), cel.EvalOptions(cel.OptOptimize))
	if err != nil {
		return nil, fmt.Errorf("cannot be run: %w", err)
	}
	return &expression{program: program, namespaces: asksForNamespaces(ast.NativeRep().Expr())}, nil
}

// maxErrors bounds how many errors of one expression are told.
const maxErrors = 3

// describe puts CEL's errors on one line: CEL's own text draws an arrow under the source, which no status shows well.
func describe(issues *cel.Issues) string {
	var found []string
	for _, e := range issues.Errors() {
		found = append(found, fmt.Sprintf("at character %d: %s", e.Location.Column()+1, strings.Join(strings.Fields(e.Message), " ")))
	}
	return cut(strings.Join(found[:min(len(found), maxErrors)], "; "), maxExpression)
}

// matches evaluates a rule's expression.
func (e *expression) matches(fault v1alpha1.Fault, node *corev1.Node, now time.Time) (bool, error) {
	return e.gives(map[string]any{
		"fault": FaultVariables{
			Code: fault.Code, Check: fault.Check, Device: fault.Device, Class: string(fault.Class),
			Severity: string(fault.Severity), Recommended: string(fault.Recommended), Count: fault.Count,
			AgeSeconds: ageSeconds(fault, now),
		},
		"node": NodeVariables{Name: node.Name, Labels: node.Labels},
	})
}

// gives evaluates the expression.
func (e *expression) gives(variables map[string]any) (bool, error) {
	if e.program == nil {
		return false, errors.New("the expression is not compiled")
	}
	result, _, err := e.program.Eval(variables)
	if err != nil {
		return false, fmt.Errorf("evaluating its expression: %w", err)
	}
	matches, ok := result.Value().(bool)
	if !ok {
		return false, fmt.Errorf("its expression gave %v, not a bool", result.Type())
	}
	return matches, nil
}

// ageSeconds is how long the fault has been seen; a clock that runs behind the node's gives 0, not a negative age.
func ageSeconds(fault v1alpha1.Fault, now time.Time) int64 {
	return int64(math.Max(0, now.Sub(fault.FirstSeen.Time).Seconds()))
}

// sizes tells the estimate how large the variables can be: the bounds of the schema, and of Kubernetes' labels.
type sizes struct{}

// EstimateSize gives the bounds of what is a text or a map of the variables.
func (sizes) EstimateSize(element checker.AstNode) *checker.SizeEstimate {
	path := element.Path()
	switch {
	case len(path) == 2 && path[0] == "node" && path[1] == "labels":
		return &checker.SizeEstimate{Max: maxLabels}
	case len(path) > 0 && path[0] == "node":
		return &checker.SizeEstimate{Max: maxLabel}
	case len(path) > 0:
		return &checker.SizeEstimate{Max: maxText}
	}
	return nil
}

// EstimateCallCost leaves the cost of calls to CEL.
func (sizes) EstimateCallCost(string, string, *checker.AstNode, []checker.AstNode) *checker.CallEstimate {
	return nil
}
