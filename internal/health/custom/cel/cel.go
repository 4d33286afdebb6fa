// Package cel evaluates the expressions of custom checks. It is linked into cmd/roundhouse-cel alone.
package cel

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/ext"

	"github.com/roundhouse-dev/roundhouse/internal/health/custom"
)

const (
	// maxCost bounds one evaluation in CEL's cost units: an ordinary expression over eight GPUs costs some hundreds, and
	// the bound takes well under a second.
	maxCost = 100_000
	// maxQuestion bounds the question, in bytes.
	maxQuestion = 4 << 20
	// maxValues bounds the elements of each.
	maxValues = 256
	// maxErrors bounds how many errors of one expression are told, and maxError each of them in bytes.
	maxErrors, maxError = 3, 200
)

// Evaluator evaluates in the process that it is in.
type Evaluator struct{}

var _ custom.Evaluator = Evaluator{}

// Serve answers one question.
func Serve(ctx context.Context, in io.Reader, out io.Writer) error {
	data, err := io.ReadAll(io.LimitReader(in, maxQuestion+1))
	if err != nil {
		return fmt.Errorf("reading the question: %w", err)
	}
	if len(data) > maxQuestion {
		return fmt.Errorf("reading the question: it has more than %d bytes", maxQuestion)
	}
	var q custom.Question
	if err := json.Unmarshal(data, &q); err != nil {
		return fmt.Errorf("reading the question: %w", err)
	}
	a := custom.Answer{Version: custom.ProtocolVersion}
	if q.Version == custom.ProtocolVersion {
		if a, err = (Evaluator{}).Evaluate(ctx, q); err != nil {
			return err
		}
	}
	if err := json.NewEncoder(out).Encode(a); err != nil {
		return fmt.Errorf("writing the answer: %w", err)
	}
	return nil
}

// Evaluate compiles the expression and, where there are facts, evaluates it over them.
func (Evaluator) Evaluate(ctx context.Context, q custom.Question) (custom.Answer, error) {
	a := custom.Answer{Version: custom.ProtocolVersion}
	program, problem, err := compile(q)
	if err != nil {
		return a, err
	}
	if a.Compile = problem; problem != "" || q.Facts == nil {
		return a, nil
	}
	facts, err := decode(q.Facts)
	if err != nil {
		return a, fmt.Errorf("reading facts: %w", err)
	}
	a.Values, err = evaluate(ctx, program, q.Each, facts)
	if err != nil {
		a.Error = clip(err.Error())
	}
	return a, nil
}

// variables are the facts' names; their fields are not declared, since what could not be read is left out.
func variables(each string) []cel.EnvOption {
	names := []string{"node", "now", "boot", "devices", "faults", "nvml"}
	switch each {
	case custom.EachDevices:
		names = append(names, "device")
	case custom.EachGPUs:
		names = append(names, "gpu")
	}
	options := make([]cel.EnvOption, 0, len(names)+6)
	for _, n := range names {
		options = append(options, cel.Variable(n, cel.DynType))
	}
	return append(options, cel.ParserRecursionLimit(64), cel.ParserExpressionSizeLimit(custom.MaxExpression), ext.Strings(), ext.Math(),
		cel.CrossTypeNumericComparisons(true), cel.OptionalTypes())
}

// compile gives the program, or what is wrong with the expression and how to mend it.
func compile(q custom.Question) (program cel.Program, problem string, err error) {
	environment, err := cel.NewEnv(variables(q.Each)...)
	if err != nil {
		return nil, "", fmt.Errorf("preparing CEL: %w", err)
	}
	ast, issues := environment.Compile(q.Expression)
	if len(issues.Errors()) > 0 {
		return nil, describe(issues), nil
	}
	if out := ast.OutputType(); out != cel.BoolType && out != cel.DynType {
		return nil, fmt.Sprintf("gives %s, and must give a bool; compare it with something", out), nil
	}
	program, err = environment.Program(ast, cel.CostLimit(maxCost), cel.InterruptCheckFrequency(100))
	if err != nil {
		return nil, clip(err.Error()), nil
	}
	return program, "", nil
}

