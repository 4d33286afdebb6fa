package job

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

// The environment that every container of the Job gets.
const (
	// EnvNode is the node's name.
	EnvNode = "ROUNDHOUSE_NODE"
	// EnvDevices are the IDs of the devices that the Job runs on, else of the incident's, separated by commas; empty for the
	// whole node.
	EnvDevices = "ROUNDHOUSE_DEVICES"
	// EnvFaults are the codes of the incident's faults, the root first, separated by commas.
	EnvFaults = "ROUNDHOUSE_FAULTS"
	// EnvRemediation is the Remediation's name.
	EnvRemediation = "ROUNDHOUSE_REMEDIATION"
	// envVisible tells NVIDIA's container runtime which devices a container sees.
	envVisible = "NVIDIA_VISIBLE_DEVICES"
)

const (
	// claimName is what the pod calls its claim.
	claimName = "roundhouse"
	// appLabel finds the pods of agents and controllers; a Job's must not be taken for one.
	appLabel = "app.kubernetes.io/name"
	// appPrefix begins the values of that label that are ours.
	appPrefix = "roundhouse"
)

// Run is one Job to run.
type Run struct {
	// ID names the Job, and its claim: no other run has it.
	ID string
	// Remediation is the incident, which owns the Job.
	Remediation *v1alpha1.Remediation
	// Template is the name of a PodTemplate in the controller's namespace.
	Template string
	// Timeout is how long the Job may take.
	Timeout time.Duration
	// Node is the node that it is about.
	Node *corev1.Node
	// OnNode has it run there, tolerating our taint and nothing more; otherwise it runs anywhere.
	OnNode bool
	// Devices has it run on exactly these devices; nil asks for none beyond what the template asks for.
	Devices *Devices
}

// Devices are the devices that a Job runs on, asked for in one of two ways.
type Devices struct {
	// Claimed are asked for by DRA, with a ResourceClaim that tolerates our device taint.
	Claimed []Claimed
	// Visible are the UUIDs of devices that NVIDIA's container runtime shows to the containers, past the device plugin,
	// which hands out any device but the one that is meant. It needs a runtime that honours NVIDIA_VISIBLE_DEVICES of a
	// pod that was not given devices, and a device that nobody else was given meanwhile: nothing is allocated.
	Visible []string
}

// Claimed is a device as DRA knows it: the one of the class whose attribute of the driver's has the value.
type Claimed struct {
	// Class is the DeviceClass, such as gpu.nvidia.com.
	Class string
	// Driver is the DRA driver's name.
	Driver string
	// Attribute is the name of the attribute, without the driver's, that tells devices apart: uuid.
	Attribute string
	// Value is the attribute's value. A device's name in its pool is not for selecting, and changes meaning with a reboot.
	Value string
}

// devices are the IDs of those that the run is about.
func (r Run) devices() []string {
	if r.Devices == nil {
		return r.Remediation.Spec.Devices
	}
	ids := slices.Clone(r.Devices.Visible)
	for _, d := range r.Devices.Claimed {
		ids = append(ids, d.Value)
	}
	return ids
}

// maxClaimed is how many requests a claim may have (k8s.io/api/resource/v1, DeviceRequestsMaxSize).
const maxClaimed = resourcev1.DeviceRequestsMaxSize

