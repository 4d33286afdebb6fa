package main

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/roundhouse-dev/roundhouse/internal/checkup"
)

func TestFlags(t *testing.T) {
	tests := map[string]struct {
		args []string
		env  map[string]string
		want string // part of the error; empty for none
	}{
		"the node's name from the environment": {env: map[string]string{"NODE_NAME": "gpu-1"}},
		"no name":                              {want: "no node name"},
		"an argument too many":                 {args: []string{"-node-name=a", "b"}, want: `unexpected argument "b"`},
		"a limit that nobody could count":      {args: []string{"-node-name=a", "-daily-limit=65"}, want: "want 0 to 64"},
		"devices by vendor":                    {args: []string{"-node-name=a", "-accelerators=1b36:0010, 10de:*"}},
		"every device on the bus":              {args: []string{"-node-name=a", "-accelerators=*:*"}, want: "match every device"},
		"a version needs no name":              {args: []string{"-version"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := parse(tt.args, func(key string) string { return tt.env[key] }, &bytes.Buffer{})
			switch {
			case tt.want == "" && err != nil:
				t.Error(err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	var stdout, stderr bytes.Buffer
	args := []string{
		"-node-name=a", "-server=https://127.0.0.1:1", "-metrics-bind=127.0.0.1:0", "-host-root=" + t.TempDir(), "-state-dir=" + t.TempDir(),
	}
	began := time.Now()
	if err := run(ctx, args, func(string) string { return "" }, &stdout, &stderr); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("took %s to end", took)
	}
}

func TestVersion(t *testing.T) {
	var stdout bytes.Buffer
	if err := run(t.Context(), []string{"-version"}, func(string) string { return "" }, &stdout, &bytes.Buffer{}); err != nil {
		t.Fatal(err)
	}
	if got := stdout.String(); got != "roundhouse-agent unknown\n" {
		t.Errorf("got %q", got)
	}
}

func TestCheck(t *testing.T) {
	tests := map[string]struct {
		args []string
		code exitCode // 0 for none
		want string   // part of what is printed
	}{
		"a host whose files are not there cannot be seen": {args: []string{"-host-root=" + t.TempDir()}, code: checkup.ExitUnknown, want: "UNKNOWN  0 devices, 0 faults"},
		"as JSON":                           {args: []string{"-o=json", "-host-root=" + t.TempDir()}, code: checkup.ExitUnknown, want: `"summary": "Unknown"`},
		"an unknown format":                 {args: []string{"-o=yaml"}, code: checkup.ExitUsage, want: "-o yaml: want text or json"},
		"an unknown flag":                   {args: []string{"-format=json"}, code: checkup.ExitUsage, want: "not defined: -format"},
		"an argument too many":              {args: []string{"gpu-17"}, code: checkup.ExitUsage, want: `unexpected argument "gpu-17"`},
		"a configuration that is not there": {args: []string{"-npd-config=/nonexistent.json"}, code: checkup.ExitUsage, want: "/nonexistent.json: no such file"},
		"no time at all":                    {args: []string{"-within=0s"}, code: checkup.ExitUsage, want: "-within 0s"},
		"help":                              {args: []string{"-h"}, want: "Exit code: 0 healthy"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			args := append([]string{"check", "-state-dir=" + t.TempDir()}, tt.args...)
			err := command(t.Context(), args, func(string) string { return "" }, &out, &out)
			var code exitCode
			if err != nil && !errors.As(err, &code) {
				t.Fatal(err)
			}
			if code != tt.code || !strings.Contains(out.String(), tt.want) {
				t.Errorf("exit %d, want %d; printed:\n%s", code, tt.code, out.String())
			}
		})
	}
}