// describe puts CEL's errors on one line each, with line and column; its own text draws an arrow under the source.
func describe(issues *cel.Issues) string {
	var out []string
	for _, e := range issues.Errors() {
		text := strings.Join(strings.Fields(e.Message), " ")
		if strings.HasPrefix(text, "undeclared reference") {
			text += "; there are node, now, boot, devices, faults and nvml, and device or gpu with each"
		}
		out = append(out, clip(fmt.Sprintf("line %d, column %d: %s", e.Location.Line(), e.Location.Column()+1, text)))
	}
	return strings.Join(out[:min(len(out), maxErrors)], "; ")
}

func clip(s string) string {
	if len(s) <= maxError {
		return s
	}
	return strings.ToValidUTF8(s[:maxError], "") + "..."
}

// decode reads the facts; whole numbers become CEL's int, since JSON does not tell.
func decode(data []byte) (map[string]any, error) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	var facts map[string]any
	if err := d.Decode(&facts); err != nil {
		return nil, err
	}
	for k, v := range facts {
		facts[k] = numbers(v)
	}
	return facts, nil
}

func numbers(v any) any {
	switch v := v.(type) {
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return n
		}
		f, err := v.Float64()
		if err != nil {
			return v.String()
		}
		return f
	case map[string]any:
		for k := range v {
			v[k] = numbers(v[k])
		}
	case []any:
		for i := range v {
			v[i] = numbers(v[i])
		}
	}
	return v
}

// evaluate asks the expression once, or of each element of its list.
func evaluate(ctx context.Context, program cel.Program, each string, facts map[string]any) ([]custom.Value, error) {
	if each == "" {
		return []custom.Value{ask(ctx, program, facts)}, nil
	}
	list, name, err := elements(each, facts)
	if err != nil {
		return nil, err
	}
	values := make([]custom.Value, 0, len(list))
	for i, e := range list {
		facts[name] = e
		v := ask(ctx, program, facts)
		if object, ok := e.(map[string]any); ok {
			v.PCI, v.Device = text(object, "pci")+text(object, "address"), text(object, "id")+text(object, "uuid")
			if v.PCI == "" && v.Device == "" {
				// Never to be taken for a fault of the whole node.
				v.Device = fmt.Sprintf("%s-%d", name, i)
			}
		}
		values = append(values, v)
	}
	return values, nil
}

func text(object map[string]any, key string) string {
	s, _ := object[key].(string)
	return s
}

// elements is the list and the name of the variable for one of its elements. A list that is not there could not be read.
func elements(each string, facts map[string]any) (list []any, name string, err error) {
	from, key, name := facts, "devices", "device"
	if each == custom.EachGPUs {
		from, _ = facts["nvml"].(map[string]any)
		key, name = "gpus", "gpu"
		if from == nil {
			return nil, "", errors.New("there is no nvml: NVIDIA's library could not be asked")
		}
	}
	value, ok := from[key]
	if count, _ := from["count"].(int64); !ok && each == custom.EachGPUs && from["init"] == nil && count == 0 {
		// The library was asked and knows of none.
		return nil, name, nil
	}
	if !ok {
		return nil, "", fmt.Errorf("there are no %s: they could not be read", each)
	}
	list, ok = value.([]any)
	if !ok || len(list) > maxValues {
		return nil, "", fmt.Errorf("%s are no list of at most %d", each, maxValues)
	}
	return list, name, nil
}

// ask evaluates once. Whatever is not true or false is an error.
func ask(ctx context.Context, program cel.Program, facts map[string]any) custom.Value {
	result, _, err := program.ContextEval(ctx, facts)
	if err != nil {
		return custom.Value{Error: clip(err.Error())}
	}
	b, ok := result.Value().(bool)
	if !ok {
		return custom.Value{Error: fmt.Sprintf("the expression gave %s, not a bool", result.Type().TypeName())}
	}
	return custom.Value{True: b}
}
