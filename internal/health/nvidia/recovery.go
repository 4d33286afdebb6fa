package nvidia

import (
	"fmt"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/health/track"
)

// CodeRecoveryAction is a GPU whose driver asks for a recovery.
const CodeRecoveryAction = "GPURecoveryAction"

// recoveryAction reports what the driver itself asks for, at the first look that sees it.
type recoveryAction struct{}

func (recoveryAction) name() string { return "recovery-action" }

// action is what is made of a value of nvmlDeviceGpuRecoveryAction_t.
type action struct {
	what        string
	class       v1alpha1.FaultClass
	severity    v1alpha1.Severity
	recommended v1alpha1.Recommendation
}

// actions are by value; docs/checks/recovery-action.md says why each is what it is.
var actions = map[uint32]action{
	1: {"reset the GPU", v1alpha1.ClassHardware, v1alpha1.SeverityCritical, v1alpha1.RecommendResetDevice},
	2: {"reboot the node", v1alpha1.ClassHardware, v1alpha1.SeverityCritical, v1alpha1.RecommendReboot},
	3: {"drain peer-to-peer traffic", v1alpha1.ClassFabric, v1alpha1.SeverityWarning, v1alpha1.RecommendHuman},
	4: {"drain peer-to-peer traffic and reset the GPU", v1alpha1.ClassFabric, v1alpha1.SeverityCritical, v1alpha1.RecommendResetDevice},
	5: {"recover the IMEX domain", v1alpha1.ClassFabric, v1alpha1.SeverityCritical, v1alpha1.RecommendHuman},
	6: {"reset the GPU's PCIe bus", v1alpha1.ClassHardware, v1alpha1.SeverityCritical, v1alpha1.RecommendReboot},
	7: {"reboot the system", v1alpha1.ClassHardware, v1alpha1.SeverityCritical, v1alpha1.RecommendReboot},
}

func (recoveryAction) judge(l *look) verdict {
	var v verdict
	for i := range l.GPUs {
		g := &l.GPUs[i]
		if g.Recovery == nil {
			v.miss(l, g, []string{CodeRecoveryAction}, "RECOVERY_ACTION", "FieldValues(recovery)")
			continue
		}
		if *g.Recovery == 0 {
			continue
		}
		a, ok := actions[*g.Recovery]
		if !ok {
			a = action{"something this version does not know", v1alpha1.ClassUnknown, v1alpha1.SeverityWarning, v1alpha1.RecommendHuman}
		}
		v.see(g, track.Observation{
			Code: CodeRecoveryAction, Class: a.class, Severity: a.severity, Recommended: a.recommended,
			Evidence: fmt.Sprintf("the driver asks to %s (recovery action %d)", a.what, *g.Recovery),
		})
	}
	return v
}
