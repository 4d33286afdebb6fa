package checkup

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/cli/text"
	"github.com/roundhouse-dev/roundhouse/internal/health"
	"github.com/roundhouse-dev/roundhouse/internal/health/kernellog"
	"github.com/roundhouse-dev/roundhouse/internal/health/pci"
	"github.com/roundhouse-dev/roundhouse/internal/machine"
	"github.com/roundhouse-dev/roundhouse/internal/machine/fake"
)

const offTheBus = "NVRM: Xid (PCI:0000:18:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus."

// scripted answers with its results in turn, the last one for ever.
type scripted struct {
	name    string
	results []health.Result
	looks   atomic.Int32
	panics  bool
	hangs   bool
}

func (s *scripted) Name() string { return s.name }

func (s *scripted) Look(context.Context) health.Result {
	n := int(s.looks.Add(1))
	switch {
	case s.panics:
		panic("index out of range")
	case s.hangs:
		select {}
	}
	return s.results[min(n, len(s.results))-1]
}

func run(t *testing.T, within time.Duration, checks ...health.Check) *Report {
	t.Helper()
	return Run(t.Context(), Options{Checks: checks, Within: within})
}

func real8(t *testing.T) (*fake.Machine, []health.Check) {
	t.Helper()
	m := fake.New(fake.Options{Hostname: "gpu-17", Devices: fake.H200s(8, 7)})
	seen := machine.ReadOnly(m)
	lines := kernellog.New(kernellog.Options{Machine: seen})
	return m, []health.Check{lines, pci.New(pci.Options{Machine: seen, UUID: lines.UUID})}
}

func TestAHealthyMachine(t *testing.T) {
	_, checks := real8(t)
	r := run(t, 5*time.Second, checks...)
	if r.Summary != v1alpha1.SummaryHealthy || r.Exit() != ExitHealthy || len(r.Devices) != 8 || len(r.Faults) != 0 {
		t.Errorf("%s, exit %d, %d devices, %v", r.Summary, r.Exit(), len(r.Devices), r.Faults)
	}
	for _, d := range r.Devices {
		if d.Health != v1alpha1.DeviceHealthy {
			t.Errorf("%s is %s", d.ID, d.Health)
		}
	}
}

func TestABrokenMachineSaysSoAndIsLeftAsItWas(t *testing.T) {
	m, checks := real8(t)
	m.Kernel(offTheBus)
	r := run(t, 5*time.Second, checks...)
	if r.Exit() != ExitFaulty || len(r.Faults) != 1 || r.Faults[0].Code != "Xid79" {
		t.Fatalf("exit %d, %v", r.Exit(), r.Faults)
	}
	if r.Devices[0].Health != v1alpha1.DeviceUnhealthy {
		t.Errorf("the device is %s", r.Devices[0].Health)
	}
	for _, name := range []string{"kernel-log.json", "pci.json"} {
		if _, err := m.Load(t.Context(), name); err == nil {
			t.Errorf("%s was written", name)
		}
	}
}

func TestWhatTheAgentKnowsIsBelieved(t *testing.T) {
	m := fake.New(fake.Options{Devices: fake.H200s(8, 7)})
	agent := pci.New(pci.Options{Machine: m})
	agent.Look(t.Context())
	fewer := fake.New(fake.Options{Devices: fake.H200s(8, 7)[:7]})
	known, err := m.Load(t.Context(), "pci.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := fewer.Save(t.Context(), "pci.json", known); err != nil {
		t.Fatal(err)
	}
	r := run(t, 10*time.Second, pci.New(pci.Options{Machine: machine.ReadOnly(fewer)}))
	if len(r.Faults) != 1 || r.Faults[0].Code != pci.CodeMissing {
		t.Errorf("a look that waits for what settles finds what is missing: %v, checks %v", r.Faults, r.Checks)
	}
}

