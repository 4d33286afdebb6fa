package checks

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/checkup"
	"github.com/roundhouse-dev/roundhouse/internal/health"
	"github.com/roundhouse-dev/roundhouse/internal/machine"
	"github.com/roundhouse-dev/roundhouse/internal/machine/fake"
)

const npdKernel = `{
  "plugin": "kmsg", "logPath": "/dev/kmsg", "lookback": "5m", "bufferSize": 10, "source": "kernel-monitor",
  "conditions": [{"type": "KernelDeadlock", "reason": "KernelHasNoDeadlock", "message": "kernel has no deadlock"}],
  "rules": [{"type": "permanent", "condition": "KernelDeadlock", "reason": "DockerHung", "pattern": "task docker:\\w+ blocked for more than \\w+ seconds\\."}]
}`

// write writes files into a directory of the test's.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// host runs programs for real; its files are nobody's.
func host(t *testing.T) *machine.Host {
	t.Helper()
	return machine.NewHost(machine.Options{Root: "/", StateDir: t.TempDir()})
}

func TestAHealthyMachinePassesEveryCheck(t *testing.T) {
	m := fake.New(fake.Options{Devices: fake.H200s(8, 7)})
	set, err := New(t.Context(), Options{Machine: m})
	if err != nil {
		t.Fatal(err)
	}
	r := checkup.Run(t.Context(), checkup.Options{Checks: set.Checks(), Within: 10 * time.Second})
	if r.Summary != v1alpha1.SummaryHealthy || len(r.Devices) != 8 || len(r.Checks) != len(set.Scheduled) {
		t.Errorf("%s, %d devices, %d of %d checks, faults %v", r.Summary, len(r.Devices), len(r.Checks), len(set.Scheduled), r.Faults)
	}
	names := map[string]bool{}
	for _, c := range r.Checks {
		if c.Result != health.Passing || names[c.Name] {
			t.Errorf("%s is %s (%s %s), or there twice", c.Name, c.Result, c.Reason, c.Message)
		}
		names[c.Name] = true
	}
}

func TestOneBreakageSeenByManyChecksHasOneRoot(t *testing.T) {
	m := fake.New(fake.Options{Devices: fake.H200s(8, 7)})
	set, err := New(t.Context(), Options{Machine: m})
	if err != nil {
		t.Fatal(err)
	}
	m.Kernel("NVRM: Xid (PCI:0000:18:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.")
	m.Break("0000:18:00.0", fake.Break{Kind: fake.Dead})
	r := checkup.Run(t.Context(), checkup.Options{Checks: set.Checks(), Within: 30 * time.Second})
	var roots, others []string
	for _, f := range r.Faults {
		if f.Root {
			roots = append(roots, f.Code)
		} else {
			others = append(others, f.Code+"<"+f.CausedBy)
		}
	}
	if !slices.Equal(roots, []string{"Xid79"}) || !slices.Contains(others, "PCIDeviceDead<Xid79") || !slices.Contains(others, "GPULost<Xid79") {
		t.Errorf("roots %v, consequences %v", roots, others)
	}
}

func TestWhatAnOperatorAddsIsRun(t *testing.T) {
	dir := write(t, map[string]string{
		"disk.yaml": "name: disk\nexec: {path: " + "SCRIPT" + "}\nfinding: {code: DiskTooFull, message: full}\n",
	})
	script := filepath.Join(write(t, map[string]string{"disk.sh": "#!/bin/sh\necho 97% used\nexit 1\n"}), "disk.sh")
	text, err := os.ReadFile(filepath.Join(dir, "disk.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "disk.yaml"), []byte(strings.ReplaceAll(string(text), "SCRIPT", script)), 0o600); err != nil {
		t.Fatal(err)
	}
	custom, err := ReadCustom(dir)
	if err != nil {
		t.Fatal(err)
	}
	npd, warnings, err := ReadNPD([]string{filepath.Join(write(t, map[string]string{"kernel-monitor.json": npdKernel}), "*.json")})
	if err != nil || len(warnings) > 0 {
		t.Fatal(err, warnings)
	}
	m := fake.New(fake.Options{Devices: fake.H200s(1, 7)})
	h := host(t)
	set, err := New(t.Context(), Options{Machine: m, Programs: h, Files: h, Journal: h, NPD: npd, Custom: custom, NodeName: "gpu-1"})
	if err != nil {
		t.Fatal(err)
	}
	m.Kernel("INFO: task docker:20744 blocked for more than 120 seconds.")
	r := checkup.Run(t.Context(), checkup.Options{Checks: set.Checks(), Within: 10 * time.Second})
	var found []string
	for _, f := range r.Faults {
		found = append(found, f.Check+"/"+f.Code)
	}
	for _, want := range []string{"npd-kernel-monitor/DockerHung", "custom-disk/DiskTooFull"} {
		if !slices.Contains(found, want) {
			t.Errorf("%s is not among %v; checks: %+v", want, found, r.Checks)
		}
	}
}

func TestWhatCannotBeUsedIsSaid(t *testing.T) {
	tests := map[string]struct {
		npd, custom map[string]string
		want        string
	}{
		"a configuration of NPD's that is not there": {npd: map[string]string{}, want: "no such file"},
		"one that is not JSON":                       {npd: map[string]string{"a.json": "{"}, want: "a.json"},
		"a script that is not there": {
			npd:  map[string]string{"a.json": `{"plugin":"custom","pluginConfig":{},"source":"a","rules":[{"type":"temporary","reason":"A","path":"/nonexistent/a.sh"}]}`},
			want: "/nonexistent/a.sh",
		},
		"a custom check that does nothing":            {custom: map[string]string{"a.yaml": "name: a\n"}, want: "a.yaml"},
		"a custom check whose program is not there":   {custom: map[string]string{"a.yaml": "name: a\nexec: {path: /nonexistent/a.sh}\n"}, want: "/nonexistent/a.sh"},
		"a field that there is not in a custom check": {custom: map[string]string{"a.yaml": "name: a\nexecute: {}\n"}, want: "execute"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			h := host(t)
			o := Options{Machine: fake.New(fake.Options{}), Programs: h, Files: h, Journal: h}
			var err error
			if tt.npd != nil {
				o.NPD, _, err = ReadNPD([]string{filepath.Join(write(t, tt.npd), "*.json")})
			} else if o.Custom, err = ReadCustom(write(t, tt.custom)); err == nil {
				_, err = New(t.Context(), o)
			}
			if err == nil {
				_, err = New(t.Context(), o)
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestMoreChecksThanCanBePublishedIsAnError(t *testing.T) {
	files := map[string]string{}
	for _, c := range "abcdefghijklmnopqrst" {
		files[string(c)+".yaml"] = "name: " + string(c) + "\nexec: {path: /bin/sh}\n"
	}
	custom, err := ReadCustom(write(t, files))
	if err != nil {
		t.Fatal(err)
	}
	_, err = New(t.Context(), Options{Machine: fake.New(fake.Options{}), Programs: host(t), Custom: custom})
	if err == nil || !strings.Contains(err.Error(), "at most 32 can be published") {
		t.Errorf("got %v", err)
	}
}
