package nvidia

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/health"
	"github.com/roundhouse-dev/roundhouse/internal/health/track"
	"github.com/roundhouse-dev/roundhouse/internal/machine"
)

// Codes of the driver check.
const (
	// CodeDriverNotLoaded is a machine with the library and without the kernel driver.
	CodeDriverNotLoaded = "DriverNotLoaded"
	// CodeDriverMismatch is a library of another version than the kernel driver that is loaded.
	CodeDriverMismatch = "DriverLibraryMismatch"
	// CodeInitFailed is a library that does not initialise for a reason that no other code stands for.
	CodeInitFailed = "NVMLInitFailed"
)

const (
	// containerSettle is how long a driver that comes from a container may be away. The GPU operator gives its container
	// 60 s and 120 tries of 10 s to compile and load the driver, 21 minutes, before the kubelet restarts it (startupProbe
	// in assets/state-driver/0500_daemonset.yaml).
	containerSettle = 21 * time.Minute
	// hostSettle is the same for a driver installed on the host: modules load within a minute or two of the boot, and a
	// package is replaced within a few.
	hostSettle = 5 * time.Minute
	// driverClear is how long it must be back.
	driverClear = time.Minute
	// driverContainer is where the GPU operator's driver container mounts its root.
	driverContainer = "/run/nvidia/driver"
)

// notOurs are errors of nvmlInit that speak of this process, not of the driver.
var notOurs = []string{"NO_PERMISSION", "OPERATING_SYSTEM", "INSUFFICIENT_RESOURCES", "MEMORY", "LIBRARY_NOT_FOUND", "FUNCTION_NOT_FOUND"}

// driver reports a driver that is not loaded, or not the library's.
type driver struct{}

func (driver) name() string { return "driver" }

func (driver) judge(l *look) verdict {
	var v verdict
	if l.err != nil || l.Init == "" {
		return v
	}
	o := track.Observation{
		Class: v1alpha1.ClassDriver, Severity: v1alpha1.SeverityCritical, Recommended: v1alpha1.RecommendReboot,
		Settle: hostSettle, Clear: driverClear,
	}
	if strings.Contains(l.Library, driverContainer) {
		o.Settle = containerSettle
	}
	holds := func(d machine.PCIDevice) bool { return d.Driver == boundNVIDIA }
	switch {
	case l.Init == initNotLoaded && l.busErr == nil && slices.ContainsFunc(l.bus, holds):
		v.gap = &gap{health.ReasonCannotRead, fmt.Sprintf(
			"NVML says %s, and yet the driver holds a GPU: are the device files /dev/nvidia* here?", l.Init)}
		return v
	case l.Init == initNotLoaded && l.busErr != nil:
		return v
	case l.Init == initNotLoaded:
		o.Code, o.Evidence = CodeDriverNotLoaded, fmt.Sprintf("%s is there, and no NVIDIA kernel driver is loaded for %s", l.Library, held(l.bus))
		v.gap = &gap{}
	case l.Init == initMismatch:
		o.Code, o.Evidence = CodeDriverMismatch, fmt.Sprintf("%s is of another version than the kernel driver%s", l.Library, version(l.bus))
		v.gap = &gap{}
	case slices.Contains(notOurs, l.Init):
		return v
	default:
		o.Code, o.Severity, o.Recommended = CodeInitFailed, v1alpha1.SeverityWarning, v1alpha1.RecommendHuman
		o.Evidence = fmt.Sprintf("%s does not initialise: %s", l.Library, l.Init)
	}
	v.seeNode(o)
	return v
}

// held says how many GPUs wait for the driver, and what else holds them.
func held(bus []machine.PCIDevice) string {
	var others []string
	n := 0
	for _, d := range bus {
		if !notPassedThrough(d) {
			continue
		}
		n++
		if d.Driver != "" && !slices.Contains(others, d.Driver) {
			others = append(others, d.Driver)
		}
	}
	s := fmt.Sprintf("%d GPUs on the bus", n)
	if len(others) > 0 {
		s += " (" + strings.Join(others, ", ") + " is)"
	}
	return s
}

// version is the version that the loaded module states, where the bus tells.
func version(bus []machine.PCIDevice) string {
	for _, d := range bus {
		if d.Driver == boundNVIDIA && d.DriverVersion != "" {
			return ", " + d.DriverVersion
		}
	}
	return ""
}
