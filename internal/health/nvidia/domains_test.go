package nvidia

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/roundhouse-dev/roundhouse/internal/machine"
)

func TestWhatCanOnlyBeResetTogether(t *testing.T) {
	v100s := map[string]string{}
	for _, address := range []string{"0000:06:00.0", "0000:0a:00.0", "0000:85:00.0", "0000:89:00.0"} {
		v100s[address] = "nvlink-0000:06:00.0"
	}
	pairs := map[string]string{
		"0000:06:00.0": "nvlink-0000:06:00.0", "0000:0a:00.0": "nvlink-0000:06:00.0",
		"0000:85:00.0": "nvlink-0000:85:00.0", "0000:89:00.0": "nvlink-0000:85:00.0",
	}
	all := func(change func(g *machine.NVMLGPU)) func(*rig) {
		return func(r *rig) {
			for i := range r.report.GPUs {
				change(r.gpu(i))
			}
		}
	}
	const gpu, sw = "GPU", "Switch"
	to := func(kind string, remote func(g *machine.NVMLGPU) string) func(*rig) {
		return all(func(g *machine.NVMLGPU) {
			g.Links = []machine.NVMLLink{{Active: true, RemoteType: kind, Remote: remote(g)}}
		})
	}
	bridge := func(*machine.NVMLGPU) string { return "0000:05:00.0" }
	tests := map[string]struct {
		fixture string
		change  func(*rig)
		want    map[string]string
	}{
		"V100s that NVLink joins to a pair are a pair":  {"v100x4", nil, pairs},
		"those that hang on one switch are one":         {"v100x4", to(sw, bridge), v100s},
		"those behind one bridge of the host are not":   {"v100x4", to("IBMNPU", bridge), map[string]string{}},
		"an end of which nobody says what it is is not": {"v100x4", to("Unknown", bridge), map[string]string{}},
		"a chain of pairs is one": {"v100x4", func(r *rig) {
			r.gpu(0).Links = append(r.gpu(0).Links, machine.NVMLLink{Link: 9, Active: true, RemoteType: gpu, Remote: r.gpu(2).Address})
		}, v100s},
		"the same of Ampere are reset each by itself": {"v100x4", all(func(g *machine.NVMLGPU) { g.Architecture = ptr(uint32(ampere)) }), map[string]string{}},
		"one old GPU among new ones holds those it is joined to": {"v100x4", all(func(g *machine.NVMLGPU) {
			if g.Index > 0 {
				g.Architecture = ptr(uint32(ampere))
			}
		}), map[string]string{"0000:06:00.0": "nvlink-0000:06:00.0", "0000:0a:00.0": "nvlink-0000:06:00.0"}},
		"without links each is by itself":        {"v100x4", all(func(g *machine.NVMLGPU) { g.Links = nil }), map[string]string{}},
		"a driver that tells no architecture":    {"v100x4", all(func(g *machine.NVMLGPU) { g.Architecture = nil }), map[string]string{}},
		"a link to itself joins nothing":         {"v100x4", to(gpu, func(g *machine.NVMLGPU) string { return g.Address }), map[string]string{}},
		"H100s on switches are reset one by one": {"h100x8", nil, map[string]string{}},
		"without a driver nothing is known":      {"not-loaded", nil, map[string]string{}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, tt.fixture)
			if tt.change != nil {
				tt.change(r)
			}
			if got := r.source.ResetDomains(); got != nil {
				t.Errorf("before a look: %v", got)
			}
			r.look("recovery-action")
			if diff := cmp.Diff(tt.want, r.source.ResetDomains()); diff != "" {
				t.Errorf("domains (-want +got):\n%s", diff)
			}
		})
	}
}

// The GPU that is broken tells nothing, and it is the one that is to be reset.
func TestADomainStaysKnownWhenAGPUIsLostOrItsLinksAreDown(t *testing.T) {
	r := newRig(t, "v100x4")
	r.look("recovery-action")
	want := r.source.ResetDomains()
	if len(want) != 4 {
		t.Fatalf("the fixture has %v", want)
	}
	for i := range r.gpu(2).Links {
		r.gpu(2).Links[i] = machine.NVMLLink{Link: i}
	}
	*r.gpu(0) = machine.NVMLGPU{Index: 0, Handle: "GPU_IS_LOST", Lost: "GPU_IS_LOST"}
	r.advance(time.Hour)
	r.look("recovery-action")
	if diff := cmp.Diff(want, r.source.ResetDomains()); diff != "" {
		t.Errorf("domains (-want +got):\n%s", diff)
	}
}
