package controller

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"unique"

	batchv1 "k8s.io/api/batch/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	lifecyclev1alpha1 "k8s.io/api/lifecycle/v1alpha1"
	policyv1 "k8s.io/api/policy/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

// cacheOptions says what is kept in memory. At 30,000 nodes it is the Nodes that count, so what nobody reads is cut away;
// of NodeHealths only those that are not Healthy are watched at all; of Pods only the agents'.
//
// A NodeHealth that is not found in the cache is thus healthy, or does not exist: ask the API reader which.
func cacheOptions(c Config) cache.Options {
	return cache.Options{
		// A kind that is not listed in warmCaches is a mistake, not a reason for another watch of the whole cluster.
		ReaderFailOnMissingInformer: true,
		DefaultTransform:            cache.TransformStripManagedFields(),
		ByObject: map[client.Object]cache.ByObject{
			&v1alpha1.NodeHealth{}: {
				Field: fields.OneTermNotEqualSelector("status.summary", string(v1alpha1.SummaryHealthy)),
			},
			&corev1.Node{}: {Transform: stripNode},
			&corev1.Pod{}: {
				Namespaces: map[string]cache.Config{c.AgentNamespace: {LabelSelector: c.AgentSelector}},
				Transform:  stripPod,
			},
		},
	}
}

// cached lists the kinds that are watched.
func cached(c Config) []client.Object {
	kinds := []client.Object{
		&corev1.Node{},
		&v1alpha1.NodeHealth{},
		&v1alpha1.Remediation{},
		&v1alpha1.RemediationPolicy{},
		&v1alpha1.RemediationHold{},
		&v1alpha1.NodeDisruptionBudget{},
		&v1alpha1.DeviceRecord{},
	}
	if !c.AgentsElsewhere {
		kinds = append(kinds, &corev1.Pod{})
	}
	return kinds
}

// uncached lists the kinds that are asked for when they matter, by the client that otherwise reads from the cache. The
// agents' Pods are read from the cache itself.
func uncached() []client.Object {
	return []client.Object{
		&corev1.Pod{},
		&corev1.Secret{},
		&corev1.ConfigMap{},
		&corev1.Namespace{},
		&batchv1.Job{},
		&coordinationv1.Lease{},
		&policyv1.PodDisruptionBudget{},
		&lifecyclev1alpha1.EvictionRequest{},
		&lifecyclev1alpha1.Eviction{},
		&resourcev1.ResourceSlice{},
		&resourcev1.ResourceClaim{},
		&resourcev1.DeviceTaintRule{},
	}
}

// warmCaches starts the watches before this process leads, so that a new leader knows the cluster at once.
func warmCaches(ctx context.Context, informers cache.Cache, c Config) error {
	for _, kind := range cached(c) {
		if _, err := informers.GetInformer(ctx, kind, cache.BlockUntilSynced(false)); err != nil {
			return fmt.Errorf("caching %T: %w", kind, err)
		}
	}
	return nil
}

// newCache makes the cache that the options ask for.
func newCache(config *rest.Config, options cache.Options) (cache.Cache, error) {
	made, err := cache.New(config, options)
	if err != nil {
		return nil, fmt.Errorf("making the cache: %w", err)
	}
	return stoppable{made}, nil
}

// stoppable is a cache whose filling is waited for until the context ends, and not in vain. A manager that is stopped
// before its cache is filled otherwise never hears that the cache's start is over, and turns in a loop for ever
// (controller-runtime v0.25.2, pkg/manager/runnable_group.go, Start).
type stoppable struct{ cache.Cache }

// WaitForCacheSync says whether there is nothing left to wait for.
func (s stoppable) WaitForCacheSync(ctx context.Context) bool {
	return s.Cache.WaitForCacheSync(ctx) || ctx.Err() != nil
}

// cachesSynced is ready once every watch has its first list.
func cachesSynced(mgr ctrl.Manager) func(*http.Request) error {
	return func(request *http.Request) error {
		if !mgr.GetCache().WaitForCacheSync(request.Context()) || request.Context().Err() != nil {
			return fmt.Errorf("the caches are not filled yet")
		}
		return nil
	}
}

// stripNode keeps of a Node what some loop reads. Texts that are the same on thousands of nodes are kept once.
func stripNode(object any) (any, error) {
	node, ok := object.(*corev1.Node)
	if !ok {
		return object, nil // A tombstone of the informer.
	}
	node.ManagedFields = nil
	for key := range node.Annotations {
		if !keepsAnnotation(key) {
			delete(node.Annotations, key)
		}
	}
	node.Labels = shared(node.Labels)
	node.Spec = corev1.NodeSpec{
		ProviderID:    node.Spec.ProviderID,
		Taints:        node.Spec.Taints,
		Unschedulable: node.Spec.Unschedulable,
	}
	conditions := node.Status.Conditions
	for i := range conditions {
		conditions[i].Type = corev1.NodeConditionType(once(string(conditions[i].Type)))
		conditions[i].Reason = once(conditions[i].Reason)
		conditions[i].Message = once(conditions[i].Message)
	}
	node.Status = corev1.NodeStatus{
		Conditions:  conditions,
		Capacity:    devicesOnly(node.Status.Capacity),
		Allocatable: devicesOnly(node.Status.Allocatable),
		NodeInfo: corev1.NodeSystemInfo{
			BootID:         node.Status.NodeInfo.BootID,
			KubeletVersion: once(node.Status.NodeInfo.KubeletVersion),
		},
	}
	return node, nil
}

// keepsAnnotation drops the annotations that are large and that nobody here reads.
func keepsAnnotation(key string) bool {
	switch key {
	case corev1.LastAppliedConfigAnnotation, "csi.volume.kubernetes.io/nodeid",
		"volumes.kubernetes.io/controller-managed-attach-detach", "node.alpha.kubernetes.io/ttl":
		return false
	}
	// Feature discovery keeps its books here.
	return !strings.HasPrefix(key, "nfd.node.kubernetes.io/")
}

// devicesOnly keeps extended resources, which devices are; CPU, memory and the kubelet's others have no domain or its own.
func devicesOnly(resources corev1.ResourceList) corev1.ResourceList {
	var devices corev1.ResourceList
	for name, quantity := range resources {
		if domain, _, qualified := strings.Cut(string(name), "/"); !qualified || strings.HasSuffix(domain, "kubernetes.io") {
			continue
		}
		if devices == nil {
			devices = corev1.ResourceList{}
		}
		devices[name] = quantity
	}
	return devices
}

// shared makes the texts of a map the same memory on every node.
func shared(set map[string]string) map[string]string {
	if len(set) == 0 {
		return nil
	}
	result := make(map[string]string, len(set))
	for key, value := range set {
		result[once(key)] = once(value)
	}
	return result
}

// once gives the one copy of a text.
func once(text string) string { return unique.Make(text).Value() }

// stripPod keeps of an agent's Pod where it is and whether it is Ready.
func stripPod(object any) (any, error) {
	pod, ok := object.(*corev1.Pod)
	if !ok {
		return object, nil
	}
	pod.ManagedFields, pod.Annotations, pod.OwnerReferences = nil, nil, nil
	pod.Spec = corev1.PodSpec{NodeName: pod.Spec.NodeName}
	var ready []corev1.PodCondition
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodReady {
			ready = append(ready, condition)
		}
	}
	pod.Status = corev1.PodStatus{Phase: pod.Status.Phase, Conditions: ready}
	return pod, nil
}
