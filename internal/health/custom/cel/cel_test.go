package cel

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/health"
	"github.com/roundhouse-dev/roundhouse/internal/health/custom"
	"github.com/roundhouse-dev/roundhouse/internal/machine"
)

// TestMain makes the test binary the helper too, so that the tests speak to a real process.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "serve":
			if err := Serve(context.Background(), os.Stdin, os.Stdout); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			os.Exit(0)
		case "hang":
			time.Sleep(time.Hour)
		case "crash":
			panic("crashed")
		case "old":
			fmt.Println(`{"version":99}`)
			os.Exit(0)
		}
	}
	os.Exit(m.Run())
}

func ptr[T any](v T) *T { return &v }

func facts() custom.Facts {
	return custom.Facts{
		Node: "n1", Now: time.Date(2026, 11, 26, 10, 0, 0, 0, time.UTC),
		Boot:    &custom.BootFacts{ID: "b", UptimeSeconds: 90},
		Devices: []v1alpha1.Device{{ID: "GPU-a", PCI: "0000:18:00.0", Health: v1alpha1.DeviceHealthy, Link: &v1alpha1.Link{Width: 16}}, {ID: "GPU-b", PCI: "0000:2a:00.0", Link: &v1alpha1.Link{Width: 8}}},
		Faults:  []v1alpha1.Fault{{Code: "Xid13", Count: 70}},
		NVML: &machine.NVMLReport{Count: 2, Driver: "570.1", GPUs: []machine.NVMLGPU{
			{Address: "0000:18:00.0", UUID: "GPU-a", Clocks: &machine.NVMLClocks{Temperature: ptr(uint32(91))}},
			{Index: 1, Address: "0000:2a:00.0", UUID: "GPU-b"},
		}},
	}
}

func check(t *testing.T, expression, each string, e custom.Evaluator, f func() (custom.Facts, error)) (*custom.CELCheck, error) {
	t.Helper()
	data, err := json.Marshal(map[string]any{
		"name": "hot", "cel": map[string]string{"expression": expression, "each": each}, "finding": map[string]string{"message": "it is hot"},
	})
	if err != nil {
		t.Fatal(err)
	}
	config, err := custom.Parse("hot.yaml", data)
	if err != nil {
		t.Fatal(err)
	}
	return custom.NewCELCheck(t.Context(), custom.CELOptions{
		Config: config, Evaluator: e, Facts: func(context.Context) (custom.Facts, error) { return f() },
	})
}

func show(r health.Result) string {
	out := []string{strings.TrimSpace(string(r.Outcome) + " " + r.Reason)}
	for _, f := range r.Findings {
		out = append(out, fmt.Sprintf("%s %s%s %s: %s", f.Fault.Code, f.Fault.Device, f.PCI, f.Fault.Severity, f.Fault.Evidence))
	}
	if r.Message != "" {
		out = append(out, r.Message)
	}
	return strings.Join(out, "\n")
}

// TestExpressions asks each through a helper process and in this one; both must say the same.
func TestExpressions(t *testing.T) {
	const nodeHot = "Failing\nHot  Warning: it is hot"
	tests := map[string]struct{ expression, each, want string }{
		"true is a fault":             {"boot.uptimeSeconds < 100", "", nodeHot},
		"false is none":               {"boot.uptimeSeconds < 60", "", "Passing"},
		"numbers of both kinds":       {"boot.uptimeSeconds < 90.5 && faults[0].count == 70", "", nodeHot},
		"lists":                       {"faults.exists(f, f.code == 'Xid13' && f.count > 50)", "", nodeHot},
		"texts":                       {"node.startsWith('n') && nvml.driver.split('.')[0] == '570'", "", nodeHot},
		"of each device":              {"device.link.width < 16", "devices", "Failing\nHot 0000:2a:00.0 Warning: it is hot"},
		"each may ask about all":      {"devices.exists(d, d.link.width > device.link.width)", "devices", "Failing\nHot 0000:2a:00.0 Warning: it is hot"},
		"a missing key is unknown":    {"nvml.gpus[1].clocks.temperature > 90", "", "Unknown CannotEvaluate\nno such key: clocks"},
		"never healthy":               {"!(nvml.gpus[1].clocks.temperature > 90)", "", "Unknown CannotEvaluate\nno such key: clocks"},
		"unless it is asked for":      {"has(nvml.gpus[1].clocks) && nvml.gpus[1].clocks.temperature > 90", "", "Passing"},
		"one of each is unknown":      {"gpu.clocks.temperature > 90", "gpus", "Failing\nHot 0000:18:00.0 Warning: it is hot\nno such key: clocks"},
		"and the rest is not healthy": {"gpu.clocks.temperature > 95", "gpus", "Unknown CannotEvaluate\nno such key: clocks"},
		"no bool":                     {"nvml.driver", "", "Unknown CannotEvaluate\nthe expression gave string, not a bool"},
		"an index too far":            {"devices[5].id == 'x'", "", "Unknown CannotEvaluate\nindex out of bounds: 5"},
		"no end is cut off": {
			"[1,2,3,4,5,6,7,8,9,10].all(a, [1,2,3,4,5,6,7,8,9,10].all(b, [1,2,3,4,5,6,7,8,9,10].all(c, [1,2,3,4,5,6,7,8,9,10].all(d, [1,2,3,4,5,6,7,8,9,10].all(e, [1,2,3,4,5,6,7,8,9,10].all(f, [1,2,3,4,5,6,7,8,9,10].all(g, true)))))))",
			"", "Unknown CannotEvaluate\noperation cancelled: actual cost limit exceeded",
		},
	}
	evaluators := map[string]custom.Evaluator{
		"here": Evaluator{},
		"in a helper": custom.Helper{
			Programs: machine.NewHost(machine.Options{}), Path: os.Args[0], Args: []string{"serve"}, Timeout: 30 * time.Second,
		},
	}
	for name, tc := range tests {
		for where, e := range evaluators {
			t.Run(name+", "+where, func(t *testing.T) {
				c, err := check(t, tc.expression, tc.each, e, func() (custom.Facts, error) { return facts(), nil })
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(tc.want, show(c.Look(t.Context()))); diff != "" {
					t.Error(diff)
				}
			})
		}
	}
}