// refuse says why a template cannot be run so, for a person to mend, or "".
func refuse(template *corev1.PodTemplate, account string, r Run) string {
	name, spec := "PodTemplate "+template.Name, &template.Template.Spec
	for _, other := range []string{spec.ServiceAccountName, spec.DeprecatedServiceAccount} {
		if other != "" && other != account {
			return fmt.Sprintf("%s: template.spec.serviceAccountName is %s: leave it out; Jobs run as %s and nobody else", name, other, account)
		}
	}
	if spec.NodeName != "" {
		return fmt.Sprintf("%s: template.spec.nodeName is %s: leave it out; job.onNode has it run on the incident's node", name, spec.NodeName)
	}
	if value := template.Template.Labels[appLabel]; strings.HasPrefix(value, appPrefix) {
		return fmt.Sprintf("%s: its pods have the label %s=%s, which finds Roundhouse's own: choose another value", name, appLabel, value)
	}
	if r.Devices == nil {
		return ""
	}
	switch claimed, visible := len(r.Devices.Claimed), len(r.Devices.Visible); {
	case (claimed == 0) == (visible == 0):
		return "the devices are asked for by DRA or by the container runtime: one of both"
	case claimed > maxClaimed:
		return fmt.Sprintf("%d devices at once: a ResourceClaim has room for %d", claimed, maxClaimed)
	}
	if len(spec.ResourceClaims) > 0 {
		return fmt.Sprintf("%s: template.spec.resourceClaims ask for devices: leave them out; it is given exactly the incident's", name)
	}
	for _, container := range slices.Concat(spec.InitContainers, spec.Containers) {
		for resource := range container.Resources.Limits {
			if domain, kind, _ := strings.Cut(string(resource), "/"); domain == "nvidia.com" || kind == "gpu" {
				return fmt.Sprintf("%s: container %s asks for %s, which may be any device: leave it out; it is given exactly the incident's",
					name, container.Name, resource)
			}
		}
	}
	return ""
}

// build makes the Job of a run.
func build(template *corev1.PodTemplate, account string, r Run) *batchv1.Job {
	pod := template.Template.DeepCopy()
	if pod.Labels == nil {
		pod.Labels = map[string]string{}
	}
	pod.Labels[v1alpha1.LabelRemediation] = r.Remediation.Name
	spec := &pod.Spec
	spec.ServiceAccountName, spec.DeprecatedServiceAccount = account, account
	// The API server makes Always of a PodTemplate that does not say; a Job's pod must end.
	spec.RestartPolicy = corev1.RestartPolicyNever
	env := environment(r)
	if r.Devices != nil && len(r.Devices.Visible) > 0 {
		env = append(env, corev1.EnvVar{Name: envVisible, Value: literal(strings.Join(r.Devices.Visible, ","))})
	}
	claimed := r.Devices != nil && len(r.Devices.Claimed) > 0
	if claimed {
		spec.ResourceClaims = append(spec.ResourceClaims, corev1.PodResourceClaim{Name: claimName, ResourceClaimName: &r.ID})
	}
	for _, containers := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i := range containers {
			containers[i].Env = withEnv(containers[i].Env, env)
			if claimed {
				containers[i].Resources.Claims = append(containers[i].Resources.Claims, corev1.ResourceClaim{Name: claimName})
			}
		}
	}
	if r.OnNode {
		pin(spec, r.Node.Name)
		spec.Tolerations = append(spec.Tolerations, corev1.Toleration{
			Key: v1alpha1.TaintQuarantined, Operator: corev1.TolerationOpEqual, Value: r.Remediation.Name,
		})
	}
	return &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{
			Namespace:   template.Namespace,
			Name:        r.ID,
			Labels:      map[string]string{v1alpha1.LabelRemediation: r.Remediation.Name},
			Annotations: map[string]string{v1alpha1.AnnotationNode: r.Node.Name},
			OwnerReferences: []metav1.OwnerReference{{
				APIVersion: v1alpha1.GroupVersion.String(), Kind: "Remediation", Name: r.Remediation.Name, UID: r.Remediation.UID, Controller: ptr.To(true),
			}},
		},
		Spec: batchv1.JobSpec{
			Parallelism: ptr.To(int32(1)), Completions: ptr.To(int32(1)),
			// Another attempt is the policy's to make.
			BackoffLimit:            ptr.To(int32(0)),
			ActiveDeadlineSeconds:   ptr.To(max(1, int64(math.Ceil(r.Timeout.Seconds())))),
			TTLSecondsAfterFinished: ptr.To(int32(keepFor.Seconds())),
			Template:                *pod,
		},
	}
}

