package custom

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/health"
	"github.com/roundhouse-dev/roundhouse/internal/machine"
	"github.com/roundhouse-dev/roundhouse/internal/machine/fake"
)

func show(r health.Result) string {
	out := []string{strings.TrimSpace(string(r.Outcome) + " " + r.Reason + ": " + r.Message)}
	for _, f := range r.Findings {
		out = append(out, fmt.Sprintf("%s %s%s %s %s x%d: %s", f.Fault.Code, f.Fault.Device, f.PCI, f.Fault.Severity, f.Fault.Recommended, f.Fault.Count, f.Fault.Evidence))
	}
	return strings.Join(out, "\n")
}

// scripted is a check of a real script.
func scripted(t *testing.T, body, more string) *ExecCheck {
	t.Helper()
	path := filepath.Join(t.TempDir(), "check.sh")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+body+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	config, err := Parse("f.yaml", []byte("name: nfs-latency\nexec: {path: \""+path+"\"}\n"+more))
	if err != nil {
		t.Fatal(err)
	}
	c, err := NewExecCheck(t.Context(), ExecOptions{Config: config, Programs: machine.NewHost(machine.Options{}), Env: []string{"NODE_NAME=n1"}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestTheContract(t *testing.T) {
	long := `{"findings":[` + strings.Repeat(`{"code":"A"},`, 32) + `{"code":"B"}]}`
	tests := map[string]struct{ body, more, want string }{
		"0 is well": {"echo fine", "", "Passing :"},
		"1 is a problem, its text the first line": {"echo; echo 'slow on '$NODE_NAME; echo more; exit 1", "", "Failing :\nNfsLatency  Warning None x1: slow on n1"},
		"or of stderr where stdout is empty":      {"echo slow >&2; exit 1", "", "Failing :\nNfsLatency  Warning None x1: slow"},
		"or of the file where both are":           {"exit 1", "finding: {message: it is slow}", "Failing :\nNfsLatency  Warning None x1: it is slow"},
		"the file says how grave it is":           {"echo x; exit 1", "finding: {code: Slow, severity: Critical, recommended: Reboot}", "Failing :\nSlow  Critical Reboot x1: x"},
		"2 is unknown":                            {"echo confused; exit 2", "", "Unknown ProgramUnknown: exit status 2: confused"},
		"a signal is unknown":                     {"kill -9 $$", "", "Unknown ProgramUnknown: signal: killed"},
		"no end is unknown":                       {"echo waiting; sleep 1000", "timeout: 200ms", "Unknown TimedOut: no end within 200ms: waiting"},
		"findings in JSON": {
			`echo '{"findings":[{"code":"LinkFlaps","pci":"0000:2A:00.0","severity":"Critical","recommended":"Human","message":"12 in an hour"},{"code":"Odd","device":"GPU-x"}]}'; exit 1`, "",
			"Failing :\nLinkFlaps 0000:2a:00.0 Critical Human x1: 12 in an hour\nOdd GPU-x Warning None x1:",
		},
		"a remark does no harm": {`echo '{"findings":[{"code":"Odd","severity":"Info"}]}'`, "", "Passing :\nOdd  Info None x1:"},
		"no findings and 0":     {`echo '{"findings":[]}'`, "", "Passing :"},
		"no findings and 1":     {`echo '{"findings":[]}'; exit 1`, "", "Unknown BadOutput: exit code 1 and no findings; give one, or exit with 0"},
		"a finding and 0": {
			`echo '{"findings":[{"code":"Odd"}]}'`, "", "Unknown BadOutput: exit code 0 and a finding Odd of severity Warning; exit with 1 when something is wrong",
		},
		"an unknown field":         {`echo '{"findings":[{"code":"Odd","sev":"x"}]}'; exit 1`, "", `Unknown BadOutput: stdout: json: unknown field "sev"`},
		"two objects":              {`echo '{"findings":[]}{}'`, "", "Unknown BadOutput: stdout: there is something after the JSON object"},
		"half an object":           {`echo '{"findings":['; exit 1`, "", "Unknown BadOutput: stdout: unexpected EOF"},
		"a code that is none":      {`echo '{"findings":[{"code":"is bad"}]}'; exit 1`, "", `Unknown BadOutput: stdout: findings[0].code: "is bad": write a CamelCase word of at most 64 letters and digits`},
		"a bad address":            {`echo '{"findings":[{"code":"A","pci":"5"}]}'; exit 1`, "", `Unknown BadOutput: stdout: findings[0].pci: "5": write an address such as 0000:18:00.0`},
		"a device twice":           {`echo '{"findings":[{"code":"A","pci":"0000:18:00.0","device":"x"}]}'; exit 1`, "", "Unknown BadOutput: stdout: findings[0].device: write device or pci, and not both"},
		"a severity that is none":  {`echo '{"findings":[{"code":"A","severity":"Bad"}]}'; exit 1`, "", `Unknown BadOutput: stdout: findings[0].severity: "Bad": write one of Critical, Warning, Info`},
		"too many findings":        {"echo '" + long + "'; exit 1", "", "Unknown BadOutput: stdout: 33 findings, at most 32 are allowed"},
		"the same finding twice":   {`echo '{"findings":[{"code":"A"},{"code":"A"}]}'; exit 1`, "", "Failing :\nA  Warning None x1:"},
		"JSON that is too long":    {`printf '{"findings":[{"code":"A","message":"'; head -c 100000 /dev/zero | tr '\0' x; exit 1`, "", "Unknown BadOutput: stdout is longer than 65536 bytes"},
		"a terminal's escapes":     {`printf 'red \033[31m\n'; exit 1`, "", "Failing :\nNfsLatency  Warning None x1: red \ufffd[31m"},
		"a flood that is no JSON":  {`yes | head -c 5000000; exit 1`, "", "Failing :\nNfsLatency  Warning None x1: y"},
		"children hold the output": {"sleep 1000 & echo slow; exit 1", "", "Failing :\nNfsLatency  Warning None x1: slow"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			c := scripted(t, tc.body, tc.more)
			began := time.Now()
			got := show(c.Look(t.Context()))
			if diff := cmp.Diff(tc.want, strings.ReplaceAll(strings.TrimSpace(got), "x1: \n", "x1:\n")); diff != "" {
				t.Error(diff)
			}
			if took := time.Since(began); took > 20*time.Second {
				t.Errorf("took %s", took)
			}
		})
	}
}

func TestFindingsStandWhileAProgramCannotTell(t *testing.T) {
	programs := &fake.Programs{}
	now := time.Date(2026, 11, 26, 10, 0, 0, 0, time.UTC)
	config, err := Parse("f.yaml", []byte("name: a\nexec: {path: /x}\nfinding: {class: Fabric}"))
	if err != nil {
		t.Fatal(err)
	}
	programs.Answers("/x", 1, "bad")
	c, err := NewExecCheck(t.Context(), ExecOptions{Config: config, Programs: programs, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	first := c.Look(t.Context()).Findings[0]
	if first.Fault.Class != v1alpha1.ClassFabric || first.Fault.Check != "custom-a" || first.ClearedBy != health.ClearedByLook || !first.Fault.Root {
		t.Errorf("%+v", first)
	}
	now = now.Add(time.Minute)
	programs.Set("/x", func(context.Context, machine.Program) (machine.Ran, error) {
		return machine.Ran{}, errors.New("no memory")
	})
	if diff := cmp.Diff("Unknown CannotRun: no memory\nA  Warning None x1: bad", show(c.Look(t.Context()))); diff != "" {
		t.Error(diff)
	}
	programs.Set("/x", func(context.Context, machine.Program) (machine.Ran, error) { return machine.Ran{}, machine.ErrStuck })
	if r := c.Look(t.Context()); r.Reason != health.ReasonTimedOut || len(r.Findings) != 1 {
		t.Error(show(r))
	}
	programs.Answers("/x", 1, "bad")
	r := c.Look(t.Context())
	if f := r.Findings[0].Fault; f.Count != 2 || !f.FirstSeen.Equal(&first.Fault.FirstSeen) || !f.LastSeen.Time.Equal(now) {
		t.Errorf("%+v", f)
	}
	programs.Answers("/x", 0, "")
	if r := c.Look(t.Context()); r.Outcome != health.Passing || len(r.Findings) != 0 {
		t.Error(show(r))
	}
	if every, timeout := c.Schedule(); every != time.Minute || timeout != 15*time.Second {
		t.Error(every, timeout)
	}
}

func TestAMissingProgramIsAnErrorAtStart(t *testing.T) {
	config, err := Parse("f.yaml", []byte("name: a\nexec: {path: /x}"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = NewExecCheck(t.Context(), ExecOptions{Config: config, Programs: &fake.Programs{}})
	if err == nil || !strings.HasPrefix(err.Error(), "f.yaml: exec.path: looking for /x") {
		t.Error(err)
	}
}

func FuzzInterpret(f *testing.F) {
	f.Add([]byte(`{"findings":[{"code":"A","pci":"0000:18:00.0","severity":"Critical","recommended":"Reboot","message":"m"}]}`), 1)
	f.Add([]byte("slow\n"), 1)
	f.Fuzz(func(t *testing.T, stdout []byte, exit int) {
		otherwise := Finding{Code: "Other", Severity: v1alpha1.SeverityWarning, Recommended: v1alpha1.RecommendNone}
		all, err := interpret(machine.Ran{Exit: exit, Stdout: stdout}, otherwise)
		if err == nil && len(all) > maxFindings {
			t.Errorf("%d findings", len(all))
		}
		for _, f := range all {
			if !codeForm.MatchString(f.Code) || exit == 0 && f.Severity != v1alpha1.SeverityInfo || len(f.Device) > 3*128 {
				t.Errorf("%+v", f)
			}
		}
	})
}
