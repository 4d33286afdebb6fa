package fleet

import (
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/config"
	"github.com/roundhouse-dev/roundhouse/internal/machine/fake"
)

// agentLabel is by which the controller finds the agents' pods.
const agentLabel = "app.kubernetes.io/name"

// newNode is a Node as its kubelet registers it: ready, with room, and with what it offers by device plugin.
func newNode(o Options, index int, bootID string, now metav1.Time) *corev1.Node {
	name := o.NodeName(index)
	room := corev1.ResourceList{
		corev1.ResourceCPU:              resource.MustParse("192"),
		corev1.ResourceMemory:           resource.MustParse("2Ti"),
		corev1.ResourceEphemeralStorage: resource.MustParse("4Ti"),
		corev1.ResourcePods:             resource.MustParse("110"),
	}
	if o.offers(index) == OfferPlugin {
		room[PluginResource] = *resource.NewQuantity(int64(o.GPUs), resource.DecimalSI)
	}
	node := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{
			Name: name,
			Labels: map[string]string{
				corev1.LabelHostname: name, corev1.LabelArchStable: "amd64", corev1.LabelOSStable: "linux",
				LabelRack: o.Rack(index), LabelPool: o.Pool(index), LabelRole: RoleGPU, LabelOffer: o.offers(index),
			},
		},
		Status: corev1.NodeStatus{
			Capacity: room, Allocatable: room.DeepCopy(),
			Conditions: []corev1.NodeCondition{
				pressure(corev1.NodeMemoryPressure, "KubeletHasSufficientMemory", now),
				pressure(corev1.NodeDiskPressure, "KubeletHasNoDiskPressure", now),
				pressure(corev1.NodePIDPressure, "KubeletHasSufficientPID", now),
				readyCondition(true, now),
			},
			Addresses: []corev1.NodeAddress{{Type: corev1.NodeHostName, Address: name}},
			NodeInfo: corev1.NodeSystemInfo{
				MachineID: fmt.Sprintf("%032x", index+1), SystemUUID: fmt.Sprintf("%08x-0000-4000-8000-0000c0ffee00", index+1),
				BootID: bootID, KernelVersion: "6.12.0-sandbox", OSImage: "Simulated Linux", ContainerRuntimeVersion: "sandbox://0",
				KubeletVersion: "v1.37.2", OperatingSystem: "linux", Architecture: "amd64",
			},
		},
	}
	if o.many() && !o.FromScratch {
		node.Status.Conditions = append(node.Status.Conditions,
			trueCondition(v1alpha1.ConditionHealthy, "AllChecksPass", "Every check passes.", now),
			trueCondition(v1alpha1.ConditionReporting, "AgentReporting", "the agent is Ready and has published what it saw", now))
	}
	return node
}

// trueCondition is one that agent and controller would write, in their words: what they find they need not write.
func trueCondition(kind corev1.NodeConditionType, reason, message string, now metav1.Time) corev1.NodeCondition {
	return corev1.NodeCondition{
		Type: kind, Status: corev1.ConditionTrue, Reason: reason, Message: message, LastHeartbeatTime: now, LastTransitionTime: now,
	}
}

// newHealth is a NodeHealth as the controller creates it.
func newHealth(node *corev1.Node) *v1alpha1.NodeHealth {
	owner := metav1.OwnerReference{APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID}
	return &v1alpha1.NodeHealth{
		ObjectMeta: metav1.ObjectMeta{Name: node.Name, OwnerReferences: []metav1.OwnerReference{owner}},
		Spec:       v1alpha1.NodeHealthSpec{NodeUID: string(node.UID)},
	}
}

func pressure(kind corev1.NodeConditionType, reason string, now metav1.Time) corev1.NodeCondition {
	return corev1.NodeCondition{
		Type: kind, Status: corev1.ConditionFalse, Reason: reason, LastHeartbeatTime: now, LastTransitionTime: now,
	}
}

