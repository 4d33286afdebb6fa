package custom

import (
	"fmt"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

const execFile = `name: nfs-latency
every: 2m
timeout: 20s
exec:
  path: /checks/nfs
  args: ["--limit", "200ms"]
  root: /images/nfs
finding:
  code: NFSSlow
  severity: Critical
  recommended: Reboot
`

func TestParse(t *testing.T) {
	c, err := Parse("nfs.yaml", []byte(execFile))
	if err != nil {
		t.Fatal(err)
	}
	want := &Exec{Path: "/checks/nfs", Args: []string{"--limit", "200ms"}, Root: "/images/nfs"}
	if diff := cmp.Diff(want, c.Exec); diff != "" || c.Every.Duration != 2*time.Minute || c.Timeout.Duration != 20*time.Second {
		t.Errorf("%+v %s", c, diff)
	}
	wantFinding := Finding{Code: "NFSSlow", Class: v1alpha1.ClassHost, Severity: v1alpha1.SeverityCritical, Recommended: v1alpha1.RecommendReboot}
	if diff := cmp.Diff(wantFinding, c.Finding); diff != "" {
		t.Error(diff)
	}
	c, err = Parse("hot.json", []byte(`{"name":"too-hot","cel":{"expression":"gpu.clocks.temperature > 90","each":"gpus"}}`))
	if err != nil || c.Every.Duration != time.Minute || c.Timeout.Duration != 10*time.Second {
		t.Errorf("%+v, %v", c, err)
	}
	wantFinding = Finding{Code: "TooHot", Class: v1alpha1.ClassHost, Severity: v1alpha1.SeverityWarning, Recommended: v1alpha1.RecommendNone}
	if diff := cmp.Diff(wantFinding, c.Finding); diff != "" {
		t.Error(diff)
	}
}

func TestParseErrorsNameTheFileTheFieldAndTheFix(t *testing.T) {
	tests := map[string]struct{ in, want string }{
		"no YAML":              {"name: [", "f.yaml: error converting YAML to JSON"},
		"an unknown field":     {"name: a\nexec: {path: /x, image: y}", `f.yaml: error unmarshaling JSON: while decoding JSON: json: unknown field "image"`},
		"no name":              {"exec: {path: /x}", `f.yaml: name: "": write lower-case letters`},
		"a bad name":           {"name: My Check\nexec: {path: /x}", `f.yaml: name: "My Check"`},
		"too often":            {"name: a\nevery: 1s\nexec: {path: /x}", "f.yaml: every: 1s: write 5s to 24h0m0s"},
		"a time-out too long":  {"name: a\ntimeout: 1h\nexec: {path: /x}", "f.yaml: timeout: 1h0m0s: write more than zero and at most 10m0s"},
		"a time-out below 0":   {"name: a\ntimeout: -1s\nexec: {path: /x}", "f.yaml: timeout: -1s"},
		"neither":              {"name: a", "f.yaml: exec: write either exec or cel"},
		"both":                 {"name: a\nexec: {path: /x}\ncel: {expression: 'true'}", "f.yaml: exec: write either exec or cel"},
		"a relative path":      {"name: a\nexec: {path: x}", `f.yaml: exec.path: "x": write a path that begins with /`},
		"a relative root":      {"name: a\nexec: {path: /x, root: img}", `f.yaml: exec.root: "img": write the directory`},
		"an argument with a 0": {"name: a\nexec: {path: /x, args: [\"\\0\"]}", "f.yaml: exec: argument 0: write"},
		"no expression":        {"name: a\ncel: {expression: ' '}", "f.yaml: cel.expression: is missing"},
		"a long expression":    {"name: a\ncel: {expression: '" + strings.Repeat("x", 5000) + "'}", "f.yaml: cel.expression: has 5000 bytes, at most 4096"},
		"an unknown list":      {"name: a\ncel: {expression: 'true', each: disks}", `f.yaml: cel.each: "disks": write devices or gpus`},
		"a bad code":           {"name: a\nexec: {path: /x}\nfinding: {code: is-bad}", `f.yaml: finding.code: "is-bad": write a CamelCase word`},
		"a bad class":          {"name: a\nexec: {path: /x}\nfinding: {class: Ghost}", `f.yaml: finding.class: "Ghost": write one of Hardware,`},
		"a bad severity":       {"name: a\nexec: {path: /x}\nfinding: {severity: Bad}", `f.yaml: finding.severity: "Bad": write one of Critical, Warning, Info`},
		"a bad recommendation": {"name: a\nexec: {path: /x}\nfinding: {recommended: Pray}", `f.yaml: finding.recommended: "Pray": write one of None,`},
		"a long message":       {"name: a\nexec: {path: /x}\nfinding: {message: " + strings.Repeat("x", 300) + "}", "f.yaml: finding.message: has 300 bytes"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if _, err := Parse("f.yaml", []byte(tc.in)); err == nil || !strings.HasPrefix(err.Error(), tc.want) {
				t.Errorf("%v\nwant %s", err, tc.want)
			}
		})
	}
}

func file(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s)} }

func TestLoad(t *testing.T) {
	got, err := Load(fstest.MapFS{
		"b.yaml": file("name: b\nexec: {path: /x}"), "a.json": file(`{"name":"a","exec":{"path":"/x"}}`),
		"..data/c.yaml": file("name: c\nexec: {path: /x}"), ".hidden.yaml": file("rubbish: ["), "README.md": file("# checks"),
	})
	var names []string
	for _, c := range got {
		names = append(names, c.Name)
	}
	if diff := cmp.Diff([]string{"a", "b"}, names); diff != "" || err != nil {
		t.Error(diff, err)
	}
	_, err = Load(fstest.MapFS{"a.yaml": file("name: a\nexec: {path: /x}"), "b.yaml": file("name: a\nexec: {path: /x}"), "c.yaml": file("name: ''")})
	if err == nil || !strings.Contains(err.Error(), `b.yaml: name: "a" is that of a.yaml too`) || !strings.Contains(err.Error(), "c.yaml: name:") {
		t.Error(err)
	}
	many := fstest.MapFS{}
	for i := range MaxFiles + 1 {
		many[fmt.Sprintf("%d.yaml", i)] = file(fmt.Sprintf("name: c%d\nexec: {path: /x}", i))
	}
	if _, err := Load(many); err == nil || !strings.Contains(err.Error(), "more than 64 files") {
		t.Error(err)
	}
	if _, err := Load(fstest.MapFS{"a.yaml": file(strings.Repeat("#", MaxFile+1))}); err == nil || !strings.Contains(err.Error(), "at most 65536") {
		t.Error(err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(execFile))
	f.Add([]byte(`{"name":"too-hot","cel":{"expression":"gpu.clocks.temperature > 90","each":"gpus"}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse("f", data)
		if err != nil {
			if msg := err.Error(); !strings.HasPrefix(msg, "f: ") || len(msg) > 1000 {
				t.Errorf("%q", msg)
			}
			return
		}
		if (c.Exec == nil) == (c.CEL == nil) || !codeForm.MatchString(c.Finding.Code) || c.Every.Duration < minEvery {
			t.Errorf("%+v", c)
		}
	})
}