func TestCompileErrorsNameTheFileTheFieldThePlaceAndTheFix(t *testing.T) {
	tests := map[string]struct{ expression, each, want string }{
		"syntax":        {"boot.uptimeSeconds <", "", "hot.yaml: cel.expression: line 1, column 21: Syntax error:"},
		"on a line":     {"true &&\n  uptime > 5", "", "hot.yaml: cel.expression: line 2, column 3: undeclared reference to 'uptime' (in container ''); there are node, now, boot,"},
		"no such name":  {"gpu.lost != ''", "", "hot.yaml: cel.expression: line 1, column 1: undeclared reference to 'gpu'"},
		"a wrong type":  {"1 + 'a' == 2", "", "hot.yaml: cel.expression: line 1, column 3: found no matching overload"},
		"no bool":       {"1 + 1", "", "hot.yaml: cel.expression: gives int, and must give a bool; compare it"},
		"far too deep":  {strings.Repeat("(", 300) + "true" + strings.Repeat(")", 300), "", "hot.yaml: cel.expression: line"},
		"no such macro": {"devices.any(d, true)", "", "hot.yaml: cel.expression: line 1, column"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := check(t, tc.expression, tc.each, Evaluator{}, nil)
			if err == nil || !strings.HasPrefix(err.Error(), tc.want) {
				t.Errorf("%v\nwant %s", err, tc.want)
			}
			if err != nil && len(err.Error()) > 800 {
				t.Errorf("%d bytes", len(err.Error()))
			}
		})
	}
}

