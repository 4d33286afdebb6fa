package policy

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/decide"
)

// said is a driver's taint that has been on for five minutes.
func said(value string, effect resourcev1.DeviceTaintEffect) decide.DriverTaint {
	return decide.DriverTaint{DeviceID: "GPU-1", Driver: "gpu.nvidia.com", Device: "gpu-1", Key: "gpu.nvidia.com/xid", Value: value,
		Effect: effect, Since: now.Add(-5 * time.Minute)}
}

func taints(matches ...v1alpha1.DeviceTaintMatch) v1alpha1.RuleMatch {
	return v1alpha1.RuleMatch{DeviceTaints: matches}
}

func TestMatchOfADriversTaint(t *testing.T) {
	const key = "gpu.nvidia.com/xid"
	fatal := taintFault(said("79", resourcev1.DeviceTaintEffectNoSchedule))
	information := taintFault(said("43", resourcev1.DeviceTaintEffectNone))
	root := v1alpha1.Fault{Code: fatal.Code, Check: fatal.Check, Device: fatal.Device, FirstSeen: fatal.FirstSeen}
	long := "gpu.example.com/" + strings.Repeat("x", 63)
	longRoot := v1alpha1.Fault{Code: TaintCode(long, "79"), Check: v1alpha1.CheckDeviceTaint, FirstSeen: fatal.FirstSeen}
	none := []resourcev1.DeviceTaintEffect{resourcev1.DeviceTaintEffectNone}
	for name, c := range map[string]struct {
		match v1alpha1.RuleMatch
		fault v1alpha1.Fault
		want  bool
	}{
		"its key, whatever its value":               {taints(v1alpha1.DeviceTaintMatch{Key: key}), fatal, true},
		"another key":                               {taints(v1alpha1.DeviceTaintMatch{Key: "gpu.nvidia.com/gpu-lost"}), fatal, false},
		"one of the values":                         {taints(v1alpha1.DeviceTaintMatch{Key: key, Values: []string{"48", "79"}}), fatal, true},
		"none of the values":                        {taints(v1alpha1.DeviceTaintMatch{Key: key, Values: []string{"48"}}), fatal, false},
		"what is only information, without a word":  {taints(v1alpha1.DeviceTaintMatch{Key: key}), information, false},
		"what is only information, with one":        {taints(v1alpha1.DeviceTaintMatch{Key: key, Effects: none}), information, true},
		"another effect":                            {taints(v1alpha1.DeviceTaintMatch{Key: key, Effects: none}), fatal, false},
		"long enough":                               {taints(v1alpha1.DeviceTaintMatch{Key: key, For: metav1.Duration{Duration: 2 * time.Minute}}), fatal, true},
		"too young":                                 {taints(v1alpha1.DeviceTaintMatch{Key: key, For: metav1.Duration{Duration: 10 * time.Minute}}), fatal, false},
		"the agent's own fault":                     {taints(v1alpha1.DeviceTaintMatch{Key: key}), xid79(), false},
		"any does not match it":                     {v1alpha1.RuleMatch{Any: true}, fatal, false},
		"nor does a rule that only fits it":         {v1alpha1.RuleMatch{Scope: v1alpha1.ScopeDevice, Severities: []v1alpha1.Severity{v1alpha1.SeverityCritical}}, fatal, false},
		"nor an expression":                         {v1alpha1.RuleMatch{Expression: "true"}, fatal, false},
		"every field must match":                    {v1alpha1.RuleMatch{DeviceTaints: []v1alpha1.DeviceTaintMatch{{Key: key}}, Expression: "fault.device == 'GPU-2'"}, fatal, false},
		"rebuilt from a root, by its key":           {taints(v1alpha1.DeviceTaintMatch{Key: key}), root, true},
		"rebuilt from a root, by its value":         {taints(v1alpha1.DeviceTaintMatch{Key: key, Values: []string{"79"}}), root, true},
		"rebuilt from a root, with another value":   {taints(v1alpha1.DeviceTaintMatch{Key: key, Values: []string{"48"}}), root, false},
		"rebuilt from a root whose code was cut":    {taints(v1alpha1.DeviceTaintMatch{Key: long}), longRoot, true},
		"rebuilt from a root with a key like it":    {taints(v1alpha1.DeviceTaintMatch{Key: key + "x"}), root, false},
		"rebuilt from a root with a longer key too": {taints(v1alpha1.DeviceTaintMatch{Key: "gpu.nvidia.com/xi"}), root, false},
	} {
		t.Run(name, func(t *testing.T) {
			policies := []v1alpha1.RemediationPolicy{newPolicy("p", rules(when("only", c.match)))}
			got, err := Compile(policies).For(newNode("n", nil)).Match(c.fault, newNode("n", nil), now)
			if err != nil {
				t.Fatal(err)
			}
			if (got != nil) != c.want {
				t.Errorf("matched is %v, want %v", got != nil, c.want)
			}
		})
	}
}

