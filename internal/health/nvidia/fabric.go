package nvidia

import (
	"fmt"
	"time"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/health/track"
	"github.com/roundhouse-dev/roundhouse/internal/machine"
)

// Codes of the fabric check.
const (
	// CodeFabricNotReady is a GPU, or all of them, that the fabric manager has not made part of the fabric.
	CodeFabricNotReady = "FabricNotReady"
	// CodeFabricError is a GPU that the fabric manager could not make part of it.
	CodeFabricError = "FabricError"
	// CodeFabricDegraded is a GPU with less bandwidth in the fabric than it should have.
	CodeFabricDegraded = "FabricBandwidthDegraded"
	// CodeFabricRoute is a GPU whose route in the fabric is unhealthy.
	CodeFabricRoute = "FabricRouteUnhealthy"
	// CodeFabricRecovering is a recovery in the fabric that does not end.
	CodeFabricRecovering = "FabricRecovering"
	// CodeFabricMisconfigured is a GPU that does not fit in the fabric.
	CodeFabricMisconfigured = "FabricMisconfigured"
	// CodeFabricManagerLost is a fabric that has lost its global fabric manager.
	CodeFabricManagerLost = "FabricManagerLost"
)

const (
	// fabricSettle is how long a GPU may not be part of the fabric. After a boot the fabric manager trains every link
	// first, which takes minutes on the largest systems; then work that needs CUDA fails until it is done.
	fabricSettle = 5 * time.Minute
	// recoverySettle is how long the fabric may take to recover by itself.
	recoverySettle = 10 * time.Minute
	fabricClear    = time.Minute
)

// States of registration (NVML_GPU_FABRIC_STATE_* of nvml.h).
const (
	fabricUnsupported = iota
	fabricNotStarted
	fabricInProgress
	fabricCompleted
)

// healthField is a field of the health mask (NVML_GPU_FABRIC_HEALTH_MASK_SHIFT_* and _WIDTH_* of nvml.h).
type healthField struct{ shift, width uint32 }

var (
	degradedBandwidth = healthField{0, 0x3}
	routeRecovery     = healthField{2, 0x3}
	routeUnhealthy    = healthField{4, 0x3}
	accessTimeout     = healthField{6, 0x3}
	misconfigured     = healthField{8, 0xf}
	globalManager     = healthField{14, 0x3}
)

func (f healthField) of(mask uint32) uint32 { return mask >> f.shift & f.width }

const (
	// fieldTrue is a two-bit field that is so; 0 is that the driver does not know and 2 that it is not so.
	fieldTrue = 1
	// managerDisconnected is what the field of the global fabric manager says when it is gone.
	managerDisconnected = 2
)

// misfits are the values of the field of incorrect configuration; 0 is that the driver does not know and 1 that it fits.
var misfits = map[uint32]string{
	2: "its system GUID is wrong", 3: "its chassis serial number is wrong", 4: "it has no partition",
	5: "it has too few NVLinks", 6: "its firmware is incompatible", 7: "its location is invalid", 8: "its state is invalid",
}

// fabric reports GPUs that are not, or not wholly, part of the NVLink fabric.
type fabric struct{}

func (fabric) name() string { return "fabric" }

func (fabric) judge(l *look) verdict {
	var v verdict
	var waiting []*machine.NVMLGPU
	members, supported, untold := 0, 0, false
	for i := range l.GPUs {
		g := &l.GPUs[i]
		switch {
		case g.Fabric == nil:
			untold = true
			v.miss(l, g, fabricCodes, "FabricInfo")
		case g.MIG == nil && split(g):
			untold = true
			v.miss(l, g, fabricCodes, "MigMode")
		case split(g):
			// MIG takes its parts off NVLink.
			v.keep(g, fabricCodes...)
		default:
			members++
			if g.Fabric.State != fabricUnsupported {
				supported++
			}
			if !ready(l, g) {
				waiting = append(waiting, g)
			}
			judgeMember(&v, g)
		}
	}
	switch {
	case !l.whole():
		for _, g := range waiting {
			v.keep(g, CodeFabricNotReady)
		}
	case len(waiting) > 1 && len(waiting) == members && supported == members && !untold:
		v.seeNode(notReady(fmt.Sprintf("none of %d GPUs is part of the NVLink fabric: registration is %s; is the fabric manager running?",
			members, stateName(waiting[0].Fabric.State))))
	default:
		for _, g := range waiting {
			v.see(g, notReady("is not part of the NVLink fabric: registration is "+stateName(g.Fabric.State)))
		}
	}
	return v
}