func TestFactsThatAreNotThereAreUnknown(t *testing.T) {
	broken := errors.New("broken")
	tests := map[string]struct {
		expression, each string
		facts            func() (custom.Facts, error)
		want             string
	}{
		"no NVML":    {"nvml.driver == ''", "", func() (custom.Facts, error) { f := facts(); f.NVML = nil; return f, nil }, "Unknown CannotEvaluate\nno such attribute(s): nvml"},
		"no GPUs":    {"gpu.index == 0", "gpus", func() (custom.Facts, error) { f := facts(); f.NVML = nil; return f, nil }, "Unknown CannotEvaluate\nthere is no nvml: NVIDIA's library could not be asked"},
		"no devices": {"true", "devices", func() (custom.Facts, error) { f := facts(); f.Devices = nil; return f, nil }, "Unknown CannotEvaluate\nthere are no devices: they could not be read"},
		"a library without a driver": {"true", "gpus", func() (custom.Facts, error) {
			f := facts()
			f.NVML = &machine.NVMLReport{Init: "DRIVER_NOT_LOADED"}
			return f, nil
		}, "Unknown CannotEvaluate\nthere are no gpus: they could not be read"},
		"a node that has none": {"true", "gpus", func() (custom.Facts, error) {
			f := facts()
			f.NVML = &machine.NVMLReport{Driver: "570"}
			return f, nil
		}, "Passing"},
		"a GPU without a name is not the node": {"true", "gpus", func() (custom.Facts, error) {
			f := facts()
			f.NVML.GPUs = []machine.NVMLGPU{{Handle: "GPU_IS_LOST"}}
			return f, nil
		}, "Failing\nHot gpu-0 Warning: it is hot"},
		"nothing":       {"true", "", func() (custom.Facts, error) { return custom.Facts{}, broken }, "Unknown CannotRead\ngathering facts: broken"},
		"nothing stuck": {"true", "", func() (custom.Facts, error) { return custom.Facts{}, machine.ErrStuck }, "Unknown TimedOut\ngathering facts: the machine did not answer in time"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			c, err := check(t, tc.expression, tc.each, Evaluator{}, tc.facts)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, show(c.Look(t.Context()))); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestWhatStoodOnAnElementStandsWhileItCannotBeJudged(t *testing.T) {
	f := facts()
	f.NVML.GPUs = f.NVML.GPUs[:1]
	c, err := check(t, "gpu.clocks.temperature > 90", "gpus", Evaluator{}, func() (custom.Facts, error) { return f, nil })
	if err != nil {
		t.Fatal(err)
	}
	const hot = "Failing\nHot 0000:18:00.0 Warning: it is hot"
	if diff := cmp.Diff(hot, show(c.Look(t.Context()))); diff != "" {
		t.Error(diff)
	}
	f.NVML.GPUs[0].Clocks = nil
	if diff := cmp.Diff(hot+"\nno such key: clocks", show(c.Look(t.Context()))); diff != "" {
		t.Error(diff)
	}
	f.NVML.GPUs[0].Clocks = &machine.NVMLClocks{Temperature: ptr(uint32(50))}
	if diff := cmp.Diff("Passing", show(c.Look(t.Context()))); diff != "" {
		t.Error(diff)
	}
}

func TestAHelperThatFailsIsUnknownAndWhatStoodStands(t *testing.T) {
	host := machine.NewHost(machine.Options{})
	h := &switched{Evaluator: Evaluator{}}
	c, err := check(t, "true", "", h, func() (custom.Facts, error) { return facts(), nil })
	if err != nil {
		t.Fatal(err)
	}
	if r := c.Look(t.Context()); r.Outcome != health.Failing {
		t.Fatal(show(r))
	}
	tests := map[string]struct {
		helper custom.Helper
		want   string
	}{
		"hangs":     {custom.Helper{Path: os.Args[0], Args: []string{"hang"}, Timeout: 300 * time.Millisecond}, "TimedOut asking the CEL helper: no answer within 300ms"},
		"crashes":   {custom.Helper{Path: os.Args[0], Args: []string{"crash"}, Timeout: time.Minute}, "CannotRead asking the CEL helper: exit status 2: panic: crashed"},
		"is absent": {custom.Helper{Path: "/none", Timeout: time.Minute}, "CannotRead asking the CEL helper: starting /none"},
		"is of another release": {
			custom.Helper{Path: os.Args[0], Args: []string{"old"}, Timeout: time.Minute}, "CannotRead the CEL helper speaks version 99, and this agent 1",
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			tc.helper.Programs = host
			h.Evaluator = tc.helper
			r := c.Look(t.Context())
			if got := r.Reason + " " + r.Message; r.Outcome != health.Unknown || !strings.HasPrefix(got, tc.want) || len(r.Findings) != 1 {
				t.Errorf("%s\nwant %s", show(r), tc.want)
			}
			if _, err := check(t, "true", "", tc.helper, nil); err != nil {
				t.Errorf("no error of the configuration: %v", err)
			}
		})
	}
}

type switched struct{ custom.Evaluator }

func TestServeRefusesWhatIsNoQuestion(t *testing.T) {
	for name, in := range map[string]io.Reader{
		"no JSON": strings.NewReader("hello"), "too much": io.LimitReader(zeros{}, maxQuestion+10), "nothing": strings.NewReader(""),
	} {
		if err := Serve(t.Context(), in, io.Discard); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	var out bytes.Buffer
	if err := Serve(t.Context(), strings.NewReader(`{"version":99,"expression":"true"}`), &out); err != nil || strings.Contains(out.String(), "values") {
		t.Errorf("%s, %v", out.String(), err)
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

// FuzzEvaluate wants -fuzzminimizetime=5x: the parser's coverage changes from run to run, and minimizing never ends.
func FuzzEvaluate(f *testing.F) {
	data, err := json.Marshal(facts())
	if err != nil {
		f.Fatal(err)
	}
	f.Add("faults.exists(f, f.count > 50)", "", data)
	f.Add("gpu.clocks.temperature > 90", "gpus", data)
	f.Add("device.link.width < 16", "devices", []byte(`{"devices":[1,null,{"id":5}]}`))
	f.Fuzz(func(t *testing.T, expression, each string, facts []byte) {
		if len(expression) > 300 {
			return
		}
		a, err := Evaluator{}.Evaluate(t.Context(), custom.Question{Expression: expression, Each: each, Facts: facts})
		if err != nil {
			return
		}
		for _, v := range a.Values {
			if v.True && v.Error != "" || len(v.Error) > maxError+3 {
				t.Errorf("%+v", v)
			}
		}
	})
}
