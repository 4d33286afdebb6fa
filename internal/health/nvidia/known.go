package nvidia

import (
	"fmt"
	"time"
)

// Labels that NVIDIA's GPU operator puts on a Node.
const (
	// labelUpgrade is where the operator's upgrade of the driver stands (UpgradeStateLabelKeyFmt and the states in
	// pkg/upgrade/consts.go of github.com/NVIDIA/k8s-operator-libs).
	labelUpgrade = "nvidia.com/gpu-driver-upgrade-state"
	// labelMIG is where the MIG manager's change of the layout stands: pending, rebooting, success or failed (the GPU
	// operator's documentation on MIG).
	labelMIG = "nvidia.com/mig.config.state"
	// labelSharing is how the device plugin shares a GPU among pods: none, time-slicing or mps.
	labelSharing = "nvidia.com/gpu.sharing-strategy"
)

// underWay are the states of an upgrade in which the driver may go at any moment. Two others come before it and may last
// for days, since an operator upgrades few nodes at a time and may wait for jobs for as long as they take:
// upgrade-required, of which it says that nothing is done yet, and wait-for-jobs-required. In upgrade-failed nothing is
// under way any more, and what is broken is broken.
var underWay = map[string]bool{
	"cordon-required": true, "pod-deletion-required": true, "drain-required": true, "node-maintenance-required": true,
	"post-maintenance-required": true, "pod-restart-required": true, "validation-required": true, "uncordon-required": true,
}

// label is a label of the Node; empty where it has none or the labels are not known.
func (o Options) label(key string, age time.Duration) string {
	if o.NodeLabels == nil {
		return ""
	}
	labels, ok := o.NodeLabels(age)
	if !ok {
		return ""
	}
	return labels[key]
}

// known is what somebody else does to the driver or the GPUs now. While it goes on NVML is not asked: an open device would
// keep the driver's module from being unloaded.
func (o Options) known(age time.Duration) gap {
	if state := o.label(labelUpgrade, age); underWay[state] {
		return gap{ReasonDriverUpgrade, fmt.Sprintf("a GPU operator is replacing the driver (%s=%s)", labelUpgrade, state)}
	}
	if state := o.label(labelMIG, age); state == "pending" || state == "rebooting" {
		return gap{ReasonMIGReconfiguration, fmt.Sprintf("a GPU operator is changing the MIG layout (%s=%s)", labelMIG, state)}
	}
	return gap{}
}