// claim makes the ResourceClaim of a run; nil where it claims nothing. The Job owns it, and it goes with the Job.
func claim(job *batchv1.Job, r Run) *resourcev1.ResourceClaim {
	if r.Devices == nil || len(r.Devices.Claimed) == 0 {
		return nil
	}
	made := &resourcev1.ResourceClaim{ObjectMeta: metav1.ObjectMeta{
		Namespace: job.Namespace, Name: r.ID, Labels: job.Labels,
		OwnerReferences: []metav1.OwnerReference{{
			APIVersion: batchv1.SchemeGroupVersion.String(), Kind: "Job", Name: job.Name, UID: job.UID, Controller: ptr.To(true),
		}},
	}}
	for i, device := range r.Devices.Claimed {
		made.Spec.Devices.Requests = append(made.Spec.Devices.Requests, resourcev1.DeviceRequest{
			Name: fmt.Sprintf("device-%d", i),
			Exactly: &resourcev1.ExactDeviceRequest{
				DeviceClassName: device.Class,
				Selectors:       []resourcev1.DeviceSelector{{CEL: &resourcev1.CELDeviceSelector{Expression: device.expression()}}},
				AllocationMode:  resourcev1.DeviceAllocationModeExactCount, Count: 1,
				Tolerations: []resourcev1.DeviceToleration{{
					Key: v1alpha1.DeviceTaintQuarantined, Operator: resourcev1.DeviceTolerationOpEqual, Value: r.Remediation.Name,
				}},
			},
		})
	}
	return made
}

// expression selects the device. A driver's other devices may lack the attribute, and to read one that is not there is an
// error, by which a node is passed over as a whole.
func (d Claimed) expression() string {
	return fmt.Sprintf("device.driver == %q && %q in device.attributes[%q] && device.attributes[%q][%q] == %q",
		d.Driver, d.Attribute, d.Driver, d.Driver, d.Attribute, d.Value)
}

// pin has the scheduler put the pod on one node, in the way of the DaemonSet controller: by the Node's name, not by a label
// that may say something else, and not by spec.nodeName, which goes past the scheduler and so past DRA. The terms of an
// affinity are alternatives, so that each gets it.
func pin(spec *corev1.PodSpec, node string) {
	here := corev1.NodeSelectorRequirement{Key: metav1.ObjectNameField, Operator: corev1.NodeSelectorOpIn, Values: []string{node}}
	if spec.Affinity == nil {
		spec.Affinity = &corev1.Affinity{}
	}
	if spec.Affinity.NodeAffinity == nil {
		spec.Affinity.NodeAffinity = &corev1.NodeAffinity{}
	}
	required := spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution
	if required == nil || len(required.NodeSelectorTerms) == 0 {
		required = &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{}}}
		spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution = required
	}
	for i := range required.NodeSelectorTerms {
		required.NodeSelectorTerms[i].MatchFields = append(required.NodeSelectorTerms[i].MatchFields, here)
	}
}

// environment is what the Job is told.
func environment(r Run) []corev1.EnvVar {
	return []corev1.EnvVar{
		{Name: EnvNode, Value: literal(r.Node.Name)},
		{Name: EnvDevices, Value: literal(strings.Join(r.devices(), ","))},
		{Name: EnvFaults, Value: literal(strings.Join(codes(r.Remediation), ","))},
		{Name: EnvRemediation, Value: literal(r.Remediation.Name)},
	}
}

// codes are those of the incident's faults, each once, the root's first.
func codes(rem *v1alpha1.Remediation) []string {
	list := []string{rem.Spec.Root.Code}
	if rem.Status.Evidence == nil {
		return list
	}
	for _, fault := range rem.Status.Evidence.Faults {
		if !slices.Contains(list, fault.Code) {
			list = append(list, fault.Code)
		}
	}
	return list
}

// literal keeps the kubelet from reading a reference to another variable into a value that came from a node.
func literal(value string) string { return strings.ReplaceAll(value, "$", "$$") }

// withEnv puts ours before the template's, so that the template's may refer to them, and drops the template's of the same name.
func withEnv(theirs, ours []corev1.EnvVar) []corev1.EnvVar {
	env := slices.Clone(ours)
	for _, variable := range theirs {
		if !slices.ContainsFunc(ours, func(o corev1.EnvVar) bool { return o.Name == variable.Name }) {
			env = append(env, variable)
		}
	}
	return env
}
