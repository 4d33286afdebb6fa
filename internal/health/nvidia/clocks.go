package nvidia

import (
	"fmt"
	"time"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/health/track"
	"github.com/roundhouse-dev/roundhouse/internal/machine"
)

// Codes of the clocks check.
const (
	// CodeThermal is a GPU whose hardware halves its clocks, or worse, because it is too hot.
	CodeThermal = "ThermalSlowdown"
	// CodeSoftThermal is a GPU whose driver holds its clocks down because it is too hot.
	CodeSoftThermal = "SoftwareThermalSlowdown"
	// CodePowerBrake is a GPU that is told from outside, such as by the power supply, to draw less.
	CodePowerBrake = "PowerBrakeSlowdown"
)

const (
	// clockClear is how long the clocks must be free again. Heat comes and goes with the work.
	clockClear = 5 * time.Minute
	hardLooks  = 3
	softLooks  = 10
)

// slowdowns are the bits of nvmlClocksEventReasons that are judged. Not judged are hardware slowdown (0x8), which is the
// sum of several and also shows while clocks change, and the power cap (0x4), which is how a GPU at full work runs.
var slowdowns = []struct {
	bit   uint64
	code  string
	class v1alpha1.FaultClass
	what  string
	looks int
}{
	{0x40, CodeThermal, v1alpha1.ClassHardware, "hardware thermal slowdown, which halves the clocks or worse", hardLooks},
	{0x20, CodeSoftThermal, v1alpha1.ClassHardware, "software thermal slowdown", softLooks},
	{0x80, CodePowerBrake, v1alpha1.ClassHost, "hardware power brake, which halves the clocks or worse", hardLooks},
}

// clocks reports what holds the clocks down and should not.
type clocks struct{}

func (clocks) name() string { return "clocks" }

func (clocks) judge(l *look) verdict {
	var v verdict
	for i := range l.GPUs {
		g := &l.GPUs[i]
		if g.Clocks == nil || g.Clocks.Reasons == nil {
			v.miss(l, g, []string{CodeThermal, CodeSoftThermal, CodePowerBrake}, "ClocksEventReasons", "ClocksThrottleReasons")
			continue
		}
		for _, s := range slowdowns {
			if *g.Clocks.Reasons&s.bit == 0 {
				continue
			}
			v.see(g, track.Observation{
				Code: s.code, Class: s.class, Severity: v1alpha1.SeverityWarning, Recommended: v1alpha1.RecommendHuman,
				Looks: s.looks, Clear: clockClear, Evidence: s.what + heat(g.Clocks),
			})
		}
	}
	return v
}

// heat is the temperature and the power, where they are known.
func heat(c *machine.NVMLClocks) string {
	var s string
	if c.Temperature != nil {
		s += fmt.Sprintf("; %d °C", *c.Temperature)
	}
	if c.Slowdown != nil {
		s += fmt.Sprintf(", slows down at %d °C", *c.Slowdown)
	}
	if c.PowerMilliwatts != nil {
		s += fmt.Sprintf("; draws %d W", *c.PowerMilliwatts/1000)
	}
	return s
}
