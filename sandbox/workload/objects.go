package workload

import (
	"fmt"
	"maps"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/roundhouse-dev/roundhouse/sandbox/fleet"
)

const (
	// gangLabel is the co-scheduling plugin's; Roundhouse knows a gang's pods by it.
	gangLabel = "scheduling.x-k8s.io/pod-group"
	// backoffLimit lets a Job outlive as many reboots as a demonstration has.
	backoffLimit = 100
	// grace is how long a pod may take to end.
	grace = 5
)

// objects are what a workload is made of: what has to be there first, in order, and the rest.
func objects(w Workload) (first, rest []client.Object) {
	first = append(first, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: w.Namespace}})
	if w.GPUs > 0 && !w.DevicePlugin {
		first = append(first, claimTemplate(w))
	}
	meta := metav1.ObjectMeta{Namespace: w.Namespace, Name: w.Name}
	switch w.Kind {
	case Jobs:
		for i := range w.Count {
			one := meta
			if w.Count > 1 {
				one.Name = fmt.Sprintf("%s-%d", w.Name, i)
			}
			rest = append(rest, &batchv1.Job{ObjectMeta: one, Spec: jobSpec(w, 1)})
		}
	case Gang:
		rest = append(rest, &batchv1.Job{ObjectMeta: meta, Spec: jobSpec(w, int32(w.Count))})
	case Service:
		rest = append(rest, &appsv1.Deployment{ObjectMeta: meta, Spec: deploymentSpec(w)}, disruptionBudget(w))
	case Prewarmed:
		rest = append(rest, &appsv1.Deployment{ObjectMeta: meta, Spec: deploymentSpec(w)})
	}
	return first, rest
}

// claimTemplate asks for a pod's devices by DRA.
func claimTemplate(w Workload) *resourcev1.ResourceClaimTemplate {
	return &resourcev1.ResourceClaimTemplate{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.Namespace, Name: w.Name},
		Spec: resourcev1.ResourceClaimTemplateSpec{Spec: resourcev1.ResourceClaimSpec{Devices: resourcev1.DeviceClaim{
			Requests: []resourcev1.DeviceRequest{{
				Name: "gpus",
				Exactly: &resourcev1.ExactDeviceRequest{
					DeviceClassName: fleet.DeviceClass, AllocationMode: resourcev1.DeviceAllocationModeExactCount, Count: int64(w.GPUs),
				},
			}},
		}}},
	}
}

// jobSpec is a Job of some pods at once. A gang's are indexed, as distributed training wants them.
func jobSpec(w Workload, pods int32) batchv1.JobSpec {
	spec := batchv1.JobSpec{
		Parallelism: &pods, Completions: &pods, BackoffLimit: ptr.To(int32(backoffLimit)), Template: template(w),
		// A pod that was evicted, or lost to a reboot, is no failure of the work.
		PodFailurePolicy: &batchv1.PodFailurePolicy{Rules: []batchv1.PodFailurePolicyRule{{
			Action: batchv1.PodFailurePolicyActionIgnore,
			OnPodConditions: []batchv1.PodFailurePolicyOnPodConditionsPattern{{
				Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue,
			}},
		}}},
	}
	spec.Template.Spec.RestartPolicy = corev1.RestartPolicyNever
	if w.Kind == Gang {
		spec.CompletionMode = ptr.To(batchv1.IndexedCompletion)
	}
	return spec
}

func deploymentSpec(w Workload) appsv1.DeploymentSpec {
	return appsv1.DeploymentSpec{
		Replicas: ptr.To(int32(w.Count)), Template: template(w),
		Selector: &metav1.LabelSelector{MatchLabels: map[string]string{labelWorkload: w.Name}},
	}
}

func disruptionBudget(w Workload) *policyv1.PodDisruptionBudget {
	keep := max(w.Count-1, 0)
	if w.MinAvailable != nil {
		keep = *w.MinAvailable
	}
	return &policyv1.PodDisruptionBudget{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.Namespace, Name: w.Name},
		Spec: policyv1.PodDisruptionBudgetSpec{
			MinAvailable: ptr.To(intstr.FromInt32(int32(keep))),
			Selector:     &metav1.LabelSelector{MatchLabels: map[string]string{labelWorkload: w.Name}},
		},
	}
}

// template is the pod of every kind.
func template(w Workload) corev1.PodTemplateSpec {
	labels := map[string]string{labelWorkload: w.Name}
	maps.Copy(labels, w.Labels)
	switch w.Kind {
	case Gang:
		labels[gangLabel] = w.Name
	case Prewarmed:
		labels["session"] = "prewarmed"
	case Jobs, Service:
	}
	annotations := maps.Clone(w.Annotations)
	if w.RunFor > 0 {
		if annotations == nil {
			annotations = map[string]string{}
		}
		annotations[fleet.AnnotationRunFor] = w.RunFor.String()
	}
	selector := maps.Clone(w.NodeSelector)
	if w.Node != "" {
		if selector == nil {
			selector = map[string]string{}
		}
		selector[corev1.LabelHostname] = w.Node
	}
	pod := corev1.PodSpec{
		NodeSelector: selector, TerminationGracePeriodSeconds: ptr.To(int64(grace)),
		Containers: []corev1.Container{{Name: "main", Image: "example.test/" + w.Name}},
	}
	if w.Responder != "" {
		// The priority that KEP-4563 gives to a pod's own controller.
		pod.EvictionResponders = []corev1.EvictionResponder{{Name: w.Responder, Priority: ptr.To[int32](10000)}}
	}
	if w.Prefer != "" {
		pod.Affinity = prefer(w.Prefer)
	}
	hold(&pod, w)
	return corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels, Annotations: annotations}, Spec: pod}
}

// prefer has the scheduler choose a node before all others that have room.
func prefer(node string) *corev1.Affinity {
	on := corev1.NodeSelectorRequirement{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{node}}
	return &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
		PreferredDuringSchedulingIgnoredDuringExecution: []corev1.PreferredSchedulingTerm{{
			Weight: 100, Preference: corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{on}},
		}},
	}}
}

// hold gives a pod its devices.
func hold(pod *corev1.PodSpec, w Workload) {
	switch {
	case w.GPUs == 0:
	case w.DevicePlugin:
		want := corev1.ResourceList{fleet.PluginResource: *resource.NewQuantity(int64(w.GPUs), resource.DecimalSI)}
		pod.Containers[0].Resources = corev1.ResourceRequirements{Requests: want, Limits: want}
	default:
		pod.ResourceClaims = []corev1.PodResourceClaim{{Name: "gpus", ResourceClaimTemplateName: &w.Name}}
		pod.Containers[0].Resources.Claims = []corev1.ResourceClaim{{Name: "gpus"}}
	}
}
