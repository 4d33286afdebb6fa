// Package slurm tests the example of a gate between Roundhouse and Slurm, with programs in the place of kubectl and scontrol.
package slurm

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestGate(t *testing.T) {
	tests := map[string]struct {
		taint, said string // what Kubernetes knows
		state       string // what Slurm says; empty where it has no such node
		reason      string
		want        []string
	}{
		"a node in service is left alone":                   {"-", "None", "IDLE", "", nil},
		"what Roundhouse drains is drained in Slurm":        {"tainted", "None", "ALLOCATED", "", []string{"scontrol update NodeName=gpu-1 State=DRAIN Reason=roundhouse"}},
		"while jobs run the gate is closed":                 {"tainted", "None", "ALLOCATED+DRAIN", "roundhouse", []string{"patch gpu-1 False JobsRunning"}},
		"which is said once":                                {"tainted", "False", "MIXED+DRAIN", "roundhouse", nil},
		"a job that is ending still runs":                   {"tainted", "False", "COMPLETING+DRAIN", "roundhouse", nil},
		"when none runs it is open":                         {"tainted", "False", "IDLE+DRAIN", "roundhouse", []string{"patch gpu-1 True Drained"}},
		"a node that is down runs none":                     {"tainted", "None", "DOWN+DRAIN", "roundhouse", []string{"patch gpu-1 True Drained"}},
		"one that somebody else drained counts":             {"tainted", "None", "IDLE+DRAIN", "bad cable", []string{"patch gpu-1 True Drained"}},
		"back in service it is resumed":                     {"-", "True", "IDLE+DRAIN", "roundhouse", []string{"scontrol update NodeName=gpu-1 State=RESUME", "patch gpu-1 False InService"}},
		"but not where somebody else had drained it":        {"-", "True", "IDLE+DRAIN", "bad cable", []string{"patch gpu-1 False InService"}},
		"a node that Slurm does not know is no business of": {"tainted", "None", "", "", nil},
	}
	script, err := filepath.Abs("gate.sh")
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			bin := t.TempDir()
			log := filepath.Join(bin, "log")
			program(t, bin, "kubectl", fmt.Sprintf(`case "$1" in
get) echo "gpu-1 %s %s" ;;
patch) echo "patch $3 $(echo "$*" | tr -d '\n' | sed 's/.*"status":"\([A-Z][a-z]*\)","reason":"\([A-Za-z]*\)".*/\1 \2/')" >>%s ;;
esac`, tt.taint, tt.said, log))
			shown := "exit 1"
			if tt.state != "" {
				shown = fmt.Sprintf("echo 'NodeName=gpu-1 Arch=x86_64 State=%s Partitions=gpu Reason=%s [root@2026-11-23T10:00:00]'", tt.state, tt.reason)
			}
			program(t, bin, "scontrol", fmt.Sprintf("case \"$1\" in\nshow) %s ;;\n*) echo \"scontrol $*\" >>%s ;;\nesac", shown, log))
			run := exec.CommandContext(t.Context(), script)
			run.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"))
			if out, err := run.CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			var got []string
			if raw, err := os.ReadFile(log); err == nil {
				got = strings.Split(strings.TrimSpace(string(raw)), "\n")
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("did (-want +got):\n%s", diff)
			}
		})
	}
}

// program puts a shell script into a directory, as a program.
func program(t *testing.T, dir, name, body string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+body+"\n"), 0o755); err != nil { //nolint:gosec // a program
		t.Fatal(err)
	}
}
