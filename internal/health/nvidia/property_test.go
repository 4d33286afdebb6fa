package nvidia

import (
	"encoding/json"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/health"
	"github.com/roundhouse-dev/roundhouse/internal/machine"
)

// criticals are the critical faults after a few looks at the same report, which is long enough for all of them: by check
// and code, where.
func criticals(t testing.TB, bus []string, reports []machine.NVMLReport, err error) map[spot][]string {
	r := newRig(t, "h100x8")
	for _, g := range fixture(t, "h100x8").GPUs {
		r.m.RemoveDevice(g.Address)
	}
	for _, address := range bus {
		r.m.AddDevice(onBus(address, boundNVIDIA))
	}
	out := map[spot][]string{}
	for _, report := range reports {
		r.report, r.err = report, err
		for range 3 {
			r.advance(10 * time.Minute)
			for _, name := range r.names() {
				for _, f := range r.look(name).Findings {
					s := spot{name, f.Fault.Code}
					if f.Fault.Severity == v1alpha1.SeverityCritical && !slices.Contains(out[s], f.PCI) {
						out[s] = append(out[s], f.PCI)
					}
				}
			}
		}
	}
	return out
}

// sicken makes a report in which much is wrong.
func sicken(r *machine.NVMLReport, rnd *rand.Rand) {
	some := func() bool { return rnd.IntN(4) == 0 }
	for i := range r.GPUs {
		g := &r.GPUs[i]
		if g.Recovery != nil && some() {
			*g.Recovery = rnd.Uint32N(9)
		}
		if some() {
			g.Lost = []string{"GPU_IS_LOST", "RESET_REQUIRED"}[rnd.IntN(2)]
		}
		if g.ECC != nil && some() {
			*g.ECC.VolatileUncorrected = rnd.Uint64N(100)
			g.ECC.SRAMThresholdExceeded = ptr(some())
		}
		if g.Remap != nil && some() {
			*g.Remap = machine.NVMLRemap{Pending: some(), Failed: some()}
		}
		if g.Retire != nil && some() {
			*g.Retire = machine.NVMLRetire{SingleBit: rnd.Uint32N(90), DoubleBit: rnd.Uint32N(30)}
		}
		if some() {
			g.MIG = ptr(some())
		}
		for n := range g.Links {
			g.Links[n].Active = g.Links[n].Active && rnd.IntN(20) > 0
		}
		if g.Fabric != nil && some() {
			*g.Fabric = machine.NVMLFabric{State: rnd.Uint32N(5), Health: ptr(rnd.Uint32())}
		}
	}
}

// forget takes values out of a report, as one that broke off or could not read everything has them. Errors are no values:
// they stay.
func forget(v reflect.Value, rnd *rand.Rand) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			forget(v.Field(i), rnd)
		}
	case reflect.Pointer:
		if v.IsNil() {
			return
		}
		if rnd.IntN(3) == 0 {
			v.SetZero()
			return
		}
		forget(v.Elem(), rnd)
	case reflect.Slice:
		for i := range v.Len() {
			forget(v.Index(i), rnd)
		}
	default:
	}
}

// TestWhatIsNotToldIsNeverCritical takes values out of reports in which much is wrong: whatever is Critical then was
// Critical before, in the same place.
func TestWhatIsNotToldIsNeverCritical(t *testing.T) {
	const seeds = 150
	found := 0
	for seed := range uint64(seeds) {
		rnd := rand.New(rand.NewPCG(seed, 3))
		name := []string{"h100x8", "v100x4", "a100x2-mig", "h100x8-no-fabric-manager"}[rnd.IntN(4)]
		well := fixture(t, name)
		var bus []string
		for _, g := range well.GPUs {
			bus = append(bus, g.Address)
		}
		sick := copyOf(t, well)
		sicken(&sick, rnd)
		less := copyOf(t, sick)
		forget(reflect.ValueOf(&less).Elem(), rnd)
		var err error
		if rnd.IntN(2) == 0 {
			// It broke off: GPUs are missing too.
			err = machine.ErrStuck
			less.GPUs = less.GPUs[:rnd.IntN(len(less.GPUs)+1)]
		}
		whole := criticals(t, bus, []machine.NVMLReport{well, sick}, nil)
		for s, places := range criticals(t, bus, []machine.NVMLReport{well, less}, err) {
			for _, p := range places {
				found++
				if !slices.Contains(whole[s], p) && !slices.Contains(whole[s], "") {
					t.Errorf("seed %d, %s: %s of %s on %q, and nothing of it in the whole report", seed, name, s.code, s.place, p)
				}
			}
		}
	}
	if found < seeds {
		t.Errorf("%d critical faults in all: the test looks at nothing", found)
	}
}

// TestAReportOfNothing has GPUs that tell nothing at all.
func TestAReportOfNothing(t *testing.T) {
	for name, err := range map[string]error{
		"whole": nil, "stuck": machine.ErrStuck, "crashed": machine.ErrNVMLCrashed, "no library": machine.ErrNoNVML,
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, "h100x8")
			for i := range r.report.GPUs {
				r.report.GPUs[i] = machine.NVMLGPU{Index: i, Address: r.gpu(i).Address}
			}
			r.err = err
			for range 5 {
				r.advance(10 * time.Minute)
				for _, name := range r.names() {
					res := r.look(name)
					if len(res.Findings) > 0 {
						t.Errorf("%s: %s", name, show(res))
					}
					// These do not need what a GPU tells.
					if err == nil && slices.Contains([]string{"driver", "device-count", "gpu-lost", "nvlink"}, name) {
						continue
					}
					if res.Outcome != health.Unknown {
						t.Errorf("%s: %s", name, show(res))
					}
				}
			}
		})
	}
}

// FuzzJudges gives the checks whatever a helper could print.
func FuzzJudges(f *testing.F) {
	for _, name := range []string{"h100x8", "h100x8-lost", "h100x8-no-fabric-manager", "v100x4", "a100x2-mig", "not-loaded", "mismatch"} {
		data, err := json.Marshal(fixture(f, name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data, uint8(0))
		f.Add(data, uint8(1))
	}
	f.Fuzz(func(t *testing.T, data []byte, how uint8) {
		var report machine.NVMLReport
		if err := json.Unmarshal(data, &report); err != nil {
			return
		}
		r := newRig(t, "h100x8")
		r.report = report
		r.err = []error{nil, machine.ErrStuck, machine.ErrNVMLCrashed, machine.ErrNoNVML}[how%4]
		for range 4 {
			r.advance(7 * time.Minute)
			for _, name := range r.names() {
				res := r.look(name)
				if len(res.Message) > health.MaxMessage || (res.Outcome == health.Unknown) != (res.Reason != "") {
					t.Errorf("%s: %s, message of %d bytes", name, show(res), len(res.Message))
				}
				for _, x := range res.Findings {
					if len(x.Fault.Evidence) > health.MaxEvidence || x.Fault.Count < 1 || x.Fault.Severity == "" || x.Fault.Class == "" {
						t.Errorf("%s: %+v", name, x)
					}
				}
			}
		}
	})
}