// readyCondition is the kubelet's own word. A kubelet that is stopped by a shutdown says so first (graceful node shutdown,
// KEP-2000), which is why a node that reboots is not merely silent.
func readyCondition(ready bool, now metav1.Time) corev1.NodeCondition {
	c := corev1.NodeCondition{
		Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "KubeletReady",
		Message: "kubelet is posting ready status", LastHeartbeatTime: now, LastTransitionTime: now,
	}
	if !ready {
		c.Status, c.Reason, c.Message = corev1.ConditionFalse, "KubeletNotReady", "node is shutting down"
	}
	return c
}

// offered is a device that a node offers to pods at present, by its name there.
type offered struct {
	name   string
	device *fake.Device
	taints []resourcev1.DeviceTaint
}

// newSlice is the ResourceSlice of a node: one pool a node, named after it, as node-local drivers do (KEP-4381).
func newSlice(node string, generation int64, devices []offered) *resourcev1.ResourceSlice {
	slice := &resourcev1.ResourceSlice{
		ObjectMeta: metav1.ObjectMeta{Name: node + "-" + Driver},
		Spec: resourcev1.ResourceSliceSpec{
			Driver: Driver, NodeName: &node,
			Pool: resourcev1.ResourcePool{Name: node, Generation: generation, ResourceSliceCount: 1},
		},
	}
	for _, d := range devices {
		slice.Spec.Devices = append(slice.Spec.Devices, resourcev1.Device{
			Name: d.name, Taints: d.taints,
			Attributes: map[resourcev1.QualifiedName]resourcev1.DeviceAttribute{
				"type":        {StringValue: ptr.To("gpu")},
				"uuid":        {StringValue: ptr.To(d.device.UUID)},
				"productName": {StringValue: ptr.To(d.device.Model)},
				"slot":        {StringValue: ptr.To(d.device.Slot)},
				// The well-known names of DRA drivers: k8s.io/dynamic-resource-allocation/deviceattribute.
				"resource.kubernetes.io/pciBusID": {StringValue: ptr.To(d.device.Address)},
			},
			Capacity: map[resourcev1.QualifiedName]resourcev1.DeviceCapacity{
				"memory": {Value: resource.MustParse("141Gi")},
			},
		})
	}
	return slice
}

// deviceClass is the class of the driver's devices.
func deviceClass() *resourcev1.DeviceClass {
	return &resourcev1.DeviceClass{
		ObjectMeta: metav1.ObjectMeta{Name: DeviceClass},
		Spec: resourcev1.DeviceClassSpec{Selectors: []resourcev1.DeviceSelector{{
			CEL: &resourcev1.CELDeviceSelector{Expression: fmt.Sprintf("device.driver == %q", Driver)},
		}}},
	}
}

// daemonSets are the agent and two of others: a driver that tolerates our taint and a monitor that does not.
func daemonSets() []*appsv1.DaemonSet {
	agent := daemonSet(config.Namespace, config.AgentServiceAccount, "roundhouse-agent:sandbox",
		corev1.Toleration{Operator: corev1.TolerationOpExists})
	agent.Spec.Template.Spec.ServiceAccountName = config.AgentServiceAccount
	driver := daemonSet(SystemNamespace, DriverTolerant, "gpu-driver:sandbox",
		corev1.Toleration{Key: v1alpha1.TaintQuarantined, Operator: corev1.TolerationOpExists})
	return []*appsv1.DaemonSet{agent, driver, daemonSet(SystemNamespace, DriverIntolerant, "gpu-exporter:sandbox")}
}

func daemonSet(namespace, name, image string, tolerations ...corev1.Toleration) *appsv1.DaemonSet {
	labels := map[string]string{agentLabel: name}
	return &appsv1.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: labels},
		Spec: appsv1.DaemonSetSpec{
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec: corev1.PodSpec{
					NodeSelector: map[string]string{LabelRole: RoleGPU},
					Tolerations:  tolerations,
					Containers:   []corev1.Container{{Name: "main", Image: image}},
				},
			},
		},
	}
}
