package health

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

// seen is a finding of a check, at a second.
func seen(check, code, device string, s v1alpha1.Severity, at int64) Finding {
	f := finding(code, device, s, true, at)
	f.Fault.Check = check
	return f
}

func repair(f Finding) Finding {
	f.Fault.Recommended = v1alpha1.RecommendReboot
	return f
}

func TestGroup(t *testing.T) {
	crit, warn := v1alpha1.SeverityCritical, v1alpha1.SeverityWarning
	consequence := seen("kernel-log", "Xid45", "a", v1alpha1.SeverityInfo, 101)
	consequence.Fault.Root, consequence.Fault.CausedBy = false, "Xid79"
	application := seen("kernel-log", "Xid31", "a", crit, 10)
	application.Fault.Class = v1alpha1.ClassApplication
	tests := map[string]struct {
		in   []Finding
		want []string // code and cause
	}{
		"one breakage seen by three checks has one root": {
			in: []Finding{
				seen("pci", "PCIDeviceDead", "a", crit, 102), seen("kernel-log", "Xid79", "a", crit, 100), seen("gpu-lost", "GPULost", "a", crit, 130),
			},
			want: []string{"PCIDeviceDead<Xid79", "Xid79", "GPULost<Xid79"},
		},
		"of two in one second the line is the root": {
			in:   []Finding{seen("gpu-lost", "GPULost", "a", crit, 100), seen("kernel-log", "Xid79", "a", crit, 100)},
			want: []string{"GPULost<Xid79", "Xid79"},
		},
		"a warning just before is its forerunner": {
			in:   []Finding{seen("aer", "AER", "a", warn, 80), seen("kernel-log", "Xid79", "a", crit, 100)},
			want: []string{"AER<Xid79", "Xid79"},
		},
		"a warning of yesterday is another matter": {
			in:   []Finding{seen("row-remap", "RowRemapPending", "a", warn, 10), seen("kernel-log", "Xid79", "a", crit, 100)},
			want: []string{"RowRemapPending", "Xid79"},
		},
		"another device is another matter": {
			in:   []Finding{seen("kernel-log", "Xid79", "a", crit, 100), seen("kernel-log", "Xid79", "b", crit, 101)},
			want: []string{"Xid79", "Xid79"},
		},
		"a fault of the node explains no device, nor the other way round": {
			in:   []Finding{seen("host", "HungTask", "", crit, 100), seen("kernel-log", "Xid79", "a", crit, 101), seen("host", "MCE", "", crit, 101)},
			want: []string{"HungTask", "Xid79", "MCE"},
		},
		"what a check knows to be a consequence follows the root": {
			in:   []Finding{seen("pci", "PCIDeviceDead", "a", crit, 90), seen("kernel-log", "Xid79", "a", crit, 100), consequence},
			want: []string{"PCIDeviceDead", "Xid79<PCIDeviceDead", "Xid45<PCIDeviceDead"},
		},
		"what comes an hour later is another matter": {
			in:   []Finding{seen("row-remap", "RowRemapFailure", "a", crit, 10), seen("kernel-log", "Xid79", "a", crit, 3700)},
			want: []string{"RowRemapFailure", "Xid79"},
		},
		"what asks for a repair goes before what does not": {
			in:   []Finding{seen("pci", "PCILinkNarrow", "a", crit, 95), repair(seen("kernel-log", "Xid79", "a", crit, 100))},
			want: []string{"PCILinkNarrow<Xid79", "Xid79"},
		},
		"a warning explains nothing":            {in: []Finding{seen("x", "A", "a", warn, 1), seen("y", "B", "a", warn, 2)}, want: []string{"A", "B"}},
		"nor does an application, however loud": {in: []Finding{application, seen("y", "B", "a", crit, 60)}, want: []string{"Xid31", "B"}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, shape(Group(tc.in))); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func shape(findings []Finding) []string {
	var out []string
	for _, f := range findings {
		s := f.Fault.Code
		if !f.Fault.Root {
			s += "<" + f.Fault.CausedBy
		}
		out = append(out, s)
	}
	return out
}

func TestGroupNeitherLosesNorHidesAFinding(t *testing.T) {
	severities := []v1alpha1.Severity{v1alpha1.SeverityCritical, v1alpha1.SeverityWarning, v1alpha1.SeverityInfo}
	random := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		var in []Finding
		for i := range random.IntN(8) {
			in = append(in, seen("check", fmt.Sprint("Code", i), string(rune('a'+random.IntN(3))), severities[random.IntN(3)], random.Int64N(200)))
		}
		before := slices.Clone(in)
		out := Group(in)
		if diff := cmp.Diff(before, in); diff != "" {
			t.Fatalf("the caller's list was written to:\n%s", diff)
		}
		roots := map[string]bool{}
		for i := range out {
			f, was := out[i].Fault, in[i].Fault
			if f.Root {
				roots[f.Device+f.Code] = true
			}
			f.Root, f.CausedBy, was.Root, was.CausedBy = false, "", false, ""
			if diff := cmp.Diff(was, f); diff != "" {
				t.Fatalf("more than the cause was changed:\n%s", diff)
			}
		}
		for _, f := range out {
			if !f.Fault.Root && !roots[f.Fault.Device+f.Fault.CausedBy] {
				t.Fatalf("%s is caused by %s, which is no root: %v", f.Fault.Code, f.Fault.CausedBy, shape(out))
			}
		}
		// The same findings in another order name the same cause.
		turned := slices.Clone(in)
		random.Shuffle(len(turned), func(i, j int) { turned[i], turned[j] = turned[j], turned[i] })
		if diff := cmp.Diff(sorted(shape(out)), sorted(shape(Group(turned)))); diff != "" {
			t.Fatalf("the order matters:\n%s", diff)
		}
	}
}

func sorted(s []string) []string { slices.Sort(s); return s }