func TestCannotLook(t *testing.T) {
	unread := health.CouldNotLook(health.ReasonCannotRead, errors.New("permission denied"), nil)
	passing := &scripted{name: "b", results: []health.Result{{Outcome: health.Passing}}}
	tests := map[string]struct {
		check  *scripted
		reason string
		looks  int
	}{
		"what cannot be read is asked three times":    {&scripted{name: "a", results: []health.Result{unread}}, health.ReasonCannotRead, 3},
		"a check that breaks does not break the rest": {&scripted{name: "a", panics: true}, health.ReasonPanicked, 1},
		"nor does one that hangs":                     {&scripted{name: "a", hangs: true}, health.ReasonTimedOut, 1},
		"what does not settle in time is said as it is": {
			&scripted{name: "a", results: []health.Result{{Outcome: health.Unknown, Reason: pci.ReasonSettling, Again: time.Hour}}}, pci.ReasonSettling, 1,
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			r := run(t, time.Second, tc.check, passing)
			if r.Exit() != ExitUnknown || r.Checks[0].Reason != tc.reason || r.Checks[1].Result != health.Passing {
				t.Errorf("exit %d, %+v", r.Exit(), r.Checks)
			}
			if looks := int(tc.check.looks.Load()); looks != tc.looks {
				t.Errorf("%d looks, want %d", looks, tc.looks)
			}
		})
	}
}

func TestAFaultGoesBeforeWhatCouldNotBeSeen(t *testing.T) {
	m, checks := real8(t)
	m.Kernel(offTheBus)
	r := run(t, 5*time.Second, append(checks, &scripted{name: "x", results: []health.Result{{Outcome: health.Unknown, Reason: "NoLibrary"}}})...)
	if r.Exit() != ExitFaulty || !strings.Contains(r.answer(), "1 of 3 checks could not look") {
		t.Errorf("exit %d: %s", r.Exit(), r.answer())
	}
}

func TestRender(t *testing.T) {
	at := time.Date(2026, 11, 26, 10, 0, 0, 0, time.UTC)
	seen := metav1.NewTime(at)
	r := &Report{
		Version: "v0.2.0", Host: "gpu-17", Booted: &at, Summary: v1alpha1.SummaryFaulty,
		Devices: []v1alpha1.Device{{
			ID: "GPU-6a1f", Model: "H200", PCI: "0000:18:00.0", Slot: "3", BoundTo: "nvidia", Driver: "595.45", Health: v1alpha1.DeviceUnhealthy,
			Link: &v1alpha1.Link{Width: 8, MaxWidth: 16, GTs: "32"},
		}},
		Faults: []v1alpha1.Fault{{
			Code: "Xid79", Check: "kernel-log", Device: "GPU-6a1f", Severity: v1alpha1.SeverityCritical, Recommended: v1alpha1.RecommendReboot,
			FirstSeen: seen, LastSeen: seen, Count: 1, Root: true, Evidence: "NVRM: fallen \x1b[2J off",
		}, {
			Code: "Xid45", Check: "kernel-log", Device: "GPU-6a1f", Severity: v1alpha1.SeverityInfo, CausedBy: "Xid79",
			FirstSeen: seen, LastSeen: seen, Count: 9, Evidence: "NVRM: Ch 8",
		}},
		Checks: []Check{
			{Name: "gpu-lost", Result: health.Unknown, Reason: "NoLibrary", Message: "no libnvidia-ml.so.1"},
			{Name: "kernel-log", Result: health.Failing, Looked: "1204 lines"},
		},
	}
	want := `FAULTY  1 device, 1 fault, 1 remark, 1 of 2 checks could not look
gpu-17, booted 10:00 UTC (14m ago), roundhouse-agent v0.2.0

Critical  Xid79 on GPU-6a1f, slot 3, 0000:18:00.0
          NVRM: fallen?[2J off
          seen 10:00:00 (14m ago); recommends Reboot (check kernel-log)

Info  Xid45 on GPU-6a1f, slot 3, 0000:18:00.0, caused by Xid79
          NVRM: Ch 8
          seen 10:00:00 (14m ago), 9 times since, last 14m ago (check kernel-log)

DEVICE    MODEL  PCI           SLOT  DRIVER         LINK                 HEALTH
GPU-6a1f  H200   0000:18:00.0  3     nvidia 595.45  x8 32 GT/s (of x16)  Unhealthy

CHECK       RESULT   LOOKED AT   NOTE
gpu-lost    Unknown  -           NoLibrary: no libnvidia-ml.so.1
kernel-log  Failing  1204 lines
`
	page := &text.Page{Clock: text.Clock{Now: at.Add(14 * time.Minute)}}
	r.Render(page)
	if diff := cmp.Diff(want, page.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	var out bytes.Buffer
	if err := r.WriteJSON(&out); err != nil {
		t.Fatal(err)
	}
	var back Report
	if err := json.Unmarshal(out.Bytes(), &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(r, &back); diff != "" {
		t.Errorf("JSON does not come back (-want +got):\n%s", diff)
	}
}
