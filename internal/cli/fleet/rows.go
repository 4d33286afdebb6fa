package fleet

import (
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/claim"
)

// Node is what of a Node the fleet's status needs; 30,000 whole ones would be half a gigabyte.
type Node struct {
	Name   string
	Labels map[string]string
	Taints []corev1.Taint
	// Accelerators is how many the kubelet offers, or would if all worked.
	Accelerators int
	// Labelled says that a label marks it as a node with accelerators.
	Labelled bool
	// Reporting is condition RoundhouseReporting; empty where there is none.
	Reporting corev1.ConditionStatus
	// Out says why it is out of service for a reason that is not ours; empty where it is not.
	Out string
}

// acceleratorLabels are put on nodes by the device vendors' feature discovery.
var acceleratorLabels = []string{"nvidia.com/gpu.present", "amd.com/gpu.product-name", "feature.node.kubernetes.io/pci-10de.present"}

// Accelerator says whether an extended resource is a whole accelerator: <vendor>/gpu and its like, not a slice of one.
func Accelerator(resource corev1.ResourceName) bool {
	vendor, name, ok := strings.Cut(string(resource), "/")
	if !ok || vendor == "" {
		return false
	}
	switch name {
	case "gpu", "gaudi", "tpu", "neuron", "npu", "mncore", "mncore2":
		return true
	}
	return strings.HasSuffix(name, "gpu")
}

// RowOf keeps what is needed of a Node.
func RowOf(node *corev1.Node) Node {
	row := Node{Name: node.Name, Labels: node.Labels, Taints: node.Spec.Taints, Out: out(node)}
	for resource, quantity := range node.Status.Capacity {
		if Accelerator(resource) {
			row.Accelerators += int(quantity.Value())
		}
	}
	for _, label := range acceleratorLabels {
		if v, ok := node.Labels[label]; ok && v != "false" {
			row.Labelled = true
		}
	}
	for _, c := range node.Status.Conditions {
		if c.Type == v1alpha1.ConditionReporting {
			row.Reporting = c.Status
		}
	}
	return row
}

// out says why a node is out of service, by what shows on it; a node of ours is told by its reservation.
func out(node *corev1.Node) string {
	for _, foreign := range claim.Foreign(node) {
		if foreign.InProgress {
			return foreign.By
		}
	}
	if node.Spec.Unschedulable {
		return "cordoned"
	}
	for _, c := range node.Status.Conditions {
		if c.Type == corev1.NodeReady && c.Status != corev1.ConditionTrue {
			return "not Ready"
		}
	}
	return ""
}

// Health is what of a NodeHealth the fleet's status needs.
type Health struct {
	Name    string
	Summary v1alpha1.Summary
	Devices Devices
}

// HealthOf keeps what is needed of a NodeHealth.
func HealthOf(nh *v1alpha1.NodeHealth) Health {
	row := Health{Name: nh.Name, Summary: nh.Status.Summary}
	for i := range nh.Status.Devices {
		row.Devices.Total++
		switch nh.Status.Devices[i].Health {
		case v1alpha1.DeviceHealthy:
			row.Devices.Healthy++
		case v1alpha1.DeviceUnhealthy:
			row.Devices.Unhealthy++
		case v1alpha1.DeviceMissing:
			row.Devices.Missing++
		default:
			row.Devices.Unknown++
		}
	}
	return row
}
