package schema

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/roundhouse-dev/roundhouse/config"
)

const policy = `apiVersion: roundhouse.dev/v1alpha1
kind: RemediationPolicy
metadata: {name: training}
spec:
  nodeSelector: {}
  rules:
  - {name: one, match: {codes: [Xid79]}, response: Repair, when: Idle, deadline: 12h, ladder: [reboot]}
  rungs:
  - {name: reboot, action: Reboot}
`

const hold = `apiVersion: roundhouse.dev/v1alpha1
kind: RemediationHold
metadata: {name: h}
spec: {nodes: [a], reason: r, requestedBy: me}
`

func load(t testing.TB) *Set {
	t.Helper()
	set, err := Load(config.Files, "crd")
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// The server's answers to the same mistakes are tested against a real one in sandbox/e2e.
func TestJudge(t *testing.T) {
	set := load(t)
	for name, c := range map[string]struct{ manifest, want string }{
		"a policy is valid":              {policy, ""},
		"a hold is valid":                {hold, ""},
		"a field that is not there":      {strings.Replace(policy, "nodeSelector", "nodeSelectors", 1), "unknown field spec.nodeSelectors"},
		"a field that must be there":     {strings.Replace(policy, "nodeSelector: {}", "priority: 1", 1), "spec.nodeSelector: Required value"},
		"a value that is not allowed":    {strings.Replace(policy, "action: Reboot", "action: Explode", 1), `spec.rungs[0].action: Unsupported value: "Explode"`},
		"a rule in CEL":                  {strings.Replace(policy, "ladder: [reboot]", "ladder: [rebot]", 1), "spec: Invalid value:"},
		"a wait without a deadline":      {strings.Replace(policy, "deadline: 12h, ", "", 1), "deadline"},
		"two rules of a name":            {strings.Replace(policy, "  rungs:", "  - {name: one, match: {any: true}, response: Ignore}\n  rungs:", 1), `spec.rules[1]: Duplicate value`},
		"a key that is there twice":      {strings.Replace(hold, "kind:", "kind: X\nkind:", 1), "already set"},
		"a name that is none":            {strings.Replace(hold, "name: h", "name: H_", 1), "metadata.name: Invalid value"},
		"no name":                        {strings.Replace(hold, "{name: h}", "{}", 1), "metadata.name: Required value"},
		"somebody else's kind":           {"apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n", "v1 Pod is not one of Roundhouse's kinds"},
		"a kind that is not there":       {strings.Replace(hold, "RemediationHold", "RemediationHolt", 1), "there is no kind RemediationHolt"},
		"a version that is not there":    {strings.Replace(hold, "v1alpha1", "v1", 1), "apiVersion is roundhouse.dev/v1alpha1"},
		"no kind":                        {"a: b\n", "apiVersion and kind must be set"},
		"not YAML":                       {"a: [b", "yaml"},
		"a list is no object":            {"- a\n- b\n", "unmarshal"},
		"nodes and selector are refused": {strings.Replace(hold, "nodes: [a]", "nodes: [a], nodeSelector: {}", 1), "set exactly one of spec.nodes and spec.nodeSelector"},
	} {
		t.Run(name, func(t *testing.T) {
			documents, err := Parse([]byte(c.manifest))
			if err != nil || len(documents) != 1 {
				t.Fatalf("%d documents, %v", len(documents), err)
			}
			problems := documents[0].Problems
			if len(problems) == 0 {
				problems = set.Judge(t.Context(), documents[0].Object)
			}
			got := strings.Join(problems, "; ")
			if c.want == "" && got != "" || !strings.Contains(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestParseKeepsEachDocumentApart(t *testing.T) {
	documents, err := Parse([]byte("# only a comment\n---\n" + hold + "---\na: [b\n---\n" + policy))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, d := range documents {
		got = append(got, d.Object.GetKind())
	}
	if diff := cmp.Diff([]string{"RemediationHold", "", "RemediationPolicy"}, got); diff != "" {
		t.Errorf("one that cannot be read must not hide the next (-want +got):\n%s", diff)
	}
}

// FuzzJudge: whatever a file holds, there is an answer, and it is the same twice.
func FuzzJudge(f *testing.F) {
	for _, seed := range []string{policy, hold, "a: [b", "---\n---\n", "spec: {}\n", "apiVersion: roundhouse.dev/v1alpha1\nkind: NodeHealth\nmetadata: {name: x}\nspec: {fence: 1e99}\n"} {
		f.Add([]byte(seed))
	}
	set := load(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		documents, err := Parse(data)
		if err != nil {
			return
		}
		for _, d := range documents {
			if len(d.Problems) > 0 {
				continue
			}
			again := d.Object.DeepCopy()
			first, second := set.Judge(t.Context(), d.Object), set.Judge(t.Context(), again)
			if len(first) != len(second) {
				t.Errorf("two answers to one document: %q, %q", first, second)
			}
		}
	})
}
