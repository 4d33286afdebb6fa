package health

import (
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

func finding(code, device string, s v1alpha1.Severity, root bool, first int64) Finding {
	return Finding{Fault: v1alpha1.Fault{
		Code: code, Device: device, Severity: s, Root: root, FirstSeen: metav1.NewTime(time.Unix(first, 0)),
	}}
}

func TestOutcomeOf(t *testing.T) {
	tests := map[string]struct {
		severities []v1alpha1.Severity
		want       Outcome
	}{
		"nothing found passes":     {nil, Passing},
		"what is only Info passes": {[]v1alpha1.Severity{v1alpha1.SeverityInfo, v1alpha1.SeverityInfo}, Passing},
		"a Warning fails":          {[]v1alpha1.Severity{v1alpha1.SeverityInfo, v1alpha1.SeverityWarning}, Failing},
		"a Critical fails":         {[]v1alpha1.Severity{v1alpha1.SeverityCritical}, Failing},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			var findings []Finding
			for _, s := range tc.severities {
				findings = append(findings, finding("x", "", s, true, 0))
			}
			if got := OutcomeOf(findings); got != tc.want {
				t.Errorf("%s, want %s", got, tc.want)
			}
		})
	}
}

func TestIdentify(t *testing.T) {
	devices := []v1alpha1.Device{{ID: "GPU-a", PCI: "0000:18:00.0"}, {ID: "GPU-b", PCI: "0000:2a:00.0"}}
	tests := map[string]struct {
		in   Finding
		want string
	}{
		"by its address": {Finding{PCI: "0000:2a:00.0"}, "GPU-b"},
		"one that the inventory has not is not the node's": {Finding{PCI: "0000:05:00.0"}, "pci-0000:05:00.0"},
		"the whole node's stays the node's":                {Finding{}, ""},
		"one that is known stays":                          {Finding{PCI: "0000:2a:00.0", Fault: v1alpha1.Fault{Device: "GPU-x"}}, "GPU-x"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			in := []Finding{tc.in}
			if got := Identify(in, devices)[0].Fault.Device; got != tc.want {
				t.Errorf("%q, want %q", got, tc.want)
			}
			if in[0].Fault.Device != tc.in.Fault.Device {
				t.Error("the caller's list was written to")
			}
		})
	}
}

func TestWithHealth(t *testing.T) {
	devices := []v1alpha1.Device{
		{ID: "well", Health: v1alpha1.DeviceHealthy}, {ID: "warned", Health: v1alpha1.DeviceHealthy},
		{ID: "broken", Health: v1alpha1.DeviceHealthy}, {ID: "missing", Health: v1alpha1.DeviceMissing},
		{ID: "asleep", Health: v1alpha1.DeviceUnknown}, {ID: "asleep and broken", Health: v1alpha1.DeviceUnknown},
	}
	findings := []Finding{
		finding("a", "warned", v1alpha1.SeverityWarning, true, 0), finding("b", "broken", v1alpha1.SeverityCritical, true, 0),
		finding("c", "missing", v1alpha1.SeverityCritical, true, 0), finding("d", "asleep and broken", v1alpha1.SeverityCritical, true, 0),
	}
	show := func(blind bool) string {
		var out []string
		for _, d := range WithHealth(devices, findings, blind) {
			out = append(out, fmt.Sprintf("%s: %s", d.ID, d.Health))
		}
		return strings.Join(out, ", ")
	}
	want := "well: Healthy, warned: Healthy, broken: Unhealthy, missing: Missing, asleep: Unknown, asleep and broken: Unhealthy"
	if diff := cmp.Diff(want, show(false)); diff != "" {
		t.Error(diff)
	}
	want = "well: Unknown, warned: Unknown, broken: Unhealthy, missing: Missing, asleep: Unknown, asleep and broken: Unhealthy"
	if diff := cmp.Diff(want, show(true)); diff != "" {
		t.Error(diff)
	}
}

func TestFaultsAreOrderedAndBounded(t *testing.T) {
	info, warn, crit := v1alpha1.SeverityInfo, v1alpha1.SeverityWarning, v1alpha1.SeverityCritical
	in := []Finding{
		finding("app", "a", info, true, 1), finding("late", "a", crit, true, 9), finding("consequence", "a", crit, false, 2),
		finding("early", "b", crit, true, 3), finding("odd", "a", warn, true, 1),
	}
	var got []string
	faults, dropped := Faults(in)
	for _, f := range faults {
		got = append(got, f.Code)
	}
	if diff := cmp.Diff([]string{"early", "late", "consequence", "odd", "app"}, got); diff != "" || dropped != 0 {
		t.Errorf("%d dropped (-want +got):\n%s", dropped, diff)
	}
	for i := range 100 {
		in = append(in, finding(fmt.Sprintf("app%d", i), "a", info, true, 1))
	}
	faults, dropped = Faults(in)
	if len(faults) != MaxFindings || dropped != 105-MaxFindings || faults[0].Code != "early" {
		t.Errorf("%d faults, %d dropped, first %s", len(faults), dropped, faults[0].Code)
	}
}

func FuzzBound(f *testing.F) {
	f.Add("plain", 3)
	f.Add("\xff\xfe grün 漢字", 7)
	f.Fuzz(func(t *testing.T, s string, n int) {
		if n < 0 {
			return
		}
		got := Bound(s, n)
		if len(got) > n || !utf8.ValidString(got) {
			t.Errorf("Bound(%q, %d) = %q", s, n, got)
		}
		if utf8.ValidString(s) && len(s) <= n && got != s {
			t.Errorf("what fits was changed: %q", got)
		}
	})
}