var fabricCodes = []string{
	CodeFabricNotReady, CodeFabricError, CodeFabricDegraded, CodeFabricRoute, CodeFabricRecovering, CodeFabricMisconfigured,
	CodeFabricManagerLost,
}

// ready says whether the GPU has no part in a fabric, or has got it. One that says it has none is not ready when peers of
// its model have.
func ready(l *look, g *machine.NVMLGPU) bool {
	switch g.Fabric.State {
	case fabricNotStarted, fabricInProgress:
		return false
	case fabricUnsupported:
		for _, p := range l.peers(g) {
			if p.Fabric != nil && p.Fabric.State == fabricCompleted {
				return false
			}
		}
	}
	return true
}

func stateName(state uint32) string {
	switch state {
	case fabricUnsupported:
		return "not supported, as its peers' is"
	case fabricNotStarted:
		return "not started"
	case fabricInProgress:
		return "in progress"
	}
	return fmt.Sprint(state)
}

func notReady(evidence string) track.Observation {
	return track.Observation{
		Code: CodeFabricNotReady, Class: v1alpha1.ClassFabric, Severity: v1alpha1.SeverityCritical,
		Recommended: v1alpha1.RecommendReboot, Evidence: evidence, Settle: fabricSettle, Clear: fabricClear,
	}
}

// judgeMember judges a GPU whose registration is over.
func judgeMember(v *verdict, g *machine.NVMLGPU) {
	f := g.Fabric
	if f.State != fabricCompleted {
		v.keep(g, fabricCodes[1:]...)
		return
	}
	o := track.Observation{
		Class: v1alpha1.ClassFabric, Severity: v1alpha1.SeverityCritical, Recommended: v1alpha1.RecommendReboot,
		Settle: time.Minute, Clear: fabricClear,
	}
	if f.Status != "" {
		o.Code, o.Evidence = CodeFabricError, "registration with the NVLink fabric ended with "+f.Status
		if f.Status == errResetRequired {
			o.Recommended = v1alpha1.RecommendResetDevice
		}
		v.see(g, o)
	}
	if f.Health == nil {
		v.keep(g, fabricCodes[2:]...)
		return
	}
	judgeMask(v, g, *f.Health)
}

// judgeMask decodes the health mask. Nothing in it is proved to end with a repair of this node, since the fabric is more
// than one node's: a human is asked.
func judgeMask(v *verdict, g *machine.NVMLGPU, mask uint32) {
	o := track.Observation{Class: v1alpha1.ClassFabric, Recommended: v1alpha1.RecommendHuman, Settle: time.Minute, Clear: fabricClear}
	see := func(code string, severity v1alpha1.Severity, settle time.Duration, evidence string) {
		o.Code, o.Severity, o.Settle = code, severity, settle
		o.Evidence = fmt.Sprintf("%s (health mask %#x)", evidence, mask)
		v.see(g, o)
	}
	if degradedBandwidth.of(mask) == fieldTrue {
		see(CodeFabricDegraded, v1alpha1.SeverityWarning, fabricSettle, "bandwidth in the NVLink fabric is degraded")
	}
	if routeUnhealthy.of(mask) == fieldTrue {
		see(CodeFabricRoute, v1alpha1.SeverityCritical, time.Minute, "its route in the NVLink fabric is unhealthy")
	}
	if routeRecovery.of(mask) == fieldTrue || accessTimeout.of(mask) == fieldTrue {
		see(CodeFabricRecovering, v1alpha1.SeverityWarning, recoverySettle, "a recovery in the NVLink fabric does not end")
	}
	if n := misconfigured.of(mask); n > 1 {
		why, ok := misfits[n]
		if !ok {
			why = fmt.Sprintf("for a reason this version does not know, %d", n)
		}
		see(CodeFabricMisconfigured, v1alpha1.SeverityCritical, time.Minute, "it does not fit in the NVLink fabric: "+why)
	}
	if globalManager.of(mask) == managerDisconnected {
		see(CodeFabricManagerLost, v1alpha1.SeverityWarning, fabricSettle, "the NVLink fabric has lost its global fabric manager")
	}
}
