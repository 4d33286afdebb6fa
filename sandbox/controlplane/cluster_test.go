package controlplane

import (
	"context"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// contextOf is a context for clean-ups, where the test's own has ended.
func contextOf(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

var container = corev1.Container{Name: "main", Image: "example.test/none"}

// addPod makes a pod that stands on a node, or, where node is empty, waits for one.
func addPod(t *testing.T, name, node string, claims ...corev1.PodResourceClaim) *corev1.Pod {
	t.Helper()
	c := container
	for _, claim := range claims {
		c.Resources.Claims = append(c.Resources.Claims, corev1.ResourceClaim{Name: claim.Name})
	}
	pod, err := shared.client.CoreV1().Pods(metav1.NamespaceDefault).Create(t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PodSpec{
			NodeName: node, Containers: []corev1.Container{c}, ResourceClaims: claims,
			TerminationGracePeriodSeconds: new(int64),
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		err := shared.client.CoreV1().Pods(metav1.NamespaceDefault).Delete(contextOf(t), name, metav1.DeleteOptions{GracePeriodSeconds: new(int64)})
		if err != nil && !apierrors.IsNotFound(err) {
			t.Errorf("deleting pod %s: %v", name, err)
		}
	})
	return pod
}

func TestADeploymentsPodIsMadeAndPlaced(t *testing.T) {
	node := addNode(t, "deploy-node")
	labels := map[string]string{"app": "placed"}
	deployments := shared.client.AppsV1().Deployments(metav1.NamespaceDefault)
	_, err := deployments.Create(t.Context(), &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "placed"},
		Spec: appsv1.DeploymentSpec{
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec: corev1.PodSpec{
					Containers:   []corev1.Container{container},
					NodeSelector: map[string]string{corev1.LabelHostname: node.Name},
				},
			},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := deployments.Delete(contextOf(t), "placed", metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
	began := time.Now()
	eventually(t, 30*time.Second, "the pod has a node", func(ctx context.Context) (bool, error) {
		pods, err := shared.client.CoreV1().Pods(metav1.NamespaceDefault).List(ctx, metav1.ListOptions{LabelSelector: "app=placed"})
		if err != nil || len(pods.Items) != 1 {
			return false, err
		}
		return pods.Items[0].Spec.NodeName == node.Name, nil
	})
	t.Logf("from Deployment to a placed pod: %s", time.Since(began))
}

// TestATaintedDeviceLosesItsPodAndItsNeighbourKeepsIts shows by effect that dynamic
// resource allocation and DeviceTaintRules are on without any feature gate.
func TestATaintedDeviceLosesItsPodAndItsNeighbourKeepsIts(t *testing.T) {
	node := addNode(t, "dra-node")
	addDevices(t, node.Name, "gpu-0", "gpu-1")
	pods := map[string]string{} // device to the pod that was given it
	for _, name := range []string{"dra-a", "dra-b"} {
		addPod(t, name, "", corev1.PodResourceClaim{Name: "gpu", ResourceClaimTemplateName: new("one-gpu")})
		pods[allocatedDevice(t, name)] = name
	}
	if len(pods) != 2 {
		t.Fatalf("allocated devices = %v, want two different ones", pods)
	}

	rules := shared.client.ResourceV1().DeviceTaintRules()
	_, err := rules.Create(t.Context(), &resourcev1.DeviceTaintRule{
		ObjectMeta: metav1.ObjectMeta{Name: "bad"},
		Spec: resourcev1.DeviceTaintRuleSpec{
			DeviceSelector: &resourcev1.DeviceTaintSelector{Driver: new("gpu.test"), Pool: new(node.Name), Device: new("gpu-0")},
			Taint:          resourcev1.DeviceTaint{Key: "sandbox.test/bad", Effect: resourcev1.DeviceTaintEffectNoExecute},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := rules.Delete(contextOf(t), "bad", metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
	began := time.Now()
	eventually(t, 30*time.Second, "the pod on gpu-0 is evicted", func(ctx context.Context) (bool, error) {
		pod, err := shared.client.CoreV1().Pods(metav1.NamespaceDefault).Get(ctx, pods["gpu-0"], metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return true, nil
		}
		return err == nil && pod.DeletionTimestamp != nil, err
	})
	t.Logf("from DeviceTaintRule to eviction: %s", time.Since(began))
	other, err := shared.client.CoreV1().Pods(metav1.NamespaceDefault).Get(t.Context(), pods["gpu-1"], metav1.GetOptions{})
	if err != nil || other.DeletionTimestamp != nil {
		t.Errorf("the pod on gpu-1 was touched too: %v", err)
	}
}

// addDevices publishes a node's devices as a DRA driver would, with a class and a
// claim template that asks for one of them.
func addDevices(t *testing.T, node string, names ...string) {
	t.Helper()
	client, ctx := shared.client.ResourceV1(), t.Context()
	devices := make([]resourcev1.Device, 0, len(names))
	for _, name := range names {
		devices = append(devices, resourcev1.Device{Name: name})
	}
	if _, err := client.DeviceClasses().Create(ctx, &resourcev1.DeviceClass{
		ObjectMeta: metav1.ObjectMeta{Name: "gpu.test"},
		Spec: resourcev1.DeviceClassSpec{Selectors: []resourcev1.DeviceSelector{
			{CEL: &resourcev1.CELDeviceSelector{Expression: `device.driver == "gpu.test"`}},
		}},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.ResourceSlices().Create(ctx, &resourcev1.ResourceSlice{
		ObjectMeta: metav1.ObjectMeta{Name: node},
		Spec: resourcev1.ResourceSliceSpec{
			Driver: "gpu.test", NodeName: &node, Devices: devices,
			Pool: resourcev1.ResourcePool{Name: node, Generation: 1, ResourceSliceCount: 1},
		},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.ResourceClaimTemplates(metav1.NamespaceDefault).Create(ctx, &resourcev1.ResourceClaimTemplate{
		ObjectMeta: metav1.ObjectMeta{Name: "one-gpu"},
		Spec: resourcev1.ResourceClaimTemplateSpec{Spec: resourcev1.ResourceClaimSpec{Devices: resourcev1.DeviceClaim{
			Requests: []resourcev1.DeviceRequest{{Name: "gpu", Exactly: &resourcev1.ExactDeviceRequest{DeviceClassName: "gpu.test"}}},
		}}},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// allocatedDevice waits until a pod stands on a node and returns the device it was given.
func allocatedDevice(t *testing.T, pod string) string {
	t.Helper()
	device := ""
	eventually(t, 30*time.Second, "pod "+pod+" was given a device", func(ctx context.Context) (bool, error) {
		live, err := shared.client.CoreV1().Pods(metav1.NamespaceDefault).Get(ctx, pod, metav1.GetOptions{})
		if err != nil || live.Spec.NodeName == "" || len(live.Status.ResourceClaimStatuses) == 0 {
			return false, err
		}
		name := *live.Status.ResourceClaimStatuses[0].ResourceClaimName
		claim, err := shared.client.ResourceV1().ResourceClaims(metav1.NamespaceDefault).Get(ctx, name, metav1.GetOptions{})
		if err != nil || claim.Status.Allocation == nil {
			return false, err
		}
		device = claim.Status.Allocation.Devices.Results[0].Device
		return true, nil
	})
	return device
}
