package nvidia

import (
	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/health/track"
)

const (
	// CodeLost is a GPU that the driver can no longer reach.
	CodeLost = "GPULost"
	// CodeResetRequired is a GPU that the driver does not use until it is reset.
	CodeResetRequired = "GPUResetRequired"
	// lostLooks is in how many looks in a row: an administrator's own reset makes a GPU look so for a moment.
	lostLooks = 2
)

// gpuLost reports what NVML says of GPUs that it cannot ask any more.
type gpuLost struct{}

func (gpuLost) name() string { return "gpu-lost" }

func (gpuLost) judge(l *look) verdict {
	var v verdict
	for i := range l.GPUs {
		g := &l.GPUs[i]
		o := track.Observation{Class: v1alpha1.ClassHardware, Severity: v1alpha1.SeverityCritical, Looks: lostLooks}
		switch g.Lost {
		case "":
			if g.Handle != "" {
				// Something else keeps it from opening, such as missing permission.
				v.miss(l, g, []string{CodeLost, CodeResetRequired}, "Handle")
			}
			continue
		case errResetRequired:
			o.Code, o.Recommended = CodeResetRequired, v1alpha1.RecommendResetDevice
			o.Evidence = "NVML says " + errResetRequired + ": the GPU needs a reset before it can be used again"
		case errLost:
			o.Code, o.Recommended = CodeLost, v1alpha1.RecommendReboot
			o.Evidence = "NVML says " + errLost + ": the GPU has fallen off the bus or is not accessible"
		default:
			v.miss(l, g, []string{CodeLost, CodeResetRequired}, "Handle")
			continue
		}
		v.see(g, o)
	}
	return v
}
