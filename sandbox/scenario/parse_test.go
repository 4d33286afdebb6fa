package scenario

import (
	"strings"
	"testing"
)

const valid = `
name: small
title: A small one
timeout: 1m
roles:
  broken: {prefer: gpu-17}
steps:
- id: break
  fault: {kind: xid79, node: "${broken}", device: "3"}
- expect: {name: it reboots, see: {kind: reboot, node: "${broken}"}, within: 10s}
never:
- {name: no pod is told to go, see: {kind: eviction}, from: break}
finally:
- {name: nothing is left, state: {kind: leftovers}}
`

func TestAValidScenario(t *testing.T) {
	s, err := Parse("small.yaml", []byte(valid))
	if err != nil {
		t.Fatal(err)
	}
	if s.Steps[1].Expect.See.Where["node"] != "${broken}" || s.Never[0].From != "break" {
		t.Errorf("read as %+v", s)
	}
}

func TestErrorsNameFileFieldAndFix(t *testing.T) {
	for name, test := range map[string]struct{ from, to, want string }{
		"an unknown field":                  {"title: A small one", "titel: A small one", `small.yaml: unmarshal errors:` + "\n" + `  line 3: titel: no such field in scenario; use one of name, title,`},
		"an unknown field of a step":        {"- id: break", "- ident: break", "ident: no such field in step; use one of id, say, after, apply"},
		"no time-out":                       {"timeout: 1m", "timeout: 0s", "small.yaml: timeout: 0s; every scenario ends: write one of at most 1h0m0s, such as 3m"},
		"no duration":                       {"within: 10s", "within: soon", `"soon" is no duration; write 500ms, 5s or 2m`},
		"a wait without an end":             {", within: 10s", "", "small.yaml: steps[1].expect.within: missing; every wait ends: write for example within: 10s"},
		"an unknown kind of fact":           {"kind: reboot", "kind: reboots", `small.yaml: steps[1].expect.see: kind: "reboots" is not a kind of fact; use one of action, alert, budget, claim`},
		"a field that such facts lack":      {"see: {kind: reboot, node:", "see: {kind: reboot, pod:", "small.yaml: steps[1].expect.see: pod: facts of kind reboot have no such field; use one of node, boot, cause"},
		"a bad expression":                  {`node: "${broken}"}, within`, `node: "~("}, within`, `is no regular expression`},
		"a role that is not there":          {`"${broken}", device`, `"${borken}", device`, "small.yaml: steps[0].fault.node: ${borken} is no role of this scenario; the words are: broken, device"},
		"an ID that is not there":           {"from: break", "from: brake", `small.yaml: never[0].from: no step has the id "brake"; the ids are: break`},
		"a fault without a node":            {`, node: "${broken}", device: "3"`, "", "small.yaml: steps[0].fault.node: missing"},
		"two verbs in one step":             {"- id: break", "- id: break\n  controller: kill", "small.yaml: steps[0]: controller and fault in one step; write a step for each"},
		"a state that must never be":        {"see: {kind: eviction}", "state: {kind: pods}", "small.yaml: never[0].state: a state that must never be"},
		"neither facts nor state":           {", state: {kind: leftovers}", "", "small.yaml: finally[0]: give see (facts) or state (how things are), one of them"},
		"an unknown state":                  {"kind: leftovers", "kind: rest", `small.yaml: finally[0].state.kind: "rest"; use pods, incidents, leftovers, healthy, policies or occurrences`},
		"a name that could not be a file's": {"name: small", "name: Small One", `small.yaml: name: "Small One" must be lower case letters`},
		"more device plugins than nodes":    {"timeout: 1m", "timeout: 1m\nfleet: {nodes: 2, devicePlugin: 3}", "small.yaml: fleet.devicePlugin: 3 of 2 nodes; write from 0 to as many as there are"},
		"a workload that must and may":      {"- id: break", "- workload: {kind: Jobs, name: a, node: n, prefer: n}\n- id: break", "small.yaml: steps[0].workload: node and prefer; give one of them"},
		"a preference that is no role":      {"- id: break", "- workload: {kind: Jobs, name: a, prefer: \"${borken}\"}\n- id: break", "small.yaml: steps[0].workload.prefer: ${borken} is no role of this scenario"},
		"nothing":                           {valid, "", "small.yaml: empty; a scenario needs name, title, timeout and steps"},
		"two documents":                     {"name: small", "a: b\n---\nname: small", "small.yaml: "},
	} {
		t.Run(name, func(t *testing.T) {
			text := strings.Replace(valid, test.from, test.to, 1)
			if text == valid {
				t.Fatal("the test changes nothing")
			}
			_, err := Parse("small.yaml", []byte(text))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got  %v\nwant %s", err, test.want)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(valid))
	f.Add([]byte("name: a\nsteps: [{apply: [{apiVersion: v1, kind: Pod, metadata: {name: a}}]}]"))
	f.Add([]byte("a: &a [*a]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := Parse("fuzz.yaml", data)
		if err != nil {
			if !strings.Contains(err.Error(), "fuzz.yaml") {
				t.Errorf("the error does not name the file: %v", err)
			}
			return
		}
		// What is accepted can be played: every wait ends and every text can be expanded.
		w := words{"broken": "gpu-17"}
		if s.Timeout.Of() <= 0 {
			t.Error("accepted without a time-out")
		}
		for i := range s.Steps {
			step := &s.Steps[i]
			if _, err := w.objects(append(step.Apply, step.Delete...)); err != nil {
				t.Errorf("step %d was accepted and cannot be applied: %v", i, err)
			}
			if step.Expect != nil && step.Expect.Within.Of() <= 0 {
				t.Errorf("step %d waits for ever", i)
			}
		}
	})
}