func TestTaintFaults(t *testing.T) {
	node := newNode("n", nil)
	of := func(match v1alpha1.RuleMatch) Governing {
		return Compile([]v1alpha1.RemediationPolicy{newPolicy("p", rules(when("only", match)))}).For(node)
	}
	xid := of(taints(v1alpha1.DeviceTaintMatch{Key: "gpu.nvidia.com/xid"}))
	nobody := said("79", resourcev1.DeviceTaintEffectNoSchedule)
	nobody.DeviceID = ""
	root := &v1alpha1.RootFault{Code: "DeviceTaint/gpu.nvidia.com/xid=79", Device: "GPU-1", Check: v1alpha1.CheckDeviceTaint}
	for name, c := range map[string]struct {
		by     Governing
		taints []decide.DriverTaint
		root   *v1alpha1.RootFault
		want   []string
		next   time.Duration
	}{
		"one that a rule names":         {by: xid, taints: []decide.DriverTaint{said("79", "NoSchedule")}, want: []string{"DeviceTaint/gpu.nvidia.com/xid=79"}},
		"one that two slices list":      {by: xid, taints: []decide.DriverTaint{said("79", "NoSchedule"), said("79", "NoSchedule")}, want: []string{"DeviceTaint/gpu.nvidia.com/xid=79"}},
		"one that is only information":  {by: xid, taints: []decide.DriverTaint{said("43", "None")}},
		"one of nobody knows which":     {by: xid, taints: []decide.DriverTaint{nobody}},
		"one that no rule names":        {by: of(v1alpha1.RuleMatch{Any: true}), taints: []decide.DriverTaint{said("79", "NoSchedule")}},
		"unless an incident began so":   {by: of(v1alpha1.RuleMatch{Any: true}), taints: []decide.DriverTaint{said("79", "NoSchedule")}, root: root, want: []string{root.Code}},
		"also where no policy governs":  {by: Governing{}, taints: []decide.DriverTaint{said("79", "NoSchedule")}, root: root, want: []string{root.Code}},
		"one that is waited with still": {by: of(taints(v1alpha1.DeviceTaintMatch{Key: "gpu.nvidia.com/xid", For: metav1.Duration{Duration: 7 * time.Minute}})), taints: []decide.DriverTaint{said("79", "NoSchedule")}, next: 2 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			faults, next := c.by.TaintFaults(c.taints, c.root, now)
			var codes []string
			for _, f := range faults {
				codes = append(codes, f.Code)
			}
			if diff := cmp.Diff(c.want, codes); diff != "" || next != c.next {
				t.Errorf("%s next %s, want %s", diff, next, c.next)
			}
		})
	}
}

func TestARuleAboutDriversTaintsThatCannotBeFollowed(t *testing.T) {
	for name, c := range map[string]struct {
		match v1alpha1.RuleMatch
		want  string
	}{
		"our own key": {taints(v1alpha1.DeviceTaintMatch{Key: v1alpha1.DeviceTaintQuarantined}), "spec.rules[0](x).match.deviceTaints[0].key: roundhouse.dev/quarantined is Roundhouse's own"},
		"with a class that it never has": {v1alpha1.RuleMatch{Classes: []v1alpha1.FaultClass{v1alpha1.ClassHardware}, DeviceTaints: []v1alpha1.DeviceTaintMatch{{Key: "k"}}},
			"deviceTaints never match together with these"},
		"with the severity of another effect": {v1alpha1.RuleMatch{Severities: []v1alpha1.Severity{v1alpha1.SeverityInfo}, DeviceTaints: []v1alpha1.DeviceTaintMatch{{Key: "k"}}},
			"make two rules of it"},
		"for longer than a year": {taints(v1alpha1.DeviceTaintMatch{Key: "k", For: metav1.Duration{Duration: 9000 * time.Hour}}), "match.deviceTaints[0].for"},
	} {
		t.Run(name, func(t *testing.T) {
			reason, message := Compile([]v1alpha1.RemediationPolicy{newPolicy("p", rules(when("x", c.match)))}).Status("p")
			if reason != ReasonInvalid || !strings.Contains(message, c.want) {
				t.Errorf("%s: %s; want %q in it", reason, message, c.want)
			}
		})
	}
}

func TestWhetherAnyPolicyAsksForTaints(t *testing.T) {
	asks := newPolicy("asks", rules(when("x", taints(v1alpha1.DeviceTaintMatch{Key: "k"}))))
	other := newPolicy("other", rules(when("x", v1alpha1.RuleMatch{Any: true})))
	broken := newPolicy("broken", rules(when("x", taints(v1alpha1.DeviceTaintMatch{Key: v1alpha1.DeviceTaintQuarantined}))))
	for want, policies := range map[bool][]v1alpha1.RemediationPolicy{true: {other, asks}, false: {other, broken}} {
		if got := Compile(policies).AsksForTaints(); got != want {
			t.Errorf("%v, want %v", got, want)
		}
	}
}
